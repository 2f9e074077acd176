"""Clients that have left are gone from memory at once: no cycle of references waits for the garbage collector."""

from __future__ import annotations

import asyncio
import gc
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import pytest

from polysock import Connection, EngineIORouter, Server, Socket, SockJSRouter
from support import rawhttp
from support.clients import Client, quiet, turns, until
from support.clock import FakeClock
from support.rawhttp import WireSocket, request
from support.serving import either_server, serving

__all__ = ["either_server", "quiet"]

both_lanes = pytest.mark.parametrize("fast_lane", [True, False], ids=["taken over", "stream"])

OWNERS = ("polysock", "tornado.", __name__)
#: A fake clock keeps timers until their time, also those that were cancelled.
CLOCKS = "polysock.testing"
#: Longer than any session is waited for.
AFTER_ALL_S = 300.0


class Echo(Connection):
    def on_message(self, message: str | bytes) -> None:
        self.send(message)


class World:
    """A SockJS endpoint at ``/s``, one of Engine.IO at ``/e``, and all mounts of a Server."""

    def __init__(self, base: str, clock: FakeClock, gateways: list[Any]) -> None:
        self.base = base
        self.clock = clock
        self._gateways = gateways

    def sessions(self) -> int:
        return sum(len(gateway.store) for gateway in self._gateways)

    def close_all(self) -> None:
        for gateway in self._gateways:
            for session in gateway.store:
                session.close()


def connected(socket: Socket) -> None:
    """As applications do it: what they hang on a client knows the client."""
    socket.join("room")
    socket.on("message", lambda data: socket.send(data))
    socket.on("disconnect", lambda reason: socket.data.clear())

    @socket.use
    def guard(event: str, args: list[Any]) -> bool:
        return socket.connected


@asynccontextmanager
async def world(*, fast_lane: bool) -> AsyncIterator[World]:
    clock = FakeClock()
    settings = {"fast_lane": fast_lane}
    sockjs = SockJSRouter(Echo, "/s", settings, clock=clock)
    engine = EngineIORouter(Echo, "/e", settings, clock=clock)
    io = Server(clock=clock, legacy_transports=("websocket", "xhr-polling"), fast_lane=fast_lane)
    io.on("connection", connected)
    io.sockets.allow_feed("room")
    async with serving([*sockjs.urls, *engine.urls, *io.routes()]) as base:
        endpoints = [sockjs._endpoint, engine._endpoint, *io._endpoints]
        yield World(base, clock, [gateway for endpoint in endpoints for gateway in endpoint.gateways])
        io.close()


# Each opens a session, has something sent and answered, and returns what is to be aborted.


async def sockjs(it: World, *, transport: str, prefix: str, messages: tuple[str, str]) -> Client:
    client = await Client(it.base, transport, prefix).open()
    for message in messages:
        await client.send(message)
        await client.message()
    return client


async def engine(it: World, *, mount: str, enters: bool, upgrades: bool) -> rawhttp.Connection | WireSocket:
    kept = await rawhttp.Connection.open(it.base)
    url = f"{mount}/?EIO=4&transport=polling"
    url += "&sid=" + json.loads((await kept.request("GET", url)).text[1:])["sid"]
    if enters:
        await kept.request("POST", url, body=b"40")
        await kept.request("GET", url)
    message = '42["message","x"]' if enters else "4x"
    await kept.request("POST", url, body=message.encode())
    assert (await kept.request("GET", url)).text == message
    if not upgrades:
        await kept.send("GET", url)
        return kept
    socket = await WireSocket.connect(it.base, url.replace("polling", "websocket"))
    await socket.send_text("2probe")
    assert await socket.recv_text() == "3probe"
    await socket.send_text("5")
    await socket.send_text(message)
    assert await socket.recv_text() == message
    kept.abort()
    return socket


async def legacy(it: World, *, transport: str) -> rawhttp.Connection | WireSocket:
    sid = (await request(it.base, "GET", "/socket.io/1/")).text.partition(":")[0]
    url = f"/socket.io/1/{transport}/{sid}"
    if transport == "websocket":
        socket = await WireSocket.connect(it.base, url)
        assert await socket.recv_text() == "1::"
        await socket.send_text("3:::x")
        assert await socket.recv_text() == "3:::x"
        return socket
    kept = await rawhttp.Connection.open(it.base)
    assert (await kept.request("GET", url)).text == "1::"
    await kept.request("POST", url, body=b"3:::x")
    assert (await kept.request("GET", url)).text == "3:::x"
    await kept.send("GET", url)
    return kept


