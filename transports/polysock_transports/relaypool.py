"""The calling side of the relay: kept-alive connections to other nodes, each with one request at a time.

Knows bytes, and whom to tell what comes back (``Answer``); nothing of sessions or of the client's connection.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import socket
from collections import Counter
from contextlib import suppress
from typing import Protocol, cast

from . import relaywire
from .clock import Clock, Timer
from .errors import ProtocolError
from .http1 import END, ResponseHead, ResponseReader
from .limits import Limits
from .placement import Node, Placement
from .socketpipe import Lane, Outflow

__all__ = ["Answer", "NodeConnection", "RelayPools"]

log = logging.getLogger("polysock.relay")

# A node's own heads are far shorter; applications may add to them.
_MAX_HEAD_BYTES = 64 * 1024
_KEEPALIVE_PROBES = 4
# How many connections to one node begin at a time: a listener's backlog, and whom it lets knock, are bounded.
_OPENING = 8


class Answer(Protocol):
    """Who has asked, and is told the answer: ``begin``, any number of ``piece``, ``end``; or at any moment ``fail``."""

    def begin(self, head: ResponseHead) -> None: ...

    def piece(self, data: bytes) -> None: ...

    def end(self) -> None:
        """The answer is complete; the connection is another's from here on."""

    def fail(self) -> None:
        """The rest of it will not come."""

    def drained(self) -> None:
        """Nothing much waits to be written to the node."""

    def half_closed(self) -> None:
        """Asked after 101 only: the node has ended its half of the connection."""


