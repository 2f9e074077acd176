"""The server API in memory: every row of the table, and what needs no client, or holds one still.

The rows are in ``support/hub_table.py``; ``test_hub_over_sockets.py`` runs them over every transport.
"""

from __future__ import annotations

import asyncio
import logging
import re

import pytest
from tornado.web import Application

from polysock import CallResult, Server, SessionClosed, SettingError, Socket, StateError
from polysock.packets import Connect
from polysock.testing import Client
from support.clients import (
    Quiet,
    quiet,  # noqa: F401  # autouse: nothing here logs unannounced
    turns,
    until,
)
from support.clock import FakeClock
from support.hub import memory_world
from support.hub_table import ROWS, Row


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.__name__)
async def test_row(row: Row) -> None:
    async with memory_world() as world:
        await row(world)


# --- configure, set, get, enable, disable -----------------------------------------------------------------------------


def test_set_and_get_by_the_original_names_and_ours() -> None:
    io = Server(queue_max_messages=5)
    assert io.set("heartbeat interval", 10) is io
    io.set("heartbeat timeout", 20).set("close timeout", 30).set("origins", ["https://a.example"])
    io.set("destroy buffer size", 1000).set("ack_timeout", 2.5).set("max_pending_acks", 7)
    assert (io.limits.heartbeat_delay_s, io.limits.heartbeat_timeout_s, io.limits.disconnect_delay_s) == (10, 20, 30)
    assert io.limits.max_payload_bytes == 1000
    assert io.limits.queue_max_messages == 5  # an earlier setting is not forgotten
    assert (io.ack_timeout, io.max_pending_acks) == (2.5, 7)
    assert io.get("heartbeat interval") == io.get("heartbeat_delay") == 10
    assert io.get("origins") == ["https://a.example"]
    assert io.get("ack_timeout") == 2.5
    assert io.get("authorization") is None
    assert io.get("log colors") is None
    assert io.get("log colors", "grey") == "grey"


def test_transports_by_the_original_names() -> None:
    io = Server()
    io.set("transports", ["websocket", "flashsocket", "htmlfile", "xhr-polling", "jsonp-polling"])
    assert set(io.settings.disabled_transports) == {"xhr_streaming", "eventsource"}
    assert "websocket" in io.get("transports")
    assert "eventsource" not in io.get("transports")
    with pytest.raises(SettingError, match="carrier pigeon"):
        io.set("transports", ["carrier pigeon"])
    assert set(io.settings.disabled_transports) == {"xhr_streaming", "eventsource"}


def test_enable_and_disable() -> None:
    io = Server()
    assert io.disabled("jsessionid")
    assert not io.enabled("jsessionid")
    assert io.enable("jsessionid") is io
    assert io.settings.jsessionid
    assert io.enabled("jsessionid")
    io.disable("jsessionid")
    assert io.disabled("jsessionid")
    with pytest.warns(UserWarning, match="browser client gzip"):
        io.enable("browser client gzip")
    assert io.enabled("browser client gzip")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("heartbeat intervall", "heartbeat interval"),
        ("close timeouts", "close timeout"),
        ("authorisation", "authorization"),
        ("transport", "transports"),
        ("browser client gzipp", "browser client gzip"),
        ("ack_timout", "ack_timeout"),
        ("max_mesage_bytes", "max_message_bytes"),
        ("log_level", "log level"),
    ],
)
def test_an_unknown_option_is_an_error_that_suggests_the_nearest(name: str, meant: str) -> None:
    io = Server()
    for use in (lambda: io.set(name, 1), lambda: io.get(name), lambda: io.enable(name), lambda: io.enabled(name)):
        with pytest.raises(SettingError, match=re.escape(repr(meant))):
            use()
    with pytest.raises(SettingError, match=re.escape(repr(name))):
        Server(**{name: 1})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("heartbeat interval", -1),
        ("heartbeat interval", "soon"),
        ("ack_timeout", 0),
        ("ack_timeout", True),
        ("max_attachments", None),
        ("max_pending_acks", 0.5),
        ("origins", 7),
        ("log level", 4),
        ("log level", -1),
        ("log level", "debug"),
    ],
)
def test_a_value_that_makes_no_sense_is_an_error_and_changes_nothing(name: str, value: object) -> None:
    io = Server()
    before = io.get(name)
    with pytest.raises(SettingError):
        io.set(name, value)
    assert io.get(name) == before


