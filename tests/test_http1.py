"""HTTP/1.1 bytes: the strict reader of responses, and the writer of requests."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from polysock_transports.errors import ProtocolError
from polysock_transports.http1 import (
    END,
    LAST_CHUNK,
    FieldCache,
    HeadCache,
    ResponseHead,
    ResponseReader,
    chunk,
    request_head,
)

MAX_HEAD = 200


def split(data: bytes, at: Sequence[int]) -> list[bytes]:
    marks = [0, *sorted(min(mark, len(data)) for mark in at), len(data)]
    return [data[start:end] for start, end in pairwise(marks)]


def read(*pieces: bytes) -> list[Any]:
    """Heads as (status, headers, length), the body of each response joined, END."""
    reader = ResponseReader(MAX_HEAD)
    found: list[Any] = []
    for piece in pieces:
        rest = piece
        while True:
            events = reader.feed(rest)
            for event in events:
                if isinstance(event, ResponseHead):
                    found.append((event.status, event.headers, event.length))
                elif isinstance(event, bytes):
                    assert event
                    if found and isinstance(found[-1], bytes):
                        found[-1] += event
                    else:
                        found.append(event)
                else:
                    assert event is END
                    found.append(END)
            rest = b""
            if not events or events[-1] is not END or reader.is_between:
                break
    return found


cuts = st.lists(st.integers(0, 400), max_size=12)
bodies = st.binary(max_size=60)
fields = st.sampled_from([(), (("Content-Type", "text/plain"),), (("P3P", 'CP="CAO"'), ("Set-Cookie", "a=b"))])


@given(st.lists(st.tuples(fields, bodies | st.lists(bodies.filter(bool), max_size=4)), min_size=1, max_size=3), cuts)
def test_what_our_lane_writes_is_read_however_it_is_split(answers: list[Any], at: list[int]) -> None:
    heads = HeadCache()
    data, expected = b"", []
    for headers, body in answers:
        if isinstance(body, bytes):
            data += heads.whole(200, headers, body)
            expected += [(200, headers, len(body)), *([body] if body else []), END]
        else:
            data += heads.chunked(200, headers) + b"".join(map(chunk, body)) + LAST_CHUNK
            expected += [(200, headers, None), *([b"".join(body)] if body else []), END]
    assert read(*split(data, at)) == expected


@given(bodies, cuts)
def test_after_101_everything_is_body(rest: bytes, at: list[int]) -> None:
    head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nX: y\r\n\r\n"
    found = read(*split(head + rest, at))
    assert found == [(101, (("X", "y"),), 0), *([rest] if rest else [])]


pieces_of_http = st.sampled_from(
    (
        *(b"HTTP/1.1 ", b"200 OK", b"204 x", b"101 x", b"\r\n", b"\r\n\r\n", b"Content-Length: ", b"3", b"abc", b"0"),
        *(b"Transfer-Encoding: chunked", b"Connection: close", b"ff", b"a" * MAX_HEAD, b"\r", b"\n", b" ", b";", b"\0"),
    )
)


@given(st.lists(pieces_of_http | st.binary(max_size=8), max_size=20).map(b"".join), cuts)
@example(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r", [])
def test_any_bytes_are_events_or_a_protocol_error_and_the_same_however_split(data: bytes, at: list[int]) -> None:
    def outcome(*pieces: bytes) -> Any:
        try:
            return read(*pieces)
        except ProtocolError:
            return "refused"

    assert outcome(*split(data, at)) == outcome(data) == outcome(*(data[n : n + 1] for n in range(len(data))))


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 099 x\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
        b"HTTP/1.1 200 O\nK\r\nContent-Length: 0\r\n\r\n",
        OK + b"\r\n",  # it would last until the connection ends
        OK + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\n",
        OK + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
        OK + b"Content-Length: -1\r\n\r\n",
        OK + b"Content-Length: +1\r\n\r\n",
        OK + b"Content-Length: 1,1\r\n\r\n",
        OK + b"Content-Length: 0x1\r\n\r\n",
        OK + b"Content-Length: \r\n\r\n",
        OK + b"Content-Length: 1" + b"0" * 20 + b"\r\n\r\n",
        OK + b"Content-Length : 0\r\n\r\n",
        OK + b"Content-Length: 0\r\n folded\r\n\r\n",
        OK + b"Content-Length: 0\r\nX: a\rb\r\n\r\n",
        OK + b"Content-Length: 0\r\nX: a\0b\r\n\r\n",
        b"HTTP/1.1 204 x\r\nTransfer-Encoding: chunked\r\n\r\n",
        CHUNKED + b"\r\n",
        CHUNKED + b"g\r\n",
        CHUNKED + b"-1\r\n",
        CHUNKED + b"1;x=y\r\na\r\n",
        CHUNKED + b" 1\r\na\r\n",
        CHUNKED + b"1\na\r\n",
        CHUNKED + b"1\r\nab\r\n",
        CHUNKED + b"1\r\na\n",
        CHUNKED + b"123456789\r\n",
        CHUNKED + b"0\r\nTrailer: x\r\n\r\n",
        CHUNKED + b"0\r\n0",
    ],
)
def test_what_no_node_sends_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        read(data)
    with pytest.raises(ProtocolError):
        read(*(data[n : n + 1] for n in range(len(data))))


def test_a_head_has_a_longest_length() -> None:
    def head(size: int) -> bytes:
        start = OK + b"Content-Length: 0\r\nX: "
        return start + b"x" * (size - len(start)) + b"\r\n\r\n"

    assert read(head(MAX_HEAD))[-1] is END
    assert read(*(bytes((byte,)) for byte in head(MAX_HEAD)))[-1] is END
    with pytest.raises(ProtocolError, match="too long"):
        read(head(MAX_HEAD + 1))
    with pytest.raises(ProtocolError, match="too long"):
        read(b"x" * (MAX_HEAD + 4))


def test_bodyless_answers_end_with_their_head() -> None:
    data = b"HTTP/1.1 204 No Content\r\nA: b\r\n\r\n" + b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n"
    assert read(data) == [(204, (("A", "b"),), 0), END, (304, (), 0), END]


@pytest.mark.parametrize(
    ("connection", "keeps"), [(b"", True), (b"Connection: keep-alive\r\n", True), (b"connection: Close\r\n", False)]
)
def test_a_head_says_whether_the_connection_lives_on(connection: bytes, keeps: bool) -> None:
    (head, end) = ResponseReader(MAX_HEAD).feed(OK + connection + b"Content-Length: 0\r\n\r\n")
    assert isinstance(head, ResponseHead)
    assert head.keeps_alive is keeps
    assert end is END
    assert head.headers == ()


def test_heads_that_readers_share_are_read_once_and_forgotten_in_time() -> None:
    heads: dict[bytes, ResponseHead] = {}

    def head(number: int, more: bytes = b"") -> ResponseHead:
        data = OK + b"Content-Length: 0\r\nX: %d\r\n" % number + more + b"\r\n"
        (found, _) = ResponseReader(10_000, heads).feed(data)
        assert isinstance(found, ResponseHead)
        assert found.headers[0] == ("X", str(number))
        return found

    assert head(1) is head(1)
    assert head(1) is not head(2)
    for number in range(2000):
        head(number)
        assert len(heads) <= 256
    long = b"Y: " + b"y" * 5000 + b"\r\n"
    assert head(1, long) is not head(1, long)


# -- requests


def lines(*fields: tuple[str, str]) -> list[bytes]:
    return FieldCache().lines(fields)


def test_a_request_is_written_as_it_is_given() -> None:
    head = request_head("POST", "/a?b=%20\xfc", lines(("Host", "h"), ("Cookie", "a=\xfc; b"), ("X", "")))
    assert head == b"POST /a?b=%20\xfc HTTP/1.1\r\nHost: h\r\nCookie: a=\xfc; b\r\nX: \r\n\r\n"


@given(st.text(max_size=8), st.text(max_size=8), st.lists(st.tuples(st.text(max_size=8), st.text(max_size=8))))
def test_a_request_is_one_request_whatever_is_in_it(method: str, target: str, headers: list[tuple[str, str]]) -> None:
    try:
        head = request_head(method, target, lines(*headers))
    except ValueError:
        return
    assert head.count(b"\r\n") == len(headers) + 2
    assert head.count(b"\n") == head.count(b"\r") == head.count(b"\r\n")
    assert head.split(b"\r\n")[0].count(b" ") == 2
    assert head.endswith(b"\r\n\r\n")
    assert b"\0" not in head


@pytest.mark.parametrize("value", ["a\r\nB: c", "a\nb", "a\rb", "a\0b", "a\x7fb", "\u20ac"])
def test_values_that_break_lines_are_refused(value: str) -> None:
    with pytest.raises(ValueError, match=r"safe form|codec"):
        request_head("GET", "/", lines(("X", value)))
    with pytest.raises(ValueError, match=r"safe form|codec"):
        request_head("GET", f"/{value}", [])


def test_header_lines_are_made_once_and_forgotten_in_time() -> None:
    cache = FieldCache({"te"})
    made = cache.lines([("X", "1"), ("TE", "trailers"), ("Te", "x")])
    assert made == [b"X: 1\r\n", b"", b""]
    assert cache.lines([("X", "1")])[0] is made[0]
    for number in range(3000):
        assert cache.lines([("Y", f"{number}")]) == [b"Y: %d\r\n" % number]
        assert len(cache._lines) <= 512
    before = len(cache._lines)
    assert cache.lines([("Cookie", "x" * 1000)]) == [b"Cookie: " + b"x" * 1000 + b"\r\n"]
    assert len(cache._lines) == before
    for _ in range(2):
        with pytest.raises(ValueError, match="safe form"):
            cache.lines([("Z", "a\nb")])
