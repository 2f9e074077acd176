"""Feeds: a namespace, or some of its rooms, as a one-way stream of numbered events for any number of readers.

One channel for each (namespace, rooms) is the hub's member: the hub sends to it once, and the channel numbers the
event, keeps it for readers that come back, and hands the same bytes to everybody.  A reader is a session without a
Socket, so it is in no list of clients; it is let in by the same hooks as everybody else.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING, Any

from polysock_transports import CloseReason, ConnectionInfo, Refused
from polysock_transports.clock import Timer
from polysock_transports.dialects.plainhttp import FEED, FeedEvent
from polysock_transports.feed import FeedStream
from polysock_transports.prepared import PreparedMessage
from polysock_transports.session import Session, State

from .handshake import ConnectionRefused, Handshake
from .packets import PacketCodec, dumps
from .packets.plain import PLAIN_PACKETS
from .peer import Peer

if TYPE_CHECKING:
    from .namespace import Namespace
    from .server import Server
    from .sockets import Socket

__all__ = ["FeedChannel", "FeedPeer", "Feeds", "plain_peer"]

_EPOCH_BYTES = 6
_ID_DIGITS = 15


class FeedChannel:
    """One feed: a member of the hub that passes on what it gets."""

    codec: PacketCodec = PLAIN_PACKETS

    def __init__(self, server: Server, namespace: Namespace, rooms: tuple[str, ...]) -> None:
        self.id = server.make_id()
        self.namespace = namespace
        self.rooms = rooms
        self.idle_since: float | None = None
        """When its last reader went; None where there are some."""
        # Numbers of another life of this feed, before a restart or a pause, must not be taken for ours.
        self._epoch = secrets.token_hex(_EPOCH_BYTES)
        self._number = 0
        self._history: deque[tuple[str, int]] = deque()  # the last ones, up to _number, and their sizes on the wire
        self._history_bytes = 0
        # Who comes back gets all of it at once, and must have room in the queue for it and for what is new.
        limits = server.limits
        self._max_messages = min(limits.feed_history_messages, limits.queue_max_messages // 2)
        self._max_bytes = min(limits.feed_history_bytes, limits.queue_max_bytes // 2)
        self._readers: set[Session] = set()
        namespace.hub.add(self, rooms_only=bool(rooms))
        for room in rooms:
            namespace.hub.join(self.id, room)

    @property
    def receiver(self) -> FeedChannel:
        return self

    @property
    def readers(self) -> int:
        return len(self._readers)

    # -- told by the hub

    def send_prepared(self, message: PreparedMessage) -> bool:
        text = str(message.message)  # PLAIN_PACKETS makes nothing else
        self._number += 1
        event = PreparedMessage(self._event(self._number, text))
        self._keep(text, len(event.fragment(FEED)))
        for reader in tuple(self._readers):
            reader.send_prepared(event)
        return True

    def send_volatile(self, messages: Sequence[PreparedMessage]) -> bool:
        # Not kept and not numbered: whoever comes back is not to miss it.
        for reader in tuple(self._readers):
            reader.send_volatile(messages)
        return True

    # -- readers

    def add(self, reader: Session, last_id: str | None) -> None:
        """Let *reader* follow; what came after *last_id* first, as far as it is there."""
        missed = self._missed(last_id)
        if missed is None:
            # That id is not ours: nobody knows how much lies between.
            self._tell_gap(reader, None)
            missed = 0
        elif missed > len(self._history):
            self._tell_gap(reader, missed - len(self._history))
            missed = len(self._history)
        elif last_id is None:
            # An id without data: browsers take note of it, and can resume before they ever got an event.
            reader.send_prepared(PreparedMessage(self._event(self._number)))
        self._readers.add(reader)
        self.idle_since = None
        first = self._number - missed + 1
        for number, (text, _) in enumerate(list(self._history)[len(self._history) - missed :], first):
            reader.send_prepared(PreparedMessage(self._event(number, text)))

    def discard(self, reader: Session, now: float) -> None:
        """*reader* is gone."""
        if reader in self._readers:
            self._readers.remove(reader)
            if not self._readers:
                self.idle_since = now

    def close(self) -> None:
        """Leave the hub."""
        self.namespace.hub.remove(self.id)
        self.namespace.server.forget_if_empty(self.namespace)

    def _event(self, number: int, text: str = "") -> FeedEvent:
        return FeedEvent(text, f"{self._epoch}-{number}")

    def _missed(self, last_id: str | None) -> int | None:
        """How many events came after *last_id*; None where that cannot be known."""
        if last_id is None:
            return 0
        epoch, _, number = last_id.partition("-")
        if epoch != self._epoch or not (number.isascii() and number.isdecimal() and len(number) <= _ID_DIGITS):
            return None
        missed = self._number - int(number)
        return missed if missed >= 0 else None

    def _tell_gap(self, reader: Session, lost: int | None) -> None:
        # What is still kept follows, so the id is that of the event before it.
        number = self._number - (len(self._history) if lost is not None else 0)
        event = FeedEvent(dumps({"lost": lost}), f"{self._epoch}-{number}", "gap")
        reader.send_prepared(PreparedMessage(event))

    def _keep(self, text: str, size: int) -> None:
        self._history.append((text, size))
        self._history_bytes += size
        while self._history_bytes > self._max_bytes or len(self._history) > self._max_messages:
            self._history_bytes -= self._history.popleft()[1]


class Feeds:
    """All feeds of one Server."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._channels: dict[tuple[str, tuple[str, ...]], FeedChannel] = {}
        self._timer: Timer | None = None

    def __len__(self) -> int:
        return len(self._channels)

    def open(self, namespace: Namespace, rooms: Sequence[str]) -> FeedChannel:
        """The channel of these rooms, made now where there is none.  Raises Refused where there are too many."""
        key = (namespace.name, tuple(sorted(set(rooms))))
        found = self._channels.get(key)
        if found is not None:
            return found  # and its namespace is this one, since no namespace goes while a feed is in it
        if len(self._channels) >= self._server.limits.max_feeds:
            idle = [
                (found.idle_since, other) for other, found in self._channels.items() if found.idle_since is not None
            ]
            if not idle:
                raise Refused(503, "Too many feeds on this server.")
            self._drop(min(idle)[1])
        self._channels[key] = channel = FeedChannel(self._server, namespace, key[1])
        return channel

    def left(self, channel: FeedChannel, reader: Session) -> None:
        """*reader* is gone; a channel without any stays for a while, so that one that comes back can resume."""
        channel.discard(reader, self._server.clock.now())
        if channel.idle_since is not None and self._timer is None:
            self._timer = self._server.clock.call_later(self._server.limits.feed_linger_s, self._sweep)

    def close(self) -> None:
        """Forget them all."""
        for key in list(self._channels):
            self._drop(key)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _drop(self, key: tuple[str, tuple[str, ...]]) -> None:
        self._channels.pop(key).close()

    def _sweep(self) -> None:
        self._timer = None
        clock, linger = self._server.clock, self._server.limits.feed_linger_s
        now = clock.now()
        waiting = []
        for key, channel in list(self._channels.items()):
            if channel.idle_since is None:
                continue
            if now - channel.idle_since >= linger:
                self._drop(key)
            else:
                waiting.append(channel.idle_since + linger)
        if waiting:
            self._timer = clock.call_later(min(waiting) - now, self._sweep)


