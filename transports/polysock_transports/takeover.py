"""Taking a connection out of Tornado's hands, and giving it back.  Everything that leans on Tornado's insides for that.

Tornado accepts the connection, reads the request and finds us.  From then on an asyncio transport costs a fraction of
an ``IOStream``.  What is used here beside the documented interfaces is named, and ``tests/test_takeover.py`` holds each
supported Tornado to it; where something is not as expected, the connection simply stays with Tornado.
"""

from __future__ import annotations

import asyncio
import inspect
import socket
import time
from typing import Any, Protocol

from tornado.http1connection import HTTP1ServerConnection
from tornado.httpserver import HTTPServer, _HTTPRequestContext
from tornado.httputil import HTTPHeaders, HTTPServerRequest, RequestStartLine
from tornado.iostream import IOStream
from tornado.routing import Router
from tornado.web import Application, RequestHandler

from .relaywire import RELAY_HEADER, read_passed

__all__ = [
    "Closable",
    "PromptHandler",
    "RelayedContext",
    "accepts",
    "can_take_over",
    "client_of",
    "delist",
    "describe",
    "enlist",
    "find_server",
    "first_context",
    "give_back",
    "idle_limit_s",
    "late_handler",
    "may_be_passed_by",
    "pass_on",
    "serve_relayed",
    "take_over",
    "target_of",
]


def can_take_over(stream: IOStream) -> bool:
    """Whether ``take_over`` would work: no TLS, not closed, nothing waiting to be written, nobody reading."""
    # A subclass (TLS above all) does more between the socket and us than we could take along.
    if type(stream) is not IOStream or stream.closed() or stream.writing() or stream.reading():
        return False
    inside: Any = stream
    return inside.socket is not None and len(inside._read_buffer) == inside._read_buffer_size


def take_over(stream: IOStream) -> tuple[socket.socket, bytes]:
    """The socket of *stream*, which ends as a stream, and what it has read and nobody has taken.

    *stream* has been detached from its HTTP connection, and ``can_take_over`` it.
    """
    inside: Any = stream
    sock: socket.socket = inside.socket
    rest = bytes(inside._read_buffer)
    if inside._state is not None:
        stream.io_loop.remove_handler(sock.fileno())
        inside._state = None
    stream.set_close_callback(None)
    inside._read_buffer = bytearray()
    inside._read_buffer_size = 0
    inside._closed = True  # whoever still holds it finds a stream that has ended
    inside.socket = None
    return sock, rest


class PromptHandler(RequestHandler):
    """A handler of streamed bodies that may leave with its connection as soon as the head of its request has come.

    Tornado serves a request in a task of its own and after the body, were it empty, and then listens for the end of the
    connection.  Who detaches the connection while it is told of the head (``HTTP1Connection.detach``) saves that.
    """

    def leaves_at_once(self) -> bool:
        """Serve the request now, if that detaches its connection; False where the connection is Tornado's yet."""
        return False

    def _execute(self, transforms: Any, *args: bytes, **kwargs: bytes) -> Any:
        prepared: asyncio.Future[None] | None = getattr(self, "_prepared_future", None)
        if prepared is None or args or kwargs or not self.leaves_at_once():
            return super()._execute(transforms, *args, **kwargs)
        self.path_args, self.path_kwargs = [], {}
        prepared.set_result(None)
        done: asyncio.Future[None] = asyncio.Future()
        done.set_result(None)
        return done


def find_server(server_connection: object) -> HTTPServer | None:
    """The server whose connection this is (``HTTPServerRequest.server_connection``), so that it can be given back.

    None where it is not known, or where requests are not for us to answer past it (``may_be_passed_by``).
    """
    serving = getattr(server_connection, "_serving_future", None)
    if not isinstance(serving, asyncio.Task):
        return None
    coroutine: Any = serving.get_coro()
    if not inspect.iscoroutine(coroutine):
        return None
    server = inspect.getcoroutinelocals(coroutine).get("delegate")
    return server if isinstance(server, HTTPServer) and may_be_passed_by(server) else None


def may_be_passed_by(server: HTTPServer) -> bool:
    """Whether requests to *server* may be answered past it: nobody else waits for them there."""
    # What an application has put between the connection and its router (to count, to filter) sees every request.
    router = server.request_callback
    return (
        not server.conn_params.no_keep_alive
        and isinstance(router, Router)
        and type(router).start_request is Router.start_request
        and type(server).start_request is HTTPServer.start_request
    )


def first_context(server: HTTPServer, sock: socket.socket, address: Any) -> Any:
    """What *server* would have as ``HTTP1Connection.context`` of a new plain connection."""
    return _HTTPRequestContext(_Plain(sock), address, server.protocol, server.trusted_downstream)  # type: ignore[arg-type]


