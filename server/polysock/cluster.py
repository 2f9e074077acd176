"""Cluster: one node among others.  Membership, who listens on which channel, and where an event goes.

Local delivery comes first and needs nobody; nothing here waits for the backplane.  What the nodes say to each other is
in ``envelope.py``, the names of channels in ``channels.py``, who is there in ``roster.py``, requests in ``asking.py``.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from itertools import count
from typing import Any, Protocol

from polysock_transports import ProtocolError, StateError
from polysock_transports.clock import Clock
from polysock_transports.placement import Node

from .asking import Asking
from .backplane import Backplane, BackplaneDown
from .channels import (
    ALL_NODES,
    channels_for,
    namespace_channel,
    new_node_id,
    node_channel,
    node_of,
    room_channel,
)
from .envelope import Answer, Ask, Bye, Emit, Envelope, EnvelopeTooBig, Hello, decode, encode
from .handlers import EventHandlers
from .hub import Hub, Target
from .limits import ClusterLimits
from .packets import Event
from .roster import Roster

__all__ = ["Cluster"]

log = logging.getLogger("polysock")

#: What is asked where one node tells those that follow a topic something.
_TOPIC = "topic"
#: Messages remembered that travel on two channels, so that none is delivered twice; of all senders together, the oldest
#: is forgotten.  Both copies are published at once: for one to be delivered twice, as many others had to come between.
_MAX_SEEN = 1_000
#: What every node takes for the name of a machine.
_MAX_MACHINE_CHARS = 255
#: Longest that a node that starts waits for the others to say hello.
_MAX_GREETING_S = 1.0


def _machine() -> str:
    """Names what sees the same files: a path that one node announces is of use to those with the same name."""
    parts = [socket.gethostname()]
    for path, read in (("/proc/sys/kernel/random/boot_id", _first_line), ("/proc/self/ns/mnt", os.readlink)):
        with suppress(OSError):  # not Linux
            parts.append(read(path))
    return " ".join(parts)[-_MAX_MACHINE_CHARS:]


def _first_line(path: str) -> str:
    with open(path, encoding="ascii", errors="replace") as file:
        return file.readline().strip()


class _Namespace(Protocol):
    """What the cluster knows of a namespace."""

    name: str
    hub: Hub

    def deliver_direct(self, member_id: str, packet: Event, *, volatile: bool) -> bool: ...


class _Listening:
    """Keeps the channels of one namespace in step with who is in it."""

    def __init__(self, backplane: Backplane, namespace: str) -> None:
        self._backplane = backplane
        self._namespace = namespace

    def _channel(self, room: str | None) -> str:
        return namespace_channel(self._namespace) if room is None else room_channel(self._namespace, room)

    def opened(self, room: str | None) -> None:
        self._backplane.subscribe(self._channel(room))

    def closed(self, room: str | None) -> None:
        self._backplane.unsubscribe(self._channel(room))


class Cluster(EventHandlers):
    """``io.cluster``: this process among the others.

    Handlers: ``on("node_joined", fn)`` gets a ``Node``, ``on("node_left", fn)`` a ``Node`` and why: ``"bye"``,
    ``"lost"`` (its connection broke) or ``"silent"``, ``on("backplane_changed", fn)`` whether it is up.
    """

    def __init__(
        self,
        backplane: Backplane,
        *,
        clock: Clock,
        limits: ClusterLimits,
        namespaces: Mapping[str, _Namespace],
        run_later: Callable[[Awaitable[Any], str], None],
    ) -> None:
        super().__init__()
        self.backplane = backplane
        self.limits = limits
        self.id = new_node_id()
        """This node's id; the ids of its clients begin with it."""
        self.counters: Counter[str] = Counter()
        """How often what happened: ``outages``, ``too_big``, ``bad_envelopes``, ``not_delivered`` and so on."""
        self.node = Node(self.id)
        self.is_running = False
        self._namespaces = namespaces
        self._run_later = run_later
        self._clock = clock
        self._seq = count()
        self._was_started = False
        self._is_wanted = False
        self._seen: dict[tuple[str, int], None] = {}
        self._complained: set[str] = set()
        self._topics: dict[str, Callable[[str, list[Any]], None]] = {}
        self._news: asyncio.Event | None = None
        self._roster = Roster(clock, limits, announce=self._announce, joined=self._node_joined, left=self._node_left)
        self.asking = Asking(clock, limits, self.counters, stamp=self._stamp, send=self._send)
        """Requests to other nodes, for the parts of this package."""
        self.asking.answerers[_TOPIC] = self._told

    def __repr__(self) -> str:
        return f"<Cluster node {self.id} with {len(self.nodes)} others>"

    @property
    def nodes(self) -> Mapping[str, Node]:
        """The other nodes that are there, by id."""
        return self._roster.nodes

    @property
    def is_up(self) -> bool:
        """Whether what is sent to other nodes has a way to travel now."""
        return self.is_running and self.backplane.is_up

    # -- coming and going

    async def start(self, listen: Callable[[Node], Awaitable[Node]] | None = None) -> None:
        """Join: listen, say hello, and wait a moment for the others' answers.

        *listen* is given this node, and returns it with where it takes relayed requests.  Raises StateError for a
        second start, and BackplaneDown; after that it may be tried again.
        """
        if self._was_started:
            raise StateError("a Server joins its cluster once: make a new one")
        self._was_started = self._is_wanted = True
        try:
            await self._join(listen)
        except BaseException:
            await self.stop()
            self._was_started = False
            raise

    async def _join(self, listen: Callable[[Node], Awaitable[Node]] | None) -> None:
        self.node = Node(self.id, int(time.time() * 1000), _machine())
        self.backplane.on_change = self._changed
        self.backplane.on_node_lost = self._lost
        await self.backplane.start(self.id, self._receive)
        self._check_wanted()
        self.is_running = True
        self.backplane.subscribe(ALL_NODES)
        self.backplane.subscribe(node_channel(self.id))
        for topic in self._topics:
            self.backplane.subscribe(topic)
        for namespace in self._namespaces.values():
            self.watch(namespace)
        if listen is not None:
            self.node = await listen(self.node)
        self._check_wanted()
        await self.backplane.settled()
        others = await self.backplane.deliver(ALL_NODES, self._hello())
        self._check_wanted()
        self._roster.start()
        await self._greeted(others)
        self._check_wanted()

    def _check_wanted(self) -> None:
        """After each wait of the start: there may have been a stop meanwhile."""
        if not self._is_wanted:
            raise BackplaneDown("stopped while it was starting")

    async def _greeted(self, others: int) -> None:
        """Wait until *others* nodes have said who they are: what is placed on nodes needs to know them."""
        is_over = False

        def over() -> None:
            nonlocal is_over
            is_over = True
            news.set()

        news = self._news = asyncio.Event()
        timer = self._clock.call_later(min(_MAX_GREETING_S, self.limits.cluster_heartbeat_s), over)
        try:
            while len(self.nodes) < others and not is_over and self._is_wanted:
                await news.wait()
                news.clear()
        finally:
            timer.cancel()
            self._news = None

    async def stop(self) -> None:
        """Say bye and leave.  Clients stay, and what is emitted to them here is delivered still.

        A start that is on its way raises BackplaneDown.
        """
        self._is_wanted = False
        if self._news is not None:
            self._news.set()
        try:
            if self.is_running:
                self.is_running = False
                for namespace in self._namespaces.values():
                    namespace.hub.watcher = None
                # Where it cannot be sent soon, the others will notice by the silence.
                self.backplane.publish(ALL_NODES, encode(Bye(*self._stamp()), self.limits))
                self.asking.stop()
                self._roster.stop()
        finally:
            await self.backplane.stop()

    async def settled(self) -> None:
        """Wait until the rooms joined so far are known to the other nodes.  Raises BackplaneDown."""
        await self.backplane.settled()

    def watch(self, namespace: _Namespace) -> None:
        """Listen for *namespace* from now on, as far as it has members."""
        if not self.is_running or namespace.hub.watcher is not None:
            return
        watcher = namespace.hub.watcher = _Listening(self.backplane, namespace.name)
        if len(namespace.hub):
            watcher.opened(None)
        for room in namespace.hub.rooms:
            watcher.opened(room)

    # -- sending

    def emit(self, namespace: _Namespace, packet: Event, target: Target, *, volatile: bool) -> int:
        """Deliver *packet* here, and publish it for the other nodes; how many got it here.

        Raises TypeError or ValueError where the packet's arguments cannot travel, before anybody got anything.
        """
        nodes = self.nodes
        if not nodes or not self.is_running:
            return namespace.hub.deliver(target, packet, volatile=volatile)
        channels = channels_for(namespace.name, target, nodes.__contains__)
        data = self._event(packet, target, volatile=volatile, is_twice=len(channels) > 1)
        reached = namespace.hub.deliver(target, packet, volatile=volatile)
        if data is not None:
            for channel in channels:
                self.backplane.publish(channel, data)
        return reached

    def hand_over(self, packet: Event, target: Target) -> Callable[[], Awaitable[int]]:
        """What sends *packet* to other nodes alone; awaited, how many it was handed to.  It raises BackplaneDown then.

        Raises TypeError or ValueError for arguments that cannot travel, before anybody got anything.
        """
        channels = channels_for(packet.namespace, target, self.nodes.__contains__)
        data = encode(Emit(*self._stamp(), packet, target, is_twice=len(channels) > 1), self.limits)

        async def deliver() -> int:
            if not self.is_up:
                raise BackplaneDown("this node is not in its cluster now")
            return sum([await self.backplane.deliver(channel, data) for channel in channels])

        return deliver

    def emit_direct(self, member_id: str, node_id: str, packet: Event, *, volatile: bool = False) -> bool:
        """Send *packet* to one client of another node; False where there is no way.

        Raises TypeError or ValueError for arguments that cannot travel.
        """
        data = self._event(packet, Target((member_id,)), volatile=volatile, is_direct=True)
        return data is not None and self._send((node_id,), data)

    def _event(
        self, packet: Event, target: Target, *, volatile: bool, is_twice: bool = False, is_direct: bool = False
    ) -> bytes | None:
        try:
            return encode(
                Emit(*self._stamp(), packet, target, volatile=volatile, is_twice=is_twice, is_direct=is_direct),
                self.limits,
            )
        except EnvelopeTooBig as error:
            # Whoever is here gets it all the same.
            self.counters["too_big"] += 1
            log.error("the event %r in %s does not go to other nodes: %s", packet.name, packet.namespace, error)
            return None

    def other_node(self, member_id: str) -> str | None:
        """The other node that is there and made *member_id*; None for none."""
        node_id = node_of(member_id)
        return node_id if node_id in self.nodes else None

    def _stamp(self) -> tuple[str, int]:
        return self.id, next(self._seq)

    def _send(self, nodes: Collection[str] | None, data: bytes) -> bool:
        if not self.is_up:
            return False
        for channel in (ALL_NODES,) if nodes is None else map(node_channel, nodes):
            self.backplane.publish(channel, data)
        return True

    # -- topics: what nodes tell each other that keep the same thing

    def follow(self, channel: str, told: Callable[[str, list[Any]], None]) -> None:
        """Call ``told(node id, values)`` for what other nodes say on *channel* (``topic_channel``)."""
        self._topics[channel] = told
        if self.is_running:
            self.backplane.subscribe(channel)

    def unfollow(self, channel: str) -> None:
        """Hear no more of it."""
        self._topics.pop(channel, None)
        if self.is_running:
            self.backplane.unsubscribe(channel)

    def say(self, channel: str, *values: Any, node_id: str | None = None) -> bool:
        """Tell the other nodes that follow *channel*, or one of them.  False where it has no way.

        Raises TypeError or ValueError for what cannot travel.
        """
        if not self.is_up:
            return False
        data = encode(Ask(*self._stamp(), Event("/", _TOPIC, [channel, *values])), self.limits)
        self.backplane.publish(channel if node_id is None else node_channel(node_id), data)
        return True

    def _told(self, ask: Ask) -> tuple[()]:
        if not ask.packet.args or not isinstance(ask.packet.args[0], str):
            raise ProtocolError("Something is said on no channel.")
        channel, *values = ask.packet.args
        told = self._topics.get(channel)
        if told is not None:
            told(ask.sender, values)
        return ()

    # -- receiving

    def _receive(self, channel: str, data: bytes) -> None:
        """Something came.  No error escapes: the next message is as good as before."""
        try:
            envelope = decode(data, self.limits)
        except ProtocolError as error:
            self.counters["bad_envelopes"] += 1
            self._complain("bad", "a message on the backplane is not understood (told once, then counted): %s", error)
            return
        if envelope.sender == self.id or not self.is_running:
            return
        try:
            self._take(envelope, len(data))
        except Exception:
            self.counters["not_delivered"] += 1
            log.exception("a message of node %s failed here", envelope.sender)

    def _take(self, envelope: Envelope, size_bytes: int) -> None:
        if isinstance(envelope, Emit):
            self._deliver(envelope)
        elif isinstance(envelope, Hello):
            if self._roster.heard(envelope.node) and not envelope.is_reply:
                self._send((envelope.sender,), self._hello(is_reply=True))
            elif envelope.sender not in self.nodes:
                self.counters["nodes_refused"] += 1
                self._complain("nodes", "more than %d other nodes: one is ignored", self.limits.max_cluster_nodes)
        elif isinstance(envelope, Answer):
            self.asking.answered(envelope, size_bytes)
        elif isinstance(envelope, Ask):
            self.asking.asked(envelope)
        else:
            self._roster.remove(envelope.sender, "bye")

    def _deliver(self, emit: Emit) -> None:
        namespace = self._namespaces.get(emit.packet.namespace)
        if namespace is None or (emit.is_twice and self._is_seen(emit)):
            return
        try:
            if emit.is_direct:
                namespace.deliver_direct(emit.target.rooms[0], emit.packet, volatile=emit.volatile)
            else:
                namespace.hub.deliver(emit.target, emit.packet, volatile=emit.volatile)
        except (TypeError, ValueError) as error:
            # Whoever has emitted it has clients of other kinds.
            self.counters["not_delivered"] += 1
            self._complain(
                "form", "an event of another node cannot be told to clients here (told once, then counted): %s", error
            )

    def _is_seen(self, emit: Emit) -> bool:
        key = (emit.sender, emit.seq)
        if key in self._seen:
            del self._seen[key]
            return True
        if len(self._seen) >= _MAX_SEEN:
            del self._seen[next(iter(self._seen))]
        self._seen[key] = None
        return False

    # -- membership

    def _hello(self, *, is_reply: bool = False) -> bytes:
        return encode(Hello(next(self._seq), self.node, is_reply), self.limits)

    def _announce(self) -> None:
        self.backplane.publish(ALL_NODES, self._hello())
        self._tell("beat")

    def _node_joined(self, node: Node) -> None:
        log.info("node %s on %r joined; nodes: %d", node.id, _host_name(node), len(self.nodes) + 1)
        if self._news is not None:
            self._news.set()
        self._tell("node_joined", node)

    def _node_left(self, node: Node, why: str) -> None:
        log.info("node %s on %r left (%s); nodes: %d", node.id, _host_name(node), why, len(self.nodes) + 1)
        self.asking.node_left(node.id)
        self._tell("node_left", node, why)

    def _lost(self, node_id: str) -> None:
        self._roster.remove(node_id, "lost")

    def _changed(self, is_up: bool) -> None:
        if not self.is_running:
            return
        # (The backplane has logged it: it knows why.)
        self.counters["outages"] += not is_up
        self._roster.backplane_changed(is_up)
        self._tell("backplane_changed", is_up)

    def _tell(self, event: str, *args: Any) -> None:
        self.tell(event, args, self._run_later)

    def _complain(self, what: str, text: str, *args: Any) -> None:
        """Log it once in the life of this node."""
        if what not in self._complained:
            self._complained.add(what)
            log.warning(text, *args)


def _host_name(node: Node) -> str:
    """What people call the node's machine; the rest of ``Node.host`` tells machines of one name apart."""
    return node.host.partition(" ")[0]
