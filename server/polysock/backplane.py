"""Backplane: what carries messages between the processes that are to be one server.

A backplane knows channels and bytes, and nothing of rooms, packets or sessions: ``cluster.py`` says what is on which
channel.  A new one (NATS, say) is one file with a subclass, and ``tests/test_backplane_contract.py`` run on it.

Delivery is at most once: what is published while the backplane is down, or to a node that is slow beyond its bound, is
lost, and counted.  Publishing never waits and never raises, so that nothing local ever depends on the backplane.
"""

from __future__ import annotations

import asyncio
import logging
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable

from polysock_transports import PolysockError, StateError

__all__ = [
    "MAX_CHANNEL_CHARS",
    "Backplane",
    "BackplaneDown",
    "MemoryBackplane",
    "MemoryBus",
    "Receive",
    "check_channel",
    "is_channel",
]

log = logging.getLogger("polysock.backplane")

#: (channel, data) -> None.  Called in the event loop, once for each message of a subscribed channel.
Receive = Callable[[str, bytes], None]

MAX_CHANNEL_CHARS = 1_000
_CHANNEL = re.compile(rf"[\x21-\x7e]{{1,{MAX_CHANNEL_CHARS}}}")


class BackplaneDown(PolysockError):
    """The backplane cannot be reached."""


def is_channel(channel: str) -> bool:
    """Whether *channel* is the name of one."""
    return _CHANNEL.fullmatch(channel) is not None


def check_channel(channel: str) -> None:
    """Raises ValueError where *channel* is not the name of one."""
    if not is_channel(channel):
        raise ValueError(
            f"a channel is 1 to {MAX_CHANNEL_CHARS} printable ASCII characters without spaces, not {channel[:40]!r}"
        )


class Backplane(ABC):
    """One node's access to the backplane.

    A channel is a text of 1 to 1,000 printable ASCII characters without spaces; a message is bytes.  Messages that one
    node publishes on one channel arrive at every other node in that order, or not at all.
    """

    def __init__(self) -> None:
        self.counters: Counter[str] = Counter()
        """How often what happened: ``published``, ``received``, ``dropped`` (not sent: down, or over a bound),
        ``outages``; and what a backplane counts beside that."""
        self.on_change: Callable[[bool], None] | None = None
        """Told False when the backplane goes down and True when it is back and subscribed again.  The backplane logs
        both itself, one warning each: it knows why."""
        self.on_node_lost: Callable[[str], None] | None = None
        """Told the id of a node that has gone, by a backplane that knows so at once; not all do."""

    def _changed(self, up: bool) -> None:
        """For subclasses: count an outage, and tell ``on_change``, whose failure is its own."""
        self.counters["outages"] += not up
        if self.on_change is not None:
            try:
                self.on_change(up)
            except Exception:
                log.exception("on_change failed")

    def _hand_over(self, receive: Receive, channel: str, data: bytes) -> None:
        """For subclasses: count a message and give it to *receive*, whose failure stops no further message."""
        self.counters["received"] += 1
        try:
            receive(channel, data)
        except Exception:
            log.exception("what takes messages from the backplane failed")

    @abstractmethod
    async def start(self, node_id: str, receive: Receive) -> None:
        """Join as *node_id*, and call *receive* for what comes.

        Whether a node's own messages come back to it is left open: ``cluster.py`` drops them.
        Raises BackplaneDown where it cannot be reached now; later outages are the backplane's own to mend.
        Raises StateError where it has started already.
        """

    @abstractmethod
    async def stop(self) -> None:
        """Leave; nothing is received any more.  What was published before is sent first, where it can be soon.

        May be called twice, and before ``start``.
        """

    @property
    @abstractmethod
    def is_up(self) -> bool:
        """Whether what is published now has a way to travel."""

    @abstractmethod
    def publish(self, channel: str, data: bytes) -> None:
        """Send *data* to all nodes that are subscribed to *channel*, soon.  Never waits, never raises."""

    @abstractmethod
    async def deliver(self, channel: str, data: bytes) -> int:
        """As ``publish``, and how many other nodes it was handed to.

        Raises BackplaneDown where it was not sent, or where that cannot be known any more.
        """

    @abstractmethod
    def subscribe(self, channel: str) -> None:
        """Receive what is published on *channel*, from soon on (``settled``) and again after an outage.

        May be called before ``start``.  Raises ValueError where *channel* is not the name of one.
        """

    @abstractmethod
    def unsubscribe(self, channel: str) -> None:
        """Receive it no more.  What is on its way may still come."""

    @abstractmethod
    async def settled(self) -> None:
        """Wait until every ``subscribe`` so far is in force at the other nodes.  Raises BackplaneDown.

        A node that does not answer (its process is stopped, or busy for seconds) is not waited for without end.
        """


class MemoryBus:
    """Joins Servers of one process and one event loop: for tests, and for trying things out.

    ``bus = MemoryBus(); a = Server(backplane=bus.backplane()); b = Server(backplane=bus.backplane())``
    """

    def __init__(self) -> None:
        self.nodes: dict[str, MemoryBackplane] = {}

    def backplane(self) -> MemoryBackplane:
        """One more node's access."""
        return MemoryBackplane(self)


class MemoryBackplane(Backplane):
    """A node on a ``MemoryBus``.  Set ``cut`` to True for an outage."""

    def __init__(self, bus: MemoryBus) -> None:
        super().__init__()
        self._bus = bus
        self._node_id = ""
        self._receive: Receive | None = None
        self._channels: set[str] = set()
        self._cut = False

    async def start(self, node_id: str, receive: Receive) -> None:
        if self._receive is not None:
            raise StateError("a backplane starts once")
        if self._cut:
            raise BackplaneDown("the memory bus is cut")
        self._node_id, self._receive = node_id, receive
        self._bus.nodes[node_id] = self

    async def stop(self) -> None:
        if self._receive is not None:
            self._receive = None
            del self._bus.nodes[self._node_id]

    @property
    def cut(self) -> bool:
        """Whether this node is cut off from the others."""
        return self._cut

    @cut.setter
    def cut(self, value: bool) -> None:
        if value is self._cut:
            return
        self._cut = value
        self._changed(not value)

    @property
    def is_up(self) -> bool:
        return self._receive is not None and not self._cut

    def publish(self, channel: str, data: bytes) -> None:
        self._hand_out(channel, data)

    async def deliver(self, channel: str, data: bytes) -> int:
        if not self.is_up:
            raise BackplaneDown("the memory bus is cut")
        return self._hand_out(channel, data)

    def _hand_out(self, channel: str, data: bytes) -> int:
        if not self.is_up:
            self.counters["dropped"] += 1
            return 0
        self.counters["published"] += 1
        takers = [
            node for node in self._bus.nodes.values() if node is not self and node.is_up and channel in node._channels
        ]
        loop = asyncio.get_running_loop()
        for node in takers:
            loop.call_soon(node._take, channel, data)
        return len(takers)

    def _take(self, channel: str, data: bytes) -> None:
        if self._receive is not None and not self._cut:
            self._hand_over(self._receive, channel, data)

    def subscribe(self, channel: str) -> None:
        check_channel(channel)
        self._channels.add(channel)

    def unsubscribe(self, channel: str) -> None:
        self._channels.discard(channel)

    async def settled(self) -> None:
        if not self.is_up:
            raise BackplaneDown("the memory bus is cut")
