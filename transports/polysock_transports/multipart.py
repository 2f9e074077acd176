"""XHR multipart: a response of many parts, each replacing the one before.  Streaming for Firefox before 22.

Named in the specification of Socket.IO 0.9, and in no client of it from 0.7 on; the form is that of Socket.IO 0.6.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from .rfc6455 import utf8
from .transport import HttpTransport
from .wire import Frame

__all__ = ["XhrMultipart"]

_BOUNDARY_BYTES = 16


class XhrMultipart(HttpTransport):
    """A part for each packet: parts need no framing of their own.

    The boundary begins with ``socketio``, as in Socket.IO 0.6, and goes on with random digits of this one response.  A
    text message may hold any line, and the Gecko that had this transport takes a boundary for one wherever it stands.
    Who knew the boundary of another client's response could say something that ends there as a part and goes on as one
    of his own making, headers included.  One boundary for all responses would be known to whoever opens one himself;
    so there is no shape that receivers could share.
    """

    name = "xhr-multipart"
    content_type = "multipart/x-mixed-replace"
    extra_headers = (("X-Content-Type-Options", "nosniff"),)

    def configure(self, options: Mapping[str, Any]) -> None:
        boundary = f"socketio-{secrets.token_hex(_BOUNDARY_BYTES)}"
        typed = ("Content-Type", f'{self.content_type};boundary="{boundary}"')
        self._headers = tuple(typed if name == "Content-Type" else (name, value) for name, value in self._headers)
        # A part ends where the next begins: browsers show it when its delimiter is there, so that one comes at once.
        self.prelude = b"--" + boundary.encode("ascii") + b"\n"

    def wrap(self, frame: Frame) -> bytes:
        data = utf8(frame) if isinstance(frame, str) else frame
        # Readers take CR LF for the end of the line before a delimiter, and with it a CR that belongs to the packet.
        end = b"\r\n" if data.endswith(b"\r") else b"\n"
        return b"Content-Type: text/plain\n\n" + data + end + self.prelude
