"""EngineSession and its gateway: pings, the upgrade, what overlaps, every end, and any order of requests on one sid.

Real sockets, and a clock that the tests turn.  What the public suites ask for is in test_engineio_suite.py.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tornado.web import RequestHandler

from polysock import ConnectionRefused, EngineIORouter, Server
from polysock_transports.engine import EngineSession
from polysock_transports.errors import CLIENT_CLOSED, INTERRUPTED, PING_TIMEOUT, PROTOCOL_VIOLATION
from support.clients import Quiet, Recorder, quiet, turns, until  # noqa: F401  # autouse: nothing logs unannounced
from support.clock import FakeClock
from support.interop_engine import EngineClient, MakeClient, engine_clients
from support.rawhttp import (
    BINARY,
    TEXT,
    Connection,
    HandshakeRefused,
    Response,
    SocketClosed,
    WireError,
    WireSocket,
    encode_frame,
    request_bytes,
)
from support.serving import serving

EDGES_OF_LIMITS = ("upgrade_timeout_s", "upgrade_noop_s", "max_payload_packets")

INTERVAL_S, TIMEOUT_S, GRACE_S = 25.0, 20.0, 5.0
TINY_S = 0.001
UNKNOWN_TRANSPORT, UNKNOWN_SID, BAD_METHOD, BAD_REQUEST, FORBIDDEN = range(5)

both_versions = pytest.mark.parametrize("version", [3, 4])


class World:
    """A mount, its clients, its application, and the time."""

    def __init__(self, router: EngineIORouter, make: MakeClient, app: type[Recorder], clock: FakeClock) -> None:
        self.router = router
        self.make = make
        self.app = app
        self.clock = clock

    @property
    def sessions(self) -> list[EngineSession]:
        return cast("list[EngineSession]", list(self.router._gateway.store))

    @property
    def session(self) -> EngineSession:
        (session,) = self.sessions
        return session

    @property
    def connection(self) -> Recorder:
        return self.app.made[-1]

    async def client(self, version: int = 4, **options: Any) -> EngineClient:
        """A client that has shaken hands by polling."""
        client = self.make(version, **options)
        await client.open()
        return client

    async def waiting(self, client: EngineClient) -> Connection:
        """A poll of *client* that the server has."""
        poll = await client.wait()
        await until(lambda: self.session.attached)
        return poll

    async def probed(self, client: EngineClient) -> WireSocket:
        socket = await client.websocket(["2probe"])
        assert await socket.recv_text() == "3probe"
        return socket


@asynccontextmanager
async def world(
    app: type[Recorder] | None = None, server: dict[str, Any] | None = None, **settings: Any
) -> AsyncIterator[World]:
    """*app*'s mount; deadlines are met exactly, unless *settings* say how coarse."""

    class App(app or Recorder):  # type: ignore[misc]
        pass

    clock = FakeClock()
    router = EngineIORouter(App, "/engine.io", {"session_check_interval": TINY_S / 10, **settings}, clock=clock)
    async with serving(router.urls, server=server) as base, engine_clients(base) as make:
        yield World(router, make, App, clock)
    # Whatever happened, nobody is kept for ever.
    clock.advance(2 * (INTERVAL_S + TIMEOUT_S + GRACE_S))
    await turns()
    assert not len(router._gateway.store)
    assert clock.timers == 0
    assert [len(made.closes) for made in App.made] == [1] * len(App.made)


def code(answer: Response, status: int = 400) -> int:
    """The code of an error answer."""
    assert answer.status == status, answer
    assert answer.headers["Content-Type"] == "application/json"
    told = json.loads(answer.text)
    assert sorted(told) == ["code", "message"]
    return int(told["code"])


async def refused(shake: Callable[[], Any]) -> Response:
    with pytest.raises(HandshakeRefused) as raised:
        await shake()
    return raised.value.response


# --- pings ------------------------------------------------------------------------------------------------------------


