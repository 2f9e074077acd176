"""WebSockets of the drafts hixie-75 and hixie-76: the frames of ``hixie76.py`` in the life of ``websocket.py``.

A hixie-76 connection rides on a ``ProvingPipe``, which finishes its handshake; the transport itself knows nothing of
that.  There is no ping, so that nothing but TCP tells that a silent client lives.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from .clock import Clock, Timer
from .hixie76 import CLOSE, KEY3_BYTES, FrameParser, Handshake, text_frame
from .limits import Limits
from .pipes import Pipe
from .websocket import WebSocket
from .wire import Frame

__all__ = ["HixieFlashSocket", "HixieWebSocket", "ProvingPipe", "RawHixieWebSocket"]

log = logging.getLogger("polysock.websocket")


class HixieWebSocket(WebSocket):
    """One connection; its pipe may still be at the handshake."""

    __slots__ = ("_says_close",)

    answers_ping = False
    may_recycle = False

    def __init__(
        self, pipe: Pipe, limits: Limits, *, max_message_bytes: int, handshake: Handshake, clock: Clock
    ) -> None:
        self._says_close = handshake.numbers is not None
        if self._says_close:
            pipe = ProvingPipe(pipe, handshake, clock, limits.body_timeout_s)
        super().__init__(pipe, limits, max_message_bytes=max_message_bytes)
        self.shape = text_frame
        self._parser = FrameParser(max_message_bytes)  # type: ignore[assignment]  # its events are some of the other's

    def write(self, frames: Sequence[Frame]) -> None:
        self.write_wire(b"".join(map(text_frame, frames)))

    def ping(self) -> None:
        """There is none."""

    def _say_close(self, code: int | None, text: str) -> None:
        self.ready = False
        self.finishing = True
        if self._says_close:
            self._pipe.write(CLOSE)
        else:
            self._pipe.close()  # hixie-75 ends TCP and nothing else


class RawHixieWebSocket(HixieWebSocket):
    """The raw endpoint's."""

    __slots__ = ()

    name = "rawwebsocket"


class HixieFlashSocket(HixieWebSocket):
    """One that the Flash player makes."""

    __slots__ = ()

    name = "flashsocket"


class ProvingPipe(Pipe):
    """A pipe over *pipe* that first takes the 8 bytes after the request's head and answers them with the proof.

    What is written meanwhile waits, as backlog, since the client would take it for the proof; and reading goes on
    where it is paused, since the client waits for the proof too.  A client that takes longer than *timeout_s* is cut.
    """

    def __init__(self, pipe: Pipe, handshake: Handshake, clock: Clock, timeout_s: float) -> None:
        self._pipe = pipe
        self._handshake = handshake
        self._key3 = b""
        self._held = bytearray()
        self._paused = False
        # A timer for each handshake that is going on, and none for those that are over.
        self._timer: Timer | None = clock.call_later(timeout_s, self._too_late)
        pipe.owner = self

    @property
    def backlog(self) -> int:
        return self._pipe.backlog + len(self._held)

    def start(self) -> None:
        self._pipe.start()

    def write(self, data: bytes) -> None:
        if self._timer is None:
            self._pipe.write(data)
        else:
            self._held += data

    def pause(self) -> None:
        self._paused = True
        if self._timer is None:
            self._pipe.pause()

    def resume(self) -> None:
        self._paused = False
        self._pipe.resume()

    def close(self) -> None:
        self._settle()
        self._pipe.close()

    def abort(self) -> None:
        self._settle()
        self.owner = None
        self._pipe.abort()

    def _settle(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_late(self) -> None:
        log.debug("cutting a WebSocket: the end of its handshake did not come")
        self._pipe.abort()
        self.pipe_lost()

    # -- told by the pipe

    def data_received(self, data: bytes) -> None:
        if self._timer is not None:
            missing = KEY3_BYTES - len(self._key3)
            self._key3 += data[:missing]
            data = data[missing:]
            if len(self._key3) < KEY3_BYTES:
                return
            self._prove()
        if data and self.owner is not None:
            self.owner.data_received(data)

    def _prove(self) -> None:
        self._settle()
        self._pipe.write(self._handshake.proof(self._key3) + self._held)
        self._held.clear()
        if self._paused:
            self._pipe.pause()
        if not self._pipe.backlog:
            self.pipe_drained()

    def pipe_drained(self) -> None:
        if self._timer is None and self.owner is not None:
            self.owner.pipe_drained()

    def pipe_lost(self) -> None:
        self._settle()
        owner, self.owner = self.owner, None
        if owner is not None:
            owner.pipe_lost()
