"""Remote: clients of all nodes, listed, counted, moved and asked; and what a node does when another one asks it to.

``Everywhere`` gives ``Broadcast`` its calls over all nodes.  Each does its local part at once, needs no cluster, and
says which nodes did not answer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from polysock_transports import CloseReason, ProtocolError, Refused, SessionClosed

from .acks import AckTimeout, CallResult
from .asking import Answerer, Replies, Request
from .backplane import BackplaneDown
from .envelope import Ask
from .handlers import settle
from .hub import EVERYONE, Target, check_room
from .packets import RESERVED_EVENTS, Ack, Event, check_event
from .packets.socketio import BINARY

if TYPE_CHECKING:
    from .namespace import Namespace
    from .server import Server
    from .sockets import Socket

__all__ = [
    "LEFT_NAMESPACE",
    "Count",
    "Everywhere",
    "FetchedRooms",
    "FetchedSockets",
    "NodeAnswers",
    "Reached",
    "RemoteSocket",
    "answerers",
    "ask_servers",
    "fetch_rooms",
    "merge_call",
    "prepare_call",
    "tell_servers",
]

log = logging.getLogger("polysock")

#: Ids in one item of an answer about rooms, which may be in any number.
_ITEM_IDS = 500

#: Why one that is not there any more is not.
LEFT_NAMESPACE = CloseReason(1000, "The client has left this namespace", may_return=False)


# -- results


class _Partial:
    """What all results over several nodes tell."""

    unreached: tuple[str, ...] = ()
    """Nodes from which not all came in time; what is theirs is missing here."""
    truncated: bool = False
    """A node had more to say than an answer may hold (``max_answer_items``, ``max_answer_bytes``)."""

    @property
    def complete(self) -> bool:
        """Whether this is all of it."""
        return not self.unreached and not self.truncated


class FetchedSockets(_Partial, list["RemoteSocket"]):
    """The clients of all nodes, as they were."""


class FetchedRooms(_Partial, dict[str, list[str]]):
    """The rooms of all nodes, as they were: key -> ids."""


class Count(_Partial, int):
    """How many there are on all nodes."""


class Reached(_Partial, int):
    """How many clients it was done to, on all nodes."""


class NodeAnswers(_Partial, dict[str, Any]):
    """What other nodes' handlers answered: node -> answer."""


# -- one client


class RemoteSocket:
    """A client of any node, by its id.

    What is done to it is handed over and not confirmed: ``emit``, ``join``, ``leave`` and ``disconnect`` return whether
    there was a way.  The same with a report: ``await io.to(id).disconnect_sockets()`` and the like.
    """

    __slots__ = ("_namespace", "_volatile", "data", "handshake", "id", "node", "rooms")

    def __init__(
        self,
        namespace: Namespace,
        socket_id: str,
        node: str,
        rooms: Sequence[str] | None = None,
        handshake: Mapping[str, Any] | None = None,
        data: Mapping[str, Any] | None = None,
        *,
        volatile: bool = False,
    ) -> None:
        self._namespace = namespace
        self._volatile = volatile
        self.id = socket_id
        self.node = node
        """The id of its node; empty without a cluster."""
        self.rooms = None if rooms is None else tuple(rooms)
        """The rooms it was in; None, like the next two, where nobody asked its node."""
        self.handshake = handshake
        """``address headers query url time issued xdomain auth transport`` as JSON values."""
        self.data = data
        """What of ``socket.data`` can travel."""

    def __repr__(self) -> str:
        return f"<RemoteSocket {self.id} in {self._namespace.name} on {self.node or 'this node'}>"

    @property
    def volatile(self) -> RemoteSocket:
        """For ``volatile.emit(...)``: dropped where the client cannot take it at that moment."""
        return RemoteSocket(self._namespace, self.id, self.node, self.rooms, self.handshake, self.data, volatile=True)

    def emit(self, event: str, *args: Any) -> bool:
        """Send it an event.  Raises TypeError or ValueError for arguments that cannot travel."""
        packet = Event(self._namespace.name, check_event(event), args)
        cluster = self._namespace.server.cluster
        if cluster is None or self.node not in cluster.nodes:
            return self._namespace.deliver_direct(self.id, packet, volatile=self._volatile)
        return cluster.emit_direct(self.id, self.node, packet, volatile=self._volatile)

    def send(self, data: Any) -> bool:
        """The event ``message``."""
        return self.emit("message", data)

    def join(self, *rooms: str) -> bool:
        """Put it into *rooms* too."""
        return self._have_done("join", list(map(check_room, rooms)))

    def leave(self, *rooms: str) -> bool:
        """Take it out of *rooms*."""
        return self._have_done("leave", list(rooms))

    def disconnect(self, *, close: bool = False) -> bool:
        """Make it leave the namespace; with *close* end its whole connection."""
        return self._have_done("dismiss", close)

    def _have_done(self, what: str, value: Any) -> bool:
        packet = Event(self._namespace.name, what, [self.id, value])
        cluster = self._namespace.server.cluster
        if cluster is None or self.node not in cluster.nodes:
            found = self._namespace.find(self.id)
            if found is not None:
                _DO[what]([found], value)
            return found is not None
        return cluster.asking.tell(packet, self.node)

    async def call(self, event: str, *args: Any, timeout: float | None = None) -> Any:
        """Send an event and wait for the client's answer, as ``Socket.call`` does.

        Raises AckTimeout, SessionClosed where it left first, BackplaneDown where its node does not answer.
        """
        server = self._namespace.server
        limit = server.ack_timeout if timeout is None else timeout
        cluster = server.cluster
        if cluster is None or self.node not in cluster.nodes:
            found = self._namespace.find(self.id)
            if found is None:
                raise SessionClosed(LEFT_NAMESPACE)
            return await found.call(event, *args, timeout=limit)
        packet = Event(self._namespace.name, "call", [self.id, check_event(event), limit, *args])
        replies = await cluster.asking.request(packet, (self.node,), more_s=limit).send().replies()
        result = merge_call(CallResult(), replies)
        if self.id in result.answers:
            return result.answers[self.id]
        if self.id in result.missing:
            raise AckTimeout(f"no answer to {event!r} from {self.id} within {limit} s")
        if result.unreached:
            raise BackplaneDown(f"node {self.node} did not answer")
        raise SessionClosed(LEFT_NAMESPACE)


