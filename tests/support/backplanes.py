"""Nodes on a backplane of each kind, for the tests that all kinds run and for those of one."""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

from polysock.backplane import Backplane, MemoryBackplane, MemoryBus
from polysock.backplane_local import LocalBackplane
from polysock_transports.limits import Limits
from support.clients import until
from support.clock import FakeClock
from support.redis_server import RedisServer

__all__ = ["LocalNet", "MemoryNet", "Net", "Node", "RedisNet"]


class Node:
    """One node, and all that it received."""

    def __init__(self, backplane: Backplane, name: str) -> None:
        self.backplane = backplane
        self.name = name
        self.got: list[tuple[str, bytes]] = []
        self.changes: list[bool] = []
        self.lost: list[str] = []
        backplane.on_change = self.changes.append
        backplane.on_node_lost = self.lost.append

    async def start(self, *channels: str, receive: Callable[[str, bytes], None] | None = None) -> Node:
        for channel in channels:
            self.backplane.subscribe(channel)
        await self.backplane.start(self.name, receive or self._receive)
        return self

    def _receive(self, channel: str, data: bytes) -> None:
        self.got.append((channel, data))

    async def join(self, *channels: str) -> None:
        for channel in channels:
            self.backplane.subscribe(channel)
        await self.backplane.settled()

    async def leave(self, *channels: str) -> None:
        for channel in channels:
            self.backplane.unsubscribe(channel)
        await self.backplane.settled()

    async def has(self, count: int) -> list[tuple[str, bytes]]:
        """All that came, once it is this much."""
        await until(lambda: len(self.got) >= count)
        return self.got


class Net(ABC):
    """What makes nodes that reach each other.  Time stands still in it, until ``clock`` is turned."""

    limits = Limits()

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.nodes: list[Node] = []

    @abstractmethod
    def backplane(self, **more: Any) -> Backplane:
        """One that is not started; *more*: what only one kind takes."""

    def node(self, **more: Any) -> Node:
        node = Node(self.backplane(**more), f"node{len(self.nodes):04}")
        self.nodes.append(node)
        return node

    async def close(self) -> None:
        for node in self.nodes:
            await node.backplane.stop()

    # -- outages, of those that can have one

    async def cut(self) -> None:
        """Take the backplane away from all nodes, until they know."""
        raise NotImplementedError

    async def mend(self) -> None:
        """Bring it back, until all nodes know."""
        raise NotImplementedError

    async def _all(self, up: bool) -> None:
        await until(lambda: all(node.backplane.is_up is up for node in self.nodes), timeout=60)


class MemoryNet(Net):
    def __init__(self) -> None:
        super().__init__()
        self.bus = MemoryBus()

    def backplane(self, **more: Any) -> Backplane:
        return self.bus.backplane()

    async def cut(self) -> None:
        self._set(True)

    async def mend(self) -> None:
        self._set(False)

    def _set(self, cut: bool) -> None:
        for node in self.nodes:
            assert isinstance(node.backplane, MemoryBackplane)
            node.backplane.cut = cut


class LocalNet(Net):
    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def backplane(self, **more: Any) -> LocalBackplane:
        return LocalBackplane(self.folder, **{"limits": self.limits, "clock": self.clock, **more})


class RedisNet(Net):
    def __init__(self, server: RedisServer) -> None:
        super().__init__()
        self.server = server
        self.prefix = f"{uuid.uuid4().hex}:"
        self.url = server.url

    def backplane(self, **more: Any) -> Backplane:
        # Not before a Redis is there: without the extra, the other kinds can be tested.
        from polysock.backplane_redis import RedisBackplane

        options = {"prefix": self.prefix, "limits": self.limits, "clock": self.clock, **more}
        return RedisBackplane(self.url, **options)

    async def cut(self) -> None:
        self.server.stop()
        await self._all(False)

    async def mend(self) -> None:
        self.server.start()
        # The longest that anybody waits before it tries again.
        await until(lambda: self.clock.timers >= len(self.nodes))
        self.clock.advance(self.limits.backplane_retry_s)
        await self._all(True)
