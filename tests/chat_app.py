"""The server of test_demo_chat.py: the demo's application, and its pages with a driver behind their own scripts.

    /driven/chat/NAME       chat.html, and then drivers.NAME() of chat_drivers.js; chat-4 ..., worlds likewise
    /driven/blank/NAME      an empty page and that driver

So engines without a preload can be driven too.

    python tests/chat_app.py [PORT]

prints its address once it listens.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from tornado.netutil import bind_sockets
from tornado.web import RequestHandler

from polysock import HTTPServer

ROOT = Path(__file__).resolve().parent.parent
DRIVERS = Path(__file__).with_name("chat_drivers.js")
ADDRESS = "127.0.0.1"
# A browser may stand still for a while on a busy machine, and nobody has left then.
SETTINGS = {"disconnect_delay": 30}


class Driven(RequestHandler):
    def get(self, page: str, driver: str) -> None:
        text = "<html><body></body></html>"
        if page != "blank":
            text = (ROOT / "static" / f"{page.partition('-')[0]}.html").read_text(encoding="utf-8")
        script = f"<script>{DRIVERS.read_text(encoding='utf-8')}\ndrivers.{driver}();</script>"
        self.finish(text.replace("</body>", script + "</body>"))


async def main() -> None:
    sys.path.insert(0, str(ROOT))
    from run import make_application

    application, echo, io = make_application(settings=SETTINGS)
    application.add_handlers(".*", [(r"/driven/([\w.-]+)/(\w+)", Driven)])
    server = HTTPServer(application)
    sockets = bind_sockets(int(sys.argv[1]) if len(sys.argv) > 1 else 0, ADDRESS)
    server.add_sockets(sockets)
    print(f"http://{ADDRESS}:{sockets[0].getsockname()[1]}/", flush=True)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    server.stop()
    io.close()
    echo.close()
    await server.close_all_connections()


if __name__ == "__main__":
    asyncio.run(main())
