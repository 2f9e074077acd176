"""What the public test suites of Engine.IO 3 and 4 ask of a server, with their intervals, in real time.

Runs against any server with those endpoints (support/interop.py) and must not know the server's code.  Nothing here
waits for time; what takes its time is waited for, and then must not have come too early.
"""

from __future__ import annotations

import asyncio
import base64
import time
from typing import Any

import pytest

from support.interop_engine import EngineClient, MakeClient
from support.rawhttp import BINARY, HandshakeRefused

pytest_plugins = ["support.interop"]

PING_INTERVAL_S = 0.3
PING_TIMEOUT_S = 1.0
# Clocks of two processes, and what a timer of either may be early.
TOLERANCE_S = 0.02
MAX_PAYLOAD_BYTES = 1_000_000
FACTS = {"pingInterval": 300, "pingTimeout": 1000}
MOUNTS = ("/engine.io/", "/socket.io/")

both_versions = pytest.mark.parametrize("version", [3, 4])
both_mounts = pytest.mark.parametrize("mount", MOUNTS)
bad_queries = pytest.mark.parametrize(
    "query",
    ["transport={}", "EIO=abc&transport={}", "EIO=5&transport={}", "EIO=4", "EIO=3", "EIO=4&transport=abc"],
)


def facts(version: int, upgrades: list[str]) -> dict[str, Any]:
    told = {**FACTS, "upgrades": upgrades}
    return {**told, "maxPayload": MAX_PAYLOAD_BYTES} if version == 4 else told


def text_only(version: int) -> str:
    return "&b64=1" if version == 3 else ""


async def upgraded(client: EngineClient) -> Any:
    """The client on a WebSocket, where it was on polling."""
    socket = await client.websocket(["2probe"])
    assert await socket.recv_text() == "3probe"
    await socket.send_text("5")
    return socket


async def message_of(socket: Any) -> str:
    """The next message; pings of the server are answered on the way."""
    while (frame := await socket.recv_text()) == "2":
        await socket.send_text("3")
    return str(frame)


# --- handshake --------------------------------------------------------------------------------------------------------


@both_mounts
@both_versions
async def test_handshake_by_polling(engine: MakeClient, version: int, mount: str) -> None:
    told = await engine(version, mount).open()
    assert isinstance(told.pop("sid"), str)
    assert told == facts(version, ["websocket"])


@both_mounts
@both_versions
async def test_handshake_by_websocket(engine: MakeClient, version: int, mount: str) -> None:
    _, told = await engine(version, mount).open_websocket()
    assert isinstance(told.pop("sid"), str)
    assert told == facts(version, [])


@both_mounts
@bad_queries
async def test_bad_queries(engine: MakeClient, mount: str, query: str) -> None:
    client = engine()
    client.url = lambda transport="polling": f"{mount}?{query.format(transport)}"  # type: ignore[method-assign]
    assert (await client.request("GET")).status == 400
    with pytest.raises(HandshakeRefused) as raised:
        await client.websocket()
    assert raised.value.response.status == 400


@both_mounts
@both_versions
@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_bad_methods(engine: MakeClient, version: int, mount: str, method: str) -> None:
    assert (await engine(version, mount).request(method)).status == 400


# --- messages ---------------------------------------------------------------------------------------------------------


@both_versions
@pytest.mark.parametrize("count", [1, 3])
async def test_text_by_polling(engine: MakeClient, version: int, count: int) -> None:
    client = engine(version)
    await client.open()
    messages = [f"4hello {number}" for number in range(count)]
    await client.send(*messages)
    assert await client.receive() == messages


@both_versions
async def test_text_and_binary_by_polling(engine: MakeClient, version: int) -> None:
    client = engine(version, query=text_only(version))
    await client.open()
    mark = "b4" if version == 3 else "b"
    messages = ["4hello", mark + base64.b64encode(b"\1\2\3\4").decode()]
    await client.send(*messages)
    assert await client.receive() == messages


async def test_bytes_by_polling(engine: MakeClient) -> None:
    client = engine(3)
    await client.open()
    await client.send("4hello", "b4AQIDBA==")
    answer = await client.poll()
    assert answer.headers["Content-Type"] == "application/octet-stream"
    # As text or binary, the length in digits, a mark, the packet.
    assert answer.body == b"\0\6\xff4hello" + b"\1\5\xff\4\1\2\3\4"


