"""Every limit at its edge: what is just allowed passes, one more does not.

A limit without an edge test fails ``test_every_limit_has_an_edge``.  Such a test stands here, or in the test file of
what the limit belongs to, which then names it in a tuple ``EDGES_OF_LIMITS`` of its own.
"""

from __future__ import annotations

import ast
import asyncio
import json
import struct
from collections.abc import Awaitable, Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from polysock import Limits, SockJSRouter
from polysock.settings import SettingError
from polysock_transports.session import State
from support.clients import (
    Client,
    Recorder,
    endpoint,
    quiet,  # noqa: F401  # autouse: nothing here logs unannounced
    turns,
    until,
)
from support.clock import FakeClock
from support.rawhttp import BINARY, CONTINUATION, PING, TEXT, Connection, HandshakeRefused, encode_frame, request

Edge = Callable[[], Awaitable[None]]
EDGES: dict[str, Edge] = {}


def edge(test: Edge) -> Edge:
    """Register the edge test of the limit after which it is named."""
    EDGES[test.__name__] = test
    return test


def app() -> type[Recorder]:
    class App(Recorder):
        pass

    return App


def blocked() -> tuple[type[Recorder], asyncio.Event]:
    """An application whose first handler waits for the event."""
    release = asyncio.Event()

    class App(Recorder):
        async def on_message(self, message: str | bytes) -> None:
            self.messages.append(message)
            await release.wait()

    return App, release


async def raw_close_code(base: str, *frames: tuple[int, bytes, bool]) -> int | None:
    """What a raw WebSocket that sends *frames* is closed with; None where it echoes nothing and stays open."""
    async with Client(base, "rawwebsocket") as client:
        await client.open()
        assert client.socket is not None
        for opcode, payload, fin in frames:
            await client.socket.send_frame(opcode, payload, fin=fin)
        await client.socket.send_frame(PING, b"?")
        opcode, payload = await client.socket.recv()
        if payload == b"?":
            return None
        code: int = struct.unpack("!H", payload[:2])[0]
        return code


async def framed_close_code(base: str, text: str) -> int | None:
    async with Client(base, "websocket") as client:
        await client.open()
        assert client.socket is not None
        await client.socket.send_text(text)
        await client.socket.send_frame(PING, b"?")
        _, payload = await client.socket.recv()
        if payload == b"?":
            return None
        code: int = struct.unpack("!H", payload[:2])[0]
        return code


async def post(client: Client, payload: str) -> int:
    return await client.post(payload)


# --- what one client may send -----------------------------------------------------------------------------------------


@edge
async def max_message_bytes() -> None:
    # Bytes of UTF-8, not characters.
    fits, over = "\u00e9" * 5, "\u00e9" * 5 + "x"
    async with endpoint(app(), {"max_message_bytes": 10}) as (base, _), Client(base, "xhr") as client:
        await client.open()
        assert await client.send("short", fits) == 204
        assert await client.send("short", over) == 413
        assert await framed_close_code(base, json.dumps([fits])) is None
        assert await framed_close_code(base, json.dumps([over])) == 1009
        assert await raw_close_code(base, (TEXT, fits.encode(), True)) is None
        assert await raw_close_code(base, (TEXT, over.encode(), True)) == 1009
        assert await raw_close_code(base, (BINARY, b"x" * 10, True)) is None
        assert await raw_close_code(base, (BINARY, b"x" * 6, False), (CONTINUATION, b"x" * 5, True)) == 1009


@edge
async def max_payload_bytes() -> None:
    fits, over = json.dumps(["x" * 16]), json.dumps(["x" * 17])
    assert len(fits) == 20
    async with endpoint(app(), {"max_payload_bytes": 20}) as (base, _):
        async with Client(base, "xhr") as client:
            await client.open()
            assert await client.post(fits) == 204
            assert await client.post(over) == 413
            # A body that does not say how long it is.
            for body, status in ((fits, 204), (over, 413)):
                pieces = [body[:5].encode(), body[5:].encode()]
                assert (await request(base, "POST", f"{client.url}/xhr_send", body=pieces)).status == status
        async with Client(base, "jsonp") as client:
            await client.open()
            assert await client.post(fits) == 200
            assert await client.post(over) == 413
        assert await framed_close_code(base, fits) is None
        assert await framed_close_code(base, over) == 1009


