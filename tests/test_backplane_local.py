"""LocalBackplane: what only it has.  Its folder, processes that are stopped and killed, strangers, and its bounds."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import signal
import socket
import subprocess
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from itertools import pairwise
from pathlib import Path

import pytest

from polysock.backplane import BackplaneDown
from polysock.backplane_local import LocalBackplane
from polysock.meshframes import channel_frames, hello_frame, message_frame, sync_frame, synced_frame
from polysock.settings import SettingError
from polysock.socketfolder import Gone, SocketFolder
from polysock_transports.limits import Limits
from support.backplanes import LocalNet, Node
from support.clients import Quiet, quiet, turns, until  # noqa: F401  # autouse: nothing here logs unannounced

EDGES_OF_LIMITS = (
    "backplane_max_message_bytes",
    "backplane_queue_bytes",
    "backplane_queue_messages",
    "max_backplane_nodes",
    "max_backplane_channels",
    "max_backplane_channel_bytes",
    "backplane_timeout_s",
    "backplane_retry_s",
)

PROGRAM = Path(__file__).parent / "mesh_node.py"
START_S = 60
ROOT = os.geteuid() == 0


@pytest.fixture
async def net(tmp_path: Path) -> AsyncIterator[LocalNet]:
    net = LocalNet(tmp_path / "mesh")
    yield net
    await net.close()


def mesh(node: Node) -> LocalBackplane:
    assert isinstance(node.backplane, LocalBackplane)
    return node.backplane


def sockets(net: LocalNet) -> list[str]:
    return sorted(os.listdir(net.folder))


@asynccontextmanager
async def process(net: LocalNet, name: str, *channels: str) -> AsyncIterator[Process]:
    """A node in a process of its own, killed at the end."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = (sys.executable, str(PROGRAM), str(net.folder), name, *channels)
    node = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, env=env)
    try:
        assert node.stdout is not None
        assert await asyncio.wait_for(node.stdout.readline(), START_S) == b"ready\n"
        yield node
    finally:
        if node.returncode is None:
            node.kill()
        await node.wait()


async def stopped(child: Process) -> None:
    """Stop its process, and wait until it stands."""
    child.send_signal(signal.SIGSTOP)
    stat = Path(f"/proc/{child.pid}/stat")
    await until(lambda: stat.read_text().rpartition(") ")[2].startswith("T"))


class Stranger:
    """Whoever connects to a node's socket and speaks for himself."""

    def __init__(self, net: LocalNet, node: Node) -> None:
        self._path = str(net.folder / f"{node.name}.mesh")

    async def __aenter__(self) -> Stranger:
        self.reader, self._writer = await asyncio.open_unix_connection(self._path)
        return self

    async def __aexit__(self, *error: object) -> None:
        self._writer.transport.abort()
        await turns(3)

    async def say(self, data: bytes) -> None:
        self._writer.write(data)
        with suppress(ConnectionError):
            await self._writer.drain()

    async def is_cut(self) -> bool:
        """Whether the node ends the connection, now or soon."""
        with suppress(ConnectionError):
            await asyncio.wait_for(self.reader.read(), START_S)
        return True


# -- the folder


async def test_the_folder_is_made_for_this_user_alone(net: LocalNet) -> None:
    old = os.umask(0)
    try:
        node = await net.node().start()
    finally:
        os.umask(old)
    assert net.folder.stat().st_mode & 0o777 == 0o700
    assert sockets(net) == ["node0000.mesh"]
    await node.backplane.stop()
    assert sockets(net) == []


async def test_a_folder_that_others_may_enter_is_refused(net: LocalNet) -> None:
    for mode in (0o750, 0o701, 0o777):
        net.folder.mkdir(exist_ok=True)
        net.folder.chmod(mode)
        with pytest.raises(SettingError, match=rf"open to other users \(mode {mode:o}\): chmod 700"):
            await net.node().start()
        assert sockets(net) == []


async def test_a_folder_of_somebody_else_is_refused(net: LocalNet, monkeypatch: pytest.MonkeyPatch) -> None:
    net.folder.mkdir(mode=0o700)
    monkeypatch.setattr(os, "geteuid", lambda: net.folder.stat().st_uid + 1)
    with pytest.raises(SettingError, match="belongs to another user"):
        await net.node().start()


