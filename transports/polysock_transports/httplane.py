"""HTTP on a connection taken over from Tornado: the further polls, sends and streams of a client that keeps it alive.

Reads exactly the shape of request that clients of an endpoint send.  Whatever is in any way unusual, and whatever is
for somebody else, goes back to Tornado together with the bytes already read, before anything of it was acted on: so
there is one judge of odd requests, and it is Tornado.  What becomes of a request is ``gateway.py``'s.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING, Any

from tornado.escape import parse_qs_bytes
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPHeaders
from tornado.log import access_log
from tornado.web import Application

from .clock import Clock, Timer
from .http1 import LAST_CHUNK, HeadCache, chunk
from .pipes import Exchange, Headers
from .socketpipe import Lane, Outflow
from .takeover import client_of, delist, enlist, give_back
from .wire import Route

if TYPE_CHECKING:
    from .gateway import Gateway

__all__ = ["LANE_KINDS", "HttpConnection", "HttpLane", "LaneRequest"]

log = logging.getLogger("polysock.gateway")

# RFC 9112 section 3, and of the methods those that polls and sends have.  Anything else is Tornado's to judge.
_REQUEST_LINE = re.compile(rb"(GET|POST) (/[\x21\x23-\x7e]*) HTTP/1\.1\Z")
# RFC 9110 section 5: a name that is a token, one colon, a value of visible characters, spaces and tabs; obs-fold,
# spaces before the colon, bare CR or LF and NUL are what requests are smuggled with.
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([\t \x21-\x7e\x80-\xff]*)\Z")
_ONCE = frozenset(("Host", "Content-Length", "Content-Type", "Connection", "Origin", "Cookie"))
# Fields that change how a request is read, or what it is.
_TORNADOS = ("Transfer-Encoding", "Content-Encoding", "Upgrade", "Expect")
_LENGTH = re.compile(r"[0-9]{1,10}\Z")
_MAX_HEAD_BYTES = 16 * 1024
# What a client may send ahead while its poll is parked.
_MAX_AHEAD_BYTES = 64 * 1024
#: Routes whose requests are answered on this lane (``Route.kind``).
LANE_KINDS = frozenset(("receive", "send"))
_MAX_HEADS = 512
# As long as Tornado lets a connection be idle.
_IDLE_S = 3600.0


class _Fields:
    """The header fields of a request; requests of one browser mostly share them to the byte."""

    __slots__ = ("headers", "length")

    def __init__(self, headers: HTTPHeaders, length: int) -> None:
        self.headers = headers
        self.length = length


def read_fields(block: bytes) -> _Fields | None:
    """The fields in *block* (its lines, each with its line break); None where Tornado has to look at them."""
    headers = HTTPHeaders()
    for line in block.split(b"\r\n")[:-1]:
        found = _FIELD.match(line)
        if found is None:
            return None
        name = found.group(1).decode("ascii").title()
        if name in headers and name in _ONCE:
            return None
        headers.add(name, found.group(2).strip(b" \t").decode("latin-1"))
    if "Host" not in headers or any(name in headers for name in _TORNADOS):
        return None
    if headers.get("Connection", "keep-alive").lower() != "keep-alive":
        return None
    length = headers.get("Content-Length", "0")
    return _Fields(headers, int(length)) if _LENGTH.match(length) else None


class HttpLane(Lane):
    """What the taken-over HTTP connections of one endpoint share."""

    __slots__ = ("_body_timeout_s", "_clock", "_connections", "_fields", "_idle_timer", "_waiting_for_body", "heads")

    def __init__(self, clock: Clock, *, body_timeout_s: float, **sizes: Any) -> None:
        super().__init__(**sizes)
        self.heads = HeadCache()
        self._fields: dict[bytes, _Fields] = {}
        self._clock = clock
        self._body_timeout_s = body_timeout_s
        self._connections: set[HttpConnection] = set()
        self._waiting_for_body: dict[HttpConnection, Timer] = {}
        self._idle_timer: asyncio.TimerHandle | None = None

    def watch(self, connection: HttpConnection) -> None:
        """Close *connection* when it has been idle for as long as Tornado would let it: one timer for all of them."""
        self._connections.add(connection)
        if self._idle_timer is None:
            self._idle_timer = asyncio.get_running_loop().call_later(_IDLE_S / 4, self._sweep)

    def forget(self, connection: HttpConnection) -> None:
        self.body_came(connection)
        self._connections.discard(connection)
        if not self._connections and self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None

    def _sweep(self) -> None:
        for connection in list(self._connections):
            if connection.idle_s() >= _IDLE_S:
                connection.abort()
        self._idle_timer = asyncio.get_running_loop().call_later(_IDLE_S / 4, self._sweep)

    def wait_for_body(self, connection: HttpConnection) -> None:
        """Cut *connection* where the rest of a body does not come in time."""
        self._waiting_for_body[connection] = self._clock.call_later(self._body_timeout_s, connection.abort)

    def body_came(self, connection: HttpConnection) -> None:
        timer = self._waiting_for_body.pop(connection, None)
        if timer is not None:
            timer.cancel()

    def fields(self, block: bytes) -> _Fields | None:
        found = self._fields.get(block)
        if found is None:
            found = read_fields(block)
            if found is not None:
                if len(self._fields) >= _MAX_HEADS:
                    self._fields.clear()
                self._fields[block] = found
        return found


class _Request:
    """What handlers look at of a request, under the names of ``tornado.httputil.HTTPServerRequest``."""

    __slots__ = ("_arguments", "headers", "host", "method", "path", "protocol", "query", "remote_ip", "started", "uri")

    version = "HTTP/1.1"

    def __init__(self, method: str, uri: str, headers: HTTPHeaders, remote_ip: str, protocol: str) -> None:
        self.method = method
        self.uri = uri
        self.path, _, self.query = uri.partition("?")
        self.headers = headers
        self.host = headers["Host"]
        self.remote_ip = remote_ip
        self.protocol = protocol
        self.started = asyncio.get_running_loop().time()
        self._arguments: dict[str, list[bytes]] | None = None

    @property
    def query_arguments(self) -> dict[str, list[bytes]]:
        if self._arguments is None:
            self._arguments = parse_qs_bytes(self.query, keep_blank_values=True) if self.query else {}
        return self._arguments

    arguments = query_arguments

    @property
    def cookies(self) -> SimpleCookie:
        cookies = SimpleCookie()
        try:
            cookies.load(self.headers.get("Cookie", ""))
        except CookieError:
            cookies.clear()
        return cookies

    def request_time(self) -> float:
        return asyncio.get_running_loop().time() - self.started


class LaneRequest:
    """A request that ``HttpConnection`` has read; mixed with ``GatewayHandler``, as ``TornadoRequest`` is."""

    _status = 0

    if TYPE_CHECKING:

        def initialize(self, gateway: Gateway) -> None: ...

        def _done(self, status: int) -> None: ...

    def __init__(self, connection: HttpConnection, request: _Request) -> None:
        self.initialize(connection.gateway)
        self.request = request
        self.application = connection.application
        self._connection = connection

    def _make_exchange(self) -> Exchange:
        return self._connection.begin(self._done)

    def _bound_body(self) -> None:
        """The connection's sweep does it."""

    def detach(self) -> Any:
        raise AssertionError("a request that leaves HTTP is Tornado's")

    async def _ask_application(self) -> bool:
        raise AssertionError("a request that the application has to see is Tornado's")

    def get_status(self) -> int:
        return self._status

    def _request_summary(self) -> str:
        return f"{self.request.method} {self.request.uri} ({self.request.remote_ip})"

    def _log_access(self, status: int) -> None:
        self._status = status
        if "log_function" in self.application.settings or access_log.isEnabledFor(logging.INFO) or status >= 400:
            self.application.log_request(self)  # type: ignore[arg-type]  # it has what a log line needs


