"""Emitting from a process that is no node: Publisher, SyncPublisher, and the command, against real backplanes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any

import pytest

from polysock import BackplaneDown, Publisher, Server, SettingError, StateError, SyncPublisher
from polysock import publisher as publisher_module
from polysock.backplane import Backplane, MemoryBackplane, MemoryBus
from polysock.command import URL_VARIABLE, main
from polysock.limits import DEFAULT_CLUSTER_LIMITS, ClusterLimits
from polysock.testing import Client
from support.clients import turns, until
from support.cluster import cluster_of
from support.redis_server import RedisServer

LIMIT_S = 60
#: What ends a wait for an answer that shall not come.
SHORT_S = 0.2
#: A room may be called anything.
ODD = "a b/\u6f22\U0001f600,*"


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


class Place:
    """A backplane, to which Servers and Publishers get their own access."""

    def __init__(self, make: Callable[[], str | Backplane]) -> None:
        self.make = make

    @asynccontextmanager
    async def nodes(
        self, count: int = 2, setup: Callable[[Server], object] | None = None
    ) -> AsyncIterator[list[Server]]:
        servers = [Server(backplane=self.make()) for _ in range(count)]
        try:
            for node in servers:
                if setup is not None:
                    setup(node)
                await node.start()
            yield servers
        finally:
            for node in servers:
                node.close()
                await node.stop()


@pytest.fixture(params=["memory", "mesh", "redis"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "memory":
        bus = MemoryBus()
        return Place(bus.backplane)
    if request.param == "mesh":
        return Place(lambda: f"unix://{tmp_path}/mesh")
    server: RedisServer = request.getfixturevalue("redis")
    return Place(lambda: f"{server.url}?prefix={tmp_path.name}:")


@pytest.fixture(params=["mesh", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of a backplane that other processes and loops reach too."""
    if request.param == "mesh":
        return f"unix://{tmp_path}/mesh"
    server: RedisServer = request.getfixturevalue("redis")
    return f"{server.url}?prefix={tmp_path.name}:"


def with_rooms(io: Server) -> None:
    for namespace in (io.sockets, io.of("/chat")):
        namespace.on("connection", lambda client: client.join(*client.handshake.query.get("rooms", "").split(";")[:-1]))


def come(io: Server, *rooms: str, namespace: str = "/") -> Client:
    return Client(io, namespace, query={"rooms": "".join(f"{room};" for room in rooms)})


async def settled(*servers: Server) -> None:
    for node in servers:
        await cluster_of(node).settled()


async def heard(client: Client, count: int = 1) -> list[tuple[Any, ...]]:
    """The next so many events."""
    found: list[tuple[Any, ...]] = []

    def enough() -> bool:
        found.extend(client.take())
        return len(found) >= count

    await until(enough, LIMIT_S)
    return found


# -- with asyncio


async def test_whom_it_reaches_and_how_many_nodes_take_it(place: Place) -> None:
    async with place.nodes(3, with_rooms) as (one, two, three):
        ann, bob, eve = come(one, "a", "both"), come(two, "b", "both", ODD), come(two, "a", "b")
        chatting = come(three, "a", namespace="/chat")
        await settled(one, two, three)
        async with Publisher(place.make()) as publisher:
            assert await publisher.emit("all", 1) == 2
            assert await publisher.to("a").emit("a", {"x": [b"\x00\xff"]}) == 2
            assert await publisher.in_("b").emit("b") == 1
            assert await publisher.to("both").except_("b").emit("but") == 2
            assert await publisher.to("a").to("b").emit("once") == 2
            assert await publisher.to(ODD).send("odd") == 1
            assert await publisher.to(bob.id or "").emit("yours") == 1
            assert await publisher.of("/chat").emit("chat") == 1
            assert await publisher.of("chat").to("a").emit("chat a") == 1
            assert await publisher.to("nobody").emit("lost") == 0
            assert await publisher.of("/nowhere").emit("lost") == 0
            assert await publisher.volatile.emit("last") == 2
        assert await heard(ann, 5) == [("all", 1), ("a", {"x": [b"\x00\xff"]}), ("but",), ("once",), ("last",)]
        # The last events of two channels may change places where they are different connections' (docs).
        assert sorted(map(str, await heard(bob, 6))) == sorted(
            map(str, [("all", 1), ("b",), ("once",), ("message", "odd"), ("yours",), ("last",)])
        )
        assert len(await heard(eve, 5)) == 5
        assert await heard(chatting, 2) == [("chat",), ("chat a",)]
        assert [len(cluster_of(io).nodes) for io in (one, two, three)] == [2, 2, 2]  # it is no node


