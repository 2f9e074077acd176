"""HTTPServer: Tornado's, which a first request does not pass through where it is an endpoint's own.

Tornado makes a stream, a task and a parser for each connection, and an endpoint takes most of them apart at once.  Here
a new connection's first bytes are looked at before that.  A request in the shape that ``lanehead.py`` reads, for an
endpoint, goes to ``httplane.py`` or becomes a WebSocket; all else is passed on to Tornado with its bytes, and nothing
has happened to it.  Under any other server the endpoints work as well, from the second request on.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

import tornado.httpserver
from tornado.ioloop import IOLoop
from tornado.platform.asyncio import BaseAsyncIOLoop
from tornado.web import Application, RequestHandler

from .gateway import Gateway, TornadoRequest
from .httplane import NOT_HTTP, HttpConnection, HttpLane
from .lanehead import MAX_ARGUMENTS, MAX_HEAD_BYTES, PLAIN_HOST, REQUEST_LINE, FieldCache, LaneHead
from .pipes import Exchange
from .rfc6455 import VERSION
from .socketpipe import SocketPipe
from .takeover import accepts, client_of, delist, enlist, first_context, may_be_passed_by, pass_on, target_of
from .wire import Route

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["HTTPServer"]

log = logging.getLogger("polysock.gateway")

#: How long a connection may be silent here before it is Tornado's, whose own limits hold from then on.
SILENT_S = 5.0
#: So many connections are accepted in a row; then it is the turn of those that are there.
ACCEPTED_IN_A_ROW = 128
#: How long nobody is let in when there is nothing left to let them in with.
ACCEPT_PAUSE_S = 1.0
_EXHAUSTED = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))


class HTTPServer(tornado.httpserver.HTTPServer):
    """``tornado.httpserver.HTTPServer`` with all of its arguments and methods, on which new clients cost less.

    Only connections on plain TCP differ; on Windows, and where the application counts or filters requests before its
    routes, none does.

    When the process may open no more files, those that want to come in wait, with one line in the log (Tornado's own
    tries again in every turn of the loop, and logs a traceback each time).
    """

    def initialize(self, *args: Any, **named: Any) -> None:
        super().initialize(*args, **named)
        self.fields = FieldCache()
        self._newcomers: dict[_Newcomer, float] = {}  # silent ones, the oldest first, and since when
        self._timer: asyncio.TimerHandle | None = None
        self._looks_first = self.ssl_options is None and sys.platform != "win32" and may_be_passed_by(self)

    def add_sockets(self, sockets: Iterable[socket.socket]) -> None:
        if sys.platform == "win32":
            super().add_sockets(sockets)
            return
        for sock in sockets:
            door = _Door(self, sock)
            self._sockets[sock.fileno()] = sock
            self._handlers[sock.fileno()] = door.close
            door.open()

    def _handle_connection(self, connection: socket.socket, address: Any) -> None:
        if not self._looks_first:
            super()._handle_connection(connection, address)
            return
        try:
            connection.setblocking(False)
            _Newcomer(self, connection, address).read()
        except Exception:
            log.exception("a new connection failed")
            connection.close()

    def _wait(self, newcomer: _Newcomer) -> None:
        self._newcomers[newcomer] = asyncio.get_running_loop().time()
        enlist(self, newcomer)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SILENT_S, self._look_for_silent)

    def _forget(self, newcomer: _Newcomer) -> None:
        del self._newcomers[newcomer]
        delist(self, newcomer)
        if not self._newcomers and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look_for_silent(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        for newcomer, since in list(self._newcomers.items()):
            if since + SILENT_S > loop.time():
                self._timer = loop.call_at(since + SILENT_S, self._look_for_silent)
                return
            newcomer.give_up()


class _Door:
    """A listening socket."""

    def __init__(self, server: HTTPServer, sock: socket.socket) -> None:
        self._server = server
        self._sock = sock
        # (Not the running loop: programs of the older kind listen first, and start the loop then.)
        self._loop: asyncio.AbstractEventLoop = cast(BaseAsyncIOLoop, IOLoop.current()).asyncio_loop
        self._is_closed = False
        self._pause: asyncio.TimerHandle | None = None

    def open(self) -> None:
        self._pause = None
        self._loop.add_reader(self._sock, self._accept)

    def close(self) -> None:
        self._is_closed = True
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._sock)

    def _accept(self) -> None:
        for _ in range(ACCEPTED_IN_A_ROW):
            try:
                connection, address = self._sock.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionAbortedError:
                continue  # it was closed while it waited (BSD)
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                log.error("nobody is let in for %g s: %s (see ulimit -n)", ACCEPT_PAUSE_S, error)
                self._loop.remove_reader(self._sock)
                self._pause = self._loop.call_later(ACCEPT_PAUSE_S, self.open)
                return
            self._server._handle_connection(connection, address)
            if self._is_closed:
                return


class _Newcomer:
    """A connection that was accepted and of which nothing was read."""

    __slots__ = ("_address", "_is_waiting", "_server", "_sock")

    def __init__(self, server: HTTPServer, sock: socket.socket, address: Any) -> None:
        self._server = server
        self._sock = sock
        self._address = address
        self._is_waiting = False

    def read(self) -> None:
        """See what came; or come here again when something has."""
        try:
            data = self._sock.recv(MAX_HEAD_BYTES)
        except (BlockingIOError, InterruptedError):
            if not self._is_waiting:
                self._is_waiting = True
                asyncio.get_running_loop().add_reader(self._sock, self.read)
                self._server._wait(self)
            return
        except OSError:
            data = b""
        self._wait_no_more()
        if not data:
            self._sock.close()
            return
        self._serve(data)

    def _wait_no_more(self) -> None:
        if self._is_waiting:
            self._is_waiting = False
            asyncio.get_running_loop().remove_reader(self._sock)
            self._server._forget(self)

    def give_up(self) -> None:
        """It is silent: let Tornado have it."""
        self._wait_no_more()
        self._serve(b"")

    def _serve(self, data: bytes) -> None:
        try:
            if not data or not _enter(self._server, self._sock, self._address, data):
                pass_on(self._server, self._sock, self._address, data)
        except Exception:
            log.exception("a new connection failed")
            self._sock.close()

    async def close(self) -> None:
        """Close the connection; ``HTTPServer.close_all_connections`` calls this."""
        self._wait_no_more()
        self._sock.close()


def _enter(server: HTTPServer, sock: socket.socket, address: Any, data: bytes) -> bool:
    """Serve the request at the start of *data*, the first bytes of a connection; False where nothing was done."""
    end = data.find(b"\r\n\r\n") + 4
    line_end = data.find(b"\r\n") + 2
    line = REQUEST_LINE.match(data, 0, line_end - 2) if end >= 4 else None
    fields = server.fields.find(data[line_end : end - 2]) if line is not None else None
    if line is None or fields is None or PLAIN_HOST.match(fields.headers["Host"]) is None:
        return False
    context = first_context(server, sock, address)
    request = LaneHead.read(line, fields, *client_of(server, context, fields.headers))
    application, named, kind = target_of(server, request) or (None, None, None)
    gateway = named.get("gateway") if isinstance(named, dict) else None
    if not isinstance(gateway, Gateway) or not gateway.fast_lane or not isinstance(application, Application):
        return False
    if not isinstance(kind, type) or not issubclass(kind, TornadoRequest):
        return False
    rest = data[end:]

    def connection() -> HttpConnection:
        return HttpConnection(gateway.lane, gateway, application, kind, server, context, request.host)

    if not fields.leaves_http:
        return connection().serve_first(sock, request, fields, (data[:line_end], data[line_end:end]), rest)
    if gateway.base_handler is not None or gateway.compression is not None or not accepts(server, end, 0):
        return False
    return Entering(gateway, application, kind, sock, rest, connection).serve(request)


class Entering:
    """A new connection whose first request wants to be a WebSocket: in place of ``HttpConnection`` until it is one, or
    until it is refused."""

    __slots__ = (
        "_connect",
        "_connection",
        "_handler",
        "_is_watched",
        "_rest",
        "_sock",
        "application",
        "gateway",
        "kind",
    )

    is_relayed = False

    def __init__(
        self,
        gateway: Gateway,
        application: Application,
        kind: type[RequestHandler],
        sock: socket.socket,
        rest: bytes,
        connect: Callable[[], HttpConnection],
    ) -> None:
        self.gateway = gateway
        self.application = application
        self.kind = kind
        self._sock = sock
        self._rest = rest
        self._connect = connect
        self._connection: HttpConnection | SocketPipe | None = None
        self._handler: Any = None
        self._is_watched = False

    @property
    def lane(self) -> HttpLane:
        return self.gateway.lane

    def serve(self, request: LaneHead) -> bool:
        """False where nothing was done: the request is Tornado's."""
        handler = self._judge(request)
        if handler is None:
            return False
        try:
            answering = handler.serve(b"")
        except Exception:
            log.exception("a request failed: %s", handler._request_summary())
            handler.fail()
            return True
        if answering is not None:
            self._handler = handler
            if self._connection is None:
                self._watch()
            self.lane.keep(answering, self._answered_late)
        return True

    def _judge(self, request: LaneHead) -> Any:
        gateway = self.gateway
        handler = gateway.lane_handler(self, request)
        if request.query.count("&") >= MAX_ARGUMENTS:
            return None
        # What is older than the RFC may have something like a body, and goes on in Tornado's stream.
        if gateway.draft76 and request.headers.get("Sec-WebSocket-Version") != VERSION:
            return None
        try:
            handler.choose()
            route = handler.route
            if type(route) is not Route or route.kind != "receive" or route.transport not in NOT_HTTP:
                return None
            if gateway.relay is not None and gateway.relay.socket_node(handler, route.session_id) is not None:
                return None
            handler.admit()
        except Exception:
            return None  # it fails in Tornado too, which reports it
        return handler

    # -- while the answer waits for something

    def _watch(self) -> None:
        """Tell the handler should the client leave."""
        self._is_watched = True
        asyncio.get_running_loop().add_reader(self._sock, self._look)

    def _look(self) -> None:
        self._watch_no_more()
        try:
            if self._sock.recv(1, socket.MSG_PEEK):
                return  # it does not wait for the answer, and its leaving is found out at the first write
        except OSError:
            pass
        self._handler.on_connection_close()

    def _watch_no_more(self) -> None:
        if self._is_watched:
            self._is_watched = False
            asyncio.get_running_loop().remove_reader(self._sock)

    def _answered_late(self, answering: asyncio.Future[None]) -> None:
        handler, self._handler = self._handler, None
        error = None if answering.cancelled() else answering.exception()
        if error is not None:
            log.error("a request failed: %s", handler._request_summary(), exc_info=error)
            handler.fail()
        elif self._connection is None:
            self.cut()  # the client has left

    # -- the answer

    def begin(self, on_done: Callable[[int], None]) -> Exchange:
        """The request is not to be a WebSocket: the connection goes on as any other."""
        self._watch_no_more()
        self._connection = connection = self._connect()
        connection.connect(self._sock, self._rest)
        return connection.begin(on_done)

    def leave(self) -> SocketPipe:
        """The connection, whose next bytes are not HTTP any more."""
        self._watch_no_more()
        self._connection = pipe = SocketPipe(self.lane, self._rest)
        pipe.connect(self._sock)
        return pipe

    def cut(self) -> None:
        self._watch_no_more()
        if self._connection is None:
            self._sock.close()
        else:
            self._connection.cut()
