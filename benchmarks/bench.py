"""What polysock costs beside sockjs-tornado, in one run: ``make bench``, or ``python benchmarks/bench.py --help``.

For every line both servers start fresh, each in its own process, and take turns under the same load (``load.py``).
Nothing here judges the figures: the exit status is 0 whatever they are, and 2 where a server did not do the work.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from load import LINES

HERE = Path(__file__).parent
OURS, THEIRS = "polysock", "sockjs-tornado"
UNITS = {"echo": "us", "broadcast": "us", "hub": "us", "memory": "KiB"}
# Memory needs a fresh server for each round, and varies little.
MEMORY_ROUNDS = 3


class Broken(Exception):
    """A process of the benchmark failed."""


@contextmanager
def server(name: str) -> Iterator[int]:
    """A server under measurement; gives its port."""
    command = [sys.executable, "-W", "ignore", str(HERE / "servers.py"), name]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        port = process.stdout.readline().strip()
        if not port:
            raise Broken(f"the {name} server did not start")
        yield int(port)
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait()


def load(line: str, options: list[str]) -> list[dict[str, Any]]:
    """The records of one run of the load driver on fresh servers."""
    with ExitStack() as stack:
        command = [sys.executable, str(HERE / "load.py"), line, *options]
        for name in (OURS, THEIRS):
            command += ["--server", f"{name}={stack.enter_context(server(name))}"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise Broken(f"the load driver failed on {line}")
    return [json.loads(record) for record in done.stdout.splitlines()]


def measure(line: str, options: argparse.Namespace) -> dict[str, list[float]]:
    """Server name -> one value for each round."""
    kind = LINES[line].kind
    members = options.members
    clients = {"echo": options.clients, "broadcast": members, "hub": members, "memory": options.idle}[kind]
    if kind == "memory":
        rounds = min(MEMORY_ROUNDS, options.rounds)
        records = [record for _ in range(rounds) for record in load(line, ["--clients", str(clients)])]
    else:
        how = ["--clients", clients, "--rounds", options.rounds, "--seconds", options.seconds]
        records = load(line, [str(part) for part in how])
    return {name: [r["value"] for r in records if r["server"] == name] for name in (OURS, THEIRS)}


def row(line: str, values: dict[str, list[float]]) -> list[str]:
    """One line of the table: medians, each with its lowest and highest round, and the ratio of the medians."""
    kind = LINES[line].kind
    cells = [LINES[line].title]
    for name in (OURS, THEIRS):
        rounds = values[name]
        cells.append(f"{statistics.median(rounds):.1f} {UNITS[kind]} ({min(rounds):.1f}-{max(rounds):.1f})")
    pairs = [ours / theirs for ours, theirs in zip(values[OURS], values[THEIRS], strict=True) if theirs > 0]
    theirs = statistics.median(values[THEIRS])
    ratio = f"{statistics.median(values[OURS]) / theirs:.2f}" if theirs > 0 else "-"
    return [*cells, f"{ratio} ({min(pairs):.2f}-{max(pairs):.2f})" if pairs else ratio]


def table(rows: list[list[str]]) -> str:
    """*rows* under their titles, as Markdown."""
    head = ["server CPU per unit, or memory", OURS, THEIRS, "ratio"]
    widths = [max(len(cells[at]) for cells in (head, *rows)) for at in range(len(head))]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"
        for cells in lines
    )


def environment() -> dict[str, Any]:
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        **{name: version(name) for name in (OURS, THEIRS, "tornado", "ujson")},
    }


def positive(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError("must be greater than zero")
    return number


def count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def main() -> int:
    parser = argparse.ArgumentParser(description="Server CPU and memory of polysock beside sockjs-tornado.")
    parser.add_argument("--only", action="append", choices=LINES, metavar="LINE", help=f"one of: {', '.join(LINES)}")
    parser.add_argument("--rounds", type=count, default=5, help="rounds of each server (default: 5)")
    parser.add_argument("--seconds", type=positive, default=1.0, help="length of a round (default: 1)")
    parser.add_argument("--clients", type=count, default=32, help="clients of an echo line (default: 32)")
    parser.add_argument("--members", type=count, default=300, help="receivers of a broadcast (default: 300)")
    parser.add_argument("--idle", type=count, default=500, help="sessions of a memory line (default: 500)")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder of the JSON file")
    options = parser.parse_args()
    results, rows = {}, []
    for line in options.only or LINES:
        print(f"{LINES[line].title} ...", file=sys.stderr, end=" ", flush=True)
        try:
            results[line] = measure(line, options)
        except Broken as error:
            print(f"\n{error}", file=sys.stderr)
            return 2
        rows.append(row(line, results[line]))
        print(rows[-1][-1], file=sys.stderr, flush=True)
    facts = environment()
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    print(table(rows))
    options.results.mkdir(parents=True, exist_ok=True)
    settings = {name: value for name, value in vars(options).items() if name not in ("results", "only")}
    file = options.results / time.strftime("%Y%m%dT%H%M%SZ.json", time.gmtime())
    file.write_text(json.dumps({"environment": facts, "settings": settings, "rounds": results}, indent=1) + "\n")
    print(f"kept in {file}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
