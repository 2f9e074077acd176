"""The demo's chat and its two worlds: the application by itself, and the pages in browser engines.

The pages come from chat_app.py, which puts a driver behind their own scripts, and from run.py itself. The partner in
the tests of old engines is a plain WebSocket.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import re
import select
import signal
import socket as stdlib_socket
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import quote

import pytest
from tornado.httpclient import AsyncHTTPClient
from tornado.websocket import WebSocketClientConnection, websocket_connect

import polysock
from polysock.client_files import SOCKETIO_GENERATIONS
from polysock.testing import Client
from polysock_transports import relaywire
from polysock_transports.placement import NODE_ID_CHARS
from support.clients import turns
from support.cluster import bus_of, world
from support.needs import need_npm
from support.redis_server import RedisServer

ROOT = Path(__file__).resolve().parent.parent
START_S, STOP_S = 20, 10
# Ends an engine that stopped altogether; what is awaited comes much sooner.
PAGE_S = 120
DRIVERS = ROOT / "tests" / "chat_drivers.js"
KEY = "k" * 16
SECRET = "0123456789abcdef"
#: What the driven pages say.
ANSWER = 'answer <b>&amp;</b> "\u00e9\u6f22\U0001f600"'


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]


def load_run() -> ModuleType:
    spec = importlib.util.spec_from_file_location("demo_run", ROOT / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


run = load_run()


# -- the application, with clients in memory


@pytest.fixture
async def hub() -> polysock.Server:
    io = polysock.Server()
    run.Chat(io)
    return io


def come(hub: polysock.Server, **options: Any) -> Client:
    return Client(hub, "/chat", **options)


async def enter(client: Client, nick: str, room: str = "lobby", key: str = KEY) -> dict[str, Any]:
    answer: dict[str, Any] = await client.call("enter", {"nick": nick, "room": room, "key": key})
    return answer


async def test_people_and_transports_of_a_room(hub: polysock.Server) -> None:
    ann, bob, eve = come(hub, transport="jsonp"), come(hub), come(hub)
    assert (await enter(ann, "Ann"))["people"] == [{"id": ann.id, "nick": "Ann", "client": "", "transport": "jsonp"}]
    bobs = await enter(bob, "  Bob\tthe  builder ")
    assert bobs["nick"] == "Bob the builder"
    assert [one["nick"] for one in bobs["people"]] == ["Ann", "Bob the builder"]
    assert (await enter(eve, "Eve", "elsewhere"))["rooms"] == [["lobby", 2], ["elsewhere", 1]]

    ann.take(), bob.take(), eve.take()
    assert await bob.call("say", " hello ") == {"ok": True}
    (heard,) = ann.take()
    assert (heard[0], heard[1]["from"], heard[1]["nick"], heard[1]["text"]) == (
        "said",
        bob.id,
        "Bob the builder",
        "hello",
    )
    assert eve.take() == []

    assert await ann.call("whisper", eve.id, "psst") == {"ok": True}
    (secret,) = eve.take()
    assert (secret[0], secret[1]["text"], secret[1]["toNick"]) == ("whispered", "psst", "Eve")
    assert "whispered" not in [event[0] for event in bob.take()]

    bobs_id = bob.id
    bob.disconnect()
    assert ("left", {"id": bobs_id, "nick": "Bob the builder"}) in [
        (name, value) for name, value, *_ in ann.take() if name == "left"
    ]
    eve.disconnect()
    assert ann.take() == [("rooms", [["lobby", 1]])]


@pytest.mark.parametrize(
    "wish", [None, 1, [], {}, {"nick": 1}, {"nick": "a", "room": None}, {"nick": "a", "room": "b"}, "x"]
)
async def test_a_wish_that_makes_no_sense_is_an_error(hub: polysock.Server, wish: Any) -> None:
    client = come(hub)
    assert list(await client.call("enter", wish)) == ["error"]
    assert list(await client.call("enter")) == ["error"]
    assert client.connected


@pytest.mark.parametrize("nick", ["", "  ", "a" * 21, "a\u202eb", "a\u200bb", "a\x00b", "\ud800", " " * 10_000])
async def test_names_are_visible_and_short(hub: polysock.Server, nick: str) -> None:
    assert "visible characters" in (await enter(come(hub), nick))["error"]


async def test_a_name_belongs_to_one(hub: polysock.Server) -> None:
    ann, thief = come(hub), come(hub)
    await enter(ann, "Ann")
    assert "called" in (await enter(thief, "\uff21NN", key="x" * 16))["error"]
    await enter(thief, "Bob", key="x" * 16)
    assert "called" in (await enter(thief, "ann", "elsewhere", key="x" * 16))["error"]
    back = come(hub)  # the same page, before its old connection was missed
    await ann.call("say", "before")
    answer = await enter(back, "Ann")
    assert [one["nick"] for one in answer["people"]] == ["Bob", "Ann"]
    assert answer["history"][0]["text"] == "before"
    assert ann.close_reason is not None
    assert ann.close_reason.code == 3000


@pytest.mark.parametrize("text", [None, 1, "", "  ", "a" * 501, ["a"], {}])
async def test_what_is_no_message(hub: polysock.Server, text: Any) -> None:
    ann, stranger = come(hub), come(hub)
    await enter(ann, "Ann")
    assert "1 to 500 characters" in (await ann.call("say", text))["error"]
    assert "1 to 500 characters" in (await ann.call("whisper", ann.id, text))["error"]
    assert await stranger.call("say", "hello") == {"error": "Come in first."}
    assert await ann.call("whisper", [text], "hello") == {"error": "That one has left."}


async def test_nobody_hears_private_messages_in_a_room_called_like_a_person(hub: polysock.Server) -> None:
    ann, bob, spy = come(hub), come(hub), come(hub)
    await enter(ann, "Ann")
    await enter(bob, "Bob")
    await enter(spy, "Spy", ann.id or "")
    spy.take()
    await bob.call("whisper", ann.id, "secret")
    assert spy.take() == []


async def test_a_flood_is_refused_and_the_limits_hold(hub: polysock.Server) -> None:
    flooder = come(hub)
    answers = [await enter(flooder, "Ann", f"room {number}") for number in range(run.RATE_EVENTS + 1)]
    assert "Not so fast" in answers[-1]["error"]
    assert "error" not in answers[-2]
    assert [room for room, _ in answers[-2]["rooms"]] == ["lobby", f"room {run.RATE_EVENTS - 1}"]

    writers = [come(hub) for _ in range(3)]
    for number, writer in enumerate(writers):
        await enter(writer, f"Writer {number}")
        for line in range(run.RATE_EVENTS - 1):
            assert await writer.call("say", f"{number} {line}") == {"ok": True}
    history = (await enter(come(hub), "Reader"))["history"]
    assert len(history) == run.HISTORY_MESSAGES
    assert history[-1]["text"] == f"2 {run.RATE_EVENTS - 2}"
    assert [said["n"] for said in history] == sorted({said["n"] for said in history})

    crowd = [await enter(come(hub), f"Founder {number}", f"house {number}") for number in range(run.MAX_ROOMS)]
    assert Counter("error" in answer for answer in crowd)[True] == 2  # the lobby and the flooder's room were there


# -- several workers


def ids(answer: dict[str, Any]) -> list[str]:
    return [one["nick"] for one in answer["people"]]


def named(client: Client, name: str) -> list[Any]:
    """The values of the events of this name that came since."""
    return [event[1] for event in client.take() if event[0] == name]


async def test_workers_are_one_chat() -> None:
    async with world(2, run.Chat) as there:
        one, two = there.servers
        ann, bob, eve = come(one), come(two), come(two)
        await enter(ann, "Ann")
        await turns()
        assert ids(await enter(bob, "Bob")) == ["Ann", "Bob"]
        assert (await enter(eve, "Eve", "elsewhere"))["rooms"] == [["lobby", 2], ["elsewhere", 1]]
        await turns()
        events = ann.take()
        assert ("joined", {"id": bob.id, "nick": "Bob", "client": "", "transport": "websocket"}) in events
        assert events[-1] == ("rooms", [["lobby", 2], ["elsewhere", 1]])

        assert await ann.call("say", "hello") == {"ok": True}
        assert await bob.call("say", "hello too") == {"ok": True}
        await turns()
        for client in (ann, bob):
            assert [said["text"] for said in named(client, "said")] == ["hello", "hello too"]
        assert await ann.call("whisper", eve.id, "psst") == {"ok": True}
        await turns()
        for client in (ann, eve):
            assert [(said["text"], said["toNick"]) for said in named(client, "whispered")] == [("psst", "Eve")]

        late = come(two)
        history = (await enter(late, "Late"))["history"]
        assert [said["text"] for said in history] == ["hello", "hello too"]
        numbers = [said["n"] for said in history]
        assert numbers == sorted(set(numbers))

        eve.disconnect()
        await turns()
        assert named(ann, "rooms")[-1] == [["lobby", 3]]
        assert "called" in (await enter(come(one), "LATE", key="x" * 16))["error"]


async def test_a_name_belongs_to_one_on_all_workers() -> None:
    async with world(2, run.Chat) as there:
        one, two = there.servers
        ann = come(one)
        await enter(ann, "Ann")
        await turns()
        assert "called" in (await enter(come(two), "\uff21NN", key="x" * 16))["error"]
        back = come(two)  # the same page, before its old connection was missed, and on another worker
        assert ids(await enter(back, "Ann")) == ["Ann"]
        await turns()
        assert ann.close_reason is not None
        assert ann.close_reason.code == 3000
        assert ids(await enter(come(one), "Bob")) == ["Ann", "Bob"]


async def test_of_two_who_want_a_name_at_once_no_more_than_one_gets_it() -> None:
    async with world(3, run.Chat) as there:
        rivals = [come(io) for io in there.servers]
        answers = await asyncio.gather(*(enter(each, "Ann", key=str(n) * 16) for n, each in enumerate(rivals)))
        assert sum("error" not in answer for answer in answers) <= 1
        await turns()
        late = await enter(come(there.servers[0]), "Late", key="x" * 16)
        assert len(late["people"]) <= 2
        # Nobody keeps what nobody got.
        if late["people"] == [late["people"][-1]]:
            assert "error" not in await enter(come(there.servers[1]), "Ann", key="x" * 16)


async def test_a_worker_that_comes_later_knows_it_all() -> None:
    async with world(1, run.Chat) as there:
        ann = come(there.servers[0])
        await enter(ann, "Ann")
        await ann.call("say", "hello")
        io = there.make()
        run.Chat(io)
        await io.start()
        await turns(20)
        answer = await enter(come(io), "Bob")
        assert ids(answer) == ["Ann", "Bob"]
        assert [said["text"] for said in answer["history"]] == ["hello"]
        assert "called" in (await enter(come(io), "Ann", key="x" * 16))["error"]


async def test_those_on_a_worker_that_dies_have_left() -> None:
    async with world(2, run.Chat) as there:
        one, two = there.servers
        ann, bob = come(one), come(two)
        await enter(ann, "Ann")
        await turns()
        await enter(bob, "Bob", "elsewhere")
        await turns()
        bob.take()
        there.kill(one)
        await there.pass_time(20)
        assert named(bob, "rooms")[-1] == [["lobby", 0], ["elsewhere", 1]]
        assert ids(await enter(come(two), "Ann", key="x" * 16)) == ["Ann"]


async def test_workers_that_had_lost_each_other_agree_again() -> None:
    async with world(2, run.Chat) as there:
        one, two = there.servers
        stays, goes = come(one), come(one)
        await enter(stays, "Stays")
        await enter(goes, "Goes")
        await turns()
        for io in there.servers:
            bus_of(io).cut = True
        goes.disconnect()
        rivals = [come(io) for io in there.servers]
        for number, each in enumerate(rivals):
            assert "error" not in await enter(each, "Ann", key=str(number) * 16)
        for io in there.servers:
            bus_of(io).cut = False
        await turns(30)
        answers = [await enter(come(io), f"Late {n}", "elsewhere") for n, io in enumerate(there.servers)]
        assert answers[1]["rooms"][0] == ["lobby", 2]
        assert sum(each.close_reason is None for each in rivals) == 1
        people = ids(await enter(come(two), "Last"))
        assert sorted(people) == ["Ann", "Last", "Stays"]


# -- pages in engines


@contextmanager
def started(script: str, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server in a process of its own, and the address that it prints."""
    command = [sys.executable, script, *options]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert select.select([process.stdout], [], [], START_S)[0], f"{script} printed nothing"
            line = process.stdout.readline()
            address = re.search(r"http://127\.0\.0\.1:\d+/", line)
            assert address, f"no address in {line!r}"
            yield process, address[0]
        finally:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


