"""Engine.IO 4, and the requests that it shares with version 3: the vectors, and any input whatever."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from polysock_transports.dialects.engineio import (
    EngineDialect,
    EngineVersion,
    error,
    form_payload,
    read_query,
)
from polysock_transports.dialects.engineio3 import ENGINEIO3
from polysock_transports.dialects.engineio4 import ENGINEIO4
from polysock_transports.dialects.engineroutes import ENGINEIO
from polysock_transports.errors import GOING_AWAY, ProtocolError
from polysock_transports.limits import Limits
from polysock_transports.wire import Bye, Message, Noop, Ping, Pong, Refusal, Request, Route, Signal, Speaks, Upgrade
from polysock_transports.xhr import bare_shape

VECTORS = json.loads((Path(__file__).parent / "vectors" / "engineio4.json").read_text(encoding="utf-8"))
LIMITS = Limits(max_message_bytes=300, max_payload_packets=20)
FORMS = ("polling", "binary", "websocket", "")
VERSIONS: dict[str, EngineVersion] = {"3": ENGINEIO3, "4": ENGINEIO4}
WEBSOCKET = ENGINEIO4.over("websocket")
any_text = st.text(st.characters(codec=None), max_size=40)

every_form = pytest.mark.parametrize("dialect", [ENGINEIO4, WEBSOCKET], ids=lambda dialect: dialect.name)
every_version = pytest.mark.parametrize("version", list(VERSIONS))


def vectors(group: str) -> Any:
    rows = VECTORS[group]
    return pytest.mark.parametrize("row", rows, ids=[f"{row.get('form', '')} {row.get('name', '')}" for row in rows])


def frame(value: Any) -> Any:
    """What a vector writes as ``{"hex": ...}`` is bytes."""
    return bytes.fromhex(value["hex"]) if isinstance(value, dict) else value


def bodies(row: dict[str, Any]) -> list[str | bytes]:
    """The body of a vector; a payload of text comes as the text and as its bytes."""
    body = frame(row if "hex" in row else row["body"])
    return [body, body.encode()] if isinstance(body, str) and row["form"] == "polling" else [body]


def shown(signal: Signal) -> dict[str, Any]:
    """*signal* as vectors write it."""
    if isinstance(signal, Message):
        return {"message": signal.data} if isinstance(signal.data, str) else {"binary": signal.data.hex()}
    if isinstance(signal, (Ping, Pong)):
        return {type(signal).__name__.lower(): signal.data}
    if isinstance(signal, Bye):
        return {"bye": signal.code}
    assert isinstance(signal, (Noop, Upgrade))
    return {type(signal).__name__.lower(): True}


def whole(text: str) -> str:
    """*text* as UTF-8 can carry it: surrogates in pairs are characters, others are lost."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


# --- vectors ----------------------------------------------------------------------------------------------------------


@vectors("encode")
@every_form
def test_encode(row: dict[str, Any], dialect: EngineDialect) -> None:
    assert dialect.encode(frame(row["message"])) == frame(row["fragment"])


@vectors("pack")
def test_pack(row: dict[str, Any]) -> None:
    frames = ENGINEIO4.over(row["form"]).pack([frame(item) for item in row["fragments"]])
    assert list(frames) == [frame(item) for item in row["frames"]]


@vectors("decode")
def test_decode(row: dict[str, Any]) -> None:
    for body in bodies(row):
        signals = ENGINEIO4.over(row["form"]).decode(body, row["form"], LIMITS)
        assert [shown(signal) for signal in signals] == row["signals"]


@vectors("reject")
def test_reject(row: dict[str, Any]) -> None:
    for body in bodies(row):
        with pytest.raises(ProtocolError) as raised:
            ENGINEIO4.over(row["form"]).decode(body, row["form"], LIMITS)
        assert (raised.value.status, raised.value.reason.code) == (400, row["code"])


def test_the_opening_packet() -> None:
    limits = Limits(heartbeat_delay_s=0.3, heartbeat_timeout_s=0.2, max_message_bytes=1000)
    opening = '0{"sid":"a_b-C","upgrades":["websocket"],"pingInterval":300,"pingTimeout":200,"maxPayload":1000}'
    assert ENGINEIO4.opening("a_b-C", ("websocket",), limits) == opening
    assert json.loads(WEBSOCKET.opening("x", (), Limits())[1:]) == {
        "sid": "x",
        "upgrades": [],
        "pingInterval": 25000,
        "pingTimeout": 20000,
        "maxPayload": 1_000_000,
    }


