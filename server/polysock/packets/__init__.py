"""Packets: what travels inside a session's messages.  Pure, like the dialects: values in, text and bytes out."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import ujson

from polysock_transports import ProtocolError

__all__ = [
    "RESERVED_EVENTS",
    "Ack",
    "Connect",
    "ConnectError",
    "Disconnect",
    "Event",
    "Packet",
    "PacketCodec",
    "PacketReader",
    "Rules",
    "check_event",
    "dumps",
    "loads",
]

#: Names that belong to the library on both sides (Socket.IO protocol 5): no client may send them, no server emit them.
RESERVED_EVENTS = frozenset(
    ("connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener")
)


def check_event(event: object) -> str:
    """*event*, if a server may emit it.  Raises TypeError or ValueError."""
    if not isinstance(event, str):
        raise TypeError(f"an event's name is a str, not {type(event).__name__}")
    if event in RESERVED_EVENTS:
        raise ValueError(f"{event!r} is a reserved event name")
    return event


@dataclass(frozen=True, slots=True)
class Connect:
    """A client asks for a namespace (``data``: its auth payload), or is told that it is in (``{"sid": ...}``)."""

    namespace: str = "/"
    data: Any = None
    query: str = ""
    """A query that came with the namespace's name, without the ``?`` (protocol 4 and 0.9)."""


@dataclass(frozen=True, slots=True)
class ConnectError:
    """A namespace says no."""

    namespace: str
    message: str
    data: Any = None


@dataclass(frozen=True, slots=True)
class Disconnect:
    """One side leaves a namespace."""

    namespace: str = "/"


@dataclass(frozen=True, slots=True)
class Event:
    """An event; with ``ack_id`` its sender wants the application's answer."""

    namespace: str
    name: str
    args: Sequence[Any] = ()
    ack_id: int | None = None
    receipt: int | None = None
    """An id whose sender wants to hear at once, and without values, that the event has arrived (0.9)."""


@dataclass(frozen=True, slots=True)
class Ack:
    """The answer to the event with this ``ack_id``."""

    namespace: str
    ack_id: int
    args: Sequence[Any] = field(default=())


Packet = Connect | ConnectError | Disconnect | Event | Ack


@dataclass(frozen=True, slots=True)
class Rules:
    """How a generation of clients enters and leaves namespaces, where generations differ."""

    enters_main: bool = False
    """The server lets every client into ``/`` unasked; the client never asks for it."""
    forgiving: bool = False
    """Packets that fit no namespace of the client, and a second connect, are harmless; else they end the connection."""
    main_is_all: bool = False
    """Who leaves ``/`` leaves everything."""
    socket_id: Callable[[str, str], str] | None = None
    """(session id, namespace) -> the Socket's id, where the client works it out for itself."""


class PacketReader(Protocol):
    """Turns one client's messages into packets; holds what waits for its attachments."""

    def feed(self, message: str | bytes) -> Packet | None:
        """The packet that *message* completes, or None.  Raises ProtocolError, and nothing else, for anything."""


class PacketCodec(Protocol):
    """One text form of packets.  Codecs are compared by identity: make one instance and share it."""

    name: str
    rules: Rules

    def named(self, query: str) -> PacketCodec:
        """The codec for a client that asked for its namespace with *query*; mostly the same one."""

    def encode(self, packet: Packet) -> Sequence[str | bytes]:
        """The messages that carry *packet*, in order and with nothing between them.

        Empty where this form has no word for it.  Raises TypeError or ValueError for arguments that cannot travel.
        """

    def reader(self, *, max_attachments: int, max_attachment_bytes: int) -> PacketReader:
        """A reader for one client."""


def dumps(value: Any) -> str:
    """*value* as JSON.  Raises TypeError or ValueError for what JSON cannot carry: ``nan``, or nesting without end."""
    try:
        text = ujson.dumps(value, ensure_ascii=False, escape_forward_slashes=False, allow_nan=False)
        if not text.isascii():
            text.encode("utf-8")
    except UnicodeEncodeError:
        # A lone surrogate: JSON can carry it escaped, and a WebSocket's UTF-8 not as it is.
        return ujson.dumps(value, escape_forward_slashes=False, allow_nan=False)
    except (OverflowError, RecursionError) as error:
        raise ValueError(str(error)) from None
    return text


# What ujson reads as a number that is not finite, though JSON has none: the words, and numbers too large for a double
# (10^308), whose size may be in the exponent, in the digits, or in both.
_SUSPICIOUS = re.compile(r"NaN|Infinity|[0-9][eE]\+?[0-9]{3}|[0-9]{200}")


def _all_finite(value: Any) -> bool:
    waiting = [value]
    while waiting:
        item = waiting.pop()
        kind = type(item)
        if kind is float:
            if item != item or item in (float("inf"), float("-inf")):
                return False
        elif kind is list:
            waiting.extend(item)
        elif kind is dict:
            waiting.extend(item.values())
    return True


def loads(text: str) -> Any:
    """*text* as JSON.  Raises ProtocolError, for numbers that are not finite too: nobody could send them on."""
    try:
        value = ujson.loads(text)
    except (ValueError, RecursionError):
        raise ProtocolError("Invalid JSON in a packet.") from None
    if _SUSPICIOUS.search(text) and not _all_finite(value):
        raise ProtocolError("A number in a packet is out of range.")
    return value
