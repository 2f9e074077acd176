"""Where a server spends its processor time on one line of the table: ``benchmarks/shares.py polysock broadcast``.

Samples the server with py-spy (an extra of its own: ``pip install py-spy``; as root, or with the right to trace
processes) while ``load.py`` makes the load, and prints the share of system calls, of each package's Python code and of
the functions that take most.  Linux only.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from lines import HERE, LINES, PEERS

#: A frame of py-spy's raw output: what, and where.
_FRAME = re.compile(r"(?P<what>.+) \((?P<where>[^()]*)\)\Z")
#: Part of a path -> whose code it is; the first that fits.
_OWNERS = (
    ("polysock_transports/", "polysock_transports"),
    ("polysock/", "polysock"),
    ("tornado/", "Tornado"),
    ("sockjs/", "sockjs-tornado"),
    ("asyncio/", "asyncio"),
    ("selectors.py", "asyncio"),
    ("uvloop", "uvloop"),
    ("libc.", "system calls and libc"),
    ("libpthread", "system calls and libc"),
    ("ujson", "ujson"),
    ("servers.py", "the application"),
)
_INTERPRETER = "the interpreter"
MOST_FUNCTIONS = 12


def owner_of(where: str) -> str:
    """Whose code the file *where* is."""
    return next((owner for part, owner in _OWNERS if part in where), _INTERPRETER)


def shares(raw: Iterable[str]) -> tuple[Counter[str], Counter[str]]:
    """Samples by owner and by function, each counted where it was taken; of py-spy's raw lines.

    What the interpreter does on its own (objects made and freed, calls, the garbage collector) counts for itself.
    """
    owners: Counter[str] = Counter()
    functions: Counter[str] = Counter()
    for line in raw:
        stack, _, count = line.rstrip("\n").rpartition(" ")
        if not stack:
            continue
        found = _FRAME.match(stack.split(";")[-1])
        what, where = (found["what"], found["where"]) if found is not None else (stack.split(";")[-1], "")
        owner = owner_of(where)
        owners[owner] += int(count)
        functions[f"{what} ({where.rpartition(':')[0] or where})"] += int(count)
    return owners, functions


def table(title: str, counts: Counter[str], most: int | None = None) -> str:
    whole = counts.total()
    rows = [f"| {title} | share |", "| --- | --- |"]
    rows += [f"| {name} | {count / whole:.0%} |" for name, count in counts.most_common(most) if count / whole >= 0.005]
    return "\n".join(rows)


def sample(peer: str, line: str, seconds: float, rate: int) -> list[str]:
    """py-spy's raw lines of *seconds* of the server's time."""
    spy = shutil.which("py-spy") or str(Path(sys.executable).with_name("py-spy"))
    command = [sys.executable, str(HERE / "load.py"), peer, line, "--seconds", str(seconds + 1)]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as load,
    ):
        assert load.stdin is not None
        assert load.stdout is not None
        if not load.stdout.readline():  # it is up
            sys.exit(f"the load of {line} on {peer} did not start")
        children = Path(f"/proc/{load.pid}/task/{load.pid}/children").read_text().split()
        load.stdin.write("\n")
        load.stdin.flush()
        raw = Path(folder) / "raw"
        spying = [spy, "record", "--pid", children[0], "--duration", str(int(seconds)), "--rate", str(rate)]
        spying += ["--native", "--format", "raw", "--output", str(raw)]
        try:
            done = subprocess.run(spying, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            sys.exit("this needs py-spy: pip install py-spy")
        if done.returncode:
            sys.exit(f"py-spy failed: {done.stderr.strip()}")
        load.stdout.readline()
        load.stdin.close()
        return raw.read_text().splitlines()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("peer", choices=[name for name, peer in PEERS.items() if not peer.node])
    arguments.add_argument(
        "line", choices=[name for name, line in LINES.items() if line.kind in ("broadcast", "echo", "connect")]
    )
    arguments.add_argument("--seconds", type=int, default=5)
    arguments.add_argument("--rate", type=int, default=500, help="samples a second")
    given = arguments.parse_args()
    owners, functions = shares(sample(given.peer, given.line, given.seconds, given.rate))
    print(f"{PEERS[given.peer].title}, {LINES[given.line].title}: {owners.total()} samples\n")
    print(table("whose", owners))
    print()
    print(table("function", functions, MOST_FUNCTIONS))


if __name__ == "__main__":
    main()
