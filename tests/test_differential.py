"""The same inputs to sockjs-tornado 1.0.7 and to us, byte for byte, wherever both are right.

Its own router is served here, in the same process, and nowhere else in this project.  Where it is known to be wrong the
test leaves that part out, and says so.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest
from tornado.web import Application

from polysock import SockJSRouter
from support.clients import CALLBACK, quiet, turns
from support.rawhttp import (
    CLOSE,
    TEXT,
    Connection,
    HandshakeRefused,
    Response,
    WireError,
    WireSocket,
    parse_close,
    request,
)
from support.serving import serving_application

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import sockjs.tornado
    from sockjs.tornado import SockJSConnection

__all__ = ["quiet"]

T = TypeVar("T")
SETTINGS = {
    "disconnect_delay": 5,
    "heartbeat_delay": 25,
    "response_limit": 4096,
    "verify_ip": False,
    "jsessionid": True,
    "sockjs_url": "https://a.example/x.js",
    "websocket_allow_origin": "*",
}
# (U+007F is left out: it needs no escape in JSON, but sockjs-tornado writes one.)
TEXTS = [
    "hello",
    "",
    '"\\/\b\f\n\r\t',
    "caf\u00e9 \u4e2d\u6587",
    "\U0001f600 beyond the BMP",
    "\u200c\u200f\u2028\u2029\u2060\u206f\ufff0\uffff",
    "\x00\x01\x1f",
    "x" * 3000,
]


class Echo(SockJSConnection):  # type: ignore[misc]
    def on_message(self, message: str) -> None:
        self.send(message)


class Closing(SockJSConnection):  # type: ignore[misc]
    def on_message(self, message: str) -> None:
        self.close()


@dataclass
class Both:
    """The two servers; ``same`` runs one script against each."""

    theirs: str
    ours: str

    async def same(self, script: Callable[[str], Awaitable[T]]) -> T:
        theirs, ours = await script(self.theirs), await script(self.ours)
        assert ours == theirs
        return ours


@asynccontextmanager
async def serving_routers(kind: Any) -> AsyncIterator[str]:
    routers = [kind(Echo, "/echo", SETTINGS), kind(Closing, "/close", SETTINGS)]
    urls = [url for router in routers for url in router.urls]
    async with serving_application(Application(urls, log_function=lambda handler: None)) as base:
        yield base
        for router in routers:
            if kind is not SockJSRouter:
                router._sessions_cleanup.stop()


@pytest.fixture
async def both() -> AsyncIterator[Both]:
    async with serving_routers(sockjs.tornado.SockJSRouter) as theirs, serving_routers(SockJSRouter) as ours:
        yield Both(theirs, ours)
        await turns()


def content(answer: Response) -> tuple[int, bytes, str | None]:
    """What a client looks at: status, body and the kind of it (its parameters are written in upper or lower case)."""
    kind = answer.headers.get("Content-Type")
    return answer.status, answer.body, kind.partition(";")[0].lower() if kind and answer.body else None


async def poll(base: str, url: str, **options: Any) -> tuple[int, bytes, str | None]:
    return content(await request(base, "POST", f"{url}/xhr", **options))


async def send(base: str, url: str, *messages: str) -> int:
    return (await request(base, "POST", f"{url}/xhr_send", body=json.dumps(messages).encode())).status


async def test_greeting(both: Both) -> None:
    async def script(base: str) -> Any:
        return [content(await request(base, "GET", path)) for path in ("/echo", "/echo/")]

    assert (await both.same(script))[0] == (200, b"Welcome to SockJS!\n", "text/plain")


async def test_info(both: Both) -> None:
    async def script(base: str) -> Any:
        answer = await request(base, "GET", "/echo/info")
        facts = json.loads(answer.body)
        assert isinstance(facts.pop("entropy"), int)
        return answer.status, facts

    await both.same(script)


async def test_iframe_page_is_cached_the_same_way(both: Both) -> None:
    async def script(base: str) -> Any:
        page = await request(base, "GET", "/echo/iframe-1.2.html")
        again = await request(base, "GET", "/echo/iframe.html", headers=[("If-None-Match", page.headers["ETag"])])
        parts = (
            b'<script src="https://a.example/x.js">',
            b"SockJS.bootstrap_iframe();",
            b"document.domain = document.domain;",
        )
        caching = sorted(page.headers["Cache-Control"].split(", "))
        return page.status, [part in page.body for part in parts], again.status, again.body, caching

    assert (await both.same(script))[1:4] == ([True] * 3, 304, b"")


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: ascii(text[:12]))
async def test_polling_echo(both: Both, text: str) -> None:
    async def script(base: str) -> Any:
        url = "/echo/000/polling"
        return [await poll(base, url), await send(base, url, text), await poll(base, url)]

    opened, status, answer = await both.same(script)
    assert opened == (200, b"o\n", "application/javascript")
    assert status == 204
    assert json.loads(answer[1][1:]) == [text]


async def test_messages_that_wait_come_in_one_frame(both: Both) -> None:
    async def script(base: str) -> Any:
        url = "/echo/000/several"
        await poll(base, url)
        return [await send(base, url, "a", "b"), await send(base, url, "c"), await poll(base, url)]

    assert (await both.same(script))[2][1] == b'a["a","b","c"]\n'


async def test_unknown_session(both: Both) -> None:
    async def script(base: str) -> Any:
        # The text differs; the status is what clients go by.
        return [
            (await request(base, "POST", f"/echo/000/nobody/{path}", body=b'["x"]')).status
            for path in ("xhr_send", "jsonp_send")
        ]

    assert await both.same(script) == [404, 404]


@pytest.mark.parametrize(("body", "text"), [(b"", b"Payload expected."), (b'["x', b"Broken JSON encoding.")])
async def test_bad_payload(both: Both, body: bytes, text: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async def script(base: str) -> Any:
        url = "/echo/000/bad"
        await poll(base, url)
        answer = await request(base, "POST", f"{url}/xhr_send", body=body)
        return answer.status, answer.body, await send(base, url, "fine"), await poll(base, url)

    assert (await both.same(script))[:3] == (500, text, 204)
    caplog.clear()  # it logs such payloads


async def test_close_is_repeated(both: Both) -> None:
    async def script(base: str) -> Any:
        url = "/close/000/closing"
        # (Closing inside on_open breaks sockjs-tornado's polls on today's Tornado.)
        return [await poll(base, url), await send(base, url, "x"), await poll(base, url), await poll(base, url)]

    opened, status, *answers = await both.same(script)
    assert (opened[1], status) == (b"o\n", 204)
    assert [body for _, body, _ in answers] == [b'c[3000,"Go away!"]\n'] * 2


async def test_second_poll_is_turned_away(both: Both) -> None:
    async def script(base: str) -> Any:
        url = "/echo/000/twice"
        await poll(base, url)
        async with await Connection.open(base) as waiting:
            await waiting.send("POST", f"{url}/xhr")
            await turns(50)
            return await poll(base, url)

    assert (await both.same(script))[1] == b'c[2010,"Another connection still open"]\n'


async def streamed(base: str, transport: str, url: str, messages: list[str], end: bytes) -> bytes:
    """What a stream carries up to *end*."""
    method = "POST" if transport == "xhr_streaming" else "GET"
    async with await Connection.open(base) as connection:
        query = f"?c={CALLBACK}" if transport == "htmlfile" else ""
        assert (await connection.start(method, f"{url}/{transport}{query}")).status == 200
        got = b""
        # The open frame comes in a chunk of its own, or with what is before it.
        while not got.endswith((b"o\n", b"data: o\r\n\r\n", b'"o");\n</script>\r\n')):
            got += await connection.read_chunk()
        for message in messages:
            assert await send(base, url, message) == 204
        while end not in got:
            piece = await connection.read_chunk()
            if not piece:
                raise WireError(f"no {end!r} in {got[-300:]!r}")
            got += piece
        return got


async def test_xhr_streaming(both: Both) -> None:
    async def script(base: str) -> bytes:
        return await streamed(base, "xhr_streaming", "/echo/000/stream", TEXTS[:-1], b"\\u0001\\u001f")

    got = await both.same(script)
    assert got.startswith(b"h" * 2048 + b"\no\na[")


async def test_eventsource(both: Both) -> None:
    async def script(base: str) -> bytes:
        # No percent sign: sockjs-tornado sends it bare, which sockjs-client 1.x cannot read.
        return await streamed(base, "eventsource", "/echo/000/events", TEXTS[:-1], b"\\u0001\\u001f")

    got = await both.same(script)
    assert got.startswith(b"\r\ndata: o\r\n\r\ndata: a[")


async def test_htmlfile_frames(both: Both) -> None:
    async def script(base: str) -> bytes:
        got = await streamed(base, "htmlfile", "/echo/000/html", ["hello", "caf\u00e9"], b"\\\\u00e9")
        # The head differs: sockjs-tornado strips "_" and "." from the callback, so that no client finds it.
        return got[got.index(b"<script>\np(") :]

    assert await both.same(script) == (
        b'<script>\np("o");\n</script>\r\n'
        b'<script>\np("a[\\"hello\\"]");\n</script>\r\n'
        b'<script>\np("a[\\"caf\\\\u00e9\\"]");\n</script>\r\n'
    )


@pytest.mark.parametrize("transport", ["xhr_streaming", "eventsource"])
async def test_a_closing_stream_ends(both: Both, transport: str) -> None:
    async def script(base: str) -> bytes:
        method, url = "POST" if transport == "xhr_streaming" else "GET", f"/close/000/{transport}"
        async with await Connection.open(base) as connection:
            await connection.start(method, f"{url}/{transport}")
            opened = await connection.read_until(b"o\n" if transport == "xhr_streaming" else b"o\r\n\r\n")
            assert await send(base, url, "x") == 204
            return opened + await connection.read_rest()

    assert (await both.same(script)).rstrip().endswith(b'c[3000,"Go away!"]')


async def test_a_stream_ends_after_its_limit_and_the_next_goes_on(both: Both) -> None:
    async def script(base: str) -> Any:
        url = "/echo/000/limit"
        async with await Connection.open(base) as connection:
            await connection.start("POST", f"{url}/xhr_streaming")
            await connection.read_until(b"\no\n")
            for _ in range(2):
                await send(base, url, "x" * 2048)
            first = await connection.read_rest()
            await send(base, url, "between")
            await connection.start("POST", f"{url}/xhr_streaming")
            await connection.read_chunk()
            return first, await connection.read_until(b"\n")

    first, second = await both.same(script)
    assert first.count(b"\n") == 2
    assert second == b'a["between"]\n'


async def test_jsonp(both: Both) -> None:
    async def script(base: str) -> Any:
        url = "/echo/000/jsonp"
        form = [("Content-Type", "application/x-www-form-urlencoded")]
        answers = []
        answers.append((await request(base, "GET", f"{url}/jsonp?c=callback")).body)
        answers.append(content(await request(base, "POST", f"{url}/jsonp_send", headers=form, body=b"d=%5B%22x%22%5D")))
        answers.append((await request(base, "GET", f"{url}/jsonp?c=callback")).body)
        answers.append(content(await request(base, "POST", f"{url}/jsonp_send", body=b'["%61bc"]')))
        answers.append((await request(base, "GET", f"{url}/jsonp?c=callback")).body)
        # A leading comment is what later releases of the protocol add against reflected content.
        return [answer.removeprefix(b"/**/") if isinstance(answer, bytes) else answer for answer in answers]

    answers = await both.same(script)
    assert answers == [
        b'callback("o");\r\n',
        (200, b"ok", "text/plain"),
        b'callback("a[\\"x\\"]");\r\n',
        (200, b"ok", "text/plain"),
        b'callback("a[\\"%61bc\\"]");\r\n',
    ]


async def test_callback_missing(both: Both) -> None:
    async def script(base: str) -> Any:
        return [
            (answer.status, answer.body.strip())
            for answer in [await request(base, "GET", f"/echo/000/no/{name}") for name in ("jsonp", "htmlfile")]
        ]

    assert await both.same(script) == [(500, b'"callback" parameter required')] * 2


@pytest.mark.parametrize("path", ["xhr", "xhr_send", "xhr_streaming"])
async def test_preflight(both: Both, path: str) -> None:
    async def script(base: str) -> Any:
        answer = await request(base, "OPTIONS", f"/echo/000/pre/{path}", headers=[("Origin", "http://a.example")])
        return (
            answer.status,
            answer.body,
            answer.headers["Access-Control-Allow-Methods"],
            answer.headers["Access-Control-Max-Age"],
            "public" in answer.headers["Cache-Control"],
        )

    await both.same(script)


async def test_framed_websocket(both: Both) -> None:
    async def script(base: str) -> Any:
        async with await WireSocket.connect(base, "/echo/000/socket/websocket") as socket:
            got = [await socket.recv()]
            for text in TEXTS:
                await socket.send_text(json.dumps([text]))
                got.append(await socket.recv())
            await socket.send_text(json.dumps(["a", "b"]))
            got += [await socket.recv(), await socket.recv()]
            await socket.send_text("")  # empty frames are passed over
            await socket.send_text(json.dumps("bare"))
            got.append(await socket.recv())
            return got

    got = await both.same(script)
    assert got[:2] == [(TEXT, b"o"), (TEXT, b'a["hello"]')]
    assert got[-3:] == [(TEXT, b'a["a"]'), (TEXT, b'a["b"]'), (TEXT, b'a["bare"]')]


async def test_framed_websocket_closes(both: Both) -> None:
    async def script(base: str) -> Any:
        async with await WireSocket.connect(base, "/close/000/socket/websocket") as socket:
            frames = [await socket.recv()]
            await socket.send_text('["x"]')
            frames.append(await socket.recv())
            # Then a close frame; that of sockjs-tornado carries no code.
            opcode, payload = await socket.recv()
            assert opcode == CLOSE
            assert parse_close(payload)[0] in (1005, 3000)
            return frames

    assert await both.same(script) == [(TEXT, b"o"), (TEXT, b'c[3000,"Go away!"]')]


async def test_raw_websocket(both: Both) -> None:
    async def script(base: str) -> Any:
        async with await WireSocket.connect(base, "/echo/websocket") as socket:
            got = []
            for text in filter(None, TEXTS):  # sockjs-tornado drops empty messages
                await socket.send_text(text)
                got.append(await socket.recv())
            return got

    assert await both.same(script) == [(TEXT, text.encode()) for text in TEXTS if text]


async def test_what_is_no_websocket_handshake_is_refused(both: Both) -> None:
    async def script(base: str) -> Any:
        statuses = []
        for headers in ([("Upgrade", "other")], [("Connection", "close")]):
            with pytest.raises(HandshakeRefused) as refused:
                await WireSocket.connect(base, "/echo/000/a/websocket", headers)
            statuses.append(refused.value.response.status)
        return statuses

    assert await both.same(script) == [400, 400]


@pytest.mark.parametrize("path", ["/echo/a.b/c/xhr", "/echo/a/b.c/xhr", "/echo//c/xhr", "/echo/a//xhr", "/echo/a/b/no"])
async def test_what_is_no_address_of_a_session_is_404(both: Both, path: str) -> None:
    async def script(base: str) -> int:
        return (await request(base, "POST", path)).status

    assert await both.same(script) == 404
