"""A server under measurement, in a process of its own: ``python servers.py NAME HEARTBEAT_SECONDS``.

All run the same application on the same settings, and nothing is logged: whoever connects is in the hall, and gets
back what it sends.  Prints its port, and then obeys lines on its standard input, so that what starts a broadcast costs
every server the same:

    say TEXT        TEXT to everybody in the hall; answered by nothing else
    rooms COUNT     as many rooms exist, all but the hall with one member each; answered "done"
    collect         collect garbage; answered "done"

It ends with its input, so that it never outlives the benchmark.  ``peers/server.js`` is the same on Node.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import logging
import os
import resource
import socket
import sys
from collections.abc import Callable
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application

BACKLOG = 4096
PING_TIMEOUT_S = 20
#: So large that no stream ends within a run.
RESPONSE_LIMIT_BYTES = 16 * 1024 * 1024
SOCKJS = {"response_limit": RESPONSE_LIMIT_BYTES, "jsessionid": False, "verify_ip": False}
#: All clients come from one address, and one that only connects leaves a session behind until it is missed.
LIMITS = {"max_sessions": 1_000_000, "max_sessions_per_address": 1_000_000}

#: Names that end so are served on that event loop instead of asyncio's own.
UVLOOP = "-uvloop"
#: Names that end so are routes under Tornado's own HTTPServer, and not under polysock's.
ROUTES = "-routes"
OWN = ("polysock", "polysock-io")

#: What a server does on a command with an argument.
Commands = dict[str, Callable[[str], object]]


def sockjs(router: Any, connection: Any, settings: dict[str, Any]) -> tuple[list[Any], Commands]:
    """The application on sockjs-tornado's interface."""
    members: set[Any] = set()

    class Bench(connection):
        def on_open(self, info):
            members.add(self)

        def on_message(self, message):
            self.send(message)

        def on_close(self):
            members.discard(self)

    routes = router(Bench, "/bench", settings)
    return routes.urls, {"say": lambda text: routes.broadcast(members, text)}


def polysock(heartbeat_s: float) -> tuple[list[Any], Commands]:
    from polysock import Connection, SockJSRouter

    return sockjs(SockJSRouter, Connection, {**SOCKJS, **LIMITS, "heartbeat_delay": heartbeat_s})


def polysock_io(heartbeat_s: float) -> tuple[list[Any], Commands]:
    from polysock import Server

    io = Server(**SOCKJS, **LIMITS, heartbeat_delay=heartbeat_s, heartbeat_timeout_s=PING_TIMEOUT_S)
    sockets = []

    @io.on("connection")
    def connected(socket):
        sockets.append(socket)
        socket.join("hall")
        socket.on("said", lambda message: socket.emit("said", message))
        socket.on("disconnect", lambda *reason: sockets.remove(socket))

    def rooms(count: str) -> None:
        for number in range(1, int(count)):
            sockets[number % len(sockets)].join(f"room {number}")

    return io.routes(), {"say": lambda text: io.to("hall").emit("said", text), "rooms": rooms}


def sockjs_tornado(heartbeat_s: float) -> tuple[list[Any], Commands]:
    from sockjs.tornado import SockJSConnection, SockJSRouter

    return sockjs(SockJSRouter, SockJSConnection, {**SOCKJS, "heartbeat_delay": heartbeat_s})


def plain_tornado(heartbeat_s: float) -> tuple[list[Any], Commands]:
    from tornado.websocket import WebSocketHandler

    members: set[Any] = set()

    class Bench(WebSocketHandler):
        def open(self):
            members.add(self)

        def on_message(self, message):
            self.write_message(message)

        def on_close(self):
            members.discard(self)

    def say(text: str) -> None:
        for member in members:
            member.write_message(text)

    return [("/bench", Bench)], {"say": say}


