"""The demo's chat and its two worlds: the application by itself, and the pages in browser engines.

A page is driven by a script that the test's own server puts behind the page's scripts, so that also engines without a
preload can be driven; the partner in old engines' tests is a plain WebSocket.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import re
import select
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tornado.web import RequestHandler
from tornado.websocket import websocket_connect

import polysock
from polysock.testing import Client
from support.serving import serving_application

ROOT = Path(__file__).resolve().parent.parent
START_S, STOP_S = 20, 10
# Ends an engine that stopped altogether; what is awaited comes much sooner.
PAGE_S = 60
STEP_S = 40
KEY = "k" * 16
#: What the driven pages say.
ANSWER = 'answer <b>&amp;</b> "\u00e9\u6f22\U0001f600"'


def load_run() -> ModuleType:
    spec = importlib.util.spec_from_file_location("demo_run", ROOT / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


run = load_run()


# -- the application, with clients in memory


@pytest.fixture
async def hub() -> polysock.Server:
    io = polysock.Server()
    run.Chat(io)
    return io


def come(hub: polysock.Server, **options: Any) -> Client:
    return Client(hub, "/chat", **options)


async def enter(client: Client, nick: str, room: str = "lobby", key: str = KEY) -> dict[str, Any]:
    answer: dict[str, Any] = await client.call("enter", {"nick": nick, "room": room, "key": key})
    return answer


async def test_people_and_transports_of_a_room(hub: polysock.Server) -> None:
    ann, bob, eve = come(hub, transport="jsonp"), come(hub), come(hub)
    assert (await enter(ann, "Ann"))["people"] == [{"id": ann.id, "nick": "Ann", "transport": "jsonp"}]
    bobs = await enter(bob, "  Bob\tthe  builder ")
    assert bobs["nick"] == "Bob the builder"
    assert [one["nick"] for one in bobs["people"]] == ["Ann", "Bob the builder"]
    assert (await enter(eve, "Eve", "elsewhere"))["rooms"] == [["lobby", 2], ["elsewhere", 1]]

    ann.take(), bob.take(), eve.take()
    assert await bob.call("say", " hello ") == {"ok": True}
    (heard,) = ann.take()
    assert (heard[0], heard[1]["from"], heard[1]["nick"], heard[1]["text"]) == (
        "said",
        bob.id,
        "Bob the builder",
        "hello",
    )
    assert eve.take() == []

    assert await ann.call("whisper", eve.id, "psst") == {"ok": True}
    (secret,) = eve.take()
    assert (secret[0], secret[1]["text"], secret[1]["toNick"]) == ("whispered", "psst", "Eve")
    assert "whispered" not in [event[0] for event in bob.take()]

    bobs_id = bob.id
    bob.disconnect()
    assert ("left", {"id": bobs_id, "nick": "Bob the builder"}) in [
        (name, value) for name, value, *_ in ann.take() if name == "left"
    ]
    eve.disconnect()
    assert ann.take() == [("rooms", [["lobby", 1]])]


@pytest.mark.parametrize(
    "wish", [None, 1, [], {}, {"nick": 1}, {"nick": "a", "room": None}, {"nick": "a", "room": "b"}, "x"]
)
async def test_a_wish_that_makes_no_sense_is_an_error(hub: polysock.Server, wish: Any) -> None:
    client = come(hub)
    assert list(await client.call("enter", wish)) == ["error"]
    assert list(await client.call("enter")) == ["error"]
    assert client.connected


@pytest.mark.parametrize("nick", ["", "  ", "a" * 21, "a\u202eb", "a\u200bb", "a\x00b", "\ud800", " " * 10_000])
async def test_names_are_visible_and_short(hub: polysock.Server, nick: str) -> None:
    assert "visible characters" in (await enter(come(hub), nick))["error"]


async def test_a_name_belongs_to_one(hub: polysock.Server) -> None:
    ann, thief = come(hub), come(hub)
    await enter(ann, "Ann")
    assert "called" in (await enter(thief, "\uff21NN", key="x" * 16))["error"]
    await enter(thief, "Bob", key="x" * 16)
    assert "called" in (await enter(thief, "ann", "elsewhere", key="x" * 16))["error"]
    back = come(hub)  # the same page, before its old connection was missed
    await ann.call("say", "before")
    answer = await enter(back, "Ann")
    assert [one["nick"] for one in answer["people"]] == ["Bob", "Ann"]
    assert answer["history"][0]["text"] == "before"
    assert ann.close_reason is not None
    assert ann.close_reason.code == 3000


@pytest.mark.parametrize("text", [None, 1, "", "  ", "a" * 501, ["a"], {}])
async def test_what_is_no_message(hub: polysock.Server, text: Any) -> None:
    ann, stranger = come(hub), come(hub)
    await enter(ann, "Ann")
    assert "1 to 500 characters" in (await ann.call("say", text))["error"]
    assert "1 to 500 characters" in (await ann.call("whisper", ann.id, text))["error"]
    assert await stranger.call("say", "hello") == {"error": "Come in first."}
    assert await ann.call("whisper", [text], "hello") == {"error": "That one has left."}


async def test_nobody_hears_private_messages_in_a_room_called_like_a_person(hub: polysock.Server) -> None:
    ann, bob, spy = come(hub), come(hub), come(hub)
    await enter(ann, "Ann")
    await enter(bob, "Bob")
    await enter(spy, "Spy", ann.id or "")
    spy.take()
    await bob.call("whisper", ann.id, "secret")
    assert spy.take() == []


async def test_a_flood_is_refused_and_the_limits_hold(hub: polysock.Server) -> None:
    flooder = come(hub)
    answers = [await enter(flooder, "Ann", f"room {number}") for number in range(run.RATE_EVENTS + 1)]
    assert "Not so fast" in answers[-1]["error"]
    assert "error" not in answers[-2]
    assert [room for room, _ in answers[-2]["rooms"]] == ["lobby", f"room {run.RATE_EVENTS - 1}"]

    writers = [come(hub) for _ in range(3)]
    for number, writer in enumerate(writers):
        await enter(writer, f"Writer {number}")
        for line in range(run.RATE_EVENTS - 1):
            assert await writer.call("say", f"{number} {line}") == {"ok": True}
    history = (await enter(come(hub), "Reader"))["history"]
    assert len(history) == run.HISTORY_MESSAGES
    assert history[-1]["text"] == f"2 {run.RATE_EVENTS - 2}"
    assert [said["n"] for said in history] == sorted({said["n"] for said in history})

    crowd = [await enter(come(hub), f"Founder {number}", f"house {number}") for number in range(run.MAX_ROOMS)]
    assert Counter("error" in answer for answer in crowd)[True] == 2  # the lobby and the flooder's room were there


# -- pages in engines

LIBRARY = """
function byId(id, where) { return (where || window).document.getElementById(id); }
function words(node) { return node ? node.textContent !== undefined ? node.textContent : node.innerText : ''; }
function shown(id, where) { return words(byId(id, where)); }
function until(test, then) {
  var is = false;
  try { is = test(); } catch (e) { is = false; }
  if (is) { then(); } else { setTimeout(function () { until(test, then); }, 30); }
}
function sees(text, where) { return shown('log', where).indexOf(text) >= 0; }
function say(text, where) { byId('text', where).value = text; byId('say', where).click(); }
function quote(text) {
  return '"' + text.replace(/["\\\\]/g, '\\\\$&').replace(/[\\u0000-\\u001f\\u0080-\\uffff]/g, function (unit) {
    return '\\\\u' + ('0000' + unit.charCodeAt(0).toString(16)).slice(-4);
  }) + '"';
}
function result(facts) {
  var parts = [], name;
  for (name in facts) { parts.push(quote(name) + ':' + quote(String(facts[name]))); }
  window.__result = '{' + parts.join(',') + '}';
}
"""

DRIVERS = {
    # Greets everybody once a partner has greeted, and is done when it hears itself.
    "answer": """
        until(function () { return sees('hello from '); }, function () {
          say('answer <b>&amp;</b> "\\u00e9\\u6f22\\ud83d\\ude00"');
          until(function () { return sees('answer <b>'); }, function () {
            result({people: shown('people'), state: shown('state'), log: shown('log')});
          });
        });
    """,
    # Greets as soon as a second one is here.
    "greet": """
        until(function () { return byId('people').getElementsByTagName('li').length === 2; }, function () {
          say('hello from the other one');
          until(function () { return sees('answer <b>'); }, function () {
            result({people: shown('people'), state: shown('state'), log: shown('log')});
          });
        });
    """,
    "three": """
        var ways = ['jsonp-polling', 'websocket', 'xhr-streaming'];
        var names = ['Ann', '<i>Bob</i>', 'Eve'], frames = [], i;
        function state(index) { return shown('state', frames[index]); }
        function open(index) {
          var frame = document.createElement('iframe');
          frame.src = '/chat.html?room=three&nick=' + encodeURIComponent(names[index]) + '&transport=' + ways[index];
          document.body.appendChild(frame);
          frames.push(frame.contentWindow);
        }
        function all(test) { return function () { return test(frames[0]) && test(frames[1]) && test(frames[2]); }; }
        for (i = 0; i < 3; i += 1) { open(i); }
        until(all(function (one) { return byId('people', one).getElementsByTagName('li').length === 3; }), function () {
          var people = shown('people', frames[0]), states = state(0) + state(1) + state(2);
          say('from Ann', frames[0]);
          say('<img src=x onerror="window.top.hacked=1">', frames[1]);
          say('from Eve', frames[2]);
          until(all(function (one) {
            return sees('from Ann', one) && sees('<img src=x', one) && sees('from Eve', one);
          }), function () {
            var buttons = byId('people', frames[1]).getElementsByTagName('button');
            buttons[words(buttons[0]) === 'Ann' ? 0 : 1].click();
            say('between us', frames[1]);
            until(function () { return sees('between us', frames[0]) && sees('between us', frames[1]); }, function () {
              byId('leave', frames[1]).click();
              until(all(function (one) { return one === frames[1] || sees('Bob</i> has left', one); }), function () {
                result({people: people, states: states, after: shown('people', frames[0]), ann: shown('log', frames[0]),
                  eve: shown('log', frames[2]), hacked: String(window.hacked),
                  elements: frames[0].document.querySelectorAll('#log img, #log i, #people i').length});
              });
            });
          });
        });
    """,
    "worlds": """
        var oldOne = byId('old-frame').contentWindow, newOne = byId('new-frame').contentWindow;
        until(function () { return /Both are in/.test(shown('verdict-line')); }, function () {
          byId('old-send').click();
          until(function () { return /From the old world to the new in/.test(shown('verdict-line')); }, function () {
            byId('new-send').click();
            until(function () { return /From the new world to the old in/.test(shown('verdict-line')); }, function () {
              result({old: shown('wire', oldOne), now: shown('wire', newOne), how: shown('new-how'),
                line: shown('verdict-line'), states: shown('state', oldOne) + shown('state', newOne)});
            });
          });
        });
    """,
}


class Driven(RequestHandler):
    """A page of the demo, with one of the DRIVERS behind its own scripts."""

    def get(self, page: str, driver: str) -> None:
        text = "<html><body></body></html>"
        if page != "blank":
            text = (ROOT / "static" / f"{page}.html").read_text(encoding="utf-8")
        script = f"<script>{LIBRARY}(function () {{ {DRIVERS[driver]} }}());</script>"
        self.finish(text.replace("</body>", script + "</body>"))


@pytest.fixture
async def site() -> AsyncIterator[str]:
    application, echo, io = run.make_application()
    application.add_handlers(".*", [(r"/driven/(\w+)/(\w+)", Driven)])
    async with serving_application(application) as url:
        yield url
        echo.close()
        io.close()


async def drive(engine: Any, url: str) -> dict[str, str]:
    text = await asyncio.to_thread(engine.run, url, PAGE_S)
    assert text, f"the page did not finish within {PAGE_S} s; the engine says {engine.log[-5:]}"
    facts: dict[str, str] = json.loads(text)
    return facts


@pytest.mark.parametrize("name", ["chromium", "firefox"])
async def test_three_transports_in_one_room(request: pytest.FixtureRequest, site: str, name: str) -> None:
    seen = await drive(request.getfixturevalue(name), f"{site}/driven/blank/three")
    for way in ("jsonp-polling", "websocket", "xhr-streaming"):
        assert f"Connected over {way}." in seen["states"]
        assert way in seen["people"]
    assert "Ann (you) jsonp-polling" in seen["people"]
    assert "<i>Bob</i> websocket" in seen["people"]
    assert "<i>Bob</i>, privately to you between us" in seen["ann"]
    assert "between us" not in seen["eve"]
    assert "<i>Bob</i>" not in seen["after"]
    assert seen["hacked"] == "undefined"
    assert seen["elements"] == "0"


async def test_two_browsers_of_different_makes(chromium: Any, firefox: Any, site: str) -> None:
    ann, bob = await asyncio.gather(
        drive(chromium, f"{site}/driven/chat/greet?nick=Ann&room=two&transport=websocket"),
        drive(firefox, f"{site}/driven/chat/answer?nick=Bob&room=two&transport=jsonp-polling"),
    )
    assert "Bob jsonp-polling" in ann["people"]
    assert "Ann websocket" in bob["people"]
    assert 'Bob answer <b>&amp;</b> "\u00e9\u6f22\U0001f600"' in ann["log"]


class Plain:
    """A partner without a library."""

    def __init__(self, site: str, room: str) -> None:
        self.address = site.replace("http", "ws", 1) + "/plain/websocket?ns=/chat"
        self.room = room

    async def __aenter__(self) -> Plain:
        self.socket = await websocket_connect(self.address)
        await self.emit("enter", {"nick": "Python", "room": self.room, "key": KEY})
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.socket.close()

    async def emit(self, *event: Any) -> None:
        await self.socket.write_message(json.dumps(event))

    async def event(self, name: str) -> Any:
        """The value of the next event of this name."""
        while True:
            text = await self.socket.read_message()
            assert text is not None, f"the connection ended before {name!r}"
            message = json.loads(text)
            if message[0] == name:
                return message[1]

    async def talk(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Greet the next one who comes in; who that was, and what they said."""
        joined = await self.event("joined")
        await self.emit("say", "hello from Python")
        while True:
            said = await self.event("said")
            if said["from"] == joined["id"]:
                return joined, said


