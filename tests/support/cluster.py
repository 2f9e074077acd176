"""Several Servers in one process, joined by a memory bus, on one clock."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from polysock import Server
from polysock.backplane import MemoryBackplane, MemoryBus
from polysock.cluster import Cluster
from support.clients import turns
from support.clock import FakeClock

__all__ = ["World", "bus_of", "cluster_of", "world"]


def cluster_of(io: Server) -> Cluster:
    assert io.cluster is not None
    return io.cluster


def bus_of(io: Server) -> MemoryBackplane:
    """*io*'s access to the bus; ``cut`` makes an outage."""
    backplane = cluster_of(io).backplane
    assert isinstance(backplane, MemoryBackplane)
    return backplane


class World:
    """Servers that are one."""

    def __init__(self, **settings: Any) -> None:
        self.clock = FakeClock()
        self.bus = MemoryBus()
        self.servers: list[Server] = []
        self._settings = settings

    def make(self, backplane: MemoryBackplane | None = None, **settings: Any) -> Server:
        """One more Server, not started."""
        io = Server(clock=self.clock, backplane=backplane or self.bus.backplane(), **self._settings, **settings)
        self.servers.append(io)
        return io

    async def join(self, **settings: Any) -> Server:
        """One more, in the cluster."""
        io = self.make(**settings)
        await io.start()
        return io

    def kill(self, io: Server) -> None:
        """Its process is gone, and nobody is told."""
        bus_of(io)._cut = True  # not the setter's way: it knows nothing of an outage

    async def pass_time(self, seconds: float, step: float = 0.5) -> None:
        """Turn the clock in steps, and let what was sent arrive after each."""
        while seconds > 0:
            self.clock.advance(min(step, seconds))
            seconds -= step
            await turns(4)


@asynccontextmanager
async def world(
    count: int = 2, setup: Callable[[Server], object] | None = None, **settings: Any
) -> AsyncIterator[World]:
    """*count* Servers in a cluster, each given to *setup* first; nothing is left of them at the end."""
    made = World(**settings)
    try:
        for _ in range(count):
            io = made.make()
            if setup is not None:
                setup(io)
            await io.start()
        await turns()
        yield made
    finally:
        for io in made.servers:
            await io.stop()
            io.close()
    await turns()
    for io in made.servers:
        for namespace in io.namespaces.values():
            namespace.hub.check()
            assert not namespace.hub.rooms
        assert cluster_of(io).asking.pending == 0
        assert cluster_of(io)._roster._timer is None