@edge
async def max_payload_messages() -> None:
    async with endpoint(app(), {"max_payload_messages": 2}) as (base, _), Client(base, "xhr") as client:
        await client.open()
        assert await client.send("1", "2") == 204
        assert await client.send("1", "2", "3") == 413
        assert await framed_close_code(base, '["1","2"]') is None
        assert await framed_close_code(base, '["1","2","3"]') == 1009


@edge
async def max_message_fragments() -> None:
    async with endpoint(app(), {"max_message_fragments": 3}) as (base, _):
        start, more, last = (TEXT, b"a", False), (CONTINUATION, b"b", False), (CONTINUATION, b"c", True)
        assert await raw_close_code(base, start, more, last) is None
        assert await raw_close_code(base, start, more, more, last) == 1009


@edge
async def max_inbox_messages() -> None:
    application, release = blocked()
    async with endpoint(application, {"max_inbox_messages": 3}) as (base, _), Client(base, "xhr") as client:
        await client.open()
        assert await client.send("handled") == 204
        assert await client.send("1", "2") == 204
        third = asyncio.ensure_future(client.send("3"))
        core = application.made[0].session.core
        await until(lambda: len(core._inbox) == 3)
        await turns()
        assert not third.done()
        release.set()
        assert await third == 204


@edge
async def max_inbox_bytes() -> None:
    application, release = blocked()
    async with endpoint(application, {"max_inbox_bytes": 10}) as (base, _), Client(base, "xhr") as client:
        await client.open()
        assert await client.send("handled, so it does not count") == 204
        assert await client.send("x" * 9) == 204
        second = asyncio.ensure_future(client.send("x"))
        core = application.made[0].session.core
        await until(lambda: core._inbox_bytes == 10)
        await turns()
        assert not second.done()
        release.set()
        assert await second == 204


@edge
async def max_waiting_sends() -> None:
    application, release = blocked()
    settings = {"max_inbox_messages": 1, "max_inbox_bytes": 1_000, "max_waiting_sends": 1}
    async with endpoint(application, settings) as (base, _), Client(base, "xhr") as client:
        await client.open()
        assert await client.send("handled") == 204
        waiting = asyncio.ensure_future(client.send("waits"))
        core = application.made[0].session.core
        await until(lambda: core._room_waiters)
        assert await client.send("one too many") == 503
        release.set()
        assert await waiting == 204


# --- what may wait for one client -------------------------------------------------------------------------------------


@edge
async def queue_high_bytes() -> None:
    application = app()
    async with endpoint(application, {"queue_high_bytes": 10}) as (base, _), Client(base, "xhr") as client:
        await client.open()
        connection = application.made[0]
        connection.send("x" * 8)  # and two quotes
        assert connection.session.core.queued_bytes == 10
        await asyncio.wait_for(connection.drain(), 5)
        connection.send("")
        waiting = asyncio.ensure_future(connection.drain())
        await turns()
        assert not waiting.done()
        assert await client.message() == "x" * 8
        await asyncio.wait_for(waiting, 5)


@edge
async def queue_max_bytes() -> None:
    application = app()
    async with endpoint(application, {"queue_max_bytes": 10}) as (base, _), Client(base, "xhr") as client:
        await client.open()
        connection = application.made[0]
        assert connection.send("x" * 8)
        assert connection.session.core.is_open
        assert not connection.send("")
        assert (await client.goodbye())[0] == 4008


@edge
async def queue_max_messages() -> None:
    application = app()
    async with endpoint(application, {"queue_max_messages": 2}) as (base, _), Client(base, "xhr") as client:
        await client.open()
        connection = application.made[0]
        assert [connection.send("x") for _ in range(3)] == [True, True, False]
        assert (await client.goodbye())[0] == 4008


@edge
async def pipe_high_bytes() -> None:
    application = app()
    size = 100_000
    head = 10  # of a frame this long
    settings = {"pipe_high_bytes": size + head, "queue_max_bytes": 1_000_000_000}
    async with endpoint(application, settings) as (base, _), Client(base, "rawwebsocket") as client:
        await client.open()
        core = application.made[0].session.core
        transport = core._transport
        assert transport is not None
        for _ in range(1_000):
            application.made[0].send("x" * size)
            if transport._pipe.backlog:
                break
        assert transport._pipe.backlog == size + head
        assert transport.ready
        application.made[0].send("x")
        assert not transport.ready
        assert core.queued_messages == 0
        application.made[0].send("held back")
        assert core.queued_messages == 1
        while await client.message() != "held back":
            pass
        assert transport.ready


