"""Namespace: sockets that share a path; everything in it touches only it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from .acks import CallResult
from .handlers import EventHandlers, Handler
from .hub import EVERYONE, Hub, Target
from .packets import Event
from .presence import Presence
from .remote import (
    Count,
    FetchedRooms,
    FetchedSockets,
    NodeAnswers,
    Reached,
    RemoteSocket,
    ask_servers,
    fetch_rooms,
    tell_servers,
)
from .sockets import Broadcast, Socket

if TYPE_CHECKING:
    from .server import Server

__all__ = ["Manager", "Namespace", "NamespacePattern", "namespace_name"]


def namespace_name(name: str) -> str:
    """*name* as namespaces are called: with a stroke in front.  Raises ValueError for what is no name."""
    if "," in name:
        raise ValueError("a namespace's name has no comma")
    return name if name.startswith("/") else "/" + name


class _Guarded(EventHandlers):
    """Who may come in, and what is asked before an event is handled."""

    def __init__(self) -> None:
        super().__init__()
        self.middleware: list[Handler] = []
        self.event_middleware: list[Handler] = []
        self.authorize: Handler | None = None
        self.feed_rules: list[str | Callable[[str], bool]] = []
        self._server_events = EventHandlers()

    def use(self, middleware: Handler) -> Handler:
        """Call ``middleware(socket)`` for each client that asks for the namespace; a decorator too.

        It may be ``async def``, and refuses by raising ``ConnectionRefused`` or by returning False.
        """
        self.middleware.append(middleware)
        return middleware

    def use_event(self, middleware: Handler) -> Handler:
        """Call ``middleware(socket, event, args)`` before each event is handled; a decorator too.

        It refuses by raising ``Refused`` or by returning False: the client gets an error ack.
        """
        self.event_middleware.append(middleware)
        return middleware

    def on_server(self, event: str, handler: Handler | None = None) -> Any:
        """Call *handler* when another node says *event* with ``server_side_emit`` or ``server_side_call``; what it
        returns is the answer.  It may be ``async def``.  Without a handler, a decorator."""
        return self._server_events.on(event, handler)

    def take_server(self, event: str) -> list[Handler]:
        """The handlers of an event from another node; for the parts of this package."""
        return self._server_events.take(event)

    def allow_feed(self, *rules: str | Callable[[str], bool]) -> None:
        """Let these rooms be read as EventSource feeds (docs/wire-plain.md): names, or functions of a name.

        Elsewhere only the server puts a client into a room, while a feed's reader names it; so none is open until
        it is allowed.  The namespace's authorization and middleware judge each reader too.
        """
        self.feed_rules.extend(rules)

    def is_feed_allowed(self, room: str) -> bool:
        """Whether *room* may be read as a feed."""
        return any(rule(room) if callable(rule) else rule == room for rule in self.feed_rules)

    def authorization(self, function: Handler | None) -> Any:
        """Ask ``function(handshake)`` before any middleware: it lets the client in by returning something true, and
        refuses by anything else or by raising ``ConnectionRefused``."""
        self.authorize = function
        return function


class Namespace(_Guarded):
    """One namespace; ``io.of(name)`` makes and finds them, and ``io.sockets`` is ``/``."""

    def __init__(
        self, server: Server, name: str, pattern: NamespacePattern | None = None, *, is_dynamic: bool = False
    ) -> None:
        super().__init__()
        self.server = server
        self.name = name
        self.hub = Hub()
        self.is_dynamic = is_dynamic
        """Whether a client's asking made it; then it goes when its last client has left."""
        self._presences: dict[str, Presence] = {}
        self._pattern = pattern
        if pattern is not None:
            self.middleware = pattern.middleware
            self.event_middleware = pattern.event_middleware
            self.authorize = pattern.authorize
            self.feed_rules = pattern.feed_rules

    def __repr__(self) -> str:
        return f"<Namespace {self.name} with {len(self.hub)}>"

    def take(self, event: str) -> list[Handler]:
        # What is registered on the pattern holds in every namespace that it made.
        return [*(self._pattern.take(event) if self._pattern is not None else ()), *super().take(event)]

    def take_server(self, event: str) -> list[Handler]:
        return [*(self._pattern.take_server(event) if self._pattern is not None else ()), *super().take_server(event)]

    # -- whom to send to

    def emit(self, event: str, *args: Any) -> int:
        """Send an event to every client of the namespace; returns to how many on this node."""
        return Broadcast(self, EVERYONE).emit(event, *args)

    def send(self, data: Any) -> int:
        """The event ``message`` to everybody."""
        return self.emit("message", data)

    def to(self, *rooms: str) -> Broadcast:
        """The clients in *rooms* (or with these ids)."""
        return Broadcast(self, EVERYONE).to(*rooms)

    in_ = to

    def except_(self, *rooms_or_ids: str) -> Broadcast:
        """Everybody but these."""
        return Broadcast(self, EVERYONE).except_(*rooms_or_ids)

    @property
    def volatile(self) -> Broadcast:
        """Everybody who can take it this moment."""
        return Broadcast(self, EVERYONE, volatile=True)

    @property
    def local(self) -> Broadcast:
        """Everybody on this node."""
        return Broadcast(self, EVERYONE, local=True)

    async def call(self, event: str, *args: Any, timeout: float | None = None) -> CallResult:
        """Send an event to everybody and collect their acks."""
        return await Broadcast(self, EVERYONE).call(event, *args, timeout=timeout)

    def socket(self, socket_id: str) -> Socket | RemoteSocket | Broadcast:
        """The client with this id, to emit to; where there is none, something that reaches nobody."""
        found = self.find(socket_id)
        if found is not None:
            return found
        cluster = self.server.cluster
        node_id = cluster.other_node(socket_id) if cluster is not None else None
        if node_id is not None:
            return RemoteSocket(self, socket_id, node_id)
        # (A room of that name is not meant.)
        return self.to(socket_id).except_(socket_id)

    def find(self, socket_id: str) -> Socket | None:
        """The client with this id, if it is on this node."""
        member = self.hub.get(socket_id)
        return member if isinstance(member, Socket) else None

    def choose(self, target: Target) -> Broadcast:
        """Those that *target* means; for the parts of this package."""
        return Broadcast(self, target)

    def deliver_direct(self, member_id: str, packet: Event, *, volatile: bool) -> bool:
        """Send *packet* to the client with this id, if it is here; for the parts of this package."""
        found = self.find(member_id)
        return found is not None and found.deliver(packet, volatile=volatile)

    def clients(self, room: str | None = None) -> list[Socket]:
        """The Sockets of the namespace, or of one room of it, on this node."""
        members = self.hub.in_room(room) if room is not None else iter(self.hub)
        return [member for member in members if isinstance(member, Socket)]

    # -- the same on all nodes

    async def fetch_sockets(self) -> FetchedSockets:
        """The clients of the namespace on all nodes."""
        return await Broadcast(self, EVERYONE).fetch_sockets()

    async def count(self) -> Count:
        """How many clients the namespace has on all nodes, without listing them."""
        return await Broadcast(self, EVERYONE).count()

    async def sockets_join(self, *rooms: str) -> Reached:
        """Put every client of the namespace into *rooms* too, on all nodes."""
        return await Broadcast(self, EVERYONE).sockets_join(*rooms)

    async def sockets_leave(self, *rooms: str) -> Reached:
        """Take every client of the namespace out of *rooms*, on all nodes."""
        return await Broadcast(self, EVERYONE).sockets_leave(*rooms)

    async def disconnect_sockets(self, *, close: bool = False) -> Reached:
        """Make every client leave the namespace, on all nodes; with *close* end their connections."""
        return await Broadcast(self, EVERYONE).disconnect_sockets(close=close)

    def server_side_emit(self, event: str, *args: Any) -> bool:
        """Have the ``on_server`` handlers of the other nodes called; False where there is no way to them.

        Raises TypeError or ValueError for arguments that cannot travel.
        """
        return tell_servers(self, event, args)

    async def server_side_call(self, event: str, *args: Any, timeout: float | None = None) -> NodeAnswers:
        """The same, and what they answer within *timeout* seconds (``cluster_request_timeout_s`` if None)."""
        return await ask_servers(self, event, args, timeout)

    def presence(
        self,
        rooms: str | Callable[[str], bool] = "*",
        *,
        user: Callable[[Socket], str | None] | None = None,
        meta: Callable[[Socket], Any] | None = None,
        name: str | None = None,
    ) -> Presence:
        """Follow who is in *rooms* on all nodes: a name, a pattern such as ``"doc:*"``, or a function of the name.

        *user* says who a socket is, when it joins: a text, or None for one that does not count; without it each socket
        counts for itself.  *meta* gives JSON values to be told of it.  Every node makes the same presence; *name* (the
        pattern where None) tells several in one namespace apart.

        Raises ValueError for a name that is taken, StateError in a namespace that a client's asking made.
        """
        made = Presence(self, rooms, user=user, meta=meta, name=name, taken=self._presences)
        self._presences[made.name] = made
        return made

    def forget_presence(self, presence: Presence) -> None:
        """It was closed; for the parts of this package."""
        self._presences.pop(presence.name, None)

    @property
    def manager(self) -> Manager:
        return self.server.manager


