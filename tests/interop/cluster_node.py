"""One node of a cluster with the application of socketio_app.py: ``python tests/interop/cluster_node.py --name a ...``.

Beside the routes of a Server it serves a SockJS echo at ``/echo``, a second SockJS mount at ``/sockjs`` whose
iframe page is sockjs-client's, the page ``/cluster.html``, and what a test asks this one node at ``/lab/...``:

    facts                        {name, counters}, and of a cluster {backplane, relay: counters, is_up, nodes}
    tell?room=&event=&count=     emits event [name, 0], [name, 1] ... to the room in / in one go; {"here": reached}
    talk?room=&every_ms=         goes on emitting "news" [name, n] to the room until it is asked to
    hush                         stop that; {"told": how many}
    settle                       waits until all rooms of this node are known to the others
    members?room=                {members: ids of the clients in the room, of all nodes; present: the same, as this node
                                 knows them without asking; unreached: nodes}

Clients also have the event ``where``: the name of the node that holds their session.  It prints one JSON line when it
listens: {"url": where clients reach it, "lab": where the test does}.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import socket
from pathlib import Path
from typing import Any

from socketio_app import NAMESPACES, make_io
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler, StaticFileHandler

from polysock import Connection, HTTPServer, Presence, Server, SockJSRouter
from polysock_transports.dialects.sockjs import iframe_page

PAGES = Path(__file__).resolve().parents[1] / "browserlab" / "pages"
#: Rooms that may be read as feeds begin so.
OPEN_ROOM = "open "


class Echo(Connection):
    def on_message(self, message: str | bytes) -> None:
        self.send(message)


class Talk:
    """An endless emitter."""

    def __init__(self, io: Server, name: str) -> None:
        self.io = io
        self.name = name
        self.told = 0
        self._task: asyncio.Task[None] | None = None

    def start(self, room: str, every_s: float) -> None:
        self._task = asyncio.ensure_future(self._talk(room, every_s))

    async def _talk(self, room: str, every_s: float) -> None:
        while True:
            self.io.to(room).emit("news", self.name, self.told)
            self.told += 1
            await asyncio.sleep(every_s)

    def stop(self) -> int:
        if self._task is not None:
            self._task.cancel()
        return self.told


class LabHandler(RequestHandler):
    def initialize(self, io: Server, name: str, talk: Talk, presence: Presence) -> None:
        self.io = io
        self.name = name
        self.talk = talk
        self.presence = presence

    async def get(self, what: str) -> None:
        answer = getattr(self, f"answer_{what}", None)
        if answer is None:
            self.send_error(404)
            return
        self.write(await answer())

    async def answer_facts(self) -> dict[str, Any]:
        cluster = self.io.cluster
        if cluster is None:
            return {"name": self.name, "counters": dict(self.io.counters)}
        counters = self.io.counters + cluster.counters
        return {
            "name": self.name,
            "counters": dict(counters),
            "backplane": dict(cluster.backplane.counters),
            "relay": dict(self.io._relaying.relay.counters),
            "is_up": cluster.is_up,
            "nodes": len(cluster.nodes),
        }

    async def answer_settle(self) -> dict[str, Any]:
        if self.io.cluster is not None:
            await self.io.cluster.settled()
        return {}

    async def answer_tell(self) -> dict[str, Any]:
        room, event = self.get_query_argument("room", strip=False), self.get_query_argument("event")
        here = 0
        for number in range(int(self.get_query_argument("count", "1"))):
            here = self.io.to(room).emit(event, self.name, number)
        return {"here": here}

    async def answer_talk(self) -> dict[str, Any]:
        self.talk.start(self.get_query_argument("room", strip=False), float(self.get_query_argument("every_ms")) / 1000)
        return {}

    async def answer_hush(self) -> dict[str, Any]:
        return {"told": self.talk.stop()}

    async def answer_members(self) -> dict[str, Any]:
        room = self.get_query_argument("room", strip=False)
        found = await self.io.to(room).fetch_sockets()
        present = [one.user for one in self.presence.members(room)]
        return {
            "members": sorted(one.id for one in found),
            "present": sorted(present),
            "unreached": len(found.unreached),
        }


class IframePage(RequestHandler):
    """The iframe page of /sockjs, which loads sockjs-client; that of /polysock loads polysock.js."""

    def get(self) -> None:
        self.write(iframe_page("/static/sockjs.min.js")[0])


def inherited(number: int) -> socket.socket:
    found = socket.socket(fileno=number)
    found.setblocking(False)
    return found


async def main() -> None:
    arguments = argparse.ArgumentParser(description="One node of a cluster.")
    arguments.add_argument("--name", default="a")
    arguments.add_argument("--address", default="127.0.0.1")
    arguments.add_argument("--lab-socket", type=int, help="number of an inherited listening socket")
    arguments.add_argument("--settings", type=json.loads, default={}, help="of the Server, as JSON")
    arguments.add_argument("--sockjs", required=True, help="the folder of sockjs.min.js")
    options = arguments.parse_args()
    io = make_io(**options.settings)
    for name in NAMESPACES:
        io.of(name).on("connection", lambda client: client.on("where", lambda: options.name))
    presence = io.sockets.presence(lambda room: True)
    io.sockets.allow_feed(lambda room: room.startswith(OPEN_ROOM))
    shared = {key: value for key, value in options.settings.items() if key == "origins"}
    echo = SockJSRouter(Echo, "/echo", shared, server=io)
    io.share(echo)
    application = Application(
        [
            (
                r"/lab/(\w+)",
                LabHandler,
                {"io": io, "name": options.name, "talk": Talk(io, options.name), "presence": presence},
            ),
            (r"/sockjs/iframe[\w.-]*\.html", IframePage),
            *io.routes(),
            *io.route("/sockjs"),
            *echo.urls,
            (r"/(cluster\.html)", StaticFileHandler, {"path": str(PAGES)}),
            (r"/static/(sockjs\.min\.js)", StaticFileHandler, {"path": options.sockjs}),
        ],
        log_function=lambda handler: None,
    )
    await io.start(application)
    server = HTTPServer(application)
    sockets = bind_sockets(0, options.address)
    server.add_sockets(sockets)
    url = lab = "http://{}:{}".format(*sockets[0].getsockname())
    if options.lab_socket is not None:
        extra = inherited(options.lab_socket)
        server.add_sockets([extra])
        lab = "http://{}:{}".format(*extra.getsockname())
    print(json.dumps({"url": url, "lab": lab}), flush=True)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    server.stop()
    io.close()
    await io.stop()
    echo.close()
    await server.close_all_connections()


if __name__ == "__main__":
    asyncio.run(main())