# -- many


class Everywhere:
    """The calls of a ``Broadcast`` that go over all nodes."""

    __slots__ = ()

    _namespace: Namespace
    _target: Target
    _is_local: bool

    def _ask(self, what: str, *args: Any) -> Request | None:
        return None if self._is_local else _request(self._namespace, self._target, what, *args)

    def clients(self) -> list[Socket]:
        raise NotImplementedError

    async def fetch_sockets(self) -> FetchedSockets:
        """The clients meant, of all nodes."""
        namespace, request = self._namespace, self._ask("fetch")
        cluster = namespace.server.cluster
        found = FetchedSockets()

        def add(node_id: str, items: list[Any]) -> None:
            found.extend([_remote(namespace, node_id, *item) for item in items])

        add(cluster.id if cluster is not None else "", [_describe(client) for client in self.clients()])
        return _noted(found, await _replies(request), add)

    async def count(self) -> Count:
        """How many clients are meant, on all nodes, without listing them."""
        request = self._ask("count")
        return _summed(Count, len(self.clients()), await _replies(request))

    async def sockets_join(self, *rooms: str) -> Reached:
        """Put the clients meant into *rooms* too, on all nodes."""
        return await self._do("join", list(map(check_room, rooms)))

    async def sockets_leave(self, *rooms: str) -> Reached:
        """Take the clients meant out of *rooms*, on all nodes."""
        return await self._do("leave", list(rooms))

    async def disconnect_sockets(self, *, close: bool = False) -> Reached:
        """Make the clients meant leave the namespace, on all nodes; with *close* end their connections."""
        return await self._do("dismiss", close)

    async def _do(self, what: str, value: Any) -> Reached:
        request = self._ask(what, None, value)
        clients = self.clients()
        _DO[what](clients, value)
        return _summed(Reached, len(clients), await _replies(request))


async def fetch_rooms(server: Server) -> FetchedRooms:
    """The rooms of all namespaces on all nodes, under the keys of ``manager.rooms``."""
    request = _request(server.sockets, EVERYONE, "rooms")
    found = FetchedRooms((key, list(ids)) for key, ids in server.manager.rooms.items())

    def add(node_id: str, items: list[Any]) -> None:
        for key, ids in items:
            found.setdefault(_text(key), []).extend([_text(one) for one in ids])

    return _noted(found, await _replies(request), add)


