"""Starts the interop server (tests/interop/server.py) as a process of its own and stops it again, by its process id.

Standard library only and no pytest, because tests/autobahn/run.py uses it too; the fixtures are in support/interop.py.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SERVER = Path(__file__).resolve().parents[1] / "interop" / "server.py"
# What the public suites allow, 0.2 s, is less than a busy machine may stand still.
PING_TIMEOUT_SECONDS = 1.0
ANNOUNCEMENTS = ("listening on ", "socket.io on ")
START_SECONDS = 20.0
STOP_SECONDS = 10.0


class ServerFailed(Exception):
    """The server did not start, did not stop when told to, or left by itself; the text holds what it wrote."""


def _written(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")


@contextmanager
def running_interop_server(log: Path) -> Iterator[str]:
    """Run the server on a free port; its URL is the value, its standard error goes to `log`."""
    with running_interop_servers(log) as (url, _):
        yield url


@contextmanager
def running_interop_servers(log: Path) -> Iterator[tuple[str, str]]:
    """The same with the Engine.IO and Socket.IO endpoints, whose URL is the second of the two."""
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [
                *(sys.executable, str(SERVER), "--port", "0", "--socketio-port", "0"),
                *("--ping-timeout", str(PING_TIMEOUT_SECONDS)),
            ],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    output = process.stdout
    assert output
    # readline() has no time limit of its own: killing the process is what ends it.
    deadline = threading.Timer(START_SECONDS, process.kill)
    deadline.start()
    lines = [output.readline().strip() for _ in ANNOUNCEMENTS]
    deadline.cancel()
    # A full pipe would block the server, so something must go on reading it.
    drain = threading.Thread(target=output.read, daemon=True)
    drain.start()
    try:
        for line, announcement in zip(lines, ANNOUNCEMENTS, strict=True):
            if not line.startswith(announcement):
                raise ServerFailed(f"the interop server said {line!r}, then:\n{_written(log)}")
        url, socketio_url = (line.rpartition(" ")[2].rstrip("/") for line in lines)
        yield url, socketio_url
        if process.poll() is not None:
            raise ServerFailed(f"the interop server left by itself ({process.returncode}):\n{_written(log)}")
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_SECONDS)
            raise ServerFailed(f"the interop server did not stop in {STOP_SECONDS:.0f} s:\n{_written(log)}") from None
        finally:
            drain.join(STOP_SECONDS)
            output.close()
