"""The relay where things go wrong: clients that leave or stall, nodes that die, strangers, hostile requests, limits."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tornado.httpserver import HTTPServer as TornadoServer
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler

from polysock_transports import relaywire
from polysock_transports.errors import ABNORMAL_CLOSURE, INTERRUPTED, StateError
from polysock_transports.placement import Node, Placement
from polysock_transports.relay import Relay
from support.clients import Client, Quiet, quiet, turns, until
from support.nodes import SECRET, Here, Nodes, nodes
from support.rawhttp import Connection, HandshakeRefused, Response, WireError, WireSocket, request

__all__ = ["quiet"]

EDGES_OF_LIMITS = (
    "max_relay_connections",
    "max_relay_handshakes",
    "relay_idle_s",
    "relay_timeout_s",
    "relay_whole_bytes",
)

both_lanes = pytest.mark.parametrize("fast_lane", [True, False], ids=["taken over", "stream"])
both_ways = pytest.mark.parametrize("tcp", [False, True], ids=["unix", "tcp"])


def lane_connections(here: Here) -> list[Any]:
    return [one for gateway in here.gateways for one in gateway.lane._connections]


def of_clients(here: Here) -> list[Any]:
    """Those by which no other node passes requests on, or asks for sessions."""
    return [one for one in lane_connections(here) if not one.is_relayed]


async def sockjs(made: Nodes, home: Here, through: Here, transport: str = "xhr", **named: Any) -> Client:
    """A client of SockJS whose session is at *home*, and whose requests go to *through*."""
    return await Client(through.base, transport, session_id=made.session_id(home), **named).open()


async def parked(client: Client, home: Here) -> None:
    """Have a poll of *client* wait."""
    await client.attach()
    await until(lambda: home.sessions[-1].attached)


async def engine_sid(here: Here) -> str:
    answer = await request(here.base, "GET", "/e/?EIO=4&transport=polling")
    return str(json.loads(answer.text[1:])["sid"])


async def upgraded(owner: Here, through: Here) -> WireSocket:
    """A WebSocket that has taken over a session of *owner*, by way of *through*."""
    sid = await engine_sid(owner)
    socket = await WireSocket.connect(through.base, f"/e/?EIO=4&transport=websocket&sid={sid}")
    await socket.send_text("2probe")
    assert await socket.recv_text() == "3probe"
    await socket.send_text("5")
    await socket.send_text("4hello")
    assert await socket.recv_text() == "4hello"
    return socket


def reset(connection: Connection) -> None:
    """Leave with an RST."""
    sock = connection.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.abort()


async def take_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """What the node ``node0001`` does before it answers."""
    greeting = relaywire.greeting("node0001", relaywire.nonce())
    writer.write(greeting)
    answer = await reader.readexactly(relaywire.ANSWER_BYTES)
    writer.write(relaywire.listener_proof(SECRET, greeting, answer))
    await reader.readuntil(b"\r\n\r\n")


def is_there(path: str) -> bool:
    return Path(path).exists()


def listener_that(says: Any) -> Any:
    """A connection handler that greets with what *says* makes of an id, and reads on."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await says(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    return serve