async def test_what_it_emits_keeps_its_order(place: Place) -> None:
    async with place.nodes(2, with_rooms) as (one, two):
        ann, bob = come(one, "a"), come(two, "a")
        await settled(one, two)
        async with Publisher(place.make()) as publisher:
            for number in range(50):
                await publisher.to("a").emit("number", number)
            # Also those that nobody waits for in between.
            await asyncio.gather(*(publisher.to("a").emit("number", number) for number in range(50, 100)))
        for client in (ann, bob):
            assert await heard(client, 100) == [("number", number) for number in range(100)]


@pytest.mark.parametrize(
    ("emit", "error"),
    [
        (lambda publisher: publisher.emit("x", object()), TypeError),
        (lambda publisher: publisher.emit("x", float("nan")), ValueError),
        (lambda publisher: publisher.emit("disconnect"), ValueError),
        (lambda publisher: publisher.emit(7), TypeError),
        (lambda publisher: publisher.of("/a,b").emit("x"), ValueError),
        (lambda publisher: publisher.emit("x", b"x" * DEFAULT_CLUSTER_LIMITS.max_envelope_bytes), ValueError),
        (lambda publisher: publisher.to(*map(str, range(1_001))).emit("x"), ValueError),
    ],
)
async def test_what_cannot_travel(emit: Callable[[Any], Any], error: type[Exception]) -> None:
    bus = MemoryBus()
    async with Publisher(bus.backplane()) as publisher:
        with pytest.raises(error):
            await emit(publisher)
        assert await publisher.emit("x") == 0


async def test_limits_of_the_nodes_hold() -> None:
    bus = MemoryBus()
    async with Publisher(bus.backplane(), limits=ClusterLimits(max_envelope_bytes=200)) as publisher:
        with pytest.raises(ValueError, match="max_envelope_bytes"):
            await publisher.emit("x", "y" * 200)


async def test_an_outage_is_told() -> None:
    bus = MemoryBus()
    backplane = bus.backplane()
    publisher = Publisher(backplane)
    with pytest.raises(StateError, match="start"):
        await publisher.emit("x")
    async with publisher:
        with pytest.raises(StateError):
            await publisher.start()
        backplane.cut = True
        with pytest.raises(BackplaneDown):
            await publisher.emit("x")
        backplane.cut = False
        assert await publisher.emit("x") == 0
    with pytest.raises(BackplaneDown):
        await publisher.emit("x")
    backplane.cut = True
    with pytest.raises(BackplaneDown):
        await Publisher(backplane).start()


async def test_a_redis_that_does_not_answer(redis: RedisServer) -> None:
    async with Publisher(redis.url) as publisher:
        publisher._timeout_s = SHORT_S  # from here on: to connect may take longer than that
        redis.pause()
        try:
            with pytest.raises(BackplaneDown, match=r"no answer within 0\.2 s"):
                await publisher.emit("x")
            with pytest.raises(BackplaneDown, match="no answer"):
                await Publisher(redis.url, timeout_s=SHORT_S).start()
        finally:
            redis.resume()


async def test_a_redis_that_is_not_there(redis: RedisServer) -> None:
    async with Publisher(redis.url) as publisher:
        assert await publisher.emit("x") == 0
    with pytest.raises(BackplaneDown):
        await Publisher("redis://127.0.0.1:1").start()
    with pytest.raises(BackplaneDown):
        await asyncio.to_thread(SyncPublisher("redis://127.0.0.1:1").emit, "x")


