"""The application that socket.io clients are tried with: ``python tests/interop/socketio_app.py --port 8082``.

Each of the namespaces ``/``, ``/chat`` and ``/guarded`` (which wants the token ``sesame``, as auth or in a query) knows
these events; all but the marked ones are answered by an ack.  Who has ``away`` in the query is turned away altogether.

    who am i                 {namespace, id, auth, query, transport}
    echo ...                 no ack; emits "echoed" with the same
    ack ...                  the same values
    message x                (which is "send x") no values; comes back
    ask x                    emits "question" x to the client; what that answers
    ask with a callback x    no ack; the same, and emits "answered" with what that answers
    join r, leave r          rooms
    tell r x                 emits "news" x to the room; "tell the others" leaves out the sender
    number n                 no ack; emits "numbered" n; "numbers" is the list of them all
    burst n                  no ack; emits "burst" 0 to n - 1 in one go
    kick, kick from all      no ack; ends this namespace, or the whole connection

``/lab/...`` tells what the server saw of the clients whose URLs said ``tag=...``, and starts and stops further servers
with the same application, on ports that stay theirs.  Stopping one is what a restart does: clients are told, then
nobody listens.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
from collections import Counter, defaultdict
from types import TracebackType
from typing import Any

from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from polysock import ConnectionRefused, Handshake, HTTPServer, Server, Socket

ADDRESS = "127.0.0.1"
NAMESPACES = ("/", "/chat", "/guarded")
AWKWARD_EVENT = 'n\u00e4me "of" \\ \U0001f600\u2028'
# Longer than a test waits for anything.
GIVE_UP_S = 60
CLOSING_TURNS = 5


class Visits:
    """Who came to which namespace how often, and why they left, by the tags in their URLs."""

    def __init__(self) -> None:
        self.entered: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._left: defaultdict[tuple[str, str], asyncio.Future[str]] = defaultdict(asyncio.Future)

    def enter(self, socket: Socket) -> None:
        tag = socket.handshake.query.get("tag", "")
        self.entered[tag][socket.namespace.name] += 1
        socket.on("disconnect", lambda reason: self._leave((tag, socket.namespace.name), reason))

    def _leave(self, key: tuple[str, str], reason: str) -> None:
        if not self._left[key].done():
            self._left[key].set_result(reason)

    async def left(self, tag: str, namespace: str) -> str:
        """Why the first of them left *namespace*, once it has."""
        return await asyncio.wait_for(asyncio.shield(self._left[tag, namespace]), GIVE_UP_S)


def guard(handshake: Handshake) -> bool:
    auth = handshake.auth
    token = auth.get("token") if isinstance(auth, dict) else None
    if (token or handshake.query.get("token")) != "sesame":
        raise ConnectionRefused("not authorized", {"why": "nope"})
    return True


def welcome(socket: Socket) -> None:
    """Give a new client its events."""
    numbers: list[int] = []
    room = socket.namespace.to

    def values(answer: Any) -> Any:
        """What ``call`` made of an ack's values, as values again."""
        return tuple(answer) if isinstance(answer, list) else answer

    def who_am_i() -> dict[str, Any]:
        handshake = socket.handshake
        facts = {"namespace": socket.namespace.name, "id": socket.id, "transport": socket.transport}
        return {**facts, "auth": handshake.auth, "query": handshake.query}

    async def ask(question: Any) -> Any:
        return values(await socket.call("question", question))

    def number(value: int) -> None:
        numbers.append(value)
        socket.emit("numbered", value)

    def burst(count: int) -> None:
        for value in range(count):
            socket.emit("burst", value)

    def ask_with_a_callback(question: Any) -> None:
        socket.emit("question", question, ack=lambda *answer: socket.emit("answered", *answer))

    handlers = {
        "who am i": who_am_i,
        "echo": lambda *args: socket.emit("echoed", *args) and None,
        AWKWARD_EVENT: lambda *args: socket.emit(AWKWARD_EVENT, *args) and None,
        "ack": lambda *args: args,
        "message": lambda data: socket.send(data) and None,
        "ask": ask,
        "ask with a callback": ask_with_a_callback,
        "join": socket.join,
        "leave": socket.leave,
        "tell": lambda name, text: room(name).emit("news", text),
        "tell the others": lambda name, text: socket.to(name).emit("news", text),
        "number": number,
        "numbers": lambda: numbers,
        "burst": burst,
        "kick": socket.disconnect,
        "kick from all": lambda: socket.disconnect(close=True),
    }
    for event, handler in handlers.items():
        socket.on(event, handler)


