"""EventSource (Server-Sent Events): streaming for Opera 11 and later, and where WebSockets are blocked."""

from __future__ import annotations

from .transport import HttpTransport
from .wire import Frame

__all__ = ["EventSource", "eventsource_shape"]


def eventsource_shape(frame: Frame) -> bytes:
    """One event of one ``data`` line; text dialects escape line breaks, so a frame never holds one.

    sockjs-client undoes percent-encoding in what it gets (``unescape`` in 0.3, ``decodeURI`` in 1.x, which throws at a
    bare percent sign), so a percent sign leaves as its JSON escape, which every reader understands.
    """
    data = frame.encode("ascii") if isinstance(frame, str) else frame
    return b"data: " + data.replace(b"%", b"\\u0025") + b"\r\n\r\n"


class EventSource(HttpTransport):
    __slots__ = ()

    name = "eventsource"
    # No charset: Opera 10 and 11 refuse the stream with one (SockJS protocol text, "EventSource").
    content_type = "text/event-stream"
    prelude = b"\r\n"
    shape = staticmethod(eventsource_shape)
