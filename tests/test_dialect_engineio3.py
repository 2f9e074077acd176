"""Engine.IO 3: the vectors, lengths in UTF-16 units, the two generations of its clients, and any input whatever.

Its requests are tested with those of version 4.
"""

from __future__ import annotations

import json
import re
import tracemalloc
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from polysock_transports.dialects.engineio import EngineDialect, form_payload, read_query
from polysock_transports.dialects.engineio3 import ENGINEIO3, LONGEST_TEXT_CHARS, EngineIO3
from polysock_transports.errors import GOING_AWAY, ProtocolError
from polysock_transports.javascript import javascript_string
from polysock_transports.limits import Limits
from polysock_transports.wire import Bye, Message, Noop, Ping, Pong, Signal, Speaks, Upgrade
from polysock_transports.xhr import bare_shape

VECTORS = json.loads((Path(__file__).parent / "vectors" / "engineio3.json").read_text(encoding="utf-8"))
LIMITS = Limits(max_message_bytes=300, max_payload_packets=20)
BODY_FORMS = ("polling", "binary", "websocket", "")

POLLING = ENGINEIO3
POLLING_BASE64 = ENGINEIO3.form("polling", {"b64": "1"})
FORMS = {
    "polling": POLLING,
    "polling-base64": POLLING_BASE64,
    "websocket": ENGINEIO3.over("websocket"),
    "websocket-base64": POLLING_BASE64.over("websocket"),
}
#: A text that only one generation writes: shows a form which one its client is of.
SHOWS = {"twice": "3:4\u00c3\u00a9", "once": "2:4\u20ac"}

any_text = st.text(st.characters(codec=None), max_size=40)
every_form = pytest.mark.parametrize("dialect", FORMS.values(), ids=FORMS)


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


def knowing(dialect: EngineIO3, generation: str) -> EngineIO3:
    """*dialect* when it has seen which generation its client is of."""
    speaks = dialect.decode(SHOWS[generation], "polling", LIMITS)[0]
    assert isinstance(speaks, Speaks)
    assert isinstance(speaks.dialect, EngineIO3)
    return speaks.dialect


def reader(row: dict[str, Any]) -> EngineIO3:
    dialect = FORMS["websocket" if row["form"] == "websocket" else "polling"]
    return knowing(dialect, row["knows"]) if "knows" in row else dialect


def shown(signal: Signal) -> dict[str, Any]:
    """*signal* as vectors write it."""
    if isinstance(signal, Message):
        return {"message": signal.data} if isinstance(signal.data, str) else {"binary": signal.data.hex()}
    if isinstance(signal, (Ping, Pong)):
        return {type(signal).__name__.lower(): signal.data}
    if isinstance(signal, Bye):
        return {"bye": signal.code}
    if isinstance(signal, Speaks):
        return {"speaks": next(name for name in SHOWS if knowing(POLLING, name) is signal.dialect)}
    assert isinstance(signal, (Noop, Upgrade))
    return {type(signal).__name__.lower(): True}


