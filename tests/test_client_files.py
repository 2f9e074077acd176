"""The Server hands out browser clients, its own and those of Socket.IO: names, types, caching, compression, errors."""

from __future__ import annotations

import asyncio
import gzip
import os
from pathlib import Path
from typing import Any

import pytest
from tornado.httpclient import AsyncHTTPClient, HTTPResponse
from tornado.web import RequestHandler

from polysock import Server
from polysock.client_files import SOCKETIO_GENERATIONS, socketio_client_routes
from polysock.settings import SettingError
from support.needs import need
from support.serving import serving

STATIC = Path(__file__).resolve().parents[1] / "static"
NODE_MODULES = Path(__file__).resolve().parent / "npm" / "node_modules"
SCRIPT = "text/javascript; charset=UTF-8"
YEAR = "public, max-age=31536000"


async def fetch(url: str, **headers: str) -> HTTPResponse:
    return await AsyncHTTPClient().fetch(url, headers=headers, raise_error=False, decompress_response=False)


@pytest.mark.parametrize("name", ["polysock.js", "polysock.min.js", "polysock.mjs"])
async def test_each_file_comes_with_its_type_and_a_tag(name: str) -> None:
    async with serving(Server().routes()) as url:
        answer = await fetch(f"{url}/polysock/{name}")
        assert (answer.code, answer.headers["Content-Type"]) == (200, SCRIPT)
        assert answer.body == (STATIC / name).read_bytes()
        assert answer.headers["Cache-Control"] == "public, max-age=3600"
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        again = await fetch(f"{url}/polysock/{name}", **{"If-None-Match": answer.headers["Etag"]})
        assert (again.code, again.body) == (304, b"")


async def test_it_is_packed_for_those_that_can_unpack() -> None:
    async with serving(Server().routes(sockjs="/deep/er")) as url:
        address = f"{url}/deep/er/polysock.min.js"
        packed = await fetch(address, **{"Accept-Encoding": "gzip, deflate"})
        assert packed.headers["Content-Encoding"] == "gzip"
        assert gzip.decompress(packed.body) == (STATIC / "polysock.min.js").read_bytes()
        assert packed.headers["Vary"] == "Accept-Encoding"
        plain = await fetch(address)
        assert "Content-Encoding" not in plain.headers
        assert plain.headers["Etag"] != packed.headers["Etag"]
        old = await fetch(address, **{"Accept-Encoding": "gzip", "User-Agent": "Mozilla/4.0 (compatible; MSIE 6.0)"})
        assert "Content-Encoding" not in old.headers
        assert (await fetch(f"{address}?v=1")).headers["Cache-Control"] == YEAR
        refused = await fetch(f"{address}?v=%ff", **{"Accept-Encoding": "br, gzip;q=0.0"})
        assert (refused.code, refused.headers.get("Content-Encoding")) == (200, None)
        weighed = await fetch(address, **{"Accept-Encoding": "identity;q=0.5,GZIP; q=0.8"})
        assert (weighed.body, weighed.headers["Etag"]) == (packed.body, packed.headers["Etag"])
        kept = {"Accept-Encoding": "gzip", "If-None-Match": f'"other", W/{packed.headers["Etag"]}'}
        again = await fetch(address, **kept)
        assert (again.code, again.body, again.headers["Vary"]) == (304, b"", "Accept-Encoding")
        assert "Content-Encoding" not in again.headers
        other_coding = await fetch(address, **{"If-None-Match": packed.headers["Etag"]})
        assert other_coding.code == 200


async def test_a_head_request_has_no_body() -> None:
    async with serving(Server().routes()) as url:
        answer = await AsyncHTTPClient().fetch(f"{url}/polysock/polysock.js", method="HEAD", decompress_response=False)
        assert answer.body == b""
        assert int(answer.headers["Content-Length"]) == (STATIC / "polysock.js").stat().st_size


async def test_the_iframe_page_loads_the_client_unless_told_otherwise() -> None:
    minified = (STATIC / "polysock.min.js").read_bytes()
    async with serving(Server().routes()) as url:
        assert b"/polysock/sockjs.js?v=" in (await fetch(f"{url}/polysock/iframe-polysock.html")).body
        assert (await fetch(f"{url}/polysock/sockjs.js")).body == minified
    async with serving(Server(sockjs_url="/own.js").routes()) as url:
        assert b'src="/own.js"' in (await fetch(f"{url}/polysock/iframe-polysock.html")).body


async def test_what_is_no_file_of_the_client_stays_with_sockjs() -> None:
    async with serving(Server().routes()) as url:
        assert (await fetch(f"{url}/polysock/polysockXjs")).code == 404
        assert (await fetch(f"{url}/polysock/lab.js")).code == 404
        assert (await fetch(f"{url}/polysock/info")).code == 200


