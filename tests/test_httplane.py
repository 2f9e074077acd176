"""What only the taken-over HTTP lane can do wrong: sending ahead, leaving in every state, time, memory, the log.

That it answers as Tornado's own lane does is ``test_lane_answers.py``'s; servers and routing around it, and
``SocketPipe``, are ``test_takeover.py``'s.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import socket
import struct
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from tornado.httpserver import HTTPServer
from tornado.web import Application, RequestHandler

from polysock import EngineIORouter, SockJSRouter
from polysock_transports.httplane import HttpConnection, LaneRequest
from polysock_transports.lanehead import read_fields
from support.clients import (
    Quiet,
    Recorder,
    quiet,
    turns,
    until,
)
from support.clock import FakeClock
from support.rawhttp import Connection as Wire
from support.rawhttp import request_bytes
from support.serving import either_server, new_server, serving_application

__all__ = ["either_server", "quiet"]

EDGES_OF_LIMITS = ("max_ahead_bytes",)

AHEAD_BYTES = 32 * 1024
READ_BYTES = 4096
HIGH_BYTES = 10_000


@dataclass
class Here:
    """A server with one endpoint on a clock of the test's own, and what it logged."""

    base: str
    router: SockJSRouter
    clock: FakeClock
    server: HTTPServer
    made: list[Any]
    logged: list[tuple[int, str]]

    @property
    def lane(self) -> Any:
        return self.router._gateway.lane

    @property
    def connections(self) -> list[HttpConnection]:
        return list(self.lane._connections)

    @property
    def parked(self) -> int:
        return self.router.stats.dump()["connections_active"]

    async def taken(self, sid: str = "a") -> tuple[Wire, Any]:
        """A client whose connection was taken over, and the connection's other end."""
        before = set(self.connections)
        wire = await Wire.open(self.base)
        assert (await wire.request("POST", f"/s/000/{sid}/xhr")).body == b"o\n"
        (new,) = set(self.connections) - before
        return wire, new

    async def gone(self) -> None:
        """Nothing of any connection is left."""
        await until(lambda: not self.connections and not self.server._connections)
        assert not self.lane._waiting_for_body
        assert self.lane._sweep_timer is None
        assert not self.lane._tasks


@asynccontextmanager
async def endpoint(
    options: dict[str, Any] | None = None, app: dict[str, Any] | None = None, **server: Any
) -> AsyncIterator[Here]:
    kind = type("App", (Recorder,), {"on_message": lambda self, message: self.send(message)})
    clock = FakeClock()
    limits = {"read_chunk_bytes": READ_BYTES, "pipe_high_bytes": HIGH_BYTES, "max_ahead_bytes": AHEAD_BYTES}
    logged: list[tuple[int, str]] = []
    router = SockJSRouter((options or {}).pop("kind", kind), "/s", {**limits, **(options or {})}, clock=clock)
    settings = {"log_function": lambda handler: logged.append((handler.get_status(), handler.request.path))}
    http = new_server(Application([*router.urls, ("/own", Own)], **{**settings, **(app or {})}), **server)
    http.listen(0, "127.0.0.1")
    (sock,) = http._sockets.values()
    try:
        yield Here(f"http://127.0.0.1:{sock.getsockname()[1]}", router, clock, http, kind.made, logged)  # type: ignore[attr-defined]
    finally:
        http.stop()
        await http.close_all_connections()
        router.close()
        clock.advance(1000)
        await turns(3)


class Own(RequestHandler):
    def get(self) -> None:
        self.write("own")


POLL = "/s/000/a/xhr"
SEND = "/s/000/a/xhr_send"


def sent(text: str = "x") -> bytes:
    return request_bytes("h", "POST", SEND, headers=[("Host", "HOST")], body=json.dumps([text]).encode())


def reset(wire: Wire) -> None:
    """Leave with an RST, as a machine that loses power after a restart."""
    sock = wire.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wire.abort()


def leave(wire: Wire) -> None:
    wire.close()


def half_close(wire: Wire) -> None:
    wire.writer.write_eof()


# -- sending ahead


