"""The server API, row by row: what each call of Socket.IO's server does, under the names it has here.

``test_hub_api.py`` runs every row in memory, ``test_hub_over_sockets.py`` over every transport.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from polysock import AckTimeout, CallResult, ConnectionRefused, Refused, SessionClosed, Socket
from support.clients import TIMEOUT_SECONDS, Client, turns, until
from support.hub import MEMORY, World
from support.rawhttp import HandshakeRefused

__all__ = ["ROWS", "Row"]

Row = Callable[[World], Awaitable[None]]

ROWS: list[Row] = []


def row(function: Row) -> Row:
    ROWS.append(function)
    return function


# --- connections and handlers -----------------------------------------------------------------------------------------


@row
async def io_on_connection(world: World) -> None:
    """``io.on("connection", fn)``, as a decorator too, plain or ``async def``, in order."""
    told: list[tuple[str, Socket]] = []
    io = world.io

    @io.on("connection")
    def first(socket: Socket) -> None:
        told.append(("first", socket))
        socket.emit("greeting", socket.id)

    async def second(socket: Socket) -> None:
        await asyncio.sleep(0)
        told.append(("second", socket))

    assert io.on("connection", second) is second
    io.once("connection", lambda socket: told.append(("once", socket)))
    io.sockets.on("connection", lambda socket: told.append(("last", socket)))
    a = await world.client()
    assert await a.wait("greeting") == (a.id,)
    await until(lambda: len(told) == 4)
    b = await world.client()
    await until(lambda: len(told) == 7)
    assert [(name, socket.id) for name, socket in told] == [
        *((name, a.id) for name in ("first", "second", "once", "last")),
        *((name, b.id) for name in ("first", "second", "last")),
    ]
    io.off("connection", first)
    io.off("connection", second)
    await world.client()
    await until(lambda: len(told) == 8)
    assert told[-1][0] == "last"


@row
async def disconnect_hooks(world: World) -> None:
    """``socket.on("disconnect", fn)`` and ``io.on("disconnect", fn)``: once each, with the reason."""
    told: list[tuple[str, str]] = []
    io = world.io

    @io.on("connection")
    def connected(socket: Socket) -> None:
        socket.join("room")

        @socket.on("disconnect")
        async def gone(reason: str) -> None:
            told.append(("socket", reason))
            assert not socket.connected
            assert socket.rooms == ()
            assert not socket.emit("too late")

        socket.on("kick", lambda: socket.disconnect())
        socket.on("cut", lambda: socket.disconnect(close=True))

    @io.on("disconnect")
    def hook(socket: Socket, reason: str) -> None:
        told.append((socket.namespace.name, reason))

    async def ended(reason: str) -> None:
        await until(lambda: len(told) == 2)
        assert sorted(told) == [("/", reason), ("socket", reason)]
        told.clear()
        assert io.sockets.clients() == []
        assert io.sockets.hub.rooms == ()

    a = await world.client()
    await a.leave()
    await ended("client namespace disconnect")
    a = await world.client()
    await a.vanish()
    if world.transport in ("xhr", "jsonp"):
        await turns()
        world.clock.advance(60)
    await ended("transport close")
    a = await world.client()
    await a.emit("kick")
    await ended("server namespace disconnect")
    await until(lambda: a.left)
    a = await world.client()
    await a.emit("cut")
    await ended("server namespace disconnect")
    await a.ended()


@row
async def socket_on_and_emit(world: World) -> None:
    """``socket.on(ev, fn)``, a decorator too; ``socket.emit(ev, *args)``; what the handler returns is the ack."""

    @world.io.on("connection")
    def connected(socket: Socket) -> None:
        @socket.on("add")
        def add(a: int, b: int) -> int:
            return a + b

        @socket.on("later")
        async def later(value: str) -> str:
            await asyncio.sleep(0)
            return value.upper()

        socket.on("nothing", lambda: None)
        socket.on("false", lambda: False)
        socket.on("several", lambda: (1, [2], {"three": 3}))
        socket.on("a list", lambda: [1, 2])
        socket.on("first of two", lambda: None)
        socket.on("first of two", lambda: "the second")
        socket.on("first of two", lambda: "the third")
        socket.on("echo", lambda *args: socket.emit("echoed", *args) and None)

    a = await world.client()
    assert await a.call("add", 1, 2) == 3
    assert await a.call("later", "x") == "X"
    assert await a.call("nothing") is None
    assert await a.call("false") is False
    assert await a.call("several") == [1, [2], {"three": 3}]
    assert await a.call("a list") == [1, 2]
    assert await a.call("first of two") == "the second"
    assert await a.call("what?") == {"error": "No handler for this event"}
    everything = ["", 'é€😀"\\\n\0\u2028</script>', 0, -1.5, 10**20, True, None, [], {}, {"k": [1, {"": None}]}]
    await a.emit("echo", *everything)
    assert await a.wait("echoed") == tuple(everything)
    await a.emit("echo")
    assert await a.wait("echoed") == ()


@row
async def socket_once_off_and_catch_all(world: World) -> None:
    """``socket.once``, ``socket.off`` and ``socket.on_any``."""
    told: list[object] = []

    @world.io.on("connection")
    def connected(socket: Socket) -> None:
        def handler(*args: object) -> None:
            told.append(("on", *args))

        @socket.once("x")
        def once(*args: object) -> None:
            told.append(("once", *args))

        @socket.on_any
        def every(event: str, *args: object) -> None:
            told.append((event, *args))

        socket.on("x", handler)
        socket.on("off", lambda: socket.off("x", handler))
        socket.on("off any", lambda: socket.off(handler=every))
        socket.on("off all", lambda: socket.off())

    a = await world.client()
    await a.call("x", 1)
    await a.call("x", 2)
    assert told == [("x", 1), ("once", 1), ("on", 1), ("x", 2), ("on", 2)]
    told.clear()
    await a.call("off")
    # The catch-all has handled it, so this is no event without a handler.
    assert await a.call("x", 3) is None
    await a.call("off any")
    assert await a.call("x", 4) == {"error": "No handler for this event"}
    assert told == [("off",), ("x", 3), ("off any",)]
    await a.call("off all")
    assert await a.call("off all") == {"error": "No handler for this event"}


@row
async def send_and_message(world: World) -> None:
    """``socket.send(data)`` is the event ``message``; so are ``io.send`` and a room's."""

    @world.io.on("connection")
    def connected(socket: Socket) -> None:
        socket.join("room")
        socket.on("message", lambda data: socket.send([data]))

    a, b = await world.client(), await world.client()
    await a.emit("message", "hello")
    assert await a.wait("message") == (["hello"],)
    assert world.io.send(1) == 2
    assert world.io.sockets.send(2) == 2
    assert world.io.to("room").send(3) == 2
    assert await a.take() == await b.take() == [("message", 1), ("message", 2), ("message", 3)]


