"""What one client's handlers do to the others: nothing.  Errors, slowness, waiting for the client itself, the end."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from polysock import AckTimeout, CallResult, ConnectionRefused, Refused, SessionClosed, Socket
from polysock.testing import Client
from support.clients import (
    EVERY,
    POLLING,
    TIMEOUT_SECONDS,
    Quiet,
    quiet,  # noqa: F401  # autouse: nothing here logs unannounced
    turns,
    until,
)
from support.hub import MEMORY, memory_world, served_world


class Boom(Exception):
    pass


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname in ("WARNING", "ERROR")]


# --- exceptions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])
async def test_an_exception_is_logged_once_and_becomes_an_error_ack(
    is_async: bool,
    caplog: pytest.LogCaptureFixture,
    quiet: Quiet,  # noqa: F811
) -> None:
    async with memory_world() as world:

        @world.io.on("connection")
        def connected(socket: Socket) -> None:
            def boom() -> None:
                raise Boom("secret")

            async def boom_later() -> None:
                await asyncio.sleep(0)
                raise Boom("secret")

            socket.on("x", boom_later if is_async else boom)
            socket.on("x", lambda: "not reached")
            socket.on("fine", lambda: "fine")

        a, b = await world.client(), await world.client()
        quiet.expect("'x'")
        assert await a.call("x") == {"error": "Internal error"}
        (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
        assert "'x'" in record.getMessage()
        assert a.id in record.getMessage()
        assert record.exc_info is not None
        assert record.exc_info[0] is Boom
        caplog.clear()
        await a.emit("x")  # no ack wanted, and no less an error
        await until(lambda: lines(caplog))
        assert len(lines(caplog)) == 1
        assert await a.call("fine") == await b.call("fine") == "fine"


@pytest.mark.parametrize("transport", EVERY)
async def test_an_exception_over_sockets_hurts_nobody(transport: str, quiet: Quiet) -> None:  # noqa: F811
    async with served_world(transport) as world:

        @world.io.on("connection")
        def connected(socket: Socket) -> None:
            socket.on("x", lambda: 1 / 0)
            socket.on("y", lambda: world.io.emit("still here"))

        quiet.expect("'x'")
        a, b = await world.client(), await world.client()
        assert await a.call("x") == {"error": "Internal error"}
        assert await a.call("y") == 2
        assert await a.take() == await b.take() == [("still here",)]


async def test_a_refusal_in_a_handler_is_its_answer_and_no_error() -> None:
    async with memory_world() as world:

        @world.io.on("connection")
        def connected(socket: Socket) -> None:
            def refuse() -> None:
                raise Refused(403, "not you")

            async def refuse_later() -> None:
                await asyncio.sleep(0)
                raise ConnectionRefused("not now")

            socket.on("x", refuse)
            socket.on("y", refuse_later)

        a = await world.client()
        assert await a.call("x") == {"error": "not you"}
        assert await a.call("y") == {"error": "not now"}


async def test_an_answer_that_cannot_travel_is_an_error(quiet: Quiet, caplog: pytest.LogCaptureFixture) -> None:  # noqa: F811
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    async with memory_world() as world:

        @world.io.on("connection")
        def connected(socket: Socket) -> None:
            for name, value in {"object": object(), "nan": float("nan"), "deep": deep, "number": 10**5000}.items():
                socket.on(name, lambda value=value: value)  # type: ignore[misc]  # bound at once

            @socket.on("later")
            async def later() -> object:
                return object()

        a = await world.client()
        for name in ("object", "nan", "deep", "number", "later"):
            quiet.expect(f"{name!r}")
            assert await a.call(name) == {"error": "Internal error"}
        assert len(lines(caplog)) == 5


async def test_wrong_arguments_are_the_handlers_error_and_the_clients_fault_alone(quiet: Quiet) -> None:  # noqa: F811
    async with memory_world() as world:
        world.io.on("connection", lambda socket: socket.on("two", lambda a, b: a + b))
        a = await world.client()
        quiet.expect("'two'")
        for args in ((), (1,), (1, 2, 3), (1, "x"), ({}, [])):
            assert await a.call("two", *args) == {"error": "Internal error"}
        assert await a.call("two", 1, 2) == 3


@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])
async def test_hooks_and_guards_that_fail(is_async: bool, quiet: Quiet, caplog: pytest.LogCaptureFixture) -> None:  # noqa: F811
    """Connection and disconnect hooks, middleware, event middleware, ack callbacks: each is logged, none is fatal."""

    def failing(text: str) -> Any:
        def plain(*args: object) -> None:
            raise Boom(text)

        async def later(*args: object) -> None:
            await asyncio.sleep(0)
            raise Boom(text)

        return later if is_async else plain

    async with memory_world() as world:
        io = world.io
        told: list[str] = []
        io.on("connection", failing("connection"))
        io.on("connection", lambda socket: told.append("in"))
        io.on("disconnect", failing("disconnect"))
        io.on("disconnect", lambda socket, reason: told.append("out"))
        io.on("connection", lambda socket: socket.on("x", lambda: "x"))
        quiet.expect("connection handler")
        a = await world.client()
        await until(lambda: told == ["in"])
        guard = failing("guard")
        io.sockets.use_event(guard)
        quiet.expect("'x'")
        assert await a.call("x") == {"error": "Internal error"}
        io.sockets.event_middleware.remove(guard)
        await until(lambda: a.id)
        assert await a.call("x") == "x"
        quiet.expect("ack callback")
        a.on("question", lambda: 1)
        io.sockets.clients()[0].emit("question", failing("ack"))
        await until(lambda: "an ack callback failed" in lines(caplog))
        quiet.expect("disconnect handler")
        await a.leave()
        await until(lambda: told == ["in", "out"])
        quiet.expect("middleware of /closed failed")
        io.of("/closed").use(failing("middleware"))
        assert (await world.client("/closed")).error == {"message": "Internal error"}
        await until(lambda: len(lines(caplog)) == 5)
        errors = [record.exc_info for record in caplog.records if record.levelname == "ERROR"]
        texts = {error[1].args[0] for error in errors if error and error[1]}
        assert texts == {"connection", "guard", "ack", "disconnect", "middleware"}


async def test_middleware_that_ends_the_connection_leaves_no_ghost() -> None:
    async with memory_world() as world:
        told: list[object] = []
        world.io.on("connection", told.append)
        world.io.on("disconnect", lambda *args: told.append(args))
        world.io.use(lambda socket: socket.disconnect(close=True))
        world.io.use(lambda socket: None)
        client = Client(world.io)
        assert client.close_reason is not None
        assert client.id is None
        assert world.io.sockets.clients() == []
        assert told == []


async def test_clients_that_leave_while_middleware_waits_leave_no_ghost() -> None:
    async with memory_world() as world:
        gate = asyncio.Event()
        told: list[object] = []

        @world.io.of(lambda name: name == "/dynamic").use
        async def wait(socket: Socket) -> None:
            await gate.wait()

        world.io.on("connection", told.append)
        client = Client(world.io, "/dynamic")
        await turns(3)
        client.drop()
        gate.set()
        await until(lambda: "/dynamic" not in world.io.namespaces)
        assert told == []


async def test_an_event_that_waits_in_middleware_when_its_client_is_let_go_reaches_nobody() -> None:
    handled: list[str] = []
    entered, go_on = asyncio.Event(), asyncio.Event()
    async with memory_world() as world:

        @world.io.on("connection")
        def connected(socket: Socket) -> None:
            socket.on("x", lambda: handled.append("x"))
            socket.on("disconnect", handled.append)

            @socket.use
            async def guard(event: str, args: list[Any]) -> None:
                entered.set()
                await go_on.wait()

        client = await world.client()
        await client.emit("x")
        await entered.wait()
        (socket,) = world.io.sockets.clients()
        socket.disconnect()
        go_on.set()
        await turns()
        assert handled == ["server namespace disconnect"]
        assert not socket.has_handlers("x")


async def test_a_connection_refused_with_data_that_cannot_travel(quiet: Quiet) -> None:  # noqa: F811
    async with memory_world() as world:

        @world.io.use
        def refuse(socket: Socket) -> None:
            raise ConnectionRefused("no", object())

        quiet.expect("the data of a refusal in / cannot travel")
        client = await world.client()
        assert client.error == {"message": "no"}


# --- slowness ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", [MEMORY, *EVERY])
async def test_a_slow_handler_holds_back_only_its_own_client(transport: str) -> None:
    async with memory_world() if transport == MEMORY else served_world(transport) as world:
        gate = asyncio.Event()

        @world.io.on("connection")
        def connected(socket: Socket) -> None:
            @socket.on("slow")
            async def slow() -> str:
                await gate.wait()
                return "slow"

            socket.on("fast", lambda: "fast")

        a, b = await world.client(), await world.client()
        slow = asyncio.ensure_future(a.call("slow"))
        fast = asyncio.ensure_future(a.call("fast"))
        for _ in range(10):
            assert await b.call("fast") == "fast"
        world.io.emit("x")
        await a.wait("x")  # to the slow client still goes what is sent
        assert not slow.done()
        assert not fast.done()
        gate.set()
        assert await slow == "slow"
        assert await fast == "fast"


@pytest.mark.parametrize("transport", [MEMORY, *EVERY])
async def test_a_handler_may_wait_for_its_own_client(transport: str) -> None:
    """Acks pass the events that wait for their turn."""
    async with memory_world() if transport == MEMORY else served_world(transport) as world:
        order: list[str] = []

        @world.io.on("connection")
        def connected(socket: Socket) -> None:
            @socket.on("ask me")
            async def ask() -> list[Any]:
                order.append("asking")
                answers = [await socket.call("question", n) for n in range(5)]
                order.append("answered")
                return answers

            socket.on("next", lambda: order.append("next"))

        a = await world.client()
        a.on("question", lambda n: {"n": n, "bytes": b"\0"})
        call = asyncio.ensure_future(a.call("ask me"))
        await turns(1)
        await a.emit("next")
        assert await call == [{"n": n, "bytes": b"\0"} for n in range(5)]
        await until(lambda: len(order) == 3)
        assert order == ["asking", "answered", "next"]


@pytest.mark.parametrize("transport", [MEMORY, *EVERY])
async def test_the_connection_hook_may_wait_for_its_client(transport: str) -> None:
    async with memory_world() if transport == MEMORY else served_world(transport) as world:
        answers: list[object] = []

        @world.io.on("connection")
        async def connected(socket: Socket) -> None:
            socket.on("early", lambda: len(answers))
            await asyncio.sleep(0)
            answers.append(await socket.call("who"))

        a = await world.client(connect=False)
        a.on("who", lambda: "ann")
        await a.connect()
        assert await a.call("early") == 1  # events wait until the connection hook is done
        assert answers == ["ann"]


# --- the end ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", [MEMORY, *EVERY])
@pytest.mark.parametrize("how", ["leave", "vanish", "kick"])
async def test_waiting_for_a_client_that_goes_is_quiet(how: str, transport: str) -> None:
    """SessionClosed out of ``call`` or ``drain``, in a handler or hook of that very client, is nobody's mistake."""
    async with memory_world() if transport == MEMORY else served_world(transport) as world:
        told: list[str] = []
        ended: list[str] = []

        async def wait(socket: Socket) -> None:
            told.append("waiting")
            try:
                await socket.call("never", timeout=TIMEOUT_SECONDS)
            finally:
                ended.append("ended")

        @world.io.on("connection")
        async def connected(socket: Socket) -> None:
            socket.on("disconnect", told.append)
            if socket.handshake.auth["in"] == "hook":
                await wait(socket)
            socket.on("wait", lambda: wait(socket))

        for place in ("hook", "handler"):
            told.clear()
            ended.clear()
            a = await world.client("/", {"in": place})
            if place == "handler":
                await a.emit("wait")
            await until(lambda: told == ["waiting"])
            (socket,) = world.io.sockets.clients()
            if how == "leave" and transport != MEMORY:
                # The packet waits for its turn behind the handler that waits, so it is the connection that ends.
                await a.vanish()
            elif how == "leave":
                await a.leave()
            elif how == "vanish":
                await a.vanish()
            else:
                socket.disconnect()
            if transport in POLLING and how != "kick":
                await turns()
                world.clock.advance(60)
            await until(lambda: ended)
            await until(lambda: not world.io.sockets.clients())
            await until(lambda: len(told) == 2)
            said_goodbye = how == "leave" and transport == MEMORY
            expected = "client namespace disconnect" if said_goodbye else "transport close"
            assert told[1] == ("server namespace disconnect" if how == "kick" else expected)
            await turns()
        gc.collect()  # nothing in there has an exception that nobody fetched


