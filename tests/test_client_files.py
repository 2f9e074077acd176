"""The Server hands out the browser client: types, caching, compression, and the script of its iframe page."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from tornado.httpclient import AsyncHTTPClient, HTTPResponse

from polysock import Server
from support.serving import serving

STATIC = Path(__file__).resolve().parents[1] / "static"


async def fetch(url: str, **headers: str) -> HTTPResponse:
    return await AsyncHTTPClient().fetch(url, headers=headers, raise_error=False, decompress_response=False)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("polysock.js", "application/javascript; charset=UTF-8"),
        ("polysock.min.js", "application/javascript; charset=UTF-8"),
        ("polysock.mjs", "text/javascript; charset=UTF-8"),
    ],
)
async def test_each_file_comes_with_its_type_and_a_tag(name: str, kind: str) -> None:
    async with serving(Server().routes()) as url:
        answer = await fetch(f"{url}/polysock/{name}")
        assert (answer.code, answer.headers["Content-Type"]) == (200, kind)
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
        assert (await fetch(f"{address}?v=1")).headers["Cache-Control"] == "public, max-age=31536000"


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
