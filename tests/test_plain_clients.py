"""Clients without any library, over real sockets: a bare WebSocket, timed polling, and the one-way EventSource feed."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from tornado.web import RequestHandler

from browserlab import Engine
from polysock import ConnectionRefused, Server, Socket
from polysock.packets.plain import PlainPackets
from polysock_transports.dialects.plainhttp import Feed
from polysock_transports.errors import NORMAL
from support.clients import TIMEOUT_SECONDS, Client, Quiet, quiet, turns, until
from support.clock import FakeClock
from support.hub import WireClient
from support.needs import need_program
from support.rawhttp import Connection, HandshakeRefused, HeaderList, Response, SocketClosed, WireSocket, request
from support.serving import serving

__all__ = ["quiet"]

#: Limits whose edges are tested here (see test_limits.py).
EDGES_OF_LIMITS = (
    "plain_poll_timeout_s",
    "feed_history_messages",
    "feed_history_bytes",
    "feed_linger_s",
    "feed_retry_s",
    "max_feeds",
    "max_feed_rooms",
    "max_name_chars",
)

FOREIGN = (("Origin", "https://elsewhere.example"),)


class World:
    """A Server that is served, and everybody who came in."""

    def __init__(self, io: Server, clock: FakeClock, base: str) -> None:
        self.io = io
        self.clock = clock
        self.base = base
        self.sockets: list[Socket] = []
        self.left: list[str] = []

    async def get(self, path: str, headers: HeaderList = ()) -> Response:
        return await request(self.base, "GET", f"/plain/{path}", headers=headers)

    async def post(self, path: str, body: str | bytes = b"", headers: HeaderList = ()) -> Response:
        data = body.encode() if isinstance(body, str) else body
        return await request(self.base, "POST", f"/plain/{path}", headers=headers, body=data)

    async def websocket(self, query: str = "") -> WireSocket:
        return await WireSocket.connect(self.base, f"/plain/websocket{query}")


@asynccontextmanager
async def world(**settings: Any) -> AsyncIterator[World]:
    """When it ends, the server is closed and nobody may be left in any index, and no timer."""
    clock = FakeClock()
    io = Server(clock=clock, **settings)
    async with serving(io.routes()) as base:
        made = World(io, clock, base)
        io.sockets.allow_feed("news", "open", lambda room: room in "abcx")

        @io.on("connection")
        def connected(socket: Socket) -> None:
            made.sockets.append(socket)
            socket.join("news")
            socket.on("disconnect", made.left.append)
            socket.on("add", lambda a, b: a + b)
            socket.on("twice", lambda data: data * 2)

        try:
            yield made
        finally:
            io.close()
            for store in [gateway.store for endpoint in io._endpoints for gateway in endpoint.gateways]:
                clock.advance(1000)
                await until(lambda store=store: len(store) == 0)
    for namespace in io.namespaces.values():
        namespace.hub.check()
        assert len(namespace.hub) == 0
        assert not namespace.is_dynamic
    assert len(io.feeds) == 0
    assert clock.timers == 0


class Poller:
    """A client of timed polling, with the cursor of its last answer."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.sid = ""
        self.cursor = 0
        self.closed: dict[str, Any] | None = None

    async def enter(self, query: str = "") -> list[Any]:
        answer = await self.world.get(f"poll{query}")
        assert answer.status == 200, answer
        return self._take(answer)

    async def poll(self) -> list[Any]:
        answer = await self.raw()
        assert answer.status == 200, answer
        return self._take(answer)

    async def raw(self, since: int | None = None) -> Response:
        return await self.world.get(f"poll?sid={self.sid}&since={self.cursor if since is None else since}")

    async def emit(self, *message: Any) -> Response:
        return await self.world.post(f"emit?sid={self.sid}", json.dumps(message))

    def _take(self, answer: Response) -> list[Any]:
        assert answer.headers["Content-Type"] == "application/json; charset=UTF-8"
        assert "no-store" in answer.headers["Cache-Control"]
        facts = json.loads(answer.text)
        self.sid, self.cursor, self.closed = facts["sid"], facts["cursor"], facts.get("closed")
        events: list[Any] = facts["events"]
        return events


class Reader:
    """A reader of a feed: blocks as they come."""

    def __init__(self, connection: Connection, head: Response) -> None:
        self.connection = connection
        self.head = head

    @classmethod
    async def open(cls, world: World, query: str = "", headers: HeaderList = ()) -> Reader:
        connection = await Connection.open(world.base)
        head = await connection.start("GET", f"/plain/events{query}", headers=headers)
        reader = cls(connection, head)
        if head.status == 200:
            assert head.headers["Content-Type"] == "text/event-stream"
            assert await reader.block() == {"retry": "2000"}
        return reader

    async def block(self) -> dict[str, str]:
        text = (await self.connection.read_until(b"\n\n")).decode()
        return dict(line.split(": ", 1) if ": " in line else (line, "") for line in text.strip("\n").split("\n"))

    async def event(self) -> Any:
        """The data of the next block."""
        return json.loads((await self.block())["data"])

    async def ended(self) -> None:
        assert await self.connection.read_rest() == b""

    def abort(self) -> None:
        self.connection.abort()


def number(block: dict[str, str]) -> int:
    return int(block["id"].rpartition("-")[2])