@pytest.mark.skipif(not ROOT, reason="only root gives files away")
async def test_a_link_of_somebody_else_is_refused(net: LocalNet, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    net.folder.symlink_to(tmp_path / "real")
    os.chown(net.folder, 12345, 12345, follow_symlinks=False)
    with pytest.raises(SettingError, match="belongs to another user"):
        await net.node().start()


async def test_what_can_be_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "no" / "parent"):
        with pytest.raises(SettingError, match=r"is not a folder|cannot be a folder for sockets: No such file"):
            await LocalBackplane(folder).start("node0000", lambda channel, data: None)


async def test_a_folder_that_it_is_not_to_make(net: LocalNet) -> None:
    reader = LocalBackplane(net.folder, makes_folder=False)
    with pytest.raises(BackplaneDown, match="does not exist: is a server running"):
        await reader.start("reader00", lambda channel, data: None)
    assert not net.folder.exists()
    net.folder.mkdir()
    net.folder.chmod(0o755)
    with pytest.raises(SettingError, match="open to other users"):
        await reader.start("reader00", lambda channel, data: None)


def test_a_path_that_is_too_long_for_sockets_is_refused_at_once(tmp_path: Path) -> None:
    base = len(os.fsencode(tmp_path))
    # What stands behind the folder while a socket is bound: /.12345678.mesh.new
    longest = 107 - len("/.12345678.mesh.new") - base - 1
    LocalBackplane(tmp_path / ("x" * longest))
    with pytest.raises(SettingError, match=r"would be 108 bytes, and 107 is the most .* /run or /tmp is shorter"):
        LocalBackplane(tmp_path / ("x" * (longest + 1)))


async def test_the_longest_path_works(tmp_path: Path) -> None:
    longest = 107 - len("/.12345678.mesh.new") - len(os.fsencode(tmp_path)) - 1
    node = LocalBackplane(tmp_path / ("x" * longest))
    await node.start("12345678", lambda channel, data: None)
    await node.stop()
    with pytest.raises(SettingError, match="too long"):
        await node.start("123456789", lambda channel, data: None)
    assert not node.is_up


async def test_names_that_are_taken_or_are_none(net: LocalNet) -> None:
    await net.node().start()
    second = LocalBackplane(net.folder, clock=net.clock)
    with pytest.raises(SettingError, match=r"somebody listens at .*node0000\.mesh already"):
        await second.start("node0000", lambda channel, data: None)
    for wrong in ("", "a/b", "..", "a b", "ä", "x" * 65):
        with pytest.raises(ValueError, match="a node's id is letters"):
            await second.start(wrong, lambda channel, data: None)
    assert sockets(net) == ["node0000.mesh"]


async def test_what_dead_processes_left_is_removed_and_nothing_else(net: LocalNet) -> None:
    net.folder.mkdir(mode=0o700)
    for name in ("dead0000.mesh", ".dead0001.mesh.new", "other.sock"):
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(net.folder / name))
    (net.folder / "file0000.mesh").touch()
    os.utime(net.folder / ".dead0001.mesh.new", (0, 0))
    with socket.socket(socket.AF_UNIX) as young:
        young.bind(str(net.folder / ".young001.mesh.new"))
    node = await net.node().start()
    assert sockets(net) == [".young001.mesh.new", "file0000.mesh", "node0000.mesh", "other.sock"]
    assert mesh(node).nodes == node.lost == []


def test_a_socket_that_was_taken_over_meanwhile_is_not_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = SocketFolder(tmp_path, ".mesh", name_chars=8)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(folder.path("a")))
    before = folder.path("a").lstat()
    with folder.listen("b") as living:
        folder.path("a").unlink()
        folder.path("b").rename(folder.path("a"))
        # The look at it before the call saw the dead one, and the call is refused as if that had still been there.
        looks = iter([before])
        real = Path.lstat
        monkeypatch.setattr(Path, "lstat", lambda path: next(looks, None) or real(path))
        living.close()
        with pytest.raises(Gone):
            folder.connect("a")
    assert folder.path("a").is_socket()


# -- who is there


