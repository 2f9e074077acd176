"""polysock.js in real browsers, over every transport: its three layers, the polyfill, and the order of its events.

The server is client_app.py in a process of its own, the page browserlab/pages/client.html: each run of the page tries
one thing over each transport of a list.  What is an imitation of an old browser's object says so in its name.
"""

from __future__ import annotations

import json
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from browserlab import Engine, knock_out
from browserlab.engines import STANDINS

APP = Path(__file__).resolve().parent / "client_app.py"
START_S = 20
STOP_S = 10
PAGE_S = 300

SAME = ["", "websocket", "xhr-streaming", "eventsource", "htmlfile", "xhr-polling", "jsonp-polling"]
CROSS = [
    "", "websocket", "xhr-streaming", "eventsource", "iframe-eventsource", "iframe-htmlfile", "xhr-polling",
    "iframe-xhr-polling", "jsonp-polling",
]  # fmt: skip
#: One of each kind, where the transport matters less.
KINDS = ["websocket", "xhr-streaming", "xhr-polling", "jsonp-polling"]
#: The default choice of a browser that lacks these: same origin, other origin.
LADDER = {
    (): ("websocket", "websocket"),
    ("websocket",): ("xhr-streaming", "xhr-streaming"),
    ("websocket", "xhr-progress"): ("eventsource", "eventsource"),
    ("websocket", "cors"): ("eventsource", "iframe-eventsource"),
    ("websocket", "cors", "eventsource"): ("htmlfile", "iframe-htmlfile"),
    ("websocket", "cors", "eventsource", "postmessage"): ("htmlfile", "jsonp-polling"),
    ("websocket", "xhr"): ("jsonp-polling", "jsonp-polling"),
}
SERVER_NAMES = {"xhr-polling": "xhr", "xhr-streaming": "xhr_streaming", "jsonp-polling": "jsonp"}

FIRST = ["connecting", "connect"]
BYE = ["disconnect", "io client disconnect"]


