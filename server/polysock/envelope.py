"""Envelopes: the messages between nodes, as bytes.  Pure: values in, bytes out, and back.

A header in JSON, and behind it, where the message carries one, a packet of Socket.IO 5 with its attachments, which is
the form that has room for binary.  Each part has its length in four bytes in front, most significant first::

    length header  [length text-of-the-packet  [length attachment] ...]

``header``: ``v`` (1), ``kind``, ``from`` (the sender's id), ``seq`` (counts its messages), and what the kind needs.
Packets of Socket.IO cannot tell a value of somebody's own that looks like a placeholder for binary from one: where both
are in a packet, ``escaped`` says that the key ``_placeholder`` of such values has one more stroke in front.
Keys that are not known are ignored; an unknown version or kind is a ProtocolError, as are any other bytes that are no
envelope.  Nothing is ever unpickled.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from polysock_transports import ProtocolError
from polysock_transports.placement import NODE_ID_CHARS, Node

from .hub import EVERYONE, Target
from .limits import ClusterLimits
from .packets import Ack, Event, Packet, dumps, loads
from .packets.socketio import BINARY

__all__ = ["Answer", "Ask", "Bye", "Emit", "Envelope", "EnvelopeTooBig", "Hello", "decode", "encode"]

VERSION = 1

_LENGTH_BYTES = 4
_MAX_NUMBER = 2**53  # what every JSON reader keeps exact
_MAX_NODE_TEXT_CHARS = 255  # a host's name, an address, the path of a Unix socket
_NODE_ID = re.compile(f"[A-Za-z0-9]{{{NODE_ID_CHARS}}}\\Z")
_PLACEHOLDER = '"_placeholder"'
_LOOKS_LIKE_ONE = re.compile(r"_+placeholder\Z")

_T = TypeVar("_T")


class EnvelopeTooBig(ValueError):
    """More bytes, names or binary values than a message between nodes may have."""


@dataclass(frozen=True, slots=True)
class Hello:
    """A node says that it is there; ``node.id`` is the sender."""

    seq: int
    node: Node
    is_reply: bool = False
    """Sent to one node that is new; it is not answered."""

    @property
    def sender(self) -> str:
        return self.node.id


@dataclass(frozen=True, slots=True)
class Bye:
    """A node leaves."""

    sender: str
    seq: int


@dataclass(frozen=True, slots=True)
class Emit:
    """An event for everybody that ``target`` means."""

    sender: str
    seq: int
    packet: Event
    """With the namespace; never with an ack id."""
    target: Target = EVERYONE
    volatile: bool = False
    is_twice: bool = False
    """It travels on two channels, and a node may get it on both."""
    is_direct: bool = False
    """The one room of ``target`` is a client's id, and no room of that name is meant."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A node wants something done, or known, by others: ``packet.name`` says what, in the namespace of ``packet``."""

    sender: str
    seq: int
    packet: Event
    number: int | None = None
    """By which answers are known; None where none is wanted."""
    target: Target = EVERYONE


@dataclass(frozen=True, slots=True)
class Answer:
    """One part of one node's answer to an Ask."""

    sender: str
    seq: int
    number: int
    values: Sequence[Any] = ()
    part: int = 0
    """Counts from 0."""
    is_last: bool = True
    is_truncated: bool = False
    """There was more to say than an answer may hold."""


Envelope = Hello | Bye | Emit | Ask | Answer


# -- to bytes


