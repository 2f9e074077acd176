"""The htmlfile page of Socket.IO 0.9: its bytes, what no packet can do to it, and the client that reads it.

Internet Explorer's htmlfile object is in no engine that can be had; there the client itself runs, unmodified, in
Chromium with an imitation of that object.
"""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tornado.web import RequestHandler

from browserlab import Engine, knock_out
from browserlab.engines import STANDINS
from polysock_transports.htmlfile import HtmlFile, LegacyHtmlFile, legacy_htmlfile_shape
from polysock_transports.limits import DEFAULT_LIMITS
from polysock_transports.pipes import KeepAliveExchange
from support.clients import quiet  # noqa: F401  # autouse: nothing here logs unannounced
from support.needs import need_npm
from support.rawhttp import Connection
from support.serving import serving

#: As a server 0.9.19 sent it.
PRELUDE = b"<html><body><script>var _ = function (msg) { parent.s._(msg, document); };</script>" + b" " * 173
CAPTURED = [
    ("1::", rb'<script>_("1::");</script>'),
    ("2::", rb'<script>_("2::");</script>'),
    (
        '5:::{"name":"ev-back","args":["a/b",{"n":1}]}',
        rb'<script>_("5:::{\"name\":\"ev-back\",\"args\":[\"a\/b\",{\"n\":1}]}");</script>',
    ),
]
PACKETS = [
    "3:::hello",
    "3:::",
    "3:::</script><script>top.hacked = 1</script><!-- ]]> &amp; &lt;",
    "3:::</SCRIPT ><img src=x onerror='top.hacked = 1'>",
    "3:::quotes \" ' and \\ back\\\\slash \\u0041",
    "3:::a/b//c http://example.com/",
    "3:::line\r\nbreaks\n\ttab \x01\x1f\x7f",
    "3:::caf\u00e9 \u20ac \U0001f600 \u2028\u2029 \ufeff\uffff",
    '5:::{"name":"message","args":["</script>/<b>"]}',
]
TEXTS = [*(packet[4:] for packet in PACKETS[:-1]), "</script>/<b>"]
ANSWER_S = 30

PAGE = """<!doctype html><meta charset="utf-8"><body><script src="/lib.js"></script><script>
var saw = {texts: [], errors: []};
window.onerror = function (text) { saw.errors.push(String(text)); };
window.CollectGarbage = function () {};
var socket = io.connect();
socket.on('message', function (text) {
  if (text === 'end') {
    saw.transport = socket.socket.transport.name;
    saw.hacked = typeof window.hacked;
    window.__result = JSON.stringify(saw);
  } else {
    saw.texts.push(text);
    socket.send(String(saw.texts.length));
  }
});
</script>"""


def test_the_page_is_that_of_the_original() -> None:
    assert LegacyHtmlFile.prelude == PRELUDE
    assert len(PRELUDE) == 256
    assert LegacyHtmlFile.name == HtmlFile.name == "htmlfile"
    assert LegacyHtmlFile.content_type == "text/html; charset=UTF-8"
    assert LegacyHtmlFile.shape is legacy_htmlfile_shape  # one key for all that share bytes


@pytest.mark.parametrize(("packet", "element"), CAPTURED)
def test_elements_are_those_of_the_original(packet: str, element: bytes) -> None:
    assert legacy_htmlfile_shape(packet) == element


def test_more_is_escaped_than_in_the_original() -> None:
    assert legacy_htmlfile_shape("3:::</script>&\u20ac\u2028") == (
        rb'<script>_("3:::\u003c\/script\u003e\u0026\u20ac\u2028");</script>'
    )


def string_of(element: bytes) -> str:
    """What the script in *element* hands over; fails where it is not one string."""
    found = re.fullmatch(rb"<script>_\((\"[ -;=?-\x7f]*\")\);</script>", element)  # neither < nor >
    assert found, element
    assert b"/" not in found[1].replace(rb"\/", b"")
    text: str = json.loads(found[1])
    return text


@given(st.one_of(st.text(), st.text(st.sampled_from("</script>!-\\\"'&\u2028\r\n\ud800"))))
def test_no_packet_ends_the_element_and_all_are_kept(text: str) -> None:
    assert string_of(legacy_htmlfile_shape(text)) == text


@given(st.binary())
def test_bytes_are_kept_too(data: bytes) -> None:
    assert string_of(legacy_htmlfile_shape(data)) == data.decode("latin-1")


class Stream(RequestHandler):
    """Hands out the transport of each GET, and what each POST says."""

    exchange: KeepAliveExchange

    def initialize(self, queue: asyncio.Queue[Any]) -> None:
        self.queue = queue

    def get(self) -> None:
        connection: Any = self.request.connection
        self.exchange = KeepAliveExchange(connection, lambda status: None, close=False)
        self._finished = True
        self.queue.put_nowait(LegacyHtmlFile(self.exchange, (), {}, DEFAULT_LIMITS))

    def on_connection_close(self) -> None:
        if hasattr(self, "exchange"):
            self.exchange.lost()

    def post(self) -> None:
        self.queue.put_nowait(self.request.body.decode())
        self.write("1")


async def test_the_response() -> None:
    queue: asyncio.Queue[Any] = asyncio.Queue()
    async with serving([("/", Stream, {"queue": queue})]) as base, await Connection.open(base) as connection:
        await connection.send("GET", "/")
        transport = await asyncio.wait_for(queue.get(), 5)
        transport.write(["1::", "2::"])
        transport.finish(None)
        answer = await connection.read_response()
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "text/html; charset=UTF-8"
        assert answer.headers["Transfer-Encoding"] == "chunked"
        assert answer.body == PRELUDE + b'<script>_("1::");</script><script>_("2::");</script>'


class Handshake(RequestHandler):
    def get(self) -> None:
        self.write("alice:60:60:htmlfile")


class Text(RequestHandler):
    def initialize(self, text: str, kind: str) -> None:
        self.text, self.kind = text, kind

    def get(self) -> None:
        self.set_header("Content-Type", f"{self.kind}; charset=UTF-8")
        self.write(self.text)


async def test_the_client_reads_it_in_an_imitation_of_internet_explorers_object(chromium: Engine) -> None:
    library = need_npm("socket.io-client-0.9", "dist/socket.io.js").read_text(encoding="utf-8")
    queue: asyncio.Queue[Any] = asyncio.Queue()
    pages = [
        ("/", Text, {"text": PAGE, "kind": "text/html"}),
        ("/lib.js", Text, {"text": library, "kind": "text/javascript"}),
        ("/socket.io/1/", Handshake),
        ("/socket.io/1/htmlfile/alice", Stream, {"queue": queue}),
    ]
    preload = knock_out("websocket") + STANDINS
    async with serving(pages) as base:
        page = asyncio.ensure_future(asyncio.to_thread(chromium.run, base + "/", timeout=ANSWER_S, preload=preload))
        transport = await asyncio.wait_for(queue.get(), ANSWER_S)
        transport.write(["1::"])
        for count, packet in enumerate(PACKETS, 1):
            # One at a time: the page has read this one before the next is written.
            transport.write([packet])
            assert await asyncio.wait_for(queue.get(), ANSWER_S) == f"3:::{count}"
        transport.write(["3:::end"])
        saw = json.loads(await page or "null")
    assert saw == {"texts": TEXTS, "errors": [], "transport": "htmlfile", "hacked": "undefined"}
