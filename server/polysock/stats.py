"""Numbers for a metrics page: everything that is counted anywhere in a Server, under one name each.

What happens is counted where it happens; here are only the names, so that each is there from the start, with 0: a
number that appears when something goes wrong for the first time is missed by whoever watches for its rise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

__all__ = ["counted"]

_NAMES = {
    "server": ("bad_packets", "dynamic_namespaces_refused", "unknown_acks"),
    "cluster": (
        "outages", "too_big", "bad_envelopes", "bad_requests", "not_delivered", "nodes_refused", "requests_refused",
        "requests_not_answered", "requests_failed", "late_answers",
    ),
    "backplane": (
        "published", "received", "dropped", "outages", "oversized", "unconfirmed", "refused", "unanswered", "cut",
    ),
    "relay": ("relayed", "tunnels", "failed", "full", "outages", "refused", "questions", "moved"),
}  # fmt: skip


def counted(by_part: Mapping[str, Counter[str]]) -> dict[str, int]:
    """How often what happened, by part and name: 0 for what has not, and for parts that are not there.

    *by_part*: the counters of those that are.  A backplane of the application's own may use names of its own.
    """
    found: dict[str, int] = {}
    for part, names in _NAMES.items():
        of_part = by_part.get(part, Counter())
        for name in dict.fromkeys((*names, *of_part)):
            found[f"{part}_{name}"] = of_part[name]
    return found
