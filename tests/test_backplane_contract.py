"""The backplane contract: every test here runs on every kind.  A new kind wants its ``Net`` and its name in KINDS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from polysock.backplane import MAX_CHANNEL_CHARS, BackplaneDown
from polysock_transports import StateError
from support.backplanes import LocalNet, MemoryNet, Net, Node, RedisNet
from support.clients import (
    TIMEOUT_SECONDS,
    Quiet,
    quiet,  # noqa: F401  # autouse: nothing here logs unannounced
    turns,
    until,
)
from support.redis_server import RedisServer

#: Kind -> whether the backplane itself can be away while the node lives.
KINDS = {"memory": True, "local": False, "redis": True}

everywhere = pytest.mark.parametrize("kind", KINDS)
where_it_can_go = pytest.mark.parametrize("kind", [kind for kind, can_go in KINDS.items() if can_go])


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
async def net(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Net]:
    if kind == "redis":
        net: Net = RedisNet(request.getfixturevalue("redis"))
    else:
        net = MemoryNet() if kind == "memory" else LocalNet(tmp_path / "mesh")
    yield net
    await net.close()


async def pair(net: Net, *channels: str) -> tuple[Node, Node]:
    """Two nodes, of which the second is subscribed."""
    return await net.node().start(), await net.node().start(*channels)


@everywhere
async def test_messages_of_one_sender_on_one_channel_come_in_order(net: Net) -> None:
    first, second = await net.node().start(), await net.node().start()
    taker = await net.node().start("a", "b")
    for number in range(500):
        for node in (first, second):
            for channel in ("a", "b"):
                node.backplane.publish(channel, f"{node.name} {number}".encode())
        if number % 50 == 0:
            await asyncio.sleep(0)
    got = await taker.has(2_000)
    assert len(got) == 2_000
    for node in (first, second):
        for channel in ("a", "b"):
            mine = [data for name, data in got if name == channel and data.startswith(node.name.encode())]
            assert mine == [f"{node.name} {number}".encode() for number in range(500)]


@everywhere
async def test_only_what_is_subscribed_to_arrives(net: Net) -> None:
    sender, taker = await pair(net, "room")
    other = await net.node().start("other")
    for channel in ("room:1", "roo", "ROOM", "room", "room*", "?", "other"):
        sender.backplane.publish(channel, channel.encode())
    assert await taker.has(1) == [("room", b"room")]
    assert await other.has(1) == [("other", b"other")]
    # All that went before it would be here by now.
    sender.backplane.publish("room", b"last")
    assert await taker.has(2) == [("room", b"room"), ("room", b"last")]


@everywhere
async def test_what_was_left_arrives_no_more(net: Net) -> None:
    sender, taker = await pair(net, "room", "stay")
    assert await sender.backplane.deliver("room", b"1") == 1
    await taker.has(1)
    await taker.leave("room")
    assert await sender.backplane.deliver("room", b"2") == 0
    assert await sender.backplane.deliver("stay", b"3") == 1
    assert await taker.has(2) == [("room", b"1"), ("stay", b"3")]
    await taker.join("room")
    assert await sender.backplane.deliver("room", b"4") == 1


@everywhere
async def test_joining_and_leaving_in_one_turn_ends_as_the_last_said(net: Net) -> None:
    sender, taker = await pair(net, "was-in")
    for _ in range(3):
        taker.backplane.subscribe("in")
        taker.backplane.unsubscribe("in")
        taker.backplane.unsubscribe("was-in")
        taker.backplane.subscribe("was-in")
        taker.backplane.subscribe("was-in")
    taker.backplane.unsubscribe("never")
    taker.backplane.subscribe("in")
    taker.backplane.subscribe("out")
    taker.backplane.unsubscribe("out")
    await taker.backplane.settled()
    assert [await sender.backplane.deliver(name, b"") for name in ("in", "was-in", "out", "never")] == [1, 1, 0, 0]


@everywhere
@pytest.mark.parametrize(
    "data", [b"", bytes(range(256)), b"\r\n$5\r\n\0", bytes(range(256)) * 4_000], ids=["none", "all", "RESP", "1 MB"]
)
async def test_any_bytes_arrive_as_they_are(net: Net, data: bytes) -> None:
    sender, taker = await pair(net, "room")
    assert await sender.backplane.deliver("room", data) == 1
    ((channel, got),) = await taker.has(1)
    assert (channel, got == data, type(got)) == ("room", True, bytes)


@everywhere
async def test_thousands_of_channels(net: Net) -> None:
    sender, taker = await pair(net)
    channels = [f"room:{number}" for number in range(5_000)]
    await taker.join(*channels)
    for channel in channels:
        sender.backplane.publish(channel, channel.encode())
    got = await taker.has(5_000)
    assert got == [(channel, channel.encode()) for channel in channels]
    await taker.leave(*channels[1:])
    assert await sender.backplane.deliver(channels[0], b"") == 1
    assert {await sender.backplane.deliver(channel, b"") for channel in channels[1::500]} == {0}


@everywhere
async def test_deliver_counts_the_other_nodes(net: Net) -> None:
    sender = await net.node().start()
    assert await sender.backplane.deliver("room", b"0") == 0
    takers = [await net.node().start("room") for _ in range(3)]
    assert await sender.backplane.deliver("room", b"1") == 3
    # Its own subscription is not one, from the moment on that it is made.
    sender.backplane.subscribe("room")
    assert await sender.backplane.deliver("room", b"2") == 3
    await takers[0].backplane.stop()

    async def fewer() -> None:
        while await sender.backplane.deliver("room", b"gone?") != 2:
            await turns(1)

    # That it has gone is noticed when its connections end.
    await asyncio.wait_for(fewer(), TIMEOUT_SECONDS)
    assert await sender.backplane.deliver("room", b"3") == 2
    sender.backplane.unsubscribe("room")
    assert await sender.backplane.deliver("room", b"4") == 2
    await until(lambda: takers[1].got[-1:] == [("room", b"4")])
    assert [data for _, data in takers[1].got if data != b"gone?"] == [b"1", b"2", b"3", b"4"]


@everywhere
async def test_nodes_that_start_together_reach_each_other(net: Net) -> None:
    nodes = [net.node() for _ in range(8)]
    await asyncio.gather(*(node.start("all") for node in nodes))
    for node in nodes:
        assert await node.backplane.deliver("all", node.name.encode()) == 7
    for node in nodes:
        others = {other.name.encode() for other in nodes if other is not node}
        await until(lambda node=node, others=others: {data for _, data in node.got} >= others)


@everywhere
async def test_what_is_published_before_the_stop_arrives(net: Net) -> None:
    sender, taker = await pair(net, "room")
    for number in range(100):
        sender.backplane.publish("room", b"%d" % number)
    await sender.backplane.stop()
    assert await taker.has(100) == [("room", b"%d" % number) for number in range(100)]


@everywhere
async def test_before_the_start_and_after_the_stop(net: Net) -> None:
    taker = await net.node().start("room")
    node = net.node()
    backplane = node.backplane
    for state in ("before", "after"):
        assert not backplane.is_up
        backplane.publish("room", b"lost")
        with pytest.raises(BackplaneDown):
            await backplane.deliver("room", b"lost")
        with pytest.raises(BackplaneDown):
            await backplane.settled()
        assert backplane.counters["dropped"] >= 1
        backplane.unsubscribe("never")
        await backplane.stop()
        await backplane.stop()
        if state == "before":
            backplane.counters["dropped"] = 0
            await node.start("mine")
            assert backplane.is_up
            assert await backplane.deliver("room", b"sent") == 1
            await backplane.stop()
    taker.backplane.publish("mine", b"late")
    await turns()
    assert await taker.has(1) == [("room", b"sent")]
    assert node.got == []
    assert node.changes == []


@everywhere
async def test_it_starts_once_at_a_time(net: Net) -> None:
    sender, taker = await pair(net, "room")
    with pytest.raises(StateError):
        await taker.start()
    assert await sender.backplane.deliver("room", b"1") == 1
    await taker.has(1)
    await taker.backplane.stop()
    await taker.start()
    assert await sender.backplane.deliver("room", b"2") == 1
    assert await taker.has(2) == [("room", b"1"), ("room", b"2")]


@everywhere
async def test_names_of_channels(net: Net) -> None:
    sender, taker = await pair(net)
    longest = "!~*?[^]\\'\"#" + "x" * (MAX_CHANNEL_CHARS - 11)
    await taker.join(longest)
    assert await sender.backplane.deliver(longest, b"") == 1
    for wrong in ("", "a b", "a\n", "ä", "\x7f", "\ud800", longest + "x"):
        with pytest.raises(ValueError, match="a channel is 1 to 1000 printable"):
            taker.backplane.subscribe(wrong)
        taker.backplane.unsubscribe(wrong)
        sender.backplane.publish(wrong, b"")
    sender.backplane.publish(longest, b"last")
    assert await taker.has(2) == [(longest, b""), (longest, b"last")]


@everywhere
async def test_a_receiver_that_fails_stops_nothing(net: Net, quiet: Quiet) -> None:  # noqa: F811
    quiet.expect("what takes messages from the backplane failed")
    got: list[bytes] = []

    def receive(channel: str, data: bytes) -> None:
        got.append(data)
        if data == b"bad":
            raise RuntimeError

    sender = await net.node().start()
    await net.node().start("room", receive=receive)
    for data in (b"1", b"bad", b"2"):
        sender.backplane.publish("room", data)
    await until(lambda: len(got) == 3)
    assert got == [b"1", b"bad", b"2"]


@everywhere
async def test_what_is_counted(net: Net) -> None:
    sender, taker = await pair(net, "room")
    sender.backplane.publish("room", b"")
    await sender.backplane.deliver("room", b"")
    sender.backplane.publish("nobody", b"")
    await taker.has(2)
    assert {name: count for name, count in sender.backplane.counters.items() if count} == {"published": 3}
    assert {name: count for name, count in taker.backplane.counters.items() if count} == {"received": 2}


@where_it_can_go
async def test_an_outage(net: Net, kind: str, quiet: Quiet) -> None:  # noqa: F811
    if kind == "redis":
        quiet.expect("is down")
        quiet.expect("is back")
    sender, taker = await pair(net, "kept", "left")
    await net.cut()
    for node in (sender, taker):
        assert not node.backplane.is_up
        assert node.changes == [False]
        assert node.backplane.counters["outages"] == 1
    before = sender.backplane.counters["dropped"]
    for _ in range(100):
        sender.backplane.publish("kept", b"lost")
    assert sender.backplane.counters["dropped"] == before + 100
    with pytest.raises(BackplaneDown):
        await sender.backplane.deliver("kept", b"lost")
    with pytest.raises(BackplaneDown):
        await sender.backplane.settled()
    # What is wanted may change meanwhile.
    taker.backplane.subscribe("new")
    taker.backplane.unsubscribe("left")
    await net.mend()
    assert sender.changes == taker.changes == [False, True]
    assert [await sender.backplane.deliver(name, name.encode()) for name in ("kept", "left", "new")] == [1, 0, 1]
    assert await taker.has(2) == [("kept", b"kept"), ("new", b"new")]
    assert sender.backplane.counters["outages"] == 1


@where_it_can_go
async def test_who_starts_in_an_outage_is_told(net: Net, kind: str, quiet: Quiet) -> None:  # noqa: F811
    if kind == "redis":
        quiet.expect("is down")
        quiet.expect("is back")
    await net.node().start()
    await net.cut()
    late = net.node()
    if kind == "memory":
        await net.cut()
    with pytest.raises(BackplaneDown):
        await late.start()
    assert not late.backplane.is_up
    net.nodes.remove(late)
    await net.mend()
    if kind == "memory":
        late.backplane.cut = False  # type: ignore[attr-defined]
    await late.start("room")
    assert await net.nodes[0].backplane.deliver("room", b"") == 1
    await late.backplane.stop()


@where_it_can_go
async def test_a_listener_that_fails_is_its_own_fault(net: Net, kind: str, quiet: Quiet) -> None:  # noqa: F811
    quiet.expect("on_change failed")
    if kind == "redis":
        quiet.expect("is down")
        quiet.expect("is back")
    sender, taker = await pair(net, "room")

    def fail(up: bool) -> None:
        raise RuntimeError

    sender.backplane.on_change = fail
    await net.cut()
    await net.mend()
    assert await sender.backplane.deliver("room", b"") == 1
    assert taker.changes == [False, True]
