"""The WebSocket drafts hixie-75 and hixie-76 without I/O: opening handshake, frames out, and a parser for frames in.

Safari 5, iOS 4 and 5, Opera 11, Chrome 4 to 13, PhantomJS 1 and old Flash clients speak them.  They have no ping, no
close codes, no fragments and no binary messages.  Wire facts: draft-hixie-thewebsocketprotocol-76 (the same text as
draft-ietf-hybi-thewebsocketprotocol-00), and -75 where that is said.  This module knows no dialect, no session and no
Tornado; ``hixie.py`` moves the bytes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import md5
from struct import Struct

from .errors import INVALID_DATA, MESSAGE_TOO_BIG, NO_STATUS, PROTOCOL_VIOLATION, CloseReason
from .rfc6455 import CloseFrame, Violation, utf8
from .wire import Frame, Refusal

__all__ = ["CLOSE", "KEY3_BYTES", "FrameParser", "Handshake", "key_number", "read_handshake", "text_frame"]

#: What follows the head of a hixie-76 request without being announced in it, and goes into the proof.
KEY3_BYTES = 8
#: Browsers make keys of at most 34 characters: 10 digits, 12 spaces, 12 others.
_MAX_KEY_CHARS = 64
_MAX_NUMBER = 0xFFFFFFFF

# -- the opening handshake

_NOT_DIGITS = re.compile("[^0-9]+")
_PRINTABLE = re.compile(r"[\x21-\x7e]{1,512}")
# RFC 3986 section 3.2: a name, an address in brackets, a port.
_HOST = re.compile(r"[A-Za-z0-9!$%&'()*+,;=._~:\[\]-]{1,512}")
# What a request line cannot hold (a blank, a control character, anything but ASCII) is not sent back in a header.
_URI = re.compile(r"/[\x21-\x7e]*")
_PROOF = Struct(f"!II{KEY3_BYTES}s").pack

_WRONG = Refusal(400, "Missing/Invalid WebSocket headers")
_UPGRADE = ("Upgrade: WebSocket", "Connection: Upgrade")


@dataclass(frozen=True, slots=True)
class Handshake:
    """A request that may become a WebSocket of one of these drafts, checked."""

    location: str
    """The address as the client must see it again, character for character."""
    origin: str | None
    subprotocols: tuple[str, ...] = ()
    """The one subprotocol that these drafts let a client offer, or none."""
    numbers: tuple[int, int] | None = None
    """What the two keys say; None in hixie-75, which has no keys and no proof."""

    def response(self, subprotocol: str | None = None) -> bytes:
        """The head of the 101 answer.  It goes out before the client's last 8 bytes are there: a proxy that waits for
        it holds them back.

        Raises ValueError for a subprotocol that was not offered: these clients then fail.
        """
        if subprotocol is not None and subprotocol not in self.subprotocols:
            raise ValueError("a subprotocol must be the one that was offered")
        # Clients of hixie-75 compare the status line and the two lines after it byte by byte.
        text, prefix = ("WebSocket", "Sec-") if self.numbers else ("Web Socket", "")
        lines = [f"HTTP/1.1 101 {text} Protocol Handshake", *_UPGRADE]
        if self.origin is not None:
            lines.append(f"{prefix}WebSocket-Origin: {self.origin}")
        lines.append(f"{prefix}WebSocket-Location: {self.location}")
        if subprotocol is not None:
            lines.append(f"{prefix}WebSocket-Protocol: {subprotocol}")
        return "\r\n".join([*lines, "", ""]).encode("ascii")

    def proof(self, key3: bytes) -> bytes:
        """The 16 bytes that answer the keys and *key3*, the 8 bytes after the request's head (hixie-76 only)."""
        assert self.numbers is not None
        return md5(_PROOF(*self.numbers, key3), usedforsecurity=False).digest()


def key_number(key: str) -> int | None:
    """What a ``Sec-WebSocket-Key1`` or ``2`` says: its digits as one number, divided by how many spaces it has.

    None for a key that no client makes: nothing to divide, no spaces, a remainder, more than 32 bits.
    """
    digits = _NOT_DIGITS.sub("", key)
    spaces = key.count(" ")
    if len(key) > _MAX_KEY_CHARS or not digits or not spaces:
        return None
    number, remainder = divmod(int(digits), spaces)
    return None if remainder or number > _MAX_NUMBER else number