# --- how many clients -------------------------------------------------------------------------------------------------


async def _count(setting: str, status: int) -> None:
    async with endpoint(app(), {setting: 2}) as (base, _), Client(base, "xhr") as one, Client(base, "xhr") as two:
        await one.open()
        await two.open()
        assert (await request(base, "POST", "/s/0/third/xhr")).status == status
        with pytest.raises(HandshakeRefused) as raised:
            await Client(base, "rawwebsocket").open()
        assert raised.value.response.status == status


@edge
async def max_sessions() -> None:
    await _count("max_sessions", 503)


@edge
async def max_sessions_per_address() -> None:
    await _count("max_sessions_per_address", 429)


# --- time -------------------------------------------------------------------------------------------------------------


@edge
async def heartbeat_delay_s() -> None:
    application, clock = app(), FakeClock()
    settings = {"heartbeat_delay_s": 7, "sweep_interval_s": 0.001}
    async with endpoint(application, settings, clock=clock) as (base, _), Client(base, "xhr") as client:
        await client.open()
        await client.attach()
        core = application.made[0].session.core
        await until(lambda: core.attached)
        clock.advance(6.99)
        assert core.attached
        clock.advance(0.02)
        assert not core.attached
        assert await client.frame() == "h"


@edge
async def heartbeat_timeout_s() -> None:
    application, clock = app(), FakeClock()
    settings = {"heartbeat_delay_s": 7, "heartbeat_timeout_s": 3, "sweep_interval_s": 0.001}
    async with endpoint(application, settings, clock=clock) as (base, _), Client(base, "rawwebsocket") as client:
        await client.open()
        clock.advance(9.99)
        assert application.made[0].closes == []
        clock.advance(0.02)
        assert len(application.made[0].closes) == 1


@edge
async def disconnect_delay_s() -> None:
    application, clock = app(), FakeClock()
    settings = {"disconnect_delay_s": 2, "sweep_interval_s": 0.001}
    async with endpoint(application, settings, clock=clock) as (base, _), Client(base, "xhr") as client:
        await client.open()
        clock.advance(1.99)
        assert application.made[0].closes == []
        clock.advance(0.02)
        assert len(application.made[0].closes) == 1


@edge
async def close_timeout_s() -> None:
    application, clock = app(), FakeClock()
    settings = {"close_timeout_s": 2, "sweep_interval_s": 0.001}
    async with endpoint(application, settings, clock=clock) as (base, _), Client(base, "rawwebsocket") as client:
        await client.open()
        core = application.made[0].session.core
        application.made[0].close()
        clock.advance(1.99)
        assert core.state is State.CLOSING
        clock.advance(0.02)
        assert core.state is State.CLOSED


@edge
async def body_timeout_s() -> None:
    # Tornado's own timer, so real time: the end is waited for, and a body that is whole is not cut.
    async with endpoint(app(), {"body_timeout_s": 0.2}) as (base, _), Client(base, "xhr") as client:
        await client.open()
        async with await Connection.open(base) as connection:
            head = f"POST {client.url}/xhr_send HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\n"
            await connection.write(head.encode() + b'["a')
            assert await connection.at_eof()


@edge
async def write_timeout_s() -> None:
    # The kernel's timer, so real time again.
    application = app()
    settings = {"write_timeout_s": 0.3, "pipe_high_bytes": 10_000, "queue_max_bytes": 1_000_000_000}
    async with endpoint(application, settings) as (base, _), Client(base, "rawwebsocket") as client:
        await client.open()
        # More than the kernels of both sides and the client's stream take together.
        for _ in range(200):
            application.made[0].send("x" * 100_000)
        await until(lambda: application.made[0].closes)


@edge
async def sweep_interval_s() -> None:
    application, clock = app(), FakeClock()
    settings = {"disconnect_delay_s": 2, "sweep_interval_s": 10}
    async with endpoint(application, settings, clock=clock) as (base, _), Client(base, "xhr") as client:
        await client.open()
        clock.advance(9.99)
        assert application.made[0].closes == []
        clock.advance(0.02)
        assert len(application.made[0].closes) == 1


# --- sizes on the wire ------------------------------------------------------------------------------------------------


