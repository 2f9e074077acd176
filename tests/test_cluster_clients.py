"""Several processes are one server: every kind of client against three nodes behind nginx without stickiness.

nginx hands each request to the next node, so that hardly one comes to the node that holds its session.  Each client
exchanges a thousand numbers with its node; then all kinds meet in one room, into which every node emits.  A smaller
second round has the nodes on two hosts (network namespaces), with Redis and relays over TCP between them.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from browserlab import Engine
from support.clients import SOCKJS, Client, quiet
from support.clusters import Cluster, running_cluster
from support.hub import WireClient
from support.needs import need_npm
from support.programs import joined_hosts, redis_on
from support.rawhttp import Connection, WireSocket, request
from support.socketio_node import PACKAGES, SOCKJS_TRANSPORTS, TRANSPORTS, node

__all__ = ["quiet"]

PROCESS_S = 120.0
PAGE_S = 70.0
STEP_S = 60.0
LOOK_S = 0.02

NUMBERS = list(range(1000))
BATCH = 100
#: How often each node emits into a room.
NEWS = 20
NODES = ("a", "b", "c")
RELAY_PORT = 9001
#: The smaller round between hosts.
VERSIONS_OF_HOSTS = ("0.9.17", "4.8.4", "sockjs-client")

NODE_CELLS = [
    (version, transport)
    for version, transports in {**TRANSPORTS, "sockjs-client": SOCKJS_TRANSPORTS}.items()
    for transport in transports
]

SAME_ORIGIN = ("websocket", "xhr-streaming", "eventsource", "htmlfile", "xhr-polling", "jsonp-polling")
IFRAMES = ("iframe-eventsource", "iframe-htmlfile", "iframe-xhr-polling")
#: Library -> the transports that its frames in Chromium have.
BROWSER_KINDS = {
    "polysock": (*SAME_ORIGIN, *IFRAMES),
    "sockjs": (*SAME_ORIGIN, *IFRAMES),
    "socketio-0.9": ("jsonp-polling",),
    "socketio-1": ("jsonp",),
    "socketio-2": ("jsonp",),
    "socketio-3": ("jsonp",),
}
FRAMES = [(library, transport) for library, transports in BROWSER_KINDS.items() for transport in transports]


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A short path: that of a Unix socket has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="polysock-") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def mesh(folder: Path) -> Iterator[Cluster]:
    """Three nodes of one host, joined without a broker."""
    settings = {
        "backplane": f"unix://{folder}/mesh",
        "client_files": {kind: str(need_npm(f"socket.io-client-{kind}").parent) for kind in ("0.9", "1", "2", "3")},
    }
    with running_cluster(folder, [(None, settings)] * len(NODES), addresses=len(FRAMES) + 1) as cluster:
        yield cluster


# -- a thousand numbers each way


async def play(url: str, versions: list[str]) -> dict[tuple[str, str], dict[str, Any]]:
    async def one(version: str) -> list[tuple[tuple[str, str], dict[str, Any]]]:
        async with node(url, version, "numbers") as process:
            output, errors = await asyncio.wait_for(process.communicate(), PROCESS_S)
        assert (process.returncode, errors) == (0, b"")
        return [((version, cell["transport"]), cell) for cell in map(json.loads, output.splitlines())]

    return dict(cell for cells in await asyncio.gather(*map(one, versions)) for cell in cells)


@pytest.fixture(scope="module")
def numbers(mesh: Cluster) -> dict[tuple[str, str], dict[str, Any]]:
    return asyncio.run(play(mesh.url, [*PACKAGES, "sockjs-client"]))


@pytest.mark.parametrize(("version", "transport"), NODE_CELLS)
def test_numbers_of_a_client_under_node(
    numbers: dict[tuple[str, str], dict[str, Any]], version: str, transport: str
) -> None:
    assert not numbers[version, transport]["error"], numbers[version, transport]["error"]


def test_the_clients_under_node_were_on_all_nodes(numbers: dict[tuple[str, str], dict[str, Any]]) -> None:
    assert set(numbers) == set(NODE_CELLS)
    assert {cell["saw"]["where"] for cell in numbers.values()} == set(NODES)


async def exchange(wire: WireClient) -> None:
    """Send the numbers in batches, the next one while the last one is answered."""
    for start in range(0, len(NUMBERS) + BATCH, BATCH):
        await wire.send(*(f'2["number",{number}]' for number in NUMBERS[start : start + BATCH]))
        for number in NUMBERS[max(start - BATCH, 0) : start]:
            assert await wire.wait("numbered") == (number,)
    assert await wire.call("numbers") == NUMBERS


@pytest.mark.parametrize("transport", [*SOCKJS, "rawwebsocket"])
async def test_numbers_by_hand_over_each_transport_of_sockjs(mesh: Cluster, transport: str) -> None:
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(Client(mesh.url, transport, "/polysock"))
        wire = await (await WireClient(client).open()).connect()
        stack.push_async_callback(wire.vanish)
        await exchange(wire)


@pytest.mark.parametrize("transport", [*SOCKJS, "rawwebsocket"])
async def test_an_echo_by_hand_over_each_transport_of_sockjs(mesh: Cluster, transport: str) -> None:
    async with Client(mesh.url, transport, "/echo") as client:
        await client.open()
        for start in range(0, len(NUMBERS), BATCH):
            batch = [str(number) for number in NUMBERS[start : start + BATCH]]
            await client.send(*batch)
            assert [await client.message() for _ in batch] == batch


async def test_numbers_of_a_plain_websocket(mesh: Cluster) -> None:
    async with await WireSocket.connect(mesh.url, "/plain/websocket") as socket:
        assert json.loads(await socket.recv_text())[0] == "#connect"
        for start in range(0, len(NUMBERS), BATCH):
            batch = NUMBERS[start : start + BATCH]
            for number in batch:
                await socket.send_text(json.dumps(["number", number]))
            assert [json.loads(await socket.recv_text()) for _ in batch] == [["numbered", one] for one in batch]


class Polling:
    """A client of timed polling.  Each of its requests is a connection of its own."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.sid = ""
        self.cursor = 0
        self.events: list[list[Any]] = []

    async def poll(self) -> None:
        query = f"?sid={self.sid}&since={self.cursor}" if self.sid else ""
        answer = await request(self.base, "GET", f"/plain/poll{query}")
        assert answer.status == 200, answer
        told = json.loads(answer.text)
        assert "closed" not in told, told
        self.sid, self.cursor = told["sid"], told["cursor"]
        self.events += told["events"]

    async def emit(self, *messages: list[Any]) -> None:
        body = json.dumps(messages).encode()
        answer = await request(self.base, "POST", f"/plain/emit?sid={self.sid}", body=body)
        assert json.loads(answer.text) == {"accepted": len(messages)}

    async def until(self, event: list[Any], count: int = 1) -> None:
        async def look() -> None:
            while self.events.count(event) < count:
                await self.poll()

        await asyncio.wait_for(look(), STEP_S)


