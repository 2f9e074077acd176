"""The channels of the backplane: what each is called, and which of them an event goes to.  Pure.

A node listens on the channel of all nodes, on its own, on that of each namespace in which it has members, and on that
of each room in which it has some.  So an event for one room wakes only the nodes that have somebody in it.
"""

from __future__ import annotations

import re
import secrets
import string
from collections.abc import Callable
from hashlib import sha256
from urllib.parse import quote

from polysock_transports.placement import NODE_ID_CHARS

from .hub import Target

__all__ = [
    "ALL_NODES",
    "channels_for",
    "namespace_channel",
    "new_node_id",
    "node_channel",
    "node_of",
    "room_channel",
    "topic_channel",
]

#: The channel of all nodes.
ALL_NODES = "nodes"

_NODE_ID_ALPHABET = string.ascii_letters + string.digits
_TAG = re.compile(f"[A-Za-z0-9]{{{NODE_ID_CHARS}}}")
_PLAIN = re.compile(r"[A-Za-z0-9_.~-]*\Z")
# Two names and their prefix stay below the 1,000 characters of a channel.
_MAX_NAME_CHARS = 480


def new_node_id() -> str:
    """An id for one life of a node, or of anything else that publishes."""
    return "".join(secrets.choice(_NODE_ID_ALPHABET) for _ in range(NODE_ID_CHARS))


def node_of(member_id: str) -> str | None:
    """The node that made *member_id*, if a node made it: the tag in front.

    In a namespace, clients of Socket.IO 1.x and 2.x put its name and a ``#`` before the id (``/chat#...``).
    """
    name = member_id.rpartition("#")[2] if member_id[:1] == "/" else member_id
    found = _TAG.match(name)
    return found[0] if found is not None and len(name) > NODE_ID_CHARS else None


def _safe(name: str) -> str:
    """*name* in printable ASCII without ``/``; no two names become the same."""
    if _PLAIN.match(name) is None:
        # Rooms may be called anything, lone surrogates included.
        name = quote(name, safe="", errors="surrogatepass")
    if len(name) > _MAX_NAME_CHARS:
        return "*" + sha256(name.encode("ascii")).hexdigest()  # no other name has a star
    return name


def node_channel(node_id: str) -> str:
    """What is for one node alone."""
    return f"node/{node_id}"


def namespace_channel(namespace: str) -> str:
    """What is for everybody in *namespace*, for several rooms of it, or for everybody but some."""
    return f"all/{_safe(namespace)}"


def room_channel(namespace: str, room: str) -> str:
    """What is for one room of *namespace*."""
    return f"room/{_safe(namespace)}/{_safe(room)}"


def topic_channel(namespace: str, topic: str) -> str:
    """What the nodes tell each other about *topic* in *namespace*, for those that keep it (presence)."""
    return f"topic/{_safe(namespace)}/{_safe(topic)}"


def channels_for(namespace: str, target: Target, is_other_node: Callable[[str], bool]) -> tuple[str, ...]:
    """Where an event for *target* is published: mostly one channel.

    An id may stand where a room may, and nobody but its node knows that client: its node's channel is a second one.
    The message says then that it travels twice, and a node that gets both drops one.
    """
    if len(target.rooms) != 1:
        return (namespace_channel(namespace),)
    name = target.rooms[0]
    node_id = node_of(name)
    if node_id is None or not is_other_node(node_id):
        return (room_channel(namespace, name),)
    return (room_channel(namespace, name), node_channel(node_id))