def prepare_call(
    namespace: Namespace, target: Target, event: str, args: Sequence[Any], limit_s: float
) -> Request | None:
    """The question to the other nodes' clients, not sent yet; None where there are no nodes.

    Raises TypeError or ValueError for arguments that cannot travel.
    """
    return _request(namespace, target, "call", None, event, limit_s, *args, more_s=limit_s)


def merge_call(here: CallResult, replies: Replies) -> CallResult:
    """The acks from here, and those of the other nodes' clients."""
    answers = dict(here.answers)
    others: dict[str, list[str]] = {"missing": list(here.missing), "gone": list(here.gone)}

    def add(node_id: str, items: list[Any]) -> None:
        for socket_id, how, *value in items:
            if how == _ANSWER:
                answers[_text(socket_id)] = value[0]
            else:
                others[how].append(_text(socket_id))

    unreached = (*replies.unreached, *_read(replies, add))
    return CallResult(answers, tuple(others["missing"]), tuple(others["gone"]), unreached, replies.is_truncated)


# -- the nodes themselves


def tell_servers(namespace: Namespace, event: str, args: Sequence[Any]) -> bool:
    """Have the ``on_server`` handlers of the other nodes called; False where there is no way to them.

    Raises TypeError or ValueError for arguments that cannot travel.
    """
    cluster = namespace.server.cluster
    return cluster is not None and cluster.asking.tell(Event(namespace.name, "server", [event, *args]))


async def ask_servers(namespace: Namespace, event: str, args: Sequence[Any], timeout: float | None) -> NodeAnswers:
    """The same, and what they answered."""
    found = NodeAnswers()

    def add(node_id: str, items: list[Any]) -> None:
        (found[node_id],) = items

    return _noted(found, await _replies(_request(namespace, EVERYONE, "server", event, *args, timeout_s=timeout)), add)


# -- inside


def _request(
    namespace: Namespace,
    target: Target,
    what: str,
    *args: Any,
    more_s: float = 0.0,
    timeout_s: float | None = None,
) -> Request | None:
    """*what* for all other nodes, not sent yet; None where there are none."""
    cluster = namespace.server.cluster
    if cluster is None or not cluster.nodes:
        return None
    packet = Event(namespace.name, what, args)
    return cluster.asking.request(packet, tuple(cluster.nodes), target, more_s=more_s, timeout_s=timeout_s)


async def _replies(request: Request | None) -> Replies:
    """Send *request* and wait."""
    return await request.send().replies() if request is not None else Replies()


def _read(replies: Replies, take: Callable[[str, list[Any]], None]) -> tuple[str, ...]:
    """Give each node's items to *take*; the nodes whose answer was none."""
    strange = []
    for node_id, items in replies.items.items():
        try:
            take(node_id, items)
        except (TypeError, ValueError, LookupError):
            strange.append(node_id)
    return tuple(strange)


_P = TypeVar("_P", bound=_Partial)


def _noted(found: _P, replies: Replies, take: Callable[[str, list[Any]], None]) -> _P:
    """*found*, with what each node answered taken, and who did not."""
    found.unreached = (*replies.unreached, *_read(replies, take))
    found.truncated = replies.is_truncated
    return found


def _summed(kind: Callable[[int], _P], here: int, replies: Replies) -> _P:
    counts = [here]

    def add(node_id: str, items: list[Any]) -> None:
        (number,) = items
        if type(number) is not int:
            raise TypeError("a count is a number")
        counts.append(number)

    strange = _read(replies, add)
    result = kind(sum(counts))
    result.unreached, result.truncated = (*replies.unreached, *strange), replies.is_truncated
    return result


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a text is missing")
    return value


def _remote(namespace: Namespace, node_id: str, socket_id: Any, rooms: Any, handshake: Any, data: Any) -> RemoteSocket:
    return RemoteSocket(namespace, _text(socket_id), node_id, tuple(rooms), handshake, data)


def _describe(client: Socket) -> list[Any]:
    """What another node is told of a client: JSON values, and bytes where the application keeps some."""
    handshake = client.handshake
    known = {
        "address": handshake.address,
        "headers": dict(handshake.headers),
        "query": handshake.query,
        "url": handshake.url,
        "time": handshake.time,
        "issued": handshake.issued,
        "xdomain": handshake.xdomain,
        "auth": handshake.auth,
        "transport": client.transport,
    }
    data = {key: value for key, value in client.data.items() if isinstance(key, str) and _can_travel(value)}
    return [client.id, list(client.rooms), known, data]


