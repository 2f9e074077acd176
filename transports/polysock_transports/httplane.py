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
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from tornado.httpserver import HTTPServer
from tornado.log import access_log
from tornado.web import Application, RequestHandler

from .clock import Clock, Timer
from .http1 import LAST_CHUNK, ChunkCache, HeadCache, chunk
from .lanehead import MAX_ARGUMENTS, MAX_HEAD_BYTES, REQUEST_LINE, FieldCache, Fields, LaneHead
from .pipes import Exchange, Headers, Pipe
from .socketpipe import Lane, Outflow, SocketPipe
from .takeover import (
    RelayedContext,
    accepts,
    client_of,
    delist,
    describe,
    enlist,
    give_back,
    idle_limit_s,
    late_handler,
    target_of,
)
from .wire import Route

if TYPE_CHECKING:
    from .entrance import Entering
    from .gateway import Gateway
    from .transport import HttpTransport

__all__ = ["LANE_KINDS", "NOT_HTTP", "HttpConnection", "HttpLane", "LaneRequest"]

log = logging.getLogger("polysock.gateway")

#: Routes whose requests are answered on this lane (``Route.kind``).
LANE_KINDS = frozenset(("receive", "send"))
#: Transports that leave HTTP, and refuse a request that does not ask for it.
NOT_HTTP = frozenset(("websocket", "rawwebsocket", "flashsocket"))
# What clients put into the query so that no cache answers; nothing looks at it.
_STAMP = re.compile(rb"[?&]t=([0-9A-Za-z._-]{1,32})(?=[& ])")
_STAMP_TEXT = re.compile(rb"[0-9A-Za-z._-]+")
_MAX_STAMP_BYTES = 32
_VERSION = b" HTTP/1.1\r\n"
_MAX_REPEATED_LINE_BYTES = 512
_MAX_SHARED = 512
_MAX_SHARED_BYTES = 2 * 1024
_MAX_SWEEP_S = 60.0
_ERROR = (("Content-Type", "text/plain; charset=UTF-8"),)


class HttpLane(Lane):
    """What the taken-over HTTP connections of one endpoint share."""

    __slots__ = (
        "_body_timeout_s",
        "_connections",
        "_late",
        "_shared",
        "_sweep_s",
        "_sweep_timer",
        "_tasks",
        "_waiting_for_body",
        "chunks",
        "clock",
        "fields",
        "heads",
        "max_ahead_bytes",
        "received",
    )

    def __init__(self, clock: Clock, *, body_timeout_s: float, max_ahead_bytes: int, **sizes: Any) -> None:
        super().__init__(**sizes)
        self.max_ahead_bytes = max_ahead_bytes
        self.received = cast(bytearray, self.buffer.obj)
        """What was read last."""
        self.heads = HeadCache()
        self.chunks = ChunkCache()
        self.clock = clock
        self.fields = FieldCache()
        self._shared: dict[str, str] = {}
        self._late: dict[type[RequestHandler], type[RequestHandler]] = {}  # one for each time the URLs were mounted
        self._body_timeout_s = body_timeout_s
        self._connections: set[HttpConnection] = set()
        self._waiting_for_body: dict[HttpConnection, Timer] = {}
        self._tasks: set[asyncio.Future[None]] = set()
        self._sweep_timer: asyncio.TimerHandle | None = None
        self._sweep_s = 0.0

    def watch(self, connection: HttpConnection) -> None:
        """Close *connection* when it has been idle for as long as its server lets it: one timer for all of them."""
        self._connections.add(connection)
        sweep_s = min(_MAX_SWEEP_S, connection.idle_limit_s / 4)
        if self._sweep_timer is None or sweep_s < self._sweep_s:
            self._sweep_s = sweep_s
            self._sweep_later()

    def forget(self, connection: HttpConnection) -> None:
        self.body_came(connection)
        self._connections.discard(connection)
        if not self._connections:
            self._stop_sweeping()

    def _sweep(self) -> None:
        for connection in list(self._connections):
            if connection.idle_s() >= connection.idle_limit_s:
                connection.cut()
        self._sweep_later()

    def _sweep_later(self) -> None:
        self._stop_sweeping()
        # Not on the injected clock: applications' tests that turn it count its timers, and this one is no session's.
        self._sweep_timer = asyncio.get_running_loop().call_later(self._sweep_s, self._sweep)

    def _stop_sweeping(self) -> None:
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
            self._sweep_timer = None

    def wait_for_body(self, connection: HttpConnection) -> None:
        """Cut *connection* where the rest of a body does not come in time."""
        self._waiting_for_body[connection] = self.clock.call_later(self._body_timeout_s, connection.cut)

    def body_came(self, connection: HttpConnection) -> None:
        timer = self._waiting_for_body.pop(connection, None)
        if timer is not None:
            timer.cancel()

    def keep(self, answering: Awaitable[None], done: Callable[[asyncio.Future[None]], None]) -> None:
        """Have *answering* run; *done* gets its future when it is over."""
        task = asyncio.ensure_future(answering)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(done)

    def late(self, kind: type[RequestHandler]) -> type[RequestHandler]:
        """What log functions get in place of a *kind* of handler."""
        found = self._late.get(kind)
        if found is None:
            found = self._late[kind] = late_handler(kind)
        return found

    def shared(self, head: str) -> str:
        """*head*, or an equal one that was shared before."""
        if len(head) > _MAX_SHARED_BYTES:
            return head
        if len(self._shared) >= _MAX_SHARED:
            self._shared.clear()
        return self._shared.setdefault(head, head)