async def test_asking_a_client_whose_connection_has_ended_fails_at_once() -> None:
    """Its last handlers are still running, so it is still there; but no answer of it can come."""
    async with memory_world() as world:
        told: list[object] = []
        gate = asyncio.Event()

        @world.io.on("connection")
        def connected(socket: Socket) -> None:
            @socket.on("x")
            async def slow() -> None:
                await gate.wait()
                assert socket.is_leaving
                told.append(await world.io.call("question"))
                await socket.call("question")

        a = await world.client()
        await a.emit("x")
        (socket,) = world.io.sockets.clients()
        await a.vanish()
        gate.set()
        await until(lambda: not world.io.sockets.clients())
        assert told == [CallResult(gone=(socket.id,))]


async def test_drain_in_a_handler_of_a_client_that_goes_is_quiet() -> None:
    async with served_world("websocket", queue_high_bytes=10) as world:
        ended: list[str] = []

        @world.io.on("connection")
        async def connected(socket: Socket) -> None:
            @socket.on("fill")
            async def fill() -> None:
                try:
                    while True:
                        socket.emit("x", "y" * 1000)
                        await socket.drain()
                        await asyncio.sleep(0)
                finally:
                    ended.append("ended")

        a = await world.client()
        await a.emit("fill")
        await a.wait("x")
        await a.vanish()
        world.clock.advance(60)
        await until(lambda: ended)


