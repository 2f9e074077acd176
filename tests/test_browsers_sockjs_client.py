"""sockjs-client as people have it, in real browsers, over every transport: echo, both ways to close, origins.

The server (browsers_app.py) and the page (browserlab/pages/sessions.html) each record what they saw; a test holds both
against what should have happened.  Sessions of several transports share one page load, since starting is what costs.
"""

from __future__ import annotations

import itertools
import json
import select
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from browserlab import knock_out
from support.needs import need_npm

APP = Path(__file__).resolve().parent / "browsers_app.py"
START_S = 20
STOP_S = 10
ANSWER_S = 30
# A session that does not end must not take the others with it.
SESSION_S = 30
# The page tells what it has after its own limit; the rest only ends an engine that stopped altogether.
PAGE_LIMIT_S = 150
PAGE_GRACE_S = 5

RELEASES = {"v1_6_1": "sockjs-client", "v1_0_0": "sockjs-client-1.0.0"}
NEWEST, OLDEST = RELEASES
# The time that a client gives a transport to open: long where only one is allowed, so that a busy machine does not look
# like a blocked transport; short where the client is to leave by itself one that opens and cannot be read.
PATIENT_RTO_MS = 8000
LADDER_RTO_MS = 1000

GO = "close me"
GONE = [3000, "Go away!", True]
BYE = [3001, "bye"]

NASTY = [
    "hello",
    "",
    "quotes ' \" and back\\slash \\u0041 \\",
    "</script><script>p('x');</script><!-- ]]> &amp;",
    "line\r\nbreaks\n\ttab \x00\x01\x1f\x7f",
    "gr\u00fc\u00df caf\u00e9 \u20ac \U0001f600",
    "\u00ad\u0600\u200c\u200f\u2028\u2029\u202f\u2060\u206f\ufeff\ufff0\ufffe\uffff",
    "lone \ud800 and \udc00 halves",
    "100% %41 %25 %u0041 %C3%A9 + a=b&d=c;",
    '["a"]',
    'c[3000,"not a frame"]',
]
BIG = '0123456789\u00e9\u2028"\\</%41' * 250
TEXTS = [*NASTY, BIG, *(f"number {number}" for number in range(40))]
FEW = ["hello", "caf\u00e9 \u2028 </script> 100%", "last"]

SAME = ["websocket", "xhr-streaming", "eventsource", "htmlfile", "xhr-polling", "jsonp-polling"]
CROSS = ["websocket", "xhr-streaming", "eventsource", "xhr-polling", "jsonp-polling"]
IFRAMES = ["iframe-eventsource", "iframe-htmlfile", "iframe-xhr-polling"]
# An EventSource sends no cookie to another origin unless it is made with credentials, which the client does not do.
WITHOUT_COOKIE = {"eventsource"}
# A form can have one submission under way: sessions over JSONP share theirs, and must not be held side by side.
ALONE = {"jsonp-polling"}
SERVER_NAMES = {"xhr-polling": "xhr", "xhr-streaming": "xhr_streaming", "jsonp-polling": "jsonp"}
# What a browser lacks -> the transport that the client finds for a page of the same origin, and of another one.
LADDER = {
    (): ("websocket", "websocket"),
    ("websocket",): ("xhr-streaming", "xhr-streaming"),
    ("websocket", "xhr-progress"): ("eventsource", "eventsource"),
    ("websocket", "cors"): ("eventsource", "eventsource"),
    ("websocket", "cors", "eventsource"): ("htmlfile", "iframe-htmlfile"),
    ("websocket", "cors", "eventsource", "postmessage"): ("xhr-polling", "jsonp-polling"),
}
# Where the first one that it tries is the one.
AT_ONCE = [(), ("websocket",), ("websocket", "cors")]
# Firefox heeds document.domain, so that htmlfile reaches the iframe page, which sets it, and no ordinary page.
FIREFOX_DIFFERS = {("websocket", "cors", "eventsource"): ("iframe-htmlfile", "iframe-htmlfile")}


def server_name(transport: str) -> str:
    """The last part of the URL, for the client's name of a transport."""
    name = transport.removeprefix("iframe-")
    return SERVER_NAMES.get(name, name)


