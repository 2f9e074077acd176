"""The demo's transport lab, opened in browser engines against ``run.py`` as a stranger starts it."""

from __future__ import annotations

import json
import re
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from browserlab import knock_out

ROOT = Path(__file__).resolve().parent.parent
START_S = 20
STOP_S = 10
# The page gives up on a transport by itself; this only ends an engine that stopped altogether.
PAGE_S = 60
LADDER = ["websocket", "xhr_streaming", "eventsource", "htmlfile", "xhr", "jsonp"]
EVERYTHING = [*LADDER, "websocket_raw"]


@pytest.fixture(scope="module")
def demo_url() -> Iterator[str]:
    """Where run.py, started on a free port, says that it listens."""
    command = [sys.executable, "run.py", "--port=0", "--address=127.0.0.1"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as demo:
        try:
            assert demo.stdout is not None
            assert select.select([demo.stdout], [], [], START_S)[0], "run.py printed nothing"
            line = demo.stdout.readline()
            address = re.search(r"http://127\.0\.0\.1:\d+/", line)
            assert address, f"no address in {line!r}"
            yield address[0]
        finally:
            demo.terminate()
            try:
                demo.wait(STOP_S)
            except subprocess.TimeoutExpired:
                demo.kill()
                raise


def open_lab(engine: Any, url: str, preload: str | None = None) -> dict[str, Any]:
    text = engine.run(url, timeout=PAGE_S, preload=preload)
    assert text, f"the lab did not finish within {PAGE_S} s; the engine says {engine.log[-5:]}"
    report: dict[str, Any] = json.loads(text)
    assert report["done"] is True
    return report


def states(report: dict[str, Any]) -> dict[str, str]:
    """Name of a transport -> its state, with the reason of a failure beside it so that an assertion shows it."""
    return {
        name: "works" if found["state"] == "works" else f"{found['state']}: {found['why']}"
        for name, found in report["transports"].items()
    }


@pytest.mark.parametrize("name", ["chromium", "firefox"])
def test_every_transport_works_in_a_modern_browser(request: pytest.FixtureRequest, demo_url: str, name: str) -> None:
    report = open_lab(request.getfixturevalue(name), demo_url)
    assert states(report) == dict.fromkeys(EVERYTHING, "works")
    assert report["chosen"] == "websocket"
    for found in report["transports"].values():
        assert found["opened"] >= 0
        assert 0 <= found["latency"]["min"] <= found["latency"]["median"] <= found["latency"]["max"]


@pytest.mark.parametrize("name", ["chromium", "firefox"])
def test_without_websocket_the_others_work(request: pytest.FixtureRequest, demo_url: str, name: str) -> None:
    report = open_lab(request.getfixturevalue(name), demo_url, knock_out("websocket"))
    reason = "unavailable: this browser has no WebSocket object"
    expected = dict.fromkeys(EVERYTHING, "works") | {"websocket": reason, "websocket_raw": reason}
    assert states(report) == expected
    assert report["chosen"] == "xhr_streaming"


def test_text_that_cannot_be_read_before_the_end(chromium: Any, demo_url: str) -> None:
    report = open_lab(chromium, demo_url, knock_out("websocket", "xhr-progress", "eventsource"))
    assert states(report)["xhr_streaming"].startswith("unavailable: the text at readyState 3")
    assert states(report)["eventsource"].startswith("unavailable: this browser has no EventSource")
    assert report["chosen"] == "htmlfile"


def test_without_a_json_object_and_without_xmlhttprequest(chromium: Any, demo_url: str) -> None:
    report = open_lab(chromium, demo_url, knock_out("websocket", "xhr") + "delete window.JSON;")
    assert states(report)["jsonp"] == "works"
    assert report["chosen"] == "jsonp"
    assert states(report)["xhr"].startswith("unavailable: this browser has no XMLHttpRequest")


def test_own_json_reads_every_frame(chromium: Any, demo_url: str) -> None:
    report = open_lab(chromium, demo_url, "delete window.JSON;")
    assert states(report) == dict.fromkeys(EVERYTHING, "works")


def test_a_wrong_address_fails_with_status_and_advice(chromium: Any, demo_url: str) -> None:
    report = open_lab(chromium, f"{demo_url}?prefix=/nowhere&only=websocket,xhr,jsonp")
    assert list(report["transports"]) == ["websocket", "xhr", "jsonp"]
    assert report["chosen"] == ""
    for state in states(report).values():
        assert state.startswith("failed: ")
        assert "HTTP 404: look at the prefix" in state


# Holds the page's result back until a message of one's own has made its trip; then the result is what the page shows.
OWN_MESSAGE = """
(function () {
  var shown = '';
  function look() {
    var text = document.getElementById('own-result').textContent;
    var frames = document.querySelector('#jsonp .frames').textContent;
    var left = document.querySelectorAll('iframe, form[target]').length;
    if (!/^jsonp: came back/.test(text) || !/a\\[/.test(frames) || left) { setTimeout(look, 20); return; }
    shown = JSON.stringify({done: true, text: text, frames: frames,
                            injected: document.querySelectorAll('.frames b').length});
  }
  Object.defineProperty(window, '__result', {get: function () { return shown; }, set: function () {
    document.getElementById('own-text').value = '<b>"\\u2028</script>';
    document.getElementById('own-transport').value = 'jsonp';
    document.getElementById('own-send').click();
    setTimeout(look, 20);
  }});
})();
"""


def test_a_message_of_ones_own_is_text_and_leaves_no_frame_behind(chromium: Any, demo_url: str) -> None:
    shown = open_lab(chromium, f"{demo_url}?only=htmlfile,jsonp", OWN_MESSAGE)
    assert "jsonp: came back unchanged after" in shown["text"]
    assert '<b>\\"\\u2028</script>' in shown["frames"].replace("\\/", "/")
    assert shown["injected"] == 0


def test_qtwebkit(qtwebkit: Any, demo_url: str) -> None:
    assert states(open_lab(qtwebkit, demo_url)) == dict.fromkeys(EVERYTHING, "works")


def test_phantomjs_speaks_an_early_websocket_draft(phantomjs: Any, demo_url: str) -> None:
    found = states(open_lab(phantomjs, demo_url))
    assert {name: found[name] for name in LADDER[1:]} == dict.fromkeys(LADDER[1:], "works")
    assert "early draft" in found["websocket"]


@pytest.mark.parametrize("browser", ["INTERNET_EXPLORER_6", "INTERNET_EXPLORER_8"])
def test_an_engine_that_holds_responses_back(htmlunit: Any, demo_url: str, browser: str) -> None:
    report = open_lab(htmlunit(browser), demo_url)
    found = states(report)
    assert found["xhr"] == "works"
    assert found["jsonp"] == "works"
    assert report["chosen"] == "xhr"
    for name in ("websocket", "xhr_streaming", "eventsource", "htmlfile", "websocket_raw"):
        assert found[name].startswith("unavailable: ")
