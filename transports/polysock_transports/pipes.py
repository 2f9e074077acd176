"""One TCP connection's bytes under a transport, and everything this package leans on in Tornado's streams.

Two contracts, so that transports do not know what they ride on: ``Pipe`` for a connection that is wholly ours (after a
WebSocket handshake) and ``Exchange`` for the answer to one HTTP request.  Both forms here write to Tornado's IOStream.
"""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from asyncio import Future
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from math import ceil
from typing import TYPE_CHECKING, Any, Protocol

from tornado.http1connection import HTTP1Connection
from tornado.iostream import IOStream, SSLIOStream, StreamBufferFullError, StreamClosedError

from .http1 import LAST_CHUNK, chunk, response_head

__all__ = ["ClosingExchange", "Exchange", "Headers", "IOStreamPipe", "KeepAliveExchange", "Pipe"]

Headers = Sequence[tuple[str, str]]

# How often TCP asks before it gives up.
_KEEPALIVE_PROBES = 4


class PipeOwner(Protocol):
    """What a pipe reports."""

    def data_received(self, data: bytes) -> None: ...

    def pipe_drained(self) -> None:
        """Nothing waits to be written any more."""

    def pipe_lost(self) -> None:
        """The connection is gone; nothing follows."""


class Pipe(ABC):
    """A byte stream in both directions."""

    if not TYPE_CHECKING:  # mypy takes what a subclass has a slot for as an error where only the base is known
        __slots__ = ()  # a subclass may do without a dict

    owner: PipeOwner | None = None

    @property
    @abstractmethod
    def backlog(self) -> int:
        """About how many bytes were written and not yet taken by the kernel."""

    @abstractmethod
    def start(self) -> None:
        """Begin to read."""

    @abstractmethod
    def write(self, data: bytes) -> None:
        """Write; on a connection that is gone, do nothing (its loss is reported on its own)."""

    @abstractmethod
    def pause(self) -> None: ...

    @abstractmethod
    def resume(self) -> None: ...

    @abstractmethod
    def close(self) -> None:
        """Write what is waiting, end our half, and wait for the peer to end its own."""

    @abstractmethod
    def abort(self) -> None:
        """Close now.  The owner is not told."""


class _Outflow:
    """Writes to an IOStream and knows how much of it is stuck.

    Keeps nothing of its owner: every request would leave a reference cycle behind for the garbage collector.
    """

    __slots__ = ("_write_timeout_s", "backlog", "stream")

    def __init__(self, stream: IOStream, write_timeout_s: float | None) -> None:
        self.stream = stream
        self.backlog = 0
        self._write_timeout_s = write_timeout_s

    def write(self, data: bytes, drained: Callable[[], None]) -> None:
        """Write *data*; where some of it is stuck, *drained* is called once nothing is."""
        stream = self.stream
        try:
            future = stream.write(data)
        except (StreamClosedError, StreamBufferFullError):
            return
        if stream.writing():
            if self._write_timeout_s is not None:
                self._bound()
            self.backlog += len(data)
            future.add_done_callback(partial(self._written, len(data), drained))

    def _bound(self) -> None:
        """Have the kernel give up where the peer takes nothing for so long (RFC 5482; Linux).

        Without it a client that never reads keeps its connection, and what is stuck in it, as long as it likes.
        """
        option = getattr(socket, "TCP_USER_TIMEOUT", None)
        if option is not None and self._write_timeout_s is not None and self.stream.socket is not None:
            with suppress(OSError):
                self.stream.socket.setsockopt(socket.IPPROTO_TCP, option, int(self._write_timeout_s * 1000))
        self._write_timeout_s = None  # once is enough

    def _written(self, size: int, drained: Callable[[], None], future: Future[None]) -> None:
        if future.cancelled() or future.exception() is not None:
            return
        self.backlog -= size
        if not self.backlog:
            drained()

    def after_all(self, callback: Callable[[], None]) -> None:
        """Call *callback* once everything is written; never where the connection breaks before."""

        def done(future: Future[None]) -> None:
            if not future.cancelled() and future.exception() is None:
                callback()

        try:
            future = self.stream.write(b"")
        except StreamClosedError:
            return
        if future.done():
            done(future)
        else:
            future.add_done_callback(done)


