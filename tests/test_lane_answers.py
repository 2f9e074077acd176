"""Both lanes do the same: one stream of bytes, to a server that takes connections over and to one that does not.

Whatever a client sends, in whatever pieces, the answers (but for their dates), the end of the connection, the access
log and what the application sees must not tell which lane it was.  What only the taken-over lane can do wrong is in
``test_httplane.py``.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count, pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tornado.httpserver import HTTPServer
from tornado.web import Application, RequestHandler

import polysock
from polysock import Connection, SockJSRouter
from polysock_transports.lanehead import MAX_HEAD_BYTES
from support.clock import FakeClock
from support.loops import LOOPS
from support.serving import serving_with

HOST = b"Host: lanes.example\r\n"
POST = b"POST /s/000/SID/xhr HTTP/1.1\r\n" + HOST
SEND = b"POST /s/000/SID/xhr_send HTTP/1.1\r\n" + HOST
GET = b"GET /s/000/SID/jsonp?c=cb HTTP/1.1\r\n" + HOST
OWN = b"GET /own HTTP/1.1\r\n" + HOST
END = b"\r\n"
POLL = POST + END
ECHO = SEND + b'Content-Length: 8\r\n\r\n["hello"'[:-1] + b'"]'
HANDSHAKE = b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"


def sent(body: bytes, head: bytes = SEND) -> bytes:
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


PIECES = {
    # what clients of the endpoint send
    "poll": POLL,
    "send": sent(b'["a"]'),
    "send many": sent(b'["a","b","c"]'),
    "jsonp poll": GET + END,
    "jsonp send": sent(b"d=%5B%22a%22%5D", SEND.replace(b"xhr_send", b"jsonp_send")),
    "jsonp without callback": GET.replace(b"?c=cb", b"") + END,
    "jsonp with a form type": sent(
        b"d=%5B%22a%22%5D",
        SEND.replace(b"xhr_send", b"jsonp_send") + b"Content-Type: application/x-www-form-urlencoded\r\n",
    ),
    "stream": POST.replace(b"/xhr ", b"/xhr_streaming ") + END,
    "eventsource": GET.replace(b"jsonp?c=cb", b"eventsource") + END,
    "htmlfile": GET.replace(b"jsonp", b"htmlfile") + END,
    "broken json": sent(b'["a"'),
    "empty send": sent(b""),
    "send without length": SEND + END,
    "send to nobody": sent(b'["a"]', SEND.replace(b"SID", b"nobody")),
    "same origin": POST + b"Origin: http://lanes.example\r\n" + END,
    "other origin": POST + b"Origin: http://evil.example\r\n" + END,
    "other origin, send": sent(b'["a"]', SEND + b"Origin: http://evil.example\r\n"),
    "cookies": POST + b"Cookie: JSESSIONID=me; a=b\r\n" + END,
    "odd cookies": POST + b'Cookie: a,b=c; [x]=1; =; JSESSIONID="q\\"\r\n' + END,
    "odd cookies and a good one": POST + b"Cookie: (a)=b; JSESSIONID=node1.x; c\r\n" + END,
    "two cookie lines": POST + b"Cookie: JSESSIONID=me\r\nCookie: a=b\r\n" + END,
    "keep-alive": POST + b"Connection: keep-alive\r\n" + END,
    "Keep-Alive": POST + b"connection: Keep-Alive\r\n" + END,
    "latin-1 in a header": POST + b"X-Name: caf\xe9\r\n" + END,
    "poll with a body": sent(b"x" * 5, POST),
    "poll with a long body": sent(b"x" * 100, POST),
    "many arguments": GET.replace(b"?c=cb", b"?" + b"&".join([b"a=b"] * 100) + b"&c=cb") + END,
    "too many arguments": GET.replace(b"?c=cb", b"?" + b"&".join([b"a=b"] * 1100) + b"&c=cb") + END,
    "odd query": GET.replace(b"?c=cb", b"?%&=&%zz=%ff&c=cb&c=cd") + END,
    "odd path": POST.replace(b"/xhr", b"/xhr%2f") + END,
    "quote in the path": POST.replace(b"/xhr ", b'/xhr?" ') + END,
    # what is for others, on the same connection
    "own": OWN + END,
    "own with a body": sent(b"body", OWN.replace(b"GET", b"POST")),
    "own, before ours": POST.replace(b"SID", b"taken") + END,
    "HEAD own": OWN.replace(b"GET", b"HEAD") + END,
    "nowhere": OWN.replace(b"/own", b"/nowhere") + END,
    "info": b"GET /s/info HTTP/1.1\r\n" + HOST + END,
    "greeting": b"GET /s/ HTTP/1.1\r\n" + HOST + END,
    "iframe": b"GET /s/iframe.html HTTP/1.1\r\n" + HOST + END,
    "OPTIONS": POST.replace(b"POST", b"OPTIONS") + END,
    "HEAD": POST.replace(b"POST", b"HEAD") + END,
    "PUT": sent(b"x", SEND.replace(b"POST", b"PUT")),
    "unknown method": POST.replace(b"POST", b"BREW") + END,
    "lower-case method": POST.replace(b"POST", b"post") + END,
    "wrong method": POST.replace(b"POST", b"GET") + END,
    "unknown in the mount": POST.replace(b"/xhr ", b"/yhr ") + END,
    "session id with a dot": POST.replace(b"SID", b"a.b") + END,
    "other mount": POST.replace(b"/s/", b"/s2/") + END,
    "other mount, send": sent(b'["a"]', SEND.replace(b"/s/", b"/s2/")),
    "other host": POST.replace(b"lanes", b"other") + END,
    "host in capitals": POST.replace(b"lanes", b"LANES") + END,
    "WebSocket": b"GET /s/000/SID/websocket HTTP/1.1\r\n" + HOST + b"Upgrade: websocket\r\n" + HANDSHAKE + END,
    "raw WebSocket": b"GET /s/websocket HTTP/1.1\r\n" + HOST + b"Upgrade: websocket\r\n" + HANDSHAKE + END,
    "WebSocket without Upgrade": b"GET /s/000/SID/websocket HTTP/1.1\r\n" + HOST + END,
    "poll with Upgrade": POST + b"Upgrade: h2c\r\nConnection: Upgrade\r\n" + END,
    # unusual, and right
    "close": POST + b"Connection: close\r\n" + END,
    "close, send": sent(b'["a"]', SEND + b"Connection: close\r\n"),
    "Connection: a list": POST + b"Connection: keep-alive, TE\r\n" + END,
    "HTTP/1.0": POST.replace(b"1.1", b"1.0") + END,
    "HTTP/1.0 kept alive": POST.replace(b"1.1", b"1.0") + b"Connection: keep-alive\r\n" + END,
    "chunked": SEND + b'Transfer-Encoding: chunked\r\n\r\n5\r\n["a"]\r\n0\r\n\r\n',
    "chunked, too long": SEND + b"Transfer-Encoding: chunked\r\n\r\n400\r\n" + b"x" * 1024 + b"\r\n0\r\n\r\n",
    "expect": sent(b'["a"]', SEND + b"Expect: 100-continue\r\n"),
    "zipped": sent(b"zzzz", SEND + b"Content-Encoding: gzip\r\n"),
    "too long": sent(b"x" * 1001),
    "too long, not sent": SEND + b"Content-Length: 123456789\r\n\r\n",
    "absolute": POST.replace(b" /s", b" http://lanes.example/s") + END,
    "asterisk": b"OPTIONS * HTTP/1.1\r\n" + HOST + END,
    "long head": POST + b"X-Long: " + b"x" * 20_000 + b"\r\n" + END,
    "many headers": POST + b"".join(b"X-%d: y\r\n" % n for n in range(200)) + END,
    "empty lines before": b"\r\n\r\n" + POLL,
    "leading zeros": SEND + b'Content-Length: 005\r\n\r\n["a"]',
    "equal lengths": SEND + b'Content-Length: 5\r\nContent-Length: 5\r\n\r\n["a"]',
    "equal lengths in a line": SEND + b'Content-Length: 5, 5\r\n\r\n["a"]',
    "empty value": POST + b"X-Empty:\r\n" + END,
    "tabs": SEND + b'Content-Length:\t5\t\r\n\r\n["a"]',
    # wrong
    "too long a head": POST + b"X-Long: " + b"x" * 70_000 + b"\r\n" + END,
    "bare LF": POLL.replace(b"\r\n", b"\n"),
    "bare LF at the end": POST + b"\n",
    "bare LF in the middle": POST.replace(b"\r\n", b"\n", 1) + END,
    "bare CR": POST + b"X-A: b\rX-C: d\r\n" + END,
    "NUL": POST + b"X-A: b\0c\r\n" + END,
    "obs-fold": POST + b"X-A: b\r\n c\r\n" + END,
    "space before the colon": SEND + b'Content-Length : 5\r\n\r\n["a"]',
    "no colon": POST + b"nonsense\r\n" + END,
    "no name": POST + b": x\r\n" + END,
    "different lengths": SEND + b'Content-Length: 5\r\nContent-Length: 6\r\n\r\n["a"]',
    "signed length": SEND + b'Content-Length: +5\r\n\r\n["a"]',
    "negative length": SEND + b"Content-Length: -1\r\n\r\n",
    "hexadecimal length": SEND + b'Content-Length: 0x5\r\n\r\n["a"]',
    "length of letters": SEND + b"Content-Length: five\r\n\r\n",
    "huge length": SEND + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n",
    "empty length": SEND + b"Content-Length:\r\n\r\n",
    "length and chunked": SEND + b'Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n["a"]\r\n0\r\n\r\n',
    "chunked, spelled oddly": SEND + b'Transfer-Encoding: xchunked\r\n\r\n5\r\n["a"]\r\n0\r\n\r\n',
    "chunked twice": SEND + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "bad chunk": SEND + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "GET with a body": sent(b"GET / HTTP/1.1\r\n\r\n", GET),
    "two hosts": POST + HOST + END,
    "two different hosts": POST + b"Host: evil.example\r\n" + END,
    "no host": POST.replace(HOST, b"") + END,
    "empty host": POST.replace(b"lanes.example", b"") + END,
    "odd host": POST.replace(b"lanes.example", b"a b") + END,
    "no version": POLL.replace(b" HTTP/1.1", b""),
    "HTTP/2": POLL.replace(b"1.1", b"2.0"),
    "HTTP/1.2": POLL.replace(b"1.1", b"1.2"),
    "two spaces": POLL.replace(b" HTTP", b"  HTTP"),
    "8-bit path": POLL.replace(b"SID", b"SID\xc3\xa9"),
    "noise": bytes(range(1, 9)) * 4 + b"\r\n\r\n",
    "body without end": SEND + b"Content-Length: 9\r\n\r\n[",
    "half a head": POST[:30],
}
#: What is different each time: dates, and what /info says for clients to mix into their random numbers.
CHANGING = re.compile(rb"Date: [^\r]*\r\n|\"entropy\":[0-9]+|Content-Length: [78][0-9]\r\n")
#: Turns of the loop without a byte after which a server has no more to say, and where the outcomes differ: perhaps the
#: kernel was slower than that, so listen for longer before it counts.
QUIET_TURNS = (40, 5000)
#: Turns after which a piece has been read and answered.
ONE_BY_ONE = 20
#: After this time no session is left, so each stream meets the same server.
FORGET_S = 120


class Echo(Connection):
    """Sends back what it gets, and has a list of what it saw."""

    seen: list[Any]

    def on_open(self, info: Any) -> None:
        self.seen.append(("open", info.ip, info.path, sorted(info.arguments.items()), sorted(info.cookies)))

    def on_message(self, message: str | bytes) -> None:
        self.seen.append(message)
        if message == "bye":
            self.close()
        self.send(message)

    def on_close(self) -> None:
        self.seen.append(("close", self.close_reason))


class Own(RequestHandler):
    def get(self) -> None:
        self.set_header("Server", "own")
        self.write({"method": self.request.method, "body": self.request.body.decode("latin-1")})

    head = post = get


@dataclass
class Side:
    """One of the two servers, and what it did."""

    port: int = 0
    clock: FakeClock = field(default_factory=FakeClock)
    seen: list[Any] = field(default_factory=list)
    logged: list[Any] = field(default_factory=list)

    def log(self, handler: RequestHandler) -> None:
        request = handler.request
        self.logged.append((handler.get_status(), request.full_url(), request.method, request.remote_ip))


@asynccontextmanager
async def side(kind: type[HTTPServer], *, fast_lane: bool) -> AsyncIterator[Side]:
    it = Side()
    echo = type("Echo", (Echo,), {"seen": it.seen})
    options = {"fast_lane": fast_lane, "jsessionid": True, "max_payload_bytes": 1000}
    mounts = [SockJSRouter(echo, prefix, options, clock=it.clock) for prefix in ("/s", "/s2")]
    own = [("/own", Own), ("/s/000/taken/xhr", Own)]
    urls = [url for mount in mounts for url in mount.urls]
    application = Application([*own, *urls], log_function=it.log)  # type: ignore[arg-type]
    application.add_handlers("other.example", [("/s/000/.*", Own)])
    async with serving_with(kind(application)) as base:
        it.port = int(base.rsplit(":", 1)[1])
        yield it


@dataclass
class Outcome:
    """What a server answered, whether it ended the connection, and what it saw and logged meanwhile.

    (A client that leaves is noticed at different moments, so what is seen of that is left out.)
    """

    answer: bytes
    ended: bool
    seen: list[Any]
    logged: list[Any]

    def up_to(self, other: Outcome) -> Outcome:
        """As much of it as there is of *other*."""
        seen, logged = self.seen[: len(other.seen)], self.logged[: len(other.logged)]
        return Outcome(self.answer[: len(other.answer)], self.ended, seen, logged)


async def told(it: Side, pieces: Sequence[bytes], quiet_turns: int, turns_between: int) -> Outcome:
    """What comes of *pieces*, sent one after another, with so many turns of the loop in between."""
    it.seen.clear()
    it.logged.clear()
    reader, writer = await asyncio.open_connection("127.0.0.1", it.port, limit=1 << 24)
    buffer: bytearray = reader._buffer  # type: ignore[attr-defined]
    try:
        for piece in pieces:
            if not writer.is_closing():  # which uvloop would make an error of
                writer.write(piece)
            for _ in range(turns_between):
                await asyncio.sleep(0)
        quiet, before = 0, -1
        while quiet < quiet_turns and not (reader.at_eof() or reader.exception()):
            quiet = quiet + 1 if len(buffer) == before else 0
            before = len(buffer)
            await asyncio.sleep(0)
        ended = reader._eof or reader.exception() is not None  # type: ignore[attr-defined]
        answer = CHANGING.sub(b"", bytes(buffer))
        return Outcome(answer, ended, list(it.seen), list(it.logged))
    finally:
        writer.transport.abort()
        for _ in range(10):
            await asyncio.sleep(0)
        it.clock.advance(FORGET_S)


#: In Tornado's streams; taken over from there; and read past Tornado from the first byte on.
SIDES: tuple[tuple[type[HTTPServer], bool], ...] = (
    (HTTPServer, False),
    (HTTPServer, True),
    (polysock.HTTPServer, True),
)


class Both:
    """The same server, on either lane and by either way to it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._stack = AsyncExitStack()
        self._number = count()

    def __enter__(self) -> Both:
        self._loop.run_until_complete(self._open())
        return self

    async def _open(self) -> None:
        self._sides = [await self._stack.enter_async_context(side(kind, fast_lane=fast)) for kind, fast in SIDES]

    def __exit__(self, *_: object) -> None:
        self._loop.run_until_complete(self._stack.aclose())

    def compare(self, pieces: Sequence[bytes], turns_between: int = 2) -> None:
        """Send *pieces* to either, and want the same outcome."""
        self._loop.run_until_complete(self._compare(pieces, turns_between))

    async def _compare(self, pieces: Sequence[bytes], turns_between: int) -> None:
        for quiet_turns in QUIET_TURNS:
            # A session of its own for each time; as long as the word it stands for, so that splits stay where they are.
            sid = b"%03x" % (next(self._number) % 4096)
            stream = cut(b"".join(pieces).replace(b"SID", sid), [len(piece) for piece in pieces])
            expected, *outcomes = [await told(it, stream, quiet_turns, turns_between) for it in self._sides]
            # What is sent to a connection that ends may reset it, and what the client has not read is lost then;
            # and Tornado looks at requests that it has read already even where it has closed their connection.
            is_whole = len(stream) == 1 and len(stream[0]) <= MAX_HEAD_BYTES  # and one read has all of it
            pairs = [
                (found.up_to(expected), expected.up_to(found)) if found.ended and not is_whole else (found, expected)
                for found in outcomes
            ]
            if all(found == wanted for found, wanted in pairs):
                return
        for found, wanted in pairs:
            assert found == wanted


