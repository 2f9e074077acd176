"""Who is in a room over all nodes: users and not tabs, joins and leaves once, and no ghosts whatever happens."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from typing import Any

import pytest

from polysock import Server, Socket, StateError
from polysock.backplane import MemoryBackplane
from polysock.channels import topic_channel
from polysock.presence import Presence
from polysock.testing import Client
from support.clients import (
    Quiet,
    quiet,  # noqa: F401  # autouse: nothing here logs unannounced
    turns,
)
from support.clock import FakeClock
from support.cluster import World, bus_of, cluster_of, world

TOPIC = topic_channel("/", "doc:*")


def setup(io: Server) -> None:
    """Clients say who they are and which rooms they want."""

    @io.on("connection")
    def connected(socket: Socket) -> None:
        auth = socket.handshake.auth or {}
        socket.data.update(auth)
        socket.join(*auth.get("rooms", ()))


def client(io: Server, user: str | None, *rooms: str, **data: Any) -> Client:
    return Client(io, auth={"user": user, "rooms": list(rooms), **data})


def follow(io: Server, **kwargs: Any) -> tuple[Presence, list[tuple[str, str, str]]]:
    """A presence of ``doc:*`` by user, and what it told so far."""
    told: list[tuple[str, str, str]] = []
    options = {"user": lambda socket: socket.data["user"], "meta": lambda socket: socket.data.get("color"), **kwargs}
    presence = io.sockets.presence("doc:*", **options)
    for event in ("join", "leave", "update"):
        presence.on(event, lambda room, present, event=event: told.append((event, room, present.user)))
    return presence, told


def seen(presence: Presence) -> dict[str, dict[str, dict[str, Any]]]:
    return {room: {one.user: one.sockets for one in presence.members(room)} for room in presence.rooms}


def users(presence: Presence, room: str = "doc:1") -> list[str]:
    return [one.user for one in presence.members(room)]


async def agree(nodes: World, presences: list[Presence], truth: Callable[[], dict[str, set[str]]]) -> None:
    """After a while of quiet all replicas are the truth."""
    await nodes.pass_time(10)
    for presence in presences:
        assert {room: set(users(presence, room)) for room in presence.rooms} == truth()
        assert not presence.unsynced
        for room in presence.rooms:
            assert presence.count(room) == len(presence.members(room))


# --- one node ---------------------------------------------------------------------------------------------------------


def test_alone_by_user() -> None:
    io = Server(clock=FakeClock())
    setup(io)
    presence, told = follow(io)
    tabs = [client(io, "ann", "doc:1", color=color) for color in ("red", "blue", "green")]
    bob = client(io, "bob", "doc:1", "doc:2", "other")
    client(io, None, "doc:1")  # does not count
    assert seen(presence) == {
        "doc:1": {"ann": {tabs[0].id: "red", tabs[1].id: "blue", tabs[2].id: "green"}, "bob": {bob.id: None}},
        "doc:2": {"bob": {bob.id: None}},
    }
    assert (presence.count("doc:1"), presence.count("doc:2"), presence.count("other")) == (2, 1, 0)
    ann = presence.get("doc:1", "ann")
    assert ann is not None
    assert ann.meta == "green"
    assert presence.get("doc:2", "ann") is None
    tabs[2].disconnect()
    found = presence.get("doc:1", "ann")
    assert found is not None
    assert found.meta == "blue"
    assert ann.meta == "green"  # what was read stays
    tabs[0].drop()
    tabs[1].disconnect()
    bob.disconnect()
    assert presence.rooms == ()
    assert told == [
        ("join", "doc:1", "ann"),
        ("join", "doc:1", "bob"),
        ("join", "doc:2", "bob"),
        ("leave", "doc:1", "ann"),
        ("leave", "doc:1", "bob"),
        ("leave", "doc:2", "bob"),
    ]


def test_by_socket_and_by_rule() -> None:
    io = Server(clock=FakeClock())
    setup(io)
    early = client(io, "ann", "a1")
    presence = io.sockets.presence(lambda room: room.startswith("a"), name="as")
    assert users(presence, "a1") == [early.id]
    late = client(io, "ann", "a1", "b1")
    assert users(presence, "a1") == [early.id, late.id]
    assert presence.rooms == ("a1",)
    early.disconnect()
    presence.close()
    assert presence.rooms == ()
    late.disconnect()
    assert io.sockets.hub.observers == ()
    io.sockets.presence("*", name="as")  # the name is free again


def test_metadata_and_users_change() -> None:
    io = Server(clock=FakeClock())
    setup(io)
    presence, told = follow(io)
    client(io, "ann", "doc:1", color={"r": 1})
    (socket,) = io.sockets.clients()
    presence.update(socket)
    socket.data["color"]["r"] = 2
    assert seen(presence)["doc:1"]["ann"] == {socket.id: {"r": 1}}  # frozen
    presence.update(socket)
    assert seen(presence)["doc:1"]["ann"] == {socket.id: {"r": 2}}
    socket.data["user"] = "anna"
    presence.update(socket)
    assert users(presence) == ["anna"]
    socket.data["user"] = None
    presence.update(socket)
    assert presence.rooms == ()
    assert [one[0] + " " + one[2] for one in told] == ["join ann", "update ann", "leave ann", "join anna", "leave anna"]


def test_what_an_application_gives_is_judged(quiet: Quiet) -> None:  # noqa: F811
    io = Server(clock=FakeClock(), max_presence_user_bytes=5, max_presence_meta_bytes=12)
    setup(io)
    presence, _ = follow(io)
    quiet.expect("in presence 'doc:*' is of no use")
    bad: list[dict[str, Any]] = [{"user": 7}, {"user": "éééé"}, {"color": "x" * 11}]
    for data in bad:
        Client(io, auth={"user": "ann", "rooms": ["doc:1"], **data})
    Client(io, auth={"rooms": ["doc:1"]})  # no user at all: a KeyError in the function
    assert presence.rooms == ()
    client(io, "éé", "doc:1", color="x" * 10)
    assert users(presence) == ["éé"]

    def rule(room: str) -> bool:
        raise RuntimeError(room)

    quiet.expect("the rule of presence 'bad' failed for the room 'doc:1'")
    assert io.sockets.presence(rule, name="bad").rooms == ()
    quiet.expect("the join handler failed")
    presence.on("join", lambda room, present: 1 / 0)
    client(io, "bob", "doc:1")
    assert users(presence) == ["éé", "bob"]


def test_misuse() -> None:
    io = Server(clock=FakeClock())
    io.sockets.presence("a")
    with pytest.raises(ValueError, match="already"):
        io.sockets.presence("a")
    io.sockets.presence("a", name="another")
    with pytest.raises(TypeError, match="pattern"):
        io.sockets.presence(7)  # type: ignore[arg-type]
    io.of(re.compile("/game"))
    Client(io, "/game")
    with pytest.raises(StateError, match="name it first"):
        io.of("/game").presence()


def test_bounded(quiet: Quiet) -> None:  # noqa: F811
    io = Server(clock=FakeClock(), max_presence_sockets=3)
    setup(io)
    presence, _ = follow(io)
    quiet.expect("holds max_presence_sockets or max_presence_bytes")
    everyone = [client(io, f"u{number}", "doc:1") for number in range(5)]
    assert presence.count("doc:1") == 3
    assert presence.refused == 2
    for one in everyone:
        one.disconnect()
    assert presence.rooms == ()


# --- several nodes ----------------------------------------------------------------------------------------------------


async def test_a_user_on_several_nodes_joins_once_and_leaves_once() -> None:
    async with world(3, setup) as nodes:
        a, b, c = nodes.servers
        (pa, ta), (pb, tb), (pc, tc) = (follow(io) for io in nodes.servers)
        await turns()
        tabs = [client(a, "ann", "doc:1", color=1), client(b, "ann", "doc:1", color=2), client(b, "ann", "doc:1")]
        bob = client(c, "bob", "doc:1")
        await turns()
        for presence in (pa, pb, pc):
            assert set(users(presence)) == {"ann", "bob"}
            assert presence.count("doc:1") == 2
            found = presence.get("doc:1", "ann")
            assert found is not None
            assert found.sockets == {tabs[0].id: 1, tabs[1].id: 2, tabs[2].id: None}
        for tab in tabs:
            tab.disconnect()
            await turns()
        bob.disconnect()
        await turns()
        for presence, told in ((pa, ta), (pb, tb), (pc, tc)):
            assert presence.rooms == ()
            assert sorted(told) == sorted(
                [(event, "doc:1", user) for event in ("join", "leave") for user in ("ann", "bob")]
            )


async def test_metadata_reaches_the_others() -> None:
    async with world(2, setup) as nodes:
        a, b = nodes.servers
        (pa, _), (pb, told) = (follow(io) for io in nodes.servers)
        client(a, "ann", "doc:1", color="red")
        await turns()
        (socket,) = a.sockets.clients()
        socket.data["color"] = ["blue", 1.5, None]
        pa.update(socket)
        await turns()
        assert seen(pb) == {"doc:1": {"ann": {socket.id: ["blue", 1.5, None]}}}
        assert [one[0] for one in told] == ["join", "update"]
        assert b.sockets.clients() == []


async def test_who_was_there_before_is_known_to_nodes_and_presences_that_come_later() -> None:
    async with world(1, setup) as nodes:
        (a,) = nodes.servers
        ann = client(a, "ann", "doc:1")
        pa, _ = follow(a)
        b = nodes.make()
        setup(b)
        bob = client(b, "bob", "doc:1")
        pb, _ = follow(b)
        await b.start()
        await turns()
        assert set(users(pa)) == set(users(pb)) == {"ann", "bob"}
        c = await nodes.join()
        setup(c)
        client(c, "cat", "doc:1")
        await turns()
        assert set(users(pa)) == {"ann", "bob"}  # that node follows no presence yet
        pc, _ = follow(c)
        await turns()
        assert set(users(pa)) == set(users(pb)) == set(users(pc)) == {"ann", "bob", "cat"}
        ann.disconnect()
        bob.disconnect()


async def test_namespaces_and_names_do_not_mix() -> None:
    async with world(2, setup) as nodes:
        a = nodes.servers[0]
        for io in nodes.servers:
            io.of("/chat").on("connection", lambda socket: socket.join("doc:1"))
        first = [io.sockets.presence("doc:*") for io in nodes.servers]
        second = [io.sockets.presence("doc:*", name="second") for io in nodes.servers]
        chat = [io.of("/chat").presence("doc:*") for io in nodes.servers]
        ann, bob = client(a, "ann", "doc:1"), Client(a, "/chat")
        await turns()
        assert users(first[1]) == users(second[1]) == [ann.id]
        assert users(chat[1]) == [bob.id]
        second[0].close()
        await turns()
        assert second[1].rooms == ()
        assert users(first[1]) == [ann.id]


async def test_the_members_of_a_node_leave_with_it() -> None:
    async with world(3, setup) as nodes:
        a, b, c = nodes.servers
        (pa, told), (pb, _), (pc, _) = (follow(io) for io in nodes.servers)
        client(a, "ann", "doc:1")
        client(b, "ann", "doc:1")
        client(b, "bob", "doc:1", "doc:2")
        client(c, "cat", "doc:1")
        await turns()
        assert set(users(pa)) == {"ann", "bob", "cat"}
        await c.stop()
        await turns()
        assert set(users(pa)) == {"ann", "bob"}
        assert set(users(pc)) == {"cat"}  # by itself it knows its own
        nodes.kill(b)
        await nodes.pass_time(12)
        assert seen(pa).keys() == {"doc:1"}
        assert users(pa) == ["ann"]
        assert [one for one in told if one[0] == "leave"] == [
            ("leave", "doc:1", "cat"),
            ("leave", "doc:1", "bob"),
            ("leave", "doc:2", "bob"),
        ]
        assert pb.rooms


async def test_a_node_that_was_thought_dead_comes_back_with_its_members() -> None:
    async with world(2, setup) as nodes:
        b = nodes.servers[1]
        (pa, told), (pb, _) = (follow(io) for io in nodes.servers)
        client(b, "bob", "doc:1")
        await turns()
        bus_of(b)._cut = True  # it hangs, and nobody is told
        await nodes.pass_time(12)
        assert pa.rooms == ()
        bus_of(b)._cut = False
        await nodes.pass_time(6)
        assert users(pa) == users(pb) == ["bob"]
        assert [one[0] for one in told] == ["join", "leave", "join"]


async def test_after_an_outage_all_agree_again_and_nobody_has_flapped() -> None:
    async with world(3, setup, cluster_timeout_s=100) as nodes:
        a, b, _ = nodes.servers
        (pa, told), (pb, _), (pc, _) = (follow(io) for io in nodes.servers)
        ann, bob = client(a, "ann", "doc:1"), client(b, "bob", "doc:1")
        await turns()
        bus_of(b).cut = True
        bob.disconnect()
        client(b, "bea", "doc:1")
        ann.disconnect()
        client(a, "amy", "doc:1")
        await turns()
        assert set(users(pa)) == {"bob", "amy"}
        assert set(users(pb)) == {"ann", "bea"}
        bus_of(b).cut = False
        await nodes.pass_time(3)
        for presence in (pa, pb, pc):
            assert set(users(presence)) == {"amy", "bea"}
        # Who was there all the time neither left nor joined.
        assert sorted(told) == [
            ("join", "doc:1", "amy"),
            ("join", "doc:1", "ann"),
            ("join", "doc:1", "bea"),
            ("join", "doc:1", "bob"),
            ("leave", "doc:1", "ann"),
            ("leave", "doc:1", "bob"),
        ]


class Lossy(MemoryBackplane):
    """Loses some of what it is given."""

    loses: Callable[[str, bytes], bool] = staticmethod(lambda channel, data: False)

    def _hand_out(self, channel: str, data: bytes) -> int:
        return 0 if self.loses(channel, data) else super()._hand_out(channel, data)


async def lossy_world(nodes: World, count: int) -> list[tuple[Server, Lossy, Presence]]:
    made = []
    for _ in range(count):
        backplane = Lossy(nodes.bus)
        io = nodes.make(backplane)
        setup(io)
        await io.start()
        made.append((io, backplane, follow(io)[0]))
    await turns()
    return made


async def test_one_lost_change_is_noticed_by_the_next_one() -> None:
    async with world(0) as nodes:
        (a, bus, pa), (_, _, pb) = await lossy_world(nodes, 2)
        bus.loses = lambda channel, data: channel == TOPIC
        client(a, "ann", "doc:1")
        await turns()
        assert pb.rooms == ()
        bus.loses = lambda channel, data: False
        client(a, "bob", "doc:1")
        await turns()
        assert users(pa) == users(pb) == ["ann", "bob"]


async def test_the_last_change_lost_is_noticed_by_the_heartbeat() -> None:
    async with world(0) as nodes:
        (a, bus, _), (_, _, pb) = await lossy_world(nodes, 2)
        ann = client(a, "ann", "doc:1")
        await turns()
        assert users(pb) == ["ann"]
        bus.loses = lambda channel, data: b'"changes"' in data
        ann.disconnect()
        await turns()
        assert users(pb) == ["ann"]
        await nodes.pass_time(3)
        assert pb.rooms == ()


async def test_an_answer_that_is_lost_is_asked_for_again() -> None:
    async with world(0) as nodes:
        (a, bus, _), *_ = await lossy_world(nodes, 1)
        client(a, "ann", "doc:1")
        bus.loses = lambda channel, data: b'"whole"' in data
        b = nodes.make()
        setup(b)
        pb, _ = follow(b)
        await b.start()
        await nodes.pass_time(5)
        assert pb.rooms == ()
        assert pb.unsynced == (cluster_of(a).id,)
        bus.loses = lambda channel, data: False
        await nodes.pass_time(3)
        assert users(pb) == ["ann"]
        assert pb.unsynced == ()


async def test_a_whole_in_parts_of_which_one_is_lost() -> None:
    async with world(0) as nodes:
        (a, bus, pa), *_ = await lossy_world(nodes, 1)
        for number in range(1200):
            client(a, f"u{number}", "doc:1")
        bus.loses = lambda channel, data: b'"whole",0,1,' in data
        b = nodes.make()
        setup(b)
        pb, _ = follow(b)
        await b.start()
        await nodes.pass_time(3)
        assert pb.unsynced == (cluster_of(a).id,)
        assert pb.count("doc:1") < 1200
        bus.loses = lambda channel, data: False
        await nodes.pass_time(3)
        assert pb.count("doc:1") == pa.count("doc:1") == 1200
        assert pb.unsynced == ()


async def test_changes_that_overtake_the_whole_wait_for_it() -> None:
    async with world(0) as nodes:
        (a, bus, pa), *_ = await lossy_world(nodes, 1)
        client(a, "ann", "doc:1")
        held: list[tuple[str, bytes]] = []

        def hold(channel: str, data: bytes) -> bool:
            if b'"whole"' in data:
                held.append((channel, data))
                return True
            return False

        bus.loses = hold
        b = nodes.make()
        setup(b)
        pb, _ = follow(b)
        await b.start()
        await turns()
        bob = client(a, "bob", "doc:1")
        await turns()
        client(a, "cat", "doc:1")
        bob.disconnect()
        await turns()
        assert pb.rooms == ()
        bus.loses = lambda channel, data: False
        for channel, data in held[:1]:
            bus.publish(channel, data)
        await turns()
        assert users(pb) == users(pa) == ["ann", "cat"]


@pytest.mark.parametrize("seed", range(6))
async def test_whatever_is_lost_in_the_end_all_agree(seed: int) -> None:
    """Clients come and go on three nodes, a third of all messages is lost, and then it is quiet."""
    chance = random.Random(seed)
    async with world(0, cluster_timeout_s=1000) as nodes:
        made = await lossy_world(nodes, 3)
        here: list[tuple[str, list[str], Client]] = []
        for _, bus, _ in made:
            bus.loses = lambda channel, data: b'"kind":"hello"' not in data and chance.random() < 0.3
        for _ in range(120):
            if here and chance.random() < 0.4:
                here.pop(chance.randrange(len(here)))[2].disconnect()
            else:
                user, rooms = f"u{chance.randrange(8)}", [f"doc:{chance.randrange(3)}" for _ in range(2)]
                here.append((user, rooms, client(chance.choice(made)[0], user, *rooms)))
            if chance.random() < 0.3:
                await nodes.pass_time(0.5)
        for _, bus, _ in made:
            bus.loses = lambda channel, data: False

        def truth() -> dict[str, set[str]]:
            rooms = {room for _, its_rooms, _ in here for room in its_rooms}
            return {room: {user for user, its_rooms, _ in here if room in its_rooms} for room in rooms}

        await agree(nodes, [presence for _, _, presence in made], truth)


async def test_other_nodes_cannot_make_it_grow_without_bound(quiet: Quiet) -> None:  # noqa: F811
    async with world(2, setup, max_presence_sockets=10) as nodes:
        a, b = nodes.servers
        pa, _ = follow(a)
        other = cluster_of(b).id
        quiet.expect("holds max_presence_sockets")
        pa._told(other, ["whole", 0, 0, True, [["doc:1", f"s{n}", f"u{n}", None] for n in range(10)]])
        assert pa.count("doc:1") == 10
        pa._told(other, ["changes", 1, [["doc:1", f"t{n}", f"t{n}", None] for n in range(10)]])
        assert pa.count("doc:1") == 10
        assert pa.refused == 10
        pa._told(other, ["whole", 9, 0, True, [["doc:1", f"s{n}", f"u{n}", None] for n in range(11)]])
        for number in range(1000):
            pa._told(other, ["changes", 100 + number, []])
        assert len(pa._sources[other].waiting) <= 100


def size(*change: Any) -> int:
    return len(json.dumps(change, separators=(",", ":"), ensure_ascii=False).encode())


async def test_max_presence_bytes(quiet: Quiet) -> None:  # noqa: F811
    one = ["doc:1", "s0", "ä", {"color": "x" * 50}]
    async with world(2, setup, max_presence_bytes=2 * size(*one)) as nodes:
        a, b = nodes.servers
        pa, told = follow(a)
        other = cluster_of(b).id
        number = 0

        def say(*changes: list[Any]) -> None:
            nonlocal number
            number += 1
            pa._told(other, ["changes", number, list(changes)])

        pa._told(other, ["whole", 0, 0, True, [one]])
        say(["doc:1", "s1", *one[2:]])
        assert (pa.refused, pa._size_bytes) == (0, 2 * size(*one))
        quiet.expect("holds max_presence_sockets or max_presence_bytes")
        say(["doc:1", "s2", "u", None])
        say(["doc:1", "s1", "ä", {"color": "x" * 51}])
        assert pa.refused == 2
        assert seen(pa) == {"doc:1": {"ä": {"s0": one[3], "s1": one[3]}}}
        # What goes or shrinks makes room.
        say(["doc:1", "s1", "ä", None])
        say(["doc:1", "s2", "u", None])
        assert seen(pa) == {"doc:1": {"ä": {"s0": one[3], "s1": None}, "u": {"s2": None}}}
        say(*(["doc:1", f"s{n}", None, None] for n in range(3)))
        assert (pa.rooms, pa._size_bytes, pa.refused) == ((), 0, 2)
        # Its own clients are of it too.
        everyone = [client(a, "ann", "doc:1", color="x" * 60) for _ in range(2)]
        assert pa.refused == 3
        assert list(pa.members("doc:1")[0].sockets) == [everyone[0].id]
        # A whole in many parts of which each fits.
        for part in range(50):
            pa._told(other, ["whole", 100, part, part == 49, [["doc:2", f"t{part}", "v", "y" * 20]]])
        assert pa._size_bytes <= 2 * size(*one)
        assert pa.unsynced == ()
        await b.stop()
        await turns()
        everyone[0].disconnect()
        assert (pa._size_bytes, pa._size, pa._waiting_bytes) == (0, 0, 0)
        assert ("leave", "doc:2", "v") in told


async def test_what_waits_for_other_nodes_is_bounded_for_all_of_them_together() -> None:
    """``max_presence_bytes``"""
    async with world(3, setup, max_presence_bytes=10_000) as nodes:
        a, b, c = nodes.servers
        pa, _ = follow(a)
        change = ["doc:1", "s", "u", "x" * 1_000]
        for io in (b, c):
            for number in range(20):
                pa._told(cluster_of(io).id, ["changes", 100 + number, [change, ["r" * 1_000, "s", None, None]]])
        assert 7_000 < pa._waiting_bytes <= 10_000
        for io in (b, c):
            pa._told(cluster_of(io).id, ["whole", 1_000, 0, True, []])
        assert pa._waiting_bytes == 0
        assert pa.unsynced == ()


async def test_big_names_travel_in_more_messages() -> None:
    """Rooms may be called anything, and many may change at once."""
    async with world(2, setup, max_envelope_bytes=10_000) as nodes:
        a, b = nodes.servers
        pa, pb = follow(a)[0], follow(b)[0]
        await turns()
        rooms = {"doc:" + "é" * 500 + str(number) for number in range(50)}
        client(a, "ann", *rooms)
        await turns()
        assert set(pb.rooms) == rooms
        pc, _ = follow(late := await nodes.join())
        await turns()
        assert set(pc.rooms) == set(pa.rooms) == rooms
        assert late.cluster is not None


async def test_what_makes_no_sense_is_refused(quiet: Quiet) -> None:  # noqa: F811
    async with world(2, setup) as nodes:
        a, b = nodes.servers
        pa, _ = follow(a)
        quiet.expect("asked for makes no sense")
        bad: list[list[Any]] = [
            [],
            ["changes"],
            ["changes", "1", []],
            ["changes", 1, 7],
            ["changes", 1, [["room"]]],
            ["changes", 1, [[1, 2, 3, 4]]],
            ["changes", 1, [["doc:1", "s", "u", b"no JSON"]]],
            ["whole", 1, 0, True],
            ["whole", 1, 0, True, [None]],
        ]
        for values in bad:
            cluster_of(b).say(TOPIC, *values)
        await turns()
        assert cluster_of(a).counters["bad_requests"] == len(bad)
        assert pa.rooms == ()
        pa._told("stranger", ["changes", 1, [["doc:1", "s", "u", None]]])
        assert not pa._sources.keys() - {cluster_of(b).id}
        # Two nodes that tell of the same socket, and one takes it back.
        pa._told(cluster_of(b).id, ["whole", 1, 0, True, [["doc:1", "s", "u", None]]])
        client(a, "ann", "doc:1")
        assert set(users(pa)) == {"u", "ann"}


async def test_no_node_can_take_another_ones_clients_out() -> None:
    async with world(3, setup) as nodes:
        a, b, c = nodes.servers
        pa, told = follow(a)
        ann = client(a, "ann", "doc:1")
        other = cluster_of(b).id
        pa._told(other, ["whole", 1, 0, True, [["doc:1", ann.id, "ann", None]]])
        pa._told(other, ["changes", 2, [["doc:1", ann.id, None, None]]])
        assert users(pa) == ["ann"]
        pc, _ = follow(c)  # which asks for all there is
        await turns()
        assert users(pc) == ["ann"]
        ann.disconnect()
        assert users(pa) == []
        assert told == [("join", "doc:1", "ann"), ("leave", "doc:1", "ann")]
