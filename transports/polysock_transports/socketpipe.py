"""SocketPipe: a pipe on an asyncio transport of its own, taken over from Tornado.  The cheap one of the two pipes.

All reads go into one buffer that the pipes of an endpoint share (asyncio's ``BufferedProtocol``; a plain protocol maps
and unmaps 256 KiB for each read), and all that is written to a connection in one turn of the loop leaves in one system
call.  No future, no task and no closure for a write.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from contextlib import suppress
from typing import Any, cast

from .pipes import Pipe

__all__ = ["Lane", "SocketPipe"]

log = logging.getLogger("polysock.gateway")


class Lane:
    """What the taken-over connections of one endpoint share."""

    __slots__ = ("_in_order", "buffer", "high_bytes", "waiting", "write_timeout_s")

    def __init__(self, *, read_bytes: int, high_bytes: int, write_timeout_s: float, in_order: bool = False) -> None:
        """*read_bytes*: how much is read at a time; *high_bytes*: the backlog from which a peer is slow; *in_order*:
        whether what is written to one connection before another in a turn of the loop is sent before it."""
        # Every read is handled before the next one begins: an endpoint lives in one event loop.
        self.buffer = memoryview(bytearray(read_bytes))
        self.high_bytes = high_bytes
        self.write_timeout_s = write_timeout_s
        self._in_order = in_order
        self.waiting: list[Outflow] = []
        """Those that are sent at the end of this turn of the loop; who is the first calls ``send_soon``."""

    def send_soon(self) -> None:
        asyncio.get_running_loop().call_soon(self._send)

    def _send(self) -> None:
        waiting, self.waiting = self.waiting, []
        # The later half first.  Who was served in the turn before mostly comes first in the next one too: epoll tells
        # of sockets in that order.  Whoever is sent first has the most time to be back before the loop looks again.
        # If both are the same ones, uvloop, which looks right after this, serves them twice as often as the others.
        half = 0 if self._in_order else len(waiting) // 2
        for outflow in waiting[half:] + waiting[:half]:
            try:
                outflow.send()
            except Exception:
                # Whoever was to go on writing has failed; the others' bytes wait behind it.
                log.exception("writing to a taken-over connection failed")
                outflow.cut()

    @staticmethod
    def transport(sock: socket.socket, outflow: Outflow) -> asyncio.Transport:
        """A transport for *sock*, or on other loops than asyncio's own what stands for it until it is there."""
        loop: Any = asyncio.get_running_loop()
        # What ``loop.connect_accepted_socket`` does, without the task and the turns of the loop that it takes.
        at_once = getattr(loop, "_make_socket_transport", None)
        return cast(asyncio.Transport, at_once(sock, outflow)) if at_once is not None else _Coming(loop, sock, outflow)

    @staticmethod
    def writes_to_sockets() -> bool:
        """Whether transports of this event loop write to the very socket they were given (a proactor's do not)."""
        return sys.platform != "win32" or isinstance(asyncio.get_running_loop(), asyncio.SelectorEventLoop)


class _Coming(asyncio.Transport):
    """Stands for a transport that is on its way (uvloop makes them in a task only), and holds what is asked of it."""

    __slots__ = ("_at_end", "_gone", "_held", "_high_bytes", "_outflow", "_sock")

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket, outflow: Outflow) -> None:
        super().__init__()
        self._held: list[bytes] = []
        self._high_bytes = 0
        self._at_end = False
        self._gone = False
        self._sock = sock
        self._outflow = outflow
        loop.create_task(loop.connect_accepted_socket(lambda: outflow, sock)).add_done_callback(self._made)

    def become(self, transport: asyncio.Transport) -> None:
        """*transport* is there: have it do what was asked since."""
        if self._gone:
            transport.abort()
            return
        transport.set_write_buffer_limits(self._high_bytes)
        transport.write(b"".join(self._held))
        if self._at_end and not transport.is_closing():
            transport.write_eof()
        # Of what never was over the mark there it will not tell when it has drained.
        if transport.get_write_buffer_size() <= self._high_bytes and not transport.is_closing():
            self._outflow.resume_writing()

    def _made(self, task: asyncio.Future[Any]) -> None:
        error = None if task.cancelled() else task.exception()
        if task.cancelled() or error is not None:
            # The loop would not have the socket, or the program ends.
            self._gone = True
            self._sock.close()
            self._outflow.failed(self, error)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._held.append(bytes(data))

    def get_write_buffer_size(self) -> int:
        return sum(map(len, self._held))

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high_bytes = high or 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._sock if name == "socket" else default

    def pause_reading(self) -> None:
        """Nothing is read yet; whoever pauses knows of it by himself (``Outflow.pause_again``)."""

    def resume_reading(self) -> None:
        """See ``pause_reading``."""

    def write_eof(self) -> None:
        self._at_end = True

    def is_closing(self) -> bool:
        return self._gone

    def abort(self) -> None:
        self._gone = True
        self._held.clear()


