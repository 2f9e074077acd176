"""The WebSocket wire: shared vectors, limits at their edges, fuzz, and the ``websockets`` library as second opinion."""

from __future__ import annotations

import json
import re
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tornado.httputil import HTTPHeaders
from websockets.frames import Close, Frame, Opcode
from websockets.protocol import SERVER, Protocol
from websockets.streams import StreamReader

from polysock_transports import rfc6455 as ws
from polysock_transports.errors import INVALID_DATA, MESSAGE_TOO_BIG, PROTOCOL_VIOLATION, ProtocolError
from polysock_transports.wire import Refusal

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent / "vectors" / "rfc6455.json").read_text(encoding="utf-8"))
LIMIT = 1000
MASK = b"\x37\xfa\x21\x3d"


def by_name(row: dict[str, Any]) -> str:
    return str(row.get("name", ""))


def client_frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, mask: bytes = MASK) -> bytes:
    """A client's frame, written as plainly as it gets."""
    size = len(payload)
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    if size < 126:
        head += bytes([0x80 | size])
    elif size < 65536:
        head += bytes([0x80 | 126]) + size.to_bytes(2, "big")
    else:
        head += bytes([0x80 | 127]) + size.to_bytes(8, "big")
    return head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))


def parser(limit: int = LIMIT, fragments: int = 100, **more: Any) -> ws.FrameParser:
    return ws.FrameParser(max_message_bytes=limit, max_fragments=fragments, **more)


def shown(event: ws.Event) -> dict[str, Any]:
    """An event as the vectors write it."""
    match event:
        case str():
            return {"text": event}
        case bytes():
            return {"binary": event.hex()}
        case ws.PingFrame(data):
            return {"ping": data.hex()}
        case ws.PongFrame(data):
            return {"pong": data.hex()}
        case ws.CloseFrame(code, text):
            return {"close": [code, text]}
        case ws.Violation(reason):
            return {"violation": reason.code}


def server_frame_read_back(data: bytes) -> Frame:
    """What a client of the ``websockets`` library makes of our bytes: one frame and nothing over."""
    reader = StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    steps = Frame.parse(reader.read_exact, mask=False)
    try:
        next(steps)
    except StopIteration as done:
        assert reader.buffer == b""
        frame: Frame = done.value
        return frame
    raise AssertionError("the frame is not whole")


# -- handshake


@pytest.mark.parametrize("row", VECTORS["accept_keys"], ids=lambda row: row["key"])
def test_accept_key(row: dict[str, Any]) -> None:
    assert ws.accept_key(row["key"]) == row["accept"]


def request_headers(**changes: str | None) -> HTTPHeaders:
    fields: dict[str, str | None] = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        **{name.replace("_", "-"): value for name, value in changes.items()},
    }
    return HTTPHeaders({name: value for name, value in fields.items() if value is not None})


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"Upgrade": "WebSocket"},
        {"Connection": "keep-alive, Upgrade"},
        {"Connection": "keep-alive,UPGRADE"},
        {"Sec_WebSocket_Key": "AAAAAAAAAAAAAAAAAAAAAB=="},  # spare bits that are not zero
    ],
)
def test_good_handshakes(changes: dict[str, str]) -> None:
    assert ws.check_handshake("GET", request_headers(**changes)) is None


NO_UPGRADE = Refusal(400, 'Can "Upgrade" only to "WebSocket".')
NO_CONNECTION = Refusal(400, '"Connection" must be "Upgrade".')
NO_VERSION = Refusal(426, headers=(("Sec-WebSocket-Version", "13"),))
NO_KEY = Refusal(400, "Missing/Invalid WebSocket headers")


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"Upgrade": None}, NO_UPGRADE),
        ({"Upgrade": "h2c"}, NO_UPGRADE),
        ({"Connection": None}, NO_CONNECTION),
        ({"Connection": "close"}, NO_CONNECTION),
        ({"Connection": "upgraded"}, NO_CONNECTION),
        ({"Sec_WebSocket_Version": None}, NO_VERSION),
        ({"Sec_WebSocket_Version": "8"}, NO_VERSION),
        ({"Sec_WebSocket_Version": "013"}, NO_VERSION),
        ({"Sec_WebSocket_Version": None, "Sec_WebSocket_Key": None}, NO_VERSION),  # draft 76
        ({"Sec_WebSocket_Key": None}, NO_KEY),
        ({"Sec_WebSocket_Key": ""}, NO_KEY),
        ({"Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25j"}, NO_KEY),  # 15 bytes
        ({"Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZSE="}, NO_KEY),  # 17 bytes
        ({"Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25j!Q=="}, NO_KEY),
        ({"Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ==, dGhlIHNhbXBsZSBub25jZQ=="}, NO_KEY),
    ],
)
def test_bad_handshakes(changes: dict[str, str | None], refusal: Refusal) -> None:
    assert ws.check_handshake("GET", request_headers(**changes)) == refusal


