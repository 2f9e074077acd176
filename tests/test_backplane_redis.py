"""RedisBackplane: what only it has.  Addresses and secrets; a Redis that is silent, refuses or babbles; bounds."""

from __future__ import annotations

import asyncio
import logging
import re
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from polysock.backplane import BackplaneDown
from polysock.backplane_redis import RedisBackplane
from polysock.settings import SettingError
from polysock_transports.limits import Limits
from support.backplanes import Node, RedisNet
from support.clients import Quiet, quiet, turns, until  # noqa: F401  # autouse: nothing here logs unannounced
from support.clock import FakeClock
from support.needs import need_program
from support.proxies import Link, Proxy
from support.redis_server import RedisServer

EDGES_OF_LIMITS = ("backplane_ping_s", "backplane_timeout_s", "backplane_retry_s")

SECRET = "s%c ret/&?"
IN_URL = "s%25c%20ret%2F%26%3F"
LONG_S = 60


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """With a password, and users who may do less."""
    channels = "&mine:*", "+publish", "+subscribe", "+unsubscribe", "+ping"
    users = ("small", "on", ">small", "-@all", *channels), ("deaf", "on", ">deaf", "-@all", "&mine:*", "+publish")
    options = [part for user in users for part in ("--user", *user)]
    with RedisServer(tmp_path_factory.mktemp("guarded"), "--requirepass", SECRET, *options) as server:
        yield server


@pytest.fixture
async def net(server: RedisServer) -> AsyncIterator[RedisNet]:
    net = RedisNet(server)
    yield net
    await net.close()


def redis(node: Node) -> RedisBackplane:
    assert isinstance(node.backplane, RedisBackplane)
    return node.backplane


async def starts(url: str, **more: Any) -> RedisBackplane:
    backplane = RedisBackplane(url, **more)
    await backplane.start("node0000", lambda channel, data: None)
    return backplane


# -- the address


def test_what_an_address_says() -> None:
    for url, shown in {
        "redis://": "redis://localhost:6379",
        "redis://host": "redis://host:6379",
        "rediss://host:1/5?ssl_ca_certs=/ca.pem&ssl_check_hostname=false": "rediss://host:1",
        "redis://[::1]:7000": "redis://[::1]:7000",
        f"redis://me:{IN_URL}@host?db=3": "redis://host:6379",
    }.items():
        assert repr(RedisBackplane(url)) == f"<RedisBackplane {shown} prefix='polysock:'>"


def test_prefixes() -> None:
    assert RedisBackplane("redis://h?prefix=a%2Fb:").prefix == b"a/b:"
    assert RedisBackplane("redis://h?prefix=a", prefix="b").prefix == b"b"
    assert RedisBackplane("redis://h?prefix=").prefix == b""
    for wrong in ("a b", "ä", "x" * 201, "\n"):
        with pytest.raises(SettingError, match="prefix must be at most 200 printable ASCII"):
            RedisBackplane("redis://h", prefix=wrong)


@pytest.mark.parametrize(
    "url",
    [
        f"redis://u:{IN_URL}@host:port",
        f"redis://u:{IN_URL}@host:99999",
        f"redis://u:{IN_URL}@[host",
        f"redis://u:{IN_URL}@host?decode_responses=1",
        f"redis://u:{IN_URL}@host?ssl_nonsense=1",
        f"http://u:{IN_URL}@host",
        f"redis://u:{IN_URL}@host?db=five",
    ],
)
def test_an_address_that_is_none_is_refused_without_its_secret(url: str) -> None:
    with pytest.raises(SettingError) as raised:
        RedisBackplane(url)
    shown = f"{raised.value!r} {raised.value.__cause__!r}"
    assert not any(part in shown for part in (SECRET, IN_URL, "s%c"))
    assert raised.value.__suppress_context__ or raised.value.__context__ is None


# -- who is let in


@pytest.mark.parametrize(
    "user", [f":{IN_URL}@", f"default:{IN_URL}@", "small:small@"], ids=["password", "user", "user with few rights"]
)
async def test_passwords_and_users(guarded: RedisServer, user: str) -> None:
    url = guarded.url.replace("//", f"//{user}") + "?prefix=mine:"
    first, second = await starts(url), await starts(url)
    second.subscribe("room")
    await second.settled()
    assert await first.deliver("room", b"") == 1
    await first.stop()
    await second.stop()


async def test_a_password_in_the_query_of_an_address(guarded: RedisServer) -> None:
    backplane = await starts(f"{guarded.url}?password={IN_URL}")
    await backplane.stop()