# --- whom an emit reaches ---------------------------------------------------------------------------------------------


@row
async def emit_to_everybody(world: World) -> None:
    """``io.sockets.emit(ev, data)``, and ``io.emit`` for short."""
    a, b = await world.client(), await world.client()
    assert world.io.sockets.emit("x", {"n": 1}) == 2
    assert world.io.emit("x", {"n": 2}, "more") == 2
    assert await a.take() == await b.take() == [("x", {"n": 1}), ("x", {"n": 2}, "more")]
    await b.vanish()


@row
async def emit_to_one_by_id(world: World) -> None:
    """``io.sockets.socket(id).emit(ev, data)``; one who is gone is no error."""
    a, b = await world.client(), await world.client()
    world.io.sockets.socket(a.id).emit("x", 1)
    world.io.to(a.id).emit("x", 2)
    assert isinstance(world.io.sockets.socket(a.id), Socket)
    (other,) = [socket for socket in world.io.sockets.clients() if socket.id == b.id]
    other.join("a room")
    assert world.io.sockets.socket("nobody").emit("x", 3) == 0
    assert world.io.sockets.socket("a room").emit("x", 4) == 0  # an id is asked for, and not a room
    other.join(a.id)  # a room may be called anything
    world.io.to(a.id).emit("x", 5)
    assert await a.take() == [("x", 1), ("x", 2), ("x", 5)]
    assert await b.take() == [("x", 5)]


