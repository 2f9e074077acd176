"""``polysock.HTTPServer``: first requests of new connections, which do not pass through Tornado where they are ours.

That the answers are the same to the byte is in ``test_lane_answers.py``; modules that import ``either_server`` run
under this server as well.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import inspect
import json
import os
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import tornado.httpserver
from tornado import tcpserver
from tornado.httputil import HTTPMessageDelegate
from tornado.netutil import bind_unix_socket
from tornado.web import Application, RequestHandler

import polysock
from polysock import HTTPServer, SockJSRouter
from polysock_transports import entrance
from support.clients import TIMEOUT_SECONDS, Client, Quiet, Recorder, quiet, turns, until
from support.openfiles import no_more_files
from support.rawhttp import Connection as Wire
from support.rawhttp import HeaderList, request_bytes
from support.serving import serving_with

__all__ = ["quiet"]

UPGRADE = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "13")]
UPGRADE += [("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==")]


class Echo(Recorder):
    def on_message(self, message: str | bytes) -> None:
        self.send(message)


class Own(RequestHandler):
    """The application's own."""

    def get(self) -> None:
        self.write({"ip": self.request.remote_ip, "protocol": self.request.protocol})


class Counted(HTTPServer):
    """Knows how many connections were Tornado's."""

    tornados = 0

    def handle_stream(self, stream: Any, address: Any) -> None:
        self.tornados += 1
        super().handle_stream(stream, address)


class Here:
    def __init__(self, options: dict[str, Any] | None = None, routes: tuple[Any, ...] = (), **settings: Any) -> None:
        self.kind = type("App", (Echo,), {})
        self.router = SockJSRouter(self.kind, "/s", options)
        application = Application([*routes, *self.router.urls, ("/own", Own)], log_function=lambda handler: None)
        self.server = Counted(application, **settings)

    @property
    def tornados(self) -> int:
        return self.server.tornados

    @property
    def made(self) -> list[Any]:
        return self.kind.made  # type: ignore[attr-defined, no-any-return]

    def is_empty(self) -> bool:
        """Whether nothing is left of any connection."""
        return not self.server._connections and not self.server._newcomers and self.server._timer is None


@asynccontextmanager
async def served(here: Here) -> AsyncIterator[str]:
    async with serving_with(here.server) as base:
        yield base
    await turns()
    here.router.close()
    assert here.is_empty()


async def own(wire: Wire, headers: HeaderList = ()) -> dict[str, str]:
    return json.loads((await wire.request("GET", "/own", headers=headers)).body)  # type: ignore[no-any-return]


# -- what it leans on in Tornado


def test_tornado_is_inside_as_expected() -> None:
    server = Here().server
    changed = "Look at what has become of tornado.tcpserver.TCPServer, and mend entrance.py"
    assert (server._sockets, server._handlers) == ({}, {}), changed
    assert "self._handlers.pop(fd)()" in inspect.getsource(tcpserver.TCPServer.stop), changed
    assert list(inspect.signature(tcpserver.TCPServer._handle_connection).parameters)[1:] == ["connection", "address"]