def whole(text: str) -> str:
    """*text* as UTF-8 can carry it: surrogates in pairs are characters, others are lost."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def javascript_length(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


# --- vectors ----------------------------------------------------------------------------------------------------------


@vectors("encode")
@every_form
def test_encode(row: dict[str, Any], dialect: EngineDialect) -> None:
    assert dialect.encode(frame(row["message"])) == frame(row["fragment"])


@vectors("pack")
def test_pack(row: dict[str, Any]) -> None:
    dialect = FORMS[row["form"]]
    for known in (dialect, *(knowing(POLLING, name).over("polling") for name in SHOWS if dialect is POLLING)):
        frames = known.pack([frame(item) for item in row["fragments"]])
        assert list(frames) == [frame(item) for item in row["frames"]]
        assert known.binary_payload or "websocket" in row["form"] or all(isinstance(item, str) for item in frames)


@pytest.mark.parametrize("count", [1, 5])
def test_a_long_payload_goes_as_bytes_to_who_takes_them(count: int) -> None:
    """1.x in a browser cannot read a long answer of text."""
    size = LONGEST_TEXT_CHARS // count
    fits, long = ["4" + "x" * (size - 1)] * count, ["4" + "x" * size] * count
    assert isinstance(POLLING.pack(fits)[0], str)
    (payload,) = POLLING.pack(long)
    assert POLLING.decode(payload, "binary", Limits()) == [Message("x" * size)] * count
    assert isinstance(POLLING_BASE64.pack(long)[0], str)


@vectors("decode")
def test_decode(row: dict[str, Any]) -> None:
    for body in bodies(row):
        signals = reader(row).decode(body, row["form"], LIMITS)
        assert [shown(signal) for signal in signals] == row["signals"]


@vectors("reject")
def test_reject(row: dict[str, Any]) -> None:
    for body in bodies(row):
        with pytest.raises(ProtocolError) as raised:
            reader(row).decode(body, row["form"], LIMITS)
        assert (raised.value.status, raised.value.reason.code) == (400, row["code"])


@pytest.mark.parametrize("row", VECTORS["forms"], ids=[row["query"] for row in VECTORS["forms"]])
def test_form(row: dict[str, Any]) -> None:
    assert ENGINEIO3.form(row["transport"], read_query(row["query"])) is FORMS[row["form"]]


@vectors("form_payload")
def test_form_payload(row: dict[str, Any]) -> None:
    if "error" not in row:
        assert form_payload(row["body"].encode()) == row["payload"].encode()
        return
    with pytest.raises(ProtocolError) as raised:
        form_payload(row["body"].encode())
    assert raised.value.status == row["error"]


def test_captured_forms_of_both_generations() -> None:
    row = next(row for row in VECTORS["form_payload"] if "2.5.0" in row["name"])
    text = '20["message","h\u00e9\u20ac\U0001f600 \\"q\\" \\\\n \\n\u2028+%&=end"]'
    once, twice = knowing(POLLING_BASE64, "once"), knowing(POLLING_BASE64, "twice")
    payload = form_payload(row["body"].encode())
    assert list(POLLING_BASE64.decode(payload, "polling", LIMITS)) == [Speaks(once), Message(text)]
    # 1.7.4 sends the same text like this.
    packet = f"4{text}".encode().decode("latin-1")
    body = b"d=" + quote_plus(f"{len(packet)}:{packet}".replace("\\n", "\\\\n")).encode()
    assert b"d=50%3A420%5B%22message%22%2C%22h%C3%83%C2%A9" in body
    assert list(POLLING_BASE64.decode(form_payload(body), "polling", LIMITS)) == [Speaks(twice), Message(text)]


def test_captured_answers_in_a_script() -> None:
    literal = javascript_string(POLLING_BASE64.pack(['42["message-back","hello"]'])[0])
    assert literal == r'"26:42[\"message-back\",\"hello\"]"'
    # Here the reference server leaves what is not ASCII as it is; to the script it is the same.
    acked = r'"41:430[\"acked\",\"h\u00e9\u20ac\ud83d\ude00 \\\"q\\\" \\\\n \\n\u2028+%&=end\"]"'
    packet = '430["acked","h\u00e9\u20ac\U0001f600 \\"q\\" \\\\n \\n\u2028+%&=end"]'
    literal = javascript_string(POLLING_BASE64.pack([packet])[0])
    assert literal.isascii()
    assert json.loads(literal) == json.loads(acked)
    assert json.loads(javascript_string(POLLING_BASE64.pack(["4\ud800"])[0])) == "2:4\ud800"


def test_the_opening_packet() -> None:
    opening = '0{"sid":"a_b-C","upgrades":["websocket"],"pingInterval":300,"pingTimeout":200}'
    limits = Limits(heartbeat_delay_s=0.3, heartbeat_timeout_s=0.2)
    assert ENGINEIO3.opening("a_b-C", ("websocket",), limits) == opening
    assert list(ENGINEIO3.pack([opening])) == [f"78:{opening}"]
    assert json.loads(FORMS["websocket"].opening("x", (), Limits())[1:])["upgrades"] == []


def test_what_else_a_session_asks() -> None:
    assert {dialect.name for dialect in FORMS.values()} == {f"engineio3-{name}" for name in FORMS}
    for name, dialect in FORMS.items():
        assert (dialect.protocol, dialect.language, dialect.server_pings) == (3, "engineio3", False)
        assert (dialect.ping, dialect.noop, dialect.bye, dialect.binary_payload) == ("2", "6", "1", dialect is POLLING)
        assert (dialect.pong("probe"), list(dialect.hello()), dialect.heartbeat()) == ("3probe", [], None)
        assert dialect.goodbye(GOING_AWAY) == ("1:1" if "polling" in name else None)
        assert dialect.lost_ends_session


def test_a_client_takes_along_what_is_known_of_it() -> None:
    for base64 in ("", "-base64"):
        polling, websocket = FORMS[f"polling{base64}"], FORMS[f"websocket{base64}"]
        assert polling.over("websocket") is websocket
        assert websocket.over("polling") is polling
        assert polling.over("polling") is polling
        for generation in SHOWS:
            known = knowing(polling, generation)
            assert known.over("websocket").over("polling") is known
            # What is sent is the same, and shared.
            assert (known.name, known.over("websocket").name) == (polling.name, websocket.name)


@every_form
def test_messages_are_text_or_bytes(dialect: EngineDialect) -> None:
    assert dialect.encode(bytearray(b"x")) == dialect.encode(memoryview(b"x")) == b"x"
    for message in (None, 1, {}, ["x"]):
        with pytest.raises(TypeError):
            dialect.encode(message)


# --- the two generations ----------------------------------------------------------------------------------------------


def payload_of(texts: list[str], generation: str) -> bytes:
    """The body that a client makes of messages; 1.x makes surrogates characters of UTF-8, 2.x loses them."""
    payload = ""
    for text in texts:
        packet = "4" + (text if generation == "twice" else whole(text))
        if generation == "twice":
            pairs = packet.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
            packet = pairs.encode("utf-8", "surrogatepass").decode("latin-1")
        payload += f"{javascript_length(packet)}:{packet}"
    return payload.encode()


def looks_twice_encoded(text: str) -> bool:
    try:
        text.encode("latin-1").decode("utf-8", "surrogatepass")
    except UnicodeError:
        return False
    return not text.isascii()


@pytest.mark.parametrize("generation", SHOWS)
@settings(max_examples=200)
@given(payloads=st.lists(st.lists(any_text, min_size=1, max_size=3), max_size=4))
@example(payloads=[["a"], ["\u00e9", "\ud83d\ude00 \ud83d"], ["\u00c3\u00a9", "\u00e9"]])
def test_a_session_reads_what_its_client_wrote(generation: str, payloads: list[list[str]]) -> None:
    first = next((whole(text) for texts in payloads for text in texts if not text.isascii()), "")
    # The one text that gives a wrong idea of the client.
    assume(generation == "twice" or not looks_twice_encoded(first))
    dialect = POLLING
    for texts in payloads:
        signals = list(dialect.decode(payload_of(texts, generation), "polling", Limits()))
        if isinstance(signals[0], Speaks):
            assert dialect is POLLING
            assert signals[0].dialect is knowing(POLLING, generation)
            dialect = signals.pop(0).dialect  # type: ignore[union-attr]
        assert signals == [Message(whole(text)) for text in texts]
    assert (dialect is POLLING) == all(text.isascii() for texts in payloads for text in texts)


# --- lengths ----------------------------------------------------------------------------------------------------------


def split_by_units(text: str) -> list[str] | None:
    """What a client's parser, which sees UTF-16 units, makes of a payload; None for an error."""
    units = [chr(int.from_bytes(pair, "little")) for pair in re.findall(rb"(?s)..", text.encode("utf-16-le"))]
    packets, at = [], 0
    while at < len(units):
        digits = ""
        while at < len(units) and units[at] in "0123456789" and units[at]:
            digits += units[at]
            at += 1
        if not digits or units[at : at + 1] != [":"]:
            return None
        packet = units[at + 1 : at + 1 + int(digits)]
        at += 1 + int(digits)
        if len(packet) != int(digits):
            return None
        joined = "".join(packet).encode("utf-16-le", "surrogatepass")
        try:
            packets.append(joined.decode("utf-16-le"))
        except UnicodeDecodeError:
            return None
    return packets


