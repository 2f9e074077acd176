"""The fixtures that put the interop server (tests/interop/server.py), or another one, under test.

POLYSOCK_INTEROP_URL names a server that already runs, so that the same tests can judge any SockJS server with these
endpoints; without it a server of ours is started for the test session. A test module asks for these fixtures by
`pytest_plugins = ["support.interop"]`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.interop_server import running_interop_server

SERVER_UNDER_TEST = "POLYSOCK_INTEROP_URL"


@dataclass(frozen=True)
class Interop:
    """The server under test; `log` is what it wrote to standard error, when we started it."""

    url: str
    log: Path | None


@pytest.fixture(scope="session")
def interop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Interop]:
    if given := os.environ.get(SERVER_UNDER_TEST):
        yield Interop(given.rstrip("/"), None)
        return
    log = tmp_path_factory.mktemp("interop") / "server.log"
    with running_interop_server(log) as url:
        yield Interop(url, log)
    # Whatever the tests did to it, the server has no reason to complain: refusing a client is its daily work.
    written = log.read_text(encoding="utf-8", errors="replace")
    assert not written, f"the interop server wrote to its standard error:\n{written[-4000:]}"


@pytest.fixture(scope="session")
def interop_url(interop: Interop) -> str:
    return interop.url