@row
async def broadcast_to_all_but_me(world: World) -> None:
    """``socket.broadcast.emit``."""

    @world.io.on("connection")
    def connected(socket: Socket) -> None:
        socket.on("say", lambda text: socket.broadcast.emit("said", text))

    a, b, c = [await world.client() for _ in range(3)]
    assert await a.call("say", "hi") == 2
    assert await a.take() == []
    assert await b.take() == await c.take() == [("said", "hi")]


@row
async def join_and_leave(world: World) -> None:
    """``socket.join(room)``, ``socket.leave(room)``: many rooms for each client."""
    io = world.io

    @io.on("connection")
    def connected(socket: Socket) -> None:
        socket.on("join", lambda *rooms: socket.join(*rooms))
        socket.on("leave", lambda *rooms: socket.leave(*rooms))
        socket.on("rooms", lambda: list(socket.rooms))

    a, b = await world.client(), await world.client()
    await a.call("join", "one", "two", "thr/ee")
    await a.call("join", "one")
    await b.call("join", "two")
    assert await a.call("rooms") == ["one", "two", "thr/ee"]
    assert await b.call("rooms") == ["two"]
    assert io.to("one").emit("x", "one") == 1
    assert io.to("two").emit("x", "two") == 2
    await a.call("leave", "two", "never joined")
    assert await a.call("rooms") == ["one", "thr/ee"]
    assert io.to("two").emit("x", "two again") == 1
    assert io.to("empty").emit("x") == 0
    assert await a.take() == [("x", "one"), ("x", "two")]
    assert await b.take() == [("x", "two"), ("x", "two again")]
    (socket,) = io.sockets.clients("one")
    for name in ("", None, 1):
        with pytest.raises(ValueError, match="room"):
            socket.join(name)  # type: ignore[arg-type]  # that is the point


@row
async def broadcast_to_a_room(world: World) -> None:
    """``socket.broadcast.to(room).emit``: the room but me; ``socket.to`` is short for it."""

    @world.io.on("connection")
    def connected(socket: Socket) -> None:
        socket.on("join", lambda room: socket.join(room))
        socket.on("say", lambda room, text: socket.broadcast.to(room).emit("said", text))
        socket.on("whisper", lambda room, text: socket.to(room).emit("said", text))
        socket.on("in", lambda room, text: socket.in_(room).emit("said", text))

    a, b, c = [await world.client() for _ in range(3)]
    for client in (a, b):
        await client.call("join", "room")
    assert await a.call("say", "room", 1) == 1
    assert await a.call("whisper", "room", 2) == 1
    assert await c.call("in", "room", 3) == 2
    assert await a.take() == [("said", 3)]
    assert await b.take() == [("said", 1), ("said", 2), ("said", 3)]
    assert await c.take() == []


@row
async def rooms_chained_and_excepted(world: World) -> None:
    """``io.sockets.in_(room)`` and ``.to(room)``, chained; ``.except_(room_or_id)``.  Each client gets it once."""
    io = world.io
    a, b, c = [await world.client() for _ in range(3)]
    sockets = {socket.id: socket for socket in io.sockets.clients()}
    sockets[a.id].join("one", "both")
    sockets[b.id].join("two", "both")
    assert io.sockets.in_("one").emit("x", 1) == 1
    assert io.sockets.in_("one").in_("two").emit("x", 2) == 2
    assert io.to("one").to("both").to("two").emit("x", 3) == 2
    assert io.in_("one", "both").except_("two").emit("x", 4) == 1
    assert io.except_("both").emit("x", 5) == 1
    assert io.except_(c.id).except_("one").emit("x", 6) == 1
    assert io.to("both", c.id).except_(b.id, "nobody").emit("x", 7) == 2
    step = io.to("one")
    assert step.to("two") is not step
    assert step.emit("x", 8) == 1  # an earlier step is not changed by a later one
    assert {socket.id for socket in io.to("both").except_("one").clients()} == {b.id}
    assert [event[1] for event in await a.take()] == [1, 2, 3, 4, 7, 8]
    assert [event[1] for event in await b.take()] == [2, 3, 6]
    assert [event[1] for event in await c.take()] == [5, 7]