class LaneRequest:
    """A request that ``HttpConnection`` has read; mixed with ``GatewayHandler``, as ``TornadoRequest`` is."""

    _status = 0

    if TYPE_CHECKING:  # of ``GatewayHandler``
        gateway: Gateway
        _carrier: HttpTransport | None
        _exchange: Exchange | None
        _route: Any
        is_elsewhere: bool

        def initialize(self, gateway: Gateway) -> None: ...

        def _done(self, status: int) -> None: ...

        def _receive(self, route: Route) -> Awaitable[None] | None: ...

        def _answer(self, status: int, headers: Headers, body: bytes = b"") -> None: ...

    def __init__(self, connection: HttpConnection | Entering, request: LaneHead) -> None:
        self.initialize(connection.gateway)
        self.request = request
        self.application = connection.application
        self._connection = connection
        self._started = request.started
        self._uri = request.uri

    def _make_exchange(self) -> Exchange:
        return self._connection.begin(self._done)

    @property
    def is_relayed(self) -> bool:
        return self._connection.is_relayed

    @property
    def may_repeat(self) -> bool:
        """Whether ``again`` would do for the same request."""
        return (self._carrier is not None or self.is_elsewhere) and self.gateway.origins.is_fixed

    def again(self, uri: str | None) -> bool:
        """Serve the same request once more, its answer being over; False where it has to be judged anew.

        *uri*: where that is not as before.  What the head says is the same, so what was found about it is too.
        """
        route, gateway = self._route, self.gateway
        relay: Any = gateway.relay
        node = None
        if self.is_elsewhere:
            node = relay.node_of_poll(self, route.session_id) if relay is not None else None
            if node is None:
                return False
        elif gateway.store.get(route.session_id) is None:
            return False
        self._started = time.monotonic()
        self._exchange = None
        if uri is not None:
            self._uri = uri
        if node is None:
            self._receive(route)
        else:
            if uri is not None:
                self.request = self.request.again(uri, self._started)
            relay.poll_again(self, route, node)
        return True

    def _keep(self, carrier: HttpTransport) -> None:
        self._carrier = carrier

    def _bound_body(self) -> None:
        """The connection does it."""

    def _no_more_body(self) -> None:
        """Nobody waits for it."""

    def _make_pipe(self, *, fast: bool) -> Pipe:
        assert fast
        return self._connection.leave()

    async def _ask_application(self) -> bool:
        raise AssertionError("a request that the application has to see is Tornado's")

    def fail(self) -> None:
        """It could not be served: say so, or where the answer has begun, cut it off."""
        if self._exchange is None:
            self._answer(500, _ERROR, b"Internal Server Error\n")
        else:
            self._connection.cut()

    def get_status(self) -> int:
        return self._status

    def _request_summary(self) -> str:
        return f"{self.request.method} {self.request.uri} ({self.request.remote_ip})"

    def _log_access(self, status: int) -> None:
        self._status = status
        application = self.application
        ordinary = getattr(application.log_request, "__func__", None) is Application.log_request
        if not ordinary or "log_function" in application.settings:
            # The application's own takes a handler of Tornado's, all of it.
            connection = self._connection
            late, named = connection.lane.late(connection.kind), {"gateway": connection.gateway}
            answered = (application, self.request, self._uri, self._started, status, named)
            application.log_request(describe(late, answered))
        elif status >= 400 or access_log.isEnabledFor(logging.INFO):
            self.request = self.request.again(self._uri, self._started)
            application.log_request(self)  # type: ignore[arg-type]  # it has what a log line needs


