"""Roster: which other nodes are there, as one of them sees it.

Every node says hello on the channel of all nodes, again and again, and bye when it stops; one that is new is greeted
directly, so that it knows everybody at once.  One timer does all of it.

A silence counts against a node only while we would have heard it: not while our own backplane is down, and not when
this process itself slept.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from types import MappingProxyType

from polysock_transports.clock import Clock, Timer
from polysock_transports.placement import Node

from .limits import ClusterLimits

__all__ = ["Roster"]

#: Heartbeats are spread by this part of their time, so that nodes started together do not speak together.
_JITTER = 0.1


class Roster:
    """The other nodes.  What it is told, and whom it tells, are functions: it knows no backplane."""

    def __init__(
        self,
        clock: Clock,
        limits: ClusterLimits,
        *,
        announce: Callable[[], None],
        joined: Callable[[Node], None],
        left: Callable[[Node, str], None],
    ) -> None:
        """*announce*: say hello to all; *joined* and *left* (why: ``bye``, ``lost``, ``silent``) are told of nodes."""
        self._clock = clock
        self._limits = limits
        self._announce = announce
        self._joined = joined
        self._left = left
        self._nodes: dict[str, Node] = {}
        self.nodes = MappingProxyType(self._nodes)
        """The other nodes, by id."""
        self.refused = 0
        """Hellos of nodes that were too many."""
        self._heard: dict[str, float] = {}
        self._is_up = True
        self._timer: Timer | None = None
        self._due = 0.0

    def start(self) -> None:
        """Say hello from time to time, and notice who does not."""
        self._schedule()

    def stop(self) -> None:
        """Know nobody any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for node_id in list(self._nodes):
            self.remove(node_id, "bye")

    # -- told by the others

    def heard(self, node: Node) -> bool:
        """*node* said hello; whether it is new."""
        known = self._nodes.get(node.id)
        if known is None and len(self._nodes) >= self._limits.max_cluster_nodes:
            self.refused += 1
            return False
        self._heard[node.id] = self._clock.now()
        self._nodes[node.id] = node
        if known is None:
            self._joined(node)
        return known is None

    def remove(self, node_id: str, why: str) -> None:
        """It is gone: it said so, or its connection broke."""
        node = self._nodes.pop(node_id, None)
        self._heard.pop(node_id, None)
        if node is not None:
            self._left(node, why)

    # -- told by the backplane

    def backplane_changed(self, is_up: bool) -> None:
        """While it is down we hear nobody, and nobody is gone for that."""
        self._is_up = is_up
        if is_up:
            self._forgive()
            self._announce()

    # -- the timer

    def _forgive(self) -> None:
        """Count everybody's silence from now."""
        self._heard = dict.fromkeys(self._nodes, self._clock.now())

    def _schedule(self) -> None:
        delay = self._limits.cluster_heartbeat_s * random.uniform(1 - _JITTER, 1 + _JITTER)
        self._due = self._clock.now() + delay
        self._timer = self._clock.call_later(delay, self._beat)

    def _beat(self) -> None:
        now = self._clock.now()
        if now - self._due > self._limits.cluster_heartbeat_s:
            self._forgive()  # it was us who slept, and what the others said meanwhile is still to be read
        if self._is_up:
            silent = [one for one, heard in self._heard.items() if now - heard >= self._limits.cluster_timeout_s]
            for node_id in silent:
                self.remove(node_id, "silent")
            self._announce()
        self._schedule()