async def partnered(engine: Any, site: str, query: str = "") -> tuple[dict[str, str], str, str]:
    """What the page showed, its transport as the server saw it, and what it said."""
    async with Plain(site, "two") as partner:
        talking = asyncio.ensure_future(asyncio.wait_for(partner.talk(), PAGE_S))
        try:
            seen = await drive(engine, f"{site}/driven/chat/answer?nick=Old+one&room=two{query}")
            joined, said = await talking
        finally:
            talking.cancel()
        return seen, joined["transport"], said["text"]


@pytest.mark.parametrize(
    ("name", "query", "transport"),
    [
        ("chromium", "", "websocket"),
        ("firefox", "", "websocket"),
        ("qtwebkit", "", "websocket"),
        ("qtwebkit", "&transport=jsonp-polling", "jsonp"),
        ("phantomjs", "", "xhr_streaming"),
        ("phantomjs", "&transport=jsonp-polling", "jsonp"),
    ],
)
async def test_an_engine_and_a_partner(
    request: pytest.FixtureRequest, site: str, name: str, query: str, transport: str
) -> None:
    seen, way, text = await partnered(request.getfixturevalue(name), site, query)
    assert (way, text) == (transport, ANSWER)
    assert "Python plain websocket" in seen["people"]


@pytest.mark.parametrize("browser", ["INTERNET_EXPLORER_6", "INTERNET_EXPLORER_8"])
async def test_an_emulated_internet_explorer_and_a_partner(htmlunit: Any, site: str, browser: str) -> None:
    seen, way, text = await partnered(htmlunit(browser), site)
    assert way in ("xhr", "jsonp")
    assert text == ANSWER
    assert "hello from Python" in seen["log"]