async def listens(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """To all that comes, and says nothing."""
    await reader.read()


# -- which way, and which lane


@both_ways
@both_lanes
async def test_relayed_requests_ride_the_fast_lane_on_both_sides(tcp: bool, fast_lane: bool) -> None:
    async with nodes(2, tcp=tcp, fast_lane=fast_lane) as made:
        wrong, owner = made
        async with await sockjs(made, owner, wrong) as client:
            await parked(client, owner)
            relayed, direct = ({one.is_relayed for one in lane_connections(here)} for here in (owner, wrong))
            assert relayed == ({True} if fast_lane else set())
            assert (False in direct) is fast_lane
            assert await client.send("a") == 204
            assert await client.message() == "a"
            assert bool(owner.relay.placement.own.tcp) is tcp


async def test_connections_are_kept_and_used_again() -> None:
    async with nodes(2) as made:
        wrong, owner = made
        async with await sockjs(made, owner, wrong) as client:
            for number in range(20):
                await client.send(str(number))
                assert await client.message() == str(number)
            assert len(wrong.relay._pools) <= 2
        # Polls that come again, of two clients by turns on the same connections.
        async with await sockjs(made, owner, wrong) as one, await sockjs(made, owner, wrong) as two:
            for number in range(10):
                for client, name in ((one, "one"), (two, "two"), (two, "again")):
                    await client.send(f"{name} {number}")
                    assert await client.message() == f"{name} {number}"
        # One for each request that is not answered yet.
        clients = [await sockjs(made, owner, wrong) for _ in range(5)]
        for client in clients:
            await client.attach()
        await until(lambda: sum(session.attached for session in owner.sessions) == 5)
        assert len(wrong.relay._pools) >= 5
        for client in clients:
            client.abort()


async def test_polls_come_again_on_the_connection_that_they_had() -> None:
    """There the owner knows them to the byte."""
    async with nodes(2) as made:
        wrong, owner = made
        clients = [await sockjs(made, owner, wrong) for _ in range(4)]

        async def parked_on() -> dict[str, Any]:
            for client in clients:
                await client.attach()
            await until(lambda: all(session.attached for session in owner.sessions))
            (pool,) = wrong.relay._pools._pools.values()
            assert not pool.idle_of.keys() & {client.session_id for client in clients}
            return {one.client: one for one in pool.all if one.client}

        before = await parked_on()
        assert before.keys() == {client.session_id for client in clients}
        for order in (1, -1):
            for connection in owner.made:
                connection.send("x")
            for client in clients[::order]:
                assert await client.message() == "x"
            assert await parked_on() == before
        # Where it is gone, or another's, any will do.
        for connection in owner.made:
            connection.send("y")
        for client in clients:
            assert await client.message() == "y"
        before[clients[0].session_id].drop()
        for client in clients[1:]:
            await client.send("z")
            await client.message()
        after = await parked_on()
        assert after.keys() == before.keys()
        for client in clients:
            client.abort()


async def test_polls_that_come_again_are_passed_on_again_where_their_node_is() -> None:
    """The node in front knows them to the byte, and looks anew where the session is."""
    async with nodes(3) as made:
        wrong, owner, third = made
        made.update(third)  # as if it had not come yet
        made.clock.advance(wrong.relay.limits.relay_settle_s)
        ids = (made.session_id(owner) for _ in range(1000))
        session_id = next(one for one in ids if third.placement.home_of(one).id == third.node.id)
        client = await made.client(session_id, wrong)
        served = []
        for text in ("a", "b", "c"):
            await parked(client, owner)
            (connection,) = of_clients(wrong)
            served.append(connection._again)
            owner.made[-1].send(text)
            assert await client.message() == text
        assert served == [served[0]] * 3
        assert served[0] is not None
        assert wrong.relay.counters["relayed"] >= 4
        made.update()  # its home is another node now, which asks the one that holds it
        await client.send("d")
        assert await client.message() == "d"
        assert third.relay.counters["moved"] == 1
        # And where nobody holds it, it is opened.
        for here in made.all:
            here.placement.update([here.node])
        assert await client.frame() == "o"
        assert session_id in wrong.sockjs._gateway.store.ids()


async def test_many_requests_at_once_open_their_connections_in_turn() -> None:
    """A listener lets few knock at one time; none of these may fail for that."""
    async with nodes(2, max_relay_handshakes=8) as made:
        wrong, owner = made
        clients = [Client(wrong.base, "xhr", session_id=made.session_id(owner)) for _ in range(60)]
        await asyncio.gather(*(client.attach() for client in clients))
        assert [await client.frame() for client in clients] == ["o"] * 60
        assert not owner.relay.counters["refused"]
        assert not wrong.relay.counters["failed"]
        for client in clients:
            client.abort()


# -- slow and leaving clients

HIGH_BYTES = 20_000


@both_lanes
async def test_a_slow_reader_holds_back_the_node_that_sends(fast_lane: bool) -> None:
    sizes = {"pipe_high_bytes": HIGH_BYTES, "read_chunk_bytes": 4096, "queue_max_bytes": 10**9}
    async with nodes(2, fast_lane=fast_lane, response_limit_bytes=10**9, **sizes) as made:
        wrong, owner = made
        async with await sockjs(made, owner, wrong, "xhr_streaming") as client:
            assert client.connection is not None
            client.connection.writer.transport.pause_reading()
            texts = [str(number) + "x" * 50_000 for number in range(400)]
            session = owner.sessions[0]
            for text in texts:
                owner.made[-1].send(text)
                await turns(2)
            await until(lambda: session.queued_messages > 20)
            # The node between keeps no more than its mark, one read, and what one connection's buffers hold.
            (passing,) = [one._answer for pool in wrong.relay._pools._pools.values() for one in pool.all if one._answer]
            assert passing._exchange.backlog < HIGH_BYTES + 2 * 4096
            client.connection.writer.transport.resume_reading()
            received: list[str] = []
            while len(received) < len(texts):
                frame = await client.connection.read_until(b"\n")
                received += json.loads(frame[1:])
            assert received == texts
            assert not session.queued_messages


@both_lanes
@pytest.mark.parametrize("leave", [reset, Connection.abort, Connection.close], ids=["reset", "abort", "close"])
@pytest.mark.parametrize("transport", ["xhr", "xhr_streaming", "jsonp"])
async def test_the_owner_learns_at_once_that_a_client_left(transport: str, leave: Any, fast_lane: bool) -> None:
    async with nodes(2, fast_lane=fast_lane) as made:
        wrong, owner = made
        client = await sockjs(made, owner, wrong, transport)
        if transport != "xhr_streaming":
            await parked(client, owner)
        assert client.connection is not None
        leave(client.connection)
        await until(lambda: owner.made[-1].closes == [INTERRUPTED])
        assert (499 if transport != "xhr_streaming" else 200, "127.0.0.1") in [line[:2] for line in wrong.logged]


async def test_a_client_that_leaves_while_nodes_connect_is_forgotten() -> None:
    async with nodes(2) as made:
        wrong, owner = made
        silent = await asyncio.start_unix_server(listener_that(listens), owner.node.unix + "x")
        moved = Node(owner.node.id, owner.node.joined_ms, "here", unix=owner.node.unix + "x")
        wrong.placement.update([wrong.node, moved])
        connection = await Connection.open(wrong.base)
        await connection.send("POST", f"/s/000/{made.session_id(owner)}/xhr")
        await until(lambda: len(wrong.relay._pools) == 1)
        connection.abort()
        await until(lambda: not len(wrong.relay._pools))
        assert not wrong.relay.counters["outages"]
        silent.close()
        await turns()


# -- WebSockets


@both_ways
@both_lanes
async def test_a_tunnel_carries_any_bytes_in_both_directions(fast_lane: bool, tcp: bool) -> None:
    async with nodes(2, fast_lane=fast_lane, tcp=tcp, compression=False) as made:
        wrong, owner = made
        async with await upgraded(owner, wrong) as socket:
            texts = ["4" + str(number) + "\u00fc" * size for number, size in enumerate((0, 1, 200, 70_000, 300_000))]
            for text in texts:
                await socket.send_text(text)
            assert [await socket.recv_text() for _ in texts] == texts
            assert await socket.close(3000, "bye") == (3000, "bye")
        await until(lambda: len(owner.made[-1].closes) == 1)
        assert owner.made[-1].closes[0].code == 3000
        await until(lambda: not len(wrong.relay._pools))


@both_lanes
async def test_a_tunnel_goes_no_faster_than_its_ends(fast_lane: bool) -> None:
    sizes = {"pipe_high_bytes": HIGH_BYTES, "read_chunk_bytes": 4096, "queue_max_bytes": 10**9}
    async with nodes(2, fast_lane=fast_lane, **sizes) as made:
        wrong, owner = made
        async with await upgraded(owner, wrong) as socket:
            (connection,) = next(iter(wrong.relay._pools._pools.values())).all
            pipe = connection._answer._pipe
            socket.connection.writer.transport.pause_reading()
            texts = ["4" + str(number) + "x" * 50_000 for number in range(400)]
            for text in texts:
                owner.made[-1].send(text[1:])
                await turns(2)
            await until(lambda: owner.sessions[0].queued_messages > 20)
            assert pipe.backlog < HIGH_BYTES + 2 * 4096
            socket.connection.writer.transport.resume_reading()
            assert [await socket.recv_text() for _ in texts] == texts
            # And the other way: an owner that does not read.
            received = len(owner.made[-1].messages)
            owner.sessions[0]._transport.pause()
            sending = asyncio.ensure_future(_send_all(socket, texts))
            await until(lambda: connection.backlog > HIGH_BYTES)
            await turns(50)
            assert connection.backlog < HIGH_BYTES + 2 * 4096
            owner.sessions[0]._transport.resume()
            for text in texts:
                assert await socket.recv_text() == text
            await sending
            assert len(owner.made[-1].messages) == received + len(texts)


async def _send_all(socket: WireSocket, texts: list[str]) -> None:
    for text in texts:
        await socket.send_text(text)


@both_lanes
@pytest.mark.parametrize("leave", [reset, Connection.abort, Connection.close], ids=["reset", "abort", "close"])
async def test_the_owner_learns_that_a_websocket_left(leave: Any, fast_lane: bool) -> None:
    async with nodes(2, fast_lane=fast_lane) as made:
        wrong, owner = made
        socket = await upgraded(owner, wrong)
        leave(socket.connection)
        await until(lambda: owner.made[-1].closes == [ABNORMAL_CLOSURE])
        await until(lambda: not len(wrong.relay._pools))


async def test_what_a_websocket_said_last_still_arrives() -> None:
    async with nodes(2) as made:
        wrong, owner = made
        socket = await upgraded(owner, wrong)
        await socket.send_text("4last")
        await socket.send_close(3002, "words")
        socket.connection.close()
        await until(lambda: len(owner.made[-1].closes) == 1)
        assert owner.made[-1].messages[-1] == "last"
        assert owner.made[-1].closes[0].code == 3002


@pytest.mark.parametrize("is_in_time", [True, False])
async def test_what_waits_for_a_slow_owner_has_its_time_and_leaves_no_timer(is_in_time: bool) -> None:
    async with nodes(2, pipe_high_bytes=10**9) as made:
        wrong, owner = made
        socket = await upgraded(owner, wrong)
        (connection,) = next(iter(wrong.relay._pools._pools.values())).all
        owner.sessions[0]._transport.pause()
        sending = asyncio.ensure_future(_send_all(socket, ["4" + "x" * 50_000] * 400))
        await until(lambda: connection.backlog)
        sending.cancel()
        await asyncio.wait((sending,))
        before = made.clock.timers
        socket.connection.abort()
        await until(lambda: made.clock.timers == before + 1)
        assert len(wrong.relay._pools) == 1
        if is_in_time:
            owner.sessions[0]._transport.resume()
            await until(lambda: not made.clock.timers)  # the session has ended too
        else:
            made.clock.advance(wrong.relay.limits.close_timeout_s)
        await until(lambda: not len(wrong.relay._pools))


@both_lanes
async def test_a_tunnel_ends_with_its_owner(fast_lane: bool) -> None:
    async with nodes(2, fast_lane=fast_lane) as made:
        wrong, owner = made
        async with await upgraded(owner, wrong) as socket:
            await owner.stop()
            assert await socket.connection.at_eof()
        await until(lambda: not len(wrong.relay._pools))


async def test_a_client_that_keeps_its_half_open_is_cut_after_a_while() -> None:
    async with nodes(2) as made:
        wrong, owner = made
        async with await upgraded(owner, wrong) as socket:
            await owner.stop()
            assert await socket.connection.at_eof()
            tunnels = list(made.clock._timers)
            assert tunnels
            made.clock.advance(wrong.relay.limits.close_timeout_s)
            await until(lambda: not len(wrong.relay._pools))


@both_lanes
async def test_a_refused_upgrade_is_answered_as_the_owner_does(fast_lane: bool) -> None:
    async with nodes(2, fast_lane=fast_lane, verify_ip=True, trusted_proxies=["127.0.0.1"]) as made:
        wrong, owner = made
        answers = []
        for base in (owner.base, wrong.base):
            connection = await Connection.open(owner.base)
            answer = await connection.request("GET", "/e/?EIO=4&transport=polling", headers=[("X-Real-IP", "10.0.0.1")])
            connection.close()
            sid = json.loads(answer.text[1:])["sid"]
            with pytest.raises(HandshakeRefused) as refused:
                await WireSocket.connect(base, f"/e/?EIO=4&transport=websocket&sid={sid}")
            answers.append((refused.value.response.status, refused.value.response.text))
        assert answers == [(403, "Forbidden")] * 2


async def test_upgrades_that_are_none_are_refused_before_they_are_passed_on() -> None:
    async with nodes(2) as made:
        wrong, owner = made
        url = f"/e/?EIO=4&transport=websocket&sid={await engine_sid(owner)}"
        with pytest.raises(HandshakeRefused) as refused:
            await WireSocket.connect(wrong.base, url, [("Sec-WebSocket-Version", "99")])
        assert refused.value.response.status == 426
        assert not wrong.relay.counters["relayed"]


@both_lanes
async def test_hixie_76_is_tunnelled_with_the_bytes_after_its_head(fast_lane: bool) -> None:
    async with nodes(2, fast_lane=fast_lane, draft76=True) as made:
        wrong, owner = made
        answers = []
        for base in (wrong.base, owner.base):
            sid = (await request(owner.base, "GET", "/socket.io/1/")).text.partition(":")[0]
            head = (
                f"GET /socket.io/1/websocket/{sid} HTTP/1.1\r\nHost: a.b\r\n"
                "Upgrade: WebSocket\r\nConnection: Upgrade\r\nOrigin: http://a.b\r\n"
                "Sec-WebSocket-Key1: 4 @1  46546xW%0l 1 5\r\n"
                "Sec-WebSocket-Key2: 12998 5 Y3 1  .P00\r\n\r\n^n:ds[4U"
            )
            connection = await Connection.open(base)
            await connection.write(head.encode())
            answer = await connection.read_head()
            assert answer.status == 101
            # The vector of draft-ietf-hybi-thewebsocketprotocol-00, section 1.2.
            assert await connection._exactly(16) == b"8jKS'y:G*Co,Wxa-"
            assert await connection._exactly(5) == b"\x001::\xff"
            answers.append(
                [(name, value.replace(sid, "SID")) for name, value in answer.headers.lines if name != "Date"]
            )
            connection.close()
        assert answers[0] == answers[1]


# -- nodes that die


async def unanswered(made: Nodes, wrong: Here, owner: Here) -> dict[str, tuple[int, bytes]]:
    """What clients of *owner*, which does not answer, are told by *wrong*."""
    engine, legacy = owner.node.id + "x" * 20, owner.node.id + "y" * 20
    sid = made.session_id(owner)
    asked = {
        "sockjs xhr": ("POST", f"/s/000/{sid}/xhr", b""),
        "sockjs jsonp": ("GET", f"/s/000/{sid}/jsonp?c=cb", b""),
        "sockjs stream": ("POST", f"/s/000/{sid}/xhr_streaming", b""),
        "sockjs send": ("POST", f"/s/000/{sid}/xhr_send", b'["a"]'),
        "engine poll": ("GET", f"/e/?EIO=4&transport=polling&sid={engine}", b""),
        "engine post": ("POST", f"/e/?EIO=4&transport=polling&sid={engine}", b"4a"),
        "0.9 poll": ("GET", f"/socket.io/1/xhr-polling/{legacy}", b""),
        "0.9 post": ("POST", f"/socket.io/1/xhr-polling/{legacy}", b"3:::a"),
        "0.9 leave": ("GET", f"/socket.io/1/xhr-polling/{legacy}?disconnect=1", b""),
        "plain poll": ("GET", f"/plain/poll?sid={legacy}&since=1", b""),
        "plain emit": ("POST", f"/plain/emit?sid={legacy}", b"[]"),
    }
    answers = {}
    for name, (method, path, body) in asked.items():
        answer = await request(wrong.base, method, path, body=body)
        answers[name] = (answer.status, answer.body)
    return answers


UNKNOWN_SID = (400, b'{"code":1,"message":"Session ID unknown"}')
CLOSED = 'c[1002,"Connection interrupted"]'
EXPECTED = {
    "sockjs xhr": (200, f"{CLOSED}\n".encode()),
    "sockjs jsonp": (200, b"/**/cb(" + json.dumps(CLOSED).encode() + b");\r\n"),
    "sockjs stream": (200, b"h" * 2048 + b"\n" + CLOSED.encode() + b"\n"),
    "sockjs send": (404, b"Unknown session.\n"),
    "engine poll": UNKNOWN_SID,
    "engine post": UNKNOWN_SID,
    "0.9 poll": (200, b"7:::1+0"),
    "0.9 post": (200, b"1"),
    "0.9 leave": (200, b""),
}
WARNING = "cannot be reached"


def check_unanswered(answers: dict[str, tuple[int, bytes]]) -> None:
    plain = {name: answers.pop(name) for name in ("plain poll", "plain emit")}
    assert answers == EXPECTED
    assert all(status == 404 and "Unknown sid" in json.loads(body)["error"] for status, body in plain.values())


@both_ways
@both_lanes
async def test_clients_of_a_dead_node_are_told_to_come_back(tcp: bool, fast_lane: bool, quiet: Quiet) -> None:
    async with nodes(2, tcp=tcp, fast_lane=fast_lane) as made:
        wrong, owner = made
        sid = made.session_id(owner)
        await owner.stop()
        quiet.expect(WARNING)
        check_unanswered(await unanswered(made, wrong, owner))
        assert wrong.relay.counters["failed"] == 11
        assert wrong.relay.counters["outages"] == 1
        with pytest.raises(HandshakeRefused) as refused:
            await WireSocket.connect(wrong.base, f"/e/?EIO=4&transport=websocket&sid={owner.node.id}xxx")
        assert (refused.value.response.status, refused.value.response.text) == (400, "Session ID unknown")
        socket = await WireSocket.connect(wrong.base, f"/socket.io/1/websocket/{owner.node.id}xxx")
        assert await socket.recv_text() == "7:::1+0"
        socket.abort()
        # Who has left the cluster is not asked any more.
        made.update(owner)
        made.clock.advance(60)
        before = wrong.relay.counters["relayed"]
        answer = await request(wrong.base, "GET", f"/e/?EIO=4&transport=polling&sid={owner.node.id}xxx")
        assert (answer.status, answer.body) == UNKNOWN_SID
        answer = await request(wrong.base, "POST", f"/s/000/{sid}/xhr")
        assert answer.body == b"o\n"  # it is at home here now
        assert wrong.relay.counters["relayed"] == before


async def test_an_outage_is_told_once_and_its_end_too(quiet: Quiet, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="polysock.relay")
    quiet.expect(WARNING)
    async with nodes(2) as made:
        wrong, owner = made
        sid = made.session_id(owner)
        for _ in range(2):
            os.rename(owner.node.unix, owner.node.unix + "x")
            for _ in range(3):
                assert (await request(wrong.base, "POST", f"/s/000/{sid}/xhr_send", body=b"[]")).status == 404
            os.rename(owner.node.unix + "x", owner.node.unix)
            for _ in range(3):
                await request(wrong.base, "POST", f"/s/000/{sid}/xhr_send", body=b"[]")
            made.clock.advance(wrong.relay.limits.relay_idle_s)
            await until(lambda: not len(wrong.relay._pools))
        lines = [record.getMessage() for record in caplog.records if record.name == "polysock.relay"]
        assert ["again" in line for line in lines] == [False, True] * 2
        assert wrong.relay.counters["outages"] == 2


@both_lanes
async def test_a_stream_is_cut_when_its_owner_dies(fast_lane: bool) -> None:
    async with nodes(2, fast_lane=fast_lane) as made:
        wrong, owner = made
        async with await sockjs(made, owner, wrong, "xhr_streaming") as client:
            await owner.stop()
            with pytest.raises((WireError, ConnectionError)):
                await client.frame()


@both_lanes
async def test_a_waiting_poll_is_answered_when_its_owner_dies(fast_lane: bool) -> None:
    async with nodes(2, fast_lane=fast_lane) as made:
        wrong, owner = made
        async with await sockjs(made, owner, wrong) as client:
            await parked(client, owner)
            await owner.stop()
            assert await client.goodbye() == (INTERRUPTED.code, INTERRUPTED.text)


@both_lanes
async def test_a_node_that_is_forgotten_answers_nobody_any_more(fast_lane: bool) -> None:
    async with nodes(2, fast_lane=fast_lane) as made:
        wrong, owner = made
        async with (
            await sockjs(made, owner, wrong) as polling,
            await sockjs(made, owner, wrong, "eventsource") as stream,
        ):
            await parked(polling, owner)
            sid = await engine_sid(owner)
            engine = await Connection.open(wrong.base)
            await engine.send("GET", f"/e/?EIO=4&transport=polling&sid={sid}")
            socket = await upgraded(owner, wrong)
            await until(lambda: len(wrong.relay._pools) >= 4)
            wrong.relay.forget(owner.node.id)
            assert not len(wrong.relay._pools)
            assert await polling.goodbye() == (INTERRUPTED.code, INTERRUPTED.text)
            assert (await engine.read_response()).body == UNKNOWN_SID[1]
            assert await socket.connection.at_eof()
            with pytest.raises((WireError, ConnectionError)):
                await stream.frame()
            engine.close()
            socket.abort()


async def test_a_relay_that_has_stopped_passes_nothing_on() -> None:
    async with nodes(2) as made:
        wrong, owner = made
        async with await sockjs(made, owner, wrong) as client:
            await parked(client, owner)
            await wrong.relay.stop()
            assert await client.goodbye() == (INTERRUPTED.code, INTERRUPTED.text)
            assert await client.send("x") == 404
            assert not is_there(wrong.node.unix)


# -- strangers


@asynccontextmanager
async def knocking(here: Here) -> AsyncIterator[Connection]:
    """A connection to the relay's own listener."""
    if here.node.unix:
        reader, writer = await asyncio.open_unix_connection(here.node.unix)
    else:
        address, _, port = here.node.tcp.rpartition(":")
        reader, writer = await asyncio.open_connection(address, int(port))
    connection = Connection(reader, writer, "x")
    try:
        yield connection
    finally:
        writer.close()


POLL = b"POST /s/000/abc/xhr HTTP/1.1\r\nHost: x\r\nX-Polysock-Relay: serve node0000 1.2.3.4 http\r\n\r\n"


@both_ways
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.sampled_from([POLL, POLL * 40, b"x" * 100_000, b"\n" * 300]) | st.binary(min_size=1, max_size=400))
def test_who_does_not_know_the_secret_is_cut_off(tcp: bool, data: bytes) -> None:
    async def knock() -> None:
        async with nodes(1, tcp=tcp) as made:
            (here,) = made
            async with knocking(here) as connection:
                greeting = await connection._exactly(relaywire.GREETING_BYTES)
                assert relaywire.read_greeting(greeting) is not None
                connection.writer.write(data.ljust(relaywire.ANSWER_BYTES, b"."))
                assert await connection.at_eof()
            assert here.relay.counters == {"refused": 1}
            assert not here.logged

    asyncio.run(knock())


