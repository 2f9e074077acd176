"""Socket.IO 4 packets: the vectors both ways, what is the same as in protocol 5, and any input whatever."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polysock import ProtocolError
from polysock.packets import Ack, Connect, ConnectError, Disconnect, Event, Packet, PacketCodec
from polysock.packets.socketio4 import SOCKETIO4
from support.packets import JSON, TEXT, VALUE, all_finite, expanded, load, packet_of, vectors_of

VECTORS = load("socketio4")
PROTOCOL5 = load("socketio5")

MAX_ATTACHMENTS = 10
MAX_ATTACHMENT_BYTES = 1000


def read(messages: Sequence[str | bytes], *, from_server: bool = False) -> list[Packet | None]:
    reader = SOCKETIO4.reader(
        max_attachments=MAX_ATTACHMENTS, max_attachment_bytes=MAX_ATTACHMENT_BYTES, from_server=from_server
    )
    return [reader.feed(message) for message in messages]


@vectors_of(VECTORS, "both", "encode")
def test_encode(vector: dict[str, Any]) -> None:
    assert list(SOCKETIO4.encode(packet_of(vector))) == expanded(vector["messages"])


@vectors_of(VECTORS, "both", "decode")
def test_decode(vector: dict[str, Any]) -> None:
    *before, packet = read(expanded(vector["messages"]))
    assert packet == packet_of(vector)
    assert not any(before)


@vectors_of(VECTORS, "both", "decode", "from_server")
def test_decode_from_a_server(vector: dict[str, Any]) -> None:
    assert read(expanded(vector["messages"]), from_server=True)[-1] == packet_of(vector)


@vectors_of(VECTORS, "drop")
def test_drop(vector: dict[str, Any]) -> None:
    assert read([*expanded(vector["messages"]), '2["next"]']) == [None, Event("/", "next", [])]


@vectors_of(VECTORS, "reject")
def test_reject(vector: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        read(expanded(vector["messages"]))


@vectors_of(PROTOCOL5, "both", "decode")
def test_reads_what_protocol_5_reads(vector: dict[str, Any]) -> None:
    assert read(expanded(vector["messages"]))[-1] == packet_of(vector)


@vectors_of(PROTOCOL5, "reject")
def test_refuses_what_protocol_5_refuses(vector: dict[str, Any]) -> None:
    if vector["name"] in ("connect error from a client", "binary event that counts none"):
        assert len(read(expanded(vector["messages"]))) == 1
    else:
        with pytest.raises(ProtocolError):
            read(expanded(vector["messages"]))


def test_the_codec_and_its_rules() -> None:
    codec: PacketCodec = SOCKETIO4
    assert codec.named("a=b") is codec
    rules = codec.rules
    assert (rules.enters_main, rules.forgiving, rules.main_is_all) == (True, True, False)
    assert rules.socket_id is not None
    assert rules.socket_id("OEEACMraImEh6kaYAAAB", "/") == "OEEACMraImEh6kaYAAAB"
    assert rules.socket_id("OEEACMraImEh6kaYAAAB", "/chat") == "/chat#OEEACMraImEh6kaYAAAB"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1}, 10**5000], ids=type)
def test_what_cannot_travel(value: object) -> None:
    deep: list[Any] = [value]
    for _ in range(3000):
        deep = [deep]
    for args in ([value], [{"a": [value]}], [b"", value], deep, [b"", *deep]):
        for packet in (Event("/", "x", args), Ack("/", 1, args), ConnectError("/", "no", args)):
            with pytest.raises((TypeError, ValueError)):
                SOCKETIO4.encode(packet)


def test_attachments_are_bounded_in_bytes() -> None:
    messages = ['52-["x"]', bytes(MAX_ATTACHMENT_BYTES - 1)]
    assert read([*messages, b"x"])[-1] is not None
    with pytest.raises(ProtocolError) as error:
        read([*messages, b"xx"])
    assert error.value.reason.code == 1009


def test_memory_of_a_reader_is_bounded() -> None:
    """Announcements cost nothing until the attachments come, also where none are to come."""
    reader = SOCKETIO4.reader(max_attachments=10, max_attachment_bytes=100_000)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(50):
            assert reader.feed('50-["x"]') == Event("/", "x", [])
            assert reader.feed('51-["x",{"_placeholder":true,"num":0}]') is None
            assert reader.feed(bytes(100_000)) is not None
        assert tracemalloc.get_traced_memory()[0] - before < 20_000
    finally:
        tracemalloc.stop()


# --- anything whatever ------------------------------------------------------------------------------------------------

_namespace = st.just("/") | TEXT.map(lambda text: "/" + text.replace(",", "")).filter(lambda name: len(name) < 200)
_piece = st.sampled_from(
    [
        *(
            "0",
            "1",
            "2",
            "3",
            "4",
            "5",
            "6",
            "-",
            ",",
            "/",
            "/a,",
            "/a?b,",
            "?",
            "0-",
            "1-",
            "10000-",
            "[",
            "]",
            '["x"',
        ),
        *('"', "{", "}", "AA==", "null", "NaN", "1e400", '{"_placeholder":true,"num":0}', "\ud800", "connect", "\0"),
    ]
)
_message = (
    TEXT
    | st.binary(max_size=50)
    | st.lists(_piece, max_size=8).map("".join)
    | st.builds(
        lambda head, body: head + json.dumps(body),
        st.from_regex(r"[0-6](\d-)?(/\w*(\?\w*)?,)?\d{0,3}", fullmatch=True),
        JSON,
    )
)


@given(messages=st.lists(_message, max_size=6), from_server=st.booleans())
def test_any_messages_are_packets_or_protocol_errors(messages: list[str | bytes], *, from_server: bool) -> None:
    reader = SOCKETIO4.reader(max_attachments=3, max_attachment_bytes=40, from_server=from_server)
    for message in messages:
        try:
            packet = reader.feed(message)
        except ProtocolError:
            return
        if packet is None:
            continue
        assert from_server or isinstance(packet, (Connect, Disconnect, Event, Ack))
        assert all_finite(list(getattr(packet, "args", ())))
        SOCKETIO4.encode(packet)  # what came in can go out


@given(name=TEXT, args=st.lists(VALUE, max_size=4), namespace=_namespace, ack_id=st.none() | st.integers(0, 10**15 - 1))
def test_what_goes_out_comes_in(name: str, args: list[Any], namespace: str, ack_id: int | None) -> None:
    packets: list[Packet] = [Event(namespace, name, args, ack_id), Ack(namespace, ack_id or 0, args)]
    for packet in packets:
        reader = SOCKETIO4.reader(max_attachments=1000, max_attachment_bytes=10**6, from_server=True)
        text, *attachments = SOCKETIO4.encode(packet)
        assert isinstance(text, str)
        assert text.replace(namespace, "", 1).isascii()
        *before, last = [reader.feed(message) for message in (text, *attachments)]
        assert not any(before)
        assert last == packet
