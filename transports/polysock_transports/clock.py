"""Where this project gets its time from: a clock that tests can turn.

Intervals are measured on a monotonic clock only; the wall clock jumps.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

__all__ = ["Clock", "LoopClock", "Timer"]


class Timer(Protocol):
    """A call that is due later and can still be cancelled."""

    def cancel(self) -> None: ...


class Clock(Protocol):
    """Monotonic seconds, and one call in the future."""

    def now(self) -> float:
        """Seconds since some fixed moment; never goes back."""

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """Call *callback* in *delay_s* seconds."""


class LoopClock:
    """The real clock: ``time.monotonic`` and the running event loop."""

    now = staticmethod(time.monotonic)

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        return asyncio.get_running_loop().call_later(delay_s, callback)
