"""The server of test_client_browsers.py: what polysock.js talks to, and the page that does the talking.

One application on two ports, which browsers take for two origins; the first is the endpoints', and pages of both may
use them:

    /polysock    a Server: namespaces / and /some with echo, acks, rooms, binary, and ways to end; /refused refuses
    /echo        a Connection that echoes, and closes with 3000 after echoing ``close me``
    /opens-only  a WebSocket that opens and carries nothing, under a SockJS endpoint whose other transports work
    /client.html the page

    python tests/client_app.py [PORT]

prints the two origins as a JSON list once it listens.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any

from tornado.netutil import bind_sockets
from tornado.web import Application, StaticFileHandler
from tornado.websocket import WebSocketHandler

from polysock import Connection, ConnectionRefused, HTTPServer, Server, SockJSRouter
from polysock_transports.errors import GOING_AWAY

PAGES = Path(__file__).resolve().parent / "browserlab" / "pages"
ADDRESS = "127.0.0.1"
# Small, so that streams end and are taken up again in the middle of a test.
COMMON = {"response_limit": 4096, "heartbeat_delay": 2, "disconnect_delay": 3}


class Echo(Connection):
    def on_message(self, message: str | bytes) -> None:
        self.send(message)
        if message == "close me":
            self.close(3000, "Go away!")


class OpensOnly(WebSocketHandler):
    def check_origin(self, origin: str) -> bool:
        return True

    def on_message(self, message: str | bytes) -> None:
        """Nothing comes back."""


def greet(socket: Any) -> None:
    """Give a new client of ``/`` or ``/some`` its events."""
    socket.on("echo", lambda *args: socket.emit("echo", *args) and None)
    socket.on("message", lambda data: socket.send(data) and None)
    socket.on("ask", lambda *args: list(args))
    socket.on("transport", lambda: socket.transport)
    socket.on("reverse", lambda data: data[::-1])
    socket.on("room", lambda name: socket.join(name))
    socket.on("say", lambda room, text: socket.namespace.to(room).emit("said", text) and None)
    # As when the process stops: the client may come back.
    socket.on("kill", lambda: socket.receiver.close(GOING_AWAY))
    socket.on("leave me", lambda: socket.disconnect())
    socket.on("end me", lambda: socket.disconnect(close=True))
    socket.emit("welcome", socket.namespace.name)

    @socket.on("question")
    def question(number: int) -> None:
        # Its answer is awaited beside the handlers, of which a client's next one waits for the one before.
        socket.emit("question", number, ack=lambda answer: socket.emit("answered", answer))


def make_io(friends: list[str]) -> Server:
    io = Server(origins=friends, **COMMON)
    io.on("connection", greet)
    io.of("/some").on("connection", greet)

    def refuse(handshake: Any) -> bool:
        raise ConnectionRefused("members only", {"why": "test"})

    io.of("/refused").authorize = refuse
    return io


async def main(port: int = 0) -> None:
    ports = [bind_sockets(port, ADDRESS), bind_sockets(0, ADDRESS)]
    origins = [f"http://{ADDRESS}:{sockets[0].getsockname()[1]}" for sockets in ports]
    io = make_io(origins[1:])
    script = PAGES.parents[2] / "static" / "polysock.min.js"
    settings = {**COMMON, "origins": origins[1:], "sockjs_file": script}
    routers = [SockJSRouter(Echo, prefix, settings) for prefix in ("/echo", "/opens-only")]
    application = Application(
        [
            *io.routes(),
            (r"/opens-only/[^/]+/[^/]+/websocket", OpensOnly),
            *(spec for router in routers for spec in router.urls),
            (r"/(\w+\.html)", StaticFileHandler, {"path": str(PAGES)}),
        ],
        log_function=lambda handler: None,
    )
    server = HTTPServer(application)
    for sockets in ports:
        server.add_sockets(sockets)
    print(json.dumps(origins), flush=True)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    server.stop()
    io.close()
    for router in routers:
        router.close()
    await server.close_all_connections()


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:2])))
