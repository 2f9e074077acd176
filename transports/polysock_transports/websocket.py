"""WebSocket: frames of a dialect in WebSocket messages, or (the raw endpoint) messages as they are.

Owns the closing handshake of RFC 6455 section 7; the frames themselves are ``rfc6455.py``'s.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from .errors import ABNORMAL_CLOSURE, CloseReason, ProtocolError
from .limits import Limits
from .permessage_deflate import PerMessageDeflate
from .pipes import Pipe
from .prepared import Shape
from .rfc6455 import (
    OP_BINARY,
    OP_TEXT,
    CloseFrame,
    FrameParser,
    PingFrame,
    Violation,
    binary_frame,
    close_frame,
    encode_frame,
    ping_frame,
    pong_frame,
    text_frame,
    utf8,
)
from .transport import Transport, TransportOwner
from .wire import Frame

__all__ = ["FlashSocket", "RawWebSocket", "WebSocket", "websocket_shape"]

log = logging.getLogger("polysock.websocket")


def websocket_shape(frame: Frame) -> bytes:
    """One frame as one uncompressed message."""
    return text_frame(frame) if isinstance(frame, str) else binary_frame(frame)


class WebSocket(Transport):
    """One connection after its handshake."""

    __slots__ = ("_deflate", "_high", "_parser", "_pipe", "finishing", "owner", "ready", "shape")

    name = "websocket"
    answers_ping = True

    def __init__(
        self, pipe: Pipe, limits: Limits, *, max_message_bytes: int, deflate: PerMessageDeflate | None = None
    ) -> None:
        self.owner: TransportOwner | None = None
        self.ready = True
        self.finishing = False
        self._pipe = pipe
        self._high = limits.pipe_high_bytes
        self._deflate = deflate
        # What is compressed with a window of its own cannot be shared with another connection.
        self.shape: Shape | None = websocket_shape if deflate is None else None
        self._parser = FrameParser(
            max_message_bytes=max_message_bytes,
            max_fragments=limits.max_message_fragments,
            inflate=deflate.inflate if deflate is not None else None,
        )
        pipe.owner = self

    def write(self, frames: Sequence[Frame]) -> None:
        if self._deflate is not None:
            self.write_wire(b"".join(map(self._compressed, frames)))
        elif len(frames) == 1:
            self.write_wire(websocket_shape(frames[0]))
        else:
            self.write_wire(b"".join(map(websocket_shape, frames)))

    def write_wire(self, data: bytes) -> None:
        if self.finishing:
            return
        pipe = self._pipe
        pipe.write(data)
        if pipe.backlog > self._high:
            self.ready = False

    def _compressed(self, frame: Frame) -> bytes:
        assert self._deflate is not None
        payload = utf8(frame) if isinstance(frame, str) else frame
        packed = self._deflate.deflate(payload)
        if packed is None:
            return websocket_shape(frame)
        return encode_frame(OP_TEXT if isinstance(frame, str) else OP_BINARY, packed, rsv1=True)

    def ping(self) -> None:
        if not self.finishing:
            self._pipe.write(ping_frame())

    def pause(self) -> None:
        self._pipe.pause()

    def resume(self) -> None:
        self._pipe.resume()

    def finish(self, reason: CloseReason | None) -> None:
        """Begin the closing handshake; the owner is told ``transport_ended`` when it is over."""
        if self.finishing:
            return
        self._say_close(reason.code if reason is not None else None, reason.text if reason is not None else "")
        # The peer's answer must be seen, even where a handler still holds back its messages.
        self._pipe.resume()

    def abort(self) -> None:
        self.owner = None
        self._pipe.abort()

    def _say_close(self, code: int | None, text: str) -> None:
        self._pipe.write(close_frame(code, text))
        self.ready = False
        self.finishing = True

    # -- told by the pipe

    def data_received(self, data: bytes) -> None:
        owner = self.owner
        if owner is None:
            return
        owner.alive()
        for event in self._parser.feed(data):
            kind = type(event)
            if kind is str or kind is bytes:
                try:
                    owner.receive(event, "websocket")  # type: ignore[arg-type]  # the line above says which it is
                except ProtocolError as error:
                    self._fail(error.reason, str(error))
                    return
            elif kind is PingFrame:
                # To a peer that does not take them, the latest pong is enough (RFC 6455 section 5.5.3).
                if not self.finishing and self._pipe.backlog <= self._high:
                    self._pipe.write(pong_frame(event.data))  # type: ignore[union-attr]
            elif kind is CloseFrame:
                self._peer_closed(event)  # type: ignore[arg-type]
            elif kind is Violation:
                self._fail(event.reason, event.detail)  # type: ignore[union-attr]
                return

    def _peer_closed(self, frame: CloseFrame) -> None:
        answered = self.finishing
        if not answered:
            self._say_close(frame.code, frame.text)
        # RFC 6455 section 7.1.1: it is the server that closes TCP.
        self._pipe.close()
        if self.owner is not None and not answered:
            self.owner.peer_closed(CloseReason(frame.code, frame.text, may_return=False))

    def _fail(self, reason: CloseReason, detail: str) -> None:
        log.debug("closing a WebSocket with %s: %s", reason, detail)
        already = self.finishing
        if not already:
            self._say_close(reason.code, reason.text)
        self._pipe.close()
        if self.owner is not None and not already:
            self.owner.peer_closed(reason)

    def pipe_drained(self) -> None:
        if not self.finishing:
            self.ready = True
            if self.owner is not None:
                self.owner.transport_ready(self)

    def pipe_lost(self) -> None:
        self.ready = False
        owner, self.owner = self.owner, None
        if owner is None:
            return
        if self.finishing:
            owner.transport_ended(self)
        else:
            self.finishing = True
            owner.transport_lost(self, ABNORMAL_CLOSURE)


class RawWebSocket(WebSocket):
    """The raw endpoint's, under the name sockjs-tornado's sessions report."""

    __slots__ = ()

    name = "rawwebsocket"


class FlashSocket(WebSocket):
    """A WebSocket that the Flash player makes, under the name that clients of Socket.IO 0.9 have for it."""

    __slots__ = ()

    name = "flashsocket"
