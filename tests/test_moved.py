"""Sessions stay where they are while nodes come and go, and are found there: none is lost, none is there twice."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from typing import Any

import pytest

from polysock_transports.errors import INTERRUPTED
from polysock_transports.moved import ids_at_home_with
from polysock_transports.placement import Node, Placement
from support.clients import Client, Quiet, quiet, turns, until
from support.nodes import Here, Nodes
from support.nodes import nodes as any_nodes
from support.rawhttp import Connection, request

__all__ = ["quiet"]

EDGES_OF_LIMITS = ("relay_settle_s", "relay_question_s", "max_relay_moved")

both_lanes = pytest.mark.parametrize("fast_lane", [True, False], ids=["taken over", "stream"])


# Sessions without a poll outlive the time until nodes are settled.
GRACE_S = 100.0
nodes = partial(any_nodes, disconnect_delay_s=GRACE_S)


async def open_sessions(made: Nodes, count: int, transport: str = "xhr") -> list[Client]:
    """Each at its home, whatever node it has reached first."""
    ids = [f"session{number}" for number in range(count)]
    return [
        await made.client(session_id, made[number % len(made.all)], transport) for number, session_id in enumerate(ids)
    ]


def held(here: Here) -> set[str]:
    return set(here.sockjs._gateway.store.ids())


def moved_to(here: Here, clients: list[Client]) -> list[Client]:
    return [one for one in clients if here.placement.home_of(one.session_id).id == here.node.id]


def questions(made: Nodes) -> int:
    return sum(here.relay.counters["questions"] for here in made)


async def speak(client: Client, through: Here, text: str) -> None:
    """A send and a poll by way of *through*."""
    body = json.dumps([text]).encode()
    answer = await request(through.base, "POST", f"{client.url}/xhr_send", body=body)
    assert answer.status == 204, (through.node, answer)
    answer = await request(through.base, "POST", f"{client.url}/xhr")
    assert answer.text == f'a["{text}"]\n', (through.node, answer)


@both_lanes
@pytest.mark.parametrize("is_settled", [False, True], ids=["at once", "settled"])
async def test_no_session_is_lost_when_a_node_joins(fast_lane: bool, is_settled: bool) -> None:
    async with nodes(2, fast_lane=fast_lane) as made:
        clients = await open_sessions(made, 24)
        before = [held(here) for here in made]
        assert all(before)
        new = await made.join()
        moved = moved_to(new, clients)
        assert 3 <= len(moved) <= 15
        if is_settled:
            # The nodes notice that something has changed at the next request of this kind.
            await request(new.base, "POST", f"/s/000/{made.session_id(new)}/xhr")
            made.clock.advance(new.relay.limits.relay_settle_s)
        for number, client in enumerate(clients):
            for here in made:
                await speak(client, here, f"{number} {here.node.id}")
        assert [held(here) for here in made][:2] == before
        assert len(held(new)) == int(is_settled)
        for here in made:
            assert not here.relay.counters["failed"]


async def test_when_all_know_of_a_change_each_node_is_asked_once_and_never_again() -> None:
    async with nodes(3) as made:
        clients = await open_sessions(made, 30)
        new = await made.join()
        moved = moved_to(new, clients)
        assert moved
        await made.client(made.session_id(new), new)
        made.clock.advance(new.relay.limits.relay_settle_s)
        before = questions(made)
        await speak(moved[0], new, "a")
        asked = questions(made)
        assert asked - before == 3
        for client in moved:
            await speak(client, new, "b")
            await speak(client, made[0], "c")
        # New sessions at home cost no question, and neither do sends to nobody.
        for _ in range(10):
            more = await made.client(made.session_id(new), new)
            more.abort()
            assert (
                await request(new.base, "POST", f"/s/000/{made.session_id(new)}/xhr_send", body=b"[]")
            ).status == 404
        assert questions(made) == asked


async def test_a_cluster_of_one_asks_nobody() -> None:
    async with nodes(1) as made:
        (here,) = made
        for client in await open_sessions(made, 3):
            await speak(client, here, "x")
            client.abort()
        assert not here.relay.counters


async def test_an_answer_is_remembered_while_the_session_lives() -> None:
    async with nodes(2) as made:
        clients = await open_sessions(made, 24)
        new = await made.join()
        client = moved_to(new, clients)[0]
        await speak(client, new, "a")
        asked = questions(made)
        assert asked
        for text in "bcd":
            await speak(client, new, text)
        assert questions(made) == asked
        # The session ends where it was held; who comes with its id opens a new one, at home.
        holder = next(here for here in made if client.session_id in held(here))
        holder.sockjs._gateway.store.get(client.session_id).close()
        answer = await request(new.base, "POST", f"{client.url}/xhr")
        assert answer.text == 'c[1000,"Normal closure"]\n'
        made.clock.advance(GRACE_S + 1)
        assert client.session_id not in held(holder)
        answer = await request(new.base, "POST", f"{client.url}/xhr")
        assert answer.text == "o\n"
        assert client.session_id in held(new)


async def looking_for_the_ended(made: Nodes) -> tuple[Client, Here]:
    """A client whose session has just ended where it was, and its home of now."""
    clients = await open_sessions(made, 24)
    new = await made.join()
    client = moved_to(new, clients)[0]
    await speak(client, new, "a")
    holder = next(here for here in made if client.session_id in held(here))
    holder.sockjs._gateway.store.get(client.session_id).close()
    made.clock.advance(GRACE_S + 1)
    return client, new


async def test_who_looks_for_a_session_that_has_just_ended_with_an_application_to_ask_is_told_to_come_back() -> None:
    from tornado.web import RequestHandler

    async with nodes(2, base_handler=RequestHandler) as made:
        client, new = await looking_for_the_ended(made)
        answer = await request(new.base, "POST", f"{client.url}/xhr")
        assert answer.text == f'c[{INTERRUPTED.code},"{INTERRUPTED.text}"]\n'
        answer = await request(new.base, "POST", f"{client.url}/xhr")
        assert answer.text == "o\n"


@both_lanes
async def test_an_application_that_fails_for_who_looks_for_a_session_that_has_just_ended_ends_its_connection(
    fast_lane: bool, quiet: Quiet
) -> None:
    """And no other: those to the node that was asked are good."""
    async with nodes(2, fast_lane=fast_lane) as made:
        client, new = await looking_for_the_ended(made)

        def broken(*_: Any) -> None:
            raise RuntimeError("broken on purpose")

        new.app.__init__ = broken
        quiet.expect("a request failed that another node did not answer")
        connection = await Connection.open(new.base)
        await connection.send("POST", f"{client.url}/xhr")
        assert await connection.at_eof()
        assert len(new.relay._pools) == 1
        connection.close()


@both_lanes
async def test_streams_of_moved_sessions_go_on(fast_lane: bool) -> None:
    async with nodes(2, fast_lane=fast_lane, response_limit_bytes=100) as made:
        clients = await open_sessions(made, 16, "xhr_streaming")
        new = await made.join()
        moved = moved_to(new, clients)
        assert moved
        for client in moved:
            # Each text ends the response; the next one is asked for at the new node.
            await client.send("x" * 100)
            assert await client.message() == "x" * 100
            await client.response_end()
            assert client.connection is not None
            client.connection.abort()
            client.connection, client.base = None, new.base
            await client.attach()
            assert await client.send("y") == 204
            assert await client.message() == "y"


async def test_sessions_are_found_after_the_node_that_knew_them_has_left() -> None:
    async with nodes(2) as made:
        clients = await open_sessions(made, 30)
        second = await made.join()
        for client in moved_to(second, clients):
            await speak(client, second, "a")
        third = await made.join()
        await second.stop()
        made.update()
        for client in clients:
            for here in (made[0], made[1], third):
                await speak(client, here, here.node.id)


async def test_sessions_of_a_node_that_died_are_nowhere() -> None:
    async with nodes(3) as made:
        clients = await open_sessions(made, 30)
        lost = held(made[2])
        assert lost
        await made[2].stop()
        made.update()
        for client in clients:
            if client.session_id in lost:
                answer = await request(made[0].base, "POST", f"{client.url}/xhr_send", body=b"[]")
                assert answer.status == 404
            else:
                await speak(client, made[0], "a")


async def test_a_node_that_does_not_know_yet_is_no_harm() -> None:
    """The first node has not heard of the new one, and sends the new one's clients to the old home."""
    async with nodes(2) as made:
        stale, old = made
        new = await made.join()
        session_id = next(
            f"s{number}"
            for number in range(1000)
            if new.placement.home_of(f"s{number}") == new.node
            and new.placement.earlier_homes(f"s{number}")[0] == old.node
        )
        stale.placement.update([stale.node, old.node])
        client = await made.client(session_id, new)
        await speak(client, stale, "a")
        await speak(client, old, "b")
        assert session_id in held(new)
        assert session_id not in held(old) | held(stale)


