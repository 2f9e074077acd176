"""Connections leave Tornado and come back: what that leans on in Tornado, under every kind of server around it.

And ``SocketPipe``, which they go on with.  Requests on such a connection are in ``test_httplane.py``, the transports
over it in ``test_transport_contract.py``.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPServerConnectionDelegate
from tornado.iostream import IOStream, SSLIOStream
from tornado.netutil import bind_unix_socket
from tornado.routing import Matcher, PathMatches, Router, Rule, RuleRouter
from tornado.web import Application, RequestHandler

from polysock import Connection, SockJSRouter
from polysock_transports.socketpipe import Lane, SocketPipe
from polysock_transports.takeover import can_take_over, find_server, take_over, target_of
from support.clients import (
    Quiet,
    quiet,
    turns,
    until,
)
from support.rawhttp import Connection as Wire
from support.rawhttp import HeaderList, Response
from support.serving import serving_application, serving_with

__all__ = ["quiet"]

CHANGED = (
    "This Tornado is not what takeover.py expects. Nothing breaks by that: where something is missing, connections stay"
    " in Tornado's streams, slower and right. Look at what has become of it in Tornado's sources (http1connection,"
    " httpserver, iostream, web) and mend takeover.py, which alone knows, or narrow Tornado's range in pyproject.toml."
)


class Echo(Connection):
    def on_message(self, message: str | bytes) -> None:
        self.send(message)


class Own(RequestHandler):
    """The application's own."""

    def initialize(self, text: str = "own") -> None:
        self.text = text

    def get(self) -> None:
        self.write({"text": self.text, "ip": self.request.remote_ip, "protocol": self.request.protocol})

    post = get


def taken(router: SockJSRouter) -> int:
    """How many HTTP connections of *router* are out of Tornado's hands at this moment."""
    return len(router._gateway.lane._connections)


def application(router: SockJSRouter, *handlers: Any, **settings: Any) -> Application:
    settings.setdefault("log_function", lambda handler: None)
    return Application([*handlers, *router.urls, ("/own", Own)], **settings)


async def poll(wire: Wire, sid: str = "a", *, prefix: str = "/s", headers: HeaderList = ()) -> Response:
    return await wire.request("POST", f"{prefix}/000/{sid}/xhr", headers=headers)


async def send(wire: Wire, text: str, sid: str = "a", *, prefix: str = "/s", headers: HeaderList = ()) -> Response:
    body = json.dumps([text]).encode()
    return await wire.request("POST", f"{prefix}/000/{sid}/xhr_send", headers=headers, body=body)


# -- Tornado's insides


async def test_tornado_is_inside_as_expected() -> None:
    found: dict[str, Any] = {}

    class Look(RequestHandler):
        def get(self) -> None:
            request = self.request
            http: Any = request.connection
            context, stream, serving = http.context, http.stream, request.server_connection
            coroutine = serving._serving_future.get_coro()  # type: ignore[union-attr]
            server = inspect.getcoroutinelocals(coroutine)["delegate"]
            found.update(
                task=isinstance(serving._serving_future, asyncio.Task),  # type: ignore[union-attr]
                server=isinstance(server, HTTPServer),
                listed=serving in server._connections,
                settings=[
                    hasattr(server.conn_params, name)
                    for name in ("no_keep_alive", "max_header_size", "max_body_size", "header_timeout")
                ],
                more=[
                    hasattr(server, name)
                    for name in ("max_buffer_size", "read_chunk_size", "xheaders", "request_callback")
                ],
                context=[
                    hasattr(context, name) for name in ("remote_ip", "protocol", "_apply_xheaders", "_unapply_xheaders")
                ],
                stream=type(stream) is IOStream,
                buffer=isinstance(stream._read_buffer, bytearray) and stream._read_buffer_size == 0,
                stream_more=[hasattr(stream, name) for name in ("_state", "_closed", "socket", "io_loop")],
                fit=can_take_over(stream) and find_server(serving) is server,
                handler=[hasattr(self, name) for name in ("_finished", "_headers_written", "ui")],
                started=hasattr(request, "_start_time"),
                settings_of_request=callable(http.set_body_timeout) and callable(http.detach),
                target=target_of(server, request) == (self.application, {}, Look),
            )

    app = Application([("/", Look)], log_function=lambda handler: None)
    async with serving_application(app) as base, await Wire.open(base) as wire:
        await wire.request("GET", "/")
    assert found, CHANGED
    wrong = {name: value for name, value in found.items() if not value or (isinstance(value, list) and not all(value))}
    assert not wrong, f"{CHANGED} Missing: {wrong}"
    assert callable(HTTPServer.start_request), CHANGED
    assert Application.start_request is Router.start_request, CHANGED
    if on_asyncio():
        missing = "asyncio's own loop has no _make_socket_transport any more: connections take a task each to begin"
        assert hasattr(asyncio.get_running_loop(), "_make_socket_transport"), missing


