"""Peer: one session and its Sockets.  Listens to the session, and speaks packets on it.

Acks are taken as they come; everything else of a client is handled one after another, whatever its namespace.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from polysock_transports import CloseReason, ConnectionInfo, ProtocolError, Refused, SessionClosed
from polysock_transports.errors import (
    CLIENT_CLOSED,
    GO_AWAY,
    GOING_AWAY,
    PING_TIMEOUT,
    PROTOCOL_VIOLATION,
    SLOW_CONSUMER,
)
from polysock_transports.prepared import PreparedMessage
from polysock_transports.session import Session, State

from .handlers import Handler, settle
from .handshake import ConnectionRefused, Handshake
from .packets import Ack, Connect, ConnectError, Disconnect, Event, Packet, PacketCodec
from .sockets import Socket

if TYPE_CHECKING:
    from .server import Server

__all__ = ["Peer"]

log = logging.getLogger("polysock")

_DISMISSED = CloseReason(1000, "The server ended this namespace", may_return=False)
_CLIENT_LEFT = CloseReason(1000, "The client left", may_return=False)
_NOT_CONNECTED = CloseReason(PROTOCOL_VIOLATION.code, "No namespace was joined in time")

#: Socket.IO's words for why a client left; everything else is "transport close".
_REASONS = {
    PING_TIMEOUT: "ping timeout",
    GOING_AWAY: "server shutting down",
    GO_AWAY: "server namespace disconnect",
    SLOW_CONSUMER: "slow consumer",
    PROTOCOL_VIOLATION: "parse error",
}


#: Languages of Socket.IO's own client libraries.
_THEIRS = frozenset(("engineio4", "engineio3", "socketio09"))

#: A function, what it is given, and whether what it returned means no.
_Check = tuple[Handler, Any, Callable[[Any], bool]]


def _refuses(verdict: Any) -> bool:
    """A middleware that says nothing has nothing against it."""
    return verdict is False


def _does_not_allow(verdict: Any) -> bool:
    """An authorization has to say yes: ``users.get(name)`` must not let in whom it does not know."""
    return not verdict


class Peer:
    """One client, all its namespaces."""

    __slots__ = (
        "_arrived",
        "_dismissed",
        "_is_theirs",
        "_only",
        "_reader",
        "_rules",
        "_store",
        "codec",
        "info",
        "server",
        "session",
        "sockets",
    )

    #: The session, once the gateway has bound it.
    session: Session

    def __init__(
        self, server: Server, info: ConnectionInfo, codec: PacketCodec, *, namespace: str | None = None
    ) -> None:
        """With *namespace* the client is in that one from the start and cannot ask for another (plain clients)."""
        self.server = server
        self.info = info
        self.codec = codec
        self._store: dict[str, Any] | None = None
        self.sockets: dict[str, Socket] = {}
        self._rules = codec.rules
        # The clients of Socket.IO's own libraries: what they are told has to be what they know.
        self._is_theirs = info.dialect in _THEIRS
        self._only = namespace
        # Namespaces that the server has made the client leave, whose DISCONNECT it may not have seen yet.
        self._dismissed: set[str] | None = None
        self._arrived = 0  # what the messages of the packet now coming in weigh
        self._reader = codec.reader(
            max_attachments=server.max_attachments, max_attachment_bytes=server.limits.max_message_bytes
        )

    def bind(self, session: Session) -> None:
        self.session = session

    @property
    def store(self) -> dict[str, Any]:
        """What the application keeps with the client, whatever the namespace."""
        if self._store is None:
            self._store = {}
        return self._store

    def select_subprotocol(self, offered: list[str]) -> str | None:
        return None

    # -- told by the session

    def on_open(self) -> Awaitable[Any] | None:
        if self._only is None:
            self.session.set_alarm(self.server.connect_timeout)
        authorize = self.server.authorize
        if authorize is None:
            return self._enter_first()
        verdict = authorize(Handshake(self.info))
        if inspect.isawaitable(verdict):
            return self._open_later(verdict)
        if _does_not_allow(verdict):
            raise ConnectionRefused
        return self._enter_first()

    async def _open_later(self, verdict: Awaitable[Any]) -> None:
        if _does_not_allow(await verdict):
            raise ConnectionRefused
        result = self._enter_first()
        if result is not None:
            await result

    def _enter_first(self) -> Awaitable[Any] | None:
        """Let the client into the namespace that it has not to ask for, if there is one."""
        if self._only is None:
            if self._rules.enters_main:
                # As if it had asked: what the namespace's handlers wait for must not hold up the handshake.
                self.session.handle(Connect())
            return None
        if self.server.find_namespace(self._only) is None:
            raise ConnectionRefused("Invalid namespace", status=404)
        return self._connect(Connect(self._only), refuse=True)

    def arrive(self, data: str | bytes) -> tuple[Packet, int] | None:
        try:
            packet = self._reader.feed(data)
        except ProtocolError as error:
            self._bad(str(error), error.reason)
            return None
        self._arrived += len(data)
        if packet is None:
            return None  # its attachments are still to come
        size, self._arrived = self._arrived, 0
        if self._only is not None:
            packet = _in_namespace(packet, self._only)
        if isinstance(packet, Ack):
            socket = self.sockets.get(packet.namespace)
            if socket is None or not socket.answered(packet):
                # Answered twice, or after its caller gave up: no harm, and no use.
                self.server.note("unknown_acks")
            return None
        if isinstance(packet, Event) and packet.receipt is not None and packet.namespace in self.sockets:
            self.send(Ack(packet.namespace, packet.receipt))
        return packet, size

    def on_message(self, packet: Any) -> Awaitable[Any] | None:
        if isinstance(packet, Event):
            socket = self.sockets.get(packet.namespace)
            if socket is None:
                if packet.namespace not in (self._dismissed or ()) and not self._rules.forgiving:
                    self._bad("an event for a namespace that the client is not in")
                return None  # else it was on its way when the server let the client go
            return socket.dispatch(packet)
        if isinstance(packet, Connect):
            if packet.namespace not in self.sockets:
                return self._connect(packet)
            if self._rules.forgiving:
                self.send_as(self.codec.named(packet.query), Connect(packet.namespace))
            else:
                self._bad("a second connect for the same namespace")
            return None
        if packet.namespace == "/" and self._rules.main_is_all:
            for socket in list(self.sockets.values()):
                self.left(socket, "client namespace disconnect", _CLIENT_LEFT)
            self.session.peer_closed(CLIENT_CLOSED)
            return None
        known = self.sockets.get(packet.namespace)
        if known is not None:
            self.left(known, "client namespace disconnect", _CLIENT_LEFT)
        return None

    def on_ending(self, reason: CloseReason) -> None:
        # A handler that waits for this client's answer would wait in vain, and hold up the end of the others.
        for socket in self.sockets.values():
            socket.answers_end(reason)

    def on_alarm(self) -> None:
        if not self.sockets:
            self.session.close(_NOT_CONNECTED)

    def on_close(self, reason: CloseReason) -> Awaitable[Any] | None:
        text = "server shutting down" if reason == self.server.closing else _REASONS.get(reason, "transport close")
        for socket in list(self.sockets.values()):
            self.left(socket, text, reason)
        return None

    # -- namespaces

    def _connect(self, packet: Connect, *, refuse: bool = False) -> Awaitable[Any] | None:
        """Let the client into a namespace, or tell it why not (with *refuse*: raise Refused)."""
        namespace = self.server.find_namespace(packet.namespace)
        codec = self.codec.named(packet.query)
        if namespace is None or (self._only is not None and packet.namespace != self._only):
            self.send_as(codec, ConnectError(packet.namespace, "Invalid namespace"))
            return None
        own_id = self._rules.socket_id
        socket_id = self.server.make_id() if own_id is None else own_id(self.session.id, namespace.name)
        socket = Socket(self, namespace, socket_id, Handshake(self.info, packet.data, packet.query), codec)
        checks: list[_Check] = [(function, socket, _refuses) for function in namespace.middleware]
        if namespace.authorize is not None:
            checks.insert(0, (namespace.authorize, socket.handshake, _does_not_allow))
        try:
            for index, (check, argument, is_no) in enumerate(checks):
                verdict = check(argument)
                if inspect.isawaitable(verdict):
                    return self._connect_later(socket, verdict, checks[index:], refuse=refuse)
                if is_no(verdict):
                    raise ConnectionRefused
        except Exception as error:
            self._turn_away(socket, error, refuse=refuse)
            return None
        return self._enter(socket)

    async def _connect_later(
        self, socket: Socket, pending: Awaitable[Any], checks: list[_Check], *, refuse: bool
    ) -> None:
        """*pending* is what the first of *checks* returned."""
        try:
            for index, (check, argument, is_no) in enumerate(checks):
                if is_no(await (settle(check(argument)) if index else pending)):
                    raise ConnectionRefused
        except Exception as error:
            self._turn_away(socket, error, refuse=refuse)
            return
        result = self._enter(socket)
        if result is not None:
            await result

    def _turn_away(self, socket: Socket, error: Exception, *, refuse: bool) -> None:
        namespace = socket.namespace
        self.server.forget_if_empty(namespace)
        if isinstance(error, SessionClosed) and self.session.state > State.OPEN:
            return  # it was waiting for this very client
        if not isinstance(error, Refused):
            log.error("the middleware of %s failed", namespace.name, exc_info=error)
            error = ConnectionRefused("Internal error", status=500)
        if refuse:
            raise error
        try:
            self.send_as(socket.codec, ConnectError(namespace.name, str(error), getattr(error, "data", None)))
        except (TypeError, ValueError) as problem:
            log.error("the data of a refusal in %s cannot travel", namespace.name, exc_info=problem)
            self.send_as(socket.codec, ConnectError(namespace.name, str(error)))

    def _enter(self, socket: Socket) -> Awaitable[Any] | None:
        if self.session.state > State.OPEN:
            # A middleware ended the connection, or the client left while one was waiting.
            self.server.forget_if_empty(socket.namespace)
            return None
        # While its middleware was waiting, a dynamic namespace may have gone with its last client, and come back.
        namespace = socket.namespace = self.server.current(socket.namespace)
        self.sockets[namespace.name] = socket
        if self._dismissed is not None:
            self._dismissed.discard(namespace.name)
        socket.connected = True
        namespace.hub.add(socket)
        self.session.set_alarm(None)
        welcome: dict[str, Any] = {"sid": socket.id}
        if self._only is None and not self._is_theirs:
            # Told, so that a client can refuse a longer message itself, with a reason, and keep its connection.
            welcome["maxMessage"] = self.server.limits.max_message_bytes
        self.send(Connect(namespace.name, welcome))
        return self._call_connection_hooks(socket)

    def dismiss(self, socket: Socket) -> None:
        """Make the client leave the namespace of *socket*."""
        self.send(Disconnect(socket.namespace.name))
        if self._dismissed is None or len(self._dismissed) >= self.server.limits.max_inbox_messages:
            # More than can be on their way: a client that is let go over and over must not make this grow.
            self._dismissed = set()
        self._dismissed.add(socket.namespace.name)
        self.left(socket, "server namespace disconnect", _DISMISSED)

    def left(self, socket: Socket, text: str, reason: CloseReason) -> None:
        """*socket* is no longer in its namespace: out of every index first, then its handlers are told."""
        if not socket.connected:
            return
        namespace = socket.namespace
        rooms = socket.rooms
        socket.gone(reason)
        namespace.hub.remove(socket.id)
        self.sockets.pop(namespace.name, None)
        log.debug("client %s left %s (%s); it was in %d rooms", socket.id, namespace.name, text, len(rooms))
        for handler in socket.take("disconnect"):
            self._call_hook(handler, "disconnect", (text,))
        for handler in namespace.take("disconnect"):
            self._call_hook(handler, "disconnect", (socket, text))
        socket.let_go()
        self.server.forget_if_empty(namespace)
        if self._only is not None:
            self.session.close(reason)  # its one connection was for this namespace alone

    def _call_connection_hooks(self, socket: Socket) -> Awaitable[Any] | None:
        """The namespace's ``connection`` handlers in order; awaitable where one of them is ``async def``."""
        handlers = socket.namespace.take("connection")
        for index, handler in enumerate(handlers):
            try:
                result = handler(socket)
            except Exception as error:
                self._connection_hook_failed(socket, error)
                continue
            if inspect.isawaitable(result):
                return self._call_connection_hooks_later(socket, result, handlers[index + 1 :])
        return None

    async def _call_connection_hooks_later(
        self, socket: Socket, pending: Awaitable[Any], handlers: list[Handler]
    ) -> None:
        for step in (None, *handlers):
            try:
                await (settle(step(socket)) if step is not None else pending)
            except Exception as error:
                self._connection_hook_failed(socket, error)

    def _connection_hook_failed(self, socket: Socket, error: Exception) -> None:
        if isinstance(error, SessionClosed) and socket.is_leaving:
            return  # it was waiting for this very client
        log.error("the connection handler of %s failed for %r", socket.namespace.name, socket, exc_info=error)

    def _call_hook(self, handler: Handler, event: str, args: tuple[Any, ...]) -> None:
        try:
            result = handler(*args)
        except Exception:
            log.exception("the %s handler failed", event)
            return
        if inspect.isawaitable(result):
            self.server.run_later(result, event)

    # -- sending

    def send(self, packet: Packet, *, volatile: bool = False) -> bool:
        """Send *packet* to this client alone.  Raises TypeError or ValueError for what cannot travel."""
        socket = self.sockets.get(packet.namespace)
        return self.send_as(self.codec if socket is None else socket.codec, packet, volatile=volatile)

    def send_as(self, codec: PacketCodec, packet: Packet, *, volatile: bool = False) -> bool:
        """The same in the form of *codec*, which that client's Socket has."""
        messages = codec.encode(packet)
        session = self.session
        if len(messages) == 1 and not volatile:
            return session.send(messages[0])
        if volatile:
            return session.send_volatile([PreparedMessage(message) for message in messages])
        sent = True
        for message in messages:
            sent = session.send(message) and sent
        return sent

    def close(self) -> None:
        """End the client's whole connection."""
        if self._is_theirs and not self._rules.main_is_all:
            # The libraries come back after an end that they were not told of.
            for namespace in self.sockets:
                self.send(Disconnect(namespace))
        self.session.close(GO_AWAY)

    def _bad(self, text: str, reason: CloseReason = PROTOCOL_VIOLATION) -> None:
        """The client broke the protocol: its connection ends, as in Socket.IO."""
        self.server.note("bad_packets")
        log.warning("closing the connection of %s: %s", self.info.ip, text)
        self.session.close(reason)


def _in_namespace(packet: Packet, namespace: str) -> Packet:
    """A packet whose form has no namespace, in the namespace of its connection."""
    if isinstance(packet, Event):
        return Event(namespace, packet.name, packet.args, packet.ack_id)
    if isinstance(packet, Ack):
        return Ack(namespace, packet.ack_id, packet.args)
    return Disconnect(namespace)
