"""Socket.IO 0.9 below its packets: the vectors, and any input whatever."""

from __future__ import annotations

import json
import re
import tracemalloc
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from polysock_transports.dialects.socketio09 import (
    SOCKETIO09,
    SocketIO09,
    form_payload,
    handshake,
    poll_s,
    refuse,
)
from polysock_transports.errors import CLIENT_CLOSED, GO_AWAY, GOING_AWAY, INTERRUPTED, NORMAL, ProtocolError
from polysock_transports.limits import Limits
from polysock_transports.wire import Message, Noop, Pong, Refusal, Request, Route, Signal

VECTORS = json.loads((Path(__file__).parent / "vectors" / "socketio09_wire.json").read_text(encoding="utf-8"))
LIMITS = Limits(max_message_bytes=300, max_payload_bytes=600, max_payload_packets=20)
WEBSOCKET, PAGE = SOCKETIO09.over("websocket"), SOCKETIO09.over("htmlfile")
any_text = st.text(st.characters(codec=None), max_size=40)

every_form = pytest.mark.parametrize("dialect", [SOCKETIO09, PAGE, WEBSOCKET], ids=["poll", "stream", "websocket"])


def vectors(group: str) -> Any:
    rows = VECTORS[group]
    return pytest.mark.parametrize("row", rows, ids=[f"{row.get('form', '')} {row['name']}" for row in rows])


def frame(value: Any) -> Any:
    return bytes.fromhex(value["hex"]) if isinstance(value, dict) else value


def bodies(row: dict[str, Any]) -> list[str | bytes]:
    """The body of a vector, as text and as bytes where it can be both."""
    if "hex" in row:
        return [bytes.fromhex(row["hex"])]
    return [row["body"], row["body"].encode()]


def shown(signal: Signal) -> Any:
    if isinstance(signal, Message):
        return signal.data
    assert isinstance(signal, (Noop, Pong))
    return {"pong": signal.data} if isinstance(signal, Pong) else {"noop": True}


# --- vectors ----------------------------------------------------------------------------------------------------------


@vectors("encode")
@every_form
def test_encode(row: dict[str, Any], dialect: SocketIO09) -> None:
    assert dialect.encode(frame(row["message"])) == row["fragment"]


@every_form
def test_there_is_no_binary(dialect: SocketIO09) -> None:
    for message in (b"\xff", bytearray(b"\x80"), None, 1, {}, ["x"]):
        with pytest.raises(TypeError):
            dialect.encode(message)


@vectors("pack")
def test_pack(row: dict[str, Any]) -> None:
    assert list(SOCKETIO09.over(row["form"]).pack(row["fragments"])) == row["frames"]


@vectors("decode")
@every_form
def test_decode(row: dict[str, Any], dialect: SocketIO09) -> None:
    for body in bodies(row):
        assert [shown(signal) for signal in dialect.decode(body, "", LIMITS)] == row["signals"]


@vectors("reject")
@every_form
def test_reject(row: dict[str, Any], dialect: SocketIO09) -> None:
    for body in bodies(row):
        with pytest.raises(ProtocolError) as raised:
            dialect.decode(body, "", LIMITS)
        assert (raised.value.status, raised.value.reason.code) == (400, row["code"])


@vectors("forms")
def test_form_payload(row: dict[str, Any]) -> None:
    if row["payload"] is None:
        with pytest.raises(ProtocolError):
            form_payload(row["body"].encode())
    else:
        assert form_payload(row["body"].encode()) == row["payload"]


@vectors("routes")
def test_route(row: dict[str, Any]) -> None:
    route = SOCKETIO09.route(Request(row["method"], row["path"], row.get("query", "")), LIMITS)
    if "status" in row:
        assert isinstance(route, Refusal)
        assert (route.status, route.text) == (row["status"], row["text"])
        assert (route.status == 405) == (("Allow", "GET, POST, OPTIONS") in route.headers)
    elif "kind" not in row:
        assert route is None
    else:
        assert isinstance(route, Route)
        found = (route.kind, route.transport, route.session_id, route.options.get("call"))
        assert found == (row["kind"], row.get("transport", ""), row.get("session", ""), row.get("call"))
        assert route.methods == (("GET", "POST", "OPTIONS") if row["kind"] == "preflight" else ())


