"""Does everything that we ship to browsers parse as ECMAScript 3?

    python tests/tools/es3_check.py [FILE_OR_FOLDER ...]

Looks at *.js, and in *.html at inline scripts, event attributes and javascript: addresses (also inside conditional
comments), in static/ unless told otherwise.  One later construct anywhere keeps a whole file from running in the
browsers that need the fallbacks most.  The parser is acorn, at its strictest setting, under Node: without them the
check says so and passes, unless POLYSOCK_TESTS_MUST_RUN is set.  It judges syntax, not whether JSON or bind exist.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import TypedDict

ROOT = Path(__file__).resolve().parents[2]
ACORN = ROOT / "tests" / "npm" / "node_modules" / "acorn"
SCRIPT_TYPES = ("", "module", "text/javascript", "application/javascript", "text/ecmascript", "application/ecmascript")
PARSE_SECONDS = 60


class Script(TypedDict):
    name: str
    line: int
    text: str
    #: True for the text of an event attribute: the body of a function, where return is allowed.
    body: bool


class Inline(HTMLParser):
    """Collects the scripts of one page."""

    def __init__(self, name: str, first_line: int = 1) -> None:
        super().__init__(convert_charrefs=True)
        self.name, self.first_line = name, first_line
        self.found: list[Script] = []
        self.inside = False
        self.pieces: list[str] = []

    def line(self) -> int:
        return self.first_line + self.getpos()[0] - 1

    def keep(self, text: str, *, body: bool = False) -> None:
        self.found.append(Script(name=self.name, line=self.line(), text=text, body=body))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for key, value in attrs:
            if key.startswith("on") and value:
                self.keep(value, body=True)
            elif key in ("href", "src", "action") and value and value.strip().lower().startswith("javascript:"):
                self.keep(value.strip().partition(":")[2])
        values = dict(attrs)
        self.pieces = []
        self.inside = tag == "script" and "src" not in values and (values.get("type") or "").lower() in SCRIPT_TYPES

    def handle_endtag(self, tag: str) -> None:
        if self.inside and self.pieces:
            self.found[-1]["text"] = "".join(self.pieces)
        self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:  # older parsers hand over a script in pieces, cut at each "</"
            if not self.pieces:
                self.keep("")
            self.pieces.append(data)

    def handle_comment(self, data: str) -> None:
        if data.startswith("[if"):  # what only Internet Explorer reads is still shipped
            inner = Inline(self.name, self.line())
            inner.feed(data.partition(">")[2])
            inner.close()
            self.found += inner.found


def scripts_in(paths: Iterable[Path]) -> Iterator[Script]:
    """Every script in these files and folders."""
    for path in paths:
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            name = str(file.relative_to(ROOT)) if file.is_relative_to(ROOT) else str(file)
            if file.suffix == ".js":
                yield Script(name=name, line=1, text=file.read_text(encoding="utf-8"), body=False)
            elif file.suffix in (".html", ".htm"):
                page = Inline(name)
                page.feed(file.read_text(encoding="utf-8"))
                page.close()
                yield from page.found


def main(arguments: list[str]) -> int:
    paths = [Path(argument).resolve() for argument in arguments] or [ROOT / "static"]
    if absent := [str(path) for path in paths if not path.exists()]:
        print("ES3 check: no such file: " + ", ".join(absent))
        return 1
    node = shutil.which("node") or shutil.which("nodejs")
    if not node or not ACORN.is_dir():
        must = bool(os.environ.get("POLYSOCK_TESTS_MUST_RUN"))
        print(
            f"ES3 check: {'FAILED' if must else 'SKIPPED'}: needs Node and the npm package acorn; "
            "install nodejs and npm, then: make npm-deps"
        )
        return int(must)
    scripts = list(scripts_in(paths))
    run = subprocess.run(
        [node, str(ROOT / "tests" / "tools" / "es3_parse.js"), str(ACORN)],
        input=json.dumps(scripts),
        stdout=subprocess.PIPE,
        text=True,
        timeout=PARSE_SECONDS,
        check=True,
    )
    faults = json.loads(run.stdout)
    for fault in faults:
        print(fault)
    print(f"ES3 check: {len(scripts)} scripts, {len(faults)} faults")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