class _Exchange(Exchange):
    """The answer to one request of an ``HttpConnection``."""

    __slots__ = ("_connection", "_on_done", "_status")

    def __init__(self, connection: HttpConnection, on_done: Callable[[int], None]) -> None:
        self._connection: HttpConnection | None = connection
        self._on_done: Callable[[int], None] | None = on_done
        self._status = 0

    @property
    def backlog(self) -> int:
        return self._connection.backlog if self._connection is not None else 0

    def respond(self, status: int, headers: Headers, body: bytes) -> None:
        connection = self._connection
        if connection is not None:
            self._status = status
            connection.write(connection.lane.heads.whole(status, tuple(headers), body))
            self._end(connection)

    def start(self, status: int, headers: Headers, first: bytes) -> None:
        connection = self._connection
        if connection is not None:
            self._status = status
            head = connection.lane.heads.chunked(status, tuple(headers))
            connection.write(head + chunk(first) if first else head)

    def write(self, data: bytes) -> None:
        if self._connection is not None:
            self._connection.write(chunk(data))

    def finish(self) -> None:
        connection = self._connection
        if connection is not None:
            connection.write(LAST_CHUNK)
            self._end(connection)

    def abort(self) -> None:
        connection, self._connection = self._connection, None
        self.owner = None
        if connection is not None:
            self._done()
            connection.abort()

    def lost(self) -> None:
        self._connection = None
        owner, self.owner = self.owner, None
        self._done()
        if owner is not None:
            owner.exchange_lost()

    def drained(self) -> None:
        if self.owner is not None:
            self.owner.exchange_drained()

    def _end(self, connection: HttpConnection) -> None:
        self._connection = None
        self.owner = None
        self._done()
        connection.answered()

    def _done(self) -> None:
        on_done, self._on_done = self._on_done, None
        if on_done is not None:
            on_done(self._status)