@pytest.mark.parametrize("method", ["POST", "HEAD", "get", ""])
def test_only_get(method: str) -> None:
    assert ws.check_handshake(method, request_headers()) == Refusal(405, headers=(("Allow", "GET"),))


@pytest.mark.parametrize(
    ("header", "offered"),
    [
        (None, []),
        ("", []),
        ("chat", ["chat"]),
        ("superchat, chat,v2.json", ["superchat", "chat", "v2.json"]),
        ("chat, , a b, ch\xe4t, x=y, \tlast ", ["chat", "last"]),
        ("a, b, a", ["a", "b"]),
    ],
)
def test_offered_subprotocols(header: str | None, offered: list[str]) -> None:
    assert ws.offered_subprotocols(header) == offered


def test_offered_subprotocols_are_bounded() -> None:
    names = [f"p{i}" for i in range(ws.MAX_SUBPROTOCOLS + 1)]
    assert ws.offered_subprotocols(",".join(names)) == names[: ws.MAX_SUBPROTOCOLS]
    assert ws.offered_subprotocols("," * 100_000) == []


def test_handshake_response() -> None:
    key = VECTORS["accept_keys"][0]["key"]
    assert ws.handshake_response(key, "chat", "permessage-deflate", [("Set-Cookie", "JSESSIONID=dummy; path=/")]) == (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n"
        b"Sec-WebSocket-Extensions: permessage-deflate\r\nSet-Cookie: JSESSIONID=dummy; path=/\r\n\r\n"
    )
    assert b"Sec-WebSocket-Protocol" not in ws.handshake_response(key)


@pytest.mark.parametrize("text", ["a\r\nX: y", "a\nb", "a\rb", "a\0b", "\u20ac"])
def test_handshake_response_cannot_be_split(text: str) -> None:
    key = VECTORS["accept_keys"][0]["key"]
    for call in (
        lambda: ws.handshake_response(key, text),
        lambda: ws.handshake_response(key, None, text),
        lambda: ws.handshake_response(key, headers=[("X", text)]),
        lambda: ws.handshake_response(key, headers=[(text, "x")]),
    ):
        with pytest.raises(ValueError, match=r"token|not a header"):
            call()


# -- frames out


@pytest.mark.parametrize("row", VECTORS["server_frames"], ids=by_name)
def test_server_frames(row: dict[str, Any]) -> None:
    payload = bytes.fromhex(row["payload"])
    frame = ws.encode_frame(row["opcode"], payload, rsv1=row.get("rsv1", False), fin=row.get("fin", True))
    assert frame.hex() == row["hex"]


@pytest.mark.parametrize("row", VECTORS["server_heads"], ids=lambda row: str(row["size"]))
def test_lengths_take_their_shortest_form(row: dict[str, Any]) -> None:
    payload = b"x" * row["size"]
    head = bytes.fromhex(row["head"])
    assert ws.binary_frame(payload) == ws.encode_frame(ws.OP_BINARY, payload) == head + payload
    assert ws.text_frame(payload.decode()) == bytes([0x81]) + head[1:] + payload


@given(st.text(st.characters(codec=None, exclude_categories=())))
@settings(max_examples=200)
def test_text_frames_are_always_utf8(text: str) -> None:
    frame = server_frame_read_back(ws.text_frame(text))
    pairs_joined = re.sub(
        "[\ud800-\udbff][\udc00-\udfff]",
        lambda pair: pair[0].encode("utf-16-le", "surrogatepass").decode("utf-16-le"),
        text,
    )
    assert frame.opcode is Opcode.TEXT
    assert bytes(frame.data).decode() == re.sub("[\ud800-\udfff]", "\ufffd", pairs_joined)


def test_frames_that_do_not_exist_are_our_bug() -> None:
    for opcode in (3, 7, 11, 15, 16, -1):
        with pytest.raises(ValueError, match="opcode"):
            ws.encode_frame(opcode, b"")
    for call in (
        lambda: ws.ping_frame(b"x" * 126),
        lambda: ws.pong_frame(b"x" * 126),
        lambda: ws.encode_frame(ws.OP_PING, b"", fin=False),
        lambda: ws.encode_frame(ws.OP_CLOSE, b"", rsv1=True),
    ):
        with pytest.raises(ValueError, match="control frame"):
            call()
    assert len(ws.ping_frame(b"x" * 125)) == len(ws.pong_frame(b"x" * 125)) == 127