async def test_a_request_sent_while_a_poll_is_parked_waits_for_its_answer() -> None:
    async with endpoint() as here:
        wire, _ = await here.taken()
        await wire.send("POST", POLL)
        await until(lambda: here.parked == 1)
        await wire.send("GET", "/own")
        await wire.send("POST", SEND, body=b'["y"]')
        await turns()
        assert here.made[0].messages == []
        here.made[0].send("x")
        assert (await wire.read_response()).body == b'a["x"]\n'
        assert (await wire.read_response()).body == b"own"
        assert (await wire.read_response()).status == 204
        wire.close()


async def test_who_sends_far_ahead_is_read_no_further() -> None:
    async with endpoint() as here:
        wire, lane = await here.taken()
        await wire.send("POST", POLL)
        await until(lambda: here.parked == 1)
        host = wire.host.encode()
        ahead = sent().replace(b"HOST", host)
        number = 4 * AHEAD_BYTES // len(ahead)
        wire.writer.write(ahead * number)
        longest = 0

        def stopped() -> bool:
            nonlocal longest
            longest = max(longest, len(lane._buffer))
            return not lane._transport.is_reading()

        await until(stopped)
        here.made[0].send("go")
        assert (await wire.read_response()).body == b'a["go"]\n'
        for _ in range(number):
            assert (await wire.read_response()).status == 204
            stopped()
        assert longest <= AHEAD_BYTES + READ_BYTES
        assert lane._transport.is_reading()
        assert len(here.made[0].messages) == 0
        wire.close()


