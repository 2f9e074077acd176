"""Several nodes in one process and one event loop, each an application of its own behind a server of its own.

Every node knows the others by a ``Placement`` that the test updates by hand.  Clients that go to the wrong node on
purpose show the relay between them.
"""

from __future__ import annotations

import asyncio
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from tornado.web import Application

from polysock import EngineIORouter, HTTPServer, Server, Socket, SockJSRouter
from polysock_transports.limits import Limits
from polysock_transports.placement import Node, Placement
from polysock_transports.relay import Relay
from support.clients import Client, Recorder, turns
from support.clock import FakeClock

__all__ = ["Here", "Nodes", "nodes"]

SECRET = b"a secret of these tests, and of nobody else"


class _Echo(Recorder):
    def on_message(self, message: str | bytes) -> None:
        super().on_message(message)
        self.send(message, binary=isinstance(message, bytes))


class Here:
    """One node: a SockJS endpoint at ``/s``, an Engine.IO endpoint at ``/e``, and a Server with all its mounts."""

    def __init__(self, number: int, folder: Path, clock: FakeClock, options: dict[str, Any], secret: bytes) -> None:
        self.clock = clock
        self.folder = folder
        self.node = Node(f"node{number:04}", joined_ms=number, host="here")
        self.placement = Placement(self.node)
        limits = {name: value for name, value in options.items() if name in Limits.__dataclass_fields__}
        self.relay = Relay(self.placement, secret=secret, limits=Limits(**limits), clock=clock)
        self.app = type("App", (_Echo,), {})
        self.sockjs = SockJSRouter(self.app, "/s", options, clock=clock)
        self.engine = EngineIORouter(self.app, "/e", options, clock=clock)
        self.io = Server(clock=clock, legacy_transports=LEGACY, **options)
        self.sockets: list[Socket] = []
        self.io.on("connection", self._connected)
        routes = [*self.sockjs.urls, *self.engine.urls, *self.io.routes(sockjs=None)]
        self.logged: list[tuple[int, str, str, str]] = []
        self.application = Application(routes, log_function=self._log)
        self.base = ""
        self.server: HTTPServer | None = None

    def _connected(self, socket: Socket) -> None:
        self.sockets.append(socket)
        socket.on("message", lambda data: socket.send(data))
        socket.on("add", lambda a, b: a + b)

    def _log(self, handler: Any) -> None:
        request = handler.request
        self.logged.append((handler.get_status(), request.remote_ip, request.path, request.protocol))

    @property
    def gateways(self) -> list[Any]:
        routed = [*self.sockjs._endpoint.gateways, *self.engine._endpoint.gateways]
        return routed + [gateway for endpoint in self.io._endpoints for gateway in endpoint.gateways]

    @property
    def sessions(self) -> list[Any]:
        return [session for gateway in self.gateways for session in gateway.store]

    @property
    def made(self) -> list[Any]:
        """The Connections of ``/s`` and ``/e``, in order."""
        return self.app.made  # type: ignore[attr-defined, no-any-return]

    async def start(self, server: dict[str, Any], *, tcp: bool) -> None:
        self.server = HTTPServer(self.application, **server)
        self.server.listen(0, "127.0.0.1")
        (sock,) = self.server._sockets.values()
        self.base = f"http://127.0.0.1:{sock.getsockname()[1]}"
        if tcp:
            self.node = await self.relay.start(self.application, tcp=("127.0.0.1", 0))
        else:
            self.node = await self.relay.start(self.application, unix=str(self.folder / self.node.id))
        for gateway in self.gateways:
            gateway.relay = self.relay

    async def stop(self) -> None:
        """What the end of a process does: everything is cut at once."""
        if self.server is None:
            return
        server, self.server = self.server, None
        server.stop()
        await self.relay.stop()
        await server.close_all_connections()
        for session in self.sessions:
            transport = session._transport
            if transport is not None:
                transport.abort()
            session.close()
        self.io.close()


LEGACY = ("websocket", "flashsocket", "htmlfile", "xhr-multipart", "xhr-polling", "jsonp-polling")


class Nodes:
    """All of them.  Indexing gives a node; ``nodes[0]`` has joined first."""

    def __init__(self, clock: FakeClock, make: Callable[[int], Here]) -> None:
        self.clock = clock
        self.all: list[Here] = []
        self.clients: list[Client] = []
        """They leave when the test ends."""
        self._make = make
        self._start: dict[str, Any] = {}

    def __getitem__(self, number: int) -> Here:
        return self.all[number]

    async def join(self) -> Here:
        """One node more, of which all know."""
        here = self._make(len(self.all))
        self.all.append(here)
        await here.start(**self._start)
        self.update()
        return here

    def update(self, *lost: Here) -> None:
        """All nodes that live know of each other, and of none of *lost*."""
        live = [here for here in self.all if here.server is not None and here not in lost]
        for here in live:
            here.placement.update([other.node for other in live])
            for gone in self.all:
                if gone not in live:
                    here.relay.forget(gone.node.id)

    async def client(self, session_id: str, through: Here, transport: str = "xhr") -> Client:
        """A client of SockJS, whose requests go to *through*."""
        client = Client(through.base, transport, session_id=session_id)
        self.clients.append(client)
        return await client.open()

    def session_id(self, home: Here) -> str:
        """An id for SockJS whose home is *home*."""
        while True:
            session_id = uuid.uuid4().hex
            if home.placement.home_of(session_id).id == home.node.id:
                return session_id


@asynccontextmanager
async def nodes(
    count: int,
    *,
    tcp: bool = False,
    secrets: Sequence[bytes] = (),
    server: dict[str, Any] | None = None,
    **options: Any,
) -> AsyncIterator[Nodes]:
    """*count* nodes that know each other.  *options*: settings of every endpoint; limits hold for the relays too."""
    clock = FakeClock()
    async with AsyncExitStack() as stack:
        # Paths of Unix sockets are short; pytest's own folders are not.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="relay")))

        def make(number: int) -> Here:
            return Here(number, folder, clock, options, secrets[number] if secrets else SECRET)

        made = Nodes(clock, make)
        made._start = {"server": server or {}, "tcp": tcp}
        try:
            for _ in range(count):
                await made.join()
            # Settled: a session that is not where it belongs is nowhere.
            await settle(made)
            yield made
        finally:
            for client in made.clients:
                client.abort()
            for here in made.all:
                await here.stop()
            for _ in range(5):
                clock.advance(1000)
                await turns()
        for here in made.all:
            assert not len(here.relay._pools), here.node
            assert not here.sessions, (here.node, here.sessions)
        assert clock.timers == 0
        waiting = {task.get_coro().__qualname__ for task in asyncio.all_tasks() - {asyncio.current_task()}}  # type: ignore[union-attr]
        # Tornado's own waits for ever where it refuses a body after the handler has begun.
        assert waiting <= {"RequestHandler._execute"}, waiting


async def settle(made: Nodes) -> None:
    """As long after the last change that all nodes must know of it."""
    for here in made.all:
        for gateway in here.gateways:
            assert here.relay._moved_of(gateway).is_complete is (len(made.all) == 1)
    made.clock.advance(here.relay.limits.relay_settle_s)
