"""A clock that stands still until a test turns it."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count


class FakeTimer:
    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class FakeClock:
    """``polysock_transports.clock.Clock``, driven by ``advance``."""

    def __init__(self, start: float = 1000.0) -> None:
        self._now = start
        self._order = count()
        self._timers: list[tuple[float, int, FakeTimer]] = []

    def now(self) -> float:
        return self._now

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> FakeTimer:
        timer = FakeTimer(callback)
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