@pytest.mark.parametrize(
    ("user", "prefix", "said"),
    [
        pytest.param("", "mine:", "Authentication required", id="no password"),
        pytest.param(":wrong-one@", "mine:", "invalid username-password pair", id="wrong password"),
        pytest.param("small:small@", "yours:", "[Nn]o permission|can't access", id="another prefix"),
        pytest.param("deaf:deaf@", "mine:", "no permissions", id="may not listen"),
    ],
)
async def test_who_is_not_let_in_is_told_why(guarded: RedisServer, user: str, prefix: str, said: str) -> None:
    with pytest.raises(BackplaneDown, match=rf"^{guarded.url}: .*(?:{said})") as raised:
        await starts(guarded.url.replace("//", f"//{user}"), prefix=prefix)
    assert "wrong-one" not in str(raised.value)
    assert "Traceback" not in str(raised.value)


async def test_secrets_that_a_server_repeats_are_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    """As Redis does where it knows no AUTH: "unknown command 'AUTH', with args beginning with: 'secret'"."""

    async def repeat(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said = await reader.read(1000)
        writer.write(b"-ERR unknown command 'AUTH', with args beginning with: " + said.split(b"\r\n")[-2] + b"\r\n")
        writer.close()

    caplog.set_level(logging.DEBUG)
    async with babbling(repeat) as url:
        with pytest.raises(BackplaneDown, match="with args beginning with") as raised:
            await starts(url.replace("//", f"//:{IN_URL}@"))
    assert SECRET not in f"{raised.value!r} {raised.value.__cause__!r} {raised.value.__context__!r}"
    assert SECRET not in caplog.text


async def test_the_password_is_nowhere_in_an_outage(
    guarded: RedisServer,
    quiet: Quiet,  # noqa: F811
    caplog: pytest.LogCaptureFixture,
) -> None:
    quiet.expect(f"the backplane {guarded.url} is down: ")
    quiet.expect(f"the backplane {guarded.url} is back")
    caplog.set_level(logging.DEBUG)
    net = RedisNet(guarded)
    net.url = guarded.url.replace("//", f"//:{IN_URL}@")
    node = await net.node().start()
    await net.cut()
    await net.mend()
    await net.close()
    assert node.changes == [False, True]
    assert not any(part in caplog.text + repr(node.backplane) for part in (SECRET, IN_URL))


async def test_tls(tmp_path: Path) -> None:
    openssl = need_program("openssl", how="apt-get install openssl")
    names = ("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2", "-nodes")
    files = ("-keyout", "key.pem", "-out", "cert.pem")
    command = (openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", *files, *names)
    making = await asyncio.create_subprocess_exec(*command, cwd=tmp_path, stderr=subprocess.DEVNULL)
    assert await making.wait() == 0
    options = ("--tls-cert-file", "cert.pem", "--tls-key-file", "key.pem", "--tls-auth-clients", "no")
    with RedisServer(tmp_path, *options, tls=True) as server:
        assert server.url.startswith("rediss://")
        with pytest.raises(BackplaneDown, match=r"(?i)certificate"):
            await starts(server.url)
        url = f"{server.url}?ssl_ca_certs={tmp_path / 'cert.pem'}"
        first, second = await starts(url), await starts(url)
        second.subscribe("room")
        await second.settled()
        assert await first.deliver("room", bytes(1_000_000)) == 1
        await first.stop()
        await second.stop()


# -- what is on the wire


async def test_prefixes_keep_applications_apart(net: RedisNet) -> None:
    first, second = await net.node().start(), await net.node().start("room")
    other = await net.node(prefix="other:").start("room")
    assert await first.backplane.deliver("room", b"1") == 1
    assert await other.backplane.deliver("room", b"2") == 0
    assert await second.has(1) == [("room", b"1")]
    assert net.server.ask("PUBLISH", f"{net.prefix}room", "by hand") == b":1\r\n"
    assert await second.has(2) == [("room", b"1"), ("room", b"by hand")]
    # That is its own.
    assert await other.has(1) == [("room", b"2")]


async def test_rooms_come_and_go_in_few_commands(net: RedisNet) -> None:
    node = await net.node().start()
    net.server.ask("CONFIG", "RESETSTAT")
    rooms = [f"room:{number}" for number in range(5_000)]
    await node.join(*rooms)
    await node.leave(*rooms)
    stats = net.server.ask("INFO", "commandstats").decode()
    calls = dict(re.findall(r"cmdstat_(\w+):calls=(\d+)", stats))
    assert (calls["subscribe"], calls["unsubscribe"]) == ("5", "5")
    assert net.server.ask("PUBSUB", "CHANNELS", f"{net.prefix}room*") == b"*0\r\n"


async def test_everything_is_subscribed_to_anew_in_few_commands(net: RedisNet, quiet: Quiet) -> None:  # noqa: F811
    quiet.expect("is down")
    quiet.expect("is back")
    rooms = [f"room:{number}" for number in range(5_000)]
    sender, taker = await net.node().start(), await net.node().start(*rooms)
    await net.cut()
    await net.mend()
    for room in rooms:
        sender.backplane.publish(room, b"")
    assert [channel for channel, _ in await taker.has(5_000)] == rooms


async def test_what_is_longer_than_a_node_may_send_is_not_handed_on(net: RedisNet) -> None:
    net.limits = Limits(backplane_max_message_bytes=10)
    first, second = await net.node().start(), await net.node().start("room")
    net.server.ask("PUBLISH", f"{net.prefix}room", "x" * 11)
    assert await first.backplane.deliver("room", b"x" * 10) == 1
    with pytest.raises(BackplaneDown, match="too long"):
        await first.backplane.deliver("room", b"x" * 11)
    assert await second.has(1) == [("room", b"x" * 10)]
    assert second.backplane.counters["oversized"] == 1
    assert first.backplane.counters["dropped"] == 1


async def test_nothing_of_ours_is_left_at_redis(net: RedisNet) -> None:
    before = net.server.ask("CLIENT", "LIST").count(b"\n")
    node = await net.node().start("room")
    assert net.server.ask("CLIENT", "LIST").count(b"\n") == before + 2
    await node.backplane.stop()
    await until(lambda: net.server.ask("CLIENT", "LIST").count(b"\n") == before)
    assert net.clock.timers == 0
    assert len(asyncio.all_tasks()) == 1
    assert net.server.ask("DBSIZE") == b":0\r\n"


# -- a Redis that is there and does not answer


class SilentProxy(Proxy):
    """A network that is cut without a word: what is sent while it is ``silent`` goes nowhere, and nothing ends."""

    silent = False

    async def passing(self, link: Link, data: bytes) -> None:
        while self.silent:  # noqa: ASYNC110  # the test's own switch
            await asyncio.sleep(0.001)


@pytest.fixture
async def network(net: RedisNet) -> AsyncIterator[SilentProxy]:
    proxy = SilentProxy(net.server.port)
    await proxy.start()
    net.url = f"redis://127.0.0.1:{proxy.port}"
    yield proxy
    proxy.silent = False
    await net.close()
    await proxy.stop()


async def test_a_connection_that_is_dead_is_noticed(net: RedisNet, network: SilentProxy, quiet: Quiet) -> None:  # noqa: F811
    """``backplane_ping_s`` and ``backplane_timeout_s``."""
    quiet.expect("is down: Redis did not answer within 5 seconds")
    quiet.expect("is back")
    node = await net.node().start("room")
    # As long as it answers, it stays.
    session = redis(node)._session
    assert session is not None
    rest = net.limits.backplane_ping_s - net.limits.backplane_timeout_s
    net.clock.advance(net.limits.backplane_timeout_s)
    for _ in range(5):
        heard = list(session._heard)
        net.clock.advance(rest)
        # An answer on one connection; a PING's and the message to itself on the other.
        await until(lambda heard=heard: session._heard == [heard[0] + 2, heard[1] + 1])
        net.clock.advance(net.limits.backplane_timeout_s)
        await turns()
    assert node.backplane.counters["received"] == 0
    assert node.changes == []

    network.silent = True
    net.clock.advance(rest)
    await turns()
    waiting = asyncio.ensure_future(node.backplane.deliver("room", b"lost"))
    await turns()
    net.clock.advance(net.limits.backplane_timeout_s - 0.01)
    await turns()
    assert node.backplane.is_up
    net.clock.advance(0.02)
    await until(lambda: not node.backplane.is_up)
    assert node.changes == [False]
    with pytest.raises(BackplaneDown):
        await waiting
    assert node.backplane.counters["unconfirmed"] > 0

    # Nor does it wait without end for one that takes connections and says nothing.
    for _ in range(3):
        net.clock.advance(net.limits.backplane_retry_s)
        await turns(50)
        net.clock.advance(net.limits.backplane_timeout_s)
        await turns(50)
    assert not node.backplane.is_up
    network.silent = False

    async def back() -> None:
        while not node.backplane.is_up:
            # Slowly while it tries: Redis is another process, and a busy machine lets it wait.
            net.clock.advance(0.5 if redis(node)._session is None else 0.01)
            await asyncio.sleep(0.001)

    await asyncio.wait_for(back(), LONG_S)
    assert node.changes == [False, True]
    other = await net.node().start()
    assert await other.backplane.deliver("room", b"here") == 1
    assert await node.has(1) == [("room", b"here")]


class Sleepy(FakeClock):
    """That of a process which is held up: what is due then comes late, and before anything is read."""

    def sleep(self, seconds: float) -> None:
        self._now += seconds
        self.advance(0)


async def test_a_process_that_was_held_up_reads_what_redis_has_answered(net: RedisNet) -> None:
    net.clock = clock = Sleepy()
    node = await net.node().start("room")
    session = redis(node)._session
    assert session is not None
    heard = list(session._heard)
    clock.advance(net.limits.backplane_ping_s)  # it asks
    clock.sleep(net.limits.backplane_timeout_s)
    await until(lambda: session._heard == [heard[0] + 2, heard[1] + 1])
    clock.advance(net.limits.backplane_timeout_s / 2)
    await turns()
    assert node.changes == []


async def test_what_waits_for_a_slow_redis_is_bounded(net: RedisNet, quiet: Quiet) -> None:  # noqa: F811
    """``backplane_queue_bytes``: of what the kernel does not take, and the rest is dropped and counted."""
    quiet.expect("is down: Redis did not answer")
    limits = net.limits = Limits(backplane_queue_bytes=1_000_000)
    node = await net.node().start()
    net.server.pause()
    try:
        session = redis(node)._session
        assert session is not None
        for _ in range(3_000):
            node.backplane.publish("room", bytes(10_000))
            await turns(1)
            assert session._waiting_bytes <= limits.backplane_queue_bytes
        assert node.backplane.counters["dropped"] > 1_000
        with pytest.raises(BackplaneDown, match="too slow"):
            await node.backplane.deliver("room", bytes(10_000))
        # What it asked for is not answered.
        net.clock.advance(limits.backplane_ping_s)
        net.clock.advance(limits.backplane_timeout_s)
        await until(lambda: not node.backplane.is_up)
        counters = node.backplane.counters
        await until(lambda: not session._queue and not session._in_flight)
        assert counters["dropped"] + counters["unconfirmed"] >= 3_001
        await node.backplane.stop()
    finally:
        net.server.resume()


@pytest.mark.parametrize(
    ("limits", "size"),
    [(Limits(backplane_queue_messages=10), 1), (Limits(backplane_queue_bytes=1_000), 96)],
    ids=["messages", "bytes"],
)
async def test_the_edge_of_the_queue(net: RedisNet, limits: Limits, size: int) -> None:
    net.limits = limits
    node, taker = await net.node().start(), await net.node().start("room")
    for _ in range(15):
        node.backplane.publish("room", bytes(size))
    assert {name: node.backplane.counters[name] for name in ("published", "dropped")} == {"published": 10, "dropped": 5}
    assert len(await taker.has(10)) == 10
    assert await node.backplane.deliver("room", b"") == 1


async def test_more_in_one_turn_than_redis_is_sent_at_once(net: RedisNet) -> None:
    node, taker = await net.node().start(), await net.node().start("room")
    for number in range(30_000):
        node.backplane.publish("room", b"%d" % number)
    assert await taker.has(30_000) == [("room", b"%d" % number) for number in range(30_000)]


async def test_stop_does_not_wait_without_end(net: RedisNet) -> None:
    """``backplane_timeout_s``."""
    node = await net.node().start()
    net.server.pause()
    try:
        node.backplane.publish("room", b"")
        stopping = asyncio.ensure_future(node.backplane.stop())
        await turns()
        assert not stopping.done()
        net.clock.advance(net.limits.backplane_timeout_s)
        await asyncio.wait_for(stopping, LONG_S)
    finally:
        net.server.resume()


async def test_a_stop_that_is_cancelled_leaves_nothing(net: RedisNet) -> None:
    node = await net.node().start()
    net.server.pause()
    try:
        node.backplane.publish("room", b"")
        stopping = asyncio.ensure_future(node.backplane.stop())
        await turns()
        stopping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stopping
        assert net.clock.timers == 0
        assert len(asyncio.all_tasks()) == 1
    finally:
        net.server.resume()


# -- tries


async def test_a_redis_that_takes_everybody_in_and_throws_them_out_is_tried_ever_later(
    net: RedisNet,
    quiet: Quiet,  # noqa: F811
) -> None:
    """As one does whose ``client-output-buffer-limit`` is too small for what is said."""
    quiet.expect("is down")
    quiet.expect("is back")
    net.limits = Limits(backplane_retry_s=1.0)
    node = await net.node(chance=lambda: 1.0).start()

    async def thrown_out(*, wait: float) -> None:
        session = redis(node)._session
        assert session is not None
        session._listening._writer.transport.abort()
        await until(lambda: redis(node)._session is None and net.clock.timers == 1)
        net.clock.advance(wait - 0.001)
        await turns()
        assert redis(node)._session is None
        net.clock.advance(0.002)
        await until(lambda: node.backplane.is_up)

    for wait in (0.1, 0.2, 0.4, 0.8, 1.0):
        await thrown_out(wait=wait)
    net.clock.advance(1.0)  # it lasted for once
    for wait in (0.1, 0.2):
        await thrown_out(wait=wait)


async def test_tries_come_ever_later_and_are_spread_by_chance(net: RedisNet, quiet: Quiet) -> None:  # noqa: F811
    """``backplane_retry_s``."""
    quiet.expect("is down")
    net.limits = Limits(backplane_retry_s=1.0)
    spread = iter((0.5, 1.0, 0.25, 1.0, 1.0, 1.0))
    node = await net.node(chance=lambda: next(spread)).start()
    net.server.stop()
    try:
        await until(lambda: not node.backplane.is_up)
        for wait in (0.05, 0.2, 0.1, 0.8, 1.0):
            await until(lambda: redis(node)._session is None and net.clock.timers == 1)
            net.clock.advance(wait - 0.001)
            await turns()
            assert redis(node)._session is None
            net.clock.advance(0.002)
            await until(lambda: redis(node)._session is not None)
        await node.backplane.stop()
    finally:
        net.server.start()
    # One line for all of it.
    assert node.changes == [False]


async def test_a_start_that_is_cancelled_or_stopped_leaves_nothing(net: RedisNet, network: SilentProxy) -> None:
    network.silent = True
    node = net.node()
    starting = asyncio.ensure_future(node.start())
    await turns()
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    starting = asyncio.ensure_future(node.start())
    await turns()
    await node.backplane.stop()
    with pytest.raises(BackplaneDown, match="stopped while it was starting"):
        await starting
    assert not node.backplane.is_up
    assert net.clock.timers == 0


# -- a Redis that is none


@asynccontextmanager
async def babbling(serve: Any) -> AsyncIterator[str]:
    async def quietly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await serve(reader, writer)
        writer.close()

    server = await asyncio.start_server(quietly, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"$-5\r\n",
        b"$999999999999999999999999\r\nx\r\n",
        b"*x\r\n",
        b"*1\r\n" * 5_000,
        b":" + b"9" * 5_000 + b"\r\n",
        b"+OK\r\n" * 100,
        b"-LOADING Redis is loading the dataset in memory\r\n",
        b"\xff\x00" * 5_000 + b"\r\n",
    ],
    ids=["nothing", "HTTP", "negative", "huge", "no number", "nested", "digits", "yes", "loading", "noise"],
)
async def test_answers_of_no_redis(answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(answer)
        await writer.drain()

    async with babbling(serve) as url:
        with pytest.raises(BackplaneDown, match=url):
            await starts(url)


async def test_one_that_goes_mad_later_is_an_outage(net: RedisNet, quiet: Quiet) -> None:  # noqa: F811
    quiet.expect("is down: it answers what it was not asked")

    class Mad(Proxy):
        async def deliver(self, link: Link, data: bytes) -> None:
            await super().deliver(link, b"+mad\r\n" if b"later" in data else data)

    proxy = Mad(net.server.port)
    await proxy.start()
    net.url = f"redis://127.0.0.1:{proxy.port}"
    node = await net.node().start("room")
    assert await node.backplane.deliver("room", b"now") == 0
    node.backplane.publish("room", b"later")
    await until(lambda: node.changes == [False])
    await net.close()
    await proxy.stop()


async def test_messages_that_are_refused_later(guarded: RedisServer, quiet: Quiet) -> None:  # noqa: F811
    quiet.expect("refuses messages: ")
    ask = RedisBackplane(guarded.url.replace("//", f"//:{IN_URL}@"))
    connection = ask._connection()
    await connection.connect()

    async def tell(*words: str) -> None:
        await connection.send_command(*words)
        await connection.read_response()

    await tell("ACL", "SETUSER", "late", "on", ">late", "-@all", "+publish", "+subscribe", "+ping", "&*")
    node = await starts(guarded.url.replace("//", "//late:late@"))
    assert await node.deliver("room", b"") == 0
    await tell("ACL", "SETUSER", "late", "-publish")
    for _ in range(3):
        with pytest.raises(BackplaneDown, match=r"(?i)no permission"):
            await node.deliver("room", b"")
    node.publish("room", b"")
    await until(lambda: node.counters["refused"] == 4)
    await node.stop()
    await connection.disconnect()
