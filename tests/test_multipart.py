"""XHR multipart: the bytes, three readers of them, and packets that try to be more than one part.

No engine that can be had lets a script ask for this transport (Firefox did until 21).  What is left of it is the same
parser under ordinary loads: Firefox shows part after part of such a response in a frame.
"""

from __future__ import annotations

import asyncio
import json
import re
from email import message_from_bytes
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tornado.web import RequestHandler

from browserlab import Engine
from polysock_transports.limits import Limits
from polysock_transports.multipart import XhrMultipart
from polysock_transports.pipes import Exchange, Headers, KeepAliveExchange
from polysock_transports.rfc6455 import utf8
from support.clients import quiet  # noqa: F401  # autouse: nothing here logs unannounced
from support.rawhttp import Connection
from support.serving import serving

CONTENT_TYPE = re.compile(r'multipart/x-mixed-replace;boundary="(socketio-[0-9a-f]{32})"')
PART = b"Content-Type: text/plain\n\n"
FORGED = "3:::a\n--socketio\nContent-Type: text/html\n\n<script>top.forged = 1</script>\n--socketio--\n"
PACKETS = [
    "1::",
    "3:::",
    "3:::caf\u00e9 \u20ac \U0001f600 \u2028 </script>",
    "3:::\n\nends with line breaks\n\n",
    "3:::ends with CR\r",
    "3:::ends with CR LF\r\n",
    FORGED,
    '5:::{"name":"a","args":["--socketio"]}',
]
ANSWER_S = 30


class Kept(Exchange):
    """Keeps what is written, for tests that need no network."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.body = b""

    @property
    def backlog(self) -> int:
        return 0

    def start(self, status: int, headers: Headers, first: bytes) -> None:
        self.headers = dict(headers)
        self.body = first

    def write(self, data: bytes) -> None:
        self.body += data

    def respond(self, status: int, headers: Headers, body: bytes) -> None:
        raise AssertionError("it is a stream")

    def finish(self) -> None:
        pass

    def abort(self) -> None:
        pass

    def lost(self) -> None:
        pass


def response(*packets: str | bytes) -> tuple[str, bytes]:
    """The boundary and the body of a response that carries *packets*."""
    exchange = Kept()
    XhrMultipart(exchange, (), {}, Limits()).write(packets)
    found = CONTENT_TYPE.fullmatch(exchange.headers["Content-Type"])
    assert found
    return found[1], exchange.body


def read_as_mime(boundary: str, body: bytes) -> list[bytes]:
    """By Python's own parser, which goes by RFC 2046: a delimiter is a line."""
    head = f'Content-Type: multipart/x-mixed-replace;boundary="{boundary}"\n\n'
    parts: Any = message_from_bytes(head.encode() + body).get_payload()
    assert [part.get_content_type() for part in parts] == ["text/plain"] * len(parts)
    *contents, opened = [part.get_payload(decode=True) for part in parts]
    assert opened == b""
    return contents


def read_as_gecko(boundary: str, body: bytes) -> list[bytes]:
    """As the Firefox of that time does: a delimiter is where its text is, with a line break before it or not."""
    first, *parts, opened = body.split(b"--" + boundary.encode())
    assert (first, opened) == (b"", b"\n")
    contents = []
    for part in parts:
        assert part.startswith(b"\n" + PART)
        content = part.removeprefix(b"\n" + PART)
        contents.append(content.removesuffix(b"\n").removesuffix(b"\r"))
    return contents


def test_the_bytes_but_for_the_boundary_are_those_of_socketio_06() -> None:
    boundary, body = response("1::", "3:::\u20ac")
    assert body.replace(boundary.encode(), b"socketio") == (
        b"--socketio\n"
        b"Content-Type: text/plain\n\n1::\n--socketio\n"
        b"Content-Type: text/plain\n\n3:::\xe2\x82\xac\n--socketio\n"
    )


def test_each_response_has_a_boundary_of_its_own() -> None:
    boundaries = {response()[0] for _ in range(100)}
    assert len(boundaries) == 100
    assert all(len(boundary) <= 70 for boundary in boundaries)  # RFC 2046, section 5.1.1
    assert XhrMultipart.shape is None


@pytest.mark.parametrize("read", [read_as_mime, read_as_gecko])
def test_every_packet_is_one_part(read: Any) -> None:
    assert read(*response(*PACKETS)) == [packet.encode() for packet in PACKETS]