def cut(stream: bytes, sizes: Sequence[int]) -> list[bytes]:
    pieces = []
    at = 0
    for size in sizes:
        pieces.append(stream[at : at + size])
        at += size
    return pieces


@pytest.fixture(scope="module", params=LOOPS)
def both(request: pytest.FixtureRequest) -> Any:
    loop = LOOPS[request.param]()
    try:
        with Both(loop) as made:
            yield made
    finally:
        loop.close()


@pytest.mark.parametrize("name", PIECES)
def test_one_request_between_polls(both: Both, name: str) -> None:
    """After a poll that took the connection over, and before the next one; in one segment, and one by one."""
    both.compare([POLL + PIECES[name] + POLL])
    both.compare([POLL, PIECES[name], sent(b'["last"]'), POLL])


@pytest.mark.parametrize("name", PIECES)
def test_one_request_at_first(both: Both, name: str) -> None:
    """On a connection that nobody has read from."""
    both.compare([PIECES[name]])
    both.compare([PIECES[name] + POLL])
    both.compare([PIECES[name], POLL, sent(b'["last"]')], ONE_BY_ONE)


@pytest.mark.parametrize("name", [name for name, piece in PIECES.items() if len(piece) < 400])
def test_one_request_byte_by_byte(both: Both, name: str) -> None:
    both.compare([POLL, *(bytes([byte]) for byte in PIECES[name]), POLL])