async def plain_websocket(it: World) -> WireSocket:
    socket = await WireSocket.connect(it.base, "/plain/websocket")
    await socket.recv_text()
    await socket.send_text('["message","x"]')
    assert await socket.recv_text() == '["message","x"]'
    return socket


async def plain_polling(it: World) -> rawhttp.Connection:
    kept = await rawhttp.Connection.open(it.base)
    answer = json.loads((await kept.request("GET", "/plain/poll")).text)
    await kept.request("POST", f"/plain/emit?sid={answer['sid']}", body=b'["message","x"]')
    answer = await kept.request("GET", f"/plain/poll?sid={answer['sid']}&since={answer['cursor']}")
    assert json.loads(answer.text)["events"] == [["message", "x"]]
    return kept


async def feed(it: World) -> rawhttp.Connection:
    kept = await rawhttp.Connection.open(it.base)
    assert (await kept.start("GET", "/plain/events?room=room")).status == 200
    return kept


Kind = Callable[[World], Awaitable[Client | rawhttp.Connection | WireSocket]]
SOCKJS = ("websocket", "xhr", "xhr_streaming", "eventsource", "htmlfile", "jsonp")
KINDS: dict[str, Kind] = {
    **{f"sockjs {name}": partial(sockjs, transport=name, prefix="/s", messages=("x", "y")) for name in SOCKJS},
    "sockjs rawwebsocket": partial(sockjs, transport="rawwebsocket", prefix="/s", messages=("x", "y")),
    **{
        f"hub {name}": partial(sockjs, transport=name, prefix="/polysock", messages=("0", '2["message","x"]'))
        for name in SOCKJS
    },
    "engine.io polling": partial(engine, mount="/e", enters=False, upgrades=False),
    "engine.io upgraded": partial(engine, mount="/e", enters=False, upgrades=True),
    "socket.io polling": partial(engine, mount="/socket.io", enters=True, upgrades=False),
    "socket.io upgraded": partial(engine, mount="/socket.io", enters=True, upgrades=True),
    "0.9 websocket": partial(legacy, transport="websocket"),
    "0.9 xhr-polling": partial(legacy, transport="xhr-polling"),
    "plain websocket": plain_websocket,
    "plain polling": plain_polling,
    "plain feed": feed,
}


@pytest.fixture
def uncollected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def alive() -> Counter[str]:
    """How many there are of each of our classes, of Tornado's, and of the application's; not of the fake clock's."""
    found: Counter[str] = Counter()
    for kind, count in Counter(map(type, gc.get_objects())).items():
        module = str(getattr(kind, "__module__", ""))
        if module.startswith(OWNERS) and module != CLOCKS:
            found[f"{module}.{kind.__qualname__}"] = count
    return found


async def nothing_is_left_since(before: Counter[str]) -> None:
    # The ends of connections may still be on their way.
    with suppress(asyncio.TimeoutError):
        await until(lambda: not alive() - before)
    assert alive() - before == {}


async def all_over(clock: FakeClock, sessions: Callable[[], int]) -> None:
    """Let so much time pass that no session is waited for any more."""

    def is_over() -> bool:
        clock.advance(AFTER_ALL_S)
        return not sessions() and not clock.timers

    await until(is_over)


@both_lanes
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("uncollected")
async def test_who_has_left_is_gone(kind: str, fast_lane: bool) -> None:
    async with world(fast_lane=fast_lane) as it:

        async def live(*, is_closed_here: bool) -> None:
            client = await KINDS[kind](it)
            await turns()
            if is_closed_here:
                it.close_all()
                await turns()
            client.abort()
            await turns()
            await all_over(it.clock, it.sessions)

        # The first ones leave what is kept for all of their kind.
        for is_closed_here in (False, True):
            await live(is_closed_here=is_closed_here)
        before = alive()
        for is_closed_here in (False, True):
            await live(is_closed_here=is_closed_here)
        await nothing_is_left_since(before)


@pytest.mark.usefixtures("uncollected")
async def test_who_was_refused_is_gone() -> None:
    class Closed(Echo):
        def on_open(self, info: Any) -> bool:
            return False

    clock = FakeClock()
    router = SockJSRouter(Closed, "/s", clock=clock)
    async with serving(router.urls) as base:

        async def knock() -> None:
            for transport in ("xhr", "websocket", "rawwebsocket"):
                client = Client(base, transport)
                try:
                    await client.attach()
                    await turns()
                except rawhttp.HandshakeRefused:
                    assert client.raw
                client.abort()
                await turns()
                await all_over(clock, lambda: len(router._gateway.store))

        await knock()
        before = alive()
        await knock()
        await nothing_is_left_since(before)