# -- WebSocket


async def test_websocket_events_and_acks_both_ways() -> None:
    async with world() as here:
        async with await here.websocket() as client:
            assert json.loads(await client.recv_text()) == ["#connect", {"sid": here.sockets[0].id}]
            await client.send_text('[7,"add",1,2]')
            assert json.loads(await client.recv_text()) == ["#ack", 7, 3]
            await client.send_text('[8,"twice",{"#base64":"AAE="}]')
            assert json.loads(await client.recv_text()) == ["#ack", 8, {"#base64": "AAEAAQ=="}]
            await client.send_text('[9,"unknown"]')
            assert json.loads(await client.recv_text()) == ["#ack", 9, {"error": "No handler for this event"}]
            asking = asyncio.ensure_future(here.sockets[0].call("name?"))
            ack_id, name = json.loads(await client.recv_text())
            assert name == "name?"
            await client.send_text(json.dumps(["#ack", ack_id, "Ada"]))
            assert await asyncio.wait_for(asking, TIMEOUT_SECONDS) == "Ada"
            here.io.to("news").emit("all", "é")
            assert await client.recv_text() == '["all","é"]'
        await until(lambda: here.left)


async def test_websocket_in_a_namespace_of_its_own() -> None:
    async with world() as here:
        here.io.of(re.compile("/game-[0-9]"))
        for query in ("?ns=/game-1", "?ns=game-1"):
            async with await here.websocket(query) as client:
                await client.recv_text()
                assert here.io.of("/game-1").emit("to you") == 1
                assert here.io.emit("not to you") == 0
                assert await client.recv_text() == '["to you"]'
            await until(lambda: not here.io.of("/game-1").clients())
            del here.io.namespaces["/game-1"]


async def test_websocket_is_refused_before_the_handshake() -> None:
    async with world() as here:

        @here.io.use
        def check(socket: Socket) -> None:
            raise ConnectionRefused("not you", status=401)

        here.io.of("/closed").authorization(lambda handshake: False)
        here.io.of("/never").use(lambda socket: False)
        for query, status, text in (
            ("", 401, "not you"),
            ("?ns=/closed", 403, "not authorized"),
            ("?ns=/never", 403, "not authorized"),
            ("?ns=/nowhere", 404, "Invalid namespace"),
            ("?ns=" + "x" * 300, 400, "A namespace's name has at most 256 characters."),
        ):
            with pytest.raises(HandshakeRefused) as refused:
                await here.websocket(query)
            assert (refused.value.response.status, refused.value.response.text) == (status, text)
        here.io.set("authorization", lambda handshake: handshake.query.get("key") == "1")
        with pytest.raises(HandshakeRefused) as refused:
            await here.websocket("?ns=/closed")
        assert refused.value.response.status == 403


async def test_websocket_that_breaks_the_rules_or_leaves(quiet: Quiet) -> None:
    quiet.expect("An event needs a name")
    async with world() as here:
        async with await here.websocket() as client:
            await client.recv_text()
            await client.send_text('["connect"]')
            assert (await client.expect_close())[0] == 1002
        async with await here.websocket() as client:
            await client.recv_text()
            await client.send_text('["#disconnect"]')
            assert (await client.expect_close())[0] == 1000
        async with await here.websocket() as client:
            await client.recv_text()
            here.sockets[-1].disconnect()
            assert await client.recv_text() == '["#disconnect"]'
            assert (await client.expect_close())[0] == 1000
        await until(lambda: len(here.left) == 3)
        assert here.left == ["parse error", "client namespace disconnect", "server namespace disconnect"]


# -- timed polling


async def test_poll_events_and_acks_both_ways() -> None:
    async with world() as here:
        client = Poller(here)
        (socket_id,) = [event[1]["sid"] for event in await client.enter()]
        socket = here.sockets[0]
        assert socket.id == socket_id != client.sid
        assert (socket.transport, socket.handshake.info.transport) == ("poll", "poll")
        assert await client.poll() == []
        assert json.loads((await client.emit(1, "add", 2, 3)).text) == {"accepted": 1}
        several = [["add", 1, 1], [2, "twice", {"#base64": "AA=="}]]
        assert json.loads((await client.emit(*several)).text) == {"accepted": 2}
        socket.emit("é", b"\x01")
        here.io.to("news").emit("all")
        expected = [["#ack", 1, 5], ["#ack", 2, {"#base64": "AAA="}], ["é", {"#base64": "AQ=="}], ["all"]]
        assert await client.poll() == expected
        asking = asyncio.ensure_future(socket.call("name?"))
        await asyncio.sleep(0)
        ((ack_id, name),) = await client.poll()
        assert name == "name?"
        assert (await client.emit("#ack", ack_id, "Ada")).status == 200
        assert await asyncio.wait_for(asking, TIMEOUT_SECONDS) == "Ada"


async def test_poll_answer_that_is_lost_is_repeated_and_nothing_comes_twice() -> None:
    async with world() as here:
        client = Poller(here)
        await client.enter()
        here.io.emit("a")
        lost = json.loads((await client.raw()).text)
        here.io.emit("b")
        again = json.loads((await client.raw()).text)
        assert (lost["events"], again["events"]) == ([["a"]], [["a"], ["b"]])
        client.cursor = lost["cursor"]
        assert await client.poll() == [["b"]]
        assert await client.poll() == []
        for cursor in (0, client.cursor - 1, client.cursor + 1):
            answer = await client.raw(cursor)
            assert answer.status == 409
            assert f"from {client.cursor} to {client.cursor}" in json.loads(answer.text)["error"]
        assert await client.poll() == []