async def test_a_proof_is_good_for_one_connection_one_listener_and_one_direction() -> None:
    async with nodes(2, tcp=True) as made:
        first, second = made
        async with knocking(first) as one, knocking(first) as other, knocking(second) as third:
            lines = [await each._exactly(relaywire.GREETING_BYTES) for each in (one, other, third)]
            answer = relaywire.answer(SECRET, lines[0], "node0009", relaywire.nonce())
            for replayed in (other, third):
                await replayed.write(answer)
                assert await replayed.at_eof()
            await one.write(answer)
            proof = await one._exactly(relaywire.PROOF_BYTES)
            assert proof == relaywire.listener_proof(SECRET, lines[0], answer)
            assert proof[:-1] not in answer
            await one.write(POLL)
            assert (await one.read_response()).body == b"o\n"
            assert first.made[-1].info.ip == "1.2.3.4"
            assert first.relay.counters["refused"] == second.relay.counters["refused"] == 1
            await one.write(POLL.replace(b"xhr", b"xhr_send"))
            await one.read_response()


async def test_who_says_nothing_is_cut_off_in_time() -> None:
    """relay_timeout_s, on the listening side."""
    async with nodes(1) as made:
        (here,) = made
        limit = here.relay.limits.relay_timeout_s
        async with knocking(here) as silent, knocking(here) as slow:
            for connection in (silent, slow):
                await connection._exactly(relaywire.GREETING_BYTES)
            await slow.write(b"x" * (relaywire.ANSWER_BYTES - 1))
            made.clock.advance(limit - 0.001)
            await turns()
            assert not here.relay.counters["refused"]
            made.clock.advance(0.001)
            assert await silent.at_eof()
            assert await slow.at_eof()
            await until(lambda: here.relay.counters["refused"] == 2)