class Witness(Connection):
    """Remembers which task its clients were opened in."""

    tasks: list[Any]

    def on_open(self, info: Any) -> None:
        self.tasks.append(asyncio.current_task())


UPGRADE = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "13")]
UPGRADE += [("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==")]


@pytest.mark.parametrize(
    ("request_line", "headers", "at_once"),
    [
        (("POST", "/s/000/a/xhr"), [], True),
        (("POST", "/s/000/a/xhr"), [("Content-Length", "0")], True),
        (("POST", "/s/000/a/xhr"), [("Content-Length", "1")], False),
        (("POST", "/s/000/a/xhr"), [("Connection", "close")], False),
        (("GET", "/s/000/a/eventsource"), [], True),
        (("GET", "/s/000/a/websocket"), UPGRADE, True),
        (("GET", "/s/websocket"), UPGRADE, True),
    ],
)
async def test_who_leaves_http_does_so_while_tornado_is_at_the_head(
    request_line: tuple[str, str], headers: HeaderList, at_once: bool
) -> None:
    kind = type("Seen", (Witness,), {"tasks": []})
    router = SockJSRouter(kind, "/s")
    async with serving_application(application(router)) as base, await Wire.open(base) as wire:
        await wire.send(*request_line, headers=headers)
        await wire.write(b"x")  # a body, where one was said to come
        await until(lambda: kind.tasks)  # type: ignore[attr-defined]
        (task,) = kind.tasks  # type: ignore[attr-defined]
        assert ("_server_request_loop" in task.get_coro().__qualname__) is at_once, CHANGED
        router.close()


class Refuses(Connection):
    def on_open(self, info: Any) -> bool:
        return False


@pytest.mark.parametrize("options", [{}, {"fast_lane": False}, {"origins": ["http://b"]}])
async def test_who_is_refused_at_the_head_is_answered_like_any_other(options: dict[str, Any]) -> None:
    """With an answer that ends neither the connection nor what comes after it."""
    router = SockJSRouter(Refuses, "/s", options)
    headers = [*UPGRADE, ("Origin", "http://a")] if "origins" in options else UPGRADE
    async with serving_application(application(router)) as base, await Wire.open(base) as wire:
        for _ in range(2):
            answer = await wire.request("GET", "/s/websocket", headers=headers)
            assert answer.status == 403
            assert answer.headers.get("Connection") is None
        assert (await wire.request("GET", "/own")).status == 200
        bad = [header for header in UPGRADE if header[0] != "Sec-WebSocket-Key"]
        assert (await wire.request("GET", "/s/000/a/websocket", headers=bad)).status == 400
        assert (await wire.request("GET", "/own")).status == 200


async def test_a_failure_at_the_head_is_tornados_to_report(quiet: Quiet) -> None:
    class Fails(Connection):
        def __init__(self, session: Any) -> None:
            raise RuntimeError("no connection")

    quiet.expect("Uncaught exception")
    router = SockJSRouter(Fails, "/s")
    async with serving_application(application(router)) as base, await Wire.open(base) as wire:
        for method, path, headers in (("POST", "/s/000/a/xhr", []), ("GET", "/s/000/b/websocket", UPGRADE)):
            assert (await wire.request(method, path, headers=headers)).status == 500
            assert (await wire.request("GET", "/own")).status == 200
    assert not len(router._gateway.store)