async def test_a_ping_comes_an_interval_after_the_last_pong() -> None:
    async with world() as it:
        client = await it.client()
        for answered_after in (0.0, 7.0):
            poll = await it.waiting(client)
            it.clock.advance(INTERVAL_S - TINY_S)
            assert it.session.attached
            it.clock.advance(2 * TINY_S)
            assert await client.waited(poll) == ["2"]
            it.clock.advance(answered_after)
            await client.send("3")


async def test_a_ping_waits_for_a_poll() -> None:
    async with world() as it:
        client = await it.client()
        it.clock.advance(INTERVAL_S + TIMEOUT_S - TINY_S)
        assert await client.receive() == ["2"]
        await client.send("3", "4still there")
        assert it.connection.messages == ["still there"]


@both_versions
async def test_the_timeout_is_exact_however_coarse_the_sweep(version: int) -> None:
    for early, status in ((TINY_S, 200), (0.0, 400)):
        # The sweep comes a second after the ping was due, and long after the timeout.
        async with world(session_check_interval=INTERVAL_S + 1) as it:
            client = await it.client(version)
            it.clock.advance(INTERVAL_S + 1)
            it.clock.advance(TIMEOUT_S - 1 - early)
            assert (await client.post("2")).status == status
            assert [made.close_reason for made in it.app.made] == [None if status == 200 else PING_TIMEOUT]


async def test_a_late_ping_leaves_time_to_answer() -> None:
    # As after a pause of the whole process: nobody was asked, so nobody is late.
    async with world() as it:
        client = await it.client()
        it.clock._now += 10 * INTERVAL_S
        assert await client.receive() == ["2"]
        it.clock.advance(TIMEOUT_S - TINY_S)
        await client.send("3")


async def test_silence_of_a_client_that_should_ping() -> None:
    async with world() as it:
        client = await it.client(3)
        it.clock.advance(INTERVAL_S + TIMEOUT_S - TINY_S)
        await client.send("2")
        assert await client.receive() == ["3"]
        poll = await it.waiting(client)
        it.clock.advance(INTERVAL_S + TIMEOUT_S)
        assert await client.waited(poll) == ["1"]
        assert it.connection.close_reason == PING_TIMEOUT
        assert code(await client.poll()) == UNKNOWN_SID


@both_versions
async def test_silence_on_a_websocket(version: int) -> None:
    async with world() as it:
        socket, _ = await it.make(version).open_websocket()
        if version == 4:
            it.clock.advance(INTERVAL_S)
            assert await socket.recv_text() == "2"
            it.clock.advance(TIMEOUT_S)
        else:
            it.clock.advance(INTERVAL_S + TIMEOUT_S)
        await socket.expect_close()
        assert it.connection.close_reason == PING_TIMEOUT


async def test_a_pong_that_nobody_asked_for_changes_nothing() -> None:
    async with world() as it:
        client = await it.client()
        it.clock.advance(INTERVAL_S - 1)
        await client.send("3")
        it.clock.advance(1)
        assert await client.receive() == ["2"]


# --- upgrade ----------------------------------------------------------------------------------------------------------


@both_versions
async def test_upgrade(version: int) -> None:
    async with world() as it:
        client = await it.client(version)
        poll = await it.waiting(client)
        socket = await it.probed(client)
        assert await client.waited(poll) == ["6"]  # at once
        # Later polls wait a little: for what else comes, and so that clients do not spin.
        poll = await it.waiting(client)
        it.clock.advance(it.session.limits.upgrade_noop_s - TINY_S)
        assert it.session.attached
        it.clock.advance(2 * TINY_S)
        assert await client.waited(poll) == ["6"]
        await socket.send_text("5")
        await until(lambda: it.session.is_upgraded)
        it.connection.send("over the WebSocket")
        assert await socket.recv_text() == "4over the WebSocket"
        assert code(await client.poll()) == code(await client.post("4x")) == BAD_REQUEST
        assert it.connection.closes == []


