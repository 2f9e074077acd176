"""JSONP polling: a script element for every answer.  Works in every browser that runs JavaScript, across origins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from .javascript import javascript_string
from .pipes import Headers
from .transport import HttpTransport, callback_option
from .wire import Frame

__all__ = ["EngineJsonp", "JsonpPolling", "LegacyJsonp"]


class JsonpPolling(HttpTransport):
    name = "jsonp"
    content_type = "application/javascript; charset=UTF-8"
    one_shot = True
    _head, _tail = b"/**/", b");\r\n"
    # The comment that leads and this header stop the answer from being run as something else (a Flash file, a page).
    extra_headers: ClassVar[Headers] = (("X-Content-Type-Options", "nosniff"),)

    def configure(self, options: Mapping[str, Any]) -> None:
        call = options.get("call")
        if call is not None:
            # Made by the route out of a number: an expression of the client library, on a line of its own.
            self._callback = str(call).encode("ascii")
            self._head, self._tail = b"", b");"
        else:
            self._callback = callback_option(options, self._limits).encode("ascii")

    def wrap(self, frame: Frame) -> bytes:
        text = frame if isinstance(frame, str) else frame.decode("latin-1")
        return self._head + self._callback + b"(" + javascript_string(text).encode("ascii") + self._tail


class EngineJsonp(JsonpPolling):
    """Engine.IO's polling by script elements; to the application it is polling."""

    name = "polling"
    content_type = "text/javascript; charset=UTF-8"


class LegacyJsonp(JsonpPolling):
    """Socket.IO 0.9's."""

    name = "jsonp-polling"
    content_type = "text/javascript; charset=UTF-8"
    # IE 8's filter takes a text that a page has sent and gets back for an attack, and breaks the answer.
    extra_headers = (*JsonpPolling.extra_headers, ("X-XSS-Protection", "0"))