@pytest.mark.parametrize("since", ["", "&since=", "&since=x", "&since=-1", "&since=1e3", "&since=%D9%A3"])
async def test_poll_without_a_cursor(since: str) -> None:
    async with world() as here:
        client = Poller(here)
        await client.enter()
        answer = await here.get(f"poll?sid={client.sid}{since}")
        assert answer.status == 400
        assert "since" in json.loads(answer.text)["error"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "poll?sid=nobody&since=1"),
        ("POST", "emit?sid=nobody"),
        ("POST", "emit"),
        ("POST", "leave?sid=nobody"),
        ("DELETE", "leave"),
    ],
)
async def test_unknown_sid(method: str, path: str) -> None:
    async with world() as here:
        answer = await request(here.base, method, f"/plain/{path}", headers=(("Origin", here.base),))
        assert answer.status == 404
        assert "GET poll, without sid" in json.loads(answer.text)["error"]
        assert answer.headers["Access-Control-Allow-Origin"] == here.base


async def test_poll_is_refused_with_a_status() -> None:
    async with world() as here:
        here.io.of("/closed").use(lambda socket: False)
        for query, status, text in (
            ("?ns=/closed", 403, "not authorized"),
            ("?ns=/nowhere", 404, "Invalid namespace"),
        ):
            answer = await here.get(f"poll{query}")
            assert (answer.status, json.loads(answer.text)) == (status, {"error": text})


async def test_poll_refused_by_a_hook_that_takes_its_time_is_told_by_the_next_poll() -> None:
    async with world() as here:
        asked = asyncio.Event()

        @here.io.of("/slow").use
        async def check(socket: Socket) -> bool:
            await asked.wait()
            return False

        client = Poller(here)
        assert await client.enter("?ns=/slow") == []
        assert client.closed is None
        assert (await client.emit("too early")).status == 200
        asked.set()
        while client.closed is None:
            assert await client.poll() == []
        assert client.closed == {"code": 1008, "reason": "not authorized", "may_return": False}


async def test_client_that_does_not_poll_is_gone() -> None:
    async with world(plain_poll_timeout_s=10) as here:
        client = Poller(here)
        await client.enter()
        for step in (client.poll, lambda: client.emit("add", 1, 1), client.poll):
            here.clock.advance(9)
            await step()
        assert here.left == []
        here.clock.advance(12)
        assert here.left == ["transport close"]
        assert here.io.sockets.clients() == []
        await client.poll()
        assert client.closed == {"code": 1006, "reason": "Session timed out", "may_return": True}
        assert (await client.emit("add", 1, 1)).status == 404
        here.clock.advance(12)
        assert (await client.raw()).status == 404


async def test_poll_takes_what_waits_and_then_hears_why_it_is_over() -> None:
    async with world() as here:
        client = Poller(here)
        await client.enter()
        here.sockets[0].emit("last")
        here.sockets[0].disconnect(close=True)
        assert here.left == ["server namespace disconnect"]
        for _ in range(2):
            assert json.loads((await client.raw()).text)["events"] == [["last"]]
        assert await client.poll() == [["last"]]
        assert client.closed == {"code": 3000, "reason": "Go away!", "may_return": False}
        assert (await client.emit("x")).status == 404


@pytest.mark.parametrize("method", ["POST", "DELETE"])
async def test_leave(method: str) -> None:
    async with world() as here:
        client = Poller(here)
        await client.enter()
        answer = await request(here.base, method, f"/plain/leave?sid={client.sid}")
        assert (answer.status, answer.body) == (204, b"")
        assert here.left == ["transport close"]
        assert here.io.sockets.clients() == []
        await client.poll()
        assert client.closed is not None
        assert client.closed["code"] == 1000


async def test_leaving_the_namespace_ends_the_session() -> None:
    async with world() as here:
        client = Poller(here)
        await client.enter()
        assert (await client.emit("#disconnect")).status == 200
        assert here.left == ["client namespace disconnect"]
        await client.poll()
        assert client.closed is not None
        assert client.closed["code"] == 1000


async def test_slow_poller_is_closed_and_the_mailbox_stays_small() -> None:
    async with world(pipe_high_bytes=100, queue_high_bytes=100, queue_max_bytes=300) as here:
        client = Poller(here)
        await client.enter()
        socket = here.sockets[0]
        await client.poll()
        # The mailbox takes no more than its mark, and the queue the rest, however often the client asks.
        for _ in range(4):
            socket.emit("x", "y" * 60)
        for _ in range(2):
            assert len(json.loads((await client.raw()).text)["events"]) == 2
        assert socket.receiver.queued_messages == 2
        assert not socket.volatile.emit("passing")
        drained = asyncio.ensure_future(socket.drain())
        await asyncio.sleep(0)
        assert len(await client.poll()) == 2
        assert not drained.done()
        assert len(await client.poll()) == 2
        await asyncio.wait_for(drained, TIMEOUT_SECONDS)
        assert await client.poll() == []
        assert socket.volatile.emit("passing")
        assert await client.poll() == [["passing"]]
        while socket.emit("x", "y" * 60):
            pass
        assert here.left == ["slow consumer"]
        await client.poll()
        await client.poll()
        assert client.closed is not None
        assert client.closed["code"] == 4008
        assert client.closed["may_return"] is True


