"""Forever-iframe: script elements in a page that never ends.  Streaming for IE 6 to 9 and whatever has only frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .javascript import javascript_string
from .transport import HttpTransport, callback_option
from .wire import Frame

__all__ = ["HtmlFile", "htmlfile_shape"]

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


def htmlfile_shape(frame: Frame) -> bytes:
    """A script element that hands the frame, as a JavaScript string, to the page around."""
    text = frame if isinstance(frame, str) else frame.decode("latin-1")
    return b"<script>\np(" + javascript_string(text).encode("ascii") + b");\n</script>\r\n"


class HtmlFile(HttpTransport):
    name = "htmlfile"
    content_type = "text/html; charset=UTF-8"
    shape = staticmethod(htmlfile_shape)
    extra_headers = (("X-Content-Type-Options", "nosniff"),)

    def configure(self, options: Mapping[str, Any]) -> None:
        # The name is checked to be letters, digits and "-_.", so it can stand in a script as it is.
        head = _HEAD.format(callback=callback_option(options, self._limits))
        self.prelude = head.ljust(_PADDED_CHARS).encode("ascii") + b"\r\n\r\n"
