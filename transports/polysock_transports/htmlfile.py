"""Forever-iframe: script elements in a page that never ends.  Streaming for IE 6 to 9 and whatever has only frames.

``HtmlFile`` is SockJS's page, ``LegacyHtmlFile`` that of Socket.IO 0.9.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .javascript import javascript_string
from .transport import HttpTransport, callback_option
from .wire import Frame

__all__ = ["HtmlFile", "LegacyHtmlFile", "htmlfile_shape", "legacy_htmlfile_shape"]

_HEAD = """<!doctype html>
<html><head>
  <meta http-equiv="X-UA-Compatible" content="IE=edge" />
  <meta http-equiv="Content-Type" content="text/html; charset=UTF-8" />
</head><body><h2>Don't panic!</h2>
  <script>
    document.domain = document.domain;
    var c = parent.{callback};
    c.start();
    function p(d) {{c.message(d);}};
    window.onload = function() {{c.stop();}};
  </script>"""
# Browsers of that time start to run scripts only after about 1 KiB of page.
_PADDED_CHARS = 1024

# Socket.IO 0.9 lets the client's own page do the work, and pads less: Internet Explorer waits for 256 characters.
_LEGACY_HEAD = b"<html><body><script>var _ = function (msg) { parent.s._(msg, document); };</script>"
_LEGACY_PADDED_CHARS = 256


def _script_string(frame: Frame) -> str:
    return javascript_string(frame if isinstance(frame, str) else frame.decode("latin-1"))


def htmlfile_shape(frame: Frame) -> bytes:
    """A script element that hands the frame, as a JavaScript string, to the page around."""
    return b"<script>\np(" + _script_string(frame).encode("ascii") + b");\n</script>\r\n"


def legacy_htmlfile_shape(frame: Frame) -> bytes:
    """The same for the page of ``LegacyHtmlFile``.

    The reference server (0.9.19) escapes the slash alone, which keeps ``</script>`` from ending the element.  We also
    escape ``<``, ``>``, ``&`` and all non-ASCII, so bytes differ where a packet has one of these; the string that the
    browser reads is the same.

    Clients from 0.9.15 on take the slash's backslash off once more by themselves.  The string has none any more, so
    what suffers is a backslash that stands before a slash in the packet: a packet should not contain these two.
    """
    return b"<script>_(" + _script_string(frame).replace("/", "\\/").encode("ascii") + b");</script>"


class HtmlFile(HttpTransport):
    __slots__ = ("prelude",)

    name = "htmlfile"
    content_type = "text/html; charset=UTF-8"
    shape = staticmethod(htmlfile_shape)
    extra_headers = (("X-Content-Type-Options", "nosniff"),)

    def configure(self, options: Mapping[str, Any]) -> None:
        # The name is checked to be letters, digits and "-_.", so it can stand in a script as it is.
        head = _HEAD.format(callback=callback_option(options, self._limits))
        self.prelude = head.ljust(_PADDED_CHARS).encode("ascii") + b"\r\n\r\n"


class LegacyHtmlFile(HttpTransport):
    """The page that socket.io-client 0.7 to 0.9 loads into an ``htmlfile`` object, where ``parent.s`` is its transport.

    Bytes as the reference server (0.9.19) sends them, but for more escapes: see ``legacy_htmlfile_shape``.
    """

    name = "htmlfile"
    content_type = "text/html; charset=UTF-8"
    prelude = _LEGACY_HEAD.ljust(_LEGACY_PADDED_CHARS)
    shape = staticmethod(legacy_htmlfile_shape)
    extra_headers = HtmlFile.extra_headers