async def test_emit_that_is_no_message(quiet: Quiet) -> None:
    quiet.expect("An event needs a name")
    async with world(max_payload_bytes=200, max_message_bytes=100) as here:
        client = Poller(here)
        await client.enter()
        for body, status in ((b"", 400), (b"{", 400), (b"{}", 400), (b'[["add"],1]', 400), (b'["' + b"x" * 120, 400)):
            answer = await here.post(f"emit?sid={client.sid}", body)
            assert answer.status == status
            assert "error" in json.loads(answer.text)
        assert (await here.post(f"emit?sid={client.sid}", json.dumps(["x" * 120]))).status == 413
        assert (await here.post(f"emit?sid={client.sid}", b"x" * 201)).status == 413
        # None of that ended the session, a name that no client may use does.
        assert await client.poll() == []
        answer = await client.emit("connect")
        assert answer.status == 400
        assert "has ended" in json.loads(answer.text)["error"]
        assert here.left == ["parse error"]


async def test_a_slow_handler_holds_back_its_own_client_only() -> None:
    async with world(max_inbox_messages=1) as here:
        may_go = asyncio.Event()
        slow, other = Poller(here), Poller(here)
        await slow.enter()
        here.sockets[0].on("wait", may_go.wait)
        await other.enter()
        await slow.emit("wait")
        waiting = asyncio.ensure_future(slow.emit(1, "add", 1, 1))
        assert (await other.emit(1, "add", 2, 2)).status == 200
        assert await other.poll() == [["#ack", 1, 4]]
        assert not waiting.done()
        may_go.set()
        assert (await asyncio.wait_for(waiting, TIMEOUT_SECONDS)).status == 200


async def test_origin_rule_and_preflight() -> None:
    async with world() as here:
        for method, path in (("GET", "poll"), ("POST", "emit?sid=x"), ("DELETE", "leave?sid=x"), ("GET", "events")):
            assert (await request(here.base, method, f"/plain/{path}", headers=FOREIGN)).status == 403
        assert here.sockets == []
    async with world(origins=["https://elsewhere.example"]) as here:
        answer = await here.get("poll", FOREIGN)
        assert answer.headers["Access-Control-Allow-Origin"] == "https://elsewhere.example"
        asking = (*FOREIGN, ("Access-Control-Request-Headers", "content-type"))
        for path, methods in (
            ("emit", "OPTIONS, POST"),
            ("leave", "OPTIONS, POST, DELETE"),
            ("events", "OPTIONS, GET"),
        ):
            answer = await request(here.base, "OPTIONS", f"/plain/{path}", headers=asking)
            assert answer.status == 204
            assert answer.headers["Access-Control-Allow-Methods"] == methods
            assert answer.headers["Access-Control-Allow-Headers"] == "content-type"
        answer = await request(here.base, "POST", "/plain/poll")
        assert (answer.status, answer.headers["Allow"]) == (405, "OPTIONS, GET")


async def test_limits_of_clients_and_addresses() -> None:
    async with world(max_sessions_per_address=1) as here:
        await Poller(here).enter()
        for path in ("poll", "events"):
            assert (await here.get(path)).status == 429
        with pytest.raises(HandshakeRefused, match="429"):
            await here.websocket()


async def test_the_application_sees_the_first_request() -> None:
    class Base(RequestHandler):
        def prepare(self) -> None:
            if self.get_query_argument("user", "") != "ada":
                self.set_status(401)
                self.finish("log in first")

        def get_current_user(self) -> str:
            return "ada"

    async with world(base_handler=Base) as here:
        for path in ("poll", "events"):
            answer = await here.get(path)
            assert (answer.status, answer.text) == (401, "log in first")
        client = Poller(here)
        await client.enter("?user=ada")
        assert here.sockets[0].handshake.info.current_user == "ada"
        assert await client.poll() == []
        reader = await Reader.open(here, "?user=ada")
        assert reader.head.status == 200
        reader.abort()


async def test_a_sid_belongs_to_the_address_that_got_it() -> None:
    async with world(verify_ip=True, trusted_proxies=["127.0.0.1"]) as here:
        client = Poller(here)
        await client.enter()
        answer = await here.get(f"poll?sid={client.sid}&since=1", (("X-Forwarded-For", "192.0.2.7"),))
        assert answer.status == 403
        assert await client.poll() == []


# -- the feed