async def test_everybody_knows_everybody(net: LocalNet) -> None:
    nodes = [net.node() for _ in range(12)]
    await asyncio.gather(*(node.start() for node in nodes))
    for node in nodes:
        await until(lambda node=node: len(mesh(node).nodes) == 11)
        assert mesh(node).nodes == [other.name for other in nodes if other is not node]
    # One connection for each pair.
    assert sum(len(mesh(node)._strangers) for node in nodes) == 0


async def test_a_node_that_stops_is_missed_at_once(net: LocalNet) -> None:
    first, second = await net.node().start(), await net.node().start()
    await second.backplane.stop()
    await until(lambda: first.lost)
    assert (first.lost, mesh(first).nodes, second.lost) == (["node0001"], [], [])


async def test_a_process_that_is_killed_is_missed_at_once_and_its_socket_removed(net: LocalNet) -> None:
    first, second = await net.node().start("count"), await net.node().start()
    async with process(net, "child000", "room") as child:
        assert await first.backplane.deliver("room", b"") == 1
        child.kill()
        await child.wait()
        # The clock stands still: nothing here waits for a time-out.
        await until(lambda: first.lost and second.lost)
    assert first.lost == second.lost == ["child000"]
    assert sockets(net) == ["node0000.mesh", "node0001.mesh"]
    assert await first.backplane.deliver("room", b"") == 0


async def test_a_process_that_loses_its_connection_before_its_socket_is_missed_at_once(net: LocalNet) -> None:
    """In which order the kernel closes what a dead process had open is its own affair."""
    net.folder.mkdir(mode=0o700)
    folder = SocketFolder(net.folder, ".mesh", name_chars=8)
    with folder.listen("dying000") as listener:
        node = net.node()
        starting = asyncio.ensure_future(node.start())
        caller, _ = await asyncio.get_running_loop().sock_accept(listener)
        with caller:
            caller.sendall(hello_frame("dying000") + b"".join(channel_frames([], anew=True)) + synced_frame(0))
            await starting
        await until(lambda: not mesh(node).nodes)
        await turns()
        assert node.lost == []
    await until(lambda: node.lost)
    assert sockets(net) == ["node0000.mesh"]


async def test_a_connection_that_breaks_is_made_again(net: LocalNet) -> None:
    first, second = await net.node().start("room"), await net.node().start("room")
    mesh(first)._links["node0001"].cut()
    await until(lambda: not mesh(first).nodes and not mesh(second).nodes)
    assert await second.backplane.deliver("room", b"lost") == 0
    while not (mesh(first).nodes and mesh(second).nodes):
        # In steps: what the one has connected by then must not wait for the greeting too long at the other.
        net.clock.advance(0.1)
        await turns()
    for node in (first, second):
        await node.backplane.settled()
    assert await second.backplane.deliver("room", b"1") == 1
    assert await first.backplane.deliver("room", b"2") == 1
    assert (await first.has(1), await second.has(1)) == ([("room", b"1")], [("room", b"2")])
    assert first.lost == second.lost == []


async def test_what_is_wanted_is_told_to_a_node_that_connects_in_the_same_turn(net: LocalNet) -> None:
    first, second = await net.node().start("room"), await net.node().start()
    # The last member leaves, a node connects, and the first one joins, all before anything leaves.
    first.backplane.unsubscribe("room")
    first.backplane.subscribe("hall")
    mesh(first)._links["node0001"].renew()
    first.backplane.subscribe("room")
    first.backplane.unsubscribe("hall")
    await first.backplane.settled()
    assert await second.backplane.deliver("room", b"") == 1
    assert await second.backplane.deliver("hall", b"") == 0


async def test_tries_come_ever_later_and_are_spread_by_chance(net: LocalNet) -> None:
    """``backplane_retry_s``, of a node that takes connections and never greets, as a stopped one."""
    net.folder.mkdir(mode=0o700)
    folder = SocketFolder(net.folder, ".mesh", name_chars=8)
    net.limits = Limits(backplane_retry_s=1.0, backplane_timeout_s=2.0)
    calls: list[float] = []
    with folder.listen("silent00") as silent:
        node = net.node(chance=lambda: 0.5)
        starting = asyncio.ensure_future(node.start())
        for _ in range(8):
            await until(lambda: net.clock.timers)
            caller = await asyncio.get_running_loop().sock_accept(silent)
            calls.append(net.clock.now())
            net.clock.advance(2.0)  # it has not greeted in time
            await until(lambda: not mesh(node)._strangers)
            caller[0].close()
            while net.clock.timers and not mesh(node)._strangers:
                net.clock.advance(0.005)
            await turns(2)
        await starting
        waits = [round(later - earlier - 2.0, 2) for earlier, later in pairwise(calls)]
        assert waits == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.5, 0.5, 0.5], abs=0.02)
        assert (mesh(node).nodes, node.lost) == ([], [])
        await node.backplane.stop()


