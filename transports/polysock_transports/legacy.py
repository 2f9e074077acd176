"""LegacySession: a session as Socket.IO 0.9 wants it, made by a handshake and then on one transport after another.

Knows packets only as its dialect's; no request and no HTTP status.  Next: ``dialects/socketio09.py`` for the language,
``legacygateway.py`` for the requests.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

from .dialects.socketio09 import CONNECT, DISCONNECT, HEARTBEAT, NOOP, SocketIO09, poll_s
from .errors import PING_TIMEOUT, CloseReason
from .session import Session, State
from .wire import Pong, Signal

if TYPE_CHECKING:
    from .transport import Transport

__all__ = ["LegacySession"]

#: Transports whose loss ends the session at once, as in the reference server; the others have time to come back.
_FINAL = frozenset(("websocket", "flashsocket"))


class LegacySession(Session):
    """One client of Socket.IO 0.9.

    It is opened by the handshake.  Its first transport enters the main endpoint as if the client had asked for it, and
    a newer transport always replaces the older one.
    """

    __slots__ = ("_due", "_entered_on", "_pong_due", "_silenced")

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._entered_on = ""  # name of the transport on which the main endpoint was entered
        self._due = math.inf  # while a transport is attached: when it is owed something, or owes an answer
        self._pong_due = False
        self._silenced = False  # it was the client's doing: nobody is there to be told the end

    @property
    def _legacy(self) -> SocketIO09:
        return cast(SocketIO09, self._dialect)

    @property
    def findable(self) -> bool:
        return True  # a session on a WebSocket too: it may say goodbye by a request

    @property
    def is_gone(self) -> bool:
        """Whether requests get the answer of a session that nobody knows."""
        return self._state is State.CLOSED or (self._state is State.CLOSING and self._silenced)

    @property
    def has_begun(self) -> bool:
        """Whether a transport has come while the session was open."""
        return bool(self._entered_on)

    @property
    def transport_name(self) -> str:
        """Name of the latest transport, which is not there between two polls; empty before the first one."""
        return self._entered_on

    # -- connections

    def attach(self, transport: Transport) -> bool:
        self.resumable = transport.name not in _FINAL
        self._dialect = self._legacy.over(transport.name)
        limits = self._limits
        self._pong_due = False
        self._due = self._clock.now() + (poll_s(limits) if self._legacy.framed else limits.heartbeat_delay_s)
        super().attach(transport)
        self._be_due(self._due)
        if self._state is State.OPEN and self._entered_on != transport.name and not self.inbox_full:
            # A client changes its transport only where one brought it nothing: it still waits for the answer.
            self._entered_on = transport.name
            self._accept(CONNECT)
        return True

    def transport_ended(self, transport: Transport) -> None:
        super().transport_ended(transport)
        if not self.has_begun and self._state is not State.CLOSED:
            self._reschedule()  # the grace of a handshake is another one

    def _make_way(self, transport: Transport) -> bool:
        """The newer one stays: the client has given up the older one, or a proxy has lost it."""
        old = self._transport
        assert old is not None
        if old.name in _FINAL:
            self._transport = None
            old.abort()
        elif self._legacy.over(old.name).framed:
            old.write((NOOP,))
        else:
            old.finish(None)
        return True

    def leave(self) -> None:
        """The client says goodbye by a request of its own; what it still listens on is told so.  Never raises."""
        transport = self._transport
        if self._state is State.OPEN and transport is not None and transport.ready:
            transport.write((DISCONNECT,))
        self.receive(DISCONNECT)

    # -- signals and the end

    def _signal(self, signal: Signal) -> None:
        if isinstance(signal, Pong) and self._pong_due and self._transport is not None:
            self._pong_due = False
            self._due = self._clock.now() + self._limits.heartbeat_delay_s
            self._reschedule()

    def _end(self, reason: CloseReason, *, deliver: bool = True) -> None:
        if self._state > State.OPEN:
            return
        self._silenced = deliver
        super()._end(reason, deliver=deliver)
        if deliver and self._transport is None:
            self._close_down()

    # -- deadlines

    def _check_life(self, now: float) -> None:
        transport, limits = self._transport, self._limits
        if now < self._next_life():
            return
        if transport is None:
            self._timed_out(now)
        elif self._legacy.framed:
            transport.write((NOOP,))
        elif not self._pong_due:
            self._pong_due = True
            self._due = now + limits.heartbeat_timeout_s
            self._push(HEARTBEAT)
        elif self._reading_paused:
            self._due = now + limits.heartbeat_timeout_s  # an answer could not be seen
        else:
            self._transport = None
            self._detached_at = now
            transport.abort()
            self._end(PING_TIMEOUT)

    def _next_life(self) -> float:
        if self._transport is not None:
            return self._due
        limits = self._limits
        grace = limits.disconnect_delay_s if self.has_begun else limits.legacy_handshake_timeout_s
        return self._detached_at + grace