async def test_feed_of_a_room_and_of_a_namespace() -> None:
    async with world() as here:
        everyone = await Reader.open(here)
        rooms = await Reader.open(here, "?room=b&room=a&room=b")
        same = await Reader.open(here, "?ns=/&room=a&room=b")
        assert number(await everyone.block()) == number(await rooms.block()) == number(await same.block()) == 0
        assert len(here.io.feeds) == 2
        assert here.io.emit("all", "é%") == 1
        assert await everyone.event() == ["all", "é%"]
        here.io.to("a").to("b").emit("both", b"\x00")
        here.io.to("b").emit("one")
        here.io.to("c").emit("other")
        here.io.to("a").except_("b").emit("excepted")
        here.io.to("a").emit("last")
        for reader in (rooms, same):
            blocks = [await reader.block() for _ in range(3)]
            expected = [["both", {"#base64": "AA=="}], ["one"], ["last"]]
            assert [json.loads(block["data"]) for block in blocks] == expected
            assert [number(block) for block in blocks] == [1, 2, 3]
            assert all(set(block) == {"id", "data"} for block in blocks)
        # It is no client, and in no list of them.
        assert here.sockets == []
        assert here.io.sockets.clients() == here.io.sockets.clients("a") == here.io.to("a").clients() == []
        assert here.io.manager.rooms == {}
        assert (await here.io.call("anybody?")).answers == {}
        for reader in (everyone, rooms, same):
            reader.abort()


async def test_feed_resumes_where_it_was_lost() -> None:
    async with world() as here:
        reader = await Reader.open(here, "?room=a")
        start = (await reader.block())["id"]
        here.io.to("a").emit("e", 1)
        last = (await reader.block())["id"]
        reader.abort()
        await until(lambda: not here.io.feeds.open(here.io.sockets, ["a"]).readers)
        here.io.to("a").emit("e", 2)
        here.io.to("a").emit("e", 3)
        missed = [["e", 2], ["e", 3]]
        for query, headers in ((f"&lastEventId={last}", ()), (f"&lastEventId={start}", (("Last-Event-ID", last),))):
            reader = await Reader.open(here, f"?room=a{query}", headers)
            assert [await reader.event() for _ in missed] == missed
            here.io.to("a").emit("now")
            missed.append(["now"])
            assert await reader.event() == ["now"]
            reader.abort()
        from_start = await Reader.open(here, f"?room=a&lastEventId={start}")
        assert [await from_start.event() for _ in range(5)] == [["e", 1], *missed]
        from_start.abort()


@pytest.mark.parametrize(
    "last", ["x", "-1", "abc-1", "EPOCH-99", "EPOCH--1", "EPOCH-x", "EPOCH-" + "9" * 5000, "é", "٣-٣"]
)
async def test_feed_says_that_nobody_knows_what_was_lost(last: str) -> None:
    async with world() as here:
        reader = await Reader.open(here)
        epoch = (await reader.block())["id"].partition("-")[0]
        here.io.emit("before")
        late = await Reader.open(here, "?lastEventId=" + quote(last.replace("EPOCH", epoch)))
        assert await late.block() == {"id": f"{epoch}-1", "event": "gap", "data": '{"lost":null}'}
        here.io.emit("after")
        assert await late.block() == {"id": f"{epoch}-2", "data": '["after"]'}
        reader.abort()
        late.abort()


@pytest.mark.parametrize("limit", [{"feed_history_messages": 2}, {"feed_history_bytes": 70}])
async def test_feed_keeps_so_much_and_says_how_much_is_lost(limit: dict[str, int]) -> None:
    async with world(**limit) as here:
        reader = await Reader.open(here)
        start = (await reader.block())["id"]
        for count in range(5):
            here.io.emit("e", count)
        late = await Reader.open(here, f"?lastEventId={start}")
        gap = await late.block()
        assert (gap["event"], json.loads(gap["data"]), number(gap)) == ("gap", {"lost": 3}, 3)
        assert [number(await late.block()), number(await late.block())] == [4, 5]
        reader.abort()
        late.abort()


async def test_feed_stays_for_a_while_after_its_last_reader() -> None:
    async with world(feed_linger_s=10) as here:
        here.io.of(lambda name: name.startswith("/game")).allow_feed("a")
        for name in ("/", "/game"):
            reader = await Reader.open(here, f"?ns={name}&room=a")
            reader.abort()
            channel = here.io.feeds.open(here.io.namespaces[name], ["a"])
            await until(lambda channel=channel: not channel.readers)
            here.clock.advance(4)
        assert len(here.io.feeds) == 2
        here.clock.advance(3)
        assert len(here.io.feeds) == 1
        assert set(here.io.namespaces) == {"/", "/game"}
        # Somebody who comes back keeps it alive.
        reader = await Reader.open(here, "?ns=/game&room=a")
        here.clock.advance(20)
        assert len(here.io.feeds) == 1
        reader.abort()
        await until(lambda: not channel.readers)
        here.clock.advance(11)
        assert len(here.io.feeds) == 0
        assert set(here.io.namespaces) == {"/"}
        assert here.io.sockets.hub.rooms == ()


