"""polysock.js without a browser: its parts under Node (client_unit.js), and the built files against their sources."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import polysock
from support.needs import need_npm, need_program

TESTS = Path(__file__).resolve().parent
STATIC = TESTS.parent / "static"
SECONDS = 60
NODE_HELP = "install Node.js (Debian: nodejs)"

#: What a page has to load, in bytes; raise it knowingly.
MAX_MINIFIED_BYTES = 52_000


def node(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [need_program("node", "nodejs", how=NODE_HELP), *arguments],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize("build", ["polysock.js", "polysock.min.js"])
def test_the_parts_under_node(build: str) -> None:
    run = node("--test", str(TESTS / "client_unit.js"), POLYSOCK_BUILD=build)
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
    assert re.search(r"(?m)^. pass [1-9]", run.stdout), run.stdout[-1000:]


def test_the_built_files_are_those_of_the_sources() -> None:
    need_npm("terser")
    run = node(str(TESTS / "tools" / "build_client.mjs"), "--check")
    assert run.returncode == 0, run.stderr


def test_all_that_old_browsers_get_is_ecmascript_3() -> None:
    need_npm("acorn")
    need_program("node", "nodejs", how=NODE_HELP)
    files = [STATIC / "polysock.js", STATIC / "polysock.min.js", STATIC / "src", TESTS / "browserlab/pages/client.html"]
    check = [sys.executable, str(TESTS / "tools" / "es3_check.py"), *map(str, files)]
    run = subprocess.run(check, capture_output=True, text=True, timeout=SECONDS)
    assert run.returncode == 0, run.stdout


def test_the_module_build_exports_the_same() -> None:
    code = (
        f"import all, {{ PolySock, io, install }} from {json.dumps((STATIC / 'polysock.mjs').as_uri())};"
        "console.log(JSON.stringify([all.PolySock === PolySock, all.io === io, all.install === install, io.version]));"
    )
    run = node("--input-type=module", "--eval", code)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == [True, True, True, polysock.__version__]


def test_the_minified_file_stays_small() -> None:
    assert (STATIC / "polysock.min.js").stat().st_size < MAX_MINIFIED_BYTES