@dataclass
class Site:
    """The running server: pages from ``home`` have the origin of the endpoints, those from ``away`` another one."""

    home: str
    away: str
    numbers: Iterator[int] = field(default_factory=itertools.count)
    record: Callable[[str, object], None] = field(init=False)
    """The ``record_property`` of the test that runs."""

    @property
    def origins(self) -> tuple[str, str]:
        return self.home, self.away

    def note(self, engine: Any, release: str, page_origin: str, result: str) -> None:
        """Keep a result for the table at the end of the run."""
        name = getattr(engine, "browser", type(engine).__name__)
        where = "same origin" if page_origin == self.home else "other origin"
        self.record("SockJS in browsers", (f"{name}, sockjs-client {release[1:].replace('_', '.')}, {where}", result))

    def ask(self, path: str, **query: str) -> Any:
        with urllib.request.urlopen(f"{self.home}{path}?{urlencode(query)}", timeout=ANSWER_S) as answer:
            return json.loads(answer.read())

    def visits(self, label: str) -> list[dict[str, Any]]:
        """The sessions that the server has had under *label*."""
        return self.all_visits().get(label, [])

    def all_visits(self, *, wait: bool = False) -> dict[str, list[dict[str, Any]]]:
        """Label -> its sessions; with *wait*, when all of them have ended or long should have."""
        visits: dict[str, list[dict[str, Any]]] = self.ask("/visits", wait="1" if wait else "")
        return visits

    def requests(self, part: str) -> list[dict[str, Any]]:
        """Requests so far with *part* in their path."""
        return [request for request in self.ask("/requests")["requests"] if part in request["path"]]

    def session(
        self,
        endpoint: str,
        transport: str | None,
        texts: list[str],
        close: list[Any] | None = None,
    ) -> dict[str, Any]:
        """What a page is told to do with one session."""
        return {
            "label": f"{next(self.numbers)}-{transport or 'any'}",
            "url": endpoint if "://" in endpoint else self.home + endpoint,
            "transports": transport and [transport],
            "texts": texts,
            "close": close,
        }


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    scripts = [f"{name}={need_npm(package, 'dist/sockjs.min.js')}" for name, package in RELEASES.items()]
    log = tmp_path_factory.mktemp("browsers") / "server.log"
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            [sys.executable, str(APP), *scripts], stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process,
    ):
        try:
            assert process.stdout is not None
            assert select.select([process.stdout], [], [], START_S)[0], f"the server said nothing; {log.read_text()}"
            found = Site(*json.loads(process.stdout.readline()))
            yield found
            # That a polling client has gone shows only after a while: so look at all sessions of all tests at once.
            wrong = {
                label: visits
                for label, visits in found.all_visits(wait=True).items()
                if any(len(visit["closes"]) != 1 for visit in visits)
            }
            assert not wrong, "on_close should have come exactly once"
        finally:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
    written = log.read_text(encoding="utf-8", errors="replace")
    assert not written, f"the server wrote to its standard error:\n{written[-4000:]}"


@pytest.fixture(autouse=True)
def recorded(site: Site, record_property: Callable[[str, object], None]) -> None:
    site.record = record_property


def numbered(lists: list[list[str]], wanted: list[str]) -> int:
    """The place of *wanted* in *lists*: an address has room for each list once."""
    if wanted not in lists:
        lists.append(wanted)
    return lists.index(wanted)


def hold(
    engine: Any,
    page_origin: str,
    release: str,
    groups: list[list[dict[str, Any]]],
    *,
    rto: int = PATIENT_RTO_MS,
    cookie: str = "",
    domain: bool = False,
    preload: str | None = None,
) -> dict[str, dict[str, Any]]:
    """Hold these sessions in a page of *engine*: label -> what the page saw."""
    texts: list[list[str]] = []
    plan = {"script": release, "rto": rto, "cookie": cookie, "domain": domain, "texts": texts}
    plan |= {"patience": SESSION_S * 1000, "limit": PAGE_LIMIT_S * 1000}
    plan["groups"] = [
        [{**session, "texts": numbered(texts, session["texts"])} for session in group] for group in groups
    ]
    url = f"{page_origin}/sessions.html?{quote(json.dumps(plan))}"
    text = engine.run(url, timeout=PAGE_LIMIT_S + PAGE_GRACE_S, preload=preload)
    assert text, f"the page told nothing; the engine says {engine.log[-5:]}"
    report = json.loads(text)
    return {saw["label"]: {**saw, "errors": report["errors"]} for saw in report["sessions"]}


