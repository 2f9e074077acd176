"""A Server that joins a cluster with its application: clients of one session at any node, over real sockets."""

from __future__ import annotations

import asyncio
import json
import os
import re
import stat
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tornado.web import Application

from polysock import Connection, EngineIORouter, Presence, Server, SettingError, SockJSRouter, StateError
from polysock.backplane import BackplaneDown, MemoryBackplane, MemoryBus
from polysock.testing import Client as InMemory
from support.clients import (
    Client,
    Quiet,
    quiet,  # noqa: F401  # autouse: nothing here logs unannounced
    turns,
    until,
)
from support.clock import FakeClock
from support.cluster import cluster_of
from support.rawhttp import request
from support.redis_server import RedisServer
from support.serving import serving_application

LONG_S = 30.0  # backplanes wait longer before each further try
SECRET = "a secret of these tests, and of nobody else"


class Echo(Connection):
    def on_message(self, message: str | bytes) -> None:
        self.send(message)


class Node:
    """One Server with its application: all mounts, and two routers beside them."""

    def __init__(self, backplane: MemoryBackplane, **settings: Any) -> None:
        self.io = Server(backplane=backplane, **settings)
        self.echo = SockJSRouter(Echo, "/s")
        self.engine = EngineIORouter(Echo, "/e")
        for router in (self.echo, self.engine):
            self.io.share(router)
        self.io.on("connection", lambda socket: socket.on("add", lambda a, b: a + b))
        urls = [*self.io.routes(), *self.echo.urls, *self.engine.urls]
        self.application = Application(urls, log_function=lambda handler: None)
        self.base = ""

    async def start(self, stack: AsyncExitStack) -> None:
        await self.io.start(self.application)
        self.base = await stack.enter_async_context(serving_application(self.application))


@asynccontextmanager
async def two_nodes(**settings: Any) -> AsyncIterator[tuple[Node, Node]]:
    bus = MemoryBus()
    first, second = (Node(bus.backplane(), **settings) for _ in range(2))
    async with AsyncExitStack() as stack:
        for node in (first, second):
            await node.start(stack)
        await turns()
        yield first, second
        for node in (first, second):
            await node.io.stop()
            node.io.close()
            for router in (node.echo, node.engine):
                router.close()
        await turns()


both_ways = pytest.mark.parametrize(
    "settings", [{}, {"relay": "127.0.0.1:0", "cluster_secret": SECRET}], ids=["unix", "unix and tcp"]
)


@both_ways
async def test_each_poll_of_a_session_at_another_node(settings: dict[str, Any]) -> None:
    """What a load balancer without stickiness does to a client of Socket.IO 4."""
    async with two_nodes(**settings) as (first, second):
        bases = [first.base, second.base]

        async def poll(number: int, body: bytes = b"") -> str:
            path = "/socket.io/?EIO=4&transport=polling" + (f"&sid={sid}" if sid else "")
            answer = await request(bases[number % 2], "POST" if body else "GET", path, body=body)
            assert answer.status == 200, answer.body
            return answer.body.decode()

        sid = ""
        sid = json.loads((await poll(0))[1:])["sid"]
        assert sid.startswith(cluster_of(first.io).id)
        assert await poll(1, b"40") == "ok"
        welcome = await poll(1)
        assert re.fullmatch(r'40\{"sid":"([\w-]{28})"\}', welcome)[1][:8] == cluster_of(first.io).id  # type: ignore[index]
        for number in range(6):
            assert await poll(number, b'42%d["add",1,2]' % number) == "ok"
            assert await poll(number + 1) == f"43{number}[3]"
        assert len(first.io.sockets.clients()) == 1
        assert not second.io.sockets.clients()
        assert second.io.emit("news") == 0
        assert await poll(1) == '42["news"]'
        assert bool(cluster_of(first.io).nodes[cluster_of(second.io).id].tcp) is bool(settings)