async def test_a_stream_that_is_busy_or_more_than_a_stream_stays() -> None:
    near, far = socket.socketpair()
    stream = IOStream(near)
    assert can_take_over(stream)
    reading = asyncio.ensure_future(stream.read_bytes(1))
    await turns(2)
    assert not can_take_over(stream)
    far.send(b"x")
    await reading
    assert can_take_over(stream)
    stream.write(b"x" * 10_000_000).add_done_callback(lambda future: future.exception())
    assert not can_take_over(stream)
    stream.close()
    assert not can_take_over(stream)
    far.close()
    near, far = socket.socketpair()
    secure = SSLIOStream(near, ssl_options=ssl.create_default_context())
    assert not can_take_over(secure)
    secure.close()
    far.close()
    near, far = socket.socketpair()
    kind = type("Special", (IOStream,), {})
    special = kind(near)
    assert not can_take_over(special)
    special.close()
    far.close()


async def test_what_was_read_comes_along() -> None:
    near, far = socket.socketpair()
    stream = IOStream(near)
    far.send(b"first second")
    assert await stream.read_bytes(6) == b"first "
    sock, rest = take_over(stream)
    assert rest == b"second"
    assert stream.closed()
    assert sock is near
    far.send(b"third")
    assert await asyncio.get_running_loop().sock_recv(sock, 5) == b"third"
    sock.close()
    far.close()


async def test_a_server_that_is_not_tornados_own_is_not_found() -> None:
    assert find_server(None) is None
    assert find_server(object()) is None

    class Connection:
        _serving_future: Any = asyncio.get_running_loop().create_future()

    assert find_server(Connection()) is None
    task = asyncio.ensure_future(asyncio.sleep(0))
    Connection._serving_future = task
    assert find_server(Connection()) is None
    await task


# -- the servers around it


async def test_a_connection_goes_to_and_fro() -> None:
    router = SockJSRouter(Echo, "/s")
    async with serving_application(application(router)) as base, await Wire.open(base) as wire:
        assert (await poll(wire)).body == b"o\n"
        assert taken(router) == 1
        for number in range(3):
            own = json.loads((await wire.request("GET", "/own")).body)
            assert own == {"text": "own", "ip": "127.0.0.1", "protocol": "http"}
            assert taken(router) == 0
            assert (await send(wire, f"{number}")).status == 204
            assert taken(router) == 1
            assert (await poll(wire)).body == b'a["%d"]\n' % number


async def test_two_mounts_and_many_rules_on_one_connection() -> None:
    """Rules that stand before an endpoint's own win on its connections too, however alike the paths are."""
    first, second, empty = SockJSRouter(Echo, "/s"), SockJSRouter(Echo, "/s2"), SockJSRouter(Echo, "")
    app = Application(
        [
            ("/s/000/mine/xhr", Own, {"text": "before"}),
            *first.urls,
            *second.urls,
            ("/api/v1/xhr", Own, {"text": "api"}),
            *empty.urls,
        ],
        log_function=lambda handler: None,
    )
    async with serving_application(app) as base, await Wire.open(base) as wire:
        for _ in range(2):
            assert (await poll(wire, "a")).body in (b"o\n", b'a["x"]\n')
            assert json.loads((await poll(wire, "mine")).body)["text"] == "before"
            assert (await poll(wire, "a", prefix="/s2")).body in (b"o\n", b'a["x"]\n')
            assert (await send(wire, "x", "a", prefix="/s2")).status == 204
            assert (await poll(wire, "b", prefix="")).body in (b"o\n", b'a["x"]\n')
            assert json.loads((await wire.request("POST", "/api/v1/xhr")).body)["text"] == "api"
            assert (await send(wire, "x", "b", prefix="")).status == 204
            assert (await send(wire, "x", "a")).status == 204
        assert (len(first._gateway.store), len(second._gateway.store), len(empty._gateway.store)) == (1, 1, 1)


class ByHeader(Matcher):
    def match(self, request: Any) -> dict[str, Any] | None:
        return {} if request.headers.get("X-Side") == "own" else None


