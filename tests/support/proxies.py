"""What stands between browsers and servers out there, made small: proxies that delay, buffer, block, cut and drop.

Each is one listening port before one upstream port on this machine.  They live in an event loop of their own thread
(``Background``), so that a test may block in ``Engine.run`` meanwhile.  They know TCP, as much HTTP as they have to
spoil, and nothing of what is carried.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import re
import socket
import ssl
import struct
import threading
from collections.abc import Collection, Coroutine
from typing import Any, TypeVar

__all__ = [
    "Background",
    "BlockingProxy",
    "BufferingProxy",
    "DroppingProxy",
    "HoldingProxy",
    "IdleProxy",
    "Proxy",
    "SlowProxy",
    "TlsProxy",
]

ADDRESS = "127.0.0.1"
CHUNK_BYTES = 65536
CALL_S = 20
STOP_S = 5
LATE_S = 0.1
WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
REFUSAL = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
# Without lingering, the end of a connection is a reset (RST) and no orderly end (FIN).
RESET = struct.pack("ii", 1, 0)

T = TypeVar("T")


class Background:
    """An event loop in a thread of its own; ``call`` runs a coroutine there and waits for what it returns."""

    def __enter__(self) -> Background:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="background")
        self._thread.start()
        return self

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(CALL_S)

    def __exit__(self, *exc: object) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(STOP_S)
        self.loop.run_until_complete(end(asyncio.all_tasks(self.loop)))
        self.loop.close()


async def end(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel them and wait until they are over."""
    waiting = list(tasks)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