def test_no_more_fields_than_anybody_needs() -> None:
    route = SOCKETIO09.route(Request("GET", "/1/", "&" * 100_000), LIMITS)
    assert isinstance(route, Refusal)
    assert route.status == 400


# --- what the session and the gateway ask -----------------------------------------------------------------------------


def test_the_forms() -> None:
    assert (SOCKETIO09.name, WEBSOCKET.name, PAGE.name) == (
        "socketio09-framed",
        "socketio09-single",
        "socketio09-single",
    )
    for dialect in (SOCKETIO09, WEBSOCKET, PAGE):
        assert dialect.over("xhr-polling") is dialect.over("jsonp-polling") is SOCKETIO09
        assert dialect.over("websocket") is dialect.over("flashsocket") is WEBSOCKET
        assert dialect.over("htmlfile") is dialect.over("xhr-multipart") is PAGE
        assert dialect.framed == (dialect is SOCKETIO09)
        assert (dialect.language, list(dialect.hello()), dialect.heartbeat()) == ("socketio09", [], None)
        assert not dialect.lost_ends_session


def test_goodbye() -> None:
    for dialect in (SOCKETIO09, WEBSOCKET, PAGE):
        assert dialect.goodbye(NORMAL) == dialect.goodbye(GO_AWAY) == "0::"
    for reason in (GOING_AWAY, INTERRUPTED):
        # Only of a WebSocket's end does the client hear at once.
        assert SOCKETIO09.goodbye(reason) == PAGE.goodbye(reason) == "7:::1+0"
        assert WEBSOCKET.goodbye(reason) is None
    assert SOCKETIO09.goodbye(CLIENT_CLOSED) == "8::"
    assert PAGE.goodbye(CLIENT_CLOSED) is WEBSOCKET.goodbye(CLIENT_CLOSED) is None


@pytest.mark.parametrize(
    ("delay", "timeout", "poll", "expected"),
    [
        (25, 20, 20, "45:45"),
        (25, 20, 40, "45:60"),
        (0.25, 0.25, 0.25, "1:1"),
        (1.5, 1.6, 1, "4:4"),
        (1e-9, 1e-9, 1e-9, "1:1"),
        (float("inf"), 1e300, 20, "2147483:2147483"),
    ],
)
def test_the_answer_to_a_handshake_never_starves_a_client(
    delay: float, timeout: float, poll: float, expected: str
) -> None:
    limits = Limits(heartbeat_delay_s=delay, heartbeat_timeout_s=timeout, legacy_poll_s=poll)
    assert handshake("a_b-C", ("websocket", "xhr-polling"), limits) == f"a_b-C:{expected}:websocket,xhr-polling"
    silence, gone = map(int, expected.split(":"))
    # (Timers of browsers hold no more than that number.)
    assert min(poll_s(limits), 2147483) <= min(silence, gone)
    assert poll_s(limits) <= poll


def test_refusals() -> None:
    assert refuse(403, "handshake unauthorized") == Refusal(403, "handshake unauthorized")
    script = refuse(403, "handshake unauthorized", "io.j[2]")
    assert (script.status, script.text) == (200, 'io.j[2](new Error("handshake unauthorized"));')
    assert ("Content-Type", "application/javascript") in script.headers


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_limits_of_a_payload() -> None:
    limits = Limits(max_message_bytes=10, max_payload_bytes=60, max_payload_packets=3)

    def status(body: str) -> int:
        try:
            SOCKETIO09.decode(body, "", limits)
        except ProtocolError as problem:
            return problem.status if problem.reason.code == 1009 else 0
        return 200

    assert status("3:::\u00e9\u00e9\u00e9") == 200
    assert status("3:::\u00e9\u00e9\u00e9x") == 413
    assert status("\ufffd10\ufffd3:::123456") == 200
    assert status("\ufffd11\ufffd3:::1234567") == 413
    assert status("\ufffd1\ufffd2" * 3) == 200
    assert status("\ufffd1\ufffd2" * 4) == 413
    assert status("\ufffd0\ufffd" * 4) == 413
    assert status("\ufffd10\ufffd3:::123456" * 5) == 413