class NamespacePattern(_Guarded):
    """Namespaces made when a client asks for one: ``io.of(re.compile("/game-[0-9]+"))``, or a function of the name."""

    def __init__(self, matches: re.Pattern[str] | Callable[[str], bool]) -> None:
        super().__init__()
        self._matches = matches

    def matches(self, name: str) -> bool:
        if isinstance(self._matches, re.Pattern):
            return self._matches.fullmatch(name) is not None
        return bool(self._matches(name))


class Manager:
    """``io.sockets.manager``: views of all namespaces of this node, under Socket.IO 0.9's keys.

    The key of everyone in ``/`` is ``""`` and in ``/chat`` it is ``/chat``; a room is ``/room`` or ``/chat/room``.
    """

    def __init__(self, server: Server) -> None:
        self._server = server

    def _keys(self) -> list[tuple[str, Any, str | None]]:
        found: list[tuple[str, Any, str | None]] = []
        for namespace in self._server.namespaces.values():
            prefix = "" if namespace.name == "/" else namespace.name
            found.append((prefix, namespace, None))
            found.extend((f"{prefix}/{room}", namespace, room) for room in namespace.hub.rooms)
        return found

    @property
    def rooms(self) -> Mapping[str, list[str]]:
        """Key -> ids of the Sockets in it."""
        listed = {key: [socket.id for socket in namespace.clients(room)] for key, namespace, room in self._keys()}
        return {key: ids for key, ids in listed.items() if ids}

    async def fetch_rooms(self) -> FetchedRooms:
        """``rooms`` of all nodes together."""
        return await fetch_rooms(self._server)

    @property
    def room_clients(self) -> Mapping[str, Mapping[str, bool]]:
        """Id -> the keys it is under."""
        found: dict[str, dict[str, bool]] = {}
        for key, ids in self.rooms.items():
            for socket_id in ids:
                found.setdefault(socket_id, {})[key] = True
        return found
