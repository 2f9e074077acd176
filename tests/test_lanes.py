"""The two lanes side by side: connections that leave Tornado's streams, and those that stay, answer alike.

What goes over the lane of our own, what goes back to Tornado, and that nothing of a connection is lost on the way.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from polysock import Connection, Server, SockJSRouter
from polysock_transports.httplane import read_fields
from polysock_transports.takeover import can_take_over, find_server
from support import rawhttp
from support.clients import quiet, turns, until
from support.clock import FakeClock
from support.rawhttp import TEXT, WireSocket, encode_frame

__all__ = ["quiet"]

TIMEOUT_S = 5


class Own(RequestHandler):
    """The application's own page."""

    def get(self) -> None:
        self.finish(f"own {self.request.remote_ip}\n")

    def post(self) -> None:
        self.finish(b"own " + self.request.body)


class App(Connection):
    opened: list[Any]
    closed: list[Any]

    def on_open(self, info: Any) -> None:
        self.opened.append(info)

    def on_message(self, message: str | bytes) -> None:
        self.send(message)

    def on_close(self) -> None:
        self.closed.append(self.close_reason)


class Served:
    def __init__(self, *, fast_lane: bool, clock: FakeClock | None, **user: Any) -> None:
        self.app: Any = type("Recording", (App,), {"opened": [], "closed": []})
        self.router = SockJSRouter(self.app, "/s", {"fast_lane": fast_lane, **user}, clock=clock)
        self.log: list[tuple[int, str]] = []
        self.application = Application(
            [*self.router.urls, ("/own", Own)],
            log_function=lambda handler: self.log.append((handler.get_status(), handler.request.uri)),
        )
        self.base = ""
        self.http: Any = None

    @property
    def taken(self) -> int:
        """How many connections are on our lane."""
        return len(self.router._gateway.lane._connections)


@asynccontextmanager
async def served(
    *, fast_lane: bool = True, clock: FakeClock | None = None, xheaders: bool = False, **user: Any
) -> AsyncIterator[Served]:
    made = Served(fast_lane=fast_lane, clock=clock, **user)
    sockets = bind_sockets(0, "127.0.0.1")
    made.http = HTTPServer(made.application, xheaders=xheaders)
    made.http.add_sockets(sockets)
    made.base = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
    try:
        yield made
    finally:
        made.router.close()
        made.http.stop()
        await made.http.close_all_connections()
        await turns()


def post(path: str, body: bytes = b"", *fields: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: a", f"Content-Length: {len(body)}", *fields]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def get(path: str, *fields: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: a", *fields]).encode("latin-1") + b"\r\n\r\n"


POLL, SEND = post("/s/0/x/xhr"), post("/s/0/x/xhr_send", b'["a"]')


async def opened(here: Served) -> rawhttp.Connection:
    """A connection on our lane, its session open and its next poll not sent."""
    connection = await rawhttp.Connection.open(here.base)
    await connection.write(POLL)
    assert (await connection.read_response("POST")).text == "o\n"
    assert here.taken == 1
    return connection


# --- the same answers -------------------------------------------------------------------------------------------------

