"""The hub over real sockets: every row of the server API on every transport, and all transports in one room."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import pytest

from polysock import Connection, Server, SessionClosed, Socket, SockJSRouter, StateError
from polysock_transports.errors import GOING_AWAY
from support.clients import (
    EVERY,
    POLLING,
    TIMEOUT_SECONDS,
    WEBSOCKETS,
    Client,
    endpoint,
    quiet,  # noqa: F401  # autouse: nothing here logs unannounced
    turns,
    until,
)
from support.hub import MEMORY, WireClient, World, assert_no_ghosts, served_world
from support.hub_table import ROWS, Row
from support.rawhttp import TEXT, HandshakeRefused
from support.serving import either_server  # noqa: F401  # autouse: under either HTTPServer

every_transport = pytest.mark.parametrize("transport", EVERY)


@every_transport
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.__name__)
async def test_row(row: Row, transport: str) -> None:
    async with served_world(transport) as world:
        await row(world)


# --- all of them in one room ------------------------------------------------------------------------------------------


class Raw(Connection):
    """A raw Connection beside the Sockets; ``made`` is refilled by each test."""

    made: ClassVar[list[Raw]] = []

    def on_open(self, info: Any) -> None:
        self.made.append(self)
        self.join("room")
        self.join("own")

    def on_message(self, message: str | bytes) -> None:
        assert isinstance(message, str)
        verb, _, room = message.partition(" ")
        getattr(self, verb)(room)


@pytest.fixture(autouse=True)
def _raw_connections() -> None:
    Raw.made = []


def with_raw(io: Server) -> list[Any]:
    return [*io.routes(), *SockJSRouter(Raw, "/raw", {}, server=io, clock=io.clock).urls]


@asynccontextmanager
async def everybody_in_one_room() -> AsyncIterator[tuple[World, dict[str, Any]]]:
    """A world and a member of ``room`` for each transport, one in memory among them."""
    async with served_world("", routes=with_raw) as world:

        @world.io.on("connection")
        def connected(socket: Socket) -> None:
            socket.join("room")
            socket.on("say", lambda kind, *args: send[kind](socket).emit("said", *args))
            socket.on("leave", lambda: socket.leave("room"))

        send: dict[str, Callable[[Socket], Any]] = {
            "all": lambda socket: world.io,
            "others": lambda socket: socket.broadcast,
            "room": lambda socket: world.io.to("room"),
            "room but me": lambda socket: socket.broadcast.to("room"),
            "except": lambda socket: world.io.to("room").except_(socket.id),
        }
        members = {transport: await world.client(transport=transport) for transport in (*EVERY, MEMORY)}
        yield world, members


KINDS = ("all", "others", "room", "room but me", "except")


@pytest.mark.parametrize("sender", [*EVERY, MEMORY])
async def test_one_emit_reaches_all_exactly_once(sender: str) -> None:
    async with everybody_in_one_room() as (world, members):
        count = len(members)
        assert len(world.io.sockets.clients("room")) == count
        data = {"text": "é€😀</script>%0a\u2028", "bytes": [b"\0\xff\n"]}
        for kind in KINDS:
            reached = count if kind in ("all", "room") else count - 1
            assert await members[sender].call("say", kind, kind, data) == reached
        for transport, member in members.items():
            mine = ("all", "room") if transport == sender else KINDS
            assert await member.take() == [("said", kind, data) for kind in mine]


async def test_leaves_and_disconnects_empty_the_room_one_by_one() -> None:
    async with everybody_in_one_room() as (world, members):
        io, hub = world.io, world.io.sockets.hub
        for index, (transport, member) in enumerate(list(members.items())):
            left = len(members) - index
            assert io.to("room").emit("x") == left
            socket = io.sockets.socket(member.id)
            assert isinstance(socket, Socket)
            if index % 3 == 0:
                await member.call("leave")
                assert socket.rooms == ()
                assert io.emit("y") == len(io.sockets.clients())
            elif index % 3 == 1:
                await member.leave()
            else:
                await member.vanish()
                if transport in POLLING:
                    await turns()
                    world.clock.advance(60)
            await until(lambda left=left: len(hub.in_room("room")) == left - 1)  # type: ignore[misc]  # bound at once
            hub.check()
        assert hub.rooms == ()


@pytest.mark.parametrize("transport", [*EVERY])
async def test_order_is_kept_and_nothing_comes_twice(transport: str) -> None:
    async with served_world(transport) as world:
        taken: list[int] = []

        @world.io.on("connection")
        def connected(socket: Socket) -> None:
            socket.join("room")

            @socket.on("n")
            async def number(value: int) -> None:
                if value % 7 == 0:
                    await asyncio.sleep(0)
                taken.append(value)

        a = await world.client()
        (socket,) = world.io.sockets.clients()
        emits: list[Callable[..., Any]] = [
            socket.emit,
            world.io.emit,
            world.io.to("room").emit,
            world.io.to(socket.id, "room").emit,
        ]
        for number in range(400):
            emits[number % 4]("x", number, b"bytes" if number % 5 == 0 else "text")
            if number % 10 == 0:
                await a.emit("n", number // 10)
        assert [event[1] for event in await a.take()] == list(range(400))
        assert taken == list(range(40))


# --- raw Connections --------------------------------------------------------------------------------------------------


@every_transport
async def test_raw_connections_share_the_rooms(transport: str) -> None:
    async with served_world("websocket", routes=with_raw) as world, Client(world.base, transport, "/raw") as raw:
        io = world.io
        await raw.open()
        await until(lambda: Raw.made)
        (connection,) = Raw.made
        assert connection.rooms == ("room", "own")
        member = await world.client()
        (socket,) = io.sockets.clients()
        socket.join("room")
        assert io.to("room").emit("news", {"a": ["é", None]}, 1.5) == 2
        assert json.loads(await raw.message()) == ["news", {"a": ["é", None]}, 1.5]
        assert io.emit("everybody") == 1  # a raw Connection gets what goes to its rooms, and nothing else
        assert io.to("own").emit("bytes", b"\0\xff") == 1
        assert json.loads(await raw.message()) == ["bytes", {"#base64": "AP8="}]
        assert [one.id for one in io.sockets.clients("room")] == [member.id]  # the Sockets only
        await raw.send("leave own", "leave nothing", "join new")
        await until(lambda: connection.rooms == ("room", "new"))
        assert io.to("own").emit("x") == 0
        assert io.to("new").emit("y") == 1
        assert json.loads(await raw.message()) == ["y"]
        connection.close()
        await raw.goodbye()
        connection.join("late")
        assert connection.rooms == ()
        assert io.to("new").emit("y") == 0
        assert await member.take() == [("news", {"a": ["é", None]}, 1.5), ("everybody",)]


@every_transport
async def test_a_raw_connection_that_is_turned_away_leaves_no_ghost(transport: str) -> None:
    class Refusing(Connection):
        def on_open(self, info: Any) -> bool:
            self.join("room")
            return False

    class RefusingLater(Connection):
        async def on_open(self, info: Any) -> bool:
            self.join("room")
            await asyncio.sleep(0)
            return False

    def routes(io: Server) -> list[Any]:
        return [
            *SockJSRouter(Refusing, "/now", {}, server=io).urls,
            *SockJSRouter(RefusingLater, "/later", {}, server=io).urls,
        ]

    async with served_world(transport, routes=routes) as world:
        for prefix in ("/now", "/later"):
            async with Client(world.base, transport, prefix) as raw:
                if raw.raw and prefix == "/now":
                    with pytest.raises(HandshakeRefused, match="403"):
                        await raw.attach()
                else:
                    await raw.attach()
                    assert (await raw.goodbye())[0] == 1008
            assert_no_ghosts(world.io)


async def test_a_raw_connection_without_a_server_has_no_rooms() -> None:
    class App(Connection):
        def on_open(self, info: Any) -> None:
            assert self.rooms == ()
            self.leave("room")
            with pytest.raises(StateError, match="server="):
                self.join("room")
            self.send("done")

    async with endpoint(App) as (base, _), Client(base, "websocket") as client:
        await client.open()
        assert await client.message() == "done"


# --- mounts, and clients that are behind ------------------------------------------------------------------------------


async def test_one_server_on_several_mounts() -> None:
    def routes(io: Server) -> list[Any]:
        return [*io.routes(sockjs="/one", plain=None), *io.route("/two"), *io.routes(sockjs=None, plain=None)]

    async with served_world("websocket", routes=routes) as world:
        wires = [
            await (await WireClient(Client(world.base, transport, prefix)).open()).connect()
            for transport, prefix in (("websocket", "/one"), ("xhr_streaming", "/two"))
        ]
        assert world.io.emit("x") == 2
        for wire in wires:
            assert await wire.take() == [("x",)]
            await wire.vanish()
        await until(lambda: not world.io.sockets.clients())


async def test_server_close_ends_every_client_with_its_reason() -> None:
    async with everybody_in_one_room() as (world, members):
        reasons: list[str] = []
        world.io.on("disconnect", lambda socket, reason: reasons.append(reason))
        world.io.close()
        for member in members.values():
            assert await member.ended() == (GOING_AWAY.code, GOING_AWAY.text)
        assert reasons == ["server shutting down"] * len(members)


async def behind(world: World) -> tuple[Client, Socket]:
    """A polling client that is in, and whose poll is over: what is sent now waits for it."""
    client = Client(world.base, "xhr", "/polysock")
    await client.open()
    await client.send("0")
    assert (await client.message()).startswith('0{"sid"')
    await client.response_end()
    (socket,) = [socket for socket in world.io.sockets.clients() if socket.transport == "xhr"]
    return client, socket


async def test_volatile_messages_are_dropped_for_a_client_that_is_behind() -> None:
    async with served_world("websocket") as world:
        ready = await world.client()
        client, socket = await behind(world)
        assert socket.volatile.emit("x", 1) is False
        assert socket.volatile.send(1) is False
        world.io.volatile.emit("x", 2, b"with an attachment")
        world.io.to(socket.id, ready.id).volatile.emit("x", 3)
        world.io.emit("x", 4)
        assert json.loads((await client.message())[1:]) == ["x", 4]
        await client.response_end()
        await client.attach()
        await until(lambda: socket.receiver.attached)
        assert socket.volatile.emit("x", 5, b"a") is True
        assert (await client.message()).startswith("51-")
        assert await client.message() == "bYQ=="
        assert await ready.take() == [("x", 2, b"with an attachment"), ("x", 3), ("x", 4)]
        client.abort()


async def test_drain_waits_for_a_client_that_is_behind() -> None:
    async with served_world("websocket", queue_high_bytes=100) as world:
        client, socket = await behind(world)
        socket.emit("x", "y" * 200)
        draining = asyncio.ensure_future(socket.drain())
        await turns()
        assert not draining.done()
        await client.message()
        await asyncio.wait_for(draining, TIMEOUT_SECONDS)
        await client.response_end()
        socket.emit("x", "y" * 200)
        draining = asyncio.ensure_future(socket.drain())
        await turns()
        socket.disconnect(close=True)
        with pytest.raises(SessionClosed):
            await draining
        client.abort()


async def test_a_client_that_never_catches_up_is_closed_and_the_others_go_on() -> None:
    async with served_world("websocket", queue_max_messages=5) as world:
        reasons: list[str] = []
        world.io.on("disconnect", lambda socket, reason: (reasons.append(reason), world.io.emit("left", reason)))
        ready = await world.client()
        client, socket = await behind(world)
        for number in range(10):
            world.io.emit("x", number)
        assert reasons == ["slow consumer"]
        assert not socket.connected
        events = await ready.take()
        assert [event for event in events if event[0] == "x"] == [("x", number) for number in range(10)]
        assert events.count(("left", "slow consumer")) == 1
        client.abort()


# --- lone surrogates --------------------------------------------------------------------------------------------------


@every_transport
async def test_lone_surrogates(transport: str) -> None:
    """JSON may hold them and UTF-8 may not: they travel as escapes, and arrive as they were."""
    async with served_world(transport) as world:
        taken: list[str] = []
        world.io.on("connection", lambda socket: socket.on("take", lambda text: (taken.append(text), text)[1]))
        a = await world.client()
        text = "<\ud800|\udfff|\U0001f600>"
        world.io.emit("x", text, b"bytes")
        assert await a.wait("x") == (text, b"bytes")
        assert await a.call("take", text) == text
        assert taken == [text]


@pytest.mark.parametrize("transport", EVERY)
async def test_lone_surrogates_to_raw_connections(transport: str) -> None:
    """A raw Connection's own message is no JSON: SockJS escapes it all the same, a WebSocket's UTF-8 has U+FFFD."""
    async with served_world(transport, routes=with_raw) as world, Client(world.base, transport, "/raw") as raw:
        await raw.open()
        await until(lambda: Raw.made)
        Raw.made[0].send("<\ud800>")
        arrives = "\ufffd" if raw.raw else "\ud800"  # noqa: RUF034  # these are not the same
        assert await raw.message() == f"<{arrives}>"
        world.io.to("room").emit("x", "<\udfff>")
        assert json.loads(await raw.message()) == ["x", "<\udfff>"]


@every_transport
async def test_lone_surrogates_from_the_client(transport: str) -> None:
    """Raw on the wire, which only SockJS's own escapes can say: taken inside strings, and harmless elsewhere."""
    if transport == "rawwebsocket":
        async with served_world(transport) as world:
            a = await world.client()
            await a.wire.socket.send_frame(TEXT, b'2["take","\xed\xa0\x80"]')
            assert (await a.ended())[0] == 1007
        return
    async with served_world(transport) as world, Client(world.base, transport, "/polysock") as client:
        world.io.on("connection", lambda socket: socket.on("take", lambda text: text))
        await client.open()
        await client.send("0")
        await client.message()
        await client.send('20["take","\ud800"]', "0/\ud800,", '21["\udfff"]')
        assert await client.message() == '30["\\ud800"]'
        assert await client.message() == '4/\ud800,{"message":"Invalid namespace"}'
        assert await client.message() == '31[{"error":"No handler for this event"}]'


@pytest.mark.parametrize("transport", WEBSOCKETS)
async def test_lone_surrogates_where_websockets_are_compressed(transport: str) -> None:
    async with served_world(transport, compression=True) as world:
        a = await world.client()
        world.io.emit("x", "\ud800" * 100)
        assert await a.wait("x") == ("\ud800" * 100,)
