"""WebSockets end to end on both lanes: on connections that leave Tornado's streams, and on those that stay."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from polysock import Server, SockJSRouter
from support import rawhttp
from support.clients import Recorder, quiet, turns, until
from support.rawhttp import PING, TEXT, WireSocket, encode_frame
from support.serving import serving

__all__ = ["quiet"]

both_lanes = pytest.mark.parametrize("fast_lane", [True, False], ids=["taken over", "stream"])


@asynccontextmanager
async def served(*, fast_lane: bool = True, **user: Any) -> AsyncIterator[tuple[str, SockJSRouter, list[Any]]]:
    """The base URL, the router at ``/s``, and the reasons for which connections have closed."""
    closed: list[Any] = []

    class App(Recorder):
        def on_message(self, message: str | bytes) -> None:
            self.send(message)

        def on_close(self) -> None:
            closed.append(self.close_reason)

    router = SockJSRouter(App, "/s", {"fast_lane": fast_lane, **user})
    async with serving(router.urls) as base:
        yield base, router, closed
        router.close()
        await turns()


@both_lanes
async def test_a_websocket_may_follow_polls_on_one_connection(fast_lane: bool) -> None:
    async with served(fast_lane=fast_lane) as (base, _, closed):
        connection = await rawhttp.Connection.open(base)
        await connection.send("POST", "/s/0/x/xhr")
        assert (await connection.read_response("POST")).text == "o\n"
        key = ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
        fields = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "13"), key]
        request = rawhttp.request_bytes("a", "GET", "/s/0/w/websocket", headers=fields)
        await connection.write(request + encode_frame(TEXT, b'["early"]'))
        assert (await connection.read_head()).status == 101
        assert (await connection._exactly(3))[2:] == b"o"
        assert (await connection._exactly(12))[2:] == b'a["early"]'
        connection.abort()
        await until(lambda: len(closed) == 1)


@both_lanes
async def test_a_browser_that_quits_is_missed_at_once(fast_lane: bool) -> None:
    """It sends its close frame, and resets the connection when ours comes."""
    async with served(fast_lane=fast_lane) as (base, _, closed):
        for _ in range(5):
            client = await WireSocket.connect(base, "/s/0/w/websocket")
            assert await client.recv_text() == "o"
            sock = client.connection.writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await client.send_close(1001)
            client.abort()
        await until(lambda: len(closed) == 5)


@both_lanes
async def test_long_and_short_frames_in_any_pieces(fast_lane: bool) -> None:
    async with served(fast_lane=fast_lane) as (base, _, closed):
        client = await WireSocket.connect(base, "/s/websocket")
        text = "x" * 200_000
        data = encode_frame(TEXT, text.encode()) + encode_frame(TEXT, b"short")
        for at in range(0, len(data), 50_001):
            await client.connection.write(data[at : at + 50_001])
            await turns(2)
        assert [await client.recv_text(), await client.recv_text()] == [text, "short"]
        client.abort()
        await until(lambda: len(closed) == 1)


@both_lanes
async def test_pings_of_a_peer_that_reads_nothing_pile_up_no_pongs(fast_lane: bool) -> None:
    high = 64 * 1024
    async with served(fast_lane=fast_lane, pipe_high_bytes=high) as (base, router, closed):
        client = await WireSocket.connect(base, "/s/websocket")
        writer = client.connection.writer
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, high)  # else the kernel's grows
        writer.transport.pause_reading()
        await until(lambda: len(router._gateway.store) == 1)
        (session,) = router._gateway.store
        pipe: Any = session._transport._pipe  # type: ignore[union-attr]
        flood = encode_frame(PING, b"p" * 125) * 400  # with answers for less than the mark, however often that is read
        longest = 0
        for _ in range(200):
            await client.connection.write(flood)
            await turns()
            longest = max(longest, pipe.backlog)
        assert longest > high, "the kernel took all of it, so this shows nothing"
        # One read's worth of pings may be answered before the mark is seen.
        assert longest < 4 * high
        client.abort()
        await until(lambda: len(closed) == 1)


def cut(client: WireSocket) -> None:
    sock = client.connection.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.abort()


def end_our_half(client: WireSocket) -> None:
    client.connection.writer.write_eof()


def close(client: WireSocket) -> None:
    client.connection.close()


async def nothing(client: WireSocket) -> None:
    """It is open, and that is all."""


async def half_a_frame(client: WireSocket) -> None:
    await client.connection.write(encode_frame(TEXT, b"x" * 50)[:20])


async def between_fragments(client: WireSocket) -> None:
    await client.send_frame(TEXT, b"x", fin=False)


async def an_answer_under_way(client: WireSocket) -> None:
    await client.send_text("x" * 50_000)


async def not_reading(client: WireSocket) -> None:
    client.connection.writer.transport.pause_reading()
    await client.send_text("flood")


async def while_a_handler_runs(client: WireSocket) -> None:
    await client.send_text("wait")
    await client.send_text("behind it")


async def while_we_close(client: WireSocket) -> None:
    await client.send_text("close")
    await client.recv()


async def in_its_goodbye(client: WireSocket) -> None:
    await client.send_close()


STEPS = (nothing, half_a_frame, between_fragments, an_answer_under_way, not_reading, while_a_handler_runs)


@both_lanes
@pytest.mark.parametrize("way", [cut, end_our_half, close])
@pytest.mark.parametrize("step", [*STEPS, while_we_close, in_its_goodbye])
async def test_a_peer_that_goes_is_gone_whatever_it_did(
    step: Callable[[WireSocket], Awaitable[None]], way: Callable[[WireSocket], None], fast_lane: bool
) -> None:
    closes: list[Any] = []
    release = asyncio.Event()

    class App(Recorder):
        async def on_message(self, message: str | bytes) -> None:
            if message == "wait":
                await release.wait()
            elif message == "close":
                self.close(3000, "enough")
            elif message == "flood":
                self.send("x" * 20_000_000)  # more than the kernel holds
            else:
                self.send(message)

        def on_close(self) -> None:
            closes.append(self.close_reason)

    limits = {"max_message_bytes": 30_000_000, "queue_max_bytes": 40_000_000, "close_timeout_s": 0.05}
    router = SockJSRouter(App, "/s", {"fast_lane": fast_lane, **limits})
    async with serving(router.urls) as base:
        client = await WireSocket.connect(base, "/s/websocket")
        await until(lambda: len(router._gateway.store) == 1)
        (session,) = router._gateway.store
        transport: Any = session._transport
        pipe = transport._pipe
        await step(client)
        await turns()
        way(client)
        release.set()  # until then nothing is read: no peer can make its handlers pile up
        if way is end_our_half:
            client.connection.writer.transport.resume_reading()
            with suppress(ConnectionResetError):
                await client.connection.reader.read()
        await until(lambda: not len(router._gateway.store))
        await until(lambda: pipe.owner is None)  # its connection is gone, too
        await turns()
        assert len(closes) == 1
        client.abort()
        router.close()


@both_lanes
async def test_who_goes_in_the_middle_of_a_body_leaves_no_task(fast_lane: bool) -> None:
    before = asyncio.all_tasks()
    async with served(fast_lane=fast_lane) as (base, _, closed):
        for ask_first in (False, True):  # before the connection can be taken over, and after
            connection = await rawhttp.Connection.open(base)
            if ask_first:
                await connection.request("POST", "/s/0/x/xhr")
            request = rawhttp.request_bytes("a", "POST", "/s/0/x/xhr_send", body=b'["half of it"]')
            await connection.write(request[:-5])
            await turns()
            connection.abort()
        await until(lambda: len(asyncio.all_tasks() - before) == 1)  # the one that waits here
    await until(lambda: len(closed) == 1)


@both_lanes
@pytest.mark.parametrize("linger", [b"\1\0\0\0\0\0\0\0", b"\0\0\0\0\0\0\0\0"], ids=["reset", "end"])
@pytest.mark.parametrize(
    "path",
    [
        "/plain/poll",
        "/socket.io/1/",
        "/socket.io/?EIO=4&transport=polling",
        "/socket.io/?EIO=4&transport=polling&sid=x",
    ],
)
async def test_who_goes_with_the_end_of_a_request(path: str, linger: bytes, fast_lane: bool) -> None:
    """At its head Tornado has a connection that may leave it; when the answer is due it may be gone."""
    io = Server(fast_lane=fast_lane)
    request = rawhttp.request_bytes("a", "GET", path)
    async with serving(io.routes()) as base:
        for turns_between in range(10):
            # Past the event loop, in which its end would come a turn later.
            with socket.create_connection(("127.0.0.1", int(base.rpartition(":")[2]))) as client:
                await turns()
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                client.send(request)
                await turns(turns_between)
            await turns()
        gateways = [gateway for endpoint in io._endpoints for gateway in endpoint.gateways]
        await until(lambda: not any(gateway.lane._connections for gateway in gateways))
        io.close()
