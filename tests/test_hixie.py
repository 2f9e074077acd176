"""WebSockets of the drafts: hixie-76 and -75 from their bytes to whole sessions, and the versions 7 and 8 of hybi.

The exchange with ``^n:ds[4U`` was captured from the reference SockJS server; ``aaaaaaaa`` is that of the SockJS suite's
``test_haproxy``.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tornado.web import RequestHandler, StaticFileHandler

from polysock import Connection, Server, Socket, SockJSRouter
from polysock_transports import hixie76
from polysock_transports.dialects.plain import PLAIN_TEXT
from polysock_transports.errors import INVALID_DATA, MESSAGE_TOO_BIG, PROTOCOL_VIOLATION, CloseReason
from polysock_transports.prepared import PreparedMessage
from polysock_transports.rfc6455 import CloseFrame, Violation
from polysock_transports.session import State
from polysock_transports.wire import Refusal
from support import rawhttp
from support.clients import Client, Quiet, Recorder, endpoint, quiet, turns, until  # noqa: F401  # autouse: quiet
from support.clock import FakeClock
from support.needs import need_npm
from support.rawhttp import request_bytes
from support.serving import serving

KEY1, KEY2 = "4 @1  46546xW%0l 1 5", "12998 5 Y3 1  .P00"
KEY3, PROOF = b"^n:ds[4U", b"8jKS'y:G*Co,Wxa-"
KEYS = (("Sec-WebSocket-Key1", KEY1), ("Sec-WebSocket-Key2", KEY2))
WRONG = Refusal(400, "Missing/Invalid WebSocket headers")
ON = {"draft76": True, "origins": ["http://example.com"]}


def head_of(path: str, *more: tuple[str, str], keys: Sequence[tuple[str, str]] = KEYS) -> bytes:
    """A request as the captured one, without the 8 bytes."""
    usual = (("Upgrade", "WebSocket"), ("Connection", "Upgrade"), ("Host", "example.com"))
    origin = (("Origin", "http://example.com"),)
    return request_bytes("example.com", "GET", path, headers=[*usual, *origin, *keys, *more])


def answer_of(path: str, *more: str, scheme: str = "ws") -> bytes:
    lines = [
        "HTTP/1.1 101 WebSocket Protocol Handshake",
        "Upgrade: WebSocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Origin: http://example.com",
        f"Sec-WebSocket-Location: {scheme}://example.com{path}",
        *more,
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def framed(*texts: str) -> bytes:
    return b"".join(b"\x00%b\xff" % text.encode() for text in texts)


class Peer:
    """An old browser's end of one TCP connection."""

    def __init__(self, connection: rawhttp.Connection) -> None:
        self.connection = connection
        self.write = connection.write
        self.eof = connection.at_eof

    async def reads(self, data: bytes) -> None:
        """What comes next is *data*."""
        reading = self.connection.reader.readexactly(len(data))
        assert await asyncio.wait_for(reading, rawhttp.DEFAULT_TIMEOUT_SECONDS) == data

    async def text(self) -> str:
        """The next message."""
        frame = await asyncio.wait_for(self.connection.reader.readuntil(b"\xff"), rawhttp.DEFAULT_TIMEOUT_SECONDS)
        assert frame[:1] == b"\x00"
        return frame[1:-1].decode()

    async def refused(self) -> rawhttp.Response:
        return await self.connection.read_response()


@asynccontextmanager
async def peer(base: str) -> AsyncIterator[Peer]:
    connection = await rawhttp.Connection.open(base)
    try:
        yield Peer(connection)
    finally:
        connection.abort()


@asynccontextmanager
async def proved(base: str, path: str, *more: tuple[str, str]) -> AsyncIterator[Peer]:
    """A hixie-76 client whose handshake is over."""
    async with peer(base) as client:
        await client.write(head_of(path, *more) + KEY3)
        await client.reads(answer_of(path) + PROOF)
        yield client


def app() -> type[Recorder]:
    class App(Recorder):
        def on_message(self, message: str | bytes) -> None:
            super().on_message(message)
            self.send(message)

    return App


# -- the handshake's functions


