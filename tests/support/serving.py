"""A Tornado server on a free port in the test's own event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application


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
    sockets = bind_sockets(0, "127.0.0.1")
    http = HTTPServer(application, **server_settings)
    http.add_sockets(sockets)
    try:
        yield f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
    finally:
        http.stop()
        await http.close_all_connections()
