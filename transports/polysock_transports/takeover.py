"""Taking a connection out of Tornado's hands, and giving it back.  Everything that leans on Tornado's insides for that.

Tornado accepts the connection, reads the request and finds us.  From then on an asyncio transport costs a fraction of
an ``IOStream``.  What is used here beside the documented interfaces is named, and ``tests/test_takeover.py`` holds each
supported Tornado to it; where something is not as expected, the connection simply stays with Tornado.
"""

from __future__ import annotations

import asyncio
import inspect
import socket
from typing import Any, Protocol

from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPHeaders
from tornado.iostream import IOStream

__all__ = ["Closable", "can_take_over", "client_of", "delist", "enlist", "find_server", "give_back", "take_over"]


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


def find_server(server_connection: object) -> HTTPServer | None:
    """The server whose connection this is (``HTTPServerRequest.server_connection``), so that it can be given back."""
    serving = getattr(server_connection, "_serving_future", None)
    if not isinstance(serving, asyncio.Task):
        return None
    coroutine: Any = serving.get_coro()
    if not inspect.iscoroutine(coroutine):
        return None
    server = inspect.getcoroutinelocals(coroutine).get("delegate")
    return server if isinstance(server, HTTPServer) else None


def give_back(server: HTTPServer, sock: socket.socket, data: bytes) -> None:
    """Let *server* serve the connection from here on; *data* is what was read of its next request.

    Does what ``TCPServer`` does with a connection that it has just accepted.
    """
    try:
        address = sock.getpeername()
    except OSError:
        sock.close()
        return
    chunk = getattr(server, "read_chunk_size", None)
    stream = IOStream(sock, max_buffer_size=server.max_buffer_size, read_chunk_size=chunk)
    inside: Any = stream
    inside._read_buffer += data
    inside._read_buffer_size = len(data)
    server.handle_stream(stream, address)


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
