"""Socket.IO 0.9 on the wire: requests and answers byte by byte, as client 0.9.17 and server 0.9.19 exchange them.

Captured exchanges are marked so; times are the fake clock's.  What the packets of the application mean is elsewhere.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tornado.web import RequestHandler

from polysock import ConnectionRefused, Server, Socket
from support.clients import Quiet, quiet, turns, until
from support.clock import FakeClock
from support.hub import assert_no_ghosts
from support.rawhttp import CLOSE, TEXT, Connection, HandshakeRefused, Response, SocketClosed, WireSocket, request
from support.serving import serving

__all__ = ["quiet"]

EDGES_OF_LIMITS = ("legacy_handshake_timeout_s", "legacy_poll_s", "max_payload_packets")

ALL = ["websocket", "flashsocket", "htmlfile", "xhr-multipart", "xhr-polling", "jsonp-polling"]
TIMES = {"heartbeat_delay": 3, "heartbeat_timeout_s": 2, "disconnect_delay": 4, "legacy_poll_s": 1}
PAGE = b"<html><body><script>var _ = function (msg) { parent.s._(msg, document); };</script>" + b" " * 173
MARK = "\ufffd"


class Mount:
    """A Server with everything that 0.9 clients find there, served."""

    def __init__(self, base: str, io: Server, clock: FakeClock) -> None:
        self.base, self.io, self.clock = base, io, clock
        self.left: list[str] = []
        self._connections: list[Connection] = []
        io.on("connection", self._welcome)
        io.of("/chat").on("connection", lambda socket: socket.on("message", lambda text: socket.send(f"echo {text}")))
        io.of("/denied").use(lambda socket: False)

    def _welcome(self, socket: Socket) -> None:
        def event(*args: Any) -> tuple[Any, ...]:
            socket.emit("ev-back", *args, {"n": 1})
            return ("acked", *args)

        socket.on("message", lambda data: socket.send(f"echo {data}" if isinstance(data, str) else {"re": data}))
        socket.on("ev", event)
        socket.on("disconnect", self.left.append)

    @property
    def member(self) -> Socket:
        """The one client in ``/``."""
        (member,) = self.io.sockets.clients()
        return member

    async def shake(self) -> str:
        """The id of a new session."""
        answer = await request(self.base, "GET", "/socket.io/1/?t=1")
        assert answer.status == 200
        return answer.text.partition(":")[0]

    async def get(self, path: str, **named: Any) -> Response:
        return await request(self.base, "GET", f"/socket.io/{path}", **named)

    async def post(self, path: str, body: str, **named: Any) -> Response:
        return await request(self.base, "POST", f"/socket.io/{path}", body=body.encode(), **named)

    async def poll(self, sid: str) -> Connection:
        """A poll that the session has and has not answered."""
        session = self.session(sid)
        connection = await self.begin(f"1/xhr-polling/{sid}?t=1")
        await until(lambda: session.attached)
        return connection

    async def begin(self, path: str) -> Connection:
        """A GET whose answer is read later."""
        connection = await Connection.open(self.base)
        self._connections.append(connection)
        await connection.send("GET", f"/socket.io/{path}")
        return connection

    async def socket(self, sid: str, transport: str = "websocket") -> WireSocket:
        origin = [("Origin", self.base.removeprefix("http://"))]  # as the client under Node sends it
        socket = await WireSocket.connect(self.base, f"/socket.io/1/{transport}/{sid}", origin)
        self._connections.append(socket.connection)
        return socket

    def hang_up(self) -> None:
        """End all that the test has opened."""
        while self._connections:
            self._connections.pop().abort()

    def session(self, sid: str) -> Any:
        return self.store.get(sid)

    @property
    def store(self) -> Any:
        (endpoint,) = self.io._endpoints
        return endpoint.gateways[1].store


@asynccontextmanager
async def mounted(**options: Any) -> AsyncIterator[Mount]:
    clock = FakeClock()
    io = Server(clock=clock, **{**TIMES, "sweep_interval_s": 0.001, **options})
    async with serving(io.routes(sockjs=None, plain=None)) as base:
        mount = Mount(base, io, clock)
        try:
            yield mount
        finally:
            mount.hang_up()
            io.close()
            await turns()
            clock.advance(60)
    assert_no_ghosts(io)


async def text_of(connection: Connection) -> str:
    answer = await connection.read_response()
    assert answer.status == 200
    return answer.text


# --- the handshake ----------------------------------------------------------------------------------------------------


async def test_captured_handshake() -> None:
    async with mounted(origins=["http://a.b"]) as mount:
        answer = await mount.get("1/?t=1795401152217", headers=[("Origin", "http://a.b")])
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "text/plain"
        assert answer.headers["Access-Control-Allow-Origin"] == "http://a.b"
        assert answer.headers["Access-Control-Allow-Credentials"] == "true"
        assert "Set-Cookie" not in answer.headers
        assert re.fullmatch(r"[A-Za-z0-9_-]{20}:5:5:websocket,htmlfile,xhr-polling,jsonp-polling", answer.text)
        for again in (await mount.get("1"), await mount.post("1/", "")):
            assert again.text[20:] == answer.text[20:]
            assert again.text[:20] != answer.text[:20]
        script = await mount.get("1/?t=1&jsonp=0")
        assert script.headers["Content-Type"] == "application/javascript"
        assert script.headers["X-XSS-Protection"] == "0"
        assert re.fullmatch(
            r'io\.j\[0\]\("[A-Za-z0-9_-]{20}:5:5:websocket,htmlfile,xhr-polling,jsonp-polling"\);', script.text
        )


async def test_a_handshake_is_forgotten_that_no_transport_follows() -> None:
    async with mounted(legacy_handshake_timeout_s=7) as mount:
        first, second = await mount.shake(), await mount.shake()
        mount.clock.advance(6.99)
        assert (await mount.get(f"1/xhr-polling/{first}")).text == "1::"
        mount.clock.advance(0.02)
        assert (await mount.get(f"1/xhr-polling/{second}")).text == "7:::1+0"
        assert mount.session(second) is None
        assert [member.id for member in mount.io.sockets.clients()] == [first]
        assert mount.left == []


async def test_captured_refusals(quiet: Quiet) -> None:
    async def break_later(handshake: Any) -> bool:
        await asyncio.sleep(0)
        raise RuntimeError

    async def refuse_later(handshake: Any) -> bool:
        await asyncio.sleep(0)
        return False

    def refuse_with_words(handshake: Any) -> bool:
        raise ConnectionRefused("not today")

    def fail(handshake: Any) -> bool:
        raise RuntimeError

    async with mounted() as mount:
        unauthorized, broken = (403, "handshake unauthorized"), (500, "handshake error")
        for authorize, expected in (
            (lambda handshake: False, unauthorized),
            (refuse_with_words, unauthorized),
            (refuse_later, unauthorized),
            (fail, broken),
            (break_later, broken),
        ):
            if expected is broken:
                quiet.expect("on_open failed")
            mount.io.set("authorization", authorize)
            answer = await mount.get("1/", headers=[("Origin", mount.base)])
            assert (answer.status, answer.text) == expected
            assert answer.headers["Access-Control-Allow-Origin"] == mount.base
            script = await mount.get("1/?jsonp=2")
            assert (script.status, script.text) == (200, f'io.j[2](new Error("{expected[1]}"));')
            assert script.headers["Content-Type"] == "application/javascript"
        mount.io.set("authorization", lambda handshake: asyncio.sleep(0, result=True))
        assert (await mount.get(f"1/xhr-polling/{await mount.shake()}")).text == "1::"
        other = [("Origin", "http://evil.example")]
        answer = await mount.get("1/", headers=other)
        assert (answer.status, answer.text) == (403, "handshake bad origin")
        script = await mount.get("1/?jsonp=2", headers=[("Referer", "http://evil.example/")])
        assert script.text == 'io.j[2](new Error("handshake bad origin"));'
        for path in ("1/xhr-polling/x", "1//x/?disconnect=1"):
            assert (await mount.get(path, headers=other)).status == 403
        assert (await mount.post("1/xhr-polling/x", "3:::x", headers=other)).status == 403


async def test_who_hangs_up_while_authorization_waits_is_gone_at_once() -> None:
    release = asyncio.Event()
    async with mounted() as mount:
        mount.io.set("authorization", lambda handshake: release.wait())
        connection = await mount.begin("1/")
        await until(lambda: len(mount.store) == 1)
        connection.abort()
        await turns()
        release.set()
        await until(lambda: len(mount.store) == 0)


async def test_too_many_sessions() -> None:
    async with mounted(max_sessions=1) as mount:
        await mount.shake()
        answer = await mount.get("1/")
        assert (answer.status, answer.text) == (503, "Too many sessions on this server.")
        with pytest.raises(HandshakeRefused) as raised:
            await mount.socket("nobody")
        assert raised.value.response.status == 503


async def test_the_application_is_asked_at_the_handshake_alone() -> None:
    class Base(RequestHandler):
        asked = 0

        def prepare(self) -> None:
            Base.asked += 1
            if self.get_argument("user", "") != "alice":
                self.set_status(401)
                self.finish("who?")

        def get_current_user(self) -> str:
            return "alice"

    async with mounted(base_handler=Base) as mount:
        assert (await mount.get("1/")).status == 401
        sid = (await mount.get("1/?user=alice")).text[:20]
        assert (await mount.get(f"1/xhr-polling/{sid}")).text == "1::"
        assert mount.member.handshake.info.current_user == "alice"
        async with await mount.socket(sid) as socket:
            assert await socket.recv_text() == "1::"
        assert Base.asked == 2


async def test_requests_that_nobody_sends() -> None:
    async with mounted() as mount:
        answer = await mount.get("2/", headers=[("Origin", mount.base)])
        assert (answer.status, answer.text) == (500, "Protocol version not supported.")
        assert answer.headers["Access-Control-Allow-Origin"] == mount.base
        for path in (
            "1/pigeon/x",
            "1//x",
            "1/xhr-polling",
            "1/flashsocket/x",
            "1/xhr-multipart/x",
            "v0.9/socket.io.js",
        ):
            assert (await mount.get(path)).status == 404
        for path in ("1/", "1/xhr-polling/x"):
            answer = await request(mount.base, "OPTIONS", f"/socket.io/{path}", headers=[("Origin", mount.base)])
            assert (answer.status, answer.body) == (204, b"")
            assert answer.headers["Access-Control-Allow-Methods"] == "GET, POST, OPTIONS"
            answer = await request(mount.base, "PUT", f"/socket.io/{path}")
            assert (answer.status, answer.headers["Allow"]) == (405, "GET, POST, OPTIONS")
        # A WebSocket's address asked for in another way.
        assert (await mount.get("1/websocket/x")).status in (400, 426)
        assert (await mount.post("1/websocket/x", "")).status == 405
        assert (await mount.get("")).text == "Welcome to socket.io."


async def test_transports_that_are_switched_off_are_neither_offered_nor_there() -> None:
    async with mounted(disabled_transports=["websocket", "jsonp"], legacy_transports=ALL) as mount:
        answer = await mount.get("1/")
        assert answer.text[20:] == ":5:5:flashsocket,htmlfile,xhr-multipart,xhr-polling"
        for path in ("1/websocket/x", "1/jsonp-polling/x"):
            assert (await mount.get(path)).status == (await mount.post(path, "3:::x")).status == 404
    io = Server()
    io.set("transports", ["jsonp-polling", "xhr-multipart", "websocket"]).set("polling duration", 7)
    assert io.settings.legacy_transports == ("jsonp-polling", "xhr-multipart", "websocket")
    assert set(io.settings.disabled_transports) == {"xhr_streaming", "eventsource", "htmlfile", "xhr"}
    assert set(io.get("transports")) == {"jsonp-polling", "xhr-multipart", "websocket"}
    assert io.get("polling duration") == io.limits.legacy_poll_s == 7


# --- the transports ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", ["websocket", "flashsocket"])
async def test_captured_websocket(transport: str) -> None:
    async with mounted(legacy_transports=ALL) as mount:
        async with await mount.socket(await mount.shake(), transport) as socket:
            for sent, *answers in (
                ("", "1::"),
                ("3:::hello", "3:::echo hello"),
                ("3:1::h\u00e9\u20ac\U0001f600:x", "6:::1", "3:::echo h\u00e9\u20ac\U0001f600:x"),
                ('4:::{"json":1,"a":[1,2]}', '4:::{"re":{"json":1,"a":[1,2]}}'),
                ('5:::{"name":"ev","args":["data1"]}', '5:::{"name":"ev-back","args":["data1",{"n":1}]}'),
                (
                    '5:2+::{"name":"ev","args":["data2"]}',
                    '5:::{"name":"ev-back","args":["data2",{"n":1}]}',
                    '6:::2+["acked","data2"]',
                ),
                ("1::/chat", "1::/chat"),
                ("3::/chat:in chat", "3::/chat:echo in chat"),
                ("1::/denied", "7::/denied:2"),
                ("1::/nope?foo=bar", "7::/nope?foo=bar:2"),
                # Old programs join packets here too.
                (f"{MARK}5{MARK}3:::a{MARK}6{MARK}3:::\u20ac!", "3:::echo a", "3:::echo \u20ac!"),
            ):
                if sent:
                    await socket.send_text(sent)
                assert [await socket.recv_text() for _ in answers] == answers
            assert mount.member.transport == transport
            asked = asyncio.ensure_future(mount.member.call("question", "q"))
            assert await socket.recv_text() == '5:1+::{"name":"question","args":["q"]}'
            await socket.send_text('6:::1+["R","q",2]')
            assert await asked == ["R", "q", 2]
            await socket.send_text("0::/chat")
            await socket.send_text("0::")
            # Nothing but the close frame.
            with pytest.raises(SocketClosed) as raised:
                await socket.recv_text()
            assert raised.value.code == 1000
        assert mount.left == ["client namespace disconnect"]
        await until(lambda: len(mount.store) == 0)


async def test_captured_xhr_polling() -> None:
    async with mounted() as mount:
        sid = await mount.shake()
        path = f"1/xhr-polling/{sid}?t=1795400867461"
        answer = await mount.get(path)
        assert (answer.status, answer.body) == (200, b"1::")
        assert answer.headers["Content-Type"] == "text/plain; charset=UTF-8"
        assert answer.headers["Content-Length"] == "3"
        waiting = await mount.poll(sid)
        assert mount.member.transport == "xhr-polling"
        answer = await mount.post(path, "3:::hello", headers=[("Content-Type", "text/plain;charset=UTF-8")])
        assert (answer.status, answer.body) == (200, b"1")
        assert answer.headers["Content-Type"] == "text/plain; charset=UTF-8"
        assert await text_of(waiting) == "3:::echo hello"
        body = f"{MARK}5{MARK}3:::a{MARK}6{MARK}3:::\u20ac!"
        answer = await mount.post(path, body, headers=[("Origin", mount.base)])
        assert (answer.body, answer.headers["X-XSS-Protection"]) == (b"1", "0")
        assert answer.headers["Access-Control-Allow-Origin"] == mount.base
        answer = await mount.get(path)
        assert answer.text == f"{MARK}10{MARK}3:::echo a{MARK}11{MARK}3:::echo \u20ac!"
        assert len(answer.body) == 39
        mount.member.send("one")
        mount.member.send("h\u00e9\u20ac\U0001f600")
        mount.member.emit("three", 3)
        answer = await mount.get(path)
        three = '5:::{"name":"three","args":[3]}'
        assert answer.text == f"{MARK}7{MARK}3:::one{MARK}9{MARK}3:::h\u00e9\u20ac\U0001f600{MARK}31{MARK}{three}"
        assert len(answer.body) == 74
        # XDomainRequest sends no content type, and some clients a field's name.
        assert (await mount.post(path, "data=3:::x")).body == b"1"
        assert (await mount.get(path)).text == "3:::echo x"


async def test_captured_jsonp_polling() -> None:
    async with mounted() as mount:
        path = f"1/jsonp-polling/{await mount.shake()}"
        answer = await mount.get(f"{path}?t=1795401152378&i=0")
        assert (answer.status, answer.body) == (200, b'io.j[0]("1::");')
        assert answer.headers["Content-Type"] == "text/javascript; charset=UTF-8"
        assert answer.headers["X-XSS-Protection"] == "0"
        form = [("Content-Type", "application/x-www-form-urlencoded")]
        for body, expected in (
            ("d=%223%3A%3A%3Ahello%22", "3:::echo hello"),
            (
                "d=%223%3A%3A%3Ah%C3%A9%E2%82%AC%F0%9F%98%80+%5C%22q%5C%22+%5C%5Cn+%5Cn%2B%25%26%3Dend%22",
                '3:::echo h\u00e9\u20ac\U0001f600 "q" \\n \n+%&=end',
            ),
            ("d=3%3A%3A%3Abare", "3:::echo bare"),
            ("d=" + quote(json.dumps("3:::</script>\u2028")), "3:::echo </script>\u2028"),
        ):
            answer = await mount.post(f"{path}?t=1&i=0", body, headers=form)
            assert (answer.status, answer.body) == (200, b"1")
            answer = await mount.get(f"{path}?i=12")
            assert answer.body.isascii()
            assert b"</" not in answer.body
            found = re.fullmatch(r"io\.j\[12\]\((.*)\);", answer.text)
            assert found is not None
            assert json.loads(found[1]) == expected
        assert (await mount.post(f"{path}?i=0", "e=1", headers=form)).status == 400


async def test_captured_htmlfile() -> None:
    async with mounted(response_limit_bytes=200) as mount:
        sid = await mount.shake()
        async with await Connection.open(mount.base) as page:
            head = await page.start("GET", f"/socket.io/1/htmlfile/{sid}")
            assert head.headers["Content-Type"] == "text/html; charset=UTF-8"
            assert "X-Frame-Options" not in head.headers
            assert await page.read_chunk() == PAGE
            assert await page.read_chunk() == b'<script>_("1::");</script>'
            assert (await mount.post(f"1/htmlfile/{sid}", '5:::{"name":"ev","args":["a/b"]}')).body == b"1"
            event = b'<script>_("5:::{\\"name\\":\\"ev-back\\",\\"args\\":[\\"a\\/b\\",{\\"n\\":1}]}");</script>'
            assert await page.read_chunk() == event
            mount.clock.advance(3.01)
            assert await page.read_chunk() == b'<script>_("2::");</script>'
            # The page's client never comes back: so the response goes on whatever its length.
            mount.member.send("x" * 1000)
            assert b"x" * 1000 in await page.read_chunk()
            mount.member.send("still here")
            assert b"still here" in await page.read_chunk()
            mount.io.close()
            assert await page.read_chunk() == b'<script>_("7:::1+0");</script>'
            assert await page.read_chunk() == b""


async def test_multipart() -> None:
    async with mounted(legacy_transports=ALL) as mount, await Connection.open(mount.base) as parts:
        head = await parts.start("GET", f"/socket.io/1/xhr-multipart/{await mount.shake()}")
        found = re.fullmatch(r'multipart/x-mixed-replace;boundary="(socketio[^"]*)"', head.headers["Content-Type"])
        assert found is not None
        line = b"--" + found[1].encode() + b"\n"
        assert await parts.read_chunk() == line
        assert await parts.read_chunk() == b"Content-Type: text/plain\n\n1::\n" + line


# --- timers -----------------------------------------------------------------------------------------------------------


async def test_a_poll_waits_for_the_polling_duration() -> None:
    async with mounted() as mount:
        sid = await mount.shake()
        assert (await mount.get(f"1/xhr-polling/{sid}")).text == "1::"
        for _ in range(3):
            waiting = await mount.poll(sid)
            mount.clock.advance(0.99)
            assert mount.session(sid).attached
            mount.clock.advance(0.02)
            assert await text_of(waiting) == "8::"
            mount.clock.advance(3.9)  # and between polls there is time, but not for ever
        mount.clock.advance(0.2)
        assert mount.left == ["transport close"]
        assert (await mount.get(f"1/xhr-polling/{sid}")).text == "7:::1+0"


async def test_no_poll_outlasts_the_clients_patience() -> None:
    async with mounted(legacy_poll_s=100) as mount:
        sid = await mount.shake()
        assert (await mount.get(f"1/xhr-polling/{sid}")).text == "1::"
        waiting = await mount.poll(sid)
        mount.clock.advance(4.01)
        assert await text_of(waiting) == "8::"


async def test_heartbeats_of_a_websocket() -> None:
    async with mounted() as mount, await mount.socket(await mount.shake()) as socket:
        assert await socket.recv_text() == "1::"
        mount.clock.advance(2)
        await socket.send_text("3:::x")
        assert await socket.recv_text() == "3:::echo x"
        mount.clock.advance(1.01)  # other packets put nothing off
        assert await socket.recv_text() == "2::"
        mount.clock.advance(1)
        await socket.send_text("2::")
        await socket.send_text("2::")  # once too often
        await socket.send_text("3:::y")
        assert await socket.recv_text() == "3:::echo y"
        mount.clock.advance(2.99)
        await socket.send_text("3:::z")
        assert await socket.recv_text() == "3:::echo z"
        mount.clock.advance(0.02)
        assert await socket.recv_text() == "2::"
        mount.clock.advance(1.9)
        await socket.send_text("3:::no heartbeat")
        assert await socket.recv_text() == "3:::echo no heartbeat"
        mount.clock.advance(0.2)
        assert mount.left == ["ping timeout"]
        assert await socket.connection.at_eof()
        assert len(mount.store) == 0


async def test_a_stream_whose_client_is_silent_ends() -> None:
    async with mounted() as mount, await Connection.open(mount.base) as page:
        sid = await mount.shake()
        await page.start("GET", f"/socket.io/1/htmlfile/{sid}")
        await until(lambda: mount.io.sockets.clients())
        mount.clock.advance(3.01)
        assert (await mount.post(f"1/htmlfile/{sid}", "2::")).body == b"1"
        mount.clock.advance(2.9)
        assert mount.left == []
        mount.clock.advance(0.2)
        mount.clock.advance(2.01)
        assert mount.left == ["ping timeout"]


async def test_losing_a_websocket_ends_the_session_and_losing_a_poll_does_not() -> None:
    async with mounted() as mount:
        socket = await mount.socket(await mount.shake())
        assert await socket.recv_text() == "1::"
        socket.abort()
        await until(lambda: mount.left == ["transport close"])
        assert len(mount.store) == 0
        sid = await mount.shake()
        assert (await mount.get(f"1/xhr-polling/{sid}")).text == "1::"
        waiting = await mount.poll(sid)
        waiting.abort()
        await until(lambda: not mount.session(sid).attached)
        mount.member.send("kept")
        mount.clock.advance(3.9)
        assert (await mount.get(f"1/xhr-polling/{sid}")).text == "3:::kept"
        mount.clock.advance(4.01)
        assert mount.left == ["transport close"] * 2


# --- one transport after another --------------------------------------------------------------------------------------


async def test_a_newer_poll_takes_over() -> None:
    async with mounted() as mount:
        sid = await mount.shake()
        assert (await mount.get(f"1/xhr-polling/{sid}")).text == "1::"
        older = await mount.poll(sid)
        newer = await mount.begin(f"1/xhr-polling/{sid}")
        assert await text_of(older) == "8::"
        mount.member.send("x")
        assert await text_of(newer) == "3:::x"


async def test_a_client_that_tries_its_next_transport_is_greeted_again() -> None:
    """Where a proxy lets the handshake of a WebSocket through and nothing after it."""
    async with mounted() as mount:
        sid = await mount.shake()
        socket = await mount.socket(sid)
        assert await socket.recv_text() == "1::"
        async with await Connection.open(mount.base) as page:
            await page.start("GET", f"/socket.io/1/htmlfile/{sid}")
            assert await page.read_until(b"</script>" + b" " * 173) == PAGE
            assert await page.read_chunk() == b'<script>_("1::");</script>'
            assert await socket.connection.at_eof()
            assert (await mount.get(f"1/xhr-polling/{sid}")).text == "1::"
            assert await page.read_chunk() == b""
        assert mount.left == []
        again = await mount.socket(sid)
        assert await again.recv_text() == "1::"
        again.abort()
        await until(lambda: mount.left == ["transport close"])


# --- goodbyes ---------------------------------------------------------------------------------------------------------


async def test_goodbye_by_post() -> None:
    async with mounted() as mount:
        sid = await mount.shake()
        assert (await mount.get(f"1/xhr-polling/{sid}")).text == "1::"
        waiting = await mount.poll(sid)
        assert (await mount.post(f"1/xhr-polling/{sid}", "0::")).body == b"1"
        assert await text_of(waiting) == "8::"
        assert mount.left == ["client namespace disconnect"]
        assert len(mount.store) == 0
        assert (await mount.get(f"1/xhr-polling/{sid}")).text == "7:::1+0"


@pytest.mark.parametrize("path", ["1//{}/?disconnect=1", "1/xhr-polling/{}/?disconnect=1", "1/pigeon/{}?disconnect"])
async def test_captured_goodbye_by_request(path: str) -> None:
    async with mounted() as mount:
        for polls in (True, False):
            sid = await mount.shake()
            assert (await mount.get(f"1/xhr-polling/{sid}")).text == "1::"
            waiting = await mount.poll(sid) if polls else None
            answer = await mount.get(path.format(sid))
            assert (answer.status, answer.body) == (200, b"")
            if waiting is not None:
                assert await text_of(waiting) == "0::"
            assert len(mount.store) == 0
        assert mount.left == ["client namespace disconnect"] * 2
        assert (await mount.get(path.format("nobody"))).status == 200
        sid = await mount.shake()  # one that nothing followed
        assert (await mount.get(path.format(sid))).status == 200
        assert len(mount.store) == 0
        async with await mount.socket(await mount.shake()) as socket:
            assert await socket.recv_text() == "1::"
            (session,) = mount.store
            await mount.get(path.format(session.id))
            assert await socket.recv_text() == "0::"
            assert await socket.expect_close() == (1000, "Closed by the client")


async def test_the_server_says_goodbye() -> None:
    async with mounted() as mount:
        sid = await mount.shake()
        assert (await mount.get(f"1/xhr-polling/{sid}")).text == "1::"
        waiting = await mount.poll(sid)
        mount.member.disconnect(close=True)
        assert await text_of(waiting) == "0::"
        mount.clock.advance(3.9)
        assert (await mount.get(f"1/xhr-polling/{sid}")).text == "0::"
        assert (await mount.post(f"1/xhr-polling/{sid}", "3:::too late")).body == b"1"
        mount.clock.advance(0.2)
        assert (await mount.get(f"1/xhr-polling/{sid}")).text == "7:::1+0"
        async with await mount.socket(await mount.shake()) as socket:
            assert await socket.recv_text() == "1::"
            mount.member.disconnect(close=True)
            assert await socket.recv_text() == "0::"
            assert (await socket.expect_close())[0] == 3000
        assert mount.left == ["server namespace disconnect"] * 2


async def test_a_server_that_stops_asks_its_clients_back() -> None:
    async with mounted() as mount:
        sid = await mount.shake()
        assert (await mount.get(f"1/xhr-polling/{sid}")).text == "1::"
        waiting = await mount.poll(sid)
        fresh = await mount.shake()
        async with await mount.socket(await mount.shake()) as socket:
            assert await socket.recv_text() == "1::"
            mount.io.close()
            assert await text_of(waiting) == "7:::1+0"
            assert (await mount.get(f"1/xhr-polling/{fresh}")).text == "7:::1+0"
            # The end alone makes this client come back.
            assert await socket.expect_close() == (1001, "Going away")
        assert mount.left == ["server shutting down"] * 2


async def test_a_session_that_nobody_knows() -> None:
    async with mounted(legacy_transports=ALL) as mount:
        answer = await mount.get("1/xhr-polling/nope")
        assert (answer.status, answer.body) == (200, b"7:::1+0")
        assert (await mount.get("1/jsonp-polling/nope?i=3")).body == b'io.j[3]("7:::1+0");'
        assert (await mount.get("1/htmlfile/nope")).body == PAGE + b'<script>_("7:::1+0");</script>'
        assert b"\n\n7:::1+0\n" in (await mount.get("1/xhr-multipart/nope")).body
        for transport in ("xhr-polling", "jsonp-polling", "htmlfile"):
            answer = await mount.post(f"1/{transport}/nope", "garbage")
            assert (answer.status, answer.body) == (200, b"1")
        for transport in ("websocket", "flashsocket"):
            socket = await mount.socket("nope", transport)
            assert await socket.recv_text() == "7:::1+0"
            assert (await socket.recv())[0] == CLOSE
            # Who does not close is cut.
            mount.clock.advance(4.01)
            assert await socket.connection.at_eof()
            assert len(mount.store) == 0
        assert mount.left == []


async def test_a_session_belongs_to_its_address() -> None:
    async with mounted(verify_ip=True, trusted_proxies=["127.0.0.1"]) as mount:
        here, there = ([("X-Forwarded-For", address)] for address in ("192.0.2.1", "192.0.2.2"))
        sid = (await mount.get("1/", headers=here)).text[:20]
        path = f"1/xhr-polling/{sid}"
        assert (await mount.get(path, headers=here)).text == "1::"
        assert (await mount.get(path, headers=there)).text == "7:::1+0"
        assert (await mount.post(path, "3:::x", headers=there)).body == b"1"
        assert (await mount.get(f"1//{sid}/?disconnect=1", headers=there)).status == 200
        assert (await mount.post(path, "3:::y", headers=here)).body == b"1"
        assert (await mount.get(path, headers=here)).text == "3:::echo y"


# --- hostile input ----------------------------------------------------------------------------------------------------


async def test_limits_of_what_a_client_may_send(quiet: Quiet) -> None:
    limits = {"max_message_bytes": 20, "max_payload_bytes": 60, "max_payload_packets": 3}
    async with mounted(**limits) as mount:
        sid = await mount.shake()
        path = f"1/xhr-polling/{sid}"
        assert (await mount.get(path)).text == "1::"
        assert (await mount.post(path, "3:::" + "x" * 16)).status == 200
        assert (await mount.post(path, "3:::" + "x" * 17)).status == 413
        assert (await mount.post(path, f"{MARK}3{MARK}2::" * 3)).status == 200
        assert (await mount.post(path, f"{MARK}3{MARK}2::" * 4)).status == 413
        assert (await mount.post(path, "x" * 61)).status == 413
        assert (await mount.post(path, f"{MARK}9{MARK}2::")).status == 400
        assert mount.left == []
        form = [("Content-Type", "application/x-www-form-urlencoded")]
        assert (await mount.post(f"1/jsonp-polling/{sid}", "d=" + "%33" * 16, headers=form)).status == 200
        quiet.expect("Not a packet of Socket.IO 0.9.")
        async with await mount.socket(await mount.shake()) as socket:
            assert await socket.recv_text() == "1::"
            await socket.send_text("3:::" + "x" * 17)
            assert (await socket.expect_close())[0] == 1009


async def test_a_slow_handler_holds_back_its_client() -> None:
    release = asyncio.Event()

    async def slow(text: str) -> None:
        await release.wait()

    async with mounted(max_inbox_messages=2, max_waiting_sends=1) as mount:
        mount.io.on("connection", lambda socket: socket.on("slow", slow))
        sid = await mount.shake()
        path = f"1/xhr-polling/{sid}"
        assert (await mount.get(path)).text == "1::"
        packet = '5:::{"name":"slow","args":["x"]}'
        assert (await mount.post(path, packet)).status == 200
        assert (await mount.post(path, packet)).status == 200
        waiting = asyncio.ensure_future(mount.post(path, packet))
        await until(lambda: mount.session(sid).inbox_full)
        assert (await mount.post(path, packet)).status == 503
        # Nor does anything else make the inbox grow.
        for transport in ("jsonp-polling", "htmlfile") * 3:
            await mount.begin(f"1/{transport}/{sid}")
            await until(lambda transport=transport: mount.session(sid).attached)
        assert len(mount.session(sid)._inbox) == 2
        release.set()
        assert (await waiting).body == b"1"


requests_of_a_session = st.lists(
    st.tuples(
        st.sampled_from(["GET", "GET", "POST", "POST", "leave", "tick"]),
        st.sampled_from(["xhr-polling", "jsonp-polling", "htmlfile", "xhr-multipart", "websocket", "pigeon", ""]),
        st.binary(max_size=30)
        | st.text('\ufffd0123458:+/{}"\u00e9\U0001f600', max_size=30).map(str.encode)
        | st.sampled_from(
            [b"0::", b"2::", b"8::", b"1::", b"1::/chat", b"3:::x", b"6:::1", b"0::/chat", b"d=%223:::x"]
        ),
    ),
    max_size=8,
)


async def test_any_bytes_in_any_order_on_one_session_are_answered(quiet: Quiet) -> None:
    quiet.announced.append("closing the connection of")  # what a broken packet is logged as, and nothing else
    loop = asyncio.get_running_loop()
    async with mounted(legacy_transports=ALL) as mount:

        async def play(steps: list[tuple[str, str, bytes]]) -> None:
            sid = await mount.shake()
            for what, transport, body in steps:
                path = f"/socket.io/1/{transport}/{sid}"
                if what == "tick":
                    mount.clock.advance(0.7)
                elif what == "POST":
                    pieces = [piece for piece in (body[:7], body[7:]) if piece]
                    answer = await request(mount.base, "POST", path, body=pieces)
                    assert answer.status in (200, 400, 404, 405, 413)
                elif what == "leave":
                    assert (await request(mount.base, "GET", path + "?disconnect")).status == 200
                elif transport == "websocket":
                    socket = await mount.socket(sid)
                    await socket.send_frame(TEXT, body)
                else:
                    await mount.begin(f"1/{transport}/{sid}")
            await turns()
            mount.hang_up()
            mount.clock.advance(60)
            await until(lambda: len(mount.store) == 0)

        @settings(max_examples=60, suppress_health_check=list(HealthCheck))
        @given(requests_of_a_session)
        def fuzz(steps: list[tuple[str, str, bytes]]) -> None:
            asyncio.run_coroutine_threadsafe(play(steps), loop).result(60)

        await asyncio.to_thread(fuzz)
        # The announced line need not come.
        await play([("POST", "xhr-polling", b"garbage")])