def test_it_may_listen_before_the_loop_runs() -> None:
    """As programs do that end with ``IOLoop.current().start()``."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        here = Here()
        here.server.listen(0, "127.0.0.1")
        (sock,) = here.server._sockets.values()

        async def visit() -> bytes:
            async with await Wire.open(f"http://127.0.0.1:{sock.getsockname()[1]}") as wire:
                return (await wire.request("POST", "/s/000/a/xhr")).body

        assert loop.run_until_complete(visit()) == b"o\n"
        here.server.stop()
        loop.run_until_complete(here.server.close_all_connections())
        here.router.close()
        loop.run_until_complete(turns())
    finally:
        asyncio.set_event_loop(None)
        loop.close()


# -- who comes in


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("POST", "/s/000/a/xhr", []),
        ("POST", "/s/000/a/xhr_streaming", []),
        ("GET", "/s/000/a/eventsource", []),
        ("GET", "/s/000/a/jsonp?c=cb", []),
        ("GET", "/s/000/a/websocket", UPGRADE),
        ("GET", "/s/websocket", UPGRADE),
    ],
)
async def test_a_first_request_of_ours_never_meets_tornado(method: str, path: str, headers: HeaderList) -> None:
    here = Here()
    async with served(here) as base, await Wire.open(base) as wire:
        await wire.send(method, path, headers=headers)
        await wire.read_head()
        assert here.tornados == 0
        assert [made.info.ip for made in here.made] == ["127.0.0.1"]


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("GET", "/own", []),
        ("GET", "/s/info", []),
        ("GET", "/s/", []),
        ("POST", "/s/000/a/xhr", [("Connection", "close")]),
        ("POST", "/s/000/a/xhr", [("Host", "a b")]),
        ("POST", "/s/000/a/xhr", [("X-Long", "x" * 20_000)]),
    ],
)
async def test_all_else_is_tornados(method: str, path: str, headers: HeaderList) -> None:
    here = Here()
    async with served(here) as base, await Wire.open(base) as wire:
        await wire.send(method, path, headers=headers)
        await wire.read_head()
        assert here.tornados == 1


async def test_the_connection_is_shared_with_the_application_from_then_on() -> None:
    here = Here()
    async with served(here) as base, await Wire.open(base) as wire:
        assert (await wire.request("POST", "/s/000/a/xhr")).body == b"o\n"
        assert await own(wire) == {"ip": "127.0.0.1", "protocol": "http"}
        assert (await wire.request("POST", "/s/000/a/xhr_send", body=b'["x"]')).status == 204
        assert (await wire.request("POST", "/s/000/a/xhr")).body == b'a["x"]\n'


async def test_a_head_in_pieces_is_served_all_the_same() -> None:
    here = Here()
    async with served(here) as base, await Wire.open(base) as wire:
        await wire.write(b"POST /s/000/a/xhr HT")
        await turns()
        await wire.write(b"TP/1.1\r\nHost: x\r\n\r\n")
        assert (await wire.read_response()).body == b"o\n"
        assert here.tornados == 1


async def test_what_comes_behind_the_first_request_is_not_lost() -> None:
    here = Here()
    send = b'POST /s/000/a/xhr_send HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n["x"]'
    poll = b"POST /s/000/a/xhr HTTP/1.1\r\nHost: x\r\n\r\n"
    async with served(here) as base, await Wire.open(base) as wire:
        await wire.write(poll + send + b"GET /own HTTP/1.1\r\nHost: x\r\n\r\n" + poll)
        answers = [(await wire.read_response()).body for _ in range(4)]
        assert answers == [b"o\n", b"", b'{"ip": "127.0.0.1", "protocol": "http"}', b'a["x"]\n']


async def test_a_frame_behind_the_handshake_is_not_lost() -> None:
    here = Here()
    head = "".join(f"{name}: {value}\r\n" for name, value in UPGRADE)
    frame = bytes((0x81, 0x82, 0, 0, 0, 0)) + b"hi"
    async with served(here) as base, await Wire.open(base) as wire:
        await wire.write(f"GET /s/websocket HTTP/1.1\r\nHost: x\r\n{head}\r\n".encode() + frame)
        assert (await wire.read_head()).status == 101
        assert await wire._exactly(4) == b"\x81\x02hi"


async def test_the_client_is_the_one_that_a_proxy_tells_of() -> None:
    here = Here(xheaders=True)
    headers = [("X-Real-Ip", "192.0.2.7"), ("X-Scheme", "https")]
    async with served(here) as base:
        for path, more in (("/s/000/a/xhr", []), ("/s/websocket", UPGRADE)):
            async with await Wire.open(base) as wire:
                origin = ("Origin", f"https://{wire.host}")
                await wire.send("GET" if more else "POST", path, headers=[*headers, *more, origin])
                assert (await wire.read_head()).status in (200, 101)
        assert here.tornados == 0
        assert [made.info.ip for made in here.made] == ["192.0.2.7", "192.0.2.7"]


async def test_unix_sockets(tmp_path: Path) -> None:
    here = Here()
    here.server.add_socket(bind_unix_socket(str(tmp_path / "socket")))
    reader, writer = await asyncio.open_unix_connection(str(tmp_path / "socket"))
    async with Wire(reader, writer, "localhost") as wire:
        assert (await wire.request("POST", "/s/000/a/xhr")).body == b"o\n"
        assert here.tornados == 0
        assert await own(wire) == {"ip": "0.0.0.0", "protocol": "http"}
    here.server.stop()
    await here.server.close_all_connections()
    here.router.close()


# -- where Tornado sees everything


class Looking(Application):
    """An application that looks at every request."""

    def start_request(self, *args: Any) -> HTTPMessageDelegate:
        return super().start_request(*args)


async def test_an_application_that_looks_at_every_request_sees_the_first_too() -> None:
    router = SockJSRouter(Echo, "/s")
    server = Counted(Looking(router.urls, log_function=lambda handler: None))
    async with serving_with(server) as base, await Wire.open(base) as wire:
        assert (await wire.request("POST", "/s/000/a/xhr")).body == b"o\n"
        assert server.tornados == 1
        router.close()


@pytest.mark.parametrize(
    "settings", [{"no_keep_alive": True}, {"ssl_options": ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)}]
)
def test_servers_that_are_otherwise_leave_it_all_to_tornado(settings: dict[str, Any]) -> None:
    assert Here(**settings).server._looks_first is False
    assert Here().server._looks_first is True


async def test_the_slow_lane_stays_the_slow_lane() -> None:
    here = Here({"fast_lane": False})
    async with served(here) as base, await Wire.open(base) as wire:
        assert (await wire.request("POST", "/s/000/a/xhr")).body == b"o\n"
        assert here.tornados == 1


class Login(RequestHandler):
    def prepare(self) -> None:
        if self.get_argument("who", "") != "me":
            self.send_error(401)


async def test_an_applications_own_handler_is_asked() -> None:
    router = SockJSRouter(Echo, "/s", {"base_handler": Login})
    server = Counted(Application(router.urls, log_function=lambda handler: None))
    async with serving_with(server) as base:
        for path, headers, status in (
            ("/s/000/a/xhr?who=me", [], 200),
            ("/s/000/b/xhr", [], 401),
            ("/s/websocket", UPGRADE, 401),
            ("/s/websocket?who=me", UPGRADE, 101),
        ):
            async with await Wire.open(base) as wire:
                await wire.send("GET" if headers else "POST", path, headers=headers)
                assert (await wire.read_head()).status == status
        router.close()


# -- who is refused, and what fails


class Refuses(Recorder):
    def on_open(self, info: Any) -> bool:
        return False


async def test_a_refused_websocket_leaves_the_connection_as_it_is() -> None:
    router = SockJSRouter(Refuses, "/s")
    server = Counted(Application([*router.urls, ("/own", Own)], log_function=lambda handler: None))
    async with serving_with(server) as base, await Wire.open(base) as wire:
        assert (await wire.request("GET", "/s/websocket", headers=UPGRADE)).status == 403
        assert server.tornados == 0
        assert await own(wire) == {"ip": "127.0.0.1", "protocol": "http"}


async def test_a_failing_application_is_answered_500(quiet: Quiet) -> None:
    class Fails(polysock.Connection):
        def __init__(self, session: Any) -> None:
            raise RuntimeError("no connection")

    quiet.expect("a request failed")
    router = SockJSRouter(Fails, "/s")
    application = Application([*router.urls, ("/own", Own)], log_function=lambda handler: None)
    async with serving_with(HTTPServer(application)) as base:
        for method, path, headers in (("POST", "/s/000/a/xhr", []), ("GET", "/s/000/b/websocket", UPGRADE)):
            async with await Wire.open(base) as wire:
                assert (await wire.request(method, path, headers=headers)).status == 500
                assert (await wire.request("GET", "/own")).status == 200
    assert not len(router._gateway.store)


# -- who says nothing


async def test_who_says_nothing_is_tornados_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entrance, "SILENT_S", 0.001)
    here = Here()
    async with served(here) as base:
        wires = [await Wire.open(base) for _ in range(3)]
        await until(lambda: here.tornados == 3)
        assert not here.server._newcomers
        for number, wire in enumerate(wires):
            assert (await wire.request("POST", f"/s/000/{number}/xhr")).body == b"o\n"
            wire.close()


async def test_one_silent_client_that_fails_does_not_keep_the_others(
    quiet: Quiet, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fails(Counted):
        def handle_stream(self, stream: Any, address: Any) -> None:
            if not self.tornados:
                self.tornados += 1
                raise RuntimeError("not this one")
            super().handle_stream(stream, address)

    quiet.expect("a new connection failed")
    monkeypatch.setattr(entrance, "SILENT_S", 0.001)
    server = Fails(Application([("/own", Own)], log_function=lambda handler: None))
    async with serving_with(server) as base:
        wires = [await Wire.open(base) for _ in range(3)]
        await until(lambda: server.tornados == 3)
        assert not server._newcomers
        assert server._timer is None
        for wire in wires:
            wire.close()


async def test_who_leaves_without_a_word_is_forgotten() -> None:
    here = Here()
    async with served(here) as base:
        wires = [await Wire.open(base) for _ in range(3)]
        await until(lambda: len(here.server._newcomers) == 3)
        for wire in wires:
            wire.close()
        await until(here.is_empty)
        assert here.tornados == 0


async def test_a_reset_before_the_first_byte() -> None:
    here = Here()
    async with served(here) as base:
        with socket.create_connection(("127.0.0.1", int(base.rpartition(":")[2]))) as client:
            await until(lambda: here.server._newcomers)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await until(here.is_empty)


async def test_the_silent_are_closed_with_the_others() -> None:
    here = Here()
    async with served(here) as base, await Wire.open(base) as wire:
        await until(lambda: here.server._newcomers)
        here.server.stop()
        await here.server.close_all_connections()
        assert await wire.at_eof()
        assert here.is_empty()


async def test_who_comes_while_no_file_is_free_waits(
    quiet: Quiet, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet.expect("nobody is let in")
    monkeypatch.setattr(entrance, "ACCEPT_PAUSE_S", 0.01)
    here = Here()
    async with served(here) as base, Client(base, "websocket") as stays:
        await stays.open()
        with socket.socket() as late:
            late.setblocking(False)
            with no_more_files():
                assert late.connect_ex(("127.0.0.1", int(base.rpartition(":")[2]))) in (0, errno.EINPROGRESS)
                await until(lambda: "nobody is let in" in caplog.text)
                await stays.send("still here")
                assert await stays.message() == "still here"
            late.send(request_bytes("a", "POST", "/s/000/b/xhr"))
            await until(lambda: len(here.made) == 2)
            answer = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(late, 10_000), TIMEOUT_SECONDS)
            assert answer.endswith(b"\r\n\r\no\n")


async def test_a_server_that_stops_while_nobody_is_let_in(quiet: Quiet, caplog: pytest.LogCaptureFixture) -> None:
    quiet.expect("nobody is let in")
    here = Here()
    async with served(here) as base:
        with socket.socket() as late:
            late.setblocking(False)
            with no_more_files():
                late.connect_ex(("127.0.0.1", int(base.rpartition(":")[2])))
                await until(lambda: "nobody is let in" in caplog.text)
            here.server.stop()
            await turns()
            assert not here.made


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="no /proc here to count open files in")
async def test_no_socket_is_left_open() -> None:
    here = Here()
    async with served(here) as base:

        async def visit(number: int) -> None:
            async with await Wire.open(base) as wire:
                if number % 5 == 1:
                    await wire.request("POST", f"/s/000/n{number}/xhr")
                elif number % 5 == 2:
                    await wire.send("GET", "/s/websocket", headers=UPGRADE)
                    await wire.read_head()
                elif number % 5 == 3:
                    await wire.write(b"POST /s/000/")
                elif number % 5 == 4:
                    await own(wire)

        await visit(1)
        await until(here.is_empty)
        gc.collect()  # else what an earlier test has dropped may go while this one counts
        before = len(os.listdir("/proc/self/fd"))
        for number in range(5, 30):
            await visit(number)
        await until(lambda: here.is_empty() and len(os.listdir("/proc/self/fd")) == before)


# -- WebSockets that wait for something


class Asking:
    """A hub whose authorization takes its time."""

    def __init__(self) -> None:
        self.decision: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.asked = 0
        self.io = polysock.Server()
        self.io.set("authorization", self.authorize)
        self.connected: list[Any] = []
        self.io.on("connection", self.connected.append)
        routes = [*self.io.routes(), ("/own", Own)]
        self.server = Counted(Application(routes, log_function=lambda handler: None))

    async def authorize(self, handshake: Any) -> bool:
        self.asked += 1
        return await self.decision

    @property
    def sessions(self) -> int:
        return sum(len(gateway.store) for end in self.io._endpoints for gateway in end.gateways)


PATH = "/socket.io/?EIO=4&transport=websocket"


async def test_a_websocket_may_wait_for_its_authorization() -> None:
    here = Asking()
    async with serving_with(here.server) as base, await Wire.open(base) as wire:
        await wire.send("GET", PATH, headers=UPGRADE)
        await until(lambda: here.asked)
        here.decision.set_result(True)
        assert (await wire.read_head()).status == 101
        assert here.server.tornados == 0
        assert here.sessions == 1
        here.io.close()


async def test_a_websocket_may_be_refused_late() -> None:
    here = Asking()
    async with serving_with(here.server) as base, await Wire.open(base) as wire:
        await wire.send("GET", PATH, headers=UPGRADE)
        await until(lambda: here.asked)
        here.decision.set_result(False)
        assert (await wire.read_response()).status == 403
        assert await own(wire) == {"ip": "127.0.0.1", "protocol": "http"}
        assert here.sessions == 0
        here.io.close()


@pytest.mark.parametrize("early", [b"", b"x"], ids=["silent", "with bytes before the answer"])
async def test_who_leaves_while_waiting_leaves_nothing(early: bytes) -> None:
    here = Asking()
    async with serving_with(here.server) as base:
        wire = await Wire.open(base)
        await wire.send("GET", PATH, headers=UPGRADE)
        await until(lambda: here.asked)
        if early:
            await wire.write(early)
            await turns()
        wire.close()
        await turns()
        here.decision.set_result(True)
        await until(lambda: here.sessions == 0)
        assert not here.connected
        here.io.close()


async def test_an_authorization_that_fails_is_answered(quiet: Quiet) -> None:
    quiet.expect("on_open failed")
    here = Asking()
    async with serving_with(here.server) as base, await Wire.open(base) as wire:
        await wire.send("GET", PATH, headers=UPGRADE)
        await until(lambda: here.asked)
        here.decision.set_exception(RuntimeError("no"))
        assert (await wire.read_response()).status in (403, 500)
        assert here.sessions == 0
        here.io.close()


# -- every client


@pytest.mark.parametrize("transport", ["websocket", "xhr", "xhr_streaming", "eventsource", "htmlfile", "jsonp"])
async def test_clients_talk(transport: str) -> None:
    here = Here()
    async with served(here) as base, Client(base, transport) as client:
        await client.open()
        for text in ("one", "two"):
            await client.send(text)
            assert await client.message() == text


def test_it_is_tornados_own_in_all_else() -> None:
    assert issubclass(HTTPServer, tornado.httpserver.HTTPServer)