@pytest.mark.parametrize(
    ("key", "number"),
    [
        (KEY1, 829309203),
        (KEY2, 259970620),
        ("1 0", 10),
        ("4294967295 ", 4294967295),
        ("42 9496 7296", 2147483648),
        ("4294967296 ", None),  # more than 32 bits
        ("", None),
        ("12", None),  # no spaces
        ("  ", None),  # no digits
        ("1 0 1", None),  # a remainder
        ("0 0", 0),
        ("\xb2\xb3 \u0663", None),  # digits to Unicode, and to nobody else
        ("2" + " " * 2 + "x" * 64, None),
        ("9" * 100_000 + " ", None),
    ],
)
def test_key_number(key: str, number: int | None) -> None:
    assert hixie76.key_number(key) == number


@pytest.mark.parametrize(
    ("key3", "proof"), [(KEY3, PROOF), (b"aaaaaaaa", b"\xca4\x00\xd8\xa5\x08G\x97,\xd5qZ\xba\xbfC{")]
)
def test_proof(key3: bytes, proof: bytes) -> None:
    handshake = hixie76.read_handshake({**dict(KEYS), "Host": "a"}, "/", secure=False)
    assert isinstance(handshake, hixie76.Handshake)
    assert handshake.proof(key3) == proof


def test_answer_of_hixie75() -> None:
    headers = {"Host": "example.com:81", "Origin": "null", "WebSocket-Protocol": "sample"}
    handshake = hixie76.read_handshake(headers, "/a%20b?c=d", secure=True)
    assert isinstance(handshake, hixie76.Handshake)
    assert handshake.response("sample") == (
        b"HTTP/1.1 101 Web Socket Protocol Handshake\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n"
        b"WebSocket-Origin: null\r\nWebSocket-Location: wss://example.com:81/a%20b?c=d\r\n"
        b"WebSocket-Protocol: sample\r\n\r\n"
    )
    with pytest.raises(ValueError, match="offered"):
        handshake.response("other")


@pytest.mark.parametrize(
    ("headers", "uri"),
    [
        ({"Sec-WebSocket-Key1": KEY1}, "/"),
        ({"Sec-WebSocket-Key2": KEY2}, "/"),
        ({"Sec-WebSocket-Key1": "12", "Sec-WebSocket-Key2": KEY2}, "/"),
        ({"Sec-WebSocket-Key1": KEY1, "Sec-WebSocket-Key2": ""}, "/"),
        ({"Host": ""}, "/"),
        ({"Host": "a b"}, "/"),
        ({"Host": "a\r\nSet-Cookie: b"}, "/"),
        ({"Host": "a/b"}, "/"),
        ({"Host": "\xe9"}, "/"),
        ({"Host": "a" * 1000}, "/"),
        ({"Origin": "a\r\nb"}, "/"),
        ({"Origin": "http://\xe9"}, "/"),
        ({"Origin": ""}, "/"),
        ({}, ""),
        ({}, "http://a/"),
        ({}, "/a b"),
        ({}, "/a\r\nb"),
        ({}, "/\xe9"),
    ],
)
def test_nothing_is_sent_back_unchecked(headers: dict[str, str], uri: str) -> None:
    assert hixie76.read_handshake({"Host": "a", **headers}, uri, secure=False) == WRONG


@pytest.mark.parametrize("name", ["Sec-WebSocket-Version", "Sec-WebSocket-Key"])
def test_later_drafts_are_not_taken_for_this_one(name: str) -> None:
    assert hixie76.read_handshake({"Host": "a", name: "", **dict(KEYS)}, "/", secure=False) is None


@given(
    st.dictionaries(st.sampled_from(["Host", "Origin", "Sec-WebSocket-Protocol", *dict(KEYS)]), st.text()), st.text()
)
def test_no_request_breaks_it_or_its_answer(headers: dict[str, str], uri: str) -> None:
    found = hixie76.read_handshake(headers, uri, secure=False)
    if isinstance(found, hixie76.Handshake):
        head = found.response(found.subprotocols[0] if found.subprotocols else None)
        assert head.count(b"\r\n") == head.count(b"\n") == head.count(b"\r") <= 7


