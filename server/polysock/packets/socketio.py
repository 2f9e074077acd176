"""Socket.IO protocol 5: packets as text with binary attachments.

Source: the Socket.IO protocol text, revision 5.  ``TEXT_ONLY`` is the same for sessions that carry no binary: an
attachment is then ``b`` and base64, the form Engine.IO 4 uses on polling.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from polysock_transports import ProtocolError
from polysock_transports.errors import MESSAGE_TOO_BIG

from . import RESERVED_EVENTS, Ack, Connect, ConnectError, Disconnect, Event, Packet, Rules, dumps, loads

__all__ = ["BINARY", "MAX_NAMESPACE_CHARS", "MAX_QUERY_CHARS", "TEXT_ONLY", "SocketIO", "SocketIOReader", "split_query"]

_CONNECT, _DISCONNECT, _EVENT, _ACK, _CONNECT_ERROR, _BINARY_EVENT, _BINARY_ACK = "0123456"
_BINARY_TYPES = _BINARY_EVENT + _BINARY_ACK
#: An event in "/" that wants no answer and has no attachments, as most are: its head needs no taking apart.
_PLAIN_EVENT = _EVENT + "["
_HEAD = re.compile(r"([0-6])(?:([0-9]{1,6})-)?(?:(/[^,]*)(?:,|\Z))?([0-9]{1,15})?(.*)\Z", re.DOTALL)

#: Longest name of a namespace.
MAX_NAMESPACE_CHARS = 256
#: Longest query that may follow one (protocol 4 and 0.9): enough for a token, as URLs carry them.
MAX_QUERY_CHARS = 4096


def split_query(name: str) -> tuple[str, str]:
    """*name* as it stands in a packet of protocol 4 or 0.9: the namespace, and its query without the ``?``.

    Raises ProtocolError where one of them is too long.
    """
    namespace, _, query = name.partition("?")
    if len(namespace) > MAX_NAMESPACE_CHARS or len(query) > MAX_QUERY_CHARS:
        raise ProtocolError("The namespace's name or its query is too long.")
    return namespace or "/", query


def _take_binary(value: Any, attachments: list[bytes]) -> Any:
    """*value* with each bytes object replaced by a placeholder; the same object where there is none."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        attachments.append(bytes(value))
        return {"_placeholder": True, "num": len(attachments) - 1}
    if isinstance(value, dict):
        return {key: _take_binary(item, attachments) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_take_binary(item, attachments) for item in value]
    return value


_PLAIN_TYPES = frozenset((str, int, float, bool, type(None)))


def _is_plain(values: Iterable[Any]) -> bool:
    """Whether JSON carries *values* as they are: there are no bytes in them, and no types but JSON's own."""
    for value in values:
        kind = type(value)
        if kind in _PLAIN_TYPES:
            continue
        if kind is dict:
            if not _is_plain(value.values()):
                return False
        elif not (kind is list or kind is tuple) or not _is_plain(value):
            return False
    return True


class SocketIO:
    """The codec; ``BINARY`` and ``TEXT_ONLY`` are its two instances."""

    rules = Rules()
    #: Makes the JSON in every packet.
    _json: Callable[[Any], str] = staticmethod(dumps)

    def __init__(self, name: str, *, text_only: bool) -> None:
        self.name = name
        self._text_only = text_only

    def named(self, query: str) -> SocketIO:
        return self

    def encode(self, packet: Packet) -> Sequence[str | bytes]:
        namespace = "" if packet.namespace == "/" else f"{packet.namespace},"
        if isinstance(packet, Event):
            return self._with_attachments(_EVENT, _BINARY_EVENT, namespace, packet.ack_id, [packet.name, *packet.args])
        if isinstance(packet, Ack):
            return self._with_attachments(_ACK, _BINARY_ACK, namespace, packet.ack_id, list(packet.args))
        if isinstance(packet, Connect):
            return (_CONNECT + self._connect(packet, namespace),)
        if isinstance(packet, ConnectError):
            return (_CONNECT_ERROR + namespace + self._refusal(packet),)
        return (_DISCONNECT + namespace,)

    def _connect(self, packet: Connect, namespace: str) -> str:
        """What follows the type of a CONNECT; *namespace* is as other packets carry it."""
        return namespace + (self._json(packet.data) if packet.data is not None else "")

    def _refusal(self, packet: ConnectError) -> str:
        """The JSON of a CONNECT_ERROR."""
        body = {"message": packet.message}
        if packet.data is not None:
            body["data"] = packet.data
        return self._json(body)

    def _with_attachments(
        self, plain: str, binary: str, namespace: str, ack_id: int | None, values: list[Any]
    ) -> Sequence[str | bytes]:
        number = "" if ack_id is None else str(ack_id)
        attachments: list[bytes] = []
        try:
            if not _is_plain(values):
                values = _take_binary(values, attachments)
        except RecursionError:
            raise ValueError("the arguments are nested too deep") from None
        if not attachments:
            return (plain + namespace + number + self._json(values),)
        text = f"{binary}{len(attachments)}-{namespace}{number}{self._json(values)}"
        if self._text_only:
            return (text, *("b" + b64encode(data).decode("ascii") for data in attachments))
        return (text, *attachments)

    def reader(self, *, max_attachments: int, max_attachment_bytes: int, from_server: bool = False) -> SocketIOReader:
        """With *from_server* a reader for a client's side, which also knows CONNECT_ERROR and reserved names."""
        return SocketIOReader(self._text_only, max_attachments, max_attachment_bytes, from_server)


#: For sessions that carry binary messages.
BINARY = SocketIO("socketio5", text_only=False)
#: For sessions that carry text only, SockJS above all.
TEXT_ONLY = SocketIO("socketio5-text", text_only=True)


