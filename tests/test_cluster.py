"""Several processes as one: who is there, who listens where, and what arrives.  On a bus in memory, with a clock."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from polysock import Connection, Server, SettingError, Socket, SockJSRouter, StateError
from polysock.backplane import BackplaneDown, MemoryBackplane, MemoryBus
from polysock.channels import ALL_NODES, namespace_channel, node_channel, room_channel
from polysock.envelope import Emit, Hello, encode
from polysock.hub import Target
from polysock.packets import Event
from polysock.packets.plain import PLAIN_PACKETS
from polysock.remote import RemoteSocket
from polysock.testing import Client
from polysock_transports.placement import Node
from support.clients import Client as WireClient
from support.clients import (
    Quiet,
    quiet,  # noqa: F401  # autouse: nothing here logs unannounced
    turns,
    until,
)
from support.clock import FakeClock
from support.cluster import bus_of, cluster_of, world
from support.serving import serving


def joins_rooms(io: Server) -> None:
    io.on("connection", lambda socket: socket.join(*(socket.handshake.auth or {}).get("rooms", ())))


def client(io: Server, *rooms: str, namespace: str = "/") -> Client:
    return Client(io, namespace, {"rooms": list(rooms)})


def channels(io: Server) -> set[str]:
    """Where *io* listens, beside the channels of all nodes and its own."""
    return bus_of(io)._channels - {ALL_NODES, node_channel(cluster_of(io).id)}


def published(io: Server) -> int:
    return bus_of(io).counters["published"]


# --- who is there -----------------------------------------------------------------------------------------------------


async def test_nodes_know_each_other_when_start_returns() -> None:
    async with world(3) as nodes:
        ids = {cluster_of(io).id for io in nodes.servers}
        assert len(ids) == 3
        for io in nodes.servers:
            assert cluster_of(io).nodes.keys() == ids - {cluster_of(io).id}
        late = await nodes.join()
        assert cluster_of(late).nodes.keys() == ids
        known = cluster_of(nodes.servers[0]).nodes[cluster_of(late).id]
        assert known == cluster_of(late).node
        assert known.joined_ms > 1_600_000_000_000
        assert known.host


async def test_heartbeats_keep_a_node_and_a_silence_ends_it() -> None:
    async with world(3) as nodes:
        first, second, third = nodes.servers
        told: list[Any] = []
        cluster_of(first).on("node_left", lambda node, why: told.append((node.id, why)))
        await nodes.pass_time(60)
        assert len(cluster_of(first).nodes) == 2
        nodes.kill(third)
        await nodes.pass_time(6)
        assert len(cluster_of(first).nodes) == 2
        await nodes.pass_time(6)
        assert cluster_of(first).nodes.keys() == {cluster_of(second).id}
        assert told == [(cluster_of(third).id, "silent")]


async def test_bye_is_at_once_and_events_tell() -> None:
    async with world(1) as nodes:
        (first,) = nodes.servers
        told: list[Any] = []
        cluster_of(first).on("node_joined", lambda node: told.append(("joined", node.id)))

        @cluster_of(first).on("node_left")
        async def left(node: Node, why: str) -> None:
            told.append(("left", node.id, why))

        second = await nodes.join()
        its_id = cluster_of(second).id
        await second.stop()
        await turns()
        assert told == [("joined", its_id), ("left", its_id, "bye")]
        assert not cluster_of(first).nodes
        assert not cluster_of(second).nodes


async def test_a_broken_connection_is_at_once_where_the_backplane_sees_it() -> None:
    async with world(2) as nodes:
        first, second = nodes.servers
        told: list[str] = []
        cluster_of(first).on("node_left", lambda node, why: told.append(why))
        lost = bus_of(first).on_node_lost
        assert lost is not None
        lost(cluster_of(second).id)
        lost("nobody12")
        assert told == ["lost"]
        # It was the connection only: the node says hello again.
        await nodes.pass_time(3)
        assert cluster_of(first).nodes.keys() == {cluster_of(second).id}


async def test_an_outage_of_our_own_is_nobody_s_death() -> None:
    async with world(3) as nodes:
        first, second, third = nodes.servers
        told: list[Any] = []
        cluster_of(first).on("node_left", lambda node, why: told.append((node.id, why)))
        cluster_of(first).on("backplane_changed", told.append)
        bus_of(first).cut = True
        await nodes.pass_time(60)
        assert told == [False]
        assert len(cluster_of(first).nodes) == 2
        assert first.emit("x") == 0  # nothing blocks, nothing raises
        # To the others it is silent, and they cannot know why.
        assert cluster_of(second).nodes.keys() == {cluster_of(third).id}
        nodes.kill(third)
        bus_of(first).cut = False
        await turns()
        assert cluster_of(second).nodes.keys() >= {cluster_of(first).id}
        await nodes.pass_time(6)
        assert told == [False, True]
        await nodes.pass_time(6)
        assert told == [False, True, (cluster_of(third).id, "silent")]
        assert cluster_of(first).counters["outages"] == 1


async def test_a_process_that_slept_kills_nobody() -> None:
    """Its timers are late, and what the others said meanwhile is still to be read."""

    class Sleepy(FakeClock):
        def sleep(self, seconds: float) -> None:
            self._now += seconds

    bus, clock = MemoryBus(), Sleepy()
    first = Server(clock=clock, backplane=bus.backplane())
    second = Server(clock=FakeClock(), backplane=bus.backplane())
    await first.start()
    await second.start()
    await turns()
    clock.sleep(100)
    clock.advance(0)
    assert len(cluster_of(first).nodes) == 1
    clock.advance(5)
    assert len(cluster_of(first).nodes) == 1
    clock.advance(6)
    assert not cluster_of(first).nodes
    await first.stop()
    await second.stop()


async def test_more_nodes_than_allowed_are_told_once(quiet: Quiet) -> None:  # noqa: F811
    async with world(2, max_cluster_nodes=1) as nodes:
        first = nodes.servers[0]
        quiet.expect("more than 1 other nodes")
        for number in range(3):
            hello = encode(Hello(0, Node(f"strange{number}")), first.cluster_limits)
            cluster_of(first)._receive(ALL_NODES, hello)
        assert len(cluster_of(first).nodes) == 1
        assert cluster_of(first).counters["nodes_refused"] == 3


async def test_a_start_that_fails_can_be_tried_again() -> None:
    async with world(1) as nodes:
        late = nodes.make()
        bus_of(late).cut = True
        with pytest.raises(BackplaneDown):
            await late.start()
        assert not cluster_of(late).is_running
        assert client(late) is not None
        assert late.emit("x") == 1
        bus_of(late).cut = False
        await late.start()
        assert cluster_of(late).nodes
        with pytest.raises(StateError, match="once"):
            await late.start()
        await late.stop()
        await late.stop()
        with pytest.raises(StateError, match="once"):
            await late.start()


class Gated(MemoryBackplane):
    """Each step of it waits at a gate."""

    def __init__(self, bus: MemoryBus, step: str) -> None:
        super().__init__(bus)
        self.step = step
        self.gate = asyncio.Event()

    async def _pass(self, step: str) -> None:
        if step == self.step:
            await self.gate.wait()

    async def start(self, *args: Any) -> None:
        await self._pass("start")
        await super().start(*args)

    async def settled(self) -> None:
        await self._pass("settled")
        await super().settled()

    async def deliver(self, *args: Any) -> int:
        taken = await super().deliver(*args)
        await self._pass("deliver")
        return taken


@pytest.mark.parametrize("step", ["start", "settled", "deliver", "greeting"])
async def test_a_stop_while_it_starts_ends_the_start(step: str) -> None:
    async with world(1) as nodes:
        (first,) = nodes.servers
        backplane = Gated(nodes.bus, step)
        late = nodes.make(backplane)
        if step == "greeting":
            # It says nothing, and is waited for.
            nodes.kill(first)
            silent = nodes.bus.backplane()
            silent.subscribe(ALL_NODES)
            await silent.start("silent00", lambda channel, data: None)
        starting = asyncio.ensure_future(late.start())
        await turns()
        assert not starting.done()
        await late.stop()
        backplane.gate.set()
        with pytest.raises(BackplaneDown):
            await starting
        if step == "greeting":
            await silent.stop()
        bus_of(first)._cut = False
        assert nodes.bus.nodes.keys() == {cluster_of(first).id}
        await turns()
        assert not cluster_of(first).nodes
        assert not cluster_of(late).is_running
        assert cluster_of(late)._roster._timer is None


async def test_without_a_backplane_all_is_as_it_was() -> None:
    io = Server(clock=FakeClock())
    await io.start()
    await io.start()
    assert io.cluster is None
    assert io.sockets.hub.watcher is None
    assert len(io.make_id()) == 20
    await io.stop()


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"backplane": 7}, "a backplane is"),
        ({"backplane": "carrier://pigeon"}, "a backplane is"),
        ({"cluster_timeout_s": 1}, "at least twice"),
        ({"cluster_heartbeat_s": 0}, "greater than zero"),
        ({"max_answer_items": 1.5}, "whole number"),
        ({"cluster_heartbeat": 1}, "did you mean 'cluster_heartbeat_s'"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], match: str) -> None:
    with pytest.raises(SettingError, match=match):
        Server(**settings)


def test_settings_of_the_cluster_can_be_read_and_come_first() -> None:
    io = Server(cluster_heartbeat_s=1)
    assert io.get("cluster_heartbeat_s") == 1
    assert io.get("cluster_timeout_s") == 8
    with pytest.raises(StateError, match=re.escape("Server(...)")):
        io.set("cluster_heartbeat_s", 2)


# --- who listens where ------------------------------------------------------------------------------------------------


async def test_a_node_listens_for_what_it_has_members_of() -> None:
    async with world(1, joins_rooms) as nodes:
        (io,) = nodes.servers
        chat = io.of("/chat")
        assert channels(io) == set()
        ann = client(io, "red", "blue")
        bob = client(io, "red")
        red, blue, everyone = room_channel("/", "red"), room_channel("/", "blue"), namespace_channel("/")
        assert channels(io) == {everyone, red, blue}
        ann.disconnect()
        assert channels(io) == {everyone, red}
        bob.disconnect()
        assert channels(io) == set()
        chat.on("connection", lambda socket: socket.join("red"))
        cat = client(io, namespace="/chat")
        assert channels(io) == {namespace_channel("/chat"), room_channel("/chat", "red")}
        cat.drop()
        assert channels(io) == set()


async def test_members_that_were_there_before_the_start_are_listened_for() -> None:
    async with world(1, joins_rooms) as nodes:
        late = nodes.make()
        joins_rooms(late)
        late.of("/empty")
        ann = client(late, "red")
        assert channels(late) == set()
        await late.start()
        assert channels(late) == {namespace_channel("/"), room_channel("/", "red")}
        nodes.servers[0].to("red").emit("x")
        await turns()
        assert ann.take() == [("x",)]


async def test_a_namespace_made_by_asking_is_listened_for_while_it_is_there() -> None:
    def setup(io: Server) -> None:
        io.of(re.compile("/game-[0-9]"))

    async with world(2, setup) as nodes:
        first, second = nodes.servers
        for _ in range(2):
            ann = client(second, namespace="/game-1")
            first.of("/game-1").emit("x")
            await turns()
            assert ann.take() == [("x",)]
            ann.disconnect()
            assert channels(second) == set()


async def test_an_event_for_a_room_wakes_only_nodes_that_have_it() -> None:
    async with world(3, joins_rooms) as nodes:
        first, second, third = nodes.servers
        clients = [client(first, "red"), client(second, "red"), client(third, "blue")]
        before = [bus_of(io).counters["received"] for io in nodes.servers]
        assert first.to("red").emit("x") == 1
        await turns()
        assert [len(one.take()) for one in clients] == [1, 1, 0]
        after = [bus_of(io).counters["received"] for io in nodes.servers]
        assert [b - a for a, b in zip(before, after, strict=True)] == [0, 1, 0]


async def test_alone_nothing_is_encoded_or_sent() -> None:
    async with world(1, joins_rooms) as nodes:
        (io,) = nodes.servers
        ann = client(io, "red")
        before = published(io)
        seq = next(cluster_of(io)._seq)
        assert io.emit("x") == io.to("red").emit("y") == 1
        assert ann.take() == [("x",), ("y",)]
        assert published(io) == before
        assert next(cluster_of(io)._seq) == seq + 1


# --- what arrives -----------------------------------------------------------------------------------------------------


async def test_everything_a_broadcast_can_say_means_the_same_on_all_nodes() -> None:
    async with world(3, joins_rooms) as nodes:
        a, b, c = nodes.servers
        everyone = [client(a, "red"), client(b, "red", "blue"), client(c, "blue", "muted"), client(c)]
        ids = [str(one.id) for one in everyone]

        async def heard() -> list[int]:
            await turns()
            return [len(one.take()) for one in everyone]

        assert a.emit("x", 1) == 1
        assert await heard() == [1, 1, 1, 1]
        a.to("red").emit("x")
        assert await heard() == [1, 1, 0, 0]
        b.to("red").to("blue").emit("x")
        assert await heard() == [1, 1, 1, 0]
        b.to("red", "blue").except_("muted", ids[0]).emit("x")
        assert await heard() == [0, 1, 0, 0]
        c.except_("red").emit("x")
        assert await heard() == [0, 0, 1, 1]
        c.to("blue").except_(ids[1]).emit("x")
        assert await heard() == [0, 0, 1, 0]
        assert a.to(ids[3]).emit("x") == 0
        assert await heard() == [0, 0, 0, 1]
        a.to(ids[3], ids[0]).emit("x")
        assert await heard() == [1, 0, 0, 1]
        a.to("nowhere").emit("x")
        assert await heard() == [0, 0, 0, 0]
        (socket,) = a.sockets.clients()
        socket.broadcast.emit("x")
        assert await heard() == [0, 1, 1, 1]
        socket.to("red").emit("x")
        assert await heard() == [0, 1, 0, 0]
        a.of("/other").emit("x")
        assert await heard() == [0, 0, 0, 0]


async def test_values_arrive_as_they_were_sent() -> None:
    async with world(2) as nodes:
        first, second = nodes.servers
        ann, bob = client(second), Client(second, text_only=True)
        value = {"text": "é\ud800", "list": [1, 2.5, None, True], "data": b"\x00\xff"}
        first.emit("x", value, b"", 2**60)
        value["text"] = "changed later"
        await turns()
        for one in (ann, bob):
            (event,) = one.take()
            assert event == ("x", {"text": "é\ud800", "list": [1, 2.5, None, True], "data": b"\x00\xff"}, b"", 2**60)


async def test_what_cannot_travel_reaches_nobody_anywhere() -> None:
    async with world(2) as nodes:
        first, second = nodes.servers
        ann, bob = client(first), client(second)
        for bad in (float("nan"), {1, 2}, object()):
            with pytest.raises((TypeError, ValueError)):
                first.emit("x", bad)
        await turns()
        assert ann.take() == bob.take() == []


async def test_an_event_too_big_for_the_others_is_local_and_told(quiet: Quiet) -> None:  # noqa: F811
    async with world(2, max_envelope_bytes=1000) as nodes:
        first, second = nodes.servers
        ann, bob = client(first), client(second)
        quiet.expect("the event 'x' in / does not go to other nodes: ")
        assert first.emit("x", "y" * 1000) == 1
        assert first.emit("z") == 1
        await turns()
        assert [event[0] for event in ann.take()] == ["x", "z"]
        assert bob.take() == [("z",)]
        assert cluster_of(first).counters["too_big"] == 1


async def test_volatile_is_volatile_on_the_other_node() -> None:
    async with world(2) as nodes:
        first, second = nodes.servers
        ann = client(second)
        ann.pause()
        first.volatile.emit("x")
        first.emit("y")
        await turns()
        ann.resume()
        assert ann.take() == [("y",)]


async def test_feeds_and_raw_connections_of_other_nodes_get_it_too() -> None:
    class Raw(Connection):
        def on_open(self, info: Any) -> None:
            self.join("news")

    async with world(2) as nodes:
        first, second = nodes.servers
        feed = second.feeds.open(second.sockets, ["news"])
        assert channels(second) == {namespace_channel("/"), room_channel("/", "news")}
        async with serving(SockJSRouter(Raw, "/s", server=second).urls) as base:
            async with await WireClient(base, "rawwebsocket").open() as raw:
                first.to("news").emit("flash", 1)
                assert await raw.message() == '["flash",1]'
                assert feed._number == 1
            await until(lambda: len(second.sockets.hub) == 1)
        second.feeds.close()
        assert channels(second) == set()


async def test_own_echoes_are_dropped() -> None:
    class Echoing(MemoryBackplane):
        def _hand_out(self, channel: str, data: bytes) -> int:
            if channel in self._channels:
                asyncio.get_running_loop().call_soon(self._take, channel, data)
            return super()._hand_out(channel, data)

    async with world(0) as nodes:
        first = nodes.make(Echoing(nodes.bus))
        await first.start()
        await nodes.join()
        ann = client(first)
        first.emit("x")
        await turns()
        assert ann.take() == [("x",)]
        assert len(cluster_of(first).nodes) == 1


async def test_ids_name_their_node_and_reach_from_anywhere() -> None:
    async with world(2) as nodes:
        first, second = nodes.servers
        ann, other = client(second), client(second)
        assert str(ann.id).startswith(cluster_of(second).id)
        assert len(str(ann.id)) == 28
        found = first.sockets.socket(str(ann.id))
        assert isinstance(found, RemoteSocket)
        found.emit("psst", 1)
        found.send(2)
        first.to(str(ann.id)).emit("psst", 3)
        await turns()
        assert ann.take() == [("psst", 1), ("message", 2), ("psst", 3)]
        assert other.take() == []
        assert isinstance(second.sockets.socket(str(ann.id)), Socket)


async def test_an_id_that_is_a_room_s_name_too() -> None:
    """Somebody may be in a room that is called like a client: both are meant by ``to``, and each gets it once."""
    async with world(3, joins_rooms) as nodes:
        first, second, third = nodes.servers
        ann = client(second)
        name = str(ann.id)
        fan, near, far = client(second, name), client(first, name), client(third, name)
        # Ann is in it herself as well: her node gets the event on two channels.
        second.sockets.clients()[0].join(name)
        first.to(name).emit("both")
        await turns()
        assert [len(one.take()) for one in (ann, fan, near, far)] == [1, 1, 1, 1]
        found = first.sockets.socket(name)
        assert isinstance(found, RemoteSocket)
        found.emit("her alone")
        await turns()
        assert [len(one.take()) for one in (ann, fan, near, far)] == [1, 0, 0, 0]


async def test_what_is_remembered_of_double_messages_is_bounded() -> None:
    async with world(2) as nodes:
        first, second = nodes.servers
        ann = client(second)
        for seq in range(3000):
            emit = Emit("stranger", seq, Event("/", "x"), Target((str(ann.id),)), is_twice=True)
            cluster_of(second)._receive("any", encode(emit, first.cluster_limits))
        assert len(ann.take()) == 3000
        assert len(cluster_of(second)._seen) == 1000


@pytest.mark.parametrize(("between", "delivered"), [(999, 1), (1_000, 2)])
async def test_others_may_come_between_the_copies_of_a_double_message(between: int, delivered: int) -> None:
    async with world(2) as nodes:
        first, second = nodes.servers
        ann = client(second)
        event, other = Event("/", "x"), Event("/", "other")
        copy = Emit("slowpoke", 0, event, Target((str(ann.id),)), is_twice=True)
        others = [Emit(f"node{seq:04}", 0, other, copy.target, is_twice=True) for seq in range(between)]
        for emit in (copy, *others, copy):
            cluster_of(second)._receive("any", encode(emit, first.cluster_limits))
        assert [name for name, *_ in ann.take()].count("x") == delivered


async def test_nothing_that_comes_can_hurt(quiet: Quiet, caplog: pytest.LogCaptureFixture) -> None:  # noqa: F811
    async with world(2) as nodes:
        first, second = nodes.servers
        quiet.expect("a message on the backplane is not understood")
        for data in (b"", b"\x80\x04pickle", b"{}", b"\xff" * 100):
            bus_of(first).publish(ALL_NODES, data)
        unknown = Emit("stranger", 0, Event("/nowhere", "x"))
        bus_of(first).publish(ALL_NODES, encode(unknown, first.cluster_limits))
        await turns()
        assert cluster_of(second).counters["bad_envelopes"] == 4
        assert sum("not understood" in record.getMessage() for record in caplog.records) == 1
        assert "/nowhere" not in second.namespaces


async def test_a_receiver_that_fails_hurts_no_later_message(quiet: Quiet) -> None:  # noqa: F811
    async with world(2) as nodes:
        first, second = nodes.servers
        ann = client(second)

        class Broken:
            id = "broken"

            @property
            def codec(self) -> Any:
                raise RuntimeError("broken")

        second.sockets.hub.add(Broken())  # type: ignore[arg-type]
        quiet.expect(f"a message of node {cluster_of(first).id} failed here")
        first.emit("x")
        await turns()
        second.sockets.hub.remove("broken")
        first.emit("y")
        await turns()
        assert ann.take() == [("y",)]
        assert cluster_of(second).counters["not_delivered"] == 1


async def test_what_cannot_be_told_to_clients_here_is_no_failure(
    quiet: Quiet,  # noqa: F811
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Some forms of packets have less room for nesting than others, and what is nested may come from a client."""
    nested: list[Any] = []
    for _ in range(700):
        nested = [nested]
    async with world(2) as nodes:
        first, second = nodes.servers

        class Plain:
            id = "plain"
            codec = PLAIN_PACKETS

        second.sockets.hub.add(Plain())  # type: ignore[arg-type]
        quiet.expect("an event of another node cannot be told to clients here")
        for _ in range(3):
            first.emit("x", nested)
        await turns()
        second.sockets.hub.remove("plain")
        assert cluster_of(second).counters["not_delivered"] == 3
        (told,) = [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]
        assert told.exc_info is None