def faults(saw: dict[str, Any] | None, session: dict[str, Any], close: list[Any]) -> list[str]:
    """What is wrong with the page's account of a session that should have opened once and ended with *close*."""
    if saw is None:
        return ["its turn never came"]
    found = []
    if saw["opens"] != 1:
        found.append(f"opened {saw['opens']} times")
    wanted = session["transports"]
    if wanted and saw["transport"] != wanted[0]:
        found.append(f"transport {saw['transport']}")
    if saw["got"] != session["texts"]:
        wrong = [pair for pair in itertools.zip_longest(session["texts"], saw["got"]) if pair[0] != pair[1]]
        found.append(f"{len(wrong)} of {len(session['texts'])} echoes are wrong, the first one is {wrong[0]!a}")
    if saw["close"] != close:
        found.append(f"close {saw['close']}")
    if found and saw["errors"]:
        found.append(f"script errors {saw['errors'][:3]}")
    return found


def check_transports(
    site: Site,
    engine: Any,
    release: str,
    page_origin: str,
    transports: list[str],
    *,
    cookie: str = "",
    domain: bool = False,
) -> dict[str, list[str]]:
    """Three sessions over each transport: the client closes, the server closes after some time, the server at once.

    Returns transport -> what went wrong.
    """
    plans: dict[str, list[dict[str, Any]]] = {}
    groups: list[list[dict[str, Any]]] = []
    for transport in transports:
        plans[transport] = sessions = [
            site.session(f"/{release}/echo", transport, TEXTS, BYE),
            site.session(f"/{release}/echo", transport, ["hello", GO]),
            site.session(f"/{release}/close", transport, []),
        ]
        groups += [[session] for session in sessions] if transport in ALONE else [sessions]
    saw = hold(engine, page_origin, release, groups, cookie=cookie, domain=domain)
    wrong: dict[str, list[str]] = {}
    all_visits = site.all_visits()
    for transport, sessions in plans.items():
        for session, close in zip(sessions, ([*BYE, True], GONE, GONE), strict=True):
            found = faults(saw.get(session["label"]), session, close)
            visits = all_visits.get(session["label"], [])
            if [visit["transport"] for visit in visits] != [server_name(transport)]:
                found.append(f"the server saw {visits}")
            for visit in visits:
                # What the client has closed, the server may not know yet.
                if len(visit["closes"]) > 1 or (close is GONE and visit["closes"] != GONE[:1]):
                    found.append(f"on_close with {visit['closes']}")
                if visit["messages"] != len(session["texts"]):
                    found.append(f"{visit['messages']} of {len(session['texts'])} messages arrived")
                if cookie and visit["cookie"] != (None if transport in WITHOUT_COOKIE else cookie):
                    found.append(f"cookie {visit['cookie']}")
            if found:
                wrong.setdefault(transport, []).append(f"{session['url']} {session['label']}: {'; '.join(found)}")
        site.note(engine, release, page_origin, f"{transport} FAILED" if transport in wrong else transport)
    return wrong