class SocketIOReader:
    """One client's packets."""

    __slots__ = (
        "_attachments",
        "_bytes",
        "_from_server",
        "_limit",
        "_max_attachments",
        "_missing",
        "_text_only",
        "_waiting",
    )

    #: Fewest attachments of a packet that announces some.
    _min_attachments = 1

    def __init__(
        self, text_only: bool, max_attachments: int, max_attachment_bytes: int, from_server: bool = False
    ) -> None:
        self._from_server = from_server
        self._text_only = text_only
        self._max_attachments = max_attachments
        self._limit = max_attachment_bytes
        self._waiting: Event | Ack | None = None
        self._missing = 0
        self._bytes = 0
        self._attachments: list[bytes] = []

    def feed(self, message: str | bytes) -> Packet | None:
        if isinstance(message, bytes):
            return self._attachment(message)
        if self._text_only and message[:1] == "b":
            try:
                return self._attachment(b64decode(message[1:], validate=True))
            except (Base64Error, ValueError):
                raise ProtocolError("An attachment is not base64.") from None
        if self._waiting is not None:
            raise ProtocolError("Text came while attachments are missing.")
        return self._text(message)

    def _text(self, text: str) -> Packet | None:
        if text.startswith(_PLAIN_EVENT):
            values = loads(text[1:])
            return Event("/", _event_name(values), values[1:])
        found = _HEAD.match(text)
        if found is None:
            raise ProtocolError("Not a packet.")
        kind, count, namespace, number, body = found.groups()
        namespace, query = self._asked(namespace or "/") if kind == _CONNECT else (namespace or "/", "")
        if len(namespace) > MAX_NAMESPACE_CHARS:
            raise ProtocolError("The namespace's name is too long.")
        if (count is not None) != (kind in _BINARY_TYPES):
            raise ProtocolError("Attachments belong to binary packets, and to no others.")
        ack_id = int(number) if number is not None else None
        if kind == _CONNECT:
            data = loads(body) if body else None
            if ack_id is not None or not isinstance(data, (dict, type(None))):
                raise ProtocolError("A connect packet carries an object or nothing.")
            return Connect(namespace, data, query)
        if kind == _DISCONNECT:
            if ack_id is not None or body:
                raise ProtocolError("A disconnect packet carries nothing.")
            return Disconnect(namespace)
        if kind == _CONNECT_ERROR:
            return self._refusal(namespace, number or "", body)
        values = loads(body) if body else None
        if not isinstance(values, list):
            raise ProtocolError("An event or ack packet carries an array.")
        packet: Event | Ack
        if kind in (_EVENT, _BINARY_EVENT):
            packet = Event(namespace, _event_name(values), values[1:], ack_id)
        elif ack_id is None:
            raise ProtocolError("An ack needs the id it answers.")
        else:
            packet = Ack(namespace, ack_id, values)
        if count is None:
            return packet
        missing = int(count)
        if not self._min_attachments <= missing <= self._max_attachments:
            raise ProtocolError("Too many attachments, or none.", reason=MESSAGE_TOO_BIG)
        if not missing:
            return packet
        self._waiting, self._missing, self._bytes, self._attachments = packet, missing, 0, []
        return None

    def _asked(self, name: str) -> tuple[str, str]:
        """The namespace that a CONNECT is for, and the query that came with it."""
        return name, ""

    def _refusal(self, namespace: str, number: str, body: str) -> Packet | None:
        """A packet of type 4; *number* is what would be an ack id in others."""
        if not self._from_server:
            raise ProtocolError("Clients send no such packet.")
        error = loads(body) if body else None
        if not isinstance(error, dict):
            raise ProtocolError("A connect error carries an object.")
        return ConnectError(namespace, str(error.get("message")), error.get("data"))

    def _attachment(self, data: bytes) -> Packet | None:
        packet = self._waiting
        if packet is None:
            raise ProtocolError("A binary message came when none was announced.")
        self._bytes += len(data)
        if self._bytes > self._limit:
            raise ProtocolError("The attachments are too big.", reason=MESSAGE_TOO_BIG)
        self._attachments.append(data)
        if len(self._attachments) < self._missing:
            return None
        attachments, self._waiting, self._attachments = self._attachments, None, []
        named: list[int] = []
        try:
            args = _put_binary(list(packet.args), attachments, named)
        except RecursionError:
            raise ProtocolError("A packet is nested too deep.") from None
        if sum(named) > self._limit:
            # One attachment named a thousand times is a thousand attachments to whoever passes the event on.
            raise ProtocolError("The attachments are too big.", reason=MESSAGE_TOO_BIG)
        if isinstance(packet, Event):
            return Event(packet.namespace, packet.name, args, packet.ack_id)
        return Ack(packet.namespace, packet.ack_id, args)


def _event_name(values: list[Any]) -> str:
    name = values[0] if values else None
    if type(name) is str and name not in RESERVED_EVENTS:
        return name
    if isinstance(name, int) and not isinstance(name, bool):
        name = str(name)
    if not isinstance(name, str) or name in RESERVED_EVENTS:
        raise ProtocolError("An event needs a name that is not reserved.")
    return name


def _put_binary(value: Any, attachments: list[bytes], named: list[int]) -> Any:
    """*value* with its placeholders filled; *named* gains the length of the attachment at each of them."""
    if isinstance(value, dict):
        if value.get("_placeholder") is True:
            number = value.get("num")
            if type(number) is not int or not 0 <= number < len(attachments):
                raise ProtocolError("A placeholder names no attachment.")
            named.append(len(attachments[number]))
            return attachments[number]
        return {key: _put_binary(item, attachments, named) for key, item in value.items()}
    if isinstance(value, list):
        return [_put_binary(item, attachments, named) for item in value]
    return value