def encode(envelope: Envelope, limits: ClusterLimits) -> bytes:
    """*envelope* as bytes.

    Raises TypeError or ValueError for values that cannot travel, and EnvelopeTooBig for more than *limits* allow: what
    this makes, ``decode`` reads with the same limits.
    """
    header: dict[str, Any] = {"v": VERSION, "kind": "", "from": envelope.sender, "seq": envelope.seq}
    packet: Packet | None = None
    if isinstance(envelope, Emit):
        header["kind"] = "emit"
        packet = _with_target(header, envelope.packet, envelope.target, limits)
        _flag(header, volatile=envelope.volatile, twice=envelope.is_twice, direct=envelope.is_direct)
    elif isinstance(envelope, Ask):
        header["kind"] = "ask"
        packet = _with_target(header, envelope.packet, envelope.target, limits)
        if envelope.number is not None:
            header["number"] = envelope.number
    elif isinstance(envelope, Answer):
        header.update(kind="answer", number=envelope.number, part=envelope.part)
        _flag(header, last=envelope.is_last, truncated=envelope.is_truncated)
        packet = Ack("/", 0, envelope.values)
    elif isinstance(envelope, Hello):
        node = envelope.node
        header.update(kind="hello", joined=node.joined_ms, host=node.host, unix=node.unix, tcp=node.tcp)
        _flag(header, reply=envelope.is_reply)
    else:
        header["kind"] = "bye"
    parts = [b""]
    if packet is not None:
        text, *attachments = BINARY.encode(packet)
        assert isinstance(text, str)
        if attachments and text.count(_PLACEHOLDER) > len(attachments):
            # What one client sent would stand for another's bytes, or for none, and all of the message be lost.
            header["escaped"] = True
            try:
                text, *attachments = BINARY.encode(_with_args(packet, _escaped))
            except RecursionError:
                raise ValueError("the arguments are nested too deep") from None
            assert isinstance(text, str)
        if len(attachments) > limits.max_envelope_attachments:
            raise EnvelopeTooBig(
                f"more than {limits.max_envelope_attachments} binary values (max_envelope_attachments)"
            )
        parts.append(text.encode("utf-8"))
        parts.extend(attachments)  # type: ignore[arg-type]  # all but the first are bytes
    parts[0] = dumps(header).encode("utf-8")
    data = b"".join(piece for part in parts for piece in (len(part).to_bytes(_LENGTH_BYTES, "big"), part))
    if len(data) > limits.max_envelope_bytes:
        raise EnvelopeTooBig(f"{len(data)} bytes, more than {limits.max_envelope_bytes} (max_envelope_bytes)")
    return data


def _with_args(packet: Packet, change: Callable[[Any], Any]) -> Packet:
    assert isinstance(packet, (Event, Ack))
    return replace(packet, args=change(list(packet.args)))


def _renamed(value: Any, rename: Callable[[str], str]) -> Any:
    """*value* with keys that look like a placeholder's renamed."""
    if isinstance(value, dict):
        return {
            rename(key) if isinstance(key, str) and _LOOKS_LIKE_ONE.match(key) else key: _renamed(item, rename)
            for key, item in value.items()
        }
    return [_renamed(item, rename) for item in value] if isinstance(value, (list, tuple)) else value


def _escaped(value: Any) -> Any:
    return _renamed(value, lambda key: "_" + key)


def _unescaped(value: Any) -> Any:
    return _renamed(value, lambda key: key[1:])


def _flag(header: dict[str, Any], **flags: bool) -> None:
    for name, value in flags.items():
        if value:
            header[name] = True


def _with_target(header: dict[str, Any], packet: Event, target: Target, limits: ClusterLimits) -> Event:
    """Namespace and target go into *header*: there a name may be anything.  What is left of *packet*."""
    if len(target.rooms) + len(target.but) > limits.max_envelope_names:
        raise EnvelopeTooBig(f"more than {limits.max_envelope_names} rooms and exceptions (max_envelope_names)")
    header["ns"] = packet.namespace
    if target.rooms:
        header["rooms"] = target.rooms
    if target.but:
        header["but"] = target.but
    return Event("/", packet.name, packet.args)


# -- from bytes


def decode(data: bytes, limits: ClusterLimits) -> Envelope:
    """The envelope that *data* is.  Raises ProtocolError, and nothing else, for anything."""
    if len(data) > limits.max_envelope_bytes:
        raise ProtocolError("An envelope is too big.")
    parts = _parts(data)
    try:
        header = loads(next(parts).decode("utf-8"))
    except (StopIteration, UnicodeDecodeError):
        raise ProtocolError("An envelope has no header.") from None
    if not isinstance(header, dict):
        raise ProtocolError("An envelope's header is no object.")
    version = header.get("v")
    if type(version) is not int or version != VERSION:
        raise ProtocolError("An envelope of another version.")
    kind = header.get("kind")
    read = _READERS.get(kind) if isinstance(kind, str) else None
    if read is None:
        raise ProtocolError("An envelope of an unknown kind.")
    return read(_Header(header, limits), parts)


