"""Engine.IO 3: the wire language of socket.io-client 1.x and 2.x.

Source: the Engine.IO protocol text, revision 3, and what the reference clients of both generations do.  The requests
are routed by ``engineio.py``; deadlines, probes and upgrades are the session's (``engine.py``).
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from itertools import product

import ujson

from ..errors import INVALID_DATA, MESSAGE_TOO_BIG, CloseReason, ProtocolError
from ..limits import Limits
from ..wire import Frame, Message, Refusal, Request, Route, Signal, Speaks
from .engineio import EngineRoutes, opening, read_base64, read_packet

__all__ = ["ENGINEIO3", "LONGEST_TEXT_CHARS", "EngineIO3"]

#: Longest payload of text for a client that takes bytes.  In a browser 1.x asks for bytes whatever comes, and makes the
#: text of them by one call with so many arguments (``String.fromCharCode.apply``), which fails from 65,536 in Safari,
#: about 120,000 in Chromium, fewer deep in the stack; a packet of a payload of bytes it then reads one by one.
LONGEST_TEXT_CHARS = 32_768

_MESSAGE_BYTE = b"\x04"  # the type of a binary message, a number there and no digit

# More digits than any body needs are no length: to make a number of very many takes long.
_TEXT_HEAD = re.compile(r"([0-9]{1,10}):")
_BINARY_HEAD = re.compile(rb"([\x00\x01])([\x00-\x09]{1,10})\xff")
# In the binary form each digit of a length is a byte of that value.
_TO_DIGITS = bytes.maketrans(bytes(range(10)), b"0123456789")
_FROM_DIGITS = bytes.maketrans(b"0123456789", bytes(range(10)))


class EngineIO3:
    """One form of the dialect: payloads of many packets (polling) or a packet in each frame; with bytes or base64.

    Clients of 1.x encode the text in their payloads twice as UTF-8, and nothing but that text tells them from 2.x.  So
    a form also stands for what is known of that: nothing, until ``decode`` says ``Speaks`` with the form that knows.
    What is sent does not depend on it.
    """

    protocol = 3
    language = "engineio3"
    server_pings = False
    ping = "2"
    noop = "6"
    bye = "1"
    lost_ends_session = True

    def __init__(self, *, polling: bool, base64: bool, twice: bool | None) -> None:
        """*base64*: the client takes no bytes.  *twice*: whether it encodes text twice; None where nobody knows yet."""
        self.name = f"engineio3-{'polling' if polling else 'websocket'}{'-base64' if base64 else ''}"
        self.binary_payload = polling and not base64
        self._polling = polling
        self._base64 = base64
        self._twice = twice

    def form(self, transport: str, query: Mapping[str, str]) -> EngineIO3:
        # A script holds no bytes.  Any value of b64 means it, as for the reference server.
        return _FORMS[transport != "websocket", "j" in query or bool(query.get("b64")), None]

    def over(self, transport: str) -> EngineIO3:
        return _FORMS[transport != "websocket", self._base64, self._twice]

    def route(self, request: Request, limits: Limits) -> Route | Refusal | None:
        return _ROUTES.route(request, limits)

    def hello(self) -> Sequence[Frame]:
        return ()  # the opening packet holds what only the session knows

    def opening(self, session_id: str, upgrades: Sequence[str], limits: Limits) -> str:
        return "0" + ujson.dumps(opening(session_id, upgrades, limits), escape_forward_slashes=False)

    def pong(self, data: str) -> str:
        return "3" + data

    def encode(self, message: object) -> Frame:
        """Text with its type; bytes as they are.  Raises TypeError for anything else."""
        if isinstance(message, str):
            return "4" + message
        if isinstance(message, (bytes, bytearray, memoryview)):
            return bytes(message)
        raise TypeError(f"Engine.IO carries str or bytes, not {type(message).__name__}")

    def pack(self, fragments: Sequence[Frame]) -> Sequence[Frame]:
        """A payload of text wherever it will do: all clients read that, and proxies let it pass.

        Where the client takes bytes, they go as they are, and so does text that is not ASCII, which 1.x wants encoded
        twice in a payload of text, but not in one of bytes; and what is long.
        """
        if self._polling:
            if self._base64 or (
                all(isinstance(item, str) and item.isascii() for item in fragments)
                and sum(map(len, fragments)) <= LONGEST_TEXT_CHARS
            ):
                return ("".join([_in_text(item) for item in fragments]),)
            return (b"".join([_in_bytes(item) for item in fragments]),)
        if self._base64:
            return [item if isinstance(item, str) else _in_base64(item) for item in fragments]
        return [item if isinstance(item, str) else _MESSAGE_BYTE + item for item in fragments]

    def heartbeat(self) -> Frame | None:
        return None  # the client pings

    def goodbye(self, reason: CloseReason) -> Frame | None:
        """A WebSocket says goodbye by its own closing handshake."""
        return self.pack((self.bye,))[0] if self._polling else None

    def decode(self, body: str | bytes, form: str, limits: Limits) -> Sequence[Signal]:
        """Packets of a payload (*form* ``"polling"`` for text, ``"binary"`` for bytes) or of one WebSocket frame.

        ``Speaks``, with the form that knows, comes before the packets of the payload that showed which generation the
        client is of; once in a session.
        """
        if len(body) > limits.max_message_bytes:
            raise ProtocolError("Payload too big.", status=413, reason=MESSAGE_TOO_BIG)
        if form == "websocket":
            return (_text_packet(body) if isinstance(body, str) else _binary_packet(body),)
        if not body:
            raise ProtocolError("Payload expected.")
        if form == "binary":
            return list(_split_bytes(_bytes(body), limits.max_payload_packets))
        packets = list(_split_text(_text(body), limits.max_payload_packets))
        speaker = self if self._twice is not None else self._recognize(packets)
        if speaker._twice:
            packets = [_decoded_again(packet) or packet for packet in packets]
        signals = [_text_packet(packet) for packet in packets]
        return signals if speaker is self else [Speaks(speaker), *signals]

    def _recognize(self, packets: Sequence[str]) -> EngineIO3:
        """The form that knows which generation wrote *packets*; this one where they do not show it.

        2.x would have to send characters that look like UTF-8 read as Latin-1 to be taken for 1.x.
        """
        for packet in packets:
            if not packet.isascii():
                return _FORMS[self._polling, self._base64, _decoded_again(packet) is not None]
        return self


# -- out


def _units(text: str) -> int:
    """The length of *text* as JavaScript counts it, in UTF-16 units."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le", "surrogatepass")) // 2


