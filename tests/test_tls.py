"""Over TLS: everything works, and every connection stays with Tornado, which does the TLS."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import pytest
import trustme
import websockets

from polysock import Server, Socket, SockJSRouter
from polysock_transports.pipes import IOStreamPipe
from support import rawhttp
from support.clients import EVERY, POLLING, TIMEOUT_SECONDS, WEBSOCKETS, Client, Recorder, quiet, turns, until
from support.interop_engine import EngineClient
from support.proxies import TlsProxy
from support.serving import serving

__all__ = ["quiet"]

LONG = "x" * 200_000  # many records of TLS, and more than one read


@pytest.fixture(scope="module")
def certificates() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context, and one that trusts it."""
    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.configure_trust(client)
    return server, client


@dataclass
class Here:
    """A server with TLS, and the way to it for clients that have none."""

    port: int
    plain: str
    trusted: ssl.SSLContext
    router: SockJSRouter
    io: Server
    made: list[Any]

    @property
    def taken(self) -> int:
        """How many requests have left Tornado."""
        gateways = [self.router._gateway, *(each for end in self.io._endpoints for each in end.gateways)]
        return sum(len(gateway.lane._connections) for gateway in gateways)


@asynccontextmanager
async def secure(certificates: tuple[ssl.SSLContext, ssl.SSLContext], **settings: Any) -> AsyncIterator[Here]:
    kind = type("App", (Recorder,), {"on_message": lambda self, message: self.send(message)})
    router, io = SockJSRouter(kind, "/s", settings), Server(**settings)

    @io.on("connection")
    def connected(socket: Socket) -> None:
        socket.on("n", lambda value: socket.emit("n", value))

    own, trusted = certificates
    async with serving([*router.urls, *io.routes()], server={"ssl_options": own}) as base:
        port = int(base.rpartition(":")[2])
        proxy = TlsProxy(port, trusted)
        await proxy.start()
        try:
            yield Here(port, proxy.origin, trusted, router, io, kind.made)  # type: ignore[attr-defined]
        finally:
            await proxy.stop()
            router.close()
            io.close()
            await turns()


@pytest.mark.parametrize("transport", EVERY)
async def test_every_transport_works_and_stays_with_tornado(certificates: Any, transport: str) -> None:
    async with secure(certificates) as here, Client(here.plain, transport) as client:
        await client.open()
        for text in ("one", LONG, "three"):
            assert await client.send(text) in (0, 200, 204)
            assert await client.message() == text
            assert here.taken == 0
        (session,) = here.router._gateway.store
        if transport in WEBSOCKETS:
            assert isinstance(session._transport._pipe, IOStreamPipe)  # type: ignore[union-attr]
        here.made[0].close(3456, "bye")
        assert await client.goodbye() == (3456, "bye")
        await until(lambda: len(here.made[0].closes) == 1)


async def test_a_client_that_does_its_own_tls(certificates: Any) -> None:
    async with secure(certificates) as here:
        address, origin = f"127.0.0.1:{here.port}", f"https://127.0.0.1:{here.port}"
        async with websockets.connect(
            f"wss://{address}/s/000/a/websocket", ssl=here.trusted, origin=origin, proxy=None
        ) as client:
            assert await client.recv() == "o"
            await client.send(json.dumps([LONG]))
            assert await client.recv() == f"a{json.dumps([LONG])}"
        with pytest.raises(websockets.exceptions.InvalidStatus, match="403"):
            await websockets.connect(
                f"wss://{address}/s/000/b/websocket", ssl=here.trusted, origin=f"http://{address}", proxy=None
            )


@pytest.mark.parametrize("version", [4, 3])
async def test_socketio_by_polling_and_after_the_upgrade(certificates: Any, version: int) -> None:
    async with secure(certificates) as here, EngineClient(here.plain, version, "/socket.io/") as client:
        await client.open()
        if version == 4:  # clients of 3 are in at once
            await client.send("40")
            assert (await client.receive())[0][:2] == "40"
        await client.send('42["n",1]')
        assert await client.receive() == ['42["n",1]']
        socket = await client.websocket(["2probe"])
        assert await socket.recv_text() == "3probe"
        await socket.send_text("5")
        await socket.send_text('42["n",2]')
        assert await socket.recv_text() == '42["n",2]'
        assert here.taken == 0
        await socket.close()


@pytest.mark.parametrize("transport", EVERY)
async def test_who_goes_without_a_word_is_missed_at_once(certificates: Any, transport: str) -> None:
    async with secure(certificates) as here:
        async with Client(here.plain, transport) as client:
            await client.open()
            if transport in POLLING:
                await client.attach()
                await until(lambda: here.router.stats.dump()["connections_active"] == 1)
            await until(lambda: len(here.made) == 1)
        await until(lambda: len(here.made[0].closes) == 1)


async def test_bytes_that_are_no_tls_end_their_connection_alone(certificates: Any, quiet: Any) -> None:
    quiet.expect("SSL Error on ")
    async with secure(certificates) as here, Client(here.plain, "websocket") as client:
        await client.open()
        wire = await rawhttp.Connection.open(f"http://127.0.0.1:{here.port}")
        await wire.send("POST", "/s/000/b/xhr")
        with suppress(ConnectionResetError):
            assert b"HTTP/1.1" not in await asyncio.wait_for(wire.reader.read(), TIMEOUT_SECONDS)
        wire.close()
        await client.send("still here")
        assert await client.message() == "still here"