@pytest.mark.parametrize("kind", [Publisher, SyncPublisher])
def test_arguments_that_make_no_sense(kind: Any) -> None:
    for wrong in ("", "http://localhost", "unix://run/x", None):
        with pytest.raises(SettingError):
            kind(wrong)
    for timeout_s in (0, -1, True, "1", float("inf"), float("nan")):
        with pytest.raises(SettingError, match="timeout_s"):
            kind("unix:///run/x", timeout_s=timeout_s)


# -- without


async def in_thread(work: Callable[[], Any]) -> Any:
    return await asyncio.wait_for(asyncio.to_thread(work), LIMIT_S)


async def test_sync(url: str) -> None:
    async with Place(lambda: url).nodes(2, with_rooms) as (one, two):
        ann, bob = come(one, "a"), come(two, "a")
        await settled(one, two)

        def work() -> list[int]:
            with pytest.raises(RuntimeError):
                asyncio.get_running_loop()
            with SyncPublisher(url) as publisher:
                counts = [publisher.to("a").except_(bob.id or "").emit("number", number) for number in range(20)]
                counts.append(publisher.of("/chat").emit("x"))
                with pytest.raises(TypeError):
                    publisher.emit("x", object())
            counts.append(publisher.emit("after close"))  # connects again
            publisher.close()
            publisher.close()
            return counts

        assert await in_thread(work) == [2] * 20 + [0, 2]
        assert await heard(ann, 21) == [*(("number", number) for number in range(20)), ("after close",)]
        assert await heard(bob) == [("after close",)]
    assert [thread.name for thread in threading.enumerate() if "polysock" in thread.name] == []


async def test_sync_shared_by_threads(url: str) -> None:
    async with Place(lambda: url).nodes(1) as (node,):
        ann = Client(node)
        await settled(node)
        with ExitStack() as stack:
            publisher = stack.enter_context(SyncPublisher(url))

            def work(name: str) -> None:
                for number in range(20):
                    assert publisher.emit(name, number) == 1

            await asyncio.gather(*(in_thread(lambda name=name: work(name)) for name in "abc"))  # type: ignore[misc]
            events = await heard(ann, 60)
            for name in "abc":
                assert [event for event in events if event[0] == name] == [(name, number) for number in range(20)]
            stack.pop_all()
            await in_thread(publisher.close)


class Lingering(MemoryBackplane):
    """What is under way when it stops ends some turns of the loop later."""

    def __init__(self) -> None:
        super().__init__(MemoryBus())
        self.is_asked = threading.Event()
        self._is_stopped = asyncio.Event()

    async def deliver(self, channel: str, data: bytes) -> int:
        self.is_asked.set()
        await self._is_stopped.wait()
        await turns()
        raise BackplaneDown("stopped")

    async def stop(self) -> None:
        await super().stop()
        self._is_stopped.set()


async def test_who_waits_in_another_thread_is_told_of_the_close(monkeypatch: pytest.MonkeyPatch) -> None:
    lingering = Lingering()
    monkeypatch.setattr(publisher_module, "connect", lambda url, **options: lingering)
    publisher = SyncPublisher("unix:///run/app")
    told: list[Exception] = []

    def work() -> None:
        try:
            publisher.emit("x")
        except BackplaneDown as error:
            told.append(error)

    emitting = threading.Thread(target=work, daemon=True)
    emitting.start()
    assert await in_thread(lambda: lingering.is_asked.wait(10))
    runner = publisher._runner
    assert runner is not None
    await in_thread(publisher.close)
    await in_thread(lambda: emitting.join(10))
    assert [str(error) for error in told] == ["stopped"]
    with pytest.raises(BackplaneDown, match="another thread"):
        runner.run(runner.publisher.stop())  # who had found it before it was closed


