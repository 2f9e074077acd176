"""Session: the server-side life of one client across many HTTP requests, or over one WebSocket.

Holds the state, the outgoing queue, the messages that wait for their handler, and the deadlines.  Knows nothing of
Tornado, of JSON, of HTTP or of which transport it is attached to: clock, dialect, listener and scheduler are handed in.
Next: ``transport.py`` for the other end of ``attach``, ``store.py`` for who calls ``tick``.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import math
import sys
from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from .clock import Clock
from .dialects import Dialect
from .errors import (
    ALREADY_ATTACHED,
    HANDLER_FAILED,
    INTERRUPTED,
    NORMAL,
    OPEN_FAILED,
    PING_TIMEOUT,
    REFUSED,
    SESSION_TIMEOUT,
    SLOW_CONSUMER,
    CloseReason,
    ProtocolError,
    Refused,
    SessionClosed,
    StateError,
)
from .limits import Limits
from .prepared import PreparedMessage
from .wire import Bye, Frame, Message, Signal

if TYPE_CHECKING:
    from .transport import Transport

__all__ = ["Deadline", "Listener", "ReadingAhead", "Scheduler", "Session", "State"]

log = logging.getLogger("polysock.session")

#: An entry of the store's heap: moment, tie-breaker, and the session (None once the entry is void).
Deadline = list[Any]


class State(enum.IntEnum):
    """The numbers are those of sockjs-tornado's sessions."""

    CONNECTING = 0
    OPEN = 1
    CLOSING = 2
    CLOSED = 3


# Looked up without the enum's metaclass in between, where it counts.
_OPEN = State.OPEN
_CLOSING = State.CLOSING
_NEVER_ATTACHED = (State.CONNECTING, State.CLOSED)

_MOVES = {
    State.CONNECTING: (State.OPEN, State.CLOSING, State.CLOSED),
    State.OPEN: (State.CLOSING,),
    State.CLOSING: (State.CLOSED,),
    State.CLOSED: (),
}


class Listener(Protocol):
    """What happens to a session, told to the layer above.  Each may return an awaitable."""

    def on_open(self) -> Awaitable[Any] | None:
        """The session is about to open.  Raise Refused to turn the client away."""

    def on_message(self, data: str | bytes) -> Awaitable[Any] | None:
        """One message.  The next comes when this one's awaitable is done."""

    def on_close(self, reason: CloseReason) -> Awaitable[Any] | None:
        """The session has ended: once for every session that opened, and after this nothing more."""


class ReadingAhead(Listener, Protocol):
    """A listener that looks at every message as it comes, while a handler is still busy with an earlier one.

    Answers that a handler waits for could never arrive otherwise.  Reading stops only where too much waits.
    """

    def arrive(self, data: str | bytes) -> Any:
        """What of *data* is to be handled in turn (handed to ``on_message``) and what it weighs, or None for nothing.

        The weight is in bytes or characters, earlier messages that it was held back for included.
        """

    def on_ending(self, reason: CloseReason) -> None:
        """The session takes nothing more; ``on_close`` follows when the handlers of what it took are done."""

    def on_alarm(self) -> None:
        """The moment that ``Session.set_alarm`` named has come."""


class Scheduler(Protocol):
    """The part of the store that a session knows."""

    def schedule(self, session: Session, at: float) -> None: ...

    def remove(self, session: Session) -> None: ...

    def keep(self, task: asyncio.Future[Any]) -> None:
        """Hold *task* until it is done (asyncio itself holds it weakly), and log what it raises."""


class _Sending:
    """What every send looks at, and what it leaves.

    Slots lie in memory class by class, and in a class by name: so these are on one or two lines of the processor's
    cache and not on five.  In a fan-out each line is read from far, since the kernel has used the cache meanwhile.
    """

    __slots__ = ("_dialect", "_last_sent", "_queue", "_state", "_transport")


