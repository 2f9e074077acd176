"""The plain form: each message a JSON array, for clients without any library.

``["event", arg, ...]`` is an event, ``[7, "event", arg, ...]`` one whose sender wants the answer numbered 7, and
``["#ack", 7, value, ...]`` that answer.  Names that begin with ``#`` belong to the form itself: ``#connect`` (you are
in, with your id), ``#error`` (a namespace said no) and ``#disconnect`` (it was left).  Bytes travel as
``{"#base64": "..."}``.  See docs/wire-plain.md.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Sequence
from typing import Any

from polysock_transports import ProtocolError

from . import RESERVED_EVENTS, Ack, Connect, ConnectError, Disconnect, Event, Packet, Rules, dumps, loads

__all__ = ["PLAIN_PACKETS", "PlainPackets", "PlainReader", "from_json", "to_json"]

_BASE64 = "#base64"
_ACK_ID_LIMIT = 10**15


def to_json(value: Any) -> Any:
    """*value* with its bytes as ``{"#base64": "..."}``.  Raises RecursionError for nesting without end."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {_BASE64: b64encode(bytes(value)).decode("ascii")}
    if isinstance(value, dict):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    return value


def from_json(value: Any) -> Any:
    """The other way.  Raises ProtocolError for what is not base64, RecursionError for nesting without end."""
    if isinstance(value, dict):
        if len(value) == 1 and isinstance(value.get(_BASE64), str):
            try:
                return b64decode(value[_BASE64], validate=True)
            except (Base64Error, ValueError):
                raise ProtocolError("A value marked as base64 is not.") from None
        return {key: from_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [from_json(item) for item in value]
    return value


class PlainPackets:
    """The codec for one namespace on one connection; ``PLAIN_PACKETS`` is its one instance."""

    name = "plain"
    rules = Rules()

    def named(self, query: str) -> PlainPackets:
        return self

    def encode(self, packet: Packet) -> Sequence[str | bytes]:
        values: list[Any]
        if isinstance(packet, Event):
            values = [packet.name, *packet.args]
            if packet.ack_id is not None:
                values.insert(0, packet.ack_id)
        elif isinstance(packet, Ack):
            values = ["#ack", packet.ack_id, *packet.args]
        elif isinstance(packet, Connect):
            values = ["#connect", packet.data]
        elif isinstance(packet, ConnectError):
            values = ["#error", packet.message, *([] if packet.data is None else [packet.data])]
        else:
            values = ["#disconnect"]
        try:
            return (dumps(to_json(values)),)
        except RecursionError:
            raise ValueError("the arguments are nested too deep") from None

    def reader(self, *, max_attachments: int, max_attachment_bytes: int) -> PlainReader:
        return PlainReader()


PLAIN_PACKETS = PlainPackets()


class PlainReader:
    """One client's messages.  The namespace is not in them: it is the connection's, and reads ``/`` here."""

    def feed(self, message: str | bytes) -> Packet | None:
        if isinstance(message, bytes):
            try:
                message = message.decode("utf-8")
            except UnicodeDecodeError:
                raise ProtocolError("Not UTF-8 text.") from None
        values = loads(message)
        if not isinstance(values, list) or not values:
            raise ProtocolError("A message is a JSON array that begins with the event's name.")
        ack_id = None
        if type(values[0]) is int:
            ack_id = values.pop(0)
            if not 0 <= ack_id < _ACK_ID_LIMIT:
                raise ProtocolError("An ack id is a number from 0 to 10^15.")
        name = values[0] if values else None
        if not isinstance(name, str) or name in RESERVED_EVENTS:
            raise ProtocolError("An event needs a name that is not reserved.")
        try:
            args = from_json(values[1:])
        except RecursionError:
            raise ProtocolError("A message is nested too deep.") from None
        if not name.startswith("#"):
            return Event("/", name, args, ack_id)
        if name == "#disconnect":
            return Disconnect("/")
        if name == "#ack" and args and type(args[0]) is int and ack_id is None:
            return Ack("/", args[0], args[1:])
        raise ProtocolError("Names that begin with # belong to the protocol.")