def test_what_else_a_session_asks() -> None:
    assert (ENGINEIO4.name, WEBSOCKET.name) == ("engineio4-polling", "engineio4-websocket")
    for dialect in (ENGINEIO4, WEBSOCKET):
        assert dialect.over("polling") is dialect.form("polling", {"b64": "1"}) is ENGINEIO4
        assert dialect.over("websocket") is dialect.form("websocket", {}) is WEBSOCKET
    assert (ENGINEIO4.goodbye(GOING_AWAY), WEBSOCKET.goodbye(GOING_AWAY)) == ("1", None)
    for dialect in (ENGINEIO4, WEBSOCKET):
        assert (dialect.protocol, dialect.language, dialect.server_pings) == (4, "engineio4", True)
        assert (dialect.ping, dialect.noop, dialect.bye, dialect.binary_payload) == ("2", "6", "1", False)
        assert (dialect.pong("probe"), list(dialect.hello()), dialect.heartbeat()) == ("3probe", [], None)
        assert dialect.lost_ends_session


@every_form
def test_messages_are_text_or_bytes(dialect: EngineDialect) -> None:
    assert dialect.encode(bytearray(b"x")) == dialect.encode(memoryview(b"x")) == b"x"
    for message in (None, 1, {}, ["x"]):
        with pytest.raises(TypeError):
            dialect.encode(message)


# --- requests, of both versions ---------------------------------------------------------------------------------------


def routed(row: dict[str, Any], version: str) -> Route | Refusal | None:
    query = row["query"].replace("@", version)
    return ENGINEIO.route(Request(row["method"], row.get("path", "/"), query, row.get("upgrade", False)), Limits())


@vectors("routes")
@every_version
def test_route(row: dict[str, Any], version: str) -> None:
    route = routed(row, version)
    if "error" in row:
        assert route == error(row["error"], upgrade=row.get("upgrade", False))
        return
    if not {"page", "preflight", "receive", "send"} & row.keys():
        assert route is None
        return
    assert isinstance(route, Route)
    if "page" in row:
        assert route == Route("page", page=row["page"])
    elif "preflight" in row:
        assert (route.kind, list(route.methods)) == ("preflight", row["preflight"])
        assert route.session_id == row.get("session", "")
    else:
        kind = "receive" if "receive" in row else "send"
        assert (route.kind, route.transport, route.session_id) == (kind, row[kind], row.get("session", ""))
        assert route.options.get("call") == row.get("call")
        assert route.options["dialect"] is VERSIONS[version].form(route.transport, read_query(row["query"]))
        assert route.options["dialect"].protocol == int(version)


@vectors("errors")
def test_error(row: dict[str, Any]) -> None:
    body = json.dumps(row, separators=(",", ":"))
    assert error(row["code"]) == Refusal(400, body, headers=(("Content-Type", "application/json"),))
    html = (("Content-Type", "text/html"), ("Connection", "close"))
    assert error(row["code"], upgrade=True) == Refusal(400, row["message"], headers=html)


def test_an_error_with_a_text_of_the_application() -> None:
    refusal = error(4, status=403, message='no "entry" </script> \u00e9')
    assert refusal.status == 403
    assert json.loads(refusal.text) == {"code": 4, "message": 'no "entry" </script> \u00e9'}


@pytest.mark.parametrize(("served", "other"), [("3", "4"), ("4", "3")])
def test_a_version_that_is_not_served(served: str, other: str) -> None:
    dialect: Any = VERSIONS[served]
    for upgrade, transport in ((False, "polling"), (True, "websocket")):
        route = dialect.route(Request("GET", "/", f"EIO={served}&transport={transport}", upgrade), LIMITS)
        assert route.options["dialect"] is dialect.over(transport)
        route = dialect.route(Request("GET", "/", f"EIO={other}&transport={transport}", upgrade), LIMITS)
        assert route == error(5, upgrade=upgrade)


@every_version
def test_no_sid_beyond_its_limit(version: str) -> None:
    longest = "x" * LIMITS.max_session_id_chars
    query = f"EIO={version}&transport=polling&sid={longest}"
    assert isinstance(ENGINEIO.route(Request("POST", "/", query), LIMITS), Route)
    assert ENGINEIO.route(Request("POST", "/", query + "x"), LIMITS) == error(1)
    upgrade = Request("GET", "/", query.replace("polling", "websocket") + "x", upgrade=True)
    assert ENGINEIO.route(upgrade, LIMITS) == error(1, upgrade=True)


@every_version
def test_no_more_fields_than_anybody_needs(version: str) -> None:
    query = f"EIO={version}&transport=polling" + "&x=" * 98
    assert isinstance(ENGINEIO.route(Request("GET", "/", query), LIMITS), Route)
    assert ENGINEIO.route(Request("GET", "/", query + "&x="), LIMITS) == error(3)
    assert ENGINEIO.route(Request("GET", "/", "&" * 100_000), LIMITS) == error(3)


# --- fuzz -------------------------------------------------------------------------------------------------------------

