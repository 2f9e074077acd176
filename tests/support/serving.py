"""A Tornado server on a free port in the test's own event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application

import polysock

#: Tornado's own, from which connections are taken over after their first request; and ours, which reads that as well.
SERVERS = {"": HTTPServer, "entrance": polysock.HTTPServer}
_chosen: list[type[HTTPServer]] = [HTTPServer]


@pytest.fixture(params=SERVERS, autouse=True)
def either_server(request: pytest.FixtureRequest) -> Any:
    """Who imports this has all tests of the module run under both."""
    _chosen.append(SERVERS[request.param])
    yield
    _chosen.pop()


def new_server(application: Application, **settings: Any) -> HTTPServer:
    """The server of this test; *settings* are keyword arguments of ``HTTPServer``."""
    return _chosen[-1](application, **settings)


@asynccontextmanager
async def serving(
    handlers: Sequence[Any], *, server: dict[str, Any] | None = None, **settings: Any
) -> AsyncIterator[str]:
    """Serve *handlers* (URL specs) in an application with *settings*; yields the base URL.

    *server*: keyword arguments of ``HTTPServer``.
    """
    settings.setdefault("log_function", lambda handler: None)
    async with serving_application(Application(list(handlers), **settings), **(server or {})) as url:
        yield url


@asynccontextmanager
async def serving_application(application: Application, **server_settings: Any) -> AsyncIterator[str]:
    """The same for a ready application."""
    async with serving_with(new_server(application, **server_settings)) as url:
        yield url


@asynccontextmanager
async def serving_with(server: HTTPServer) -> AsyncIterator[str]:
    """The same for a ready server."""
    sockets = bind_sockets(0, "127.0.0.1")
    server.add_sockets(sockets)
    try:
        yield f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
    finally:
        server.stop()
        await server.close_all_connections()
