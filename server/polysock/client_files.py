"""Browser clients, served: polysock.js under a SockJS mount, socket.io-client of each generation under a Socket.IO one.

Knows where the files lie, by which names pages ask for them, and how browsers keep them.  A request only chooses out of
a table made with the routes: nothing of its path reaches the file system.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from tornado.web import HTTPError, RequestHandler

from .settings import SettingError, Settings

__all__ = ["SOCKETIO_GENERATIONS", "client_file", "client_routes", "socketio_client_routes", "with_client_script"]

#: Browsers refuse an ES module without a JavaScript type; RFC 9239 leaves this one.
_SCRIPT = "text/javascript; charset=UTF-8"
_TYPES = {
    ".js": _SCRIPT,
    ".mjs": _SCRIPT,
    ".map": "application/json; charset=UTF-8",
    ".swf": "application/x-shockwave-flash",
}
#: Compressed already.
_NEVER_PACKED = frozenset({".swf"})
#: A source map of 400 KB holds the loop up for 18 ms, once; level 9 does for 45 and saves 1 % of the size.
_GZIP_LEVEL = 6

_KEEP_S = 3600
#: For addresses with ``?v=...``, or with a version in the name, which change with the file.
_KEEP_VERSIONED_S = 31536000

_POLYSOCK_NAMES = ("polysock.js", "polysock.min.js", "polysock.mjs")
_POLYSOCK_PATTERN = r"/(polysock(?:\.min)?\.js|polysock\.mjs)"

#: Generations of socket.io-client, oldest first.
SOCKETIO_GENERATIONS = ("0.9", "1", "2", "3", "4")
_MAIN = "socket.io.js"
#: The builds that the packages socket.io-client 0.9.17, 1.7.4, 2.5.0, 3.1.3 and 4.8.4 hold in ``dist``, of which none
#: holds all.  The reference servers up to 2.x serve the first and its map, later ones all that their package holds.
_BUILDS = (
    _MAIN,
    "socket.io.min.js",
    "socket.io.dev.js",
    "socket.io.slim.js",
    "socket.io.slim.min.js",
    "socket.io.slim.dev.js",
    "socket.io.msgpack.min.js",
    "socket.io.esm.min.js",
)
_SOCKETIO_NAMES = tuple(name + suffix for name in _BUILDS for suffix in ("", ".map"))
#: Where the 0.9 client looks for its Flash movies, under its ``resource`` (its lib/transports/flashsocket.js).
_FLASH_FOLDER = "static/flashsocket/"
_FLASH_NAMES = ("WebSocketMain.swf", "WebSocketMainInsecure.swf")
#: Whatever looks like a client's file.  ``/1/...``, where 0.9 speaks its protocol, does not.
_SOCKETIO_PATTERN = r"/((?:v[0-9.]+/)?socket\.io[A-Za-z0-9_.+-]*|static/flashsocket/[A-Za-z]+\.swf)"
#: Names that Socket.IO 0.9's server makes bundles for (its lib/static.js): ``socket.io.v0.9.17.js``,
#: ``socket.io+websocket+xhr-polling.js``, and both at once.
_BUNDLE = re.compile(r"socket\.io(?:\+[A-Za-z0-9_-]+)*(?:\.v0\.[0-9]+\.[0-9]+)?\.js")
_VERSION_IN_NAME = re.compile(r"\.v0\.[0-9]+\.[0-9]+\.js$")

#: gzip in an Accept-Encoding, unless with the weight that refuses it (RFC 9110 section 12.5.3).
_GZIP = re.compile(r"(?:^|,)[ \t]*(?:x-)?gzip[ \t]*(?:,|$|;[ \t]*q=(?!0(?:\.0*)?[ \t]*(?:,|$)))", re.IGNORECASE)


@dataclass(frozen=True)
class _Content:
    stamp: tuple[int, int, int]
    body: bytes
    packed: bytes | None
    tag: str


class _File:
    """A row of the table: read when first asked for, and again when it has changed on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.content_type = _TYPES[path.suffix]
        self._content: _Content | None = None

    def read(self) -> _Content:
        """Raises OSError."""
        stat = self.path.stat()
        # npm packs every file of every release with the same modification time; the change time tells them apart.
        stamp = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
        if self._content is None or self._content.stamp != stamp:
            body = self.path.read_bytes()
            packed = None if self.path.suffix in _NEVER_PACKED else gzip.compress(body, _GZIP_LEVEL, mtime=0)
            self._content = _Content(stamp, body, packed, hashlib.sha256(body).hexdigest()[:32])
        return self._content


