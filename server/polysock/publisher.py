"""Publisher: emits to the clients of a cluster from any process, which is no node of it and has no clients.

``Publisher`` for asyncio, ``SyncPublisher`` for everything else.  What they send is what a node sends to the others
(``envelope.py``), on the same channels; no node waits for them, lists them or asks them anything.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from itertools import count
from typing import Any, Generic, TypeVar

from polysock_transports import StateError

from .backplane import Backplane, BackplaneDown
from .backplane_url import connect
from .channels import channels_for, new_node_id
from .envelope import Emit, encode
from .hub import EVERYONE, Target
from .limits import DEFAULT_CLUSTER_LIMITS, ClusterLimits
from .namespace import namespace_name
from .packets import Event, check_event
from .settings import SettingError

__all__ = ["PUBLISH_TIMEOUT_S", "Emission", "Publisher", "SyncPublisher"]

#: How long an ``emit`` may take before it is given up.
PUBLISH_TIMEOUT_S = 5.0

_R = TypeVar("_R")


class Emission(Generic[_R]):
    """Where an event shall go, chosen step by step: ``publisher.of("/chat").to("a").except_("b").emit("news", 1)``.

    Each step returns a new one; none of them is changed.
    """

    def __init__(
        self,
        hand_out: Callable[[Emit], _R],
        namespace: str = "/",
        target: Target = EVERYONE,
        *,
        volatile: bool = False,
    ) -> None:
        self._hand_out = hand_out
        self._namespace = namespace
        self._target = target
        self._volatile = volatile

    def of(self, namespace: str) -> Emission[_R]:
        """In *namespace* instead of ``/``.  Raises ValueError for what is no name of one."""
        return Emission(self._hand_out, namespace_name(namespace), self._target, volatile=self._volatile)

    def to(self, *rooms: str) -> Emission[_R]:
        """These rooms (or clients' ids) too; whoever is in several gets it once."""
        target = Target((*self._target.rooms, *rooms), self._target.but)
        return Emission(self._hand_out, self._namespace, target, volatile=self._volatile)

    in_ = to

    def except_(self, *rooms_or_ids: str) -> Emission[_R]:
        """Not those in these rooms, nor those with these ids."""
        target = Target(self._target.rooms, (*self._target.but, *rooms_or_ids))
        return Emission(self._hand_out, self._namespace, target, volatile=self._volatile)

    @property
    def volatile(self) -> Emission[_R]:
        """Only to clients that can take it the moment it comes; the others miss it."""
        return Emission(self._hand_out, self._namespace, self._target, volatile=True)

    def emit(self, event: str, *args: Any) -> _R:
        """Send an event.  Arguments are what JSON holds, and bytes; how many nodes took it.

        A node takes it where it has clients in the room (with several rooms or none: in the namespace).  0 means
        that there is nobody, or no node at all.  Raises BackplaneDown where no answer came in time: then it may have
        been sent.  Raises TypeError or ValueError for arguments that cannot travel.
        """
        packet = Event(self._namespace, check_event(event), args)
        return self._hand_out(Emit("", 0, packet, self._target, volatile=self._volatile))

    def send(self, data: Any) -> _R:
        """The event ``message``."""
        return self.emit("message", data)


class Publisher(Emission[Awaitable[int]]):
    """For asyncio: ``async with Publisher(url) as publisher: await publisher.to("room").emit("news", 1)``.

    *url*: the ``backplane`` of the Servers.  *timeout_s*: how long starting, and each ``emit``, may take.
    *limits*: those of the nodes, where they are not the defaults.
    Events arrive in the order in which ``emit`` was awaited, as far as they go by the same channel (docs).
    """

    def __init__(
        self,
        url: str | Backplane,
        *,
        timeout_s: float = PUBLISH_TIMEOUT_S,
        limits: ClusterLimits = DEFAULT_CLUSTER_LIMITS,
    ) -> None:
        """Raises SettingError."""
        super().__init__(self._deliver)
        # A folder that no node has made is mistaken, or of nodes that are still to come.
        self._backplane = connect(url, makes_folder=False)
        self._timeout_s = _seconds(timeout_s)
        self._limits = limits
        # Nodes tell senders apart, and what one of them sent twice.
        self._id = new_node_id()
        self._numbers = count()
        self._is_started = False

    async def start(self) -> None:
        """Connect.  Raises BackplaneDown, and StateError the second time."""
        if self._is_started:
            raise StateError("a Publisher starts once")
        self._is_started = True
        try:
            await self._in_time(self._backplane.start(self._id, _ignore))
        except BaseException:
            await self._backplane.stop()
            raise

    async def stop(self) -> None:
        """Disconnect.  May be called twice."""
        await self._backplane.stop()

    async def __aenter__(self) -> Publisher:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    async def _deliver(self, emit: Emit) -> int:
        """*emit*, which has no sender yet, to all that want it."""
        if not self._is_started:
            raise StateError("start the Publisher first: async with Publisher(url) as publisher")
        # Any name may be a client's id, and here nobody knows which nodes there are.
        channels = channels_for(emit.packet.namespace, emit.target, bool)
        stamped = replace(emit, sender=self._id, seq=next(self._numbers), is_twice=len(channels) > 1)
        data = encode(stamped, self._limits)
        return sum(await self._in_time(asyncio.gather(*(self._backplane.deliver(each, data) for each in channels))))

    async def _in_time(self, work: Awaitable[_R]) -> _R:
        try:
            return await asyncio.wait_for(work, self._timeout_s)
        except asyncio.TimeoutError:
            raise BackplaneDown(f"{self._backplane!r}: no answer within {self._timeout_s:g} s") from None


class SyncPublisher(Emission[int]):
    """For code without an event loop: ``SyncPublisher(url).to("room").emit("news", 1)`` in a view, a task, a thread.

    Connects when it is first used, and stays connected; it may be shared by threads, and made before a fork: each
    process connects by itself.  Events of one thread arrive in their order.  It works through a loop in a thread of its
    own, and so with every backplane.  Code that runs in an event loop takes ``Publisher``: here each ``emit`` blocks.
    """

    def __init__(
        self, url: str, *, timeout_s: float = PUBLISH_TIMEOUT_S, limits: ClusterLimits = DEFAULT_CLUSTER_LIMITS
    ) -> None:
        """Raises SettingError."""
        super().__init__(self._deliver)
        connect(url)  # now, for what it has to say about the URL
        self._url = url
        self._timeout_s = _seconds(timeout_s)
        self._limits = limits
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._runner: _Runner | None = None
        self._of_others: list[_Runner | None] = []

    def __enter__(self) -> SyncPublisher:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Disconnect.  The next ``emit`` would connect again."""
        self._notice_fork()
        with self._lock:
            runner, self._runner = self._runner, None
        if runner is not None:
            runner.close()

    def _deliver(self, emit: Emit) -> int:
        runner = self._runner_of_this_process()
        return runner.run(runner.publisher._deliver(emit))

    def _runner_of_this_process(self) -> _Runner:
        self._notice_fork()
        # Of many threads that find the backplane away, none waits for all the others' tries.
        if not self._lock.acquire(timeout=self._timeout_s):
            raise BackplaneDown(f"another thread has not connected within {self._timeout_s:g} s")
        try:
            if self._runner is None:
                self._runner = _Runner(Publisher(self._url, timeout_s=self._timeout_s, limits=self._limits))
            return self._runner
        finally:
            self._lock.release()

    def _notice_fork(self) -> None:
        if self._process == os.getpid():
            return
        # The thread is not here, and its loop must not be touched: the parent still uses what the system shares between
        # both.  So it is kept, and left alone.  The lock may be held by a thread that is not here either.
        self._process = os.getpid()
        self._of_others.append(self._runner)
        self._runner, self._lock = None, threading.Lock()


class _Runner:
    """A Publisher with a loop in a thread."""

    def __init__(self, publisher: Publisher) -> None:
        """Raises BackplaneDown."""
        self.publisher = publisher
        self._loop = asyncio.new_event_loop()
        self._lock = threading.Lock()
        self._is_closed = False
        self._thread = threading.Thread(target=self._loop.run_forever, name="polysock-publisher", daemon=True)
        self._thread.start()
        try:
            self.run(publisher.start())
        except BaseException:
            self.close()
            raise

    def run(self, work: Coroutine[Any, Any, _R]) -> _R:
        """What *work* returns or raises; it has a deadline of its own.  Raises BackplaneDown after ``close``."""
        with self._lock:
            if self._is_closed:
                work.close()
                raise BackplaneDown("another thread has closed the publisher")
            running = asyncio.run_coroutine_threadsafe(work, self._loop)
        return running.result()

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
        asyncio.run_coroutine_threadsafe(self._leave(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _leave(self) -> None:
        await self.publisher.stop()
        # Threads wait for what is under way, and a loop that has stopped would never tell them.
        under_way = asyncio.all_tasks() - {asyncio.current_task()}
        if under_way:
            await asyncio.wait(under_way)


def _ignore(channel: str, data: bytes) -> None:
    """A publisher subscribes to nothing, so nothing comes."""


def _seconds(timeout_s: float) -> float:
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, (int, float)) or not 0 < timeout_s < float("inf"):
        raise SettingError(f"timeout_s must be a number of seconds greater than zero, not {timeout_s!r}")
    return timeout_s