@both_versions
async def test_an_invalid_payload_ends_the_session(engine: MakeClient, version: int) -> None:
    client = engine(version)
    await client.open()
    assert (await client.request("POST", b"abc")).status == 400
    assert (await client.poll()).status == 400


@both_versions
async def test_two_polls_end_the_session(engine: MakeClient, version: int) -> None:
    client = engine(version)
    await client.open()
    first = await client.wait()
    assert (await client.poll()).status == 400
    assert await client.waited(first) == ["1"]
    assert (await client.poll()).status == 400


@both_versions
async def test_websocket(engine: MakeClient, version: int) -> None:
    socket, _ = await engine(version).open_websocket()
    await socket.send_text("4hello")
    assert await socket.recv_text() == "4hello"
    data = b"\4\1\2\3" if version == 3 else b"\1\2\3"
    await socket.send_frame(BINARY, data)
    assert await socket.recv() == (BINARY, data)
    await socket.send_text("abc")
    await socket.expect_close()


# --- heartbeat --------------------------------------------------------------------------------------------------------


async def test_pings_by_polling(engine: MakeClient) -> None:
    begun = time.monotonic()  # before the server begins to count
    client = engine()
    await client.open()
    for number in (1, 2, 3):
        assert await client.receive() == ["2"]
        assert time.monotonic() - begun > number * PING_INTERVAL_S - TOLERANCE_S
        await client.send("3")


async def test_pings_by_websocket(engine: MakeClient) -> None:
    begun = time.monotonic()
    socket, _ = await engine().open_websocket()
    for number in (1, 2, 3):
        assert await socket.recv_text() == "2"
        assert time.monotonic() - begun > number * PING_INTERVAL_S - TOLERANCE_S
        await socket.send_text("3")


async def test_pings_of_the_client(engine: MakeClient) -> None:
    client = engine(3)
    await client.open()
    for _ in range(3):
        await client.send("2")
        assert await client.receive() == ["3"]
    socket, _ = await engine(3).open_websocket()
    for _ in range(3):
        await socket.send_text("2")
        assert await socket.recv_text() == "3"


@both_versions
async def test_silence_ends_the_session(engine: MakeClient, version: int) -> None:
    patience = PING_INTERVAL_S + PING_TIMEOUT_S

    async def by_polling() -> None:
        client = engine(version)
        begun = time.monotonic()
        await client.open()
        if version == 4:
            assert await client.receive() == ["2"]
        answer = await client.poll()
        assert (answer.status, client.packets(answer.text)) == (200, ["1"])
        assert time.monotonic() - begun > patience - TOLERANCE_S
        assert (await client.poll()).status == (await client.post("3")).status == 400

    async def by_websocket() -> None:
        begun = time.monotonic()
        socket, _ = await engine(version).open_websocket()
        await socket.expect_close()
        assert time.monotonic() - begun > patience - TOLERANCE_S

    await asyncio.gather(by_polling(), by_websocket())


# --- the end ----------------------------------------------------------------------------------------------------------


@both_versions
async def test_close_by_polling(engine: MakeClient, version: int) -> None:
    client = engine(version)
    await client.open()
    pending = await client.wait()
    await client.send("1")
    assert await client.waited(pending) == ["6"]
    assert (await client.poll()).status == 400


@both_mounts
@both_versions
async def test_close_by_websocket(engine: MakeClient, version: int, mount: str) -> None:
    socket, _ = await engine(version, mount).open_websocket()
    await socket.send_text("1")
    await socket.expect_close()


# --- upgrade ----------------------------------------------------------------------------------------------------------


@both_versions
async def test_upgrade(engine: MakeClient, version: int) -> None:
    client = engine(version)
    await client.open()
    socket = await client.websocket(["2probe"])
    assert await socket.recv_text() == "3probe"
    assert await client.receive() == ["6"]
    await socket.send_text("5")
    await socket.send_text("4hello")
    assert await message_of(socket) == "4hello"


@both_versions
async def test_an_upgraded_session_keeps_to_its_websocket(engine: MakeClient, version: int) -> None:
    client = engine(version)
    await client.open()
    # The server may see what was sent first only after what was sent last: so in one go, and answered.
    socket = await upgraded(client)
    await socket.send_text("4first")
    assert await message_of(socket) == "4first"
    assert (await client.poll()).status == (await client.post("4x")).status == 400
    second = await client.websocket()
    await second.expect_close()
    await socket.send_text("4hello")
    assert await message_of(socket) == "4hello"
