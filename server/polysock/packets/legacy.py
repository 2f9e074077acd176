"""Socket.IO 0.9: the packets of clients 0.7 to 0.9, ``type:id[+]:endpoint[:data]``.

An endpoint is a namespace, ``/`` being the empty one, with the query that the client named it with: the client knows
its endpoints by the whole text, so every packet to it carries the query too (``named``).  The sources are the
specification of that generation (socket.io-spec, protocol 1) and the parsers of client 0.9.17 and server 0.9.19; where
these differ, the programs count.

There is no binary.  Bytes in a broadcast to a mixed room go out as ``{"#base64": "..."}``, as the plain form has them,
and come in as that.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from polysock_transports import ProtocolError

from . import RESERVED_EVENTS, Ack, Connect, ConnectError, Disconnect, Event, Packet, Rules, dumps, loads
from .plain import from_json, to_json
from .socketio import split_query

__all__ = ["SOCKETIO09", "Legacy", "LegacyReader"]

_DISCONNECT, _CONNECT, _HEARTBEAT, _MESSAGE, _JSON, _EVENT, _ACK, _ERROR, _NOOP = "012345678"
_PACKET = re.compile(r"([0-8])(?::(?:([0-9]{1,15})(\+)?)?:([^:]*)(?::(.*))?)?\Z", re.DOTALL)
_ANSWER = re.compile(r"([0-9]{1,15})(?:\+(.*))?\Z", re.DOTALL)

# The reasons of an error are 0 to 2, and only "unauthorized" makes the client emit `connect_failed` on that endpoint,
# which is the event that tells an application of a namespace it cannot enter. Any other reason, or none, is an `error`
# without a word in it, and 0 and 1 would be untrue; an advice ends the whole connection. So a namespace that does not
# exist is refused like one that the client may not enter, instead of with the reference server's silence.
_UNAUTHORIZED = "2"

#: Names that the specification reserves for what the libraries themselves report, and that no client may send.
#: ``message`` is reserved too and is let in all the same: it is what types 3 and 4 become anyway, the reference server
#: takes it, and ``emit("message", ...)`` is how a client sends one of several values.
REFUSED_EVENTS = RESERVED_EVENTS | {"error", "open", "close", "retry", "reconnect"}


def _is_text(value: str) -> bool:
    """Whether *value* can be UTF-8: half a surrogate pair cannot, and needs JSON's escape."""
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            return False
    return True


def _to_text(value: Any) -> str:
    """*value* as JSON.  Raises TypeError or ValueError for what cannot travel."""
    try:
        text = dumps(value)
    except TypeError:
        # There may be bytes in it. To look for them first would cost every broadcast.
        try:
            text = dumps(to_json(value))
        except RecursionError:
            raise ValueError("the arguments are nested too deep") from None
    # Clients from 0.9.15 on make a slash of backslash and slash in whatever an htmlfile brings them.
    return text.replace("\\/", "\\\\u002f") if "\\/" in text else text


class Legacy:
    """The codec; ``SOCKETIO09`` serves all clients but those whose namespace has a query."""

    name = "socketio09"
    # That a client is in `/` from its first transport on, unasked, is the session's doing: it asks in its place.
    rules = Rules(forgiving=True, main_is_all=True, socket_id=lambda session_id, namespace: session_id)

    def __init__(self, query: str = "") -> None:
        self._suffix = query and "?" + query

    def named(self, query: str) -> Legacy:
        """The codec that writes *query* (without ``?``) after every namespace; this one where it is empty."""
        return Legacy(query) if query else self

    def encode(self, packet: Packet) -> Sequence[str | bytes]:
        endpoint = ("" if packet.namespace == "/" else packet.namespace) + self._suffix
        if isinstance(packet, Event):
            return (_event(packet, endpoint),)
        if isinstance(packet, Ack):
            head = f"{_ACK}::{endpoint}:{packet.ack_id}"
            if not packet.args:
                return (head,)
            # The client reads the values with a pattern whose dot stops at these two, and would lose them all.
            values = _to_text(list(packet.args)).replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
            return (f"{head}+{values}",)
        if isinstance(packet, Connect):
            return (f"{_CONNECT}::{endpoint}" + (f"?{packet.query}" if packet.query and not self._suffix else ""),)
        if isinstance(packet, ConnectError):
            return (f"{_ERROR}::{endpoint}:{_UNAUTHORIZED}",)
        return (f"{_DISCONNECT}::{endpoint}",)

    def reader(self, *, max_attachments: int, max_attachment_bytes: int) -> LegacyReader:
        return LegacyReader()


SOCKETIO09 = Legacy()


def _event(packet: Event, endpoint: str) -> str:
    name, args = packet.name, packet.args
    number = "" if packet.receipt is None else str(packet.receipt)
    if packet.ack_id is not None:
        # 0.9 counts from 1. With a plain id the client would never answer an event: only `+` makes it.
        number = f"{packet.ack_id + 1}+"
    elif name == "message" and len(args) == 1:
        (value,) = args
        if not isinstance(value, str):
            return f"{_JSON}:{number}:{endpoint}:{_to_text(value)}"
        if _is_text(value) and "\\/" not in value:
            return f"{_MESSAGE}:{number}:{endpoint}:{value}"
    body = {"name": name, "args": list(args)} if args else {"name": name}
    return f"{_EVENT}:{number}:{endpoint}:{_to_text(body)}"


class LegacyReader:
    """One client's packets.  The session has taken the heartbeats out; a stray one is nothing."""

    __slots__ = ()

    def feed(self, message: str | bytes) -> Packet | None:
        found = _PACKET.match(message) if isinstance(message, str) else None
        if found is None:
            raise ProtocolError("Not a packet of Socket.IO 0.9.")
        kind, number, plus, endpoint, data = found.groups()
        namespace, query = split_query(endpoint or "")
        if not _is_text(namespace + query):
            raise ProtocolError("A namespace's name is not text.")
        if kind == _CONNECT:
            return Connect(namespace, query=query)
        if kind == _DISCONNECT:
            return Disconnect(namespace)
        if kind in (_HEARTBEAT, _ERROR, _NOOP):
            return None
        if endpoint is None:
            raise ProtocolError("A packet needs its colons.")
        answer = _ANSWER.match(data or "") if kind == _ACK else None
        if kind == _ACK and answer is None:
            raise ProtocolError("An ack needs the id it answers.")
        ack_id = int(number) if plus else None
        receipt = int(number) if number and not plus else None
        if kind == _MESSAGE:
            return Event(namespace, "message", [data or ""], ack_id, receipt)
        try:
            value = from_json(loads((answer[2] or "[]") if answer else data or ""))
        except (ProtocolError, RecursionError):
            return None  # the reference server does not end a connection for bad JSON either
        if answer:
            answered = int(answer[1]) - 1
            return Ack(namespace, answered, value) if answered >= 0 and isinstance(value, list) else None
        if kind == _JSON:
            return Event(namespace, "message", [value], ack_id, receipt)
        name, args = (value.get("name"), value.get("args")) if isinstance(value, dict) else (None, None)
        if isinstance(name, int) and not isinstance(name, bool):
            name = str(name)
        if not isinstance(name, str) or name in REFUSED_EVENTS or not isinstance(args, (list, type(None))):
            return None
        return Event(namespace, name, args or [], ack_id, receipt)
