"""An application on several workers, for tests/test_workers.py: ``python worker_app.py MODE WORKERS STOP_S [FLAG]``.

MODE says how it behaves: ``well``; ``early`` raises before it serves; ``soon`` dies as soon as it serves; ``deaf`` does
not end when told to; ``flagged`` is well until there is a file FLAG; of ``second`` the first one that is started as
number 1 never serves, and says so by a file FLAG.  Prints the port, and logs to stderr.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import sys

from tornado.web import Application, RequestHandler

import polysock
from polysock import workers

MODE, WORKERS, STOP_S, FLAG = [*sys.argv[1:], "", "", "", ""][:4]


# Prints the signals that a process ignores from its start.
IGNORED = "import signal; print(*(int(each) for each in signal.valid_signals() if signal.getsignal(each) == 1))"

# Requests that came just before the end are answered.
LINGER_S = 0.5


class About(RequestHandler):
    """This process."""

    def initialize(self, worker: workers.Worker, inheritable: list[bool]) -> None:
        self.worker = worker
        self.inheritable = inheritable

    def get(self) -> None:
        worker = self.worker
        self.set_header("Connection", "close")
        self.finish(
            {
                "pid": os.getpid(),
                "slot": worker.slot,
                "workers": worker.workers,
                "port": worker.port,
                "backplane": worker.backplane,
                "is_marked": "POLYSOCK_WORKER" in os.environ,
                "inheritable": self.inheritable,
                "ignored_by_children": subprocess.check_output([sys.executable, "-c", IGNORED], text=True).split(),
                "input": sys.stdin.read() if WORKERS != "1" else "",
            }
        )


class Hold(RequestHandler):
    """Blocks the whole process until the test's own socket, whose port is told, is closed."""

    def get(self, port: str) -> None:
        with socket.create_connection(("127.0.0.1", int(port))) as held:
            held.sendall(str(os.getpid()).encode())
            held.recv(1)
        self.finish()


def never_serves(slot: int) -> bool:
    if MODE != "second" or slot != 1 or os.path.exists(FLAG):
        return False
    open(FLAG, "x").close()
    return True


def is_broken() -> bool:
    return MODE == "early" or (MODE == "flagged" and os.path.exists(FLAG))


async def serve(worker: workers.Worker) -> None:
    if is_broken():
        raise RuntimeError("broken on purpose")
    io = polysock.Server()
    io.on("connection", lambda client: client.emit("pid", os.getpid()))
    # (Closed sockets do not say, and requests that were taken before are answered after the sockets are closed.)
    known = {"worker": worker, "inheritable": [each.get_inheritable() for each in worker.sockets]}
    handlers = [("/about", About, known), ("/hold/([0-9]+)", Hold), *io.routes()]
    server = polysock.HTTPServer(Application(handlers, log_function=lambda handler: None))
    server.add_sockets(worker.sockets)
    if never_serves(worker.slot):
        await asyncio.Event().wait()
    if MODE == "soon":
        asyncio.get_running_loop().call_soon(os._exit, 7)
    await worker.until_stop()
    if MODE == "deaf":
        await asyncio.Event().wait()
    server.stop()
    io.close()
    await asyncio.sleep(LINGER_S)
    await server.close_all_connections()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    workers.run(
        serve,
        workers=int(WORKERS),
        address="127.0.0.1",
        stop_s=float(STOP_S),
        on_ready=lambda port: print("port", port, flush=True),
    )
    print("over", flush=True)