@row
async def clients_of_a_room(world: World) -> None:
    """``io.sockets.clients()`` and ``clients(room)``: the Sockets."""
    io = world.io
    assert io.sockets.clients() == []
    a, b = await world.client(), await world.client()
    assert [socket.id for socket in io.sockets.clients()] == [a.id, b.id]
    io.sockets.socket(b.id).join("room")
    assert [socket.id for socket in io.sockets.clients("room")] == [b.id]
    assert io.sockets.clients("empty") == []
    assert all(isinstance(socket, Socket) for socket in io.sockets.clients())


@row
async def manager_rooms(world: World) -> None:
    """``io.sockets.manager.rooms`` and ``room_clients[id]`` under the original's keys."""
    io = world.io
    chat = io.of("/chat")
    a, b, c = await world.client(), await world.client(), await world.client("/chat")
    io.sockets.socket(a.id).join("room")
    chat.socket(c.id).join("room")
    manager = io.sockets.manager
    assert manager is io.manager is chat.manager
    assert manager.rooms == {"": [a.id, b.id], "/room": [a.id], "/chat": [c.id], "/chat/room": [c.id]}
    assert manager.room_clients == {
        a.id: {"": True, "/room": True},
        b.id: {"": True},
        c.id: {"/chat": True, "/chat/room": True},
    }


# --- namespaces -------------------------------------------------------------------------------------------------------


@row
async def namespaces(world: World) -> None:
    """``io.of("/some").on("connection", ...)``: every operation inside touches only that namespace."""
    io = world.io
    some = io.of("/some")
    assert io.of("some") is some
    assert io.of("/") is io.of("") is io.sockets
    told: list[str] = []
    some.on("disconnect", lambda socket, reason: told.append(reason))

    @some.on("connection")
    def connected(socket: Socket) -> None:
        socket.join("room")
        socket.on("say", lambda text: socket.broadcast.emit("said", text))
        socket.on("hello", lambda: "some")
        socket.emit("greeting", socket.namespace.name)

    @io.on("connection")
    def connected_to_main(socket: Socket) -> None:
        socket.join("room")
        socket.on("hello", lambda: "main")

    a, b, main = await world.client("/some"), await world.client("/some"), await world.client()
    assert await a.wait("greeting") == await b.wait("greeting") == ("/some",)
    assert await a.call("hello") == "some"
    assert await main.call("hello") == "main"
    assert some.emit("x", 1) == 2
    assert some.to("room").emit("x", 2) == 2
    assert some.except_(b.id).emit("x", 3) == 1
    assert some.send("m") == 2
    assert await a.call("say", "hi") == 1
    assert io.emit("main only") == 1
    assert io.to("room").emit("main room only") == 1
    assert some.socket(main.id).emit("x") == 0
    assert [socket.id for socket in some.clients()] == [a.id, b.id]
    assert await a.take() == [("x", 1), ("x", 2), ("x", 3), ("message", "m")]
    assert await b.take() == [("x", 1), ("x", 2), ("message", "m"), ("said", "hi")]
    assert await main.take() == [("main only",), ("main room only",)]
    await a.leave()
    await until(lambda: told)
    assert told == ["client namespace disconnect"]
    nowhere = await world.client("/nowhere")
    assert nowhere.error == {"message": "Invalid namespace"}
    assert "/nowhere" not in io.namespaces
    with pytest.raises(ValueError, match="comma"):
        io.of("/a,b")