END = get("/own", "Connection: close")
REQUESTS: list[bytes] = [
    POLL,
    SEND,
    post("/s/0/x/xhr_send", b'["\xc3\xa9","b"]', "Content-Type: text/plain", "Cookie: a=b"),
    post("/s/0/x/xhr_send", b"not json"),
    post("/s/0/nobody/xhr_send", b'["a"]'),
    post("/s/0/x/jsonp_send", b"d=%5B%22a%22%5D", "Content-Type: application/x-www-form-urlencoded"),
    get("/s/0/y/jsonp?c=call"),
    get("/s/0/z/jsonp?c=%3Cscript%3E"),
    get("/own"),
    post("/own", b"body"),
    get("/s/", "Origin: http://a"),
    get("/s/iframe.html"),
    get("/s/0/x/xhr"),
    get("/s/0/x/nothing"),
    get("/s/0/x/websocket"),
    b"OPTIONS /s/0/x/xhr HTTP/1.1\r\nHost: a\r\n\r\n",
    b"HEAD /own HTTP/1.1\r\nHost: a\r\n\r\n",
    b'POST /s/0/x/xhr_send HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n["a"]\r\n0\r\n\r\n',
    post("/s/0/x/xhr_send", b'["a"]', "X-Odd:  spaces \t"),
    post("/s/0/x/xhr", b"", "Origin: http://foreign.example"),
    post("/s/0/x/xhr", b"", "Host: b"),
    b'POST /s/0/x/xhr_send HTTP/1.1\r\nHost: b\r\nContent-Length: 5\r\n\r\n["a"]',
    b"POST http://a/s/0/x/xhr HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
    post("/s/0/x/xhr_send", b"[" + b'"aaaaaaaaaa",' * 9 + b'"a"]'),
]
#: What ends the conversation, whoever answers it.
LAST: list[bytes] = [
    END,
    b"GET /own HTTP/1.0\r\n\r\n",
    b'POST /s/0/x/xhr_send HTTP/1.0\r\nContent-Length: 5\r\n\r\n["a"]',
    post("/s/0/x/xhr_send", b'["a"]', "Connection: close"),
    b'POST /s/0/x/xhr_send HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n["a"]' + END,
    b"POST /s/0/x/xhr_send HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    + END,
    b'POST /s/0/x/xhr_send HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n["a"]' + END,
    b'POST /s/0/x/xhr_send HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\nContent-Length: 5\r\nConnection: close\r\n\r\n["a"]',
    b'POST /s/0/x/xhr_send HTTP/1.1\nHost: a\nContent-Length: 5\nConnection: close\n\n["a"]',
    b'POST /s/0/x/xhr_send HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\n["a"]' + END,
    b'POST /s/0/x/xhr_send HTTP/1.1\r\nContent-Length: 5\r\n\r\n["a"]' + END,
    b"\x00\x01\x02\r\n\r\n" + END,
    b"GET /own HTTP/9.9\r\nHost: a\r\n\r\n" + END,
    post("/s/0/x/xhr_send", b"x" * 3_000_000),
]
_VARIES = re.compile(rb"(?i)^(?:Date|Expires|Etag): .*\r\n", re.MULTILINE)


async def conversation(here: Served, data: bytes, splits: Sequence[int]) -> bytes:
    """All that comes back for *data*, written in pieces that end at *splits*."""
    connection = await rawhttp.Connection.open(here.base)
    try:
        ends = sorted({*(split % (len(data) + 1) for split in splits), len(data)})
        at = 0
        with contextlib.suppress(OSError):
            for end in ends:
                await connection.write(data[at:end])
                at = end
                await turns(3)
        pieces = []
        while True:
            try:
                piece = await asyncio.wait_for(connection.reader.read(1 << 16), TIMEOUT_S)
            except ConnectionError:
                break
            if not piece:
                break
            pieces.append(piece)
        return _VARIES.sub(b"", b"".join(pieces))
    finally:
        connection.abort()


@settings(max_examples=25, deadline=None)
@given(
    middle=st.lists(st.sampled_from(REQUESTS), max_size=5),
    last=st.sampled_from(LAST),
    splits=st.lists(st.integers(0, 4000), max_size=4),
)
@example(middle=[SEND, get("/own"), POLL, SEND, post("/own", b"x")], last=END, splits=[])
@example(middle=REQUESTS, last=END, splits=[10, 300, 700, 1500])
def test_both_lanes_give_the_same_answers(middle: list[bytes], last: bytes, splits: list[int]) -> None:
    requests = [POLL]
    for number, request in enumerate(middle):
        if request.startswith(b"POST /s/0/x/xhr HTTP"):
            requests.append(SEND)  # a poll that nothing is ready for would wait
        requests.append(request.replace(b"/y/", b"/y%d/" % number))
    data = b"".join(requests) + last

    async def play() -> None:
        answers = []
        for fast_lane in (True, False):
            async with served(fast_lane=fast_lane, max_payload_bytes=100_000) as here:
                answers.append(await conversation(here, data, splits))
        if last != END:
            # Tornado resets a connection with bytes left unread: how much of its last answer is seen is chance.
            answers = [answer[: min(map(len, answers))] for answer in answers]
        assert answers[0] == answers[1]

    asyncio.run(play())