# -- frames


def test_text_frames() -> None:
    assert hixie76.text_frame("o") == b"\x00\x6f\xff"
    assert hixie76.text_frame('a["h\u00e9"]') == b'\x00a["h\xc3\xa9"]\xff'
    assert hixie76.text_frame("\ud800\udc00 \ud800") == b"\x00\xf0\x90\x80\x80 \xef\xbf\xbd\xff"
    with pytest.raises(TypeError, match="text only"):
        hixie76.text_frame(b"x")


def test_many_receivers_share_their_bytes() -> None:
    message = PreparedMessage("x")
    assert message.wire(PLAIN_TEXT, hixie76.text_frame) is message.wire(PLAIN_TEXT, hixie76.text_frame)


MAX_BYTES = 20
BYE = CloseFrame(1005)
TOO_BIG, NOT_TEXT = Violation(MESSAGE_TOO_BIG, MESSAGE_TOO_BIG.text), Violation(INVALID_DATA, INVALID_DATA.text)
BAD_TYPE = Violation(PROTOCOL_VIOLATION, "unknown frame type")


@pytest.mark.parametrize(
    ("data", "events"),
    [
        (b'\x00["h\xc3\xa9"]\xff', ['["h\u00e9"]']),
        (b"\x00\xff\x00a\xff\x00b", ["", "a"]),
        (b"\x00a\xff\xff\x00\x00b\xff", ["a", BYE]),
        (b"\x00" + b"x" * MAX_BYTES + b"\xff", ["x" * MAX_BYTES]),
        (b"\x00" + b"x" * (MAX_BYTES + 1), [TOO_BIG]),
        (b"\x00\xc3\xff", [NOT_TEXT]),
        (b"\x00\xed\xa0\x80\xff\x00a\xff", [NOT_TEXT]),  # a surrogate
        (b"\x00\x80a\xff", [NOT_TEXT]),
        (b"\x80\x03\x00a\xff\x00b\xff", ["b"]),  # thrown away, whatever is in it
        (b"\x80\x00\x81\x80\x01a\xff\x02ab\x00b\xff", ["b"]),
        (b"\xff\x80\x00", [BYE]),
        (b"\x80\x14" + b"x" * MAX_BYTES + b"\xff\x00", [BYE]),
        (b"\x80\x15", [TOO_BIG]),
        (b"\xff\xff\xff\xff\xff", [TOO_BIG]),
        (b"\x01a\xff", [BAD_TYPE]),
        (b"\x7f", [BAD_TYPE]),
        (b"\x81\x85abcdhello", [TOO_BIG]),  # a frame of the RFC
    ],
)
def test_frames_in_any_pieces(data: bytes, events: list[Any]) -> None:
    for size in (1, 2, 3, len(data)):
        parser = hixie76.FrameParser(MAX_BYTES)
        assert [event for at in range(0, len(data), size) for event in parser.feed(data[at : at + size])] == events


@given(st.lists(st.binary(max_size=60) | st.sampled_from([b"\x00", b"\xff", b"\xff\x00", b"\x80", b"a"])))
def test_any_bytes_are_events_or_a_violation(pieces: list[bytes]) -> None:
    parser, whole = hixie76.FrameParser(MAX_BYTES), hixie76.FrameParser(MAX_BYTES)
    events = []
    for piece in pieces:
        events += parser.feed(piece)
        assert len(parser._text or b"") <= MAX_BYTES
    assert events == whole.feed(b"".join(pieces))
    texts, ends = [e for e in events if isinstance(e, str)], [e for e in events if not isinstance(e, str)]
    assert all(len(text.encode()) <= MAX_BYTES for text in texts)
    assert not ends or ends == events[-1:]


# -- sessions over sockets