class _Exchange(Exchange):
    """The answer to one request of an ``HttpConnection``."""

    __slots__ = ("_connection", "_on_done", "_status", "owner")

    def __init__(self, connection: HttpConnection | None, on_done: Callable[[int], None]) -> None:
        """*connection*: None where the client has left before the answer began."""
        self.owner = None
        self._connection = connection
        self._on_done: Callable[[int], None] | None = on_done
        self._status = 0

    @property
    def backlog(self) -> int:
        return self._connection.backlog if self._connection is not None else 0

    def respond(self, status: int, headers: Headers, body: bytes) -> None:
        self._status = status
        connection = self._connection
        if connection is not None:
            connection.write(connection.lane.heads.whole(status, tuple(headers), body))
            self._end(connection)
        else:
            self._done()

    def start(self, status: int, headers: Headers, first: bytes) -> None:
        self._status = status
        connection = self._connection
        if connection is not None:
            head = connection.lane.heads.chunked(status, tuple(headers))
            connection.write(head + chunk(first) if first else head)

    def write(self, data: bytes) -> None:
        connection = self._connection
        if connection is not None:
            connection.write(connection.lane.chunks.chunk(data))

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
            connection.cut()

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
        connection.answered()
        self._done()

    def _done(self) -> None:
        on_done, self._on_done = self._on_done, None
        if on_done is not None:
            on_done(self._status)


