"""An Engine.IO client by hand, of version 3 or 4: payloads, requests and WebSockets as a test wants them.

Shares no code with the server, and checks nothing that a test did not ask for.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Protocol

from support import rawhttp
from support.rawhttp import HeaderList, Response, WireSocket

__all__ = ["EngineClient", "MakeClient", "engine_clients"]

_SEPARATOR = "\x1e"
_HEAD = re.compile(r"([0-9]+):")


class EngineClient:
    """One client of one session; of none before ``open``.  Drops its connections when it ends."""

    def __init__(
        self, base: str, version: int = 4, path: str = "/engine.io/", *, query: str = "", headers: HeaderList = ()
    ) -> None:
        self.base = base
        self.version = version
        self.path = path
        self.query = query
        self.headers = headers
        self.sid = ""
        self._sockets: list[WireSocket] = []
        self._polls: list[rawhttp.Connection] = []

    async def __aenter__(self) -> EngineClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for opened in (*self._sockets, *self._polls):
            opened.abort()
        await asyncio.sleep(0)  # asyncio closes them in the next turn of the loop, which may have no other

    def url(self, transport: str = "polling") -> str:
        sid = f"&sid={self.sid}" if self.sid else ""
        return f"{self.path}?EIO={self.version}&transport={transport}{sid}{self.query}"

    # -- payloads of text

    def payload(self, *packets: str) -> str:
        """*packets* (ASCII) as a payload of this version."""
        return _SEPARATOR.join(packets) if self.version == 4 else "".join(f"{len(item)}:{item}" for item in packets)

    def packets(self, payload: str) -> list[str]:
        """The packets in a payload of ASCII."""
        if self.version == 4:
            return payload.split(_SEPARATOR)
        found = []
        while payload:
            head = _HEAD.match(payload)
            assert head, payload
            end = head.end() + int(head[1])
            found.append(payload[head.end() : end])
            payload = payload[end:]
        return found

    # -- requests

    async def request(self, method: str, body: bytes | Sequence[bytes] = b"", headers: HeaderList = ()) -> Response:
        return await rawhttp.request(self.base, method, self.url(), headers=[*self.headers, *headers], body=body)

    async def open(self) -> dict[str, Any]:
        """Shake hands by polling; what the opening packet says."""
        answer = await self.request("GET")
        assert answer.status == 200, answer
        return self.opened(self.packets(answer.text)[0])

    def opened(self, packet: str) -> dict[str, Any]:
        """Read an opening packet, and be in its session."""
        assert packet[0] == "0", packet
        facts: dict[str, Any] = json.loads(packet[1:])
        self.sid = facts["sid"]
        return facts

    async def poll(self) -> Response:
        return await self.request("GET")

    async def receive(self) -> list[str]:
        """The packets that a poll brings."""
        answer = await self.poll()
        assert answer.status == 200, answer
        return self.packets(answer.text)

    async def wait(self) -> rawhttp.Connection:
        """Send a poll; its answer is read later from what this returns.

        The server has read it then: it need not take requests of two connections in the order in which they were sent,
        but it has looked at all connections once when it answers on a new one, and serves what it saw before the next.
        """
        connection = await rawhttp.Connection.open(self.base)
        self._polls.append(connection)
        await connection.send("GET", self.url(), headers=self.headers)
        answer = await self.request("OPTIONS")
        assert answer.status == 204, answer
        return connection

    async def waited(self, connection: rawhttp.Connection) -> list[str]:
        """The packets that a poll sent by ``wait`` brings."""
        answer = await connection.read_response()
        assert answer.status == 200, answer
        return self.packets(answer.text)

    async def post(self, *packets: str) -> Response:
        return await self.request("POST", self.payload(*packets).encode())

    async def send(self, *packets: str) -> None:
        answer = await self.post(*packets)
        assert (answer.status, answer.body) == (200, b"ok"), answer

    async def websocket(self, frames: Sequence[str] = ()) -> WireSocket:
        """A WebSocket: of the session, or opening a new one.  *frames* are sent at once."""
        socket = await WireSocket.connect(self.base, self.url("websocket"), self.headers)
        self._sockets.append(socket)
        for frame in frames:
            await socket.send_text(frame)
        return socket

    async def open_websocket(self) -> tuple[WireSocket, dict[str, Any]]:
        """A new session by WebSocket, and what its opening packet says."""
        socket = await self.websocket()
        return socket, self.opened(await socket.recv_text())


class MakeClient(Protocol):
    """Makes clients of one server."""

    def __call__(
        self, version: int = 4, path: str = "/engine.io/", *, query: str = "", headers: HeaderList = ()
    ) -> EngineClient: ...


@asynccontextmanager
async def engine_clients(base: str) -> AsyncIterator[MakeClient]:
    """Clients of the server at *base*, until the end."""
    made: list[EngineClient] = []

    def make(version: int = 4, path: str = "/engine.io/", *, query: str = "", headers: HeaderList = ()) -> EngineClient:
        made.append(EngineClient(base, version, path, query=query, headers=headers))
        return made[-1]

    try:
        yield make
    finally:
        for client in made:
            await client.__aexit__(None, None, None)