class _ClientFile(RequestHandler):
    def initialize(self, find: Callable[[str], _File | None]) -> None:
        """*find*: the file that a name in the address stands for."""
        self._find = find
        self._tag: str | None = None

    def get(self, name: str) -> None:
        file = self._find(name)
        if file is None:
            raise HTTPError(404, reason="No such client file")
        try:
            content = file.read()
        except OSError as error:
            raise HTTPError(404, "%s", error) from error
        headers = self.request.headers
        zipped = (
            content.packed is not None
            and _GZIP.search(headers.get("Accept-Encoding", "")) is not None
            # IE 6 before its second service pack spoils what it unpacks.
            and "MSIE 6." not in headers.get("User-Agent", "")
        )
        versioned = any(self.request.query_arguments.get("v", ())) or _VERSION_IN_NAME.search(name)
        self.set_header("Content-Type", file.content_type)
        self.set_header("Cache-Control", f"public, max-age={_KEEP_VERSIONED_S if versioned else _KEEP_S}")
        if content.packed is not None:
            self.set_header("Vary", "Accept-Encoding")
        self.set_header("X-Content-Type-Options", "nosniff")
        # The same for everybody: module scripts and integrity checks of other origins ask for this header.
        self.set_header("Access-Control-Allow-Origin", "*")
        # A tag belongs to one coding of the body (RFC 9110 section 8.8.3.3).
        self._tag = f'"{content.tag}-gzip"' if zipped else f'"{content.tag}"'
        if zipped:
            self.set_header("Content-Encoding", "gzip")
        self.finish(content.packed if zipped else content.body)

    head = get

    def compute_etag(self) -> str | None:
        """What Tornado compares with If-None-Match as it finishes the answer."""
        return self._tag


def client_file(name: str) -> Path | None:
    """Where the file *name* of polysock's own client lies; None in an installation without it."""
    here = Path(__file__).resolve().parent
    # The second is the source checkout: server/polysock/client_files.py beside static/.
    for folder in (here / "static", here.parents[1] / "static"):
        if (folder / name).is_file():
            return folder / name
    return None


@cache
def _polysock_files() -> dict[str, _File]:
    """One table for all mounts."""
    return {name: _File(path) for name in _POLYSOCK_NAMES if (path := client_file(name)) is not None}


def client_routes(prefix: str) -> list[Any]:
    """URL specs of polysock's own client's files under *prefix*."""
    return [(prefix.rstrip("/") + _POLYSOCK_PATTERN, _ClientFile, {"find": _polysock_files().get})]


def with_client_script(settings: Settings) -> Settings:
    """*settings*, where they name no script of their own with ours as that of the iframe page."""
    path = client_file("polysock.min.js")
    if path is None or settings.sockjs_url is not None or settings.sockjs_file is not None:
        return settings
    return replace(settings, sockjs_file=path)


def socketio_client_routes(prefix: str, client_files: Mapping[str, str | os.PathLike[str]] | None) -> list[Any]:
    """URL specs of the files of socket.io-client under *prefix*, to stand before those of the mount itself.

    *prefix*: part of a regular expression.  *client_files*: generation -> an npm package's folder, its ``dist``
    folder, or one script.  ``<prefix>/socket.io.js`` and its siblings are of the newest generation listed,
    ``<prefix>/v2/socket.io.js`` and its siblings of that one.  With 0.9 come its Flash movies and the names of its
    bundles; such a name gets the whole script, with the transports that it asks for and all others.

    Raises SettingError for an unknown generation, and where one's script is missing.
    """
    if not client_files:
        return []
    files = _socketio_files(client_files)
    whole = files.get(f"v0.9/{_MAIN}")

    def find(name: str) -> _File | None:
        return files.get(name) or (whole if _BUNDLE.fullmatch(name) else None)

    return [(prefix.rstrip("/") + _SOCKETIO_PATTERN, _ClientFile, {"find": find})]


def _socketio_files(client_files: Mapping[str, str | os.PathLike[str]]) -> dict[str, _File]:
    """The table: address under the prefix -> file."""
    if not isinstance(client_files, Mapping):
        raise SettingError(
            f"client_files must map generations of Socket.IO to folders, not be a {type(client_files).__name__}"
        )
    unknown = [generation for generation in client_files if generation not in SOCKETIO_GENERATIONS]
    if unknown:
        raise SettingError(
            f"client_files: there is no generation {unknown[0]!r} of Socket.IO; there are "
            + ", ".join(map(repr, SOCKETIO_GENERATIONS))
        )
    files: dict[str, _File] = {}
    newest: dict[str, _File] = {}
    for generation in SOCKETIO_GENERATIONS:
        if generation not in client_files:
            continue
        newest = {}
        for name, path in _generation_paths(generation, client_files[generation]):
            if name in _FLASH_NAMES:
                files[_FLASH_FOLDER + name] = _File(path)
            else:
                newest[name] = files[f"v{generation}/{name}"] = _File(path)
    return files | newest


def _generation_paths(generation: str, given: str | os.PathLike[str]) -> Iterator[tuple[str, Path]]:
    """Name -> path of what there is of one generation at *given*.  Raises SettingError where that lacks the script."""
    where = f"client_files: generation {generation!r}"
    if not isinstance(given, (str, os.PathLike)):
        raise SettingError(f"{where} must be a path, not {given!r}")
    # The working directory may be another when the file is read.
    path = Path(os.path.abspath(os.fsdecode(given)))
    if os.path.isfile(path):
        if path.suffix != ".js":
            raise SettingError(f"{where}: {path} is neither a folder nor a .js file")
        yield _MAIN, path
        return
    if not os.path.isdir(path):
        raise SettingError(f"{where}: there is no folder {path}; looked for {_MAIN} in it and in its dist folder")
    for folder in (path, path / "dist"):
        if os.path.isfile(folder / _MAIN):
            break
    else:
        raise SettingError(f"{where}: {path} holds neither {_MAIN} nor {Path('dist', _MAIN)}")
    for name in _SOCKETIO_NAMES + (_FLASH_NAMES if generation == "0.9" else ()):
        if os.path.isfile(folder / name):
            yield name, folder / name