class HttpConnection(Outflow):
    """One connection, kept alive; one request at a time."""

    __slots__ = (
        "_again",
        "_awaiting",
        "_buffer",
        "_context",
        "_exchange",
        "_handler",
        "_host",
        "_is_reading",
        "_line",
        "_line_end",
        "_need",
        "_routed",
        "_server",
        "_since",
        "application",
        "gateway",
        "kind",
        "lane",
    )

    def __init__(
        self,
        lane: HttpLane,
        gateway: Gateway,
        application: Application,
        kind: type[RequestHandler],
        server: HTTPServer,
        context: Any,
        host: str,
    ) -> None:
        """*server* and *context* are Tornado's of this connection; *host* is what its first request was for, and *kind*
        the handler that Tornado's routing found for it."""
        super().__init__(lane)
        self.lane = lane
        self.gateway = gateway
        self.application = application
        self.kind = kind
        self._server = server
        self._context = context
        self._host = host
        self._buffer: bytes | bytearray = b""
        self._need = 0  # how long a body must be to be whole
        self._exchange: _Exchange | None = None
        self._handler: Any = None  # of a request whose body is still coming
        self._awaiting: Any = None  # of a request whose answer waits for something
        self._routed: tuple[Fields, str, str] | None = None  # what Tornado's routing has sent to us
        # A poll, which its client will ask for again: its handler, and its request line up to a stamp and after it.
        self._again: Any = None
        self._line = self._line_end = b""
        self._is_reading = False
        self._since = lane.clock.now()

    def connect(self, sock: socket.socket, rest: bytes = b"") -> None:
        """Go on over *sock*; *rest* is what was read of it before."""
        super().connect(sock)
        self._buffer = rest
        enlist(self._server, self)
        self.lane.watch(self)

    @property
    def is_relayed(self) -> bool:
        """Whether it is another node that passes requests on here."""
        return type(self._context) is RelayedContext

    @property
    def idle_limit_s(self) -> float:
        return idle_limit_s(self._server)

    def idle_s(self) -> float:
        """How long the client has asked for nothing."""
        if self._handler is not None or self._is_busy:
            return 0.0
        return self.lane.clock.now() - self._since

    @property
    def _is_busy(self) -> bool:
        """Whether the next request has to wait: its predecessor is not answered, or the client not taking answers."""
        return self._exchange is not None or self._awaiting is not None or self._over

    def begin(self, on_done: Callable[[int], None]) -> Exchange:
        """The answer to the request that was read last."""
        self._awaiting = None
        if self._transport.is_closing():
            gone = _Exchange(None, on_done)
            asyncio.get_running_loop().call_soon(gone.lost)  # for whoever answers in parts
            return gone
        self._exchange = exchange = _Exchange(self, on_done)
        return exchange

    def leave(self) -> SocketPipe:
        raise AssertionError("a request that leaves HTTP is Tornado's, unless it is the first of its connection")

    def answered(self) -> None:
        """The answer is complete: on to the next request."""
        self._exchange = None
        self._since = self.lane.clock.now()
        if (self._buffer or self._is_paused) and not self._is_reading:
            # In a turn of its own: whoever answers holds a call stack, and clients that send ahead would make it deep.
            asyncio.get_running_loop().call_soon(self._read)

    # -- reading

    def buffer_updated(self, count: int) -> None:
        if self._again is not None and self._exchange is None and not self._buffer and not self._over:
            if self._read_again(self._again, count):
                return
            self._again = None
        if self._is_paused:
            self.pause_again()
        data = bytes(self.lane.buffer[:count])
        self._buffer = self._buffer + data if self._handler is None else self._longer_body(data)
        if self._handler is None or len(self._buffer) >= self._need:
            self._read()

    def _longer_body(self, data: bytes) -> bytearray:
        body = self._buffer
        if not isinstance(body, bytearray):
            body = bytearray(body)  # which grows in place, however small the pieces are
        body += data
        return body

    def _read(self, judged: tuple[Any, Fields, bytes] | None = None) -> None:
        """Serve what has come, as far as requests are whole and their predecessors answered.

        *judged*: a request that comes first, as ``_take`` has it.
        """
        self._is_reading = True
        transport = self._transport
        try:
            if judged is not None:
                self._take(*judged)
            while self._buffer and not self._is_busy and not transport.is_closing():
                if not (self._read_body() if self._handler is not None else self._read_head()):
                    break
        except Exception:
            log.exception("a taken-over connection failed")
            self.cut()
        finally:
            self._is_reading = False
        too_far = self._is_busy and len(self._buffer) > self.lane.max_ahead_bytes
        if too_far is not self._is_paused:
            self._is_paused = too_far
            if too_far:
                transport.pause_reading()
            else:
                transport.resume_reading()

    def _read_again(self, handler: Any, count: int) -> bool:
        """Serve what came where it is, to the byte and in one piece, the poll that was served before.

        It may differ in its stamp.  False where nothing was done.
        """
        data, line, block = self.lane.received, self._line, self._routed[0].block  # type: ignore[index]  # polls have been
        at, uri = len(line), None
        if not data.startswith(line):
            return False
        if self._line_end:
            end = count - len(block) - len(self._line_end)
            if not at < end <= at + _MAX_STAMP_BYTES or _STAMP_TEXT.fullmatch(data, at, end) is None:
                return False
            if not data.startswith(self._line_end, end):
                return False
            at = end + len(self._line_end)
            uri = data[data.index(b"/") : at - len(_VERSION)].decode("ascii")
        if count != at + len(block) or not data.startswith(block, at):
            return False
        try:
            return handler.again(uri)  # type: ignore[no-any-return]
        except Exception:
            log.exception("a request failed: %s", handler._request_summary())
            handler.fail()
            return True

    def _remember(self, handler: Any, line: bytes, fields: Fields) -> None:
        """*handler* has served a poll with this request *line* and *fields*: know it again."""
        if fields.length:
            return  # what follows the same head is a body, and would be taken for the next request
        longest = len(line) + len(fields.block) + _MAX_STAMP_BYTES
        if not fields.block or len(line) > _MAX_REPEATED_LINE_BYTES or not accepts(self._server, longest, 0):
            return
        self._again = handler
        query = line.find(b"?")
        stamp = _STAMP.search(line, query) if query >= 0 else None
        at, end = stamp.span(1) if stamp is not None else (len(line), len(line))
        self._line, self._line_end = line[:at], line[end:]

    def _read_head(self) -> bool:
        """Take a request off the buffer; False where it is not whole, or not ours."""
        data = self._buffer
        end = data.find(b"\r\n\r\n")
        if end < 0:
            # To Tornado a bare LF ends a line too, and so this may be a whole head.
            if len(data) > MAX_HEAD_BYTES or data.count(b"\n") != data.count(b"\r\n"):
                self._give_back()
            return False
        line_end = data.find(b"\r\n")
        line = REQUEST_LINE.match(data, 0, line_end)
        is_short = line is not None and end <= MAX_HEAD_BYTES
        fields = self.lane.fields.find(bytes(data[line_end + 2 : end + 2])) if is_short else None
        # Another host may be another application, or other routes.
        if line is None or fields is None or fields.leaves_http or fields.headers["Host"] != self._host:
            self._give_back()
            return False
        remote_ip, protocol = client_of(self._server, self._context, fields.headers)
        request = LaneHead.read(line, fields, remote_ip, protocol)
        handler = self._judge(request, fields, end + 4)
        if handler is None:
            self._give_back()
            return False
        self._buffer = data[end + 4 :]
        return self._take(handler, fields, bytes(data[: line_end + 2]))

    def serve_first(
        self, sock: socket.socket, request: LaneHead, fields: Fields, head: tuple[bytes, bytes], rest: bytes
    ) -> bool:
        """Go on over *sock*, whose first *request* was routed to this endpoint, and was read from *head*, its line and
        its fields.  *rest* was read with it.

        False where nothing was done: it is Tornado's.
        """
        self._routed = (fields, request.path, request.method)
        handler = self._judge(request, fields, sum(map(len, head)))
        if handler is None:
            return False
        self.connect(sock, rest)
        self._read((handler, fields, head[0]))
        return True

    def _judge(self, request: LaneHead, fields: Fields, head_bytes: int) -> Any:
        """The handler of *request*, which is admitted; None where the request is not ours."""
        handler = self.gateway.lane_handler(self, request)
        try:
            ours = self._is_ours(handler, request.method, head_bytes, fields.length)
            if not ours or not self._is_routed_here(request, fields):
                return None
            handler.admit()
        except Exception:
            return None  # it fails in Tornado too, which reports it
        return handler

    def _take(self, handler: Any, fields: Fields, line: bytes) -> bool:
        """Serve what was judged, once its body is there; *line* is the request line."""
        self._again = None
        self._handler, self._need = handler, fields.length
        if len(self._buffer) < fields.length:
            self.lane.wait_for_body(self)
        is_served = self._read_body()
        if handler.may_repeat and not self._transport.is_closing():
            self._remember(handler, line, fields)
        return is_served

    def _is_ours(self, handler: Any, method: str, head_bytes: int, length: int) -> bool:
        handler.choose()
        route, gateway = handler.route, self.gateway
        if type(route) is not Route or route.kind not in LANE_KINDS or route.transport in NOT_HTTP:
            return False
        if method == "GET" and length:
            return False
        if length and length > handler.body_limit():
            return False
        if not accepts(self._server, head_bytes, length) or handler.request.query.count("&") >= MAX_ARGUMENTS:
            return False
        # A session that opens is the application's own handler's to see; one that is there may be gone with the body.
        return (
            route.kind == "send"
            or gateway.base_handler is None
            or (not length and gateway.store.get(route.session_id) is not None)
        )

    def _is_routed_here(self, request: LaneHead, fields: Fields) -> bool:
        """Whether Tornado's routing sends *request* to this endpoint too: other rules may come before its own."""
        known = self._routed
        if known is not None and known[0] is fields and known[1] == request.path and known[2] == request.method:
            return True
        target = target_of(self._server, request)
        if target is None or target[0] is not self.application:
            return False
        arguments = target[1]
        if not isinstance(arguments, dict) or arguments.get("gateway") is not self.gateway:
            return False
        self._routed = (fields, request.path, request.method)
        return True

    def _read_body(self) -> bool:
        length, data = self._need, self._buffer
        if len(data) < length:
            return False
        if length:
            self.lane.body_came(self)
        handler, self._handler, self._need = self._handler, None, 0
        if length:
            body, self._buffer = bytes(data[:length]), bytes(data[length:])
        else:
            body = b""
        try:
            answering = handler.serve(body)
        except Exception:
            log.exception("a request failed: %s", handler._request_summary())
            handler.fail()
            return True
        if answering is not None:
            if self._exchange is None:
                self._awaiting = handler
            self.lane.keep(answering, partial(self._answered_late, handler))
        return True

    def _answered_late(self, handler: Any, answering: asyncio.Future[None]) -> None:
        """What *handler* had to wait for is over, and so is *handler*."""
        error = None if answering.cancelled() else answering.exception()
        if error is not None:
            log.error("a request failed: %s", handler._request_summary(), exc_info=error)
        begun = self._exchange is not None and self._exchange is handler._exchange
        if self._awaiting is handler or (error is not None and begun):
            handler.fail()

    def _give_back(self) -> None:
        """The request at the start of the buffer is Tornado's, and so is the connection from here on."""
        self.send()
        transport = self._transport
        if transport.is_closing():
            return
        if transport.get_write_buffer_size():
            # What the peer has not taken yet has to leave first: come back when it has.
            transport.pause_reading()
            transport.set_write_buffer_limits(0)
            self._over = True
            return
        try:
            sock = transport.get_extra_info("socket").dup()
        except OSError as error:
            log.warning("a connection could not be given back to Tornado: %s", error)
            self.cut()
            return
        data, self._buffer = bytes(self._buffer), b""
        self._again = None
        delist(self._server, self)
        self.lane.forget(self)
        self.cut()
        give_back(self._server, self._context, sock, data)

    # -- ending

    def drained(self) -> None:
        if self._exchange is not None:
            self._exchange.drained()
        elif not self._is_reading:
            self._read()

    async def close(self) -> None:
        """Cut the connection; ``HTTPServer.close_all_connections`` calls this."""
        delist(self._server, self)
        self.cut()

    def connection_lost(self, error: Exception | None) -> None:
        delist(self._server, self)
        self.lane.forget(self)
        self._buffer = b""
        super().connection_lost(error)
        handler, exchange = self._handler or self._awaiting, self._exchange
        self._handler = self._awaiting = self._exchange = self._again = None
        if handler is not None:
            handler.on_connection_close()
        if exchange is not None:
            exchange.lost()