@pytest.mark.parametrize(
    "block",
    [
        b"Host: a\r\nTransfer-Encoding: chunked\r\n",
        b"Host: a\r\nContent-Encoding: gzip\r\n",
        b"Host: a\r\nExpect: 100-continue\r\n",
        b"Host: a\r\nUpgrade: websocket\r\n",
        b"Host: a\r\nConnection: close\r\n",
        b"Host: a\r\nHost: a\r\n",
        b"Host: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n",
        b"Host: a\r\nContent-Length: 1, 1\r\n",
        b"Host: a\r\nContent-Length: -1\r\n",
        b"Host: a\r\nContent-Length: 0x1\r\n",
        b"Host: a\r\nContent-Length: \r\n",
        b"Host: a\r\nX: a\r\n b\r\n",
        b"Host: a\r\nX : a\r\n",
        b"Host: a\r\nX: a\nY: b\r\n",
        b"Host: a\r\nX: a\rY: b\r\n",
        b"Host: a\r\nX: a\x00\r\n",
        b"Host: a\r\n: a\r\n",
        b"X: a\r\n",
        b"",
    ],
)
def test_what_is_odd_is_tornados(block: bytes) -> None:
    assert read_fields(block) is None


@given(block=st.binary(max_size=200))
def test_any_bytes_are_fields_or_tornados(block: bytes) -> None:
    read_fields(b"Host: a\r\n" + block)


# --- over and back ----------------------------------------------------------------------------------------------------


async def test_a_connection_goes_to_and_fro() -> None:
    async with served() as here:
        connection = await opened(here)
        for number in range(3):
            await connection.write(get("/own"))
            assert (await connection.read_response()).text == "own 127.0.0.1\n"
            assert here.taken == 0
            await connection.write(SEND)
            assert (await connection.read_response("POST")).status == 204
            assert here.taken == 1, number
            await connection.write(POLL)
            assert (await connection.read_response("POST")).text == 'a["a"]\n'
        connection.abort()
    assert [status for status, _ in here.log] == [200] + [200, 204, 200] * 3


async def test_a_websocket_may_follow_polls_on_one_connection() -> None:
    async with served() as here:
        connection = await opened(here)
        key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
        fields = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", key)
        await connection.write(get("/s/0/w/websocket", *fields) + encode_frame(TEXT, b'["early"]'))
        assert (await connection.read_head()).status == 101
        assert (await connection._exactly(3))[2:] == b"o"
        assert (await connection._exactly(12))[2:] == b'a["early"]'
        connection.abort()
        await until(lambda: len(here.app.closed) == 1)


async def test_requests_sent_ahead_wait_for_their_turn() -> None:
    async with served() as here:
        connection = await opened(here)
        other = await rawhttp.Connection.open(here.base)
        await connection.write(POLL + get("/own") + SEND + POLL + get("/own"))
        await until(lambda: next(iter(here.router._gateway.store)).attached)
        await other.write(SEND)
        assert (await other.read_response("POST")).status == 204
        texts = [(await connection.read_response()).text for _ in range(5)]
        assert texts == ['a["a"]\n', "own 127.0.0.1\n", "", 'a["a"]\n', "own 127.0.0.1\n"]
        connection.abort()
        other.abort()


async def test_who_sends_too_much_ahead_is_not_read() -> None:
    async with served() as here:
        connection = await opened(here)
        await connection.write(POLL)
        await until(lambda: next(iter(here.router._gateway.store)).attached)
        (taken,) = here.router._gateway.lane._connections
        flood = asyncio.ensure_future(connection.write(b"x" * 30_000_000))
        await until(lambda: taken._is_paused)
        assert len(taken._buffer) < 300_000
        connection.abort()
        with contextlib.suppress(Exception):
            await flood


