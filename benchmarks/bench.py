"""What polysock costs beside its peers, in one run: ``make bench``, or ``python benchmarks/bench.py --help``.

For every line each server starts in a process of its own, under a load of its own (``load.py``), and they take turns.
Nothing here judges the figures: the exit status is 0 whatever they are, and 2 where a server did not do the work.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

import backplane
import chart
import cluster
import clusterreport
import report
from lines import HERE, LINES, PEERS, SCALING, Line
from load import WrongAnswer, open_files

#: Memory needs fresh servers for each round, and varies little.
MEMORY_ROUNDS = 3
QUICK_ROUNDS, QUICK_S = 2, 0.3


class Broken(Exception):
    """A server, or the load on it, failed."""


class Load:
    """One ``load.py`` with its server."""

    def __init__(self, peer: str, line: str, options: list[str]) -> None:
        command = [sys.executable, str(HERE / "load.py"), peer, line, *options]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._name = f"{peer}, {line}"

    def __enter__(self) -> Load:
        self._answer()
        return self

    def __exit__(self, *error: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        answer = self._process.stdout.readline()
        if not answer:
            self._process.wait()
            raise Broken(self._name)
        return answer

    def round(self) -> report.Record:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise Broken(self._name) from None
        return json.loads(self._answer())


def tell(text: str) -> None:
    print(text, file=sys.stderr, end="", flush=True)


def measure(name: str, line: Line, peers: Iterable[str], options: argparse.Namespace) -> report.Records:
    """Peer -> a record for each round; a peer that failed has none."""
    how = ["--seconds", str(options.seconds), *(["--clients", str(options.clients)] if options.clients else [])]
    records: report.Records = {peer: [] for peer in peers}

    def fail(peer: str, error: Broken) -> None:
        records[peer].clear()
        failed.add(peer)
        tell(f"\n  failed: {error}\n")

    failed: set[str] = set()
    with ExitStack() as stack:
        loads = {}
        if not line.is_fresh:
            for peer in records:
                tell(".")
                load = Load(peer, name, how)
                stack.push(load.__exit__)
                try:
                    loads[peer] = load.__enter__()
                except Broken as error:
                    fail(peer, error)
        rounds = {"memory": min(MEMORY_ROUNDS, options.rounds), "idle": 1}.get(line.kind, options.rounds)
        for _ in range(rounds):
            for peer in records:
                if peer in failed:
                    continue
                try:
                    if line.is_fresh:
                        with Load(peer, name, how) as load:
                            records[peer].append(load.round())
                    else:
                        records[peer].append(loads[peer].round())
                except Broken as error:
                    fail(peer, error)
            tell("+")
    return records


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


def names(known: Iterable[str]) -> str:
    return ", ".join(known)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Server CPU and memory of polysock beside its peers.")
    what = "table: everything beside every peer (default); scaling: cost against size; cluster: several nodes; "
    what += "backplane: what travels between nodes, alone"
    kinds = ("table", "scaling", "cluster", "backplane")
    parser.add_argument("what", nargs="?", choices=kinds, default="table", help=what)
    only = f"some of: {names(LINES)}; of scaling: {names(SCALING)}; of cluster: {names(cluster.PARTS)}"
    parser.add_argument("--only", action="append", metavar="LINE", help=only)

    parser.add_argument("--peers", action="append", metavar="PEER", choices=PEERS, help=f"some of: {names(PEERS)}")
    parser.add_argument("--rounds", type=count, default=5, help="rounds of each server (default: 5)")
    parser.add_argument("--seconds", type=positive, default=1.0, help="length of a round (default: 1)")
    parser.add_argument("--clients", type=count, help="clients (nodes) of every line, not its own number")
    quick = f"{QUICK_ROUNDS} rounds of {QUICK_S} s"
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="write the report there, also of a part")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder for every round as JSON")
    options = parser.parse_args()
    lines = SCALING if options.what == "scaling" else LINES
    known = cluster.PARTS if options.what == "cluster" else lines
    for name in options.only or ():
        if name not in known:
            parser.error(f"--only {name}: there are {names(known)}")
    if options.quick:
        options.rounds, options.seconds = QUICK_ROUNDS, QUICK_S
    options.lines = {name: line for name, line in lines.items() if name in (options.only or lines)}
    return options


def run_cluster(options: argparse.Namespace) -> int:
    """Measure what several nodes cost, print it, keep and write it; the exit status."""
    rounds = min(options.rounds, cluster.MAX_ROUNDS)
    open_files()
    try:
        results = cluster.run(options.only or cluster.PARTS, rounds, options.seconds, options.clients, tell)
    except (WrongAnswer, backplane.WrongAnswer, OSError) as error:
        tell(f"cluster: {error}\n")
        return 2
    how = {"rounds": rounds, "seconds": options.seconds, "clients": options.clients}
    facts = report.environment()
    print("\n".join(clusterreport.sections(results)))
    keep(options, {"environment": facts, "settings": how, "rounds": results})
    whole = not options.only and not options.clients and not options.quick
    folder = options.write or (HERE if whole else None)
    if folder is not None:
        write(folder, "cluster", clusterreport.page(facts, how, results), clusterreport.draw(results))
    return 0


def keep(options: argparse.Namespace, rounds: dict[str, object]) -> None:
    """Every round as JSON."""
    options.results.mkdir(parents=True, exist_ok=True)
    kept = options.results / time.strftime("%Y%m%dT%H%M%SZ.json", time.gmtime())
    kept.write_text(json.dumps(rounds, indent=1) + "\n")


def write(folder: Path, stem: str, page: str, drawing: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{stem}.md").write_text(page, encoding="utf-8")
    (folder / f"{stem}.svg").write_text(drawing, encoding="utf-8")
    tell(f"written: {folder / stem}.md and .svg\n")


def main() -> int:
    if not sys.platform.startswith("linux"):
        print("the benchmark reads /proc and uses epoll: it needs Linux", file=sys.stderr)
        return 2
    options = arguments()
    if options.what == "backplane":
        sizes = (options.clients,) if options.clients else backplane.NODES
        return backplane.run(options.rounds, options.seconds, options.results, sizes)
    if options.what == "cluster":
        return run_cluster(options)
    begun = time.monotonic()
    absent = [name for name, peer in PEERS.items() if peer.command(name) is None]
    if absent:
        tell(f"not installed, left out: {names(absent)}\n")
    results: dict[str, report.Records] = {}
    for name, line in options.lines.items():
        peers = [peer for peer in line.peers if peer not in absent and peer in (options.peers or PEERS)]
        if not peers:
            continue
        tell(f"{line.title} ")
        results[name] = measure(name, line, peers, options)
        tell(f" ({time.monotonic() - begun:.0f} s)\n")
        print(report.section(line, results[name]), flush=True)
    print(report.reached(results))
    facts = report.environment()
    how = {"rounds": options.rounds, "seconds": options.seconds, "clients": options.clients}
    keep(options, {"environment": facts, "settings": how, "rounds": results})
    whole = not options.only and not options.peers and not options.clients and not options.quick
    folder = options.write or (HERE if whole else None)
    if folder is not None:
        draw, stem = (chart.scaling, "scaling") if options.what == "scaling" else (chart.bars, "results")
        write(folder, stem, report.page(stem, facts, how, results), draw(results))
    return 0 if all(records for line in results.values() for records in line.values()) else 2


if __name__ == "__main__":
    sys.exit(main())