@settings(max_examples=60)
@given(st.lists(st.one_of(st.binary(), st.text(), st.text(st.sampled_from("\r\n -:socketi\0\ud800")))))
def test_any_packets_are_as_many_parts(packets: list[str | bytes]) -> None:
    sent = [packet if isinstance(packet, bytes) else utf8(packet) for packet in packets]
    for read in (read_as_mime, read_as_gecko):
        assert read(*response(*packets)) == sent


class Stream(RequestHandler):
    """Hands out the transport of each request."""

    exchange: KeepAliveExchange

    def initialize(self, limits: Limits, made: asyncio.Queue[XhrMultipart]) -> None:
        self.limits, self.made = limits, made

    def get(self) -> None:
        connection: Any = self.request.connection
        self.exchange = KeepAliveExchange(connection, lambda status: None, close=False)
        self._finished = True
        self.made.put_nowait(XhrMultipart(self.exchange, (("X-Test", "1"),), {}, self.limits))

    def on_connection_close(self) -> None:
        self.exchange.lost()


async def test_a_response_ends_at_its_limit_and_the_next_has_another_boundary() -> None:
    made: asyncio.Queue[XhrMultipart] = asyncio.Queue()
    limits = Limits(response_limit_bytes=200)
    boundaries = set()
    async with (
        serving([("/", Stream, {"limits": limits, "made": made})]) as base,
        await Connection.open(base) as connection,
    ):
        for _ in range(2):
            await connection.send("GET", "/")
            transport = await asyncio.wait_for(made.get(), 5)
            size = len(transport.wrap("3:::x"))
            assert size < 200 <= 3 * size
            for _ in range(4):
                transport.write(["3:::x"])
            assert transport.finishing
            answer = await connection.read_response()
            assert answer.headers["X-Test"] == "1"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            found = CONTENT_TYPE.fullmatch(answer.headers["Content-Type"])
            assert found
            assert read_as_mime(found[1], answer.body) == [b"3:::x"] * 3
            boundaries.add(found[1])
    assert len(boundaries) == 2


PAGE = """<!doctype html><meta charset="utf-8"><body><script>
var frame = document.createElement('iframe'), last = null, saw = [];
frame.src = '/stream';
document.body.appendChild(frame);
// A part that follows another at once has no load event of its own.
setInterval(function () {
  var shown = frame.contentDocument, text;
  if (!shown || !shown.body || shown.contentType !== 'text/plain') { return; }
  text = shown.body.textContent;
  if (text === last) { return; }
  last = text;
  if (text === '3:::end') {
    window.__result = JSON.stringify({saw: saw, forged: typeof window.forged});
    return;
  }
  saw.push(text);
  var next = new XMLHttpRequest();
  next.open('POST', '/next', true);
  next.send('');
}, 20);
</script>"""


class Page(RequestHandler):
    def initialize(self, read: asyncio.Queue[None]) -> None:
        self.read = read

    def get(self) -> None:
        self.write(PAGE)

    def post(self) -> None:
        self.read.put_nowait(None)


async def test_firefox_shows_part_after_part(firefox: Engine) -> None:
    made: asyncio.Queue[XhrMultipart] = asyncio.Queue()
    read: asyncio.Queue[None] = asyncio.Queue()
    pages = [("/stream", Stream, {"limits": Limits(), "made": made}), ("/(?:next)?", Page, {"read": read})]
    async with serving(pages) as base:
        page = asyncio.ensure_future(asyncio.to_thread(firefox.run, base + "/", timeout=ANSWER_S))
        transport = await asyncio.wait_for(made.get(), ANSWER_S)
        for packet in PACKETS:
            # The page has read this one before the next is written: a part is complete without the one after it.
            transport.write([packet])
            await asyncio.wait_for(read.get(), ANSWER_S)
        transport.write(["3:::end"])
        saw = json.loads(await page or "null")
    # Where a packet ends with one line break of its own, today's Firefox (153) also shows that of the delimiter.  The
    # one that had this transport took off one, whatever came before.
    assert [text.rstrip("\n") for text in saw["saw"]] == [packet.rstrip("\r\n") for packet in PACKETS]
    assert saw["forged"] == "undefined"
