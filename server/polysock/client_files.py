"""The browser client's files under a Server's mount: ``/polysock/polysock.min.js`` and its siblings.

Knows where they lie (beside this package in a wheel, in ``static/`` of a source checkout) and how browsers keep them.
"""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from tornado.web import HTTPError, RequestHandler

from .settings import Settings

__all__ = ["client_file", "client_routes", "with_client_script"]

_SCRIPT = "application/javascript; charset=UTF-8"
#: Name -> content type.  An ES module needs a JavaScript type, or browsers refuse it.
_FILES = {"polysock.js": _SCRIPT, "polysock.min.js": _SCRIPT, "polysock.mjs": "text/javascript; charset=UTF-8"}
_PATTERN = r"/(polysock(?:\.min)?\.js|polysock\.mjs)"
_KEEP_S = 3600
#: For addresses with ``?v=...``, which change with the file.
_KEEP_VERSIONED_S = 31536000


def client_file(name: str) -> Path | None:
    """Where the file *name* lies; None in an installation without it."""
    here = Path(__file__).resolve().parent
    # The second is the source checkout: server/polysock/client_files.py beside static/.
    for folder in (here / "static", here.parents[1] / "static"):
        if (folder / name).is_file():
            return folder / name
    return None


@cache  # three names at most
def _read(name: str) -> tuple[bytes, bytes, str] | None:
    """The content as it is, gzipped, and its tag."""
    path = client_file(name)
    if path is None:
        return None
    body = path.read_bytes()
    return body, gzip.compress(body, mtime=0), hashlib.sha256(body).hexdigest()[:32]


class _ClientFile(RequestHandler):
    def get(self, name: str) -> None:
        found = _read(name)
        if found is None:
            raise HTTPError(404, reason="This installation has no browser client")
        body, packed, tag = found
        versioned = bool(self.get_query_argument("v", ""))
        # IE 6 before its second service pack spoils what it unpacks.
        headers = self.request.headers
        zipped = "gzip" in headers.get("Accept-Encoding", "") and "MSIE 6." not in headers.get("User-Agent", "")
        self.set_header("Content-Type", _FILES[name])
        self.set_header("Cache-Control", f"public, max-age={_KEEP_VERSIONED_S if versioned else _KEEP_S}")
        self.set_header("Vary", "Accept-Encoding")
        self.set_header("X-Content-Type-Options", "nosniff")
        # The same for everybody: module scripts and integrity checks of other origins ask for this header.
        self.set_header("Access-Control-Allow-Origin", "*")
        # A tag belongs to one coding of the body (RFC 9110 section 8.8.3.3).
        self.set_header("Etag", f'"{tag}-gzip"' if zipped else f'"{tag}"')
        if self.check_etag_header():
            self.set_status(304)
            self.clear_header("Content-Type")
            return
        if zipped:
            self.set_header("Content-Encoding", "gzip")
        self.finish(packed if zipped else body)

    head = get

    def compute_etag(self) -> None:
        """The tag is set above."""


def client_routes(prefix: str) -> list[Any]:
    """URL specs of the client's files under *prefix*."""
    return [(prefix.rstrip("/") + _PATTERN, _ClientFile)]


def with_client_script(settings: Settings) -> Settings:
    """*settings*, where they name no script of their own with ours as that of the iframe page."""
    path = client_file("polysock.min.js")
    if path is None or settings.sockjs_url is not None or settings.sockjs_file is not None:
        return settings
    return replace(settings, sockjs_file=path)
