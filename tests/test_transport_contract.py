"""The transport contract, held against every pair of transport and dialect, over real sockets.

Each test runs for every row of ``PAIRS``; what a kind of transport does differently (one frame and the end, a byte
budget, receiving too) is said in the test.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from tornado.web import RequestHandler

from polysock_transports.dialects import Dialect
from polysock_transports.dialects.plain import PLAIN
from polysock_transports.dialects.socketio09 import SOCKETIO09
from polysock_transports.dialects.sockjs import SOCKJS
from polysock_transports.errors import CloseReason, ProtocolError
from polysock_transports.eventsource import EventSource
from polysock_transports.gateway import _HTTP_TRANSPORTS, _WEBSOCKETS, Gateway, SessionListener
from polysock_transports.htmlfile import HtmlFile, LegacyHtmlFile
from polysock_transports.httplane import HttpConnection
from polysock_transports.jsonp import JsonpPolling, LegacyJsonp
from polysock_transports.legacygateway import _HTTP_TRANSPORTS as _LEGACY_TRANSPORTS
from polysock_transports.limits import Limits
from polysock_transports.multipart import XhrMultipart
from polysock_transports.pages import Answer
from polysock_transports.permessage_deflate import DeflateOptions, negotiate
from polysock_transports.pipes import ClosingExchange, Exchange, IOStreamPipe, KeepAliveExchange, Pipe
from polysock_transports.rfc6455 import handshake_response
from polysock_transports.socketpipe import SocketPipe
from polysock_transports.takeover import can_take_over, find_server, take_over
from polysock_transports.transport import HttpTransport, Transport
from polysock_transports.websocket import FlashSocket, RawWebSocket, WebSocket
from polysock_transports.wire import ConnectionInfo, Frame
from polysock_transports.xhr import LegacyPolling, XhrPolling, XhrStreaming
from support import rawhttp
from support.clients import (
    CALLBACK,
    TIMEOUT_SECONDS,
    quiet,  # noqa: F401  # autouse: nothing here logs unannounced
    turns,
    until,
)
from support.rawhttp import BINARY, TEXT, WireError, WireSocket
from support.serving import serving

BUDGET_BYTES = 500
HIGH_BYTES = 10_000
LIMITS = Limits(response_limit_bytes=BUDGET_BYTES, pipe_high_bytes=HIGH_BYTES)
ROOMY = Limits(response_limit_bytes=1 << 40, pipe_high_bytes=HIGH_BYTES)
REASON = CloseReason(3001, "done")


@dataclass(frozen=True)
class Pair:
    transport: type[Transport]
    dialect: Dialect
    form: str = ""
    """HTTP/1.0, compression, or a connection taken over from Tornado, where that is another path through the code."""

    def __str__(self) -> str:
        return "-".join(filter(None, (self.transport.name, self.dialect.name, self.form)))

    @property
    def is_http(self) -> bool:
        return issubclass(self.transport, HttpTransport)

    @property
    def one_shot(self) -> bool:
        return issubclass(self.transport, HttpTransport) and self.transport.one_shot

    def frame(self, text: str) -> Frame:
        (frame,) = self.dialect.pack((self.dialect.encode(text),))
        return frame


PAIRS = [
    *(
        Pair(transport, SOCKJS, form)
        for transport in (XhrPolling, XhrStreaming, EventSource, HtmlFile, JsonpPolling)
        for form in ("", "http10", "taken")
    ),
    *(
        Pair(transport, SOCKETIO09, form)
        for transport in (LegacyPolling, LegacyJsonp, LegacyHtmlFile, XhrMultipart)
        for form in ("", "http10", "taken")
    ),
    *(Pair(WebSocket, SOCKJS, form) for form in ("", "deflate", "taken")),
    *(Pair(RawWebSocket, PLAIN, form) for form in ("", "deflate", "taken")),
    *(Pair(FlashSocket, SOCKETIO09, form) for form in ("", "deflate", "taken")),
]
exact_pair = pytest.mark.parametrize("pair", [pair for pair in PAIRS if pair.form != "deflate"], ids=str)
every_pair = pytest.mark.parametrize("pair", PAIRS, ids=str)
endless_pair = pytest.mark.parametrize("pair", [pair for pair in PAIRS if not pair.one_shot], ids=str)
streaming_pair = pytest.mark.parametrize("pair", [p for p in PAIRS if p.is_http and not p.one_shot], ids=str)
websocket_pair = pytest.mark.parametrize("pair", [pair for pair in PAIRS if not pair.is_http], ids=str)


def test_pairs_are_all_that_the_gateways_serve() -> None:
    served = {*_HTTP_TRANSPORTS.values(), *_LEGACY_TRANSPORTS.values(), *_WEBSOCKETS.values()}
    assert {pair.transport for pair in PAIRS} == served


@dataclass
class Owner:
    """What a transport told, in order."""

    told: list[object] = field(default_factory=list)
    refuses: bool = False

    def transport_ready(self, transport: Transport) -> None:
        self.told.append("ready")

    def transport_ended(self, transport: Transport) -> None:
        self.told.append("ended")

    def transport_lost(self, transport: Transport, reason: CloseReason | None = None) -> None:
        self.told.append("lost")

    def peer_closed(self, reason: CloseReason) -> None:
        self.told.append(reason)

    def alive(self) -> None:
        pass

    def receive(self, body: str | bytes, form: str = "") -> None:
        if self.refuses:
            raise ProtocolError("no", reason=REASON)
        self.told.append(body)


def no_session(info: ConnectionInfo, session_id: str) -> SessionListener:
    raise AssertionError("nobody opens one here")


def no_page(page: str, mount: str, headers: Mapping[str, str]) -> Answer:
    raise AssertionError("nobody asks for one here")


def reads(pipe: Any) -> bool:
    """Whether *pipe* has asked for what comes next."""
    return pipe._transport.is_reading() if isinstance(pipe, SocketPipe) else pipe._reading


class Harness(RequestHandler):
    """Puts the answer to a request into the transport under test, as the gateway does."""

    def initialize(self, pair: Pair, limits: Limits, made: asyncio.Queue[Transport]) -> None:
        self.pair, self.limits, self.made = pair, limits, made
        self.exchange: Exchange | None = None
        self.gateway = Gateway(SOCKJS, no_session, re.compile("/"), no_page, limits)

    def get(self) -> None:
        transport = self.http() if self.pair.is_http else self.websocket()
        transport.owner = Owner()
        self.made.put_nowait(transport)

    def http(self) -> Transport:
        if self.request.version == "HTTP/1.0":
            self.exchange = ClosingExchange(self.detach(), self.done)
        elif self.pair.form == "taken":
            self.exchange = self.taken()
        else:
            connection: Any = self.request.connection
            self.exchange = KeepAliveExchange(connection, self.done, close=False)
            self._finished = True
        options = {"callback": CALLBACK}
        transport: Any = self.pair.transport
        made: Transport = transport(self.exchange, (("X-Test", "1"),), options, self.limits)
        return made

    def taken(self) -> Exchange:
        http: Any = self.request.connection
        server = find_server(self.request.server_connection)
        assert server is not None
        lane, context = self.gateway.lane, http.context
        assert can_take_over(http.stream)
        sock, rest = take_over(self.detach())
        connection = HttpConnection(lane, self.gateway, self.application, type(self), server, context, "host")
        connection.connect(sock, rest)
        return connection.begin(self.done)

    def done(self, status: int) -> None:
        pass

    def on_connection_close(self) -> None:
        if self.exchange is not None:
            self.exchange.lost()

    def websocket(self) -> Transport:
        headers = self.request.headers
        agreed = negotiate(headers.get("Sec-WebSocket-Extensions"), DeflateOptions(threshold_bytes=1))
        head = handshake_response(headers["Sec-WebSocket-Key"], None, agreed[0] if agreed else None)
        stream = self.detach()
        pipe: Pipe | None = self.gateway.take_over(stream) if self.pair.form == "taken" else None
        if pipe is None:
            assert self.pair.form != "taken"
            pipe = IOStreamPipe(stream, read_chunk_bytes=self.limits.read_chunk_bytes)
        pipe.write(head)
        transport: Any = self.pair.transport
        made: Transport = transport(pipe, self.limits, max_message_bytes=1 << 20, deflate=agreed[1] if agreed else None)
        pipe.start()
        return made


class Peer:
    """The client's side of one transport."""

    def __init__(self, base: str, pair: Pair) -> None:
        self.base, self.pair = base, pair
        self.connection: rawhttp.Connection
        self.socket: WireSocket

    async def connect(self) -> None:
        if self.pair.is_http:
            self.connection = await rawhttp.Connection.open(self.base)
            await self.connection.send("GET", "/", version="1.0" if self.pair.form == "http10" else "1.1")
        else:
            offer = [("Sec-WebSocket-Extensions", "permessage-deflate")] if self.pair.form == "deflate" else []
            self.socket = await WireSocket.connect(self.base, "/", offer)
            self.connection = self.socket.connection

    async def head(self) -> rawhttp.Response | None:
        return await self.connection.read_head() if self.pair.is_http else None