@row
async def namespaces_by_pattern(world: World) -> None:
    """``io.of(pattern)``, and a function of the name: made when asked for, gone when the last client has left."""
    io = world.io
    games = io.of(re.compile(r"/game-[0-9]+"))
    io.of(lambda name: name == "/by-function")

    @games.on("connection")
    def connected(socket: Socket) -> None:
        socket.on("where", lambda: socket.namespace.name)
        socket.on("say", lambda text: socket.namespace.emit("said", text))

    one, two, other = await world.client("/game-1"), await world.client("/game-2"), await world.client("/by-function")
    assert await one.call("where") == "/game-1"
    assert await two.call("where") == "/game-2"
    assert await one.call("say", "x") == 1
    assert await two.take() == []
    assert other.id is not None
    assert set(io.namespaces) == {"/", "/game-1", "/game-2", "/by-function"}
    assert (await world.client("/game-1x")).error == {"message": "Invalid namespace"}
    await one.leave()
    await until(lambda: "/game-1" not in io.namespaces)
    assert "/game-2" in io.namespaces


# --- who may come in --------------------------------------------------------------------------------------------------


@row
async def authorization_of_a_namespace(world: World) -> None:
    """``io.of(ns).authorization(fn)``: False, or an exception with reason and data, reaches the client."""
    io = world.io
    seen: list[Any] = []

    @io.of("/private").authorization
    def authorize(handshake: Any) -> bool:
        seen.append(handshake.auth)
        if handshake.auth is None:
            raise ConnectionRefused("who are you?", {"try": "again"})
        return bool(handshake.auth["token"] == "right")

    @io.of("/later").authorization
    async def authorize_later(handshake: Any) -> bool:
        await asyncio.sleep(0)
        return handshake.auth is not None

    assert (await world.client("/private", {"token": "wrong"})).error == {"message": "not authorized"}
    assert (await world.client("/private")).error == {"message": "who are you?", "data": {"try": "again"}}
    assert (await world.client("/private", {"token": "right"})).id is not None
    assert seen == [{"token": "wrong"}, None, {"token": "right"}]
    assert (await world.client("/later")).error == {"message": "not authorized"}
    assert (await world.client("/later", {})).id is not None
    assert (await world.client()).id is not None
    assert len(io.of("/private").clients()) == len(io.of("/later").clients()) == 1


@row
async def middleware(world: World) -> None:
    """``io.use(middleware)`` and a namespace's: plain or ``async def``, in order, refusing with reason and data."""
    io = world.io
    told: list[str] = []

    @io.use
    def first(socket: Socket) -> None:
        told.append("first")
        socket.data["user"] = (socket.handshake.auth or {}).get("user")
        assert not socket.connected
        assert not socket.emit("too early")

    @io.use
    async def second(socket: Socket) -> None:
        await asyncio.sleep(0)
        told.append("second")
        if socket.data["user"] is None:
            raise ConnectionRefused("name yourself", [1, 2])

    @io.use
    def third(socket: Socket) -> object:
        told.append("third")
        return False if socket.data["user"] == "nobody" else None

    io.on("connection", lambda socket: told.append(socket.data["user"]))
    assert (await world.client()).error == {"message": "name yourself", "data": [1, 2]}
    assert (await world.client("/", {"user": "nobody"})).error == {"message": "not authorized"}
    a = await world.client("/", {"user": "ann"})
    await until(lambda: "ann" in told)
    assert told == ["first", "second", "first", "second", "third", "first", "second", "third", "ann"]
    assert [socket.id for socket in io.sockets.clients()] == [a.id]
    io.of("/open")
    assert (await world.client("/open")).id is not None