class FeedPeer(Peer):
    """One reader of a feed: asked for its right to be here like any client, and then never heard of.

    Its Socket is there for the middleware to judge, and is never connected.
    """

    def __init__(self, server: Server, info: ConnectionInfo, namespace: str) -> None:
        """Raises Refused for rooms that cannot be."""
        super().__init__(server, info, PLAIN_PACKETS, namespace=namespace)
        limits, rooms = server.limits, Handshake(info).feed_rooms
        if len(rooms) > limits.max_feed_rooms:
            raise Refused(400, f"Too many rooms; a feed has at most {limits.max_feed_rooms}.")
        if not all(0 < len(room) <= limits.max_name_chars for room in rooms):
            raise Refused(400, f"A room's name has 1 to {limits.max_name_chars} characters.")
        self._channel: FeedChannel | None = None
        self._last_id = info.headers.get("Last-Event-ID") or _first(info, "lastEventId") or None

    def _enter(self, socket: Socket) -> Awaitable[Any] | None:
        if self.session.state > State.OPEN:
            # It left while a middleware was waiting.
            self.server.forget_if_empty(socket.namespace)
            return None
        namespace, rooms = self.server.current(socket.namespace), socket.handshake.feed_rooms
        try:
            if any(namespace.hub.get(room) is not None for room in rooms):
                # What is sent to one client's id is for that client, whatever the hooks think of rooms.
                raise ConnectionRefused("A client's id is not a room.")
            if not all(namespace.is_feed_allowed(room) for room in rooms):
                raise ConnectionRefused("This room is no feed; the server opens one with allow_feed().")
            self._channel = self.server.feeds.open(namespace, rooms)
        except Refused:
            self.server.forget_if_empty(namespace)
            raise
        self._channel.add(self.session, self._last_id)
        return None

    def on_close(self, reason: CloseReason) -> Awaitable[Any] | None:
        if self._channel is not None:
            self.server.feeds.left(self._channel, self.session)
        return None


def plain_peer(server: Server, info: ConnectionInfo) -> Peer:
    """Who listens to a new session of the plain endpoint, in the namespace that its URL names.  Raises Refused."""
    name = _first(info, "ns")
    name = name if name.startswith("/") else f"/{name}"
    if len(name) > server.limits.max_name_chars:
        raise Refused(400, f"A namespace's name has at most {server.limits.max_name_chars} characters.")
    if info.transport == FeedStream.name:
        return FeedPeer(server, info, name)
    return Peer(server, info, PLAIN_PACKETS, namespace=name)


def _first(info: ConnectionInfo, name: str) -> str:
    return (info.get_argument(name) or b"").decode("utf-8", "replace")