def _parts(data: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        start = at + _LENGTH_BYTES
        at = start + int.from_bytes(data[at:start], "big")
        if at > len(data) or start > len(data):
            raise ProtocolError("An envelope is cut off.")
        yield data[start:at]


class _Header:
    """A header's fields, each as what it must be."""

    def __init__(self, fields: dict[str, Any], limits: ClusterLimits) -> None:
        self.limits = limits
        self._fields = fields
        self.sender = self.text("from")
        if _NODE_ID.match(self.sender) is None:
            raise ProtocolError("An envelope's sender is none.")
        self.seq = self.number("seq")

    def _get(self, name: str, kind: type[_T], default: _T | None) -> _T:
        value = self._fields.get(name, default)
        if type(value) is not kind:
            raise ProtocolError("A field of an envelope is missing, or is something else.")
        return value

    def text(self, name: str, default: str | None = None) -> str:
        return self._get(name, str, default)

    def flag(self, name: str) -> bool:
        return self._get(name, bool, False)

    def number(self, name: str) -> int:
        value = self._get(name, int, None)
        if not 0 <= value <= _MAX_NUMBER:
            raise ProtocolError("A number in an envelope is out of range.")
        return value

    def optional_number(self, name: str) -> int | None:
        return self.number(name) if name in self._fields else None

    def short_text(self, name: str) -> str:
        value = self.text(name, "")
        if len(value) > _MAX_NODE_TEXT_CHARS:
            raise ProtocolError("A text in an envelope is too long.")
        return value

    @property
    def target(self) -> Target:
        names = [self._get(name, list, []) for name in ("rooms", "but")]
        if sum(map(len, names)) > self.limits.max_envelope_names:
            raise ProtocolError("An envelope names too many rooms.")
        if not all(isinstance(name, str) for part in names for name in part):
            raise ProtocolError("A room's name is a text.")
        rooms, but = map(tuple, names)
        return Target(rooms, but) if rooms or but else EVERYONE

    def packet(self, parts: Iterator[bytes]) -> Packet:
        """The packet that follows."""
        reader = BINARY.reader(
            max_attachments=self.limits.max_envelope_attachments, max_attachment_bytes=self.limits.max_envelope_bytes
        )
        packet: Packet | None = None
        is_text = True
        for part in parts:
            if packet is not None:
                raise ProtocolError("An envelope goes on after its end.")
            try:
                packet = reader.feed(part.decode("utf-8") if is_text else part)
            except UnicodeDecodeError:
                raise ProtocolError("A packet is no text.") from None
            is_text = False
        if packet is None:
            raise ProtocolError("An envelope carries no packet, or not all of it.")
        if self.flag("escaped") and isinstance(packet, (Event, Ack)):
            try:
                packet = _with_args(packet, _unescaped)
            except RecursionError:
                raise ProtocolError("A packet is nested too deep.") from None
        return packet

    def event(self, parts: Iterator[bytes]) -> Event:
        packet = self.packet(parts)
        if not isinstance(packet, Event):
            raise ProtocolError("An envelope carries another packet than it should.")
        return Event(self.text("ns"), packet.name, packet.args)


def _end(parts: Iterator[bytes]) -> None:
    if next(parts, None) is not None:
        raise ProtocolError("An envelope goes on after its end.")


def _hello(header: _Header, parts: Iterator[bytes]) -> Hello:
    _end(parts)
    node = Node(
        header.sender,
        header.number("joined"),
        header.short_text("host"),
        header.short_text("unix"),
        header.short_text("tcp"),
    )
    return Hello(header.seq, node, header.flag("reply"))


def _bye(header: _Header, parts: Iterator[bytes]) -> Bye:
    _end(parts)
    return Bye(header.sender, header.seq)


def _emit(header: _Header, parts: Iterator[bytes]) -> Emit:
    target, is_direct = header.target, header.flag("direct")
    if is_direct and len(target.rooms) != 1:
        raise ProtocolError("What is for one client names one.")
    return Emit(
        header.sender,
        header.seq,
        header.event(parts),
        target,
        header.flag("volatile"),
        header.flag("twice"),
        is_direct,
    )


def _ask(header: _Header, parts: Iterator[bytes]) -> Ask:
    return Ask(header.sender, header.seq, header.event(parts), header.optional_number("number"), header.target)


def _answer(header: _Header, parts: Iterator[bytes]) -> Answer:
    packet = header.packet(parts)
    if not isinstance(packet, Ack):
        raise ProtocolError("An envelope carries another packet than it should.")
    return Answer(
        header.sender,
        header.seq,
        header.number("number"),
        packet.args,
        header.number("part"),
        header.flag("last"),
        header.flag("truncated"),
    )


_READERS: dict[str, Callable[[_Header, Iterator[bytes]], Envelope]] = {
    "hello": _hello,
    "bye": _bye,
    "emit": _emit,
    "ask": _ask,
    "answer": _answer,
}
