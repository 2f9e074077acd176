"""The wire languages and the envelopes: vectors that other clients can share, and fuzz.

The sentence that every dialect must keep: any bytes in, signals or ProtocolError out, and nothing else.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import ujson
from hypothesis import example, given, settings
from hypothesis import strategies as st

from polysock_transports.dialects import Dialect
from polysock_transports.dialects.plain import PLAIN
from polysock_transports.dialects.sockjs import SOCKJS, URL_PATTERN, iframe_page, info, jsonp_payload
from polysock_transports.errors import CloseReason, ProtocolError
from polysock_transports.eventsource import eventsource_shape
from polysock_transports.htmlfile import htmlfile_shape
from polysock_transports.javascript import javascript_string
from polysock_transports.limits import Limits
from polysock_transports.websocket import websocket_shape
from polysock_transports.wire import Message, Refusal, Request, Route
from polysock_transports.xhr import xhr_shape
from support.clients import Client, Recorder, endpoint
from support.rawhttp import request

VECTORS = json.loads((Path(__file__).parent / "vectors" / "sockjs.json").read_text(encoding="utf-8"))
LIMITS = Limits(max_message_bytes=200, max_payload_bytes=1000, max_payload_messages=20)
FORMS = ("xhr_send", "jsonp_send", "websocket", "")
DIALECTS = [SOCKJS, PLAIN]
SHAPES = {
    "xhr": xhr_shape,
    "xhr_streaming": xhr_shape,
    "eventsource": eventsource_shape,
    "htmlfile": htmlfile_shape,
    "websocket": websocket_shape,
}

every_dialect = pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
# Lone surrogates included: JSON may carry them.
any_text = st.text(st.characters(codec=None), max_size=60)


def vectors(group: str, *names: str) -> Any:
    rows = VECTORS[group]
    return pytest.mark.parametrize(
        "row", rows, ids=[" ".join(f"{row.get(name, '')}" for name in names) for row in rows]
    )


# --- vectors ----------------------------------------------------------------------------------------------------------


@vectors("encode", "name")
def test_encode(row: dict[str, Any]) -> None:
    assert SOCKJS.encode(row["message"]) == row["fragment"]


@vectors("pack", "frames")
def test_pack(row: dict[str, Any]) -> None:
    assert list(SOCKJS.pack(row["fragments"])) == row["frames"]


@vectors("goodbye", "code", "text")
def test_goodbye(row: dict[str, Any]) -> None:
    assert SOCKJS.goodbye(CloseReason(row["code"], row["text"])) == row["frame"]


def test_the_frames_that_never_change() -> None:
    assert list(SOCKJS.hello()) == ["o"]
    assert SOCKJS.heartbeat() == "h"


@vectors("decode", "name")
def test_decode(row: dict[str, Any]) -> None:
    body = bytes.fromhex(row["hex"]) if "hex" in row else row["body"]
    bodies = [body, body.encode()] if isinstance(body, str) and "\\ud800" not in ascii(body) else [body]
    for given_body in bodies:
        if "error" not in row:
            assert list(SOCKJS.decode(given_body, row["form"], LIMITS)) == [Message(text) for text in row["messages"]]
            continue
        with pytest.raises(ProtocolError) as raised:
            SOCKJS.decode(given_body, row["form"], LIMITS)
        error = {"text": str(raised.value), "status": raised.value.status, "code": raised.value.reason.code}
        assert error == row["error"]


@vectors("jsonp_payload", "body", "type")
def test_jsonp_payload(row: dict[str, str]) -> None:
    assert jsonp_payload(row["body"].encode(), row["type"]) == row["payload"].encode()


@vectors("javascript", "text")
def test_javascript_string(row: dict[str, str]) -> None:
    assert javascript_string(row["text"]) == row["literal"]


@vectors("envelopes", "transport", "frame")
async def test_envelope(row: dict[str, str]) -> None:
    wire = row["wire"].encode("latin-1")
    if row["transport"] != "jsonp":
        assert SHAPES[row["transport"]](row["frame"]) == wire
        return

    # Here the request has a part in it: a goodbye, and under the name that this client gave.
    class App(Recorder):
        pass

    async with endpoint(App) as (base, _), Client(base, "jsonp") as client:
        await client.open()
        App.made[0].close()
        assert (await request(base, "GET", f"{client.url}/jsonp?c={row['callback']}")).body == wire


def test_iframe_page() -> None:
    body, etag = iframe_page(VECTORS["iframe"]["url"])
    assert body.decode("ascii").split("\n") == VECTORS["iframe"]["page"]
    assert re.fullmatch(r'"[0-9a-f]{32}"', etag)
    assert iframe_page(VECTORS["iframe"]["url"]) == (body, etag)
    assert iframe_page("/other.js")[1] != etag


@vectors("info", "body")
def test_info(row: dict[str, Any]) -> None:
    assert info(**{name: row[name] for name in ("websocket", "cookie_needed", "entropy")}).decode() == row["body"]


@vectors("routes", "method", "path")
def test_route(row: dict[str, Any]) -> None:
    route = SOCKJS.route(Request(row["method"], row["path"]), LIMITS)
    if row.get("status") == 404:
        assert route is None
    elif "status" in row:
        assert route == Refusal(row["status"], headers=(("Allow", row["allow"]),))
    else:
        assert isinstance(route, Route)
        if "page" in row:
            assert (route.kind, route.page) == ("page", row["page"])
        elif "preflight" in row:
            assert (route.kind, list(route.methods)) == ("preflight", row["preflight"])
        else:
            kind = "receive" if "receive" in row else "send"
            assert (route.kind, route.transport, route.session_id) == (kind, row[kind], row["session"])


@vectors("routes", "method", "path")
def test_url_pattern_and_route_agree(row: dict[str, Any]) -> None:
    matched = re.fullmatch(URL_PATTERN, row["path"]) is not None
    assert matched is (row.get("status") != 404)


def test_no_session_id_beyond_its_limit() -> None:
    longest = "x" * LIMITS.max_session_id_chars
    assert isinstance(SOCKJS.route(Request("POST", f"/0/{longest}/xhr"), LIMITS), Route)
    assert SOCKJS.route(Request("POST", f"/0/{longest}x/xhr"), LIMITS) is None


def test_sockjs_carries_text_only() -> None:
    assert SOCKJS.encode("\u00e9".encode()) == '"\\u00e9"'
    assert SOCKJS.encode(bytearray(b"x")) == SOCKJS.encode(memoryview(b"x")) == '"x"'
    with pytest.raises(ValueError, match="not UTF-8"):
        SOCKJS.encode(b"\xff")


@every_dialect
@pytest.mark.parametrize("message", [float("nan"), float("inf"), {"a": float("-inf")}, {1, 2}, ...], ids=repr)
def test_what_json_cannot_carry_is_refused(dialect: Dialect, message: object) -> None:
    with pytest.raises((TypeError, ValueError, OverflowError)):
        dialect.encode(message)


def test_plain_is_no_language() -> None:
    for message in ("text", b"bytes", ""):
        assert PLAIN.encode(message) == message
        assert list(PLAIN.pack([message])) == [message]
    assert PLAIN.encode(bytearray(b"x")) == PLAIN.encode(memoryview(b"x")) == b"x"
    assert PLAIN.encode({"a": "\u00e9/"}) == '{"a":"\u00e9/"}'
    assert list(PLAIN.hello()) == []
    assert PLAIN.heartbeat() is None
    assert PLAIN.goodbye(CloseReason(1000, "")) is None
    assert isinstance(PLAIN.route(Request("GET", "/"), LIMITS), Route)
    assert isinstance(PLAIN.route(Request("POST", ""), LIMITS), Refusal)
    assert PLAIN.route(Request("GET", "/x"), LIMITS) is None


# --- fuzz -------------------------------------------------------------------------------------------------------------

json_like = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | any_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(any_text, inner, max_size=3),
    max_leaves=12,
).map(json.dumps)


@every_dialect
@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=150)
@given(body=st.binary(max_size=80) | any_text | json_like | json_like.map(str.encode))
@example(body=b"[" * 900)
@example(body='["' + "\\ud800" * 100 + '"]')
@example(body="[" + "1" * 900 + "]")
@example(body="[1e999]")
@example(body='["\ud800"]')
@example(body="\ufeff[]")
@example(body=b"\xef\xbb\xbf[]")
@example(body="[\x00]")
def test_any_bytes_decode_to_messages_or_protocol_error(dialect: Dialect, form: str, body: str | bytes) -> None:
    try:
        signals = dialect.decode(body, form, LIMITS)
    except ProtocolError as error:
        signals, answer = [], (error.status, str(error))
    else:
        answer = (400, "ok")
    assert answer[0] in (400, 413, 500)
    assert answer[1]
    assert len(signals) <= LIMITS.max_payload_messages
    for signal in signals:
        assert type(signal) is Message
        assert isinstance(signal.data, str if dialect is SOCKJS else (str, bytes))
        size = len(signal.data.encode("utf-8", "surrogatepass") if isinstance(signal.data, str) else signal.data)
        assert size <= LIMITS.max_message_bytes or dialect is PLAIN


@every_dialect
@settings(max_examples=300)
@given(
    method=st.sampled_from(["GET", "POST", "OPTIONS", "HEAD", "PUT", "get", ""]) | any_text,
    path=any_text
    | st.lists(st.sampled_from(["/", "a", "xhr", "info", ".", "%2f", "iframe", ".html", "\n"])).map("".join),
    query=any_text,
)
def test_any_path_is_routed_or_refused(dialect: Dialect, method: str, path: str, query: str) -> None:
    route = dialect.route(Request(method, path, query), LIMITS)
    assert route is None or isinstance(route, (Route, Refusal))
    if isinstance(route, Route):
        assert route.kind in ("page", "preflight", "receive", "send")
        assert "/" not in route.session_id
        assert "." not in route.session_id


@settings(max_examples=300)
@given(text=any_text)
def test_any_text_survives_and_is_ascii(text: str) -> None:
    fragment = SOCKJS.encode(text)
    assert fragment.isascii()
    assert not re.search(r"[\x00-\x1f]", fragment)
    # Surrogates that meet in one text are one character to every JSON reader.
    whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    assert json.loads(fragment) == whole
    assert ujson.loads(fragment) == whole
    (frame,) = SOCKJS.pack([fragment, fragment])
    assert json.loads(frame[1:]) == [whole, whole]
    assert [signal.data for signal in SOCKJS.decode(f"[{fragment}]", "websocket", Limits())] == [whole]  # type: ignore[union-attr]


@settings(max_examples=300)
@given(text=any_text | st.text("</script>&-!\u2028\u2029\\\"'", max_size=30))
def test_javascript_string_is_safe_anywhere_in_a_page(text: str) -> None:
    literal = javascript_string(text)
    assert literal.isascii()
    assert not re.search(r"[<>&\x00-\x1f]", literal)
    assert "\u2028" not in literal
    whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    assert json.loads(literal) == whole


@settings(max_examples=200)
@given(text=any_text)
def test_any_frame_survives_its_envelope(text: str) -> None:
    (frame,) = SOCKJS.pack([SOCKJS.encode(text)])
    event = eventsource_shape(frame)
    assert event.startswith(b"data: ")
    assert event.count(b"\n") == 2
    assert b"%" not in event
    assert json.loads(event[7:]) == json.loads(frame[1:])
    script = htmlfile_shape(frame)
    assert script.count(b"<") == 2
    assert json.loads(script.split(b"\n")[1].removeprefix(b"p(").removesuffix(b");")) == frame
    assert xhr_shape(frame) == frame.encode() + b"\n"


@settings(max_examples=200)
@given(body=st.binary(max_size=60), content_type=st.sampled_from(["application/x-www-form-urlencoded", "text/plain"]))
def test_any_form_gives_a_payload(body: bytes, content_type: str) -> None:
    payload = jsonp_payload(body, content_type)
    assert isinstance(payload, bytes)
    assert len(payload) <= len(body)


@settings(max_examples=100)
@given(code=st.integers(0, 70000), text=any_text)
def test_any_goodbye_is_json(code: int, text: str) -> None:
    frame = SOCKJS.goodbye(CloseReason(code, text))
    assert isinstance(frame, str)
    assert frame.isascii()
    whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    assert json.loads(frame[1:]) == [code, whole]
