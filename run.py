"""The demo site: ``python run.py --port=8080``, then look at http://127.0.0.1:8080/ in any browser.

Serves ``static/`` and one SockJS echo at ``/echo``; the page opens an echo over each transport in turn and shows what
travels.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from pathlib import Path

from tornado import autoreload
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.options import define, options
from tornado.web import Application, RequestHandler, StaticFileHandler

from polysock import Connection, SockJSRouter

STATIC = Path(__file__).resolve().parent / "static"
# Long enough for a closing handshake with everybody, short enough for somebody who waits at a prompt.
STOP_S = 2

define("port", default=8080, type=int, help="port to listen on; 0 picks a free one")
define("address", default="127.0.0.1", help="address to listen on; 0.0.0.0 lets other machines in")
define("debug", default=False, type=bool, help="restart when a source file changes, log every request")
define("xheaders", default=False, type=bool, help="believe X-Forwarded-For and X-Scheme of a proxy in front")


class Echo(Connection):
    """Sends back what it gets."""

    def on_message(self, message: str | bytes) -> None:
        self.send(message, binary=isinstance(message, bytes))


class Page(StaticFileHandler):
    """The demo's files, always checked for a newer version."""

    def set_extra_headers(self, path: str) -> None:
        self.set_header("Cache-Control", "no-cache")
        self.set_header("X-Content-Type-Options", "nosniff")


class NotFound(RequestHandler):
    """Everything else."""

    def prepare(self) -> None:
        self.set_status(404)
        self.set_header("Content-Type", "text/plain; charset=UTF-8")
        self.finish("There is nothing here. The demo is at /, its echo at /echo.\n")


def make_application(*, debug: bool = False) -> tuple[Application, SockJSRouter]:
    """The demo's application and its echo endpoint."""
    echo = SockJSRouter(Echo, "/echo")
    application = Application(
        [
            *echo.urls,
            (r"/static/(.*)", Page, {"path": str(STATIC)}),
            (r"/()", Page, {"path": str(STATIC), "default_filename": "index.html"}),
        ],
        default_handler_class=NotFound,
        # One line for every poll would drown what matters.
        **({} if debug else {"log_function": lambda handler: None}),
    )
    if debug:
        autoreload.start()
    return application, echo


async def serve() -> None:
    try:
        sockets = bind_sockets(options.port, options.address)
    except OSError as error:
        sys.exit(
            f"Cannot listen on {options.address}:{options.port}: {error.strerror}. "
            "Another program may have the port; try another one: make demo PORT=9000"
        )
    application, echo = make_application(debug=options.debug)
    server = HTTPServer(application, xheaders=options.xheaders)
    server.add_sockets(sockets)
    port = sockets[0].getsockname()[1]
    host = "127.0.0.1" if options.address in ("", "0.0.0.0", "::") else options.address
    print(f"polysock demo: http://{f'[{host}]' if ':' in host else host}:{port}/   (Ctrl+C stops it)", flush=True)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    server.stop()
    echo.close()
    try:
        await asyncio.wait_for(server.close_all_connections(), STOP_S)
    except asyncio.TimeoutError:
        logging.getLogger("polysock").info("some connections did not close in time")


def main() -> None:
    options.parse_command_line()
    asyncio.run(serve())


if __name__ == "__main__":
    main()
