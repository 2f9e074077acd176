"""The one-way feed: Server-Sent Events that a bare EventSource understands, numbered so that it can resume.

The response begins with the first frame: who is turned away while the application still thinks gets an HTTP status,
which an EventSource takes for final, and not an empty stream, which it would ask for again and again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .errors import REFUSED, CloseReason
from .limits import Limits
from .pipes import Exchange, Headers
from .transport import HttpTransport
from .wire import Frame

__all__ = ["RESPONSE_ENDED", "FeedStream", "feed_shape"]

#: A feed's session is over with its response.
RESPONSE_ENDED = CloseReason(1000, "The response is complete")


def feed_shape(frame: Frame) -> bytes:
    """One block and the empty line that ends it.

    The data is JSON, where a lone surrogate (which UTF-8 cannot carry) may be an escape instead.
    """
    return (frame.encode("utf-8", "backslashreplace") if isinstance(frame, str) else frame) + b"\n\n"


class FeedStream(HttpTransport):
    name = "events"
    content_type = "text/event-stream"
    shape = staticmethod(feed_shape)
    starts_late = True

    def __init__(self, exchange: Exchange, headers: Headers, options: Mapping[str, Any], limits: Limits) -> None:
        self._refusal_headers = (*headers, ("Content-Type", "text/plain; charset=UTF-8"))
        super().__init__(exchange, headers, options, limits)

    def configure(self, options: Mapping[str, Any]) -> None:
        # How long browsers wait before they come back, in milliseconds.
        self.prelude = b"retry: %d\n\n" % round(self._limits.feed_retry_s * 1000)

    def finish(self, reason: CloseReason | None) -> None:
        if self.finishing:
            return
        owner = self.owner
        if not self.started:
            self.finishing, self.ready = True, False
            code = reason.code if reason is not None else 0
            text = f"{reason.text if reason is not None else RESPONSE_ENDED.text}\n"
            status = 403 if code == REFUSED.code else 503
            self._exchange.respond(status, self._refusal_headers, text.encode("utf-8", "replace"))
            if owner is not None:
                owner.transport_ended(self)
        else:
            super().finish(reason)
        if reason is None and owner is not None:
            owner.peer_closed(RESPONSE_ENDED)
