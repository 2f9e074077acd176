"""What a backplane costs for each message, at 1, 4 and 16 nodes: ``python benchmarks/bench.py backplane``.

One process publishes, and each node that takes is a process of its own (``backplane.py take ...``), so that what
sending costs and what receiving costs are told apart.  All nodes are subscribed; a burst is published in one turn of
the loop, as a broadcast among others is, and the next one when every node has all of it.  A message that is missing,
twice or out of order ends the run.  Redis is a server of the benchmark's own; its processor time is told as well.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from shutil import which

import report

from polysock.backplane import Backplane
from polysock.backplane_url import connect

NODES = (1, 4, 16)
KINDS = ("local", "redis")
BURST = 50
MESSAGE_BYTES = 200
WARM_UP_BURSTS = 10
ANSWER_TIMEOUT_S = 60
START_TRIES = 100
START_TRY_S = 0.05
HERE = Path(__file__).resolve().parent


class WrongAnswer(Exception):
    """A node did not get what was published."""


def cpu_us() -> float:
    """Processor time of this process so far, in microseconds."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return (usage.ru_utime + usage.ru_stime) * 1e6


def cpu_of_us(pid: int) -> float:
    """The same of another process, by the clock that clock_getcpuclockid(3) makes of its id."""
    return time.clock_gettime_ns((~pid << 3) | 2) / 1e3


# -- a node that takes


async def take(url: str, node_id: str) -> None:
    """Count what comes, and say so after each burst; end with the standard input."""
    backplane = connect(url)
    expected = 0

    def receive(channel: str, data: bytes) -> None:
        nonlocal expected
        number = int.from_bytes(data[:8], "big")
        if number != expected or len(data) != MESSAGE_BYTES:
            print(f"wrong: message {number} of {len(data)} bytes where {expected} was due", flush=True)
        expected = number + 1
        if expected % BURST == 0:
            backplane.publish("done", node_id.encode())

    def cost() -> None:
        if not sys.stdin.readline():
            ended.set()
        else:
            print(cpu_us(), expected, flush=True)

    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, cost)
    backplane.subscribe("room")
    await backplane.start(node_id, receive)
    await backplane.settled()
    print("ready", flush=True)
    await ended.wait()
    await backplane.stop()


class Taker:
    """A process of it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def _line(self) -> str:
        assert self._process.stdout is not None
        line = (await asyncio.wait_for(self._process.stdout.readline(), ANSWER_TIMEOUT_S)).decode().strip()
        if not line or line.startswith("wrong"):
            raise WrongAnswer(line or "a node ended")
        return line

    async def ready(self) -> None:
        await self._line()

    async def cost(self) -> tuple[float, int]:
        """(processor time in microseconds, messages) so far."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        spent, count = (await self._line()).split()
        return float(spent), int(count)


@asynccontextmanager
async def taker(url: str, node_id: str) -> AsyncIterator[Taker]:
    command = (sys.executable, __file__, "take", url, node_id)
    process = await asyncio.create_subprocess_exec(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        node = Taker(process)
        await node.ready()
        yield node
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


# -- the one that publishes


class Bursts:
    """Bursts to *nodes* others, one after the other."""

    def __init__(self, backplane: Backplane, nodes: int) -> None:
        self._backplane = backplane
        self._nodes = nodes
        self._number = 0
        self._missing = 0
        self._all_have_it = asyncio.Event()

    def receive(self, channel: str, data: bytes) -> None:
        self._missing -= 1
        if not self._missing:
            self._all_have_it.set()

    async def burst(self) -> None:
        self._missing = self._nodes
        self._all_have_it.clear()
        for number in range(self._number, self._number + BURST):
            self._backplane.publish("room", number.to_bytes(8, "big") + bytes(MESSAGE_BYTES - 8))
        self._number += BURST
        await asyncio.wait_for(self._all_have_it.wait(), ANSWER_TIMEOUT_S)


@contextmanager
def place(kind: str) -> Iterator[tuple[str, int | None]]:
    """(what nodes connect to, the process of the broker)."""
    with tempfile.TemporaryDirectory(prefix="mesh") as folder:
        if kind == "local":
            yield f"unix://{folder}/nodes", None
            return
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        options = ("--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", folder)
        server = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)
        try:
            listening(port)
            yield f"redis://127.0.0.1:{port}", server.pid
        finally:
            server.kill()
            server.wait()


