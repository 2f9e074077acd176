"""The server under the soak, in a process of its own: ``python server.py asyncio 30`` (or ``uvloop``).

Prints its port, and ends with its standard input.  Every client gets an answer to each of its messages, with numbers
of its own, and everybody a broadcast once a second.  ``GET /measure`` tells what the process holds; ``?settled`` after
a garbage collection, with a count of each type.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import importlib
import logging
import os
import resource
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ledger import Counting, Lost
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from polysock import Connection, HTTPServer, Server, Socket, SockJSRouter
from polysock_transports.gateway import Gateway

BACKLOG = 4096
TICK_S = 1.0
#: Short, so that there are many.
HEARTBEAT_S = 5.0
#: How long a session outlives its last request.
DISCONNECT_DELAY_S = 5.0
#: Long-lived responses end now and then.
RESPONSE_LIMIT_BYTES = 16 * 1024
MAX_KEPT = 20


class House:
    """What the server knows of all its clients together."""

    def __init__(self, patience_s: float) -> None:
        """*patience_s*: how long a peer may be silent that is due, because its machine is busy and not lost."""
        self.opened = self.closed = self.taken = self.given = self.ticks = 0
        self.wrong: list[str] = []
        self.logged: list[str] = []
        heartbeat_s = min(HEARTBEAT_S, patience_s)
        settings = {
            "heartbeat_delay": heartbeat_s,
            "heartbeat_timeout_s": patience_s,
            "disconnect_delay": min(DISCONNECT_DELAY_S, patience_s),
            "plain_poll_timeout_s": patience_s,
            "legacy_handshake_timeout_s": patience_s,
            "legacy_poll_s": heartbeat_s,
            "response_limit": RESPONSE_LIMIT_BYTES,
        }
        self.router = SockJSRouter(self._connection(), "/raw", settings)
        self.members: set[Connection] = set()
        self.io = Server(**settings)
        self.io.on("connection", self._welcome)

    def note(self, text: str) -> None:
        if len(self.wrong) < MAX_KEPT:
            self.wrong.append(text)

    def account(self, what: str) -> Callable[[str], str | None]:
        """What answers the messages of one session."""
        counting, given = Counting(f"{what}: message"), 0

        def answer(text: str) -> str | None:
            nonlocal given
            number = text.partition(" ")[0]
            try:
                counting.take(int(number))
            except Lost as lost:
                self.note(str(lost))
                return None
            given += 1
            self.taken += 1
            self.given += 1
            return f"{given} {number}"

        return answer

    def _connection(self) -> type[Connection]:
        house = self

        class Client(Connection):
            def on_open(self, info: Any) -> None:
                house.opened += 1
                house.members.add(self)
                self.answer = house.account("sockjs")

            def on_message(self, message: str | bytes) -> None:
                reply = self.answer(str(message))
                if reply is not None:
                    self.send(reply)

            def on_close(self) -> None:
                house.closed += 1
                house.members.remove(self)

        return Client

    def _welcome(self, socket: Socket) -> None:
        self.opened += 1
        info = socket.handshake.info
        answer = self.account(f"{info.dialect} {info.transport}")

        def said(text: str) -> None:
            reply = answer(text)
            if reply is not None:
                socket.emit("n", reply)

        def left(reason: str) -> None:
            self.closed += 1

        socket.on("n", said)
        socket.on("disconnect", left)

    async def tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self.ticks += 1
            text = f"* {self.ticks}"
            self.router.broadcast(self.members, text)
            self.io.emit("n", text)


class Logged(logging.Handler):
    """Whatever is logged from WARNING up is a fault."""

    def __init__(self, house: House) -> None:
        super().__init__(logging.WARNING)
        self.house = house
        self.setFormatter(logging.Formatter("%(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        if len(self.house.logged) < MAX_KEPT:
            self.house.logged.append(self.format(record)[-2000:])  # where a traceback says what it was


def resident_kib() -> float:
    """Without pages of files, which the kernel takes back as it likes."""
    with open("/proc/self/statm", encoding="ascii") as statm:
        _, resident, shared, *_ = map(int, statm.read().split())
    return (resident - shared) * os.sysconf("SC_PAGESIZE") / 1024


class MallInfo(ctypes.Structure):
    """What ``mallinfo2(3)`` tells (glibc 2.33)."""

    _names = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
    _fields_ = tuple((name, ctypes.c_size_t) for name in _names)


def allocated_kib() -> float:
    """What was asked for and not given back, to the byte: with ``PYTHONMALLOC=malloc`` that is Python's own as well.  0
    where the C library does not tell."""
    try:
        ask = ctypes.CDLL(None).mallinfo2
    except AttributeError:
        return 0.0
    ask.restype = MallInfo
    told = ask()
    return (told.uordblks + told.hblkhd) / 1024


def settle(gateways: list[Gateway]) -> None:
    """Let go of what nobody holds, and of what only makes the next time quicker."""
    for gateway in gateways:
        forget(gateway)
    gc.collect()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # from Python 3.13 on
        # It holds a string for each place that some lookup of an attribute has taken, up to 4,096.
        sys._clear_type_cache()
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # glibc


def forget(gateway: Gateway) -> None:
    """Empty what is remembered of requests and answers: tables with limits, as full as chance has it."""
    lane = gateway.lane
    for table in (lane.fields._known, lane._shared, lane.heads._heads, lane.heads._shared):
        table.clear()


class Measure(RequestHandler):
    def initialize(self, house: House) -> None:
        self.house = house

    def get(self) -> None:
        house, types, count = self.house, None, 0
        gateways = [house.router._gateway, *(each for end in house.io._endpoints for each in end.gateways)]
        if self.request.query == "settled":
            self.settings["server"].fields._known.clear()
            settle(gateways)
            objects = gc.get_objects()
            types = Counter(f"{type(item).__module__}.{type(item).__qualname__}" for item in objects)
            count = len(objects)
            del objects
        server: Any = self.settings["server"]
        self.set_header("Connection", "close")
        self.write(
            {
                "sessions": sum(len(gateway.store) for gateway in gateways),
                "connections": len(server._connections),
                "descriptors": len(os.listdir("/proc/self/fd")),
                "tasks": len(asyncio.all_tasks()),
                "objects": count,
                "allocated_kib": allocated_kib(),
                "resident_kib": resident_kib(),
                "types": types,
                "coroutines": Counter(str(task.get_coro()).partition(" at 0x")[0] for task in asyncio.all_tasks()),
                **{name: getattr(house, name) for name in ("opened", "closed", "taken", "given", "wrong", "logged")},
            }
        )


async def main(patience_s: float) -> None:
    house = House(patience_s)
    logging.getLogger().addHandler(Logged(house))
    application = Application(
        [*house.router.urls, *house.io.routes(sockjs=None), ("/measure", Measure, {"house": house})],
        log_function=lambda handler: None,
    )
    server = application.settings["server"] = HTTPServer(application)
    sockets = bind_sockets(0, "127.0.0.1", backlog=BACKLOG)
    server.add_sockets(sockets)
    ticking = asyncio.ensure_future(house.tick())
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), lambda: os.read(0, 4096) or ended.set())
    print(sockets[0].getsockname()[1], flush=True)
    await ended.wait()
    asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
    ticking.cancel()
    server.stop()
    house.router.close()
    house.io.close()
    await server.close_all_connections()


if __name__ == "__main__":
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    run = importlib.import_module("uvloop").run if sys.argv[1] == "uvloop" else asyncio.run
    run(main(float(sys.argv[2])))