@pytest.mark.parametrize("name", ["chromium", "firefox", "qtwebkit", "phantomjs"])
async def test_two_worlds(request: pytest.FixtureRequest, site: str, name: str) -> None:
    seen = await drive(request.getfixturevalue(name), f"{site}/driven/worlds/worlds")
    assert "Connected over jsonp-polling." in seen["states"]
    assert '<script src="/polysock/' in seen["old"]
    assert '<form action="/polysock/' in seen["old"]
    assert "I only have script tags" in seen["old"]
    if name == "phantomjs":
        assert "took the best it has: xhr-streaming" in seen["how"]
    else:
        assert "Connected over websocket." in seen["states"]
        assert "(upgrade)" in seen["now"]
        assert "Loud and clear!" in seen["now"]


# -- a server that goes away


@contextmanager
def demo(port: int = 0) -> Any:
    """run.py as a stranger starts it; its process and its address."""
    command = [sys.executable, "run.py", f"--port={port}", "--address=127.0.0.1"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert select.select([process.stdout], [], [], START_S)[0], "run.py printed nothing"
            line = process.stdout.readline()
            address = re.search(r"http://127\.0\.0\.1:(\d+)/", line)
            assert address, f"no address in {line!r}"
            yield process, address[0], int(address[1])
        finally:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


RETURN = (
    LIBRARY
    + """
if (window === window.top) {
  until(function () { return sees('You are in lobby as Ann'); }, function () {
    var states = [];
    say('before');
    until(function () { return sees('Ann before'); }, function () {
      say('kill me');
      until(function () {
        var text = shown('state-badge') + ': ' + shown('state');
        if (states[states.length - 1] !== text) { states.push(text); }
        return sees('You are back in lobby as Ann');
      }, function () {
        say('after');
        until(function () { return sees('Ann after'); }, function () {
          result({states: states.join('\\n'), log: shown('log'), people: shown('people')});
        });
      });
    });
  });
}
"""
)


@pytest.mark.parametrize("transport", ["websocket", "jsonp-polling"])
async def test_the_chat_comes_back_after_the_server_was_killed(chromium: Any, transport: str) -> None:
    with demo() as (process, url, port):
        page = asyncio.ensure_future(
            asyncio.to_thread(chromium.run, f"{url}chat.html?nick=Ann&transport={transport}", PAGE_S, RETURN)
        )
        watcher = await websocket_connect(f"ws://127.0.0.1:{port}/plain/websocket?ns=/chat")
        await watcher.write_message(json.dumps(["enter", {"nick": "Watcher", "room": "lobby", "key": KEY}]))
        while '"kill me"' not in str(await asyncio.wait_for(watcher.read_message(), STEP_S)):
            pass
        watcher.close()
        process.kill()
        process.wait(STOP_S)
    with demo(port):
        text = await page
    assert text, f"the page did not finish; the engine says {chromium.log[-5:]}"
    seen = json.loads(text)
    assert "The connection was lost." in seen["log"]
    assert re.search(r"reconnecting: Try \d+ in \d+ s\. .+", seen["states"])
    assert seen["log"].count("You are in lobby") == 1
    assert f"Ann (you) {transport}" in seen["people"]
