"""The life of a polysock.js connection in real browsers, as the list of events that a page sees, whatever happens below.

The server, the proxies of ``support.proxies`` and a control port live in one background thread.  A page that a test
writes steers them itself (``control('stop', then)``), so that "the server stops while the page waits" needs no waiting
here.  Addresses of the page: the server's own, a proxy's (then all of the page's traffic passes it), or the control
port, which is there also while the server is not.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from browserlab import knock_out
from browserlab.wire import Rpc, WireSocket
from polysock import Server
from support.proxies import Background, BlockingProxy, BufferingProxy, DroppingProxy, IdleProxy, Proxy, SlowProxy

ADDRESS = "127.0.0.1"
PAGE_S = 30
# Delays of the client in these tests, in milliseconds: small, so that five attempts take no second.
DELAY_MS, DELAY_MAX_MS, JITTER = 40, 200, 0.5
# What a transport is given to open where it cannot: far above what it takes where it can.
OPEN_MS = 700
OFTEN = {"heartbeat_delay": 0.1}

# Shorthands: an event with what can be told of it.
LOST, BACK = "disconnect transport close", ["reconnecting 1", "connecting"]
RETURN = [LOST, *BACK, "reconnect {} 1", "connect"]

PAGE = """<!DOCTYPE html><html><head><meta charset="utf-8"><title>life</title>
<script src="%(script)s"></script></head><body><script>
var SERVER = '%(server)s', CONTROL = '%(control)s', log = [], delays = [], errors = [];
window.onerror = function (message) { errors.push(String(message)); };
function control(what, then) {
  var xhr = new XMLHttpRequest();
  xhr.onload = function () { if (then) { then(xhr.responseText); } };
  xhr.open('GET', CONTROL + '/control/' + what);
  xhr.send();
}
function options(more) {
  var all = {forceNew: true, remember: false, reconnectionDelay: %(delay)s, reconnectionDelayMax: %(ceiling)s,
             randomizationFactor: %(jitter)s}, name;
  for (name in more) { all[name] = more[name]; }
  return all;
}
function tell(name) {
  return function (first, second) {
    if (name === 'reconnecting') { delays.push(first); log.push(name + ' ' + second); return; }
    log.push(name === 'reconnect' ? name + ' ' + first + ' ' + second : name === 'disconnect' ? name + ' ' + first : name);
  };
}
function record(socket) {
  var names = ['connecting', 'connect', 'connect_failed', 'disconnect', 'reconnecting', 'reconnect', 'reconnect_failed', 'error'];
  for (var i = 0; i < names.length; i += 1) { socket.on(names[i], tell(names[i])); }
  return socket;
}
function finish(extra) {
  window.__result = JSON.stringify({log: log, delays: delays, errors: errors, extra: extra === undefined ? null : extra});
}
%(body)s
</script></body></html>"""


class Quiet(Application):
    def log_request(self, handler: RequestHandler) -> None:
        """The browsers' requests are no news, nor are those that a stopped server refuses."""


class Page(RequestHandler):
    def get(self, number: str) -> None:
        stage: Stage = self.settings["stage"]
        self.set_header("Cache-Control", "max-age=60")
        self.write(stage.pages[int(number)])


class Control(RequestHandler):
    async def get(self, what: str) -> None:
        stage: Stage = self.settings["stage"]
        self.set_header("Access-Control-Allow-Origin", "*")
        self.write(str(await stage.controls[what]()))


class Everything503(RequestHandler):
    def prepare(self) -> None:
        self.set_status(503)
        self.finish("not now")