# -- limits


async def test_relay_settle_s() -> None:
    async with nodes(2) as made:
        clients = await open_sessions(made, 40)
        new = await made.join()
        moved = moved_to(new, clients)
        await speak(moved[0], new, "a")
        made.clock.advance(new.relay.limits.relay_settle_s - 0.001)
        before = new.relay.counters["questions"]
        await speak(moved[1], new, "b")
        # Asked for this one session.
        assert 1 <= new.relay.counters["questions"] - before <= 2
        assert not new.relay._moved_of(new.sockjs._gateway).is_complete
        made.clock.advance(0.001)
        await speak(moved[2], new, "c")
        assert new.relay._moved_of(new.sockjs._gateway).is_complete


async def test_relay_question_s() -> None:
    """A node that is stuck holds back nobody for long."""
    async with nodes(2) as made:
        stuck = made[0]
        new = await made.join()
        session_id = next(
            f"s{number}"
            for number in range(1000)
            if new.placement.home_of(f"s{number}") == new.node
            and new.placement.earlier_homes(f"s{number}") == [stuck.node]
        )
        # It takes connections and shakes hands, and then answers nothing.
        release = asyncio.Event()
        original = type(stuck.relay).serve

        async def later(handler: Any, route: Any) -> None:
            await release.wait()
            answering = original(stuck.relay, handler, route)
            if answering is not None:
                await answering

        stuck.relay.serve = later  # type: ignore[method-assign]
        connection = await Connection.open(new.base)
        await connection.send("POST", f"/s/000/{session_id}/xhr")
        await until(lambda: new.relay.counters["questions"] == 1)
        await turns()
        made.clock.advance(new.relay.limits.relay_question_s - 0.001)
        await turns()
        assert not held(new)
        made.clock.advance(0.001)
        assert (await connection.read_response()).text == "o\n"
        assert held(new) == {session_id}
        # All are asked for their lists, and the one that does not answer is asked again later, not by every request.
        made.clock.advance(new.relay.limits.relay_settle_s)
        other = next(one for one in (f"t{number}" for number in range(1000)) if new.placement.home_of(one) == new.node)
        before = new.relay.counters["questions"]
        await connection.send("POST", f"/s/000/{other}/xhr_send", body=b"[]")
        await until(lambda: new.relay.counters["questions"] == before + 2)
        await turns()
        made.clock.advance(new.relay.limits.relay_question_s)
        await turns()
        made.clock.advance(new.relay.limits.relay_question_s)
        assert (await connection.read_response()).status == 404
        release.set()
        connection.close()
        await turns()


