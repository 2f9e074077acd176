"""Every size, count and delay of the cluster, with its unit in its name.

A ``Server`` takes them by these names.  What one client may do is in ``polysock_transports.limits``.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

__all__ = ["DEFAULT_CLUSTER_LIMITS", "ClusterLimits"]


@dataclass(frozen=True, slots=True)
class ClusterLimits:
    """The limits of one node.  Counts and bytes are positive; delays are seconds."""

    # -- what one message between nodes may be
    max_envelope_bytes: int = 4_194_304
    """Longest message between nodes; as much as ``queue_max_bytes``, beyond which an event would close every client.
    What is longer is not sent to other nodes, is logged and counted."""
    max_envelope_names: int = 1_000
    """Rooms and exceptions that one message may name; the same beyond."""
    max_envelope_attachments: int = 1_000
    """Binary values in one message; the same beyond."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
                raise ValueError(f"{field.name} must be a number greater than zero, not {value!r}")
            if isinstance(field.default, int) and not isinstance(value, int):
                raise ValueError(f"{field.name} must be a whole number, not {value!r}")


DEFAULT_CLUSTER_LIMITS = ClusterLimits()
