"""Which node of several holds a session.  Pure: nodes in, an answer out.

Ids that a server makes carry their owner's tag in front.  Ids that a client makes (SockJS) are placed by rendezvous
hash over the live nodes (Thaler and Ravishankar, "A Name-Based Mapping Scheme for Rendezvous", 1996): when a node comes
or goes, no id moves but those that come to it, or were its own.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b

__all__ = ["NODE_ID_CHARS", "Node", "Placement"]

#: How long a node's id is; it is also the tag in front of the ids that the node makes.
NODE_ID_CHARS = 8

_NODE_ID = re.compile(rf"[A-Za-z0-9]{{{NODE_ID_CHARS}}}\Z")
_SECRET_BYTES = 15  # 120 random bits, 20 characters: as many as an id has without a tag
_SCORE_BYTES = 8
_MAX_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class Node:
    """One process of the cluster, as the others know it."""

    id: str
    """``NODE_ID_CHARS`` ASCII letters and digits, new for each life of the process."""
    joined_ms: int = 0
    """When it began, in milliseconds of its own wall clock; with the id, the order in which nodes joined."""
    host: str = ""
    """Names its machine: nodes of the same one may use ``unix``."""
    unix: str = ""
    """Path of the Unix socket on which it takes relayed requests; empty for none."""
    tcp: str = ""
    """``address:port`` on which it takes them from other machines; empty for none."""


class Placement:
    """Where sessions are, as the node *own* sees the cluster.  Raises ValueError for a node with a malformed id."""

    def __init__(self, own: Node) -> None:
        self.own = own
        """This node."""
        self.version = 0
        """Counts the changes of which nodes there are."""
        self._by_id: dict[str, Node] = {}
        self._scored: tuple[tuple[bytes, Node], ...] = ()  # in the order in which they joined
        self._homes: dict[str, Node] = {}  # of the ids that were asked for lately; forgets all when it is full
        self.update((own,))

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All live nodes in the order in which they joined, this one among them."""
        return tuple(node for _, node in self._scored)

    def update(self, nodes: Iterable[Node]) -> None:
        """*nodes* are the live ones; this one always is.  Raises ValueError, and then nothing has changed."""
        found = {self.own.id: self.own, **{node.id: node for node in nodes}}
        for node_id in found:
            if _NODE_ID.match(node_id) is None:
                raise ValueError(f"a node's id is {NODE_ID_CHARS} letters and digits, not {node_id!r}")
        self.own = found[self.own.id]
        if found.keys() != self._by_id.keys():
            self.version += 1
        self._by_id = found
        self._homes.clear()
        ordered = sorted(found.values(), key=lambda node: (node.joined_ms, node.id))
        self._scored = tuple((node.id.encode("ascii"), node) for node in ordered)

    # -- ids that servers make

    def new_id(self) -> str:
        """An id that nobody can guess, and whose owner is this node: its tag and 120 random bits."""
        return self.own.id + secrets.token_urlsafe(_SECRET_BYTES)

    def owner_of(self, session_id: str) -> Node | None:
        """The live node that made *session_id*; None where it is gone, or no node has made it."""
        return self._by_id.get(session_id[:NODE_ID_CHARS])

    # -- ids that clients make

    def home_of(self, session_id: str) -> Node:
        """The node on which *session_id* is to be: the same on every node that knows the same nodes."""
        if len(self._scored) == 1:
            return self.own
        homes = self._homes
        home = homes.get(session_id)
        if home is None:
            text = _bytes_of(session_id)
            home = max(self._scored, key=lambda one: (_score(one[0], text), one[0]))[1]
            if len(homes) >= _MAX_REMEMBERED:
                homes.clear()
            homes[session_id] = home
        return home

    def earlier_homes(self, session_id: str) -> list[Node]:
        """The nodes that were the home before later ones joined, the latest first, without the home of now.

        A session that is older than a node may be on one of these; there are about as many as the logarithm of the
        number of nodes.
        """
        if len(self._scored) == 1:
            return []
        text = _bytes_of(session_id)
        best: tuple[bytes, bytes] = (b"", b"")
        homes: list[Node] = []
        for node_id, node in self._scored:
            mark = (_score(node_id, text), node_id)
            if mark > best:
                best = mark
                homes.append(node)
        return homes[-2::-1]


def _bytes_of(session_id: str) -> bytes:
    return session_id.encode("utf-8", "surrogatepass")


def _score(node_id: bytes, session_id: bytes) -> bytes:
    # All node ids are of one length, so no two pairs are the same bytes.
    return blake2b(node_id + session_id, digest_size=_SCORE_BYTES).digest()