@row
async def middleware_of_events(world: World) -> None:
    """``io.sockets.use_event`` and ``socket.use``: asked before each event; a refusal is an error ack."""
    io = world.io
    told: list[object] = []

    @io.sockets.use_event
    async def guard(socket: Socket, event: str, args: list[Any]) -> object:
        told.append((socket.id, event, args))
        if event == "refused":
            raise Refused(403, "not you")
        return event != "forbidden"

    @io.on("connection")
    def connected(socket: Socket) -> None:
        @socket.use
        def own(event: str, args: list[Any]) -> None:
            if args == ["bad"]:
                raise Refused(400, "bad argument")

        @socket.use
        def own_plain(event: str, args: list[Any]) -> object:
            return args != ["worse"]

        socket.on("x", lambda *args: list(args))
        socket.on("forbidden", lambda: told.append("never"))
        socket.on("refused", lambda: told.append("never"))
        socket.once("once", lambda *args: "done")

    a = await world.client()
    assert await a.call("x", 1, 2) == [1, 2]
    assert await a.call("forbidden") == {"error": "Refused"}
    assert await a.call("refused") == {"error": "not you"}
    assert await a.call("x", "bad") == {"error": "bad argument"}
    assert await a.call("x", "worse") == {"error": "Refused"}
    # An event that was refused has not happened, to a handler for the first one either.
    assert await a.call("once", "bad") == {"error": "bad argument"}
    assert await a.call("once") == "done"
    assert "never" not in told
    assert told[0] == (a.id, "x", [1, 2])


@row
async def authorization_of_everybody(world: World) -> None:
    """``io.set("authorization", fn)``: a refusal ends the whole connection, with its reason."""
    io = world.io

    def authorize(handshake: Any) -> bool:
        if handshake.query.get("token") == "stolen":
            raise ConnectionRefused("reported as stolen")
        return handshake.query.get("token") == "right"

    io.set("authorization", authorize)
    assert io.get("authorization") is authorize
    assert (await world.client(query={"token": "right"})).id is not None
    for token, text in (("wrong", "not authorized"), ("stolen", "reported as stolen")):
        await expect_refusal(world, token, text)

    async def authorize_later(handshake: Any) -> bool:
        await asyncio.sleep(0)
        return authorize(handshake)

    io.set("authorization", authorize_later)
    assert (await world.client(query={"token": "right"})).id is not None
    client = await world.client(query={"token": "right"})
    assert await client.take() == []
    # What is not a yes is a no: a look-up that finds nobody must not let everybody in.
    io.set("authorization", lambda handshake: {"token": "right"}.get("nobody"))
    await expect_refusal(world, "right", "not authorized")
    io.set("authorization", None)
    assert (await world.client()).id is not None


async def expect_refusal(world: World, token: str, text: str) -> None:
    if world.transport == MEMORY:
        with pytest.raises(Refused, match=text):
            await world.client(query={"token": token})
        return
    async with Client(world.base, world.transport, "/polysock", query=f"?token={token}") as wire:
        if wire.raw:
            with pytest.raises(HandshakeRefused) as refused:
                await wire.attach()
            assert (refused.value.response.status, refused.value.response.text) == (403, text)
        else:
            await wire.attach()
            assert await wire.goodbye() == (1008, text)


# --- what a Socket holds ----------------------------------------------------------------------------------------------


@row
async def store_data_and_handshake(world: World) -> None:
    """``socket.set/get/has/del_``, ``socket.data``, ``socket.handshake``, ``socket.id``, ``socket.transport``."""
    io = world.io
    io.of("/other").on("connection", lambda socket: None)
    a = await world.client("/", {"token": "t"}, query={"page": "home"})
    (socket,) = io.sockets.clients()
    assert socket.id == a.id
    assert len(socket.id) >= 20
    socket.set("name", "ann")
    assert socket.get("name") == "ann"
    assert socket.has("name")
    assert not socket.has("age")
    assert socket.get("age", 7) == 7
    assert socket.get("age") is None
    socket.del_("name")
    socket.del_("name")
    assert not socket.has("name")
    socket.data["x"] = 1
    assert socket.data == {"x": 1}
    handshake = socket.handshake
    assert handshake.auth == handshake["auth"] == {"token": "t"}
    assert handshake.query["page"] == handshake["query"]["page"] == "home"
    assert handshake.address == "127.0.0.1"
    assert handshake["headers"] is handshake.headers
    assert handshake.url.startswith("/polysock")
    assert handshake.xdomain is False
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", handshake.time)
    assert handshake.issued > 0
    for name in ("nothing", "_info", "__class__"):
        with pytest.raises(KeyError):
            handshake[name]
    assert socket.transport in (world.transport, "websocket")