def test_close_frames() -> None:
    assert ws.close_frame() == b"\x88\x00"
    assert ws.close_frame(3000, "Go away!") == b"\x88\x0a\x0b\xb8Go away!"
    for code in (0, 999, 1004, 1005, 1006, 1015, 2010, 5000, 65536, -1):
        assert ws.close_frame(code, "not sent") == b"\x88\x00"


@given(st.text(st.characters(codec=None, exclude_categories=()), min_size=20, max_size=140))
@settings(max_examples=200)
def test_close_reasons_are_cut_between_characters(text: str) -> None:
    frame = server_frame_read_back(ws.close_frame(1000, text))
    whole = server_frame_read_back(ws.text_frame(text)).data.decode()
    reason = Close.parse(frame.data).reason
    assert whole.startswith(reason)
    if reason != whole:
        assert len((reason + whole[len(reason)]).encode()) > ws.MAX_REASON_BYTES


# -- frames in


@pytest.mark.parametrize("step", [None, 1, 2, 7])
@pytest.mark.parametrize("row", VECTORS["client_frames"], ids=by_name)
def test_client_frames(row: dict[str, Any], step: int | None) -> None:
    data = bytes.fromhex(row["hex"])
    parse = parser()
    step = step or len(data)
    events = [event for at in range(0, len(data), step) for event in parse.feed(data[at : at + step])]
    assert [shown(event) for event in events] == row["events"]


@pytest.mark.parametrize("row", VECTORS["close_payloads"], ids=by_name)
def test_close_payloads(row: dict[str, Any]) -> None:
    events = parser().feed(client_frame(ws.OP_CLOSE, bytes.fromhex(row["payload"])) + client_frame(ws.OP_TEXT, b"x"))
    assert [shown(event) for event in events] == [row["event"]]


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 124, 125, 126, 127, 8191, 8192, 8193, 16384, 65535, 65536, 100_003])
def test_payload_sizes(size: int) -> None:
    data = bytes(i * 31 % 251 for i in range(size))
    assert parser(size + 1).feed(client_frame(ws.OP_BINARY, data)) == [data]
    text = data.decode("latin-1").translate(dict.fromkeys(range(128, 256), 32))
    assert parser(size + 1).feed(client_frame(ws.OP_TEXT, text.encode())) == [text]


def test_message_limit_is_judged_by_the_head() -> None:
    for limit in (10, 125, 126, 1000):
        for opcode in (ws.OP_TEXT, ws.OP_BINARY):
            frame = client_frame(opcode, b"x" * limit)
            assert len(parser(limit).feed(frame)) == 1
            too_long = client_frame(opcode, b"x" * (limit + 1))
            head = too_long[: len(too_long) - limit - 1 - len(MASK)]
            assert parser(limit).feed(head) == [ws.Violation(MESSAGE_TOO_BIG, MESSAGE_TOO_BIG.text)]


def test_message_limit_counts_all_fragments() -> None:
    start = client_frame(ws.OP_TEXT, b"x" * 60, fin=False) + client_frame(ws.OP_PING, b"p" * 100)
    whole = parser(100).feed(start + client_frame(ws.OP_CONTINUATION, b"x" * 40))
    assert whole == [ws.PingFrame(b"p" * 100), "x" * 100]
    parse = parser(100)
    assert parse.feed(start) == [ws.PingFrame(b"p" * 100)]
    (violation,) = parse.feed(client_frame(ws.OP_CONTINUATION, b"x" * 41)[:2])
    assert shown(violation) == {"violation": 1009}
    # The next message starts from nothing.
    parse = parser(100)
    for _ in range(3):
        assert parse.feed(start + client_frame(ws.OP_CONTINUATION, b"x" * 40))[-1] == "x" * 100


def test_fragment_limit() -> None:
    more = client_frame(ws.OP_CONTINUATION, b"", fin=False)
    first, last = client_frame(ws.OP_TEXT, b"x", fin=False), client_frame(ws.OP_CONTINUATION, b"y")
    parse = parser(fragments=5)
    for _ in range(2):
        assert parse.feed(first + more * 3 + last) == ["xy"]
    assert parse.feed(first + more * 4) == []
    assert parse.feed(last) == [ws.Violation(MESSAGE_TOO_BIG, "too many fragments")]
    assert parser(fragments=1).feed(client_frame(ws.OP_TEXT, b"x") * 3) == ["x"] * 3