async def test_who_greets_and_hangs_up_each_time_is_called_ever_later(net: LocalNet) -> None:
    net.folder.mkdir(mode=0o700)
    net.limits = Limits(backplane_retry_s=1.0)
    with SocketFolder(net.folder, ".mesh", name_chars=8).listen("moody000") as listener:
        loop = asyncio.get_running_loop()

        async def greet() -> socket.socket:
            caller, _ = await loop.sock_accept(listener)
            assert await loop.sock_recv(caller, 1000)  # (a connection is held ready before it is used)
            caller.sendall(hello_frame("moody000") + b"".join(channel_frames([], anew=True)) + synced_frame(0))
            return caller

        node = net.node(chance=lambda: 1.0)
        starting = asyncio.ensure_future(node.start())
        caller = await greet()
        await starting
        waits = []
        for lasted in (0.0, 0.0, 0.0, 0.0, 1.0, 0.0):
            net.clock.advance(lasted)
            caller.close()
            await until(lambda: not mesh(node).nodes)
            lost = net.clock.now()
            greeting = asyncio.ensure_future(greet())
            for _ in range(200):
                if not mesh(node).nodes:
                    net.clock.advance(0.01)
                    await turns(4)
            caller = await greeting
            waits.append(net.clock.now() - lost)
        caller.close()
        assert waits == pytest.approx([0.1, 0.2, 0.4, 0.8, 0.1, 0.2], abs=0.02)
        assert node.lost == []
        await node.backplane.stop()


async def test_a_listener_that_fails_harms_nobody(net: LocalNet, quiet: Quiet) -> None:  # noqa: F811
    quiet.expect("on_node_lost failed")
    first, second = await net.node().start(), await net.node().start()

    def fail(name: str) -> None:
        raise RuntimeError

    first.backplane.on_node_lost = fail
    await second.backplane.stop()
    await until(lambda: not mesh(first).nodes)
    await second.start("room")
    assert await first.backplane.deliver("room", b"") == 1


# -- strangers

HELLO = hello_frame("stranger")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", id="HTTP"),
        pytest.param(bytes(100_000), id="zeros"),
        pytest.param(b"\xff" * 100_000, id="ones"),
        pytest.param(sync_frame(1), id="no greeting"),
        pytest.param(HELLO + b"\xff\xff\xff\xff", id="4 GB"),
        pytest.param(HELLO + message_frame("room", bytes(Limits().backplane_max_message_bytes + 1)), id="long message"),
    ],
)
async def test_bytes_that_are_no_frames_end_the_connection(net: LocalNet, data: bytes, quiet: Quiet) -> None:  # noqa: F811
    quiet.expect("was cut")
    first, second = await net.node().start("room"), await net.node().start("room")
    async with Stranger(net, first) as stranger:
        await stranger.say(data)
        assert await stranger.is_cut()
    assert mesh(first).counters["cut"] == 1
    assert await second.backplane.deliver("room", b"still here") == 1
    assert await first.has(1) == [("room", b"still here")]


@pytest.mark.parametrize("name", ["node0000", "node0001"])
async def test_nobody_takes_a_name_that_is_taken(net: LocalNet, name: str) -> None:
    """Its own name, or that of a node to which it made the connection itself."""
    second = await net.node().start()
    assert second.name == "node0000"
    if name == "node0001":
        net.nodes.append(third := Node(LocalBackplane(net.folder, clock=net.clock), "node0001"))
        await third.start("room")
        net.nodes.append(late := Node(LocalBackplane(net.folder, clock=net.clock), "node0000-late"))
        await late.start()
        second = late
    async with Stranger(net, second) as stranger:
        await stranger.say(hello_frame(name))
        assert await stranger.is_cut()
    assert await second.backplane.deliver("room", b"") == (name == "node0001")


