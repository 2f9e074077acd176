"""docs/deploying.md, done: its program behind its nginx and its HAProxy, its unit, its Redis, and a rolled deploy.

The blocks are taken as they are; only addresses, ports and paths become those of the test.
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import AbstractContextManager, AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from polysock.backplane_redis import RedisBackplane
from polysock_transports import DEFAULT_LIMITS
from support.balancers import listener, nginx_configuration, start_nginx
from support.clients import SOCKJS, Client, quiet
from support.hub import WireClient
from support.needs import need_program
from support.programs import Program
from support.rawhttp import request
from support.redis_server import RedisServer
from test_docs import DOCS, blocks, free_port

__all__ = ["quiet"]

PAGE = DOCS / "deploying.md"
WAIT_S = 60.0
LOOK_S = 0.02
SERVERS = re.compile(r"10\.0\.0\.1([12]):8888")


def block(language: str, kind: str) -> str:
    (code,) = blocks(PAGE, language, kind)
    return code


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="polysock-") as name:
        yield Path(name)


async def until(condition: Callable[[], object]) -> None:
    async def look() -> None:
        while not condition():  # noqa: ASYNC110  # it is in another process
            await asyncio.sleep(LOOK_S)

    await asyncio.wait_for(look(), WAIT_S)


@contextmanager
def application(folder: Path, name: str = "one", **environment: str) -> Iterator[tuple[Program, str]]:
    """The page's program with two workers; yields it and where it listens."""
    file = folder / "app.py"
    file.write_text(block("python", "app"), encoding="utf-8")
    port = free_port()
    program = Program(
        [sys.executable, file],
        folder / f"{name}.log",
        environment={"APP_WORKERS": "2", "APP_PORT": str(port), **environment},
    )
    try:
        yield program, f"127.0.0.1:{port}"
    finally:
        program.stop()


async def serves(address: str) -> None:
    """Wait until something at *address* answers."""

    async def ask() -> bool:
        try:
            return (await request(f"http://{address}", "GET", "/polysock/")).status == 200
        except OSError:
            return False

    async def look() -> None:
        while not await ask():  # noqa: ASYNC110  # it is in another process
            await asyncio.sleep(LOOK_S)

    await asyncio.wait_for(look(), WAIT_S)


@contextmanager
def nginx_before(addresses: list[str], folder: Path) -> Iterator[str]:
    with listener() as door:
        host, port = door.getsockname()
        site = at(block("nginx", "site"), addresses).replace("listen 80;", f"listen {host}:{port};")
        program = start_nginx(site, folder, [door])
        try:
            yield f"{host}:{port}"
        finally:
            program.stop()


@contextmanager
def haproxy_before(addresses: list[str], folder: Path) -> Iterator[str]:
    found = need_program("haproxy", "/usr/sbin/haproxy", how="apt-get install haproxy")
    with listener() as door:
        file = folder / "haproxy.cfg"
        text = at(block("haproxy", "site"), addresses).replace("bind :80", f"bind fd@{door.fileno()}")
        file.write_text(text, encoding="utf-8")
        program = Program([found, "-db", "-f", file], folder / "haproxy.log", sockets=[door])
        try:
            yield "{}:{}".format(*door.getsockname())
        finally:
            program.stop()


def at(configuration: str, addresses: list[str]) -> str:
    changed = SERVERS.sub(lambda found: addresses[int(found[1]) - 1], configuration)
    assert changed != configuration
    return changed


@asynccontextmanager
async def member(base: str, transport: str) -> AsyncIterator[WireClient]:
    client = Client(base, transport, "/polysock")
    wire = await (await WireClient(client).open()).connect()
    try:
        await wire.call("join", "red")
        yield wire
    finally:
        await wire.vanish()


async def hear_each_other(wires: Collection[WireClient]) -> None:
    """Wait until they do: who has joined at one host is known at the others a moment after it was told so."""

    async def speak() -> None:
        for number, speaker in enumerate(wires):
            hello = ("said", f"hello {number}")
            while not all(hello in wire._inbox.received for wire in wires):
                await speaker.call("say", "red", hello[1])

    await asyncio.wait_for(speak(), WAIT_S)


# -- judged


