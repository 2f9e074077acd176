"""The packets of Socket.IO 0.9: the vectors both ways, and any input whatever."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polysock import ProtocolError
from polysock.packets import Ack, Connect, ConnectError, Disconnect, Event, Packet, PacketCodec
from polysock.packets.legacy import REFUSED_EVENTS, SOCKETIO09
from support.packets import JSON, TEXT, VALUE, all_finite, expanded, load, packet_of, vectors_of

VECTORS = load("socketio09")


def read(message: str | bytes) -> Packet | None:
    return SOCKETIO09.reader(max_attachments=1, max_attachment_bytes=1).feed(message)


@vectors_of(VECTORS, "both", "encode")
def test_encode(vector: dict[str, Any]) -> None:
    codec = SOCKETIO09.named(vector.get("query", ""))
    assert list(codec.encode(packet_of(vector))) == expanded(vector["messages"])


@vectors_of(VECTORS, "both", "decode")
def test_decode(vector: dict[str, Any]) -> None:
    (message,) = expanded(vector["messages"])
    assert read(message) == packet_of(vector)


@vectors_of(VECTORS, "drop")
def test_drop(vector: dict[str, Any]) -> None:
    (message,) = expanded(vector["messages"])
    assert read(message) is None


@vectors_of(VECTORS, "reject")
def test_reject(vector: dict[str, Any]) -> None:
    (message,) = expanded(vector["messages"])
    with pytest.raises(ProtocolError):
        read(message)


def test_the_codec_and_its_rules() -> None:
    codec: PacketCodec = SOCKETIO09
    assert codec.named("") is codec
    assert codec.named("a=b").named("") is not codec
    assert codec.named("a=b").rules is codec.rules
    rules = codec.rules
    assert (rules.enters_main, rules.forgiving, rules.main_is_all) == (False, True, True)
    assert rules.socket_id is not None
    assert rules.socket_id("2IxP2pBUffsxFwVOOwNg", "/") == rules.socket_id("2IxP2pBUffsxFwVOOwNg", "/chat")


def test_an_answer_finds_its_question() -> None:
    """Ours go out one higher and come back one lower; the client's own come and go as they are."""
    (question,) = SOCKETIO09.encode(Event("/", "q", [], 0))
    assert question == '5:1+::{"name":"q"}'
    assert read('6:::1+["a"]') == Ack("/", 0, ["a"])
    asked = read('5:1+:/chat:{"name":"q"}')
    assert isinstance(asked, Event)
    assert asked.ack_id is not None
    assert SOCKETIO09.encode(Ack("/chat", asked.ack_id, [1])) == ("6::/chat:1+[1]",)


@pytest.mark.parametrize("value", [math.nan, math.inf, object(), {1}, 1j, 10**5000], ids=type)
def test_what_cannot_travel(value: object) -> None:
    for args in ([value], [{"a": [value]}], [b"", value]):
        for packet in (Event("/", "x", args), Event("/", "message", args), Ack("/", 1, args)):
            with pytest.raises((TypeError, ValueError)):
                SOCKETIO09.encode(packet)


@pytest.mark.parametrize("depth", [900, 3000])
@pytest.mark.parametrize("bottom", [b"", object()], ids=type)
def test_deep_arguments_that_are_not_json_are_an_error_and_no_more(bottom: object, depth: int) -> None:
    deep: list[Any] = [bottom]
    for _ in range(depth):
        deep = [deep]
    for packet in (Event("/", "x", deep), Event("/", "message", deep), Ack("/", 1, deep)):
        with pytest.raises((TypeError, ValueError)):
            SOCKETIO09.encode(packet)


# --- anything whatever ------------------------------------------------------------------------------------------------

_name = st.text(max_size=40).map(lambda text: "/" + re.sub("[:?]", "", text))
_piece = st.sampled_from(
    [
        *("0", "1", "2", "3", "4", "5", "6", "7", "8", "9", ":", "::", "+", "/", "/a", "?b", "[", "]", "{", "}", '"x"'),
        *(
            '"name":',
            '"args":',
            ",",
            "null",
            "NaN",
            "1e400",
            '{"#base64":"AA=="}',
            '{"#base64":"A"}',
            "\ud800",
            "\ufffd",
        ),
        *('"disconnect"', "\n", "\u2028", "\0"),
    ]
)
_head = st.from_regex(r"[3-8]:(\d{1,3}\+?)?:(/\w*(\?\w*)?)?:(\d\+)?", fullmatch=True)
_message = (
    TEXT
    | st.binary(max_size=50)
    | st.lists(_piece, max_size=10).map("".join)
    | st.builds(lambda head, body: head + json.dumps(body), _head, JSON)
    | st.builds(
        lambda head, name, args: head + json.dumps({"name": name, "args": args}),
        _head,
        TEXT | JSON,
        st.lists(JSON, max_size=3) | JSON,
    )
)


@given(message=_message)
def test_any_message_is_a_packet_or_a_protocol_error(message: str | bytes) -> None:
    try:
        packet = read(message)
    except ProtocolError:
        return
    if packet is None:
        return
    assert isinstance(packet, (Connect, Disconnect, Event, Ack))
    if isinstance(packet, (Event, Ack)):
        assert isinstance(packet.args, list)
        assert all_finite(packet.args)
        assert packet.ack_id is None or 0 <= packet.ack_id < 10**15
    if isinstance(packet, Event):
        assert packet.name not in REFUSED_EVENTS
        assert packet.ack_id is None or packet.receipt is None
    for codec in (SOCKETIO09, SOCKETIO09.named("a=b")):
        (text,) = codec.encode(packet)  # what came in can go out
        assert isinstance(text, str)
        text.encode("utf-8")


@given(
    name=(TEXT | st.just("message")).filter(lambda name: name not in REFUSED_EVENTS),
    args=st.lists(VALUE, max_size=3),
    namespace=st.just("/") | _name,
    query=st.just("") | st.text("abc=&%1?", min_size=1, max_size=20),
    receipt=st.none() | st.integers(0, 10**15 - 1),
    ack_id=st.integers(0, 10**15 - 2),
)
def test_what_goes_out_comes_in(
    name: str, args: list[Any], namespace: str, query: str, receipt: int | None, ack_id: int
) -> None:
    codec = SOCKETIO09.named(query)
    assert read(*codec.encode(Event(namespace, name, args, receipt=receipt))) == Event(
        namespace, name, args, receipt=receipt
    )
    # The reader is a server's: it takes an event's id as the client's own, and an ack's as one of ours.
    assert read(*codec.encode(Event(namespace, name, args, ack_id))) == Event(namespace, name, args, ack_id + 1)
    assert read(*codec.encode(Ack(namespace, ack_id + 1, args))) == Ack(namespace, ack_id, args)
    assert read(*codec.encode(Connect(namespace))) == Connect(namespace, query=query)
    assert read(*codec.encode(Disconnect(namespace))) == Disconnect(namespace)
    assert read(*codec.encode(ConnectError(namespace, name))) is None
