"""The fan-out: one encoding for each codec and dialect, one byte string for each transport shape, however many listen.

The codecs, dialects and shapes here are the real ones, and count how often they are asked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from polysock import ConnectionInfo, Server
from polysock.packets import Connect, Packet
from polysock.packets.socketio import SocketIO
from polysock.peer import Peer
from polysock.testing import FakeClock
from polysock_transports.dialects import Dialect
from polysock_transports.dialects.plain import Plain
from polysock_transports.dialects.sockjs import SockJS
from polysock_transports.errors import NORMAL, CloseReason
from polysock_transports.eventsource import eventsource_shape
from polysock_transports.htmlfile import htmlfile_shape
from polysock_transports.prepared import PreparedMessage, Shape
from polysock_transports.session import Session
from polysock_transports.store import SessionStore
from polysock_transports.transport import Transport
from polysock_transports.websocket import websocket_shape
from polysock_transports.wire import Frame
from support.clients import (
    EVERY,
    quiet,  # noqa: F401  # autouse: nothing here logs unannounced
)
from support.hub import WireClient, World, assert_no_ghosts
from support.serving import serving

CLIENTS = 1000


class Counts(Counter[str]):
    """How often each part was asked to encode."""


class CountingCodec(SocketIO):
    def __init__(self, counts: Counts, *, text_only: bool) -> None:
        super().__init__("text" if text_only else "binary", text_only=text_only)
        self._counts = counts

    def encode(self, packet: Packet) -> Sequence[str | bytes]:
        self._counts[f"codec {self.name}"] += 1
        return super().encode(packet)


class CountingSockJS(SockJS):
    def __init__(self, counts: Counts) -> None:
        self._counts = counts

    def encode(self, message: object) -> str:
        self._counts["dialect sockjs"] += 1
        return super().encode(message)


class CountingPlain(Plain):
    def __init__(self, counts: Counts) -> None:
        self._counts = counts

    def encode(self, message: object) -> Frame:
        self._counts["dialect plain"] += 1
        return super().encode(message)


def counting(counts: Counts, name: str, shape: Shape) -> Shape:
    def counted(frame: Frame) -> bytes:
        counts[f"shape {name}"] += 1
        return shape(frame)

    return counted


class Sink(Transport):
    """Takes bytes and keeps them; nothing is between it and the session."""

    name = "sink"

    def __init__(self, shape: Shape | None) -> None:
        self.shape = shape
        self.taken: list[bytes | Frame] = []

    def write(self, frames: Sequence[Frame]) -> None:
        if self.shape is None:
            self.taken.extend(frames)
        else:
            self.taken.extend(map(self.shape, frames))

    def write_wire(self, data: bytes) -> None:
        self.taken.append(data)

    def finish(self, reason: CloseReason | None) -> None:
        assert self.owner is not None
        self.owner.transport_ended(self)

    def abort(self) -> None:
        self.owner = None


class Crowd:
    """A Server whose parts count, and sessions of it that end in sinks."""

    def __init__(self) -> None:
        counts = self.counts = Counts()
        self.text = CountingCodec(counts, text_only=True)
        self.binary = CountingCodec(counts, text_only=False)
        self.sockjs = CountingSockJS(counts)
        self.plain = CountingPlain(counts)
        crowd = self

        class CountingServer(Server):
            def _peer(self, info: ConnectionInfo, session_id: str) -> Peer:
                return Peer(self, info, crowd.binary if info.transport == "rawwebsocket" else crowd.text)

        self.io = CountingServer(clock=FakeClock())
        self.store = SessionStore(self.io.limits, self.io.clock)
        self.shapes: dict[str, Shape] = {
            "eventsource": counting(counts, "eventsource", eventsource_shape),
            "htmlfile": counting(counts, "htmlfile", htmlfile_shape),
            "websocket": counting(counts, "websocket", websocket_shape),
        }

    def join(self, codec: CountingCodec, dialect: Dialect, transport: Transport | None) -> Session:
        info = ConnectionInfo(ip="127.0.0.1", cookies={}, arguments={}, headers={}, path="/", transport="sink")
        peer = Peer(self.io, info, codec)
        session = Session(
            "", peer, dialect, scheduler=self.store, clock=self.io.clock, limits=self.io.limits, resumable=False
        )
        peer.bind(session)
        self.store.add(session)
        session.open()
        if transport is not None:
            session.attach(transport)
        peer.on_message(Connect())
        return session

    def crowd(self) -> list[tuple[str, Session, Sink | None]]:
        """One client in ``CLIENTS`` of each kind in turn; ``behind`` ones have no connection right now."""
        kinds: list[tuple[str, CountingCodec, Dialect]] = [
            ("websocket", self.text, self.sockjs),
            ("eventsource", self.text, self.sockjs),
            ("htmlfile", self.text, self.sockjs),
            ("no shape", self.text, self.sockjs),
            ("behind", self.text, self.sockjs),
            ("raw websocket", self.binary, self.plain),
        ]
        members: list[tuple[str, Session, Sink | None]] = []
        for number in range(CLIENTS):
            kind, codec, dialect = kinds[number % len(kinds)]
            shape = self.shapes.get(kind.removeprefix("raw "))
            sink = None if kind == "behind" else Sink(shape)
            members.append((kind, self.join(codec, dialect, sink), sink))
            if sink is not None:
                sink.taken.clear()
        self.counts.clear()
        return members


@pytest.mark.parametrize("attachments", [0, 2])
def test_each_message_is_encoded_once(attachments: int) -> None:
    crowd = Crowd()
    members = crowd.crowd()
    data = {"text": "é", "attachments": [bytes([number]) * 10 for number in range(attachments)]}
    messages = 1 + attachments
    everyone = [socket.id for socket in crowd.io.sockets.clients()]
    for rounds, emit in enumerate((crowd.io.emit, crowd.io.to(*everyone).emit), 1):
        crowd.counts.clear()
        assert emit("x", data) == CLIENTS
        assert crowd.counts == {
            "codec text": 1,
            "codec binary": 1,
            "dialect sockjs": messages,
            "dialect plain": messages,
            "shape eventsource": messages,
            "shape htmlfile": messages,
            # SockJS frames and the raw ones are different bytes.
            "shape websocket": 2 * messages,
        }
        first: dict[str, list[Any]] = {}
        for kind, session, sink in members:
            if sink is None:
                assert session.queued_messages == rounds * messages + 1  # the answer to its connect waits too
                continue
            assert len(sink.taken) == messages
            assert sink.taken == first.setdefault(kind, sink.taken[:])
            if sink.shape is not None:  # the very same bytes, and not even copies of them
                assert all(mine is other for mine, other in zip(sink.taken, first[kind], strict=True))
            sink.taken.clear()
    crowd.store.close_all(NORMAL)
    assert_no_ghosts(crowd.io)


def test_volatile_is_encoded_once_too() -> None:
    crowd = Crowd()
    members = crowd.crowd()
    crowd.io.volatile.emit("x", b"1")
    assert crowd.counts["codec text"] == crowd.counts["codec binary"] == 1
    assert crowd.counts["dialect sockjs"] == crowd.counts["dialect plain"] == 2
    for kind, session, sink in members:
        assert session.queued_messages == (1 if kind == "behind" else 0)  # what waits is the answer to its connect
        assert sink is None or len(sink.taken) == 2
    crowd.store.close_all(NORMAL)
    assert_no_ghosts(crowd.io)


def test_nobody_listens_nothing_is_encoded() -> None:
    crowd = Crowd()
    crowd.crowd()
    assert crowd.io.to("empty").emit("x") == 0
    assert crowd.io.of("/empty").emit("x") == 0
    assert crowd.counts == {}
    crowd.store.close_all(NORMAL)
    assert_no_ghosts(crowd.io)


async def test_real_sockets_in_a_crowd() -> None:
    """A thousand in memory and one of each transport: everybody gets it once, and still it is encoded once."""
    crowd = Crowd()
    routes = crowd.io.routes()
    for endpoint in crowd.io._endpoints:
        for gateway in endpoint.gateways:
            if gateway.dialect.name == "sockjs":
                gateway.dialect = crowd.sockjs
    async with serving(routes) as base:
        world = World(crowd.io, crowd.io.clock, "", base)  # type: ignore[arg-type]  # it was given a FakeClock
        members: dict[str, WireClient] = {transport: await world.client(transport=transport) for transport in EVERY}
        crowd.crowd()
        for number in range(5):
            crowd.counts.clear()
            assert crowd.io.emit("x", number, b"bytes") == CLIENTS + len(EVERY)
            counts = dict(crowd.counts)
            assert {counts["codec text"], counts["codec binary"]} == {1}
            assert counts["dialect sockjs"] == 2  # the text and its attachment
            assert "dialect plain" not in counts  # the real raw WebSocket came first, and its dialect made it for all
            assert {counts["shape eventsource"], counts["shape htmlfile"]} == {2}
        for member in members.values():
            assert await member.take() == [("x", number, b"bytes") for number in range(5)]
        await world.close()
        crowd.io.close()
        crowd.store.close_all(NORMAL)
    assert_no_ghosts(crowd.io)


def test_a_prepared_message_makes_everything_once() -> None:
    counts = Counts()
    dialect = CountingSockJS(counts)
    shape = counting(counts, "websocket", websocket_shape)
    message = PreparedMessage("é")
    assert message.fragment(dialect) is message.fragment(dialect)
    assert message.wire(dialect, shape) is message.wire(dialect, shape)
    assert counts == {"dialect sockjs": 1, "shape websocket": 1}
    assert message.wire(dialect, shape).endswith(b'a["\\u00e9"]')