class IOStreamPipe(Pipe):
    """A pipe on Tornado's stream: right for everything, TLS included."""

    def __init__(self, stream: IOStream, *, read_chunk_bytes: int, write_timeout_s: float | None = None) -> None:
        self._stream = stream
        self._chunk = read_chunk_bytes
        self._out = _Outflow(stream, write_timeout_s)
        self._reading = False
        self._paused = False
        self._closing = False
        stream.set_nodelay(True)  # small frames must not wait for the acknowledgement of the one before
        stream.set_close_callback(self._lost)

    def watch(self, idle_s: float, timeout_s: float) -> None:
        """Have TCP ask a peer that is silent for *idle_s* whether it is there, and give up *timeout_s* later (Linux).

        For wire languages in which we cannot ask ourselves: its loss would never be noticed.
        """
        values = {
            (socket.SOL_SOCKET, "SO_KEEPALIVE"): 1,
            (socket.IPPROTO_TCP, "TCP_KEEPIDLE"): ceil(idle_s),
            (socket.IPPROTO_TCP, "TCP_KEEPINTVL"): ceil(timeout_s / _KEEPALIVE_PROBES),
            # RFC 5482; in Linux it also takes the place of a count of unanswered probes.
            (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT"): int((idle_s + timeout_s) * 1000),
        }
        with suppress(OSError):
            for (level, name), value in values.items():
                option = getattr(socket, name, None)
                if option is not None and self._stream.socket is not None:
                    self._stream.socket.setsockopt(level, option, value)

    @property
    def backlog(self) -> int:
        return self._out.backlog

    def start(self) -> None:
        self._read()

    def write(self, data: bytes) -> None:
        if not self._closing:
            self._out.write(data, self._drained)

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        self._read()

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._out.after_all(self._end_our_half)

    def abort(self) -> None:
        self.owner = None
        self._closing = True
        self._stream.close()

    def _end_our_half(self) -> None:
        stream = self._stream
        if stream.closed():
            return
        if isinstance(stream, SSLIOStream):
            stream.close()  # TLS has no half-close that peers agree on
            return
        # Closing a socket that holds unread data resets the connection, and the peer may never see our last frame.
        # So: end our half, then throw away what still comes until the peer ends its own.
        try:
            stream.socket.shutdown(socket.SHUT_WR)
        except OSError:
            stream.close()
            return
        self._paused = False
        self._read()

    def _read(self) -> None:
        if self._reading or self._paused:
            return
        try:
            future: Any = self._stream.read_bytes(self._chunk, partial=True)  # a Future, though typed less
        except StreamClosedError:
            return
        self._reading = True
        # Always by way of the loop, even where data was there: one busy client must not starve the others.
        future.add_done_callback(self._on_read)

    def _on_read(self, future: Future[bytes]) -> None:
        self._reading = False
        if future.cancelled() or future.exception() is not None:
            return
        if self.owner is not None and not self._closing:
            self.owner.data_received(future.result())
        self._read()

    def _drained(self) -> None:
        if self.owner is not None and not self._closing:
            self.owner.pipe_drained()

    def _lost(self) -> None:
        owner, self.owner = self.owner, None
        if owner is not None:
            owner.pipe_lost()


class ExchangeOwner(Protocol):
    """What an exchange reports."""

    def exchange_drained(self) -> None:
        """Nothing waits to be written any more."""

    def exchange_lost(self) -> None:
        """The client went away before the answer was complete."""


class Exchange(ABC):
    """The answer to one HTTP request: ``respond`` once, or ``start``, any number of ``write``, ``finish``."""

    if not TYPE_CHECKING:  # mypy takes what a subclass has a slot for as an error where only the base is known
        __slots__ = ()  # a subclass may do without a dict

    owner: ExchangeOwner | None = None

    @property
    @abstractmethod
    def backlog(self) -> int:
        """About how many bytes were written and not yet taken by the kernel."""

    @abstractmethod
    def respond(self, status: int, headers: Headers, body: bytes) -> None:
        """The whole answer at once."""

    @abstractmethod
    def start(self, status: int, headers: Headers, first: bytes) -> None:
        """Head and first part of an answer that goes on."""

    @abstractmethod
    def write(self, data: bytes) -> None:
        """One more part; never empty."""

    @abstractmethod
    def finish(self) -> None:
        """The answer is complete."""

    @abstractmethod
    def abort(self) -> None:
        """Cut the connection.  The owner is not told."""

    @abstractmethod
    def lost(self) -> None:
        """Told by whoever watches the connection: the client is gone."""


class _StreamExchange(Exchange):
    """On one of Tornado's streams."""

    def __init__(
        self, stream: IOStream, on_done: Callable[[int], None], *, write_timeout_s: float | None = None
    ) -> None:
        """*on_done* gets the status when the answer is complete or the client gone."""
        self._out = _Outflow(stream, write_timeout_s)
        self._on_done: Callable[[int], None] | None = on_done
        self._status = 0

    @property
    def backlog(self) -> int:
        return self._out.backlog

    def lost(self) -> None:
        owner, self.owner = self.owner, None
        self._done()
        if owner is not None:
            owner.exchange_lost()

    def _done(self) -> None:
        on_done, self._on_done = self._on_done, None
        if on_done is not None:
            on_done(self._status)

    def _drained(self) -> None:
        if self.owner is not None:
            self.owner.exchange_drained()


def _with_length(status: int, headers: Headers, body: bytes) -> Headers:
    # RFC 9110 section 8.6: no Content-Length on a 204; a 304 need not have one.
    return headers if status in (204, 304) else (*headers, ("Content-Length", str(len(body))))


class KeepAliveExchange(_StreamExchange):
    """HTTP/1.1 on Tornado's own connection, which serves the next request afterwards.

    Head and chunks are written as bytes: Tornado's header objects and its output transforms (compression would break
    streaming) stay out of it.
    """

    def __init__(
        self,
        connection: HTTP1Connection,
        on_done: Callable[[int], None],
        *,
        close: bool,
        write_timeout_s: float | None = None,
    ) -> None:
        super().__init__(connection.stream, on_done, write_timeout_s=write_timeout_s)
        self._connection: Any = connection
        self._close: Headers = (("Connection", "close"),) if close else ()

    def respond(self, status: int, headers: Headers, body: bytes) -> None:
        self._status = status
        self._last(response_head(status, (*_with_length(status, headers, body), *self._close)) + body)

    def start(self, status: int, headers: Headers, first: bytes) -> None:
        self._status = status
        head = response_head(status, (*headers, ("Transfer-Encoding", "chunked"), *self._close))
        if not self._out.stream.closed():
            self._out.stream.set_nodelay(True)
        self._out.write(head + chunk(first) if first else head, self._drained)

    def write(self, data: bytes) -> None:
        self._out.write(chunk(data), self._drained)

    def finish(self) -> None:
        self._last(LAST_CHUNK)

    def _last(self, data: bytes) -> None:
        """The end of the answer: give the connection back to Tornado, which reads the next request from it."""
        connection = self._connection
        stream = connection.stream
        self.owner = None
        self._out.write(data, self._drained)
        if not stream.closed():
            if stream.writing():
                # finish() waits for the last write() of the connection itself, and this one ends when all others have.
                connection.write(b"")
            connection.finish()
        self._done()

    def abort(self) -> None:
        self.owner = None
        self._connection.close()
        self._done()


class ClosingExchange(_StreamExchange):
    """HTTP/1.0, and every connection that ends with this answer: no chunks, the end of the body is the end of it."""

    def __init__(
        self, stream: IOStream, on_done: Callable[[int], None], *, write_timeout_s: float | None = None
    ) -> None:
        super().__init__(stream, on_done, write_timeout_s=write_timeout_s)
        stream.set_close_callback(self.lost)

    def respond(self, status: int, headers: Headers, body: bytes) -> None:
        self._status = status
        head = response_head(status, (*_with_length(status, headers, body), ("Connection", "close")))
        self._out.write(head + body, self._drained)
        self._end()

    def start(self, status: int, headers: Headers, first: bytes) -> None:
        self._status = status
        if not self._out.stream.closed():
            self._out.stream.set_nodelay(True)
        self._out.write(response_head(status, (*headers, ("Connection", "close"))) + first, self._drained)

    def write(self, data: bytes) -> None:
        self._out.write(data, self._drained)

    def finish(self) -> None:
        self._end()

    def abort(self) -> None:
        self.owner = None
        self._out.stream.close()
        self._done()

    def _end(self) -> None:
        self.owner = None
        self._out.after_all(self._out.stream.close)
        self._done()