async def test_access_to_a_feed_is_decided_by_the_same_hooks() -> None:
    async with world() as here:
        judged: list[Socket] = []
        here.io.set("authorization", lambda handshake: "key" in handshake.query)
        here.io.of("/closed").authorization(lambda handshake: handshake.info.transport != "events")

        @here.io.use
        async def rooms(socket: Socket) -> bool:
            judged.append(socket)
            await asyncio.sleep(0)
            return socket.handshake.feed_rooms == ("open",)

        for query, status, text in (
            ("?room=open", 403, "not authorized"),
            ("?key=1&ns=/closed", 403, "not authorized"),
            ("?key=1&ns=/nowhere", 404, "Invalid namespace"),
            ("?key=1&room=secret&room=open", 403, "not authorized\n"),
            ("?key=1", 403, "not authorized\n"),
            ("?key=1&room=", 400, "A room's name has 1 to 256 characters."),
            ("?key=1&room=" + "x" * 257, 400, "A room's name has 1 to 256 characters."),
            ("?key=1" + "&room=x" * 21, 400, "Too many rooms; a feed has at most 20."),
        ):
            answer = await here.get(f"events{query}")
            assert (answer.status, answer.text) == (status, text)
        assert len(here.io.feeds) == 0
        reader = await Reader.open(here, "?key=1&room=open")
        await reader.block()
        socket = judged[-1]
        assert not socket.connected
        assert not socket.emit("nowhere")
        socket.join("open")
        here.io.to("open").emit("once")
        assert await reader.event() == ["once"]
        assert socket.rooms == ()
        reader.abort()


async def test_no_room_is_a_feed_until_it_is_allowed() -> None:
    async with world() as here:
        chat = here.io.of("/chat")
        for query in ("?room=secret", "?room=news&room=secret", "?ns=/chat&room=news"):
            answer = await here.get(f"events{query}")
            assert (answer.status, "allow_feed" in answer.text) == (403, True)
        assert len(here.io.feeds) == 0
        chat.allow_feed(lambda room: room.startswith("n"))
        reader = await Reader.open(here, "?ns=/chat&room=news")
        await reader.block()
        chat.to("news").emit("now")
        assert await reader.event() == ["now"]
        reader.abort()


async def test_nobody_listens_to_what_goes_to_one_client() -> None:
    async with world() as here:
        await Poller(here).enter()
        answer = await here.get(f"events?room=news&room={here.sockets[0].id}")
        assert (answer.status, answer.text) == (403, "A client's id is not a room.")
        assert here.io.sockets.hub.in_room("news") == (here.sockets[0],)


async def test_reader_that_goes_while_a_hook_thinks_leaves_nothing() -> None:
    async with world() as here:
        asked, may_go = asyncio.Event(), asyncio.Event()

        @here.io.use
        async def slow(socket: Socket) -> None:
            asked.set()
            await may_go.wait()

        connection = await Connection.open(here.base)
        await connection.send("GET", "/plain/events")
        await asyncio.wait_for(asked.wait(), TIMEOUT_SECONDS)
        connection.abort()
        (store,) = [endpoint.gateway.store for endpoint in here.io._endpoints[1:2]]
        await until(lambda: not any(session.is_open for session in store))
        may_go.set()
        await turns()
        here.clock.advance(10)
        assert len(store) == 0
        assert len(here.io.feeds) == 0


async def test_feed_response_has_its_limit_and_its_heartbeat() -> None:
    async with world(response_limit_bytes=40, heartbeat_delay=5) as here:
        reader = await Reader.open(here)
        start = (await reader.block())["id"]
        here.clock.advance(6)
        assert await reader.block() == {":": ""}
        here.io.emit("long", "x" * 40)
        assert await reader.event() == ["long", "x" * 40]
        await reader.ended()
        (store,) = [endpoint.gateway.store for endpoint in here.io._endpoints[1:2]]
        assert len(store) == 0
        # The connection is kept: the browser comes back on it.
        head = await reader.connection.start("GET", "/plain/events", headers=(("Last-Event-ID", start),))
        assert head.status == 200
        assert await reader.block() == {"retry": "2000"}
        assert await reader.event() == ["long", "x" * 40]
        await reader.ended()
        reader.abort()
        # Who never answers anything is asked to come back, too.
        quiet_one = await Reader.open(here)
        await quiet_one.block()
        here.clock.advance(30)
        assert set(await quiet_one.connection.read_rest()) == set(b":\n")
        quiet_one.abort()


async def test_slow_reader_is_cut_and_resumes() -> None:
    async with world(pipe_high_bytes=1000, queue_max_bytes=20_000, response_limit_bytes=10**9) as here:
        reader = await Reader.open(here)
        start = (await reader.block())["id"]
        reader.connection.reader._transport.pause_reading()  # type: ignore[attr-defined]  # asyncio reads ahead
        channel = here.io.feeds.open(here.io.sockets, [])
        sent = 0
        while channel.readers:
            here.io.emit("e", sent, "x" * 10_000)
            sent += 1
            await asyncio.sleep(0)
        reader.abort()
        late = await Reader.open(here, f"?lastEventId={start}")
        gap = await late.block()
        assert gap.get("event") == "gap" or json.loads(gap["data"])[1] == 0
        late.abort()


async def test_too_many_feeds() -> None:
    async with world(max_feeds=2) as here:
        first = await Reader.open(here, "?room=a")
        second = await Reader.open(here, "?room=b")
        answer = await here.get("events?room=c")
        assert (answer.status, answer.text) == (503, "Too many feeds on this server.")
        second.abort()
        await until(lambda: not here.io.feeds.open(here.io.sockets, ["b"]).readers)
        third = await Reader.open(here, "?room=c")
        assert third.head.status == 200
        assert here.io.sockets.hub.rooms == ("a", "c")
        first.abort()
        third.abort()


