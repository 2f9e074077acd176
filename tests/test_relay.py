"""Any node answers any request: clients that reach the wrong node, over every transport, and all that can go wrong.

Real nodes over real sockets (see ``support/nodes.py``); every test of an answer compares it with the owner's own.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

import pytest
from tornado.web import Application

from polysock import Server
from polysock_transports.placement import Node, Placement
from polysock_transports.relay import Relay
from support.clients import CALLBACK, quiet, turns, until
from support.clock import FakeClock
from support.hub import World, assert_no_ghosts
from support.hub_table import ROWS, Row
from support.nodes import Here, Nodes, nodes
from support.rawhttp import PING, Connection, Response, WireSocket, request
from support.serving import serving_application

__all__ = ["quiet"]

both_lanes = pytest.mark.parametrize("fast_lane", [True, False], ids=["taken over", "stream"])
both_ways = pytest.mark.parametrize("tcp", [False, True], ids=["unix", "tcp"])

JSON = [("Content-Type", "application/json")]
SAME = [("Host", "127.0.0.1"), ("Origin", "http://127.0.0.1")]
FORM = [("Content-Type", "application/x-www-form-urlencoded")]


class Visitor:
    """A client whose requests go to *base*, and what it was answered, byte for byte but for dates and its own id."""

    def __init__(self, base: str, version: str = "1.1") -> None:
        self.base = base
        self.version = version
        self.seen: list[Any] = []
        self.sid = ""
        self._kept: dict[str, Connection] = {}
        self._opened: list[Connection] = []

    async def connection(self, name: str) -> Connection:
        """The one called *name*; of HTTP/1.0 each lasts for one request."""
        found = self._kept.pop(name, None) if self.version == "1.1" else None
        if found is None:
            found = await Connection.open(self.base)
            self._opened.append(found)
        self._kept[name] = found
        return found

    async def ask(self, method: str, path: str, body: bytes = b"", *, name: str = "send", **named: Any) -> Response:
        connection = await self.connection(name)
        answer = await connection.request(method, path, body=body, version=self.version, **named)
        self.note(answer)
        return answer

    async def begin(self, method: str, path: str, *, name: str = "receive", **named: Any) -> Connection:
        connection = await self.connection(name)
        await connection.send(method, path, version=self.version, **named)
        return connection

    async def answer(self, connection: Connection) -> Response:
        answer = await connection.read_response()
        self.note(answer)
        return answer

    async def head(self, connection: Connection) -> Response:
        answer = await connection.read_head()
        self.note(answer)
        return answer

    async def until(self, connection: Connection, marker: bytes) -> None:
        self.seen.append(self._own(await connection.read_until(marker)))

    async def rest(self, connection: Connection) -> None:
        self.seen.append(self._own(await connection.read_rest()))

    def note(self, answer: Response) -> None:
        lines = [(name, self._own(value.encode("latin-1"))) for name, value in answer.headers.lines if name != "Date"]
        self.seen.append((answer.status, answer.reason, lines, self._own(answer.body)))

    def _own(self, data: bytes) -> bytes:
        data = data.replace(self.sid.encode(), b"SID") if self.sid else data
        return re.sub(rb"socketio-[0-9a-f]{32}", b"BOUNDARY", data)

    async def socket(self, path: str) -> WireSocket:
        socket = await WireSocket.connect(self.base, path, KEY)
        self._opened.append(socket.connection)
        self.note(socket.response)
        return socket

    def leave(self) -> None:
        for connection in self._opened:
            connection.abort()


Script = Callable[[Visitor, Here, Here], Awaitable[None]]
SCRIPTS: dict[str, Script] = {}


def script(name: str) -> Callable[[Script], Script]:
    def keep(function: Script) -> Script:
        SCRIPTS[name] = function
        return function

    return keep


# -- SockJS


async def sockjs_poll(visitor: Visitor, owner: Here, transport: str) -> None:
    method, suffix = ("GET", f"?c={CALLBACK}") if transport == "jsonp" else ("POST", "")
    url = f"/s/000/{visitor.sid}/{transport}"
    send = f"/s/000/{visitor.sid}/{transport}_send"
    headers = [*SAME, ("Cookie", "JSESSIONID=x; a=b")]
    assert b"o" in (await visitor.ask(method, url + suffix, name="receive", headers=headers)).body
    poll = await visitor.begin(method, url + suffix, headers=headers)
    await until(lambda: owner.sessions[0].attached)
    body = b'["\\u00e9 \xc3\xa9"]'
    if transport == "jsonp":
        await visitor.ask("POST", send, b"d=" + quote(body).encode(), headers=[*headers, *FORM])
    else:
        await visitor.ask("POST", send, body, headers=headers)
    await visitor.answer(poll)
    await visitor.ask("POST", send, b"{broken", headers=headers)
    await visitor.ask("POST", send, b"", headers=headers)
    # Two at a time, the end, and who comes late.
    poll = await visitor.begin(method, url + suffix)
    await until(lambda: owner.sessions[0].attached)
    await visitor.ask(method, url + suffix, name="other")
    owner.made[-1].close(3001, "over")
    await visitor.answer(poll)
    await visitor.ask(method, url + suffix, name="receive")
    await visitor.ask("POST", send, b'["late"]')
    await visitor.ask(method, f"/s/000/{visitor.sid}/jsonp?c=%3Cx%3E", name="other")


@script("sockjs xhr")
async def xhr(visitor: Visitor, owner: Here, wrong: Here) -> None:
    await sockjs_poll(visitor, owner, "xhr")


@script("sockjs jsonp")
async def jsonp(visitor: Visitor, owner: Here, wrong: Here) -> None:
    await sockjs_poll(visitor, owner, "jsonp")


async def sockjs_stream(visitor: Visitor, owner: Here, transport: str, prelude: bytes, end: bytes) -> None:
    method, suffix = ("GET", f"?c={CALLBACK}") if transport == "htmlfile" else ("GET", "")
    if transport == "xhr_streaming":
        method = "POST"
    url = f"/s/000/{visitor.sid}/{transport}"
    send = f"/s/000/{visitor.sid}/xhr_send"
    stream = await visitor.begin(method, url + suffix, headers=SAME)
    await visitor.head(stream)
    await visitor.until(stream, prelude)
    await visitor.until(stream, end)
    for text in (b'["a"]', b'["b","c"]', b'["' + b"x" * 5000 + b'"]'):
        await visitor.ask("POST", send, text)
        await visitor.until(stream, end)
    # Over its budget the response ends, and the client comes back.
    await visitor.ask("POST", send, b'["' + b"y" * 9000 + b'"]')
    await visitor.rest(stream)
    stream = await visitor.begin(method, url + suffix)
    await visitor.head(stream)
    await visitor.until(stream, prelude)
    owner.made[-1].close(3001, "over")
    await visitor.rest(stream)
    visitor.seen.append(await visitor.ask(method, url + suffix, name="receive") and "late")


@script("sockjs xhr_streaming")
async def xhr_streaming(visitor: Visitor, owner: Here, wrong: Here) -> None:
    await sockjs_stream(visitor, owner, "xhr_streaming", b"h\n", b"\n")


@script("sockjs eventsource")
async def eventsource(visitor: Visitor, owner: Here, wrong: Here) -> None:
    await sockjs_stream(visitor, owner, "eventsource", b"\r\n", b"\r\n\r\n")


@script("sockjs htmlfile")
async def htmlfile(visitor: Visitor, owner: Here, wrong: Here) -> None:
    await sockjs_stream(visitor, owner, "htmlfile", b"\r\n\r\n", b"</script>\r\n")


# -- Engine.IO


async def engine_open(visitor: Visitor, owner: Here, query: str) -> None:
    """Opens at the owner: what follows goes to where the visitor goes."""
    answer = await request(owner.base, "GET", f"/e/?{query}")
    found = re.search(r'\\?"sid\\?":\\?"([^"\\]+)', answer.text)
    assert found
    visitor.sid = found[1]
    assert visitor.sid.startswith(owner.node.id)


async def engine_polling(visitor: Visitor, owner: Here, version: int, *, call: bool = False) -> None:
    query = f"EIO={version}&transport=polling" + ("&j=7" if call else "")
    await engine_open(visitor, owner, query)
    url = f"/e/?{query}&sid={visitor.sid}"

    async def post(packets: str) -> None:
        payload = packets if version == 4 else f"{len(packets)}:{packets}"
        body = b"d=" + quote(payload).encode() if call else payload.encode()
        await visitor.ask("POST", url, body, headers=FORM if call else [("Content-Type", "text/plain;charset=UTF-8")])

    poll = await visitor.begin("GET", url, headers=SAME)
    await until(lambda: owner.sessions[0].attached)
    await post("4hello")
    await visitor.answer(poll)
    owner.made[-1].send(b"\x00\xff", binary=True)
    await visitor.ask("GET", url, name="receive")
    if version == 3:
        await post("2")
        await visitor.ask("GET", url, name="receive")
    await visitor.ask("GET", url.replace("polling", "nonsense"))
    await post("9")
    await visitor.ask("GET", url, name="receive")


for number in (3, 4):
    for jsonp_too in (False, True):

        @script(f"engine {number} {'jsonp' if jsonp_too else 'polling'}")
        async def polling(
            visitor: Visitor, owner: Here, wrong: Here, version: int = number, call: bool = jsonp_too
        ) -> None:
            await engine_polling(visitor, owner, version, call=call)


async def engine_upgrade(visitor: Visitor, owner: Here, version: int) -> None:
    await engine_open(visitor, owner, f"EIO={version}&transport=polling")
    url = f"/e/?EIO={version}&sid={visitor.sid}&transport="
    poll = await visitor.begin("GET", url + "polling")
    await until(lambda: owner.sessions[0].attached)
    socket = await visitor.socket(url + "websocket")
    await socket.send_text("2probe")
    visitor.seen.append(await socket.recv_text())
    await visitor.answer(poll)
    await socket.send_text("5")
    for text in ("4one", "4" + "x" * 70_000, "4three"):
        await socket.send_text(text)
        visitor.seen.append(await socket.recv_text())
    owner.made[-1].send(b"\x00\xff", binary=True)
    visitor.seen.append(await socket.recv())
    await socket.send_frame(PING, b"?")
    visitor.seen.append(await socket.recv())
    await visitor.ask("GET", url + "polling", name="receive")
    await visitor.ask("POST", url + "polling", b"4x" if version == 4 else b"2:4x")
    owner.made[-1].close(3001, "over")
    visitor.seen.append(await socket.expect_close())
    await visitor.ask("GET", url + "polling", name="receive")


KEY = [("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")]


@script("engine 3 upgrade")
async def upgrade3(visitor: Visitor, owner: Here, wrong: Here) -> None:
    await engine_upgrade(visitor, owner, 3)


@script("engine 4 upgrade")
async def upgrade4(visitor: Visitor, owner: Here, wrong: Here) -> None:
    await engine_upgrade(visitor, owner, 4)


# -- Socket.IO 0.9


async def legacy_open(visitor: Visitor, owner: Here) -> str:
    answer = await request(owner.base, "GET", "/socket.io/1/?t=1")
    visitor.sid = answer.text.partition(":")[0]
    assert visitor.sid.startswith(owner.node.id)
    return "/socket.io/1/{}/" + visitor.sid


@script("0.9 xhr-polling")
async def legacy_polling(visitor: Visitor, owner: Here, wrong: Here) -> None:
    url = (await legacy_open(visitor, owner)).format("xhr-polling")
    await visitor.ask("GET", url + "?t=1", name="receive")
    poll = await visitor.begin("GET", url + "?t=2")
    await until(lambda: owner.sessions[0].attached)
    await visitor.ask("POST", url + "?t=3", b"3:::hello")
    await visitor.answer(poll)
    await visitor.ask("POST", url + "?t=4", b"\xff\xff")
    await visitor.ask("GET", url + "?disconnect=1")
    await visitor.ask("GET", url + "?t=5", name="receive")
    await visitor.ask("POST", url + "?t=6", b"3:::late")


@script("0.9 jsonp-polling")
async def legacy_jsonp(visitor: Visitor, owner: Here, wrong: Here) -> None:
    url = (await legacy_open(visitor, owner)).format("jsonp-polling")
    await visitor.ask("GET", url + "?t=1&i=3", name="receive")
    poll = await visitor.begin("GET", url + "?t=2&i=3")
    await until(lambda: owner.sessions[0].attached)
    await visitor.ask("POST", url + "?t=3&i=3", b"d=" + quote('"3:::hello"').encode(), headers=FORM)
    await visitor.answer(poll)
    await visitor.ask("GET", url + "?t=4&disconnect=1")


async def legacy_stream(visitor: Visitor, owner: Here, transport: str, first: bytes, end: bytes) -> None:
    url = (await legacy_open(visitor, owner)).format(transport)
    stream = await visitor.begin("GET", url)
    await visitor.head(stream)
    await visitor.until(stream, first)
    await visitor.ask("POST", url, b"3:::hello")
    await visitor.until(stream, end)
    await visitor.ask("GET", url + "?disconnect=1")
    await visitor.rest(stream)


@script("0.9 htmlfile")
async def legacy_htmlfile(visitor: Visitor, owner: Here, wrong: Here) -> None:
    await legacy_stream(visitor, owner, "htmlfile", b"1::", b"3:::hello")


@script("0.9 xhr-multipart")
async def legacy_multipart(visitor: Visitor, owner: Here, wrong: Here) -> None:
    await legacy_stream(visitor, owner, "xhr-multipart", b"1::", b"3:::hello")


async def legacy_socket(visitor: Visitor, owner: Here, transport: str) -> None:
    url = (await legacy_open(visitor, owner)).format(transport)
    socket = await visitor.socket(url)
    visitor.seen.append(await socket.recv_text())
    await socket.send_text("3:::hello")
    visitor.seen.append(await socket.recv_text())
    await visitor.ask("GET", url + "?disconnect=1")
    visitor.seen.append(await socket.recv_text())
    visitor.seen.append(await socket.expect_close())


@script("0.9 websocket")
async def legacy_websocket(visitor: Visitor, owner: Here, wrong: Here) -> None:
    await legacy_socket(visitor, owner, "websocket")


@script("0.9 flashsocket")
async def legacy_flashsocket(visitor: Visitor, owner: Here, wrong: Here) -> None:
    await legacy_socket(visitor, owner, "flashsocket")


# -- plain


@script("plain polling")
async def plain(visitor: Visitor, owner: Here, wrong: Here) -> None:
    answer = json.loads((await request(owner.base, "GET", "/plain/poll")).text)
    visitor.sid = answer["sid"]
    assert visitor.sid.startswith(owner.node.id)
    url = f"/plain/poll?sid={visitor.sid}&since="
    await visitor.ask("GET", f"{url}{answer['cursor']}")
    await visitor.ask("POST", f"/plain/emit?sid={visitor.sid}", b'[1,"add",2,3]', headers=JSON)
    await visitor.ask("GET", f"{url}{answer['cursor']}")
    await visitor.ask("GET", url)
    await visitor.ask("POST", f"/plain/emit?sid={visitor.sid}", b"nonsense")
    await visitor.ask("DELETE", f"/plain/leave?sid={visitor.sid}")
    await visitor.ask("GET", f"{url}1")


async def transcript(made: Nodes, name: str, owner: Here, through: Here, version: str) -> list[Any]:
    visitor = Visitor(through.base, version)
    if name.startswith("sockjs"):
        visitor.sid = made.session_id(owner)
    try:
        await SCRIPTS[name](visitor, owner, through)
    finally:
        visitor.leave()
    for _ in range(3):
        made.clock.advance(100)
    await until(lambda: not owner.sessions)
    return visitor.seen


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@both_lanes
@pytest.mark.parametrize("name", SCRIPTS)
async def test_the_wrong_node_answers_as_the_owner_does(name: str, fast_lane: bool, version: str) -> None:
    async with nodes(2, fast_lane=fast_lane, response_limit_bytes=8000) as made:
        wrong, owner = made
        direct = await transcript(made, name, owner, owner, version)
        relayed = await transcript(made, name, owner, wrong, version)
        assert direct == relayed
        assert wrong.relay.counters["relayed"] >= 2
        assert not wrong.relay.counters["failed"]
        assert not owner.relay.counters["relayed"]
        assert not [here for here in made if here is wrong and here.made]


@both_lanes
@pytest.mark.parametrize("transport", ["xhr", "jsonp", "xhr_streaming", "eventsource", "htmlfile"])
async def test_a_client_may_reach_another_node_with_every_request(transport: str, fast_lane: bool) -> None:
    """No message is lost, and none comes before another."""
    async with nodes(3, fast_lane=fast_lane, response_limit_bytes=2000) as made:
        client = await made.client(made.session_id(made[1]), made[0], transport)
        texts = [f"{number} " + "x" * (number * 7 % 300) for number in range(200)]
        received: list[str] = []
        for number, text in enumerate(texts):
            client.base = made[number % 3].base
            if number % 5 == 0 and transport in ("xhr", "jsonp"):
                # The next poll on a connection to the next node.
                await client.response_end()
                assert client.connection is not None
                client.connection.abort()
                client.connection = None
            await client.send(text)
            received.append(await client.message())
        assert received == texts
        assert made[1].made[0].messages == texts
        assert len(made[0].made) + len(made[2].made) == 0


@both_lanes
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.__name__)
async def test_row_of_the_hub(row: Row, fast_lane: bool) -> None:
    """The server API, with clients that all go to the wrong node."""
    clock = FakeClock()
    io = Server(clock=clock, fast_lane=fast_lane)
    placements = [Placement(Node(f"node000{number}", host="here")) for number in range(2)]
    relays = [Relay(placement, secret=b"x", clock=clock) for placement in placements]
    wrong = Server(clock=clock, fast_lane=fast_lane)
    with tempfile.TemporaryDirectory(prefix="relay") as folder:
        applications = [Application(server.routes(), log_function=lambda _: None) for server in (io, wrong)]
        for number, relay in enumerate(relays):
            await relay.start(applications[number], unix=f"{folder}/{number}")
        placements[1].update([placements[0].own])
        # Everything is at home with the first.
        placements[1].home_of = lambda session_id: placements[0].own  # type: ignore[method-assign]
        for server, relay in zip((io, wrong), relays, strict=True):
            for endpoint in server._endpoints:
                for gateway in endpoint.gateways:
                    gateway.relay = relay
        async with serving_application(applications[1]) as base:
            world = World(io, clock, "xhr_streaming", base)
            try:
                await row(world)
            finally:
                await world.close()
                io.close()
                await turns()
                for relay in relays:
                    await relay.stop()
        assert not list(wrong.sockets.hub)
    for _ in range(3):
        clock.advance(1000)
        await turns()
    assert_no_ghosts(io)