@settings(max_examples=500)
@given(
    pieces=st.lists(
        st.tuples(
            st.text("a1:\u00e9\u20ac\uffff\U0001f600\U0010ffff", max_size=8), st.sampled_from([0, 0, 0, 1, -1, 2])
        ),
        min_size=1,
        max_size=4,
    )
)
@example(pieces=[("\U0001f600", -1), ("a", 0)])
@example(pieces=[("\U0001f600\U0001f600", -2), ("", 0)])
def test_payloads_are_split_anywhere_as_clients_do(pieces: list[tuple[str, int]]) -> None:
    payload = "".join(f"{max(0, javascript_length(text) + 1 + wrong)}:4{text}" for text, wrong in pieces)
    expected = split_by_units(payload)
    dialect = knowing(POLLING, "once")
    # A wrong length can make a packet of any other type out of digits.
    assume(not any(packet[:1] in ("1", "2", "3") for packet in expected or ()))
    if expected is None or any(packet[:1] not in ("", "4") for packet in expected):
        with pytest.raises(ProtocolError):
            dialect.decode(payload.encode(), "polling", Limits())
    else:
        signals = dialect.decode(payload.encode(), "polling", Limits())
        assert signals == [Message(packet[1:]) for packet in expected if packet]


@settings(max_examples=200)
@given(text=st.text("\\n\nab", max_size=20))
def test_line_breaks_survive_a_form(text: str) -> None:
    assume("\\\n" not in text)  # the client's own escaping loses this one, which JSON never holds
    # As the client does: backslash and n get another backslash, then line breaks become backslash and n.
    escaped = text.replace("\\n", "\\\\n").replace("\n", "\\n")
    assert form_payload(b"d=" + quote_plus(escaped).encode()) == text.encode()


