"""That ``make bench`` runs and prints what its README shows; never how fast anything is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parent.parent / "benchmarks" / "bench.py"
TIMEOUT_S = 60
SMALL = ("--rounds", "2", "--seconds", "0.05", "--clients", "2", "--members", "2", "--idle", "2")


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCH), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


@pytest.mark.parametrize("line", ["echo-jsonp", "broadcast-eventsource", "hub-xhr", "memory-websocket"])
def test_a_line_is_measured_and_printed(line: str, tmp_path: Path) -> None:
    done = bench("--only", line, *SMALL, "--results", str(tmp_path))
    assert done.returncode == 0, done.stderr

    _facts, *table = done.stdout.splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in table]
    assert [len(row) for row in cells] == [4, 4, 4]
    assert cells[0] == ["server CPU per unit, or memory", "polysock", "sockjs-tornado", "ratio"]
    assert set("".join(cells[1])) == {"-"}

    (file,) = tmp_path.glob("*.json")
    kept = json.loads(file.read_text())
    assert kept["environment"]["sockjs-tornado"].startswith("1.")
    assert {name: len(rounds) for name, rounds in kept["rounds"][line].items()} == {"polysock": 2, "sockjs-tornado": 2}


def test_a_line_that_does_not_exist_is_refused() -> None:
    done = bench("--only", "echo-pigeon")
    assert done.returncode == 2
    assert "echo-websocket" in done.stderr
