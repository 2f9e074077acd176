"""A server for anybody's SockJS, WebSocket, Engine.IO or Socket.IO test suite.

``python tests/interop/server.py --port 8081`` prints ``listening on http://ADDRESS:PORT`` once it does; port 0 picks a
free one.  The endpoints are those that the public SockJS suite asks for, with the origin rule that it demands (any,
with credentials), and a few of our own.

With ``--socketio-port 3000`` it prints ``socket.io on http://ADDRESS:PORT`` on a second line, and serves there what the
public suites of Engine.IO 3 and 4 and of Socket.IO 5 ask for, with the intervals that they set.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
from collections.abc import Sequence
from typing import Any, ClassVar

from tornado.ioloop import PeriodicCallback
from tornado.netutil import bind_sockets
from tornado.web import Application

from polysock import Connection, EngineIORouter, HTTPServer, Server, Socket, SockJSRouter

MAX_AMPLIFY_POWER = 19
TICK_MS = 1000


class Echo(Connection):
    def on_message(self, message: str | bytes) -> None:
        self.send(message, binary=isinstance(message, bytes))


class Close(Connection):
    def on_open(self, info: Any) -> None:
        self.close(3000, "Go away!")

    def on_message(self, message: str | bytes) -> None:
        """Nothing gets here."""


class Broadcast(Connection):
    clients: ClassVar[set[Connection]] = set()

    def on_open(self, info: Any) -> None:
        self.clients.add(self)

    def on_message(self, message: str | bytes) -> None:
        self.broadcast(self.clients, message)

    def on_close(self) -> None:
        self.clients.discard(self)


class Amplify(Connection):
    def on_message(self, message: str | bytes) -> None:
        try:
            power = int(message)
        except ValueError:
            power = 1
        self.send("x" * 2 ** (power if 0 <= power <= MAX_AMPLIFY_POWER else 1))


class Ticker(Connection):
    clients: ClassVar[set[Connection]] = set()

    def on_open(self, info: Any) -> None:
        self.clients.add(self)

    def on_message(self, message: str | bytes) -> None:
        """A ticker only talks."""

    def on_close(self) -> None:
        self.clients.discard(self)

    @classmethod
    def tick(cls) -> None:
        for client in list(cls.clients):
            client.send("tick!")


class FirstSubprotocol(Echo):
    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        return subprotocols[0]


OPEN = {"origins": "*", "allow_credentials": True, "sockjs_url": "/lib/sockjs.js"}


def routers() -> list[SockJSRouter]:
    return [
        SockJSRouter(Echo, "/echo", {**OPEN, "response_limit": 4096}),
        SockJSRouter(Echo, "/disabled_websocket_echo", {**OPEN, "disabled_transports": ["websocket"]}),
        SockJSRouter(Echo, "/cookie_needed_echo", {**OPEN, "jsessionid": True}),
        SockJSRouter(Close, "/close", OPEN),
        SockJSRouter(Broadcast, "/broadcast", OPEN),
        SockJSRouter(Amplify, "/amplify", OPEN),
        SockJSRouter(Ticker, "/ticker", OPEN),
        # The default origin rule: same origin only.
        SockJSRouter(Echo, "/guarded"),
        # Takes whatever subprotocol a raw client offers first.
        SockJSRouter(FirstSubprotocol, "/subprotocol", OPEN),
        # What the Autobahn suite asks of a server: 16 MiB messages and compression.
        SockJSRouter(
            FirstSubprotocol,
            "/autobahn",
            {
                **OPEN,
                "compression": True,
                "max_message_bytes": 20_000_000,
                "max_message_fragments": 1_000_000,
                "queue_max_bytes": 64_000_000,
            },
        ),
    ]


# What the public suites of Engine.IO and Socket.IO set; they hold the server to it by milliseconds.
SUITE_SETTINGS: dict[str, Any] = {
    "origins": "*",
    "allow_credentials": True,
    "heartbeat_delay": 0.3,
    "session_check_interval": 0.005,
    "max_message_bytes": 1_000_000,
}
SUITE_PING_TIMEOUT_S = 0.2
SUITE_CONNECT_TIMEOUT_S = 1.0
# Suites that listen for one message at a time lose the second of two that come in one piece.
SUITE_PAUSE_S = 0.005


async def echo_to(socket: Socket) -> None:
    """The handlers of the public Socket.IO suite."""
    await asyncio.sleep(SUITE_PAUSE_S)
    auth = socket.handshake.auth
    socket.emit("auth", {} if auth is None else auth)
    socket.on("message", lambda *args: socket.emit("message-back", *args) and None)
    socket.on("message-with-ack", lambda *args: args)


def socketio_mounts(ping_timeout_s: float) -> tuple[EngineIORouter, Server]:
    settings = {**SUITE_SETTINGS, "heartbeat_timeout_s": ping_timeout_s}
    io = Server(connect_timeout=SUITE_CONNECT_TIMEOUT_S, **settings)
    for name in ("/", "/custom"):
        io.of(name).on("connection", echo_to)
    return EngineIORouter(Echo, "/engine.io", settings), io


def serve(routes: Sequence[Any], address: str, port: int) -> tuple[HTTPServer, str]:
    """A server of *routes*, and its URL."""
    sockets = bind_sockets(port, address)
    server = HTTPServer(Application(list(routes), log_function=lambda handler: None))
    server.add_sockets(sockets)
    return server, f"http://{address}:{sockets[0].getsockname()[1]}"


async def main() -> None:
    arguments = argparse.ArgumentParser(description="Endpoints for interoperability tests.")
    arguments.add_argument("--port", type=int, default=8081, help="0 picks a free one (default: 8081)")
    arguments.add_argument("--socketio-port", type=int, help="serve Engine.IO and Socket.IO too, on this port")
    arguments.add_argument("--ping-timeout", type=float, default=SUITE_PING_TIMEOUT_S, help="seconds, of these two")
    arguments.add_argument("--address", default="127.0.0.1")
    options = arguments.parse_args()
    # These endpoints are open on purpose; the warning of it is for others.
    logging.getLogger("polysock").setLevel(logging.ERROR)
    served = routers()
    mounted: list[SockJSRouter | EngineIORouter | Server] = [*served]
    server, url = serve([spec for router in served for spec in router.urls], options.address, options.port)
    servers = [server]
    print(f"listening on {url}", flush=True)
    if options.socketio_port is not None:
        engine, io = socketio_mounts(options.ping_timeout)
        mounted += engine, io
        routes = [*engine.urls, *io.routes(sockjs=None, plain=None)]
        server, url = serve(routes, options.address, options.socketio_port)
        servers.append(server)
        print(f"socket.io on {url}", flush=True)
    ticker = PeriodicCallback(Ticker.tick, TICK_MS)
    ticker.start()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    ticker.stop()
    for server in servers:
        server.stop()
    for mount in mounted:
        mount.close()
    for server in servers:
        await server.close_all_connections()


if __name__ == "__main__":
    asyncio.run(main())