async def test_numbers_of_timed_polling(mesh: Cluster) -> None:
    client = Polling(mesh.url)
    await client.poll()
    for start in range(0, len(NUMBERS), BATCH):
        await client.emit(*(["number", number] for number in NUMBERS[start : start + BATCH]))
    await client.until(["numbered", NUMBERS[-1]])
    assert client.events[1:] == [["numbered", number] for number in NUMBERS]


@asynccontextmanager
async def feed(base: str, room: str) -> AsyncIterator[Connection]:
    """A reader of the room's feed, which has read what comes before the events."""
    connection = await Connection.open(base)
    try:
        await connection.start("GET", f"/plain/events?{urlencode({'room': room})}")
        for _ in ("retry", "hello"):
            await connection.read_until(b"\n\n")
        yield connection
    finally:
        connection.abort()


async def next_of(connection: Connection) -> Any:
    while True:
        lines = (await connection.read_until(b"\n\n")).decode().split("\n")
        data = [line[6:] for line in lines if line.startswith("data: ")]
        if data:
            return json.loads(data[0])


async def test_numbers_of_every_node_in_a_feed(mesh: Cluster) -> None:
    room = "open numbers"
    async with feed(mesh.url, room) as connection:
        await settle(mesh)
        await asyncio.gather(*(ask(mesh, name, "tell", room=room, event="number", count=400) for name in NODES))
        got: dict[str, list[int]] = {name: [] for name in NODES}
        for _ in range(400 * len(NODES)):
            event, name, number = await next_of(connection)
            assert event == "number"
            got[name].append(number)
        assert got == {name: list(range(400)) for name in NODES}


# -- one room


async def ask(cluster: Cluster, name: str, page: str, **query: Any) -> dict[str, Any]:
    return await asyncio.to_thread(cluster[name].ask, page, **query)


