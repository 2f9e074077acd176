"""socket.io-client of every generation, and sockjs-client, under Node: the driver is interop/socketio_client.js."""

from __future__ import annotations

import asyncio
import os
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from support.needs import need_npm, need_program

__all__ = ["PACKAGES", "SOCKJS_TRANSPORTS", "TRANSPORTS", "node"]

CLIENT = Path(__file__).resolve().parents[1] / "interop" / "socketio_client.js"

PACKAGES = {
    "0.9.17": "socket.io-client-0.9",
    "1.7.4": "socket.io-client-1",
    "2.5.0": "socket.io-client-2",
    "3.1.3": "socket.io-client-3",
    "4.8.4": "socket.io-client-4",
}
TRANSPORTS: dict[str, tuple[str, ...]] = dict.fromkeys(PACKAGES, ("polling", "websocket", "upgrade"))
TRANSPORTS["0.9.17"] = ("websocket", "xhr-polling")
SOCKJS_TRANSPORTS = ("websocket", "xhr-streaming", "xhr-polling", "eventsource")


@asynccontextmanager
async def node(*arguments: str) -> AsyncIterator[Process]:
    """The driver; it is stopped when this ends, if it has not ended."""
    program = need_program("node", "nodejs", how="install Node.js (Debian: nodejs)")
    folders = {need_npm(package).parents[1] for package in (*PACKAGES.values(), "sockjs-client")}
    process = await asyncio.create_subprocess_exec(
        program,
        "--no-deprecation",  # the old ones use what Node calls deprecated today
        CLIENT,
        *arguments,
        env={**os.environ, "NODE_PATH": os.pathsep.join(map(str, folders))},
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        limit=1 << 24,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
