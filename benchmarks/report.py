"""The figures as Markdown: tables of lines, what was aimed at, and the page with machine and versions."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path
from statistics import median

from lines import LEAST_OVER_MOST, LINES, NODE_MODULES, P99_MS, PEERS, PEERS_PYTHON, SCALING, Line

#: What ``load.py`` says of a round: ``value``, ``generator``, ``units`` and more.
Record = dict[str, float]
#: Peer -> its rounds.
Records = dict[str, list[Record]]

OWN = tuple(name for name, peer in PEERS.items() if peer.own)


def middle(records: list[Record], key: str = "value") -> float:
    return median(record[key] for record in records)


def ratio(records: Records, own: str, peer: str) -> float | None:
    if not records.get(own) or not records.get(peer) or middle(records[peer]) <= 0:
        return None
    return middle(records[own]) / middle(records[peer])


def table(head: list[str], rows: list[list[str]]) -> str:
    widths = [max(len(cells[at]) for cells in (head, *rows)) for at in range(len(head))]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"
        for cells in lines
    )


def section(line: Line, records: Records) -> str:
    """One line: all servers, the cheapest first."""
    own = [name for name in OWN if records.get(name)]
    head = ["server", line.unit, "lowest - highest", *(f"{PEERS[name].title} / it" for name in own), "generator"]
    if line.kind == "echo":
        head += ["p99, ms", "least / most served"]
    rows = []
    for name, rounds in sorted(records.items(), key=lambda item: middle(item[1]) if item[1] else float("inf")):
        if not rounds:
            rows.append([PEERS[name].title, "failed", *[""] * (len(head) - 2)])
            continue
        values = [record["value"] for record in rounds]
        ratios = [ratio(records, mine, name) for mine in own]
        row = [PEERS[name].title, f"{median(values):.1f}", f"{min(values):.1f} - {max(values):.1f}"]
        row += ["" if found is None else f"{found:.2f}" for found in ratios]
        row.append("" if line.kind == "memory" else f"{middle(rounds, 'generator'):.1f}")
        if line.kind == "echo":
            row += [f"{middle(rounds, 'p99_ms'):.1f}", f"{middle(rounds, 'least_most'):.2f}"]
        rows.append(row)
    return f"\n### {line.title}\n\n{table(head, rows)}\n"


def reached(results: dict[str, Records]) -> str:
    """What is aimed at, and where we are; nothing where no line of *results* aims at anything."""
    rows = []

    def row(title: str, own: str, against: str, wanted: str, got: float, *, good: bool) -> None:
        rows.append([title, PEERS[own].title, against, wanted, f"{got:.2f}", "yes" if good else "no"])

    for name, records in results.items():
        line = LINES.get(name)
        for own in (own for own in OWN if line is not None and records.get(own)):
            assert line is not None
            for peer, most in line.reach:
                got = ratio(records, own, peer)
                if got is not None:
                    row(line.title, own, PEERS[peer].title, f"<= {most}", got, good=got <= most)
            if line.growth is not None and results.get(line.growth[0], {}).get(own):
                before, most = line.growth
                got = middle(records[own]) / middle(results[before][own])
                row(line.title, own, f"itself at {LINES[before].clients:,}", f"<= {most}", got, good=got <= most)
            if line.kind == "echo":
                p99, even = middle(records[own], "p99_ms"), middle(records[own], "least_most")
                row("echo, 99 of 100 answers", own, "the clock", f"< {P99_MS} ms", p99, good=p99 < P99_MS)
                row("echo, least / most served", own, "1", f"> {LEAST_OVER_MOST}", even, good=even > LEAST_OVER_MOST)
    head = ["work", "server", "against", "aim", "is", "reached"]
    return f"\n## Aims\n\n{table(head, rows)}\n" if rows else ""


def environment() -> dict[str, str]:
    """Machine and versions."""
    system = platform.uname()
    facts = {
        "processor": processor() or system.machine,
        "cores": str(os.cpu_count()),
        "system": f"{system.system} {system.release}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
    }
    site = "python{}.{}/site-packages".format(*sys.version_info)
    paths = [str(PEERS_PYTHON.parent.parent / "lib" / site)]
    versions = {found.name: found.version for found in (*distributions(path=paths), *distributions())}
    wanted = (
        "polysock",
        "tornado",
        "ujson",
        "sockjs-tornado",
        "python-socketio",
        "python-engineio",
        "uvicorn",
        "uvloop",
    )
    facts |= {name: versions[name] for name in wanted if name in versions}
    if shutil.which("node"):
        facts["Node"] = subprocess.run(
            ["node", "--version"], capture_output=True, text=True, check=False
        ).stdout.strip()
        for package in ("sockjs", "socket.io", "engine.io", "ws"):
            file = NODE_MODULES / package / "package.json"
            if file.exists():
                facts[f"{package} (npm)"] = json.loads(file.read_text(encoding="utf-8"))["version"]
    return facts


def processor() -> str:
    try:
        told = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    names = [line.partition(":")[2].strip() for line in told.splitlines() if line.startswith("model name")]
    return names[0] if names else ""


def page(stem: str, facts: dict[str, str], how: dict[str, object], results: dict[str, Records]) -> str:
    """``results.md`` or ``scaling.md``."""
    titles = {"results": "# What a server costs", "scaling": "# Cost against size"}
    target = "make bench" if stem == "results" else 'make bench ARGS="scaling"'
    lines = LINES | SCALING
    parts = [
        f"{titles[stem]}\n\nWritten by `{target}`; [README.md](README.md) says what a unit is and how it is measured.\n"
        f"{how['rounds']} rounds of {how['seconds']:g} s for each server, taking turns; medians, processor time of the "
        f"server in us for a unit, memory in KiB.\n\n![the figures as a chart]({stem}.svg)\n",
        "\n" + table(["machine and versions", ""], [list(fact) for fact in facts.items()]) + "\n",
        reached(results),
        "\n## Figures\n",
        *(section(lines[name], records) for name, records in results.items()),
    ]
    return "\n".join(part.rstrip("\n") for part in parts if part) + "\n"