async def test_limits_of_a_feeds_url() -> None:
    async with world(max_feed_rooms=2, max_name_chars=5, feed_retry_s=0.5) as here:
        here.io.of("/four")
        here.io.sockets.allow_feed("abcde")
        for query, status in (
            ("?room=a&room=b", 200),
            ("?room=a&room=b&room=c", 400),
            ("?room=abcde", 200),
            ("?room=abcdef", 400),
            ("?ns=/four", 200),
            ("?ns=/fours", 400),
        ):
            async with await Connection.open(here.base) as connection:
                head = await connection.start("GET", f"/plain/events{query}")
                assert head.status == status
                if status == 200:
                    assert await connection.read_until(b"\n\n") == b"retry: 500\n\n"


async def test_an_event_is_encoded_once_for_all_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    async with world() as here:
        readers = [await Reader.open(here, "?room=a") for _ in range(5)]
        for reader in readers:
            await reader.block()
        counts = {"packet": 0, "frame": 0}
        packets, frames = PlainPackets.encode, Feed.encode

        def encode_packet(self: PlainPackets, packet: Any) -> Any:
            counts["packet"] += 1
            return packets(self, packet)

        def encode_frame(self: Feed, message: object) -> Any:
            counts["frame"] += 1
            return frames(self, message)

        monkeypatch.setattr(PlainPackets, "encode", encode_packet)
        monkeypatch.setattr(Feed, "encode", encode_frame)
        here.io.to("a").emit("e", 1)
        here.io.to("a").volatile.emit("e", 2)
        assert counts == {"packet": 2, "frame": 2}
        for reader in readers:
            numbered, passing = await reader.block(), await reader.block()
            assert (numbered["data"], "id" in numbered) == ('["e",1]', True)
            assert passing == {"data": '["e",2]'}
            reader.abort()


async def test_server_that_closes_ends_its_feeds() -> None:
    async with world() as here:
        reader = await Reader.open(here)
        await reader.block()
        here.io.close()
        await reader.ended()
        assert len(here.io.feeds) == 0
        reader.abort()


# -- together


async def test_one_emit_reaches_every_kind_once() -> None:
    async with world() as here:
        poller = Poller(here)
        await poller.enter()
        reader = await Reader.open(here, "?room=news")
        await reader.block()
        async with await here.websocket() as client:
            await client.recv_text()
            here.io.to("news").to("other").emit("e", b"\xff")
            assert await client.recv_text() == '["e",{"#base64":"/w=="}]'
            assert await poller.poll() == [["e", {"#base64": "/w=="}]]
            assert await reader.event() == ["e", {"#base64": "/w=="}]
            here.sockets[0].broadcast.to("news").emit("not to the poller")
            assert await client.recv_text() == '["not to the poller"]'
            assert await poller.poll() == []
            assert await reader.event() == ["not to the poller"]
            assert len(here.io.sockets.clients("news")) == 2
        reader.abort()


async def test_one_room_holds_a_member_of_every_kind() -> None:
    async with world() as here, AsyncExitStack() as stack:
        members = {}
        for transport in ("websocket", "xhr_streaming", "htmlfile", "eventsource", "xhr", "jsonp", "rawwebsocket"):
            wire = await stack.enter_async_context(Client(here.base, transport, "/polysock"))
            members[transport] = await (await WireClient(wire).open()).connect()
            stack.push_async_callback(members[transport].vanish)
        poller = Poller(here)
        await poller.enter()
        reader = await Reader.open(here, "?room=news")
        stack.callback(reader.abort)
        await reader.block()
        plain = await stack.enter_async_context(await here.websocket())
        await plain.recv_text()
        assert here.io.to("news").emit("all", b"\x00\xff") == len(members) + 3
        # The second leaves out its sender, the long-polling member.
        sender = here.io.sockets.socket(members["xhr"].id or "")
        assert isinstance(sender, Socket)
        assert sender.to("news").emit("others", "é") == len(members) + 2
        here.io.to("news").emit("end")
        for transport, member in members.items():
            await member.wait("end")
            others = [] if transport == "xhr" else [("others", "é")]
            assert await member.take() == [("all", b"\x00\xff"), *others]
        binary = ["all", {"#base64": "AP8="}]
        assert await poller.poll() == [binary, ["others", "é"], ["end"]]
        assert [await reader.event() for _ in range(3)] == [binary, ["others", "é"], ["end"]]
        assert [json.loads(await plain.recv_text()) for _ in range(3)] == [binary, ["others", "é"], ["end"]]


async def test_any_request_has_a_defined_answer(quiet: Quiet) -> None:
    chance = random.Random(7)
    bits = [
        "sid=",
        "since=",
        "ns=",
        "room=",
        "lastEventId=",
        "&",
        "=",
        "%00",
        "%ff",
        "%",
        "/",
        "\xff",
        "9" * 30,
        "%2f",
        "a",
    ]
    bodies = [b"", b"[", b"[]", b"{}", b"[[1]]", b"\xff" * 9, b'["#ack",1]', b"null", b"[" * 5000]
    async with world(max_sessions_per_address=50) as here:
        for _ in range(300):
            method = chance.choice(["GET", "POST", "DELETE", "OPTIONS", "PUT", "HEAD"])
            path = chance.choice(["websocket", "poll", "emit", "leave", "events"])
            query = "".join(chance.choices(bits, k=chance.randrange(8)))
            headers = [("Last-Event-ID", chance.choice(bits)), ("Origin", chance.choice(["null", here.base]))]
            body = chance.choice(bodies) if method == "POST" else b""
            async with await Connection.open(here.base) as connection:
                head = await connection.start(method, f"/plain/{path}?{query}", headers=headers, body=body)
                assert head.status in (200, 204, 400, 403, 404, 405, 409, 413, 426, 429), head
            assert here.io.counters["bad_packets"] == 0


