"""The bytes between two nodes of a ``LocalBackplane``.  Pure: bytes in, frames or ``ProtocolError`` out.

A frame is the length of the rest (4 bytes, big-endian), a byte that says its kind, and what belongs to that kind.  Both
sides begin with HELLO.  The wire is this project's own, and between processes of the same release on one host: a node
of another version is turned away at the greeting.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from struct import Struct
from typing import NamedTuple

from polysock_transports.errors import ProtocolError

from .backplane import MAX_CHANNEL_CHARS

__all__ = [
    "MAX_NODE_ID_CHARS",
    "Channels",
    "Frame",
    "FrameReader",
    "Hello",
    "Message",
    "Sync",
    "Synced",
    "channel_frames",
    "hello_frame",
    "is_node_id",
    "message_frame",
    "sync_frame",
    "synced_frame",
]

#: The id is a part of a file's name.
MAX_NODE_ID_CHARS = 64

_VERSION = b"polysock-mesh 1 "
_HELLO, _ANEW, _SUBSCRIBE, _UNSUBSCRIBE, _MESSAGE, _SYNC, _SYNCED = range(1, 8)

_LENGTH = Struct("!I")
_HEAD = Struct("!IB")
_MESSAGE_HEAD = Struct("!IBH")
_NUMBER = Struct("!Q")
_MAX_HELLO_BYTES = 1 + len(_VERSION) + MAX_NODE_ID_CHARS
#: Lists of channels are cut into frames of about this size.
_LIST_BYTES = 64 * 1024
_MAX_LIST_BYTES = _LIST_BYTES + MAX_CHANNEL_CHARS + 1

_NODE_ID = re.compile(rf"[A-Za-z0-9_-]{{1,{MAX_NODE_ID_CHARS}}}")
_CHANNEL = rb"[\x21-\x7e]{1,%d}" % MAX_CHANNEL_CHARS
_CHANNEL_LIST = re.compile(rb"%b(?:\n%b)*" % (_CHANNEL, _CHANNEL))


class Hello(NamedTuple):
    """Who it is; the first frame from both sides."""

    node_id: str


class Channels(NamedTuple):
    """What its sender is subscribed to from here on, or no more; ``anew``: to these and no others."""

    channels: list[str]
    is_on: bool = True
    anew: bool = False


class Message(NamedTuple):
    channel: str
    data: bytes


class Sync(NamedTuple):
    """Asks for ``Synced`` once everything before it is in force."""

    number: int


class Synced(NamedTuple):
    number: int


Frame = Hello | Channels | Message | Sync | Synced


def is_node_id(text: str) -> bool:
    return _NODE_ID.fullmatch(text) is not None


def hello_frame(node_id: str) -> bytes:
    return _frame(_HELLO, _VERSION + node_id.encode("ascii"))


def channel_frames(channels: Iterable[str], *, is_on: bool = True, anew: bool = False) -> Iterator[bytes]:
    """*channels* in as many frames as it takes: none for none, except *anew*."""
    kind = _ANEW if anew else _SUBSCRIBE if is_on else _UNSUBSCRIBE
    listed: list[bytes] = []
    size = 0
    for channel in channels:
        listed.append(channel.encode("ascii"))
        size += len(channel) + 1
        if size > _LIST_BYTES:
            yield _frame(kind, b"\n".join(listed))
            listed.clear()
            size = 0
            kind = _SUBSCRIBE if anew else kind
    if listed or kind == _ANEW:
        yield _frame(kind, b"\n".join(listed))


def message_frame(channel: str, data: bytes) -> bytes:
    name = channel.encode("ascii")
    return b"".join((_MESSAGE_HEAD.pack(3 + len(name) + len(data), _MESSAGE, len(name)), name, data))


def sync_frame(number: int) -> bytes:
    return _frame(_SYNC, _NUMBER.pack(number))


def synced_frame(number: int) -> bytes:
    return _frame(_SYNCED, _NUMBER.pack(number))


def _frame(kind: int, payload: bytes) -> bytes:
    return _HEAD.pack(1 + len(payload), kind) + payload


class FrameReader:
    """Frames out of the bytes of one connection, however they are cut."""

    def __init__(self, max_message_bytes: int) -> None:
        """*max_message_bytes*: the longest data of a message."""
        # A message may be longest and its channel too.
        self._max_frame_bytes = max(3 + MAX_CHANNEL_CHARS + max_message_bytes, _MAX_LIST_BYTES)
        self._max_message_bytes = max_message_bytes
        self._limit = _MAX_HELLO_BYTES
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that end in *data*.  Raises ProtocolError after those before the fault; then it is over."""
        rest = self._rest
        buffer: bytes | bytearray = data
        if rest:
            rest += data
            buffer = rest
        at, end = 0, len(buffer)
        while end - at >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(buffer, at)
            if not 0 < size <= self._limit:
                raise ProtocolError("a frame is too long")
            after = at + _LENGTH.size + size
            if after > end:
                break
            yield self._read(buffer, at + _LENGTH.size, after)
            at = after
        # What is kept grows in place: a long frame comes in many pieces.
        if buffer is data:
            self._rest = bytearray(memoryview(data)[at:])
        elif at == end:
            self._rest = bytearray()
        else:
            del rest[:at]

    def _read(self, buffer: bytes | bytearray, at: int, after: int) -> Frame:
        kind = buffer[at]
        at += 1
        if self._limit == _MAX_HELLO_BYTES:
            return self._greeting(kind, bytes(buffer[at:after]))
        if kind == _MESSAGE:
            if after - at < 2:
                raise ProtocolError("a message is too short")
            middle = at + 2 + (buffer[at] << 8 | buffer[at + 1])
            if not at + 2 < middle <= min(after, at + 2 + MAX_CHANNEL_CHARS):
                raise ProtocolError("a message's channel is too long")
            if after - middle > self._max_message_bytes:
                raise ProtocolError("a message is too long")
            try:
                return Message(buffer[at + 2 : middle].decode("ascii"), bytes(buffer[middle:after]))
            except UnicodeDecodeError:
                raise ProtocolError("a channel is not ASCII") from None
        payload = bytes(buffer[at:after])
        if kind in (_ANEW, _SUBSCRIBE, _UNSUBSCRIBE):
            if not payload and kind == _ANEW:
                return Channels([], anew=True)
            if len(payload) >= _MAX_LIST_BYTES or not _CHANNEL_LIST.fullmatch(payload):
                raise ProtocolError("what should be a list of channels is none")
            return Channels(payload.decode("ascii").split("\n"), kind != _UNSUBSCRIBE, kind == _ANEW)
        if kind in (_SYNC, _SYNCED) and len(payload) == _NUMBER.size:
            (number,) = _NUMBER.unpack(payload)
            return Sync(number) if kind == _SYNC else Synced(number)
        raise ProtocolError("a frame of no known kind")

    def _greeting(self, kind: int, payload: bytes) -> Hello:
        node_id = payload[len(_VERSION) :].decode("latin-1")
        if kind != _HELLO or not payload.startswith(_VERSION) or not is_node_id(node_id):
            raise ProtocolError("it did not begin with a greeting of this version")
        self._limit = self._max_frame_bytes
        return Hello(node_id)
