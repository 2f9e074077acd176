"""Asking: what one node wants to know of the others, or wants them to do, with a deadline.

An answer may come in several parts.  Nobody waits for a node that is gone, nor for longer than the deadline; the
result says which nodes did not answer.  What can be asked is in ``remote.py``.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from polysock_transports import ProtocolError
from polysock_transports.clock import Clock, Timer

from .envelope import Answer, Ask, EnvelopeTooBig, encode
from .hub import EVERYONE, Target
from .limits import ClusterLimits
from .packets import Event

__all__ = ["Answerer", "Asking", "Replies", "Request"]

log = logging.getLogger("polysock")

#: Items in one part of an answer; fewer where they are big.
_PART_ITEMS = 200

#: What a node does when it is asked: the items of its answer.  Raises ProtocolError for what makes no sense.
Answerer = Callable[[Ask], "Sequence[Any] | Awaitable[Sequence[Any]]"]


@dataclass
class Replies:
    """What the nodes answered: node -> items."""

    items: dict[str, list[Any]] = field(default_factory=dict)
    unreached: tuple[str, ...] = ()
    """Nodes that did not answer, or not all of it, in time."""
    is_truncated: bool = False
    """A node had more to say than an answer may hold."""


class _Reply:
    """One node's answer, as it comes."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self.parts = 0
        self.size_bytes = 0
        self.is_whole = True
        self.is_done = False