async def test_captured_session() -> None:
    application, path = app(), "/s/000/hix1/websocket"
    async with endpoint(application, ON) as (base, _), peer(base) as client:
        await client.write(head_of(path))
        # What a proxy waits for before it lets the 8 bytes through.
        await client.reads(answer_of(path))
        await client.write(KEY3)
        await client.reads(PROOF + framed("o"))
        await client.write(framed('["h\u00e9"]'))
        await client.reads(b'\x00a["h\\u00e9"]\xff')
        await client.write(b"\xff\x00")
        await client.reads(b"\xff\x00")
        assert await client.eof()
        (session,) = application.made
        assert (session.info.transport, session.info.text_only) == ("websocket", True)
        await until(lambda: session.closes)
        assert session.closes == [CloseReason(1005, "", may_return=False)]


async def test_bytes_one_by_one_and_all_at_once() -> None:
    application, path = app(), "/s/000/a/websocket"
    sent = head_of(path) + KEY3 + framed('["a"]') + b"\xff\x00"
    wanted = answer_of(path) + PROOF + framed("o", 'a["a"]') + b"\xff\x00"
    async with endpoint(application, ON) as (base, _):
        async with peer(base) as client:
            await client.write(sent)
            await client.reads(wanted)
            assert await client.eof()
        async with peer(base) as client:
            client.connection.writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for at in range(len(sent)):
                await client.write(sent[at : at + 1])
                await turns(2)
            await client.reads(wanted)
            assert await client.eof()


async def test_haproxy_of_the_sockjs_suite() -> None:
    path = "/s/000/b/websocket"
    async with endpoint(app(), ON) as (base, _), peer(base) as client:
        await client.write(head_of(path))
        await client.reads(answer_of(path))
        await client.write(b"aaaaaaaa")
        await client.reads(b"\xca4\x00\xd8\xa5\x08G\x97,\xd5qZ\xba\xbfC{" + framed("o"))


async def test_hixie75() -> None:
    application = app()
    answer = (
        b"HTTP/1.1 101 Web Socket Protocol Handshake\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n"
        b"WebSocket-Origin: http://example.com\r\nWebSocket-Location: ws://example.com/s/0/c/websocket?x=y\r\n\r\n"
    )
    async with endpoint(application, ON) as (base, _), peer(base) as client:
        await client.write(head_of("/s/0/c/websocket?x=y", keys=()) + framed('["a"]'))
        await client.reads(answer + framed("o", 'a["a"]'))
        application.made[0].close(3001, "bye")
        await client.reads(framed('c[3001,"bye"]'))
        assert await client.eof()  # and no frame, which this draft does not have
        client.connection.close()
        await until(lambda: application.made[0].closes)


async def test_off_unless_asked_for() -> None:
    async with endpoint(app(), {"origins": ON["origins"]}) as (base, _):
        for keys in (KEYS, (), (("Sec-WebSocket-Version", "8"), ("Sec-WebSocket-Key", "x3JJHMbDL1EzLkh9GBhXDw=="))):
            async with peer(base) as client:
                await client.write(head_of("/s/websocket", keys=keys))
                answer = await client.refused()
                assert (answer.status, answer.headers["Sec-WebSocket-Version"]) == (426, "13")


async def test_what_is_none_of_these_drafts_is_told_which_versions_are() -> None:
    async with endpoint(app(), ON) as (base, _):
        for keys in ((("Sec-WebSocket-Version", "99"),), (("Sec-WebSocket-Key", "x3JJHMbDL1EzLkh9GBhXDw=="), *KEYS)):
            async with peer(base) as client:
                await client.write(head_of("/s/websocket", keys=keys))
                answer = await client.refused()
                assert (answer.status, answer.headers["Sec-WebSocket-Version"]) == (426, "13, 8, 7")


