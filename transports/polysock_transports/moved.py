"""Sessions whose home is this node now and which an older node still holds, since they began before this one joined.

Only ids that clients make are placed by hash, and so only those move.  While the nodes have changed not long ago, a
node that is the home of a session it does not have asks the earlier homes.  Once all must know of the change it asks
each of them one time for the list of what it holds; from then on a session that is not here is nowhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from .clock import Clock
from .limits import Limits
from .placement import Node, Placement

__all__ = ["Moved", "ids_at_home_with"]

# How many ids are looked at in one turn of the event loop: about a millisecond.
_IDS_IN_A_TURN = 500

#: (node) -> whether it holds the session; None where it did not say.
Holds = Callable[[Node], Awaitable[bool | None]]
#: (node) -> the ids that it holds and that are at home here; None where it did not say, or they are too many.
ListOf = Callable[[Node], Awaitable[list[str] | None]]


class Moved:
    """What is known of the moved sessions of one endpoint."""

    def __init__(self, placement: Placement, limits: Limits, clock: Clock) -> None:
        self._placement = placement
        self._limits = limits
        self._clock = clock
        self._holders: dict[str, str] = {}  # session id -> node id
        self._version = -1
        self._changed_at = 0.0
        self._listed: set[str] = set()  # nodes that have told all they hold, since the last change
        self._is_complete = False
        self._list_at = 0.0
        self._listing: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._holders)

    @property
    def is_complete(self) -> bool:
        """Whether ``holder`` knows all there is to know."""
        placement = self._placement
        if self._version != placement.version:
            self._notice()
        return self._is_complete

    def holder(self, session_id: str) -> Node | None:
        """The node that is known to hold *session_id*."""
        node_id = self._holders.get(session_id)
        if node_id is None:
            return None
        node = self._placement.owner_of(node_id)
        if node is None:
            del self._holders[session_id]
        return node

    def forget(self, session_id: str) -> None:
        """It has turned out that nobody holds *session_id* any more."""
        self._holders.pop(session_id, None)

    async def find(self, session_id: str, holds: Holds, list_of: ListOf) -> Node | None:
        """The node that holds *session_id*, asked for where that is not known; None where nobody does."""
        known = self.holder(session_id)
        if known is not None or self.is_complete:
            return known
        if self._clock.now() >= self._list_at:
            await self._list(list_of)
            known = self.holder(session_id)
            if known is not None or self._is_complete:
                return known
        placement = self._placement
        own, home = placement.own.id, placement.home_of(session_id)
        for node in (home, *placement.earlier_homes(session_id)):
            if node.id != own and node.id not in self._listed and await holds(node):
                self._remember((session_id,), node)
                return node
        return None

    def _notice(self) -> None:
        """The nodes have changed."""
        placement = self._placement
        self._version = placement.version
        self._changed_at = self._clock.now()
        self._list_at = self._changed_at + self._limits.relay_settle_s
        self._listed.clear()
        live = {node.id for node in placement.nodes}
        self._is_complete = len(live) == 1
        if self._holders:
            self._holders = {one: node_id for one, node_id in self._holders.items() if node_id in live}

    async def _list(self, list_of: ListOf) -> None:
        """Ask all other nodes what they hold; who comes meanwhile waits for the same answers."""
        if self._listing is None:
            self._listing = asyncio.ensure_future(self._ask_all(list_of))
        await asyncio.shield(self._listing)

    async def _ask_all(self, list_of: ListOf) -> None:
        version = self._version
        try:
            others = [node for node in self._placement.nodes if node.id != self._placement.own.id]
            asked = [node for node in others if node.id not in self._listed]
            answers = await asyncio.gather(*map(list_of, asked))
            if version != self._placement.version:
                return  # the answers are about homes that are no more
            for node, ids in zip(asked, answers, strict=True):
                if ids is not None and self._remember(ids, node):
                    self._listed.add(node.id)
            self._is_complete = len(self._listed) == len(others)
            # Whoever did not say is asked session by session, and after a while once more for all.
            self._list_at = self._clock.now() + self._limits.relay_settle_s
        finally:
            self._listing = None

    def _remember(self, ids: Iterable[str], node: Node) -> bool:
        """False where there is no room."""
        holders = self._holders
        for session_id in ids:
            if session_id not in holders and len(holders) >= self._limits.max_relay_moved:
                return False
            holders[session_id] = node.id
        return True


async def ids_at_home_with(node_id: str, ids: list[str], placement: Placement, most: int) -> list[str] | None:
    """Those of *ids* whose home is the node *node_id*; None where they are more than *most*."""
    found: list[str] = []
    for start in range(0, len(ids), _IDS_IN_A_TURN):
        found += [one for one in ids[start : start + _IDS_IN_A_TURN] if placement.home_of(one).id == node_id]
        if len(found) > most:
            return None
        await asyncio.sleep(0)
    return found
