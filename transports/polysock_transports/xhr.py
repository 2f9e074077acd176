"""XMLHttpRequest: long-polling and streaming (also what XDomainRequest of IE 8 and 9 reads)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .prepared import Shape
from .rfc6455 import utf8
from .transport import HttpTransport
from .wire import Frame

__all__ = ["EnginePolling", "LegacyPolling", "XhrPolling", "XhrStreaming", "bare_shape", "xhr_shape"]

_SCRIPT = "application/javascript; charset=UTF-8"


def xhr_shape(frame: Frame) -> bytes:
    """One frame on a line (SockJS protocol text, "XhrPolling"); frames of text dialects are ASCII."""
    return frame.encode("ascii") + b"\n" if isinstance(frame, str) else frame + b"\n"


class XhrPolling(HttpTransport):
    __slots__ = ()

    name = "xhr"
    content_type = _SCRIPT
    one_shot = True
    shape = staticmethod(xhr_shape)


class XhrStreaming(HttpTransport):
    __slots__ = ()

    name = "xhr_streaming"
    content_type = _SCRIPT
    # IE 8's XDomainRequest and WebKit of its time show nothing before about 2 KiB have come.
    prelude = b"h" * 2048 + b"\n"
    shape = staticmethod(xhr_shape)


def bare_shape(frame: Frame) -> bytes:
    """The frame and nothing else."""
    return utf8(frame) if isinstance(frame, str) else frame


class EnginePolling(HttpTransport):
    """Engine.IO's: a payload of text, or where the client takes it of bytes, told by its content type."""

    __slots__ = ("shape",)

    name = "polling"
    content_type = "text/plain; charset=UTF-8"
    one_shot = True

    def configure(self, options: Mapping[str, Any]) -> None:
        # The content type goes with the frame where that may be bytes, so they cannot be shared.
        self.shape: Shape | None = None if options.get("binary_payload") else bare_shape

    def wrap(self, frame: Frame) -> bytes:
        return bare_shape(frame)

    def write(self, frames: Sequence[Frame]) -> None:
        if isinstance(frames[0], bytes):
            # Exactly this: clients of Engine.IO 3 compare it.
            kind = ("Content-Type", "application/octet-stream")
            self._headers = tuple(kind if name == "Content-Type" else (name, value) for name, value in self._headers)
        super().write(frames)


class LegacyPolling(HttpTransport):
    """Socket.IO 0.9's: one packet, or several framed by the dialect."""

    __slots__ = ()

    name = "xhr-polling"
    content_type = "text/plain; charset=UTF-8"
    one_shot = True
    shape = staticmethod(bare_shape)