@asynccontextmanager
async def standing(pair: Pair, limits: Limits = LIMITS) -> AsyncIterator[tuple[Transport, Owner, Peer]]:
    """A transport of this pair, its owner, and its peer."""
    made: asyncio.Queue[Transport] = asyncio.Queue()
    async with serving([("/", Harness, {"pair": pair, "limits": limits, "made": made})]) as base:
        peer = Peer(base, pair)
        connecting = asyncio.ensure_future(peer.connect())
        transport = await asyncio.wait_for(made.get(), TIMEOUT_SECONDS)
        await connecting
        assert isinstance(transport.owner, Owner)
        owner = transport.owner
        try:
            yield transport, owner, peer
        finally:
            peer.connection.abort()
            transport.abort()
            await turns()


def shaped(transport: Transport, frames: Sequence[Frame]) -> bytes:
    """The bytes on the wire, from the shape (or, where a request decides, the wrapper) alone."""
    shape = transport.shape or transport.wrap  # type: ignore[attr-defined]
    return b"".join(map(shape, frames))


@every_pair
async def test_frames_arrive_in_order_as_their_shape_says(pair: Pair) -> None:
    frames = [pair.frame(text) for text in ("one", "two</script>\u2028%41", "three")]
    async with standing(pair) as (transport, owner, peer):
        assert transport.ready
        if pair.one_shot:
            transport.write(frames)
            assert owner.told == ["ended"]
            assert not transport.ready
            assert transport.finishing
            answer = await peer.connection.read_response()
            assert answer.status == 200
            assert answer.headers["X-Test"] == "1"
            assert answer.body == shaped(transport, frames)
            return
        transport.write(frames[:1])
        transport.write(frames[1:])
        assert transport.ready
        assert owner.told == []
        if pair.is_http:
            await peer.head()
            prelude = transport.prelude  # type: ignore[attr-defined]
            expected = prelude + shaped(transport, frames)
            got = b""
            while len(got) < len(expected):
                got += await peer.connection.read_chunk()
            assert got == expected
        elif pair.form == "deflate":
            assert transport.shape is None
        else:
            wire = shaped(transport, frames)
            assert await peer.connection.reader.readexactly(len(wire)) == wire