def listening(port: int) -> None:
    for _ in range(START_TRIES):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(START_TRY_S)
        else:
            return
    raise WrongAnswer("redis-server does not start")


async def measure(kind: str, nodes: int, rounds: int, seconds: float) -> list[report.Record]:
    """A record for each round: microseconds for one message, where it is published, taken, and at the broker."""
    records: list[report.Record] = []
    async with AsyncExitStack() as stack:
        url, broker = stack.enter_context(place(kind))
        backplane = connect(url)
        bursts = Bursts(backplane, nodes)
        backplane.subscribe("done")
        await backplane.start("sender00", bursts.receive)
        stack.push_async_callback(backplane.stop)
        takers = [await stack.enter_async_context(taker(url, f"taker{number:03}")) for number in range(nodes)]
        clock = asyncio.get_running_loop().time
        for _ in range(WARM_UP_BURSTS):
            await bursts.burst()
        for _ in range(rounds):
            before = [await node.cost() for node in takers]
            broker_before = cpu_of_us(broker) if broker else 0.0
            own = cpu_us()
            end = clock() + seconds
            count = 0
            while clock() < end:
                await bursts.burst()
                count += BURST
            own = cpu_us() - own
            after = [await node.cost() for node in takers]
            if any(now[1] - then[1] != count for now, then in zip(after, before, strict=True)):
                raise WrongAnswer("a node counted another number of messages")
            taken = sum(now[0] - then[0] for now, then in zip(after, before, strict=True))
            record = {"units": count, "publish": own / count, "take": taken / count / nodes}
            records.append(record | ({"broker": (cpu_of_us(broker) - broker_before) / count} if broker else {}))
    return records


def show(results: dict[str, list[report.Record]]) -> str:
    """A table: medians of the rounds."""
    rows = []
    for name, records in results.items():
        kind, _, nodes = name.partition("-")
        keys = ("publish", "take", "broker")
        cells = [f"{report.middle(records, key):.1f}" if key in records[0] else "" for key in keys]
        rows.append([kind, nodes, *cells])
    return report.table(["backplane", "other nodes", "publish, us", "take, us", "broker, us"], rows)


def run(rounds: int, seconds: float, results: Path, sizes: Iterable[int] = NODES) -> int:
    """Measure all, with as many other nodes as *sizes* says, print the table, keep every round; the exit status."""
    kinds = [kind for kind in KINDS if kind == "local" or which("redis-server")]
    if len(kinds) < len(KINDS):
        print("redis-server is not installed: left out", file=sys.stderr)
    found: dict[str, list[report.Record]] = {}
    for nodes in sizes:
        for kind in kinds:
            print(f"{kind}, {nodes} nodes ...", file=sys.stderr, flush=True)
            try:
                found[f"{kind}-{nodes}"] = asyncio.run(measure(kind, nodes, rounds, seconds))
            except WrongAnswer as error:
                print(f"{kind}, {nodes} nodes: {error}", file=sys.stderr)
                return 2
    print(show(found))
    results.mkdir(parents=True, exist_ok=True)
    kept = {"environment": report.environment(), "rounds": found}
    (results / "backplane.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A node that takes; started by the benchmark.")
    parser.add_argument("what", choices=("take",))
    parser.add_argument("url")
    parser.add_argument("node_id")
    asked = parser.parse_args()
    asyncio.run(take(asked.url, asked.node_id))