@dataclass
class Site:
    """The running server: pages of ``home`` have the endpoints' origin, those of ``away`` another one."""

    home: str
    away: str

    def run(
        self, engine: Engine, do: str, transports: list[str], *, away: bool = False, preload: str = "", **more: str
    ) -> dict[str, dict[str, Any]]:
        """Try *do* over each transport: its name, or "any", -> what the page saw."""
        query = urlencode({"do": do, "t": ",".join(transports), "server": self.home if away else "", **more})
        url = f"{self.away if away else self.home}/client.html?{query}"
        text = engine.run(url, timeout=PAGE_S, **({"preload": preload} if preload else {}))
        assert text, f"the page told nothing; the engine says {engine.log[-5:]}"
        report = json.loads(text)
        assert report["errors"] == []
        results: dict[str, dict[str, Any]] = report["results"]
        assert list(results) == [transport or "any" for transport in transports]
        return results


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    log = tmp_path_factory.mktemp("client") / "server.log"
    with (
        log.open("wb") as errors,
        subprocess.Popen([sys.executable, str(APP)], stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            assert select.select([process.stdout], [], [], START_S)[0], f"the server said nothing; {log.read_text()}"
            yield Site(*json.loads(process.stdout.readline()))
        finally:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
    written = log.read_text(encoding="utf-8", errors="replace")
    assert not written, f"the server wrote to its standard error:\n{written[-4000:]}"


@pytest.fixture(params=["chromium", "firefox"])
def browser(request: pytest.FixtureRequest) -> Engine:
    engine: Engine = request.getfixturevalue(request.param)
    return engine


def server_name(transport: str) -> str:
    name = transport.removeprefix("iframe-").replace("xdr", "xhr")
    return SERVER_NAMES.get(name, name)


def check_io(name: str, saw: dict[str, Any], *, binary: bool = True) -> None:
    """What the trial ``io`` should have seen."""
    transport = saw.get("transport", "")
    assert saw["events"] == [*FIRST, BYE], (name, saw)
    assert saw == {
        **saw,
        "welcome": "/",
        "someWelcome": "/some",
        "echo": True,
        "message": "plain",
        "answered": 42,
        "ask": ["a", 1],
        "said": "to the room",
        "binary": [3, 255, 1] if binary else "none",
        "serverTransport": server_name(transport),
        "connectedAfter": True,
    }, name
    assert name in ("any", transport)


@pytest.mark.parametrize("away", [False, True], ids=["same origin", "other origin"])
def test_the_websocket_interface_over_each_transport(site: Site, browser: Engine, away: bool) -> None:
    for name, saw in site.run(browser, "polysock", CROSS if away else SAME, away=away).items():
        assert saw["events"] == ["open", ["close", 3001, "bye", True]], (name, saw)
        assert saw["all"], (name, saw)
        assert saw["states"] == [0, 1, 2, 3]
        assert saw["transport"] == ("websocket" if name == "any" else name)


@pytest.mark.parametrize("away", [False, True], ids=["same origin", "other origin"])
def test_the_socketio_interface_over_each_transport(site: Site, browser: Engine, away: bool) -> None:
    for name, saw in site.run(browser, "io", CROSS if away else SAME, away=away).items():
        check_io(name, saw)


def test_a_close_by_the_server(site: Site, browser: Engine) -> None:
    for name, saw in site.run(browser, "closed", CROSS, away=True).items():
        assert saw["events"] == ["open", ["message", "close me"], ["close", 3000, "Go away!", True]], name


@pytest.mark.parametrize("lacking", list(LADDER), ids=lambda names: "+".join(names) or "nothing")
def test_the_transport_that_a_browser_without_these_finds(
    site: Site, browser: Engine, lacking: tuple[str, ...]
) -> None:
    for away, wanted in zip((False, True), LADDER[lacking], strict=True):
        saw = site.run(browser, "io", [""], away=away, preload=knock_out(*lacking))["any"]
        assert saw["transport"] == wanted, (away, saw)
        check_io("any", saw)


@pytest.mark.parametrize("away", [False, True], ids=["same origin", "other origin"])
def test_an_imitation_of_xdomainrequest(site: Site, browser: Engine, away: bool) -> None:
    for name, saw in site.run(browser, "io", ["xdr-streaming", "xdr-polling"], away=away, preload=STANDINS).items():
        check_io(name, saw)


def test_an_imitation_of_ie_8_chooses_htmlfile_at_home_and_xdr_abroad(site: Site, browser: Engine) -> None:
    old = STANDINS + knock_out("websocket", "cors", "eventsource")
    assert site.run(browser, "io", [""], preload=old)["any"]["transport"] == "htmlfile"
    assert site.run(browser, "io", [""], away=True, preload=old)["any"]["transport"] == "xdr-streaming"


def test_a_websocket_that_opens_and_carries_nothing_is_not_trusted(site: Site, browser: Engine) -> None:
    saw = site.run(browser, "polysock", [""], endpoint="/opens-only")["any"]
    assert (saw["all"], saw["transport"]) == (True, "xhr-streaming")


def test_loss_and_return(site: Site, browser: Engine) -> None:
    for name, saw in site.run(browser, "kill", SAME).items():
        transport = "websocket" if name == "any" else name
        assert saw["events"] == [
            *FIRST,
            ["disconnect", "transport close"],
            ["reconnecting", "number", 1],
            "connecting",
            ["reconnect", transport, 1],
            "connect",
            BYE,
        ], name
        assert saw["again"] == ["again"]


def test_the_page_goes_into_the_cache_and_comes_back(site: Site, browser: Engine) -> None:
    for name, saw in site.run(browser, "away", KINDS).items():
        assert saw["quiet"] == len(FIRST)
        assert [event if isinstance(event, str) else event[0] for event in saw["events"]] == [
            *FIRST, "disconnect", "reconnecting", "connecting", "reconnect", "connect", "disconnect"
        ], name  # fmt: skip


def test_a_refused_namespace_is_not_asked_for_again(site: Site, browser: Engine) -> None:
    for name, saw in site.run(browser, "refused", KINDS).items():
        assert [event if isinstance(event, str) else event[0] for event in saw["events"]] == [
            "connecting",
            "connect_failed",
        ], name
        assert (saw["step"], saw["data"], saw["over"]) == ("joining the namespace /refused", {"why": "test"}, name)
        assert "members only" in saw["events"][1][1]


@pytest.mark.parametrize("do", ["leave", "end"])
def test_what_the_server_ends_deliberately_stays_ended(site: Site, browser: Engine, do: str) -> None:
    for name, saw in site.run(browser, do, KINDS).items():
        assert saw["events"] == [*FIRST, ["disconnect", "io server disconnect"]], name


def test_a_first_connection_that_fails_is_tried_again_and_says_why(site: Site, browser: Engine) -> None:
    saw = site.run(browser, "absent", [""])["any"]
    assert [event if isinstance(event, str) else event[0] for event in saw["events"]] == [
        "connecting", "connect_failed", "reconnecting", "connecting", "connect_failed"
    ]  # fmt: skip
    assert saw["status"] == 404
    assert "/nowhere/info" in saw["events"][1][1]


def test_limits_are_errors_and_not_losses(site: Site, browser: Engine) -> None:
    for name, saw in site.run(browser, "limits", KINDS).items():
        assert [event if isinstance(event, str) else event[0] for event in saw["events"]] == [
            "error", "connecting", "connect", "error", "disconnect"
        ], name  # fmt: skip
        assert "buffer for offline messages is full" in saw["full"]
        assert "2011 bytes" in saw["events"][3][1]
        assert (saw["reserved"], saw["echoed"]) == ("TypeError", 3)


def test_blobs_travel_and_keep_their_place(site: Site, browser: Engine) -> None:
    for name, saw in site.run(browser, "blob", KINDS).items():
        assert (saw["order"], saw["bytes"], saw["kept"]) == (["blob", "later"], [97, 98, 99], True), name


def test_polysock_comes_back_where_it_is_told_to(site: Site, browser: Engine) -> None:
    for name, saw in site.run(browser, "again", KINDS).items():
        assert saw["events"] == ["open", ["reconnecting", 1, 1001, 0], "open", ["close", 1005, True]], name


def test_the_polyfill_over_each_transport(site: Site, browser: Engine) -> None:
    for name, saw in site.run(browser, "polyfill", SAME).items():
        assert saw["events"] == ["open", "hello", ["close", 1000, True]], name
        assert saw["url"] == site.home.replace("http", "ws") + "/echo"
        assert saw["instance"]
        assert saw["installed"]


def test_the_polyfill_where_there_is_no_websocket(site: Site, browser: Engine) -> None:
    saw = site.run(browser, "polyfill", [""], preload=knock_out("websocket"))["any"]
    assert (saw["events"][:2], saw["transport"]) == (["open", "hello"], "xhr-streaming")


@pytest.mark.parametrize("script", ["polysock.js", "polysock.min.js"])
@pytest.mark.parametrize("version", ["INTERNET_EXPLORER_6", "INTERNET_EXPLORER_8"])
def test_an_emulated_internet_explorer(
    site: Site, htmlunit: Callable[[str], Engine], version: str, script: str
) -> None:
    results = site.run(htmlunit(version), "io", ["", "xhr-polling", "jsonp-polling"], script=script)
    for name, saw in results.items():
        check_io(name, saw, binary=False)
    assert {name: saw["transport"] for name, saw in results.items()} == {
        "any": "xhr-polling",
        "xhr-polling": "xhr-polling",
        "jsonp-polling": "jsonp-polling",
    }


@pytest.mark.parametrize("name", ["qtwebkit", "phantomjs"])
def test_older_webkit(request: pytest.FixtureRequest, site: Site, name: str) -> None:
    engine = request.getfixturevalue(name)
    results = site.run(engine, "io", [transport for transport in SAME if transport != "websocket"])
    for transport, saw in results.items():
        check_io(transport, saw)
    # PhantomJS 1.9 has a WebSocket, but that of a draft, which is not used.
    assert results["any"]["transport"] == ("websocket" if name == "qtwebkit" else "xhr-streaming")