async def test_an_outage_costs_what_was_sent_in_it_and_nothing_else() -> None:
    async with world(2, joins_rooms) as nodes:
        first, second = nodes.servers
        ann, bob = client(first, "red"), client(second, "red")
        bus_of(second).cut = True
        first.to("red").emit("x", 1)
        assert second.to("red").emit("x", 2) == 1  # local delivery stands
        cat = client(second, "blue")
        bus_of(second).cut = False
        first.to("red").emit("x", 3)
        first.to("blue").emit("x", 4)
        await turns()
        assert ann.take() == [("x", 1), ("x", 3)]
        assert bob.take() == [("x", 2), ("x", 3)]
        assert cat.take() == [("x", 4)]
        assert bus_of(second).counters["dropped"] >= 1


async def test_after_stop_a_server_is_by_itself() -> None:
    async with world(2) as nodes:
        first, second = nodes.servers
        ann, bob = client(first), client(second)
        await first.stop()
        await turns()
        assert first.emit("x") == 1
        second.emit("y")
        await turns()
        assert (ann.take(), bob.take()) == ([("x",)], [("y",)])
        cat = client(first)
        assert cat.connected


# --- order ------------------------------------------------------------------------------------------------------------


async def test_order_holds_per_sender_and_channel() -> None:
    """To one room, and to everybody, in the order of the emits, and nothing twice."""
    async with world(3, joins_rooms) as nodes:
        ann = client(nodes.servers[2], "red")
        for number in range(100):
            for sender, io in enumerate(nodes.servers[:2]):
                io.to("red").emit("room", sender, number)
                io.emit("all", sender, number)
            if number % 10 == 0:
                await turns(1)
        await turns(40)
        events = ann.take()
        assert len(events) == 400
        for name in ("room", "all"):
            for sender in range(2):
                numbers = [event[2] for event in events if event[:2] == (name, sender)]
                assert numbers == list(range(100))