async def test_routers_beside_it_are_shared() -> None:
    async with two_nodes() as (first, second):
        # The client makes this id, and its home is worked out; each request goes to the other node.
        session = Client(first.base, "xhr", "/s")
        async with session:
            await session.open()
            answer = await request(second.base, "POST", f"{session.url}/xhr_send", body=b'["hello"]')
            assert answer.status == 204
            await session.attach()
            assert await session.message() == "hello"
        sid = json.loads((await request(first.base, "GET", "/e/?EIO=4&transport=polling")).body[1:])["sid"]
        path = f"/e/?EIO=4&transport=polling&sid={sid}"
        assert (await request(second.base, "POST", path, body=b"4hi")).body == b"ok"
        assert (await request(second.base, "GET", path)).body == b"4hi"


def is_private_socket(path: str) -> bool:
    found, folder = os.stat(path), os.stat(os.path.dirname(path))
    return stat.S_ISSOCK(found.st_mode) and stat.S_IMODE(folder.st_mode) == 0o700 and found.st_uid == os.getuid()


def is_gone(path: str) -> bool:
    return not os.path.exists(path) and not os.path.exists(os.path.dirname(path))


async def test_the_relay_s_socket_is_this_user_s_alone_and_goes_at_the_stop() -> None:
    async with two_nodes() as (first, _):
        path = cluster_of(first.io).node.unix
        assert is_private_socket(path)
        await first.io.stop()
        assert is_gone(path)


async def test_without_an_application_nothing_is_passed_on() -> None:
    bus = MemoryBus()
    io = Server(backplane=bus.backplane())
    io.routes()
    await io.start()
    assert (cluster_of(io).node.unix, cluster_of(io).node.tcp) == ("", "")
    assert io._endpoints[0].gateways[0].relay is None
    await io.stop()


class DownAtFirst(MemoryBackplane):
    """Is lost while a node joins."""

    was_down = False

    async def settled(self) -> None:
        if not self.was_down:
            self.was_down = True
            raise BackplaneDown("not now")


async def test_a_start_that_fails_leaves_nothing_and_can_be_tried_again() -> None:
    async with AsyncExitStack() as stack:
        node = Node(DownAtFirst(MemoryBus()))
        with pytest.raises(BackplaneDown):
            await node.io.start(node.application)
        assert not cluster_of(node.io).is_running
        assert is_gone(cluster_of(node.io).node.unix)
        await node.start(stack)
        path = cluster_of(node.io).node.unix
        with pytest.raises(StateError, match="once"):
            await node.io.start(node.application)
        assert is_private_socket(path)
        await node.io.stop()
        assert is_gone(path)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"relay": "127.0.0.1:0"}, "cluster_secret"),
        ({"relay": "127.0.0.1:0", "cluster_secret": SECRET, "backplane": None}, "backplane"),
        ({"relay": "0.0.0.0:7000", "cluster_secret": SECRET}, "nobody can call 0.0.0.0"),
        ({"relay": "[::]:7000", "cluster_secret": SECRET}, "nobody can call ::"),
        ({"relay": ":7000", "cluster_secret": SECRET}, "10.0.0.5:7000"),
        ({"relay": "10.0.0.5", "cluster_secret": SECRET}, "10.0.0.5:7000"),
        ({"relay": "10.0.0.5:70000", "cluster_secret": SECRET}, "10.0.0.5:7000"),
        ({"relay": 7000, "cluster_secret": SECRET}, "10.0.0.5:7000"),
        ({"cluster_secret": "short"}, "at least 16 bytes"),
        ({"cluster_secret": 7}, "a text or bytes"),
        ({"relays": "127.0.0.1:0"}, "did you mean 'relay'"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], match: str) -> None:
    with pytest.raises(SettingError, match=re.escape(match)):
        Server(**{"backplane": MemoryBus().backplane(), **settings})


async def test_calls_that_make_no_sense() -> None:
    io = Server(backplane=MemoryBus().backplane(), relay="127.0.0.1:0", cluster_secret=SECRET)
    with pytest.raises(StateError, match=re.escape("await io.start(application)")):
        await io.start()
    with pytest.raises(TypeError, match="SockJSRouter"):
        io.share(Application())  # type: ignore[arg-type]
    Server().share(SockJSRouter(Echo, "/s"))  # without a cluster there is nothing to share


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with tempfile.TemporaryDirectory(prefix="ps") as folder, RedisServer(Path(folder)) as server:
        yield server