class ByArrival(Matcher):
    def match(self, request: Any) -> dict[str, Any] | None:
        return {} if request.connection.context.remote_ip == "192.0.2.1" else None


async def test_a_rule_router_over_several_applications() -> None:
    routers = [SockJSRouter(Echo, prefix) for prefix in ("/one", "/two")]
    apps = [application(router) for router in routers]
    own = Application([(".*", Own, {"text": "by header"})], log_function=lambda handler: None)
    rules = RuleRouter([Rule(ByHeader(), own), Rule(PathMatches("/one.*"), apps[0]), Rule(PathMatches("/.*"), apps[1])])
    async with serving_with(HTTPServer(rules)) as base, await Wire.open(base) as wire:
        assert (await poll(wire, prefix="/one")).body == b"o\n"
        assert [taken(router) for router in routers] == [1, 0]
        assert json.loads((await poll(wire, prefix="/one", headers=[("X-Side", "own")])).body)["text"] == "by header"
        assert [taken(router) for router in routers] == [0, 0]
        assert (await poll(wire, prefix="/two")).body == b"o\n"
        assert [taken(router) for router in routers] == [0, 1]
        assert (await send(wire, "x", prefix="/one")).status == 204
        assert (await poll(wire, prefix="/one")).body == b'a["x"]\n'


async def test_rules_that_look_deeper_than_a_request_are_asked_in_tornado() -> None:
    router = SockJSRouter(Echo, "/s")
    app = application(router)
    rules = RuleRouter([Rule(ByArrival(), app), Rule(PathMatches("/.*"), app)])
    async with serving_with(HTTPServer(rules)) as base, await Wire.open(base) as wire:
        assert (await poll(wire)).body == b"o\n"
        assert (await send(wire, "x")).status == 204
        assert (await poll(wire)).body == b'a["x"]\n'


async def test_a_delegate_before_the_application_sees_every_request() -> None:
    router = SockJSRouter(Echo, "/s")
    app = application(router)
    starts: list[object] = []

    class Counting(HTTPServerConnectionDelegate):
        def start_request(self, server_conn: object, request_conn: Any) -> Any:
            starts.append(server_conn)
            return app.start_request(server_conn, request_conn)

    class CountingApplication(Application):
        def start_request(self, server_conn: object, request_conn: Any) -> Any:
            starts.append(server_conn)
            return super().start_request(server_conn, request_conn)

    class CountingServer(HTTPServer):
        def start_request(self, server_conn: object, request_conn: Any) -> Any:
            starts.append(server_conn)
            return super().start_request(server_conn, request_conn)

    own = CountingApplication(router.urls, log_function=lambda handler: None)
    for server in (HTTPServer(Counting()), HTTPServer(own), CountingServer(app)):
        starts.clear()
        async with serving_with(server) as base, await Wire.open(base) as wire:
            for _ in range(3):
                await send(wire, "x")
            assert len(starts) >= 3
            assert taken(router) == 0


async def test_clients_behind_one_proxy_connection_keep_their_addresses() -> None:
    seen: list[tuple[str, str]] = []

    class Seeing(Echo):
        def on_open(self, info: Any) -> None:
            seen.append((info.ip, info.get_header("X-Side")))

    router = SockJSRouter(Seeing, "/s", {"verify_ip": True})
    ann = [("X-Real-Ip", "192.0.2.1"), ("X-Scheme", "https"), ("X-Side", "ann")]
    bob = [("X-Forwarded-For", "198.51.100.7, 192.0.2.2"), ("X-Side", "bob")]
    async with (
        serving_application(application(router), xheaders=True) as base,
        await Wire.open(base) as wire,
    ):
        assert (await poll(wire, "ann", headers=ann)).body == b"o\n"
        assert (await poll(wire, "bob", headers=bob)).body == b"o\n"
        assert taken(router) == 1
        assert (await send(wire, "x", "ann", headers=ann)).status == 204
        assert (await send(wire, "x", "ann", headers=bob)).status == 403
        assert (await send(wire, "x", "bob")).status == 403
        assert (await poll(wire, "ann", headers=ann)).body == b'a["x"]\n'
        https = [*ann, ("Origin", f"https://{wire.host}")]
        assert (await send(wire, "x", "ann", headers=https)).status == 204
        own = json.loads((await wire.request("GET", "/own", headers=ann)).body)
        assert (own["ip"], own["protocol"]) == ("192.0.2.1", "https")
        own = json.loads((await wire.request("GET", "/own")).body)
        assert (own["ip"], own["protocol"]) == ("127.0.0.1", "http")
    assert seen == [("192.0.2.1", "ann"), ("192.0.2.2", "bob")]