def test_nginx_takes_its_configuration(folder: Path) -> None:
    program = need_program("nginx", "/usr/sbin/nginx", how="apt-get install nginx")
    file = folder / "nginx.conf"
    file.write_text(nginx_configuration(block("nginx", "site"), folder), encoding="utf-8")
    run = subprocess.run([program, "-t", "-q", "-e", "stderr", "-c", file], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")


def test_haproxy_takes_its_configuration(folder: Path) -> None:
    program = need_program("haproxy", "/usr/sbin/haproxy", how="apt-get install haproxy")
    file = folder / "haproxy.cfg"
    file.write_text(block("haproxy", "site"), encoding="utf-8")
    run = subprocess.run([program, "-c", "-q", "-f", file], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")


def test_systemd_takes_the_unit(folder: Path) -> None:
    program = need_program("systemd-analyze", how="apt-get install systemd")
    unit = block("ini", "unit")
    # It looks whether the program is there.
    changed = unit.replace("/srv/app/venv/bin/python", sys.executable)
    assert changed != unit
    file = folder / "app.service"
    file.write_text(changed, encoding="utf-8")
    run = subprocess.run([program, "verify", "--man=no", file], capture_output=True, text=True, check=False)
    assert [line for line in run.stderr.splitlines() if "app.service" in line] == []
    assert run.returncode == 0, run.stderr


def test_the_image_runs_the_program() -> None:
    """There is no engine to build it with; what it names must at least be there."""
    image, compose = block("dockerfile", "image"), block("yaml", "compose")
    command = json.loads(re.search(r"^CMD (.*)$", image, re.MULTILINE)[1])  # type: ignore[index]
    assert command[1] in image.split("COPY app.py ")[1]
    used = set(re.findall(r"APP_[A-Z]+", image + compose + block("ini", "unit")))
    assert used <= set(re.findall(r"APP_[A-Z]+", block("python", "app")))


# -- served


@pytest.mark.parametrize("before", [nginx_before, haproxy_before])
async def test_two_hosts_behind_a_load_balancer(
    folder: Path, before: Callable[[list[str], Path], AbstractContextManager[str]]
) -> None:
    """Two programs of two workers each, a Redis and its user as on the page, and a client of each transport."""
    options = [word for line in block("conf", "redis").splitlines() for word in redis_option(line)]
    with ExitStack() as stack:
        redis = stack.enter_context(RedisServer(folder, *options))
        url = redis.url.replace("redis://", "redis://app:change-me@")
        addresses = []
        for name in ("one", "two"):
            environment = {"APP_BACKPLANE": url, "APP_SECRET": "not known outside", "APP_HOST": "127.0.0.1"}
            if name == "two":
                environment["APP_HOST"] = "127.0.0.2"  # its workers' ports are the same
            addresses.append(stack.enter_context(application(folder, name, **environment))[1])
        for address in addresses:
            await serves(address)
        balancer = stack.enter_context(before(addresses, folder))
        await serves(balancer)
        async with AsyncExitStack() as members:
            wires = {
                transport: await members.enter_async_context(member(f"http://{balancer}", transport))
                for transport in SOCKJS
            }
            await hear_each_other(wires.values())
            for transport, wire in wires.items():
                await wire.call("say", "red", transport)
            for wire in wires.values():
                said: list[str] = []
                while len(said) < len(wires):
                    (text,) = await wire.wait("said")
                    said += [text] if not text.startswith("hello") else []
                assert sorted(said) == sorted(SOCKJS)


async def test_redis_keeps_from_the_nodes_what_is_too_long(folder: Path) -> None:
    """A client reads a message whole before it can drop it; as on the page, Redis itself takes none that long."""
    most = DEFAULT_LIMITS.backplane_max_message_bytes
    options = [word for line in block("conf", "redis").splitlines() for word in redis_option(line)]
    with RedisServer(folder, *options) as redis:
        url = redis.url.replace("redis://", "redis://app:change-me@")
        sender, taker = RedisBackplane(url), RedisBackplane(url)
        taken: asyncio.Queue[int] = asyncio.Queue()
        taker.subscribe("room")
        try:
            await taker.start("taker000", lambda channel, data: taken.put_nowait(len(data)))
            await sender.start("sender00", lambda channel, data: None)
            assert await sender.deliver("room", bytes(most)) == 1
            assert await taken.get() == most
            reader, writer = await asyncio.open_connection("127.0.0.1", redis.port)
            writer.write(b"AUTH app change-me\r\n*3\r\n$7\r\nPUBLISH\r\n$13\r\npolysock:room\r\n$%d\r\n" % (most + 1))
            answer = await asyncio.wait_for(reader.read(), WAIT_S)
            assert answer == b"+OK\r\n-ERR Protocol error: invalid bulk length\r\n"
            writer.close()
            assert await sender.deliver("room", b"last") == 1
            assert await taken.get() == 4
            assert taker.counters == {"received": 2}
        finally:
            await sender.stop()
            await taker.stop()


def redis_option(line: str) -> list[str]:
    """A line of redis.conf as words of a command line."""
    if not line or line.startswith("#"):
        return []
    name, *values = [word.strip('"') for word in line.split(" ")]
    return [f"--{name}", *values]


async def test_a_large_body_passes_nginx(folder: Path) -> None:
    """As large as the server itself allows."""
    with application(folder) as (_, address), nginx_before([address, address], folder) as balancer:
        await serves(address)
        async with member(f"http://{balancer}", "xhr") as wire:
            text = "x" * 999_000
            await wire.send(f'2["say","red","{text}"]', '2["say","red","more"]')
            assert await wire.wait("said") == (text,)


async def test_a_reload_replaces_the_workers_and_a_stop_ends_them(folder: Path) -> None:
    with application(folder) as (program, address):
        await serves(address)
        async with member(f"http://{address}", "websocket") as before:
            program.send(signal.SIGHUP)
            assert (await before.ended())[0] == 1001
            # Whoever comes before that may come to the next one that is replaced.
            await until(lambda: "all workers were restarted" in program.written())
            # The port was never closed.
            async with member(f"http://{address}", "websocket") as after:
                await after.call("say", "red", "still here")
                assert await after.wait("said") == ("still here",)
                program.send(signal.SIGTERM)
                assert (await after.ended())[0] == 1001
        await until(lambda: program.code() is not None)
        assert program.code() == 0
        assert "Traceback" not in program.written()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", int(address.partition(":")[2])))