class NodeConnection(Outflow):
    """One connection to another node."""

    __slots__ = (
        "_answer",
        "_connecting",
        "_is_connected",
        "_keeps_alive",
        "_pools",
        "_proof",
        "_reader",
        "_request",
        "_said",
        "_switched",
        "_timer",
        "client",
        "idle_since",
        "is_ready",
        "node",
    )

    def __init__(self, pools: RelayPools, node: Node, request: bytes, answer: Answer) -> None:
        super().__init__(pools.lane)
        self._socket = None  # it is asyncio's own
        self.node = node
        self.client = ""
        """Whose request it had last; empty where that does not matter."""
        self.idle_since = 0.0
        self.is_ready = False
        """Whether both sides have shown who they are."""
        self._pools = pools
        self._answer: Answer | None = answer
        self._request = request  # waits for the connection
        self._reader = ResponseReader(_MAX_HEAD_BYTES, pools.heads)
        self._said = b""  # by the listener, before requests
        self._proof = b""  # what the listener has to say next
        self._keeps_alive = True
        self._switched = False
        self._timer: Timer | None = None
        self._is_connected = False
        self._connecting: asyncio.Task[None] | None = None

    # -- for who asks

    def ask(self, request: bytes, answer: Answer) -> None:
        """Send *request*; nobody else is waiting for an answer here."""
        self._answer = answer
        self.write(request)

    def hand_to(self, answer: Answer) -> None:
        """Tell *answer* what comes from here on."""
        self._answer = answer

    def let_go(self) -> None:
        """The answer is not wanted any more: cut the connection, by which the node notices."""
        self._answer = None
        self.drop()

    def drop(self, error: BaseException | None = None) -> None:
        """It is over, and whoever waits is told; *error* where that is the node's fault."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        answer, self._answer = self._answer, None
        self._pools.lost(self, error)
        self.cut()
        if answer is not None:
            answer.fail()

    def end(self) -> None:
        """End it after all that was written has left, or could not in time; nothing more is wanted of it."""
        self._answer = None
        self.send()
        self._ended = True
        self._transport.close()
        if self.backlog:
            self._timer = self._pools.clock.call_later(self._pools.limits.close_timeout_s, self.cut)

    def cut(self) -> None:
        if self._is_connected:
            super().cut()
        elif self._connecting is not None:
            self._connecting.cancel()

    def drained(self) -> None:
        if self._answer is not None:
            self._answer.drained()

    # -- connecting

    def wait(self) -> None:
        """From here on it has to be there in time."""
        self._timer = self._pools.clock.call_later(self._pools.limits.relay_timeout_s, self._too_late)

    def open(self) -> None:
        """Begin to connect."""
        self._connecting = asyncio.ensure_future(self._connect())
        self._connecting.add_done_callback(self._tried)

    def _too_late(self) -> None:
        self.drop(TimeoutError("it takes too long to answer"))

    async def _connect(self) -> None:
        loop, node = asyncio.get_running_loop(), self.node
        if node.unix and node.host == self._pools.placement.own.host:
            await loop.create_unix_connection(lambda: self, node.unix)
            return
        address, _, port = node.tcp.rpartition(":")
        if not port.isdecimal():
            raise OSError("it has announced no address")
        await loop.create_connection(lambda: self, address.strip("[]"), int(port))

    def _tried(self, trying: asyncio.Task[None]) -> None:
        error = None if trying.cancelled() else trying.exception()
        if not self._is_connected:
            self.drop(error)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._is_connected = True
        self._transport.set_write_buffer_limits(self._lane.high_bytes)
        self._watch(transport.get_extra_info("socket"))

    def _watch(self, sock: socket.socket) -> None:
        """Have TCP ask a silent node whether it is there: nothing else would notice that its machine is gone."""
        if sock.family not in (socket.AF_INET, socket.AF_INET6):
            return
        limit_s = max(int(self._pools.limits.write_timeout_s), 1)
        values = {
            (socket.SOL_SOCKET, "SO_KEEPALIVE"): 1,
            (socket.IPPROTO_TCP, "TCP_KEEPIDLE"): limit_s,
            (socket.IPPROTO_TCP, "TCP_KEEPINTVL"): max(limit_s // _KEEPALIVE_PROBES, 1),
            (socket.IPPROTO_TCP, "TCP_KEEPCNT"): _KEEPALIVE_PROBES,
        }
        with suppress(OSError):
            for (level, name), value in values.items():
                option = getattr(socket, name, None)
                if option is not None:
                    sock.setsockopt(level, option, value)

    def _greet(self, data: bytes) -> None:
        self._said = said = self._said + data
        pools = self._pools
        if not self._proof:
            if len(said) < relaywire.GREETING_BYTES:
                return
            found = relaywire.read_greeting(said)
            if found is None or found[0] != self.node.id:
                # Another process has the address by now.
                self.drop(ConnectionError("another one has answered"))
                return
            answer = relaywire.answer(pools.secret, said, pools.placement.own.id, relaywire.nonce())
            self._proof = relaywire.listener_proof(pools.secret, said, answer)
            self._said = b""
            self.write(answer)
            return
        if len(said) < relaywire.PROOF_BYTES:
            return
        if not hmac.compare_digest(said, self._proof):
            self.drop(ConnectionError("it does not know the secret"))
            return
        self.is_ready = True
        self._said = self._proof = b""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        pools.reached(self)
        request, self._request = self._request, b""
        self.write(request)

    # -- told by asyncio

    def buffer_updated(self, count: int) -> None:
        data = bytes(self._lane.buffer[:count])
        try:
            if self.is_ready:
                self._read(data)
            else:
                self._greet(data)
        except ProtocolError as error:
            log.warning("node %s sent what no node sends: %s", self.node.id, error)
            self.drop(error)
        except Exception:
            log.exception("a connection to node %s failed", self.node.id)
            self.drop(None)

    def _read(self, data: bytes) -> None:
        for event in self._reader.feed(data):
            answer = self._answer
            if answer is None:
                self.cut()  # nobody has asked, or wants to hear the rest
                return
            if event is END:
                self._answer = None
                if self._keeps_alive and self._reader.is_between:
                    self.resume()
                    self._pools.release(self)
                else:
                    self.cut()
                answer.end()
            elif isinstance(event, ResponseHead):
                self._keeps_alive = event.keeps_alive
                self._switched = event.status == 101
                answer.begin(event)
            else:
                assert isinstance(event, bytes)
                answer.piece(event)

    def eof_received(self) -> bool:
        if not self._switched or self._answer is None:
            return False
        self._answer.half_closed()
        return True

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self.drop(error or ConnectionError("it has closed the connection"))


class _Pool:
    """The connections to one node."""

    __slots__ = ("all", "idle", "idle_of", "opening", "unopened")

    def __init__(self) -> None:
        self.all: set[NodeConnection] = set()
        self.idle: dict[NodeConnection, None] = {}  # in the order in which they fell idle
        self.idle_of: dict[str, NodeConnection] = {}  # client -> the one of them that had its last request
        self.opening: set[NodeConnection] = set()
        self.unopened: dict[NodeConnection, None] = {}  # in the order in which their turn comes

    def take(self, client: str) -> NodeConnection | None:
        """The idle one that *client* had; else the latest, so that the others grow old."""
        connection = self.idle_of.get(client)
        if connection is None:
            if not self.idle:
                return None
            connection = next(reversed(self.idle))
        self.withdraw(connection)
        return connection

    def put_back(self, connection: NodeConnection) -> None:
        """*connection* has nothing to do."""
        self.idle[connection] = None
        if connection.client:
            self.idle_of[connection.client] = connection

    def withdraw(self, connection: NodeConnection) -> None:
        """*connection* is not idle, if it was."""
        self.idle.pop(connection, None)
        if self.idle_of.get(connection.client) is connection:
            del self.idle_of[connection.client]

    def open_next(self) -> None:
        """As many as may open at a time."""
        while self.unopened and len(self.opening) < _OPENING:
            connection = next(iter(self.unopened))
            del self.unopened[connection]
            self.opening.add(connection)
            connection.open()


class RelayPools:
    """The connections to all other nodes."""

    def __init__(
        self, placement: Placement, secret: bytes, limits: Limits, clock: Clock, counters: Counter[str]
    ) -> None:
        self.placement = placement
        self.secret = secret
        self.limits = limits
        self.clock = clock
        self.counters = counters
        self.lane = Lane(
            read_bytes=limits.read_chunk_bytes,
            high_bytes=limits.pipe_high_bytes,
            write_timeout_s=limits.write_timeout_s,
            in_order=True,  # requests of one client may be on their way side by side
        )
        self.heads: dict[bytes, ResponseHead] = {}
        self._pools: dict[str, _Pool] = {}
        self._down: set[str] = set()  # nodes whose outage has been told
        self._timer: Timer | None = None

    def __len__(self) -> int:
        return sum(len(pool.all) for pool in self._pools.values())

    def send(self, node: Node, request: bytes, answer: Answer, client: str = "") -> NodeConnection | None:
        """Have *node* answer *request*; None where there are too many connections to it already.

        *client* is for who asks the same again and again: a node knows what came last on the same connection.
        """
        pool = self._pools.get(node.id)
        if pool is None:
            pool = self._pools[node.id] = _Pool()
        idle = pool.take(client)
        if idle is not None:
            idle.client = client
            idle.ask(request, answer)
            return idle
        if len(pool.all) >= self.limits.max_relay_connections:
            self.counters["full"] += 1
            return None
        connection = NodeConnection(self, node, request, answer)
        connection.client = client
        pool.all.add(connection)
        pool.unopened[connection] = None
        connection.wait()
        pool.open_next()
        return connection

    def forget(self, node_id: str) -> None:
        """Close the connections to a node that is gone; whoever waits for it is told at once."""
        pool = self._pools.pop(node_id, None)
        if pool is not None:
            for connection in list(pool.all):
                connection.drop()
        self._down.discard(node_id)

    def close(self) -> None:
        """Close all connections."""
        for node_id in list(self._pools):
            self.forget(node_id)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- told by connections

    def reached(self, connection: NodeConnection) -> None:
        """*connection* is ready."""
        node = connection.node
        if node.id in self._down:
            self._down.discard(node.id)
            log.info("node %s is reached again", node.id)
        pool = self._pools[node.id]
        pool.opening.discard(connection)
        pool.open_next()

    def release(self, connection: NodeConnection) -> None:
        """*connection* has nothing to do."""
        connection.idle_since = self.clock.now()
        self._pools[connection.node.id].put_back(connection)
        if self._timer is None:
            self._timer = self.clock.call_later(self.limits.relay_idle_s, self._sweep)

    def lost(self, connection: NodeConnection, error: BaseException | None) -> None:
        """*connection* is over; *error* where the node is to blame."""
        node = connection.node
        pool = self._pools.get(node.id)
        if pool is None or connection not in pool.all:
            return
        pool.all.discard(connection)
        pool.opening.discard(connection)
        pool.withdraw(connection)
        pool.unopened.pop(connection, None)
        if pool.all:
            pool.open_next()
        else:
            del self._pools[node.id]
        if error is not None and not connection.is_ready and node.id not in self._down:
            self._down.add(node.id)
            self.counters["outages"] += 1
            log.warning("node %s cannot be reached, requests for its sessions fail: %s", node.id, error)

    def _sweep(self) -> None:
        """Close what has been idle for long; one timer for all."""
        self._timer = None
        now, limit_s = self.clock.now(), self.limits.relay_idle_s
        idle = [connection for pool in self._pools.values() for connection in pool.idle]
        for connection in idle:
            if now - connection.idle_since >= limit_s:
                connection.drop()
        since = [connection.idle_since for connection in idle if now - connection.idle_since < limit_s]
        if since:
            self._timer = self.clock.call_later(min(since) + limit_s - now, self._sweep)
