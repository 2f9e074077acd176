"""The wire between the nodes of one host: what is written is read, however it is cut, and anything else is refused."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polysock.backplane import MAX_CHANNEL_CHARS
from polysock.meshframes import (
    MAX_NODE_ID_CHARS,
    Channels,
    Frame,
    FrameReader,
    Hello,
    Message,
    Sync,
    Synced,
    channel_frames,
    hello_frame,
    message_frame,
    sync_frame,
    synced_frame,
)
from polysock_transports import ProtocolError

MAX_BYTES = 1_000
HELLO = hello_frame("node-1")
CHANNEL = "x" * MAX_CHANNEL_CHARS


def read(pieces: Iterable[bytes], max_message_bytes: int = MAX_BYTES) -> list[Frame]:
    reader = FrameReader(max_message_bytes)
    return [frame for piece in pieces for frame in reader.feed(piece)]


def fault(data: bytes) -> str:
    with pytest.raises(ProtocolError) as raised:
        read([data])
    return str(raised.value)


def raw(kind: int, payload: bytes) -> bytes:
    return struct.pack("!IB", 1 + len(payload), kind) + payload


names = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=20)
written = st.one_of(
    st.builds(Channels, st.lists(names, min_size=1, max_size=5), st.booleans(), st.just(False)),
    st.builds(Channels, st.lists(names, max_size=5), st.just(True), st.just(True)),
    st.builds(Message, names, st.binary(max_size=MAX_BYTES)),
    st.builds(Sync, st.integers(0, 2**64 - 1)),
    st.builds(Synced, st.integers(0, 2**64 - 1)),
)


def write(frame: Frame) -> bytes:
    match frame:
        case Channels(channels, is_on, anew):
            return b"".join(channel_frames(channels, is_on=is_on, anew=anew))
        case Message(channel, data):
            return message_frame(channel, data)
        case Sync(number):
            return sync_frame(number)
        case Synced(number):
            return synced_frame(number)
        case Hello(node_id):
            return hello_frame(node_id)


@given(st.lists(written, max_size=8), st.data())
def test_what_is_written_is_read_however_it_is_cut(frames: Sequence[Frame], data: st.DataObject) -> None:
    wire = HELLO + b"".join(map(write, frames))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=8)))
    pieces = [wire[a:b] for a, b in zip([0, *cuts], [*cuts, len(wire)], strict=True)]
    assert read(pieces) == [Hello("node-1"), *frames]
    assert read(wire[i : i + 1] for i in range(len(wire))) == [Hello("node-1"), *frames]


@given(st.binary(max_size=300), st.booleans())
@settings(max_examples=500)
def test_any_bytes_are_frames_or_a_protocol_error(data: bytes, greeted: bool) -> None:
    reader = FrameReader(MAX_BYTES)
    if greeted:
        assert list(reader.feed(HELLO)) == [Hello("node-1")]
    try:
        for frame in reader.feed(data):
            assert isinstance(frame, Hello | Channels | Message | Sync | Synced)
    except ProtocolError:
        pass


@given(st.lists(written, min_size=1, max_size=3), st.data())
@settings(max_examples=500)
def test_damaged_frames_are_frames_or_a_protocol_error(frames: Sequence[Frame], data: st.DataObject) -> None:
    wire = bytearray(HELLO + b"".join(map(write, frames)))
    for at in data.draw(st.lists(st.integers(0, len(wire) - 1), min_size=1, max_size=4)):
        wire[at] = data.draw(st.integers(0, 255))
    try:
        for frame in read([bytes(wire)]):
            if isinstance(frame, Message):
                assert len(frame.data) <= MAX_BYTES
                assert 1 <= len(frame.channel) <= MAX_CHANNEL_CHARS
            if isinstance(frame, Channels):
                assert all(1 <= len(channel) <= MAX_CHANNEL_CHARS and channel.isascii() for channel in frame.channels)
    except ProtocolError:
        pass


def test_the_frames_before_a_fault_are_read() -> None:
    got: list[Frame] = []
    with pytest.raises(ProtocolError):
        got.extend(FrameReader(MAX_BYTES).feed(HELLO + sync_frame(7) + b"\xff\xff\xff\xff"))
    assert got == [Hello("node-1"), Sync(7)]


def test_the_longest_of_everything_is_read() -> None:
    longest = "n" * MAX_NODE_ID_CHARS
    data = bytes(MAX_BYTES)
    frames = read([hello_frame(longest), message_frame(CHANNEL, data), *channel_frames([CHANNEL])])
    assert frames == [Hello(longest), Message(CHANNEL, data), Channels([CHANNEL])]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", "too long", id="a request of HTTP"),
        pytest.param(hello_frame("n" * (MAX_NODE_ID_CHARS + 1)), "too long", id="a long id"),
        pytest.param(raw(1, b"polysock-mesh 2 node-1"), "greeting", id="another version"),
        pytest.param(hello_frame("../x"), "greeting", id="an id that is a path"),
        pytest.param(hello_frame(""), "greeting", id="no id"),
        pytest.param(sync_frame(1), "greeting", id="no greeting"),
        pytest.param(HELLO + HELLO, "no known kind", id="two greetings"),
        pytest.param(HELLO + b"\0\0\0\0", "too long", id="an empty frame"),
        pytest.param(HELLO + raw(99, b""), "no known kind", id="an unknown kind"),
        pytest.param(HELLO + raw(6, b"1234567"), "no known kind", id="a short number"),
        pytest.param(HELLO + raw(2, b"a b"), "list of channels", id="a space in a channel"),
        pytest.param(HELLO + raw(3, b""), "list of channels", id="an empty list"),
        pytest.param(HELLO + raw(3, b"a\n\nb"), "list of channels", id="an empty channel"),
        pytest.param(HELLO + raw(4, CHANNEL.encode() + b"x"), "list of channels", id="a long channel"),
        pytest.param(HELLO + raw(5, b"\0"), "too short", id="half a message"),
        pytest.param(HELLO + raw(5, b"\0\0data"), "channel", id="a message without a channel"),
        pytest.param(HELLO + raw(5, b"\0\x09short"), "channel", id="a channel past the end"),
        pytest.param(HELLO + raw(5, b"\0\x02\xc3\xa4"), "ASCII", id="a channel that is not ASCII"),
        pytest.param(HELLO + message_frame(CHANNEL + "x", b""), "channel", id="a message's long channel"),
        pytest.param(HELLO + message_frame("x", bytes(MAX_BYTES + 1)), "too long", id="a long message"),
    ],
)
def test_what_is_refused(data: bytes, said: str) -> None:
    assert said in fault(data)


def test_a_length_alone_takes_no_memory() -> None:
    reader = FrameReader(2**31)
    assert list(reader.feed(HELLO + struct.pack("!I", 2**31))) == [Hello("node-1")]
    assert len(reader._rest) == 4


def test_many_channels_travel_in_frames_of_bounded_size() -> None:
    channels = [f"{number}:{'x' * 900}" for number in range(1_000)]
    frames = list(channel_frames(channels, anew=True))
    assert len(frames) > 10
    assert max(map(len, frames)) < 70_000
    got = [frame for frame in read([HELLO, *frames]) if isinstance(frame, Channels)]
    assert [frame.anew for frame in got] == [True] + [False] * (len(frames) - 1)
    assert [channel for frame in got for channel in frame.channels] == channels
    assert list(channel_frames([])) == []
    assert read([HELLO, *channel_frames([], anew=True)])[1] == Channels([], anew=True)