@edge
async def response_limit_bytes() -> None:
    frame = b'o\na["12345"]\n'
    for limit, ends in ((len(frame), True), (len(frame) + 1, False)):
        application = app()
        async with (
            endpoint(application, {"response_limit_bytes": limit}) as (base, _),
            Client(base, "xhr_streaming") as client,
        ):
            await client.open()
            core = application.made[0].session.core
            application.made[0].send("12345")
            assert await client.frame() == 'a["12345"]'
            assert core.attached is not ends
            if ends:
                await client.response_end()


@edge
async def max_callback_chars() -> None:
    async with endpoint(app(), {"max_callback_chars": 5}) as (base, _):
        for transport in ("jsonp", "htmlfile"):
            over = await request(base, "GET", f"/s/0/{transport}1/{transport}?c=abcdef")
            assert over.status == 500
        assert (await request(base, "GET", "/s/0/jsonp2/jsonp?c=abcde")).body == b'/**/abcde("o");\r\n'


@edge
async def max_session_id_chars() -> None:
    async with endpoint(app(), {"max_session_id_chars": 5}) as (base, _):
        assert (await request(base, "POST", "/s/0/abcde/xhr")).status == 200
        assert (await request(base, "POST", "/s/0/abcdef/xhr")).status == 404


@edge
async def read_chunk_bytes() -> None:
    frame = encode_frame(TEXT, b"x" * 10)
    assert len(frame) == 16
    for chunk, frames in ((64, 4), (80, 5)):
        application, release = blocked()
        async with (
            endpoint(application, {"read_chunk_bytes": chunk}) as (base, _),
            Client(base, "rawwebsocket") as client,
        ):
            await client.open()
            assert client.socket is not None
            await client.socket.connection.write(frame * 10)
            await until(lambda application=application: application.made[0].messages)
            await turns()
            # One read is handled: its first message, and the rest of it waits.  No more is read.
            assert len(application.made[0].session.core._inbox) == frames - 1
            release.set()
            await until(lambda application=application: len(application.made[0].messages) == 10)


# --- the table --------------------------------------------------------------------------------------------------------

NAMES = [field.name for field in fields(Limits)]


def edges_elsewhere() -> set[str]:
    """What other test files say of themselves."""
    found: set[str] = set()
    for path in Path(__file__).parent.glob("test_*.py"):
        text = path.read_text(encoding="utf-8")
        if path != Path(__file__) and "EDGES_OF_LIMITS" in text:
            for node in ast.parse(text).body:
                if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "EDGES_OF_LIMITS":
                    found |= set(ast.literal_eval(node.value))
    return found


@pytest.mark.parametrize("name", sorted(EDGES))
async def test_edge(name: str) -> None:
    await EDGES[name]()


def test_every_limit_has_an_edge() -> None:
    tested = set(EDGES) | edges_elsewhere()
    assert not set(NAMES) - tested, "limits without an edge test"
    assert not tested - set(NAMES), "edge tests of limits that are no more"


@pytest.mark.parametrize("name", NAMES)
def test_every_limit_is_a_setting(name: str) -> None:
    router = SockJSRouter(Recorder, "/s", {name: 12345})
    assert getattr(router.options.limits, name) == 12345
    assert router._gateway.limits is router.options.limits
    with_limits = SockJSRouter(Recorder, "/s", {"limits": Limits(**{name: 12345}), "disabled_transports": ["jsonp"]})
    assert with_limits.options.limits == router.options.limits


@pytest.mark.parametrize("value", [0, -1, "5", None, True, float("nan"), [1]], ids=repr)
@pytest.mark.parametrize("name", NAMES)
def test_bad_values_name_the_setting(name: str, value: Any) -> None:
    with pytest.raises(SettingError, match=name):
        SockJSRouter(Recorder, "/s", {name: value})


@pytest.mark.parametrize("name", [name for name in NAMES if not name.endswith("_s")])
@pytest.mark.parametrize("value", [1.5, float("inf")])
def test_counts_and_bytes_are_whole(name: str, value: float) -> None:
    with pytest.raises(SettingError, match=name):
        SockJSRouter(Recorder, "/s", {name: value})


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith("_s")])
def test_delays_may_be_fractions(name: str) -> None:
    assert getattr(SockJSRouter(Recorder, "/s", {name: 0.25}).options.limits, name) == 0.25


@pytest.mark.parametrize("name", NAMES)
def test_every_limit_carries_its_unit(name: str) -> None:
    assert name.endswith(("_bytes", "_messages", "_chars", "_s")) or name.startswith("max_")  # the latter are counts
