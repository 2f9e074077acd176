"""Socket.IO 5 packets: the vectors both ways, any input whatever, and what a server makes of bad packets."""

from __future__ import annotations

import asyncio
import json
import math
import tracemalloc
from base64 import b64encode
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polysock import ProtocolError, Socket
from polysock.packets import Ack, Connect, Disconnect, Event, Packet
from polysock.packets.socketio import BINARY, TEXT_ONLY, SocketIO
from support.clients import (
    EVERY,
    WEBSOCKETS,
    Quiet,
    quiet,  # noqa: F401  # autouse: nothing here logs unannounced
    until,
)
from support.hub import served_world
from support.packets import JSON, TEXT, VALUE, all_finite, expanded, load, packet_of, vectors_of

VECTORS = load("socketio5")

MAX_ATTACHMENTS = 10
MAX_ATTACHMENT_BYTES = 1000

both_codecs = pytest.mark.parametrize("codec", [BINARY, TEXT_ONLY], ids=lambda codec: codec.name)


class Pair(NamedTuple):
    first: object
    second: object


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        ({"a": [1, (b"x",)]}, '{"a":[1,[{"_placeholder":true,"num":0}]]}'),
        (OrderedDict(a=memoryview(b"x")), '{"a":{"_placeholder":true,"num":0}}'),
        (Pair("a", bytearray(b"x")), '["a",{"_placeholder":true,"num":0}]'),
    ],
)
def test_bytes_are_found_in_every_kind_of_container(value: object, sent: str) -> None:
    assert BINARY.encode(Event("/", "e", (value,))) == (f'51-["e",{sent}]', b"x")


@pytest.mark.parametrize("value", [Pair("a", 1), ("a", 1), ["a", 1]])
def test_containers_without_bytes_are_plain_json(value: object) -> None:
    assert BINARY.encode(Event("/", "e", (value, {"b": None}))) == ('2["e",["a",1],{"b":null}]',)


def test_a_container_in_itself_cannot_travel() -> None:
    value: dict[str, object] = {}
    value["itself"] = [value]
    with pytest.raises(ValueError, match="nested too deep"):
        BINARY.encode(Event("/", "e", (value,)))


def cases(*groups: str) -> Any:
    return vectors_of(VECTORS, *groups)


def messages_of(vector: dict[str, Any], codec: SocketIO) -> list[str | bytes]:
    return [
        "b" + b64encode(message).decode() if isinstance(message, bytes) and codec is TEXT_ONLY else message
        for message in expanded(vector["messages"])
    ]


def read(codec: SocketIO, messages: Sequence[str | bytes], *, from_server: bool = False) -> list[Packet | None]:
    reader = codec.reader(
        max_attachments=MAX_ATTACHMENTS, max_attachment_bytes=MAX_ATTACHMENT_BYTES, from_server=from_server
    )
    return [reader.feed(message) for message in messages]


# --- vectors ----------------------------------------------------------------------------------------------------------


@both_codecs
@cases("both", "from_server")
def test_encode(vector: dict[str, Any], codec: SocketIO) -> None:
    assert list(codec.encode(packet_of(vector))) == messages_of(vector, codec)


@both_codecs
@cases("both", "decode")
def test_decode(vector: dict[str, Any], codec: SocketIO) -> None:
    *before, packet = read(codec, messages_of(vector, codec))
    assert packet == packet_of(vector)
    assert not any(before)


@both_codecs
@cases("both", "from_server", "decode")
def test_decode_from_a_server(vector: dict[str, Any], codec: SocketIO) -> None:
    assert read(codec, messages_of(vector, codec), from_server=True)[-1] == packet_of(vector)


@both_codecs
@cases("reject")
def test_reject(vector: dict[str, Any], codec: SocketIO) -> None:
    *before, last = messages_of(vector, codec)
    reader = codec.reader(max_attachments=MAX_ATTACHMENTS, max_attachment_bytes=MAX_ATTACHMENT_BYTES)
    for message in before:
        reader.feed(message)
    with pytest.raises(ProtocolError):
        reader.feed(last)


@pytest.mark.parametrize("text", ["b", "bA", "bAA=", "b====", "b AA==", "b\xe9", "bAA==bAA==", "b\ud800"])
def test_attachments_that_are_not_base64(text: str) -> None:
    reader = TEXT_ONLY.reader(max_attachments=1, max_attachment_bytes=100)
    assert reader.feed('51-["x",{"_placeholder":true,"num":0}]') is None
    if text == "b":
        assert reader.feed(text) == Event("/", "x", [b""])
    else:
        with pytest.raises(ProtocolError):
            reader.feed(text)


