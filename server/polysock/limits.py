"""Every size, count and delay of the cluster, with its unit in its name.

A ``Server`` takes them by these names.  What one client may do is in ``polysock_transports.limits``.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

__all__ = ["DEFAULT_CLUSTER_LIMITS", "ClusterLimits"]


@dataclass(frozen=True, slots=True)
class ClusterLimits:
    """The limits of one node.  Counts and bytes are positive; delays are seconds."""

    # -- who is there
    cluster_heartbeat_s: float = 2.0
    """How often a node says that it is there, give or take a tenth."""
    cluster_timeout_s: float = 8.0
    """After how long a silence a node counts as gone; at least twice the heartbeat."""
    max_cluster_nodes: int = 1_000
    """Other nodes; one more is not taken in, is logged once and counted."""
    # -- what one message between nodes may be
    max_envelope_bytes: int = 4_194_304
    """Longest message between nodes; as much as ``queue_max_bytes``, beyond which an event would close every client.
    What is longer is not sent to other nodes, is logged and counted."""
    max_envelope_names: int = 1_000
    """Rooms and exceptions that one message may name; the same beyond."""
    max_envelope_attachments: int = 1_000
    """Binary values in one message; the same beyond."""
    max_publish_bytes: int = 1_048_576
    """Body of a request to ``route_publish``; longer is refused with 413."""
    # -- what nodes ask each other
    cluster_request_timeout_s: float = 5.0
    """How long other nodes' answers are waited for; with acks of clients, beyond what those are given."""
    max_cluster_call_s: float = 300.0
    """Longest that a node waits for its clients' acks because another one asked it to."""
    max_cluster_requests: int = 1_000
    """Requests of one node that wait for answers, and requests of others that it is at work on; beyond, one's own reach
    no other node, and those of others are not answered.  Counted."""
    max_answer_items: int = 10_000
    """Sockets, rooms or acks in one node's answer; the rest is left out, and the result says so."""
    max_answer_bytes: int = 16_777_216
    """Bytes of one node's answer; the same."""
    # -- presence
    max_presence_sockets: int = 100_000
    """Entries of one presence, a socket in a room each, of all nodes; one more is not in it, is logged once and
    counted."""
    max_presence_bytes: int = 67_108_864
    """Names, users and metadata of one presence, of all nodes, as JSON; what is more is left out like one more entry.
    As much again may wait for what is still to come of other nodes.  In memory it is several times that."""
    max_presence_user_bytes: int = 256
    """Longest name of a user; a socket with a longer one is not in the presence, and that is logged."""
    max_presence_meta_bytes: int = 1_000
    """Longest metadata of a socket, as JSON; the same beyond."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
                raise ValueError(f"{field.name} must be a number greater than zero, not {value!r}")
            if isinstance(field.default, int) and not isinstance(value, int):
                raise ValueError(f"{field.name} must be a whole number, not {value!r}")
        if self.cluster_timeout_s < 2 * self.cluster_heartbeat_s:
            raise ValueError("cluster_timeout_s must be at least twice cluster_heartbeat_s: one heartbeat may be lost")


DEFAULT_CLUSTER_LIMITS = ClusterLimits()