async def test_messages_during_an_upgrade_are_kept_in_order() -> None:
    async with world() as it:
        client = await it.client()
        it.connection.send("1")
        socket = await it.probed(client)
        it.connection.send("2")
        assert await client.receive() == ["41", "42"]
        it.connection.send("3")
        it.connection.send(b"\4", binary=True)
        await client.send("4from polling")
        # Frames that come together with the last word of the upgrade belong to the session.
        frames = [encode_frame(TEXT, b"5"), encode_frame(TEXT, b"4first"), encode_frame(BINARY, b"\1")]
        await socket.connection.write(b"".join(frames))
        assert [await socket.recv_text(), await socket.recv()] == ["43", (BINARY, b"\4")]
        await until(lambda: len(it.connection.messages) == 3)
        assert it.connection.messages == ["from polling", "first", b"\1"]


async def test_a_ping_that_is_due_during_an_upgrade() -> None:
    async with world(heartbeat_delay=3) as it:
        client = await it.client()
        socket = await it.probed(client)
        it.clock.advance(3)
        await socket.send_text("5")
        assert await socket.recv_text() == "2"
        await socket.send_text("3")
        await until(lambda: it.session._pong_by > 10**9)
        it.clock.advance(3)
        assert await socket.recv_text() == "2"


async def test_an_upgrade_has_its_time() -> None:
    async with world() as it:
        client = await it.client()
        patience = it.session.limits.upgrade_timeout_s
        socket = await it.probed(client)
        it.clock.advance(patience - TINY_S)
        assert it.session._probe is not None
        it.clock.advance(2 * TINY_S)
        assert (await socket.expect_close())[0] == 1000
        # The session goes on where it was, and may try again.
        await client.send("4still polling")
        assert it.connection.messages == ["still polling"]
        poll = await it.waiting(client)
        it.clock.advance(1)
        assert it.session.attached
        again = await it.probed(client)
        assert await client.waited(poll) == ["6"]
        await again.send_text("5")
        await until(lambda: it.session.is_upgraded)


@pytest.mark.parametrize("upgraded", [False, True])
async def test_a_second_candidate_is_closed(upgraded: bool) -> None:
    async with world() as it:
        client = await it.client()
        socket = await it.probed(client)
        if upgraded:
            await socket.send_text("5")
            await until(lambda: it.session.is_upgraded)
        second = await client.websocket()
        await second.expect_close()
        second.abort()
        await until(lambda: it.clock.timers == 1)  # the sweep's: nobody waits for the second one any more
        if not upgraded:
            await socket.send_text("5")
        await socket.send_text("4hello")
        await until(lambda: it.connection.messages == ["hello"])


async def test_a_candidate_that_does_not_answer_the_close_is_cut() -> None:
    async with world() as it:
        client = await it.client()
        await it.probed(client)
        second = await client.websocket()
        with pytest.raises(SocketClosed):
            await second.recv_text()
        it.clock.advance(it.session.limits.close_timeout_s)
        assert await second.connection.at_eof()


@pytest.mark.parametrize("frame", ["5", "2", "2probes", "4hello", "3probe", "1", "", "x"])
async def test_a_wrong_first_frame_closes_the_candidate(frame: str) -> None:
    async with world() as it:
        client = await it.client()
        socket = await client.websocket([frame])
        assert (await socket.expect_close())[0] == PROTOCOL_VIOLATION.code
        await client.send("4still there")
        assert it.connection.messages == ["still there"]


async def test_a_probe_comes_once() -> None:
    async with world() as it:
        client = await it.client()
        socket = await it.probed(client)
        await socket.send_text("2probe")
        await socket.expect_close()
        assert it.session.is_open


@pytest.mark.parametrize("politely", [False, True])
async def test_a_candidate_may_vanish(politely: bool) -> None:
    async with world() as it:
        client = await it.client()
        socket = await it.probed(client)
        if politely:
            await socket.close()
        else:
            socket.abort()
        await until(lambda: it.session._probe is None)
        poll = await it.waiting(client)
        it.clock.advance(1)  # no more noops
        it.connection.send("hello")
        assert await client.waited(poll) == ["4hello"]