@exact_pair
async def test_ready_made_bytes_are_sent_as_they_are(pair: Pair) -> None:
    frame = pair.frame("x")
    async with standing(pair) as (transport, _, peer):
        transport.write_wire(shaped(transport, [frame]))
        if pair.one_shot:
            assert (await peer.connection.read_response()).body == shaped(transport, [frame])
        elif pair.is_http:
            await peer.head()
            expected = transport.prelude + shaped(transport, [frame])  # type: ignore[attr-defined]
            got = b""
            while len(got) < len(expected):
                got += await peer.connection.read_chunk()
            assert got == expected
        else:
            opcode, payload = await peer.socket.recv()
            assert (opcode, payload) == (TEXT, str(frame).encode())


@every_pair
async def test_finish_ends_it_and_tells_once(pair: Pair) -> None:
    async with standing(pair) as (transport, owner, peer):
        transport.finish(REASON)
        assert not transport.ready
        assert transport.finishing
        if pair.is_http:
            assert owner.told == ["ended"]
            answer = await peer.connection.read_response()
            assert answer.body == b"" if pair.one_shot else transport.prelude  # type: ignore[attr-defined]
        else:
            assert await peer.socket.expect_close() == (REASON.code, REASON.text)
            peer.connection.close()
            await until(lambda: owner.told)
        transport.finish(REASON)
        transport.write([pair.frame("late")])
        transport.write_wire(b"late")
        await turns()
        assert owner.told == ["ended"]
        if pair.is_http:
            # HTTP/1.1 goes on to the next request; nothing of what came late is on the wire.
            assert await peer.connection.at_eof() if pair.form == "http10" else not peer.connection.reader._buffer  # type: ignore[attr-defined]


@exact_pair
async def test_what_was_written_before_the_end_arrives(pair: Pair) -> None:
    async with standing(pair) as (transport, owner, peer):
        frame = pair.frame("last words")
        transport.write([frame])
        transport.finish(REASON)
        if pair.is_http:
            answer = await peer.connection.read_response()
            prelude = b"" if pair.one_shot else transport.prelude  # type: ignore[attr-defined]
            assert answer.body == prelude + shaped(transport, [frame])
            assert owner.told == ["ended"]
        else:
            assert await peer.socket.recv() == (TEXT, str(frame).encode())
            assert await peer.socket.expect_close() == (REASON.code, REASON.text)


