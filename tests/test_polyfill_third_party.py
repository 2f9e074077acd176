"""Programs of others, written for ``new WebSocket`` and not changed, over every transport of polysock.js.

reconnecting-websocket and sockette take the global WebSocket, as pages do.  What each sees over the browser's own
WebSocket, at the raw endpoint, is what it has to see over everything else.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from browserlab import STANDINS, knock_out
from polysock import Connection, SockJSRouter
from support.needs import need_npm
from support.proxies import Background

ADDRESS = "127.0.0.1"
PAGE_S = 60
ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = {
    "polysock.min.js": lambda: ROOT / "static" / "polysock.min.js",
    "reconnecting-websocket": lambda: need_npm("reconnecting-websocket", "dist/reconnecting-websocket-iife.min.js"),
    "sockette": lambda: need_npm("sockette", "dist/sockette.min.js"),
}
PROGRAMS = ["reconnecting-websocket", "sockette"]

# The page is ES3: old engines run it too. In the query: the program, and a JSON list of transports, each forced in
# turn by install(); null installs nothing, and "" leaves the choice to the client.
PAGE = r"""<!DOCTYPE html><html><head><meta http-equiv="Content-Type" content="text/html; charset=utf-8">
<title>not written for polysock</title>
<script type="text/javascript" src="/script/polysock.min.js"></script>
<script type="text/javascript" src="/script/%(program)s"></script></head><body><script type="text/javascript">
var transports = %(transports)s, found = {}, errors = [];
var TEXT = 'gr\u00fc\u00df \u20ac \ud83d\ude00 \u2028 <\/script> %%';
window.onerror = function (message) { errors.push(String(message)); };

/* The polyfill's own object, to see which transport it took. */
function watched(saw) {
  var Mine = window.WebSocket;
  if (!Mine || !Mine.isPolySock) { return; }
  window.WebSocket = function (url, protocols) {
    var socket = protocols && protocols.length ? new Mine(url, protocols) : new Mine(url);
    socket.addEventListener('open', function () { saw.transport = socket.transport; });
    return socket;
  };
  window.WebSocket.CONNECTING = 0;
  window.WebSocket.OPEN = 1;
  window.WebSocket.CLOSING = 2;
  window.WebSocket.CLOSED = 3;
  window.WebSocket.isPolySock = true;
}

function fact(event) { return 'close ' + event.code + ' ' + event.reason + ' ' + event.wasClean; }

var PROGRAM = {
  'reconnecting-websocket': function (url, log, done) {
    var rws = new ReconnectingWebSocket(url, [], {
      minReconnectionDelay: 30, maxReconnectionDelay: 60, connectionTimeout: 9000
    });
    rws.send('early');                                    /* it keeps this until it is open */
    log.push('readyState ' + rws.readyState);
    rws.onopen = function () {
      log.push('open ' + rws.readyState + ' ' + rws.protocol + rws.extensions);
      if (log.opened) { rws.send('again'); }
      log.opened = true;
    };
    rws.addEventListener('message', function (event) {
      log.push(event.data === TEXT ? 'text' : event.data);
      if (event.data === 'early') { rws.send(TEXT); }
      if (event.data === TEXT) { rws.send('close me'); }
      if (event.data === 'again') { rws.close(1000, 'done'); log.push('closing ' + rws.readyState); }
    });
    rws.addEventListener('close', function (event) {
      log.push(fact(event));
      if (event.code === 1000) { log.push('readyState ' + rws.readyState); done(); }
    });
    rws.onerror = function () { log.push('error'); };
  },

  sockette: function (url, log, done) {
    var opened = false, ws = sockette(url, {
      timeout: 30, maxAttempts: 5,
      onopen: function (event) {
        log.push('open ' + event.type);
        ws.send(opened ? 'again' : TEXT);
        opened = true;
      },
      onmessage: function (event) {
        log.push(event.data === TEXT ? 'text' : event.data);
        if (event.data === TEXT) { ws.json(['close', 'me']); }
        if (event.data === '["close","me"]') { ws.send('close me'); }
        if (event.data === 'again') { ws.close(4000, 'done'); }
      },
      onreconnect: function () { log.push('reconnect'); },
      onclose: function (event) { log.push(fact(event)); if (event.code === 4000) { done(); } },
      onerror: function () { log.push('error'); }
    });
  }
};