class Link:
    """One connection of a client, and the one to the server that stands for it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.idle: asyncio.TimerHandle | None = None

    def reset(self) -> None:
        if not self.writer.transport.is_closing():
            self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self.writer.transport.abort()


class Proxy:
    """Passes bytes on, both ways, unchanged; its subclasses spoil something."""

    def __init__(self, upstream_port: int) -> None:
        self.upstream_port = upstream_port
        self.port = 0
        self.spoiled = 0
        """How often it did what it is for."""
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.Task[None]] = set()

    @property
    def origin(self) -> str:
        return f"http://{ADDRESS}:{self.port}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accepted, ADDRESS, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server:
            self._server.close()
        await end(self._links)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(Link(reader, writer)))
        self._links.add(task)
        task.add_done_callback(self._links.discard)

    async def _serve(self, link: Link) -> None:
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await self.serve(link)
        finally:
            link.writer.close()

    async def serve(self, link: Link) -> None:
        """One connection, to its end."""
        await self.relay(link)

    async def relay(self, link: Link, first: bytes = b"") -> None:
        """Both ways until one side ends; *first*: what was read from the client already."""
        reader, writer = await self.upstream()
        pumps = {asyncio.ensure_future(self.upward(link, writer)), asyncio.ensure_future(self.downward(link, reader))}
        try:
            writer.write(first)
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            writer.close()  # first: ``stop`` may cancel what waits
            await end(pumps)

    async def upstream(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to the server."""
        return await asyncio.open_connection(ADDRESS, self.upstream_port)

    async def upward(self, link: Link, writer: asyncio.StreamWriter) -> None:
        while data := await link.reader.read(CHUNK_BYTES):
            await self.passing(link, data)
            writer.write(data)
            await writer.drain()

    async def downward(self, link: Link, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(CHUNK_BYTES):
            await self.passing(link, data)
            await self.deliver(link, data)

    async def passing(self, link: Link, data: bytes) -> None:
        """Something travels on *link*, in either direction."""

    async def deliver(self, link: Link, data: bytes) -> None:
        """Hand the client what the server sent."""
        link.writer.write(data)
        await link.writer.drain()


class TlsProxy(Proxy):
    """Puts TLS between itself and the server, for clients that have none."""

    def __init__(self, upstream_port: int, trusted: ssl.SSLContext) -> None:
        super().__init__(upstream_port)
        self.trusted = trusted

    async def upstream(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(ADDRESS, self.upstream_port, ssl=self.trusted)


class SlowProxy(Proxy):
    """Lets everything that comes from the server wait."""

    def __init__(self, upstream_port: int, delay_s: float) -> None:
        super().__init__(upstream_port)
        self.delay_s = delay_s

    async def deliver(self, link: Link, data: bytes) -> None:
        self.spoiled += 1
        await asyncio.sleep(self.delay_s)
        await super().deliver(link, data)


class DroppingProxy(Proxy):
    """Once ``armed``, resets the connection in the middle of the next long piece that comes from the server."""

    def __init__(self, upstream_port: int, long_bytes: int) -> None:
        super().__init__(upstream_port)
        self.long_bytes = long_bytes
        self.armed = False

    async def deliver(self, link: Link, data: bytes) -> None:
        if not self.armed or len(data) < self.long_bytes:
            await super().deliver(link, data)
            return
        self.armed = False
        self.spoiled += 1
        await super().deliver(link, data[: len(data) // 2])
        link.reset()
        raise ConnectionResetError


class HoldingProxy(Proxy):
    """While it ``holds``, keeps requests for *path* to itself; what the client gives up meanwhile gets nowhere."""

    def __init__(self, upstream_port: int, path: bytes) -> None:
        super().__init__(upstream_port)
        self.path = path
        self.free = asyncio.Event()
        self.free.set()

    async def upward(self, link: Link, writer: asyncio.StreamWriter) -> None:
        while data := await link.reader.read(CHUNK_BYTES):
            if self.path in data and not self.free.is_set():
                self.spoiled += 1
                more, freed = (
                    asyncio.ensure_future(link.reader.read(CHUNK_BYTES)),
                    asyncio.ensure_future(self.free.wait()),
                )
                try:
                    await asyncio.wait({more, freed}, return_when=asyncio.FIRST_COMPLETED)
                    if more.done() and not more.result():
                        return
                    await self.free.wait()
                finally:
                    await end({freed})
                writer.write(data)
                data = await more
            writer.write(data)
            await writer.drain()


class IdleProxy(Proxy):
    """Cuts a connection on which something has travelled, and nothing more for a while."""

    def __init__(self, upstream_port: int, idle_s: float) -> None:
        super().__init__(upstream_port)
        self.idle_s = idle_s

    async def serve(self, link: Link) -> None:
        try:
            await self.relay(link)
        finally:
            if link.idle:
                link.idle.cancel()

    async def passing(self, link: Link, data: bytes) -> None:
        if link.idle:
            link.idle.cancel()
        self._watch(link)

    def _watch(self, link: Link) -> None:
        loop = asyncio.get_running_loop()
        link.idle = loop.call_later(self.idle_s, self._cut, link, loop.time() + self.idle_s)

    def _cut(self, link: Link, due: float) -> None:
        if asyncio.get_running_loop().time() - due > LATE_S:
            self._watch(link)  # all here stood still, and what travelled meanwhile is yet to be seen
            return
        self.spoiled += 1
        link.reset()


class BlockingProxy(Proxy):
    """Lets no WebSocket through; ``answer`` is what a request for an upgrade gets.

    ``"400"``: that status; ``"drop"``: the connection closes; ``"silence"``: the upgrade, and nothing ever after.
    """

    def __init__(self, upstream_port: int, answer: str) -> None:
        super().__init__(upstream_port)
        self.answer = answer

    async def serve(self, link: Link) -> None:
        # A browser opens a connection for each WebSocket: the request for it is the first there.
        head = await link.reader.readuntil(b"\r\n\r\n")
        if not re.search(rb"(?im)^upgrade: *websocket", head):
            await self.ordinary(link, head)
            return
        self.spoiled += 1
        if self.answer == "400":
            await self.deliver(link, REFUSAL)
        elif self.answer == "silence":
            await self.deliver(link, accepted(head))
            while await link.reader.read(CHUNK_BYTES):
                pass

    async def ordinary(self, link: Link, head: bytes) -> None:
        await self.relay(link, head)


class BufferingProxy(BlockingProxy):
    """Holds back each response until its end, as those do that look for viruses; refuses upgrades."""

    def __init__(self, upstream_port: int) -> None:
        super().__init__(upstream_port, "400")

    async def ordinary(self, link: Link, head: bytes) -> None:
        # The end of the connection then is the end of the response.
        head = re.sub(rb"(?im)^connection:.*\r\n", b"", head)
        await self.relay(link, head[:-2] + b"Connection: close\r\n\r\n")

    async def downward(self, link: Link, reader: asyncio.StreamReader) -> None:
        held = await reader.read()
        self.spoiled += 1
        await self.deliver(link, held)


def accepted(head: bytes) -> bytes:
    """The answer that a WebSocket server gives to this request."""
    key = re.search(rb"(?im)^sec-websocket-key: *(\S+)", head)
    digest = base64.b64encode(hashlib.sha1((key[1] if key else b"") + WEBSOCKET_GUID).digest())
    lines = (b"HTTP/1.1 101 Switching Protocols", b"Upgrade: websocket", b"Connection: Upgrade")
    return b"\r\n".join((*lines, b"Sec-WebSocket-Accept: " + digest, b"", b""))