packets_like = st.text("0123456789bA=\x1e\u00e9\U0001f600", max_size=40)
# A request that is almost right, and something besides.
query_like = st.builds(
    "&".join,
    st.tuples(
        st.sampled_from(["EIO=3", "EIO=4", "EIO=%34", "EIO", ""]),
        st.sampled_from(["transport=polling", "transport=websocket", "transport=", ""]),
        st.sampled_from(["sid=a", "sid", "sid=%0d%0a", "j=1", "j", "j=%00", "b64=1", "%", "%ff", ";", "=", "\ud800"]),
        any_text,
    ),
)


@settings(max_examples=300)
@given(
    method=st.sampled_from(["GET", "POST", "OPTIONS", "HEAD", "PUT", ""]) | any_text,
    path=st.sampled_from(["/", ""]) | any_text,
    query=query_like | any_text,
    upgrade=st.booleans(),
)
def test_any_request_is_routed_or_refused(method: str, path: str, query: str, upgrade: bool) -> None:
    route = ENGINEIO.route(Request(method, path, query, upgrade), LIMITS)
    if path not in ("", "/"):
        assert route is None
    elif isinstance(route, Refusal):
        assert (route.status, bool(route.text)) == (400, True)
    else:
        assert route is not None
        assert route.kind in ("page", "preflight", "receive", "send")
        assert len(route.session_id) <= LIMITS.max_session_id_chars or route.kind == "preflight"
        if route.kind in ("receive", "send"):
            assert upgrade is (route.transport == "websocket")
            assert route.session_id or route.kind == "receive"
            assert route.options.get("call", "___eio[0]").removeprefix("___eio[").removesuffix("]").isdigit()


@every_form
@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=100)
@given(body=st.binary(max_size=60) | any_text | packets_like | packets_like.map(str.encode))
@example(body=b"4" * 301)
@example(body="\x1e" * 300)
@example(body="b" + "\ud800")
def test_any_bytes_decode_to_signals_or_protocol_error(dialect: EngineDialect, form: str, body: str | bytes) -> None:
    try:
        signals = dialect.decode(body, form, LIMITS)
    except ProtocolError as refused:
        signals, answer = [], (refused.status, refused.reason.code)
    else:
        answer = (200, 0)
    assert answer in ((200, 0), (400, 1002), (400, 1007), (413, 1009))
    assert len(signals) <= LIMITS.max_payload_packets
    assert not any(isinstance(signal, Speaks) for signal in signals)


# A separator in a message makes two packets of it, in every client and server of this version: JSON escapes it.
messages = st.lists(any_text.filter(lambda text: "\x1e" not in text) | st.binary(max_size=30), min_size=1, max_size=8)


@every_form
@settings(max_examples=150)
@given(messages=messages)
def test_messages_survive(dialect: EngineDialect, messages: list[str | bytes]) -> None:
    form = "polling" if dialect is ENGINEIO4 else "websocket"
    received: list[Any] = []
    for packed in dialect.pack([dialect.encode(message) for message in messages]):
        # What the transport makes of a frame, and the client's transport of that.
        body = bare_shape(packed) if isinstance(packed, str) else packed
        text = isinstance(packed, str) and form == "websocket"
        received += dialect.decode(body.decode() if text else body, form, Limits())
    assert received == [Message(whole(item) if isinstance(item, str) else item) for item in messages]


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_a_payload_is_bounded_in_bytes_and_packets() -> None:
    for form in ("polling", "websocket"):
        longest = "4" * LIMITS.max_message_bytes
        assert len(ENGINEIO4.over(form).decode(longest, form, LIMITS)) == 1
        with pytest.raises(ProtocolError) as raised:
            ENGINEIO4.over(form).decode(longest + "4", form, LIMITS)
        assert (raised.value.status, raised.value.reason.code) == (413, 1009)
    most = "\x1e".join(["4"] * LIMITS.max_payload_packets)
    assert len(ENGINEIO4.decode(most, "polling", LIMITS)) == LIMITS.max_payload_packets
    with pytest.raises(ProtocolError) as raised:
        ENGINEIO4.decode(most + "\x1e4", "polling", LIMITS)
    assert (raised.value.status, raised.value.reason.code) == (413, 1009)


@pytest.mark.parametrize("body", [b"\x1e" * 10**6, b"6\x1e" * 500_000, b"4\x1e" * 9_999 + b"4", b"b" + b"A" * 999_999])
def test_a_bomb_takes_no_memory(body: bytes) -> None:
    assert peak_of(partial(ENGINEIO4.decode, body, "polling", Limits())) < 5 * 10**6


@pytest.mark.parametrize(
    "body", [b"&" * 10**6, b"d=" + b"%" * 10**6, b"d=" + b"%5C" * 333_333, b"d=" + b"\\n" * 500_000]
)
def test_a_bomb_in_a_form_takes_no_memory(body: bytes) -> None:
    assert peak_of(partial(form_payload, body)) < 70 * 10**6


def peak_of(action: Callable[[], object]) -> int:
    """The most memory in bytes that *action* held at a time, which may end in a ProtocolError."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        with suppress(ProtocolError):
            action()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