def read_handshake(headers: Mapping[str, str], uri: str, *, secure: bool) -> Handshake | Refusal | None:
    """What a request makes of itself that ``rfc6455.check_handshake`` answers 426, its version being none of ours.

    *uri* as it came in the request line; *secure*: over TLS, as the client sees it.  None where the request is not of
    these drafts, a Refusal where it is and is wrong.  The origin is not judged here.
    """
    if "Sec-WebSocket-Version" in headers or "Sec-WebSocket-Key" in headers:
        return None
    keys = [headers.get("Sec-WebSocket-Key1"), headers.get("Sec-WebSocket-Key2")]
    numbers = None
    if keys != [None, None]:
        one, two = (key_number(key or "") for key in keys)
        if one is None or two is None:
            return _WRONG
        numbers = (one, two)
    host, origin = headers.get("Host", ""), headers.get("Origin")
    if not _HOST.fullmatch(host) or not _URI.fullmatch(uri) or not (origin is None or _PRINTABLE.fullmatch(origin)):
        return _WRONG
    offered = headers.get("Sec-WebSocket-Protocol" if numbers else "WebSocket-Protocol", "").strip()
    return Handshake(
        location=f"{'wss' if secure else 'ws'}://{host}{uri}",
        origin=origin,
        # One value, whatever characters it has: lists came with later drafts.
        subprotocols=(offered,) if _PRINTABLE.fullmatch(offered) else (),
        numbers=numbers,
    )


# -- frames out

_TEXT_START, _TEXT_END = b"\x00", b"\xff"
#: Either side's half of the closing handshake.
CLOSE = b"\xff\x00"


def text_frame(frame: Frame) -> bytes:
    """One text message.  A lone surrogate, which JSON may hold and UTF-8 may not, becomes U+FFFD.

    Raises TypeError for bytes, which cannot travel.
    """
    if not isinstance(frame, str):
        raise TypeError("a WebSocket of draft 76 carries text only")
    return b"%b%b%b" % (_TEXT_START, utf8(frame), _TEXT_END)


# -- frames in

_LENGTH_FRAME = 0x80
_CLOSE_FRAME = 0xFF
_LENGTH_BITS = 7
_LENGTH_DIGIT = 0x7F
_LENGTH_GOES_ON = 0x80


class FrameParser:
    """Bytes in, events out, as ``rfc6455.FrameParser``: texts, and one CloseFrame or Violation at the end.

    Keeps at most *max_message_bytes* of an unfinished message.
    """

    __slots__ = ("_ended", "_length", "_max_bytes", "_skip", "_text", "_type")

    def __init__(self, max_message_bytes: int) -> None:
        self._max_bytes = max_message_bytes
        self._ended = False
        self._text: bytearray | None = None  # of an unfinished message
        self._type = 0  # of a frame whose length is being read
        self._length = 0
        self._skip = 0  # bytes of a frame with a length that are still to be thrown away

    def feed(self, data: bytes) -> list[str | CloseFrame | Violation]:
        """The events that *data* completes, in order; never raises for what the peer sent.

        After a CloseFrame or a Violation there are no more events.
        """
        events: list[str | CloseFrame | Violation] = []
        at, end = 0, len(data)
        while at < end and not self._ended:
            if self._text is not None:
                at = self._read_text(data, at, events)
            elif self._skip:
                step = min(self._skip, end - at)
                self._skip -= step
                at += step
            else:
                if self._type:
                    self._read_length(data[at], events)
                elif not data[at]:
                    self._text = bytearray()
                elif data[at] & _LENGTH_FRAME:
                    self._type, self._length = data[at], 0
                else:
                    self._fail(events, PROTOCOL_VIOLATION, "unknown frame type")
                at += 1
        return events

    def _read_text(self, data: bytes, at: int, events: list[str | CloseFrame | Violation]) -> int:
        """Take text from *at* on; return where it ends in *data*."""
        text = self._text
        assert text is not None
        found = data.find(_TEXT_END, at)  # a byte that UTF-8 never has
        stop = len(data) if found < 0 else found
        if len(text) + stop - at > self._max_bytes:
            self._fail(events, MESSAGE_TOO_BIG)
            return stop
        text += memoryview(data)[at:stop]
        if found < 0:
            return stop
        self._text = None
        try:
            events.append(text.decode())
        except UnicodeDecodeError:
            self._fail(events, INVALID_DATA)
        return stop + 1

    def _read_length(self, digit: int, events: list[str | CloseFrame | Violation]) -> None:
        """One more digit of a length to the base of 128.  Frames that have one mean nothing, but for the close."""
        self._length = self._length << _LENGTH_BITS | digit & _LENGTH_DIGIT
        if self._length > self._max_bytes:
            self._fail(events, MESSAGE_TOO_BIG)
        elif not digit & _LENGTH_GOES_ON:
            if self._type == _CLOSE_FRAME and not self._length:
                self._end(events, CloseFrame(NO_STATUS.code))
            self._skip, self._type = self._length, 0

    def _fail(self, events: list[str | CloseFrame | Violation], reason: CloseReason, detail: str = "") -> None:
        self._end(events, Violation(reason, detail or reason.text))

    def _end(self, events: list[str | CloseFrame | Violation], event: CloseFrame | Violation) -> None:
        events.append(event)
        self._ended = True
        self._text = None