@streaming_pair
async def test_a_stream_ends_at_its_budget(pair: Pair) -> None:
    async with standing(pair) as (transport, owner, peer):
        frame = pair.frame("x" * 10)
        size = len(shaped(transport, [frame]))
        written = 0
        while written < BUDGET_BYTES:
            assert transport.ready
            assert owner.told == []
            transport.write([frame])
            written += size
        assert owner.told == ["ended"]
        assert not transport.ready
        answer = await peer.connection.read_response()
        assert answer.body == transport.prelude + shaped(transport, [frame]) * (written // size)  # type: ignore[attr-defined]


@websocket_pair
async def test_a_websocket_has_no_budget(pair: Pair) -> None:
    async with standing(pair) as (transport, owner, _):
        for _ in range(BUDGET_BYTES):
            transport.write([pair.frame("x")])
        assert transport.ready
        assert owner.told == []


@every_pair
async def test_a_peer_that_goes_away_is_lost_and_not_ended(pair: Pair) -> None:
    async with standing(pair) as (transport, owner, peer):
        peer.connection.abort()
        await until(lambda: owner.told)
        assert owner.told == ["lost"]
        assert not transport.ready
        transport.write([pair.frame("to nobody")])
        transport.finish(None)
        await turns()
        assert owner.told == ["lost"]


@every_pair
async def test_abort_cuts_it_and_tells_nobody(pair: Pair) -> None:
    async with standing(pair) as (transport, owner, peer):
        transport.abort()
        if pair.form == "http10" and not pair.one_shot:
            # The end of an HTTP/1.0 body is the end of the connection, so a cut-off stream only looks short.
            assert len((await peer.connection.read_response()).body) <= len(transport.prelude)  # type: ignore[attr-defined]
        else:
            with pytest.raises((WireError, ConnectionError)):
                await (peer.connection.read_response() if pair.is_http else peer.socket.recv())
        await turns()
        assert owner.told == []


@endless_pair
async def test_backlog_holds_it_back_until_it_has_drained(pair: Pair) -> None:
    async with standing(pair, ROOMY) as (transport, owner, peer):
        noise = os.urandom(100_000)  # longer than what compression remembers, so that it stays long
        number = 0
        while transport.ready:
            transport.write([pair.frame(noise.hex())])
            number += 1
            assert number < 5_000
        assert owner.told == []

        async def read() -> None:
            while await peer.connection.reader.read(1 << 16):
                pass

        reading = asyncio.ensure_future(read())
        await until(lambda: owner.told)
        assert owner.told == ["ready"]
        assert transport.ready
        reading.cancel()


@websocket_pair
async def test_what_the_peer_sends_is_received_unless_paused(pair: Pair) -> None:
    async with standing(pair) as (transport, owner, peer):
        await peer.socket.send_text("one")
        await until(lambda: owner.told == ["one"])
        transport.pause()
        # One read may already stand; what comes after it is not looked at.
        await peer.socket.send_text("two")
        await until(lambda: owner.told == ["one", "two"] or not reads(transport._pipe))  # type: ignore[attr-defined]
        before = len(owner.told)
        await peer.socket.send_frame(BINARY, b"three")
        await turns()
        assert len(owner.told) == before
        transport.resume()
        await until(lambda: owner.told == ["one", "two", b"three"])


@websocket_pair
async def test_a_refused_message_closes_the_websocket(pair: Pair) -> None:
    async with standing(pair) as (_, owner, peer):
        owner.refuses = True
        await peer.socket.send_text("x")
        assert await peer.socket.expect_close() == (REASON.code, REASON.text)
        await until(lambda: len(owner.told) == 1)
        assert owner.told == [REASON]
        peer.connection.close()
        await until(lambda: len(owner.told) == 2)
        assert owner.told == [REASON, "ended"]


@websocket_pair
async def test_ping_is_answered_and_asked(pair: Pair) -> None:
    async with standing(pair) as (transport, _, peer):
        assert transport.answers_ping
        transport.ping()
        assert await peer.socket.recv() == (rawhttp.PING, b"")
        await peer.socket.send_frame(rawhttp.PING, b"yes?")
        assert await peer.socket.recv() == (rawhttp.PONG, b"yes?")


@websocket_pair
async def test_end_without_a_reason_carries_no_code(pair: Pair) -> None:
    async with standing(pair) as (transport, _, peer):
        transport.finish(None)
        assert await peer.socket.expect_close() == (rawhttp.CODE_ABSENT, "")


@pytest.mark.parametrize("text", ["plain", "</script><!--", "\u2028\u2029", '"\\', "\ud800", "%41%"])
def test_shapes_keep_the_frame_readable(text: str) -> None:
    frame = SOCKJS.pack((SOCKJS.encode(text),))[0]
    assert json.loads(str(frame)[1:]) == [text]
    event = EventSource.shape(frame).removeprefix(b"data: ").removesuffix(b"\r\n\r\n")  # type: ignore[misc]
    assert b"%" not in event
    assert json.loads(event[1:]) == [text]
    script = HtmlFile.shape(frame).removeprefix(b"<script>\np(").removesuffix(b");\n</script>\r\n")  # type: ignore[misc]
    assert b"<" not in script
    assert json.loads(script) == frame
    assert XhrPolling.shape(frame) == str(frame).encode() + b"\n"  # type: ignore[misc]
