"""The Flash player's question whether it may open sockets to this host, answered on a port of its own.

Before its first connection the player asks at port 843, or where the program tells it to (socket.io-client 0.9: 10843),
and goes no further without a policy.  Knows nothing of sessions, and does not log: strangers knock at such a port.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from typing import Literal, cast
from xml.sax.saxutils import quoteattr

from .clock import Clock, LoopClock, Timer
from .errors import StateError
from .limits import DEFAULT_LIMITS, Limits

__all__ = ["FLASH_POLICY_PORT", "FlashPolicyServer", "flash_policy"]

#: Where socket.io-client 0.9 has the player ask (its option ``flash policy port``).
FLASH_POLICY_PORT = 10843

_REQUEST = b"<policy-file-request/>\0"
_HEAD = (
    '<?xml version="1.0"?><!DOCTYPE cross-domain-policy SYSTEM "http://www.macromedia.com/xml/dtds/cross-domain-policy.dtd">'
    "<cross-domain-policy>"
)
_TAIL = "</cross-domain-policy>"
_DOMAIN = re.compile(r"\*|(?:\*\.)?(?=.{1,253}\Z)[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?")
_MAX_PORT = 65535


def flash_policy(ports: Iterable[int] | Literal["*"], domains: Iterable[str]) -> bytes:
    """The policy (Adobe's cross-domain policy file): Flash files loaded from *domains* may connect to *ports* here.

    A domain is a host name, ``*.example.com`` or ``*``.  Raises ValueError.
    """
    if not isinstance(ports, str):
        ports = list(ports)
        wrong = [port for port in ports if type(port) is not int or not 1 <= port <= _MAX_PORT]
        if wrong or not ports:
            raise ValueError(f'ports must be numbers from 1 to {_MAX_PORT}, or "*", not {wrong or ports!r}')
    elif ports != "*":
        raise ValueError(f'ports must be a list of numbers, or "*", not {ports!r}')
    domains = [domains] if isinstance(domains, str) else list(domains)
    for domain in domains:
        if not isinstance(domain, str) or not _DOMAIN.fullmatch(domain):
            raise ValueError(f"{domain!r} is not a domain: write it as host.example.com, *.example.com or *")
    if not domains:
        raise ValueError("a policy without a domain allows nothing")
    to_ports = quoteattr(ports if isinstance(ports, str) else ",".join(map(str, ports)))
    allowed = "".join(f"<allow-access-from domain={quoteattr(domain)} to-ports={to_ports}/>" for domain in domains)
    return (_HEAD + allowed + _TAIL).encode("ascii")


class FlashPolicyServer:
    """Answers each connection that asks with the policy and ends it; ends every other one without a word.

    *ports*, *domains*: see ``flash_policy``.  *limits*: how long a connection may take, and how many there may be.
    """

    def __init__(
        self,
        ports: Iterable[int] | Literal["*"],
        domains: Iterable[str],
        *,
        limits: Limits = DEFAULT_LIMITS,
        clock: Clock | None = None,
    ) -> None:
        """Raises ValueError."""
        self.policy = flash_policy(ports, domains)
        self.limits = limits
        self.clock: Clock = clock or LoopClock()
        self.port = 0
        """The port it listens on, once it does."""
        self.visits: set[_Visit] = set()
        """The connections of this moment, for the parts of this module."""
        self._listener: asyncio.Server | None = None
        self._started = False
        self._closed = False

    async def start(self, port: int = FLASH_POLICY_PORT, address: str = "") -> None:
        """Listen on *port* (0: any free one) of *address* (empty: all).

        A policy from a port below 1024 opens all ports; from any other one, those from 1024 on (Adobe).
        Raises OSError where the port cannot be had, StateError at the second call and after ``close``.
        """
        if self._started or self._closed:
            raise StateError("a FlashPolicyServer starts once")
        self._started = True
        loop = asyncio.get_running_loop()
        # A protocol and not streams: it keeps 23 bytes, and no task, for a connection.
        listener = await loop.create_server(lambda: _Visit(self), address or None, port)
        if self._closed:
            listener.close()
            raise StateError("closed while it was starting")
        self._listener = listener
        self.port = listener.sockets[0].getsockname()[1]

    def close(self) -> None:
        """Listen no more, and cut what is connected.  May be called again."""
        self._closed = True
        if self._listener is not None:
            self._listener.close()
        for visit in list(self.visits):
            visit.transport.abort()


class _Visit(asyncio.Protocol):
    """One connection."""

    transport: asyncio.Transport

    def __init__(self, server: FlashPolicyServer) -> None:
        self._server = server
        self._received = b""
        self._timer: Timer | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        server = self._server
        if server._closed or len(server.visits) >= server.limits.max_flash_policy_connections:
            self.transport.abort()
            return
        server.visits.add(self)
        # Until it is over: a peer that asks and then does not read is slow too.
        self._timer = server.clock.call_later(server.limits.flash_policy_timeout_s, self.transport.abort)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._received == _REQUEST:
            # The player takes a NUL or the end of the connection for the end of the policy; the reference server
            # (0.9.19) sends no NUL.
            self.transport.write(self._server.policy)
            self.transport.close()
        elif not _REQUEST.startswith(self._received):
            self.transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self._server.visits.discard(self)
        if self._timer is not None:
            self._timer.cancel()
