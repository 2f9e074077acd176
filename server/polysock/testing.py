"""For applications' own tests: a client in memory and a clock that a test turns.

No socket is opened and no browser needed, and still everything between the wire and the handlers is the real thing::

    clock = FakeClock()
    io = polysock.Server(clock=clock)

    @io.on("connection")
    def connected(socket):
        socket.on("add", lambda a, b: a + b)

    async def test_add():
        client = Client(io)
        assert await client.call("add", 1, 2) == 3
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Mapping, Sequence
from heapq import heappop, heappush
from itertools import count
from typing import Any

from polysock_transports import CloseReason, ConnectionInfo, ProtocolError, Refused
from polysock_transports.clock import LoopClock
from polysock_transports.dialects.plain import PLAIN
from polysock_transports.errors import ABNORMAL_CLOSURE, CLIENT_CLOSED
from polysock_transports.session import Session
from polysock_transports.store import SessionStore
from polysock_transports.transport import Transport
from polysock_transports.wire import Frame

from .acks import AckTimeout, unwrap
from .packets import Ack, Connect, ConnectError, Disconnect, Event, Packet
from .packets.socketio import BINARY, TEXT_ONLY
from .peer import Peer
from .server import Server

__all__ = ["Client", "FakeClock"]

_MANY = 10**9


class _FakeTimer:
    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class FakeClock:
    """A clock that stands still until ``advance`` turns it.  Give it to ``Server(clock=...)`` or ``SockJSRouter``."""

    def __init__(self, start: float = 1000.0) -> None:
        self._now = start
        self._order = count()
        self._timers: list[tuple[float, int, _FakeTimer]] = []

    def now(self) -> float:
        return self._now

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> _FakeTimer:
        timer = _FakeTimer(callback)
        heappush(self._timers, (self._now + delay_s, next(self._order), timer))
        return timer

    @property
    def timers(self) -> int:
        """How many calls are due and not cancelled."""
        return sum(timer.callback is not None for _, _, timer in self._timers)

    def advance(self, seconds: float) -> None:
        """Turn the clock, running what falls due on the way, each at its own moment."""
        end = self._now + seconds
        while self._timers and self._timers[0][0] <= end:
            at, _, timer = heappop(self._timers)
            self._now = max(self._now, at)
            callback, timer.callback = timer.callback, None
            if callback is not None:
                callback()
        self._now = end


class _MemoryTransport(Transport):
    """Hands frames to a function, and answers pings by being there."""

    answers_ping = True

    def __init__(
        self, name: str, receive: Callable[[Frame], None], ended: Callable[[CloseReason | None], None]
    ) -> None:
        self.name = name  # type: ignore[misc]  # here each one may pretend to be another transport
        self._receive = receive
        self._ended = ended

    def write(self, frames: Sequence[Frame]) -> None:
        for frame in frames:
            self._receive(frame)

    def write_wire(self, data: bytes) -> None:
        raise AssertionError("this transport has no shape")

    def ping(self) -> None:
        if self.owner is not None:
            self.owner.alive()

    def finish(self, reason: CloseReason | None) -> None:
        if self.finishing:
            return
        self.finishing, self.ready = True, False
        self._ended(reason)
        if self.owner is not None:
            self.owner.transport_ended(self)

    def abort(self) -> None:
        self.owner = None
        self._ended(None)


class Client:
    """A Socket.IO client in memory.

    It is connected to *namespace* when this returns (or when the ``async def`` hooks of the server are done, see
    ``wait``).  Plain handlers of the server run inside ``emit``.  Raises ``polysock.Refused`` where the server's
    authorization refuses the whole connection; ``error`` holds what a namespace said.
    """

    def __init__(
        self,
        io: Server,
        namespace: str = "/",
        auth: Mapping[str, Any] | None = None,
        *,
        transport: str = "websocket",
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        ip: str = "127.0.0.1",
        text_only: bool = False,
    ) -> None:
        """*transport*: the name the server shall see; *text_only*: attachments as base64, as over SockJS.

        Raises RuntimeError outside an event loop, unless the server has a FakeClock.
        """
        if isinstance(io.clock, LoopClock):
            try:
                asyncio.get_running_loop()
            except RuntimeError:
                raise RuntimeError(
                    "a Client needs a running event loop (an async def test), or Server(clock=FakeClock())"
                ) from None
        self.namespace = namespace
        self.id: str | None = None
        self.error: ConnectError | None = None
        self.received: list[tuple[Any, ...]] = []
        """Events so far, each as (name, argument, ...)."""
        self.close_reason: CloseReason | None = None
        self._codec = TEXT_ONLY if text_only else BINARY
        self._reader = self._codec.reader(max_attachments=_MANY, max_attachment_bytes=_MANY, from_server=True)
        self._acks: dict[int, asyncio.Future[Any]] = {}
        self._ack_ids = count()
        self._handlers: dict[str, Callable[..., Any]] = {}
        self._news: asyncio.Event | None = None
        info = ConnectionInfo(
            ip=ip,
            cookies={},
            arguments={name: [value.encode()] for name, value in (query or {}).items()},
            headers=dict(headers or {}),
            path="/polysock",
            transport=transport,
        )
        store = SessionStore(io.limits, io.clock)
        peer = Peer(io, info, self._codec)
        self._session = Session(
            uuid.uuid4().hex,
            peer,
            PLAIN,
            scheduler=store,
            clock=io.clock,
            limits=io.limits,
            address=ip,
            resumable=False,
        )
        peer.bind(self._session)
        store.add(self._session)
        try:
            self._session.open()
        except Refused:
            self._session.discard()
            raise
        self._transport = _MemoryTransport(transport, self._frame, self._finished)
        self._session.attach(self._transport)
        self._send(Connect(namespace, dict(auth) if auth is not None else None))

    @property
    def connected(self) -> bool:
        """Whether the server has let this client in and it is still there."""
        return self.id is not None

    def emit(self, event: str, *args: Any) -> None:
        """Send an event."""
        self._send(Event(self.namespace, event, args))

    async def call(self, event: str, *args: Any, timeout: float = 5.0) -> Any:
        """Send an event and wait for the server's ack.  Raises AckTimeout."""
        number = next(self._ack_ids)
        future = self._acks[number] = asyncio.get_running_loop().create_future()
        self._send(Event(self.namespace, event, args, number))
        try:
            return await asyncio.wait_for(future, timeout)
        except asyncio.TimeoutError:
            raise AckTimeout(f"no ack of {event!r} within {timeout} s") from None
        finally:
            self._acks.pop(number, None)

    def on(self, event: str, answer: Callable[..., Any]) -> None:
        """When the server sends *event* and wants an ack, answer with what *answer* returns."""
        self._handlers[event] = answer

    def take(self) -> list[tuple[Any, ...]]:
        """The events since the last call."""
        events, self.received = self.received, []
        return events

    async def wait(self, event: str | None = None, timeout: float = 5.0) -> tuple[Any, ...]:
        """Wait for *event* and return its arguments, taking it out of ``received``; without one, until connected or
        refused.  Raises AckTimeout."""
        end = asyncio.get_running_loop().time() + timeout
        while True:
            if event is None:
                if self.id is not None or self.error is not None:
                    return ()
            else:
                for index, found in enumerate(self.received):
                    if found[0] == event:
                        return self.received.pop(index)[1:]
            self._news = asyncio.Event()
            try:
                await asyncio.wait_for(self._news.wait(), end - asyncio.get_running_loop().time())
            except asyncio.TimeoutError:
                raise AckTimeout(f"nothing came within {timeout} s: {event or 'no answer to the connect'}") from None

    def pause(self) -> None:
        """Take nothing for a while, as a slow client does: what is emitted waits, and what is volatile is lost."""
        self._transport.ready = False

    def resume(self) -> None:
        """Take what has waited, and everything from now on."""
        self._transport.ready = True
        self._session.transport_ready(self._transport)

    def disconnect(self) -> None:
        """Leave the namespace and close, as a client does on purpose."""
        self._send(Disconnect(self.namespace))
        self.id = None
        self._session.peer_closed(CLIENT_CLOSED)

    def drop(self) -> None:
        """Vanish, as a client does whose network is gone."""
        self.id = None
        self._session.transport_lost(self._transport, ABNORMAL_CLOSURE)

    # -- inside

    def _send(self, packet: Packet) -> None:
        for message in self._codec.encode(packet):
            try:
                self._session.receive(message, "websocket")
            except ProtocolError as error:
                self._session.peer_closed(error.reason)  # as a WebSocket does

    def _frame(self, frame: Frame) -> None:
        packet = self._reader.feed(frame)
        if packet is None or packet.namespace != self.namespace:
            return
        if isinstance(packet, Connect):
            self.id = packet.data["sid"]
        elif isinstance(packet, ConnectError):
            self.error = packet
        elif isinstance(packet, Disconnect):
            self.id = None
        elif isinstance(packet, Ack):
            future = self._acks.get(packet.ack_id)
            if future is not None and not future.done():
                future.set_result(unwrap(packet.args))
        else:
            self.received.append((packet.name, *packet.args))
            if packet.ack_id is not None and packet.name in self._handlers:
                answer = self._handlers[packet.name](*packet.args)
                args = () if answer is None else answer if isinstance(answer, tuple) else (answer,)
                self._send(Ack(self.namespace, packet.ack_id, args))
        if self._news is not None:
            self._news.set()

    def _finished(self, reason: CloseReason | None) -> None:
        self.id = None
        self.close_reason = reason or ABNORMAL_CLOSURE