@row
async def socket_disconnect(world: World) -> None:
    """``socket.disconnect()``: out of the namespace; with ``close`` the whole connection ends."""
    io = world.io
    a, b = await world.client(), await world.client()
    first, second = io.sockets.clients()
    first.join("room")
    first.disconnect()
    assert not first.connected
    assert first.close_reason is not None
    await until(lambda: a.left)
    first.disconnect()
    first.join("room")
    assert io.sockets.clients() == [second]
    assert io.sockets.clients("room") == []
    assert not first.emit("x")
    with pytest.raises(SessionClosed):
        await first.call("x")
    second.disconnect(close=True)
    second.disconnect(close=True)
    assert (await b.ended())[0] in (3000, 1000, 1006)
    assert io.sockets.clients() == []


# --- answers ----------------------------------------------------------------------------------------------------------


@row
async def call_one_client(world: World) -> None:
    """``await socket.call(ev, *args, timeout=)``, and an ack callback as the last argument of ``emit``."""
    io = world.io
    a = await world.client()
    a.on("double", lambda n: 2 * n)
    a.on("several", lambda: (1, 2))
    a.on("nothing", lambda: None)
    (socket,) = io.sockets.clients()
    assert await socket.call("double", 21) == 42
    assert await socket.call("several") == [1, 2]
    assert await socket.call("nothing") is None
    assert await asyncio.gather(*(socket.call("double", n) for n in range(20))) == [2 * n for n in range(20)]
    with pytest.raises(AckTimeout):
        await socket.call("silence", timeout=0.001)
    answers: list[object] = []
    socket.emit("double", 4, answers.append)
    socket.emit("several", ack=lambda *args: answers.append(args))

    async def later(answer: int) -> None:
        await asyncio.sleep(0)
        answers.append(answer)

    socket.emit("double", 5, later)
    await until(lambda: len(answers) == 3)
    assert answers == [8, (1, 2), 10]
    waiting = asyncio.ensure_future(socket.call("silence", timeout=TIMEOUT_SECONDS))
    await turns()
    await a.leave()
    with pytest.raises(SessionClosed):
        await waiting
    assert len(socket._acks) == 0


@row
async def call_a_room(world: World) -> None:
    """A room-wide ``call``: answers, silence and departures told apart."""
    io = world.io
    ready, silent, leaving, outside = [await world.client() for _ in range(4)]
    for client in (ready, silent, leaving):
        io.sockets.socket(client.id).join("room")
    for client in (ready, outside):
        client.on("question", lambda n: n + 1)
    leaver = io.sockets.socket(leaving.id)
    call = asyncio.ensure_future(io.to("room").except_(silent.id).call("question", 1))
    await turns(2)
    leaver.disconnect()
    result = await call
    assert result == CallResult({ready.id: 2}, gone=(leaver.id,))
    assert not result.complete
    result = await io.to(silent.id).call("question", 1, timeout=0.001)
    assert result == CallResult(missing=(silent.id,))
    assert not result.complete
    result = await io.except_(silent.id).call("question", 5)
    assert result == CallResult({ready.id: 6, outside.id: 6})
    assert result.complete
    assert await io.to("empty").call("question") == CallResult()
    with pytest.raises(TypeError):
        await io.call("question", object())
    assert all(len(socket._acks) == 0 for socket in io.sockets.clients())


# --- beyond the original ----------------------------------------------------------------------------------------------


