"""The fixed pages of a SockJS endpoint: greeting, ``/info``, the iframe page and the script it loads.

Each is a function from what the gateway knows of the request to (status, headers, body); no I/O but reading the script
file once.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path

from .dialects.sockjs import GREETING, iframe_page, info

__all__ = ["CACHE_FOREVER_S", "NEVER_CACHE", "Answer", "SockJSPages", "cache_forever"]

Answer = tuple[int, Sequence[tuple[str, str]], bytes]

#: The SockJS protocol text compares this to the letter.
NEVER_CACHE = ("Cache-Control", "no-store, no-cache, no-transform, must-revalidate, max-age=0")
CACHE_FOREVER_S = 31536000  # a year, the longest that caches honour
_HTML = ("Content-Type", "text/html; charset=UTF-8")
_SCRIPT = ("Content-Type", "application/javascript; charset=UTF-8")
_TEXT = ("Content-Type", "text/plain; charset=UTF-8")
_NOSNIFF = ("X-Content-Type-Options", "nosniff")


def cache_forever() -> tuple[tuple[str, str], ...]:
    """Headers for what never changes under its URL."""
    return (
        ("Cache-Control", f"public, max-age={CACHE_FOREVER_S}"),
        ("Expires", formatdate(time.time() + CACHE_FOREVER_S, usegmt=True)),
    )


@dataclass(frozen=True)
class SockJSPages:
    """The pages of one endpoint.

    The iframe page loads *script_url*; without one it loads ``<prefix>/sockjs.js``, which is *script* (the content of
    a sockjs-client release).  With neither, that address says what to set.
    """

    websocket: bool
    cookie_needed: bool
    script_url: str | None = None
    script: bytes | None = None
    frame_headers: Sequence[tuple[str, str]] = ()

    @staticmethod
    def read_script(path: str | Path) -> bytes:
        """The content of a local sockjs-client file.  Raises OSError where it cannot be read."""
        return Path(path).read_bytes()

    def answer(self, page: str, mount: str, headers: Mapping[str, str]) -> Answer:
        """The page named *page* of the endpoint mounted at the path *mount*, for a request with *headers*."""
        if page == "greeting":
            return 200, (_TEXT,), GREETING
        if page == "info":
            body = info(websocket=self.websocket, cookie_needed=self.cookie_needed, entropy=secrets.randbits(32))
            return 200, (("Content-Type", "application/json; charset=UTF-8"), NEVER_CACHE), body
        if page == "iframe":
            body, etag = iframe_page(self.script_url or self._own_script_url(mount))
            return self._cacheable(body, etag, (_HTML, *self.frame_headers), headers)
        if self.script is None:
            return 404, (_TEXT, NEVER_CACHE), _NO_SCRIPT
        return self._cacheable(self.script, self._etag(self.script), (_SCRIPT, _NOSNIFF), headers)

    def _own_script_url(self, mount: str) -> str:
        # The version of the file is part of the address, since browsers keep it for a year.
        version = f"?v={self._etag(self.script)[1:9]}" if self.script is not None else ""
        return f"{mount}/sockjs.js{version}"

    @staticmethod
    def _etag(body: bytes) -> str:
        return '"' + hashlib.sha256(body).hexdigest()[:32] + '"'

    @staticmethod
    def _cacheable(body: bytes, etag: str, content: Sequence[tuple[str, str]], headers: Mapping[str, str]) -> Answer:
        lasting = (("ETag", etag), *cache_forever())
        # RFC 9110 section 13.1.2: a list of tags, compared weakly.
        known = [tag.strip().removeprefix("W/") for tag in headers.get("If-None-Match", "").split(",")]
        if etag in known or "*" in known:
            return 304, lasting, b""
        return 200, (*content, *lasting), body


_NO_SCRIPT = (
    b"// This SockJS endpoint has no client script for its iframe page.\n"
    b"// Set sockjs_file to a local copy of sockjs.min.js, or sockjs_url to its address.\n"
)
