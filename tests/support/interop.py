"""The fixtures that put the interop server (tests/interop/server.py), or another one, under test.

POLYSOCK_INTEROP_URL names a server that already runs, so that the same tests can judge any SockJS server with these
endpoints, and POLYSOCK_INTEROP_SOCKETIO_URL one with the endpoints of the Engine.IO and Socket.IO suites; without them
a server of ours is started for the test session. A test module asks for these fixtures by
`pytest_plugins = ["support.interop"]`.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from support.interop_engine import MakeClient, engine_clients
from support.interop_server import running_interop_servers

SERVER_UNDER_TEST = "POLYSOCK_INTEROP_URL"
SOCKETIO_UNDER_TEST = "POLYSOCK_INTEROP_SOCKETIO_URL"


@dataclass(frozen=True)
class Interop:
    """The server under test; `log` is what it wrote to standard error, when we started it."""

    url: str
    socketio_url: str
    log: Path | None


@pytest.fixture(scope="session")
def interop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Interop]:
    given, socketio = (os.environ.get(name, "").rstrip("/") for name in (SERVER_UNDER_TEST, SOCKETIO_UNDER_TEST))
    if given or socketio:
        yield Interop(given, socketio, None)
        return
    log = tmp_path_factory.mktemp("interop") / "server.log"
    with running_interop_servers(log) as (url, socketio_url):
        yield Interop(url, socketio_url, log)
    # Whatever the tests did to it, the server has no reason to complain: refusing a client is its daily work.
    written = log.read_text(encoding="utf-8", errors="replace")
    assert not written, f"the interop server wrote to its standard error:\n{written[-4000:]}"


@pytest.fixture(scope="session")
def interop_url(interop: Interop) -> str:
    if not interop.url:
        pytest.skip(f"{SERVER_UNDER_TEST} names no server to test")
    return interop.url


@pytest.fixture(scope="session")
def socketio_url(interop: Interop) -> str:
    """The server of the Engine.IO and Socket.IO suites."""
    if not interop.socketio_url:
        pytest.skip(f"{SOCKETIO_UNDER_TEST} names no server to test")
    return interop.socketio_url


@pytest_asyncio.fixture
async def engine(socketio_url: str) -> AsyncIterator[MakeClient]:
    """Clients of that server."""
    async with engine_clients(socketio_url) as make:
        yield make