class Shuffled(MemoryBackplane):
    """Keeps what its contract says and no more: each channel in order, one channel faster than another."""

    slow = ""

    def _hand_out(self, channel: str, data: bytes) -> int:
        if channel != self.slow:
            return super()._hand_out(channel, data)
        loop = asyncio.get_running_loop()
        loop.call_soon(lambda: loop.call_soon(lambda: super(Shuffled, self)._hand_out(channel, data)))
        return 0


async def test_a_room_s_event_and_everybody_s_may_overtake_each_other() -> None:
    """Documented, so that nobody relies on more: what must keep its order goes to one room."""
    async with world(0, joins_rooms) as nodes:
        shuffled = Shuffled(nodes.bus)
        first = nodes.make(shuffled)
        second = nodes.make()
        for io in (first, second):
            joins_rooms(io)
            await io.start()
        near, far = client(first, "red"), client(second, "red")
        await turns()
        shuffled.slow = namespace_channel("/")
        for number in range(3):
            first.emit("all", number)
            first.to("red").emit("room", number)
        await turns()
        assert [event[0] for event in near.take()] == ["all", "room"] * 3
        assert far.take() == [("room", 0), ("room", 1), ("room", 2), ("all", 0), ("all", 1), ("all", 2)]


async def test_joining_is_local_at_once_and_elsewhere_when_settled() -> None:
    async with world(2) as nodes:
        first, second = nodes.servers
        ann = client(second)
        second.sockets.clients()[0].join("red")
        await cluster_of(second).settled()
        first.to("red").emit("x")
        await turns()
        assert ann.take() == [("x",)]
