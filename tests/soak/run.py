"""``make soak``: a crowd of clients for a while, then nothing may be lost, and nothing may be left in the server.

See README.md beside this file.  The exit status is 0 where all is well, 1 where something is lost or left, 2 where it
could not run.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import os
import resource
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from crowd import Crowd  # noqa: E402  # it needs the path
from ledger import compare, grown  # noqa: E402

from support import rawhttp  # noqa: E402

#: Share of the time that the first crowd has, after which the server is measured for the first time.
WARM_UP = 0.15
MIN_WARM_UP_S, PROGRESS_S = 5.0, 10.0
#: How long sessions may outlive their clients: a heartbeat, its timeout, and what a sweep takes.
GOING_S = 90
START_S, STOP_S, ASK_S = 20.0, 20.0, 60.0
#: Of the client's process and of the server's: two connections a client, and those that others are still closing.
DESCRIPTORS_PER_CLIENT, MORE_DESCRIPTORS = 4, 200


def tell(text: str) -> None:
    print(text, flush=True)


class Server:
    """The process under test."""

    def __init__(self, process: Process, port: int) -> None:
        self.process = process
        self.base = f"http://127.0.0.1:{port}"

    async def measure(self, *, settled: bool = False) -> dict[str, Any]:
        if self.process.returncode is not None:
            raise SystemExit(f"the server ended with status {self.process.returncode}")
        path = "/measure?settled" if settled else "/measure"
        answer = await rawhttp.request(self.base, "GET", path, timeout=ASK_S)
        found: dict[str, Any] = json.loads(answer.body)
        return found

    async def empty(self) -> dict[str, Any]:
        """What it holds when the sessions of those who have gone are over, or should be."""
        for _ in range(GOING_S):
            held = await self.measure()
            if not held["sessions"] and held["connections"] <= 1:  # this very question's
                break
            await asyncio.sleep(1)
        await asyncio.sleep(1)  # for what ends a moment later
        await self.measure(settled=True)  # what looking costs the first time is there before it counts
        return await self.measure(settled=True)


@asynccontextmanager
async def started(loop: str, patience_s: float) -> AsyncIterator[Server]:
    command = (sys.executable, str(HERE / "server.py"), loop, str(patience_s))
    # Python's own allocator gives pages back by the MiB only, and the C library does not count its bytes.
    environment = {**os.environ, "PYTHONMALLOC": "malloc"}
    process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, env=environment)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), START_S)
        if not line:
            raise SystemExit(f"the server ended with status {await process.wait()}")
        yield Server(process, int(line))
    finally:
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), STOP_S)
        except asyncio.TimeoutError:
            process.kill()
            await process.wait()


async def play(server: Server, crowd: Crowd, title: str, seconds: float) -> None:
    begun = time.monotonic()

    async def report() -> None:
        while True:
            await asyncio.sleep(PROGRESS_S)
            held = await server.measure()
            tell(
                f"{title}, {time.monotonic() - begun:4.0f} s: {held['sessions']:,} sessions, {held['tasks']:,} tasks, "
                f"{held['descriptors']:,} descriptors, {held['resident_kib'] / 1024:.1f} MiB; {crowd.said:,} messages "
                f"said, {crowd.heard:,} answers and {crowd.broadcasts:,} broadcasts heard; {crowd.left:,} have left, "
                f"{sum(crowd.resets.values()):,} broken off; {len(crowd.wrong) + len(held['wrong'])} wrong"
            )

    reporting = asyncio.ensure_future(report())
    try:
        await crowd.run(seconds)
    finally:
        reporting.cancel()


def table(rows: list[tuple[str, float, float, float, bool]]) -> None:
    head = ("what the server holds", "first crowd gone", "last crowd gone", "allowed", "")
    lines = [
        (title, f"{before:,.0f}", f"{after:,.0f}", f"{limit:,.0f}", "" if good else "GROWN")
        for title, before, after, limit, good in rows
    ]
    widths = [max(len(line[at]) for line in (head, *lines)) for at in range(len(head))]
    for first, *others in (head, *lines):
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        tell("  ".join([first.ljust(widths[0]), *cells]).rstrip())


async def soak(options: argparse.Namespace) -> list[str]:
    """What was lost or left."""
    seconds = options.minutes * 60
    wrong: list[str] = []
    async with started(options.loop, options.patience) as server:
        first = Crowd(server.base, options.clients, options.seed)
        await play(server, first, "first crowd", max(MIN_WARM_UP_S, seconds * WARM_UP))
        before = await server.empty()
        tell(f"the first crowd has gone: {before['resident_kib'] / 1024:.1f} MiB")
        crowd = Crowd(server.base, options.clients, options.seed + 1)
        await play(server, crowd, "crowd", seconds)
        after = await server.empty()
        tell("")
        rows = compare(before, after)
        table(rows)
        tell("")
        for name, count in sorted((first.resets + crowd.resets).items()):
            tell(f"broken off {name}: {count:,}")
        tell(f"left with a goodbye: {first.left + crowd.left:,}")
        tell(
            f"sessions opened {after['opened']:,}, closed {after['closed']:,}; messages taken {after['taken']:,}, "
            f"answered {after['given']:,}; heard by clients that were there to hear it: {first.heard + crowd.heard:,}"
        )
        wrong += [
            f"{title}: {now:,.0f}, and {limit:,.0f} is allowed" for title, _, now, limit, good in rows if not good
        ]
        if wrong:
            for what in ("types", "coroutines"):
                if more := grown(before[what], after[what]):
                    wrong.append("more than before: " + ", ".join(f"{count:,} {name}" for name, count in more))
        for name, held in ("the first crowd", before), ("the last crowd", after):
            if held["sessions"]:
                wrong.append(f"{held['sessions']} sessions outlived {name} by {GOING_S} s")
        if after["opened"] != after["closed"]:
            wrong.append(f"{after['opened']:,} sessions were opened, and {after['closed']:,} closed")
        wrong += [f"a client: {text}" for text in first.wrong + crowd.wrong]
        wrong += [f"the server: {text}" for text in after["wrong"]]
        wrong += [f"logged: {text}" for text in after["logged"]]
        if not crowd.heard or not crowd.broadcasts:
            wrong.append("nobody heard anything")
    if server.process.returncode:
        wrong.append(f"the server ended with status {server.process.returncode}")
    return wrong


def positive(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError("must be greater than zero")
    return number


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--minutes", type=positive, default=10.0, help="of traffic, after the first crowd (default: 10)"
    )
    parser.add_argument("--clients", type=int, default=2000, help="at a time (default: 2000)")
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio", help="the server's event loop")
    patience = "seconds that the server waits for a silent client (default: 30)"
    parser.add_argument("--patience", type=positive, default=30.0, help=patience)
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of what clients do by chance")
    options = parser.parse_args()
    if not sys.platform.startswith("linux"):
        print("the soak reads /proc: it needs Linux", file=sys.stderr)
        return 2
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard != resource.RLIM_INFINITY and hard < options.clients * DESCRIPTORS_PER_CLIENT + MORE_DESCRIPTORS:
        print(f"{options.clients} clients need more than the {hard} open files allowed (ulimit -Hn)", file=sys.stderr)
        return 2
    tell(f"{options.clients:,} clients, {options.minutes:g} minutes, --seed {options.seed}, server on {options.loop}")
    try:
        run = importlib.import_module("uvloop").run  # so that the clients cost less
    except ImportError:
        run = asyncio.run
    wrong = run(soak(options))
    for text in wrong:
        tell(f"WRONG: {text}")
    tell("nothing was lost, and nothing is left" if not wrong else f"failed: {len(wrong)} of it")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