async def test_a_server_that_says_https_says_it_after_the_return_too() -> None:
    router = SockJSRouter(Echo, "/s")
    async with (
        serving_application(application(router), protocol="https") as base,
        await Wire.open(base) as wire,
    ):
        headers = [("Origin", f"https://{wire.host}")]
        for _ in range(2):
            assert (await send(wire, "x", headers=headers)).status == 404
            assert taken(router) == 1
            assert json.loads((await wire.request("GET", "/own")).body)["protocol"] == "https"


async def test_unix_sockets(tmp_path: Path) -> None:
    router = SockJSRouter(Echo, "/s")
    server = HTTPServer(application(router))
    server.add_socket(bind_unix_socket(str(tmp_path / "socket")))
    reader, writer = await asyncio.open_unix_connection(str(tmp_path / "socket"))
    async with Wire(reader, writer, "localhost") as wire:
        for text in ("one", "two"):
            assert (await poll(wire, text)).body == b"o\n"
            assert taken(router) == 1
            assert json.loads((await wire.request("GET", "/own")).body)["ip"] == "0.0.0.0"
    server.stop()
    await server.close_all_connections()


async def test_close_all_connections_ends_them_too() -> None:
    router = SockJSRouter(Echo, "/s")
    server = HTTPServer(application(router))
    async with serving_with(server) as base:
        idle, parked = await Wire.open(base), await Wire.open(base)
        await poll(idle, "idle")
        await poll(parked, "parked")
        await parked.send("POST", "/s/000/parked/xhr")
        await until(lambda: router.stats.dump()["connections_active"] == 1)
        assert taken(router) == 2
        server.stop()
        await server.close_all_connections()
        assert await idle.at_eof()
        assert await parked.at_eof()
        await until(lambda: taken(router) == 0)
        assert not server._connections
        idle.close()
        parked.close()


@pytest.mark.parametrize(
    ("settings", "status"),
    [({"max_body_size": 10}, 400), ({"max_header_size": 300}, None), ({}, 204)],
    ids=["max_body_size", "max_header_size", "no limit"],
)
async def test_the_servers_own_limits_hold(settings: dict[str, Any], status: int | None) -> None:
    router = SockJSRouter(Echo, "/s")
    async with (
        serving_application(application(router), **settings) as base,
        await Wire.open(base) as wire,
    ):
        await poll(wire)
        assert taken(router) == 1
        long = [("X-Long", "x" * 300)]
        body = json.dumps(["long enough"]).encode()
        await wire.send("POST", "/s/000/a/xhr_send", headers=long, body=body)
        answer = await wire.reader.readline()
        assert answer.split(b" ")[1:2] == ([b"%d" % status] if status is not None else [])


async def test_a_server_without_keep_alive_closes() -> None:
    router = SockJSRouter(Echo, "/s")
    async with (
        serving_application(application(router), no_keep_alive=True) as base,
        await Wire.open(base) as wire,
    ):
        assert (await poll(wire)).body == b"o\n"
        assert await wire.at_eof()
        assert taken(router) == 0


async def test_fast_lane_off_leaves_everything_with_tornado() -> None:
    router = SockJSRouter(Echo, "/s", {"fast_lane": False})
    async with serving_application(application(router)) as base, await Wire.open(base) as wire:
        for _ in range(2):
            await send(wire, "x")
            assert taken(router) == 0


# -- the pipe


