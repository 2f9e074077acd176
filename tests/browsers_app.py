"""The server of test_browsers_sockjs_client.py: SockJS endpoints, the page that uses them, and a record of both sides.

One application on two ports, which browsers take for two origins: endpoints are used on the first, pages on either.
For each release of the client there are endpoints whose iframe page loads that release:

    /NAME/echo      echoes; closes with 3000 after echoing ``GO``; lets pages of both origins in
    /NAME/close     closes with 3000 as soon as a client comes; the same origins
    /NAME/guarded   echoes, with the default policy: pages of its own origin only

``/decoy/info`` is what a hostile page would use to steer a client past the /info of an endpoint that refuses it.
``/visits`` tells of all sessions, by the server part of their URLs, ``/requests`` of all requests.

    python tests/browsers_app.py NAME=path/of/sockjs.min.js ...

prints the two origins as a JSON list once it listens.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler, StaticFileHandler

from polysock import Connection, HTTPServer, SockJSRouter

PAGES = Path(__file__).resolve().parent / "browserlab" / "pages"
ADDRESS = "127.0.0.1"
GO = "close me"
LEAVING = (3000, "Go away!")
# Long after the last session should have ended; /visits then answers with what there is.
VISITS_END_S = 20
COMMON = {
    # Small, so that streams end and are taken up again in the middle of a test.
    "response_limit": 4096,
    # Removing a script element does not end its request in most browsers: a closed JSONP session is noticed when the
    # poll ends, so let it end soon.
    "heartbeat_delay": 2,
    "disconnect_delay": 3,
}


@dataclass
class Visit:
    """One session, as the application sees it."""

    transport: str
    cookie: str | None
    origin: str | None
    messages: int = 0
    closes: list[int] = field(default_factory=list)


class Record:
    """All visits and requests of this process."""

    def __init__(self) -> None:
        self.visits: defaultdict[str, list[Visit]] = defaultdict(list)
        self.requests: list[dict[str, Any]] = []
        self.changed = asyncio.Condition()

    async def ended(self) -> None:
        """Wait until every session so far has ended."""
        async with self.changed:
            await self.changed.wait_for(
                lambda: all(visit.closes for visits in self.visits.values() for visit in visits)
            )

    def log(self, handler: RequestHandler) -> None:
        request = handler.request
        headers = {name.lower(): request.headers.get(name) for name in ("Origin", "Referer", "User-Agent")}
        self.requests.append(
            {"method": request.method, "path": request.path, "status": handler.get_status(), **headers}
        )


def endpoints(record: Record, name: str, script: Path, friends: list[str]) -> list[SockJSRouter]:
    class Echo(Connection):
        visit: Visit

        def on_open(self, info: Any) -> None:
            cookie = info.cookies.get("visitor")
            self.visit = Visit(self.session.transport_name, cookie and cookie.value, info.origin)
            record.visits[info.path.split("/")[3]].append(self.visit)

        def on_message(self, message: str | bytes) -> None:
            self.visit.messages += 1
            self.send(message)
            if message == GO:
                self.close(*LEAVING)

        async def on_close(self) -> None:
            assert self.close_reason is not None
            self.visit.closes.append(self.close_reason.code)
            async with record.changed:
                record.changed.notify_all()

    class Close(Echo):
        def on_open(self, info: Any) -> None:
            super().on_open(info)
            self.close(*LEAVING)

    settings = {**COMMON, "sockjs_file": script}
    return [
        SockJSRouter(Echo, f"/{name}/echo", {**settings, "origins": friends}),
        SockJSRouter(Close, f"/{name}/close", {**settings, "origins": friends}),
        SockJSRouter(Echo, f"/{name}/guarded", settings),
    ]


class RecordHandler(RequestHandler):
    def initialize(self, record: Record) -> None:
        self.record = record


class Visits(RecordHandler):
    async def get(self) -> None:
        """All visits; with ``wait``, when all of them have ended."""
        if self.get_query_argument("wait", ""):
            # What has not ended by then, the test sees in the answer.
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.record.ended(), VISITS_END_S)
        self.write({label: [asdict(visit) for visit in visits] for label, visits in self.record.visits.items()})


class Requests(RecordHandler):
    def get(self) -> None:
        self.write({"requests": self.record.requests})


class Decoy(RequestHandler):
    def initialize(self, endpoint: str) -> None:
        self.endpoint = endpoint

    def get(self) -> None:
        facts = {"websocket": True, "origins": ["*:*"], "cookie_needed": False, "entropy": 1}
        self.write({**facts, "base_url": self.endpoint})


class Script(RequestHandler):
    def initialize(self, scripts: dict[str, Path]) -> None:
        self.scripts = scripts

    def get(self, name: str) -> None:
        self.set_header("Content-Type", "text/javascript; charset=UTF-8")
        self.write(self.scripts[name].read_bytes())


async def main(scripts: dict[str, Path]) -> None:
    ports = [bind_sockets(0, ADDRESS) for _ in range(2)]
    origins = [f"http://{ADDRESS}:{sockets[0].getsockname()[1]}" for sockets in ports]
    record = Record()
    routers = [router for name, script in scripts.items() for router in endpoints(record, name, script, origins[1:])]
    guarded = f"{origins[0]}/{next(iter(scripts))}/guarded"
    application = Application(
        [
            *(spec for router in routers for spec in router.urls),
            ("/visits", Visits, {"record": record}),
            ("/requests", Requests, {"record": record}),
            ("/decoy/info", Decoy, {"endpoint": guarded}),
            (r"/static/(\w+)\.js", Script, {"scripts": scripts}),
            (r"/(\w+\.html)", StaticFileHandler, {"path": str(PAGES)}),
        ],
        log_function=record.log,
    )
    server = HTTPServer(application)
    for sockets in ports:
        server.add_sockets(sockets)
    print(json.dumps(origins), flush=True)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    server.stop()
    for router in routers:
        router.close()
    await server.close_all_connections()


if __name__ == "__main__":
    asyncio.run(main({name: Path(path) for name, path in (word.split("=", 1) for word in sys.argv[1:])}))