@pytest.mark.parametrize(
    ("old", "new", "status"),
    [
        (KEY1, "12", 400),
        (KEY1, "9" * 60 + " ", 400),
        (KEY2, "x" * 10_000, 400),
        ("Sec-WebSocket-Key2", "X-Else", 400),
        ("Connection: Upgrade", "Connection: close", 400),
        ("Upgrade: WebSocket", "Upgrade: h2c", 400),
        ("HTTP/1.1", "HTTP/1.0", 400),
        ("GET", "POST", 405),
        ("Origin: http://example.com", "Origin: http://evil.example", 403),
        ("Origin: http://example.com", "Origin: http://example.com/\x80", 403),
        ("Host: example.com", "Host: exa mple", 400),
        ("/s/websocket", "/s/websocket?\xe9", 400),
    ],
)
async def test_hostile_handshakes(quiet: Quiet, old: str, new: str, status: int) -> None:  # noqa: F811
    application = app()
    async with endpoint(application, ON) as (base, _), peer(base) as client:
        head = head_of("/s/websocket")
        assert old.encode() in head
        await client.write(head.replace(old.encode(), new.encode("latin-1"), 1) + KEY3)
        assert (await client.refused()).status == status
        assert application.made == []


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        (b"\x00\xc3\xff", INVALID_DATA.code),
        (b"\x00" + b"x" * 101, MESSAGE_TOO_BIG.code),
        (b"\x80\xff\xff\x7f", MESSAGE_TOO_BIG.code),
        (b"\x42", PROTOCOL_VIOLATION.code),
    ],
)
async def test_wrong_frames_end_the_session(frames: bytes, code: int) -> None:
    application = app()
    async with endpoint(application, {**ON, "max_message_bytes": 100}) as (base, _):
        async with proved(base, "/s/websocket") as client:
            await client.write(frames)
            await client.reads(b"\xff\x00")
            assert await client.eof()
            await until(lambda: application.made[0].closes)
        (reason,) = application.made[0].closes
        assert reason is not None
        assert reason.code == code


async def test_wrong_message_of_sockjs() -> None:
    application, path = app(), "/s/0/d/websocket"
    async with endpoint(application, ON) as (base, _), proved(base, path) as client:
        await client.reads(framed("o"))
        await client.write(framed("{"))
        await client.reads(b"\xff\x00")
        assert await client.eof()
        assert application.made[0].messages == []


async def test_raw_endpoint_carries_text_and_closes() -> None:
    application = app()
    async with endpoint(application, ON) as (base, _), proved(base, "/s/websocket") as client:
        await client.write(framed("", "h\u00e9 \U0001f600") + b"\x80\x01x" + framed("b"))
        await client.reads(framed("", "h\u00e9 \U0001f600", "b"))
        (connection,) = application.made
        assert (connection.info.transport, connection.info.text_only) == ("rawwebsocket", True)
        assert connection.session.core.transport_name == "rawwebsocket"
        connection.send({"a": 1})
        connection.send(b"bytes", binary=True)
        connection.broadcast([connection], b"many")
        await client.reads(framed('{"a":1}', "bytes", "many"))
        with pytest.raises(ValueError, match="text only"):
            connection.send(b"\xff", binary=True)
        connection.close(3001, "bye")
        await client.reads(b"\xff\x00")
        await client.write(framed("too late") + b"\xff\x00")
        assert await client.eof()
        client.connection.close()
        await until(lambda: connection.closes)
        assert connection.closes == [CloseReason(3001, "bye", may_return=False)]
        assert connection.messages == ["", "h\u00e9 \U0001f600", "b"]


class Choosing(Connection):
    """Selects the subprotocol ``odd, one``, and lets nobody in who asks for none."""

    def on_open(self, info: Any) -> bool:
        return info.get_header("Sec-WebSocket-Protocol") is not None

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        return next((one for one in subprotocols if one == "odd,one"), None)


async def test_subprotocol_refusal_and_the_address_behind_a_proxy() -> None:
    path = "/s/websocket?a=%20b&c"
    router = SockJSRouter(Choosing, "/s", ON)
    async with serving(router.urls, server={"xheaders": True}) as base:
        # One value in this draft, whatever is in it; and nothing where the application chose nothing.
        for offer, lines in (("odd,one", ("Sec-WebSocket-Protocol: odd,one",)), ("odd", ()), ("two words", ())):
            async with peer(base) as client:
                more = (("Sec-WebSocket-Protocol", offer), ("X-Scheme", "https"))
                await client.write(head_of(path, *more) + KEY3)
                await client.reads(answer_of(path, *lines, scheme="wss") + PROOF)
        async with peer(base) as client:
            await client.write(head_of(path) + KEY3)
            assert (await client.refused()).status == 403