FORKING = """
import os, sys, threading
from polysock import SyncPublisher

publisher = SyncPublisher(sys.argv[1])
print(publisher.emit("parent"), flush=True)
child = os.fork()
if not child:
    print(publisher.emit("child"), publisher.emit("child"), flush=True)
    publisher.close()
    os._exit(0)
os.waitpid(child, 0)
print(publisher.emit("parent"), flush=True)
publisher.close()
"""


async def run(*command: str, **env: str) -> tuple[int, str, str]:
    """Exit code, output and errors of a Python process."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *command,
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    output, errors = await asyncio.wait_for(process.communicate(), LIMIT_S)
    assert process.returncode is not None
    return process.returncode, output.decode(), errors.decode()


async def test_sync_in_a_process_that_forks(url: str) -> None:
    async with Place(lambda: url).nodes(1) as (node,):
        ann = Client(node)
        await settled(node)
        assert await run("-W", "ignore", "-c", FORKING, url) == (0, "1\n1 1\n1\n", "")
        assert await heard(ann, 4) == [("parent",), ("child",), ("child",), ("parent",)]


async def test_sync_while_redis_is_away(redis: RedisServer) -> None:
    def work() -> None:
        with SyncPublisher(redis.url) as publisher:
            assert publisher.emit("x") == 0
            runner = publisher._runner
            assert runner is not None
            runner.publisher._timeout_s = SHORT_S  # from here on: to connect may take longer than that
            redis.pause()
            try:
                with pytest.raises(BackplaneDown, match="no answer"):
                    publisher.emit("x")
            finally:
                redis.resume()

    await in_thread(work)


#: So many that one after another they would take seconds longer than any machine stands still.
THREADS = 50


async def test_many_threads_wait_no_longer_than_one(redis: RedisServer) -> None:
    publisher = SyncPublisher(redis.url, timeout_s=SHORT_S)
    redis.pause()
    try:
        begin = time.monotonic()
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(THREADS) as threads:
            emits = (loop.run_in_executor(threads, publisher.emit, "x") for _ in range(THREADS))
            results = await asyncio.gather(*emits, return_exceptions=True)
        took_s = time.monotonic() - begin
    finally:
        redis.resume()
    assert all(isinstance(result, BackplaneDown) for result in results)
    assert took_s < THREADS * SHORT_S / 2
    publisher.close()


# -- the command


async def test_the_command(url: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"\x00\xff")
    async with Place(lambda: url).nodes(2, with_rooms) as (one, two):
        ann, bob = come(one, "a", "b"), come(two, "a", namespace="/chat")
        await settled(one, two)
        emit = ["-m", "polysock", "emit"]
        assert await run(*emit, "--url", url, "--room", "a", "news", '{"x": [1]}', '"y"', "--file", str(file)) == (
            0,
            "taken by 1 node\n",
            "",
        )
        assert await run(*emit, "--namespace", "/chat", "--text", "news", "hello", **{URL_VARIABLE: url}) == (
            0,
            "taken by 1 node\n",
            "",
        )
        assert await run(*emit, "--url", url, "--room", "nobody", "news") == (1, "taken by no node\n", "")
        come(two)
        await settled(two)
        assert await run(*emit, "--url", url, "news", "--except", "b") == (0, "taken by 2 nodes\n", "")
        # Options stand where the fingers put them.
        mixed = ("news", "--room", "a", "1", "--url", url, "[2]", "-3")
        assert await run(*emit, *mixed) == (0, "taken by 1 node\n", "")
        assert await heard(ann, 2) == [("news", {"x": [1]}, "y", b"\x00\xff"), ("news", 1, [2], -3)]
        assert await heard(bob) == [("news", "hello")]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "COMMAND"),
        (["emit"], "EVENT"),
        (["emit", "news"], f"--url is missing, and so is ${URL_VARIABLE}"),
        (["emit", "--url", "http://x", "news"], "a backplane is"),
        (["emit", "--url", "unix:///nowhere", "news", "hello"], "'hello' is not JSON"),
        (["emit", "--url", "unix:///nowhere", "news", "1", "[1e999]"], "'[1e999]' is not JSON"),
        (["emit", "--url", "unix:///nowhere", "news", "--file", "/nowhere/x"], "--file /nowhere/x: No such file"),
        (["emit", "--url", "unix:///nowhere", "news", "--file", "/"], "--file /: Is a directory"),
        (["emit", "--url", "unix:///nowhere", "news", "--file", "/dev/zero"], "longer than 4194304 bytes"),
        (
            ["emit", "--url", "unix:///nowhere", "news", "--file", "-", "--file", "-", "--timeout", "0"],
            "timeout_s must be",
        ),
        (["emit", "--url", "unix:///nowhere", "news", "--timeout", "-1"], "timeout_s must be"),
        (["emit", "--url", "unix:///nowhere", "--namespace", "a,b", "news"], "has no comma"),
        (["emit", "--url", "{mesh}", "disconnect"], "reserved event name"),
        (["emit", "--url", "{mesh}", "news", "--rom", "a"], "unrecognized arguments: --rom"),
        (["emit", "--url", "{mesh}", "news", "--room", "a", "hello"], "'hello' is not JSON"),
    ],
)
def test_a_wrong_command(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(b"input")))
    monkeypatch.delenv(URL_VARIABLE, raising=False)
    with pytest.raises(SystemExit) as ended:
        main([each.format(mesh=f"unix://{tmp_path}/mesh") for each in arguments])
    assert ended.value.code == 2
    output = capsys.readouterr()
    assert said in output.err
    assert output.out == ""


def test_a_backplane_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["emit", "--url", "redis://:secret@127.0.0.1:1", "news"]) == 1
    output = capsys.readouterr()
    assert output.err.startswith("polysock emit: ")
    assert "secret" not in output.err
    assert output.out == ""


def test_a_folder_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    absent = tmp_path / "typo"
    assert main(["emit", "--url", f"unix://{absent}", "news"]) == 1
    output = capsys.readouterr()
    assert output.err == f"polysock emit: {absent} does not exist: is a server running with this backplane?\n"
    assert output.out == ""
    assert not absent.exists()


def test_a_folder_without_a_node(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "mesh"
    folder.mkdir(mode=0o700)
    assert main(["emit", "--url", f"unix://{folder}", "news"]) == 1
    assert capsys.readouterr() == ("taken by no node\n", "")
    assert list(folder.iterdir()) == []


async def test_a_publisher_comes_before_the_first_node(tmp_path: Path) -> None:
    place = Place(lambda: f"unix://{tmp_path}/mesh")
    with pytest.raises(BackplaneDown, match="mesh does not exist"):
        await Publisher(place.make()).start()
    with SyncPublisher(f"unix://{tmp_path}/mesh", timeout_s=LIMIT_S) as publisher:
        with pytest.raises(BackplaneDown, match="mesh does not exist"):
            await in_thread(lambda: publisher.emit("news"))
        async with place.nodes(1, with_rooms) as (io,):
            come(io)
            await settled(io)
            assert await in_thread(lambda: publisher.emit("news")) == 1


async def test_ctrl_c_is_no_fault(tmp_path: Path) -> None:
    file = tmp_path / "file"
    os.mkfifo(file)
    command = [
        sys.executable,
        "-m",
        "polysock",
        "emit",
        "--url",
        f"unix://{tmp_path}/mesh",
        "news",
        "--file",
        str(file),
    ]
    process = await asyncio.create_subprocess_exec(
        *command,
        stderr=asyncio.subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # who runs these tests may have it ignored
    )
    try:
        with await asyncio.to_thread(file.open, "wb"):  # it is read now
            process.send_signal(signal.SIGINT)
            _, said = await asyncio.wait_for(process.communicate(), LIMIT_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    assert (process.returncode, said) == (130, b"")


def test_help_says_it_all(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["emit", "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for word in ("--url", "--room", "--except", "--namespace", "--text", "--file", "exit status: 0", URL_VARIABLE):
        assert word in text
