"""Clients of a hub that all look alike, in memory and over every transport, and the check that none leaves a ghost.

``WireClient`` writes and reads Socket.IO 5 packets by hand and shares no code with the server; ``MemoryClient`` is
``polysock.testing.Client`` under the same names.  A test that takes a ``World`` runs with either.
"""

from __future__ import annotations

import asyncio
import json
import re
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from urllib.parse import urlencode

from polysock import Server
from polysock.testing import Client as InMemory
from polysock.testing import FakeClock
from support import clients, rawhttp
from support.clients import TIMEOUT_SECONDS, turns, until
from support.rawhttp import BINARY, CLOSE, PING, PONG, SocketClosed, WireError
from support.serving import serving

__all__ = ["MEMORY", "MemoryClient", "WireClient", "World", "assert_no_ghosts", "memory_world", "served_world"]

#: What takes the place of a transport's name for clients in memory.
MEMORY = "memory"

_PACKET = re.compile(r"([0-6])(?:(\d+)-)?(?:(/[^,]*),)?(\d+)?(.*)", re.DOTALL)


class _Inbox:
    """Events as they came, and a way to wait for one."""

    def __init__(self) -> None:
        self.received: list[tuple[Any, ...]] = []
        self.news = asyncio.Event()

    def add(self, event: tuple[Any, ...]) -> None:
        self.received.append(event)
        self.news.set()

    async def wait(self, event: str) -> tuple[Any, ...]:
        async def found() -> tuple[Any, ...]:
            while True:
                for index, one in enumerate(self.received):
                    if one[0] == event:
                        return self.received.pop(index)[1:]
                self.news.clear()
                await self.news.wait()

        return await asyncio.wait_for(found(), TIMEOUT_SECONDS)

    def take(self) -> list[tuple[Any, ...]]:
        events, self.received = self.received, []
        return events


def _take_bytes(value: Any, attachments: list[bytes]) -> Any:
    if isinstance(value, bytes):
        attachments.append(value)
        return {"_placeholder": True, "num": len(attachments) - 1}
    if isinstance(value, dict):
        return {key: _take_bytes(item, attachments) for key, item in value.items()}
    return [_take_bytes(item, attachments) for item in value] if isinstance(value, (list, tuple)) else value


def _put_bytes(value: Any, attachments: list[bytes]) -> Any:
    if isinstance(value, dict):
        if value.get("_placeholder"):
            return attachments[value["num"]]
        return {key: _put_bytes(item, attachments) for key, item in value.items()}
    return [_put_bytes(item, attachments) for item in value] if isinstance(value, list) else value


