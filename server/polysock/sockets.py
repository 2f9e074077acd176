"""Socket: one client in one namespace; and Broadcast: everybody that some rooms mean.

The names are Socket.IO's, spelled the Python way (``in_``, ``except_``, ``del_``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from polysock_transports import CloseReason, Refused, SessionClosed

from .acks import AckTimeout, CallResult, PendingAcks
from .handlers import EventHandlers, Handler, is_pending, settle
from .hub import Target, check_room
from .packets import Ack, Event, PacketCodec, check_event
from .remote import LEFT_NAMESPACE, Everywhere, merge_call, prepare_call

if TYPE_CHECKING:
    from polysock_transports.session import Session

    from .handshake import Handshake
    from .namespace import Namespace
    from .peer import Peer

__all__ = ["Broadcast", "Socket"]

log = logging.getLogger("polysock")


class Broadcast(Everywhere):
    """Some members of a namespace, chosen step by step: ``io.to("a").to("b").except_("c").emit(...)``.

    Each step returns a new one; none of them is changed.
    """

    __slots__ = ("_is_local", "_namespace", "_target", "_volatile")

    def __init__(self, namespace: Namespace, target: Target, *, volatile: bool = False, local: bool = False) -> None:
        self._namespace = namespace
        self._target = target
        self._volatile = volatile
        self._is_local = local

    def to(self, *rooms: str) -> Broadcast:
        """These rooms (or ids) too; whoever is in several gets it once."""
        target = Target((*self._target.rooms, *rooms), self._target.but)
        return Broadcast(self._namespace, target, volatile=self._volatile, local=self._is_local)

    in_ = to

    def except_(self, *rooms_or_ids: str) -> Broadcast:
        """Not those in these rooms, nor those with these ids."""
        target = Target(self._target.rooms, (*self._target.but, *rooms_or_ids))
        return Broadcast(self._namespace, target, volatile=self._volatile, local=self._is_local)

    @property
    def volatile(self) -> Broadcast:
        """Only to those that can take it this moment; the others miss it."""
        return Broadcast(self._namespace, self._target, volatile=True, local=self._is_local)

    @property
    def local(self) -> Broadcast:
        """Only those of this node."""
        return Broadcast(self._namespace, self._target, volatile=self._volatile, local=True)

    def emit(self, event: str, *args: Any) -> int:
        """Send an event; returns to how many on this node.  The arguments are encoded before this returns.

        Raises TypeError or ValueError for arguments that cannot travel, and nobody gets anything then.
        """
        namespace = self._namespace
        packet = Event(namespace.name, check_event(event), args)
        cluster = namespace.server.cluster
        if cluster is not None and not self._is_local:
            return cluster.emit(namespace, packet, self._target, volatile=self._volatile)
        return namespace.hub.deliver(self._target, packet, volatile=self._volatile)

    def send(self, data: Any) -> int:
        """The event ``message``."""
        return self.emit("message", data)

    def clients(self) -> list[Socket]:
        """The Sockets meant, of this node."""
        return [member for member in self._namespace.hub.members(self._target) if isinstance(member, Socket)]

    async def call(self, event: str, *args: Any, timeout: float | None = None) -> CallResult:
        """Send an event and collect everybody's ack, for *timeout* seconds (the server's ``ack_timeout`` if None).

        Never raises for a client that stays silent or leaves, or a node that does not answer: the result tells them
        apart.  Raises TypeError or ValueError for arguments that cannot travel, and nobody gets anything then.
        """
        namespace = self._namespace
        limit = namespace.server.ack_timeout if timeout is None else timeout
        check_event(event)
        request = None if self._is_local else prepare_call(namespace, self._target, event, args, limit)
        if request is None:
            return await self.call_here(self.clients(), event, args, limit)
        try:
            result = await self.call_here(self.clients(), event, args, limit, before_waiting=request.send)
            return merge_call(result, await request.replies())
        finally:
            request.drop()

    async def call_here(
        self,
        clients: Sequence[Socket],
        event: str,
        args: Sequence[Any],
        limit_s: float,
        before_waiting: Callable[[], object] | None = None,
    ) -> CallResult:
        """The part of this node, for *clients*; for the parts of this package."""
        loop = asyncio.get_running_loop()
        waiting: dict[str, asyncio.Future[Any]] = {}
        answers: dict[str, Any] = {}
        missing: list[str] = []
        gone: list[str] = []
        try:
            for client in clients:
                if client.is_leaving:
                    gone.append(client.id)
                    continue
                waiting[client.id] = loop.create_future()
                client._emit(event, args, waiting[client.id])
            if before_waiting is not None:
                before_waiting()
            if waiting:
                await asyncio.wait(waiting.values(), timeout=limit_s)
            for client_id, future in waiting.items():
                error = future.exception() if future.done() else AckTimeout()
                if error is None:
                    answers[client_id] = future.result()
                else:
                    (gone if isinstance(error, SessionClosed) else missing).append(client_id)
        finally:
            for future in waiting.values():
                future.cancel()
        return CallResult(answers, tuple(missing), tuple(gone))


class Socket(EventHandlers):
    """One client in one namespace."""

    # Applications may hang what they like on a client, and hold it weakly.
    __slots__ = (
        "__dict__",
        "__weakref__",
        "_acks",
        "_data",
        "_middleware",
        "_peer",
        "close_reason",
        "codec",
        "connected",
        "handshake",
        "id",
        "namespace",
        "receiver",
    )

    def __init__(
        self, peer: Peer, namespace: Namespace, socket_id: str, handshake: Handshake, codec: PacketCodec
    ) -> None:
        super().__init__()
        self.codec = codec
        self.id = socket_id
        self.namespace = namespace
        self.handshake = handshake
        self.receiver: Session = peer.session
        """The client's session: what the hub sends to."""
        self._data: Any = None
        self.connected = False
        self.close_reason: CloseReason | None = None
        self._peer = peer
        self._acks = PendingAcks(namespace.server.max_pending_acks)
        self._middleware: tuple[Handler, ...] = ()

    def __repr__(self) -> str:
        return f"<Socket {self.id} in {self.namespace.name} over {self.transport}>"

    @property
    def data(self) -> Any:
        """Whatever the application wants to keep with this client; a dict, unless it puts something else here."""
        if self._data is None:
            self._data = {}
        return self._data

    @data.setter
    def data(self, value: Any) -> None:
        self._data = value

    # -- sending

    def emit(self, event: str, *args: Any, ack: Callable[..., Any] | None = None) -> bool:
        """Send an event to this client; False where it has left.

        A callable as the last argument, or as *ack*, is called with the client's answer.  Raises TypeError or
        ValueError for arguments that cannot travel.
        """
        if ack is None and args and callable(args[-1]):
            ack, args = args[-1], args[:-1]
        return self._emit(event, args, ack)

    def _emit(self, event: str, args: Sequence[Any], taker: Any = None, *, volatile: bool = False) -> bool:
        check_event(event)
        if not self.connected:
            return False
        number = self._acks.expect(taker) if taker is not None else None
        try:
            packet = Event(self.namespace.name, event, args, number)
            return self._peer.send_as(self.codec, packet, volatile=volatile)
        except (TypeError, ValueError):
            if number is not None:
                self._acks.drop(number)
            raise

    def deliver(self, packet: Event, *, volatile: bool) -> bool:
        """Send a ready *packet* to this client; for the parts of this package."""
        return self.connected and self._peer.send(packet, volatile=volatile)

    def send(self, data: Any) -> bool:
        """The event ``message``."""
        return self._emit("message", (data,))

    async def call(self, event: str, *args: Any, timeout: float | None = None) -> Any:
        """Send an event and wait for the client's answer: None, its one value, or the list of them.

        *timeout* is in seconds (the server's ``ack_timeout`` if None).  Raises AckTimeout, or SessionClosed where the
        client leaves first.
        """
        if self.is_leaving:
            raise SessionClosed(self.close_reason or self.receiver.reason or LEFT_NAMESPACE)
        check_event(event)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        number = self._acks.expect(future)
        limit = self.namespace.server.ack_timeout if timeout is None else timeout
        try:
            self._peer.send(Event(self.namespace.name, event, args, number))
            return await asyncio.wait_for(future, limit)
        except asyncio.TimeoutError as error:
            if isinstance(error, AckTimeout):
                raise
            raise AckTimeout(f"no answer to {event!r} from {self.id} within {limit} s") from None
        finally:
            self._acks.drop(number)

    async def drain(self) -> None:
        """Wait until this client has caught up.  Raises SessionClosed where it has left or leaves."""
        if not self.connected:
            raise SessionClosed(self.close_reason or LEFT_NAMESPACE)
        await self._peer.session.drain()

    @property
    def volatile(self) -> _Volatile:
        """``socket.volatile.emit(...)``: dropped where the client cannot take it this moment."""
        return _Volatile(self)

    @property
    def broadcast(self) -> Broadcast:
        """Everybody else in the namespace."""
        return Broadcast(self.namespace, Target(but=(self.id,)))

    def to(self, *rooms: str) -> Broadcast:
        """Everybody else in *rooms*."""
        return self.broadcast.to(*rooms)

    in_ = to

    # -- rooms

    def join(self, *rooms: str) -> None:
        """Be in *rooms* too."""
        for room in rooms:
            self.namespace.hub.join(self.id, check_room(room))

    def leave(self, *rooms: str) -> None:
        for room in rooms:
            self.namespace.hub.leave(self.id, room)

    @property
    def rooms(self) -> tuple[str, ...]:
        """The rooms this client is in, in the order it joined them."""
        return self.namespace.hub.rooms_of(self.id)

    # -- the client's store, shared by its namespaces (Socket.IO 0.9)

    def set(self, key: str, value: Any) -> None:
        self._peer.store[key] = value

    def get(self, key: str, default: Any = None) -> Any:
        return self._peer.store.get(key, default)

    def has(self, key: str) -> bool:
        return key in self._peer.store

    def del_(self, key: str) -> None:
        self._peer.store.pop(key, None)

    # -- the end

    @property
    def transport(self) -> str:
        """Name of the transport the client is on; between two polls, of the one it came by."""
        return self._peer.session.transport_name or self._peer.info.transport

    @property
    def is_leaving(self) -> bool:
        """Whether this client has left, or its connection has ended and its last handlers are still running."""
        return not self.connected or self.receiver.reason is not None

    def disconnect(self, *, close: bool = False) -> None:
        """Make the client leave this namespace; with *close* end its whole connection."""
        if close:
            self._peer.close()
        elif self.connected:
            self._peer.dismiss(self)

    def use(self, middleware: Handler) -> Handler:
        """Call ``middleware(event, args)`` before each event of this client is handled; a decorator too.

        It refuses by raising ``Refused``, or by returning False: the client gets an error ack.
        """
        self._middleware = (*self._middleware, middleware)
        return middleware

    # -- told by the peer

    def answered(self, packet: Ack) -> bool:
        return self._acks.answer(packet.ack_id, packet.args)

    def gone(self, reason: CloseReason) -> None:
        """No longer connected: nobody waits for this client any more."""
        self.connected = False
        self.close_reason = reason
        self.answers_end(reason)

    def let_go(self) -> None:
        """No handler is called any more.  They know this client mostly, and would keep it and themselves in memory."""
        self.off()
        self._middleware = ()

    def answers_end(self, reason: CloseReason) -> None:
        """No more acks will come; whoever waits for one is told *reason*."""
        self._acks.fail(SessionClosed(reason))

    def dispatch(self, packet: Event) -> Awaitable[Any] | None:
        """Call the handlers of an event from the client, in order; the first answer that is not None is the ack."""
        if self._middleware or self.namespace.event_middleware:
            values = list(packet.args)
            guards: list[tuple[Handler, tuple[Any, ...]]]
            guards = [(guard, (self, packet.name, values)) for guard in self.namespace.event_middleware]
            guards += [(guard, (packet.name, values)) for guard in self._middleware]
            return self._guarded(packet, guards)
        return self._call(packet)

    async def _guarded(self, packet: Event, guards: list[tuple[Handler, tuple[Any, ...]]]) -> None:
        for guard, args in guards:
            if not await self._allowed(packet, guard, args):
                return
        result = self._call(packet)
        if result is not None:
            await result

    async def _allowed(self, packet: Event, guard: Handler, args: tuple[Any, ...]) -> bool:
        try:
            if await settle(guard(*args)) is not False:
                return True
            self._error_ack(packet, "Refused")
        except Refused as refusal:
            self._error_ack(packet, refusal.text)
        except Exception as error:
            self._failed(packet, error)
        return False

    def _call(self, packet: Event) -> Awaitable[Any] | None:
        args: Sequence[Any] = packet.args
        handlers = self.take(packet.name)
        catch_all = self.take_any()
        if catch_all:
            handlers = [*(partial(handler, packet.name) for handler in catch_all), *handlers]
        if not handlers:
            self._error_ack(packet, "No handler for this event")
            return None
        answer: Any = None
        for index, handler in enumerate(handlers):
            try:
                result = handler(*args)
            except Exception as error:
                self._failed(packet, error)
                return None
            if is_pending(result):
                return self._call_rest(packet, result, answer, handlers[index + 1 :])
            if answer is None:
                answer = result
        self._acknowledge(packet, answer)
        return None

    async def _call_rest(
        self, packet: Event, pending: Awaitable[Any], answer: Any, handlers: Sequence[Handler]
    ) -> None:
        try:
            result = await pending
            answer = result if answer is None else answer
            for handler in handlers:
                result = await settle(handler(*packet.args))
                answer = result if answer is None else answer
        except Exception as error:
            self._failed(packet, error)
            return
        self._acknowledge(packet, answer)

    def _failed(self, packet: Event, error: Exception) -> None:
        if isinstance(error, Refused):
            self._error_ack(packet, error.text)
            return
        if isinstance(error, SessionClosed) and self.is_leaving:
            return  # it was waiting for this very client
        log.error(
            "the handler of %r failed for client %s in %s", packet.name, self.id, self.namespace.name, exc_info=error
        )
        self._error_ack(packet, "Internal error")

    def _acknowledge(self, packet: Event, answer: Any) -> None:
        if packet.ack_id is None or not self.connected:
            return
        args = () if answer is None else answer if isinstance(answer, tuple) else (answer,)
        try:
            self._peer.send(Ack(self.namespace.name, packet.ack_id, args))
        except (TypeError, ValueError) as error:
            log.error(
                "the answer of the handler of %r cannot travel (client %s in %s)",
                packet.name,
                self.id,
                self.namespace.name,
                exc_info=error,
            )
            self._error_ack(packet, "Internal error")

    def _error_ack(self, packet: Event, text: str) -> None:
        if packet.ack_id is not None and self.connected:
            self._peer.send(Ack(self.namespace.name, packet.ack_id, ({"error": text},)))


class _Volatile:
    __slots__ = ("_socket",)

    def __init__(self, socket: Socket) -> None:
        self._socket = socket

    def emit(self, event: str, *args: Any) -> bool:
        """Send now or never; False where it was dropped."""
        return self._socket._emit(event, args, volatile=True)

    def send(self, data: Any) -> bool:
        return self._socket._emit("message", (data,), volatile=True)