BOMBS = {
    "packets": "\ufffd0\ufffd" * 200_000,
    "short packets": "\ufffd1\ufffd2" * 200_000,
    "marks": "\ufffd" * 600_000,
    "digits": "\ufffd" + "9" * 1_000_000,
    "a long packet": "3:::" + "x" * 1_000_000,
    "astral": "\ufffd500004\ufffd3:::" + "\U0001f600" * 250_000,
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs_cost_no_more_than_a_small_multiple_of_their_bytes(bomb: str) -> None:
    body = BOMBS[bomb].encode()
    tracemalloc.start()
    try:
        with suppress(ProtocolError):
            SOCKETIO09.decode(body, "", Limits())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * len(body) + 2_000_000


@pytest.mark.parametrize("form", [b"&" * 3_000_000, b"d=" + b"%41" * 1_000_000, b"d=%22" + b"%5C" * 1_000_000], ids=len)
def test_forms_cost_no_more_either(form: bytes) -> None:
    tracemalloc.start()
    try:
        with suppress(ProtocolError):
            form_payload(form)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * len(form)


# --- fuzz -------------------------------------------------------------------------------------------------------------

framed_like = st.text('\ufffd0123458:+/{}"\u00e9\U0001f600\ud83d', max_size=60)


@given(st.binary(max_size=80) | any_text | framed_like | st.builds(lambda text: b"data=" + text.encode(), st.text()))
@example("\ufffd" * 3)
@example("\ufffd1\ufffd\U0001f600")
def test_any_input_is_signals_or_a_protocol_error(body: str | bytes) -> None:
    for dialect in (SOCKETIO09, WEBSOCKET, PAGE):
        with suppress(ProtocolError):
            assert all(isinstance(signal, (Message, Noop, Pong)) for signal in dialect.decode(body, "", LIMITS))


@given(st.binary(max_size=60) | st.builds(lambda text: b"d=" + text.encode(), st.text()))
def test_any_form_is_text_or_a_protocol_error(body: bytes) -> None:
    with suppress(ProtocolError):
        assert isinstance(form_payload(body), str)


@given(st.lists(any_text.map(lambda text: "3:::" + text), min_size=1, max_size=5))
def test_what_is_packed_can_be_read(packets: list[str]) -> None:
    (payload,) = SOCKETIO09.pack(packets)
    signals = WEBSOCKET.decode(payload, "", Limits())
    # Halves of surrogate pairs that meet become the character that they mean, in a browser as here.
    whole = [text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass") for text in packets]
    read = [shown(signal) for signal in signals]
    assert read == (packets if len(packets) == 1 else whole)


@given(
    st.sampled_from(["GET", "POST", "OPTIONS", "HEAD", "BREW"]),
    st.text("/01a-.~%", max_size=12) | st.sampled_from(["/1/", "/1/xhr-polling/x", "/1//x/", "/1/jsonp-polling/x"]),
    st.text("&=ijsonpdct0%\u00e9;", max_size=20) | st.text(max_size=30),
)
def test_any_request_has_a_route_or_none(method: str, path: str, query: str) -> None:
    route = SOCKETIO09.route(Request(method, path, query), LIMITS)
    assert route is None or isinstance(route, (Route, Refusal))
    if isinstance(route, Route) and "call" in route.options:
        assert re.fullmatch(r"io\.j\[[0-9]{1,10}\]", route.options["call"])
