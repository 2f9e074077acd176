"""The life of a polysock.js connection in real browsers: the list of events that a page sees, whatever happens below.

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

from browserlab.wire import Rpc, WireSocket
from polysock import Server
from support.proxies import (
    Background,
    BlockingProxy,
    BufferingProxy,
    DroppingProxy,
    HoldingProxy,
    IdleProxy,
    Proxy,
    SlowProxy,
)

ADDRESS = "127.0.0.1"
PAGE_S = 60
# Delays of the client in these tests, in milliseconds: small, so that five attempts take no second.
DELAY_MS, DELAY_MAX_MS, JITTER = 40, 200, 0.5
# What a transport is given to open where it cannot: far above what it takes where it can.
OPEN_MS = 1500
OFTEN = {"heartbeat_delay": 0.1}

# Shorthands: an event with what can be told of it.
LOST, BACK = "disconnect transport close", ["reconnecting 1", "connecting"]
RETURN = [LOST, *BACK, "reconnect {} 1", "connect"]

PAGE = """<!DOCTYPE html><html><head><meta charset="utf-8"><title>life</title>
<script src="/polysock/polysock.js"></script></head><body><script>
var GIVEN = %(given)s, log = [], delays = [], errors = [];
var SERVER = GIVEN.server, CONTROL = GIVEN.control;
window.onerror = function (message) { errors.push(String(message)); };
function control(what, then) {
  var xhr = new XMLHttpRequest();
  xhr.onload = function () { if (then) { then(xhr.responseText); } };
  xhr.open('GET', CONTROL + '/control/' + what);
  xhr.send();
}
function options(more) {
  var all = {forceNew: true, remember: false, openTimeout: 15000, reconnectionDelay: GIVEN.delay,
             reconnectionDelayMax: GIVEN.ceiling, randomizationFactor: GIVEN.jitter}, name;
  for (name in more) { all[name] = more[name]; }
  return all;
}
function told(name, first, second) {
  if (name === 'reconnecting') { delays.push(first); return name + ' ' + second; }
  return name === 'reconnect' ? name + ' ' + first + ' ' + second : name === 'disconnect' ? name + ' ' + first : name;
}
function record(socket) {
  var names = 'connecting connect connect_failed disconnect reconnecting reconnect reconnect_failed error', i;
  names = names.split(' ');
  function listen(name) {
    socket.on(name, function (first, second) { log.push(told(name, first, second)); });
  }
  for (i = 0; i < names.length; i += 1) { listen(names[i]); }
  return socket;
}
function finish(extra) {
  extra = extra === undefined ? null : extra;
  window.__result = JSON.stringify({log: log, delays: delays, errors: errors, extra: extra});
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

    def page(self, body: str, origin: str | None = None, **given: object) -> str:
        """Address of a page that runs *body*, under *origin* (the server's own unless given); *given*: its GIVEN."""
        origin = origin or self.origin
        server = self.origin if origin == self.control_origin else origin
        given |= {"delay": DELAY_MS, "ceiling": DELAY_MAX_MS, "jitter": JITTER, "open": OPEN_MS}
        given |= {"server": server, "control": self.control_origin}
        self.pages.append(PAGE % {"given": json.dumps(given), "body": body})
        return f"{origin}/page/{len(self.pages) - 1}"

    def run(self, engine: Any, body: str, origin: str | None = None, **given: object) -> dict[str, Any]:
        """What the page *body* told at its end; no script may have failed in it."""
        text = engine.run(self.page(body, origin, **given), timeout=PAGE_S)
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
        var socket = record(io(SERVER, options({transports: [GIVEN.transport]}))), connects = 0;
        socket.on('connect', function () {
          connects += 1;
          if (connects === 1) { control('stop'); return; }
          socket.emit('ask', 'still there?', function (words) { finish(words); });
        });
        socket.on('reconnecting', function (delay, attempt) { if (attempt === 4) { control('start'); } });
        """,
        transport=transport,
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


@pytest.mark.parametrize("name", ENGINES)
def test_a_first_connection_that_fails_is_tried_again(request: pytest.FixtureRequest, stage: Stage, name: str) -> None:
    """Nobody listens at first.  It never was connected, so there is no ``reconnect``."""
    answer = stage.run(
        request.getfixturevalue(name),
        """
        var socket = record(io(SERVER, options())), error;
        socket.on('connect_failed', function (found) { error = found; });
        socket.on('reconnecting', function (delay, attempt) { if (attempt === 2) { control('start'); } });
        socket.on('connect', function () { finish([error.step, error.message]); });
        """,
        stage.control_origin,
    )
    count = len(answer["delays"])
    attempts = [
        entry for number in range(1, count + 1) for entry in ("connect_failed", f"reconnecting {number}", "connecting")
    ]
    assert answer["log"] == ["connecting", *attempts, "connect"]
    step, message = answer["extra"]
    assert step == f"asking {stage.origin}/polysock/info"
    assert "look whether the server runs" in message


def test_a_server_that_answers_503_until_it_does_not(stage: Stage, chromium: Any) -> None:
    stage.controls["refuse"] = lambda: stage.start(refusing=True)
    answer = stage.run(
        chromium,
        """
        control('refuse', function () {
          var socket = record(io(SERVER, options())), failed;
          socket.on('connect_failed', function (error) { failed = [error.status, error.message]; });
          socket.on('reconnecting', function (delay, attempt) { if (attempt === 1) { control('restart'); } });
          socket.on('connect', function () { finish(failed); });
        });
        """,
        stage.control_origin,
    )
    count = len(answer["delays"])
    attempts = [
        entry for number in range(1, count + 1) for entry in ("connect_failed", f"reconnecting {number}", "connecting")
    ]
    assert answer["log"] == ["connecting", *attempts, "connect"]


def test_a_refusal_names_status_and_place(stage: Stage, running: Stage, chromium: Any) -> None:
    """The page is of the server's own origin, so that the browser shows the status of the refusal."""
    stage.controls["refuse"] = lambda: stage.start(refusing=True)
    answer = stage.run(
        chromium,
        """
        control('stop', function () { control('refuse', function () {
          record(io(SERVER, options({reconnection: false}))).on('connect_failed', function (error) {
            setTimeout(function () { finish([error.status, error.step, error.message]); }, 0);
          });
        }); });
        """,
    )
    assert answer["log"] == ["connecting", "connect_failed"]
    status, step, message = answer["extra"]
    assert status == 503
    assert step == f"asking {stage.origin}/polysock/info"
    assert "HTTP 503" in message
    assert "look at the log of the server" in message


def test_a_server_that_never_comes_back(running: Stage, chromium: Any) -> None:
    answer = running.run(
        chromium,
        """
        var socket = record(io(SERVER, options({reconnectionAttempts: 2})));
        socket.on('connect', function () { control('stop'); });
        socket.on('reconnect_failed', function (error) {
          /* Asked for again, it begins as at first. */
          control('start', function () {
            socket.connect();
            socket.on('connect', function () { finish(error.message); });
          });
        });
        """,
    )
    assert answer["log"] == [
        *("connecting", "connect", LOST),
        *("reconnecting 1", "connecting", "reconnecting 2", "connecting", "reconnect_failed"),
        *("connecting", "connect"),
    ]
    assert "look whether the server runs" in answer["extra"]


def test_a_slow_server_is_waited_for(running: Stage, chromium: Any) -> None:
    """Every piece from the server comes a third of a second late: still the first transport, at the first attempt."""
    proxy = running.behind(SlowProxy(running.port, 0.3))
    answer = running.run(
        chromium,
        """
        var socket = record(io(SERVER, options()));
        socket.on('connect', function () { socket.emit('ask', 1, function () { finish(socket.io.transport); }); });
        """,
        proxy.origin,
    )
    assert answer["log"] == ["connecting", "connect"]
    assert answer["extra"] == "websocket"


def test_a_namespace_that_is_slow_to_answer(running: Stage, chromium: Any) -> None:
    """Its authorize hook takes longer than the client's patience, until it does not."""
    answer = running.run(
        chromium,
        """
        var socket = record(io(SERVER + '/slow', options({timeout: 200}))), error;
        socket.on('connect_failed', function (found) { error = found; control('release'); });
        socket.on('connect', function () { finish([error.step, error.transport, error.message]); });
        """,
    )
    assert answer["log"][:4] == ["connecting", "connect_failed", "reconnecting 1", "connecting"]
    assert answer["log"][-1] == "connect"
    step, transport, message = answer["extra"]
    assert (step, transport) == ("joining a namespace", "websocket")
    assert "no answer within 200 ms" in message
    assert "authorize" in message


# -- on the way


# A frame whose page breaks off tells nobody, other than all of these: for htmlfile see the next test.
DROPPED = ["websocket", "xhr-streaming", "eventsource", "xhr-polling", "jsonp-polling"]


@pytest.mark.parametrize("name", ENGINES)
def test_a_connection_that_breaks_within_a_message(request: pytest.FixtureRequest, running: Stage, name: str) -> None:
    """Each transport in turn.  Nobody ever sees half a message, and the next one arrives whole."""
    proxy = running.behind(DroppingProxy(running.port, 5000))

    async def arm() -> None:
        proxy.armed = True

    running.controls["arm"] = arm
    answer = running.run(
        request.getfixturevalue(name),
        """
        var transports = GIVEN.transports, found = {}, long = new Array(9001).join('x');
        function next() {
          var transport = transports.shift(), socket, got = [], connects = 0;
          if (!transport) { finish(found); return; }
          log = [];
          socket = record(io(SERVER, options({transports: [transport]})));
          socket.on('echo', function (text) {
            got.push(text.length);
            found[transport] = {log: log, got: got};
            socket.disconnect();
            next();
          });
          socket.on('connect', function () {
            connects += 1;
              if (connects === 2) { socket.emit('echo', 'short'); return; }
            control('arm', function () { socket.emit('echo', long); });
          });
        }
        next();
        """,
        proxy.origin,
        transports=DROPPED,
    )
    for transport in DROPPED:
        life = ["connecting", "connect", *returned(transport)]
        assert answer["extra"][transport] == {"log": [*life, "disconnect io client disconnect"], "got": [5]}, transport
    assert proxy.spoiled == len(DROPPED)


@pytest.mark.parametrize("name", ENGINES)
def test_silence_tells_what_a_forever_frame_does_not(request: pytest.FixtureRequest, stage: Stage, name: str) -> None:
    """The frame of htmlfile stays "loading" when its connection breaks; that no heartbeats come any more counts."""
    stage.settings = OFTEN
    stage.thread.call(stage.start())
    proxy = stage.behind(DroppingProxy(stage.port, 5000))

    async def arm() -> None:
        proxy.armed = True

    stage.controls["arm"] = arm
    answer = stage.run(
        request.getfixturevalue(name),
        """
        var socket = record(io(SERVER, options({transports: ['htmlfile'], silence: 2000})));
        var got = [], connects = 0, why;
        socket.on('echo', function (text) { got.push(text.length); finish([got, why]); });
        socket.on('disconnect', function (reason, details) { why = details.error.message; });
        socket.on('connect', function () {
          connects += 1;
          if (connects === 2) { socket.emit('echo', 'short'); return; }
          control('arm', function () { socket.emit('echo', new Array(9001).join('x')); });
        });
        """,
        proxy.origin,
    )
    assert answer["log"] == ["connecting", "connect", "disconnect ping timeout", *returned("htmlfile")[1:]]
    got, why = answer["extra"]
    assert got == [5]
    assert "not even a heartbeat" in why


# The form with a message is held on the way, while the long timers of the page run fifty times as fast.
HELD = """
var socket = record(io(SERVER, options({transports: ['jsonp-polling']}))), real = window.setTimeout, connects = 0, why;
socket.on('disconnect', function (reason, details) {
  window.setTimeout = real;
  why = details.error.message;
  control('let_go');
});
socket.on('connect', function () {
  connects += 1;
  if (connects === 2) { finish(why); return; }
  control('hold', function () {
    window.setTimeout = function (work, ms) { return real(work, ms < 5000 ? ms : ms / 50); };
    socket.emit('ask', 'kept', function (words) { finish(words[0]); });
    %s
  });
});
"""


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("is_let_go", [True, False])
def test_a_form_that_takes_long(request: pytest.FixtureRequest, running: Stage, name: str, is_let_go: bool) -> None:
    """It is given as long as every other POST, and what never gets an answer is a loss that the page hears of."""
    proxy = HoldingProxy(running.port, b"/jsonp_send")
    running.behind(proxy)

    async def hold() -> None:
        proxy.free.clear()

    async def let_go() -> None:
        proxy.free.set()

    running.controls |= {"hold": hold, "let_go": let_go}
    answer = running.run(
        request.getfixturevalue(name),
        HELD % ("real(function () { control('let_go'); }, 500);" if is_let_go else ""),
        proxy.origin,
    )
    if is_let_go:
        assert answer["log"] == ["connecting", "connect"]
        assert answer["extra"] == "kept"
    else:
        assert answer["log"] == ["connecting", "connect", *returned("jsonp-polling")]
        assert "no answer to a POST within 60 seconds" in answer["extra"]
    assert proxy.spoiled == 1


# What a page does behind a proxy: connects, sees that both ways work, and connects once more, to use what it remembers.
TWICE = """
polysock.forget();
var first = record(io(SERVER, options({remember: true, openTimeout: GIVEN.open}))), tried = [], transport;
first.on('connect', function () {
  first.emit('ask', 'through?', function (words) {
    transport = first.io.transport;
    first.disconnect();
    var second = io(SERVER, options({remember: true, openTimeout: GIVEN.open}));
    second.on('connecting', function (name) { tried.push(name); });
    second.on('connect', function () { finish([words[0], transport, tried, second.io.transport]); });
  });
});
"""


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("answer", ["400", "drop", "silence"])
def test_a_proxy_that_lets_no_websocket_through(
    request: pytest.FixtureRequest, running: Stage, name: str, answer: str
) -> None:
    """Also where the WebSocket seems to open: only what has carried something counts."""
    proxy = running.behind(BlockingProxy(running.port, answer))
    seen = running.run(request.getfixturevalue(name), TWICE, proxy.origin)
    assert seen["log"] == ["connecting", "connect", "disconnect io client disconnect"]
    assert seen["extra"] == ["through?", "xhr-streaming", ["xhr-streaming"], "xhr-streaming"]
    # The second connection did not try it again.
    assert proxy.spoiled == 1


@pytest.mark.parametrize("name", ENGINES)
def test_a_proxy_that_holds_responses_back(request: pytest.FixtureRequest, running: Stage, name: str) -> None:
    """No streaming transport gets anything through, and long polling does."""
    proxy = running.behind(BufferingProxy(running.port))
    seen = running.run(request.getfixturevalue(name), TWICE, proxy.origin)
    assert seen["log"] == ["connecting", "connect", "disconnect io client disconnect"]
    assert seen["extra"] == ["through?", "xhr-polling", ["xhr-polling"], "xhr-polling"]
    assert proxy.spoiled > 1


@pytest.mark.parametrize("transport", ["websocket", "xhr-streaming", "xhr-polling"])
def test_a_proxy_that_cuts_idle_connections(running: Stage, chromium: Any, transport: str) -> None:
    """With heartbeats that are too rare for it: the client comes back each time."""
    proxy = running.behind(IdleProxy(running.port, 0.6))
    answer = running.run(
        chromium,
        """
        var socket = record(io(SERVER, options({transports: [GIVEN.transport]}))), connects = 0;
        socket.on('connect', function () {
          connects += 1;
          if (connects === 3) { socket.emit('ask', connects, function (words) { finish(words[0]); }); }
        });
        """,
        proxy.origin,
        transport=transport,
    )
    assert answer["log"] == ["connecting", "connect", *returned(transport), *returned(transport)]
    assert answer["extra"] == 3


@pytest.mark.parametrize("transport", ["websocket", "xhr-streaming", "xhr-polling"])
def test_heartbeats_keep_a_connection_through_such_a_proxy(stage: Stage, chromium: Any, transport: str) -> None:
    stage.settings = OFTEN
    stage.thread.call(stage.start())
    proxy = stage.behind(IdleProxy(stage.port, 0.5))
    answer = stage.run(
        chromium,
        """
        var socket = record(io(SERVER, options({transports: [GIVEN.transport]})));
        socket.on('connect', function () {
          /* Nothing but heartbeats travels for three times as long as the proxy allows. */
          setTimeout(function () { socket.emit('ask', 'still', function (words) { finish(words[0]); }); }, 1500);
        });
        """,
        proxy.origin,
        transport=transport,
    )
    assert answer["log"] == ["connecting", "connect"]
    assert answer["extra"] == "still"


# -- deliberately


@pytest.mark.parametrize("transport", ["websocket", "xhr-streaming", "xhr-polling", "jsonp-polling"])
def test_a_deliberate_end_is_the_end(running: Stage, chromium: Any, transport: str) -> None:
    """While connecting, while connected, and while waiting to come back; the server stops and starts after each."""
    answer = running.run(
        chromium,
        """
        var calm = 2 * GIVEN.ceiling, lives = [];
        function life(leave, next) {
          log = [];
          lives.push(log);
          var socket = record(io(SERVER, options({transports: [GIVEN.transport]})));
          leave(socket, function () {
            socket.disconnect();
            control('restart', function () { setTimeout(next, calm); });
          });
        }
        life(function (socket, gone) { socket.once('connecting', gone); }, function () {
          life(function (socket, gone) { socket.once('connect', gone); }, function () {
            life(function (socket, gone) {
              socket.once('connect', function () { control('stop'); });
              socket.once('reconnecting', gone);
            }, function () {
              life(function (socket, gone) {
                socket.once('connect', function () { control('restart'); });
                socket.once('disconnect', gone);
              }, function () { finish(lives); });
            });
          });
        });
        """,
        transport=transport,
    )
    assert answer["extra"] == [
        ["connecting"],
        ["connecting", "connect", "disconnect io client disconnect"],
        ["connecting", "connect", LOST, "reconnecting 1"],
        ["connecting", "connect", LOST],
    ]


# -- the page goes and comes back


LEAVING = """
var persisted = null, connects = 0, socket;
window.onpageshow = function (event) { persisted = event.persisted; };
socket = record(io(SERVER, options({transports: [GIVEN.transport]})));
socket.on('connect', function () {
  connects += 1;
  socket.emit('ask', connects, function (words) { finish([words[0], persisted]); });
});
"""


@pytest.mark.parametrize("transport", ["websocket", "xhr-streaming", "eventsource", "xhr-polling", "jsonp-polling"])
def test_back_to_a_page_from_the_cache(running: Stage, chromium: Any, transport: str) -> None:
    """Chromium keeps the page while it is away: nothing of the client forbids that, and it comes back with the page."""
    target = chromium.rpc.call("Target.createTarget", {"url": "about:blank"})["targetId"]
    page = Rpc(WireSocket(ADDRESS, chromium.port, f"/devtools/page/{target}"))

    def answer_of(connects: int) -> dict[str, Any]:
        def ask() -> dict[str, Any] | None:
            try:
                out = page.call("Runtime.evaluate", {"expression": "window.__result || ''", "returnByValue": True})
            except RuntimeError:  # the page is being replaced
                return None
            text = out.get("result", {}).get("value")
            found: dict[str, Any] | None = json.loads(text) if text else None
            return found if found and found["extra"][0] == connects else None

        answer = chromium.poll(ask, PAGE_S)
        assert answer, [event for event in page.events if "backForwardCache" in event["method"]]
        return answer

    def history_of_two() -> dict[str, Any] | None:
        try:
            found = page.call("Page.getNavigationHistory")
        except RuntimeError:
            return None
        return found if found["entries"][found["currentIndex"]]["title"] == "elsewhere" else None

    try:
        page.call("Page.enable")
        page.call("Page.navigate", {"url": running.page(LEAVING, transport=transport)})
        assert answer_of(1)["log"] == ["connecting", "connect"]
        page.call("Page.navigate", {"url": running.page("document.title = 'elsewhere';")})
        history = chromium.poll(history_of_two, PAGE_S)
        page.call("Page.navigateToHistoryEntry", {"entryId": history["entries"][history["currentIndex"] - 1]["id"]})
        answer = answer_of(2)
    finally:
        page.wire.close()
        chromium.rpc.call("Target.closeTarget", {"targetId": target})
        chromium.rpc.events.clear()
    assert answer["log"] == ["connecting", "connect", *returned(transport)]
    # The very page, not one that was loaded again.
    assert answer["extra"] == [2, True]
    assert answer["errors"] == []
