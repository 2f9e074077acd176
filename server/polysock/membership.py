"""Membership: how a raw Connection takes part in a Server's rooms."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from polysock_transports import StateError
from polysock_transports.session import Session, State

from .hub import check_room
from .packets import PacketCodec
from .packets.plain import PLAIN_PACKETS

if TYPE_CHECKING:
    from .server import Server

__all__ = ["Membership"]

_ID_BYTES = 15


class Membership:
    """A member of the hub of ``/`` that gets what goes to its rooms, as JSON arrays, and nothing else."""

    codec: PacketCodec = PLAIN_PACKETS

    def __init__(self, server: Server | None, session: Session) -> None:
        self.id = secrets.token_urlsafe(_ID_BYTES)
        self.receiver = session
        self._hub = server.sockets.hub if server is not None else None

    def join(self, room: str) -> None:
        if self._hub is None:
            raise StateError("there are no rooms here: give the router a polysock.Server as server=")
        check_room(room)
        if self.receiver.state > State.OPEN:
            return  # it is leaving; joining now would leave a ghost behind
        if self._hub.get(self.id) is None:
            self._hub.add(self, rooms_only=True)
        self._hub.join(self.id, room)

    def leave(self, room: str) -> None:
        if self._hub is not None:
            self._hub.leave(self.id, room)

    @property
    def rooms(self) -> tuple[str, ...]:
        return self._hub.rooms_of(self.id) if self._hub is not None else ()

    def end(self) -> None:
        """The session has ended, or never opened."""
        if self._hub is not None:
            self._hub.remove(self.id)