def _in_base64(data: bytes) -> str:
    return "b4" + b64encode(data).decode("ascii")


def _in_text(fragment: Frame) -> str:
    packet = fragment if isinstance(fragment, str) else _in_base64(fragment)
    return f"{_units(packet)}:{packet}"


def _in_bytes(fragment: Frame) -> bytes:
    if isinstance(fragment, str):
        mark, packet = b"\x00", _utf8(fragment)
    else:
        mark, packet = b"\x01", _MESSAGE_BYTE + fragment
    return mark + str(len(packet)).encode("ascii").translate(_FROM_DIGITS) + b"\xff" + packet


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        return _whole(text).encode()


def _whole(text: str) -> str:
    """*text* with its surrogates in pairs as the characters they mean, and single ones as U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


# -- in


def _text(body: str | bytes) -> str:
    try:
        return body if isinstance(body, str) else body.decode("utf-8")
    except UnicodeDecodeError:
        raise ProtocolError("Not UTF-8 text.", reason=INVALID_DATA) from None


def _bytes(body: str | bytes) -> bytes:
    if isinstance(body, str):
        raise ProtocolError("Bytes expected.")
    return body


def _split_text(text: str, most: int) -> Iterator[str]:
    """The packets of a payload of text, whose lengths count UTF-16 units; at the most *most*, empty ones included."""
    at, count = 0, 0
    while at < len(text):
        head = _TEXT_HEAD.match(text, at)
        if head is None:
            raise ProtocolError("A packet has no length.")
        count += 1
        if count > most:
            raise ProtocolError("Too many packets in one payload.", status=413, reason=MESSAGE_TOO_BIG)
        size = int(head[1])
        packet = text[head.end() : head.end() + size]
        if packet.isascii():
            complete = len(packet) == size
        else:
            # So many characters are at least so many units: enough to cut from.
            units = packet.encode("utf-16-le", "surrogatepass")[: 2 * size]
            complete = len(units) == 2 * size
            try:
                packet = units.decode("utf-16-le")
            except UnicodeDecodeError:
                raise ProtocolError("A packet ends inside a character.") from None
        if not complete:
            raise ProtocolError("A packet is shorter than its length.")
        at = head.end() + len(packet)
        if packet:
            yield packet


def _split_bytes(body: bytes, most: int) -> Iterator[Signal]:
    """The packets of a payload of bytes; at the most *most*, empty ones included."""
    at, count = 0, 0
    while at < len(body):
        head = _BINARY_HEAD.match(body, at)
        if head is None:
            raise ProtocolError("A packet has no length.")
        count += 1
        if count > most:
            raise ProtocolError("Too many packets in one payload.", status=413, reason=MESSAGE_TOO_BIG)
        size = int(head[2].translate(_TO_DIGITS))
        at = head.end() + size
        packet = body[head.end() : at]
        if len(packet) != size:
            raise ProtocolError("A packet is shorter than its length.")
        if head[1] == b"\x01":
            yield _binary_packet(packet)
        elif packet:
            try:
                yield _text_packet(_read_utf8(packet))
            except UnicodeDecodeError:
                raise ProtocolError("Not UTF-8 text.", reason=INVALID_DATA) from None


def _decoded_again(packet: str) -> str | None:
    """What a client of 1.x meant by *packet*; None where none can have written it."""
    if packet.isascii():
        return packet
    try:
        return _read_utf8(packet.encode("latin-1"))
    except UnicodeError:
        return None


def _read_utf8(data: bytes) -> str:
    """The text of *data*.  Raises UnicodeDecodeError.  1.x writes single surrogates as if they were characters."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return _whole(data.decode("utf-8", "surrogatepass"))


def _text_packet(packet: str) -> Signal:
    if packet[:1] != "b":
        return read_packet(packet)
    if packet[1:2] != "4":
        raise ProtocolError("Unknown packet type.")
    return read_base64(packet[2:])


def _binary_packet(packet: bytes) -> Signal:
    if packet[:1] != _MESSAGE_BYTE:
        raise ProtocolError("Unknown packet type.")
    return Message(packet[1:])


_FORMS = {
    (polling, base64, twice): EngineIO3(polling=polling, base64=base64, twice=twice)
    for polling, base64, twice in product((True, False), (True, False), (None, True, False))
}

#: The dialect; ``form`` gives the one that a client speaks, ``over`` the same client's on another transport.
ENGINEIO3 = _FORMS[True, False, None]
_ROUTES = EngineRoutes({"3": ENGINEIO3})