async def test_who_does_not_greet_in_time_is_cut(net: LocalNet) -> None:
    """``backplane_timeout_s``."""
    node = await net.node().start()
    async with Stranger(net, node) as stranger:
        await until(lambda: mesh(node)._strangers and net.clock.timers)
        net.clock.advance(net.limits.backplane_timeout_s - 0.01)
        await turns()
        assert mesh(node)._strangers
        net.clock.advance(0.02)
        assert await stranger.is_cut()
    assert not mesh(node)._strangers


async def test_strangers_are_counted(net: LocalNet) -> None:
    net.limits = Limits(max_backplane_nodes=2)
    node = await net.node().start()
    async with AsyncExitStack() as stack:
        crowd = [await stack.enter_async_context(Stranger(net, node)) for _ in range(10)]
        await until(lambda: len(mesh(node)._strangers) == 3)
        ended = [asyncio.ensure_future(stranger.is_cut()) for stranger in crowd]
        await until(lambda: sum(end.done() for end in ended) == 7)
        assert len(mesh(node)._strangers) == 3
        for end in ended:
            end.cancel()


async def test_who_calls_again_and_again_and_never_reads_leaves_nothing(net: LocalNet) -> None:
    node = await net.node().start()
    async with AsyncExitStack() as stack:
        for _ in range(3):
            stranger = await stack.enter_async_context(Stranger(net, node))
            before = mesh(node)._links.get("stranger")
            await stranger.say(HELLO + b"".join(channel_frames(["room"])))
            await until(
                lambda before=before: (
                    mesh(node)._links.get("stranger") not in (None, before) and mesh(node)._links["stranger"].channels
                )
            )
            if before is not None:
                await until(before.ended.done)
            for _ in range(10):
                node.backplane.publish("room", bytes(100_000))
                await turns(1)
            assert mesh(node)._links["stranger"]._is_slow


async def test_who_connects_in_the_moment_of_the_stop_is_let_go(net: LocalNet) -> None:
    for moment in range(8):
        node = await net.node().start()
        with socket.socket(socket.AF_UNIX) as late:
            late.setblocking(False)
            late.connect(str(net.folder / f"{node.name}.mesh"))
            for _ in range(moment):
                await asyncio.sleep(0)
            await node.backplane.stop()
            with suppress(ConnectionError):
                assert late.recv(1) == b""
        gc.collect()  # what was forgotten warns
        assert not mesh(node)._strangers


async def test_a_node_without_descriptors_takes_who_waits_later(
    net: LocalNet,
    monkeypatch: pytest.MonkeyPatch,
    quiet: Quiet,  # noqa: F811
) -> None:
    quiet.expect("cannot take a connection: Too many open files")
    node = await net.node().start("room")
    looks = 0

    def full(listener: socket.socket) -> tuple[socket.socket, object]:
        nonlocal looks
        looks += 1
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    stranger = Stranger(net, node)
    with monkeypatch.context() as patched:
        patched.setattr(socket.socket, "accept", full)
        await stranger.__aenter__()
        await until(lambda: looks)
        await turns()
        assert looks == 1  # the loop does not come back for it at once
    async with AsyncExitStack() as stack:
        stack.push_async_exit(stranger)
        net.clock.advance(1)
        await stranger.say(HELLO)
        await until(lambda: mesh(node).nodes == ["stranger"])


# -- bounds


async def test_max_backplane_nodes(net: LocalNet, quiet: Quiet) -> None:  # noqa: F811
    quiet.expect("more nodes than max_backplane_nodes")
    first = await net.node().start("all")
    net.limits = Limits(max_backplane_nodes=1)
    second = await net.node().start("all")
    assert mesh(second).nodes == ["node0000"]
    net.limits = Limits()
    third = net.node()
    starting = asyncio.ensure_future(third.start("all"))
    for _ in range(3):
        # The second turns it away each time.
        await until(lambda: mesh(third).nodes == ["node0000"] and not mesh(third)._strangers)
        net.clock.advance(net.limits.backplane_retry_s)
    await starting
    assert mesh(third).nodes == ["node0000"]
    assert await first.backplane.deliver("all", b"") == 2


