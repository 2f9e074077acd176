"""Server, the ``io`` of an application: namespaces, settings, and the routes to mount.

Start reading here for the hub; then ``peer.py`` (one client), ``sockets.py`` (what an application holds) and
``hub.py`` (rooms and the fan-out).
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import secrets
import warnings
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import fields
from typing import Any, Literal

from polysock_transports import CloseReason, ConnectionInfo, Limits, StateError
from polysock_transports.clock import Clock, LoopClock
from polysock_transports.errors import GOING_AWAY
from polysock_transports.flashpolicy import FLASH_POLICY_PORT, FlashPolicyServer

from .acks import CallResult
from .backplane import Backplane
from .backplane_url import connect
from .client_files import client_routes, socketio_client_routes, with_client_script
from .cluster import Cluster
from .endpoint import PlainEndpoint, SocketIOEndpoint, SockJSEndpoint, origin_policy
from .feeds import Feeds, plain_peer
from .handlers import Handler
from .limits import ClusterLimits
from .namespace import Manager, Namespace, NamespacePattern, namespace_name
from .packets import PacketCodec
from .packets.legacy import SOCKETIO09
from .packets.socketio import BINARY, TEXT_ONLY
from .packets.socketio4 import SOCKETIO4
from .peer import Peer
from .publishing import publish_routes
from .relaying import Relaying, read_address, read_secret
from .remote import Count, FetchedSockets, NodeAnswers, Reached, answerers
from .router import ConnectionRouter
from .settings import LEGACY_TRANSPORT_NAMES, TRANSPORT_NAMES, SettingError, Settings, read_one, read_settings
from .sockets import Broadcast
from .stats import counted

__all__ = ["Server"]

log = logging.getLogger("polysock")

_ID_BYTES = 15  # 20 characters, as in Socket.IO: 120 random bits

#: What a Server can be told beside a router's settings: name -> default.
_OWN_SETTINGS: dict[str, Any] = {
    "ack_timeout": 20.0,
    "connect_timeout": 45.0,
    "max_attachments": 10,
    "max_pending_acks": 1000,
    "max_dynamic_namespaces": 10_000,
}

#: Options of Socket.IO 0.9 (``io.set("heartbeat interval", 25)``) -> our setting.
_OPTIONS = {
    "heartbeat interval": "heartbeat_delay",
    "heartbeat timeout": "heartbeat_timeout_s",
    "close timeout": "disconnect_delay",
    "polling duration": "legacy_poll_s",
    "origins": "origins",
    "transports": "disabled_transports",
    "destroy buffer size": "max_payload_bytes",
}
#: The other options of Socket.IO 0.9: kept for ``get`` and ``enabled``, and otherwise without effect.
_MEANINGLESS = frozenset(
    (
        "log", "store", "logger", "static", "heartbeats", "resource", "blacklist", "log colors", "flash policy server",
        "flash policy port", "destroy upgrade", "browser client", "browser client cache", "browser client minification",
        "browser client etag", "browser client expires", "browser client gzip", "browser client handler",
        "client store expiration", "match origin protocol",
    )
)  # fmt: skip
#: What the cluster can be told.
_CLUSTER_SETTINGS = frozenset(field.name for field in fields(ClusterLimits))
#: Arguments of a Server beside its settings.
_ARGUMENTS = ("backplane", "cluster_secret", "relay")
#: What ``set`` and ``get`` know beside a router's settings.
_OPTION_NAMES = (
    *_OPTIONS, *sorted(_MEANINGLESS), "log level", "authorization", *_OWN_SETTINGS, *sorted(_CLUSTER_SETTINGS)
)  # fmt: skip
#: The language of a client's session -> the packets in it.
_CODECS: dict[str, PacketCodec] = {
    "sockjs": TEXT_ONLY,
    "plain": BINARY,
    "engineio4": BINARY,
    "engineio3": SOCKETIO4,
    "socketio09": SOCKETIO09,
}
#: Socket.IO 0.9's log levels.
_LOG_LEVELS = (logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG)

#: Socket.IO 0.9's names of transports -> those of other clients that they stand for, the same one first.
_TRANSPORTS = {
    "websocket": ("websocket",),
    "flashsocket": (),
    "htmlfile": ("htmlfile",),
    "xhr-multipart": (),
    "xhr-polling": ("xhr", "polling"),
    "jsonp-polling": ("jsonp", "polling"),
    "xhr-streaming": ("xhr_streaming",),
    "eventsource": ("eventsource",),
}


class Server:
    """One hub with its namespaces.

    ``Server(heartbeat_delay=25, origins=["https://app.example.com"])`` takes a router's settings as keywords (see
    docs/settings.md) and ``ack_timeout``, ``connect_timeout`` (seconds), ``max_attachments``, ``max_pending_acks`` and
    ``max_dynamic_namespaces``.  Raises SettingError for an unknown one.
    """

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        backplane: Backplane | str | None = None,
        cluster_secret: str | bytes | None = None,
        relay: str | None = None,
        **settings: Any,
    ) -> None:
        self.clock: Clock = clock or LoopClock()
        self.cluster_limits = _cluster_limits({name: settings.pop(name) for name in _CLUSTER_SETTINGS & set(settings)})
        own = {name: settings.pop(name) for name in list(settings) if name in _OWN_SETTINGS}
        values = {**_OWN_SETTINGS, **own}
        self.ack_timeout: float = _positive("ack_timeout", values["ack_timeout"])
        self.connect_timeout: float = _positive("connect_timeout", values["connect_timeout"])
        self.max_attachments = _positive("max_attachments", values["max_attachments"])
        self.max_pending_acks = _positive("max_pending_acks", values["max_pending_acks"])
        self.max_dynamic_namespaces = _positive("max_dynamic_namespaces", values["max_dynamic_namespaces"])
        self._user = dict(settings)
        self._settings: Settings = read_settings(self._user, (*_OWN_SETTINGS, *sorted(_CLUSTER_SETTINGS), *_ARGUMENTS))
        self._options: dict[str, Any] = {}
        self._endpoints: list[SockJSEndpoint | PlainEndpoint | SocketIOEndpoint] = []
        self._flash_policies: list[FlashPolicyServer] = []
        self._tasks: set[asyncio.Future[Any]] = set()
        self._patterns: list[NamespacePattern] = []
        self.closing: CloseReason | None = None
        """With what ``close`` was called."""
        self.authorize: Handler | None = None
        self.counters: Counter[str] = Counter()
        """How often what happened: ``bad_packets``, ``unknown_acks``."""
        self.namespaces: dict[str, Namespace] = {}
        self.cluster: Cluster | None = None
        """This process among others; None without a backplane."""
        self._id_tag = ""
        self._relaying: Relaying | None = None
        secret, address = read_secret(cluster_secret), read_address(relay)
        if address is not None and (backplane is None or not secret):
            raise SettingError("relay= needs backplane=, and a cluster_secret= that all nodes know and nobody else")
        if backplane is not None:
            self.cluster = Cluster(
                connect(backplane, limits=self.limits, clock=self.clock),
                clock=self.clock,
                limits=self.cluster_limits,
                namespaces=self.namespaces,
                run_later=self.run_later,
            )
            self.cluster.asking.answerers.update(answerers(self))
            self._id_tag = self.cluster.id
            self._relaying = Relaying(
                self.cluster, secret=secret, address=address, limits=self.limits, clock=self.clock
            )
        self.sockets: Namespace = self._make("/")
        """The namespace ``/``."""
        self.manager = Manager(self)
        self.feeds = Feeds(self)
        """The EventSource feeds of this moment, for the parts of this package."""

    # -- namespaces

    def of(self, name: str | re.Pattern[str] | Callable[[str], bool]) -> Any:
        """The namespace *name*; for a pattern or a function of the name, those that it matches, made when asked for.

        A namespace that a client's asking made goes when its last client has left; one that this made stays.
        """
        if not isinstance(name, str):
            pattern = NamespacePattern(name)
            self._patterns.append(pattern)
            return pattern
        name = namespace_name(name)
        found = self.namespaces.get(name)
        if found is None:
            # The pattern's rules hold for it too: whoever names a namespace here first must not open it to everybody.
            found = self._make(name, next((pattern for pattern in self._patterns if pattern.matches(name)), None))
        return found

    def _make(self, name: str, pattern: NamespacePattern | None = None, *, is_dynamic: bool = False) -> Namespace:
        namespace = self.namespaces[name] = Namespace(self, name, pattern, is_dynamic=is_dynamic)
        if self.cluster is not None:
            self.cluster.watch(namespace)
        return namespace

    def find_namespace(self, name: str) -> Namespace | None:
        """The namespace that a client asks for, made now where a pattern matches; None where there is none."""
        found = self.namespaces.get(name)
        if found is not None:
            return found
        for pattern in self._patterns:
            try:
                matches = pattern.matches(name)
            except Exception:
                log.exception("the function that namespaces were to be made by failed for %r", name)
                return None  # nobody comes in by a rule that is broken, nor past it
            if matches:
                if sum(namespace.is_dynamic for namespace in self.namespaces.values()) >= self.max_dynamic_namespaces:
                    self.note("dynamic_namespaces_refused")
                    return None
                return self._make(name, pattern, is_dynamic=True)
        return None

    def forget_if_empty(self, namespace: Namespace) -> None:
        if namespace.is_dynamic and not len(namespace.hub) and self.namespaces.get(namespace.name) is namespace:
            del self.namespaces[namespace.name]

    def current(self, namespace: Namespace) -> Namespace:
        """*namespace*, or the one of its name that was made after it had gone."""
        return self.namespaces.setdefault(namespace.name, namespace)

    # -- the namespace "/", by shorter names

    def on(self, event: str, handler: Handler | None = None) -> Any:
        """``io.on("connection", fn)``: *fn* gets each new Socket of ``/``; also as a decorator."""
        return self.sockets.on(event, handler)

    def once(self, event: str, handler: Handler | None = None) -> Any:
        return self.sockets.once(event, handler)

    def off(self, event: str | None = None, handler: Handler | None = None) -> None:
        self.sockets.off(event, handler)

    def use(self, middleware: Handler) -> Handler:
        """Call ``middleware(socket)`` before a client is let into ``/``; see ``Namespace.use``."""
        return self.sockets.use(middleware)

    def emit(self, event: str, *args: Any) -> int:
        """Send an event to everybody in ``/``; returns to how many on this node."""
        return self.sockets.emit(event, *args)

    def send(self, data: Any) -> int:
        return self.sockets.send(data)

    def to(self, *rooms: str) -> Broadcast:
        return self.sockets.to(*rooms)

    in_ = to

    def except_(self, *rooms_or_ids: str) -> Broadcast:
        return self.sockets.except_(*rooms_or_ids)

    @property
    def volatile(self) -> Broadcast:
        return self.sockets.volatile

    @property
    def local(self) -> Broadcast:
        return self.sockets.local

    async def call(self, event: str, *args: Any, timeout: float | None = None) -> CallResult:
        return await self.sockets.call(event, *args, timeout=timeout)

    async def fetch_sockets(self) -> FetchedSockets:
        """The clients in ``/`` on all nodes."""
        return await self.sockets.fetch_sockets()

    async def count(self) -> Count:
        """How many clients are in ``/`` on all nodes."""
        return await self.sockets.count()

    async def sockets_join(self, *rooms: str) -> Reached:
        return await self.sockets.sockets_join(*rooms)

    async def sockets_leave(self, *rooms: str) -> Reached:
        return await self.sockets.sockets_leave(*rooms)

    async def disconnect_sockets(self, *, close: bool = False) -> Reached:
        return await self.sockets.disconnect_sockets(close=close)

    def on_server(self, event: str, handler: Handler | None = None) -> Any:
        """Call *handler* when another node says *event* to the servers of ``/``; see ``Namespace.on_server``."""
        return self.sockets.on_server(event, handler)

    def server_side_emit(self, event: str, *args: Any) -> bool:
        return self.sockets.server_side_emit(event, *args)

    async def server_side_call(self, event: str, *args: Any, timeout: float | None = None) -> NodeAnswers:
        return await self.sockets.server_side_call(event, *args, timeout=timeout)

    # -- settings

    @property
    def settings(self) -> Settings:
        return self._settings

    @property
    def limits(self) -> Limits:
        return self._settings.limits

    def configure(self, environment: str | Callable[[], Any], function: Callable[[], Any] | None = None) -> Server:
        """Call *function* now; with an *environment* first, only where POLYSOCK_ENV (else ``development``) is it."""
        if function is None:
            if not callable(environment):
                raise TypeError(f"configure({environment!r}) needs a function")
            environment()
        elif os.environ.get("POLYSOCK_ENV", "development") == environment:
            function()
        return self

    def set(self, name: str, value: Any) -> Server:
        """Set an option by its Socket.IO 0.9 name or ours.

        ``authorization`` may change at any time; the others only before ``routes()``.  Raises SettingError for an
        unknown name, StateError when it is too late.
        """
        if name == "authorization":
            self.authorize = value
            return self
        if name == "log level":
            if type(value) is not int or not 0 <= value < len(_LOG_LEVELS):
                raise SettingError(
                    f"log level must be 0 (errors) to {len(_LOG_LEVELS) - 1} (everything), not {value!r}"
                )
            log.setLevel(_LOG_LEVELS[value])
            self._options[name] = value
            return self
        if name in _MEANINGLESS:
            instead = ": await serve_flash_policy() instead" if name.startswith("flash policy") else ""
            warnings.warn(f"the Socket.IO option {name!r} means nothing here{instead}", stacklevel=2)
            self._options[name] = value
            return self
        if name in _OWN_SETTINGS:
            setattr(self, name, _positive(name, value))
            return self
        if name in _CLUSTER_SETTINGS:
            raise StateError(f"give {name!r} to Server(...): the cluster is made with it")
        if self._endpoints:
            raise StateError(f"set {name!r} before routes(): the endpoints are made with the settings of that moment")
        changes = _only_transports(value) if name == "transports" else {_OPTIONS.get(name, name): value}
        user = {**self._user, **changes}
        self._settings = read_settings(user, _OPTION_NAMES)
        self._user = user
        return self

    def get(self, name: str, default: Any = None) -> Any:
        """The value in force of an option; *default* for one that means nothing here and was never set.

        Raises SettingError for an unknown name.
        """
        if name == "authorization":
            return self.authorize
        if name in _OWN_SETTINGS:
            return getattr(self, name)
        if name in _CLUSTER_SETTINGS:
            return getattr(self.cluster_limits, name)
        if name in _MEANINGLESS or name == "log level":
            return self._options.get(name, default)
        if name == "transports":
            off, legacy = self._settings.disabled_transports, self._settings.legacy_transports
            return [
                theirs
                for theirs, ours in _TRANSPORTS.items()
                if (theirs in legacy or theirs not in LEGACY_TRANSPORT_NAMES) and not (ours and ours[0] in off)
            ]
        return read_one(self._settings, _OPTIONS.get(name, name), _OPTION_NAMES)

    def enable(self, name: str) -> Server:
        return self.set(name, True)

    def disable(self, name: str) -> Server:
        return self.set(name, False)

    def enabled(self, name: str) -> bool:
        return bool(self.get(name))

    def disabled(self, name: str) -> bool:
        return not self.get(name)

    # -- mounting and stopping

    def routes(
        self, *, sockjs: str | None = "/polysock", plain: str | None = "/plain", socketio: str | None = "/socket.io"
    ) -> list[Any]:
        """URL specs for a ``tornado.web.Application``; each prefix an argument, None for none of that kind."""
        specs: list[Any] = []
        if sockjs is not None:
            specs += self.route(sockjs)
        if plain is not None:
            specs += self.route_plain(plain)
        if socketio is not None:
            specs += self.route_socketio(socketio)
        return specs

    def route(self, prefix: str) -> list[Any]:
        """URL specs for one more SockJS mount of this Server, with the browser client's files under it."""
        endpoint = SockJSEndpoint(prefix, with_client_script(self._settings), self._peer, self.clock)
        self._mount(endpoint)
        return client_routes(prefix) + endpoint.urls

    def route_plain(self, prefix: str) -> list[Any]:
        """URL specs for one more mount for plain clients (docs/wire-plain.md)."""
        endpoint = PlainEndpoint(prefix, self._settings, self._plain_peer, self.clock)
        self._mount(endpoint)
        return endpoint.urls

    def route_socketio(self, prefix: str) -> list[Any]:
        """URL specs for one more mount for Socket.IO's own clients, 0.9 to 4.x, at the path *prefix*.

        With the setting ``client_files`` their browser files are served under it.
        """
        endpoint = SocketIOEndpoint(prefix, self._settings, self._peer, self.clock)
        self._mount(endpoint)
        return socketio_client_routes(endpoint.prefix, self._settings.client_files) + endpoint.urls

    def route_publish(
        self,
        prefix: str = "/publish",
        *,
        token: str | None = None,
        check: Callable[[Any], bool | Awaitable[bool]] | None = None,
    ) -> list[Any]:
        """URL specs for emitting by an HTTP POST to the path *prefix* (docs/server-api.md).

        Who may is said by *token*, which has to come as ``Authorization: Bearer ...``, or by ``check(request)``, which
        gets Tornado's request, answers True, and may be ``async def``.  Raises SettingError for neither or both, and
        for a token that could be guessed.
        """
        return publish_routes(self, prefix, token=token, check=check)

    def _mount(self, endpoint: SockJSEndpoint | PlainEndpoint | SocketIOEndpoint) -> None:
        self._endpoints.append(endpoint)
        if self._relaying is not None:
            for gateway in endpoint.gateways:
                self._relaying.attach(gateway)

    async def serve_flash_policy(
        self,
        port: int = FLASH_POLICY_PORT,
        address: str = "",
        *,
        domains: Iterable[str] | None = None,
        ports: Iterable[int] | Literal["*"] = "*",
    ) -> FlashPolicyServer:
        """Tell the Flash player, which asks at *port* of *address* (all where empty), that it may open sockets here.

        *domains*: the hosts that Flash files come from, which is this server's own name where socket.io-client 0.9
        loads them; needed unless ``origins`` is ``"*"``, since ``origins`` names pages.  *ports*: those that are served
        here.  What is returned has ``port`` and ``close()``; closing this Server closes it too.

        Raises SettingError, and OSError where the port cannot be had.
        """
        if domains is None:
            if not origin_policy(self._settings, "the Flash policy").any:
                raise SettingError(
                    "serve_flash_policy needs domains=[...] unless origins is '*': the hosts that Flash files are "
                    "loaded from, as a rule this server's own name as browsers know it"
                )
            domains = ["*"]
        try:
            policy = FlashPolicyServer(ports, domains, limits=self.limits, clock=self.clock)
        except ValueError as error:
            raise SettingError(f"serve_flash_policy: {error}") from error
        self._flash_policies.append(policy)
        try:
            await policy.start(port, address)
        except BaseException:
            self._flash_policies.remove(policy)
            raise
        return policy

    def _plain_peer(self, info: ConnectionInfo, session_id: str) -> Peer:
        return plain_peer(self, info)

    def _peer(self, info: ConnectionInfo, session_id: str) -> Peer:
        # A raw WebSocket carries binary as it is; SockJS, and a WebSocket older than the RFC, are text.
        is_text = info.text_only and info.dialect == "plain"
        return Peer(self, info, TEXT_ONLY if is_text else _CODECS[info.dialect])

    def close(self, code: int = GOING_AWAY.code, reason: str = GOING_AWAY.text) -> None:
        """Close every client's connection, for instance when the process stops."""
        closing = GOING_AWAY if (code, reason) == (GOING_AWAY.code, GOING_AWAY.text) else CloseReason(code, reason)
        self.closing = closing
        for endpoint in self._endpoints:
            for gateway in endpoint.gateways:
                gateway.store.close_all(closing)
        self.feeds.close()
        for policy in self._flash_policies:
            policy.close()
        for namespace in list(self.namespaces.values()):
            for socket in namespace.clients():
                socket.receiver.close(closing)  # whatever is mounted elsewhere, and clients in memory

    # -- one of several processes

    async def start(self, application: Any = None) -> None:
        """Join the cluster; without a backplane there is none, and nothing happens.

        *application* is what this process's HTTP server serves: requests for sessions of other nodes are passed on to
        them, and theirs taken, on a Unix socket and where the setting ``relay`` says.  Without it a load balancer must
        send each client to one node.  Start before you listen.

        Raises StateError for a second start, BackplaneDown, and OSError where the relay cannot listen; after an error
        it may be tried again.
        """
        if self.cluster is None or self._relaying is None:
            return
        self._relaying.prepare(application)
        try:
            await self.cluster.start(self._relaying.listen)
        except StateError:
            raise  # it runs already
        except BaseException:
            await self._relaying.stop()
            raise

    async def stop(self) -> None:
        """Leave the cluster: the other nodes are told first.  Clients stay until ``close``."""
        if self.cluster is not None and self._relaying is not None:
            await self.cluster.stop()
            await self._relaying.stop()

    def share(self, router: ConnectionRouter) -> None:
        """Let requests for *router*'s sessions be answered by any node too; it is mounted in the same application.

        Every node must mount the same.  Raises TypeError for what is no SockJSRouter or EngineIORouter.
        """
        if not isinstance(router, ConnectionRouter):
            raise TypeError(f"share takes a SockJSRouter or an EngineIORouter, not {type(router).__name__}")
        if self._relaying is not None:
            for gateway in router.gateways:
                self._relaying.attach(gateway)

    def stats(self) -> dict[str, int]:
        """Numbers of this process for a metrics page; their names are always the same (docs/server-api.md).

        ``sessions``, ``members``, ``cluster_nodes`` (the others) and ``cluster_is_up`` (1 or 0) tell what there is now;
        all others only rise.
        """
        cluster, relaying = self.cluster, self._relaying
        by_part = {"server": self.counters}
        if cluster is not None and relaying is not None:
            by_part |= {"cluster": cluster.counters, "relay": relaying.counters}
            by_part |= {"backplane": cluster.backplane.counters}
        return {
            "sessions": sum(len(gateway.store) for endpoint in self._endpoints for gateway in endpoint.gateways),
            "members": sum(len(namespace.hub) for namespace in self.namespaces.values()),
            "cluster_nodes": len(cluster.nodes) if cluster is not None else 0,
            "cluster_is_up": int(cluster is not None and cluster.is_up),
            **counted(by_part),
        }

    # -- for the parts of this package

    def make_id(self) -> str:
        """An id that nobody can guess; in a cluster this node's id stands in front."""
        return self._id_tag + secrets.token_urlsafe(_ID_BYTES)

    def note(self, what: str) -> None:
        self.counters[what] += 1

    def run_later(self, awaitable: Awaitable[Any], what: str) -> None:
        """Run what an ``async def`` hook returned; the server holds it, and logs what it raises."""
        task = asyncio.ensure_future(awaitable)
        self._tasks.add(task)

        def done(finished: asyncio.Future[Any]) -> None:
            self._tasks.discard(finished)
            if not finished.cancelled() and finished.exception() is not None:
                log.error("the %s handler failed", what, exc_info=finished.exception())

        task.add_done_callback(done)


def _cluster_limits(given: dict[str, Any]) -> ClusterLimits:
    try:
        return ClusterLimits(**given)
    except ValueError as error:
        raise SettingError(str(error)) from error


def _positive(name: str, value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise SettingError(f"{name} must be a number greater than zero, not {value!r}")
    if isinstance(_OWN_SETTINGS[name], int) and not isinstance(value, int):
        raise SettingError(f"{name} must be a whole number, not {value!r}")
    return value


def _only_transports(transports: Any) -> dict[str, list[str]]:
    """The settings that Socket.IO's list of transports stands for."""
    if isinstance(transports, str) or not isinstance(transports, Iterable):
        raise SettingError(f"transports must be a list, not {transports!r}")
    unknown = [name for name in transports if name not in _TRANSPORTS]
    if unknown:
        raise SettingError(f"transports: there is no {unknown[0]!r}; there are {', '.join(_TRANSPORTS)}")
    wanted = {ours for name in transports for ours in _TRANSPORTS[name]}
    return {
        "disabled_transports": [name for name in TRANSPORT_NAMES if name not in wanted],
        "legacy_transports": [name for name in transports if name in LEGACY_TRANSPORT_NAMES],
    }
