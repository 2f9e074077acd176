"""Clients of all nodes, listed, counted, moved, called and let go, and nodes that call each other: with deadlines, and
with what was not reached told."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from polysock import AckTimeout, Server, SessionClosed
from polysock.asking import Replies
from polysock.backplane import BackplaneDown
from polysock.channels import topic_channel
from polysock.envelope import Answer, Ask
from polysock.packets import Event
from polysock.remote import RemoteSocket
from polysock.testing import Client
from support.clients import (
    Quiet,
    quiet,  # noqa: F401  # autouse: nothing here logs unannounced
    turns,
)
from support.clock import FakeClock
from support.cluster import World, bus_of, cluster_of, world


def joins_rooms(io: Server) -> None:
    io.on("connection", lambda socket: socket.join(*(socket.handshake.auth or {}).get("rooms", ())))


def client(io: Server, *rooms: str, **kwargs: Any) -> Client:
    return Client(io, auth={"rooms": list(rooms)}, **kwargs)


def ids_of(found: Any) -> set[str]:
    return {one.id for one in found}


def remote(io: Server, one: Client) -> RemoteSocket:
    found = io.sockets.socket(str(one.id))
    assert isinstance(found, RemoteSocket)
    return found


async def silent_third(nodes: World, asking: Any) -> Any:
    """The result of *asking* while the third node hangs, and how long it took."""
    bus_of(nodes.servers[2])._cut = True
    task = asyncio.ensure_future(asking)
    await turns()
    assert not task.done()
    nodes.clock.advance(5.1)
    return await task


# --- listing and counting ---------------------------------------------------------------------------------------------


async def test_fetch_sockets_of_all_nodes() -> None:
    async with world(3, joins_rooms) as nodes:
        a, b, c = nodes.servers
        ann = client(a, "red", headers={"User-Agent": "curl"}, query={"q": "1"}, ip="192.0.2.7", transport="xhr")
        bob, cat = client(b, "red", "blue"), client(c, "blue")
        (socket,) = a.sockets.clients()
        socket.data.update(name="ann", picture=b"\xff", nested={"a": [1]}, secret=object(), bad=float("nan"))
        for io in nodes.servers:
            found = await io.fetch_sockets()
            assert ids_of(found) == {ann.id, bob.id, cat.id}
            assert found.complete
            assert not found.truncated
            (one,) = [one for one in found if one.id == ann.id]
            assert one.node == cluster_of(a).id
            assert one.rooms == ("red",)
            assert one.data == {"name": "ann", "picture": b"\xff", "nested": {"a": [1]}}
            assert one.handshake is not None
            assert {name: one.handshake[name] for name in ("address", "query", "auth", "transport", "url")} == {
                "address": "192.0.2.7",
                "query": {"q": "1"},
                "auth": {"rooms": ["red"]},
                "transport": "xhr",
                "url": "/polysock",
            }
            assert one.handshake["headers"] == {"User-Agent": "curl"}
        assert ids_of(await c.to("red").fetch_sockets()) == {ann.id, bob.id}
        assert ids_of(await c.to("red", "blue").except_("red").fetch_sockets()) == {cat.id}
        assert ids_of(await c.to(str(ann.id)).fetch_sockets()) == {ann.id}
        assert await c.of("/other").fetch_sockets() == []


async def test_count_without_listing() -> None:
    async with world(3, joins_rooms) as nodes:
        a, b, c = nodes.servers
        for io, rooms in ((a, ["red"]), (a, []), (b, ["red"]), (c, ["blue"])):
            client(io, *rooms)
        assert await a.count() == await c.sockets.count() == 4
        found = await b.to("red").count()
        assert found == 2
        assert found.complete
        assert await b.except_("red").count() == 2
        assert len(b.sockets.clients()) == 1  # the call without await is of this node


async def test_rooms_of_all_nodes() -> None:
    async with world(2, joins_rooms) as nodes:
        a, b = nodes.servers
        ann, bob = client(a, "red"), client(b, "red", "blue")
        found = await a.manager.fetch_rooms()
        assert {key: set(ids) for key, ids in found.items()} == {
            "": {ann.id, bob.id},
            "/red": {ann.id, bob.id},
            "/blue": {bob.id},
        }
        assert found.complete
        assert set(a.manager.rooms) == {"", "/red"}
        assert ids_of(a.sockets.clients("red")) == {ann.id}


async def test_the_same_without_a_cluster() -> None:
    io = Server(clock=FakeClock())
    ann = Client(io)
    ann.on("ask", lambda: "yes")
    (found,) = await io.fetch_sockets()
    assert (found.id, found.node, found.rooms) == (ann.id, "", ())
    assert await io.count() == await io.sockets_join("red") == await io.to("red").sockets_leave("red") == 1
    assert await io.manager.fetch_rooms() == {"": [ann.id]}
    assert await found.call("ask") == "yes"
    assert found.emit("x")
    assert found.join("blue")
    assert io.sockets.clients("blue")
    assert found.leave("blue")
    assert io.server_side_emit("x") is False
    assert await io.server_side_call("x") == {}
    assert await io.disconnect_sockets(close=True) == 1
    assert ann.close_reason is not None
    assert not found.emit("x")
    assert not found.disconnect()
    with pytest.raises(SessionClosed):
        await found.call("ask")


# --- moving and letting go --------------------------------------------------------------------------------------------


async def test_join_leave_and_disconnect_of_others_clients() -> None:
    async with world(3, joins_rooms) as nodes:
        a, b, c = nodes.servers
        ann, bob, cat = client(a, "red"), client(b, "red"), client(c, "blue")
        joined = await c.to("red").sockets_join("green", "gold")
        assert joined == 2
        assert joined.complete
        assert c.to("green").emit("x") == 0
        await turns()
        assert [len(one.take()) for one in (ann, bob, cat)] == [1, 1, 0]
        assert await a.to("green").except_(str(ann.id)).sockets_leave("green") == 1
        assert await a.to("green").count() == 1
        assert await a.sockets_join("all") == 3
        assert await a.sockets_leave("all") == 3
        assert await a.to("all").count() == 0
        assert await c.to("gold").disconnect_sockets() == 2
        assert (ann.connected, bob.connected, cat.connected) == (False, False, True)
        assert ann.close_reason is None
        assert await a.disconnect_sockets(close=True) == 1
        assert cat.close_reason is not None
        with pytest.raises(ValueError, match="not empty"):
            await a.sockets_join("")


async def test_one_client_of_another_node() -> None:
    async with world(2, joins_rooms) as nodes:
        a, b = nodes.servers
        ann, bob = client(b), client(b)
        found = remote(a, ann)
        assert found.rooms is None
        assert (found.join("red"), found.join("blue"), found.leave("blue"), found.emit("hi", 1)) == (True,) * 4
        await turns()
        assert [one.id for one in b.sockets.clients("red")] == [ann.id]
        assert b.sockets.clients("blue") == []
        ann.pause()
        found.volatile.emit("lost")
        await turns()
        ann.resume()
        assert ann.take() == [("hi", 1)]
        assert found.disconnect()
        await turns()
        assert not ann.connected
        assert ann.close_reason is None
        remote(a, bob).disconnect(close=True)
        await turns()
        assert bob.close_reason is not None
        with pytest.raises(ValueError, match="reserved"):
            found.emit("connect")
        with pytest.raises(ValueError, match="not empty"):
            found.join("")


async def test_a_room_of_the_same_name_is_not_touched() -> None:
    async with world(2, joins_rooms) as nodes:
        a, b = nodes.servers
        ann = client(b)
        fan = client(b, str(ann.id))
        found = remote(a, ann)
        found.join("red")
        found.disconnect()
        await turns()
        assert fan.connected
        assert b.sockets.clients("red") == []


# --- acks -------------------------------------------------------------------------------------------------------------


async def test_call_collects_acks_of_all_nodes_and_tells_them_apart() -> None:
    async with world(3, joins_rooms) as nodes:
        a, b, c = nodes.servers
        ann, bob, cat, dan = client(a, "red"), client(b, "red"), client(c, "red"), client(c, "blue")
        ann.on("vote", lambda *args: ["yes", *args])
        bob.on("vote", lambda *args: b"\x00yes")
        bob_id, cat_id = bob.id, cat.id
        voting = asyncio.ensure_future(a.to("red").call("vote", {"on": b"\xff"}))
        await cat.wait("vote")
        cat.disconnect()
        silent = client(b, "red")  # came later, and was not asked
        result = await voting
        assert result.answers == {ann.id: ["yes", {"on": b"\xff"}], bob_id: b"\x00yes"}
        assert result.gone == (cat_id,)
        assert result.missing == result.unreached == ()
        assert dan.take() == silent.take() == []
        result = await a.call("vote", timeout=0.05)
        assert set(result.missing) == {dan.id, silent.id}
        assert set(result.answers) == {ann.id, bob_id}
        assert not result.complete
        for bad in (float("nan"), object()):
            with pytest.raises((TypeError, ValueError)):
                await a.call("vote", bad)
        assert cluster_of(a).asking.pending == 0


async def test_call_of_one_client_elsewhere() -> None:
    async with world(2) as nodes:
        a, b = nodes.servers
        ann = client(b)
        ann.on("add", lambda x, y: x + y)
        found = remote(a, ann)
        assert await found.call("add", 1, 2) == 3
        with pytest.raises(AckTimeout):
            await found.call("silence", timeout=0.02)
        asking = asyncio.ensure_future(found.call("silence"))
        await ann.wait("silence")
        await ann.wait("silence")
        ann.disconnect()
        with pytest.raises(SessionClosed):
            await asking
        with pytest.raises(SessionClosed):
            await found.call("add", 1, 2)
        bus_of(a)._cut = True
        with pytest.raises(BackplaneDown):
            await found.call("add", 1, 2)


# --- deadlines, and what was not reached ------------------------------------------------------------------------------


async def test_a_node_that_does_not_answer_is_told_and_waited_for_no_longer_than_the_deadline() -> None:
    async with world(3, joins_rooms, cluster_timeout_s=100) as nodes:
        a, b, c = nodes.servers
        ann, bob = client(a, "red"), client(b, "red")
        client(c, "red")
        lost = (cluster_of(c).id,)
        found = await silent_third(nodes, a.fetch_sockets())
        assert (ids_of(found), found.unreached, found.complete) == ({ann.id, bob.id}, lost, False)
        number = await silent_third(nodes, a.to("red").count())
        assert (number, number.unreached) == (2, lost)
        joined = await silent_third(nodes, a.sockets_join("x"))
        assert (joined, joined.unreached) == (2, lost)
        rooms = await silent_third(nodes, a.manager.fetch_rooms())
        assert rooms.unreached == lost
        assert not rooms.complete


async def test_call_bounds_the_wait_for_a_node_beyond_that_for_its_clients() -> None:
    async with world(3) as nodes:
        a, b, c = nodes.servers
        ann, bob = client(a), client(b)
        for one in (ann, bob):
            one.on("x", lambda: 1)
        bus_of(c)._cut = True
        task = asyncio.ensure_future(a.call("x", timeout=3))
        await turns()
        nodes.clock.advance(5.1)
        await turns()
        assert not task.done()
        nodes.clock.advance(3)
        result = await task
        assert result.answers == {ann.id: 1, bob.id: 1}
        assert result.unreached == (cluster_of(c).id,)
        assert not result.complete


async def test_a_node_that_leaves_is_not_waited_for() -> None:
    async with world(3) as nodes:
        a, _, c = nodes.servers
        bus_of(c)._cut = True
        task = asyncio.ensure_future(a.count())
        await turns()
        bus_of(c)._cut = False
        its_id = cluster_of(c).id
        await c.stop()
        found = await task
        assert (found, found.unreached) == (0, (its_id,))


async def test_an_outage_of_our_own_reaches_nobody_and_waits_for_nobody() -> None:
    async with world(3) as nodes:
        a = nodes.servers[0]
        ann = client(a)
        bus_of(a).cut = True
        found = await a.fetch_sockets()
        assert ids_of(found) == {ann.id}
        assert set(found.unreached) == set(cluster_of(a).nodes)
        assert not a.server_side_emit("x")


async def test_stop_ends_what_waits() -> None:
    async with world(2) as nodes:
        a, b = nodes.servers
        bus_of(b)._cut = True
        task = asyncio.ensure_future(a.count())
        await turns()
        await a.stop()
        assert (await task).unreached == (cluster_of(b).id,)


async def test_requests_are_bounded() -> None:
    async with world(2, max_cluster_requests=2) as nodes:
        a, b = nodes.servers
        gate = asyncio.Event()
        b.on_server("wait", gate.wait)
        tasks = [asyncio.ensure_future(a.server_side_call("wait")) for _ in range(2)]
        await turns()
        third = await a.count()
        assert third.unreached == (cluster_of(b).id,)
        assert cluster_of(a).counters["requests_refused"] == 1
        # And the other node is at work on no more than that.
        a.server_side_emit("wait")
        await turns()
        assert cluster_of(b).counters["requests_not_answered"] == 1
        gate.set()
        assert [(await task)[cluster_of(b).id] for task in tasks] == [True, True]
        assert (await a.count()).complete


# --- big answers ------------------------------------------------------------------------------------------------------


async def test_a_big_answer_comes_in_parts() -> None:
    async with world(2, max_envelope_bytes=20_000) as nodes:
        a, b = nodes.servers
        for number in range(450):
            client(b)
            if number % 50 == 0:
                b.sockets.clients()[-1].data["text"] = "x" * 10_000
        before = bus_of(a).counters["received"]
        found = await a.fetch_sockets()
        assert len(ids_of(found)) == 450
        assert found.complete
        assert bus_of(a).counters["received"] - before > 10


async def test_an_answer_beyond_its_bounds_is_cut_and_says_so() -> None:
    async with world(2, max_answer_items=10) as nodes:
        a, b = nodes.servers
        for _ in range(11):
            client(b)
        found = await a.fetch_sockets()
        assert (len(found), found.truncated, found.unreached, found.complete) == (10, True, (), False)
        assert await a.count() == 11
        for one in b.sockets.clients()[:1]:
            one.disconnect()
        assert (await a.fetch_sockets()).complete


async def test_an_answer_beyond_its_bytes_is_cut_and_says_so() -> None:
    async with world(2, max_envelope_bytes=5_000, max_answer_bytes=30_000) as nodes:
        a, b = nodes.servers
        for _ in range(50):
            client(b)
            b.sockets.clients()[-1].data["text"] = "x" * 1_000
        found = await a.fetch_sockets()
        assert 10 < len(found) < 30
        assert found.truncated
        for one in b.sockets.clients()[1:]:
            one.disconnect()
        b.sockets.clients()[0].data["text"] = "x" * 6_000  # more than any message may be
        found = await a.fetch_sockets()
        assert (found, found.truncated) == ([], True)


async def test_answers_that_are_lost_strange_or_late_are_told() -> None:
    async with world(2) as nodes:
        a, b = nodes.servers
        other = cluster_of(b).id

        async def answered(*answers: Answer) -> Replies:
            request = cluster_of(a).asking.request(Event("/", "nobody knows this"), (other,))
            request.send()
            for answer in answers:
                number = request._number
                cluster_of(a).asking.answered(Answer(answer.sender, 0, number, *_rest(answer)), 100)
            nodes.clock.advance(6)
            return await request.replies()

        def _rest(answer: Answer) -> tuple[Any, ...]:
            return answer.values, answer.part, answer.is_last

        assert await answered(Answer(other, 0, 0, [1])) == Replies({other: [1]})
        part = await answered(Answer(other, 0, 0, [1], 0, is_last=False), Answer(other, 0, 0, [3], 2))
        assert part == Replies({other: [1, 3]}, (other,))
        assert await answered(Answer("stranger", 0, 0, [1])) == Replies({}, (other,))
        twice = await answered(Answer(other, 0, 0, [1]), Answer(other, 0, 0, [2]))
        assert twice == Replies({other: [1]})
        cluster_of(a).asking.answered(Answer(other, 0, 12345, [1]), 100)
        assert cluster_of(a).counters["late_answers"] == 1


async def test_an_answer_that_makes_no_sense_is_none() -> None:
    async with world(2) as nodes:
        a, b = nodes.servers
        for name, bad in (
            ("count", ["many"]),
            ("count", []),
            ("fetch", [["id"]]),
            ("fetch", [[1, [], {}, {}]]),
            ("rooms", [[1, []]]),
            ("call", [["id", "other", 1]]),
            ("call", [["id", "answer"]]),
        ):
            cluster_of(b).asking.answerers[name] = lambda ask, bad=bad: bad  # type: ignore[misc]
            asks: dict[str, Any] = {
                "count": a.count,
                "fetch": a.fetch_sockets,
                "rooms": a.manager.fetch_rooms,
                "call": lambda: a.call("x"),
            }
            assert (await asks[name]()).unreached == (cluster_of(b).id,), (name, bad)


_SENSELESS: list[tuple[str, list[Any]]] = [
    ("join", []),
    ("join", [None]),
    ("join", [None, "red"]),
    ("join", [None, [""]]),
    ("join", [None, [7]]),
    ("join", [None, ["red"], 1]),
    ("join", [{}, ["red"]]),
    ("leave", [None, None]),
    ("leave", [None, [[]]]),
    ("dismiss", [None, "yes"]),
    ("dismiss", [[], True]),
    ("call", []),
    ("call", [None, "x"]),
    ("call", [None, "x", "soon"]),
    ("call", [None, ["x"], 1]),
    ("call", [None, "disconnect", 1]),
    ("call", [[], "x", 1]),
    ("server", []),
    ("server", [{}]),
    ("topic", []),
    ("topic", [[]]),
    ("topic", [topic_channel("/", "doc:*"), "changes", 1, 7]),
]


async def test_requests_that_make_no_sense_hurt_nobody(
    quiet: Quiet,  # noqa: F811
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with world(2, joins_rooms) as nodes:
        a, b = nodes.servers
        b.sockets.presence("doc:*")
        ann = client(b, "red")
        quiet.expect(f"what node {cluster_of(a).id} asked for makes no sense")
        for name, args in _SENSELESS:
            cluster_of(b).asking.asked(Ask(cluster_of(a).id, 0, Event("/", name, args), 1))
        cluster_of(b).asking.asked(Ask(cluster_of(a).id, 0, Event("/", "unknown"), 1))
        await turns()
        # They may be as many as they like, and there is nothing in them for whoever looks after this node.
        (told,) = [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]
        assert told.exc_info is None
        assert cluster_of(b).counters["bad_requests"] == len(_SENSELESS)
        assert cluster_of(b).counters["requests_not_answered"] == 1
        assert b.sockets.clients()[0].rooms == ("red",)
        assert ann.take() == []
        assert await a.count() == 1


# --- nodes ------------------------------------------------------------------------------------------------------------


async def test_servers_call_each_other(quiet: Quiet) -> None:  # noqa: F811
    async with world(3) as nodes:
        a, b, c = nodes.servers
        heard: list[Any] = []
        a.on_server("config", lambda *args: heard.append(("a", *args)))
        b.on_server("config", lambda *args: heard.append(("b", *args)))

        @c.on_server("config")
        async def config(*args: Any) -> str:
            heard.append(("c", *args))
            return "done"

        assert a.server_side_emit("config", {"x": b"\xff"})
        await turns()
        assert heard == [("b", {"x": b"\xff"}), ("c", {"x": b"\xff"})]  # never the sender itself
        result = await a.server_side_call("config", 1)
        assert result == {cluster_of(b).id: None, cluster_of(c).id: "done"}
        assert result.complete

        a.on_server("fail", lambda: 1 / 0)
        b.on_server("fail", lambda: object())
        quiet.expect("the handler of the server event 'fail' failed")
        quiet.expect("the answer of the handler of the server event 'fail' cannot travel")
        assert await c.server_side_call("fail") == {
            cluster_of(a).id: {"error": "Internal error"},
            cluster_of(b).id: {"error": "Internal error"},
        }
        other = await c.of("/other").server_side_call("config")
        assert set(map(str, other.values())) == {"{'error': 'No handler for this event'}"}
        for bad in (float("nan"), object()):
            with pytest.raises((TypeError, ValueError)):
                a.server_side_emit("config", bad)


async def test_a_server_that_does_not_answer_in_the_time_given() -> None:
    async with world(2) as nodes:
        a, b = nodes.servers
        gate = asyncio.Event()
        b.on_server("wait", gate.wait)
        task = asyncio.ensure_future(a.server_side_call("wait", timeout=0.5))
        await turns()
        nodes.clock.advance(0.6)
        result = await task
        assert (result, result.unreached) == ({}, (cluster_of(b).id,))
        gate.set()
        await turns()
        assert cluster_of(a).counters["late_answers"] == 1