class HttpConnection(Outflow):
    """One connection, kept alive; one request at a time."""

    __slots__ = (
        "_awaiting",
        "_buffer",
        "_context",
        "_exchange",
        "_handler",
        "_host",
        "_is_paused",
        "_is_reading",
        "_need",
        "_server",
        "_since",
        "application",
        "gateway",
        "lane",
    )

    def __init__(
        self, lane: HttpLane, gateway: Gateway, application: Application, server: HTTPServer, context: Any, host: str
    ) -> None:
        """*server* and *context* are Tornado's of this connection, *host* what its first request was for."""
        super().__init__(lane)
        self.lane = lane
        self.gateway = gateway
        self.application = application
        self._server = server
        self._context = context
        self._host = host
        self._buffer: bytes | bytearray = b""
        self._need = 0  # how long the buffer must be before it is worth a look
        self._exchange: _Exchange | None = None
        self._handler: Any = None  # of a request whose body is still coming
        self._awaiting: Any = None  # of a request whose answer waits for something
        self._is_reading = False
        self._is_paused = False
        self._since = asyncio.get_running_loop().time()

    def connect(self, sock: socket.socket, rest: bytes = b"") -> None:
        """Go on over *sock*; *rest* is what was read of it before."""
        super().connect(sock)
        self._buffer = rest
        enlist(self._server, self)
        self.lane.watch(self)

    def idle_s(self) -> float:
        """How long the client has asked for nothing."""
        if self._exchange is not None or self._handler is not None:
            return 0.0
        return asyncio.get_running_loop().time() - self._since

    def begin(self, on_done: Callable[[int], None]) -> Exchange:
        """The answer to the request that was read last."""
        self._awaiting = None
        self._exchange = exchange = _Exchange(self, on_done)
        return exchange

    def answered(self) -> None:
        """The answer is complete: on to the next request."""
        self._exchange = None
        self._since = asyncio.get_running_loop().time()
        if self._is_paused:
            self._is_paused = False
            self._transport.resume_reading()
        if self._buffer and not self._is_reading:
            # In a turn of its own: whoever answers holds a call stack, and clients that send ahead would make it deep.
            asyncio.get_running_loop().call_soon(self._read)

    # -- reading

    def buffer_updated(self, count: int) -> None:
        data = self.lane.buffer[:count]
        if not self._buffer:
            self._buffer = bytes(data)
        else:
            if type(self._buffer) is bytes:
                # One that grows in place: a body in many small pieces would otherwise be copied for each of them.
                self._buffer = bytearray(self._buffer)
            self._buffer += data
        if self._exchange is not None:
            if len(self._buffer) > _MAX_AHEAD_BYTES:
                self._is_paused = True
                self._transport.pause_reading()
            return
        if len(self._buffer) >= self._need:
            self._read()

    def _read(self) -> None:
        """Serve what has come, as far as requests are whole and their predecessors answered."""
        self._is_reading = True
        try:
            while self._buffer and self._exchange is None and not self._transport.is_closing():
                if not (self._read_body() if self._handler is not None else self._read_head()):
                    break
        finally:
            self._is_reading = False

    def _read_head(self) -> bool:
        """Take a request off the buffer; False where it is not whole, or not ours."""
        data = self._buffer
        end = data.find(b"\r\n\r\n")
        if end < 0:
            self._need = len(data) + 1
            # Lines may end in LF alone for Tornado, which then sees the end of a head that never ends for us.
            if len(data) > _MAX_HEAD_BYTES or data.count(b"\n") != data.count(b"\r\n"):
                self._give_back()
            return False
        line_end = data.find(b"\r\n")
        line = _REQUEST_LINE.match(data, 0, line_end)
        fields = (
            self.lane.fields(bytes(data[line_end + 2 : end + 2]))
            if line is not None and end <= _MAX_HEAD_BYTES
            else None
        )
        # Another host may be another application, or other routes.
        if line is None or fields is None or fields.headers["Host"] != self._host:
            self._give_back()
            return False
        method = line.group(1).decode("ascii")
        remote_ip, protocol = client_of(self._server, self._context, fields.headers)
        request = _Request(method, line.group(2).decode("ascii"), fields.headers, remote_ip, protocol)
        handler = self.gateway.lane_handler(self, request)
        handler.choose()
        if not self._is_ours(handler, method, fields.length):
            self._give_back()
            return False
        self._buffer = bytes(data[end + 4 :])
        handler.admit()
        self._handler, self._need = handler, fields.length
        if len(self._buffer) < fields.length:
            self.lane.wait_for_body(self)
        return self._read_body()

    def _is_ours(self, handler: Any, method: str, length: int) -> bool:
        route = handler.route
        if type(route) is not Route or route.kind not in LANE_KINDS or route.transport in ("websocket", "rawwebsocket"):
            return False
        if method == "GET" and length:
            return False
        if route.kind == "send" or length:
            limit = handler.body_limit()
            if length > limit:
                return False
        # A session that opens is the application's own handler's to see.
        return (
            route.kind == "send"
            or self.gateway.base_handler is None
            or self.gateway.store.get(route.session_id) is not None
        )

    def _read_body(self) -> bool:
        length, data = self._need, self._buffer
        if len(data) < length:
            return False
        if length:
            self.lane.body_came(self)
        handler, self._handler, self._need = self._handler, None, 0
        body, self._buffer = (bytes(data[:length]), bytes(data[length:])) if length else (b"", data)
        try:
            result = handler.serve(body)
        except Exception:
            log.exception("a request failed on a taken-over connection: %s", handler._request_summary())
            self.abort()
            return False
        if result is not None:
            self.gateway.store.keep(asyncio.ensure_future(result))
            if self._exchange is None:
                self._awaiting, self._exchange = handler, _Exchange(self, handler._done)
        return True

    def _give_back(self) -> None:
        """The request at the start of the buffer is Tornado's, and so is the connection from here on."""
        self.send()
        transport = self._transport
        if transport.get_write_buffer_size():
            # What the peer has not taken yet has to leave first: come back when it has.
            transport.pause_reading()
            transport.set_write_buffer_limits(0)
            self._over = True
            return
        sock = transport.get_extra_info("socket").dup()
        data, self._buffer = self._buffer, b""
        delist(self._server, self)
        self.lane.forget(self)
        transport.abort()
        give_back(self._server, sock, bytes(data))

    # -- ending

    def drained(self) -> None:
        if self._exchange is not None:
            self._exchange.drained()
        elif self._buffer and not self._is_reading:
            self._read()

    def abort(self) -> None:
        self._transport.abort()

    async def close(self) -> None:
        """Cut the connection; ``HTTPServer.close_all_connections`` calls this."""
        delist(self._server, self)
        self.abort()

    def connection_lost(self, error: Exception | None) -> None:
        delist(self._server, self)
        self._buffer = b""
        handler, self._handler = self._handler or self._awaiting, None
        exchange, self._exchange, self._awaiting = self._exchange, None, None
        self.lane.forget(self)
        if handler is not None:
            handler.on_connection_close()
        if exchange is not None:
            exchange.lost()
