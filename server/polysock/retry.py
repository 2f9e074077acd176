"""How long to wait before the next try.  Pure.

Waits double up to a limit and are spread by chance over all of that time ("full jitter"), so that many processes that
lost the same thing at the same moment do not come back at the same moment.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["retry_delay_s"]

_FIRST_S = 0.1
_MOST_DOUBLINGS = 30


def retry_delay_s(tries: int, longest_s: float, chance: Callable[[], float]) -> float:
    """Seconds to wait after *tries* (1 or more) tries; at most *longest_s*.  *chance*: numbers from 0 to 1."""
    return min(longest_s, _FIRST_S * 2.0 ** min(tries - 1, _MOST_DOUBLINGS)) * chance()