@pytest.mark.parametrize("fast_lane", [True, False])
@pytest.mark.parametrize("reset", [True, False])
@pytest.mark.parametrize("ahead", [b"", b"POST /s/0/x/xh", POLL, post("/s/0/x/xhr_send", b'["a"]')[:-3]])
async def test_a_client_that_goes_is_missed_at_once(fast_lane: bool, reset: bool, ahead: bytes) -> None:
    async with served(fast_lane=fast_lane) as here:
        connection = await rawhttp.Connection.open(here.base)
        await connection.write(POLL)
        assert (await connection.read_response("POST")).text == "o\n"
        (session,) = here.router._gateway.store
        if ahead:
            await connection.write(ahead)
            await turns()
        if ahead == POLL:
            await until(lambda: session.attached)
        if reset:
            sock = connection.writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.abort()
        if ahead == POLL:
            await until(lambda: len(here.app.closed) == 1)
        await until(lambda: here.taken == 0)


@pytest.mark.parametrize("fast_lane", [True, False])
async def test_a_browser_that_quits_is_missed_at_once(fast_lane: bool) -> None:
    """It sends its close frame, and resets the connection when ours comes."""
    async with served(fast_lane=fast_lane) as here:
        for _ in range(5):
            client = await WireSocket.connect(here.base, "/s/0/w/websocket")
            assert await client.recv_text() == "o"
            sock = client.connection.writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await client.send_close(1001)
            client.abort()
        await until(lambda: len(here.app.closed) == 5)


async def test_a_body_that_never_comes_is_not_waited_for() -> None:
    clock = FakeClock()
    async with served(clock=clock, body_timeout_s=7) as here:
        connection = await opened(here)
        await connection.write(SEND[:-2])
        await until(lambda: here.router._gateway.lane._waiting_for_body)
        clock.advance(6.9)
        await turns()
        assert here.taken == 1
        clock.advance(0.2)
        await until(lambda: here.taken == 0)
        connection.abort()


async def test_a_body_may_come_in_any_number_of_pieces() -> None:
    async with served() as here:
        connection = await opened(here)
        data = post("/s/0/x/xhr_send", b'["' + b"y" * 3000 + b'"]') + POLL
        for at in range(0, len(data), 7):
            await connection.write(data[at : at + 7])
            await turns(2)
        assert (await connection.read_response("POST")).status == 204
        assert (await connection.read_response("POST")).text == 'a["' + "y" * 3000 + '"]\n'
        connection.abort()


async def test_a_handler_that_is_slow_holds_back_its_client_and_nothing_else() -> None:
    async with served(max_inbox_messages=1) as here:
        may = asyncio.Event()

        async def on_message(self: Connection, message: Any) -> None:
            await may.wait()
            self.send(message)

        here.app.on_message = on_message
        connection = await opened(here)
        await connection.write(SEND * 3 + POLL + get("/own"))
        other = await rawhttp.Connection.open(here.base)
        await other.write(get("/own"))
        assert (await other.read_response()).status == 200
        may.set()
        assert [(await connection.read_response("POST")).status for _ in range(3)] == [204] * 3
        assert (await connection.read_response("POST")).text.startswith('a["a"')
        assert (await connection.read_response()).text == "own 127.0.0.1\n"
        connection.abort()
        other.abort()


async def test_clients_behind_one_proxy_connection_keep_their_addresses() -> None:
    async with served(xheaders=True) as here:
        connection = await rawhttp.Connection.open(here.base)
        for number in range(1, 4):
            address = f"X-Real-Ip: 10.0.0.{number}"
            await connection.write(post(f"/s/0/p{number}/xhr", b"", address))
            assert (await connection.read_response("POST")).text == "o\n"
        assert here.taken == 1
        assert [info.ip for info in here.app.opened] == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
        await connection.write(get("/own", "X-Real-Ip: 10.0.0.9"))
        assert (await connection.read_response()).text == "own 10.0.0.9\n"
        connection.abort()