@pytest.mark.parametrize("end", ["server", "client", "loss"])
async def test_the_session_may_end_during_an_upgrade(end: str) -> None:
    async with world() as it:
        client = await it.client()
        socket = await it.probed(client)
        if end == "server":
            it.connection.close()
        elif end == "client":
            await client.send("1")
        else:
            (await it.waiting(client)).abort()
        await socket.expect_close()
        await until(lambda: it.connection.closes)


# --- what overlaps ----------------------------------------------------------------------------------------------------


@both_versions
async def test_two_polls(version: int) -> None:
    async with world() as it:
        client = await it.client(version)
        poll = await it.waiting(client)
        assert code(await client.poll()) == BAD_REQUEST
        assert await client.waited(poll) == ["1"]
        assert code(await client.poll()) == UNKNOWN_SID
        assert it.connection.close_reason == PROTOCOL_VIOLATION


async def half_posted(it: World, client: EngineClient) -> Connection:
    """A POST whose body is still to come."""
    connection = await Connection.open(client.base)
    client._polls.append(connection)
    await connection.write(request_bytes("x", "POST", client.url(), headers=client.headers, body=b"4hello")[:-5])
    await until(lambda: it.session.posting)
    return connection


async def test_two_posts() -> None:
    async with world() as it:
        client = await it.client()
        poll = await it.waiting(client)
        first = await half_posted(it, client)
        assert (await client.post("4second")).status == 400
        assert await client.waited(poll) == ["1"]
        await first.write(b"hello")
        assert code(await first.read_response()) == UNKNOWN_SID
        assert it.connection.messages == []
        assert it.connection.close_reason == PROTOCOL_VIOLATION


async def test_a_post_that_waits_for_a_handler_is_a_post() -> None:
    release = asyncio.Event()

    class App(Recorder):
        async def on_message(self, message: str | bytes) -> None:
            await release.wait()

    async with world(App, max_inbox_messages=1) as it:
        client = await it.client()
        await client.send("4handled")
        waiting = asyncio.ensure_future(client.post("4waits"))
        await until(lambda: it.session.inbox_full)
        assert it.session.posting
        assert (await client.post("4one too many")).status == 400
        assert (await waiting).status == 200  # it was taken; that it is not handled any more is the other's doing
        release.set()


@pytest.mark.parametrize("end", ["answered", "refused", "aborted", "cut short"])
async def test_after_a_post_there_may_be_another(end: str) -> None:
    async with world(max_message_bytes=100) as it:
        client = await it.client()
        if end == "answered":
            await client.send("4hello")
        elif end == "refused":
            assert (await client.post("4" + 200 * "x")).status == 413
        else:
            half = await half_posted(it, client)
            if end == "aborted":
                half.abort()
            else:
                half.writer.write_eof()
        await until(lambda: not it.session.posting)
        await client.send("4another")
        assert it.connection.messages[-1] == "another"


# --- ends -------------------------------------------------------------------------------------------------------------


@both_versions
async def test_the_client_closes_by_polling(version: int) -> None:
    async with world() as it:
        client = await it.client(version)
        poll = await it.waiting(client)
        await client.send("4last", "1", "4after the end")
        assert await client.waited(poll) == ["6"]
        assert (it.connection.messages, it.connection.close_reason) == (["last"], CLIENT_CLOSED)
        assert code(await client.poll()) == code(await client.post("4x")) == UNKNOWN_SID


@both_versions
async def test_the_client_closes_by_websocket(version: int) -> None:
    async with world() as it:
        socket, _ = await it.make(version).open_websocket()
        connection = it.connection
        await socket.send_text("1")
        assert (await socket.expect_close())[0] == 1000
        await until(lambda: connection.closes)
        client = it.make(version)
        socket, _ = await client.open_websocket()
        await socket.close()
        await until(lambda: it.connection.closes)
        assert code(await client.poll()) == UNKNOWN_SID