def test_bytes_after_the_end_change_nothing() -> None:
    parse = parser()
    assert parse.feed(client_frame(ws.OP_CLOSE, b"\x0b\xb8bye")) == [ws.CloseFrame(3000, "bye")]
    assert parse.feed(client_frame(ws.OP_TEXT, b"x")) == []
    parse = parser()
    assert parse.feed(b"\x81\x00") == [ws.Violation(PROTOCOL_VIOLATION, "frame is not masked")]
    assert parse.feed(client_frame(ws.OP_TEXT, b"x")) == []


def test_read_buffers_may_be_reused() -> None:
    parse = parser()
    frame = client_frame(ws.OP_BINARY, b"abcdef")
    shared = bytearray(frame)
    assert parse.feed(memoryview(shared)) == [b"abcdef"]
    shared[:] = frame[:9] + bytes(len(frame) - 9)
    assert parse.feed(memoryview(shared)[:9]) == []
    shared[:] = bytes(len(frame))
    assert parse.feed(frame[9:]) == [b"abcdef"]
    shared[:] = frame
    (event,) = parse.feed(shared)
    assert type(event) is bytes
    shared.append(0)  # would be a BufferError if the parser still held a view


def test_large_messages_in_small_reads_cost_their_size_only() -> None:
    size = 4 * 1024 * 1024
    frame = b"\x82\xff" + size.to_bytes(8, "big") + bytes(4) + b"x" * size

    def seconds(step: int) -> float:
        parse = parser(size)
        view = memoryview(frame)
        before = time.process_time()
        events = [event for at in range(0, len(frame), step) for event in parse.feed(view[at : at + step])]
        assert events == [b"x" * size]
        return time.process_time() - before

    # A thousand times as many reads; copying what came before at each would move 137 GB.
    assert seconds(64) < 50 * seconds(64 * 1024)


def test_compressed_messages_go_through_inflate() -> None:
    calls: list[tuple[bytes, int]] = []

    def inflate(data: bytes, limit: int) -> bytes:
        calls.append((data, limit))
        if data == b"bad":
            raise ProtocolError("corrupt", reason=INVALID_DATA)
        return data[::-1]

    parse = parser(inflate=inflate)
    split = client_frame(ws.OP_TEXT, b"\xac\x82", fin=False, rsv=4) + client_frame(ws.OP_CONTINUATION, b"\xe2")
    assert parse.feed(client_frame(ws.OP_BINARY, b"abc", rsv=4) + split) == [b"cba", "\u20ac"]
    assert parse.feed(client_frame(ws.OP_TEXT, b"plain")) == ["plain"]
    assert calls == [(b"abc", LIMIT), (b"\xac\x82\xe2", LIMIT)]
    assert parse.feed(client_frame(ws.OP_TEXT, b"bad", rsv=4)) == [ws.Violation(INVALID_DATA, "corrupt")]

    for wrong in (
        client_frame(ws.OP_PING, b"", rsv=4),
        client_frame(ws.OP_TEXT, b"a", fin=False, rsv=4) + client_frame(ws.OP_CONTINUATION, b"b", rsv=4),
        client_frame(ws.OP_TEXT, b"a", rsv=6),
    ):
        assert [shown(event) for event in parser(inflate=inflate).feed(wrong)] == [{"violation": 1002}]
    not_text = parser(inflate=inflate).feed(client_frame(ws.OP_TEXT, b"\xff", rsv=4))
    assert [shown(event) for event in not_text] == [{"violation": 1007}]


# -- fuzz

masks = st.binary(min_size=4, max_size=4)
payloads = st.one_of(st.binary(max_size=150), st.text(max_size=40).map(str.encode))
any_frames = st.builds(
    client_frame,
    st.sampled_from([0, 0, 1, 1, 1, 2, 2, 8, 9, 10, 3, 11]),
    payloads,
    fin=st.sampled_from([True, True, False]),
    rsv=st.sampled_from([0] * 8 + [4, 1]),
    mask=masks,
)
any_streams = st.one_of(
    st.binary(max_size=300),
    st.lists(st.one_of(any_frames, any_frames, any_frames, st.binary(max_size=20)), max_size=8).map(b"".join),
)


@given(any_streams, st.lists(st.integers(0, 2000)), st.integers(1, 200), st.integers(1, 4))
@settings(max_examples=400)
def test_pieces_make_no_difference(data: bytes, cuts: list[int], limit: int, fragments: int) -> None:
    whole = parser(limit, fragments).feed(data)
    for end in whole[:-1]:
        assert not isinstance(end, (ws.CloseFrame, ws.Violation))
    for event in whole:
        if isinstance(event, (str, bytes)):
            assert len(event.encode() if isinstance(event, str) else event) <= limit
    edges = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    for pieces in (
        [data[start:stop] for start, stop in pairwise(edges)],
        [data[at : at + 1] for at in range(len(data))],
    ):
        parse = parser(limit, fragments)
        events = [event for piece in pieces for event in parse.feed(memoryview(piece))]
        assert events == whole


