"""id -> Session, how many there may be, and one sweep for all their deadlines.

No session has a timer of its own: the store keeps a heap of (deadline, session) and one timer for its top.  A deadline
that moves later costs nothing; the sweep finds out and puts the session back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from heapq import heappop, heappush
from itertools import count
from typing import Any

from .clock import Clock, Timer
from .errors import CloseReason, Refused
from .limits import Limits
from .session import Deadline, Session

__all__ = ["SessionStore"]

log = logging.getLogger("polysock.session")


class SessionStore:
    """The sessions of one endpoint."""

    def __init__(self, limits: Limits, clock: Clock) -> None:
        self._limits = limits
        self._clock = clock
        self._by_id: dict[str, Session] = {}
        self._all: set[Session] = set()
        self._by_address: dict[str, int] = {}
        self._heap: list[Deadline] = []
        self._order = count()  # so that the heap never compares two sessions
        self._timer: Timer | None = None
        self._timer_at = 0.0
        self._tasks: set[asyncio.Future[Any]] = set()

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._all))

    def get(self, session_id: str) -> Session | None:
        """The session that a client may attach to under *session_id*."""
        return self._by_id.get(session_id)

    def ids(self) -> list[str]:
        """The ids under which clients may attach now."""
        return list(self._by_id)

    def check_room(self, address: str) -> None:
        """Raise Refused (503 or 429) where one more session of *address* would be over a limit."""
        if len(self._all) >= self._limits.max_sessions:
            raise Refused(503, "Too many sessions on this server.")
        if self._by_address.get(address, 0) >= self._limits.max_sessions_per_address:
            raise Refused(429, "Too many sessions from this address.")

    def add(self, session: Session) -> None:
        """Take in a session; from now on its deadlines are kept."""
        self._all.add(session)
        if session.findable:
            self._by_id[session.id] = session
        self._by_address[session.address] = self._by_address.get(session.address, 0) + 1

    def remove(self, session: Session) -> None:
        """Forget a session (it calls this itself when it is CLOSED)."""
        if session not in self._all:
            return
        self._all.remove(session)
        if session.deadline is not None:
            session.deadline[2] = None  # the heap entry stays until its time; the session need not
            session.deadline = None
        if self._by_id.get(session.id) is session:
            del self._by_id[session.id]
        left = self._by_address[session.address] - 1
        if left:
            self._by_address[session.address] = left
        else:
            del self._by_address[session.address]
        if not self._all:
            # Nobody is left, so nothing in the heap matters, and an idle process should have no timer of ours.
            self._heap.clear()
            self._stop_timer()

    def schedule(self, session: Session, at: float) -> None:
        """Have ``session.tick`` called at *at* or a little later; a later call for an earlier moment wins."""
        entry = session.deadline
        if entry is not None:
            if at >= entry[0]:
                return
            entry[2] = None
        session.deadline = entry = [at, next(self._order), session]
        heappush(self._heap, entry)
        if self._timer is None or at < self._timer_at - self._limits.sweep_interval_s:
            self._start_timer()

    def sweep(self) -> None:
        """Tick every session whose deadline has passed."""
        self._timer = None
        heap, now = self._heap, self._clock.now()
        while heap and heap[0][0] <= now:
            session = heappop(heap)[2]
            if session is not None:  # else an earlier entry has replaced this one, or the session is gone
                session.deadline = None
                session.tick(now)
        if heap and self._timer is None:
            self._start_timer()

    def close_all(self, reason: CloseReason) -> None:
        """Close every session, for instance because the server stops."""
        for session in list(self._all):
            session.close(reason)

    def keep(self, task: asyncio.Future[Any]) -> None:
        """Hold a coroutine that outlives its session (``on_close``), and log what it raises."""
        self._tasks.add(task)
        task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Future[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("on_close failed", exc_info=task.exception())

    def _start_timer(self) -> None:
        self._stop_timer()
        now = self._clock.now()
        # Never sooner than one interval: deadlines that lie close together share a wake-up.
        self._timer_at = max(self._heap[0][0], now + self._limits.sweep_interval_s)
        self._timer = self._clock.call_later(self._timer_at - now, self.sweep)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
