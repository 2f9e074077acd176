"""One request that another node answers: the answer goes into the client's own exchange, a WebSocket becomes a tunnel.

Framing is the client's connection's own; status, headers and body are the other node's.  Where it fails before the
answer has begun, the handler says what its dialect has for that.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from .clock import Clock, Timer
from .errors import ProtocolError
from .http1 import ResponseHead
from .pipes import Exchange, Pipe
from .relaypool import NodeConnection

if TYPE_CHECKING:
    from .gateway import GatewayHandler
    from .limits import Limits
    from .wire import Refusal, Route

__all__ = ["NOT_HELD", "Passing", "Tunnel"]

#: The status by which a node says that it does not hold the session (RFC 9110 section 15.5.20).
NOT_HELD = 421
_SWITCHING = 101


class Passing:
    """The answer on its way: told by the connection to the node, and by the exchange with the client."""

    __slots__ = (
        "_begun",
        "_exchange",
        "_handler",
        "_head",
        "_limits",
        "_pieces",
        "_route",
        "connection",
        "is_held",
        "over",
    )

    def __init__(self, handler: GatewayHandler, route: Route, limits: Limits, *, is_held: bool) -> None:
        """*is_held*: the node was asked only because it may hold the session."""
        self.connection: NodeConnection | None = None
        """Where the request went, once it has."""
        self.over: asyncio.Future[bool] | None = None
        """Of a request that wants to be a WebSocket: whether it was answered, or there is nobody to be answered."""
        self.is_held = is_held
        self._handler: GatewayHandler | None = handler
        self._route = route
        self._limits = limits
        self._exchange: Exchange | None = None
        self._head: ResponseHead | None = None
        self._pieces: list[bytes] = []
        self._begun = False

    def open(self) -> None:
        """Have the answer's place ready: from here on it is noticed when the client leaves."""
        assert self._handler is not None
        self._exchange = exchange = self._handler.open_answer()
        exchange.owner = self

    def _close(self, *, answered: bool = True) -> None:
        """Nothing more comes of it; and nothing of it may point at anything, every request would be a cycle."""
        self._handler = self._exchange = self.connection = None
        over, self.over = self.over, None
        if over is not None and not over.done():
            over.set_result(answered)

    # -- told by the connection

    def begin(self, head: ResponseHead) -> None:
        """Raises ProtocolError for a 101 that nobody has asked for."""
        assert self._handler is not None
        self._head = head
        if head.status == _SWITCHING:
            if self.over is None:
                raise ProtocolError("A node leaves HTTP where nobody has asked for that.")
            self._tunnel(head)
            return
        if self._exchange is None:
            self.open()
        exchange = self._exchange
        assert exchange is not None
        if head.length is None or head.length > self._limits.relay_whole_bytes:
            self._begun = True
            exchange.start(head.status, head.headers, b"")

    def piece(self, data: bytes) -> None:
        if not self._begun:
            self._pieces.append(data)
            return
        exchange, connection = self._exchange, self.connection
        assert exchange is not None
        assert connection is not None
        exchange.write(data)
        if exchange.backlog > self._limits.pipe_high_bytes:
            connection.pause()

    def end(self) -> None:
        exchange, head = self._exchange, self._head
        assert exchange is not None
        assert head is not None
        if self.is_held and head.status == NOT_HELD:
            self._fail(is_held=False)
            return
        self._close()
        if self._begun:
            exchange.finish()
        else:
            exchange.respond(head.status, head.headers, b"".join(self._pieces))

    def fail(self) -> None:
        if self._begun:
            exchange = self._exchange
            assert exchange is not None
            self._close()
            exchange.abort()
        else:
            self._fail(is_held=True)

    def _fail(self, *, is_held: bool) -> None:
        handler, route, exchange = self._handler, self._route, self._exchange
        assert handler is not None
        relay, waits = handler.gateway.relay, self.over is not None
        assert relay is not None
        relay.counters["failed"] += is_held
        # Who waits, for a WebSocket, has the connection as it was, unless an answer was on its way already.
        self._close(answered=exchange is not None)
        if exchange is None:
            return
        exchange.owner = None
        if waits:
            exchange.abort()
        else:
            handler.keep_answer(exchange)
            relay.fail(handler, route, exchange, is_held=is_held)

    def refuse(self, refusal: Refusal) -> None:
        """Answer it here."""
        handler, exchange = self._handler, self._exchange
        assert handler is not None
        self._close()
        if exchange is not None:
            exchange.owner = None
            handler.keep_answer(exchange)
        handler.refuse(refusal)

    def drained(self) -> None:
        """The request has left."""

    def half_closed(self) -> None:
        raise AssertionError("a tunnel's")

    def _tunnel(self, head: ResponseHead) -> None:
        handler, connection = self._handler, self.connection
        assert handler is not None
        assert connection is not None
        Tunnel(handler.begin_tunnel(head.raw), connection, self._limits, handler.gateway.clock)
        self._close()

    # -- told by the exchange, and of a WebSocket that has none by the handler

    def exchange_drained(self) -> None:
        if self.connection is not None:
            self.connection.resume()

    def exchange_lost(self) -> None:
        connection = self.connection
        self._close()
        if connection is not None:
            connection.let_go()


class Tunnel:
    """The bytes of a WebSocket, in both directions, each no faster than who takes them."""

    __slots__ = ("_clock", "_connection", "_limits", "_pipe", "_timer")

    def __init__(self, pipe: Pipe, connection: NodeConnection, limits: Limits, clock: Clock) -> None:
        """*pipe*: the client's, which has its 101 already."""
        self._pipe = pipe
        self._connection = connection
        self._limits = limits
        self._clock = clock
        self._timer: Timer | None = None
        pipe.owner = self
        connection.hand_to(self)
        pipe.start()

    # -- told by the client's pipe

    def data_received(self, data: bytes) -> None:
        connection = self._connection
        connection.write(data)
        if connection.backlog > self._limits.pipe_high_bytes:
            self._pipe.pause()

    def pipe_drained(self) -> None:
        self._connection.resume()

    def pipe_lost(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._connection.end()  # what the client said last, its goodbye perhaps, still leaves

    # -- told by the connection to the node

    def begin(self, head: ResponseHead) -> None:
        raise AssertionError("after 101 there is no more HTTP")

    def end(self) -> None:
        raise AssertionError("after 101 there is no more HTTP")

    def piece(self, data: bytes) -> None:
        pipe = self._pipe
        pipe.write(data)
        if pipe.backlog > self._limits.pipe_high_bytes:
            self._connection.pause()

    def drained(self) -> None:
        self._pipe.resume()

    def half_closed(self) -> None:
        if self._timer is None:
            self._pipe.close()
            self._timer = self._clock.call_later(self._limits.close_timeout_s, self._give_up)

    fail = half_closed

    def _give_up(self) -> None:
        self._pipe.abort()
        self._connection.let_go()