async def test_a_server_that_closes_its_connections_closes_ours() -> None:
    async with served() as here:
        idle = await opened(here)
        here.http.stop()
        await here.http.close_all_connections()
        assert await idle.at_eof()
        assert here.taken == 0
        idle.abort()


async def test_streams_ride_on_it_too() -> None:
    async with served(response_limit=200) as here:
        connection = await opened(here)
        await connection.write(post("/s/0/st/xhr_streaming"))
        head = await connection.read_head("POST")
        assert head.headers["Transfer-Encoding"] == "chunked"
        assert len(await connection.read_chunk()) == 2049
        assert await connection.read_chunk() == b"o\n"
        other = await rawhttp.Connection.open(here.base)
        for _ in range(20):
            await other.write(post("/s/0/st/xhr_send", b'["0123456789"]'))
            assert (await other.read_response("POST")).status == 204
        read = b""
        while piece := await connection.read_chunk():
            read += piece
        assert 200 <= len(read) < 260
        # The response was over its limit; the next one continues on the same connection.
        await connection.write(post("/s/0/st/xhr_streaming"))
        await connection.read_head("POST")
        assert here.taken == 2
        connection.abort()
        other.abort()


async def test_binary_and_long_frames_in_any_pieces() -> None:
    io = Server()
    io.on("connection", lambda made: made.on("echo", lambda *args: made.emit("back", *args)))
    application = Application(io.routes(), log_function=lambda handler: None)
    sockets = bind_sockets(0, "127.0.0.1")
    server = HTTPServer(application)
    server.add_sockets(sockets)
    base = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
    client = await WireSocket.connect(base, "/polysock/websocket")
    await client.send_text("0")
    assert (await client.recv_text()).startswith("0")
    text = "x" * 200_000
    data = encode_frame(TEXT, f'2["echo","{text}"]'.encode()) + encode_frame(TEXT, b'2["echo",1]')
    for at in range(0, len(data), 50_001):
        await client.connection.write(data[at : at + 50_001])
        await turns(2)
    assert await client.recv_text() == f'2["back","{text}"]'
    assert await client.recv_text() == '2["back",1]'
    client.abort()
    await until(lambda: not io.sockets.clients())
    io.close()
    server.stop()


# --- what is used of Tornado's insides --------------------------------------------------------------------------------


async def test_tornado_is_as_takeover_needs_it() -> None:
    """Where this fails with a new Tornado, look at takeover.py: until it is mended, connections stay in streams."""
    seen: dict[str, Any] = {}

    class Look(RequestHandler):
        def get(self) -> None:
            stream = self.request.connection.stream  # type: ignore[union-attr]
            seen["server"] = find_server(self.request.server_connection)  # type: ignore[attr-defined]
            seen["stream"] = can_take_over(stream)
            seen["names"] = [
                hasattr(stream, name) for name in ("_read_buffer", "_read_buffer_size", "_state", "_closed", "socket")
            ]
            seen["context"] = [
                hasattr(self.request.connection.context, name)  # type: ignore[union-attr]
                for name in ("remote_ip", "protocol", "_apply_xheaders", "_unapply_xheaders")
            ]
            self.finish("")

    sockets = bind_sockets(0, "127.0.0.1")
    server = HTTPServer(Application([("/", Look)], log_function=lambda handler: None))
    server.add_sockets(sockets)
    await rawhttp.request(f"http://127.0.0.1:{sockets[0].getsockname()[1]}", "GET", "/")
    server.stop()
    assert seen == {"server": server, "stream": True, "names": [True] * 5, "context": [True] * 4}
    assert isinstance(server._connections, set)
    assert callable(server.handle_stream)


async def test_streams_that_are_more_than_a_socket_stay() -> None:
    class Other(IOStream):
        pass

    ours, theirs = socket.socketpair()
    stream = Other(ours)
    assert not can_take_over(stream)
    stream.close()
    theirs.close()
    assert not can_take_over(stream)
    assert find_server(object()) is None
