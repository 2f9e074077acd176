"""Hub: which member is in which room, and the fan-out.  One for each namespace.

Members are whatever can be sent to: Sockets, raw Connections, feeds.  The hub knows their id, their codec and their
session, and nothing else.  ``deliver`` is synchronous: the packet is encoded once for each codec, its bytes once for
each transport shape, whatever the size of the room.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from polysock_transports.prepared import PreparedMessage

from .packets import Packet, PacketCodec

__all__ = ["EVERYONE", "Hub", "Member", "Observer", "PreparedPacket", "Target", "Watcher", "check_room"]


class Receiver(Protocol):
    """The part of a session that the fan-out needs."""

    def send_prepared(self, message: PreparedMessage) -> bool: ...

    def send_volatile(self, messages: Sequence[PreparedMessage]) -> bool: ...


class Member(Protocol):
    """Something in a room."""

    @property
    def id(self) -> str: ...

    @property
    def codec(self) -> PacketCodec: ...

    @property
    def receiver(self) -> Receiver: ...


class Watcher(Protocol):
    """Is told which rooms have members at all: the cluster, which listens for those."""

    def opened(self, room: str | None) -> None:
        """The first member is about to be in *room*; None for the namespace."""

    def closed(self, room: str | None) -> None:
        """The last one has left it."""


class Observer(Protocol):
    """Is told who is in which room: presence."""

    def joined(self, member: Member, room: str) -> None: ...

    def left(self, member: Member, room: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Target:
    """Who shall get it: everyone, or the members of any of ``rooms`` (rooms or ids), but none of ``but``."""

    rooms: tuple[str, ...] = ()
    but: tuple[str, ...] = ()


EVERYONE = Target()


def check_room(room: object) -> str:
    """*room*, if it can be one's name.  Raises ValueError."""
    if not isinstance(room, str) or not room:
        raise ValueError(f"a room's name is a text that is not empty, not {room!r}")
    return room


class PreparedPacket:
    """A packet and its messages in each codec asked for so far."""

    __slots__ = ("_messages", "packet")

    def __init__(self, packet: Packet) -> None:
        self.packet = packet
        self._messages: dict[int, tuple[PreparedMessage, ...]] = {}

    def messages(self, codec: PacketCodec) -> tuple[PreparedMessage, ...]:
        found = self._messages.get(id(codec))
        if found is None:
            found = tuple(PreparedMessage(message) for message in codec.encode(self.packet))
            self._messages[id(codec)] = found
        return found


class Hub:
    """The index of one namespace, both ways, so that neither can hold what the other has lost."""

    def __init__(self) -> None:
        self._members: dict[str, Member] = {}
        self._rooms: dict[str, dict[str, Member]] = {}
        self._rooms_of: dict[str, dict[str, None]] = {}
        # Members that get what goes to their rooms, and not what goes to everyone.
        self._rooms_only: set[str] = set()
        self.watcher: Watcher | None = None
        self.observers: tuple[Observer, ...] = ()

    # -- the index

    def add(self, member: Member, *, rooms_only: bool = False) -> None:
        """Take in a member; with *rooms_only* it is no part of "everyone"."""
        if not self._members and self.watcher is not None:
            self.watcher.opened(None)
        self._members[member.id] = member
        self._rooms_of[member.id] = {}
        if rooms_only:
            self._rooms_only.add(member.id)

    def remove(self, member_id: str) -> None:
        """Forget a member and all its rooms."""
        for room in list(self._rooms_of.get(member_id, ())):
            self.leave(member_id, room)
        self._rooms_of.pop(member_id, None)
        member = self._members.pop(member_id, None)
        self._rooms_only.discard(member_id)
        if member is not None and not self._members and self.watcher is not None:
            self.watcher.closed(None)

    def join(self, member_id: str, room: str) -> None:
        """Put a member into *room*; joining twice changes nothing, and one that is gone joins nothing."""
        member = self._members.get(member_id)
        if member is None:
            return
        members = self._rooms.get(room)
        if members is None:
            members = self._rooms[room] = {}
            if self.watcher is not None:
                self.watcher.opened(room)
        elif member_id in members:
            return
        members[member_id] = member
        self._rooms_of[member_id][room] = None
        for observer in self.observers:
            observer.joined(member, room)

    def leave(self, member_id: str, room: str) -> None:
        members = self._rooms.get(room)
        member = members.pop(member_id, None) if members is not None else None
        if member is None:
            return
        del self._rooms_of[member_id][room]
        if not members:
            del self._rooms[room]
            if self.watcher is not None:
                self.watcher.closed(room)
        for observer in self.observers:
            observer.left(member, room)

    def get(self, member_id: str) -> Member | None:
        return self._members.get(member_id)

    def rooms_of(self, member_id: str) -> tuple[str, ...]:
        return tuple(self._rooms_of.get(member_id, ()))

    @property
    def rooms(self) -> tuple[str, ...]:
        return tuple(self._rooms)

    def in_room(self, room: str) -> tuple[Member, ...]:
        return tuple(self._rooms.get(room, {}).values())

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[Member]:
        return iter(tuple(self._members.values()))

    def members(self, target: Target = EVERYONE) -> Sequence[Member]:
        """The members *target* means, each once."""
        if not target.rooms:
            chosen: Iterable[Member] = self._members.values()
            if self._rooms_only:
                chosen = [member for member in chosen if member.id not in self._rooms_only]
        elif len(target.rooms) == 1:
            chosen = self._named(target.rooms[0])
        else:
            union: dict[str, Member] = {}
            for name in target.rooms:
                for member in self._named(name):
                    union[member.id] = member
            chosen = union.values()
        if not target.but:
            return tuple(chosen)
        excluded = {member.id for name in target.but for member in self._named(name)}
        return tuple(member for member in chosen if member.id not in excluded)

    def _named(self, name: str) -> Iterable[Member]:
        """The members of the room *name*, and the one whose id it is."""
        room = self._rooms.get(name)
        member = self._members.get(name)
        if member is None:
            return room.values() if room is not None else ()
        # Somebody may be in a room that is called like another one's id.
        return {**room, name: member}.values() if room is not None else (member,)

    # -- the fan-out

    def deliver(self, target: Target, packet: Packet, *, volatile: bool = False) -> int:
        """Send *packet* to everybody *target* means; how many that were.

        Raises TypeError or ValueError where the packet's arguments cannot travel, before anybody got anything.
        """
        prepared = PreparedPacket(packet)
        members = self.members(target)
        # Encoding first, for all codecs there are: a packet goes to all of them or to none.
        by_codec = {codec: prepared.messages(codec) for codec in {member.codec for member in members}}
        for member in members:
            messages = by_codec[member.codec]
            if volatile:
                member.receiver.send_volatile(messages)
            else:
                receiver = member.receiver
                for message in messages:
                    receiver.send_prepared(message)
        return len(members)

    # -- for tests and for the wary

    def check(self) -> None:
        """Raise AssertionError where the two sides of the index disagree."""
        for room, members in self._rooms.items():
            assert members, f"the room {room!r} is empty and still there"
            for member_id in members:
                assert member_id in self._members, f"{member_id} is a ghost in {room!r}"
                assert room in self._rooms_of[member_id], f"{member_id} does not know that it is in {room!r}"
        for member_id, rooms in self._rooms_of.items():
            assert member_id in self._members, f"{member_id} is gone and still has rooms"
            for room in rooms:
                assert member_id in self._rooms.get(room, {}), f"{member_id} believes to be in {room!r}"
        assert self._rooms_only <= set(self._members), "a member that is gone is still marked"