async def test_max_backplane_nodes_of_a_newcomer(net: LocalNet, quiet: Quiet) -> None:  # noqa: F811
    quiet.expect("more nodes than max_backplane_nodes")
    for _ in range(3):
        await net.node().start("all")
    net.limits = Limits(max_backplane_nodes=2)
    assert len(mesh(await net.node().start("all")).nodes) == 2


async def test_max_backplane_channels(net: LocalNet, quiet: Quiet) -> None:  # noqa: F811
    net.limits = Limits(max_backplane_channels=3)
    node = await net.node().start("count")
    async with Stranger(net, node) as stranger:
        await stranger.say(HELLO + b"".join(channel_frames(["a", "b", "c"])))
        await until(lambda: mesh(node)._links.get("stranger") and len(mesh(node)._links["stranger"].channels) == 3)
        assert await node.backplane.deliver("c", b"") == 1
        quiet.expect("was cut: it wants too many channels")
        await stranger.say(b"".join(channel_frames(["d"])))
        assert await stranger.is_cut()


async def test_max_backplane_channel_bytes(net: LocalNet, quiet: Quiet) -> None:  # noqa: F811
    net.limits = Limits(max_backplane_channel_bytes=10)
    node = await net.node().start("count")
    async with Stranger(net, node) as stranger:

        async def wants(frames: bytes, number: int) -> None:
            """Say them, and wait until they are in force."""
            await stranger.say(frames + sync_frame(number))
            await stranger.reader.readuntil(synced_frame(number))

        await wants(HELLO + b"".join(channel_frames(["aaaa", "bbbbbb"])), 1)
        # What it has already weighs nothing more, and what it leaves nothing at all.
        await wants(b"".join(channel_frames(["bbbbbb", "aaaa", "aaaa"])), 2)
        await wants(b"".join(channel_frames(["aaaa", "aaaa", "unknown"], is_on=False)), 3)
        await wants(b"".join(channel_frames(["cccc"])), 4)
        await wants(b"".join(channel_frames(["dddd", "eeeeee"], anew=True)), 5)
        assert await node.backplane.deliver("eeeeee", b"") == 1
        assert await node.backplane.deliver("cccc", b"") == 0
        quiet.expect("was cut: the names of the channels it wants are too long")
        await stranger.say(b"".join(channel_frames(["f"])))
        assert await stranger.is_cut()


async def test_backplane_max_message_bytes(net: LocalNet) -> None:
    net.limits = Limits(backplane_max_message_bytes=1_000)
    sender, taker = await net.node().start(), await net.node().start("room")
    assert await sender.backplane.deliver("room", bytes(1_000)) == 1
    sender.backplane.publish("room", bytes(1_001))
    with pytest.raises(BackplaneDown, match="1001 bytes is too long"):
        await sender.backplane.deliver("room", bytes(1_001))
    assert sender.backplane.counters["dropped"] == 2
    sender.backplane.publish("room", b"last")
    assert await taker.has(2) == [("room", bytes(1_000)), ("room", b"last")]


@pytest.mark.parametrize(
    ("limits", "size", "fitting"),
    [
        # A frame of this channel has 11 bytes beside its data.
        pytest.param(Limits(backplane_queue_bytes=10_000), 989, 10, id="backplane_queue_bytes"),
        pytest.param(Limits(backplane_queue_messages=10), 5, 10, id="backplane_queue_messages"),
    ],
)
async def test_what_may_wait_for_a_node(net: LocalNet, limits: Limits, size: int, fitting: int) -> None:
    net.limits = limits
    sender, taker, other = await net.node().start(), await net.node().start("room"), await net.node().start("elsewhere")
    # All in one turn of the loop: nothing leaves in between.
    for _ in range(fitting + 5):
        sender.backplane.publish("room", bytes(size))
    sender.backplane.publish("elsewhere", b"")
    assert sender.backplane.counters["dropped"] == 5
    await taker.has(fitting)
    assert await other.has(1) == [("elsewhere", b"")]
    assert await sender.backplane.deliver("room", b"last") == 1
    assert len(await taker.has(fitting + 1)) == fitting + 1