class Outflow(asyncio.BufferedProtocol):
    """The writing half of a connection of our own, and the plumbing of its asyncio transport."""

    __slots__ = (
        "_bounded",
        "_ended",
        "_first",
        "_is_lost",
        "_is_paused",
        "_lane",
        "_over",
        "_rest",
        "_socket",
        "_stuck",
        "_transport",
        "backlog",
    )

    _transport: asyncio.Transport

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._socket: socket.socket | None = None
        # What was written in this turn of the loop: mostly one piece, if any.
        self._first: bytes | None = None
        self._rest: list[bytes] | None = None
        self._stuck = False  # something may wait in the transport
        self._over = False
        self._ended = False  # nothing more is to be written
        self._bounded = False
        self._is_lost = False
        self._is_paused = False
        self.backlog = 0
        """Bytes written and not yet taken by the kernel."""

    def connect(self, sock: socket.socket) -> None:
        """Go on over *sock*."""
        self._transport = transport = self._lane.transport(sock, self)
        self._socket = sock if self._lane.writes_to_sockets() else None
        transport.set_write_buffer_limits(self._lane.high_bytes)

    # -- writing

    def write(self, data: bytes) -> None:
        lane = self._lane
        if self._first is None:
            self._first = data
            waiting = lane.waiting
            if not waiting:
                lane.send_soon()
            waiting.append(self)
        elif self._rest is None:
            self._rest = [data]
        else:
            self._rest.append(data)
        self.backlog = backlog = self.backlog + len(data)
        if backlog > lane.high_bytes:
            self._over = True

    def send(self) -> None:
        """Send what was written in this turn of the loop."""
        data = self._first
        if data is None:
            return
        self._first = None
        if self._rest is not None:
            data = b"".join((data, *self._rest))
            self._rest = None
        sent = 0
        # Past the transport, in which nothing waits: it would do the same, and cost more.  What the kernel does not
        # take goes there, and so does all of it after an error: the transport meets that too, and ends the connection.
        if self._socket is not None and not self._stuck and not self._ended:
            try:
                sent = self._socket.send(data)
            except OSError:
                sent = 0
        if sent < len(data):
            self._hand_over(data[sent:])
            return
        self.backlog = 0
        if self._over:
            self._over = False
            self.drained()

    def _hand_over(self, data: bytes) -> None:
        """Have the transport send *data*, now or later."""
        transport = self._transport
        if self._ended or transport.is_closing():
            self.backlog = 0
            return
        transport.write(data)
        self.backlog = stuck = transport.get_write_buffer_size()
        self._stuck = stuck > 0
        if stuck and not self._bounded:
            self._bound()
        # Of what has gone over the mark here and not in its own buffer, asyncio will not tell when it has drained.
        if self._over and stuck <= self._lane.high_bytes and not transport.is_closing():
            self._over = False
            self.drained()

    def _bound(self) -> None:
        """Have the kernel give up where the peer takes nothing for so long (RFC 5482; Linux)."""
        self._bounded = True
        option = getattr(socket, "TCP_USER_TIMEOUT", None)
        if option is not None:
            with suppress(OSError):
                sock = self._transport.get_extra_info("socket")
                sock.setsockopt(socket.IPPROTO_TCP, option, int(self._lane.write_timeout_s * 1000))

    def drained(self) -> None:
        """Nothing much waits any more."""

    def pause(self) -> None:
        """Stop reading."""
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def cut(self) -> None:
        """Close now; ``connection_lost`` follows."""
        self._forget()
        # asyncio does not guard against a second end of a connection whose peer ended its half while something waited.
        if not self._is_lost:
            self._transport.abort()

    def _forget(self) -> None:
        """Nothing more is to be written, and nothing that waits here."""
        self._ended = True
        self._first = self._rest = None

    # -- told by asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        before = self._transport
        if isinstance(before, _Coming):
            self._transport = made = cast(asyncio.Transport, transport)
            try:
                before.become(made)
            except Exception:
                log.exception("writing to a taken-over connection failed")
                self.cut()

    def connection_lost(self, error: Exception | None) -> None:
        self._is_lost = True
        self._forget()

    def pause_again(self) -> None:
        """Something was read after a pause: uvloop, and asyncio before 3.11, begin to read whatever was said before."""
        transport = self._transport
        if not transport.is_closing():
            transport.resume_reading()  # asyncio takes itself for paused
            transport.pause_reading()

    def failed(self, stand_in: asyncio.Transport, error: BaseException | None) -> None:
        """There is no transport, and nothing will come of it; *stand_in* says so to everybody."""
        self._transport = stand_in
        self.connection_lost(error if isinstance(error, Exception) else None)

    def get_buffer(self, sizehint: int) -> Any:
        return self._lane.buffer

    def resume_writing(self) -> None:
        if self._first is not None:
            return  # what was written in this turn is about to be sent, and looked at then
        self.backlog = self._transport.get_write_buffer_size()
        if self._over:
            self._over = False
            self.drained()

    def pause_writing(self) -> None:
        self._over = True


class SocketPipe(Outflow, Pipe):
    """A byte stream in both directions."""

    __slots__ = ("_unread", "owner")

    def __init__(self, lane: Lane, rest: bytes) -> None:
        """*rest*: what was read of the connection before."""
        super().__init__(lane)
        self.owner = None
        self._unread = rest

    def start(self) -> None:
        rest, self._unread = self._unread, b""
        if rest and self.owner is not None:
            self.owner.data_received(rest)

    def pause(self) -> None:
        self._is_paused = True
        super().pause()

    def resume(self) -> None:
        self._is_paused = False
        super().resume()

    def close(self) -> None:
        if self._ended:
            return
        self.send()
        self._ended = True
        # Closing a socket that holds unread data resets the connection, and the peer may never see our last frame.
        # So: end our half, then throw away what still comes until the peer ends its own.
        if self._transport.is_closing():
            return
        try:
            self._transport.write_eof()
        except OSError:
            # A browser that goes resets the connection the moment it has our last frame.
            self._transport.abort()
        else:
            self.resume()

    def abort(self) -> None:
        self.owner = None
        self.cut()

    def drained(self) -> None:
        if self.owner is not None and not self._ended:
            self.owner.pipe_drained()

    # -- told by asyncio

    def buffer_updated(self, count: int) -> None:
        if self._is_paused:
            self.pause_again()
        if self.owner is not None and not self._ended:
            self.owner.data_received(bytes(self._lane.buffer[:count]))

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        owner, self.owner = self.owner, None
        if owner is not None:
            owner.pipe_lost()