@row
async def binary_anywhere(world: World) -> None:
    """Bytes anywhere in the arguments, both ways, in events and acks."""
    every_byte = bytes(range(256))

    @world.io.on("connection")
    def connected(socket: Socket) -> None:
        socket.on("echo", lambda *args: args)
        socket.on("kind", lambda value: [type(item).__name__ for item in value])
        socket.on("shout", lambda value: world.io.emit("shouted", value))

    a, b = await world.client(), await world.client()
    nested = {"a": [every_byte, {"b": b""}], "c": "text"}
    assert await a.call("echo", nested) == nested
    assert await a.call("echo", b"\0\xff", 1, "x", b"") == [b"\0\xff", 1, "x", b""]
    assert await a.call("kind", [b"x", "x", [b""]]) == ["bytes", "str", "list"]
    assert await a.call("shout", [every_byte, every_byte]) == 2
    assert await a.wait("shouted") == await b.wait("shouted") == ([every_byte, every_byte],)
    world.io.emit("views", bytearray(b"ab"), memoryview(b"cd"), (b"ef",))
    assert await b.wait("views") == (b"ab", b"cd", [b"ef"])


@row
async def drain(world: World) -> None:
    """``await socket.drain()``: at once where nothing waits, SessionClosed where the client is gone."""
    await world.client()
    (socket,) = world.io.sockets.clients()
    for number in range(10):
        socket.emit("x", number)
        await asyncio.wait_for(socket.drain(), TIMEOUT_SECONDS)
    socket.disconnect(close=True)
    with pytest.raises(SessionClosed):
        await socket.drain()


@row
async def serial_handlers(world: World) -> None:
    """The handlers of one client run one after another, in the order of its events; its acks come in that order."""
    told: list[str] = []
    gate = asyncio.Event()

    @world.io.on("connection")
    def connected(socket: Socket) -> None:
        @socket.on("slow")
        async def slow(name: str) -> str:
            told.append(f"begin {name}")
            await gate.wait()
            told.append(f"end {name}")
            return name

        @socket.on("fast")
        def fast(name: str) -> str:
            told.append(name)
            return name

    a = await world.client()
    calls = asyncio.gather(a.call("slow", "1"), a.call("fast", "2"), a.call("slow", "3"), a.call("fast", "4"))
    await until(lambda: told)
    await turns()
    assert told == ["begin 1"]
    gate.set()
    assert await calls == ["1", "2", "3", "4"]
    assert told == ["begin 1", "end 1", "2", "begin 3", "end 3", "4"]


@row
async def data_frozen_at_the_emit(world: World) -> None:
    """What was emitted is what arrives, whatever becomes of the objects afterwards."""
    a = await world.client()
    (socket,) = world.io.sockets.clients()
    data: dict[str, Any] = {"list": [1], "bytes": bytearray(b"a")}
    for emit in (socket.emit, world.io.emit, world.io.to(a.id).emit):
        emit("x", data)
        data["list"].append(2)
        data["bytes"][:] = b"b"
        data["new"] = True
        await turns(1)
        data = {"list": [1], "bytes": bytearray(b"a")}
    assert await a.take() == [("x", {"list": [1], "bytes": b"a"})] * 3


@row
async def what_cannot_travel(world: World) -> None:
    """Arguments that no JSON carries and names that are reserved: TypeError or ValueError, and nobody gets anything."""
    io = world.io
    a, b = await world.client(), await world.client()
    socket = io.sockets.socket(a.id)
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    loop: list[Any] = []
    loop.append(loop)
    for value in (object(), {1, 2}, float("nan"), float("inf"), deep, loop, 1j, 10**5000):
        for emit in (io.emit, io.to(a.id, b.id).emit, socket.emit, socket.broadcast.emit, socket.volatile.emit):
            with pytest.raises((TypeError, ValueError)):
                emit("x", value)
    for name in ("connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"):
        for emit in (io.emit, socket.emit):
            with pytest.raises(ValueError, match="reserved"):
                emit(name)
    with pytest.raises(TypeError, match="str"):
        io.emit(7)  # type: ignore[arg-type]  # that is the point
    assert await a.take() == await b.take() == []
