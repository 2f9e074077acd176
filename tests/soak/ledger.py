"""Who counts what: the numbers of one session in both directions, and two measurements of the server held together.

Pure, and shared by the server and its clients: what one of them gets, the other one has numbered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["GROWTH", "Allowed", "Counting", "Lost", "compare", "grown"]


class Lost(Exception):
    """A message is missing, came twice or came too early."""


class Counting:
    """Takes messages that begin with a number, which rises by one from message to message."""

    def __init__(self, what: str, last: int | None = 0) -> None:
        """*last*: the number before the first one; None where the first one may be any."""
        self.what = what
        self.last = last

    def take(self, number: int) -> None:
        if self.last is not None and number != self.last + 1:
            raise Lost(f"{self.what} {number} came after {self.last}")
        self.last = number


@dataclass(frozen=True)
class Allowed:
    """By how much a measurement may be higher after the traffic than before it."""

    title: str
    share: float = 0.0
    plus: float = 0.0

    def limit(self, before: float) -> float:
        return before * (1 + self.share) + self.plus


#: What is measured once all clients have gone, after a first crowd and after the last one.
GROWTH = {
    "sessions": Allowed("sessions"),
    "connections": Allowed("connections"),
    "descriptors": Allowed("file descriptors"),
    "tasks": Allowed("tasks"),
    "objects": Allowed("objects that the garbage collector knows", plus=200),
    # Tables keep the size that most entries at a time have given them.
    "allocated_kib": Allowed("memory that is in use, KiB", share=0.01, plus=256),
    # That one is exact.  This is also the rest of each page of which something is in use.
    "resident_kib": Allowed("resident memory, KiB", share=0.1, plus=2048),
}


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, float, float, float, bool]]:
    """A row for each measurement: title, before, after, the most that is allowed, whether it holds."""
    return [
        (allowed.title, before[name], after[name], limit := allowed.limit(before[name]), after[name] <= limit)
        for name, allowed in GROWTH.items()
    ]


def grown(before: Mapping[str, int], after: Mapping[str, int], count: int = 8) -> list[tuple[str, int]]:
    """The types of which there are most more, and how many more."""
    more = [(name, number - before.get(name, 0)) for name, number in after.items()]
    return sorted((item for item in more if item[1] > 0), key=lambda item: -item[1])[:count]
