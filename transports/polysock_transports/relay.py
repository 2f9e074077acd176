"""Any node answers any request: where a session lives on another node, the request is passed on to it.

``placement.py`` says where; this decides what to do with one request, and puts together the two sides: ``relaypool.py``
calls other nodes, ``relayport.py`` listens to them.  A request is passed on by the node its client has reached, once;
only its home may pass it on again, and only to a node that holds the session, which answers in any case: so none ever
goes in circles.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from .clock import Clock, LoopClock
from .errors import StateError
from .http1 import ResponseHead
from .limits import DEFAULT_LIMITS, Limits
from .moved import Moved, ids_at_home_with
from .placement import Node, Placement
from .relayed import NOT_HELD, Passing
from .relaypool import RelayPools
from .relayport import RelayPort, relay_port
from .relaywire import ASK, HELD, LIST, SERVE, Passed, RequestWriter
from .wire import Refusal, Route

if TYPE_CHECKING:
    from .gateway import Gateway, GatewayHandler
    from .pipes import Exchange

__all__ = ["Relay"]

log = logging.getLogger("polysock.relay")

_HELD, _NOT_HELD = 204, 404
# The list is too long, or this node does not know who asks.
_UNKNOWN = 409


class Relay:
    """This node's part in the relay between the nodes of *placement*.

    Set it as the ``relay`` of each gateway.  *secret* is what all nodes know and nobody else; on Unix sockets alone,
    whose folder only this user may enter, it may be empty.
    """

    def __init__(
        self, placement: Placement, *, secret: bytes, limits: Limits = DEFAULT_LIMITS, clock: Clock | None = None
    ) -> None:
        self.placement = placement
        self.limits = limits
        self.clock: Clock = clock or LoopClock()
        self.counters: Counter[str] = Counter()
        """How often what happened.  Passed on: ``relayed`` (requests), ``tunnels`` (WebSockets among them), ``failed``,
        ``full`` (over ``max_relay_connections``).  Other nodes: ``outages``, and ``refused``, connections of whoever is
        none.  Moved sessions: ``questions``, ``moved`` (found elsewhere)."""
        self._secret = secret
        self._writer = RequestWriter()
        self._pools = RelayPools(placement, secret, limits, self.clock, self.counters)
        self._ports: list[RelayPort] = []
        self._moved: dict[Gateway, Moved] = {}
        self._stopped = False

    # -- the listening side

    async def start(self, application: Any, *, unix: str = "", tcp: tuple[str, int] | None = None) -> Node:
        """Take requests of other nodes for *application* on a Unix socket, on ``(address, port)`` of TCP, or on both.

        *application* is what the ``HTTPServer`` of this process serves.  The folder of *unix* must be this user's
        alone; a socket left over in its place is replaced.  Returns ``placement.own`` with where it listens, port 0
        resolved; what other machines are to call instead of an address such as ``0.0.0.0`` is the caller's to say.

        Raises StateError at a second call, and for TCP without a secret; OSError where it cannot listen there.
        """
        if self._ports or self._stopped:
            raise StateError("a Relay starts once")
        if tcp is not None and not self._secret:
            raise StateError("a relay that listens on TCP needs a secret: anybody could pass requests on in any name")
        port = relay_port(application, self.placement, self._secret, self.limits, self.clock, self.counters)
        try:
            unix, address = port.open(unix, tcp)
        except BaseException:
            port.stop()
            raise
        own = replace(self.placement.own, unix=unix, tcp=address)
        self._ports.append(port)
        self.placement.update([own, *(node for node in self.placement.nodes if node.id != own.id)])
        return own

    async def stop(self) -> None:
        """Take no more requests, and pass none on.  Whoever waits for another node is told that it has failed."""
        self._stopped = True
        self._pools.close()
        ports, self._ports = self._ports, []
        for port in ports:
            await port.end()

    def forget(self, node_id: str) -> None:
        """The node is gone: its connections close, and who waits for it is told at once."""
        self._pools.forget(node_id)

    # -- what becomes of a request

    def serve(self, handler: GatewayHandler, route: Route) -> Awaitable[None] | None:
        """Answer a request that names a session and is no WebSocket: here, or by another node."""
        gateway, session_id = handler.gateway, route.session_id
        passed = handler.passed
        if passed is not None and passed.mode in (ASK, LIST):
            return self._answer_question(handler, session_id, passed)
        if gateway.store.get(session_id) is not None:
            return handler.serve_here(route)
        if passed is not None and passed.mode == HELD:
            handler.answer_node(NOT_HELD)
            return None
        if handler.ids_are_ours:
            node = self._owner(session_id) if passed is None else None
            if node is None:
                return handler.serve_here(route)
            self._pass_on(handler, route, node, SERVE)
            return None
        placement = self.placement
        home = placement.home_of(session_id)
        if passed is None and home.id != placement.own.id:
            self._pass_on(handler, route, home, SERVE)
            return None
        moved = self._moved_of(gateway)
        if not moved.is_complete:
            return self._serve_after_asking(handler, route, moved)
        holder = moved.holder(session_id)
        if holder is None:
            return handler.serve_here(route)
        self._pass_on(handler, route, holder, HELD)
        return None

    def node_of_poll(self, handler: GatewayHandler, session_id: str) -> Node | None:
        """The node to which a poll of a client belongs that was passed on before; None where that has to be found."""
        if handler.gateway.store.get(session_id) is not None:
            return None
        if handler.ids_are_ours:
            return self._owner(session_id)
        home = self.placement.home_of(session_id)
        return None if home.id == self.placement.own.id else home

    def poll_again(self, handler: GatewayHandler, route: Route, node: Node) -> None:
        self._pass_on(handler, route, node, SERVE)

    def socket_node(self, handler: GatewayHandler, session_id: str) -> Node | None:
        """The node to which a WebSocket belongs that names a session; None for this one."""
        if not handler.ids_are_ours or not session_id or handler.passed is not None:
            return None
        return None if handler.gateway.store.get(session_id) is not None else self._owner(session_id)

    async def tunnel(self, handler: GatewayHandler, route: Route, node: Node) -> bool:
        """Have *node* answer a request that wants to be a WebSocket.

        False where it cannot, and the client is still there to be told so.
        """
        over = asyncio.get_running_loop().create_future()
        passing = Passing(handler, route, self.limits, is_held=False)
        passing.over = over
        handler.passing = passing
        self.counters["tunnels"] += 1
        self._send(handler, route, node, SERVE, passing)
        answered: bool = await over
        handler.passing = None
        return answered

    def fail(self, handler: GatewayHandler, route: Route, exchange: Exchange, *, is_held: bool) -> None:
        """A request was not answered by the node it was passed on to; *is_held* False: it does not hold the session.

        *exchange* is for the answer.  Never raises: who calls this has other requests to look after.
        """
        gateway = handler.gateway
        if not is_held:
            self._moved_of(gateway).forget(route.session_id)
        # The application's own handler cannot be asked any more: its connection is not as Tornado left it.
        serve = handler.relay_failed if is_held or gateway.base_handler is not None else handler.serve_here
        try:
            answering = serve(route)
        except Exception:
            log.exception(_FAILED)
            exchange.abort()
            return
        if answering is not None:
            gateway.lane.keep(answering, partial(_answered_late, exchange))

    def _owner(self, session_id: str) -> Node | None:
        """The other live node that has made *session_id*."""
        node = self.placement.owner_of(session_id)
        return None if node is None or node.id == self.placement.own.id else node

    # -- passing on

    def _pass_on(self, handler: GatewayHandler, route: Route, node: Node, mode: str) -> None:
        passing = Passing(handler, route, self.limits, is_held=mode == HELD)
        if mode == SERVE:
            handler.is_elsewhere = True
        passing.open()
        self._send(handler, route, node, mode, passing)

    def _send(self, handler: GatewayHandler, route: Route, node: Node, mode: str, passing: Passing) -> None:
        self.counters["relayed"] += 1
        try:
            upgrade = handler.request.headers["Upgrade"] if passing.over is not None else ""
            data = self._request(handler, mode, handler.body, upgrade)
        except ValueError:
            passing.refuse(Refusal(400, "This request cannot be passed on.\n"))
            return
        client = route.session_id if route.kind == "receive" else ""
        connection = None if self._stopped else self._pools.send(node, data, passing, client)
        if connection is None:
            passing.fail()
        else:
            passing.connection = connection

    def _request(self, handler: GatewayHandler, mode: str, body: bytes, upgrade: str = "") -> bytes:
        request = handler.request
        passed = Passed(mode, self.placement.own.id, handler.client_address, request.protocol)
        method, target = request.method or "", request.uri or ""
        return self._writer.write(method, target, request.headers.get_all(), passed, body, request.host, upgrade)

    # -- sessions that have moved

    def _moved_of(self, gateway: Gateway) -> Moved:
        found = self._moved.get(gateway)
        if found is None:
            found = self._moved[gateway] = Moved(self.placement, self.limits, self.clock)
        return found

    async def _serve_after_asking(self, handler: GatewayHandler, route: Route, moved: Moved) -> None:
        async def holds(node: Node) -> bool | None:
            status, _ = await self._ask(handler, node, ASK)
            return status == _HELD

        async def list_of(node: Node) -> list[str] | None:
            status, body = await self._ask(handler, node, LIST)
            return body.decode("utf-8", "surrogatepass").split("\n")[:-1] if status == 200 else None

        holder = await moved.find(route.session_id, holds, list_of)
        if handler.is_gone:
            return
        if holder is not None and handler.gateway.store.get(route.session_id) is None:
            self.counters["moved"] += 1
            self._pass_on(handler, route, holder, HELD)
            return
        answering = handler.serve_here(route)
        if answering is not None:
            await answering

    async def _ask(self, handler: GatewayHandler, node: Node, mode: str) -> tuple[int, bytes]:
        """Status and body of *node*'s answer to a question; 0 where it does not come in time."""
        self.counters["questions"] += 1
        limits = self.limits
        question = _Question(limits.max_relay_moved * (limits.max_session_id_chars + 1))
        try:
            data = self._request(handler, mode, b"")
        except ValueError:
            return 0, b""
        connection = None if self._stopped else self._pools.send(node, data, question)
        if connection is None:
            return 0, b""

        def too_late() -> None:
            if not question.answer.done():  # else the connection is another's by now
                connection.drop()

        timer = self.clock.call_later(limits.relay_question_s, too_late)
        try:
            return await question.answer
        finally:
            timer.cancel()

    def _answer_question(self, handler: GatewayHandler, session_id: str, passed: Passed) -> Awaitable[None] | None:
        store = handler.gateway.store
        if passed.mode == LIST:
            return self._answer_list(handler, store.ids(), passed.node_id)
        handler.answer_node(_NOT_HELD if store.get(session_id) is None else _HELD)
        return None

    async def _answer_list(self, handler: GatewayHandler, ids: list[str], node_id: str) -> None:
        found = None
        if self.placement.owner_of(node_id) is not None:  # else this node does not know yet what is at home there
            found = await ids_at_home_with(node_id, ids, self.placement, self.limits.max_relay_moved)
        if found is None:
            handler.answer_node(_UNKNOWN)
        else:
            handler.answer_node(200, "".join(f"{one}\n" for one in found).encode("utf-8", "surrogatepass"))


class _Question:
    """A short answer of a node, to a question of ours."""

    def __init__(self, most_bytes: int) -> None:
        self.answer: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        self._most_bytes = most_bytes
        self._status = 0
        self._body = bytearray()

    def begin(self, head: ResponseHead) -> None:
        self._status = head.status

    def piece(self, data: bytes) -> None:
        self._body += data[: self._most_bytes + 1 - len(self._body)]

    def end(self) -> None:
        self._say(self._status if len(self._body) <= self._most_bytes else 0)

    def fail(self) -> None:
        self._say(0)

    def drained(self) -> None:
        """The question has left."""

    half_closed = fail

    def _say(self, status: int) -> None:
        if not self.answer.done():
            self.answer.set_result((status, bytes(self._body)))


_FAILED = "a request failed that another node did not answer"


def _answered_late(exchange: Exchange, answering: asyncio.Future[None]) -> None:
    if not answering.cancelled() and answering.exception() is not None:
        log.error(_FAILED, exc_info=answering.exception())
        exchange.abort()
