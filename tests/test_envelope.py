"""Messages between nodes: what is put in comes out, and any bytes whatever are an envelope or a ProtocolError."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from polysock import ProtocolError
from polysock.envelope import Answer, Ask, Bye, Emit, Envelope, EnvelopeTooBig, Hello, decode, encode
from polysock.hub import EVERYONE, Target
from polysock.limits import DEFAULT_CLUSTER_LIMITS, ClusterLimits
from polysock.packets import Event
from polysock_transports.placement import Node
from support.packets import JSON, TEXT, VALUE

LIMITS = DEFAULT_CLUSTER_LIMITS
SMALL = ClusterLimits(max_envelope_bytes=400, max_envelope_names=3, max_envelope_attachments=2)
ANN = "aaaaAAAA"

NODE_IDS = st.from_regex(r"[A-Za-z0-9]{8}", fullmatch=True)
NUMBERS = st.integers(0, 2**53)
EVENTS = st.builds(Event, TEXT, TEXT.filter(lambda name: name.isalpha() and "connect" not in name), st.lists(VALUE))
TARGETS = st.builds(Target, st.lists(TEXT, max_size=4).map(tuple), st.lists(TEXT, max_size=4).map(tuple))
SHORT = TEXT.map(lambda text: text[:200])
NODES = st.builds(Node, NODE_IDS, NUMBERS, SHORT, SHORT, SHORT)
ENVELOPES = st.one_of(
    st.builds(Hello, NUMBERS, NODES, st.booleans()),
    st.builds(Bye, NODE_IDS, NUMBERS),
    st.builds(Emit, NODE_IDS, NUMBERS, EVENTS, TARGETS, st.booleans(), st.booleans()),
    st.builds(
        Emit, NODE_IDS, NUMBERS, EVENTS, TEXT.map(lambda name: Target((name,))), st.booleans(), is_direct=st.just(True)
    ),
    st.builds(Ask, NODE_IDS, NUMBERS, EVENTS, st.none() | NUMBERS, TARGETS),
    st.builds(Answer, NODE_IDS, NUMBERS, NUMBERS, st.lists(VALUE), NUMBERS, st.booleans(), st.booleans()),
)


def parts(*pieces: bytes) -> bytes:
    return b"".join(len(piece).to_bytes(4, "big") + piece for piece in pieces)


def header(**fields: Any) -> bytes:
    return json.dumps({"v": 1, "from": ANN, "seq": 0, **fields}).encode()


@given(ENVELOPES)
def test_what_is_put_in_comes_out(envelope: Envelope) -> None:
    data = encode(envelope, LIMITS)
    assert decode(data, LIMITS) == envelope
    assert b"pickle" not in data or "pickle" in repr(envelope)


LOOKALIKES = st.recursive(
    st.binary(max_size=3) | st.integers(0, 3) | st.just(True),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["_placeholder", "__placeholder", "num", "x_placeholder"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.lists(LOOKALIKES))
@example([b"ann's", {"_placeholder": True, "num": 0}])
@example([b"ann's", {"_placeholder": True, "num": 9}])
def test_values_that_look_like_a_placeholder_stay_what_they_are(values: list[Any]) -> None:
    answer = Answer(ANN, 0, 1, values)
    assert decode(encode(answer, LIMITS), LIMITS) == answer


def test_an_event_with_binary_as_bytes() -> None:
    emit = Emit(ANN, 7, Event("/chat", "picture", [{"name": "é", "data": b"\x00\xff"}, b""]), Target(("red",), ("x",)))
    data = encode(emit, LIMITS)
    assert data == parts(
        b'{"v":1,"kind":"emit","from":"aaaaAAAA","seq":7,"ns":"/chat","rooms":["red"],"but":["x"]}',
        '52-["picture",{"name":"é","data":{"_placeholder":true,"num":0}},{"_placeholder":true,"num":1}]'.encode(),
        b"\x00\xff",
        b"",
    )
    assert decode(data, LIMITS) == emit


def test_a_target_that_is_everybody_is_that_one() -> None:
    emit = decode(encode(Emit(ANN, 0, Event("/", "x")), LIMITS), LIMITS)
    assert isinstance(emit, Emit)
    assert emit.target is EVERYONE


def test_what_is_newer_may_have_more_keys() -> None:
    assert decode(parts(header(kind="bye", why="deploy")), LIMITS) == Bye(ANN, 0)


# --- hostile input ----------------------------------------------------------------------------------------------------


def read_or_refuse(data: bytes) -> None:
    try:
        envelope = decode(data, SMALL)
    except ProtocolError:
        return
    assert isinstance(envelope, Envelope)
    hash(envelope.sender)


@given(st.binary(max_size=500))
def test_any_bytes(data: bytes) -> None:
    read_or_refuse(data)


@given(st.lists(st.binary(max_size=40), max_size=5))
def test_any_parts(pieces: list[bytes]) -> None:
    read_or_refuse(parts(*pieces))


FIELD_NAMES = ("kind", "from", "seq", "ns", "rooms", "but", "volatile", "twice", "direct", "number", "part", "last")
FIELD_NAMES += ("reply", "joined", "host", "unix", "tcp", "v")
KINDS = st.sampled_from(("hello", "bye", "emit", "ask", "answer", "x"))
PIECES = st.sampled_from((b'2["x",1]', b"30[1]", b'51-["x",{"_placeholder":true,"num":0}]', b"a", b"", b"0", b"1"))


@given(KINDS, st.dictionaries(st.sampled_from(FIELD_NAMES), JSON | st.lists(TEXT, max_size=5)), st.lists(PIECES | JSON))
def test_any_fields(kind: str, fields: dict[str, Any], pieces: list[Any]) -> None:
    body = [piece if isinstance(piece, bytes) else json.dumps(piece).encode() for piece in pieces]
    read_or_refuse(parts(header(**{"kind": kind, "ns": "/", **fields}), *body))


@given(ENVELOPES, st.data())
def test_bytes_that_were_hurt_on_their_way(envelope: Envelope, data: st.DataObject) -> None:
    whole = encode(envelope, LIMITS)
    at = data.draw(st.integers(0, len(whole) - 1))
    read_or_refuse(whole[:at])
    read_or_refuse(whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :])
    read_or_refuse(whole + data.draw(st.binary(min_size=1, max_size=9)))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        b"\xff\xff\xff\xff{}",
        parts(b""),
        parts(b"\xff"),
        parts(b"[]"),
        parts(b"[" * 10_000),
        parts(b'{"v":1e999}'),
        parts(b'{"v":1,"kind":"bye","from":"' + ANN.encode() + b'"}'),
        parts(header(kind="bye", v=2)),
        parts(header(kind="bye", v=True)),
        parts(header(kind="bye", v="1")),
        parts(header(kind=["bye"])),
        parts(header(kind="bye", **{"from": "short"})),
        parts(header(kind="bye", **{"from": "aaaa AAA"})),
        parts(header(kind="bye", **{"from": "aaaaAAAA\n"})),
        parts(header(kind="bye", **{"from": "aaaaAAAé"})),
        parts(header(kind="bye", seq=-1)),
        parts(header(kind="bye", seq=True)),
        parts(header(kind="bye", seq=2**53 + 1)),
        parts(header(kind="bye"), b""),
        parts(header(kind="emit", ns="/")),
        parts(header(kind="emit", ns="/"), b"30[]"),
        parts(header(kind="emit", ns="/"), b'2["disconnect"]'),
        parts(header(kind="emit", ns="/"), b'2["x",NaN]'),
        parts(header(kind="emit", ns="/"), b'2["x"]', b"more"),
        parts(header(kind="emit", ns="/"), b'52-["x"]', b"one"),
        parts(header(kind="emit", ns="/"), b'53-["x"]', b"1", b"2", b"3"),
        parts(header(kind="emit"), b'2["x"]'),
        parts(header(kind="emit", ns="/", rooms="ab"), b'2["x"]'),
        parts(header(kind="emit", ns="/", rooms=[1]), b'2["x"]'),
        parts(header(kind="emit", ns="/", direct=True), b'2["x"]'),
        parts(header(kind="emit", ns="/", rooms=["a", "b"], but=["c", "d"]), b'2["x"]'),
        parts(header(kind="answer", number=1), b"30[]"),
        parts(header(kind="answer", number=1, part=0), b'2["x"]'),
        parts(header(kind="hello", joined=1, host="x" * 256)),
        parts(header(kind="hello", joined=1, unix=1)),
    ],
)
def test_what_is_no_envelope(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(data, SMALL)


# --- limits -----------------------------------------------------------------------------------------------------------


def test_names_are_counted_both_ways() -> None:
    fits = Emit(ANN, 0, Event("/", "x"), Target(("a", "b"), ("c",)))
    assert decode(encode(fits, SMALL), SMALL) == replace(fits, packet=Event("/", "x", []))
    more = Emit(ANN, 0, Event("/", "x"), Target(("a", "b"), ("c", "d")))
    with pytest.raises(EnvelopeTooBig, match="max_envelope_names"):
        encode(more, SMALL)
    with pytest.raises(ProtocolError, match="too many rooms"):
        decode(encode(more, LIMITS), SMALL)


def test_attachments_are_counted_both_ways() -> None:
    fits, more = (Answer(ANN, 0, 0, [b"1"] * count) for count in (2, 3))
    assert decode(encode(fits, SMALL), SMALL) == fits
    with pytest.raises(EnvelopeTooBig, match="max_envelope_attachments"):
        encode(more, SMALL)
    with pytest.raises(ProtocolError, match="Too many attachments"):
        decode(encode(more, LIMITS), SMALL)


def test_bytes_are_counted_both_ways() -> None:
    empty = len(encode(Emit(ANN, 0, Event("/", "x", ["", b""])), LIMITS))
    room = SMALL.max_envelope_bytes - empty
    fits, more = (Emit(ANN, 0, Event("/", "x", ["y", bytes(room - 1 + extra)])) for extra in (0, 1))
    assert decode(encode(fits, SMALL), SMALL) == fits
    with pytest.raises(EnvelopeTooBig, match="max_envelope_bytes"):
        encode(more, SMALL)
    with pytest.raises(ProtocolError, match="too big"):
        decode(encode(more, LIMITS), SMALL)


@pytest.mark.parametrize("bad", [float("nan"), {1, 2}, object()])
def test_what_cannot_travel(bad: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        encode(Emit(ANN, 0, Event("/", "x", [bad])), LIMITS)


def test_limits_are_checked() -> None:
    for bad in (0, -1, True, "1", 1.5, float("inf")):
        with pytest.raises(ValueError, match="max_envelope_names"):
            ClusterLimits(max_envelope_names=bad)  # type: ignore[arg-type]
