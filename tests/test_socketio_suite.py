"""What the public test suite of Socket.IO 5 asks of a server, with its intervals, in real time.

Runs against any server with those endpoints (support/interop.py) and must not know the server's code.  The suite's
questions about Engine.IO, which it repeats, are in test_engineio_suite.py.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from support.interop_engine import EngineClient
from support.rawhttp import BINARY, CLOSE, WireSocket

pytest_plugins = ["support.interop"]

CONNECT_TIMEOUT_S = 1.0
TOLERANCE_S = 0.02
ONE, TWO = '{"_placeholder":true,"num":0}', '{"_placeholder":true,"num":1}'


class Wire:
    """A WebSocket that answers the server's pings by itself."""

    def __init__(self, socket: WireSocket) -> None:
        self.socket = socket

    async def send(self, *frames: str | bytes) -> None:
        for frame in frames:
            if isinstance(frame, str):
                await self.socket.send_text(frame)
            else:
                await self.socket.send_frame(BINARY, frame)

    async def receive(self) -> str | bytes:
        while True:
            opcode, payload = await self.socket.recv()
            if opcode == BINARY:
                return payload
            if payload != b"2":
                return payload.decode()
            await self.socket.send_text("3")

    async def welcome(self, head: str) -> None:
        """The answer to a connect."""
        frame = await self.receive()
        assert isinstance(frame, str)
        assert frame.startswith(head)
        told = json.loads(frame.removeprefix(head))
        assert list(told) == ["sid"]
        assert isinstance(told["sid"], str)


@asynccontextmanager
async def client(base: str) -> AsyncIterator[Wire]:
    """A client that is in no namespace yet."""
    async with EngineClient(base, path="/socket.io/") as opened:
        socket, _ = await opened.open_websocket()
        yield Wire(socket)


@asynccontextmanager
async def connected(base: str) -> AsyncIterator[Wire]:
    async with client(base) as wire:
        await wire.send("40")
        await wire.welcome("40")
        assert await wire.receive() == '42["auth",{}]'
        yield wire


@pytest.mark.parametrize("auth", ["", '{"token":"123"}'])
@pytest.mark.parametrize("namespace", ["", "/custom,"])
async def test_connect(socketio_url: str, namespace: str, auth: str) -> None:
    async with client(socketio_url) as wire:
        await wire.send(f"40{namespace}{auth}")
        await wire.welcome(f"40{namespace}")
        assert await wire.receive() == f'42{namespace}["auth",{auth or "{}"}]'


async def test_unknown_namespace(socketio_url: str) -> None:
    async with client(socketio_url) as wire:
        await wire.send("40/random")
        assert await wire.receive() == '44/random,{"message":"Invalid namespace"}'


async def test_no_connect_is_no_client(socketio_url: str) -> None:
    begun = time.monotonic()
    async with client(socketio_url) as wire:
        while (frame := await wire.socket.recv())[1] == b"2":
            await wire.send("3")
        assert frame[0] == CLOSE
    assert time.monotonic() - begun > CONNECT_TIMEOUT_S - TOLERANCE_S


async def test_who_leaves_the_main_namespace_stays(socketio_url: str) -> None:
    async with connected(socketio_url) as wire:
        await wire.send("41")
        assert await wire.socket.recv_text() == "2"


async def test_leaving_another_namespace(socketio_url: str) -> None:
    async with connected(socketio_url) as wire:
        await wire.send("40/custom")
        await wire.welcome("40/custom,")
        assert await wire.receive() == '42/custom,["auth",{}]'
        await wire.send("41/custom", '42["message","to the main namespace"]')
        assert await wire.receive() == '42["message-back","to the main namespace"]'


async def test_messages_and_acks(socketio_url: str) -> None:
    async with connected(socketio_url) as wire:
        await wire.send('42["message",1,"2",{"3":[true]}]')
        assert await wire.receive() == '42["message-back",1,"2",{"3":[true]}]'
        await wire.send('42456["message-with-ack",1,"2",{"3":[false]}]')
        assert await wire.receive() == '43456[1,"2",{"3":[false]}]'
        attachments = [b"\1\2\3", b"\4\5\6"]
        await wire.send(f'452-["message",{ONE},{TWO}]', *attachments)
        assert await wire.receive() == f'452-["message-back",{ONE},{TWO}]'
        assert [await wire.receive() for _ in attachments] == attachments
        await wire.send(f'452-789["message-with-ack",{ONE},{TWO}]', *attachments)
        assert await wire.receive() == f"462-789[{ONE},{TWO}]"
        assert [await wire.receive() for _ in attachments] == attachments


@pytest.mark.parametrize("frame", ["4abc", "42{}", '42abc["message-with-ack",1,"2",{"3":[false]}]'])
async def test_bad_packets_end_the_connection(socketio_url: str, frame: str) -> None:
    async with connected(socketio_url) as wire:
        await wire.send(frame)
        await wire.socket.expect_close()
    async with client(socketio_url) as stranger:
        await stranger.send(frame)
        await stranger.socket.expect_close()