function next() {
  var transport, saw, name;
  if (!transports.length) {
    window.__result = polysock.parts.encodeJson({found: found, errors: errors}).replace(/[^ -~]/g, escape);
    return;
  }
  transport = transports.shift();
  saw = found[transport === null ? 'native' : transport || 'any'] = {log: []};
  if (transport !== null) {
    saw.installed = polysock.install({
      force: %(force)s, remember: false, openTimeout: 9000, transports: transport ? [transport] : undefined
    });
    watched(saw);
  }
  PROGRAM['%(program)s'](%(server)s + (transport === null ? '/echo/websocket' : '/echo'), saw.log, function () {
    setTimeout(next, 0);
  });
}
window.onload = function () { setTimeout(next, 0); };
</script></body></html>"""

LIFE = {
    "reconnecting-websocket": [
        *("readyState 0", "open 1 ", "early", "text", "close me", "close 3000 Go away! true"),
        *("open 1 ", "again", "closing 2", "close 1000 done true", "readyState 3"),
    ],
    "sockette": [
        *("open open", "text", '["close","me"]', "close me", "close 3000 Go away! true"),
        *("reconnect", "open open", "again", "close 4000 done true"),
    ],
}
SAME = ["xhr-streaming", "eventsource", "htmlfile", "xhr-polling", "jsonp-polling"]
OTHER = ["xhr-streaming", "eventsource", "iframe-eventsource", "iframe-htmlfile", "xhr-polling", "iframe-xhr-polling"]
OTHER += ["jsonp-polling"]


class Echo(Connection):
    def on_message(self, message: str | bytes) -> None:
        self.send(message)
        if message == "close me":
            self.close(3000, "Go away!")


class Script(RequestHandler):
    def get(self, name: str) -> None:
        self.set_header("Content-Type", "text/javascript; charset=UTF-8")
        self.write(SCRIPTS[name]().read_bytes())


class Page(RequestHandler):
    def get(self) -> None:
        facts = {name: self.get_query_argument(name) for name in ("program", "transports", "force", "server")}
        assert facts["program"] in PROGRAMS
        self.write(PAGE % facts)


class Quiet(Application):
    def log_request(self, handler: RequestHandler) -> None:
        """Requests are no news."""


@dataclass
class Site:
    """Pages from ``home`` have the origin of the endpoint, those from ``away`` another one."""

    home: str
    away: str

    def run(
        self, engine: Any, program: str, transports: list[str | None], *, away: bool = False, **options: Any
    ) -> dict[str, Any]:
        """What *program* saw: name of a transport -> its log, and the transport that was in use."""
        force = json.dumps(not options.pop("needed", False))
        query = {"program": program, "transports": json.dumps(transports), "force": force}
        query["server"] = json.dumps(self.home.replace("http", "ws", 1))
        text = "&".join(f"{name}={percent(value)}" for name, value in query.items())
        answer = engine.run(f"{self.away if away else self.home}/page?{text}", timeout=PAGE_S, **options)
        assert answer, f"the page did not finish; the engine says {engine.log[-5:]}"
        result = json.loads(answer)
        assert result["errors"] == []
        found: dict[str, Any] = result["found"]
        return found


def percent(text: str) -> str:
    return "".join(f"%{byte:02x}" for byte in text.encode())


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    ports = [bind_sockets(0, ADDRESS) for _ in range(2)]
    home, away = (f"http://{ADDRESS}:{sockets[0].getsockname()[1]}" for sockets in ports)
    settings = {"origins": [away], "sockjs_file": SCRIPTS["polysock.min.js"](), "response_limit": 4096}

    async def start() -> tuple[HTTPServer, SockJSRouter]:
        # Heartbeats end the poll of a JSONP client that has left, which is the only way to notice.
        router = SockJSRouter(Echo, "/echo", {**settings, "heartbeat_delay": 2})
        server = HTTPServer(Quiet([*router.urls, ("/page", Page), (r"/script/([\w.-]+)", Script)]))
        for sockets in ports:
            server.add_sockets(sockets)
        return server, router

    async def stop(server: HTTPServer, router: SockJSRouter) -> None:
        server.stop()
        router.close()
        await server.close_all_connections()

    with Background() as thread:
        started = thread.call(start())
        yield Site(home, away)
        thread.call(stop(*started))


def assert_lives(found: dict[str, Any], program: str, transports: list[str]) -> None:
    expected = {name: {"log": LIFE[program], "installed": True, "transport": name} for name in transports}
    assert found == expected


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("name", ["chromium", "firefox"])
def test_the_browsers_own_websocket_and_ours(
    request: pytest.FixtureRequest, site: Site, name: str, program: str
) -> None:
    """The reference: without the polyfill; then the polyfill, told to use WebSocket."""
    found = site.run(request.getfixturevalue(name), program, [None, "websocket"])
    assert found.pop("native") == {"log": LIFE[program]}
    assert_lives(found, program, ["websocket"])


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("name", ["chromium", "firefox"])
def test_without_websocket(request: pytest.FixtureRequest, site: Site, name: str, program: str) -> None:
    """Knocked out before the page runs: install() need not be forced, and at first the client chooses by itself."""
    engine = request.getfixturevalue(name)
    found = site.run(engine, program, [""], needed=True, preload=knock_out("websocket"))
    assert found == {"any": {"log": LIFE[program], "installed": True, "transport": "xhr-streaming"}}
    transports = [transport for transport in SAME if (name, transport) != ("firefox", "htmlfile")]
    assert_lives(site.run(engine, program, list(transports), preload=knock_out("websocket")), program, transports)


@pytest.mark.parametrize("name", ["chromium", "firefox"])
def test_from_another_origin_without_websocket(request: pytest.FixtureRequest, site: Site, name: str) -> None:
    engine, program = request.getfixturevalue(name), "reconnecting-websocket"
    assert_lives(site.run(engine, program, list(OTHER), away=True, preload=knock_out("websocket")), program, OTHER)


def test_with_an_imitation_of_xdomainrequest(site: Site, chromium: Any) -> None:
    """Not Internet Explorer's own object; what it puts on the wire, as far as a newer engine can."""
    program, transports = "sockette", ["xdr-streaming", "xdr-polling"]
    preload = STANDINS + knock_out("websocket", "cors")
    assert_lives(site.run(chromium, program, list(transports), away=True, preload=preload), program, transports)


def test_in_a_webkit_of_2011(site: Site, phantomjs: Any) -> None:
    """PhantomJS 1.9, whose own WebSocket is a draft that no server speaks."""
    found = site.run(phantomjs, "sockette", ["", *SAME])
    assert found.pop("any") == {"log": LIFE["sockette"], "installed": True, "transport": "xhr-streaming"}
    assert_lives(found, "sockette", SAME)


def test_in_an_emulated_internet_explorer_6(site: Site, htmlunit: Any) -> None:
    """HtmlUnit, which cannot stream."""
    found = site.run(htmlunit("INTERNET_EXPLORER_6"), "sockette", ["", "jsonp-polling"])
    assert found.pop("any") == {"log": LIFE["sockette"], "installed": True, "transport": "xhr-polling"}
    assert_lives(found, "sockette", ["jsonp-polling"])