async def test_only_so_many_may_knock() -> None:
    """max_relay_handshakes."""
    async with nodes(1, max_relay_handshakes=2) as made:
        (here,) = made
        async with knocking(here) as one, knocking(here) as two:
            await one._exactly(relaywire.GREETING_BYTES)
            await two._exactly(relaywire.GREETING_BYTES)
            async with knocking(here) as three:
                assert await three.at_eof()
            one.writer.close()
            await until(lambda: here.relay.counters["refused"] == 2)
            async with knocking(here) as four:
                assert await four._exactly(relaywire.GREETING_BYTES)


@both_ways
async def test_nodes_with_another_secret_stay_strangers(tcp: bool, quiet: Quiet) -> None:
    quiet.expect(WARNING)
    async with nodes(2, tcp=tcp, secrets=[b"one", b"two"]) as made:
        wrong, owner = made
        check_unanswered(await unanswered(made, wrong, owner))
        assert owner.relay.counters["refused"] == wrong.relay.counters["failed"] == 11
        assert not owner.logged


@pytest.mark.parametrize("kind", ["garbage", "other node", "too much", "no proof", "early answer"])
async def test_impostors_are_told_nothing(kind: str, quiet: Quiet) -> None:
    """The calling side asks for a proof too: requests carry cookies."""
    quiet.expect(WARNING)
    seen = bytearray()

    async def says(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        node_id = "node0009" if kind == "other node" else "node0001"
        greeting = relaywire.greeting(node_id, relaywire.nonce())
        writer.write({"garbage": b"x" * len(greeting), "too much": greeting + b"x"}.get(kind, greeting))
        answer = await reader.readexactly(relaywire.ANSWER_BYTES)
        wrong_proof = relaywire.listener_proof(b"another secret", greeting, answer)
        right_proof = relaywire.listener_proof(SECRET, greeting, answer)
        writer.write(wrong_proof if kind == "no proof" else right_proof + b"HTTP/1.1 200 OK\r\n")
        seen.extend(await reader.read())

    async with nodes(2) as made:
        wrong, owner = made
        server = await asyncio.start_unix_server(listener_that(says), owner.node.unix + "x")
        wrong.placement.update([wrong.node, Node(owner.node.id, 1, "here", unix=owner.node.unix + "x")])
        answer = await request(
            wrong.base, "POST", f"/s/000/{made.session_id(owner)}/xhr_send", headers=[("Cookie", "a=b")], body=b"[]"
        )
        assert answer.status == 404
        server.close()
        await turns()
    assert b"Cookie" not in seen


async def test_a_refusal_that_breaks_off_ends_the_clients_connection() -> None:
    async def says(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await take_request(reader, writer)
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 9\r\n\r\nFor")
        await writer.drain()

    async with nodes(2) as made:
        wrong, owner = made
        server = await asyncio.start_unix_server(listener_that(says), owner.node.unix + "x")
        wrong.placement.update([wrong.node, Node(owner.node.id, 1, "here", unix=owner.node.unix + "x")])
        for path in ("/e/?EIO=4&transport=websocket&sid=", "/socket.io/1/websocket/"):
            with pytest.raises((WireError, ConnectionError)):
                await WireSocket.connect(wrong.base, path + owner.node.id + "x")
        server.close()
        await turns()


async def test_a_node_that_does_not_answer_is_given_up_in_time(quiet: Quiet) -> None:
    """relay_timeout_s, on the calling side."""
    quiet.expect(WARNING)
    async with nodes(2) as made:
        wrong, owner = made
        server = await asyncio.start_unix_server(listener_that(listens), owner.node.unix + "x")
        wrong.placement.update([wrong.node, Node(owner.node.id, 1, "here", unix=owner.node.unix + "x")])
        connection = await Connection.open(wrong.base)
        await connection.send("GET", f"/e/?EIO=4&transport=polling&sid={owner.node.id}x")
        await until(lambda: len(wrong.relay._pools) == 1)
        made.clock.advance(wrong.relay.limits.relay_timeout_s - 0.001)
        await turns()
        assert len(wrong.relay._pools) == 1
        made.clock.advance(0.001)
        assert (await connection.read_response()).body == UNKNOWN_SID[1]
        connection.close()
        server.close()
        await turns()


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000,
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc",
        b"",
    ],
    ids=["nonsense", "no length", "two lengths", "endless head", "101", "short", "nothing"],
)
async def test_an_answer_that_is_none_is_a_failure(sent: bytes, quiet: Quiet) -> None:
    if b"5" not in sent and sent:
        quiet.expect("sent what no node sends")

    async def says(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await take_request(reader, writer)
        writer.write(sent)
        await writer.drain()

    async with nodes(2) as made:
        wrong, owner = made
        server = await asyncio.start_unix_server(listener_that(says), owner.node.unix + "x")
        wrong.placement.update([wrong.node, Node(owner.node.id, 1, "here", unix=owner.node.unix + "x")])
        answer = await request(wrong.base, "GET", f"/e/?EIO=4&transport=polling&sid={owner.node.id}x")
        assert (answer.status, answer.body) == UNKNOWN_SID
        server.close()
        await turns()


# -- what the owner is told of the client


class Echo(RequestHandler):
    """Not a polysock endpoint."""

    def get(self) -> None:
        self.write("own")


async def opened(owner: Here, wrong: Here, made: Nodes, headers: Any) -> Any:
    """The ConnectionInfo of a session of *owner*, opened by way of *wrong*."""
    connection = await Connection.open(wrong.base)
    answer = await connection.request("POST", f"/s/000/{made.session_id(owner)}/xhr", headers=headers)
    connection.close()
    assert answer.body == b"o\n"
    return owner.made[-1].info


@both_ways
@both_lanes
async def test_no_client_can_say_who_it_is(tcp: bool, fast_lane: bool) -> None:
    spoofed = [
        ("X-Real-Ip", "6.6.6.6"),
        ("X-Forwarded-For", "6.6.6.6"),
        ("X-Scheme", "https"),
        ("X-Forwarded-Proto", "https"),
        ("X-Polysock-Relay", "serve node0000 6.6.6.6 https"),
        ("x-polysock-relay", "held node0000 6.6.6.6 https"),
        ("Connection", "X-Polysock-Relay"),
    ]
    async with nodes(2, tcp=tcp, fast_lane=fast_lane) as made:
        wrong, owner = made
        info = await opened(owner, wrong, made, spoofed)
        assert info.ip == "127.0.0.1"
        # The application sees the client's headers as the client has sent them, but for that one.
        assert info.headers["X-Real-Ip"] == "6.6.6.6"
        assert "X-Polysock-Relay" not in info.headers
        assert {line[1] for line in owner.logged} == {"127.0.0.1"}
        # And sent to the node itself it means nothing.
        await request(owner.base, "POST", f"/s/000/{made.session_id(owner)}/xhr", headers=spoofed[:-1])
        assert owner.made[-1].info.ip == "127.0.0.1"


@both_lanes
async def test_the_trusted_proxy_rule_holds_once(fast_lane: bool) -> None:
    async with nodes(2, fast_lane=fast_lane, trusted_proxies=["127.0.0.1", "10.0.0.0/8"], verify_ip=True) as made:
        wrong, owner = made
        chain = [("X-Forwarded-For", "9.9.9.9, 203.0.113.7, 10.1.1.1")]
        info = await opened(owner, wrong, made, chain)
        assert info.ip == "203.0.113.7"
        sid = owner.sessions[0].id
        send = f"/s/000/{sid}/xhr_send"
        assert (await request(wrong.base, "POST", send, headers=chain, body=b'["a"]')).status == 204
        # verify_ip judges by the same address.
        other = [("X-Forwarded-For", "203.0.113.8")]
        assert (await request(wrong.base, "POST", send, headers=other, body=b'["a"]')).status == 403
        assert (await request(owner.base, "POST", send, headers=chain, body=b'["a"]')).status == 204


@both_lanes
async def test_xheaders_and_scheme_reach_the_owner(fast_lane: bool) -> None:
    async with nodes(2, fast_lane=fast_lane, server={"xheaders": True}) as made:
        wrong, owner = made
        secure = [("X-Real-Ip", "203.0.113.7"), ("X-Scheme", "https"), ("Host", "a.b"), ("Origin", "https://a.b")]
        info = await opened(owner, wrong, made, secure)
        assert info.ip == "203.0.113.7"
        assert info.origin == "https://a.b"
        assert [line[1::2] for line in owner.logged] == [("203.0.113.7", "https")]


async def test_the_limit_of_sessions_of_an_address_is_the_owners() -> None:
    async with nodes(2, max_sessions_per_address=2, trusted_proxies=["127.0.0.1"]) as made:
        wrong, owner = made
        for number in range(4):
            url = f"/s/000/{made.session_id(owner)}/xhr"
            answer = await request(wrong.base, "POST", url, headers=[("X-Real-Ip", "203.0.113.7")])
            assert answer.status == (200 if number < 2 else 429)
        answer = await request(wrong.base, "POST", url, headers=[("X-Real-Ip", "203.0.113.8")])
        assert answer.status == 200


async def test_the_first_node_judges_origin_and_size() -> None:
    async with nodes(2, max_payload_bytes=100) as made:
        wrong, owner = made
        url = f"/s/000/{made.session_id(owner)}/xhr_send"
        foreign = await request(wrong.base, "POST", url, headers=[("Origin", "http://evil.example")], body=b"[]")
        assert foreign.status == 403
        assert (await request(wrong.base, "POST", url, body=b"x" * 101)).status == 413
        assert (await request(wrong.base, "OPTIONS", url)).status == 204
        assert (await request(wrong.base, "PUT", url, body=b"x")).status == 405
        assert not wrong.relay.counters["relayed"]
        # A header that Connection names stays: the owner judges the origin too.
        hidden = [("Origin", wrong.base), ("Connection", "Origin, Cookie"), ("Cookie", "a=b")]
        info = await opened(owner, wrong, made, hidden)
        assert info.origin == wrong.base
        assert info.get_cookie("a").value == "b"


@pytest.mark.parametrize("turn", range(5))
@pytest.mark.parametrize("leave", ["fin", "rst", "server"])
async def test_who_leaves_before_tornado_has_the_whole_request(
    leave: str, turn: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request without a body is judged at its head; what is left to wait for is waited for, whoever is there."""
    async with nodes(2) as made:
        here = await made.join()  # it has to ask the others whether they hold the session
        port = bind_unused_port()
        server = TornadoServer(here.application)
        server.add_socket(port[0])
        client = await Connection.open(f"http://127.0.0.1:{port[1]}")
        streams: list[Any] = []
        ways = {"fin": client.writer.close, "rst": lambda: reset(client), "server": lambda: streams[0].close()}
        serve = here.relay.serve

        def after(turns: int) -> None:
            if turns:
                asyncio.get_running_loop().call_soon(after, turns - 1)
            else:
                ways[leave]()

        def serving(handler: Any, route: Any) -> Any:
            answering = serve(handler, route)
            assert asyncio.iscoroutine(answering)
            streams.append(handler.request.connection.stream)
            after(turn)
            return answering

        with monkeypatch.context() as patched:
            patched.setattr(here.relay, "serve", serving)
            await client.write(POLL.replace(b"abc", made.session_id(here).encode()))
            await until(lambda: here.relay.counters["questions"])
        client.abort()
        server.stop()
        await server.close_all_connections()


BODIES = {
    "announced": b"Content-Length: 101\r\n\r\n",
    "chunked": b"Transfer-Encoding: chunked\r\n\r\n65\r\n" + b"x" * 0x65,
}


@both_lanes
@pytest.mark.parametrize("is_first", [True, False], ids=["first", "later"])
@pytest.mark.parametrize("mount", ["sockjs", "engine.io"])
@pytest.mark.parametrize("body", BODIES)
async def test_the_owner_bounds_what_a_node_passes_on(body: str, mount: str, is_first: bool, fast_lane: bool) -> None:
    """By the endpoint's own limit, before all has come; the port itself would let in what Tornado does."""
    async with nodes(1, tcp=True, fast_lane=fast_lane, max_payload_bytes=100, max_message_bytes=100) as made:
        (owner,) = made
        target = "/s/000/abc/xhr_send"
        if mount == "engine.io":
            target = f"/e/?EIO=4&transport=polling&sid={await engine_sid(owner)}"
        async with knocking(owner) as node:
            greeting = await node._exactly(relaywire.GREETING_BYTES)
            await node.write(relaywire.answer(SECRET, greeting, "node0009", relaywire.nonce()))
            await node._exactly(relaywire.PROOF_BYTES)
            if not is_first:
                await node.write(POLL)
                assert (await node.read_response()).status == 200
            line, headers = POLL[:-2].split(b"\r\n", 1)
            await node.write(line.replace(b"/s/000/abc/xhr", target.encode()) + b"\r\n" + headers + BODIES[body])
            assert (await node.read_response()).status == 413
            assert await node.at_eof()


SMUGGLED = {
    "chunked": b'Transfer-Encoding: chunked\r\n\r\n5\r\n["a"]\r\n0\r\n\r\n',
    "expect": b'Expect: 100-continue\r\nContent-Length: 5\r\n\r\n["a"]',
    "te": b'TE: trailers\r\nTrailer: X\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\nContent-Length: 5\r\n\r\n["a"]',
    "upgrade": b'Upgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 5\r\n\r\n["a"]',
    "websocket": b'Upgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 5\r\n\r\n["a"]',
    "both lengths": b'Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n["a"]\r\n0\r\n\r\n',
    "obs-fold": b'X: a\r\n b\r\nContent-Length: 5\r\n\r\n["a"]',
    "bare CR": b'X: a\rY: b\r\nContent-Length: 5\r\n\r\n["a"]',
    "control": b'X: a\x01b\x7f\r\nContent-Length: 5\r\n\r\n["a"]',
    "latin-1": b'X: caf\xe9\r\nContent-Length: 5\r\n\r\n["a"]',
    "hidden request": b'Content-Length: 5\r\nX: y\r\n\r\n["a"]GET /evil HTTP/1.1\r\nHost: x\r\n\r\n',
}


@both_lanes
@pytest.mark.parametrize("name", SMUGGLED)
async def test_framing_is_each_connections_own(name: str, fast_lane: bool, quiet: Quiet) -> None:
    """Whatever the client's framing was, the owner gets at most the one request."""
    async with nodes(2, fast_lane=fast_lane) as made:
        wrong, owner = made
        async with await sockjs(made, owner, wrong) as client:
            owner.logged.clear()
            connection = await Connection.open(wrong.base)
            head = f"POST {client.url}/xhr_send HTTP/1.1\r\nHost: x\r\n".encode()
            await connection.write(head + SMUGGLED[name])
            answer: Response | None = None
            with suppress(ConnectionError, WireError):  # Tornado does not answer everything it refuses
                answer = await connection.read_response()
            connection.abort()
            if answer is not None and answer.status == 204:
                assert owner.made[-1].messages == ["a"]
                assert [line[2] for line in owner.logged] == [f"{client.url}/xhr_send"]
            else:
                assert answer is None or answer.status == 400
                assert not owner.made[-1].messages
                assert not owner.logged


@both_lanes
async def test_a_body_is_never_read_as_a_request_of_another_client(fast_lane: bool) -> None:
    async with nodes(2, fast_lane=fast_lane) as made:
        wrong, owner = made
        async with await sockjs(made, owner, wrong) as client:
            forged = b"X-Polysock-Relay: serve node0000 6.6.6.6 https\r\n"
            body = b"POST /s/000/evil/xhr HTTP/1.1\r\nHost: x\r\n" + forged + b"\r\n"
            owner.logged.clear()
            asked = [("Upgrade", "websocket"), ("Connection", "Upgrade")]
            answer = await request(wrong.base, "POST", f"{client.url}/xhr_send", headers=asked, body=body)
            assert (answer.status, answer.body) == (500, b"Broken JSON encoding.")
            assert owner.logged == [(500, "127.0.0.1", f"{client.url}/xhr_send", "http")]
            assert len(owner.sessions) == 1


@both_lanes
@pytest.mark.parametrize("odd", [b"\x01", b"\x7f", b"\xff", b'"<>\\^`{|}', b"%00%0d%0a", b"\t", b"a b"], ids=repr)
async def test_odd_targets_are_passed_on_as_they_are_or_refused(odd: bytes, fast_lane: bool) -> None:
    async with nodes(2, fast_lane=fast_lane) as made:
        wrong, owner = made
        answers = []
        for here in (owner, wrong):
            connection = await Connection.open(here.base)
            target = b"/e/?EIO=4&transport=polling&sid=" + owner.node.id.encode() + odd
            await connection.write(b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n")
            answer: Response | None = None
            with suppress(ConnectionError, WireError):
                answer = await connection.read_response()
            answers.append(answer and answer.status)
            connection.abort()
        assert answers[0] == answers[1]


@pytest.mark.parametrize("name", ["absent", "empty"])
async def test_a_client_of_http_1_0_needs_no_host(name: str) -> None:
    async with nodes(2) as made:
        wrong, owner = made
        connection = await Connection.open(wrong.base)
        host = b"" if name == "absent" else b"Host: \r\n"
        await connection.write(f"POST /s/000/{made.session_id(owner)}/xhr HTTP/1.0\r\n".encode() + host + b"\r\n")
        answer = await connection.read_response()
        assert (answer.status, answer.body) == (200, b"o\n")
        connection.close()


# -- no circles


@both_lanes
async def test_a_request_is_passed_on_once_whatever_the_nodes_believe(fast_lane: bool) -> None:
    """Each of three nodes believes that another one is the home, or the owner."""
    async with nodes(3, fast_lane=fast_lane) as made:
        chain = [[made[1]], [made[2]], [made[0]]]
        for here, others in zip(made, chain, strict=True):
            here.placement.update([other.node for other in others])
            # Nobody believes that it is itself.
            here.placement.home_of = lambda session_id, node=others[0].node: node  # type: ignore[method-assign]
        answer = await request(made[0].base, "POST", "/s/000/abc/xhr")
        assert answer.body == b"o\n"
        assert [here.relay.counters["relayed"] for here in made] == [1, 0, 0]
        assert len(made[1].sessions) == 1
        # An id with the tag of a node that does not hold it.
        sid = made[1].node.id + "x" * 20
        answer = await request(made[0].base, "GET", f"/e/?EIO=4&transport=polling&sid={sid}")
        assert answer.body == UNKNOWN_SID[1]
        assert [here.relay.counters["relayed"] for here in made] == [2, 0, 0]


async def test_requests_for_this_node_are_not_passed_on() -> None:
    async with nodes(2) as made:
        wrong, owner = made
        async with await sockjs(made, owner, owner) as client:
            assert await client.send("a") == 204
            assert await client.message() == "a"
        # A SockJS WebSocket is where it came in.
        async with await sockjs(made, owner, wrong, "websocket") as client:
            await client.send("b")
            assert await client.message() == "b"
            assert len(wrong.made) == 1
        async with Client(wrong.base, "rawwebsocket") as client:
            await client.open()
            await client.send("c")
            assert await client.message() == "c"
        assert not wrong.relay.counters["relayed"] + owner.relay.counters["relayed"]
        for url in ("/s/info", "/s/iframe.html", "/s/", "/plain/poll", "/e/", "/socket.io/1/"):
            assert (await request(wrong.base, "GET", url)).status == 200
        assert not wrong.relay.counters["relayed"]


# -- limits


async def test_max_relay_connections() -> None:
    async with nodes(2, max_relay_connections=2) as made:
        wrong, owner = made
        clients = [await sockjs(made, owner, wrong) for _ in range(3)]
        for client in clients[:2]:
            await client.attach()
        await until(lambda: sum(session.attached for session in owner.sessions) == 2)
        assert await clients[2].send("x") == 404
        # On a connection that is new here, too, where an answer may come before Tornado is done with the request.
        answer = await request(wrong.base, "POST", f"{clients[2].url}/xhr")
        assert answer.text == CLOSED + "\n"
        answer = await request(wrong.base, "GET", f"/e/?EIO=4&transport=polling&sid={owner.node.id}x")
        assert (answer.status, answer.body) == UNKNOWN_SID
        assert wrong.relay.counters["full"] == 3
        clients[0].abort()
        await until(lambda: len(wrong.relay._pools) == 1)
        assert await clients[2].send("x") == 204
        for client in clients:
            client.abort()


async def test_relay_idle_s() -> None:
    async with nodes(2) as made:
        wrong, owner = made
        limit = wrong.relay.limits.relay_idle_s
        url = f"/e/?EIO=4&transport=polling&sid={owner.node.id}x"
        await request(wrong.base, "GET", url)
        made.clock.advance(limit - 0.001)
        await turns()
        assert len(wrong.relay._pools) == 1
        await request(wrong.base, "GET", url)
        made.clock.advance(limit - 0.001)
        await turns()
        assert len(wrong.relay._pools) == 1
        made.clock.advance(0.001)
        await until(lambda: not len(wrong.relay._pools))


@both_lanes
async def test_relay_whole_bytes(fast_lane: bool) -> None:
    async with nodes(2, fast_lane=fast_lane, relay_whole_bytes=1000) as made:
        wrong, owner = made
        async with await sockjs(made, owner, wrong) as client:
            for size, is_whole in ((1000, True), (1001, False), (200_000, False)):
                owner.made[-1].send("x" * (size - len('a[""]\n')))
                connection = await Connection.open(wrong.base)
                answer = await connection.request("POST", f"{client.url}/xhr")
                assert len(answer.body) == size
                assert ("Content-Length" in answer.headers) is is_whole
                # One of HTTP/1.0 knows no chunks.
                owner.made[-1].send("y" * size)
                old = await request(wrong.base, "POST", f"{client.url}/xhr", version="1.0")
                assert old.body == b'a["' + b"y" * size + b'"]\n'
                assert "Transfer-Encoding" not in old.headers
                connection.close()


# -- starting


async def test_where_it_listens(tmp_path: Any) -> None:
    placement = Placement(Node("node0000", host="h"))
    relay = Relay(placement, secret=b"x")
    path = f"/tmp/relay-{os.getpid()}"
    own = await relay.start(Application([]), unix=path, tcp=("127.0.0.1", 0))
    try:
        assert placement.own == own == Node("node0000", host="h", unix=path, tcp=own.tcp)
        address, _, port = own.tcp.rpartition(":")
        assert address == "127.0.0.1"
        assert int(port) > 0
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        with pytest.raises(StateError, match="once"):
            await relay.start(Application([]), unix=path)
    finally:
        await relay.stop()
    assert not is_there(path)
    await relay.stop()
    with pytest.raises(StateError, match="once"):
        await relay.start(Application([]), unix=path)


async def test_tcp_without_a_secret_is_an_error() -> None:
    relay = Relay(Placement(Node("node0000")), secret=b"")
    with pytest.raises(StateError, match="secret"):
        await relay.start(Application([]), tcp=("127.0.0.1", 0))
    await relay.stop()


async def test_a_place_that_cannot_be_had_is_an_error_and_leaves_nothing_open() -> None:
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    relay = Relay(Placement(Node("node0000")), secret=b"x")
    with pytest.raises(OSError, match="in use"):
        await relay.start(Application([]), tcp=taken.getsockname())
    with pytest.raises(OSError, match="No such file"):
        await relay.start(Application([]), unix="/nonexistent/relay", tcp=("127.0.0.1", 0))
    own = await relay.start(Application([]), tcp=("127.0.0.1", 0))
    assert own.tcp
    taken.close()
    await relay.stop()


async def test_a_node_without_an_address_cannot_be_reached(quiet: Quiet) -> None:
    quiet.expect("it has announced no address")
    async with nodes(2) as made:
        wrong, owner = made
        wrong.placement.update([wrong.node, Node(owner.node.id, 1, "elsewhere", unix=owner.node.unix)])
        answer = await request(wrong.base, "POST", f"/s/000/{made.session_id(owner)}/xhr_send", body=b"[]")
        assert answer.status == 404


# -- the application's own handler


@both_lanes
async def test_the_application_is_asked_where_the_session_opens(fast_lane: bool) -> None:
    asked: list[str] = []

    class Own(RequestHandler):
        async def prepare(self) -> None:
            asked.append(self.request.path)
            await asyncio.sleep(0)
            if self.get_cookie("user") is None:
                self.set_status(401)
                self.finish("who?")

        def get_current_user(self) -> Any:
            return self.get_cookie("user")

    async with nodes(2, fast_lane=fast_lane, base_handler=Own) as made:
        wrong, owner = made
        url = f"/s/000/{made.session_id(owner)}/xhr"
        answer = await request(wrong.base, "POST", url)
        assert (answer.status, answer.text) == (401, "who?")
        assert answer.headers["Content-Type"] == "text/html; charset=UTF-8"
        info = await opened(owner, wrong, made, [("Cookie", "user=me")])
        assert info.current_user == "me"
        assert len(asked) == 2
        sid = owner.sessions[0].id
        assert (await request(wrong.base, "POST", f"/s/000/{sid}/xhr_send", body=b'["a"]')).status == 204
        assert (await request(wrong.base, "POST", f"/s/000/{sid}/xhr")).body == b'a["a"]\n'
        assert len(asked) == 2
