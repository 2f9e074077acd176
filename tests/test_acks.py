"""Awaited answers: nothing stays behind when nobody waits any more, and what was asked is what was meant."""

from __future__ import annotations

import asyncio

import pytest

from polysock import AckTimeout, Server, Socket
from polysock.testing import Client


def only_socket(io: Server) -> Socket:
    (socket,) = io.sockets.clients()
    return socket


async def test_an_answer_after_the_timeout_is_counted_and_awaited_no_more() -> None:
    io = Server()
    client = Client(io)
    socket = only_socket(io)
    answers = []
    client.on("q", lambda: answers.append("late"))
    client.pause()
    with pytest.raises(AckTimeout):
        await socket.call("q", timeout=0.01)
    assert len(socket._acks) == 0
    client.resume()
    assert answers == ["late"]
    assert io.counters["unknown_acks"] == 1


async def test_over_the_limit_the_oldest_is_given_up() -> None:
    io = Server(max_pending_acks=2)
    client = Client(io)
    socket = only_socket(io)
    asking = [asyncio.ensure_future(socket.call("q", number)) for number in range(3)]
    with pytest.raises(AckTimeout):
        await asking[0]
    assert len(socket._acks) == 2
    client.disconnect()
    ended = await asyncio.gather(*asking[1:], return_exceptions=True)
    assert [type(error).__name__ for error in ended] == ["SessionClosed"] * 2


async def test_a_room_s_call_that_is_cancelled_leaves_nothing_behind() -> None:
    io = Server()
    clients = [Client(io) for _ in range(3)]
    asking = asyncio.ensure_future(io.call("q", timeout=60))
    for client in clients:
        await client.wait("q")
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    # What a future's end does comes with the loop's next turn.
    await asyncio.sleep(0)
    assert [len(socket._acks) for socket in io.sockets.clients()] == [0, 0, 0]


async def test_a_room_s_call_with_what_cannot_travel_asks_nobody() -> None:
    io = Server()
    clients = [Client(io) for _ in range(3)]
    with pytest.raises(TypeError):
        await io.call("q", {1, 2})
    assert [client.take() for client in clients] == [[], [], []]
    await asyncio.sleep(0)
    assert [len(socket._acks) for socket in io.sockets.clients()] == [0, 0, 0]
