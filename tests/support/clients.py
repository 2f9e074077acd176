"""One client of an endpoint over any transport, an application that remembers, and a log that must stay empty.

The client speaks the wire by hand over ``support.rawhttp`` and does what sockjs-client does: it opens the next
receiving request when one has ended.  It shares no code with the server.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, ClassVar
from urllib.parse import quote

import pytest

from polysock import CloseReason, Connection, SockJSRouter
from support import rawhttp
from support.clock import FakeClock
from support.rawhttp import HeaderList, SocketClosed, WireSocket, request
from support.serving import serving

__all__ = [
    "CALLBACK",
    "EVERY",
    "HTTP",
    "POLLING",
    "SOCKJS",
    "STREAMING",
    "WEBSOCKETS",
    "Client",
    "Quiet",
    "Recorder",
    "endpoint",
    "quiet",
    "turns",
    "until",
]

POLLING = ("xhr", "jsonp")
STREAMING = ("xhr_streaming", "eventsource", "htmlfile")
HTTP = (*POLLING, *STREAMING)
SOCKJS = (*HTTP, "websocket")
WEBSOCKETS = ("websocket", "rawwebsocket")
EVERY = (*SOCKJS, "rawwebsocket")

CALLBACK = "_jp.a1b2c3d"
TIMEOUT_SECONDS = rawhttp.DEFAULT_TIMEOUT_SECONDS

_PRELUDE_END = {"xhr_streaming": b"\n", "eventsource": b"\r\n", "htmlfile": b"\r\n\r\n"}
_FRAME = {
    "xhr": re.compile(rb"([^\n]*)\n"),
    "xhr_streaming": re.compile(rb"([^\n]*)\n"),
    "eventsource": re.compile(rb"data: ([^\r\n]*)\r\n\r\n"),
    "htmlfile": re.compile(rb'<script>\np\(("[^\n]*")\);\n</script>\r\n'),
    "jsonp": re.compile(rb"/\*\*/" + re.escape(CALLBACK).encode() + rb'\(("[^\n]*")\);\r\n'),
}


class Client:
    """One client of one session (or raw WebSocket), over one transport."""

    def __init__(
        self,
        base: str,
        transport: str,
        prefix: str = "/s",
        *,
        session_id: str | None = None,
        query: str = "",
        headers: HeaderList = (),
    ) -> None:
        self.base = base
        self.transport = transport
        self.session_id = session_id or uuid.uuid4().hex
        self.url = f"{prefix}/000/{self.session_id}"
        self.raw = transport == "rawwebsocket"
        self.socket: WireSocket | None = None
        self.connection: rawhttp.Connection | None = None
        self.headers = headers
        self._prefix = prefix
        self._query = query
        self._receiving = False
        self._head_due = False
        self._buffer = b""
        self._messages: deque[str] = deque()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()

    async def attach(self) -> None:
        """Ask for frames: shake hands, or send a receiving request whose answer is read later."""
        if self.transport in WEBSOCKETS:
            path = f"{self._prefix}/websocket" if self.raw else f"{self.url}/websocket"
            self.socket = await WireSocket.connect(self.base, path + self._query, self.headers)
            return
        if self.connection is None:
            self.connection = await rawhttp.Connection.open(self.base)
        query = f"?c={CALLBACK}" if self.transport in ("jsonp", "htmlfile") else ""
        query += self._query.replace("?", "&") if query else self._query
        method = "GET" if self.transport in ("jsonp", "htmlfile", "eventsource") else "POST"
        await self.connection.send(method, f"{self.url}/{self.transport}{query}", headers=self.headers)
        self._receiving = self._head_due = True

    async def open(self) -> Client:
        """Attach and read the open frame, where the transport has one."""
        await self.attach()
        if not self.raw:
            assert await self.frame() == "o"
        return self

    async def frame(self) -> str:
        """The next frame, from the next response where one has ended.  Pings of a WebSocket are answered on the way."""
        if self.socket is not None:
            return await self.socket.recv_text()
        pattern = _FRAME[self.transport]
        while True:
            if found := pattern.match(self._buffer):
                self._buffer = self._buffer[found.end() :]
                text = found[1].decode("ascii")
                return json.loads(text) if self.transport in ("htmlfile", "jsonp") else text
            if not self._receiving:
                assert not self._buffer, self._buffer
                await self.attach()
            self._buffer += await self._piece()

    async def _piece(self) -> bytes:
        assert self.connection is not None
        if self._head_due:
            head = await self.connection.read_head()
            assert head.status == 200, head
            self._head_due = False
            if self.transport in STREAMING:
                await self.connection.read_until(_PRELUDE_END[self.transport])
        piece = await self.connection.read_chunk()
        if not piece:
            self._receiving = False
        return piece

    async def response_end(self) -> None:
        """Wait until the receiving response ends, which must bring no more frames."""
        assert await self._piece() == b""

    async def message(self) -> str:
        """The next message; heartbeats on the way are passed over.  Raises SocketClosed for a goodbye."""
        while not self._messages:
            frame = await self.frame()
            if self.raw:
                return frame
            if frame[0] == "a":
                self._messages.extend(json.loads(frame[1:]))
            elif frame[0] == "c":
                raise SocketClosed(*json.loads(frame[1:]))
        return self._messages.popleft()

    async def goodbye(self) -> tuple[int, str]:
        """Code and reason of the session's end, whatever frames come before."""
        if self.raw:
            assert self.socket is not None
            return await self.socket.expect_close()
        while True:
            frame = await self.frame()
            if frame[0] == "c":
                code, text = json.loads(frame[1:])
                return code, text

    async def send(self, *messages: str) -> int:
        """Send messages in one payload; the HTTP status, or 0 on a WebSocket."""
        payload = json.dumps(messages)
        if self.raw:
            assert self.socket is not None
            for message in messages:
                await self.socket.send_text(message)
        elif self.socket is not None:
            await self.socket.send_text(payload)
        else:
            return await self.post(payload)
        return 0

    async def post(self, payload: str) -> int:
        if self.transport == "jsonp":
            form = (("Content-Type", "application/x-www-form-urlencoded"), *self.headers)
            body = b"d=" + quote(payload).encode()
            return (await request(self.base, "POST", f"{self.url}/jsonp_send", headers=form, body=body)).status
        body = payload.encode()
        return (await request(self.base, "POST", f"{self.url}/xhr_send", headers=self.headers, body=body)).status

    def abort(self) -> None:
        """Drop every connection without a goodbye."""
        if self.socket is not None:
            self.socket.abort()
        if self.connection is not None:
            self.connection.abort()