async def test_what_is_said_before_the_proof_comes_after_it() -> None:
    class Eager(Recorder):
        def on_open(self, info: Any) -> Any:
            self.send("first")
            self.go = asyncio.get_running_loop().create_future()
            return self.opening()

        async def opening(self) -> None:
            await self.go  # reading is paused meanwhile, but not the handshake

    path = "/s/0/e/websocket"
    async with endpoint(Eager, ON) as (base, _), peer(base) as client:
        await client.write(head_of(path))
        await client.reads(answer_of(path))
        await until(lambda: Eager.made)
        Eager.made[0].send("second")
        await client.write(KEY3[:5])
        await turns()
        Eager.made[0].send("third")
        await client.write(KEY3[5:])
        await client.reads(PROOF + framed("o", 'a["first"]', 'a["second"]', 'a["third"]'))
        await client.write(framed('["held back"]'))
        await turns()
        assert Eager.made[0].messages == []
        Eager.made[0].go.set_result(None)
        await until(lambda: Eager.made[0].messages)


async def test_closed_before_the_proof() -> None:
    class Closing(Recorder):
        def on_open(self, info: Any) -> None:
            self.close(3001, "bye")

    path = "/s/0/f/websocket"
    async with endpoint(Closing, ON) as (base, _), peer(base) as client:
        await client.write(head_of(path))
        await client.reads(answer_of(path))
        await client.write(KEY3)
        await client.reads(PROOF + framed("o", 'c[3001,"bye"]') + b"\xff\x00")
        await client.write(b"\xff\x00")
        assert await client.eof()


@pytest.mark.parametrize("sent", [b"", KEY3[:7]])
async def test_a_handshake_that_is_never_finished_is_cut(sent: bytes) -> None:
    application, clock, path = app(), FakeClock(), "/s/0/g/websocket"
    settings = {**ON, "body_timeout_s": 7, "heartbeat_delay_s": 100}
    async with endpoint(application, settings, clock=clock) as (base, _), peer(base) as client:
        await client.write(head_of(path) + sent)
        await client.reads(answer_of(path))
        clock.advance(6.9)
        assert application.made[0].closes == []
        clock.advance(0.2)
        assert await client.eof()
        assert [reason and reason.code for reason in application.made[0].closes] == [1006]
        assert application.made[0].session.core.state is State.CLOSED
        # Neither does one that goes away, or is finished, leave its timer behind.
        async with peer(base) as leaving:
            await leaving.write(head_of(path))
            await leaving.reads(answer_of(path))
        await until(lambda: len(application.made[1].closes))
        async with proved(base, path) as client:
            await client.reads(framed("o"))
            clock.advance(8)
            await client.write(framed('["there"]'))
            await client.reads(framed('a["there"]'))


async def test_what_waits_for_the_proof_is_bounded() -> None:
    application, path = app(), "/s/0/h/websocket"
    settings = {**ON, "pipe_high_bytes": 1_000, "queue_max_bytes": 5_000}
    async with endpoint(application, settings) as (base, _), peer(base) as client:
        await client.write(head_of(path))
        await client.reads(answer_of(path))
        await until(lambda: application.made)
        (connection,) = application.made
        sent = []
        for number in range(30):
            sent.append(f"{number:0100}")
            assert connection.send(sent[-1])
        first = 30 - connection.session.core.queued_messages
        assert 0 < first < 20
        await client.write(KEY3)
        # What waited behind the high mark comes as one frame, as always.
        each = [f"a{json.dumps([text])}" for text in sent[:first]]
        await client.reads(PROOF + framed("o", *each, f"a{json.dumps(sent[first:], separators=(',', ':'))}"))
        assert connection.session.core.queued_messages == 0


async def test_heartbeats_go_out_and_nothing_is_asked() -> None:
    application, clock, path = app(), FakeClock(), "/s/0/i/websocket"
    async with endpoint(application, ON, clock=clock) as (base, _), proved(base, path) as client:
        await client.reads(framed("o"))
        for _ in range(4):
            clock.advance(25.5)
            await client.reads(framed("h"))
        assert application.made[0].closes == []
        # Nothing tells of a peer that vanished but TCP, which is told to look.
        transport: Any = application.made[0].session.core._transport
        connection = transport._pipe._pipe._stream.socket
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 45_000
        client.connection.abort()
        await until(lambda: application.made[0].closes)