async def test_several_workers_at_a_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a stranger starts it: two processes, one chat.  One is killed, and another takes its place."""
    folder = tempfile.mkdtemp()  # (A test's own folder has too long a name for sockets.)
    monkeypatch.setenv("TMPDIR", folder)
    with started("run.py", "--port=0", "--workers=2") as (process, url):
        tries = count()
        async with AsyncExitStack() as stack:

            async def come(nick: str, elsewhere: str = "") -> tuple[Plain, str]:
                """Somebody on a worker, another one than *elsewhere*; which one it is."""
                deadline = time.monotonic() + PAGE_S
                while time.monotonic() < deadline:  # which worker takes a connection is the system's to say
                    # Each try has a name of its own: of those that were given up others hear later.
                    partner = Plain(url, "lobby", f"{nick} {next(tries)}")
                    async with AsyncExitStack() as trial:
                        await trial.enter_async_context(partner)
                        # An id begins with its worker's.
                        node = (await partner.event("#connect"))["sid"][:NODE_ID_CHARS]
                        # (An event "rooms" may come because somebody else has left.)
                        assert "error" not in await partner.event("#ack")
                        if node != elsewhere:
                            stack.push_async_exit(trial.pop_all())
                            return partner, node
                pytest.fail(f"{nick} found no other worker")

            async def hears_of(partner: Plain, other: Plain) -> None:
                while (await partner.event("left"))["nick"] != other.nick:
                    pass

            ann, one = await come("Ann")
            bob, two = await come("Bob", elsewhere=one)
            await ann.emit("say", "hello")
            assert (await bob.event("said"))["text"] == "hello"
            workers = children(process.pid)
            assert len(workers) == 2
            os.kill(workers[0], signal.SIGKILL)
            left = await asyncio.gather(hears_of(ann, bob), hears_of(bob, ann), return_exceptions=True)
            # Whoever was there has lost the connection; the other one hears of it.
            lost = [isinstance(each, BaseException) for each in left]
            assert sorted(lost) == [False, True]
            stays, node = (bob, two) if lost[0] else (ann, one)
            new, _ = await come("New", elsewhere=node)
            await stays.emit("say", "hello again")
            assert (await new.event("said"))["text"] == "hello again"
        process.send_signal(signal.SIGINT)
        assert process.wait(STOP_S) == 0
    os.rmdir(folder)  # which nothing is left in


def test_each_worker_has_a_port_of_its_own_for_other_hosts() -> None:
    assert run.relay_of("10.0.0.5:7000", 0) == "10.0.0.5:7000"
    assert run.relay_of("10.0.0.5:7000", 3) == "10.0.0.5:7003"
    assert run.relay_of("[fd00::1]:7000", 1) == "[fd00::1]:7001"
    assert run.relay_of("10.0.0.5:0", 3) == "10.0.0.5:0"  # any free one
    assert run.relay_of("nonsense", 3) == "nonsense"  # which Server refuses


async def test_workers_take_requests_of_other_hosts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("POLYSOCK_SECRET", SECRET)
    options = ["--workers=2", "--relay=127.0.0.1:0"]
    with RedisServer(tmp_path) as redis, started("run.py", "--port=0", f"--backplane={redis.url}", *options):
        io = polysock.Server(backplane=redis.url)
        await io.start()
        try:
            assert io.cluster is not None
            addresses = {node.tcp for node in io.cluster.nodes.values()}
            assert len(addresses) == 2
            for address in addresses:
                reader, writer = await asyncio.open_connection(*address.split(":"))
                greeting = await reader.readexactly(relaywire.GREETING_BYTES)
                answer = relaywire.answer(SECRET.encode(), greeting, io.cluster.id, relaywire.nonce())
                writer.write(answer)
                proof = await asyncio.wait_for(reader.readexactly(relaywire.PROOF_BYTES), START_S)
                assert proof == relaywire.listener_proof(SECRET.encode(), greeting, answer)
                writer.close()
        finally:
            await io.stop()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--workers=0"], "workers must be a number from 1 to 1024"),
        (["--workers=some"], 'or "auto"'),
        (["--workers=2", "--debug"], "one worker only"),
        (["--backplane=http://x"], "a backplane is"),
        (["--backplane=redis://127.0.0.1:1"], "Cannot reach the backplane"),
        (["--relay=127.0.0.1:0", "--secret=0123456789abcdef"], "relay= needs backplane="),
        (["--relay=127.0.0.1:0", "--workers=2", "--backplane=redis://127.0.0.1:1"], "cluster_secret="),
        (["--secret=short"], "at least 16 bytes"),
        (["--relay=0.0.0.0:7000", "--secret=0123456789abcdef"], "nobody can call"),
        (["--relay=127.0.0.1:65535", "--secret=0123456789abcdef", "--workers=2"], "can call, and a port"),
        (["--prot=1"], "'prot'"),
        (["--port=abc"], "'abc'"),
        (["--port", "8080"], "'port' requires a value"),
        (["--port=-1"], "--port: a number from 0 to 65535"),
        (["--port=99999"], "--port: a number from 0 to 65535"),
        (["8080"], "'8080'"),
        (["--address=nonsense.invalid"], "Cannot listen on nonsense.invalid"),
        (["--flash-policy-port=70000"], "--flash-policy-port: a number from 0 to 65535"),
    ],
)
def test_options_that_make_no_sense(options: list[str], said: str) -> None:
    assert said in refusal(*options)


def test_a_port_that_is_taken() -> None:
    with stdlib_socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert "Another program may have the port" in refusal(f"--port={port}")
        assert f"Cannot tell Flash players the policy at 127.0.0.1:{port}" in refusal(f"--flash-policy-port={port}")


def test_the_password_of_a_redis_is_in_no_list_of_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYSOCK_BACKPLANE", "redis://:secret@127.0.0.1:1")
    said = refusal()
    assert "Cannot reach the backplane: redis://127.0.0.1:1" in said
    assert "secret" not in said


def refusal(*options: str) -> str:
    """What ``run.py`` says, which does not start."""
    done = subprocess.run(
        [sys.executable, "run.py", "--port=0", *options], cwd=ROOT, capture_output=True, text=True, timeout=START_S
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    with started("tests/chat_app.py") as (_, url):
        yield url


@pytest.fixture
def room(request: pytest.FixtureRequest) -> str:
    """A room of the test's own: what an engine of the test before left unfinished is not in it."""
    return f"room {zlib.crc32(request.node.name.encode())}"


