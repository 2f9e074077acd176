"""A server for anybody's SockJS or WebSocket test suite: ``python tests/interop/server.py --port 8081``.

Prints ``listening on http://ADDRESS:PORT`` once it does; port 0 picks a free one.  The endpoints are those that the
public SockJS suite asks for, with the origin rule that it demands (any, with credentials), and a few of our own.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
from typing import Any, ClassVar

from tornado.httpserver import HTTPServer
from tornado.ioloop import PeriodicCallback
from tornado.netutil import bind_sockets
from tornado.web import Application

from polysock import Connection, SockJSRouter

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


async def main() -> None:
    arguments = argparse.ArgumentParser(description="SockJS endpoints for interoperability tests.")
    arguments.add_argument("--port", type=int, default=8081, help="0 picks a free one (default: 8081)")
    arguments.add_argument("--address", default="127.0.0.1")
    options = arguments.parse_args()
    # These endpoints are open on purpose; the warning of it is for others.
    logging.getLogger("polysock").setLevel(logging.ERROR)
    served = routers()
    application = Application([spec for router in served for spec in router.urls], log_function=lambda handler: None)
    sockets = bind_sockets(options.port, options.address)
    server = HTTPServer(application)
    server.add_sockets(sockets)
    ticker = PeriodicCallback(Ticker.tick, TICK_MS)
    ticker.start()
    print(f"listening on http://{options.address}:{sockets[0].getsockname()[1]}", flush=True)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    ticker.stop()
    server.stop()
    for router in served:
        router.close()
    await server.close_all_connections()


if __name__ == "__main__":
    asyncio.run(main())