async def settle(cluster: Cluster) -> None:
    """Wait until what each node has joined is known to the others."""
    for member in cluster.members:
        await ask(cluster, member.name, "settle")


async def gathered(cluster: Cluster, room: str, count: int) -> None:
    """Wait until every node knows so many members of *room*."""

    async def look() -> None:
        for member in cluster.members:
            while len((await ask(cluster, member.name, "members", room=room))["members"]) < count:  # noqa: ASYNC110
                await asyncio.sleep(LOOK_S)  # it is in another process

    await asyncio.wait_for(look(), PAGE_S)
    await settle(cluster)


async def spread_the_news(cluster: Cluster, room: str) -> None:
    """From every node at once, and an end after them."""

    async def tell(name: str) -> None:
        await ask(cluster, name, "tell", room=room, event="news", count=NEWS)
        await ask(cluster, name, "tell", room=room, event="end")

    await asyncio.gather(*(tell(member.name) for member in cluster.members))


def check_news(who: str, news: list[list[Any]], senders: tuple[str, ...]) -> None:
    """Each exactly once, and those of one node in order."""
    by_sender = {name: [number for sender, number in news if sender == name] for name in senders}
    assert by_sender == {name: list(range(NEWS)) for name in senders}, who
    assert len(news) == NEWS * len(senders), who


async def meet(cluster: Cluster, room: str) -> None:
    """One client of every kind that runs outside of browsers; all nodes emit."""
    names = tuple(member.name for member in cluster.members)
    async with AsyncExitStack() as stack:
        process = await stack.enter_async_context(node(cluster.url, "room", room, str(len(names))))
        assert process.stdin is not None
        assert process.stdout is not None
        wires: dict[str, WireClient] = {}
        for transport in (*SOCKJS, "rawwebsocket"):
            client = await stack.enter_async_context(Client(cluster.url, transport, "/polysock"))
            wire = wires[f"by hand {transport}"] = await (await WireClient(client).open()).connect()
            stack.push_async_callback(wire.vanish)
            await wire.call("join", room)
        plain = await stack.enter_async_context(await WireSocket.connect(cluster.url, "/plain/websocket"))
        assert json.loads(await plain.recv_text())[0] == "#connect"
        await plain.send_text(json.dumps([1, "join", room]))
        assert json.loads(await plain.recv_text()) == ["#ack", 1]
        polling = Polling(cluster.url)
        await polling.poll()
        await polling.emit(["join", room])
        reader = await stack.enter_async_context(feed(cluster.url, room))
        assert (await asyncio.wait_for(process.stdout.readline(), PROCESS_S)) == b"ready\n"
        await gathered(cluster, room, sum(map(len, TRANSPORTS.values())) + len(SOCKJS_TRANSPORTS) + len(wires) + 2)

        await spread_the_news(cluster, room)

        process.stdin.write(b"report\n")
        for who, news in json.loads(await asyncio.wait_for(process.stdout.readline(), STEP_S)).items():
            check_news(who, news, names)
        await asyncio.wait_for(process.wait(), STEP_S)
        for who, wire in wires.items():
            for _ in names:
                await wire.wait("end")
            check_news(who, [list(args) for event, *args in await wire.take() if event == "news"], names)
        count = (NEWS + 1) * len(names)
        for who, read in (("plain websocket", plain.recv_text), ("feed", lambda: next_of(reader))):
            events = [await read() for _ in range(count)]
            events = [json.loads(event) if isinstance(event, str) else event for event in events]
            check_news(who, [args for event, *args in events if event == "news"], names)
        for name in names:
            await polling.until(["end", name, 0])
        check_news("timed polling", [args for event, *args in polling.events if event == "news"], names)


async def test_one_room_with_a_member_of_every_kind(mesh: Cluster) -> None:
    await meet(mesh, "open room")


async def relayed(cluster: Cluster) -> dict[str, int]:
    """How many requests each node has passed on so far."""
    return {
        member.name: (await ask(cluster, member.name, "facts"))["relay"].get("relayed", 0) for member in cluster.members
    }


@pytest.mark.parametrize("transport", ["xhr", "jsonp", "xhr_streaming", "eventsource", "htmlfile"])
async def test_most_requests_came_to_a_node_that_had_to_pass_them_on(mesh: Cluster, transport: str) -> None:
    before = sum((await relayed(mesh)).values())
    sent = 60
    async with Client(mesh.url, transport, "/echo") as client:
        await client.open()
        for number in range(sent):
            await client.send(str(number))
            assert await client.message() == str(number)
    # Two of three, if nginx's turns have nothing to do with ours; some of the streams' and polls' too.
    assert sum((await relayed(mesh)).values()) - before > sent / 3