class Mount(RequestHandler):
    """Stands where the Socket.IO mount will, and says that a request came to it."""

    def get(self) -> None:
        self.finish(b"the mount")


def mounted(client_files: Any, prefix: str = "/socket.io") -> list[Any]:
    return [*socketio_client_routes(prefix, client_files), (prefix + r"(?:/.*)?", Mount)]


def package(folder: Path, *names: str) -> Path:
    """A folder laid out as npm's packages are, each file with its own path for content."""
    for name in ("package.json", "dist/socket.io.js", *names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{folder.name}/{name} " * 20)
    return folder


def body_of(folder: Path, name: str) -> bytes:
    return (folder / "dist" / name).read_bytes()


async def test_each_generation_of_socketio_has_its_addresses(tmp_path: Path) -> None:
    old = package(tmp_path / "old", "dist/WebSocketMain.swf", "dist/socket.io.min.js")
    second = package(tmp_path / "second", "dist/socket.io.dev.js", "dist/socket.io.js.map")
    fourth = package(tmp_path / "fourth", "dist/socket.io.esm.min.js", "dist/socket.io.esm.min.js.map")
    third = tmp_path / "bundle.min.js"
    third.write_text("one script")
    files = {"4": str(fourth), "0.9": old, "3": third, "2": second / "dist"}
    async with serving(mounted(files)) as url:
        expected = {
            "socket.io.js": (SCRIPT, body_of(fourth, "socket.io.js")),
            "socket.io.esm.min.js": (SCRIPT, body_of(fourth, "socket.io.esm.min.js")),
            "socket.io.esm.min.js.map": (
                "application/json; charset=UTF-8",
                body_of(fourth, "socket.io.esm.min.js.map"),
            ),
            "v4/socket.io.js": (SCRIPT, body_of(fourth, "socket.io.js")),
            "v3/socket.io.js": (SCRIPT, b"one script"),
            "v2/socket.io.js": (SCRIPT, body_of(second, "socket.io.js")),
            "v2/socket.io.dev.js": (SCRIPT, body_of(second, "socket.io.dev.js")),
            "v2/socket.io.js.map": ("application/json; charset=UTF-8", body_of(second, "socket.io.js.map")),
            "v0.9/socket.io.js": (SCRIPT, body_of(old, "socket.io.js")),
            "v0.9/socket.io.min.js": (SCRIPT, body_of(old, "socket.io.min.js")),
            "socket.io.v0.9.17.js": (SCRIPT, body_of(old, "socket.io.js")),
            "socket.io+websocket+xhr-polling.js": (SCRIPT, body_of(old, "socket.io.js")),
            "socket.io+jsonp-polling.v0.9.6.js": (SCRIPT, body_of(old, "socket.io.js")),
            "static/flashsocket/WebSocketMain.swf": (
                "application/x-shockwave-flash",
                body_of(old, "WebSocketMain.swf"),
            ),
        }
        answers = await asyncio.gather(*(fetch(f"{url}/socket.io/{name}") for name in expected))
        got = {
            name: (answer.headers["Content-Type"], answer.body) for name, answer in zip(expected, answers, strict=True)
        }
        assert got == expected
        for answer in answers:
            assert answer.headers["Access-Control-Allow-Origin"] == "*"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
        kept = {name: answer.headers["Cache-Control"] for name, answer in zip(expected, answers, strict=True)}
        assert {name for name, value in kept.items() if value == YEAR} == {
            "socket.io.v0.9.17.js",
            "socket.io+jsonp-polling.v0.9.6.js",
        }
        # A page's own cache buster chooses nothing.
        busted = await fetch(f"{url}/socket.io/socket.io.js?v=2")
        assert (busted.body, busted.headers["Cache-Control"]) == (body_of(fourth, "socket.io.js"), YEAR)
        # Packed once by the Flash compiler, never again here.
        movie = await fetch(
            f"{url}/socket.io/static/flashsocket/WebSocketMain.swf", **{"Accept-Encoding": "gzip", "If-None-Match": "x"}
        )
        assert movie.body == body_of(old, "WebSocketMain.swf")
        assert not {"Content-Encoding", "Vary"} & set(movie.headers)


async def test_what_is_no_client_file_is_404_or_the_mounts(tmp_path: Path) -> None:
    folder = package(tmp_path / "client", "dist/secret.js", "dist/WebSocketMain.swf", "secret.js")
    async with serving(mounted({"2": folder})) as url:
        for missing in (
            "socket.io.min.js",  # not in the package
            "v2/socket.io.slim.js",
            "v1/socket.io.js",  # not listed
            "v0.9/socket.io.js",
            "socket.io.v0.9.17.js",
            "socket.io+websocket.js",
            "socket.io.v2.5.0.js",
            "socket.io..js",
            "static/flashsocket/WebSocketMain.swf",  # not of this generation
        ):
            assert (await fetch(f"{url}/socket.io/{missing}")).code == 404, missing
        for passed in (
            "",
            "?EIO=4&transport=polling",
            "1/",
            "1/?t=1",
            "1/xhr-polling/socket.io.js",
            "1/websocket/12345",
            "secret.js",
            "v2/secret.js",
            "v2/../secret.js",
            "socket.io%2f..%2fsecret.js",
            "socket.io%ff%00.js",
            "v2/static/flashsocket/WebSocketMain.swf",
        ):
            assert (await fetch(f"{url}/socket.io/{passed}")).body == b"the mount", passed


@pytest.mark.parametrize("nothing", [None, {}])
def test_without_client_files_there_are_no_routes(nothing: Any) -> None:
    assert socketio_client_routes("/socket.io", nothing) == []


async def test_a_socketio_client_may_stand_under_another_prefix(tmp_path: Path) -> None:
    folder = package(tmp_path / "client")
    async with serving(mounted({"1": folder}, "/deep/er")) as url:
        address = f"{url}/deep/er/socket.io.js"
        head = await AsyncHTTPClient().fetch(address, method="HEAD", decompress_response=False)
        assert (head.body, int(head.headers["Content-Length"])) == (b"", len(body_of(folder, "socket.io.js")))
        assert (await fetch(f"{url}/deep/er/v1/socket.io.js")).headers["Etag"] == head.headers["Etag"]


async def test_a_file_is_read_again_when_it_has_changed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = package(tmp_path / "client") / "dist" / "socket.io.js"
    async with serving(mounted({"2": path.parent})) as url:
        address = f"{url}/socket.io/socket.io.js"
        first = await fetch(address)
        stat = path.stat()
        longer = first.body + b"more"
        path.write_bytes(longer)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        second = await fetch(address, **{"If-None-Match": first.headers["Etag"]})
        assert (second.code, second.body) == (200, longer)
        path.write_bytes(longer.upper())
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000_000))
        assert (await fetch(address)).body == longer.upper()
        path.unlink()
        gone = await fetch(address)
        assert (gone.code, "Etag" in gone.headers) == (404, False)
        assert str(path) not in gone.body.decode()
    assert [str(path) in record.message for record in caplog.records] == [True]
    caplog.clear()