async def test_waiting_for_another_client_that_goes_is_an_error_of_the_handler(quiet: Quiet) -> None:  # noqa: F811
    async with memory_world() as world:

        @world.io.on("connection")
        def connected(socket: Socket) -> None:
            @socket.on("ask")
            async def ask(other: str) -> object:
                return await world.io.sockets.socket(other).call("never", timeout=TIMEOUT_SECONDS)

        a, b = await world.client(), await world.client()
        quiet.expect("'ask'")
        call = asyncio.ensure_future(a.call("ask", b.id))
        await turns(2)
        await b.vanish()
        assert await call == {"error": "Internal error"}


async def test_too_many_unanswered_calls_give_up_on_the_oldest() -> None:
    async with memory_world(max_pending_acks=3) as world:
        await world.client()
        (socket,) = world.io.sockets.clients()
        calls = [asyncio.ensure_future(socket.call("never", timeout=TIMEOUT_SECONDS)) for _ in range(5)]
        await turns()
        assert [call.done() for call in calls] == [True, True, False, False, False]
        for call in calls[:2]:
            with pytest.raises(AckTimeout, match="too many"):
                await call
        socket.disconnect()
        for call in calls[2:]:
            with pytest.raises(SessionClosed):
                await call


async def test_a_disconnect_hook_may_do_anything() -> None:
    """It runs when its client is out of every index already, and may send others away in turn."""
    async with memory_world() as world:
        told: list[str] = []

        @world.io.on("connection")
        def connected(socket: Socket) -> None:
            socket.join("room")

            @socket.on("disconnect")
            def gone(reason: str) -> None:
                told.append(socket.id)
                socket.join("room")
                socket.disconnect(close=True)
                assert world.io.to("room").emit("left", socket.id) == len(world.io.sockets.clients())
                for other in world.io.sockets.clients("room")[:1]:
                    other.disconnect()

        clients = [await world.client() for _ in range(5)]
        ids = [client.id for client in clients]
        await clients[0].vanish()
        assert told == ids
        assert world.io.sockets.clients() == []