class SocketIO:
    """python-socketio's server; its ``emit`` is a coroutine, and one task carries out what was asked, in order."""

    def __init__(self, heartbeat_s: float, mode: str) -> None:
        import socketio

        self.sio = sio = socketio.AsyncServer(
            async_mode=mode,
            ping_interval=heartbeat_s,
            ping_timeout=PING_TIMEOUT_S,
            http_compression=False,
            logger=False,
            engineio_logger=False,
        )
        self._texts: asyncio.Queue[str] = asyncio.Queue()
        self.commands: Commands = {"say": self._texts.put_nowait}

        @sio.event
        async def connect(sid, environ):
            await sio.enter_room(sid, "hall")

        @sio.event
        async def said(sid, message):
            await sio.emit("said", message, to=sid)

        self._task = asyncio.ensure_future(self._speak())

    async def _speak(self) -> None:
        while True:
            await self.sio.emit("said", await self._texts.get(), room="hall")


def python_socketio(heartbeat_s: float) -> tuple[list[Any], Commands]:
    import socketio

    server = SocketIO(heartbeat_s, "tornado")
    return [("/socket.io/", socketio.get_tornado_handler(server.sio))], server.commands


TORNADO = {
    "polysock": polysock,
    "polysock-io": polysock_io,
    "sockjs-tornado": sockjs_tornado,
    "tornado": plain_tornado,
    "python-socketio": python_socketio,
}


async def serve_uvicorn(heartbeat_s: float) -> tuple[int, Commands]:
    import socketio

    uvicorn: Any = importlib.import_module("uvicorn")
    server = SocketIO(heartbeat_s, "asgi")
    options = {"log_config": None, "access_log": False, "timeout_keep_alive": 3600, "ws_per_message_deflate": False}
    serving = uvicorn.Server(uvicorn.Config(socketio.ASGIApp(server.sio), backlog=BACKLOG, **options))
    sockets = bind_sockets(0, "127.0.0.1", backlog=BACKLOG)
    server.serving = asyncio.ensure_future(serving.serve(sockets))
    return sockets[0].getsockname()[1], server.commands


def own_server() -> type[HTTPServer]:
    import polysock

    return polysock.HTTPServer


async def serve(name: str, heartbeat_s: float) -> tuple[int, Commands]:
    if name == "send":
        return serve_sends()
    if name == "python-socketio-uvicorn":
        return await serve_uvicorn(heartbeat_s)
    specs, commands = TORNADO[name.removesuffix(ROUTES)](heartbeat_s)
    sockets = bind_sockets(0, "127.0.0.1", backlog=BACKLOG)
    server = own_server() if name in OWN else HTTPServer
    server(Application(specs, log_function=lambda handler: None)).add_sockets(sockets)
    return sockets[0].getsockname()[1], commands


def serve_sends() -> tuple[int, Commands]:
    """The floor: a ready-made frame and a system call for every receiver.  It reads nothing but the handshakes."""
    members: set[socket.socket] = set()
    loop = asyncio.get_running_loop()
    (listener,) = bind_sockets(0, "127.0.0.1", backlog=BACKLOG)

    def accept() -> None:
        member, _ = listener.accept()
        member.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        loop.add_reader(member, read, member)

    def read(member: socket.socket) -> None:
        if member.recv(4096):
            member.send(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
            members.add(member)
        else:
            loop.remove_reader(member)
            members.discard(member)
            member.close()

    def say(text: str) -> None:
        frame = bytes((0x81, len(text))) + text.encode("ascii")
        for member in members:
            member.send(frame)

    loop.add_reader(listener, accept)
    return listener.getsockname()[1], {"say": say}


class Input:
    """Obeys the lines of the standard input."""

    def __init__(self, commands: Commands) -> None:
        self._commands = {**commands, "collect": lambda _: gc.collect()}
        self._unread = b""
        self.ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), self._read)

    def _read(self) -> None:
        data = os.read(sys.stdin.fileno(), 65536)
        if not data:
            self.ended.set()
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            command, _, argument = line.decode("ascii").partition(" ")
            self._commands[command](argument)
            if command != "say":
                print("done", flush=True)


async def main(name: str, heartbeat_s: float) -> None:
    name = name.removesuffix(UVLOOP)
    logging.disable(logging.CRITICAL)
    port, commands = await serve(name, heartbeat_s)
    obeying = Input(commands)
    print(port, flush=True)
    await obeying.ended.wait()


if __name__ == "__main__":
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    run = importlib.import_module("uvloop").run if sys.argv[1].endswith(UVLOOP) else asyncio.run
    run(main(sys.argv[1], float(sys.argv[2])))
