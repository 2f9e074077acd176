"""WebSockets end to end on both lanes: on connections that leave Tornado's streams, and on those that stay."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from polysock import SockJSRouter
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
