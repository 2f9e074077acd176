"""One of the two servers under measurement, in a process of its own: ``python servers.py polysock``.

Both run the same application code on the same settings; nothing is logged.  Prints the port it listens on, and ends
when its standard input does, so that it never outlives the benchmark.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

BACKLOG = 1024
# Heartbeats belong to no unit of work, so none may fall into a round.
SETTINGS = {"heartbeat_delay": 3600, "response_limit": 128 * 1024, "jsessionid": False, "verify_ip": False}


class Control(RequestHandler):
    """What this process has used so far, user and system time together."""

    def get(self) -> None:
        if self.get_query_argument("collect", ""):
            gc.collect()
        self.finish(json.dumps({"cpu_s": time.process_time(), "rss_bytes": resident_bytes()}))


def resident_bytes() -> int:
    """Resident memory; where the system does not say, the most that it ever was."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def echo_and_hall(router: Any, connection: Any) -> list[Any]:
    """The application without a hub, on either library."""
    members = set()

    class Echo(connection):
        def on_message(self, message):
            self.send(message)

    class Hall(connection):
        def on_open(self, info):
            members.add(self)

        def on_message(self, message):
            """Members only listen."""

        def on_close(self):
            members.discard(self)

    class Speaker(connection):
        def on_message(self, message):
            self.broadcast(members, message)

    return [router(Echo, "/echo", SETTINGS), router(Hall, "/hall", SETTINGS), router(Speaker, "/speaker", SETTINGS)]


def polysock_specs() -> list[Any]:
    from polysock import Connection, Server, SockJSRouter

    io = Server(**SETTINGS)
    io.on("connection", lambda socket: socket.join("hall"))

    class Emitter(Connection):
        def on_message(self, message):
            io.to("hall").emit("said", message)

    routers = [*echo_and_hall(SockJSRouter, Connection), SockJSRouter(Emitter, "/emitter", SETTINGS)]
    return [*io.route("/hub"), *(spec for router in routers for spec in router.urls)]


def sockjs_tornado_specs() -> list[Any]:
    """It has no hub: members are a set, and the packets the same text, made by hand."""
    from sockjs.tornado import SockJSConnection, SockJSRouter

    members = set()

    class Hub(SockJSConnection):
        def on_message(self, message):
            members.add(self)
            self.send('0{"sid":"xxxxxxxxxxxxxxxxxxxx"}')

        def on_close(self):
            members.discard(self)

    class Emitter(SockJSConnection):
        def on_message(self, message):
            self.broadcast(members, "2" + json.dumps(["said", message], separators=(",", ":")))

    routers = echo_and_hall(SockJSRouter, SockJSConnection)
    routers += [SockJSRouter(Hub, "/hub", SETTINGS), SockJSRouter(Emitter, "/emitter", SETTINGS)]
    return [spec for router in routers for spec in router.urls]


async def main(name: str) -> None:
    logging.disable(logging.CRITICAL)
    specs = polysock_specs() if name == "polysock" else sockjs_tornado_specs()
    application = Application([("/control", Control), *specs], log_function=lambda handler: None)
    sockets = bind_sockets(0, "127.0.0.1", backlog=BACKLOG)
    HTTPServer(application).add_sockets(sockets)
    print(sockets[0].getsockname()[1], flush=True)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, ended.set)
    await ended.wait()


if __name__ == "__main__":
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(main(sys.argv[1]))
