"""How long to wait before the next try."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from polysock.retry import retry_delay_s


def test_waits_double_up_to_the_longest() -> None:
    waits = [retry_delay_s(tries, 5.0, lambda: 1.0) for tries in range(1, 10)]
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]


@given(st.integers(1, 10**9), st.floats(0.01, 1e6), st.integers())
def test_all_of_it_is_left_to_chance(tries: int, longest_s: float, seed: int) -> None:
    chance = random.Random(seed).random
    assert 0 <= retry_delay_s(tries, longest_s, chance) <= longest_s


def test_a_crowd_spreads() -> None:
    chance = random.Random(1).random
    waits = sorted(retry_delay_s(9, 10.0, chance) for _ in range(1_000))
    # Nowhere do more than a few come within the same hundredth of the time.
    assert max(sum(low <= wait < low + 0.1 for wait in waits) for low in waits) < 30
    assert (waits[0] < 0.1, waits[-1] > 9.9) == (True, True)