class Recorder(Connection):
    """An application that remembers; every subclass has a list of its own."""

    made: ClassVar[list[Recorder]]

    def __init_subclass__(cls) -> None:
        cls.made = []

    def __init__(self, session: Any) -> None:
        super().__init__(session)
        self.info: Any = None
        self.messages: list[str | bytes] = []
        self.closes: list[CloseReason | None] = []
        self.made.append(self)

    def on_open(self, info: Any) -> Any:
        self.info = info

    def on_message(self, message: str | bytes) -> Any:
        self.messages.append(message)

    def on_close(self) -> Any:
        self.closes.append(self.close_reason)


@asynccontextmanager
async def endpoint(
    connection: type[Any],
    settings: Mapping[str, Any] | None = None,
    *,
    prefix: str = "/s",
    clock: FakeClock | None = None,
    **application: Any,
) -> AsyncIterator[tuple[str, SockJSRouter]]:
    """One router in an application of its own, served."""
    router = SockJSRouter(connection, prefix, settings, clock=clock)
    async with serving(router.urls, **application) as base:
        yield base, router


async def turns(count: int = 20) -> None:
    """Let the event loop turn: whatever is on its way inside this process arrives, and nothing waits for time."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition: Callable[[], object], timeout: float = TIMEOUT_SECONDS) -> None:
    """Turn the event loop until *condition* holds; for what has no event of its own to wait for."""

    async def turn() -> None:
        while not condition():  # noqa: ASYNC110  # it is the server's own state that is looked at
            await asyncio.sleep(0)

    await asyncio.wait_for(turn(), timeout)


class Quiet:
    """Log lines from WARNING up that a test announces; any other one, and one that does not come, fails the test."""

    def __init__(self) -> None:
        self.announced: list[str] = []

    def expect(self, text: str) -> None:
        self.announced.append(text)


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[Quiet]:
    """Import this into a test module, and nothing in it may log unannounced."""
    announcements = Quiet()
    yield announcements
    lines = [record.getMessage() for record in caplog.get_records("call") if record.levelno >= logging.WARNING]
    surprises = [line for line in lines if not any(text in line for text in announcements.announced)]
    assert not surprises
    assert not [text for text in announcements.announced if not any(text in line for line in lines)]