def make_io(visits: Visits | None = None, **settings: Any) -> Server:
    """A Server with the application."""
    io = Server(**settings)
    for name in NAMESPACES:
        if visits is not None:
            io.of(name).on("connection", visits.enter)
        io.of(name).on("connection", welcome)
    io.of("/guarded").authorization(guard)
    io.set("authorization", lambda handshake: "away" not in handshake.query)
    return io


class Site:
    """One server on a port of its own, which can be stopped and started again, as a new process would."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.port = 0
        self.io: Server | None = None
        self._stopped: list[Server] = []

    def start(self, port: int = 0) -> None:
        sockets = bind_sockets(self.port or port, ADDRESS)
        self.port = sockets[0].getsockname()[1]
        self.io = make_io(self.lab.visits, **self.lab.settings)
        application = Application(
            [*self.io.routes(), (r"/lab/(\w+)", LabHandler, {"lab": self.lab})], log_function=lambda handler: None
        )
        self.http = HTTPServer(application)
        self.http.add_sockets(sockets)

    async def stop(self) -> None:
        assert self.io is not None
        self.http.stop()
        self.io.close()
        self._stopped.append(self.io)
        self.io = None
        await self.http.close_all_connections()

    async def vanish(self) -> None:
        """Cut the connections that outlive the listening, as the end of a process does."""
        for io in self._stopped:
            for gateway in (gateway for endpoint in io._endpoints for gateway in endpoint.gateways):
                for session in gateway.store:
                    if session._transport is not None:
                        session._transport.abort()
        for _ in range(CLOSING_TURNS):
            await asyncio.sleep(0)  # asyncio closes what was aborted in a later turn of the loop


class Lab:
    """All sites of this process; the first is there from the start."""

    def __init__(self, port: int = 0, **settings: Any) -> None:
        """*settings*: of its Servers."""
        self._port = port
        self.settings = settings
        self.visits = Visits()
        self.sites: dict[int, Site] = {}

    @property
    def main(self) -> Site:
        return next(iter(self.sites.values()))

    @property
    def url(self) -> str:
        return f"http://{ADDRESS}:{self.main.port}"

    def spawn(self, port: int = 0) -> Site:
        site = Site(self)
        site.start(port)
        self.sites[site.port] = site
        return site

    async def __aenter__(self) -> Lab:
        self.spawn(self._port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for site in self.sites.values():
            if site.io is not None:
                await site.stop()
            await site.vanish()


class LabHandler(RequestHandler):
    def initialize(self, lab: Lab) -> None:
        self.lab = lab

    async def get(self, what: str) -> None:
        answer = getattr(self, f"answer_{what}", None)
        if answer is None:
            self.send_error(404)
            return
        self.write(await answer() or {})

    async def answer_visits(self) -> Any:
        return self.lab.visits.entered[self.get_query_argument("tag", strip=False)]

    async def answer_departure(self) -> Any:
        tag, namespace = (self.get_query_argument(name, strip=False) for name in ("tag", "namespace"))
        return {"reason": await self.lab.visits.left(tag, namespace)}

    async def answer_spawn(self) -> Any:
        return {"port": self.lab.spawn().port}

    async def answer_stop(self) -> None:
        await self.lab.sites[int(self.get_query_argument("port"))].stop()

    async def answer_start(self) -> None:
        self.lab.sites[int(self.get_query_argument("port"))].start()


async def main() -> None:
    arguments = argparse.ArgumentParser(description="The application that socket.io clients are tried with.")
    arguments.add_argument("--port", type=int, default=8082, help="0 picks a free one (default: 8082)")
    async with Lab(arguments.parse_args().port) as lab:
        print(f"listening on {lab.url}", flush=True)
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(main())