class Request:
    """One question to some nodes.  ``send`` it, then await ``replies``, or ``drop`` it."""

    def __init__(self, asking: Asking, number: int, nodes: Collection[str], data: bytes, timeout_s: float) -> None:
        self._asking = asking
        self._number = number
        self._data = data
        self._timeout_s = timeout_s
        self._replies = {node_id: _Reply() for node_id in nodes}
        self._waiting = set(nodes)
        self._is_truncated = False
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._timer: Timer | None = None

    def send(self) -> Request:
        """Ask.  Where that cannot be now, nobody is reached, and nothing is waited for."""
        if not self._asking.send(self._number, self, tuple(self._replies), self._data):
            self._finish()
        elif self._waiting:
            self._timer = self._asking.clock.call_later(self._timeout_s, self._finish)
        else:
            self._finish()
        return self

    async def replies(self) -> Replies:
        """Wait for the answers, or the deadline."""
        try:
            await self._done
        finally:
            self.drop()
        whole = {node_id: reply.items for node_id, reply in self._replies.items() if reply.items or reply.is_done}
        unreached = tuple(node_id for node_id, reply in self._replies.items() if not (reply.is_done and reply.is_whole))
        return Replies(whole, unreached, self._is_truncated)

    def drop(self) -> None:
        """Nobody waits for it any more."""
        self._finish()
        self._asking.forget(self._number)

    # -- told by Asking

    def answered(self, answer: Answer, size_bytes: int, limits: ClusterLimits) -> None:
        reply = self._replies.get(answer.sender)
        if reply is None or answer.sender not in self._waiting:
            return
        if answer.part != reply.parts:
            reply.is_whole = False  # one was lost on the way
        reply.parts = answer.part + 1
        reply.size_bytes += size_bytes
        room = limits.max_answer_items - len(reply.items)
        # Twice the bytes: the answering node counts its own a little differently, and must not be cut for that.
        if len(answer.values) > room or reply.size_bytes > 2 * limits.max_answer_bytes:
            self._is_truncated = True
        else:
            reply.items.extend(answer.values)
        self._is_truncated = self._is_truncated or answer.is_truncated
        if answer.is_last:
            reply.is_done = True
            self.gone(answer.sender)

    def gone(self, node_id: str) -> None:
        """No more comes from this node."""
        self._waiting.discard(node_id)
        if not self._waiting:
            self._finish()

    def _finish(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._done.done():
            self._done.set_result(None)


class Asking:
    """Both sides of it, for one node."""

    def __init__(
        self,
        clock: Clock,
        limits: ClusterLimits,
        counters: Counter[str],
        *,
        stamp: Callable[[], tuple[str, int]],
        send: Callable[[Collection[str] | None, bytes], bool],
    ) -> None:
        """*stamp*: this node's id and the number of its next message.  *send* a message to some nodes, None for all;
        False where it has no way."""
        self.clock = clock
        self._limits = limits
        self._counters = counters
        self._stamp = stamp
        self._send = send
        self._numbers = count(1)
        self._requests: dict[int, Request] = {}
        self._at_work: set[asyncio.Future[Any]] = set()
        self._said_senseless = False
        self.answerers: dict[str, Answerer] = {}
        """By what is asked."""

    # -- asking

    def request(
        self,
        packet: Event,
        nodes: Collection[str],
        target: Target = EVERYONE,
        *,
        more_s: float = 0.0,
        timeout_s: float | None = None,
    ) -> Request:
        """A question to *nodes*; they have *timeout_s* (the request timeout if None) and *more_s* to answer.

        Raises TypeError or ValueError for arguments that cannot travel.
        """
        number = next(self._numbers)
        data = encode(Ask(*self._stamp(), packet, number, target), self._limits) if nodes else b""
        if timeout_s is None:
            timeout_s = self._limits.cluster_request_timeout_s
        return Request(self, number, nodes, data, timeout_s + more_s)

    def tell(self, packet: Event, node_id: str | None = None) -> bool:
        """Have one node do something, or all, and do not ask whether it did; False where there is no way.

        Raises TypeError or ValueError for arguments that cannot travel.
        """
        return self._send(None if node_id is None else (node_id,), encode(Ask(*self._stamp(), packet), self._limits))

    def send(self, number: int, request: Request, nodes: Collection[str], data: bytes) -> bool:
        """For a Request."""
        if not nodes:
            return True
        if len(self._requests) >= self._limits.max_cluster_requests:
            self._counters["requests_refused"] += 1
            return False
        if not self._send(nodes if len(nodes) == 1 else None, data):
            return False
        self._requests[number] = request
        return True

    def forget(self, number: int) -> None:
        self._requests.pop(number, None)

    @property
    def pending(self) -> int:
        """Requests that wait for answers."""
        return len(self._requests)

    def answered(self, answer: Answer, size_bytes: int) -> None:
        """A part of an answer came."""
        request = self._requests.get(answer.number)
        if request is None:
            self._counters["late_answers"] += 1
        else:
            request.answered(answer, size_bytes, self._limits)

    def node_left(self, node_id: str) -> None:
        """Nobody waits for it."""
        for request in list(self._requests.values()):
            request.gone(node_id)

    def stop(self) -> None:
        for request in list(self._requests.values()):
            request.drop()
        for task in list(self._at_work):
            task.cancel()

    # -- being asked

    def asked(self, ask: Ask) -> None:
        """Another node wants something.  Errors are logged, and the other one learns that there is no answer."""
        answerer = self.answerers.get(ask.packet.name)
        if answerer is None or len(self._at_work) >= self._limits.max_cluster_requests:
            self._counters["requests_not_answered"] += 1
            return
        try:
            result = answerer(ask)
        except Exception as error:
            self._failed(ask, error)
            return
        if inspect.isawaitable(result):
            task = asyncio.ensure_future(self._answer_later(ask, result))
            self._at_work.add(task)
            task.add_done_callback(self._at_work.discard)
        else:
            self._answer(ask, result)

    async def _answer_later(self, ask: Ask, result: Awaitable[Sequence[Any]]) -> None:
        try:
            items = await result
        except Exception as error:
            self._failed(ask, error)
            return
        self._answer(ask, items)

    def _failed(self, ask: Ask, error: Exception) -> None:
        if not isinstance(error, ProtocolError):
            self._counters["requests_failed"] += 1
            log.error("what node %s asked for failed: %r", ask.sender, ask.packet.name, exc_info=error)
            return
        # Their fault, and not one of ours that has to be found: they may send as much of it as they like.
        self._counters["bad_requests"] += 1
        if not self._said_senseless:
            self._said_senseless = True
            log.warning("what node %s asked for makes no sense (told once, then counted): %s", ask.sender, error)

    def _answer(self, ask: Ask, items: Sequence[Any]) -> None:
        if ask.number is None:
            return
        is_truncated = len(items) > self._limits.max_answer_items
        items = items[: self._limits.max_answer_items]
        waiting = deque(items[at : at + _PART_ITEMS] for at in range(0, len(items), _PART_ITEMS))
        part, left_bytes = 0, self._limits.max_answer_bytes
        while waiting:
            values = waiting.popleft()
            try:
                data = encode(
                    Answer(*self._stamp(), ask.number, values, part, is_last=not waiting, is_truncated=is_truncated),
                    self._limits,
                )
            except EnvelopeTooBig:
                if len(values) > 1:
                    half = len(values) // 2
                    waiting.extendleft((values[half:], values[:half]))
                else:
                    is_truncated = True  # one item that is bigger than a message may be
                continue
            except (TypeError, ValueError) as error:
                self._failed(ask, error)
                return
            left_bytes -= len(data)
            if left_bytes < 0:
                is_truncated = True
                break
            self._send((ask.sender,), data)
            part += 1
            if not waiting:
                return
        data = encode(Answer(*self._stamp(), ask.number, (), part, is_truncated=is_truncated), self._limits)
        self._send((ask.sender,), data)
