"""Presence: who is in which room over all nodes, by socket or by the application's user.

Every node keeps a replica, so reading never waits.  Each says what changed on the topic of this presence, numbered;
whoever misses a number asks for the whole and gets it as it is then.  A heartbeat repeats the last number, so that the
loss of the last change is noticed too.  What a node said goes with the node.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, NamedTuple

from polysock_transports import ProtocolError, StateError
from polysock_transports.placement import Node

from .channels import topic_channel
from .envelope import EnvelopeTooBig
from .handlers import EventHandlers
from .packets import dumps, loads
from .sockets import Socket

if TYPE_CHECKING:
    from .hub import Member as HubMember
    from .namespace import Namespace

__all__ = ["Presence", "Present"]

log = logging.getLogger("polysock")

#: Entries or changes in one message; fewer where they are big.
_PART_ENTRIES = 500
#: Messages about changes that are kept until the whole is there that they build on.
_MAX_WAITING = 100


class _Change(NamedTuple):
    """Who is in a room, or was: then there is no user."""

    room: str
    socket_id: str
    user: str | None = None
    meta: Any = None
    size_bytes: int = 0
    """As JSON; 0 where nobody asks."""

    @property
    def told(self) -> tuple[str, str, str | None, Any]:
        """What other nodes are told."""
        return self[:4]


@dataclass(slots=True)
class _Entry:
    """A socket in a room, as one node said."""

    user: str
    size_bytes: int
    whole: int = 0
    """Which whole had it last."""


@dataclass(frozen=True, slots=True)
class Present:
    """A user in a room."""

    user: str
    sockets: dict[str, Any]
    """Socket id -> metadata, of all nodes; the one that came last is last."""

    @property
    def meta(self) -> Any:
        """The metadata of the socket that came last."""
        return next(reversed(self.sockets.values())) if self.sockets else None


class _Source:
    """What one node said."""

    def __init__(self) -> None:
        self.number = 0
        self.is_synced = False
        self.entries: dict[tuple[str, str], _Entry] = {}
        """By room and socket."""
        self.waiting: list[tuple[int, list[_Change]]] = []
        """Messages about changes that build on a whole which is still to come."""
        self.waiting_bytes = 0
        self.whole = 0
        """Counts the wholes that have begun to come."""
        self.parts: int | None = None
        """How many of it came; None where one was lost, or all have come."""
        self.whole_number = 0


class Presence(EventHandlers):
    """``io.sockets.presence(...)``: members of some rooms, joined over all nodes.

    Handlers, called on every node: ``on("join", fn)`` and ``on("leave", fn)`` when a user's first socket comes into a
    room and the last one has gone, ``on("update", fn)`` when ``update`` changed metadata; each gets the room and a
    ``Present``.
    """

    def __init__(
        self,
        namespace: Namespace,
        rooms: str | Callable[[str], bool],
        *,
        user: Callable[[Socket], str | None] | None = None,
        meta: Callable[[Socket], Any] | None = None,
        name: str | None = None,
        taken: Container[str] = (),
    ) -> None:
        """See ``Namespace.presence``; *taken*: names that are."""
        super().__init__()
        if namespace.is_dynamic:
            raise StateError(f"presence needs a namespace that stays: name it first, io.of({namespace.name!r})")
        if not isinstance(rooms, str) and not callable(rooms):
            raise TypeError(f"presence needs a room's name, a pattern, or a function, not {type(rooms).__name__}")
        self._namespace = namespace
        self._server = namespace.server
        self._limits = self._server.cluster_limits
        self._rule = rooms
        self._user = user
        self._meta = meta
        self._cluster = self._server.cluster
        self._own = _Source()
        self._sources: dict[str, _Source] = {}
        self._rooms: dict[str, dict[str, dict[str, Any]]] = {}
        self._size = self._size_bytes = 0
        self._waiting_bytes = 0
        self._queue: list[_Change] = []
        self._is_flushing = False
        self.refused = 0
        """Sockets that were not taken in, and metadata that was not: over ``max_presence_sockets`` or
        ``max_presence_bytes``."""
        self.name = name if name is not None else rooms if isinstance(rooms, str) else "presence"
        if self.name in taken:
            raise ValueError(f"there is a presence {self.name!r} in {namespace.name} already: give this one a name=")
        self._channel = topic_channel(namespace.name, self.name)
        hub = namespace.hub
        hub.observers = (*hub.observers, self)
        for room in hub.rooms:
            for member in hub.in_room(room):
                self.joined(member, room)
        if self._cluster is not None:
            self._cluster.follow(self._channel, self._told)
            self._cluster.on("node_joined", self._node_joined)
            self._cluster.on("node_left", self._node_left)
            self._cluster.on("beat", self._beat)
            for node_id in self._cluster.nodes:
                self._ask(node_id)
            self._beat()

    def __repr__(self) -> str:
        return f"<Presence {self.name!r} in {self._namespace.name} with {self._size} sockets>"

    # -- reading

    @property
    def rooms(self) -> tuple[str, ...]:
        """The rooms with somebody in them."""
        return tuple(self._rooms)

    def members(self, room: str) -> tuple[Present, ...]:
        """Who is in *room*, in the order in which they came, as far as this node knows."""
        return tuple(Present(user, dict(sockets)) for user, sockets in self._rooms.get(room, {}).items())

    def get(self, room: str, user: str) -> Present | None:
        """*user* in *room*, or None."""
        sockets = self._rooms.get(room, {}).get(user)
        return Present(user, dict(sockets)) if sockets is not None else None

    def count(self, room: str) -> int:
        """How many users are in *room*."""
        return len(self._rooms.get(room, ()))

    @property
    def unsynced(self) -> tuple[str, ...]:
        """Nodes of which not all is known this moment; what is known of them is somewhat old."""
        return tuple(node_id for node_id, source in self._sources.items() if not source.is_synced)

    # -- changing

    def update(self, socket: Socket) -> None:
        """Ask ``user`` and ``meta`` again for *socket*, in all its rooms."""
        for room in socket.rooms:
            self.joined(socket, room)

    def close(self) -> None:
        """Follow it no more."""
        hub = self._namespace.hub
        hub.observers = tuple(one for one in hub.observers if one is not self)
        self._namespace.forget_presence(self)
        if self._cluster is not None:
            for room, socket_id in list(self._own.entries):
                self._change(_sized(room, socket_id, None, None))
            self._flush()
            self._cluster.unfollow(self._channel)
            for event, handler in (("joined", self._node_joined), ("left", self._node_left)):
                self._cluster.off(f"node_{event}", handler)
            self._cluster.off("beat", self._beat)
        self.off()
        self._rooms.clear()
        self._sources.clear()

    # -- told by the hub

    def joined(self, member: HubMember, room: str) -> None:
        """For the hub."""
        if not isinstance(member, Socket) or not self._is_meant(room):
            return
        user, meta = self._describe(member)
        if user is not None:
            self._apply(self._own, _sized(room, member.id, user, meta), is_own=True)
        else:
            self.left(member, room)

    def left(self, member: HubMember, room: str) -> None:
        """For the hub."""
        if (room, member.id) in self._own.entries:
            self._apply(self._own, _sized(room, member.id, None, None), is_own=True)

    def _is_meant(self, room: str) -> bool:
        if isinstance(self._rule, str):
            return fnmatchcase(room, self._rule)
        try:
            return bool(self._rule(room))
        except Exception:
            log.exception("the rule of presence %r failed for the room %r", self.name, room)
            return False

    def _describe(self, socket: Socket) -> tuple[str | None, Any]:
        """User and metadata; no user where the socket is not to count."""
        try:
            user = socket.id if self._user is None else self._user(socket)
            if user is not None and not isinstance(user, str):
                raise TypeError(f"a user is a text or None, not {type(user).__name__}")
            meta = self._meta(socket) if self._meta is not None else None
            text = dumps(meta)
            if len((user or "").encode("utf-8", "surrogatepass")) > self._limits.max_presence_user_bytes:
                raise ValueError("the user's name is longer than max_presence_user_bytes")
            if len(text.encode("utf-8")) > self._limits.max_presence_meta_bytes:
                raise ValueError("the metadata is longer than max_presence_meta_bytes")
            return user, loads(text)  # frozen, and what other nodes see
        except Exception:
            log.exception("what is to be told of client %s in presence %r is of no use", socket.id, self.name)
            return None, None

    # -- the replica

    def _apply(self, source: _Source, change: _Change, *, is_own: bool = False) -> None:
        """Take in one change, and tell the handlers."""
        room, socket_id, user, meta, size_bytes = change
        entry = source.entries.get((room, socket_id))
        if entry is not None and entry.user != user:
            del source.entries[room, socket_id]
            self._size -= 1
            self._size_bytes -= entry.size_bytes
            self._own_change(change._replace(user=None, meta=None), is_own=is_own)
            self._remove(room, socket_id, entry.user)
            entry = None
        if user is None:
            return
        grows_bytes = size_bytes - (entry.size_bytes if entry is not None else 0)
        if (entry is None and self._size >= self._limits.max_presence_sockets) or (
            grows_bytes > 0 and self._size_bytes + grows_bytes > self._limits.max_presence_bytes
        ):
            self._refuse()
            return
        was_known = entry is not None
        if entry is None:
            entry = source.entries[room, socket_id] = _Entry(user, size_bytes)
            self._size += 1
        entry.size_bytes = size_bytes
        self._size_bytes += grows_bytes
        sockets = self._rooms.setdefault(room, {}).setdefault(user, {})
        is_new, is_changed = not sockets, was_known and sockets.get(socket_id) != meta
        if was_known and not is_changed:
            return
        sockets[socket_id] = meta
        self._own_change(change, is_own=is_own)
        if is_new or is_changed:
            self._say("join" if is_new else "update", room, Present(user, dict(sockets)))

    def _remove(self, room: str, socket_id: str, user: str) -> None:
        own = self._own.entries.get((room, socket_id))
        if own is not None and own.user == user:
            return  # of our own clients we know better, whatever another node has told
        users = self._rooms.get(room, {})
        sockets = users.get(user)
        if sockets is None or socket_id not in sockets:
            return  # two nodes have told of the same socket, and one has taken it back
        meta = sockets.pop(socket_id)
        if sockets:
            return
        del users[user]
        if not users:
            del self._rooms[room]
        self._say("leave", room, Present(user, {socket_id: meta}))

    def _refuse(self) -> None:
        if not self.refused:
            log.error(
                "presence %r holds max_presence_sockets or max_presence_bytes; what is more is not in it", self.name
            )
        self.refused += 1

    def _say(self, event: str, room: str, present: Present) -> None:
        self.tell(event, (room, present), self._server.run_later)

    # -- to the other nodes

    def _own_change(self, change: _Change, *, is_own: bool) -> None:
        if is_own and self._cluster is not None and self._cluster.nodes:
            self._change(change)

    def _change(self, change: _Change) -> None:
        self._queue.append(change)
        if not self._is_flushing:
            # What happens in one turn of the loop travels together.
            self._is_flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flushing = False
        queue, self._queue = self._queue, []
        for part in self._parts(queue):
            self._own.number += 1
            self._tell_all("changes", self._own.number, part)

    def _tell_all(self, what: str, *values: Any, node_id: str | None = None) -> None:
        assert self._cluster is not None
        try:
            self._cluster.say(self._channel, what, *values, node_id=node_id)
        except EnvelopeTooBig:
            # The limits of one entry and of a message are far apart; where they were set close, the others miss it.
            log.error("presence %r cannot tell other nodes: max_envelope_bytes is too small for it", self.name)

    def _ask(self, node_id: str) -> None:
        self._tell_all("ask", node_id=node_id)

    def _beat(self) -> None:
        if self._cluster is not None and self._cluster.nodes:
            self._tell_all("number", self._own.number)

    # -- told by the cluster

    def _node_joined(self, node: Node) -> None:
        self._ask(node.id)

    def _node_left(self, node: Node, why: str) -> None:
        source = self._sources.pop(node.id, None)
        if source is not None:
            self._take_waiting(source)
            for room, socket_id in list(source.entries):
                self._apply(source, _Change(room, socket_id))

    def _told(self, node_id: str, values: list[Any]) -> None:
        """A node said something.  Raises ProtocolError for what makes no sense."""
        assert self._cluster is not None
        if values == ["ask"]:
            self._answer(node_id)  # also where its hello is still to come
            return
        if node_id not in self._cluster.nodes:
            return  # gone, or not known yet: then it is asked when it is
        source = self._sources.get(node_id)
        if source is None:
            source = self._sources[node_id] = _Source()
        try:
            what, number, *rest = values
            if type(number) is not int:
                raise ProtocolError("A number is missing.")
            if what == "changes":
                (changes,) = rest
                self._changes(node_id, source, number, [_read(change) for change in changes])
            elif what == "whole":
                part, is_last, entries = rest
                self._whole(node_id, source, number, part, is_last, [_read(entry) for entry in entries])
            elif what == "number" and (not source.is_synced or number != source.number):
                self._lost_track(node_id, source)
        except (TypeError, ValueError) as error:
            raise ProtocolError("A node says what makes no sense.") from error

    def _changes(self, node_id: str, source: _Source, number: int, changes: list[_Change]) -> None:
        if source.is_synced and number == source.number + 1:
            source.number = number
            for change in changes:
                self._apply(source, change)
        elif not source.is_synced or number > source.number:
            if source.is_synced:
                self._lost_track(node_id, source)
            # (What is lost of these is asked for again.)
            size_bytes = sum(change.size_bytes for change in changes)
            if (
                len(source.waiting) < _MAX_WAITING
                and self._waiting_bytes + size_bytes <= self._limits.max_presence_bytes
            ):
                source.waiting.append((number, changes))
                source.waiting_bytes += size_bytes
                self._waiting_bytes += size_bytes

    def _take_waiting(self, source: _Source) -> list[tuple[int, list[_Change]]]:
        """What waited, and waits no more."""
        waiting, source.waiting = source.waiting, []
        self._waiting_bytes -= source.waiting_bytes
        source.waiting_bytes = 0
        return waiting

    def _lost_track(self, node_id: str, source: _Source) -> None:
        """Something was missed: what is known stays until the whole comes."""
        if source.is_synced:
            source.is_synced = False
            self._take_waiting(source)
        self._ask(node_id)

    def _answer(self, node_id: str) -> None:
        """Tell one node all there is here, as it is with all that was said so far."""
        self._flush()
        entries = [
            _Change(room, socket_id, entry.user, self._rooms[room][entry.user][socket_id], entry.size_bytes)
            for (room, socket_id), entry in self._own.entries.items()
        ]
        parts = list(self._parts(entries)) or [[]]
        for number, part in enumerate(parts):
            self._tell_all("whole", self._own.number, number, number == len(parts) - 1, part, node_id=node_id)

    def _parts(self, changes: Iterable[_Change]) -> Iterator[list[tuple[str, str, str | None, Any]]]:
        """*changes* as they are told, in as many messages as it takes."""
        part: list[tuple[str, str, str | None, Any]] = []
        left_bytes = most_bytes = self._limits.max_envelope_bytes // 2
        for change in changes:
            left_bytes -= change.size_bytes
            if part and (left_bytes < 0 or len(part) >= _PART_ENTRIES):
                yield part
                part = []
                left_bytes = most_bytes - change.size_bytes
            part.append(change.told)
        if part:
            yield part

    def _whole(
        self, node_id: str, source: _Source, number: int, part: Any, is_last: Any, entries: list[_Change]
    ) -> None:
        if source.is_synced and number <= source.number:
            return  # asked twice
        if part == 0:
            source.parts, source.whole_number = 0, number
            source.whole += 1
        if source.parts is None or part != source.parts or number != source.whole_number:
            source.parts = None  # a part was lost; the next heartbeat asks again
            return
        source.parts += 1
        # First who is there, and then who is not: one who came back meanwhile has not left.
        for change in entries:
            self._apply(source, change)
            entry = source.entries.get((change.room, change.socket_id))
            if entry is not None:
                entry.whole = source.whole
        if is_last is not True:
            return
        source.parts = None
        source.number, source.is_synced = number, True
        for room, socket_id in [key for key, entry in source.entries.items() if entry.whole != source.whole]:
            self._apply(source, _Change(room, socket_id))
        for said, changes in self._take_waiting(source):
            if said > source.number or not source.is_synced:
                self._changes(node_id, source, said, changes)


def _sized(room: str, socket_id: str, user: str | None, meta: Any) -> _Change:
    """Raises TypeError or ValueError for metadata that is no JSON."""
    text = dumps((room, socket_id, user, meta))
    return _Change(room, socket_id, user, meta, len(text) if text.isascii() else len(text.encode("utf-8")))


def _read(value: Any) -> _Change:
    """A change as another node tells it.  Raises ValueError or TypeError."""
    room, socket_id, user, meta = value
    if not (isinstance(room, str) and isinstance(socket_id, str) and isinstance(user, (str, type(None)))):
        raise ValueError("names are texts")
    return _sized(room, socket_id, user, meta)