class Stage:
    """A server that can be stopped and started again at its port, proxies before it, and the pages that steer both."""

    def __init__(self, thread: Background) -> None:
        self.thread = thread
        self.pages: list[str] = []
        self.controls: dict[str, Callable[[], Awaitable[object]]] = {}
        self.proxies: list[Proxy] = []
        self.io: Server | None = None
        self.http: HTTPServer | None = None
        # Keeps the port ours while the server is stopped: what is bound and does not listen refuses connections.
        self.reservation = socket.socket()
        self.reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self.reservation.bind((ADDRESS, 0))
        self.port = self.reservation.getsockname()[1]
        self.origin = f"http://{ADDRESS}:{self.port}"
        thread.call(self.open_control())
        self.fresh()

    async def open_control(self) -> None:
        routes = [(r"/control/(\w+)", Control), (r"/page/(\d+)", Page), *Server().routes()]
        self.control_http = HTTPServer(Quiet(routes, stage=self))
        sockets = bind_sockets(0, ADDRESS)
        self.control_http.add_sockets(sockets)
        self.control_origin = f"http://{ADDRESS}:{sockets[0].getsockname()[1]}"

    def fresh(self) -> None:
        """As each test finds it: stopped, without proxies, with the usual controls."""
        self.settings: dict[str, Any] = {}
        self.released = asyncio.Event()
        self.controls = {"start": self.start, "stop": self.stop, "restart": self.restart, "release": self.release}

    async def start(self, *, refusing: bool = False) -> None:
        self.io = Server(origins=[self.control_origin], **self.settings)
        self.io.on("connection", self.greet)
        slow = self.io.of("/slow")

        async def authorize(handshake: Any) -> bool:
            await self.released.wait()
            return True

        slow.authorize = authorize
        routes = [(".*", Everything503)] if refusing else [*self.io.routes(), (r"/page/(\d+)", Page)]
        self.http = HTTPServer(Quiet(routes, stage=self))
        self.http.add_sockets(bind_sockets(self.port, ADDRESS, reuse_port=True))

    @staticmethod
    def greet(client: Any) -> None:
        client.on("echo", lambda *args: client.emit("echo", *args) and None)
        client.on("ask", lambda *args: list(args))

    async def stop(self) -> None:
        if self.http and self.io:
            self.http.stop()
            self.io.close()
            await self.http.close_all_connections()
        self.http = self.io = None

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    async def release(self) -> None:
        self.released.set()

    async def close(self) -> None:
        for proxy in self.proxies:
            await proxy.stop()
        self.proxies = []
        await self.stop()

    def behind(self, proxy: Proxy) -> Proxy:
        """*proxy* before this server, started."""
        self.thread.call(proxy.start())
        self.proxies.append(proxy)
        return proxy

    def page(self, body: str, origin: str | None = None) -> str:
        """Address of a page that runs *body*, under *origin* (the server's own unless given)."""
        script = f"{self.control_origin}/polysock/polysock.js" if origin == self.control_origin else "/polysock/polysock.js"
        facts = {"delay": DELAY_MS, "ceiling": DELAY_MAX_MS, "jitter": JITTER, "script": script, "body": body}
        target = self.origin if origin in (None, self.control_origin) else origin
        self.pages.append(PAGE % {**facts, "server": target, "control": self.control_origin})
        return f"{origin or self.origin}/page/{len(self.pages) - 1}"

    def run(self, engine: Any, body: str, origin: str | None = None, preload: str | None = None) -> dict[str, Any]:
        """What the page *body* told at its end; no script may have failed in it."""
        text = engine.run(self.page(body, origin), timeout=PAGE_S, preload=preload)
        assert text, f"the page did not finish; the engine says {engine.log[-5:]}"
        answer: dict[str, Any] = json.loads(text)
        assert answer["errors"] == []
        return answer


@pytest.fixture(scope="module")
def whole_stage() -> Iterator[Stage]:
    with Background() as thread:
        stage = Stage(thread)
        yield stage
        stage.control_http.stop()
        thread.call(stage.control_http.close_all_connections())
        stage.reservation.close()


@pytest.fixture
def stage(whole_stage: Stage) -> Iterator[Stage]:
    """Stopped, until the test or its page starts it."""
    whole_stage.fresh()
    yield whole_stage
    whole_stage.thread.call(whole_stage.close())


@pytest.fixture
def running(stage: Stage) -> Stage:
    stage.thread.call(stage.start())
    return stage


def returned(transport: str) -> list[str]:
    return [entry.format(transport) for entry in RETURN]


def assert_delays(delays: list[int]) -> None:
    """Each within the jitter around a doubling delay, none above the ceiling."""
    for number, delay in enumerate(delays):
        middle = min(DELAY_MAX_MS, DELAY_MS * 2**number)
        assert middle * (1 - JITTER) <= delay <= min(DELAY_MAX_MS, middle * (1 + JITTER)), (number, delays)


# -- the server comes and goes

ENGINES = ["chromium", "firefox"]


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("transport", ["websocket", "xhr-streaming", "xhr-polling"])
def test_a_server_that_stops_and_starts_again(
    request: pytest.FixtureRequest, running: Stage, name: str, transport: str
) -> None:
    answer = running.run(
        request.getfixturevalue(name),
        """
        var socket = record(io(SERVER, options({transports: ['%s']}))), connects = 0;
        socket.on('connect', function () {
          connects += 1;
          if (connects === 1) { control('stop'); return; }
          socket.emit('ask', 'still there?', function (words) { finish(words); });
        });
        socket.on('reconnecting', function (delay, attempt) { if (attempt === 4) { control('start'); } });
        """
        % transport,
    )
    # How many more attempts it takes depends on how quickly the server starts.
    count = len(answer["delays"])
    attempts = [entry for number in range(1, count + 1) for entry in (f"reconnecting {number}", "connecting")]
    assert count >= 4
    assert answer["log"] == [
        *("connecting", "connect", LOST),
        *attempts,
        *(f"reconnect {transport} {count}", "connect"),
    ]
    assert_delays(answer["delays"])
    assert answer["extra"] == ["still there?"]


def test_delays_grow_to_a_ceiling_and_differ(stage: Stage, chromium: Any) -> None:
    """Six clients against nothing, eight further attempts each."""
    answer = stage.run(
        chromium,
        """
        var all = [], open = 6;
        for (var i = 0; i < 6; i += 1) { one(); }
        function one() {
          var socket = io(SERVER, options({reconnectionAttempts: 8})), mine = [], failures = 0;
          socket.on('reconnecting', function (delay) { mine.push(delay); });
          socket.on('connect_failed', function () {
            failures += 1;
            if (failures < 9) { return; }
            all.push(mine);
            open -= 1;
            if (!open) { finish(all); }
          });
        }
        """,
        stage.control_origin,
    )
    for delays in answer["extra"]:
        assert len(delays) == 8
        assert_delays(delays)
    # Clients that were lost together must not come back together.
    assert len({tuple(delays[:3]) for delays in answer["extra"]}) == 6