def test_what_was_promised_and_is_not_there_is_told_with_the_routes(tmp_path: Path) -> None:
    complete = package(tmp_path / "complete")
    empty = tmp_path / "empty"
    empty.mkdir()

    def told(client_files: Any) -> str:
        with pytest.raises(SettingError) as caught:
            socketio_client_routes("/socket.io", client_files)
        return str(caught.value)

    unknown = told({"2": complete, "5": complete})
    assert "'5'" in unknown
    assert all(repr(generation) in unknown for generation in SOCKETIO_GENERATIONS)
    assert "there is no generation 4 " in told({4: complete})
    lacking = told({"4": complete, "2": empty})
    assert all(
        part in lacking for part in ("generation '2'", str(empty), "socket.io.js", os.path.join("dist", "socket"))
    )
    nowhere = told({"2": tmp_path / "nowhere"})
    assert all(part in nowhere for part in ("generation '2'", str(tmp_path / "nowhere"), "socket.io.js"))
    assert "neither a folder nor a .js file" in told({"1": complete / "package.json"})
    assert "must be a path, not None" in told({"1": None})
    assert "not be a str" in told(str(complete))
    assert "no folder" in told({"1": "a\0b"})


@pytest.mark.parametrize("generation", SOCKETIO_GENERATIONS)
async def test_all_builds_of_the_real_packages_are_served(generation: str) -> None:
    name = f"socket.io-client-{generation}"
    folder = need(NODE_MODULES / name, f"the npm package {name}", "make test (needs npm)")
    files = sorted(path for path in (folder / "dist").iterdir() if path.suffix in (".js", ".map", ".swf"))
    assert folder / "dist" / "socket.io.js" in files
    async with serving(mounted({generation: folder})) as url:
        for path in files:
            for place in ("static/flashsocket/",) if path.suffix == ".swf" else ("", f"v{generation}/"):
                answer = await fetch(f"{url}/socket.io/{place}{path.name}")
                assert (answer.code, answer.body) == (200, path.read_bytes()), path
        if generation == "0.9":
            assert {"WebSocketMain.swf", "WebSocketMainInsecure.swf"} <= {path.name for path in files}