class WireClient:
    """One Socket.IO 5 client in one namespace over a real connection."""

    def __init__(self, wire: clients.Client, namespace: str = "/") -> None:
        self.wire = wire
        self.namespace = namespace
        self.id: str | None = None
        self.error: dict[str, Any] | None = None
        self.left = False
        """Whether the server said that the namespace was left."""
        self.goodbye: tuple[int, str] | None = None
        """How the connection ended, once it has."""
        self.messages: list[str | bytes] = []
        """Everything that came, packet by packet, as it came."""
        self._inbox = _Inbox()
        self._acks: dict[int, asyncio.Future[Any]] = {}
        self._answers: dict[str, Callable[..., Any]] = {}
        self._waiting: tuple[str, int | None, Any, list[bytes], int] | None = None
        self._reading: asyncio.Task[None] | None = None

    @property
    def _prefix(self) -> str:
        return "" if self.namespace == "/" else f"{self.namespace},"

    async def open(self) -> WireClient:
        """Open the connection, and ask for no namespace yet."""
        await self.wire.open()
        self._reading = asyncio.ensure_future(self._read())
        return self

    async def connect(self, auth: Any = None) -> WireClient:
        """Ask for the namespace, and wait until the server has said yes or no."""
        await self.send("0" + self._prefix + ("" if auth is None else json.dumps(auth)))
        await until(lambda: self.id is not None or self.error is not None or self.goodbye is not None)
        return self

    async def send(self, *messages: str | bytes) -> None:
        """Messages as they are; bytes as a binary frame or, where the transport is text, as ``b`` and base64."""
        if not self.wire.raw:
            await self.wire.send(*(one if isinstance(one, str) else "b" + b64encode(one).decode() for one in messages))
            return
        assert self.wire.socket is not None
        for message in messages:
            if isinstance(message, str):
                await self.wire.socket.send_text(message)
            else:
                await self.wire.socket.send_frame(BINARY, message)

    async def _packet(self, kind: int, number: int | None, values: list[Any]) -> None:
        attachments: list[bytes] = []
        body = json.dumps(_take_bytes(values, attachments))
        head = f"{kind + 3}{len(attachments)}-" if attachments else str(kind)
        await self.send(f"{head}{self._prefix}{'' if number is None else number}{body}", *attachments)

    async def emit(self, event: str, *args: Any) -> None:
        await self._packet(2, None, [event, *args])

    async def call(self, event: str, *args: Any) -> Any:
        """Send an event and wait for the answer: None, its one value, or the list of them."""
        number = len(self._acks)
        future = self._acks[number] = asyncio.get_running_loop().create_future()
        await self._packet(2, number, [event, *args])
        return await asyncio.wait_for(future, TIMEOUT_SECONDS)

    def on(self, event: str, answer: Callable[..., Any]) -> None:
        """Answer *event* with what *answer* returns; with an exception in it, not at all."""
        self._answers[event] = answer

    async def wait(self, event: str) -> tuple[Any, ...]:
        return await self._inbox.wait(event)

    async def take(self) -> list[tuple[Any, ...]]:
        """The events since the last call, and all that the server has sent so far is among them."""
        await self.call("nobody handles this")
        return self._inbox.take()

    async def leave(self) -> None:
        """Leave the namespace on purpose; the connection stays."""
        await self.send("1" + self._prefix)
        self.id = None

    async def vanish(self) -> None:
        """Drop everything without a goodbye."""
        self.wire.abort()
        if self._reading is not None:
            await self._reading  # it sees the end of its connection

    async def ended(self) -> tuple[int, str]:
        """Code and text of the connection's end."""
        await until(lambda: self.goodbye is not None)
        assert self.goodbye is not None
        return self.goodbye

    async def _read(self) -> None:
        try:
            while True:
                await self._message(await self._next())
        except SocketClosed as closed:
            self.goodbye = (closed.code, closed.reason)
        except (WireError, ConnectionError):
            self.goodbye = self.goodbye or (rawhttp.CODE_NO_CLOSE_FRAME, "")

    async def _next(self) -> str | bytes:
        if not self.wire.raw:
            message = await self.wire.message()
            return b64decode(message[1:]) if message[:1] == "b" else message
        assert self.wire.socket is not None
        while True:
            opcode, payload = await self.wire.socket.recv()
            if opcode == CLOSE:
                raise SocketClosed(*rawhttp.parse_close(payload))
            if opcode == PING:
                await self.wire.socket.send_frame(PONG, payload)
            elif opcode != PONG:
                return payload if opcode == BINARY else payload.decode("utf-8")

    async def _message(self, message: str | bytes) -> None:
        self.messages.append(message)
        if isinstance(message, bytes):
            assert self._waiting is not None, "an attachment that nobody announced"
            kind, number, values, attachments, missing = self._waiting
            attachments.append(message)
            if len(attachments) == missing:
                self._waiting = None
                await self._take(kind, number, _put_bytes(values, attachments))
            return
        assert self._waiting is None, f"{message!r} came between attachments"
        found = _PACKET.fullmatch(message)
        assert found, message
        kind, count, namespace, digits, body = found.groups()
        assert (namespace or "/") == self.namespace, message
        number = int(digits) if digits else None
        values = json.loads(body) if body else None
        if count is not None:
            self._waiting = (str(int(kind) - 3), number, values, [], int(count))
        else:
            await self._take(kind, number, values)

    async def _take(self, kind: str, number: int | None, values: Any) -> None:
        if kind == "0":
            self.id = values["sid"]
        elif kind == "1":
            self.id, self.left = None, True
        elif kind == "4":
            self.error = values
        elif kind == "3":
            assert number is not None
            if number in self._acks:  # else a test sent the packet by hand, and looks at ``messages``
                self._acks[number].set_result(None if not values else values[0] if len(values) == 1 else values)
        else:
            assert kind == "2", kind
            self._inbox.add(tuple(values))
            if number is not None and values[0] in self._answers:
                answer = self._answers[values[0]](*values[1:])
                answers = [] if answer is None else list(answer) if isinstance(answer, tuple) else [answer]
                await self._packet(3, number, answers)


