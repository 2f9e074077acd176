"""The plain form of packets, and the plain endpoint's language: vectors, and any bytes whatever."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polysock.packets import Ack, Connect, ConnectError, Disconnect, Event, Packet
from polysock.packets.plain import PLAIN_PACKETS
from polysock_transports import DEFAULT_LIMITS, CloseReason, Limits, ProtocolError
from polysock_transports.dialects.plainhttp import FEED, PLAIN_HTTP, FeedEvent, emit_answer, error, poll_answer
from polysock_transports.errors import MESSAGE_TOO_BIG
from polysock_transports.feed import feed_shape
from polysock_transports.wire import Message, Refusal, Request, Route

DEEP = "[" * 100_000 + "]" * 100_000


def read(message: str | bytes) -> Packet | None:
    return PLAIN_PACKETS.reader(max_attachments=1, max_attachment_bytes=1).feed(message)


BOTH_WAYS: list[tuple[Packet, str]] = [
    (Event("/", "news", []), '["news"]'),
    (Event("/", "", [None]), '["",null]'),
    (Event("/", "é\u2028", ["/</script>"]), '["é\u2028","/</script>"]'),
    (Event("/", "add", [1, 2.5], 0), '[0,"add",1,2.5]'),
    (Event("/", "add", [[{"a": [True]}]], 10**15 - 1), '[999999999999999,"add",[{"a":[true]}]]'),
    (Event("/", "picture", [b"\x00\x01\x02", {"in": b""}]), '["picture",{"#base64":"AAEC"},{"in":{"#base64":""}}]'),
    (Ack("/", 7, []), '["#ack",7]'),
    (Ack("/", 7, [b"\xff", None]), '["#ack",7,{"#base64":"/w=="},null]'),
    (Disconnect("/"), '["#disconnect"]'),
]


@pytest.mark.parametrize(("packet", "text"), BOTH_WAYS, ids=lambda value: value if isinstance(value, str) else "")
def test_both_ways(packet: Packet, text: str) -> None:
    assert PLAIN_PACKETS.encode(packet) == (text,)
    assert read(text) == packet
    assert read(text.encode()) == packet


@pytest.mark.parametrize(
    ("packet", "text"),
    [
        (Connect("/chat", {"sid": "x"}), '["#connect",{"sid":"x"}]'),
        (ConnectError("/", "no"), '["#error","no"]'),
        (ConnectError("/", "no", {"code": 1}), '["#error","no",{"code":1}]'),
        (Disconnect("/chat"), '["#disconnect"]'),
        (Event("/", "b", [bytearray(b"a"), memoryview(b"b"), (1, b"c")]),
         '["b",{"#base64":"YQ=="},{"#base64":"Yg=="},[1,{"#base64":"Yw=="}]]'),
    ],
)  # fmt: skip
def test_from_the_server_only(packet: Packet, text: str) -> None:
    assert PLAIN_PACKETS.encode(packet) == (text,)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1, 2}])
def test_what_cannot_travel(value: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"."):
        PLAIN_PACKETS.encode(Event("/", "e", [value]))


BROKEN: list[str | bytes] = [
    "",
    "x",
    "[",
    "{}",
    "null",
    '"event"',
    "[]",
    "[1]",
    "[null]",
    '[true,"e"]',
    '[1.0,"e"]',
    '[-1,"e"]',
    f'[{10**15},"e"]',
    f'[{"9" * 400},"e"]',
    '[1,2,"e"]',
    '[["e"]]',
    '["connect"]',
    '["disconnect"]',
    '[3,"newListener"]',
    '["#connect"]',
    '["#error","x"]',
    '["#anything"]',
    '["#ack"]',
    '["#ack","7"]',
    '["#ack",true]',
    '[1,"#ack",7]',
    '["e",{"#base64":"?"}]',
    '["e",{"#base64":"A"}]',
    '["e",{"#base64":"é"}]',
    '["e",NaN]',
    '["e",-Infinity]',
    '["e",1e400]',
    f'["e",{DEEP}]',
    '["e",{"a":' * 30_000,
    b"\xff",
    b'["\xed\xa0\x80"]',
]


@pytest.mark.parametrize("message", BROKEN, ids=lambda message: str(message[:20]))
def test_broken(message: str | bytes) -> None:
    with pytest.raises(ProtocolError):
        read(message)


def test_a_marked_value_with_more_in_it_is_an_object() -> None:
    value = {"#base64": "AAEC", "more": 1}
    assert read(json.dumps(["e", value, {"#base64": 1}])) == Event("/", "e", [value, {"#base64": 1}])


def test_lone_surrogates_travel_as_escapes() -> None:
    packet = read('["e","\\ud800"]')
    assert packet == Event("/", "e", ["\ud800"])
    (text,) = PLAIN_PACKETS.encode(packet)
    assert feed_shape(FEED.encode(text)) == b'data: ["e","\\ud800"]\n\n'
    assert poll_answer("s", 1, [text], None) == b'{"sid":"s","cursor":1,"events":[["e","\\ud800"]]}'


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**12), 10**12) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["#base64", "a"]), inner, max_size=2),
    max_leaves=8,
)
messages = (
    st.binary(max_size=40)
    | st.text(max_size=40)
    | st.lists(json_values | st.sampled_from(["#ack", "#disconnect", "connect", "e"]), max_size=4).map(json.dumps)
)


@given(messages)
def test_any_bytes_are_a_packet_or_a_protocol_error(message: str | bytes) -> None:
    try:
        packet = read(message)
    except ProtocolError:
        return
    assert isinstance(packet, (Event, Ack, Disconnect))
    # What was let in can be sent on.
    (text,) = PLAIN_PACKETS.encode(packet)
    assert read(text) == packet


# -- the endpoint's language

ROUTES: list[tuple[str, str, str, Route | int | None]] = [
    ("GET", "/websocket", "ns=/chat", Route("receive", transport="rawwebsocket")),
    ("GET", "/events", "room=a", Route("receive", transport="events")),
    ("GET", "/poll", "ns=/chat", Route("receive", transport="poll", options={"since": None})),
    ("GET", "/poll", "sid=a%2Bb&since=12", Route("receive", transport="poll", session_id="a+b", options={"since": 12})),
    ("GET", "/poll", "sid=a&since=-1", Route("receive", transport="poll", session_id="a", options={"since": None})),
    ("GET", "/poll", "sid=a&since=٣", Route("receive", transport="poll", session_id="a", options={"since": None})),
    ("POST", "/emit", "sid=a&sid=b", Route("send", transport="emit", session_id="a")),
    ("POST", "/emit", "", Route("send", transport="emit")),
    ("POST", "/emit", f"sid={'a' * 500}", Route("send", transport="emit", session_id="a" * 128)),
    ("POST", "/leave", "sid=a", Route("leave", transport="leave", session_id="a")),
    ("DELETE", "/leave", "sid=a", Route("leave", transport="leave", session_id="a")),
    ("OPTIONS", "/emit", "sid=a", Route("preflight", transport="emit", methods=("OPTIONS", "POST"))),
    ("OPTIONS", "/websocket", "", 405),
    ("POST", "/poll", "", 405),
    ("HEAD", "/events", "", 405),
    ("GET", "/emit", "", 405),
    ("GET", "/poll", "a&" * 200, 400),
    ("GET", "", "", None),
    ("GET", "/poll/", "", None),
    ("GET", "/other", "", None),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "query", "expected"), ROUTES)
def test_routes(method: str, path: str, query: str, expected: Route | int | None) -> None:
    found = PLAIN_HTTP.route(Request(method, path, query), DEFAULT_LIMITS)
    assert (found.status if isinstance(found, Refusal) else found) == expected


@pytest.mark.parametrize(
    ("body", "texts"),
    [
        (b'["e"]', ['["e"]']),
        (b' [ 7 , "e", [1] ] ', [' [ 7 , "e", [1] ] ']),
        (b'[["e"],[1,"f",{"a":"\xc3\xa9/"}]]', ['["e"]', '[1,"f",{"a":"é/"}]']),
        (b"[[]]", ["[]"]),
        (b"[]", []),
    ],
)
def test_bodies(body: bytes, texts: list[str]) -> None:
    assert PLAIN_HTTP.decode(body, "emit", DEFAULT_LIMITS) == [Message(text) for text in texts]


@pytest.mark.parametrize("body", [b"", b"x", b"{}", b"1", b"\xff", b'[["e"],"e"]', b'[["e",1e999]]', DEEP.encode()])
def test_broken_bodies(body: bytes) -> None:
    with pytest.raises(ProtocolError) as raised:
        PLAIN_HTTP.decode(body, "emit", DEFAULT_LIMITS)
    assert raised.value.status == 400


@pytest.mark.parametrize("body", [b'["' + b"e" * 30 + b'"]', b'[["e"],["e"],["e"]]', b'["e","' + b"e" * 60 + b'"]'])
def test_bodies_over_a_limit(body: bytes) -> None:
    limits = Limits(max_message_bytes=20, max_payload_bytes=40, max_payload_messages=2)
    with pytest.raises(ProtocolError) as raised:
        PLAIN_HTTP.decode(body, "emit", limits)
    assert (raised.value.status, raised.value.reason) == (413, MESSAGE_TOO_BIG)


@given(st.binary(max_size=60) | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_body_is_messages_or_a_protocol_error(body: bytes) -> None:
    try:
        signals = PLAIN_HTTP.decode(body, "emit", DEFAULT_LIMITS)
    except ProtocolError:
        return
    assert all(isinstance(json.loads(signal.data), list) for signal in signals if isinstance(signal, Message))


@given(st.sampled_from(["GET", "POST"]), st.sampled_from(["/poll", "/emit", "/leave"]), st.text(max_size=40))
def test_any_query_is_a_route_or_a_refusal(method: str, path: str, query: str) -> None:
    assert isinstance(PLAIN_HTTP.route(Request(method, path, query), DEFAULT_LIMITS), (Route, Refusal))


def test_answers() -> None:
    assert error('no "é"') == '{"error":"no \\"é\\""}'.encode()
    assert emit_answer(3) == b'{"accepted":3}'
    closed = CloseReason(3000, "Go away!", may_return=False)
    assert json.loads(poll_answer('a"', 2, ['["e"]', '["f",1]'], closed)) == {
        "sid": 'a"',
        "cursor": 2,
        "closed": {"code": 3000, "reason": "Go away!", "may_return": False},
        "events": [["e"], ["f", 1]],
    }


@pytest.mark.parametrize(
    ("event", "block"),
    [
        (FeedEvent('["e"]', "a-1"), b'id: a-1\ndata: ["e"]\n\n'),
        (FeedEvent("", "a-0"), b"id: a-0\n\n"),
        (FeedEvent("{}", "a-0", "gap"), b"id: a-0\nevent: gap\ndata: {}\n\n"),
        ('["é%"]', 'data: ["é%"]\n\n'.encode()),
    ],
)
def test_feed_blocks(event: object, block: bytes) -> None:
    assert feed_shape(FEED.encode(event)) == block


@given(st.text())
def test_an_event_is_one_line_of_data(text: str) -> None:
    (message,) = PLAIN_PACKETS.encode(Event("/", "e", [text]))
    block = feed_shape(FEED.encode(FeedEvent(str(message), "a-1"))).decode()
    assert "\r" not in block
    first, second, *rest = block.split("\n")
    assert (first, rest) == ("id: a-1", ["", ""])
    assert json.loads(second.removeprefix("data: ")) == ["e", text]


def test_a_feed_takes_nothing() -> None:
    with pytest.raises(ProtocolError):
        FEED.decode(b"x", "", DEFAULT_LIMITS)
