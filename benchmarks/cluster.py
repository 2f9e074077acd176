"""What several nodes cost beside one: ``python benchmarks/bench.py cluster``.

Every node is a process of its own (``clusternode.py``), all of them on one core where there are two, and the load is
made by the loops of ``load.py`` on the other.  So many nodes on one core get no more done in a second than one: what
is told is the processor time of each for a unit of work.  Every answer is compared with what it must be, and a message
that is missing, or that nobody asked for, ends the run.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from shutil import which

import backplane
from clusterreport import Part, Results
from lines import HERE, Line
from load import (
    Broadcasts,
    Client,
    Connects,
    Idle,
    Polls,
    Server,
    SocketIO,
    SockJS,
    WrongAnswer,
    masked_frame,
    measure,
    measure_memory,
    must,
    running,
    started,
)
from report import Record

from polysock_transports.placement import Node, Placement

#: More rounds of so many configurations would take too long.
MAX_ROUNDS = 3
FAN_OUT_NODES = (1, 2, 4, 16)
FAN_OUT_CLIENTS = 1000
IN_FLIGHT = (1, 8)
RELAY_CLIENTS = 100
#: How a poll reaches the node that holds its session.
WAYS = ("direct", "unix", "tcp")
#: Whose polls; None for a WebSocket after an upgrade.
RELAYED = {"SockJS xhr": SockJS, "Engine.IO polling": SocketIO, "Engine.IO WebSocket": None}
MEMBERSHIP_NODES = (2, 4, 16)
#: Heartbeats of a node come so often here, for there to be enough of them to measure.
BEAT_S = 0.1
#: Of each node in a round.
MIN_BEATS = 5
ROOMS = (1, 100, 10_000)
ROOM_BURST = 50
#: Requests asked for at once.
REQUESTS = 10
CLIENTS = 2000
CLIENT_HEARTBEAT_S = 3
FAR_S = 3600
WAIT_S = 10.0
LOOK_S = 0.05
WARM_UP_S = 0.2

#: The nodes have the first, the load has the rest.
CORES = sorted(os.sched_getaffinity(0))

#: One round of so many seconds.
Play = Callable[[float], Record]


def kinds() -> list[str]:
    """The backplanes that can be had here."""
    return [kind for kind in backplane.KINDS if kind == "local" or which("redis-server")]


@contextmanager
def apart() -> Iterator[ExitStack]:
    """This process leaves the first core to nodes; what is entered is left at the end."""
    os.sched_setaffinity(0, CORES[1:] or CORES)
    try:
        with ExitStack() as stack:
            yield stack
    finally:
        os.sched_setaffinity(0, CORES)


@contextmanager
def cluster(url: str, *options: list[str]) -> Iterator[list[Server]]:
    """A node for each of *options*, all of which know each other."""
    command = [sys.executable, "-W", "ignore", str(HERE / "clusternode.py"), url]
    with ExitStack() as stack:
        nodes = [stack.enter_context(running([*command, *each], CORES[:1])) for each in options]
        acquainted(nodes)
        yield nodes


def acquainted(nodes: list[Server]) -> None:
    """Wait until each node sees all others."""
    wait_for("the nodes do not find each other", lambda: all(int(n.ask(b"nodes")) == len(nodes) - 1 for n in nodes))


def wait_for(trouble: str, is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not is_so():
        if time.monotonic() > deadline:
            raise WrongAnswer(trouble)
        time.sleep(LOOK_S)


def spent_us(servers: list[Server], work: Callable[[], object]) -> list[float]:
    """Processor time that each of *servers* spends while *work* is done, in microseconds."""
    before = [server.cpu_s() for server in servers]
    work()
    return [(server.cpu_s() - then) * 1e6 for server, then in zip(servers, before, strict=True)]


def in_turns(plays: dict[tuple[str, str], Play], rounds: int, seconds: float) -> Part:
    """Series -> size -> its records: one round of each, then the next."""
    found: Part = {}
    for play in plays.values():
        play(WARM_UP_S)
    for _ in range(rounds):
        for (series, size), play in plays.items():
            found.setdefault(series, {}).setdefault(size, []).append(play(seconds))
    return found


class Spread(Broadcasts):
    """Clients spread evenly over *nodes*; *speaker* is told to speak."""

    def __init__(self, speaker: Server, nodes: list[Server], line: Line) -> None:
        self._nodes = nodes
        super().__init__(speaker, line, SocketIO, line.clients)

    def connect(self, number: int) -> Client:
        client = Client(self.language, self._nodes[number % len(self._nodes)].port)
        client.open(self.line.transport)
        return client


class PollsThrough(Polls):
    """Clients whose sessions *owner* holds, and whose polls all come to *door*."""

    def __init__(self, owner: Server, other: Server, door: Server, line: Line, language: type) -> None:
        self._door = door
        self._owner_id = owner.ask(b"id").decode()
        self._placement = Placement(Node(self._owner_id))
        self._placement.update([Node(other.ask(b"id").decode())])
        super().__init__(owner, line, language, line.clients)

    def connect(self, number: int) -> Client:
        client = Client(self.language, self._door.port)
        if self.language is SockJS:
            # Clients make these ids, and each has a home.
            while self._placement.home_of(client.language.path.split("/")[3]).id != self._owner_id:
                client.language = SockJS(client.language.host)
            client.open("poll")
            return client
        opened = Client(self.language, self.server.port)
        with closing(opened.socket):
            client.poll = opened.language.open_poll(opened)
        client.socket.sendall(client.poll)
        client.socket.setblocking(False)
        return client


class UpgradesThrough(Broadcasts):
    """Clients that opened by a poll at *owner*, and whose WebSockets come to *door*."""

    def __init__(self, owner: Server, door: Server, line: Line) -> None:
        self._door = door
        super().__init__(owner, line, SocketIO, line.clients)

    def connect(self, number: int) -> Client:
        opened = Client(SocketIO, self.server.port)
        with closing(opened.socket):
            opened.language.open_poll(opened)
        client = Client(SocketIO, self._door.port)
        client.language.session = opened.language.session
        client.upgrade()
        client.socket.sendall(masked_frame(b"2probe"))
        must(client.frame(), b"3probe")
        client.socket.sendall(masked_frame(b"5"))
        client.socket.setblocking(False)
        return client


def broadcasts(work: Broadcasts, line: Line, servers: list[Server], tell: Callable[[int, list[float]], Record]) -> Play:
    """Rounds of *work* by *line*; *tell* makes a record of the units and of what each of *servers* spent."""

    def play(seconds: float) -> Record:
        units = 0

        def run() -> None:
            nonlocal units
            units = work.round(seconds)[0]

        work.line = line
        own = time.process_time()
        spent = spent_us(servers, run)
        own = time.process_time() - own
        return {"units": units, **tell(units, spent), "generator": own * 1e6 / units}

    return play


# -- the parts


def fan_out(rounds: int, seconds: float, sizes: tuple[int, ...], clients: int) -> tuple[Part, Part]:
    """A delivery of a broadcast to clients spread over so many nodes; and a request to count these clients."""

    def told(units: int, spent: list[float]) -> Record:
        return {"value": sum(spent) / units, "busiest": max(spent) / units}

    plays, counts = {}, {}
    with apart() as stack:
        for size in sizes:
            url, _ = stack.enter_context(backplane.place("local"))
            nodes = stack.enter_context(cluster(url, *[[]] * size))
            line = Line("", "broadcast", "websocket", clients, ())
            work = stack.enter_context(closing(Spread(nodes[0], nodes, line)))
            for in_flight in IN_FLIGHT:
                line = Line("", "broadcast", "websocket", clients, (), in_flight=in_flight)
                plays[f"{in_flight} in flight", str(size)] = broadcasts(work, line, nodes, told)
            counts["local", str(size)] = requests(nodes, clients)
        return in_turns(plays, rounds, seconds), in_turns(counts, rounds, seconds)


def requests(nodes: list[Server], clients: int) -> Play:
    """Rounds of requests of the first node to all others, one after the other."""

    def play(seconds: float) -> Record:
        units = 0

        def run() -> None:
            nonlocal units
            deadline = time.monotonic() + seconds
            while units == 0 or time.monotonic() < deadline:
                must(nodes[0].ask(b"count %d" % REQUESTS), b"%d" % clients)
                units += REQUESTS

        spent = spent_us(nodes, run)
        return {"units": units, "value": sum(spent) / units, "asker": spent[0] / units}

    return play


def relay(rounds: int, seconds: float, clients: int) -> Part:
    """What a client gets from the owner of its session itself, and through another node.

    Polls, each answered and followed by the next one; and deliveries to WebSockets that an upgrade of Engine.IO made.
    """
    plays = {}
    with apart() as stack:
        for name, language in RELAYED.items():
            for way in WAYS:
                url, _ = stack.enter_context(backplane.place("local"))
                options = [["--host", host] if way == "tcp" else [] for host in ("one", "two")]
                speaking = ["--sockjs"] if language is SockJS else []
                nodes = stack.enter_context(cluster(url, *([*each, *speaking] for each in options)))
                owner, other = nodes
                must(other.ask(b"way").decode(), "tcp" if way == "tcp" else "unix")
                door = owner if way == "direct" else other
                work: Broadcasts
                if language is None:
                    line = Line("", "broadcast", "websocket", clients, ())
                    work = stack.enter_context(closing(UpgradesThrough(owner, door, line)))
                    must(int(other.ask(b"relayed")), 0 if way == "direct" else clients)
                else:
                    line = Line("", "broadcast", "poll", clients, ())
                    work = stack.enter_context(closing(PollsThrough(owner, other, door, line, language)))
                play = broadcasts(work, line, nodes, told_of_two)
                if language is not None and way != "direct":
                    # A session of SockJS opens by a poll of its own.
                    play = all_relayed(play, other, clients * (2 if language is SockJS else 1))
                plays[name, way] = play
        return in_turns(plays, rounds, seconds)


def told_of_two(units: int, spent: list[float]) -> Record:
    owner, other = spent
    return {"value": (owner + other) / units, "owner": owner / units, "other": other / units}


def all_relayed(play: Play, other: Server, passed: int) -> Play:
    """*play*, and a look whether *other* has passed on every poll; so far it was *passed*."""

    def look(seconds: float) -> Record:
        nonlocal passed
        record = play(seconds)
        passed += int(record["units"])
        # Each answer is followed by the next poll, the last ones just now.
        wait_for("polls came another way", lambda: int(other.ask(b"relayed")) >= passed)
        must(int(other.ask(b"relayed")), passed)
        return record

    return look


def messages(rounds: int, seconds: float, sizes: tuple[int, ...]) -> Part:
    """A message of the backplane alone, without a Server."""
    return {
        kind: {str(size): asyncio.run(backplane.measure(kind, size, rounds, seconds)) for size in sizes}
        for kind in kinds()
    }


def rooms(rounds: int, seconds: float, sizes: tuple[int, ...]) -> tuple[Part, Part]:
    """An emit to a room with one member on another node, where so many exist; and how they came to be."""
    plays = {}
    joined: Part = {}
    line = Line("", "broadcast", "websocket", 1, (), in_flight=ROOM_BURST)
    with apart() as stack:
        for kind in kinds():
            for size, has_presence in [*((size, False) for size in sizes), (sizes[-1], True)]:
                url, broker = stack.enter_context(backplane.place(kind))
                options = ["--presence"] if has_presence else []
                talker, member = nodes = stack.enter_context(cluster(url, options, options))
                work = stack.enter_context(closing(Spread(talker, [member], line)))
                member.command(b"rooms 1")  # what the first one makes is not counted
                name = f"{kind}, presence" if has_presence else kind
                if size > 1:
                    record = joins(talker, member, broker, size, has_presence=has_presence)
                    joined.setdefault(name, {})[str(size)] = [record]
                if not has_presence:
                    plays[kind, str(size)] = broadcasts(work, line, nodes, told_of_talk)
        return in_turns(plays, rounds, seconds), joined


def told_of_talk(units: int, spent: list[float]) -> Record:
    return {"publish": spent[0] / units, "take": spent[1] / units}


def joins(talker: Server, member: Server, broker: int | None, size: int, *, has_presence: bool) -> Record:
    """*member* joins rooms; of each the cost for itself, *talker* and the broker, in time and memory."""

    def join() -> None:
        member.command(b"rooms %d" % size)
        if has_presence:
            wait_for("the presence is not complete", lambda: int(talker.ask(b"present")) == size)

    nodes = {"member": member, "other": talker}
    before = {name: node.resident_kib() for name, node in nodes.items()}
    broker_before = broker_cost(broker)
    spent = dict(zip(nodes, spent_us(list(nodes.values()), join), strict=True))
    count = size - 1
    record = {"units": float(count), "channels": float(member.ask(b"channels"))}
    for name, node in nodes.items():
        record[name] = spent[name] / count
        record[f"{name}_kib"] = (node.resident_kib() - before[name]) / count
    if broker is not None:
        cost = broker_cost(broker)
        record |= {"broker": (cost[0] - broker_before[0]) / count, "broker_kib": (cost[1] - broker_before[1]) / count}
    return record


def broker_cost(pid: int | None) -> tuple[float, float]:
    """(microseconds, resident KiB) of the broker so far."""
    if pid is None:
        return 0.0, 0.0
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return backplane.cpu_of_us(pid), pages * os.sysconf("SC_PAGESIZE") / 1024


def membership(rounds: int, seconds: float, sizes: tuple[int, ...]) -> Part:
    """A heartbeat of a node: it says that it is there, and hears the same of all others."""
    plays = {}
    with apart() as stack:
        for kind in kinds():
            for size in sizes:
                url, broker = stack.enter_context(backplane.place(kind))
                nodes = stack.enter_context(cluster(url, *[["--beat", str(BEAT_S)]] * size))
                plays[kind, str(size)] = beats(nodes, broker)
        return in_turns(plays, rounds, seconds)


def beats(nodes: list[Server], broker: int | None) -> Play:
    def count() -> int:
        return sum(int(node.ask(b"beats")) for node in nodes)

    def play(seconds: float) -> Record:
        before, broker_before = count(), broker_cost(broker)[0]
        spent = spent_us(nodes, lambda: time.sleep(max(seconds, MIN_BEATS * BEAT_S)))
        done = count() - before
        acquainted(nodes)
        record = {"units": done, "value": sum(spent) / done, "bytes": float(nodes[0].ask(b"hello"))}
        return record | ({"broker": (broker_cost(broker)[0] - broker_before) / done} if broker is not None else {})

    return play


def client(seconds: float, clients: int) -> Part:
    """What a client costs the one node that it is on, without doing anything."""
    found: Part = {"client": {}}
    for transport in ("websocket", "poll"):
        line = Line("", "memory", transport, clients, ())
        with started("polysock-io", FAR_S) as server:
            found["client"][f"memory-{transport}"] = [measure_memory(server, line, SocketIO, clients)]
    line = Line("", "idle", "websocket", clients, (), heartbeat_s=CLIENT_HEARTBEAT_S)
    with (
        started("polysock-io", CLIENT_HEARTBEAT_S) as server,
        closing(Idle(server, line, SocketIO, clients)) as idle,
    ):
        before = server.cpu_s()
        units, _ = idle.round(seconds)
        found["client"]["heartbeat"] = [{"value": (server.cpu_s() - before) * 1e6 / units, "units": units}]
    line = Line("", "connect", "websocket", 1, ())
    with started("polysock-io", FAR_S) as server:
        work = Connects(server, line, SocketIO, 1)
        work.round(WARM_UP_S)
        found["client"]["connect"] = [measure(server, work, line, seconds)]
    return found


PARTS = ("fan-out", "relay", "messages", "rooms", "membership", "client")


def run(parts: Iterable[str], rounds: int, seconds: float, few: int | None, tell: Callable[[str], object]) -> Results:
    """Some of ``PARTS``; *few*: so many clients and rooms, and at most so many nodes.  Raises WrongAnswer."""
    begun = time.monotonic()
    results: Results = {}

    def some(sizes: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(dict.fromkeys(min(size, few) for size in sizes)) if few else sizes

    for part in parts:
        tell(f"{part} ")
        if part == "fan-out":
            spread, counts = fan_out(rounds, seconds, some(FAN_OUT_NODES), few or FAN_OUT_CLIENTS)
            results |= {"fan_out": spread, "requests": counts}
        elif part == "relay":
            results["relay"] = relay(rounds, seconds, few or RELAY_CLIENTS)
        elif part == "messages":
            results["messages"] = messages(rounds, seconds, some(backplane.NODES))
        elif part == "rooms":
            results["rooms"], results["joins"] = rooms(rounds, seconds, some(ROOMS))
        elif part == "membership":
            results["membership"] = membership(rounds, seconds, some(MEMBERSHIP_NODES))
        else:
            results["client"] = client(seconds, few or CLIENTS)
        tell(f"({time.monotonic() - begun:.0f} s)\n")
    return results
