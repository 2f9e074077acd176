"""permessage-deflate: the examples of RFC 7692, negotiation, bounds, and the ``websockets`` library as the client."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.extensions.permessage_deflate import PerMessageDeflate as PeerDeflate
from websockets.frames import Frame, Opcode
from websockets.headers import build_extension, parse_extension
from websockets.streams import StreamReader

from polysock_transports.errors import MESSAGE_TOO_BIG, ProtocolError
from polysock_transports.permessage_deflate import CORRUPT, DeflateOptions, PerMessageDeflate, negotiate
from polysock_transports.rfc6455 import OP_TEXT, FrameParser, encode_frame

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent / "vectors" / "rfc6455.json").read_text(encoding="utf-8"))
LIMIT = 100_000
ALL = DeflateOptions(threshold_bytes=0)
WINDOWS = range(9, 16)


def agreed(header: str = "permessage-deflate", options: DeflateOptions = ALL) -> PerMessageDeflate:
    result = negotiate(header, options)
    assert result is not None
    return result[1]


def failure(state: PerMessageDeflate, data: bytes, limit: int = LIMIT) -> ProtocolError:
    with pytest.raises(ProtocolError) as caught:
        state.inflate(data, limit)
    return caught.value


def squeezed(data: bytes, bits: int = 15) -> bytes:
    """A message as a fresh client compresses it."""
    deflater = zlib.compressobj(wbits=-bits)
    return (deflater.compress(data) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]


# -- the examples of the RFC


@pytest.mark.parametrize("row", VECTORS["deflated"], ids=lambda row: row["name"])
def test_examples(row: dict[str, Any]) -> None:
    state = agreed()
    for packed, text in zip(row["messages"], row["texts"], strict=True):
        assert state.inflate(bytes.fromhex(packed), LIMIT) == text.encode()


def test_we_compress_as_the_examples_do() -> None:
    state = agreed()
    assert [state.deflate(b"Hello").hex() for _ in range(2)] == ["f248cdc9c90700", "f200110000"]
    state = agreed("permessage-deflate; server_no_context_takeover")
    # Seven bytes for five: without a shared window the message had better go as it is.
    assert state.deflate(b"Hello") is None
    packed = [state.deflate(b"Hello" * 9) for _ in range(2)]
    assert packed[0] is not None
    assert packed[0] == packed[1]


# -- negotiation


@pytest.mark.parametrize(
    ("header", "answer"),
    [
        ("permessage-deflate", "permessage-deflate"),
        ("permessage-deflate; client_max_window_bits", "permessage-deflate"),
        ("Permessage-Deflate ;\tClient_Max_Window_Bits", "permessage-deflate"),
        ("permessage-deflate; client_max_window_bits=10", "permessage-deflate; client_max_window_bits=10"),
        ("permessage-deflate; client_max_window_bits=8", "permessage-deflate; client_max_window_bits=8"),
        ("permessage-deflate; server_max_window_bits=15", "permessage-deflate; server_max_window_bits=15"),
        ('permessage-deflate; server_max_window_bits="10"', "permessage-deflate; server_max_window_bits=10"),
        (
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
        ),
        # The first that can be honoured: zlib has no window of 8 bits.
        (
            "x-webkit-deflate-frame, permessage-deflate; server_max_window_bits=8, permessage-deflate; nonsense,"
            "permessage-deflate; server_max_window_bits=9, permessage-deflate",
            "permessage-deflate; server_max_window_bits=9",
        ),
        ("permessage-deflate; server_max_window_bits=7, permessage-deflate", "permessage-deflate"),
        ('foo; bar=baz; x="y", permessage-deflate', "permessage-deflate"),
    ],
)
def test_accepted_offers(header: str, answer: str) -> None:
    result = negotiate(header, ALL)
    assert result is not None
    assert result[0] == answer


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "x-webkit-deflate-frame",
        "permessage-deflate-2",
        "permessage-deflate; unknown",
        "permessage-deflate; server_no_context_takeover=1",
        "permessage-deflate; client_no_context_takeover; client_no_context_takeover",
        "permessage-deflate; server_max_window_bits",
        "permessage-deflate; server_max_window_bits=8",
        "permessage-deflate; server_max_window_bits=16",
        "permessage-deflate; server_max_window_bits=010",
        "permessage-deflate; server_max_window_bits=1\u0660",
        "permessage-deflate; client_max_window_bits=7",
        "permessage-deflate; client_max_window_bits=-9",
        "permessage-deflate; client_max_window_bits=10; client_max_window_bits=10",
        'permessage-deflate; client_max_window_bits=""',
        "permessage-deflate; client_max_window_bits=",
        'permessage-deflate; client_max_window_bits="10',
        "permessage-deflate;",
        "permessage-deflate,",
        "permessage-deflate foo",
        "permessage-deflate\r\nX: y",
        "p\xe9rmessage-deflate",
    ],
)
def test_declined_offers(header: str | None) -> None:
    assert negotiate(header, ALL) is None


def test_options_shape_the_answer() -> None:
    small = DeflateOptions(
        server_no_context_takeover=True,
        client_no_context_takeover=True,
        server_max_window_bits=10,
        client_max_window_bits=11,
    )
    start = "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits="
    for offer, end in (
        # A client that did not say that it can use a smaller window is not told to.
        ("permessage-deflate", "10"),
        ("permessage-deflate; client_max_window_bits", "10; client_max_window_bits=11"),
        ("permessage-deflate; client_max_window_bits=9", "10; client_max_window_bits=9"),
        ("permessage-deflate; server_max_window_bits=12", "10"),
        ("permessage-deflate; server_max_window_bits=9", "9"),
    ):
        result = negotiate(offer, small)
        assert result is not None
        assert result[0] == start + end


@pytest.mark.parametrize(
    "wrong",
    [
        {"level": 10},
        {"memory_level": 0},
        {"threshold_bytes": -1},
        {"server_max_window_bits": 8},
        {"client_max_window_bits": 16},
    ],
)
def test_wrong_options(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        DeflateOptions(**wrong)


words = st.sampled_from(
    [
        *("permessage-deflate", "server_max_window_bits", "client_max_window_bits", "server_no_context_takeover"),
        *(";", ";", ",", "=", '"', " ", "\t", "\\", "\n", "\xff", "x", "8", "10", "15"),
    ]
)


@given(st.one_of(st.text(max_size=60), st.lists(words, max_size=14).map("".join)))
@settings(max_examples=300)
def test_no_header_raises(header: str) -> None:
    result = negotiate(header, ALL)
    if result is not None:
        # Whatever was offered, the library's own parser understands the answer, and the state works.
        ((name, _params),) = parse_extension(result[0])
        assert name == "permessage-deflate"
        packed = result[1].deflate(b"a" * 100)
        assert packed is not None
        assert zlib.decompressobj(-15).decompress(packed + b"\0\0\xff\xff") == b"a" * 100


# -- the two directions


def test_threshold() -> None:
    state = agreed(options=DeflateOptions(threshold_bytes=100))
    assert state.deflate(b"a" * 99) is None
    assert state.deflate(b"a" * 100) is not None
    assert agreed().deflate(b"") is None


def test_output_is_bounded() -> None:
    bomb = squeezed(b"\0" * 50_000_000)
    assert len(bomb) < LIMIT
    error = failure(agreed(), bomb)
    assert (error.reason, error.status) == (MESSAGE_TOO_BIG, 413)
    for size in (0, 1, 125, 20_000):
        exact = squeezed(b"a" * size)
        assert agreed().inflate(exact, size) == b"a" * size
        if size:
            assert failure(agreed(), exact, size - 1).reason is MESSAGE_TOO_BIG


def test_final_blocks() -> None:
    deflater = zlib.compressobj(wbits=-15)
    final = deflater.compress(b"one") + deflater.flush(zlib.Z_FINISH)
    assert agreed().inflate(final + squeezed(b"two"), 6) == b"onetwo"
    for limit in (2, 3, 5):
        assert failure(agreed(), final + squeezed(b"two"), limit).reason is MESSAGE_TOO_BIG
    # A new stream for every other byte would be a cheap way to keep us busy.
    assert failure(agreed(), b"\x03\x00" * 1000).reason is CORRUPT


@given(st.lists(st.binary(max_size=100), max_size=4), st.integers(0, 300))
@settings(max_examples=300)
def test_any_bytes_inflate_or_are_refused(messages: list[bytes], limit: int) -> None:
    state = agreed()
    reasons = set()
    for data in messages:
        try:
            message = state.inflate(data, limit)
        except ProtocolError as error:
            reasons.add(error.reason)
        else:
            assert len(message) <= limit
    assert reasons <= {CORRUPT, MESSAGE_TOO_BIG}


def test_corrupt_data() -> None:
    assert failure(agreed(), b"\xff\xff\xff").reason is CORRUPT
    assert CORRUPT.code == 1007
    assert agreed().inflate(squeezed(b"fine"), LIMIT) == b"fine"


def test_a_client_that_must_forget_is_read_afresh() -> None:
    state = agreed("permessage-deflate; client_no_context_takeover")
    first, second = bytes.fromhex("f248cdc9c90700"), bytes.fromhex("f200110000")
    assert state.inflate(first, LIMIT) == state.inflate(first, LIMIT) == b"Hello"
    assert failure(state, second).reason is CORRUPT


# -- with a real client


def read_back(data: bytes, extension: PeerDeflate) -> Frame:
    reader = StreamReader()
    reader.feed_data(data)
    steps = Frame.parse(reader.read_exact, mask=False, extensions=[extension])
    try:
        next(steps)
    except StopIteration as done:
        frame: Frame = done.value
        return frame
    raise AssertionError("the frame is not whole")


flags = st.booleans()


@given(
    st.builds(
        ClientPerMessageDeflateFactory,
        flags,
        flags,
        st.none() | st.sampled_from(WINDOWS),
        st.none() | st.just(True) | st.sampled_from(WINDOWS),
    ),
    st.builds(
        DeflateOptions,
        level=st.sampled_from([1, 6, 9]),
        memory_level=st.sampled_from([1, 8]),
        threshold_bytes=st.just(10),
        server_no_context_takeover=flags,
        client_no_context_takeover=flags,
        server_max_window_bits=st.sampled_from(WINDOWS),
        client_max_window_bits=st.sampled_from(WINDOWS),
    ),
    st.lists(st.text("ab\xe9\U0001f600", max_size=30).map(lambda text: text * 40), max_size=4),
)
@settings(max_examples=150)
def test_both_ways_with_websockets(
    factory: ClientPerMessageDeflateFactory, options: DeflateOptions, texts: list[str]
) -> None:
    offer = build_extension([(factory.name, factory.get_request_params())])
    result = negotiate(offer, options)
    assert result is not None
    answer, ours = result
    ((_name, params),) = parse_extension(answer)
    needs_smaller_window = factory.client_max_window_bits is None and "client_max_window_bits" in answer
    assert not needs_smaller_window
    theirs = factory.process_response_params(params, [])
    parser = FrameParser(max_message_bytes=LIMIT, max_fragments=10, inflate=ours.inflate)
    for text in texts:
        payload = text.encode()
        sent = Frame(Opcode.TEXT, payload).serialize(mask=True, extensions=[theirs])
        assert parser.feed(sent) == [text]
        packed = ours.deflate(payload)
        frame = encode_frame(OP_TEXT, payload if packed is None else packed, rsv1=packed is not None)
        assert bytes(read_back(frame, theirs).data) == payload