# -- in a browser


def frame(cluster: Cluster, number: int, room: str) -> str:
    """The address of one frame: its origin is its own, except where an iframe transport wants to cross origins."""
    library, transport = FRAMES[number]
    kind, _, generation = library.partition("-")
    server = cluster.urls[number + 1]
    script = {
        "polysock": "/polysock/polysock.min.js",
        "sockjs": "/static/sockjs.min.js",
        "socketio": f"/socket.io/v{generation}/socket.io.js",
    }[kind]
    query = {
        "who": f"{library} {transport}",
        "library": kind,
        "script": script,
        "transport": transport,
        "server": server,
        "room": room,
        "senders": str(len(cluster.members)),
    }
    page = server
    if transport.startswith("iframe-"):
        page = cluster.url
        # sockjs-client's frame is out of sight, and there Chromium lets each timer wait for a full second.
        query["batch"] = "500"
    return f"{page}/cluster.html?{urlencode(query)}"


@pytest.fixture(scope="module")
def page(mesh: Cluster, chromium: Engine) -> dict[str, dict[str, Any]]:
    """What each frame told."""
    room = "browsers"

    async def run() -> str | None:
        plan = json.dumps([frame(mesh, number, room) for number in range(len(FRAMES))])
        url = f"{mesh.url}/cluster.html?{urlencode({'plan': plan})}"
        running = asyncio.ensure_future(asyncio.to_thread(chromium.run, url, PAGE_S))
        waiting = asyncio.ensure_future(gathered(mesh, room, len(FRAMES)))
        await asyncio.wait((running, waiting), return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            await waiting
            await spread_the_news(mesh, room)
        waiting.cancel()
        return await running

    text = asyncio.run(run())
    assert text, f"the page told nothing; the engine says {chromium.log[-5:]}"
    told: dict[str, dict[str, Any]] = json.loads(text)
    return told


@pytest.mark.parametrize(("library", "transport"), FRAMES)
def test_a_client_in_a_browser(page: dict[str, dict[str, Any]], library: str, transport: str) -> None:
    told = page.get(f"{library} {transport}", {"error": f"told nothing; others told {page}"})
    assert not told["error"], told["error"]
    check_news(f"{library} {transport}", told["news"], NODES)


async def test_every_node_has_passed_requests_on(
    mesh: Cluster, numbers: dict[tuple[str, str], dict[str, Any]], page: dict[str, dict[str, Any]]
) -> None:
    assert all(count > 100 for count in (await relayed(mesh)).values())
    facts = [await ask(mesh, member.name, "facts") for member in mesh.members]
    assert sum(one["relay"].get("tunnels", 0) for one in facts) > 0  # WebSockets: upgrades of clients that were polling
    assert sum(one["relay"].get("failed", 0) for one in facts) == 0
    assert sum(one["backplane"].get("dropped", 0) for one in facts) == 0


# -- two hosts


@pytest.fixture(scope="module")
def hosts(folder: Path) -> Iterator[Cluster]:
    """A node on each of two hosts; Redis, like nginx, is on the first one."""
    place = folder / "hosts"
    place.mkdir()
    with joined_hosts() as both, redis_on(both[0], place) as url:
        settings = {"backplane": url, "cluster_secret": "not known outside"}
        nodes = [(host, {**settings, "relay": f"{host.address}:{RELAY_PORT}"}) for host in both]
        with running_cluster(place, nodes) as cluster:
            yield cluster


@pytest.fixture(scope="module")
def numbers_of_hosts(hosts: Cluster) -> dict[tuple[str, str], dict[str, Any]]:
    return asyncio.run(play(hosts.url, list(VERSIONS_OF_HOSTS)))


@pytest.mark.parametrize(("version", "transport"), [cell for cell in NODE_CELLS if cell[0] in VERSIONS_OF_HOSTS])
def test_numbers_between_hosts(
    numbers_of_hosts: dict[tuple[str, str], dict[str, Any]], version: str, transport: str
) -> None:
    cell = numbers_of_hosts[version, transport]
    assert not cell["error"], cell["error"]


async def test_one_room_on_two_hosts(hosts: Cluster) -> None:
    await meet(hosts, "open room")
    assert all((await relayed(hosts)).values())