async def test_a_stopped_process_costs_a_fixed_amount_and_comes_back(net: LocalNet) -> None:
    limits = net.limits = Limits(backplane_queue_bytes=1_000_000)
    sender, other = await net.node().start("count"), await net.node().start("room")
    async with process(net, "child000", "room") as child:
        link = mesh(sender)._links["child000"]
        await stopped(child)
        data = bytes(10_000)
        taken = 0
        for _ in range(1_000):
            taken += await sender.backplane.deliver("room", data) - 1
            await turns(1)
            waiting = link._pending_bytes + link.transport.get_write_buffer_size()
            assert waiting <= limits.backplane_queue_bytes
        dropped = sender.backplane.counters["dropped"]
        assert taken + dropped == 1_000
        assert dropped > 800
        # Nor does what it would have to be told of our channels grow without end.
        for number in range(20_000):
            sender.backplane.subscribe(f"gone:{number}")
            await turns(1) if number % 100 == 0 else None
            sender.backplane.unsubscribe(f"gone:{number}")
        sender.backplane.subscribe("new")
        sender.backplane.unsubscribe("count")
        await turns()
        assert link._pending_bytes + link.transport.get_write_buffer_size() <= limits.backplane_queue_bytes
        # The others do not notice.
        assert len(await other.has(1_000)) == 1_000

        child.send_signal(signal.SIGCONT)
        sender.backplane.subscribe("count")
        await until(lambda: not link._is_stale and not link._pending)
        await sender.backplane.settled()
        sender.got.clear()
        assert await sender.backplane.deliver("ask", b"") == 1
        # It has all that it was sent, and knows what we want now.
        assert await sender.has(1) == [("count", b"%d" % taken)]
    assert link.is_greeted


async def test_settled_does_not_wait_for_a_stopped_process_without_end(net: LocalNet) -> None:
    """``backplane_timeout_s``."""
    first, second = await net.node().start(), await net.node().start()
    async with process(net, "child000") as child:
        await stopped(child)
        first.backplane.subscribe("room")
        settling = asyncio.ensure_future(first.backplane.settled())
        await turns()
        net.clock.advance(net.limits.backplane_timeout_s - 0.01)
        await turns()
        assert not settling.done()
        net.clock.advance(0.02)
        await settling
        assert first.backplane.counters["unanswered"] == 1
        # The next time nobody waits for it, and the others are waited for.
        await first.join("hall")
        assert await second.backplane.deliver("hall", b"") == 1
        child.send_signal(signal.SIGCONT)
        await until(lambda: not mesh(first)._links["child000"].is_silent)


async def test_starting_and_stopping_beside_a_stopped_process(net: LocalNet) -> None:
    """``backplane_timeout_s``."""
    net.limits = Limits(backplane_timeout_s=1.0, backplane_queue_bytes=4_000_000)
    first = await net.node().start("room")
    async with process(net, "child000", "room") as child:
        await stopped(child)
        late = net.node()
        starting = asyncio.ensure_future(late.start("room"))
        for _ in range(20):
            await turns()
            net.clock.advance(1.0)
        await asyncio.wait_for(starting, START_S)
        assert mesh(late).nodes == ["node0000"]
        for _ in range(40):
            first.backplane.publish("room", bytes(100_000))
            await turns(1)
        stopping = asyncio.ensure_future(first.backplane.stop())
        await turns()
        assert not stopping.done()
        net.clock.advance(1.0)
        await asyncio.wait_for(stopping, START_S)
        assert len(await late.has(40)) == 40


async def test_nothing_is_left_of_a_node_that_stopped(net: LocalNet) -> None:
    first, second = await net.node().start("room"), await net.node().start("room")
    async with Stranger(net, first):
        await until(lambda: mesh(first)._strangers)
        waiting = asyncio.ensure_future(first.backplane.settled())
        await asyncio.sleep(0)
        await first.backplane.stop()
        with pytest.raises(BackplaneDown):
            await waiting
    await second.backplane.stop()
    await turns()
    assert net.clock.timers == 0
    assert len(asyncio.all_tasks()) == 1


async def test_a_start_that_is_cancelled_leaves_nothing(net: LocalNet) -> None:
    net.folder.mkdir(mode=0o700)
    with SocketFolder(net.folder, ".mesh", name_chars=8).listen("silent00"):
        node = net.node()
        starting = asyncio.ensure_future(node.start())
        await until(lambda: net.clock.timers)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert not node.backplane.is_up
        assert sockets(net) == ["silent00.mesh"]
        await turns()
        assert net.clock.timers == 0
