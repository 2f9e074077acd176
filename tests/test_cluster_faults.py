"""A node dies, Redis goes away, a cable is cut, a node hangs: what is lost, for how long, and what it costs the others.

The nodes are processes behind nginx, under load from emitters of their own.  Whom nothing has hit must miss nothing;
who was hit comes back; what is sent meanwhile is bounded; and afterwards every node knows the same members again.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import tempfile
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.clients import quiet
from support.clusters import Cluster, Member, running_cluster
from support.programs import joined_hosts, redis_on
from support.rawhttp import WireSocket, request
from support.redis_server import RedisServer
from support.socketio_node import node

__all__ = ["quiet"]

ROOM = "everybody"
#: An upper bound for whatever a test waits for, on a busy machine.
RECOVERY_S = 60.0
LOOK_S = 0.02
#: Emits of one node for each second: 500.
EVERY_MS = 2
#: What a fault may cost a node that survives: a queue of each kind at its bound, and what Python keeps of it.
MEMORY_BYTES = 48_000_000
#: Quick to notice what is gone; tests of one machine have no slow networks.
SETTINGS = {
    "cluster_heartbeat_s": 0.3,
    "cluster_timeout_s": 1.5,
    "cluster_request_timeout_s": 1.0,
    "backplane_timeout_s": 1.0,
    "backplane_ping_s": 0.5,
    "backplane_retry_s": 0.5,
    "backplane_queue_bytes": 1_000_000,
}


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: that of a Unix socket has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="polysock-") as name:
        yield Path(name)


async def ask(member: Member, page: str, **query: Any) -> dict[str, Any]:
    return await asyncio.to_thread(member.ask, page, **query)


async def until(condition: Callable[[], Any], what: str) -> float:
    """Look until *condition* (which may be a coroutine function) holds; how many seconds it took."""
    start = time.monotonic()
    while True:
        held = condition()
        if asyncio.iscoroutine(held):
            held = await held
        seconds = time.monotonic() - start
        if held:
            return seconds
        assert seconds < RECOVERY_S, f"{what}: not within {RECOVERY_S:.0f} s"
        await asyncio.sleep(LOOK_S)


class Ear:
    """A client in the room, connected to one node directly, that hears everything."""

    def __init__(self, socket: WireSocket) -> None:
        self._socket = socket
        self.news: dict[str, list[int]] = {}
        self._reading = asyncio.ensure_future(self._read())

    async def _read(self) -> None:
        while True:
            event, *args = json.loads(await self._socket.recv_text())
            if event == "news":
                self.news.setdefault(args[0], []).append(args[1])

    def last(self, sender: str) -> int:
        """The highest number heard; -1 for none."""
        assert not self._reading.done(), self._reading
        return self.news.get(sender, [-1])[-1]

    async def hears_more(self, sender: str, count: int = 50) -> None:
        last = self.last(sender)
        await until(lambda: self.last(sender) >= last + count, f"more of {sender}")

    async def close(self) -> None:
        self._reading.cancel()
        self._socket.abort()
        await asyncio.wait((self._reading,))


@asynccontextmanager
async def ear(member: Member, *rooms: str) -> AsyncIterator[Ear]:
    socket = await WireSocket.connect(member.lab, "/plain/websocket", timeout=RECOVERY_S)
    assert json.loads(await socket.recv_text())[0] == "#connect"
    for room in (ROOM, *rooms):
        await socket.send_text(json.dumps([1, "join", room]))
        assert json.loads(await socket.recv_text()) == ["#ack", 1]
    listening = Ear(socket)
    try:
        yield listening
    finally:
        await listening.close()


class Crowd:
    """Socket.IO's own clients, through nginx, which come back by themselves."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.where: dict[str, str | None] = {}
        """The node of each; None while it is out."""
        self.stays: dict[str, int] = {}
        self.report: dict[str, list[list[list[Any]]]] = {}
        self._reading = asyncio.ensure_future(self._read())

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            told = json.loads(line)
            if "who" not in told:
                self.report = told
            elif "where" in told:
                self.where[told["who"]] = told["where"]
                self.stays[told["who"]] = told["stay"]
            else:
                self.where[told["who"]] = None

    def are_in(self, nodes: str) -> bool:
        assert not self._reading.done(), self._reading
        return len(self.where) == CROWD and all(where is not None and where in nodes for where in self.where.values())

    async def told(self) -> dict[str, list[list[list[Any]]]]:
        """What each heard, for each of its stays."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"report\n")
        await until(lambda: self.report, "the crowd's report")
        await asyncio.wait_for(self._process.wait(), RECOVERY_S)
        return self.report


#: Clients of the driver's mode ``stay``: two copies of each.
CROWD = 2 * (2 + 3 + 3)


@asynccontextmanager
async def crowd(cluster: Cluster) -> AsyncIterator[Crowd]:
    async with node(cluster.url, "stay", ROOM) as process:
        clients = Crowd(process)
        try:
            yield clients
        finally:
            clients._reading.cancel()


def gaps(numbers: list[int]) -> int:
    """How often a number does not follow the one before; all of them rise in any case."""
    pairs = list(itertools.pairwise(numbers))
    assert all(before < after for before, after in pairs), "out of order, or twice"
    return sum(after != before + 1 for before, after in pairs)


async def know_all(members: list[Member], count: int) -> float:
    """Wait until each of these nodes finds so many in the room, asks nobody in vain, and has them in its presence."""

    async def look() -> bool:
        answers = await asyncio.gather(*(ask(member, "members", room=ROOM) for member in members))
        found = [answer[way] for answer in answers for way in ("members", "present")]
        return all(one == found[0] and len(one) == count for one in found) and not any(
            answer["unreached"] for answer in answers
        )

    return await until(look, f"all {count} members and no ghost")


@contextmanager
def bounded_memory(*members: Member) -> Iterator[None]:
    before = {member.name: member.program.memory_bytes() for member in members}
    yield
    grown = {member.name: member.program.memory_bytes() - before[member.name] for member in members}
    assert all(size < MEMORY_BYTES for size in grown.values()), grown


async def test_a_node_is_killed_under_load(folder: Path) -> None:
    settings = {**SETTINGS, "backplane": f"unix://{folder}/mesh"}
    with running_cluster(folder, [(None, settings)] * 3) as cluster:
        a, b, c = cluster.members
        async with AsyncExitStack() as stack:
            ears = [await stack.enter_async_context(ear(member)) for member in (a, b)]
            clients = await stack.enter_async_context(crowd(cluster))
            await until(lambda: clients.are_in("abc"), "the whole crowd")
            await know_all([a, b, c], CROWD + len(ears))
            for member in (a, b):
                await ask(member, "talk", room=ROOM, every_ms=EVERY_MS)
            for one in ears:
                await one.hears_more("a")
                await one.hears_more("b")
            hit = {who for who, where in clients.where.items() if where == "c"}
            assert hit
            with bounded_memory(a, b):
                c.program.kill()

                await until(lambda: clients.are_in("ab"), "the crowd without the dead node")
                assert all(clients.stays[who] > 1 for who in hit)
                await know_all([a, b], CROWD + len(ears))
                for one in ears:
                    await one.hears_more("a")
                    await one.hears_more("b")
            told = {name: (await ask(cluster[name], "hush"))["told"] for name in "ab"}
            for one in ears:
                for sender, count in told.items():
                    await until(lambda: one.last(sender) == count - 1, "the last news")  # noqa: B023
                    assert gaps(one.news[sender]) == 0
            for who, stays in (await clients.told()).items():
                # Also of other nodes: whose WebSocket, or waiting poll, the dead node was passing on is cut off.
                assert 1 + (who in hit) <= len(stays) <= 3, who
                for sender in "ab":
                    heard = [[number for name, number in stay if name == sender] for stay in stays]
                    assert [gaps(numbers) for numbers in heard] == [0] * len(heard), who
                    gaps([number for numbers in heard for number in numbers])
    for member in (a, b):
        # One line at most, from who had something to pass on to it.
        assert [line for line in member.program.written().splitlines() if "cannot be reached" not in line] == []
        assert len(member.program.written().splitlines()) <= 1
    assert c.program.written() == ""


async def test_redis_stops_and_starts_under_load(folder: Path) -> None:
    with RedisServer(folder) as redis:
        settings = {**SETTINGS, "backplane": redis.url}
        with running_cluster(folder, [(None, settings)] * 2) as cluster:
            a, b = cluster.members
            async with ear(a) as near, ear(b) as far:
                await know_all([a, b], 2)
                await ask(a, "talk", room=ROOM, every_ms=EVERY_MS)
                await near.hears_more("a")
                await far.hears_more("a")
                with bounded_memory(a, b):
                    redis.stop()
                    for member in (a, b):
                        await until(lambda: is_up(member, False), "the outage")  # noqa: B023
                    await near.hears_more("a")
                    # Far more than the queue holds.
                    await ask(a, "tell", room="nobody here", event="news", count=50_000)
                    redis.start()
                    for member in (a, b):
                        await until(lambda: is_up(member, True), "the end of the outage")  # noqa: B023
                    await know_all([a, b], 2)
                    await far.hears_more("a")
                count = (await ask(a, "hush"))["told"]
                for one in (near, far):
                    await until(lambda: one.last("a") == count - 1, "the last news")  # noqa: B023
                assert gaps(near.news["a"]) == 0
                assert gaps(far.news["a"]) == 1
                assert len(near.news["a"]) == count
                for member in (a, b):
                    facts = await ask(member, "facts")
                    assert facts["backplane"]["outages"] == 1
                    assert facts["nodes"] == 1
                assert (await ask(a, "facts"))["backplane"]["dropped"] > 0
        for member in (a, b):
            lines = member.program.written().splitlines()
            assert len(lines) == 2, lines
            assert " is down" in lines[0]
            assert " is back" in lines[1]


async def is_up(member: Member, value: bool) -> bool:
    return bool((await ask(member, "facts"))["is_up"]) is value


async def test_the_cable_between_two_hosts_is_cut(folder: Path) -> None:
    with joined_hosts() as hosts, redis_on(hosts[0], folder) as url:
        settings = {**SETTINGS, "backplane": url, "cluster_secret": "not known outside"}
        nodes = [(host, {**settings, "relay": f"{host.address}:9001"}) for host in hosts]
        with running_cluster(folder, nodes) as cluster:
            a, b = cluster.members
            async with ear(a) as near, ear(b) as far:
                await know_all([a, b], 2)
                for member in (a, b):
                    await ask(member, "talk", room=ROOM, every_ms=EVERY_MS)
                for one in (near, far):
                    await one.hears_more("a")
                    await one.hears_more("b")
                # A client of b whose requests come to a.
                poll = "/socket.io/?EIO=4&transport=polling"
                sid = json.loads((await request(b.lab, "GET", poll)).text[1:])["sid"]
                here = f"{poll}&sid={sid}"
                assert (await request(a.lab, "POST", here, body=b"40")).text == "ok"
                assert (await request(a.lab, "GET", here)).text.startswith("40{")
                waiting = asyncio.ensure_future(request(a.lab, "GET", here, timeout=RECOVERY_S))
                with bounded_memory(a, b):
                    hosts[1].set_link("down")
                    await until(lambda: is_up(b, False), "b is cut off")

                    async def is_alone() -> bool:
                        facts = await ask(a, "facts")
                        return facts["is_up"] is True and facts["nodes"] == 0

                    await until(is_alone, "a misses b")
                    for member in (a, b):
                        assert len((await ask(member, "members", room=ROOM))["members"]) == 1
                    await near.hears_more("a")
                    await far.hears_more("b")
                    # "Session ID unknown": the client shakes hands anew, and has its answer without a wait.
                    for answer in (await waiting, await request(a.lab, "POST", here, body=b"2[]")):
                        assert (answer.status, json.loads(answer.text)["code"]) == (400, 1)
                    assert (await request(a.lab, "GET", poll)).status == 200
                    hosts[1].set_link("up")
                    await know_all([a, b], 2)
                    await near.hears_more("b")
                    await far.hears_more("a")
                told = {member.name: (await ask(member, "hush"))["told"] for member in (a, b)}
                for one in (near, far):
                    for sender, count in told.items():
                        await until(lambda: one.last(sender) == count - 1, "the last news")  # noqa: B023
                assert gaps(near.news["a"]) == gaps(far.news["b"]) == 0
                assert gaps(near.news["b"]) == gaps(far.news["a"]) == 1
        assert a.program.written() == ""
        down, back = b.program.written().splitlines()
        assert " is down" in down
        assert " is back" in back


async def test_a_node_hangs(folder: Path) -> None:
    settings = {**SETTINGS, "backplane": f"unix://{folder}/mesh"}
    with running_cluster(folder, [(None, settings)] * 3) as cluster:
        a, b, c = cluster.members
        async with ear(a) as near, ear(b) as far, ear(c, "there") as hung:
            await know_all([a, b, c], 3)
            await ask(a, "talk", room=ROOM, every_ms=EVERY_MS)
            for one in (near, far, hung):
                await one.hears_more("a")
            with bounded_memory(a, b):
                c.program.send(signal.SIGSTOP)
                answer = await ask(a, "members", room=ROOM)
                assert (len(answer["members"]), answer["unreached"]) == (2, 1)
                # Far more than the queue for the one that takes nothing holds.
                await ask(a, "tell", room="there", event="noise", count=30_000)
                await far.hears_more("a")

                async def is_missed() -> bool:
                    return (await ask(a, "facts"))["nodes"] == 1

                await until(is_missed, "the others miss it")
            c.program.send(signal.SIGCONT)
            await know_all([a, b, c], 3)
            await hung.hears_more("a")
            count = (await ask(a, "hush"))["told"]
            for one in (near, far, hung):
                await until(lambda: one.last("a") == count - 1, "the last news")  # noqa: B023
            assert gaps(near.news["a"]) == gaps(far.news["a"]) == 0
            gaps(hung.news["a"])
            assert (await ask(a, "facts"))["backplane"]["dropped"] > 0