@both_versions
async def test_the_server_closes(version: int) -> None:
    async with world() as it:
        client = await it.client(version)
        poll = await it.waiting(client)
        it.connection.close()
        assert await client.waited(poll) == ["1"]
        assert code(await client.poll()) == UNKNOWN_SID
        socket, _ = await it.make(version).open_websocket()
        it.connection.close(3001, "enough")
        assert await socket.expect_close() == (3001, "enough")


@both_versions
async def test_a_goodbye_is_kept_for_the_next_poll(version: int) -> None:
    for early in (TINY_S, -TINY_S):
        async with world() as it:
            client = await it.client(version)
            it.connection.send("last")
            it.connection.close()
            assert (await client.post("4x")).status == 400
            assert await client.receive() == ["4last"]
            it.clock.advance(GRACE_S - early)
            if early > 0:
                assert await client.receive() == ["1"]
            assert code(await client.poll()) == UNKNOWN_SID


async def test_a_session_closed_while_it_opens() -> None:
    class App(Recorder):
        def on_open(self, info: Any) -> None:
            self.send("hello")
            self.close(3001, "enough")

    async with world(App) as it:
        client = it.make()
        opening, hello = await client.receive()
        client.opened(opening)
        assert (hello, await client.receive()) == ("4hello", ["1"])
        socket, _ = await it.make().open_websocket()
        assert await socket.recv_text() == "4hello"
        assert await socket.expect_close() == (3001, "enough")


async def test_who_vanishes_is_gone() -> None:
    async with world() as it:
        client = await it.client()
        (await it.waiting(client)).abort()
        await until(lambda: it.connection.closes)
        assert it.connection.close_reason == INTERRUPTED
        assert code(await client.poll()) == UNKNOWN_SID
        socket, _ = await it.make().open_websocket()
        socket.abort()
        await until(lambda: it.connection.closes)


# --- bodies -----------------------------------------------------------------------------------------------------------


@both_versions
async def test_a_body_that_is_too_long_keeps_the_session(version: int) -> None:
    async with world(max_message_bytes=20) as it:
        client = await it.client(version)
        assert (await client.request("POST", b"4" + 20 * b"x")).status == 413
        assert (await client.request("POST", [b"4" * 15] * 2)).status == 413
        await client.send("4hello")
        assert it.connection.messages == ["hello"]
        socket, _ = await it.make(version).open_websocket()
        await socket.send_text("4" + 20 * "x")
        assert (await socket.expect_close())[0] == 1009


@both_versions
async def test_packets_in_one_payload(version: int) -> None:
    async with world(max_payload_packets=3) as it:
        client = await it.client(version)
        assert (await client.post(*["4x"] * 4)).status == 413
        assert it.connection.messages == []
        await client.send(*["4x"] * 3)
        assert it.connection.messages == ["x"] * 3


@both_versions
@pytest.mark.parametrize("body", [b"", b"abc", b"\xff", b"7", b"b!", "4\u20ac".encode()[:3], b"4ok\x1e\x1e", b"8:4x"])
async def test_a_body_that_makes_no_sense_ends_the_session(version: int, body: bytes) -> None:
    async with world() as it:
        client = await it.client(version)
        poll = await it.waiting(client)
        assert (await client.request("POST", body)).status == 400
        assert await client.waited(poll) == ["1"]
        assert code(await client.poll()) == UNKNOWN_SID
        assert len(it.connection.closes) == 1


async def test_version_4_posts_text() -> None:
    async with world() as it:
        client = await it.client()
        answer = await client.request("POST", b"4hello", [("Content-Type", "application/octet-stream")])
        assert answer.status == 400
        assert code(await client.poll()) == UNKNOWN_SID


# --- who may come -----------------------------------------------------------------------------------------------------


async def test_cookies() -> None:
    async with world(sid_cookie="io") as it:
        for version, again in ((4, 0), (3, 1)):
            client = it.make(version)
            answer = await client.poll()
            client.opened(client.packets(answer.text)[0])
            cookie = f"io={client.sid}; Path=/; HttpOnly; SameSite=Lax"
            assert answer.headers.get_all("Set-Cookie") == [cookie]
            it.connection.send("hello")
            assert (await client.poll()).headers.get_all("Set-Cookie") == [cookie] * again
    async with world() as it:
        assert "Set-Cookie" not in (await it.make().poll()).headers


