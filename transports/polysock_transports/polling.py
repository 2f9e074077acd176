"""Timed polling: a mailbox that the client empties whenever it likes, each time answered at once.

A letter stays until the client has said that it has it, so an answer that is lost on the way is simply repeated.  The
mailbox is the session's transport all the time; what it cannot take waits in the session's own queue, under its limits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from .errors import SESSION_TIMEOUT, CloseReason, ProtocolError
from .limits import Limits
from .session import Session
from .transport import Transport
from .wire import Frame

__all__ = ["Mailbox", "PolledSession", "polled_limits"]


def polled_limits(limits: Limits) -> Limits:
    """The same limits for a session whose one sign of life is that it polls."""
    patience = limits.plain_poll_timeout_s
    return replace(limits, heartbeat_delay_s=patience, heartbeat_timeout_s=patience, disconnect_delay_s=patience)


class Mailbox(Transport):
    name = "poll"

    def __init__(self, limits: Limits) -> None:
        self.cursor = 0
        """The number of the last letter."""
        self.closed: CloseReason | None = None
        """Why no letter will follow."""
        self._limits = limits
        self._letters: list[Frame] = []
        self._bytes = 0

    def collect(self, since: int) -> Sequence[Frame]:
        """All letters after number *since*; those up to it are thrown away.

        Raises ProtocolError for a number that was never given, or whose letters are gone.
        """
        first = self.cursor - len(self._letters)
        if not first <= since <= self.cursor:
            text = f"The cursor must be from {first} to {self.cursor}: use the one of the last answer."
            raise ProtocolError(text, status=409)
        known = self._letters[: since - first]
        del self._letters[: len(known)]
        self._bytes -= sum(map(len, known))
        self._check_room()
        if self.ready and self.owner is not None:
            self.owner.transport_ready(self)
        return self._letters

    def write(self, frames: Sequence[Frame]) -> None:
        self._letters.extend(frames)
        self.cursor += len(frames)
        self._bytes += sum(map(len, frames))
        self._check_room()

    def write_wire(self, data: bytes) -> None:
        raise AssertionError("a mailbox has no shape")

    def _check_room(self) -> None:
        limits = self._limits
        self.ready = (
            not self.finishing
            and self._bytes <= limits.pipe_high_bytes
            and len(self._letters) < limits.queue_max_messages
        )

    def finish(self, reason: CloseReason | None) -> None:
        if self.finishing:
            return
        self.finishing, self.ready = True, False
        self.closed = reason or SESSION_TIMEOUT
        owner, self.owner = self.owner, None  # it keeps this mailbox
        if owner is None:
            return
        if reason is None:
            # The session wants a sign of life, and only a poll could be one: this client is gone.
            owner.transport_lost(self, SESSION_TIMEOUT)
        else:
            owner.transport_ended(self)

    def abort(self) -> None:
        self.owner = None
        self._letters.clear()


class PolledSession(Session):
    """A session and its mailbox, which outlives the session's being open: a late poll is told why it ended."""

    __slots__ = ("accepted", "mailbox")

    def __init__(self, *args: Any, limits: Limits, **named: Any) -> None:
        super().__init__(*args, limits=limits, **named)
        self.mailbox = Mailbox(limits)
        self.accepted = 0
        """How many messages came from the client."""

    def _accept(self, data: str | bytes) -> None:
        self.accepted += 1
        super()._accept(data)