@both_codecs
def test_attachments_are_bounded_in_bytes(codec: SocketIO) -> None:
    fits = messages_of({"messages": [{"base64": b64encode(bytes(MAX_ATTACHMENT_BYTES - 1)).decode()}]}, codec)
    more = messages_of({"messages": [{"base64": "AAA="}]}, codec)
    reader = codec.reader(max_attachments=2, max_attachment_bytes=MAX_ATTACHMENT_BYTES)
    assert reader.feed('52-["x"]') is None
    assert reader.feed(fits[0]) is None
    with pytest.raises(ProtocolError) as error:
        reader.feed(more[0])
    assert error.value.reason.code == 1009


@both_codecs
def test_attachments_are_bounded_in_bytes_each_time_they_are_named(codec: SocketIO) -> None:
    """Else a short packet would be a giant one to everybody it is passed on to."""
    placeholder = '{"_placeholder":true,"num":0}'
    messages = messages_of({"messages": [{"base64": b64encode(bytes(MAX_ATTACHMENT_BYTES // 2)).decode()}]}, codec)
    assert read(codec, [f'51-["x",{placeholder},{placeholder}]', *messages])[-1] is not None
    with pytest.raises(ProtocolError) as error:
        read(codec, [f'51-["x",{placeholder},{placeholder},[{placeholder}]]', *messages])
    assert error.value.reason.code == 1009


@both_codecs
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, object(), {1}, 1j, 10**5000], ids=type)
def test_what_cannot_travel(value: object, codec: SocketIO) -> None:
    for args in ([value], [{"a": [value]}], [b"", value]):
        for packet in (Event("/", "x", args), Ack("/", 1, args)):
            with pytest.raises((TypeError, ValueError)):
                codec.encode(packet)


@both_codecs
@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "\udc00\ud800"])
def test_lone_surrogates_travel_escaped(text: str, codec: SocketIO) -> None:
    (message,) = codec.encode(Event("/", text, [{text: text}]))
    assert isinstance(message, str)
    message.encode("utf-8")
    assert read(codec, [message]) == [Event("/", text, [{text: text}])]


# --- anything whatever ------------------------------------------------------------------------------------------------

_namespace = st.just("/") | TEXT.map(lambda text: "/" + text.replace(",", "")).filter(lambda name: len(name) < 200)
# Pieces from which packets are made, so that many inputs get past the first check.
_piece = st.sampled_from(
    [
        *("0", "1", "2", "3", "4", "5", "6", "-", ",", "/", "/a,", "1-", "10000-", "[", "]", '["x"', '"', "{", "}"),
        *("b", "AA==", "null", "NaN", "1e400", '{"_placeholder":true,"num":0}', '{"_placeholder":true,"num":-1}'),
        *("\ud800", "connect", "\0"),
    ]
)
_message = (
    TEXT
    | st.binary(max_size=50)
    | st.lists(_piece, max_size=8).map("".join)
    | st.builds(
        lambda head, body: head + json.dumps(body), st.from_regex(r"[0-6](\d-)?(/\w*,)?\d{0,3}", fullmatch=True), JSON
    )
    | st.builds(lambda data: "b" + b64encode(data).decode(), st.binary(max_size=20))
)


@both_codecs
@given(messages=st.lists(_message, max_size=6))
def test_any_messages_are_packets_or_protocol_errors(messages: list[str | bytes], codec: SocketIO) -> None:
    reader = codec.reader(max_attachments=3, max_attachment_bytes=40)
    for message in messages:
        try:
            packet = reader.feed(message)
        except ProtocolError:
            return
        assert packet is None or isinstance(packet, (Connect, Disconnect, Event, Ack))
        if isinstance(packet, (Event, Ack)):
            assert isinstance(packet.args, list)
            assert all_finite(packet.args)
            assert packet.ack_id is None or 0 <= packet.ack_id < 10**15
            codec.encode(packet)  # what came in can go out


@both_codecs
@given(name=TEXT, args=st.lists(VALUE, max_size=4), namespace=_namespace, ack_id=st.none() | st.integers(0, 10**15 - 1))
def test_what_goes_out_comes_in(
    name: str, args: list[Any], namespace: str, ack_id: int | None, codec: SocketIO
) -> None:
    packets: list[Packet] = [Event(namespace, name, args, ack_id), Ack(namespace, ack_id or 0, args)]
    for packet in packets:
        reader = codec.reader(max_attachments=1000, max_attachment_bytes=10**6, from_server=True)
        *before, last = [reader.feed(message) for message in codec.encode(packet)]
        assert not any(before)
        assert last == packet


# --- bad packets, told to a server ------------------------------------------------------------------------------------

BAD = [vector for vector in VECTORS["reject"] if not any("100000" in str(message) for message in vector["messages"])]


@pytest.mark.parametrize("vector", BAD, ids=[vector["name"] for vector in BAD])
async def test_bad_packets_end_the_connection_counted_and_logged(
    vector: dict[str, Any],
    quiet: Quiet,  # noqa: F811
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with served_world("rawwebsocket") as world:
        taken: list[object] = []
        world.io.on("connection", lambda socket: socket.on_any(lambda *args: taken.append(args)))
        bad, other = await world.client(), await world.client()
        reasons: list[str] = []
        world.io.on("disconnect", lambda socket, reason: reasons.append(reason))
        quiet.expect("closing the connection of 127.0.0.1")
        await bad.send(*messages_of(vector, BINARY))
        assert (await bad.ended())[0] in (1002, 1009)
        assert world.io.counters == {"bad_packets": 1}
        assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 1
        await until(lambda: reasons)
        assert reasons[0] in ("parse error", "transport close")
        taken.clear()  # "bytes after the last attachment" came after a good packet
        await other.emit("still here")
        await until(lambda: taken == [("still here",)])


@pytest.mark.parametrize("transport", EVERY)
@pytest.mark.parametrize("message", ['2["connect"]', "9", '510000-["x"]', '2/chat,["x"]', "0", '2["x",1e400]', "\0"])
async def test_bad_packets_over_every_transport(message: str, transport: str, quiet: Quiet) -> None:  # noqa: F811
    """A namespace the client is not in and a second connect are the same fault, as in Socket.IO."""
    async with served_world(transport) as world:
        world.io.of("/chat")
        bad = await world.client()
        quiet.expect("closing the connection of 127.0.0.1")
        await bad.send(message)
        assert (await bad.ended())[0] in (1002, 1009)
        assert world.io.counters == {"bad_packets": 1}
        await until(lambda: not world.io.sockets.clients())


async def test_unknown_namespaces_and_acks_are_answered_or_counted() -> None:
    async with served_world("rawwebsocket") as world:
        a = await world.client()
        await a.send("3999[1]", "30[]", "3/nowhere,1[]", "1/nowhere,")
        assert await a.take() == []
        assert world.io.counters == {"unknown_acks": 3}
        (socket,) = world.io.sockets.clients()
        answers: list[object] = []
        socket.emit("question", answers.append)
        await a.wait("question")
        await a.send('30["once"]', '30["twice"]')
        assert await a.take() == []
        assert answers == ["once"]
        assert world.io.counters == {"unknown_acks": 4}
        for name in ("/x", "/" + "n" * 255, "/\U0001f600", "//", "/__proto__", "/%2F"):
            other = await world.client(name)
            assert other.error == {"message": "Invalid namespace"}
        assert set(world.io.namespaces) == {"/"}


@pytest.mark.parametrize("transport", WEBSOCKETS)
async def test_deep_values_that_a_reader_takes_hurt_nobody(transport: str, quiet: Quiet) -> None:  # noqa: F811
    """ujson reads a nesting that Python's own recursion cannot follow: an answer of it is an error, and no more."""
    async with served_world(transport) as world:

        @world.io.on("connection")
        def connected(socket: Socket) -> None:
            socket.on("echo", lambda value: value)
            socket.on("all", lambda value: world.io.emit("x", value))

        a = await world.client()
        quiet.expect("'echo'")
        quiet.expect("'all'")
        for number, event in enumerate(("echo", "all"), 1000):
            await a.send(f'2{number}["{event}",{"[" * 1000}{"]" * 1000}]')
        assert await a.take() == []
        assert [one for one in a.messages if str(one).startswith("3100")] == [
            '31000[{"error":"Internal error"}]',
            '31001[{"error":"Internal error"}]',
        ]


async def test_attachments_count_for_what_may_wait() -> None:
    """What waits for its handler is bounded in bytes, those of attachments included."""
    size = 1000
    async with served_world("xhr", max_inbox_bytes=10 * size, max_message_bytes=10 * size) as world:
        gate = asyncio.Event()

        @world.io.on("connection")
        def connected(socket: Socket) -> None:
            @socket.on("x")
            async def slow(*args: bytes) -> None:
                await gate.wait()

        a = await world.client()
        (socket,) = world.io.sockets.clients()
        session = socket.receiver
        sends = 0
        while not session.inbox_full and sends < 100:
            sends += 1
            send = asyncio.ensure_future(a.emit("x", bytes(size), b""))
            await until(lambda send=send: send.done() or session.inbox_full)  # type: ignore[misc]  # bound at once
        assert sends < 15, "the attachments of 100 events wait, and nothing counts them"
        gate.set()
        await send


def test_memory_of_a_reader_is_bounded() -> None:
    """Announced attachments cost nothing until they come, and those that came are dropped with their packet."""
    reader = BINARY.reader(max_attachments=10, max_attachment_bytes=100_000)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(200):
            reader.feed('52-["x",{"_placeholder":true,"num":0}]')
            reader.feed(bytes(50_000))
            assert reader.feed(b"") is not None
        assert tracemalloc.get_traced_memory()[0] - before < 20_000
    finally:
        tracemalloc.stop()