async def test_hub() -> None:
    io = Server(draft76=True, origins=ON["origins"])

    @io.on("connection")
    def connection(member: Socket) -> None:
        member.join("room")
        member.on("say", lambda text: io.to("room").emit("said", text))

    async with (
        serving(io.routes()) as base,
        proved(base, "/polysock/0/j/websocket") as framing,
        proved(base, "/polysock/websocket") as raw,
        Client(base, "rawwebsocket", "/polysock") as modern,
    ):
        await framing.reads(framed("o"))
        await modern.open()
        await framing.write(framed('["0"]'))
        assert json.loads((await framing.text())[1:])[0].startswith("0{")
        await raw.write(framed("0"))
        assert (await raw.text()).startswith("0{")
        await modern.send("0")
        assert (await modern.message()).startswith("0{")
        for speaker in (raw.write(framed('2["say","h\u00e9"]')), modern.send('2["say","h\u00e9"]')):
            await speaker
            packets = [json.loads((await framing.text())[1:])[0], await raw.text(), await modern.message()]
            assert [json.loads(packet[1:]) for packet in packets] == [["said", "h\u00e9"]] * 3
        # Binary travels as text, both ways, where a modern raw WebSocket has frames for it.
        announced = '1-["%s",{"_placeholder":true,"num":0}]'
        await raw.write(framed("5" + announced % "say", "bAP8="))
        assert [await raw.text() for _ in range(2)] == ["5" + announced % "said", "bAP8="]
        io.close()
        while (frame := await framing.text())[0] == "a":
            pass
        assert json.loads(frame[1:])[0] == 1001
        await raw.reads(b"\xff\x00")


# -- versions 7 and 8


@pytest.mark.parametrize("version", ["7", "8"])
async def test_hybi(version: str) -> None:
    application = app()
    headers = [
        ("Sec-WebSocket-Version", version),
        ("Sec-WebSocket-Origin", "http://example.com"),
        ("Sec-WebSocket-Key", "x3JJHMbDL1EzLkh9GBhXDw=="),
    ]
    async with endpoint(application, ON) as (base, _):
        async with Client(base, "rawwebsocket", headers=headers) as client:
            await client.open()
            assert client.socket is not None
            assert client.socket.response.headers["Sec-WebSocket-Accept"] == "HSmrc0sMlYUkAGmm5OPpG2HaGWk="
            await client.send("a")
            assert await client.message() == "a"
            assert (application.made[0].info.origin, application.made[0].info.text_only) == (
                "http://example.com",
                False,
            )
        headers[1] = ("Sec-WebSocket-Origin", "http://evil.example")
        upgrade = [("Upgrade", "websocket"), ("Connection", "Upgrade"), *headers]
        assert (await rawhttp.request(base, "GET", "/s/websocket", headers=upgrade)).status == 403


# -- the real thing


async def test_phantomjs(phantomjs: Any) -> None:
    """sockjs-client in the WebKit of 2011, whose WebSocket is hixie-76."""
    application = app()
    script = need_npm("sockjs-client", "dist/sockjs.min.js")

    class Script(RequestHandler):
        def get(self) -> None:
            self.write(script.read_bytes())

    router = SockJSRouter(application, "/s", {"draft76": True})
    pages = str(Path(__file__).parent / "browserlab" / "pages")
    handlers = [
        *router.urls,
        ("/static/sockjs.js", Script),
        (r"/(sock\.html)", StaticFileHandler, {"path": pages}),
        ("/report", Script),
    ]
    async with serving(handlers) as base:
        answer = await asyncio.to_thread(phantomjs.run, f"{base}/sock.html?lib=sockjs&url=/s&n=5&t=&patience=10000")
        told = json.loads(answer)
        assert (told["ok"], told["transport"], told["echoes"]) == (True, "websocket", 5), told
        (session,) = application.made
        assert (session.info.transport, session.info.text_only) == ("websocket", True)
        await until(lambda: session.closes)
