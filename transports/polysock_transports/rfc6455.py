"""RFC 6455 without I/O: the opening handshake, frames out, and a parser that turns bytes in into events.

A WebSocket transport feeds what it read and writes what the builders here return; who reads, when to answer a ping
and when to close TCP is its business.  This module knows no dialect, no session and no Tornado.  Compression lives
next door in ``permessage_deflate``; the parser only sees a function that inflates.
"""

from __future__ import annotations

import re
from base64 import b64encode
from codecs import IncrementalDecoder, getincrementaldecoder
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha1
from struct import Struct

from .errors import (
    INVALID_DATA,
    MESSAGE_TOO_BIG,
    NO_STATUS,
    PROTOCOL_VIOLATION,
    CloseReason,
    ProtocolError,
    is_sendable_close_code,
)
from .wire import Refusal

__all__ = [
    "HYBI_VERSIONS",
    "MAX_CONTROL_BYTES",
    "MAX_REASON_BYTES",
    "MAX_SUBPROTOCOLS",
    "OP_BINARY",
    "OP_CLOSE",
    "OP_CONTINUATION",
    "OP_PING",
    "OP_PONG",
    "OP_TEXT",
    "VERSION",
    "CloseFrame",
    "Event",
    "FrameParser",
    "PingFrame",
    "PongFrame",
    "Violation",
    "accept_key",
    "binary_frame",
    "check_handshake",
    "close_frame",
    "encode_frame",
    "handshake_response",
    "offered_subprotocols",
    "ping_frame",
    "pong_frame",
    "text_frame",
    "utf8",
]

OP_CONTINUATION = 0x0
OP_TEXT = 0x1
OP_BINARY = 0x2
OP_CLOSE = 0x8
OP_PING = 0x9
OP_PONG = 0xA

#: The one version of the protocol that is spoken here (section 4.1).
VERSION = "13"
#: With those of the drafts hybi-07 to hybi-12 (Firefox 6 to 10, Chrome 14 and 15), whose handshake and frames are the
#: same, but for the name of the header with the origin.
HYBI_VERSIONS = (VERSION, "8", "7")
#: Payload of a control frame (section 5.5), which is also the longest length that fits a two-byte frame head.
MAX_CONTROL_BYTES = 125
#: What remains of that for the reason of a close frame, after the code.
MAX_REASON_BYTES = MAX_CONTROL_BYTES - 2
#: Offered subprotocols that are looked at; a browser's page offers one or two.
MAX_SUBPROTOCOLS = 64

# -- the opening handshake

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
# What 16 bytes are in base64.  The four spare bits of the last digit are not checked: not every client clears them.
_KEY = re.compile(r"[A-Za-z0-9+/]{22}==")
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


def accept_key(key: str) -> str:
    """The ``Sec-WebSocket-Accept`` that answers *key* (section 4.2.2)."""
    return b64encode(sha1(key.encode() + _GUID, usedforsecurity=False).digest()).decode("ascii")


def check_handshake(method: str, headers: Mapping[str, str], versions: Sequence[str] = (VERSION,)) -> Refusal | None:
    """None where the request may become a WebSocket, else the answer it gets (section 4.2.1).

    *headers* is looked up in the letter case of the RFC and should not care about it (as Tornado's does not); lines
    of the same name are expected joined by commas.  *versions*: those that are spoken.  The origin is not judged here.
    """
    if method != "GET":
        return Refusal(405, headers=(("Allow", "GET"),))
    if headers.get("Upgrade", "").strip().lower() != "websocket":
        return Refusal(400, 'Can "Upgrade" only to "WebSocket".')
    # Firefox sends "keep-alive, Upgrade".
    if "upgrade" not in (token.strip() for token in headers.get("Connection", "").lower().split(",")):
        return Refusal(400, '"Connection" must be "Upgrade".')
    # The version goes first: draft-76 clients have no key either, and 426 tells them what the matter is.
    if headers.get("Sec-WebSocket-Version", "").strip() not in versions:
        return Refusal(426, headers=(("Sec-WebSocket-Version", ", ".join(versions)),))
    if not _KEY.fullmatch(headers.get("Sec-WebSocket-Key", "")):
        return Refusal(400, "Missing/Invalid WebSocket headers")
    return None


