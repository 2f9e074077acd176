"""``polysock.testing``: what applications' own tests lean on."""

from __future__ import annotations

import asyncio
from typing import Any
from weakref import WeakSet

import pytest

from polysock import AckTimeout, ConnectionRefused, Refused, Server, Socket
from polysock.testing import Client, FakeClock
from support.clients import (
    Quiet,
    quiet,  # noqa: F401  # autouse: nothing here logs unannounced
)


def make_server(**settings: Any) -> tuple[Server, FakeClock]:
    clock = FakeClock()
    return Server(clock=clock, **settings), clock


# --- the clock --------------------------------------------------------------------------------------------------------


def test_clock_stands_still_until_it_is_turned() -> None:
    clock = FakeClock(5.0)
    assert clock.now() == clock.now() == 5.0
    clock.advance(1.5)
    assert clock.now() == 6.5
    clock.advance(0)
    assert clock.now() == 6.5


def test_clock_runs_what_falls_due_in_order_each_at_its_moment() -> None:
    clock = FakeClock(0.0)
    told: list[tuple[str, float]] = []

    def later(name: str) -> None:
        told.append((name, clock.now()))

    def again() -> None:
        later("again")
        if len(told) < 6:
            clock.call_later(2.0, again)

    clock.call_later(3.0, lambda: later("three"))
    clock.call_later(1.0, lambda: later("one"))
    clock.call_later(1.0, lambda: later("one, second"))
    clock.call_later(1.5, again)
    clock.call_later(100.0, lambda: later("never"))
    cancelled = clock.call_later(2.0, lambda: later("cancelled"))
    assert clock.timers == 6
    cancelled.cancel()
    cancelled.cancel()
    assert clock.timers == 5
    clock.advance(6.0)
    assert told == [
        *(("one", 1.0), ("one, second", 1.0), ("again", 1.5)),
        *(("three", 3.0), ("again", 3.5), ("again", 5.5)),
    ]
    assert clock.now() == 6.0
    assert clock.timers == 1


async def test_clock_turns_heartbeats_and_timeouts() -> None:
    io, clock = make_server(connect_timeout=30, heartbeat_delay=25)
    client = Client(io)
    for _ in range(100):
        clock.advance(25)
    assert client.connected  # it answers pings by being there
    client.disconnect()
    assert clock.timers == 0


async def test_the_connect_timeout_ends_a_client_that_joins_nothing() -> None:
    io, clock = make_server(connect_timeout=30, heartbeat_delay=1000)
    client = Client(io, "/nowhere")
    assert client.error is not None
    clock.advance(29)
    assert client.close_reason is None
    clock.advance(3)
    assert client.close_reason is not None
    assert client.close_reason.text == "No namespace was joined in time"
    inside = Client(io)
    clock.advance(300)
    assert inside.connected
    inside.drop()


# --- the client -------------------------------------------------------------------------------------------------------


def test_client_needs_no_event_loop_for_plain_handlers() -> None:
    io, _ = make_server()
    told: list[object] = []
    io.on("connection", lambda socket: socket.on("x", lambda *args: told.append(args)))
    client = Client(io)
    assert client.connected
    client.emit("x", 1, b"2")
    assert told == [(1, b"2")]
    io.emit("y", 3)
    assert client.received == [("y", 3)]
    assert client.take() == [("y", 3)]
    assert client.take() == client.received == []
    client.disconnect()
    assert not client.connected


def test_an_application_may_hang_what_it_likes_on_a_client_and_hold_it_weakly() -> None:
    io, _ = make_server()
    client = Client(io)
    (socket,) = io.sockets.clients()
    assert socket.data == {}
    socket.data["name"] = "alice"
    assert socket.data == {"name": "alice"}
    socket.data = None
    socket.nickname = "al"  # type: ignore[attr-defined]  # Socket.IO's users do
    assert (socket.nickname, list(WeakSet([socket]))) == ("al", [socket])  # type: ignore[attr-defined]
    client.disconnect()


@pytest.mark.parametrize("text_only", [False, True])
async def test_client_calls_and_answers(text_only: bool) -> None:
    io, _ = make_server()

    @io.on("connection")
    def connected(socket: Socket) -> None:
        socket.on("add", lambda a, b: a + b)
        socket.on("nothing", lambda: None)
        socket.on("two", lambda: (1, b"2"))

    client = Client(io, text_only=text_only)
    assert await client.call("add", b"a", b"b") == b"ab"
    assert await client.call("nothing") is None
    assert await client.call("two") == [1, b"2"]
    assert await client.call("unknown") == {"error": "No handler for this event"}
    (socket,) = io.sockets.clients()
    client.on("none", lambda: None)
    client.on("one", lambda value: value)
    client.on("two", lambda: (1, 2))
    assert await socket.call("none") is None
    assert await socket.call("one", [b"x"]) == [b"x"]
    assert await socket.call("two") == [1, 2]
    assert [event[0] for event in client.received] == ["none", "one", "two"]
    client.disconnect()


