"""socket.io-client of every generation in headless Chromium, over every transport that browsers have for it.

The browser builds come from the Server's own ``client_files``.  One page (browserlab/pages/socketio.html) plays all
scenarios at once, in a frame for each release, transport and origin; each test here is one scenario in one frame.
"""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, StaticFileHandler

from browserlab import Engine
from interop.socketio_app import ADDRESS, NAMESPACES, Lab, LabHandler, Site, make_io
from polysock import Socket
from support.clients import quiet, until
from support.hub import assert_no_ghosts
from support.needs import need_npm

__all__ = ["quiet"]

PAGES = Path(__file__).resolve().parent / "browserlab" / "pages"
PAGE_S = 290.0

#: Release -> its generation, and a build beside the main one, which pages of the other origin load.
RELEASES = {
    "0.9.17": ("0.9", "socket.io.min.js"),
    "1.7.4": ("1", "socket.io.min.js"),
    "2.5.0": ("2", "socket.io.slim.js"),
    "3.1.3": ("3", "socket.io.min.js"),
    "4.8.4": ("4", "socket.io.min.js"),
}
# JSONP came to an end with 4.0.
TRANSPORTS: dict[str, tuple[str, ...]] = dict.fromkeys(RELEASES, ("polling", "jsonp", "websocket", "upgrade"))
TRANSPORTS["0.9.17"] = ("websocket", "xhr-polling", "jsonp-polling")
TRANSPORTS["4.8.4"] = ("polling", "websocket", "upgrade")
SERVER_NAMES = {"jsonp": "polling", "upgrade": "websocket"}
#: What a page of the endpoint's own origin plays; from another origin, what browsers do differently there.
SCENARIOS = {
    "same": (
        "connect",
        "events",
        "acks",
        "server acks",
        "binary",
        "rooms",
        "burst",
        "turned away",
        "refused",
        "credentials",
        "leave",
        "kicked",
        "restart",
        "closed tab",
    ),
    "cross": ("connect", "events", "acks", "binary", "turned away", "kicked", "restart"),
}


def plays(version: str, transport: str, place: str) -> list[str]:
    """The scenarios of a frame, in order."""
    missing = set()
    if version == "0.9.17":
        missing.add("binary")
        if transport != "websocket":
            # Between two polls nobody can tell a closed tab from a slow network.
            missing.add("closed tab")
    if place == "cross" and "jsonp" in transport:
        # Scripts and forms are the same in pages of every origin, and each message costs the browser a new frame.
        missing.update(("acks", "turned away", "kicked", "restart"))
    return [scenario for scenario in SCENARIOS[place] if scenario not in missing]


LANES = [
    (version, transport, place)
    for version, transports in TRANSPORTS.items()
    for transport in transports
    for place in SCENARIOS
]
CELLS = [(*lane, scenario) for lane in LANES for scenario in plays(*lane)]


def tell_cookie(socket: Socket) -> None:
    socket.on("cookie", lambda: socket.handshake.headers.get("Cookie"))


class OpenLab(LabHandler):
    """What frames of every origin may ask."""

    def set_default_headers(self) -> None:
        self.set_header("Access-Control-Allow-Origin", "*")


class Place(Site):
    """The server of one frame: a port of its own, since a browser opens six connections to one at most."""

    friends: tuple[str, ...] = ()

    def start(self, port: int = 0) -> None:
        sockets = bind_sockets(self.port or port, ADDRESS)
        self.port = sockets[0].getsockname()[1]
        files = {generation: need_npm(f"socket.io-client-{generation}").parent for generation, _ in RELEASES.values()}
        self.io = make_io(self.lab.visits, client_files=files, origins=self.friends)
        for name in NAMESPACES:
            self.io.of(name).on("connection", tell_cookie)
        routes = [
            *self.io.routes(sockjs=None, plain=None),
            (r"/lab/(\w+)", OpenLab, {"lab": self.lab}),
            (r"/(socketio\.html)", StaticFileHandler, {"path": PAGES}),
        ]
        self.http = HTTPServer(Application(routes, log_function=lambda handler: None))
        self.http.add_sockets(sockets)

    @property
    def origin(self) -> str:
        return f"http://{ADDRESS}:{self.port}"


class Ground(Lab):
    """All the places; the first is the outer page's."""

    def spawn(self, port: int = 0) -> Place:
        place = Place(self)
        if self.sites:
            place.friends = (self.url,)
        place.start(port)
        self.sites[place.port] = place
        return place

    def frame(self, version: str, transport: str, place: str) -> str:
        """Address of the page that plays one lane."""
        server = self.spawn()
        generation, build = RELEASES[version]
        script = f"/socket.io/v{generation}/{build if place == 'cross' else 'socket.io.js'}"
        query = {
            "lane": f"{version} {transport} {place}",
            "version": version,
            "transport": transport,
            "server": server.origin,
            "script": script,
            "lab": self.url,
            "only": ",".join(plays(version, transport, place)),
        }
        return f"{self.url if place == 'cross' else server.origin}/socketio.html?{urlencode(query)}"


@dataclass
class Outcome:
    """What the page told, why the clients of its closed frames left, and what the server logged."""

    cells: dict[tuple[str, str, str, str], dict[str, Any]] = field(default_factory=dict)
    departures: dict[tuple[str, str, str], str] = field(default_factory=dict)
    noise: list[str] = field(default_factory=list)


class Log(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__(logging.WARNING)
        self.lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


async def play_all(browser: Engine, outcome: Outcome) -> None:
    async with Ground() as ground:
        addresses = [ground.frame(*lane) for lane in LANES]
        url = f"{ground.url}/socketio.html?{urlencode({'plan': json.dumps(addresses)})}"
        text = await asyncio.to_thread(browser.run, url, PAGE_S)
        assert text, f"the page did not finish within {PAGE_S:.0f} s; the engine says {browser.log[-5:]}"
        for name, cells in json.loads(text).items():
            version, transport, place = name.split(" ")
            for cell in cells:
                outcome.cells[version, transport, place, cell["scenario"]] = cell
        # The tab is closed now.
        for *lane, scenario in CELLS:
            cell = outcome.cells.get((*lane, scenario), {})
            if scenario == "closed tab" and cell.get("saw"):
                outcome.departures[tuple(lane)] = await ground.visits.left(cell["saw"]["tag"], "/chat")
        for site in list(ground.sites.values()):
            io = site.io
            assert io is not None
            await site.stop()
            await until(lambda io=io: not any(len(namespace.hub) for namespace in io.namespaces.values()))
            assert_no_ghosts(io)


@pytest.fixture(scope="module")
def outcome(chromium: Engine) -> Outcome:
    result = Outcome()
    log = Log(result.noise)
    logging.getLogger().addHandler(log)
    try:
        asyncio.run(play_all(chromium, result))
    finally:
        logging.getLogger().removeHandler(log)
    return result


@pytest.mark.parametrize(("version", "transport", "place", "scenario"), CELLS)
def test_scenario(outcome: Outcome, version: str, transport: str, place: str, scenario: str) -> None:
    cell = outcome.cells.get((version, transport, place, scenario))
    assert cell is not None, outcome.noise
    assert not cell["error"], cell["error"]
    if scenario == "connect":
        assert cell["saw"] == {"transport": SERVER_NAMES.get(transport, transport), "cookie": "guest=yes"}
    elif scenario == "closed tab":
        assert outcome.departures[version, transport, place] == "transport close"


def test_nothing_else_was_said(outcome: Outcome) -> None:
    assert set(outcome.cells) == set(CELLS)
    assert outcome.noise == []