async def test_polls_that_are_answered_one_by_one_let_no_more_in() -> None:
    """Each answer makes room for as much as its request took, and not for as much again as may be sent ahead."""
    async with endpoint() as here:
        wire, lane = await here.taken()
        poll = request_bytes(wire.host, "POST", POLL)
        wire.writer.write(poll * (10 * AHEAD_BYTES // len(poll)))
        await until(lambda: not lane._transport.is_reading())
        longest = 0
        for _ in range(200):
            here.made[0].send("x")
            await wire.read_response()
            longest = max(longest, len(lane._buffer))
        assert longest <= AHEAD_BYTES + READ_BYTES
        wire.close()


async def test_who_takes_no_answers_is_not_served_on() -> None:
    async with endpoint() as here:
        wire, lane = await here.taken()
        lane._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
        ask = request_bytes(wire.host, "POST", "/s/000/nobody/xhr_send", body=b"[]")
        # Far more than the kernel holds of the answers.
        number = 60_000
        wire.writer.write(ask * number)
        longest = served = still = 0
        while still < 100:
            await asyncio.sleep(0)
            still = still + 1 if served == len(here.logged) and lane._over else 0
            served = len(here.logged)
            longest = max(longest, lane.backlog)
        assert served < number
        assert longest < 3 * HIGH_BYTES
        assert len(lane._buffer) <= AHEAD_BYTES + READ_BYTES
        wire.writer.transport.resume_reading()  # type: ignore[attr-defined]
        for _ in range(served + 100):
            assert (await wire.read_response()).status == 404
        reset(wire)
        await here.gone()


async def test_a_stream_that_is_not_read_holds_back_the_sessions_queue() -> None:
    async with endpoint({"response_limit": 1 << 30}) as here:
        wire, lane = await here.taken()
        stream = await wire.start("POST", "/s/000/a/xhr_streaming")
        assert stream.status == 200
        wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
        session = here.made[0].session.core
        count = 0
        while not session.queued_messages:
            here.made[0].send("x" * 5000)
            count += 1
            if not count % 10:
                await turns(1)
        assert lane.backlog > HIGH_BYTES
        wire.writer.transport.resume_reading()  # type: ignore[attr-defined]
        got = b""
        while got.count(b"x" * 5000) < count:
            got += await wire.read_chunk()
        assert session.queued_messages == 0
        wire.close()


# -- leaving


async def poll_is_parked(here: Here, wire: Wire) -> None:
    await wire.send("POST", POLL)
    await until(lambda: here.parked == 1)


async def stream_runs(here: Here, wire: Wire) -> None:
    await wire.start("POST", "/s/000/a/xhr_streaming")
    await until(lambda: here.parked == 1)


async def half_a_head(here: Here, wire: Wire) -> None:
    await wire.write(b"POST /s/000/a/xhr HTT")
    await until(lambda: here.connections[0]._buffer)


async def half_a_body(here: Here, wire: Wire) -> None:
    await wire.write(sent().replace(b"HOST", wire.host.encode())[:-2])
    await until(lambda: here.lane._waiting_for_body)


async def nothing(here: Here, wire: Wire) -> None:
    pass


async def far_ahead(here: Here, wire: Wire) -> None:
    await poll_is_parked(here, wire)
    wire.writer.write(sent() * 10)
    await until(lambda: here.connections[0]._buffer)


STATES: dict[str, tuple[Callable[[Here, Wire], Awaitable[None]], list[tuple[int, str]]]] = {
    "nothing": (nothing, []),
    "half a head": (half_a_head, []),
    "half a body": (half_a_body, []),
    "parked": (poll_is_parked, [(499, POLL)]),
    "parked, and more sent": (far_ahead, [(499, POLL)]),
    "streaming": (stream_runs, [(200, "/s/000/a/xhr_streaming")]),
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("way", [leave, half_close, reset])
async def test_who_leaves_is_gone_and_logged_once(way: Callable[[Wire], None], state: str) -> None:
    reach, logged = STATES[state]
    async with endpoint() as here:
        wire, _ = await here.taken()
        here.logged.clear()
        await reach(here, wire)
        way(wire)
        await here.gone()
        await turns()
        assert here.logged == logged
        assert here.parked == 0
        if logged:
            assert here.made[0].closes  # SockJS: who is lost is over
        wire.abort()


@pytest.mark.parametrize("number", [1, 5, 50])
async def test_what_was_asked_before_a_half_close_is_answered(number: int) -> None:
    """As far as it can be at once: who ends his half waits for no event."""
    async with endpoint() as here:
        wire, _ = await here.taken()
        asked = [sent(f"{at}").replace(b"HOST", wire.host.encode()) for at in range(number)]
        wire.writer.write(b"".join(asked))
        half_close(wire)
        for _ in asked:
            assert (await wire.read_response()).status == 204
        assert await wire.at_eof()
        await here.gone()
        assert here.logged == [(200, POLL), *[(204, SEND)] * number]
        wire.close()


async def test_what_was_asked_behind_a_parked_poll_is_not_done_after_a_half_close() -> None:
    async with endpoint() as here:
        wire, _ = await here.taken()
        ahead = request_bytes(wire.host, "POST", POLL) + sent("never").replace(b"HOST", wire.host.encode())
        wire.writer.write(ahead)
        half_close(wire)
        assert await wire.at_eof()
        await here.gone()
        assert here.logged == [(200, POLL), (499, POLL)]
        assert here.made[0].closes
        wire.close()


@pytest.mark.parametrize("way", [leave, reset])
async def test_who_leaves_while_its_handler_is_behind(way: Callable[[Wire], None]) -> None:
    release = asyncio.Event()

    class Slow(Recorder):
        async def on_message(self, message: str | bytes) -> None:
            await release.wait()
            self.messages.append(message)

    async with endpoint({"kind": Slow, "max_inbox_messages": 1}) as here:
        wire, _ = await here.taken()
        stays, _ = await here.taken("b")
        here.logged.clear()
        assert (await wire.request("POST", SEND, body=b'["1"]')).status == 204
        await wire.send("POST", SEND, body=b'["2"]')  # this one waits for room
        await until(lambda: any(connection._awaiting is not None for connection in here.connections))
        assert here.logged == [(204, SEND)]
        way(wire)
        await until(lambda: len(here.connections) == 1)
        assert here.logged == [(204, SEND)]
        release.set()
        await until(lambda: Slow.made[0].messages == ["1", "2"])
        await turns()
        # Answered to nobody, as in Tornado's own lane.
        assert here.logged == [(204, SEND)] * 2
        assert (await stays.request("POST", "/s/000/b/xhr_send", body=b'["3"]')).status == 204
        stays.close()
        await here.gone()


async def test_a_request_that_waits_is_answered_in_turn() -> None:
    release = asyncio.Event()

    class Slow(Recorder):
        async def on_message(self, message: str | bytes) -> None:
            await release.wait()

    async with endpoint({"kind": Slow, "max_inbox_messages": 1}) as here:
        wire, _ = await here.taken()
        for text in ("1", "2", "3"):
            await wire.send("POST", SEND, body=json.dumps([text]).encode())
        await wire.send("GET", "/own")
        assert (await wire.read_response()).status == 204
        await turns()
        assert here.logged.count((204, SEND)) == 1
        release.set()
        assert [(await wire.read_response()).status for _ in range(3)] == [204, 204, 200]
        wire.close()


# -- time


async def test_a_body_that_never_comes() -> None:
    async with endpoint({"body_timeout_s": 60}) as here:
        wire, _ = await here.taken()
        await half_a_body(here, wire)
        here.clock.advance(59)
        await turns()
        await wire.write(b'"')
        await turns()
        assert here.connections
        here.clock.advance(2)
        assert await wire.at_eof()
        await here.gone()
        wire.close()


async def test_a_body_in_time_leaves_no_timer() -> None:
    async with endpoint() as here:
        wire, _ = await here.taken()
        request = sent().replace(b"HOST", wire.host.encode())
        for byte in request:
            await wire.write(bytes([byte]))
            await turns(1)
        assert (await wire.read_response()).status == 204
        assert not here.lane._waiting_for_body
        wire.close()


@pytest.mark.parametrize(("server", "limit_s"), [({}, 3600), ({"idle_connection_timeout": 20}, 20)])
async def test_idle_connections_end_after_what_the_server_allows(server: dict[str, Any], limit_s: float) -> None:
    async with endpoint({"heartbeat_delay": 100_000, "disconnect_delay": 100_000}, **server) as here:
        idle, _ = await here.taken("idle")
        slow, _ = await here.taken("slow")
        busy, _ = await here.taken("busy")
        await slow.write(b"POST /s")
        await busy.send("POST", "/s/000/busy/xhr")
        await until(lambda: here.parked == 1)
        assert here.lane._sweep_s <= limit_s / 4
        here.clock.advance(limit_s - 1)
        here.lane._sweep()
        await turns()
        assert len(here.connections) == 3
        here.clock.advance(2)
        here.lane._sweep()
        assert await idle.at_eof()
        assert await slow.at_eof()
        assert len(here.connections) == 1
        assert here.parked == 1
        for wire in (idle, slow, busy):
            wire.abort()
        await here.gone()


# -- what fails


async def test_a_request_that_fails_is_answered_500_and_the_connection_goes_on(quiet: Quiet) -> None:
    quiet.expect("a request failed: POST /s/000/b/xhr (127.0.0.1)")

    class Fails(Recorder):
        def __init__(self, session: Any) -> None:
            super().__init__(session)
            if len(self.made) == 2:
                raise RuntimeError("no")

    async with endpoint({"kind": Fails}) as here:
        wire, _ = await here.taken()
        answer = await wire.request("POST", "/s/000/b/xhr")
        assert (answer.status, answer.body) == (500, b"Internal Server Error\n")
        assert (await wire.request("POST", "/s/000/c/xhr")).body == b"o\n"
        assert here.logged == [(200, POLL), (500, "/s/000/b/xhr"), (200, "/s/000/c/xhr")]
        wire.close()


async def test_a_rule_of_the_applications_that_fails_is_reported_by_tornado(quiet: Quiet) -> None:
    quiet.expect("Uncaught exception POST /s/000/a/xhr (127.0.0.1)")
    calls: list[str] = []

    def rule(origin: str) -> bool:
        calls.append(origin)
        raise RuntimeError("no")

    async with endpoint({"origins": rule}) as here:
        wire, _ = await here.taken()
        answer = await wire.request("POST", POLL, headers=[("Origin", "http://elsewhere.example")])
        assert answer.status == 500
        assert calls
        wire.close()


async def test_a_log_function_that_fails_harms_nobody(quiet: Quiet) -> None:
    quiet.expect("the access log failed")

    def fail(handler: RequestHandler) -> None:
        raise RuntimeError("no")

    async with endpoint(app={"log_function": fail}) as here:
        wire, _ = await here.taken()
        await poll_is_parked(here, wire)
        here.made[0].send("x")
        assert (await wire.read_response()).body == b'a["x"]\n'
        assert here.parked == 0
        await poll_is_parked(here, wire)
        wire.abort()
        await here.gone()
        assert here.parked == 0


# -- the application's own


async def test_the_access_log_has_the_same_lines(caplog: pytest.LogCaptureFixture) -> None:
    lines: dict[bool, list[str]] = {}
    for fast in (True, False):
        caplog.clear()
        with caplog.at_level(logging.INFO, "tornado.access"):
            kind = type("App", (Recorder,), {})
            router = SockJSRouter(kind, "/s", {"fast_lane": fast}, clock=FakeClock())
            server = new_server(Application(router.urls))
            server.listen(0, "127.0.0.1")
            (sock,) = server._sockets.values()
            async with await Wire.open(f"http://127.0.0.1:{sock.getsockname()[1]}") as wire:
                await wire.request("POST", POLL)
                await wire.request("POST", SEND + "?t=1", body=b'["x"]')
                await wire.request("POST", POLL, headers=[("Origin", "http://elsewhere.example")])
            server.stop()
            await server.close_all_connections()
        found = [record for record in caplog.records if record.name == "tornado.access"]
        lines[fast] = [f"{record.levelname} {record.getMessage().rsplit(' ', 1)[0]}" for record in found]
        assert all(record.getMessage().endswith("ms") for record in found)
        for record in found:
            record.levelno = logging.INFO  # it was announced by this test
    assert lines[True] == [
        "INFO 200 POST /s/000/a/xhr (127.0.0.1)",
        "INFO 204 POST /s/000/a/xhr_send?t=1 (127.0.0.1)",
        "WARNING 403 POST /s/000/a/xhr (127.0.0.1)",
    ]
    assert lines[False] == lines[True]


async def test_a_log_function_gets_a_handler_like_any_other() -> None:
    found: list[Any] = []

    class Base(RequestHandler):
        def get_current_user(self) -> Any:
            return self.get_cookie("user")

    def log(handler: RequestHandler) -> None:
        request = handler.request
        found.append(
            (
                isinstance(handler, RequestHandler),
                handler.get_status(),
                handler.current_user,
                request.full_url(),
                request.headers.get("Cookie"),
                request.arguments,
                0 <= request.request_time() < 5,
                handler.get_argument("t", None),
                handler.application is not None,
            )
        )

    async with endpoint({"base_handler": Base}, {"log_function": log}) as here:
        wire = await Wire.open(here.base)
        for _ in range(2):
            await wire.request("POST", f"{SEND}?t=1", headers=[("Cookie", "user=ann")], body=b"[]")
        assert here.connections
        url = f"{here.base}{SEND}?t=1"
        assert found == [(True, 404, "ann", url, "user=ann", {"t": [b"1"]}, True, "1", True)] * 2
        wire.close()


async def test_the_applications_own_handler_sees_new_sessions_and_no_others() -> None:
    asked: list[str] = []

    class Login(RequestHandler):
        def prepare(self) -> None:
            asked.append(self.request.path)
            if self.get_argument("no", None):
                self.set_status(401)
                self.finish()

        def get_current_user(self) -> Any:
            return self.get_cookie("user")

    async with endpoint({"base_handler": Login}) as here:
        wire, _ = await here.taken()
        for sid in ("a", "b", "b", "a"):
            await wire.request("POST", f"/s/000/{sid}/xhr_send", body=b'["x"]')
            if sid == "b" and "b" not in "".join(asked):
                assert (await wire.request("POST", "/s/000/b/xhr", headers=[("Cookie", "user=ann")])).body == b"o\n"
        assert asked == [POLL, "/s/000/b/xhr"]
        assert (await wire.request("POST", "/s/000/c/xhr?no=1")).status == 401
        assert [made.info.get_current_user() for made in here.made] == [None, "ann"]
        # A poll with a body, whose session ends before the body comes, is for the application to see as well.
        await wire.write(request_bytes(wire.host, "POST", POLL, headers=[("Content-Length", "1")]))
        await turns()
        here.made[0].close()
        here.clock.advance(100)
        await wire.write(b"x")
        assert (await wire.read_response()).body == b"o\n"
        assert asked[-1] == POLL
        wire.close()


async def test_jsessionid_and_verify_ip() -> None:
    async with endpoint({"jsessionid": True, "verify_ip": True}) as here:
        wire, _ = await here.taken()
        for cookie, answer in (("JSESSIONID=node1", "node1"), ("a=b", "dummy"), ('(x)=y; JSESSIONID="n"', "n")):
            got = await wire.request("POST", SEND, headers=[("Cookie", cookie)], body=b"[]")
            assert got.headers["Set-Cookie"] == f"JSESSIONID={answer}; path=/"
            assert len(here.connections) == 1
        wire.close()


# -- memory


def requests_alive() -> int:
    return sum(isinstance(item, LaneRequest) for item in gc.get_objects())


async def test_nothing_of_an_answered_request_is_left() -> None:
    """Neither for the garbage collector nor for anybody."""
    async with endpoint() as here:
        wire, _ = await here.taken()
        await wire.request("POST", SEND, body=b"[]")
        gc.collect()
        gc.freeze()  # so that there is little to look through
        gc.disable()
        try:
            for _ in range(20):
                await wire.send("POST", POLL)
                await until(lambda: here.parked == 1)
                assert requests_alive() <= 1
                here.made[0].send("x")
                await wire.read_response()
                await wire.request("POST", SEND, body=b"[]")
                assert requests_alive() == 0
            client = gc.collect()
            for _ in range(20):
                await wire.send("POST", POLL)
                await until(lambda: here.parked == 1)
                here.made[0].send("x")
                await wire.read_response()
                await wire.request("POST", SEND, body=b"[]")
            # The client in this process makes some garbage of its own; twice the requests make no more of it.
            assert gc.collect() <= client + 20
        finally:
            gc.enable()
        wire.close()


@pytest.mark.parametrize("stamped", [True, False])
async def test_a_poll_that_comes_again_is_not_judged_anew(stamped: bool) -> None:
    async with endpoint() as here:
        wire, connection = await here.taken()
        served = set()
        for number in range(4):
            await wire.send("POST", f"{POLL}?t={number}" if stamped else POLL)
            await until(lambda: here.parked == 1)
            here.made[0].send(str(number))
            assert (await wire.read_response()).body == b'a["%d"]\n' % number
            served.add(connection._again)
        assert len(served) == 1
        assert None not in served
        assert here.logged == [(200, POLL)] * 5
        wire.close()
        await until(lambda: connection._again is None)


@pytest.mark.parametrize("protocol", [3, 4])
async def test_polls_of_engine_io_come_again_with_another_stamp(protocol: int) -> None:
    """And with text after bytes, where the content type says which."""
    kind = type("App", (Recorder,), {})
    router = EngineIORouter(kind, "/e", {"sid_cookie": "io"}, clock=FakeClock())
    async with (
        serving_application(Application(router.urls, log_function=lambda handler: None)) as base,
        await Wire.open(base) as wire,
    ):
        query = f"EIO={protocol}&transport=polling&t="
        opening = (await wire.request("GET", f"/e/?{query}a0")).text
        query = query + "%d&sid=" + json.loads(opening[opening.index("{") :].split("\x1e")[0])["sid"]
        served, answers = set(), []
        lane: Any = router._gateway.lane
        for number, message in enumerate(("a", "b", b"c", "d")):
            await wire.send("GET", "/e/?" + query % number)
            await until(lambda: router.stats.dump()["connections_active"] == 1)
            kind.made[0].send(message, binary=isinstance(message, bytes))  # type: ignore[attr-defined]
            answer = await wire.read_response()
            answers.append((answer.headers["Content-Type"], answer.body, answer.headers.get("Set-Cookie") is None))
            (connection,) = lane._connections
            served.add(connection._again)
        text = "text/plain; charset=UTF-8"
        if protocol == 4:
            assert answers == [(text, body, True) for body in (b"4a", b"4b", b"bYw==", b"4d")]
        else:
            assert [kind for kind, _, _ in answers] == [text, text, "application/octet-stream", text]
            assert answers[3][1] == b"2:4d"
            assert not any(without for _, _, without in answers)
        assert len(served) == 1
        router.close()


async def test_origins_that_a_function_judges_are_judged_each_time() -> None:
    allowed = ["http://page.example"]
    async with endpoint({"origins": lambda origin: origin in allowed}) as here:
        wire, _ = await here.taken()
        origin = [("Origin", "http://page.example")]
        for number in range(3):
            await wire.send("POST", POLL, headers=origin)
            await until(lambda: here.parked == 1)
            here.made[0].send(str(number))
            assert (await wire.read_response()).status == 200
        allowed.clear()
        assert (await wire.request("POST", POLL, headers=origin)).status == 403
        wire.close()


async def test_an_ended_session_is_not_kept_by_the_connection_of_its_polls() -> None:
    async with endpoint() as here:
        wire, connection = await here.taken()
        for number in range(2):
            await wire.send("POST", POLL)
            await until(lambda: here.parked == 1)
            here.made[0].send(str(number))
            await wire.read_response()
        assert connection._again is not None
        ended = weakref.ref(here.made.pop())
        ended().close()  # type: ignore[union-attr]  # it is there still
        here.clock.advance(60)
        await until(lambda: not len(here.router._gateway.store))
        gc.collect()
        assert ended() is None
        wire.close()


async def test_remembered_heads_are_bounded() -> None:
    async with endpoint() as here:
        wire, _ = await here.taken()
        for number in range(1200):
            await wire.send("POST", SEND, headers=[("X-Number", str(number))], body=b"[]")
        for _ in range(1200):
            await wire.read_response()
        assert 0 < len(here.lane.fields._known) <= 512
        before = len(here.lane.fields._known)
        await wire.request("POST", SEND, headers=[("X-Long", "x" * 3000)], body=b"[]")
        assert len(here.lane.fields._known) == before
        wire.close()


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="no /proc here to count open files in")
async def test_no_socket_is_left_open() -> None:
    async with endpoint() as here:
        first, _ = await here.taken("first")
        leave(first)
        await here.gone()
        gc.collect()  # else what an earlier test has dropped may go while this one counts
        before = len(os.listdir("/proc/self/fd"))  # with what a loop opens for itself at its first connection
        for number in range(10):
            wire, _ = await here.taken(f"n{number}")
            for _ in range(3):
                await wire.request("GET", "/own")
                await wire.request("POST", f"/s/000/n{number}/xhr_send", body=b"[]")
            if number % 2:
                await wire.request("GET", "/own")
            (leave if number % 3 else reset)(wire)
        await here.gone()
        await turns()
        assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"Host: a\r\nHost: a\r\n",
        b"Host: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n",
        b"Host: a\r\nTransfer-Encoding: chunked\r\n",
        b"Host: a\r\ncontent-encoding: gzip\r\n",
        b"Host: a\r\nEXPECT: 100-continue\r\n",
        b"Host: a\r\nUpgrade: websocket\r\nContent-Length: 1\r\n",
        b"Host: a\r\nConnection: close\r\n",
        b"Host: a\r\nContent-Length: 1_0\r\n",
        "Host: a\r\nContent-Length: \u0663\r\n".encode(),
        b"Host: a\r\nX: a\0\r\n",
        b"Host: a\r\nX: a\x7f\r\n",
        b"Host: a\r\nX : a\r\n",
        b"Host: a\r\n X: a\r\n",
        b"Host: a\r\nX: a\n\r\n",
        b"Host: a\r\nX: a\rb\r\n",
        b"Host: a\r\nX(: a\r\n",
        b"Host: a\r\n\xe9: a\r\n",
    ],
)
def test_heads_that_are_not_plain_are_not_read(block: bytes) -> None:
    assert read_fields(block) is None


def test_a_plain_head_is_read() -> None:
    found = read_fields(b"host: a\r\nX-A:1\r\nx-a:\t 2 \r\nContent-Length: 05\r\nConnection: Keep-Alive\r\n")
    assert found is not None
    assert found.length == 5
    assert found.headers["Host"] == "a"
    assert found.headers.get_list("X-A") == ["1", "2"]