async def test_origins() -> None:
    async with world(origins=["http://friend.example"]) as it:
        friend = it.make(headers=[("Origin", "http://friend.example")])
        await friend.open()
        wanted = {"Access-Control-Allow-Origin": "http://friend.example", "Access-Control-Allow-Credentials": "true"}
        it.connection.send("hello")
        bad = await it.make(query="&sid=nobody", headers=friend.headers).poll()
        for answer in (await friend.poll(), await friend.post("4x"), bad):
            assert {name: answer.headers.get(name) for name in wanted} == wanted
            assert answer.headers["Vary"] == "Origin"
            assert "no-store" in answer.headers["Cache-Control"]
        preflight = await friend.request("OPTIONS", headers=[("Access-Control-Request-Headers", "content-type")])
        assert (preflight.status, preflight.body) == (204, b"")
        assert {"GET", "POST"} <= set(preflight.headers["Access-Control-Allow-Methods"].split(", "))
        assert preflight.headers["Access-Control-Allow-Headers"] == "content-type"
        foe = it.make(headers=[("Origin", "http://foe.example")])
        answer = await foe.poll()
        assert code(answer, 403) == FORBIDDEN
        assert "Access-Control-Allow-Origin" not in answer.headers
        assert (await refused(foe.websocket)).status == 403
        assert len(it.app.made) == 1


@pytest.mark.parametrize("is_async", [False, True])
async def test_authorization(is_async: bool) -> None:
    async def later(verdict: bool) -> bool:
        await asyncio.sleep(0)
        return verdict

    io = Server(clock=FakeClock())
    io.authorize = lambda handshake: (later if is_async else bool)("yes" in handshake.query)  # type: ignore[operator]
    async with serving(io.routes()) as base, engine_clients(base) as make:
        for version in (3, 4):
            stranger = make(version, "/socket.io/")
            assert code(await stranger.poll(), 403) == FORBIDDEN
            answer = await refused(stranger.websocket)
            assert (answer.status, answer.headers["Connection"]) == (403, "close")
            friend = make(version, "/socket.io/", query="&yes=1")
            await friend.open()
            await make(version, "/socket.io/", query="&yes=1").open_websocket()
        assert len(io._endpoints[-1].gateways[0].store) == 4
    io.close()


async def test_a_refusal_may_say_why() -> None:
    io = Server(clock=FakeClock())

    def authorize(handshake: Any) -> bool:
        raise ConnectionRefused("not today")

    io.authorize = authorize
    async with serving(io.routes()) as base, engine_clients(base) as make:
        answer = await make(path="/socket.io/").poll()
        assert (answer.status, json.loads(answer.text)) == (403, {"code": FORBIDDEN, "message": "not today"})
        assert (await refused(make(path="/socket.io/").websocket)).text == "not today"


@pytest.mark.parametrize("transport", ["polling", "websocket"])
async def test_a_client_may_leave_while_it_is_judged(transport: str) -> None:
    asked, release = asyncio.Event(), asyncio.Event()

    class App(Recorder):
        async def on_open(self, info: Any) -> None:
            asked.set()
            await release.wait()

    async with world(App) as it:
        client = it.make()
        if transport == "polling":
            (poll := await client.wait()).abort()
            del poll
        else:
            shaking = asyncio.ensure_future(client.websocket())
        await asyncio.wait_for(asked.wait(), 5)
        if transport == "websocket":
            shaking.cancel()
            with suppress(asyncio.CancelledError):
                await shaking
        await turns(50)
        release.set()
        await until(lambda: it.connection.closes)