messages = st.one_of(
    st.text(max_size=60),
    st.binary(max_size=200),
    st.builds(ws.PingFrame, st.binary(max_size=125)),
    st.builds(ws.PongFrame, st.binary(max_size=125)),
)


@given(st.lists(messages, max_size=6), st.data())
@settings(max_examples=200)
def test_what_a_client_says_arrives(said: list[Any], data: st.DataObject) -> None:
    stream = b""
    for message in said:
        mask = data.draw(masks)
        if isinstance(message, (ws.PingFrame, ws.PongFrame)):
            opcode = ws.OP_PING if isinstance(message, ws.PingFrame) else ws.OP_PONG
            stream += client_frame(opcode, message.data, mask=mask)
            continue
        opcode, payload = (ws.OP_TEXT, message.encode()) if isinstance(message, str) else (ws.OP_BINARY, message)
        cuts = sorted(data.draw(st.lists(st.integers(0, len(payload)), max_size=3)))
        for number, (start, stop) in enumerate(zip([0, *cuts], [*cuts, len(payload)], strict=True)):
            stream += client_frame(opcode, payload[start:stop], fin=number == len(cuts), mask=mask)
            opcode = ws.OP_CONTINUATION
    assert parser().feed(stream) == said


# -- the second opinion


def opinion_of_websockets(data: bytes) -> list[dict[str, Any]]:
    """The same stream through ``websockets``, its fragments joined and its close codes made events."""
    protocol = Protocol(SERVER, max_size=LIMIT)
    protocol.receive_data(data)
    events: list[dict[str, Any]] = []
    kind, message = "", b""
    for frame in protocol.events_received():
        content = bytes(frame.data)
        if frame.opcode is Opcode.PING:
            events.append({"ping": content.hex()})
        elif frame.opcode is Opcode.PONG:
            events.append({"pong": content.hex()})
        elif frame.opcode is Opcode.CLOSE:
            close = Close.parse(content)
            events.append({"close": [int(close.code), close.reason]})
        else:
            if frame.opcode is not Opcode.CONT:
                kind, message = ("text" if frame.opcode is Opcode.TEXT else "binary"), b""
            message += content
            if frame.fin:
                events.append({kind: message.decode() if kind == "text" else message.hex()})
    if protocol.parser_exc is not None:
        if str(protocol.parser_exc) == "incomplete fragmented message":
            # It refuses a close inside an unfinished message; section 5.4 allows control frames there.
            close = protocol.close_rcvd
            events.append({"close": [int(close.code), close.reason]})
        else:
            events.append({"violation": int(protocol.close_sent.code)})
    return events


ascii_frames = st.builds(
    client_frame,
    st.sampled_from([0, 0, 1, 1, 2, 9, 10, 3, 15]),
    st.text(st.characters(max_codepoint=127), max_size=130).map(str.encode),
    fin=st.sampled_from([True, True, False]),
    rsv=st.sampled_from([0] * 12 + [1, 2, 4]),
    mask=masks,
)
# One fault at a time: which of two is named first is a matter of taste.
close_frames = st.builds(
    lambda code, reason: client_frame(ws.OP_CLOSE, code.to_bytes(2, "big") + reason),
    st.one_of(st.integers(990, 1020), st.integers(0, 65535)),
    st.text(max_size=10).map(str.encode),
) | st.binary(max_size=4).map(lambda reason: client_frame(ws.OP_CLOSE, b"\x03\xe8" + reason))


@given(st.lists(ascii_frames, max_size=7), st.one_of(st.just(b""), close_frames))
@settings(max_examples=300)
def test_parser_agrees_with_websockets(frames: list[bytes], end: bytes) -> None:
    data = b"".join(frames) + end
    assert [shown(event) for event in parser().feed(data)] == opinion_of_websockets(data)


@given(st.sampled_from(list(Opcode)), st.binary(max_size=125), st.booleans())
@settings(max_examples=100)
def test_builder_agrees_with_websockets(opcode: Opcode, payload: bytes, fin: bool) -> None:
    fin = fin or opcode in (Opcode.CLOSE, Opcode.PING, Opcode.PONG)
    assert ws.encode_frame(opcode, payload, fin=fin) == Frame(opcode, payload, fin=fin).serialize(mask=False)