@pytest.fixture(params=["chromium", "firefox"])
def engine(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


@pytest.fixture(params=list(RELEASES))
def release(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def test_same_origin(site: Site, engine: Any, release: str) -> None:
    # htmlfile's answers set document.domain, and then reach only a page that has done so too (Chromium no longer heeds
    # it).  In Internet Explorer the client does that by itself.
    assert check_transports(site, engine, release, site.home, SAME, domain=True) == {}


def test_other_origin(site: Site, engine: Any, release: str) -> None:
    """The cookie comes only where the browser was told that the page may act with it."""
    assert check_transports(site, engine, release, site.away, CROSS, cookie="guest") == {}


def test_other_origin_through_iframe(site: Site, engine: Any, release: str) -> None:
    assert check_transports(site, engine, release, site.away, IFRAMES, cookie="guest") == {}
    mine = type(engine).__name__.replace("Chromium", "Chrome")
    for file in ("iframe.html", "sockjs.js"):
        loads = [r for r in site.requests(f"/{release}/echo/{file}") if mine in r["user-agent"]]
        assert {r["status"] for r in loads} <= {200, 304}, loads
        assert loads, f"{file} was never loaded"


def finds(
    site: Site,
    engine: Any,
    release: str,
    origin: str,
    without: tuple[str, ...] = (),
    *,
    alone: bool = False,
    rto: int = LADDER_RTO_MS,
) -> str:
    """The transport that the client itself finds; held to the same as a forced one.

    With *alone* only one session, for where it comes to JSONP.
    """
    sessions = [
        site.session(f"/{release}/echo", None, TEXTS, BYE),
        site.session(f"/{release}/echo", None, ["hello", GO]),
    ]
    if alone:
        del sessions[1:]
    saw = hold(engine, origin, release, [sessions], rto=rto, preload=knock_out(*without) or None)
    ends = ([*BYE, True], GONE)
    wrong = [faults(saw.get(session["label"]), session, end) for session, end in zip(sessions, ends, strict=False)]
    assert not any(wrong), wrong
    transport: str
    (transport,) = {seen["transport"] for seen in saw.values()}
    visits = site.all_visits()
    for session in sessions:
        # A transport that opened and could not be read has left a session without messages.
        (used,) = [visit for visit in visits[session["label"]] if visit["messages"]]
        assert used["messages"] == len(session["texts"])
        assert used["transport"] == server_name(transport)
    site.note(engine, release, origin, f"{transport} without {' '.join(without)}" if without else f"first {transport}")
    return transport


@pytest.mark.parametrize("without", LADDER, ids="-".join)
def test_ladder(site: Site, engine: Any, without: tuple[str, ...]) -> None:
    """The client goes down to what the browser has; an engine gives it less with each step."""
    expected = LADDER[without]
    if type(engine).__name__ == "Firefox":
        expected = FIREFOX_DIFFERS.get(without, expected)
    alone = "postmessage" in without
    rto = PATIENT_RTO_MS if without in AT_ONCE else LADDER_RTO_MS
    found = tuple(finds(site, engine, NEWEST, origin, without, alone=alone, rto=rto) for origin in site.origins)
    assert found == expected


def test_default_policy_refuses_other_origin(site: Site, engine: Any) -> None:
    """A page of another origin gets nowhere, not even when it brings an /info of its own to get past the real one."""
    plain = [site.session(f"/{NEWEST}/guarded", None, FEW, BYE)]
    steered = [site.session(f"{site.away}/decoy", transport, FEW, BYE) for transport in SAME[:3] + SAME[4:] + IFRAMES]
    saw = hold(engine, site.away, NEWEST, [plain, steered], rto=LADDER_RTO_MS)
    assert {label: (seen["opens"], seen["close"]) for label, seen in saw.items()} == {
        plain[0]["label"]: (0, [1002, "Cannot connect to server", False]),
        **{session["label"]: (0, [2000, "All transports failed", False]) for session in steered},
    }
    assert not {session["label"] for session in plain + steered} & set(site.all_visits())
    statuses = {
        transport: {r["status"] for r in site.requests(f"/{NEWEST}/guarded/{session['label']}/")}
        for session in steered
        if not (transport := session["transports"][0]).startswith("iframe-")
    }
    assert statuses == {transport: {403} for transport in statuses}
    # The same endpoint and a page of its own origin.
    at_home = site.session(f"/{NEWEST}/guarded", None, FEW, BYE)
    assert faults(hold(engine, site.home, NEWEST, [[at_home]])[at_home["label"]], at_home, [*BYE, True]) == []


@pytest.mark.parametrize(("release", "version"), [(NEWEST, 6), (NEWEST, 7), (NEWEST, 8), (OLDEST, 8)])
def test_internet_explorer(site: Site, htmlunit: Any, release: str, version: int) -> None:
    """As HtmlUnit emulates it: it hands over an answer when that is complete, so streaming must fail and be left."""
    engine = htmlunit(f"INTERNET_EXPLORER_{version}")
    assert finds(site, engine, release, site.home) == "xhr-polling"
    # Version 6 has nothing but JSONP for another origin.
    if release == NEWEST and version in (6, 8):
        assert finds(site, engine, release, site.away) == ("jsonp-polling" if version == 6 else "xhr-polling")


def test_qtwebkit(site: Site, qtwebkit: Any, release: str) -> None:
    assert check_transports(site, qtwebkit, release, site.home, SAME, domain=True) == {}
    assert check_transports(site, qtwebkit, release, site.away, CROSS + IFRAMES) == {}


def test_phantomjs(site: Site, phantomjs: Any, release: str) -> None:
    """Its WebSocket is of a draft that nothing speaks any more: refused, and the client goes on to the next."""
    before = len(site.requests("/websocket"))
    found = [finds(site, phantomjs, release, origin, rto=PATIENT_RTO_MS) for origin in site.origins]
    assert found == ["xhr-streaming"] * 2
    assert {request["status"] for request in site.requests("/websocket")[before:]} == {426}
    assert check_transports(site, phantomjs, release, site.home, SAME[1:], domain=True) == {}
    # Its EventSource is for its own origin only.
    others = [name for name in CROSS + IFRAMES if name not in ("websocket", "eventsource")]
    assert check_transports(site, phantomjs, release, site.away, others, cookie="guest") == {}