def test_log_level() -> None:
    log = logging.getLogger("polysock")
    before = log.level
    try:
        for level, expected in enumerate((logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG)):
            assert Server().set("log level", level).get("log level") == level
            assert log.level == expected
    finally:
        log.setLevel(before)


def test_endpoints_keep_the_settings_of_their_moment() -> None:
    io = Server()
    io.set("heartbeat interval", 10)
    io.routes()
    with pytest.raises(StateError, match="routes"):
        io.set("heartbeat interval", 20)
    assert io.get("heartbeat interval") == 10
    io.set("authorization", lambda handshake: True)
    io.set("ack_timeout", 3)


def test_configure(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    io = Server()
    monkeypatch.delenv("POLYSOCK_ENV", raising=False)
    assert io.configure(lambda: told.append("always")) is io
    io.configure("development", lambda: told.append("development"))
    io.configure("production", lambda: told.append("never"))
    monkeypatch.setenv("POLYSOCK_ENV", "production")
    io.configure("production", lambda: told.append("production"))
    io.configure("development", lambda: told.append("never"))
    assert told == ["always", "development", "production"]
    with pytest.raises(TypeError, match="function"):
        io.configure("production")


def test_routes_are_url_specs_for_any_application() -> None:
    io = Server()
    specs = [*io.routes(sockjs="/a", plain="/b", socketio="/d"), *io.route("/c"), *io.route_socketio("/e")]
    Application(specs)
    patterns = [spec[0] for spec in specs]
    for prefix in ("/a", "/b", "/c", "/d", "/e"):
        assert any(pattern.startswith(prefix) for pattern in patterns)
    assert Server().routes(sockjs=None, plain=None, socketio=None) == []
    mounts = ("/polysock", "/plain", r"/socket\.io")
    assert all(spec[0].startswith(mounts) for spec in Server().routes())


def test_handlers_must_be_callable() -> None:
    io = Server()
    for name in ("on", "once"):
        with pytest.raises(TypeError, match="callable"):
            getattr(io, name)("connection", "not a function")


# --- what holds clients still -----------------------------------------------------------------------------------------


async def test_call_of_a_room_tells_answers_silence_and_departures_apart() -> None:
    async with memory_world() as world:
        ready, silent, leaving = [await world.client() for _ in range(3)]
        ready.on("question", lambda n: n + 1)
        silent_id, leaving_id = silent.id, leaving.id
        leaving.on("question", lambda n: world.io.sockets.socket(leaving_id).disconnect())
        result = await world.io.call("question", 1, timeout=0.001)
        assert result == CallResult({ready.id: 2}, missing=(silent_id,), gone=(leaving_id,))
        assert not result.complete


async def test_a_room_s_call_freezes_its_data_and_counts_who_is_there_now() -> None:
    async with memory_world() as world:
        a = await world.client()
        data = [1]
        a.on("question", lambda value: value)
        call = asyncio.ensure_future(world.io.call("question", data))
        await turns(1)
        data.append(2)
        late = await world.client()
        assert await call == CallResult({a.id: [1]})
        assert await late.take() == []


async def test_volatile_reaches_those_that_are_ready() -> None:
    async with memory_world() as world:
        a, b = await world.client(), await world.client()
        (first, second) = world.io.sockets.clients()
        assert first.volatile.emit("x", 1) is True
        assert first.volatile.send(2) is True
        world.io.volatile.emit("x", 3)
        world.io.to(a.id).volatile.emit("x", 4)
        first.broadcast.volatile.send(5)
        second.disconnect()
        assert second.volatile.emit("x", 6) is False
        assert await a.take() == [("x", 1), ("message", 2), ("x", 3), ("x", 4)]
        assert b.inner.take() == [("x", 3), ("message", 5)]


async def test_sockets_of_one_connection_share_their_store() -> None:
    """``socket.set`` is the client's, as in the original; ``socket.data`` is the Socket's own."""
    async with memory_world() as world:
        world.io.of("/chat")
        a = await world.client()
        a.inner._session.receive("0/chat,", "websocket")
        (main,) = world.io.sockets.clients()
        (chat,) = world.io.of("/chat").clients()
        main.set("name", "ann")
        main.data["x"] = 1
        assert chat.get("name") == "ann"
        assert chat.data == {}
        assert main.id != chat.id
        assert world.io.to(chat.id).emit("x") == 0
        chat.disconnect()
        assert main.connected
        main.disconnect(close=True)


async def test_events_for_a_namespace_keep_the_order_of_the_whole_client() -> None:
    async with memory_world() as world:
        told: list[str] = []
        gate = asyncio.Event()

        @world.io.of("/chat").on("connection")
        def chat(socket: Socket) -> None:
            socket.on("x", lambda: told.append("chat"))

        @world.io.on("connection")
        def main(socket: Socket) -> None:
            @socket.on("x")
            async def slow() -> None:
                await gate.wait()
                told.append("main")

        a = await world.client()
        for packet in ("0/chat,", '2["x"]', '2/chat,["x"]', "1/chat,"):
            a.inner._session.receive(packet, "websocket")
        assert told == []
        gate.set()
        await until(lambda: not world.io.of("/chat").clients())
        assert told == ["main", "chat"]


async def test_what_a_pattern_s_namespaces_share() -> None:
    """Handlers, middleware, event middleware and authorization of the pattern hold in each namespace it makes."""
    async with memory_world() as world:
        games = world.io.of(re.compile("/game-[0-9]"))
        told: list[str] = []
        games.use(lambda socket: told.append(f"use {socket.namespace.name}"))
        games.use_event(lambda socket, event, args: event != "forbidden")
        games.authorization(lambda handshake: handshake.auth is not None)
        games.on("connection", lambda socket: socket.on("x", lambda: "x"))
        games.on("disconnect", lambda socket, reason: told.append(f"out {socket.namespace.name}"))
        assert (await world.client("/game-1")).error == {"message": "not authorized"}
        assert "/game-1" not in world.io.namespaces
        a = await world.client("/game-2", {})
        assert await a.call("x") == "x"
        assert await a.call("forbidden") == {"error": "Refused"}
        await a.leave()
        await until(lambda: told == ["use /game-2", "out /game-2"])


async def test_dynamic_namespaces_are_bounded() -> None:
    async with memory_world(max_dynamic_namespaces=2) as world:
        world.io.of(lambda name: True)
        clients = [await world.client(f"/n{number}") for number in range(3)]
        assert [client.error for client in clients] == [None, None, {"message": "Invalid namespace"}]
        assert world.io.counters["dynamic_namespaces_refused"] == 1
        await clients[0].leave()
        assert (await world.client("/n3")).id is not None


async def test_drain_of_one_who_left_the_namespace_only() -> None:
    async with memory_world() as world:
        await world.client()
        (socket,) = world.io.sockets.clients()
        await socket.drain()
        socket.disconnect()
        with pytest.raises(SessionClosed):
            await socket.drain()


async def test_a_function_for_namespaces_that_fails_lets_nobody_in(quiet: Quiet) -> None:  # noqa: F811
    async with memory_world() as world:

        def matches(name: str) -> bool:
            raise RuntimeError(name)

        world.io.of(matches)
        quiet.expect("failed for '/x'")
        assert (await world.client("/x")).error == {"message": "Invalid namespace"}
        assert (await world.client()).id is not None


async def test_an_event_on_its_way_when_the_server_lets_the_client_go_is_ignored(quiet: Quiet) -> None:  # noqa: F811
    io = Server(clock=FakeClock())
    io.of("/other")
    client = Client(io)
    io.sockets.clients()[0].disconnect()
    assert not client.connected
    client.emit("too late")
    assert client.close_reason is None
    assert io.counters["bad_packets"] == 0
    # One for a namespace that it never was in is a fault still.
    client.namespace = "/other"
    quiet.expect("an event for a namespace that the client is not in")
    client.emit("never there")
    assert client.close_reason is not None
    assert io.counters["bad_packets"] == 1


def test_what_is_kept_of_dismissals_is_bounded() -> None:
    io = Server(clock=FakeClock(), max_inbox_messages=3)
    io.of(re.compile("/game-[0-9]+")).on("connection", lambda socket: socket.disconnect())
    client = Client(io)
    (socket,) = io.sockets.clients()
    for number in range(20):
        client._send(Connect(f"/game-{number}"))
    assert client.connected
    assert 0 < len(socket._peer._dismissed) <= 3