async def drive(engine: Any, url: str) -> dict[str, str]:
    text = await asyncio.to_thread(engine.run, url, PAGE_S)
    assert text, f"the page did not finish within {PAGE_S} s; the engine says {engine.log[-5:]}"
    facts: dict[str, str] = json.loads(text)
    return facts


async def end(socket: WebSocketClientConnection) -> None:
    """Close a WebSocket and wait until it is closed."""
    socket.close()
    while await asyncio.wait_for(socket.read_message(), STOP_S) is not None:
        pass


class Plain:
    """A partner without a library."""

    def __init__(self, url: str, room: str, nick: str = "Python") -> None:
        self.address = url.replace("http", "ws", 1) + "plain/websocket?ns=/chat"
        self.room = room
        self.nick = nick
        self.is_over = False

    async def __aenter__(self) -> Plain:
        self.socket = await websocket_connect(self.address)
        await self.emit(1, "enter", {"nick": self.nick, "room": self.room, "key": KEY})
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self.is_over:
            self.socket.close()
        else:
            await end(self.socket)

    async def emit(self, *event: Any) -> None:
        await self.socket.write_message(json.dumps(event))

    async def event(self, name: str) -> Any:
        """The value of the next event of this name; of "#ack", the answer to coming in."""
        while True:
            text = await asyncio.wait_for(self.socket.read_message(), PAGE_S)
            self.is_over = text is None
            assert text is not None, f"the connection ended before {name!r}"
            message = json.loads(text)
            if message[0] == name:
                return message[-1]

    async def talk(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Greet the next one who comes in; who that was, and what they said."""
        joined = await self.event("joined")
        await self.emit("say", "hello from Python")
        while True:
            said = await self.event("said")
            if said["from"] == joined["id"]:
                return joined, said


async def test_the_pages_are_there_and_nothing_else(site: str) -> None:
    client = AsyncHTTPClient()
    for path, status in {
        "": 200,
        "chat.html": 200,
        "worlds.html": 200,
        "chat-4.html": 200,
        "chat-0.9.html": 200,
        "chat-5.html": 404,
        "chat-4.html/": 404,
        "lab.js": 404,
        "static/": 403,
        "run.py": 404,
    }.items():
        answer = await client.fetch(site + path, raise_error=False)
        assert (path, answer.code) == (path, status)


@pytest.mark.parametrize("name", ["chromium", "firefox"])
async def test_three_transports_in_one_room(request: pytest.FixtureRequest, site: str, name: str) -> None:
    seen = await drive(request.getfixturevalue(name), f"{site}driven/blank/three?{name}")
    for way in ("jsonp-polling", "websocket", "xhr-streaming"):
        assert f"Connected over {way}." in seen["states"]
        assert way in seen["people"]
    assert f"Ann {name} (you) polysock.js \u00b7 jsonp-polling" in seen["people"]
    assert f"<i>Bob</i> {name} polysock.js \u00b7 websocket" in seen["people"]
    assert f"<i>Bob</i> {name}, privately to you between us" in seen["ann"]
    assert "between us" not in seen["eve"]
    assert "<i>Bob</i>" not in seen["after"]
    assert seen["hacked"] == "undefined"
    assert seen["elements"] == "0"


async def test_what_is_written_to_one_who_leaves_reaches_nobody_else(chromium: Any, site: str, room: str) -> None:
    members = named_in(
        room, [(nick, "chat", "websocket", "polysock.js \u00b7 websocket") for nick in ("Ann", "Bob", "Eve")]
    )
    seen = await drive(chromium, address(site, "whispering", room, members))
    assert seen["trouble"] == seen["again"] == "Not sent: That one has left."
    assert (seen["button"], seen["to"]) == ("Whisper", f"{members[1][0]}, who has left")
    assert "between us" not in seen["eve"]


# -- the pages of Socket.IO's clients


@pytest.fixture
def socketio_clients() -> None:
    """What the server takes from npm."""
    for version in SOCKETIO_GENERATIONS:
        need_npm(f"socket.io-client-{version}", "dist/socket.io.js")


Member = tuple[str, str, str, str]


def generation(version: str, forced: str, way: str) -> Member:
    """Nick, page, transport, and how others shall see it."""
    return f"Member {version}", f"chat-{version}", forced, f"Socket.IO {version} \u00b7 {way}"


def named_in(room: str, members: Sequence[Member]) -> list[Member]:
    """The same, with the room's number in their names: what an engine left unfinished may hold its names for long."""
    return [(f"{nick} {room[-6:]}", page, forced, shown) for nick, page, forced, shown in members]


def address(site: str, driver: str, room: str, members: Sequence[Member]) -> str:
    return f"{site}driven/blank/{driver}?room={room}&members={quote(json.dumps(members))}"


POLYSOCK = ("Member P", "chat", "", "polysock.js \u00b7 websocket")


@pytest.mark.parametrize(
    "members",
    [
        [
            POLYSOCK,
            generation("4", "", "websocket"),
            generation("3", "polling", "polling"),
            generation("2", "jsonp-polling", "jsonp-polling"),
            generation("1", "websocket", "websocket"),
            generation("0.9", "xhr-polling", "xhr-polling"),
        ],
        [
            generation("4", "polling", "polling"),
            generation("3", "jsonp-polling", "jsonp-polling"),
            generation("2", "", "websocket"),
            generation("1", "polling", "polling"),
            generation("0.9", "", "websocket"),
        ],
        [
            generation("4", "websocket", "websocket"),
            generation("3", "", "websocket"),
            generation("2", "polling", "polling"),
            generation("1", "jsonp-polling", "jsonp-polling"),
            generation("0.9", "jsonp-polling", "jsonp-polling"),
        ],
    ],
    ids=["and polysock.js", "second", "third"],
)
@pytest.mark.usefixtures("socketio_clients")
async def test_all_generations_of_socketio_in_one_room(
    chromium: Any, site: str, room: str, members: list[Member]
) -> None:
    members = named_in(room, members)
    seen = await drive(chromium, address(site, "generations", room, members))
    logs, states, errors = (json.loads(seen[name]) for name in ("logs", "states", "errors"))
    nicks = [nick for nick, *_ in members]
    for place, (nick, _, _, way) in enumerate(members):
        assert states[nick] == f"Connected over {way.split()[-1]}."
        before, after = nicks[place - 1], nicks[(place + 1) % len(nicks)]
        for other in nicks:
            assert logs[nick].count(f"{other} <b>{other}</b> \u00e9\u6f22\U0001f600 to all") == 1
            whispers = logs[nick].count(f"{other}, privately to you between us")
            assert (other, whispers) == (other, int(other == before))
            assert logs[nick].count(f"to {other}, privately between us") == int(other == after)
        if place:
            assert errors[nick] == f"Somebody here is called {nicks[0].upper()} already. Take another name."
            assert seen["first"].count(f"{nick} has left.") == 1


async def test_a_client_that_is_not_installed(chromium: Any, tmp_path: Path) -> None:
    assert run.socketio_clients(tmp_path) == {}
    told = """until(function () { return shown('missing-client'); }, function () {
        result({ text: shown('missing'), chat: byId('chat').offsetHeight });
    });"""
    with started("run.py", "--port=0", f"--client-files={tmp_path}") as (_, url):
        text = await asyncio.to_thread(
            chromium.run, f"{url}chat-3.html", PAGE_S, DRIVERS.read_text(encoding="utf-8") + told
        )
    seen = json.loads(text)
    assert "Socket.IO 3 is not here" in seen["text"]
    assert "make npm-deps" in seen["text"]
    assert seen["chat"] == "0"


async def test_two_browsers_of_different_makes(chromium: Any, firefox: Any, site: str, room: str) -> None:
    carl, dora = await asyncio.gather(
        drive(chromium, f"{site}driven/chat/greet?nick=Carl&room={room}&transport=websocket"),
        drive(firefox, f"{site}driven/chat/answer?nick=Dora&room={room}&transport=jsonp-polling"),
    )
    assert "Dora polysock.js \u00b7 jsonp-polling" in carl["people"]
    assert "Carl polysock.js \u00b7 websocket" in dora["people"]
    assert f"Dora {ANSWER}" in carl["log"]


async def test_a_visit(chromium: Any, site: str, room: str) -> None:
    seen = await drive(chromium, f"{site}driven/chat/visitor?room={room}")
    assert seen["error"] == "Somebody here is called taken already. Take another name."
    assert "Free polysock.js \u00b7 jsonp-polling" in seen["people"]
    assert (seen["away"], seen["back"]) == (f"(1) {room} \u2013 polysock chat", f"{room} \u2013 polysock chat")
    assert "quiet 1" in seen["rooms"]
    assert seen["quiet"] == "Free (you) polysock.js \u00b7 jsonp-polling"


async def partnered(
    engine: Any, site: str, room: str, query: str = "", page: str = "chat"
) -> tuple[dict[str, str], str, str]:
    """What the page showed, its transport as the server saw it, and what it said."""
    async with Plain(site, room) as partner:
        talking = asyncio.ensure_future(partner.talk())
        try:
            seen = await drive(engine, f"{site}driven/{page}/answer?nick=O{room[5:]}&room={room}{query}")
            joined, said = await talking
        finally:
            talking.cancel()
        return seen, joined["transport"], said["text"]


@pytest.mark.parametrize(
    ("name", "query", "transport"),
    [
        ("chromium", "", "websocket"),
        ("firefox", "", "websocket"),
        ("qtwebkit", "", "websocket"),
        ("qtwebkit", "&transport=jsonp-polling", "jsonp"),
        ("phantomjs", "", "xhr_streaming"),
        ("phantomjs", "&transport=jsonp-polling", "jsonp"),
    ],
)
async def test_an_engine_and_a_partner(
    request: pytest.FixtureRequest, site: str, room: str, name: str, query: str, transport: str
) -> None:
    seen, way, text = await partnered(request.getfixturevalue(name), site, room, query)
    assert (way, text) == (transport, ANSWER)
    assert "Python no library \u00b7 websocket" in seen["people"]


@pytest.mark.parametrize(
    ("name", "page", "query", "transport"),
    [
        ("firefox", "chat-4", "&transport=websocket", "websocket"),
        ("firefox", "chat-0.9", "", "websocket"),
        ("qtwebkit", "chat-1", "&transport=jsonp-polling", "jsonp"),
        ("qtwebkit", "chat-2", "&transport=polling", "polling"),
        ("phantomjs", "chat-1", "&transport=polling", "polling"),
        ("phantomjs", "chat-0.9", "&transport=xhr-polling", "xhr-polling"),
        ("phantomjs", "chat-0.9", "&transport=jsonp-polling", "jsonp-polling"),
    ],
)
@pytest.mark.usefixtures("socketio_clients")
async def test_an_engine_with_a_client_of_socketio(
    request: pytest.FixtureRequest, site: str, room: str, name: str, page: str, query: str, transport: str
) -> None:
    seen, way, text = await partnered(request.getfixturevalue(name), site, room, query, page)
    assert (way, text) == (transport, ANSWER)
    assert "Python no library \u00b7 websocket" in seen["people"]


@pytest.mark.parametrize("browser", ["INTERNET_EXPLORER_6", "INTERNET_EXPLORER_8"])
@pytest.mark.parametrize(("query", "transport"), [("", "xhr"), ("&transport=jsonp-polling", "jsonp")])
async def test_an_emulated_internet_explorer_and_a_partner(
    htmlunit: Any, site: str, room: str, browser: str, query: str, transport: str
) -> None:
    seen, way, text = await partnered(htmlunit(browser), site, room, query)
    assert (way, text) == (transport, ANSWER)
    assert "hello from Python" in seen["log"]


@pytest.mark.parametrize("name", ["chromium", "firefox", "qtwebkit", "phantomjs"])
async def test_two_worlds(request: pytest.FixtureRequest, site: str, name: str) -> None:
    seen = await drive(request.getfixturevalue(name), f"{site}driven/worlds/worlds")
    assert "Connected over jsonp-polling." in seen["states"]
    assert '<script src="/polysock/' in seen["old"]
    assert '<form action="/polysock/' in seen["old"]
    assert "I only have script tags" in seen["old"]
    if name == "phantomjs":
        assert "took the best it has: xhr-streaming" in seen["how"]
    else:
        assert "Connected over websocket." in seen["states"]
        assert "(upgrade)" in seen["today"]
    assert "Loud and clear!" in seen["today"]


# -- a server that goes away, as a stranger starts it


@pytest.mark.usefixtures("socketio_clients")
async def test_all_generations_come_back_after_the_server_was_killed(chromium: Any) -> None:
    members = [
        POLYSOCK,
        generation("4", "", "websocket"),
        generation("3", "polling", "polling"),
        generation("2", "jsonp-polling", "jsonp-polling"),
        generation("1", "websocket", "websocket"),
        generation("0.9", "xhr-polling", "xhr-polling"),
    ]
    script = "tests/chat_app.py"
    with started(script) as (process, url):
        async with Plain(url, "back") as watcher:
            page = asyncio.ensure_future(drive(chromium, address(url, "generationsBack", "back", members)))
            while (await watcher.event("said"))["text"] != "kill me":
                pass
        process.kill()
        process.wait(STOP_S)
    with started(script, url.rstrip("/").rpartition(":")[2]):
        seen = await page
    logs, people = json.loads(seen["logs"]), json.loads(seen["people"])
    for nick, *_ in members:
        assert logs[nick].count("The connection was lost.") == 1
        assert logs[nick].count("You are back in") == 1
        assert logs[nick].count("Member P after") == 1
        assert people[nick].count("Member") == len(members)


@pytest.mark.parametrize("transport", ["websocket", "jsonp-polling"])
async def test_the_chat_comes_back_after_the_server_was_killed(chromium: Any, transport: str) -> None:
    back = DRIVERS.read_text(encoding="utf-8") + "if (window === window.top) { drivers.back(); }"
    with started("run.py", "--port=0") as (process, url):
        async with Plain(url, "lobby") as watcher:
            page = asyncio.ensure_future(
                asyncio.to_thread(chromium.run, f"{url}chat.html?nick=Ann&transport={transport}", PAGE_S, back)
            )
            while (await watcher.event("said"))["text"] != "kill me":
                pass
        process.kill()
        process.wait(STOP_S)
    port = url.rstrip("/").rpartition(":")[2]
    with started("run.py", f"--port={port}"):
        text = await page
    assert text, f"the page did not finish; the engine says {chromium.log[-5:]}"
    seen = json.loads(text)
    assert "The connection was lost." in seen["log"]
    assert re.search(r"reconnecting: Try \d+ in \d+ s\. .+", seen["states"])
    assert seen["log"].count("You are in lobby") == 1
    assert f"Ann (you) polysock.js \u00b7 {transport}" in seen["people"]


def libraries(process: subprocess.Popen[str]) -> str:
    return Path(f"/proc/{process.pid}/maps").read_text()


@pytest.mark.parametrize("loop", ["asyncio", "uvloop", "auto"])
async def test_either_event_loop_serves_the_chat(loop: str) -> None:
    with started("run.py", "--port=0", f"--loop={loop}") as (process, url):
        async with Plain(url, "lobby") as watcher:
            await watcher.event("rooms")
        if sys.platform == "linux":
            assert ("/uvloop/" in libraries(process)) is (loop != "asyncio")


def test_an_event_loop_that_does_not_exist_is_refused() -> None:
    command = [sys.executable, "run.py", "--loop=trio"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=START_S, check=False)
    assert done.returncode == 1
    assert "--loop: there are auto, asyncio, uvloop" in done.stderr