async def test_max_relay_moved() -> None:
    for most in (1000, 2):
        async with nodes(2, max_relay_moved=most) as made:
            clients = await open_sessions(made, 40)
            new = await made.join()
            moved = moved_to(new, clients)
            assert len(moved) > 4
            made.clock.advance(1)
            await request(new.base, "POST", f"/s/000/{made.session_id(new)}/xhr")
            made.clock.advance(new.relay.limits.relay_settle_s)
            for client in moved:
                await speak(client, new, "a")
            known = new.relay._moved_of(new.sockjs._gateway)
            assert len(known) == min(most, len(moved))
            assert known.is_complete is (most > 2)


# -- the list


async def test_a_list_names_what_is_at_home_with_the_one_that_asks() -> None:
    placement = Placement(Node("node0000"))
    placement.update([Node("node0001"), Node("node0002")])
    ids = [f"s{number}" for number in range(1200)]
    lists = [await ids_at_home_with(f"node000{number}", ids, placement, 10_000) for number in range(3)]
    assert sorted(one for found in lists for one in found or ()) == sorted(ids)
    assert await ids_at_home_with("node0009", ids, placement, 10_000) == []
    size = len(lists[0] or ())
    assert await ids_at_home_with("node0000", ids, placement, size) == lists[0]
    assert await ids_at_home_with("node0000", ids, placement, size - 1) is None


async def test_a_node_that_is_not_known_gets_no_list(quiet: Quiet) -> None:
    """Its list would be empty, and sessions be lost for that."""
    async with nodes(2) as made:
        clients = await open_sessions(made, 30)
        new = await made.join()
        for here in made.all[:2]:
            here.placement.update([made[0].node, made[1].node])
        moved = moved_to(new, clients)
        await request(new.base, "POST", f"/s/000/{made.session_id(new)}/xhr")
        made.clock.advance(new.relay.limits.relay_settle_s)
        for client in moved:
            await speak(client, new, "a")
        assert not new.relay._moved_of(new.sockjs._gateway).is_complete