@pytest.fixture(params=["unix", "redis"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "redis":
        yield request.getfixturevalue("redis").url
        return
    with tempfile.TemporaryDirectory(prefix="ps") as folder:
        yield f"unix://{folder}/mesh"


@asynccontextmanager
async def three_nodes(url: str) -> AsyncIterator[tuple[list[Server], list[Presence]]]:
    """Servers that know each other, with a presence of the room ``red``, which all clients join."""
    servers = [Server(backplane=url) for _ in range(3)]
    try:
        for io in servers:
            io.on("connection", lambda socket: socket.join("red"))
            await io.start()
        presences = [io.sockets.presence("red") for io in servers]
        await until(lambda: all(len(cluster_of(io).nodes) == 2 for io in servers))
        yield servers, presences
    finally:
        for io in servers:
            await io.stop()
            io.close()


def agree(presences: list[Presence], *ids: str | None) -> bool:
    return all({present.user for present in presence.members("red")} == set(ids) for presence in presences)


async def test_all_of_it_over_a_real_backplane(url: str) -> None:
    """Events, requests, presence, and a node that leaves."""
    async with three_nodes(url) as ((a, b, c), presences):
        ann, bob = InMemory(a), InMemory(b)
        for io in (a, b):
            await cluster_of(io).settled()
        c.to("red").emit("x", b"\xff")
        assert await ann.wait("x", LONG_S) == await bob.wait("x", LONG_S) == (b"\xff",)
        c.to(str(ann.id)).emit("y")
        await ann.wait("y", LONG_S)
        bob.on("ask", lambda: "yes")
        result = await a.to("red").call("ask", timeout=0.2)
        assert (result.answers, result.missing, result.unreached) == ({bob.id: "yes"}, (ann.id,), ())
        assert await c.to("red").count() == 2
        await until(lambda: agree(presences, ann.id, bob.id))
        await b.stop()
        await until(lambda: agree([presences[0], presences[2]], ann.id))
        assert await c.count() == 1


async def test_a_redis_that_is_gone_for_a_while(
    redis: RedisServer,
    quiet: Quiet,  # noqa: F811
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Local delivery stands, and presence agrees again although changes were lost."""
    caplog.set_level("INFO", "polysock")
    async with three_nodes(redis.url) as ((a, b, _), presences):
        ann, bob = InMemory(a), InMemory(b)
        await until(lambda: agree(presences, ann.id, bob.id))
        quiet.expect(f"the backplane {redis.url} is down")
        quiet.expect(f"the backplane {redis.url} is back")
        redis.stop()
        await until(lambda: not cluster_of(a).is_up and not cluster_of(b).is_up)
        bob_id = bob.id
        bob.disconnect()
        cat = InMemory(b)
        assert a.to("red").emit("x") == b.to("red").emit("x") == 1
        assert (await a.count()).unreached
        assert agree(presences[:1], ann.id, bob_id)
        redis.start()
        await until(lambda: agree(presences, ann.id, cat.id), LONG_S)
        # One line of each node for either.
        said = [record.getMessage() for record in caplog.records if "the backplane" in record.getMessage()]
        assert [line.partition(" is ")[2][:4] for line in said] == ["down"] * 3 + ["back"] * 3
        a.emit("y")
        await cat.wait("y", LONG_S)


async def test_a_stop_does_not_wait_for_a_redis_that_hangs_longer_than_for_anything(redis: RedisServer) -> None:
    """``backplane_timeout_s``: a supervisor gives a worker not much more."""
    clock = FakeClock()
    io = Server(backplane=redis.url, clock=clock, backplane_timeout_s=3.0)
    await io.start()
    redis.pause()
    try:
        stopping = asyncio.ensure_future(io.stop())
        await turns()
        clock.advance(3.0)
        await asyncio.wait_for(stopping, LONG_S)
    finally:
        redis.resume()