async def test_client_waits() -> None:
    io, _ = make_server()

    @io.use
    async def slow(socket: Socket) -> None:
        await asyncio.sleep(0)

    client = Client(io)
    assert not client.connected
    assert await client.wait() == ()
    assert client.connected
    io.emit("a", 1)
    io.emit("b", 2)
    io.emit("a", 3)
    assert await client.wait("b") == (2,)
    assert await client.wait("a") == (1,)
    assert client.received == [("a", 3)]
    waiting = asyncio.ensure_future(client.wait("c"))
    await asyncio.sleep(0)
    io.emit("c", 4)
    assert await waiting == (4,)
    with pytest.raises(AckTimeout, match="d"):
        await client.wait("d", timeout=0.001)
    client.drop()


async def test_client_call_times_out() -> None:
    io, _ = make_server()

    @io.on("connection")
    def connected(socket: Socket) -> None:
        @socket.on("never")
        async def never() -> None:
            await asyncio.Event().wait()

    client = Client(io)
    with pytest.raises(AckTimeout, match="never"):
        await client.call("never", timeout=0.001)
    (socket,) = io.sockets.clients()
    handler = socket.receiver._handler
    assert handler is not None
    handler.cancel()
    client.drop()


async def test_client_shows_the_server_what_it_was_told() -> None:
    io, _ = make_server()
    client = Client(
        io,
        "/",
        {"token": "t"},
        transport="xhr",
        headers={"User-Agent": "test"},
        query={"page": "home"},
        ip="192.0.2.1",
    )
    (socket,) = io.sockets.clients()
    assert socket.id == client.id
    assert socket.transport == "xhr"
    assert socket.handshake.auth == {"token": "t"}
    assert socket.handshake.headers["User-Agent"] == "test"
    assert socket.handshake.query == {"page": "home"}
    assert socket.handshake.address == "192.0.2.1"
    client.drop()


async def test_client_is_refused() -> None:
    io, _ = make_server()
    io.of("/chat").use(lambda socket: False)
    refused = Client(io, "/chat")
    assert refused.error is not None
    assert refused.error.message == "not authorized"
    assert not refused.connected
    assert await refused.wait() == ()

    def authorize(handshake: Any) -> bool:
        raise ConnectionRefused("closed today")

    io.set("authorization", authorize)
    with pytest.raises(Refused, match="closed today"):
        Client(io)
    assert io.sockets.clients() == []


@pytest.mark.parametrize(
    ("end", "reason", "code"),
    [
        (lambda client, io: client.disconnect(), "client namespace disconnect", 1000),
        (lambda client, io: client.drop(), "transport close", None),
        (lambda client, io: io.sockets.clients()[0].disconnect(close=True), "server namespace disconnect", 3000),
        (lambda client, io: io.close(), "server shutting down", 1001),
    ],
    ids=["disconnect", "drop", "server", "close"],
)
async def test_the_end_of_a_client(end: Any, reason: str, code: int | None) -> None:
    io, clock = make_server()
    told: list[str] = []
    io.on("disconnect", lambda socket, text: told.append(text))
    client = Client(io)
    end(client, io)
    assert told == [reason]
    assert not client.connected
    assert (client.close_reason.code if client.close_reason is not None else None) == code
    assert io.sockets.clients() == []
    clock.advance(60)
    assert clock.timers == 0
    client.emit("too late")
    assert told == [reason]


async def test_a_client_that_breaks_the_protocol_is_closed_as_on_the_wire(quiet: Quiet) -> None:  # noqa: F811
    io, _ = make_server(max_message_bytes=1000)
    client = Client(io)
    quiet.expect("closing the connection")
    client.emit("disconnect")
    assert client.close_reason is not None
    assert client.close_reason.code == 1002
    client = Client(io)
    client.emit("x", "y" * 2000)
    assert client.close_reason is not None
    assert client.close_reason.code == 1009
    assert io.sockets.clients() == []


async def test_two_clients_in_two_namespaces() -> None:
    io, _ = make_server()
    io.of("/chat")
    main, chat = Client(io), Client(io, "/chat")
    io.emit("x", 1)
    io.of("/chat").emit("x", 2)
    assert main.take() == [("x", 1)]
    assert chat.take() == [("x", 2)]
    for client in (main, chat):
        client.disconnect()