@example(names=["chunked, too long", "long head"], cuts=[])
@given(
    names=st.lists(st.sampled_from(sorted(PIECES)), min_size=1, max_size=6),
    cuts=st.lists(st.floats(0, 1, exclude_max=True), max_size=8),
)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_any_requests_split_anywhere(both: Both, names: list[str], cuts: list[float]) -> None:
    stream = b"".join(PIECES[name] for name in names)
    places = sorted({0, len(stream), *(int(at * len(stream)) for at in cuts)})
    both.compare([stream[start:end] for start, end in pairwise(places)])


#: A poll of a session that has ended is answered at once, each time the same.
AGAIN = b"POST /s/000/SID/xhr?t=a1 HTTP/1.1\r\n" + HOST + b"Accept: */*\r\n" + END
OTHERS = {
    "the same": AGAIN,
    "another stamp": AGAIN.replace(b"a1", b"a2"),
    "a longer stamp": AGAIN.replace(b"a1", b"a.2_3-4"),
    "no stamp": AGAIN.replace(b"?t=a1", b""),
    "an empty stamp": AGAIN.replace(b"a1", b""),
    "too long a stamp": AGAIN.replace(b"a1", b"a" * 33),
    "more in the query": AGAIN.replace(b"a1", b"a1&c=d"),
    "a stamp with a space": AGAIN.replace(b"a1", b"a 1"),
    "a stamp with an escape": AGAIN.replace(b"a1", b"a%201"),
    "a stamp with a line break": AGAIN.replace(b"a1", b"a\r\n1"),
    "a stamp that ends the head": AGAIN.replace(b"a1", b"a1 HTTP/1.1\r\n" + HOST + END),
    "a header less": AGAIN.replace(b"Accept: */*\r\n", b""),
    "another header": AGAIN.replace(b"*/*", b"*/a"),
    "a length": AGAIN.replace(b"Accept: */*", b"Content-Length:2") + b"ab",
    "another origin": AGAIN.replace(b"Accept: */*", b"Origin: http://evil.example"),
    "another host": AGAIN.replace(b"lanes", b"other"),
    "another session": AGAIN.replace(b"SID", b"xyz"),
    "another transport": AGAIN.replace(b"/xhr", b"/xhr_streaming"),
    "another method": AGAIN.replace(b"POST", b"GET"),
    "another version": AGAIN.replace(b"/1.1", b"/1.0"),
    "a bare LF": AGAIN.replace(b"\r\n", b"\n", 1),
    "two in one piece": AGAIN * 2,
    "one and a half": AGAIN + AGAIN[:9],
    "the application's": OWN + END,
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_poll_that_comes_again_or_nearly_does(both: Both, name: str) -> None:
    """What was found about a poll is used for the next one only where that is the same."""
    for first in (AGAIN, AGAIN.replace(b"?t=a1", b"")):
        start = [POLL, sent(b'["bye"]'), first, first]
        both.compare([*start, OTHERS[name], first, first], ONE_BY_ONE)
        both.compare([*start, *(bytes([byte]) for byte in OTHERS[name]), first])
        both.compare([*start, OTHERS[name] + first[:20], first[20:], first], ONE_BY_ONE)


def test_a_body_that_is_a_poll_to_the_byte(both: Both) -> None:
    head = SEND + b"Content-Length: %d\r\n\r\n" % len(AGAIN)
    for start in ([POLL, AGAIN], [POLL, sent(b'["bye"]'), AGAIN]):
        both.compare([*start, head, AGAIN, AGAIN], ONE_BY_ONE)
        both.compare([*start, AGAIN + head, AGAIN, AGAIN], ONE_BY_ONE)


@pytest.mark.parametrize("body", [b"x" * 5, OWN + END], ids=["junk", "a request"])
def test_a_poll_with_a_body_that_comes_again_has_it_again(both: Both, body: bytes) -> None:
    """Its head alone is the same to the byte, and what follows is its body and never another request."""
    whole = sent(body, AGAIN.removesuffix(END))
    head = whole.removesuffix(body)
    for start in ([POLL], [POLL, sent(b'["bye"]')]):
        both.compare([*start, whole, head, body, POLL], ONE_BY_ONE)


def test_a_stamp_is_in_the_query_and_nowhere_else(both: Both) -> None:
    path = AGAIN.replace(b"SID", b"a&t=5&b").replace(b"?t=a1", b"")
    send = sent(b'["bye"]', SEND.replace(b"SID", b"a&t=5&b"))
    both.compare([path, send, path, path, path.replace(b"t=5", b"t=6"), path], ONE_BY_ONE)


@given(noise=st.binary(max_size=200), name=st.sampled_from(sorted(PIECES)), at=st.floats(0, 1))
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_any_bytes_in_the_middle_of_a_request(both: Both, noise: bytes, name: str, at: float) -> None:
    piece = PIECES[name]
    middle = int(at * len(piece))
    both.compare([POLL, piece[:middle] + noise, piece[middle:]])
    both.compare([piece[:middle] + noise + piece[middle:]])
