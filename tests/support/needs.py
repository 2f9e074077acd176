"""What a test needs beyond Python: browsers, Node, npm packages.

Absent, such a thing skips the test with a reason that says how to get it.  With POLYSOCK_TESTS_MUST_RUN set (as .ci/run
does, which installs everything) it fails the test instead, so that CI cannot go green by testing nothing.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NoReturn, TypeVar

import pytest

__all__ = ["MUST_RUN", "lacking", "need", "need_npm", "need_program"]

T = TypeVar("T")

#: Name of the environment variable that turns a skip for want of a program into a failure.
MUST_RUN = "POLYSOCK_TESTS_MUST_RUN"

_TESTS = Path(__file__).resolve().parent.parent

#: Folders with a package.json of ours, and the command that fills each.
_NPM_FOLDERS = ((_TESTS / "npm", "make test (needs npm)"), (_TESTS / "npm-engines", "make browsers-deps (needs npm)"))


def lacking(what: str, how: str) -> NoReturn:
    """End the running test: skipped, or failed where everything was promised to be there."""
    reason = f"needs {what}; to get it: {how}"
    if os.environ.get(MUST_RUN):
        pytest.fail(f"{reason} ({MUST_RUN} is set)", pytrace=False)
    pytest.skip(reason)


def need(found: T | None, what: str, how: str) -> T:
    """``found`` itself, unless it is false or a path that does not exist: then the test is skipped or fails."""
    if not found or (isinstance(found, Path) and not found.exists()):
        lacking(what, how)
    return found


def need_program(*names: str, how: str) -> str:
    """The path of the first of these programs that is installed."""
    return need(next(filter(None, map(shutil.which, names)), None), " or ".join(names), how)


def need_npm(package: str, file: str = "package.json") -> Path:
    """A file of an npm package, by the name under which tests/npm or tests/npm-engines lists it."""
    for folder, how in _NPM_FOLDERS:
        if f'"{package}"' in (folder / "package.json").read_text(encoding="utf-8"):
            return need(folder / "node_modules" / package / file, f"the npm package {package}", how)
    raise LookupError(f"no package.json under {_TESTS} lists {package}")