async def test_base_handler() -> None:
    class Base(RequestHandler):
        async def prepare(self) -> None:
            await asyncio.sleep(0)
            if self.get_query_argument("user", "") != "me":
                self.set_status(401)
                self.finish("Who?")

        def get_current_user(self) -> str:
            return self.get_query_argument("user")

    async with world(base_handler=Base) as it:
        assert (await it.make().poll()).text == "Who?"
        assert (await refused(it.make().websocket)).status == 401
        client = await it.client(query="&user=me")
        client.query = ""  # it is asked once
        await client.send("4hello")
        assert (it.connection.info.current_user, it.connection.messages) == ("me", ["hello"])
        await it.make(query="&user=me").open_websocket()
        assert it.connection.info.current_user == "me"


async def test_verify_ip() -> None:
    async with world(verify_ip=True, trusted_proxies=["127.0.0.1"]) as it:
        client = await it.client(headers=[("X-Forwarded-For", "10.0.0.1")])
        half = await half_posted(it, client)
        thief = it.make(query=f"&sid={client.sid}", headers=[("X-Forwarded-For", "10.0.0.2")])
        assert code(await thief.poll(), 403) == code(await thief.post("1"), 403) == FORBIDDEN
        assert (await refused(thief.websocket)).status == 403
        await half.write(b"hello")
        assert (await half.read_response()).status == 200
        assert it.connection.messages == ["hello"]


async def test_room_for_sessions() -> None:
    async with world(max_sessions=1) as it:
        await it.client()
        assert code(await it.make().poll(), 503) == FORBIDDEN
        assert (await refused(it.make().websocket)).status == 503


async def test_disabled_transports() -> None:
    async with world(disabled_transports=["websocket"]) as it:
        client = it.make()
        assert (await client.open())["upgrades"] == []
        for shake in (client.websocket, it.make().websocket):
            assert (await refused(shake)).text == "Transport unknown"
    async with world(disabled_transports=["polling"]) as it:
        assert code(await it.make().poll()) == UNKNOWN_TRANSPORT
        socket, _ = await it.make().open_websocket()
        await socket.send_text("4hello")
        await until(lambda: it.connection.messages == ["hello"])


@pytest.mark.parametrize("method", ["HEAD", "PUT", "DELETE"])
async def test_other_methods(method: str) -> None:
    async with world() as it:
        client = await it.client()
        for asking in (client, it.make()):
            async with await Connection.open(client.base) as connection:
                answer = await connection.request(method, asking.url())
                assert answer.status == 400
                assert method == "HEAD" or code(answer) == BAD_METHOD
                if answer.headers.get("Connection", "").lower() != "close":
                    assert (await connection.request("GET", "/engine.io/")).status == 200
        await client.send("4hello")


async def test_unknown_sids() -> None:
    async with world() as it:
        for sid in ("nobody", "x" * 1000, "%00", "..%2f"):
            client = it.make(query=f"&sid={sid}")
            assert code(await client.poll()) == code(await client.post("4x")) == UNKNOWN_SID
            answer = await refused(client.websocket)
            assert (answer.status, answer.text) == (400, "Session ID unknown")


# --- hostile ----------------------------------------------------------------------------------------------------------

STEPS = (
    "poll", "wait", "abort", "post", "pongs", "bad", "leave", "half", "finish",
    "socket", "probe", "upgrade", "frame", "garbage", "drop", "send", "close", "tick", "interval",
)  # fmt: skip