# --- fuzz -------------------------------------------------------------------------------------------------------------

packets_like = st.text("01234:b=A\u00c3\u00a9\u20ac\U0001f600", max_size=40)
bytes_like = st.lists(st.sampled_from([0, 0, 1, 1, 2, 3, 9, 255, 255, 4, 0x34, 0x62, 0xC3, 0xA9]), max_size=30).map(
    bytes
)


@every_form
@pytest.mark.parametrize("form", BODY_FORMS)
@settings(max_examples=100)
@given(body=st.binary(max_size=60) | any_text | packets_like | packets_like.map(str.encode) | bytes_like)
@example(body="1" * 300)
@example(body=b"1:4" * 101)
@example(body="0:" * 100)
@example(body=b"\x00\xff" * 100)
@example(body="2:4\ud800")
@example(body="9999999999:4")
def test_any_bytes_decode_to_signals_or_protocol_error(dialect: EngineDialect, form: str, body: str | bytes) -> None:
    try:
        signals = dialect.decode(body, form, LIMITS)
    except ProtocolError as refused:
        signals, answer = [], (refused.status, refused.reason.code)
    else:
        answer = (200, 0)
    assert answer in ((200, 0), (400, 1002), (400, 1007), (413, 1009))
    assert not any(isinstance(signal, Speaks) for signal in signals[1:])
    assert len(signals) <= LIMITS.max_payload_packets + 1


@settings(max_examples=200)
@given(body=st.binary(max_size=60) | st.text("d=&%5Cn\\+", max_size=40).map(str.encode))
def test_any_form_gives_a_payload_or_protocol_error(body: bytes) -> None:
    with suppress(ProtocolError):
        assert len(form_payload(body)) <= len(body)


messages = st.lists(
    any_text | st.text(st.characters(max_codepoint=127)) | st.binary(max_size=30), min_size=1, max_size=6
)