def _can_travel(value: Any) -> bool:
    try:
        BINARY.encode(Ack("/", 0, [value]))
    except (TypeError, ValueError):
        return False
    return True


# -- what is done when another node asks


def _join(clients: Iterable[Socket], rooms: Any) -> None:
    for client in clients:
        client.join(*rooms)


def _leave(clients: Iterable[Socket], rooms: Any) -> None:
    for client in clients:
        client.leave(*rooms)


def _dismiss(clients: Iterable[Socket], close: Any) -> None:
    for client in clients:
        client.disconnect(close=close is True)


_DO: dict[str, Callable[[Iterable[Socket], Any], None]] = {"join": _join, "leave": _leave, "dismiss": _dismiss}
_ANSWER = "answer"


def _read_do(ask: Ask) -> tuple[str | None, Any]:
    """For whom alone, and which rooms or what else.  Raises ProtocolError."""
    match ask.packet.args:
        case [None | str() as only, bool() as close] if ask.packet.name == "dismiss":
            return only, close
        case [None | str() as only, list() as rooms] if ask.packet.name != "dismiss":
            if all(isinstance(room, str) and (room or ask.packet.name == "leave") for room in rooms):
                return only, rooms
    raise ProtocolError("It is not said what to do with clients.")


def _read_call(ask: Ask) -> tuple[str | None, str, float, list[Any]]:
    """For whom alone, the event, the seconds for answers, and the arguments.  Raises ProtocolError."""
    match ask.packet.args:
        case [None | str() as only, str() as event, int() | float() as limit_s, *args]:
            if event not in RESERVED_EVENTS:
                return only, event, limit_s, args
    raise ProtocolError("It is not said what to call clients with.")


def answerers(server: Server) -> dict[str, Answerer]:
    """What *server* does when another node asks; by the name of the request."""

    def meant(ask: Ask, only: Any = None) -> list[Socket]:
        namespace = server.namespaces.get(ask.packet.namespace)
        if namespace is None:
            return []
        if only is None:
            return namespace.choose(ask.target).clients()
        found = namespace.find(only)
        return [found] if found is not None else []

    def fetch(ask: Ask) -> list[Any]:
        # One more than an answer may hold, so that it is known to be cut.
        most = server.cluster_limits.max_answer_items + 1
        return [_describe(client) for client in meant(ask)[:most]]

    def number(ask: Ask) -> list[Any]:
        return [len(meant(ask))]

    def rooms(ask: Ask) -> list[Any]:
        return [
            [key, ids[at : at + _ITEM_IDS]]
            for key, ids in server.manager.rooms.items()
            for at in range(0, len(ids), _ITEM_IDS)
        ]

    def do(ask: Ask) -> list[Any]:
        only, value = _read_do(ask)
        clients = meant(ask, only)
        _DO[ask.packet.name](clients, value)
        return [len(clients)]

    async def call(ask: Ask) -> list[Any]:
        only, event, limit_s, args = _read_call(ask)
        namespace = server.namespaces.get(ask.packet.namespace)
        if namespace is None:
            return []
        limit_s = min(limit_s, server.cluster_limits.max_cluster_call_s)
        result = await namespace.choose(ask.target).call_here(meant(ask, only), event, args, limit_s)
        return [
            *([socket_id, _ANSWER, value] for socket_id, value in result.answers.items()),
            *([socket_id, "missing"] for socket_id in result.missing),
            *([socket_id, "gone"] for socket_id in result.gone),
        ]

    async def ask_handlers(ask: Ask) -> list[Any]:
        if not ask.packet.args or not isinstance(ask.packet.args[0], str):
            raise ProtocolError("It is not said what happened.")
        event, *args = ask.packet.args
        namespace = server.namespaces.get(ask.packet.namespace)
        handlers = namespace.take_server(event) if namespace is not None else []
        if not handlers:
            return [{"error": "No handler for this event"}]
        answer: Any = None
        try:
            for handler in handlers:
                result = await settle(handler(*args))
                answer = result if answer is None else answer
        except Refused as refusal:
            answer = {"error": refusal.text}
        except Exception:
            log.exception("the handler of the server event %r failed", event)
            answer = {"error": "Internal error"}
        if not _can_travel(answer):
            log.error("the answer of the handler of the server event %r cannot travel", event)
            answer = {"error": "Internal error"}
        return [answer]

    return {
        "fetch": fetch,
        "count": number,
        "rooms": rooms,
        **dict.fromkeys(_DO, do),
        "call": call,
        "server": ask_handlers,
    }
