"""The test tools themselves: an engine that says nothing, or a check that passes everything, proves nothing."""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from browserlab import Engine, knock_out
from support.needs import MUST_RUN, lacking, need, need_npm
from tools import es3_check

PAGES = Path(__file__).parent / "browserlab" / "pages"


# The answer to its script waits for what the page asks while that script loads.
HELD_PAGE = b"""<html><head></head><body><script>
function ask() {
  var request = window.XMLHttpRequest ? new XMLHttpRequest() : new ActiveXObject('Microsoft.XMLHTTP');
  request.open('GET', 'asked', true);
  request.send(null);
}
setTimeout(function () {
  var script = document.createElement('script');
  script.src = 'held.js';
  document.getElementsByTagName('head')[0].appendChild(script);
  setTimeout(ask, 20);
}, 0);
</script></body></html>"""
HELD_S = 10


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


class Held(Quiet):
    asked = threading.Event()

    def do_GET(self) -> None:
        body, kind = HELD_PAGE, "text/html"
        if self.path == "/asked":
            self.asked.set()
            body = b""
        elif self.path == "/held.js":
            body = b"window.__result = '%s';" % (b"asked" if self.asked.wait(HELD_S) else b"stopped")
            kind = "text/javascript"
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Framed(Quiet):
    def do_GET(self) -> None:
        body = b"<p>inside</p>" if self.path == "/frame" else b"<p>outside</p><iframe src='/frame'></iframe>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def served(handler: Callable[..., Quiet]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def pages() -> Iterator[str]:
    with served(functools.partial(Quiet, directory=str(PAGES))) as url:
        yield url


@pytest.mark.parametrize("name", ["chromium", "firefox", "qtwebkit", "phantomjs"])
def test_engine_tells_what_it_has(request: pytest.FixtureRequest, pages: str, name: str) -> None:
    answer = json.loads(request.getfixturevalue(name).run(f"{pages}/caps.html"))
    assert answer["XMLHttpRequest"] is True
    assert answer["WebSocket"] is True
    assert answer["Function.prototype.bind"] is (name != "phantomjs")
    assert answer["fetch"] is (name in ("chromium", "firefox"))


@pytest.mark.parametrize("name", ["chromium", "firefox", "qtwebkit"])
def test_knock_out(request: pytest.FixtureRequest, pages: str, name: str) -> None:
    preload = knock_out("websocket", "eventsource")
    answer = json.loads(request.getfixturevalue(name).run(f"{pages}/caps.html", preload=preload))
    assert answer["WebSocket"] is False
    assert answer["EventSource"] is False


def test_htmlunit_emulates_internet_explorer(htmlunit: Any, pages: str) -> None:
    answer = json.loads(htmlunit("INTERNET_EXPLORER_8").run(f"{pages}/caps.html"))
    assert answer["ActiveXObject"] is True
    assert answer["WebSocket"] is False


def test_htmlunit_goes_on_while_a_script_loads(htmlunit: Any) -> None:
    """As browsers do, and otherwise a page stands still as long as the server holds a JSONP answer."""
    with served(Held) as url:
        assert htmlunit("INTERNET_EXPLORER_6").run(f"{url}/page") == "asked"


@pytest.mark.parametrize("name", ["chromium", "firefox"])
def test_page_without_result(request: pytest.FixtureRequest, name: str) -> None:
    """What it shows, and its frames, says where it stands."""
    with served(Framed) as url:
        engine: Engine = request.getfixturevalue(name)
        shown = f"{url}/page shows: outside | {url}/frame shows: inside"

        def shows_in(seconds: float) -> bool:
            assert engine.run(f"{url}/page", timeout=seconds) is None
            return engine.log.pop().endswith(shown)

        assert any(shows_in(seconds) for seconds in (0.5, 5, 20))  # a busy machine loads it later


def test_lacking_skips_or_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(MUST_RUN, raising=False)
    with pytest.raises(pytest.skip.Exception, match="needs a thing; to get it: build it"):
        lacking("a thing", "build it")
    monkeypatch.setenv(MUST_RUN, "1")
    with pytest.raises(pytest.fail.Exception, match="needs a thing; to get it: build it"):
        need(Path(__file__).with_suffix(".absent"), "a thing", "build it")
    assert need(PAGES, "the pages", "look") == PAGES
    with pytest.raises(LookupError):
        need_npm("not-listed-anywhere")


@pytest.mark.parametrize(
    ("name", "text", "faults"),
    [
        ("good.js", "var a = {'default': 1, b: [1, 2]};\na['catch'] = function () { return /x/g; };", []),
        ("comma.js", "var a = {\n  b: 1,\n};", [3]),
        ("hole.js", "var a = [\n  1,\n];", [2]),
        ("word.js", "var o = {};\no.default = 1;", [2]),
        ("getter.js", "var o = {get a() { return 1; }};", [1]),
        ("arrow.js", "var f = x => x;", [1]),
        ("page.html", "<p onclick='return a'>\n<script>document.write('<b>x</b>');\nlet x;</script>", [3]),
        ("ie.html", "<!--[if IE]>\n<script>var o = {class: 1};</script><![endif]-->", [2]),
        ("link.html", "<a href='javascript:void `x`'>y</a><script type='text/template'>{{x}}</script>", [1]),
    ],
)
def test_es3_check(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str, faults: list[int]) -> None:
    need_npm("acorn")
    (tmp_path / name).write_text(text)
    assert es3_check.main([str(tmp_path)]) == bool(faults)
    *lines, _ = capsys.readouterr().out.splitlines()
    assert [int(line.split(":")[1]) for line in lines] == faults
