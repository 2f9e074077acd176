"""EngineSession: a session as Engine.IO wants it, with its pings, and with a WebSocket that may replace polling.

Knows packets only as its dialect's; no request and no HTTP status.  Next: ``dialects/engineio.py`` for the language,
``enginegateway.py`` for the requests.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from .dialects.engineio import EngineDialect
from .errors import NORMAL, PING_TIMEOUT, CloseReason, ProtocolError
from .session import Session, State
from .wire import Frame, Ping, Pong, Signal, Speaks, Upgrade

if TYPE_CHECKING:
    from .clock import Timer
    from .transport import Transport

__all__ = ["EngineSession", "Probe"]

_PROBE = "probe"


class EngineSession(Session):
    """One client of Engine.IO.

    It begins on polling or on a WebSocket; ``offer`` takes a WebSocket that wants to replace polling.  Who vanishes is
    gone: there is no way back into a session but the next poll.
    """

    __slots__ = ("_noop_at", "_ping_at", "_pong_by", "_probe", "_silenced", "_upgrades", "posting")

    def __init__(self, session_id: str, *args: Any, upgrades: Sequence[str] = (), **named: Any) -> None:
        """*upgrades*: the transports that the client is told it may move to."""
        super().__init__(session_id, *args, **named)
        self._upgrades = upgrades
        self._probe: Probe | None = None
        self._noop_at = math.inf
        self._silenced = False  # nothing more is to be said, not even goodbye
        self._pong_by = math.inf
        self._ping_at = self._clock.now() + self._limits.heartbeat_delay_s if self._engine.server_pings else math.inf
        self.posting = False
        """Whether a POST of the client is being read or waits; a second one is against the rules (see the gateway)."""

    @property
    def _engine(self) -> EngineDialect:
        return cast(EngineDialect, self._dialect)

    @property
    def findable(self) -> bool:
        return True  # a session on a WebSocket too: its sid must not answer polls, and says so

    @property
    def is_gone(self) -> bool:
        """Whether requests get the answer of a session that nobody knows."""
        return self._state is State.CLOSED or (self._state is State.CLOSING and self._silenced)

    @property
    def transport_name(self) -> str:
        return "websocket" if self.is_upgraded else "polling"

    @property
    def is_upgraded(self) -> bool:
        """Whether it lives on a WebSocket."""
        return not self.resumable

    # -- connections

    def may_be_polled(self) -> bool:
        """Whether a poll may come just now.  False is no verdict: something has to be looked at first."""
        deadline = self.deadline
        return (
            self._state is State.OPEN
            and self._transport is None
            and self.resumable
            and deadline is not None
            and deadline[0] > self._clock.now()
        )

    def _greet(self, transport: Transport) -> None:
        fragment = self._engine.opening(self.id, self._upgrades, self._limits)
        # Before whatever the listener said while the session opened: one payload for all of it.
        self._queue = [fragment, *(self._queue or ())]
        self._queue_bytes += len(fragment)

    def offer(self, transport: Transport, form: EngineDialect | None = None) -> bool:
        """A WebSocket that may replace polling; False, and it is closed, where it may not.

        *form*: what is spoken on it, where that is not what the session's own form is over a WebSocket.
        """
        due = self._clock.now() + self._limits.upgrade_timeout_s
        probe = Probe(self, transport, form or self._engine.over("websocket"), due)
        if self._state is not State.OPEN or self.is_upgraded or self._probe is not None or not self._upgrades:
            probe.abandon()
            return False
        self._probe = probe
        self._reschedule()
        return True

    def probe_answered(self) -> None:
        """The candidate works.  Polls end from here on, so that the client can stop polling."""
        self._end_poll()

    def cut_later(self, transport: Transport) -> Timer:
        """Cut *transport*, which this session does without, where its closing handshake takes too long."""
        return self._clock.call_later(self._limits.close_timeout_s, transport.abort)

    def probe_failed(self) -> None:
        self._probe = None
        self._noop_at = math.inf

    def upgrade(self, transport: Transport, form: EngineDialect) -> bool:
        """Go on over *transport*, where *form* is spoken; False where the session has ended meanwhile."""
        self._probe = None
        self._noop_at = math.inf
        if self._state is not State.OPEN:
            return False
        self._end_poll()  # a client that upgrades has none; what else is here must not hang
        self._dialect = form
        self.resumable = False
        return self.attach(transport)

    def _end_poll(self) -> None:
        self._noop_at = math.inf
        if self.resumable:
            self._say(self._dialect.pack((self._engine.noop,))[0])

    def _flush(self) -> None:
        # Goodbye is a payload of its own: clients 4.x handle it at once, and the packets before it a moment later.
        if self._state is State.CLOSING and self._transport is not None and not self._queue:
            self._silenced = True
        super()._flush()

    def _say(self, frame: Frame | None) -> None:
        transport = self._transport
        if transport is not None and transport.ready and frame is not None:
            transport.write((frame,))

    # -- ending

    def fail(self, reason: CloseReason) -> None:
        """End because of what the client did in a request, whose answer tells it: no later one gets a goodbye."""
        self.close(reason)
        if self._state is State.CLOSING:
            self._silenced = True
            self._drop_queue()
            if self._transport is None:
                self._close_down()

    # -- signals

    def _signal(self, signal: Signal) -> None:
        if isinstance(signal, Pong):
            if self._pong_by != math.inf:
                self._pong_by = math.inf
                self._ping_at = self._clock.now() + self._limits.heartbeat_delay_s
                self._reschedule()
        elif isinstance(signal, Ping):
            if not self._engine.server_pings:
                self._push(self._engine.pong(signal.data))
        elif isinstance(signal, Speaks):
            self._dialect = signal.dialect

    def _peer_left(self, reason: CloseReason) -> None:
        self._end_poll()
        self._end(reason)

    def _end(self, reason: CloseReason, *, deliver: bool = True) -> None:
        if self._state > State.OPEN:
            return
        probe, self._probe = self._probe, None
        if probe is not None:
            probe.abandon()
        if deliver:
            # It was the client's doing (or its silence): there is nobody to say goodbye to.
            self._silenced = True
            if self.resumable:
                self._end_poll()
        super()._end(reason, deliver=deliver)
        if self._transport is None and self._silenced:
            self._close_down()

    def _is_told(self) -> bool:
        return self._silenced or not self.resumable

    # -- deadlines

    def _check_life(self, now: float) -> None:
        limits = self._limits
        if self._probe is not None and now >= self._probe.due:
            probe, self._probe = self._probe, None
            probe.abandon()
        if now >= self._noop_at:
            self._end_poll()
        if not self._engine.server_pings:
            if now >= self._last_seen + limits.heartbeat_delay_s + limits.heartbeat_timeout_s:
                if self._reading_paused:
                    self._last_seen = now
                else:
                    self._lost_for_good()
            return
        if now >= self._pong_by:
            if self._reading_paused:
                # An answer could not be seen.
                self._pong_by = now + limits.heartbeat_timeout_s
            else:
                self._lost_for_good()
        elif now >= self._ping_at:
            # Both times count from when the ping was due, which the client knows too; but what a busy server was late
            # beyond its sweep is not the client's fault.
            self._pong_by = max(self._ping_at, now - limits.sweep_interval_s) + limits.heartbeat_timeout_s
            self._ping_at = math.inf
            self._push(self._engine.ping)

    def _lost_for_good(self) -> None:
        transport = self._transport
        if self.resumable:
            self._say(self._dialect.goodbye(PING_TIMEOUT))
        elif transport is not None:
            self._transport = None
            transport.abort()
        self._end(PING_TIMEOUT)

    def _be_due(self, at: float) -> None:
        if self._probe is not None and self._probe.answered and self._transport is not None:
            # A poll that comes while the client is to stop polling.
            self._noop_at = self._clock.now() + self._limits.upgrade_noop_s
            self._reschedule()
        elif self.deadline is None:  # polls come and go, and what is due stays what it was
            self._reschedule()

    def _reschedule(self) -> None:
        if self._state is not State.CLOSED:  # it closes itself as soon as its goodbye is out
            super()._reschedule()

    def _next_life(self) -> float:
        if self._engine.server_pings:
            due = min(self._pong_by, self._ping_at)
        else:
            due = self._last_seen + self._limits.heartbeat_delay_s + self._limits.heartbeat_timeout_s
        if self._probe is not None:
            due = min(due, self._probe.due, self._noop_at)
        return due


class Probe:
    """Owner of a WebSocket that wants to replace a session's polling (Engine.IO protocol, "Upgrade").

    After the upgrade it hands on what still comes to it: the frames that arrived together with the last word.
    """

    def __init__(self, session: EngineSession, transport: Transport, form: EngineDialect, due: float) -> None:
        self.due = due
        """When the patience with it ends, in the session's clock."""
        self.answered = False
        self._session: EngineSession | None = session
        self._upgraded = False
        self._form = form
        self._transport = transport
        self._cut: Timer | None = None
        transport.owner = self

    def receive(self, body: str | bytes, form: str = "") -> None:
        session = self._session
        if session is None:
            return
        if self._upgraded:
            session.receive(body, form)
            return
        session.alive()
        dialect = self._form
        signals = dialect.decode(body, form, session.limits)
        signal = signals[0] if len(signals) == 1 else None
        if isinstance(signal, Ping) and signal.data == _PROBE and not self.answered:
            self.answered = True
            self._transport.write(dialect.pack((dialect.pong(_PROBE),)))
            session.probe_answered()
        elif isinstance(signal, Upgrade) and self.answered:
            self._upgraded = True
            if not session.upgrade(self._transport, dialect):
                self.abandon()
        else:
            raise ProtocolError("Only the probe and the upgrade may come on this connection.")

    def abandon(self) -> None:
        """Close the WebSocket; the session does without it."""
        session, self._session = self._session, None
        if session is not None:
            self._cut = session.cut_later(self._transport)
        self._transport.finish(NORMAL)

    def _lost(self) -> None:
        if self._cut is not None:
            self._cut.cancel()
        session, self._session = self._session, None
        if session is not None and not self._upgraded:
            session.probe_failed()

    # -- told by the transport (after the upgrade the session is its owner)

    def alive(self) -> None:
        """Bytes are no sign of life of a session that polls."""

    def transport_ready(self, transport: Transport) -> None:
        """A probe has nothing waiting."""

    def transport_ended(self, transport: Transport) -> None:
        self._lost()

    def transport_lost(self, transport: Transport, reason: CloseReason | None = None) -> None:
        self._lost()

    def peer_closed(self, reason: CloseReason) -> None:
        self._lost()