@pytest.mark.parametrize("name", FORMS)
@settings(max_examples=150)
@given(messages=messages)
def test_messages_survive(name: str, messages: list[str | bytes]) -> None:
    dialect = FORMS[name]
    received: list[Any] = []
    packed = dialect.pack([dialect.encode(message) for message in messages])
    assert len(packed) == (1 if "polling" in name else len(messages))
    for item in packed:
        if "websocket" in name:
            # What the transport makes of a frame, and the client's transport of that.
            body, form = bare_shape(item).decode() if isinstance(item, str) else item, "websocket"
        else:
            body, form = bare_shape(item), "polling" if isinstance(item, str) else "binary"
        received += knowing(dialect, "once").decode(body, form, Limits())
    assert received == [Message(whole(item) if isinstance(item, str) else item) for item in messages]


@settings(max_examples=100)
@given(messages=messages)
def test_both_generations_read_the_same_where_bytes_may_go(messages: list[str | bytes]) -> None:
    (packed,) = POLLING.pack([POLLING.encode(message) for message in messages])
    assert isinstance(packed, bytes) or packed.isascii()


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_a_payload_is_bounded_in_bytes_and_packets() -> None:
    full = {"polling": b"296:" + b"4" * 296, "binary": b"\x00\x02\x09\x05\xff" + b"4" * 295, "websocket": b"\x04" * 300}
    for form, body in full.items():
        assert len(ENGINEIO3.decode(body, form, LIMITS)) == 1
        with pytest.raises(ProtocolError) as raised:
            ENGINEIO3.decode(body + b"4", form, LIMITS)
        assert (raised.value.status, raised.value.reason.code) == (413, 1009)
    for form, packet in {"polling": b"1:6", "binary": b"\x00\x01\xff6"}.items():
        most = packet * LIMITS.max_payload_packets
        assert len(ENGINEIO3.decode(most, form, LIMITS)) == LIMITS.max_payload_packets
        for more in (packet, b"0:" if form == "polling" else b"\x00\x00\xff"):
            with pytest.raises(ProtocolError) as raised:
                ENGINEIO3.decode(most + more, form, LIMITS)
            assert (raised.value.status, raised.value.reason.code) == (413, 1009)


@pytest.mark.parametrize(
    ("form", "body"),
    [
        pytest.param("polling", b"1:6" * 333_333, id="tiny packets"),
        pytest.param("polling", b"0:" * 500_000, id="empty packets"),
        pytest.param("polling", b"1" * 10**6, id="digits"),
        pytest.param("polling", "5:4\U0001f600\U0001f600".encode() * 9_999, id="pairs"),
        pytest.param("polling", b"91:4" + "\u00e9".encode() * 499_998, id="too short a length"),
        pytest.param("polling", f"9999999999:4{chr(0x1F600) * 249_990}".encode(), id="too long a length"),
        pytest.param("polling", f"499980:4{chr(0xC3) + chr(0xA9)}{'a' * 499_977}".encode(), id="twice-encoded"),
        pytest.param("polling", b"999990:b4" + b"A" * 999_988, id="base64"),
        pytest.param("binary", b"\x00\x01\xff6" * 250_000, id="tiny packets of bytes"),
        pytest.param("binary", b"\x01\x00\xff" * 333_333, id="empty packets of bytes"),
        pytest.param("binary", b"\x00" + b"\x01" * 999_999, id="digits that are bytes"),
        pytest.param("binary", b"\x01" + b"\x09" * 10 + b"\xff" + b"\x04" * 999_900, id="too long a length of bytes"),
    ],
)
def test_a_bomb_takes_no_memory(form: str, body: bytes) -> None:
    assert len(body) <= Limits().max_message_bytes
    action = partial(ENGINEIO3.decode, body, form, Limits())
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        with suppress(ProtocolError):
            action()
        assert tracemalloc.get_traced_memory()[1] - before < 8 * 10**6
    finally:
        tracemalloc.stop()