class Mischief:
    """One client of one sid that does things in any order."""

    def __init__(self, it: World, client: EngineClient) -> None:
        self.it = it
        self.client = client
        self.polls: list[Connection] = []
        self.halves: list[Connection] = []
        self.sockets: list[WireSocket] = []
        self.statuses: list[int] = []

    async def do(self, step: str) -> None:
        client = self.client
        posts = {"post": "4hello", "pongs": "3", "leave": "1"}
        frames = {"probe": "2probe", "upgrade": "5", "frame": "4hello", "garbage": "x"}
        if step == "poll":
            self.it.connection.send("for the poll")  # unless another one gets it first
            self.polls.append(await client.wait())
        elif step == "wait":
            self.polls.append(await client.wait())
        elif step == "abort" and self.polls:
            self.polls.pop().abort()
        elif step in posts:
            self.statuses.append((await client.post(posts[step])).status)
        elif step == "bad":
            self.statuses.append((await client.request("POST", b"\xff\x00")).status)
        elif step == "half":
            self.halves.append(await Connection.open(client.base))
            client._polls.append(self.halves[-1])
            await self.halves[-1].write(request_bytes("x", "POST", client.url(), body=b"4hello")[:-1])
        elif step == "finish" and self.halves:
            half = self.halves.pop()
            await half.write(b"o")
            self.statuses.append((await half.read_response()).status)
        elif step == "socket":
            with suppress(HandshakeRefused):
                self.sockets.append(await client.websocket())
        elif step in frames and self.sockets:
            with suppress(ConnectionError):
                await self.sockets[-1].send_text(frames[step])
        elif step == "drop" and self.sockets:
            self.sockets.pop().abort()
        elif step == "send":
            self.it.connection.send("hello")
        elif step == "close":
            self.it.connection.close()
        elif step == "tick":
            self.it.clock.advance(0.2)
        elif step == "interval":
            self.it.clock.advance(INTERVAL_S)
        await turns(5)


@settings(max_examples=40)
@given(version=st.sampled_from([3, 4]), steps=st.lists(st.sampled_from(STEPS), max_size=14))
@example(version=4, steps=["wait", "socket", "probe", "wait", "upgrade", "frame", "half", "finish", "wait"])
@example(version=3, steps=["half", "socket", "probe", "leave", "upgrade", "finish", "interval", "interval"])
def test_any_order_of_requests(version: int, steps: list[str]) -> None:
    async def run() -> None:
        async with world() as it:
            mischief = Mischief(it, await it.client(version))
            for step in steps:
                await mischief.do(step)
            assert set(mischief.statuses) <= {200, 400}
            # Everything that is open comes to an end by itself.
            it.clock.advance(INTERVAL_S)
            await turns()
            it.clock.advance(TIMEOUT_S + GRACE_S)
            for poll in mischief.polls:
                assert (await poll.read_response()).status in (200, 400)
            for socket in mischief.sockets:
                with suppress(WireError, ConnectionError):
                    await socket.expect_close()

    asyncio.run(run())


async def test_bombs(quiet: Quiet) -> None:  # noqa: F811  # the fixture
    bombs = {
        "too many attachments": [f'45{10**9}-["a"]'],
        "one attachment too many": ['4511-["a"]'],
        "text between": ['451-["a",{"_placeholder":true,"num":0}]', '42["a"]'],
        "attachments too big": ['452-["a",{"_placeholder":true,"num":0}]', 90 * b"x", 90 * b"x"],
        "no attachment wanted": [b"x"],
        "deep": ["42" + 90 * "["],
        "number": [f"42{90 * '9'}[1]"],
    }
    io = Server(clock=FakeClock(), max_message_bytes=100, max_payload_packets=2)
    async with serving(io.routes()) as base, engine_clients(base) as make:
        for bomb in bombs.values():
            quiet.expect("closing the connection of")
            socket, _ = await make(path="/socket.io/").open_websocket()
            for frame in ["40", *bomb]:
                if isinstance(frame, str):
                    await socket.send_text(frame)
                else:
                    await socket.send_frame(BINARY, frame)
            await socket.expect_close()
        client = make(path="/socket.io/")
        await client.open()
        assert (await client.post(*['42["a"]'] * 3)).status == 413
    io.close()


async def test_a_mount_of_both_kinds_of_message() -> None:
    class Echo(Recorder):
        def on_message(self, message: str | bytes) -> None:
            self.send(message, binary=isinstance(message, bytes))

    async with world(Echo) as it:
        client = await it.client()
        await client.send("4text", "bAQI=")
        assert await client.receive() == ["4text", "bAQI="]
        with pytest.raises(TypeError):
            it.connection.send({"not": "text"})
        it.router.broadcast([it.connection], "to all")
        assert await client.receive() == ["4to all"]
        assert it.router.stats.dump()["sessions_active"] == 1
