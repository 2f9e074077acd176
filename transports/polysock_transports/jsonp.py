"""JSONP polling: a script element for every answer.  Works in every browser that runs JavaScript, across origins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .javascript import javascript_string
from .transport import HttpTransport, callback_option
from .wire import Frame

__all__ = ["JsonpPolling"]


class JsonpPolling(HttpTransport):
    name = "jsonp"
    content_type = "application/javascript; charset=UTF-8"
    one_shot = True
    # The comment that leads and this header stop the answer from being run as something else (a Flash file, a page).
    extra_headers = (("X-Content-Type-Options", "nosniff"),)

    def configure(self, options: Mapping[str, Any]) -> None:
        self._callback = callback_option(options, self._limits).encode("ascii")

    def wrap(self, frame: Frame) -> bytes:
        text = frame if isinstance(frame, str) else frame.decode("latin-1")
        return b"/**/" + self._callback + b"(" + javascript_string(text).encode("ascii") + b");\r\n"