async def test_routes_can_be_left_out() -> None:
    io = Server(clock=FakeClock())
    async with serving(io.routes(plain=None)) as base:
        assert (await request(base, "GET", "/plain/poll")).status == 404
    async with serving(io.routes(sockjs=None, plain="/elsewhere/")) as base:
        assert (await request(base, "GET", "/elsewhere/poll")).status == 200
        assert (await request(base, "GET", "/elsewhere")).status == 404


async def test_goodbye_of_the_server_reaches_a_websocket() -> None:
    async with world() as here, await here.websocket() as client:
        await client.recv_text()
        here.io.close()
        with pytest.raises(SocketClosed, match="1001"):
            await client.recv_text()


# -- the documentation

PAGE = Path(__file__).resolve().parent.parent / "docs" / "wire-plain.md"
DOCUMENTED_ADDRESS = "http://127.0.0.1:8888"
EXAMPLE = re.compile(r"^```(js|python|console) ?(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SID = re.compile(r'(?<="sid":")[\w-]{24}(?=")')
# Ids are made anew each time: of a poller, of a Socket, of a feed.
IDS = re.compile(r"(?<=[\"=])(?:[\w-]{24}|[\w-]{20})(?=\")|(?<=id: )[0-9a-f]{12}")


def examples(language: str) -> dict[str, str]:
    found = EXAMPLE.findall(PAGE.read_text(encoding="utf-8"))
    return {mark or str(index): code for index, (lang, mark, code) in enumerate(found) if lang == language}


@asynccontextmanager
async def documented_server(*extra: Any) -> AsyncIterator[tuple[Server, str]]:
    module: dict[str, Any] = {"__name__": "example"}
    exec(compile(examples("python")["server"], str(PAGE), "exec"), module)
    io: Server = module["io"]
    async with serving([*io.routes(), *extra]) as base:
        yield io, base
        io.close()
        # A socket that is still saying goodbye when the loop ends would be blamed on a later test.
        await until(
            lambda: (
                not any(
                    session.attached
                    for endpoint in io._endpoints
                    for gateway in endpoint.gateways
                    for session in gateway.store
                )
            ),
            20,
        )


async def test_documented_commands() -> None:
    need_program("curl", how="your system's package curl")
    blocks = examples("console").values()
    steps = [step.partition("\n")[::2] for block in blocks for step in block.removeprefix("$ ").split("\n$ ")]
    assert len(steps) > 12
    real: dict[str, str] = {}
    async with documented_server() as (_, base):
        for command, expected in steps:
            command = command.replace(DOCUMENTED_ADDRESS, base)
            for shown, actual in real.items():
                command = command.replace(shown, actual)
            process = await asyncio.create_subprocess_exec("sh", "-c", command, stdout=asyncio.subprocess.PIPE)
            output = (await asyncio.wait_for(process.communicate(), TIMEOUT_SECONDS))[0].decode()
            for pattern in (SID, re.compile(r"(?<=id: )[0-9a-f]{12}")):
                for shown, actual in zip(pattern.findall(expected), pattern.findall(output), strict=False):
                    real.setdefault(shown, actual)
            assert IDS.sub("ID", output).strip("\n") == IDS.sub("ID", expected).strip("\n"), command


@pytest.mark.parametrize(
    ("example", "shown"),
    [
        ("websocket", [3, "AAECAAEC", "name?", "Hello Ada"]),
        ("polling", [42]),
        ("feed", ["hello", "hello again"]),
    ],
)
async def test_documented_scripts_in_a_browser(chromium: Engine, example: str, shown: list[Any]) -> None:
    class Page(RequestHandler):
        def get(self) -> None:
            self.write(
                "<!DOCTYPE html><script>var shown = [];"
                "function show(value) { shown.push(value);"
                f"if (shown.length === {len(shown)}) {{ window.__result = JSON.stringify(shown); }} }}"
                f"{examples('js')[example]}</script>"
            )

    async with documented_server(("/page", Page)) as (io, base):
        watching = asyncio.ensure_future(asyncio.to_thread(chromium.run, f"{base}/page", timeout=60))
        if example == "feed":
            chat = io.of("/chat")
            await until(lambda: chat.hub.in_room("news"), 20)
            (channel,) = chat.hub.in_room("news")
            chat.to("news").emit("said", "hello")
            # The browser comes back by itself, and misses nothing.
            await until(lambda: channel.readers == 1)
            for gateway in (gateway for endpoint in io._endpoints for gateway in endpoint.gateways):
                gateway.store.close_all(NORMAL)
            assert channel.readers == 0
            chat.to("news").emit("said", "hello again")
        result = await watching
    assert json.loads(result or "null") == shown