def offered_subprotocols(header: str | None) -> list[str]:
    """The subprotocols in a request's ``Sec-WebSocket-Protocol``, by preference, each once.

    What is not a token is left out, and so is everything after the first ``MAX_SUBPROTOCOLS`` items.
    """
    if not header:
        return []
    items = (item.strip(" \t") for item in header.split(",", MAX_SUBPROTOCOLS)[:MAX_SUBPROTOCOLS])
    return list(dict.fromkeys(item for item in items if _TOKEN.fullmatch(item)))


def handshake_response(
    key: str,
    subprotocol: str | None = None,
    extensions: str | None = None,
    headers: Iterable[tuple[str, str]] = (),
) -> bytes:
    """The whole head of the 101 answer.

    Raises ValueError for a name or value that cannot stand in a header (line breaks above all: an application may
    have let the client choose them).
    """
    fields = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", accept_key(key))]
    if subprotocol is not None:
        if not _TOKEN.fullmatch(subprotocol):
            raise ValueError("a subprotocol must be a token")
        fields.append(("Sec-WebSocket-Protocol", subprotocol))
    if extensions is not None:
        fields.append(("Sec-WebSocket-Extensions", extensions))
    fields.extend(headers)
    lines = ["HTTP/1.1 101 Switching Protocols"]
    for name, value in fields:
        if not _TOKEN.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
            raise ValueError(f"not a header: {name!r}: {value!r}")
        lines.append(f"{name}: {value}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


# -- frames out

_FIN = 0x80
_RSV1 = 0x40
_RSV_23 = 0x30
_OPCODE = 0x0F
_CONTROL_BIT = 0x08
_MASKED = 0x80
_LENGTH_7 = 0x7F
_LENGTH_IS_16 = 126
_LENGTH_IS_64 = 127
_MASK_BYTES = 4

_HEAD_16 = Struct("!BBH").pack
_HEAD_64 = Struct("!BBQ").pack
_CODE = Struct("!H")
# The heads of short messages, made once: most of what a real-time server sends is shorter than 126 bytes.
_TEXT_HEADS = tuple(bytes((_FIN | OP_TEXT, size)) for size in range(MAX_CONTROL_BYTES + 1))
_BINARY_HEADS = tuple(bytes((_FIN | OP_BINARY, size)) for size in range(MAX_CONTROL_BYTES + 1))


def _frame(first: int, payload: bytes) -> bytes:
    size = len(payload)
    if size <= MAX_CONTROL_BYTES:
        return bytes((first, size)) + payload
    if size <= 0xFFFF:
        return _HEAD_16(first, _LENGTH_IS_16, size) + payload
    return _HEAD_64(first, _LENGTH_IS_64, size) + payload


def encode_frame(opcode: int, payload: bytes, *, rsv1: bool = False, fin: bool = True) -> bytes:
    """One frame of a server (never masked, section 5.1), with the shortest form of its length.

    Raises ValueError for an opcode that does not exist and for a control frame that is long, split or compressed.
    """
    if opcode & _CONTROL_BIT:
        if opcode not in (OP_CLOSE, OP_PING, OP_PONG) or len(payload) > MAX_CONTROL_BYTES or rsv1 or not fin:
            raise ValueError(f"not a control frame: opcode {opcode}, {len(payload)} bytes, rsv1={rsv1}, fin={fin}")
    elif opcode not in (OP_CONTINUATION, OP_TEXT, OP_BINARY):
        raise ValueError(f"not an opcode: {opcode}")
    return _frame(opcode | (_FIN if fin else 0) | (_RSV1 if rsv1 else 0), payload)


def utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        # UTF-16 makes whole pairs of surrogates into the character they mean, and the halves left over into U+FFFD.
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()


def text_frame(text: str) -> bytes:
    """A whole text message.  A lone surrogate, which JSON may hold and UTF-8 may not, becomes U+FFFD."""
    try:
        payload = text.encode()
    except UnicodeEncodeError:
        payload = utf8(text)
    size = len(payload)
    if size <= MAX_CONTROL_BYTES:
        return _TEXT_HEADS[size] + payload
    return _frame(_FIN | OP_TEXT, payload)


def binary_frame(data: bytes) -> bytes:
    """A whole binary message."""
    size = len(data)
    if size <= MAX_CONTROL_BYTES:
        return _BINARY_HEADS[size] + data
    return _frame(_FIN | OP_BINARY, data)


def ping_frame(data: bytes = b"") -> bytes:
    """A ping; *data* is at most 125 bytes, else ValueError."""
    return encode_frame(OP_PING, data)


def pong_frame(data: bytes = b"") -> bytes:
    """The answer to a ping that held *data*; at most 125 bytes, else ValueError."""
    return encode_frame(OP_PONG, data)


def close_frame(code: int | None = None, reason: str = "") -> bytes:
    """A close frame; of *reason* goes what fits 123 bytes and ends on a whole character.

    Without a code, or with one that must not travel (1005, 1006 and other local reports), the frame is empty, since
    the code is what a reason hangs on (section 5.5.1).
    """
    if code is None or not is_sendable_close_code(code):
        return _frame(_FIN | OP_CLOSE, b"")
    text = utf8(reason)
    if len(text) > MAX_REASON_BYTES:
        text = text[:MAX_REASON_BYTES].decode("utf-8", "ignore").encode()
    return _frame(_FIN | OP_CLOSE, _CODE.pack(code) + text)


# -- frames in


@dataclass(frozen=True, slots=True)
class PingFrame:
    """The peer wants a pong with the same ``data``, pings in order."""

    data: bytes


@dataclass(frozen=True, slots=True)
class PongFrame:
    """The peer's answer to a ping, or a pong that nobody asked for."""

    data: bytes


@dataclass(frozen=True, slots=True)
class CloseFrame:
    """The peer says goodbye; ``code`` is 1005 where it gave none.  Nothing follows."""

    code: int
    text: str = ""


@dataclass(frozen=True, slots=True)
class Violation:
    """The peer broke the protocol: close with ``reason``.  Nothing follows.

    ``detail`` says what exactly was wrong, for a log line; it holds no bytes of the peer.
    """

    reason: CloseReason
    detail: str = ""


#: What the parser finds: ``str`` is a whole text message, ``bytes`` a whole binary one.
Event = str | bytes | PingFrame | PongFrame | CloseFrame | Violation

_FIN_TEXT = _FIN | OP_TEXT
# Looked up in one step: a sixth of the time of a short frame.
_from_bytes = int.from_bytes
_MASKED_MAX_7 = _MASKED | MAX_CONTROL_BYTES
_MASK_TILES = MAX_CONTROL_BYTES // _MASK_BYTES + 1
# One XOR of two big integers is the cheapest way that the standard library has up to about this size (2 to 4 ns a
# byte).  Over it integers fall out of the processor's cache, and piece by piece takes half the time of one go.
_XOR_BYTES = 8 * 1024
_UTF8_DECODER = getincrementaldecoder("utf-8")


def _unmask(buffer: bytes | bytearray, start: int, size: int) -> bytes:
    """The *size* bytes of payload at *start*, right behind their mask."""
    mask = buffer[start - _MASK_BYTES : start]
    if size <= _XOR_BYTES:
        key = (mask * (size // _MASK_BYTES + 1))[:size]
        number = _from_bytes(buffer[start : start + size], "little") ^ _from_bytes(key, "little")
        return number.to_bytes(size, "little")
    tile = mask * (_XOR_BYTES // _MASK_BYTES)
    key_number = _from_bytes(tile, "little")
    rest = size % _XOR_BYTES
    stop = start + size - rest
    pieces = [
        (_from_bytes(buffer[at : at + _XOR_BYTES], "little") ^ key_number).to_bytes(_XOR_BYTES, "little")
        for at in range(start, stop, _XOR_BYTES)
    ]
    number = _from_bytes(buffer[stop : stop + rest], "little") ^ _from_bytes(tile[:rest], "little")
    pieces.append(number.to_bytes(rest, "little"))
    return b"".join(pieces)


class FrameParser:
    """Turns what a client sends into events, whatever the pieces it comes in.

    *max_message_bytes* bounds a message on the wire and, with *inflate*, also what comes out of it; *max_fragments*
    bounds the frames of one message, empty ones included.  *inflate* takes the compressed bytes of a message and the
    limit, and raises ``ProtocolError``; without it a compressed message is a violation.

    What waits inside is at most one message of the limit and one read.
    """

    __slots__ = (
        "_compressed",
        "_ended",
        "_fragments",
        "_inflate",
        "_max_fragments",
        "_max_message_bytes",
        "_message",
        "_need",
        "_opcode",
        "_pending",
        "_utf8",
    )

    def __init__(
        self,
        *,
        max_message_bytes: int,
        max_fragments: int,
        inflate: Callable[[bytes, int], bytes] | None = None,
    ) -> None:
        self._max_message_bytes = max_message_bytes
        self._max_fragments = max_fragments
        self._inflate = inflate
        self._ended = False
        # An unfinished frame, and how long it must become before it is worth another look: without that number a
        # large frame in small reads would cost the square of its size.  None while there is nothing, which is nearly
        # always, so that an idle connection holds no buffer.
        self._pending: bytearray | None = None
        self._need = 0
        # An unfinished message: its opcode (0 where there is none), what has come of it, and how.
        self._opcode = 0
        self._compressed = False
        self._fragments = 0
        self._message: bytearray | None = None
        self._utf8: IncrementalDecoder | None = None  # only for text in several frames

    def feed(self, data: bytes | bytearray | memoryview) -> list[Event]:
        """The events that *data* completes, in order; never raises for what the peer sent.

        *data* may be reused by the caller afterwards.  After a CloseFrame or a Violation there are no more events.
        """
        events: list[Event] = []
        if self._ended:
            return events
        buffer: bytes | bytearray
        if self._pending is not None:
            self._pending += data
            if len(self._pending) < self._need:
                return events
            buffer = self._pending
            self._pending = None
        else:
            buffer = data if type(data) is bytes else bytes(data)
        at, end = 0, len(buffer)
        limit = self._max_message_bytes
        while at + 1 < end:
            second = buffer[at + 1]
            # The case that pays the rent: a whole short text in one masked frame.
            if buffer[at] == _FIN_TEXT and _MASKED <= second <= _MASKED_MAX_7 and not self._opcode:
                size = second - _MASKED
                start = at + 2 + _MASK_BYTES
                stop = start + size
                if stop <= end and size <= limit:
                    key = (buffer[at + 2 : start] * _MASK_TILES)[:size]
                    number = _from_bytes(buffer[start:stop], "little") ^ _from_bytes(key, "little")
                    try:
                        events.append(number.to_bytes(size, "little").decode())
                    except UnicodeDecodeError:
                        self._fail(events, INVALID_DATA)
                        return events
                    at = stop
                    continue
            after = self._parse(buffer, at, end, events)
            if self._ended:
                return events
            if after == at:
                break
            at = after
        else:
            self._need = 2
        if at < end:
            self._pending = bytearray(memoryview(buffer)[at:])
        return events

    def _parse(self, buffer: bytes | bytearray, at: int, end: int, events: list[Event]) -> int:
        """Parse any one frame at *at*; return where the next starts, or *at* with ``_need`` set if it is not whole.

        Everything that its head shows to be wrong is said before the payload is waited for.
        """
        first, second = buffer[at], buffer[at + 1]
        opcode = first & _OPCODE
        if not second & _MASKED:
            return self._fail(events, PROTOCOL_VIOLATION, "frame is not masked")
        if first & _RSV_23:
            return self._fail(events, PROTOCOL_VIOLATION, "reserved bit is set")
        if first & _RSV1 and (self._inflate is None or opcode not in (OP_TEXT, OP_BINARY)):
            return self._fail(events, PROTOCOL_VIOLATION, "compressed where that is not agreed on or not allowed")
        size = second & _LENGTH_7
        if opcode & _CONTROL_BIT:
            if opcode > OP_PONG:
                return self._fail(events, PROTOCOL_VIOLATION, "unknown opcode")
            if not first & _FIN or size > MAX_CONTROL_BYTES:
                return self._fail(events, PROTOCOL_VIOLATION, "control frame is split or too long")
        elif opcode > OP_BINARY:
            return self._fail(events, PROTOCOL_VIOLATION, "unknown opcode")
        elif opcode:
            if self._opcode:
                return self._fail(events, PROTOCOL_VIOLATION, "new message inside an unfinished one")
        elif not self._opcode:
            return self._fail(events, PROTOCOL_VIOLATION, "continuation of nothing")

        start = at + 2
        if size > MAX_CONTROL_BYTES:
            # A length that would have fit a shorter form is let pass: it does no harm, and clients send it.
            start += 2 if size == _LENGTH_IS_16 else 8
            if end < start:
                self._need = start - at
                return at
            size = _from_bytes(buffer[at + 2 : start], "big")
            if size >> 63:
                return self._fail(events, PROTOCOL_VIOLATION, "top bit of the length is set")
        if not opcode & _CONTROL_BIT:
            came = len(self._message) if self._message is not None else 0
            if came + size > self._max_message_bytes:
                return self._fail(events, MESSAGE_TOO_BIG)
            if (self._fragments if self._opcode else 0) >= self._max_fragments:
                return self._fail(events, MESSAGE_TOO_BIG, "too many fragments")
        start += _MASK_BYTES
        stop = start + size
        if end < stop:
            self._need = stop - at
            return at

        payload = _unmask(buffer, start, size)
        if opcode & _CONTROL_BIT:
            self._control(opcode, payload, events)
        else:
            self._data(first, payload, events)
        return stop

    def _control(self, opcode: int, payload: bytes, events: list[Event]) -> None:
        if opcode == OP_PING:
            events.append(PingFrame(payload))
        elif opcode == OP_PONG:
            events.append(PongFrame(payload))
        elif not payload:
            self._end(events, CloseFrame(NO_STATUS.code))
        elif len(payload) < _CODE.size:
            self._fail(events, PROTOCOL_VIOLATION, "half a close code")
        else:
            (code,) = _CODE.unpack_from(payload)
            if not is_sendable_close_code(code):
                self._fail(events, PROTOCOL_VIOLATION, "close code that must not travel")
                return
            try:
                self._end(events, CloseFrame(code, payload[_CODE.size :].decode()))
            except UnicodeDecodeError:
                self._fail(events, INVALID_DATA, "reason is not valid UTF-8")

    def _data(self, first: int, payload: bytes, events: list[Event]) -> None:
        opcode = first & _OPCODE
        last = bool(first & _FIN)
        if opcode and last:
            self._message_is_whole(opcode, payload, bool(first & _RSV1), events)
            return
        if opcode:
            self._opcode = opcode
            self._compressed = bool(first & _RSV1)
            self._fragments = 0
            self._message = bytearray()
            self._utf8 = None
        assert self._message is not None
        self._fragments += 1
        self._message += payload
        if last:
            opcode, message = self._opcode, bytes(self._message)
            self._opcode = 0
            self._message = None
            self._message_is_whole(opcode, message, self._compressed, events)
        elif self._opcode == OP_TEXT and not self._compressed:
            # Only a check, so that bad text is refused now and not a megabyte later; a character may straddle.
            if self._utf8 is None:
                self._utf8 = _UTF8_DECODER()
            try:
                self._utf8.decode(payload)
            except UnicodeDecodeError:
                self._fail(events, INVALID_DATA)

    def _message_is_whole(self, opcode: int, message: bytes, compressed: bool, events: list[Event]) -> None:
        if compressed and self._inflate is not None:
            try:
                message = self._inflate(message, self._max_message_bytes)
            except ProtocolError as error:
                self._fail(events, error.reason, str(error))
                return
        if opcode == OP_BINARY:
            events.append(message)
            return
        try:
            events.append(message.decode())
        except UnicodeDecodeError:
            self._fail(events, INVALID_DATA)

    def _fail(self, events: list[Event], reason: CloseReason, detail: str = "") -> int:
        self._end(events, Violation(reason, detail or reason.text))
        return 0

    def _end(self, events: list[Event], event: CloseFrame | Violation) -> None:
        events.append(event)
        self._ended = True
        self._pending = self._message = None
