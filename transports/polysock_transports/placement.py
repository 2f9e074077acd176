"""Which node of several holds a session.  Pure: nodes in, an answer out.

Ids that a server makes carry their owner's tag in front.  Ids that a client makes (SockJS) are placed by rendezvous
hash over the live nodes (Thaler and Ravishankar, "A Name-Based Mapping Scheme for Rendezvous", 1996).
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["NODE_ID_CHARS", "Node"]

#: How long a node's id is; it is also the tag in front of the ids that the node makes.
NODE_ID_CHARS = 8


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