class Session(_Sending):
    """One client.

    ``resumable`` says whether the client may attach again (HTTP transports) or lives and dies with one connection
    (WebSocket).  ``id`` is the client's own choice in SockJS and names nothing secret.
    """

    __slots__ = (
        "_alarm_at",
        "_arrive",
        "_clock",
        "_close_told",
        "_detached_at",
        "_drainers",
        "_ends_at",
        "_handler",
        "_hello_due",
        "_inbox",
        "_inbox_bytes",
        "_is_opening",
        "_last_seen",
        "_limits",
        "_listener",
        "_pinged",
        "_queue_bytes",
        "_refused",
        "_room_waiters",
        "_scheduler",
        "_tell_by",
        "address",
        "deadline",
        "id",
        "reason",
        "resumable",
    )

    def __init__(
        self,
        session_id: str,
        listener: Listener,
        dialect: Dialect,
        *,
        scheduler: Scheduler,
        clock: Clock,
        limits: Limits,
        address: str = "",
        resumable: bool = True,
    ) -> None:
        self.id = session_id
        self.address = address
        self.resumable = resumable
        self.reason: CloseReason | None = None
        self.deadline: Deadline | None = None  # owned by the store
        self._listener = listener
        self._arrive = getattr(listener, "arrive", None)
        self._alarm_at: float | None = None
        self._dialect = dialect
        self._scheduler = scheduler
        self._clock = clock
        self._limits = limits
        self._state = State.CONNECTING
        self._transport: Transport | None = None
        # None where nothing waits, as in most sessions nearly always: an empty list weighs 56 bytes, a deque 760.
        self._queue: list[Frame] | None = None
        self._queue_bytes = 0
        self._drainers: list[asyncio.Future[None]] | None = None
        self._inbox: list[tuple[Any, int]] | None = None  # (what on_message gets, its size)
        self._inbox_bytes = 0
        self._room_waiters: list[asyncio.Future[None]] | None = None
        self._handler: asyncio.Future[Any] | None = None
        self._hello_due = True
        self._pinged = False
        self._close_told = False
        self._is_opening = False
        self._refused = False
        now = clock.now()
        self._last_seen = self._last_sent = self._detached_at = now
        self._ends_at = 0.0
        self._tell_by = math.inf

    def __repr__(self) -> str:
        return f"<Session {self.id!r} {self._state.name} {self._dialect.name}>"

    # -- what anybody may ask

    @property
    def state(self) -> State:
        return self._state

    @property
    def dialect(self) -> Dialect:
        return self._dialect

    @property
    def limits(self) -> Limits:
        return self._limits

    @property
    def is_open(self) -> bool:
        return self._state is State.OPEN

    @property
    def findable(self) -> bool:
        """Whether later requests may name this session by its id."""
        return self.resumable

    @property
    def opening(self) -> asyncio.Future[Any] | None:
        """What ``open`` has begun and an ``async`` ``on_open`` has not finished; None where it has."""
        return self._handler if self._is_opening else None

    @property
    def refusal(self) -> CloseReason | None:
        """Why the listener turned the client away, where it did."""
        return self.reason if self._refused else None

    @property
    def attached(self) -> bool:
        """Whether a receiving connection is there right now."""
        return self._transport is not None

    @property
    def transport_name(self) -> str:
        """Name of the attached transport, or an empty string."""
        return self._transport.name if self._transport is not None else ""

    @property
    def queued_bytes(self) -> int:
        return self._queue_bytes

    @property
    def queued_messages(self) -> int:
        return len(self._queue) if self._queue is not None else 0

    # -- opening

    def open(self) -> None:
        """Ask the listener, and open.

        Raises Refused; then the session is still CONNECTING, and ``refuse`` or ``discard`` must follow.
        """
        try:
            result = self._listener.on_open()
        except Refused:
            raise
        except Exception:
            log.exception("on_open failed (session %s)", self.id)
            raise Refused(500, OPEN_FAILED.text) from None
        if self._state is State.CONNECTING:
            self._move(State.OPEN)
            self._reschedule()
        if result is not None:
            self._is_opening = True
            self._run(self._finish_open(result))

    def refuse(self, reason: CloseReason) -> None:
        """Never open: whatever attaches is told goodbye and nothing else, and ``on_close`` is not called."""
        self._refused = True
        self._hello_due = False
        self._drop_queue()
        if self._state is State.CONNECTING:
            self.reason = reason
            self._move(State.CLOSING)
            self._ends_at = self._clock.now() + self._limits.disconnect_delay_s
            self._reschedule()

    def discard(self) -> None:
        """Never open, and nobody is to be told."""
        self._refused = True
        if self._state is not State.CLOSED:
            self._move(State.CLOSED)
            self._scheduler.remove(self)
            self._let_go()

    async def _finish_open(self, opening: Awaitable[Any]) -> None:
        try:
            await opening
        except Refused as refusal:
            self._refused = True
            self._end(CloseReason(REFUSED.code, refusal.text, may_return=False), deliver=False)
        except Exception:
            log.exception("on_open failed (session %s)", self.id)
            self._refused = True
            self._end(OPEN_FAILED, deliver=False)
        finally:
            self._is_opening = False

    # -- the receiving connection

    def attach(self, transport: Transport) -> bool:
        """Make *transport* the one that receives; False where another one already does.

        A session that is closing says its goodbye again, on whatever comes.
        """
        if self._state in _NEVER_ATTACHED:
            raise StateError(f"attach() on a session that is {self._state.name}")
        if self._transport is not None and not self._make_way(transport):
            return False
        transport.owner = self
        self._transport = transport
        self._last_seen = self._last_sent = self._clock.now()
        self._pinged = False
        if self._hello_due:
            self._hello_due = False
            self._greet(transport)
        if self._queue or self._state is not _OPEN:
            self._flush()
        if self._transport is not None:
            if self._reading_paused:
                transport.pause()
            self._be_due(self._last_seen + self._limits.heartbeat_delay_s)
        return True

    def _greet(self, transport: Transport) -> None:
        """Say what a session begins with; *transport* is its first."""
        hello = self._dialect.hello()
        if hello:
            transport.write(hello)

    def _make_way(self, transport: Transport) -> bool:
        """*transport* comes while another one is attached: end one of the two; True where it is the attached one."""
        self.turn_away(transport, ALREADY_ATTACHED)
        return False

    def turn_away(self, transport: Transport, reason: CloseReason) -> None:
        """End *transport*, which this session does not want, with a goodbye of its own."""
        frame = self._dialect.goodbye(reason)
        if frame is not None:
            transport.write((frame,))
        transport.finish(reason)

    def transport_ready(self, transport: Transport) -> None:
        """The transport takes bytes again."""
        if transport is self._transport:
            self._flush()

    def transport_ended(self, transport: Transport) -> None:
        """We ended this response (a poll that was answered, a stream over its limit); the client comes back."""
        if transport is not self._transport:
            return
        self._transport = None
        self._detached_at = self._clock.now()
        if self._state is _CLOSING and self._is_told():
            self._close_down()
        else:
            self._be_due(self._detached_at + self._limits.disconnect_delay_s)

    def _is_told(self) -> bool:
        """Whether the client of a session that is closing, whose transport has ended, knows all that it shall."""
        return not self.resumable

    def transport_lost(self, transport: Transport, reason: CloseReason | None = None) -> None:
        """The connection broke, or the peer closed it (then *reason* is what it said)."""
        if transport is not self._transport:
            return
        self._transport = None
        self._detached_at = self._clock.now()
        if self._state is State.CLOSING:
            if self.resumable:
                self._reschedule()
            else:
                self._close_down()
        elif not self.resumable or self._dialect.lost_ends_session:
            self._end(reason or INTERRUPTED)
        else:
            self._reschedule()

    # -- sending

    def send(self, message: str | bytes) -> bool:
        """Send now, or queue; False where the session has ended.  Never waits.

        Raises TypeError or ValueError only for a message that the dialect cannot carry.
        """
        if self._state > _OPEN:
            return False
        return self._push(self._dialect.encode(message))

    def send_prepared(self, message: PreparedMessage) -> bool:
        """The same for a message that goes to many: what it costs to encode is paid once for all of them."""
        transport = self._transport
        if transport is not None and transport.ready and not self._queue and self._state is _OPEN:
            shape = transport.shape
            if shape is not None:
                self._last_sent = self._clock.now()
                transport.write_wire(message.wire(self._dialect, shape))
                return True
        if self._state > _OPEN:
            return False
        return self._push(message.fragment(self._dialect))

    def send_volatile(self, messages: Sequence[PreparedMessage]) -> bool:
        """Send *messages* where the client can take them this moment; else drop them and return False."""
        transport = self._transport
        if self._state is not State.OPEN or transport is None or not transport.ready or self._queue:
            return False
        for message in messages:
            self.send_prepared(message)
        return True

    def _push(self, fragment: Frame) -> bool:
        transport = self._transport
        if transport is not None and transport.ready and not self._queue:
            self._last_sent = self._clock.now()
            transport.write(self._dialect.pack((fragment,)))
            return True
        queue = self._queue
        if queue is None:
            self._queue = queue = []
        queue.append(fragment)
        self._queue_bytes += len(fragment)
        if self._queue_bytes > self._limits.queue_max_bytes or len(queue) > self._limits.queue_max_messages:
            self._drop_queue()
            self._end(SLOW_CONSUMER, deliver=False)
            return False
        return True

    async def drain(self) -> None:
        """Wait until no more than ``queue_high_bytes`` wait for this client.

        Raises SessionClosed where the session has ended or ends meanwhile.
        """
        if self._state > State.OPEN:
            raise SessionClosed(self.reason or NORMAL)
        if self._queue_bytes > self._limits.queue_high_bytes:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            if self._drainers is None:
                self._drainers = []
            self._drainers.append(waiter)
            try:
                await waiter
            finally:
                if self._drainers is not None and waiter in self._drainers:
                    self._drainers.remove(waiter)

    def _flush(self) -> None:
        transport = self._transport
        if transport is not None and transport.ready and self._queue:
            frames = self._dialect.pack(tuple(self._queue))
            self._drop_queue()
            self._last_sent = self._clock.now()
            transport.write(frames)
            self._wake_drainers()
            transport = self._transport
        # A transport that is not ready still takes the goodbye when nothing waits before it: it is the last frame.
        if self._state is State.CLOSING and transport is not None and not self._queue and not transport.finishing:
            frame = self._dialect.goodbye(self.reason or NORMAL)
            if frame is not None:
                transport.write((frame,))
            if self._transport is transport:
                transport.finish(self.reason)

    def _drop_queue(self) -> None:
        self._queue = None
        self._queue_bytes = 0

    def _wake_drainers(self, reason: CloseReason | None = None) -> None:
        """Nothing waits any more; with *reason* because the session ends."""
        drainers, self._drainers = self._drainers, None
        for drainer in drainers or ():
            if drainer.done():
                continue
            if reason is None:
                drainer.set_result(None)
            else:
                drainer.set_exception(SessionClosed(reason))

    # -- receiving

    def alive(self) -> None:
        """The client showed a sign of life that is no message."""
        self._last_seen = self._clock.now()
        self._pinged = False

    def receive(self, body: str | bytes, form: str = "") -> None:
        """Take what the client sent.  Raises ProtocolError, and then nothing of *body* was taken."""
        if self._state is not State.OPEN:
            return
        self.alive()
        for signal in self._dialect.decode(body, form, self._limits):
            kind = type(signal)
            if kind is Message:
                self._accept(signal.data)  # type: ignore[union-attr]  # the line above says which it is
            elif kind is Bye:
                self._peer_left(CloseReason(signal.code, signal.text, may_return=False))  # type: ignore[union-attr]
            else:
                self._signal(signal)
            if self._state is not State.OPEN:
                return

    def _signal(self, signal: Signal) -> None:
        """Something of the wire language itself; SockJS has nothing of the kind."""

    def _peer_left(self, reason: CloseReason) -> None:
        self._end(reason)

    def _accept(self, data: str | bytes) -> None:
        size = len(data)
        job: Any = data
        if self._arrive is not None:
            try:
                job = self._arrive(data)
            except Exception:
                self._handler_failed()
                return
            if job is None:
                return
            job, size = job
        if self._handler is None and not self._inbox:
            self._handle(job)
        else:
            self._keep(job, size)
            if self._transport is not None and self._reading_paused:
                self._transport.pause()

    def handle(self, job: Any) -> None:
        """Have ``on_message`` called with *job*, the listener's own, in turn with what the client sends."""
        if self._state > State.OPEN:
            return
        if self._handler is None and not self._inbox:
            self._handle(job)
        else:
            self._keep(job, 0)

    def _keep(self, job: Any, size: int) -> None:
        if self._inbox is None:
            self._inbox = []
        self._inbox.append((job, size))
        self._inbox_bytes += size

    @property
    def _reading_paused(self) -> bool:
        return self._handler is not None and (self._arrive is None or self.inbox_full)

    @property
    def inbox_full(self) -> bool:
        """Whether a sender should wait (see ``room``): handlers are that far behind."""
        limits = self._limits
        return self._inbox_messages >= limits.max_inbox_messages or self._inbox_bytes >= limits.max_inbox_bytes

    @property
    def _inbox_messages(self) -> int:
        return len(self._inbox) if self._inbox is not None else 0

    def check_inbox(self) -> None:
        """Raise ProtocolError (503) where one more payload would be too much to hold."""
        limits = self._limits
        if (
            len(self._room_waiters or ()) >= limits.max_waiting_sends
            or self._inbox_messages >= 2 * limits.max_inbox_messages
            or self._inbox_bytes >= 2 * limits.max_inbox_bytes
        ):
            raise ProtocolError("Too many messages wait for their handler; send again later.", status=503)

    async def room(self) -> None:
        """Wait until ``inbox_full`` is over, or the session is."""
        while self.inbox_full and self._state is State.OPEN:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            if self._room_waiters is None:
                self._room_waiters = []
            self._room_waiters.append(waiter)
            await waiter

    def _handle(self, job: Any) -> None:
        try:
            result = self._listener.on_message(job)
        except Exception:
            self._handler_failed()
            return
        if result is not None:
            self._run(result)

    def _run(self, result: Awaitable[Any]) -> None:
        """Let a handler finish before anything else of this client is handled."""
        self._handler = asyncio.ensure_future(result)
        self._handler.add_done_callback(self._handler_done)
        if self._transport is not None and self._reading_paused:
            self._transport.pause()

    def _handler_done(self, handler: asyncio.Future[Any]) -> None:
        was_paused = self._reading_paused
        self._handler = None
        if not handler.cancelled() and handler.exception() is not None:
            self._handler_failed(handler.exception())
        while self._inbox and self._handler is None:
            job, size = self._inbox.pop(0)
            self._inbox_bytes -= size
            self._handle(job)
        if not self.inbox_full or self._state is not State.OPEN:
            self._wake_senders()
        if was_paused and not self._reading_paused:
            # While reading was paused the client could not show that it lives: its time starts again.
            self.alive()
            if self._transport is not None:
                self._transport.resume()
        if self._handler is None and self._state >= State.CLOSING:
            self._tell_close()

    def _wake_senders(self) -> None:
        waiters, self._room_waiters = self._room_waiters, None
        for waiter in waiters or ():
            if not waiter.done():
                waiter.set_result(None)

    def _handler_failed(self, error: BaseException | None = None) -> None:
        error = error or sys.exc_info()[1]
        if isinstance(error, SessionClosed) and self._state >= State.CLOSING:
            log.debug("a handler of session %s was waiting when it ended", self.id)  # drain() told it so
        else:
            log.error("a message handler failed (session %s)", self.id, exc_info=error)
        self._drop_inbox()
        self._end(HANDLER_FAILED, deliver=False)

    def _drop_inbox(self) -> None:
        self._inbox = None
        self._inbox_bytes = 0

    # -- ending

    def close(self, reason: CloseReason = NORMAL) -> None:
        """End the session from this side; what is queued is still sent.  A second call changes nothing."""
        self._end(reason, deliver=False)

    def peer_closed(self, reason: CloseReason) -> None:
        """The client said goodbye."""
        self._end(reason)

    def _end(self, reason: CloseReason, *, deliver: bool = True) -> None:
        """Leave OPEN.  With *deliver*, messages that were accepted are handled before ``on_close``."""
        if self._state is State.CONNECTING:
            # close() inside on_open: the client still sees the session open, and then its end.
            self._move(State.OPEN)
        elif self._state is not State.OPEN:
            return
        self.reason = reason
        self._move(State.CLOSING)
        now = self._clock.now()
        self._wake_drainers(reason)
        if self._arrive is not None:
            self._listener.on_ending(reason)  # type: ignore[attr-defined]  # who reads ahead has one
        delay = self._limits.disconnect_delay_s if self.resumable else self._limits.close_timeout_s
        self._ends_at = now + delay
        self._tell_by = now + self._limits.close_timeout_s
        if not deliver:
            self._drop_inbox()
        self._wake_senders()
        self._flush()
        if not self.resumable and self._transport is None and not self._hello_due:
            self._close_down()
        else:
            self._reschedule()
        if not deliver or (self._handler is None and not self._inbox):
            self._tell_close()

    def _tell_close(self) -> None:
        if self._close_told:
            return
        self._close_told = True
        self._drop_inbox()
        if not self._refused:  # else it never opened, and there is nothing to close
            assert self.reason is not None
            try:
                result = self._listener.on_close(self.reason)
            except Exception:
                log.exception("on_close failed (session %s)", self.id)
            else:
                if result is not None:
                    self._scheduler.keep(asyncio.ensure_future(result))
        if self._state is State.CLOSED:
            self._let_go()

    def _let_go(self) -> None:
        """The listener is told nothing more.  Else the two would keep each other, until the garbage collector comes."""
        self._listener = None  # type: ignore[assignment]  # a session that is CLOSED asks nobody
        self._arrive = None

    def _close_down(self) -> None:
        """CLOSING is over: nobody will ask again."""
        if self._state is not State.CLOSING:
            return
        if not self._close_told and (self._handler is not None or self._inbox):
            # Handlers of a client that has left may still run; the sweep ends the wait.
            self._reschedule()
            return
        self._move(State.CLOSED)
        self._drop_queue()
        self._scheduler.remove(self)
        if self._close_told or self._refused:
            self._let_go()

    # -- deadlines

    def set_alarm(self, delay_s: float | None) -> None:
        """Have the listener's ``on_alarm`` called in *delay_s* seconds, if the session is still open (None: never)."""
        self._alarm_at = None if delay_s is None else self._clock.now() + delay_s
        if self._state <= State.OPEN:
            self._reschedule()

    def catch_up(self) -> None:
        """Do what is due, whenever the store's sweep would have come."""
        now, deadline = self._clock.now(), self.deadline
        if deadline is None or deadline[0] <= now:  # the store never comes later than anything is due
            self.tick(now)

    def tick(self, now: float) -> None:
        """Do whatever is due at *now*; the store's sweep calls this."""
        if self._state is State.OPEN and self._alarm_at is not None and now >= self._alarm_at:
            self._alarm_at = None
            self._listener.on_alarm()  # type: ignore[attr-defined]  # who sets an alarm has one
        if self._state is State.OPEN:
            self._check_life(now)
        if self._state is State.CLOSING and now >= self._tell_by:
            self._tell_close()
        if self._state is State.CLOSING and now >= self._ends_at:
            transport = self._transport
            if transport is not None:
                self._transport = None
                transport.abort()
            self._tell_close()
            self._close_down()
        if self._state is not State.CLOSED:
            self._reschedule()

    def _check_life(self, now: float) -> None:
        """Do what an open session owes to its wire language at *now*: heartbeats, and the end of who shows no life."""
        if self._transport is not None:
            self._check_connection(self._transport, now)
        elif now - self._detached_at >= self._limits.disconnect_delay_s:
            self._timed_out(now)

    def _timed_out(self, now: float) -> None:
        """Nobody came back; and nobody is waited for any longer."""
        self._end(SESSION_TIMEOUT)
        if self._handler is None:
            self._ends_at = now

    def _next_life(self) -> float:
        """When ``_check_life`` has something to do."""
        transport, limits = self._transport, self._limits
        if transport is None:
            return self._detached_at + limits.disconnect_delay_s
        if not transport.answers_ping:
            seen = self._last_seen + self._recycle_after() if transport.may_recycle else math.inf
        elif self._pinged:
            seen = self._last_seen + limits.heartbeat_delay_s + limits.heartbeat_timeout_s
        else:
            seen = self._last_seen + limits.heartbeat_delay_s
        return min(seen, self._last_sent + limits.heartbeat_delay_s)

    def _check_connection(self, transport: Transport, now: float) -> None:
        limits = self._limits
        if transport.answers_ping and self._reading_paused:
            # An answer could not be seen.
            self._last_seen = now
        silent = now - self._last_seen
        if transport.answers_ping:
            if silent >= limits.heartbeat_delay_s + limits.heartbeat_timeout_s:
                self._transport = None
                self._detached_at = now
                transport.abort()
                self._end(PING_TIMEOUT)
                return
            if silent >= limits.heartbeat_delay_s and not self._pinged:
                self._pinged = True
                transport.ping()
        if now - self._last_sent >= limits.heartbeat_delay_s:
            frame = self._dialect.heartbeat()
            self._last_sent = now
            if frame is not None and transport.ready:
                transport.write((frame,))
        if (
            transport.may_recycle
            and not transport.answers_ping
            and silent >= self._recycle_after()
            and self._transport is transport
        ):
            # This client can answer nothing on this connection.  Ending the response makes it come back, which
            # shows that it lives; who does not come back is gone within the disconnect delay.
            transport.finish(None)

    def _recycle_after(self) -> float:
        limits = self._limits
        whole = limits.heartbeat_delay_s + limits.heartbeat_timeout_s
        return max(limits.heartbeat_delay_s, whole - limits.disconnect_delay_s)

    def _next_deadline(self) -> float:
        if self._state is State.CLOSING:
            return self._ends_at if self._close_told else min(self._ends_at, self._tell_by)
        due = self._next_life()
        return due if self._alarm_at is None else min(due, self._alarm_at)

    def _be_due(self, at: float) -> None:
        """Something is due at *at*, or later.  What else is due has been scheduled."""
        deadline = self.deadline
        if deadline is None or deadline[0] > at:
            self._reschedule()

    def _reschedule(self) -> None:
        self._scheduler.schedule(self, self._next_deadline())

    def _move(self, state: State) -> None:
        if state not in _MOVES[self._state]:
            raise StateError(f"a session cannot go from {self._state.name} to {state.name}")
        log.debug("session %s: %s -> %s (%s)", self.id, self._state.name, state.name, self.reason)
        self._state = state
