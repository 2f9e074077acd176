"""The clock that tests turn: the one that applications' own tests get too."""

from polysock.testing import FakeClock

__all__ = ["FakeClock"]
