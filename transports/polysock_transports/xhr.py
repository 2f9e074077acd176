"""XMLHttpRequest: long-polling and streaming (also what XDomainRequest of IE 8 and 9 reads)."""

from __future__ import annotations

from .transport import HttpTransport
from .wire import Frame

__all__ = ["XhrPolling", "XhrStreaming", "xhr_shape"]

_SCRIPT = "application/javascript; charset=UTF-8"


def xhr_shape(frame: Frame) -> bytes:
    """One frame on a line (SockJS protocol text, "XhrPolling"); frames of text dialects are ASCII."""
    return frame.encode("ascii") + b"\n" if isinstance(frame, str) else frame + b"\n"


class XhrPolling(HttpTransport):
    name = "xhr"
    content_type = _SCRIPT
    one_shot = True
    shape = staticmethod(xhr_shape)


class XhrStreaming(HttpTransport):
    name = "xhr_streaming"
    content_type = _SCRIPT
    # IE 8's XDomainRequest and WebKit of its time show nothing before about 2 KiB have come.
    prelude = b"h" * 2048 + b"\n"
    shape = staticmethod(xhr_shape)