class _Plain:
    """What a context is read from."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock


def pass_on(server: HTTPServer, sock: socket.socket, address: Any, data: bytes) -> None:
    """Have *server* serve a new plain connection, of which *data* was read."""
    server.handle_stream(_stream_on(server, sock, data), address)


def give_back(server: HTTPServer, context: object, sock: socket.socket, data: bytes) -> None:
    """Let *server* serve the connection from here on; *data* is what was read of its next request.

    Does what ``HTTPServer.handle_stream`` does with a new connection, but for *context*, which is that of the
    connection from before (``HTTP1Connection.context``): its address may be one that cannot be asked for any more, or
    was never the socket's own.
    """
    connection = HTTP1ServerConnection(_stream_on(server, sock, data), server.conn_params, context)
    server._connections.add(connection)
    connection.start_serving(server)


def _stream_on(server: HTTPServer, sock: socket.socket, data: bytes) -> IOStream:
    stream = IOStream(sock, max_buffer_size=server.max_buffer_size, read_chunk_size=server.read_chunk_size)
    inside: Any = stream
    inside._read_buffer += data
    inside._read_buffer_size = len(data)
    return stream


class RelayedContext:
    """In place of Tornado's own (``HTTP1Connection.context``) on a connection by which another node passes requests on.

    Every request there brings its client's address and scheme along; needs a server with ``xheaders``.
    """

    remote_ip = "0.0.0.0"  # as Tornado says of a Unix socket
    protocol = "http"

    def __str__(self) -> str:
        return "another node"

    def _apply_xheaders(self, headers: HTTPHeaders) -> None:
        passed = read_passed(headers.get(RELAY_HEADER, ""))
        self.remote_ip, self.protocol = passed.address, passed.scheme

    def _unapply_xheaders(self) -> None:
        self.remote_ip, self.protocol = RelayedContext.remote_ip, RelayedContext.protocol


def serve_relayed(server: HTTPServer, stream: IOStream) -> None:
    """Let *server* serve *stream*, on which another node passes requests on."""
    connection = HTTP1ServerConnection(stream, server.conn_params, RelayedContext())
    server._connections.add(connection)
    connection.start_serving(server)


def accepts(server: HTTPServer, head_bytes: int, body_bytes: int) -> bool:
    """Whether *server* would read a request of this size."""
    settings = server.conn_params
    largest = settings.max_body_size if settings.max_body_size is not None else server.max_buffer_size
    return head_bytes <= settings.max_header_size and (largest is None or body_bytes <= largest)


def idle_limit_s(server: HTTPServer) -> float:
    """How long *server* lets a connection be without a request, in seconds."""
    limit: float | None = server.conn_params.header_timeout
    return float("inf") if limit is None else limit


def target_of(server: HTTPServer, request: Any) -> tuple[object, object, object] | None:
    """(application, arguments of the handler, its class) of where *server* would send *request*; None for anything odd.

    *request* has what routing rules look at; it is never on Tornado's own connection.
    """
    router = server.request_callback
    assert isinstance(router, Router)
    try:
        found = router.find_handler(request)
    except Exception:
        return None  # a rule of the application's own wanted more; Tornado has it
    return tuple(getattr(found, name, None) for name in ("application", "handler_kwargs", "handler_class"))  # type: ignore[return-value]


class Closable(Protocol):
    """What ``HTTPServer.close_all_connections`` asks of a connection."""

    async def close(self) -> None: ...


def enlist(server: HTTPServer, connection: Closable) -> None:
    """Count *connection* among those of *server*, which closes it with the others."""
    inside: Any = server
    inside._connections.add(connection)


def delist(server: HTTPServer, connection: Closable) -> None:
    inside: Any = server
    inside._connections.discard(connection)


def client_of(server: HTTPServer, context: Any, headers: HTTPHeaders) -> tuple[str, str]:
    """The client's address and the scheme of a request with *headers*, as *server* tells them: with ``xheaders`` what
    the proxy in front says, and several clients may share its connection."""
    if not server.xheaders:
        return context.remote_ip, context.protocol
    context._apply_xheaders(headers)
    try:
        return context.remote_ip, context.protocol
    finally:
        context._unapply_xheaders()


class _Answered:
    """The connection of a request that was answered past Tornado."""

    def __init__(self, request: Any) -> None:
        self.context = request  # it has the two names that are asked for

    def set_close_callback(self, callback: object) -> None:
        """It has closed, as far as this request goes."""


def late_handler(kind: type[RequestHandler]) -> type[RequestHandler]:
    """A *kind* of handler for an application's ``log_function``, for requests answered past Tornado (``describe``).

    It becomes whole at the first look: most log functions look at little, and many at nothing.
    """

    def look(self: Any, name: str) -> Any:
        what = self.__dict__.pop("_answered", None)
        if what is None:
            raise AttributeError(f"{kind.__name__!r} object has no attribute {name!r}")
        _complete(self, *what)
        return getattr(self, name)

    return type(kind.__name__, (kind,), {"__getattr__": look})


def describe(late: type[RequestHandler], answered: tuple[Application, Any, str, float, int, Any]) -> Any:
    """A *late* handler (see ``late_handler``) of a request that was *answered*: its application, the request, its
    address, when it began (monotonic seconds), the answer's status, and the handler's arguments."""
    handler: Any = late.__new__(late)
    handler._answered = answered
    return handler


def _complete(
    handler: Any, application: Application, request: Any, uri: str, started: float, status: int, named: Any
) -> None:
    seen = HTTPServerRequest(
        start_line=RequestStartLine(request.method, uri, request.version),
        headers=request.headers,
        connection=_Answered(request),  # type: ignore[arg-type]  # it is asked for nothing else
    )
    inside: Any = seen
    inside._start_time = time.time() - (time.monotonic() - started)
    handler.__init__(application, seen, **named)
    handler.set_status(status)
    handler._finished = handler._headers_written = True
    handler.ui = None  # as Tornado's own finish() does: its modules point back at the handler
