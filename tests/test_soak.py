"""``make soak`` in small, and that it notices what it is for.  The long run is by hand: see soak/README.md."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SOAK = Path(__file__).resolve().parent / "soak"
TIMEOUT_S = 300

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the soak needs Linux")


@pytest.fixture
def ledger(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SOAK))
    import ledger

    return ledger


def test_a_small_crowd_loses_nothing_and_leaves_nothing() -> None:
    command = [
        sys.executable,
        str(SOAK / "run.py"),
        "--minutes",
        "0.05",
        "--clients",
        "57",
        "--patience",
        "3",
        "--seed",
        "1",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing was lost, and nothing is left" in done.stdout


@pytest.mark.parametrize("numbers", [(2,), (1, 3), (1, 1), (1, 2, 1)])
def test_a_gap_and_a_repetition_are_noticed(ledger: ModuleType, numbers: tuple[int, ...]) -> None:
    counting = ledger.Counting("answer")
    *good, bad = numbers
    for number in good:
        counting.take(number)
    with pytest.raises(ledger.Lost, match=f"answer {bad} came after {counting.last}"):
        counting.take(bad)


def test_broadcasts_are_heard_from_any_number_on(ledger: ModuleType) -> None:
    counting = ledger.Counting("broadcast", None)
    counting.take(17)
    counting.take(18)
    with pytest.raises(ledger.Lost):
        counting.take(20)


@pytest.mark.parametrize(
    "name", ["sessions", "connections", "descriptors", "tasks", "objects", "allocated_kib", "resident_kib"]
)
def test_what_grows_is_told(ledger: ModuleType, name: str) -> None:
    before = dict.fromkeys(ledger.GROWTH, 30_000)
    allowed = ledger.GROWTH[name].limit(30_000)

    def bad(**after: Any) -> list[str]:
        return [title for title, *_, good in ledger.compare(before, before | after) if not good]

    assert bad(**{name: allowed}) == []
    assert bad(**{name: allowed + 1}) == [ledger.GROWTH[name].title]


def test_types_that_grow_are_named(ledger: ModuleType) -> None:
    more = ledger.grown({"dict": 5, "list": 9, "Gone": 1}, {"dict": 7, "list": 9, "Leak": 40})
    assert more == [("Leak", 40), ("dict", 2)]
