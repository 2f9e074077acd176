"""docs/client-api.md and docs/browsers.md, held against the client: the examples run, names and sizes are true.

The ten-line page is tried as a reader would: pasted into an empty folder beside the server of docs/examples.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from browserlab import knock_out
from client_app import Echo, greet
from polysock import Server, SockJSRouter
from support.proxies import Background

ROOT = Path(__file__).resolve().parent.parent
README, API, BROWSERS = ROOT / "README.md", ROOT / "docs" / "client-api.md", ROOT / "docs" / "browsers.md"
PROGRAM = ROOT / "docs" / "examples" / "hub_server.py"
STATIC = ROOT / "static"
ADDRESS = "127.0.0.1"
PAGE_S = 60
START_S = 20
ANSWER_S = 10
POLL_S = 0.05
# Between picking a free port and listening on it, another program may take it.
PORT_TRIES = 3
# The files change more often than the page that tells their sizes.
SIZE_TOLERANCE = 0.05

FENCE = re.compile(r"^```(\w+)[ \t]*(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


EXAMPLES = [code for language, _, code in FENCE.findall(text_of(API)) if language == "js"]
(TEN_LINES,) = [code for language, mark, code in FENCE.findall(text_of(API)) if (language, mark) == ("html", "page")]
EXPECTED: list[list[Any]] = [
    ["/", ["a", 1], "websocket"],
    [42],
    [None, ["still there?"], "/some", True],
    [
        [
            *("connecting", "connect", "disconnect: transport close"),
            *("reconnecting: 1", "connecting", "reconnect: 1", "connect"),
        ]
    ],
    [404, "asking {origin}/nowhere/info: HTTP 404; look at the URL: is the endpoint mounted at this path, and this "
     "transport switched on?"],
    [3001, "bye", True, 3],
    ["unchanged", True],
]  # fmt: skip


# -- the examples

PAGE = """<!DOCTYPE html><title>example</title><script src="/polysock/polysock.min.js"></script><body><script>
function done() { window.__result = JSON.stringify(Array.prototype.slice.call(arguments)); }
%s
</script>"""


class Example(RequestHandler):
    def get(self, number: str) -> None:
        self.write(PAGE % EXAMPLES[int(number)])


class Quiet(Application):
    def log_request(self, handler: RequestHandler) -> None:
        """Requests are no news, also not the one for what is nowhere."""


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    sockets = bind_sockets(0, ADDRESS)

    async def start() -> tuple[HTTPServer, Server, SockJSRouter]:
        io, echo = Server(), SockJSRouter(Echo, "/echo")
        for name in ("/", "/some"):
            io.of(name).on("connection", greet)
        server = HTTPServer(Quiet([*io.routes(), *echo.urls, (r"/example/(\d+)", Example)]))
        server.add_sockets(sockets)
        return server, io, echo

    async def stop(server: HTTPServer, *mounted: Any) -> None:
        server.stop()
        for one in mounted:
            one.close()
        await server.close_all_connections()

    with Background() as thread:
        started = thread.call(start())
        yield f"http://{ADDRESS}:{sockets[0].getsockname()[1]}"
        thread.call(stop(*started))


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_example(origin: str, chromium: Any, number: int) -> None:
    # The polyfill's example is for browsers without a WebSocket.
    preload = knock_out("websocket") if "install" in EXAMPLES[number] else None
    text = chromium.run(f"{origin}/example/{number}", timeout=PAGE_S, preload=preload)
    assert text, f"the example did not finish; the engine says {chromium.log[-5:]}"
    expected = json.loads(json.dumps(EXPECTED[number]).replace("{origin}", origin))
    assert json.loads(text) == expected


def test_what_the_page_says_of_an_error_is_what_the_client_says() -> None:
    message = EXPECTED[4][1].format(origin="http://127.0.0.1:8888")
    assert f"says: `{message}`" in text_of(API)


# -- names


def test_transports_are_those_of_the_client_in_its_order() -> None:
    ladder = re.findall(r"\{ name: '([\w-]+)', driver", text_of(STATIC / "src" / "chooser.js"))
    table = text_of(API).partition("| name | for |\n")[2].partition("\n\n")[0]
    names = [name for row in table.splitlines() for name in re.findall(r"`([\w-]+)`", row.split("|")[1])]
    assert names == ladder
    heads = re.search(r"^\| engine \|.*$", text_of(BROWSERS), re.MULTILINE)
    assert heads
    assert sorted(re.findall(r"`([\w-]+)`", heads[0])) == sorted(ladder)


def test_options_are_those_of_the_types() -> None:
    types = text_of(STATIC / "polysock.d.ts")
    bodies = re.findall(r"interface (?:ConnectionOptions|IoOptions)[^{]*\{(.*?)\n\}", types, re.DOTALL)
    names = {name for body in bodies for name in re.findall(r"^  (\w+)\?:", body, re.MULTILINE)}
    tables = re.findall(r"^\| option \|.*\n\| ---.*\n((?:\|.*\n)+)", text_of(API), re.MULTILINE)
    cells = [row.split("|")[1] for table in tables for row in table.splitlines()]
    assert len(tables) == 2
    assert {name for cell in cells for name in re.findall(r"`(\w+)`", cell)} == names


def test_sizes_are_about_those_of_the_files() -> None:
    rows = re.findall(r"^\| `(polysock[\w.]+)` \| ([\d,]+) \| ([\d,]+) \|", text_of(BROWSERS), re.MULTILINE)
    assert {name for name, *_ in rows} == {"polysock.js", "polysock.min.js", "polysock.mjs"}
    for name, *said in rows:
        body = (STATIC / name).read_bytes()
        for number, found in zip(said, (len(body), len(gzip.compress(body))), strict=True):
            assert int(number.replace(",", "")) == pytest.approx(found, rel=SIZE_TOLERANCE), name


# -- the ten-line page


def listens(process: subprocess.Popen[bytes], port: int) -> bool:
    for _ in range(int(START_S / POLL_S)):
        try:
            socket.create_connection((ADDRESS, port), ANSWER_S).close()
            return True
        except ConnectionRefusedError:
            try:
                process.wait(POLL_S)
                return False
            except subprocess.TimeoutExpired:
                pass
    return False


@contextmanager
def pasted(folder: Path) -> Iterator[str]:
    """The server and the page in an empty folder, run there as a reader would; yields the address to open."""
    (folder / "hub_server.py").write_text(text_of(PROGRAM), encoding="utf-8")
    (folder / "index.html").write_text(TEN_LINES, encoding="utf-8")
    for _ in range(PORT_TRIES):
        with socket.socket() as probe:
            probe.bind((ADDRESS, 0))
            port = probe.getsockname()[1]
        command, environment = [sys.executable, "hub_server.py"], {**os.environ, "PORT": str(port)}
        with subprocess.Popen(command, cwd=folder, env=environment) as process:
            try:
                if listens(process, port):
                    yield f"http://{ADDRESS}:{port}/"
                    return
            finally:
                process.kill()
    pytest.fail("the program did not start")


# A reader: types into the page's own form once it says that it is connected, and reads its log.
READER = """
(function () {
  var sent = false;
  function look() {
    var log = document.getElementById('log'), text = log ? log.textContent : '', form = document.forms[0];
    if (!sent && /^connected/.test(text)) {
      sent = true;
      form.elements[0].value = '<b>gr\\u00fc\\u00df</b>';
      form.onsubmit();
    }
    if (/heard it/.test(text)) { window.__result = text; return; }
    setTimeout(look, 20);
  }
  look();
})();
"""


@pytest.mark.parametrize(
    ("name", "lacking", "transport"),
    [("chromium", [], "websocket"), ("chromium", ["websocket"], "xhr-streaming"), ("firefox", [], "websocket")],
)
def test_ten_lines_pasted_into_an_empty_folder(
    request: pytest.FixtureRequest, tmp_path: Path, name: str, lacking: list[str], transport: str
) -> None:
    assert len(TEN_LINES.splitlines()) == 10
    engine = request.getfixturevalue(name)
    with pasted(tmp_path) as url:
        text = engine.run(url, timeout=PAGE_S, preload=knock_out(*lacking) + READER)
        assert text, f"the page said nothing; the engine says {engine.log[-5:]}"
    assert re.fullmatch(rf"connected over {transport}\n[\w-]+: <b>gr\u00fc\u00df</b>\n1 heard it\n", text), text


def test_the_readme_shows_this_page() -> None:
    """Where the README has a page with the client, it is the one that is tried here."""
    pages = [code for language, _, code in FENCE.findall(text_of(README)) if "polysock.min.js" in code]
    assert pages in ([], [TEN_LINES])