class Owner:
    """Whoever rides on a pipe, and what it was told."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.on_data: Callable[[bytes], None] | None = None
        self.on_drained: Callable[[], None] | None = None

    @property
    def data(self) -> bytes:
        return b"".join(item for item in self.told if isinstance(item, bytes))

    def data_received(self, data: bytes) -> None:
        self.told.append(data)
        if self.on_data is not None:
            self.on_data(data)

    def pipe_drained(self) -> None:
        self.told.append("drained")
        if self.on_drained is not None:
            self.on_drained()

    def pipe_lost(self) -> None:
        self.told.append("lost")


HIGH_BYTES = 100_000


def on_asyncio() -> bool:
    return isinstance(asyncio.get_running_loop(), asyncio.SelectorEventLoop)


def new_lane() -> Lane:
    return Lane(read_bytes=1000, high_bytes=HIGH_BYTES, write_timeout_s=7)


def piped(near: socket.socket, lane: Lane | None = None, rest: bytes = b"") -> tuple[SocketPipe, Owner]:
    near.setblocking(False)
    pipe, owner = SocketPipe(lane or new_lane(), rest), Owner()
    pipe.connect(near)
    pipe.owner = owner
    return pipe, owner


@asynccontextmanager
async def standing(
    kind: int = socket.SOCK_STREAM, rest: bytes = b""
) -> AsyncIterator[tuple[Any, Owner, socket.socket]]:
    near, far = socket.socketpair(socket.AF_UNIX, kind)
    far.setblocking(False)
    pipe, owner = piped(near, rest=rest)
    try:
        yield pipe, owner, far
    finally:
        far.close()
        pipe.abort()
        await turns(3)


def everything(far: socket.socket) -> bytes:
    """What stands in the kernel for the peer; b"" too where nothing does."""
    data = b""
    while True:
        try:
            piece = far.recv(1 << 20)
        except (BlockingIOError, ConnectionResetError):
            return data
        if not piece:
            return data
        data += piece


def at_end(far: socket.socket) -> bool:
    try:
        return far.recv(1) == b""
    except ConnectionResetError:
        return True
    except BlockingIOError:
        return False


@pytest.mark.asyncio(loop_factories=["asyncio"])  # uvloop takes only streams
async def test_writes_of_one_turn_leave_together_and_in_order() -> None:
    # A socket that keeps each send apart.
    async with standing(socket.SOCK_SEQPACKET) as (pipe, _, far):
        for number in range(5):
            pipe.write(b"%d" % number)
        await turns(2)
        pipe.write(b"next")
        await turns(2)
        assert [far.recv(100), far.recv(100)] == [b"01234", b"next"]


async def test_a_read_is_no_longer_than_its_buffer_and_nothing_is_lost() -> None:
    async with standing(rest=b"read before, ") as (pipe, owner, far):
        data = os.urandom(50_000)
        pipe.start()
        far.sendall(data)
        await until(lambda: len(owner.data) == 13 + len(data))
        assert owner.data == b"read before, " + data
        assert max(map(len, owner.told)) <= 1000


async def test_pause_and_resume_also_in_the_first_turn() -> None:
    async with standing() as (pipe, owner, far):
        pipe.pause()
        pipe.start()
        far.sendall(b"x" * 5000)
        await turns()
        # One read may have been on its way (Python 3.10).
        assert len(owner.data) <= 1000
        pipe.resume()
        await until(lambda: len(owner.data) == 5000)
        pipe.resume()
        pipe.pause()
        pipe.pause()
        far.sendall(b"y")
        await turns()
        assert len(owner.data) == 5000
        pipe.resume()
        await until(lambda: len(owner.data) == 5001)


async def test_a_pipe_that_was_lost_may_be_aborted() -> None:
    """asyncio does not guard against it where the peer ended its half while something waited."""
    async with standing() as (pipe, owner, far):
        pipe.start()
        pipe.write(b"x" * 1_000_000)
        await until(lambda: pipe.backlog and not pipe._first)
        far.shutdown(socket.SHUT_WR)
        await turns()
        assert owner.told == []
        await until(lambda: not everything(far) and "lost" in owner.told)
        pipe.abort()
        await turns()
        assert owner.told.count("lost") == 1


@pytest.mark.asyncio(loop_factories=["uvloop"])  # which makes transports in a task
@pytest.mark.filterwarnings("ignore:unclosed resource <TCPTransport:ResourceWarning")  # uvloop's, which it never opened
@pytest.mark.parametrize("what", ["closed", "cancelled"])
async def test_a_transport_that_does_not_come_is_a_lost_connection(what: str) -> None:
    near, far = tcp_pair()
    before = asyncio.all_tasks()
    pipe, owner = piped(near)
    pipe.write(b"x")
    (task,) = asyncio.all_tasks() - before
    if what == "closed":
        near.close()
    else:
        task.cancel()
    await until(lambda: owner.told == ["lost"])
    pipe.write(b"x")
    pipe.pause()
    pipe.resume()
    pipe.close()
    pipe.abort()
    await turns()
    assert owner.told == ["lost"]
    assert task.done()
    far.close()


async def test_a_burst_that_the_kernel_takes_at_once_is_drained_at_once() -> None:
    async with standing() as (pipe, owner, far):
        far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        pipe._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
        pipe.write(b"x" * (HIGH_BYTES + 1))
        assert pipe.backlog > HIGH_BYTES
        await turns(2)
        assert owner.told == ["drained"]
        assert pipe.backlog == 0
        assert len(everything(far)) == HIGH_BYTES + 1


async def test_what_does_not_fit_is_drained_when_the_peer_has_taken_it() -> None:
    async with standing() as (pipe, owner, far):
        sent = b"x" * (20 * HIGH_BYTES)
        pipe.write(sent)
        await turns(2)
        assert pipe.backlog > HIGH_BYTES
        assert owner.told == []
        got = b""
        while len(got) < len(sent):
            got += everything(far)
            await turns(1)
        assert got == sent
        assert owner.told == ["drained"]
        pipe.write(b"y")
        await turns(2)
        assert pipe.backlog == 0
        assert owner.told == ["drained"]


async def test_a_backlog_that_is_only_thought_to_be_high_does_not_stick() -> None:
    """asyncio tells of no drain where its own buffer never was over the mark."""
    async with standing() as (pipe, owner, far):
        pipe._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, HIGH_BYTES // 5)
        while not pipe.backlog:  # until something is stuck
            pipe.write(b"x" * 1000)
            await turns(2)
        pipe.write(b"x" * (HIGH_BYTES - 1 - pipe.backlog))
        await turns(2)
        known = pipe.backlog
        assert 0 < known <= HIGH_BYTES
        assert owner.told == []
        while pipe._transport.get_write_buffer_size() == known:
            far.recv(1000)
            await turns(2)
        assert pipe.backlog == known
        pipe.write(b"y" * (HIGH_BYTES + 1 - known))  # over the mark by what is known here, and not in truth
        assert pipe.backlog > HIGH_BYTES
        await turns(2)
        assert owner.told == ["drained"]
        assert 0 < pipe.backlog <= HIGH_BYTES


async def test_close_sends_what_waits_and_ends_when_the_peer_does() -> None:
    async with standing() as (pipe, owner, far):
        pipe.write(b"last words")
        pipe.close()
        pipe.write(b"too late")
        pipe.close()
        await turns(3)
        assert far.recv(100) == b"last words"
        assert at_end(far)
        far.sendall(b"to nobody")
        await turns(5)
        assert owner.told == []
        far.shutdown(socket.SHUT_WR)
        await until(lambda: owner.told == ["lost"])


async def test_close_with_a_backlog_sends_all_of_it_first() -> None:
    async with standing() as (pipe, owner, far):
        sent = b"x" * (20 * HIGH_BYTES)
        pipe.pause()
        pipe.write(sent)
        pipe.close()
        got = b""
        while len(got) < len(sent):
            got += everything(far)
            await turns(1)
        await until(lambda: at_end(far))
        assert owner.told == []  # what has drained concerns nobody any more
        far.close()
        await until(lambda: owner.told == ["lost"])


async def test_the_peer_ends_first() -> None:
    async with standing() as (pipe, owner, far):
        far.sendall(b"bye")
        far.shutdown(socket.SHUT_WR)
        await until(lambda: owner.told == [b"bye", "lost"])
        pipe.write(b"x")
        pipe.pause()
        pipe.resume()
        pipe.close()
        pipe.abort()
        await turns()
        assert owner.told == [b"bye", "lost"]


def reset(wire: socket.socket) -> None:
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    wire.close()


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        far = socket.create_connection(server.getsockname())
        near, _ = server.accept()
    far.setblocking(False)
    return near, far


@pytest.mark.parametrize("step", ["idle", "written", "stuck", "closing", "paused and closing"])
async def test_a_peer_that_resets(step: str) -> None:
    near, far = tcp_pair()
    pipe, owner = piped(near)
    await turns(3)
    if step == "written":
        pipe.write(b"x")
    elif step == "stuck":
        pipe.write(b"x" * 20_000_000)
        await turns(2)
        assert pipe.backlog
    elif step == "closing":
        pipe.close()
    elif step == "paused and closing":
        pipe.pause()
    reset(far)
    if step == "paused and closing":
        pipe.write(b"x")
        pipe.close()  # which learns of it here, with an error from the kernel or not
    await until(lambda: owner.told == ["lost"])
    pipe.write(b"x")
    pipe.close()
    pipe.abort()
    await turns()
    assert owner.told == ["lost"]


@pytest.mark.parametrize("step", ["at once", "written", "stuck", "closing", "while receiving"])
async def test_abort_tells_nobody(step: str) -> None:
    async with standing() as (pipe, owner, far):
        if step == "while receiving":
            await turns(3)
            owner.on_data = lambda data: pipe.abort()
            far.sendall(b"x" * 5000)
            await turns(3)
            assert len(owner.data) == 1000
            owner.told.clear()
        else:
            if step in ("written", "closing"):
                pipe.write(b"x")
            if step == "stuck":
                pipe.write(b"x" * (20 * HIGH_BYTES))
                await turns(2)
            if step == "closing":
                pipe.close()
            pipe.abort()
        pipe.abort()
        pipe.write(b"y")
        await turns()
        everything(far)
        assert at_end(far)
        assert owner.told == []


async def test_an_owner_that_fails_ends_its_connection_and_is_heard_of(quiet: Quiet) -> None:
    quiet.expect("protocol.buffer_updated() call failed" if on_asyncio() else "Fatal error on transport UnixTransport")
    async with standing() as (_, owner, far):

        def fail(data: bytes) -> None:
            raise RuntimeError("no")

        owner.on_data = fail
        far.sendall(b"x")
        await until(lambda: owner.told == [b"x", "lost"])
        assert at_end(far)


async def test_an_owner_that_fails_keeps_nobody_else_waiting(quiet: Quiet, caplog: pytest.LogCaptureFixture) -> None:
    quiet.expect("writing to a taken-over connection failed")
    lane = new_lane()
    pairs = [socket.socketpair() for _ in range(3)]
    pipes = [piped(near, lane) for near, _ in pairs]

    def fail() -> None:
        raise RuntimeError("no")

    pipes[0][1].on_drained = fail
    for near, far in pairs:
        far.setblocking(False)
        for sock in (near, far):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
    for pipe, _ in pipes:
        pipe.write(b"x" * (HIGH_BYTES + 1))
    await turns(4)
    assert [owner.told for _, owner in pipes] == [["drained", "lost"], ["drained"], ["drained"]]
    assert [len(everything(far)) for _, far in pairs] == [HIGH_BYTES + 1] * 3
    assert [record.levelno for record in caplog.records if "taken-over" in record.message] == [logging.ERROR]
    for (pipe, _), (_, far) in zip(pipes, pairs, strict=True):
        pipe.abort()
        far.close()
    await turns(3)


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="this system has no TCP_USER_TIMEOUT")
async def test_the_kernel_gives_up_a_peer_that_takes_nothing() -> None:
    near, far = tcp_pair()
    pipe, _ = piped(near)

    def patience() -> int:
        option = socket.TCP_USER_TIMEOUT
        value: int = pipe._transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, option)
        return value

    pipe.write(b"x")
    await turns(2)
    assert patience() == 0
    pipe.write(b"x" * 20_000_000)
    await turns(2)
    assert patience() == 7000
    pipe.abort()
    far.close()
    await turns(3)