class MemoryClient:
    """``polysock.testing.Client`` under the names of ``WireClient``."""

    def __init__(self, io: Server, namespace: str, auth: Any, query: Mapping[str, str] | None) -> None:
        self.inner = InMemory(io, namespace, auth, query=query)

    @property
    def id(self) -> str | None:
        return self.inner.id

    @property
    def error(self) -> dict[str, Any] | None:
        error = self.inner.error
        if error is None:
            return None
        return {"message": error.message} if error.data is None else {"message": error.message, "data": error.data}

    @property
    def left(self) -> bool:
        return self.inner.id is None

    async def emit(self, event: str, *args: Any) -> None:
        self.inner.emit(event, *args)

    async def call(self, event: str, *args: Any) -> Any:
        return await self.inner.call(event, *args)

    def on(self, event: str, answer: Callable[..., Any]) -> None:
        self.inner.on(event, answer)

    async def wait(self, event: str) -> tuple[Any, ...]:
        return await self.inner.wait(event)

    async def take(self) -> list[tuple[Any, ...]]:
        await self.inner.call("nobody handles this")
        return self.inner.take()

    async def connect(self) -> MemoryClient:
        return self

    async def leave(self) -> None:
        self.inner.disconnect()

    async def vanish(self) -> None:
        self.inner.drop()

    async def ended(self) -> tuple[int, str]:
        await until(lambda: self.inner.close_reason is not None)
        assert self.inner.close_reason is not None
        return self.inner.close_reason.code, self.inner.close_reason.text


class World:
    """A Server, and clients of it that come by one kind of transport."""

    def __init__(self, io: Server, clock: FakeClock, transport: str, base: str = "") -> None:
        self.io = io
        self.clock = clock
        self.transport = transport
        self.base = base
        self._stack = AsyncExitStack()

    async def client(
        self,
        namespace: str = "/",
        auth: Any = None,
        *,
        query: Mapping[str, str] | None = None,
        transport: str | None = None,
        connect: bool = True,
    ) -> Any:
        """A client whose request for the namespace was answered (without *connect*: one that asks for none yet)."""
        transport = transport or self.transport
        if transport == MEMORY:
            client = MemoryClient(self.io, namespace, auth, query)
            self._stack.push_async_callback(client.vanish)
            if connect:
                await client.inner.wait()
            return client
        suffix = f"?{urlencode(query)}" if query else ""
        wire = WireClient(clients.Client(self.base, transport, "/polysock", query=suffix), namespace)
        self._stack.push_async_callback(wire.vanish)
        await wire.open()
        return await wire.connect(auth) if connect else wire

    async def close(self) -> None:
        await self._stack.aclose()


def assert_no_ghosts(io: Server) -> None:
    """Every index of every namespace agrees with itself, and holds nobody."""
    for namespace in io.namespaces.values():
        namespace.hub.check()
        assert len(namespace.hub) == 0, list(namespace.hub)
        assert namespace.hub.rooms == ()
        assert namespace.clients() == []
        assert not namespace.is_dynamic, f"{namespace} has outlived its clients"
    assert io.manager.rooms == {}
    assert io.manager.room_clients == {}


@asynccontextmanager
async def memory_world(**settings: Any) -> AsyncIterator[World]:
    """A Server with clients in memory; when it ends they vanish, and must leave nothing behind."""
    clock = FakeClock()
    world = World(Server(clock=clock, **settings), clock, MEMORY)
    try:
        yield world
        for namespace in world.io.namespaces.values():
            namespace.hub.check()
    finally:
        await world.close()
        await turns()  # a handler's task ends a turn after its answer, and its client is told gone after that
    assert_no_ghosts(world.io)
    clock.advance(60)  # sessions whose handlers outlived them end now
    assert clock.timers == 0


@asynccontextmanager
async def served_world(
    transport: str, *, routes: Callable[[Server], list[Any]] = Server.routes, **settings: Any
) -> AsyncIterator[World]:
    """The same over real sockets; a client that waits for nothing when it vanishes is told to go."""
    clock = FakeClock()
    io = Server(clock=clock, **settings)
    async with serving(routes(io)) as base:
        world = World(io, clock, transport, base)
        try:
            yield world
            for namespace in io.namespaces.values():
                namespace.hub.check()
        finally:
            await world.close()
            io.close()
            for member in io.sockets.hub:
                member.receiver.close()  # type: ignore[attr-defined]  # raw Connections, whose sessions are another's
        assert_no_ghosts(io)
