"""The listening side of the relay: other nodes come in, show that they are, and pass requests on.

What follows on their connections is ordinary HTTP for the ordinary application; ``gateway.py`` knows such requests by
the context of their connection.
"""

from __future__ import annotations

import os
from collections import Counter
from contextlib import suppress
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream, StreamClosedError
from tornado.netutil import bind_sockets, bind_unix_socket

from . import relaywire
from .clock import Clock
from .limits import Limits
from .placement import Placement
from .takeover import serve_relayed

__all__ = ["RelayPort", "relay_port"]

# The node in front has let a head of up to 64 KiB in (Tornado's default), and adds a header.
_MAX_HEAD_BYTES = 128 * 1024
# The calling side closes what is idle; this is for one that has vanished.
_IDLE_FACTOR = 4


class RelayPort(HTTPServer):
    """Serves *application* to other nodes.  Made by ``relay_port``, since Tornado's servers take no ``__init__``."""

    placement: Placement
    secret: bytes
    limits: Limits
    clock: Clock
    counters: Counter[str]
    unix = ""
    """The path of its socket."""
    knocking: set[IOStream]
    """Connections of whom nothing is known yet."""

    def open(self, unix: str, tcp: tuple[str, int] | None) -> tuple[str, str]:
        """Listen; what it listens on as ``Node.unix`` and ``Node.tcp`` have it.  Raises OSError."""
        address = ""
        if tcp is not None:
            sockets = bind_sockets(tcp[1], tcp[0])
            self.add_sockets(sockets)
            host, number = sockets[0].getsockname()[:2]
            address = f"[{host}]:{number}" if ":" in host else f"{host}:{number}"
        if unix:
            self.add_socket(bind_unix_socket(unix, mode=0o600))
            self.unix = unix
        return unix, address

    async def handle_stream(self, stream: IOStream, address: object) -> None:  # type: ignore[override]  # as TCPServer's
        if len(self.knocking) >= self.limits.max_relay_handshakes:
            self.counters["refused"] += 1
            stream.close()
            return
        self.knocking.add(stream)
        timer = self.clock.call_later(self.limits.relay_timeout_s, stream.close)
        try:
            is_node = await self._shake_hands(stream)
        except StreamClosedError:
            is_node = False
        finally:
            timer.cancel()
            self.knocking.discard(stream)
        if is_node:
            serve_relayed(self, stream)
        else:
            self.counters["refused"] += 1
            stream.close()

    async def _shake_hands(self, stream: IOStream) -> bool:
        greeting = relaywire.greeting(self.placement.own.id, relaywire.nonce())
        await stream.write(greeting)
        answer = await stream.read_bytes(relaywire.ANSWER_BYTES)
        if relaywire.read_answer(self.secret, greeting, answer) is None:
            return False
        await stream.write(relaywire.listener_proof(self.secret, greeting, answer))
        return True

    async def end(self) -> None:
        """Listen no more, and close every connection."""
        self.stop()
        for stream in list(self.knocking):
            stream.close()
        if self.unix:
            with suppress(OSError):
                os.unlink(self.unix)
        await self.close_all_connections()


def relay_port(
    application: Any, placement: Placement, secret: bytes, limits: Limits, clock: Clock, counters: Counter[str]
) -> RelayPort:
    """A port that listens nowhere yet."""
    port = RelayPort(
        application,
        xheaders=True,
        max_header_size=_MAX_HEAD_BYTES,
        idle_connection_timeout=_IDLE_FACTOR * limits.relay_idle_s,
    )
    port.placement, port.secret, port.limits, port.clock, port.counters = placement, secret, limits, clock, counters
    port.knocking = set()
    return port
