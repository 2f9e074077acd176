"""Engine.IO 4: the wire language of socket.io-client 3.x and 4.x.

Source: the Engine.IO protocol text, revision 4.  The requests are routed by ``engineio.py``; pings, probes and upgrades
are the session's (``engine.py``).
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence

import ujson

from ..errors import INVALID_DATA, MESSAGE_TOO_BIG, CloseReason, ProtocolError
from ..limits import Limits
from ..wire import Frame, Message, Refusal, Request, Route, Signal
from .engineio import EngineRoutes, opening, read_base64, read_packet

__all__ = ["ENGINEIO4", "EngineIO4"]

_SEPARATOR = "\x1e"


class EngineIO4:
    """One form of the dialect: payloads of many packets (polling), or a packet in each frame."""

    protocol = 4
    language = "engineio4"
    server_pings = True
    ping = "2"
    noop = "6"
    bye = "1"
    binary_payload = False
    lost_ends_session = True

    def __init__(self, *, polling: bool) -> None:
        self.name = "engineio4-polling" if polling else "engineio4-websocket"
        self._polling = polling

    def form(self, transport: str, query: Mapping[str, str]) -> EngineIO4:
        return self.over(transport)

    def over(self, transport: str) -> EngineIO4:
        return _WEBSOCKET if transport == "websocket" else _POLLING

    def route(self, request: Request, limits: Limits) -> Route | Refusal | None:
        return _ROUTES.route(request, limits)

    def hello(self) -> Sequence[Frame]:
        return ()  # the opening packet holds what only the session knows

    def opening(self, session_id: str, upgrades: Sequence[str], limits: Limits) -> str:
        facts = {**opening(session_id, upgrades, limits), "maxPayload": limits.max_message_bytes}
        return "0" + ujson.dumps(facts, escape_forward_slashes=False)

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
        if not self._polling:
            return fragments
        if len(fragments) == 1 and isinstance(fragments[0], str):
            return fragments
        return (_SEPARATOR.join([item if isinstance(item, str) else _base64(item) for item in fragments]),)

    def heartbeat(self) -> Frame | None:
        return None  # pings belong to the session's deadlines

    def goodbye(self, reason: CloseReason) -> Frame | None:
        """A WebSocket says goodbye by its own closing handshake."""
        return self.pack((self.bye,))[0] if self._polling else None

    def decode(self, body: str | bytes, form: str, limits: Limits) -> Sequence[Signal]:
        """Packets of a payload (*form* ``"polling"``) or of one WebSocket frame.

        Clients that were told to use base64 (``forceBase64``) do so on a WebSocket too.
        """
        if len(body) > limits.max_message_bytes:
            raise ProtocolError("Payload too big.", status=413, reason=MESSAGE_TOO_BIG)
        if form == "websocket":
            return (Message(body) if isinstance(body, bytes) else _packet(body),)
        try:
            text = body if isinstance(body, str) else body.decode("utf-8")
        except UnicodeDecodeError:
            raise ProtocolError("Not UTF-8 text.", reason=INVALID_DATA) from None
        if text.count(_SEPARATOR) >= limits.max_payload_packets:
            raise ProtocolError("Too many packets in one payload.", status=413, reason=MESSAGE_TOO_BIG)
        return [_packet(packet) for packet in text.split(_SEPARATOR)]


def _base64(data: bytes) -> str:
    return "b" + b64encode(data).decode("ascii")


def _packet(packet: str) -> Signal:
    return read_base64(packet[1:]) if packet[:1] == "b" else read_packet(packet)


_POLLING = EngineIO4(polling=True)
_WEBSOCKET = EngineIO4(polling=False)

#: The dialect; ``over`` gives its form on another transport.
ENGINEIO4 = _POLLING
_ROUTES = EngineRoutes({"4": ENGINEIO4})
