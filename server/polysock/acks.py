"""Answers that are awaited: one client's ack, or those of a whole room."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from polysock_transports import PolysockError

__all__ = ["AckTimeout", "CallResult", "PendingAcks", "unwrap"]

log = logging.getLogger("polysock")


class AckTimeout(PolysockError, TimeoutError):
    """No answer within the time given."""


@dataclass(frozen=True)
class CallResult:
    """What the members of a room answered.

    ``answers``: id -> what it answered; ``missing``: ids that did not answer in time; ``gone``: ids that left first.
    Of several nodes: ``unreached`` are those from which not all came in time, whoever is on them; ``truncated`` says
    that a node had more answers than one message may hold (``max_answer_items``, ``max_answer_bytes``).
    """

    answers: dict[str, Any] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    unreached: tuple[str, ...] = ()
    truncated: bool = False

    @property
    def complete(self) -> bool:
        """Whether everybody answered."""
        return not (self.missing or self.gone or self.unreached or self.truncated)


def unwrap(args: Sequence[Any]) -> Any:
    """The arguments of an ack as one value: None for none, the value for one, a list for more."""
    return None if not args else args[0] if len(args) == 1 else list(args)


class PendingAcks:
    """The acks that one client owes in one namespace; bounded, and emptied when the client leaves."""

    __slots__ = ("_limit", "_next", "_waiting")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._next = 0
        self._waiting: dict[int, Callable[..., Any] | asyncio.Future[Any]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def expect(self, taker: Callable[..., Any] | asyncio.Future[Any]) -> int:
        """An id for an event whose answer goes to *taker*: a function of the answer, or a future."""
        if len(self._waiting) >= self._limit:
            # The oldest is the least likely to be answered still.
            oldest = self._waiting.pop(next(iter(self._waiting)))
            if isinstance(oldest, asyncio.Future) and not oldest.done():
                oldest.set_exception(AckTimeout("too many events wait for this client's answer"))
        number = self._next
        self._next += 1
        self._waiting[number] = taker
        if isinstance(taker, asyncio.Future):
            # Whoever gives up on it leaves nothing here.
            taker.add_done_callback(lambda _: self._waiting.pop(number, None))
        return number

    def answer(self, number: int, args: Sequence[Any]) -> bool:
        """The client answered; False where nobody asked, or it was answered before."""
        taker = self._waiting.pop(number, None)
        if taker is None:
            return False
        if isinstance(taker, asyncio.Future):
            if not taker.done():
                taker.set_result(unwrap(args))
            return True
        try:
            result = taker(*args)
        except Exception:
            log.exception("an ack callback failed")
            return True
        if asyncio.iscoroutine(result):
            task = asyncio.ensure_future(result)
            # Kept as a taker until it is done: asyncio itself would let it be collected.
            key = ~number
            self._waiting[key] = task
            task.add_done_callback(lambda done: self._callback_done(key, done))
        return True

    def _callback_done(self, key: int, task: asyncio.Future[Any]) -> None:
        self._waiting.pop(key, None)
        if not task.cancelled() and task.exception() is not None:
            log.error("an ack callback failed", exc_info=task.exception())

    def drop(self, number: int) -> None:
        """Nobody waits for *number* any more."""
        self._waiting.pop(number, None)

    def fail(self, error: Exception) -> None:
        """The client is gone: whoever waits is told *error*; callbacks are dropped."""
        waiting, self._waiting = self._waiting, {}
        for number, taker in waiting.items():
            if number >= 0 and isinstance(taker, asyncio.Future) and not taker.done():
                taker.set_exception(error)
                taker.exception()  # a caller that has given up meanwhile is no reason for a log line
