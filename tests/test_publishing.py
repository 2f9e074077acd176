"""Emitting by an HTTP request: who may, what arrives, and what strangers may try."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tornado.httputil import HTTPServerRequest

import polysock
from polysock import Server, SettingError
from polysock.backplane import MemoryBus
from polysock.testing import Client
from support.clients import Quiet, quiet, until  # noqa: F401  # autouse: nothing here logs unannounced
from support.cluster import bus_of, cluster_of, world
from support.rawhttp import Connection, Response, request
from support.serving import serving

TOKEN = "a-token-that-nobody-guesses"
ALLOWED = (("Authorization", f"Bearer {TOKEN}"),)
LIMIT_BYTES = 2_000


class Site:
    """A Server with the endpoint at /publish."""

    def __init__(self, io: Server, url: str) -> None:
        self.io = io
        self.url = url

    async def ask(self, body: bytes, headers: Any = ALLOWED, method: str = "POST") -> Response:
        return await request(self.url, method, "/publish", headers=headers, body=body)

    async def emit(self, *, status: int = 200, **wish: Any) -> dict[str, Any]:
        response = await self.ask(json.dumps(wish).encode())
        return read(response, status)


def read(response: Response, status: int) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(response.body)
    assert (response.status, answer) == (status, answer)
    assert response.headers["Content-Type"] == "application/json; charset=UTF-8"
    assert response.headers["Cache-Control"] == "no-store"
    return answer


@asynccontextmanager
async def site(io: Server | None = None, *, xsrf_cookies: bool = False, **rule: Any) -> AsyncIterator[Site]:
    io = io or Server(max_publish_bytes=LIMIT_BYTES)
    routes = io.route_publish("/publish", **(rule or {"token": TOKEN}))
    async with serving(routes, xsrf_cookies=xsrf_cookies) as url:
        yield Site(io, url)


async def test_what_is_asked_is_emitted() -> None:
    async with site() as there:
        there.io.on("connection", lambda client: client.join(client.handshake.query["room"]))
        chat = there.io.of("/chat")
        ann, bob = Client(there.io, query={"room": "a"}), Client(there.io, query={"room": "b"})
        eve = Client(there.io, "/chat")
        assert await there.emit(event="all", args=[1, {"x": None}]) == {"nodes": 0, "local": 2}
        assert await there.emit(event="a", rooms=["a"]) == {"nodes": 0, "local": 1}
        assert await there.emit(event="not a", rooms=["a", "b"], **{"except": ["a"]}) == {"nodes": 0, "local": 1}
        assert await there.emit(event="chat", namespace="chat") == {"nodes": 0, "local": 1}
        binary = [b64encode(data).decode() for data in (b"\x00\xff", b"")]
        assert await there.emit(event="binary", namespace="/chat", args=[1], binary=binary) == {"nodes": 0, "local": 1}
        assert await there.emit(event="lost", rooms=["nobody"]) == {"nodes": 0, "local": 0}
        assert await there.emit(event="lost", namespace="/nowhere") == {"nodes": 0, "local": 0}
        assert ann.take() == [("all", 1, {"x": None}), ("a",)]
        assert bob.take() == [("all", 1, {"x": None}), ("not a",)]
        assert eve.take() == [("chat",), ("binary", 1, b"\x00\xff", b"")]
        assert set(there.io.namespaces) == {"/", chat.name}  # asking makes none


async def test_other_nodes_get_it_and_are_counted() -> None:
    bus = MemoryBus()
    servers = [Server(backplane=bus.backplane()) for _ in range(3)]
    try:
        for io in servers:
            io.on("connection", lambda client: client.join("a"))
            await io.start()
        clients = [Client(io) for io in servers[:2]]
        async with site(servers[0]) as there:
            assert await there.emit(event="x", rooms=["a"]) == {"nodes": 1, "local": 1}
            assert await there.emit(event="y", rooms=[clients[1].id]) == {"nodes": 1, "local": 0}
            assert await there.emit(event="z", namespace="/nowhere") == {"nodes": 0, "local": 0}
            heard: list[Any] = []

            def both() -> bool:
                heard.extend(clients[1].take())
                return len(heard) == 2

            await until(both)
            assert clients[0].take() == [("x",)]
            assert heard == [("x",), ("y",)]
            bus_of(servers[0]).cut = True
            answer = await there.emit(event="x", status=503)
            assert answer == {"error": "The backplane is down: only clients of this node got it.", "local": 1}
            assert clients[0].take() == [("x",)]
            bus_of(servers[0]).cut = False
    finally:
        for io in servers:
            io.close()
            await io.stop()
    assert cluster_of(servers[0]).is_up is False


async def test_before_the_node_has_started() -> None:
    io = Server(backplane=MemoryBus().backplane())
    async with site(io) as there:
        assert "The backplane is down" in (await there.emit(event="x", status=503))["error"]


# -- who may


@pytest.mark.parametrize(
    "headers",
    [
        (),
        (("Authorization", TOKEN),),
        (("Authorization", "Bearer"),),
        (("Authorization", "Bearer "),),
        (("Authorization", f"Basic {TOKEN}"),),
        (("Authorization", f"Bearer {TOKEN[:-1]}"),),
        (("Authorization", f"Bearer {TOKEN}x"),),
        (("Authorization", f"Bearer {TOKEN} x"),),
        (("Authorization", f"Bearer {TOKEN.upper()}"),),
        (("Authorization", b"Bearer \xe4\xff"),),
        (("Authorization", "Bearer x"), ("Authorization", f"Bearer {TOKEN}")),
        (("Cookie", f"token={TOKEN}"),),
    ],
)
async def test_nobody_without_the_token(headers: Any) -> None:
    async with site() as there:
        ann = Client(there.io)
        response = await there.ask(b'{"event":"x"}', headers)
        assert read(response, 401) == {"error": "The token is missing or wrong."}
        assert response.headers["WWW-Authenticate"] == "Bearer"
        assert ann.take() == []


async def test_the_schemes_name_is_of_any_case() -> None:
    async with site() as there:
        response = await there.ask(b'{"event":"x"}', (("authorization", f"bearer  {TOKEN}"),))
        assert read(response, 200) == {"nodes": 0, "local": 0}


async def test_a_token_needs_no_cookie_beside_it() -> None:
    """In an application that protects its forms; no page of others can send the token."""
    async with site(xsrf_cookies=True) as there:
        assert await there.emit(event="x") == {"nodes": 0, "local": 0}
        response = await there.ask(b'{"event":"x"}', (("Authorization", "Bearer wrong"),))
        assert read(response, 401) == {"error": "The token is missing or wrong."}


async def test_a_check_that_may_trust_cookies_is_protected(quiet: Quiet) -> None:  # noqa: F811
    quiet.announced.append("403 POST /publish")
    async with site(xsrf_cookies=True, check=lambda request: True) as there:
        assert "error" in json.loads((response := await there.ask(b'{"event":"x"}')).body)
        assert response.status == 403


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize(("answer", "status"), [(True, 200), (False, 403), (None, 403), ("yes", 403), (1, 403)])
async def test_the_applications_own_check(is_async: bool, answer: Any, status: int) -> None:
    seen: list[str] = []

    def check(request: HTTPServerRequest) -> Any:
        seen.append(request.headers["X-Key"])
        return answer

    async def slowly(request: HTTPServerRequest) -> Any:
        await asyncio.sleep(0)
        return check(request)

    async with site(check=slowly if is_async else check) as there:
        response = await there.ask(b'{"event":"x"}', (("X-Key", "7"),))
        assert "error" in read(response, status) or status == 200
    assert seen == ["7"]


async def test_a_check_that_fails(quiet: Quiet) -> None:  # noqa: F811
    quiet.announced.append("the check of route_publish failed")

    def check(request: HTTPServerRequest) -> bool:
        raise LookupError("secret")

    async with site(check=check) as there:
        response = await there.ask(b'{"event":"x"}')
        assert read(response, 500) == {"error": "Internal error."}


@pytest.mark.parametrize(
    "rule",
    [
        {},
        {"token": None},
        {"token": ""},
        {"token": "short"},
        {"token": "x" * 15},
        {"token": "with a space in it"},
        {"token": "\u6f22" * 20},
        {"token": b"x" * 20},
        {"token": TOKEN, "check": bool},
        {"check": "x"},
    ],
)
def test_never_without_a_rule(rule: dict[str, Any]) -> None:
    with pytest.raises(SettingError):
        Server().route_publish("/publish", **rule)


# -- what strangers may try


@pytest.mark.parametrize("nodes", [1, 2])
async def test_what_clients_cannot_be_told_is_refused(nodes: int) -> None:
    async with world(nodes if nodes > 1 else 0) as joined:
        io = joined.servers[0] if nodes > 1 else Server(max_publish_bytes=LIMIT_BYTES * 2)
        async with site(io) as there:
            Client(io)
            response = await there.ask(b'{"event":"x","args":%b%b}' % (b"[" * 1_010, b"]" * 1_010))
            assert read(response, 400)["error"].startswith("This cannot be emitted: ")


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"])
async def test_other_methods(method: str) -> None:
    async with site() as there:
        for headers in ((), ALLOWED):
            response = await there.ask(b"", headers, method)
            assert (response.status, response.headers["Allow"]) == (405, "POST")
            assert "Access-Control-Allow-Origin" not in response.headers
            assert response.body == (b"" if method == "HEAD" else b'{"error":"Use POST."}')


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"x",
        b"\xff",
        b"null",
        b"[]",
        b'"x"',
        b"{}",
        b'{"event":1}',
        b'{"event":null}',
        b'{"event":["x"]}',
        b'{"event":"disconnect"}',
        b'{"event":"x","args":{}}',
        b'{"event":"x","args":"x"}',
        b'{"event":"x","args":[NaN]}',
        b'{"event":"x","args":[1e999]}',
        b'{"event":"x","rooms":"a"}',
        b'{"event":"x","rooms":[1]}',
        b'{"event":"x","rooms":null}',
        b'{"event":"x","except":{}}',
        b'{"event":"x","namespace":1}',
        b'{"event":"x","namespace":"a,b"}',
        b'{"event":"x","binary":["?"]}',
        b'{"event":"x","binary":["AAA"]}',
        b'{"event":"x","binary":[1]}',
        b'{"event":"x","binary":"AAAA"}',
        b'{"event":"x","room":"a"}',
        b'{"event":"x"}{}',
        b"[" * 1_900,
    ],
)
async def test_what_makes_no_sense(body: bytes) -> None:
    async with site() as there:
        ann = Client(there.io)
        answer = read(await there.ask(body), 400)
        assert list(answer) == ["error"]
        assert len(answer["error"]) < 200
        assert ann.take() == []
        assert await there.emit(event="fine") == {"nodes": 0, "local": 1}


async def test_more_rooms_than_nodes_take() -> None:
    io = Server(backplane=MemoryBus().backplane(), max_envelope_names=3)
    await io.start()
    ann = Client(io)
    async with site(io) as there:
        assert "max_envelope_names" in (await there.emit(event="x", rooms=["a", "b", "c", "d"], status=400))["error"]
        assert ann.take() == []
    io.close()
    await io.stop()


async def test_the_longest_body() -> None:
    async with site() as there:
        filler = LIMIT_BYTES - len('{"event":""}')
        assert await there.emit(event="x" * (filler - 1)) == {"nodes": 0, "local": 0}
        body = b'{"event":"' + b"x" * filler + b'"}'
        assert len(body) == LIMIT_BYTES
        assert read(await there.ask(body), 200) == {"nodes": 0, "local": 0}
        assert read(await there.ask(body + b" "), 413) == {"error": f"The body is longer than {LIMIT_BYTES} bytes."}


async def test_a_body_whose_length_is_not_told() -> None:
    async with site() as there, await Connection.open(there.url) as peer:
        await peer.write(
            f"POST /publish HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
            "Transfer-Encoding: chunked\r\n\r\n".encode()
        )
        for _ in range(3):
            await peer.write(b"3e8\r\n" + b" " * 1_000 + b"\r\n")
        assert read(await peer.read_response(), 413) == {"error": f"The body is longer than {LIMIT_BYTES} bytes."}


async def test_strangers_bodies_are_not_read() -> None:
    async with site() as there, await Connection.open(there.url) as peer:
        await peer.write(b"POST /publish HTTP/1.1\r\nHost: x\r\nContent-Length: 1999\r\n\r\n")
        assert read(await peer.read_response(), 401)


async def test_it_is_where_it_was_put() -> None:
    io = Server()
    (spec,) = io.route_publish("internal/emit+/", token=TOKEN)
    async with serving([spec]) as url:
        for path, status in (("/internal/emit+", 200), ("/internal/emit+/", 200), ("/internal/emitt", 404)):
            response = await request(url, "POST", path, headers=ALLOWED, body=b'{"event":"x"}')
            assert (path, response.status) == (path, status)


def test_it_is_no_secret_how_to_make_a_token() -> None:
    with pytest.raises(polysock.SettingError, match="token_urlsafe"):
        Server().route_publish(token="guess")
