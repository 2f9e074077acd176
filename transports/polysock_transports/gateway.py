"""The Tornado glue: a request comes in, is judged, and goes to a page, a transport or a session.

Everything that is the same for all dialects and transports stands here once: routing, the origin rule, body limits,
cookies, caching and CORS headers.  Knows no message and no application object; those are the listener's.
"""

from __future__ import annotations

import inspect
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, cast

from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPHeaders
from tornado.iostream import IOStream
from tornado.web import Application, HTTPError, RequestHandler, stream_request_body

from .addresses import TrustedProxies
from .clock import Clock, LoopClock
from .dialects import Dialect
from .dialects.plain import PLAIN, PLAIN_TEXT
from .errors import (
    INTERRUPTED,
    REFUSED,
    WRONG_ADDRESS,
    CloseReason,
    ProtocolError,
    Refused,
    StateError,
)
from .eventsource import EventSource
from .hixie import HixieFlashSocket, HixieWebSocket, RawHixieWebSocket
from .hixie76 import Handshake, read_handshake
from .htmlfile import HtmlFile
from .httplane import LANE_KINDS, NOT_HTTP, HttpConnection, HttpLane, LaneRequest
from .jsonp import JsonpPolling
from .limits import DEFAULT_LIMITS, Limits
from .opening import OpeningRequest, write_headers
from .origins import OriginPolicy
from .pages import NEVER_CACHE, Answer, cache_forever
from .permessage_deflate import DeflateOptions, negotiate
from .pipes import ClosingExchange, Exchange, Headers, IOStreamPipe, KeepAliveExchange, Pipe
from .relaywire import RELAY_HEADER, Passed, read_passed
from .rfc6455 import HYBI_VERSIONS, VERSION, check_handshake, handshake_response, offered_subprotocols
from .session import Listener, Session, State
from .socketpipe import SocketPipe
from .store import SessionStore
from .takeover import PromptHandler, RelayedContext, can_take_over, find_server, take_over
from .transport import HttpTransport, Transport
from .websocket import FlashSocket, RawWebSocket, WebSocket
from .wire import ConnectionInfo, Refusal, Request, Route
from .xhr import XhrPolling, XhrStreaming

if TYPE_CHECKING:
    from .entrance import Entering
    from .placement import Node
    from .relay import Relay
    from .relayed import Passing

__all__ = ["Gateway", "GatewayHandler", "SessionListener", "TornadoRequest"]

log = logging.getLogger("polysock.gateway")

_HTTP_TRANSPORTS: dict[str, type[HttpTransport]] = {
    transport.name: transport for transport in (XhrPolling, XhrStreaming, EventSource, HtmlFile, JsonpPolling)
}
_WEBSOCKETS: dict[str, type[WebSocket]] = {
    "websocket": WebSocket,
    "rawwebsocket": RawWebSocket,
    "flashsocket": FlashSocket,
}
_HIXIE: dict[str, type[HixieWebSocket]] = {
    "websocket": HixieWebSocket,
    "rawwebsocket": RawHixieWebSocket,
    "flashsocket": HixieFlashSocket,
}
# What scripts of another origin read; script elements and frames need no CORS.
_CORS_ROUTES = frozenset(("xhr", "xhr_streaming", "xhr_send", "eventsource", "info", "poll", "emit", "leave", "events"))
_FRAMED_ROUTES = frozenset(("htmlfile", "iframe"))
# How clients ask for what they receive by.
_METHODS = ("GET", "POST")
# What says nothing and does nothing: a link from another site may lead there.
_PAGES_FOR_ALL = frozenset(("greeting", "script"))
_TEXT = ("Content-Type", "text/plain; charset=UTF-8")
# RFC 6265 section 4.1.1, without the quotes around: what may be sent back as it came.
_COOKIE_VALUE = re.compile(r"[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]{1,256}\Z")
# Percent-encoding makes three bytes of one, and a form has a field name.
_FORM_GROWTH = 3
_FORM_EXTRA_BYTES = 64


class SessionListener(Listener, Protocol):
    """A listener as the gateway makes it: told of its session before anything else."""

    def bind(self, session: Session) -> None: ...

    def select_subprotocol(self, offered: list[str]) -> str | None:
        """One of *offered* (never empty), or None.  Asked on raw WebSockets only."""


ListenerFactory = Callable[[ConnectionInfo, str], SessionListener]


@dataclass(eq=False, repr=False)
class Gateway:
    """One endpoint: what its handlers share."""

    dialect: Dialect
    listener: ListenerFactory
    """(info, session id) -> the listener of a new session."""
    mount: re.Pattern[str]
    """Matches the endpoint's prefix at the start of a path."""
    page: Callable[[str, str, Mapping[str, str]], Answer]
    """(page name, path of the mount, request headers) -> the answer."""
    limits: Limits = DEFAULT_LIMITS
    clock: Clock = field(default_factory=LoopClock)
    origins: OriginPolicy = field(default_factory=OriginPolicy)
    proxies: TrustedProxies = field(default_factory=TrustedProxies)
    disabled: frozenset[str] = frozenset()
    """Names of transports that are switched off."""
    sid_cookie: str = ""
    """Name of the cookie that tells load balancers an Engine.IO session's id; empty for none."""
    session_cookie: bool = False
    """Whether to set JSESSIONID, for load balancers that route by it."""
    verify_address: bool = False
    """Whether a session belongs to the address that opened it."""
    compression: DeflateOptions | None = None
    fast_lane: bool = True
    """Whether plain-TCP connections leave Tornado's streams once they are admitted (see ``socketpipe.py``)."""
    draft76: bool = False
    """Whether WebSockets of the drafts before RFC 6455 are let in: hixie-75, hixie-76, hybi-07 and later."""
    base_handler: type[RequestHandler] | None = None
    handler: type[GatewayHandler] | None = None
    """A request handler of this endpoint's own, in place of ``GatewayHandler``."""
    relay: Relay | None = field(init=False, default=None)
    """Passes on what belongs to other nodes; None where this is the only one."""
    store: SessionStore = field(init=False)
    lane: HttpLane = field(init=False)
    _lane_handler: type | None = field(init=False, default=None)
    opened: dict[str, int] = field(init=False, default_factory=dict)
    """Transport name -> how many sessions it has opened."""
    _date: tuple[int, tuple[str, str]] = field(init=False, default=(0, ("Date", "")))

    def __post_init__(self) -> None:
        self.store = SessionStore(self.limits, self.clock)
        limits = self.limits
        self.lane = HttpLane(
            self.clock,
            body_timeout_s=limits.body_timeout_s,
            max_ahead_bytes=limits.max_ahead_bytes,
            read_bytes=limits.read_chunk_bytes,
            high_bytes=limits.pipe_high_bytes,
            write_timeout_s=limits.write_timeout_s,
        )

    def can_take_over(self, stream: IOStream) -> bool:
        """Whether the connection of *stream* may leave it."""
        return self.fast_lane and can_take_over(stream)

    def lane_handler(self, connection: HttpConnection | Entering, request: Any) -> Any:
        """The handler of a request that Tornado has not read."""
        made = self._lane_handler
        if made is None:
            made = self._lane_handler = type("LaneRequest", (self.handler or GatewayHandler, LaneRequest), {})
        return made(connection, request)

    def take_over(self, stream: IOStream) -> SocketPipe | None:
        """A pipe on the connection of *stream*, which ends; None where the connection has to stay in its stream."""
        if not self.can_take_over(stream):
            return None
        sock, rest = take_over(stream)
        pipe = SocketPipe(self.lane, rest)
        pipe.connect(sock)
        return pipe

    def handler_class(self) -> type[RequestHandler]:
        """The request handler of this endpoint; with ``base_handler`` also a subclass of that."""
        own = (self.base_handler,) if self.base_handler is not None else ()
        return type("GatewayRequest", (self.handler or GatewayHandler, TornadoRequest, *own), {})

    def date_header(self) -> tuple[str, str]:
        """The Date header (RFC 9110 section 6.6.1), made once a second."""
        now = int(time.time())
        if self._date[0] != now:
            self._date = (now, ("Date", formatdate(now, usegmt=True)))
        return self._date[1]

    @property
    def frame_headers(self) -> Headers:
        """Who may put our pages into a frame: the iframe page acts for whoever embeds it, on our own origin."""
        ancestors = self.origins.frame_ancestors
        if ancestors is None:
            return ()
        policy = ("Content-Security-Policy", f"frame-ancestors {ancestors}")
        # Browsers that know no such policy (IE 8 to 11) know this header, which cannot name other origins.
        return (policy, ("X-Frame-Options", "SAMEORIGIN")) if ancestors == "'self'" else (policy,)


class GatewayHandler:
    """One request: what becomes of it, whichever way it was read.

    Mixed with a host that has read it: ``TornadoRequest``, or on a connection taken over ``LaneRequest``.
    """

    gateway: Gateway
    #: Whether sessions have ids of ours, which name the node that made them, and not of their clients.
    ids_are_ours = False
    is_elsewhere = False
    """Whether this is a poll that was passed on to another node."""
    passing: Passing | None = None
    """Where this is to become another node's WebSocket: who waits for that node."""
    _carrier: HttpTransport | None = None
    """The transport of a poll, kept for the next one where the host can tell that it is the same request."""
    _carrier_headers: Headers = ()
    _dated: tuple[str, str] | None = None
    _gone = False  # the connection has closed
    _is_complete = False  # the body has come, and nobody reads from the connection
    _is_judged = False
    _holds_back = False  # answers have to wait until the body, were there one, would have come
    _rest: Callable[[], Awaitable[None] | None] | None = None
    """What is left to do of a request that was served before its body would have come."""
    _kept: Exchange | None = None  # an answer that was not begun
    _is_question = False  # of another node, on its own behalf

    if TYPE_CHECKING:  # the host's
        request: Any
        application: Application

        @property
        def is_relayed(self) -> bool:
            """Whether another node has passed this on."""

        def _make_pipe(self, *, fast: bool) -> Pipe:
            """The connection, whose next bytes are not HTTP any more; *fast*: out of Tornado's stream if it can be."""

        def _make_exchange(self) -> Exchange:
            """The answer, not begun yet; ``_done`` is told its status."""

        def _no_more_body(self) -> None:
            """The client has gone: whoever waits for the rest of the body waits in vain."""

        def _bound_body(self) -> None:
            """A body follows: give it ``body_timeout_s``."""

        def _keep(self, carrier: HttpTransport) -> None:
            """The same request may come again; it is then served with *carrier* in ``_carrier``."""

        def _log_access(self, status: int) -> None:
            """The answer is complete: a line for the access log."""

        async def _ask_application(self) -> bool:
            """Let the application's own handler look at the request once.

            False where it has answered by itself, or the client did not wait.
            """

    def initialize(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self._exchange: Exchange | None = None
        self._route: Route | Refusal | None = None
        self._mount = ""
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._body_limit = 0
        self._user: Any = None
        self._draft: Handshake | None = None  # of a WebSocket that is older than the RFC's frames

    # -- before the body

    def prepare(self) -> None:
        if not self._is_judged:
            self.choose()
            self.admit()

    @property
    def route(self) -> Route | Refusal | None:
        """Where the request goes, as ``choose`` found it."""
        return self._route

    def choose(self) -> None:
        """Find where the request goes; nothing else has happened to it then."""
        gateway, request = self.gateway, self.request
        found = gateway.mount.match(request.path)
        self._mount = found.group() if found else ""
        assert request.method is not None
        upgrade = request.headers.get("Upgrade", "").lower() == "websocket"
        self._route = route = self._find_route(
            Request(request.method, request.path[len(self._mount) :], request.query, upgrade)
        )
        if isinstance(route, Route) and self._is_disabled(route):
            self._route = None

    def body_limit(self) -> int:
        """How long the body may be, in bytes."""
        assert isinstance(self._route, Route)
        if self._route.kind != "send":
            return _FORM_EXTRA_BYTES
        limit, is_form = self._body_rule(self._route)
        return limit * _FORM_GROWTH + _FORM_EXTRA_BYTES if is_form else limit

    def admit(self) -> None:
        """Judge the request by its head, before its body comes."""
        gateway, request, route = self.gateway, self.request, self._route
        if not isinstance(route, Route):
            return
        if route.page not in _PAGES_FOR_ALL and not gateway.origins.judge(
            request.headers, request.protocol, request.host
        ):
            log.info("refused %s %s: origin not allowed", request.method, self._name())
            self._route = self._origin_refusal(route)
        elif route.kind == "send":
            self._body_limit = self.body_limit()
            length = request.headers.get("Content-Length", "")
            # A body that never ends would hold its connection for ever.
            self._bound_body()
            # Anything but digits is Tornado's to refuse, a moment later.
            if length.isdecimal() and int(length[:20]) > self._body_limit:
                self._too_big()

    def _find_route(self, request: Request) -> Route | Refusal | None:
        return self.gateway.dialect.route(request, self.gateway.limits)

    def _origin_refusal(self, route: Route) -> Refusal:
        return Refusal(403, _ORIGIN_REFUSED)

    def _body_rule(self, route: Route) -> tuple[int, bool]:
        """The longest payload of a POST in bytes, and whether it comes as a field of a form."""
        return self.gateway.limits.max_payload_bytes, "unwrap" in route.options

    def _is_disabled(self, route: Route) -> bool:
        disabled = self.gateway.disabled
        if not disabled:
            return False
        name = route.transport
        return (
            name in disabled
            or (name == "rawwebsocket" and "websocket" in disabled)
            or (name == "jsonp_send" and "jsonp" in disabled)
        )

    def _name(self) -> str:
        route = self._route
        return (route.transport or route.page) if isinstance(route, Route) else ""

    def data_received(self, chunk: bytes) -> None:
        self._body_bytes += len(chunk)
        if self._exchange is not None:
            return
        if self._body_bytes > max(self._body_limit, _FORM_EXTRA_BYTES):
            # A body that nobody asked for, or one that grew over the limit.
            self._body.clear()
            self._too_big()
        elif self._body_limit:
            self._body.append(chunk)

    def serve(self, body: bytes) -> Awaitable[None] | None:
        """Answer an admitted request whose *body* is complete."""
        self._body.append(body)
        return self._serve()

    def _too_big(self) -> None:
        # Answering before the body is read makes Tornado close the connection: the rest is never read.
        self._answer(413, (_TEXT, NEVER_CACHE, *self._cors()), b"Payload too big.")

    # -- the request is complete

    def _serve(self, *_groups: str, **_named: str) -> Awaitable[None] | None:
        # (A prefix may hold groups of its own, as in sockjs-tornado; they mean nothing here.)
        if self._exchange is not None:
            return None
        self._is_complete = True
        rest = self._rest
        if rest is not None:
            self._rest = None  # it knows this handler
            return rest()
        route = self._route
        if route is None:
            self._answer(404, (_TEXT, NEVER_CACHE), b"Not found.\n")
        elif isinstance(route, Refusal):
            self._refuse(route)
        elif route.kind == "page":
            status, headers, body = self.gateway.page(route.page, self._mount, self.request.headers)
            self._answer(status, (*headers, *self._cors()), body)
        elif route.kind == "preflight":
            self._preflight(route)
        elif self.gateway.relay is not None and route.session_id and route.transport not in _WEBSOCKETS:
            return self.gateway.relay.serve(self, route)
        else:
            return self.serve_here(route)
        return None

    def serve_here(self, route: Route) -> Awaitable[None] | None:
        """Answer a request that no other node is to answer."""
        if route.kind == "send":
            return self._send(route)
        if route.transport in _WEBSOCKETS:
            return self._open_websocket(route)
        return self._receive(route)

    get = head = post = put = patch = delete = options = _serve

    def _known_route(self) -> Route | Refusal | None:
        found = self.gateway.mount.match(self.request.path)
        path = self.request.path[found.end() if found else 0 :]
        return self._find_route(Request(self.request.method or "", path, self.request.query))

    # -- several nodes

    @property
    def passed(self) -> Passed | None:
        """What another node says of this request, which has passed it on; None where it comes from its client."""
        return read_passed(self.request.headers.get(RELAY_HEADER, "")) if self.is_relayed else None

    @property
    def body(self) -> bytes:
        return b"".join(self._body)

    @property
    def client_address(self) -> str:
        return self._address()

    @property
    def is_gone(self) -> bool:
        """Whether the client has left."""
        return self._gone

    def relay_failed(self, route: Route) -> Awaitable[None] | None:
        """Answer a request which another node was to answer and has not: the client is to open a new session."""
        if self.ids_are_ours or route.kind == "send":
            return self.serve_here(route)  # where nobody knows the session
        transport = self._open_transport()
        if transport is not None:
            frame = self.gateway.dialect.goodbye(INTERRUPTED)
            assert frame is not None
            transport.write((frame,))
            transport.finish(INTERRUPTED)
        return None

    def answer_node(self, status: int, body: bytes = b"") -> None:
        """Answer what another node has asked on its own behalf."""
        self._is_question = True
        self._answer(status, (NEVER_CACHE,), body)

    def open_answer(self) -> Exchange:
        """The answer, to be made by another node."""
        return self._open_exchange()

    def keep_answer(self, exchange: Exchange) -> None:
        """Nothing was written to *exchange*: it is for whatever else the answer will be."""
        self._kept = exchange

    def refuse(self, refusal: Refusal) -> None:
        self._refuse(refusal)

    def begin_tunnel(self, answer: bytes) -> Pipe:
        """Leave HTTP with *answer*, the 101 of another node."""
        pipe = self._leave_http(answer, fast=self._draft is None)
        if isinstance(pipe, IOStreamPipe) and self._draft is not None:
            pipe.watch(self.gateway.limits.heartbeat_delay_s, self.gateway.limits.heartbeat_timeout_s)
        return pipe

    async def _tunnel(self, route: Route, node: Node) -> None:
        relay = self.gateway.relay
        assert relay is not None
        if not await relay.tunnel(self, route, node):
            answering = self._websocket(route)  # where nobody knows the session
            if answering is not None:
                await answering

    def _new_id(self, random_bytes: int) -> str:
        """The id of a new session, which nobody can guess."""
        relay = self.gateway.relay
        return secrets.token_urlsafe(random_bytes) if relay is None else relay.placement.new_id()

    # -- answers

    def _open_exchange(self) -> Exchange:
        kept, self._kept = self._kept, None
        self._exchange = exchange = self._make_exchange() if kept is None else kept
        return exchange

    def _done(self, status: int) -> None:
        if self._is_question:
            return  # no client has asked that
        try:
            self._log_access(status or 499)
        except Exception:
            # The application's own log_function; the session that this answer belongs to must not fail with it.
            log.exception("the access log failed")

    def on_finish(self) -> None:
        """The host is done with the request."""

    def on_connection_close(self) -> None:
        self._gone = True
        self._no_more_body()
        if self._exchange is not None:
            self._exchange.lost()
        elif self.passing is not None:
            self.passing.exchange_lost()

    def _answer(self, status: int, headers: Headers, body: bytes = b"") -> None:
        # (An answer that is open already belongs to a connection that is ours.)
        if self._holds_back and self._kept is None:
            self._rest = partial(self._answer, status, headers, body)
            return
        if self.request.method == "HEAD":
            body = b""  # what followed the head would be read as the next answer (RFC 9110 section 9.3.2)
        self._open_exchange().respond(status, (self.gateway.date_header(), *headers), body)

    def _refuse(self, refusal: Refusal) -> None:
        text = refusal.text.encode()
        has_type = not text or any(name == "Content-Type" for name, _ in refusal.headers)
        content: Headers = () if has_type else (_TEXT,)
        self._answer(refusal.status, (*content, NEVER_CACHE, *refusal.headers), text)

    def _refused(self, refusal: Refused) -> None:
        self._answer(refusal.status, (_TEXT, NEVER_CACHE, *self._cors()), str(refusal).encode())

    def _preflight(self, route: Route) -> None:
        methods = ", ".join(route.methods)
        headers = (
            ("Access-Control-Allow-Methods", methods),
            ("Allow", methods),
            ("Access-Control-Max-Age", str(31536000)),
            *cache_forever(),
            *self._cors(),
            *(self._cookies() if route.transport else ()),
        )
        self._answer(204, headers)

    def _cors(self) -> Headers:
        if self._name() not in _CORS_ROUTES:
            return ()
        return self.gateway.origins.cors_headers(self.request.headers)

    def _cookies(self) -> Headers:
        if not self.gateway.session_cookie:
            return ()
        brought = self.request.cookies.get("JSESSIONID")
        value = brought.value if brought is not None and _COOKIE_VALUE.match(brought.value) else "dummy"
        # IE 6 to 9 keep no cookie of a page in a frame of another site without a privacy policy.
        return (("Set-Cookie", f"JSESSIONID={value}; path=/"), ("P3P", 'CP="CAO PSA OUR"'))

    def _session_headers(self) -> Headers:
        headers = (NEVER_CACHE, *self._cors(), *self._cookies())
        return (*headers, *self.gateway.frame_headers) if self._name() in _FRAMED_ROUTES else headers

    # -- sessions

    def _address(self) -> str:
        if self.is_relayed:
            return str(self.request.remote_ip)  # as the node has judged that the client has reached
        return self.gateway.proxies.client_address(self.request.remote_ip or "", self.request.headers)

    def _info(self, route: Route) -> ConnectionInfo:
        request = self.request
        return OpeningRequest(
            self.gateway.lane.shared(write_headers(self._client_headers())),
            request.query,
            ip=self._address(),
            path=request.path,
            origin=request.headers.get("Origin") or request.headers.get("Sec-WebSocket-Origin"),
            transport=route.transport,
            text_only=self._draft is not None,
            dialect=self._language(route),
            application=self.application,
            current_user=self._user,
        )

    def _client_headers(self) -> HTTPHeaders:
        """The headers as the client has sent them."""
        headers: HTTPHeaders = self.request.headers
        if self.is_relayed:
            headers = headers.copy()
            headers.pop(RELAY_HEADER, None)
        return headers

    def _language(self, route: Route) -> str:
        return PLAIN.name if route.transport == "rawwebsocket" else self.gateway.dialect.name

    def _new_session(self, route: Route) -> tuple[Session, SessionListener]:
        """A session that is not in the store yet.  Raises Refused where there is no room for it."""
        gateway = self.gateway
        info = self._info(route)
        gateway.store.check_room(info.ip)
        listener = gateway.listener(info, route.session_id)
        session = self._make_session(route, listener, info.ip)
        listener.bind(session)
        return session, listener

    def _make_session(self, route: Route, listener: SessionListener, address: str) -> Session:
        gateway = self.gateway
        plain = PLAIN if self._draft is None else PLAIN_TEXT
        return Session(
            route.session_id,
            listener,
            plain if route.transport == "rawwebsocket" else gateway.dialect,
            scheduler=gateway.store,
            clock=gateway.clock,
            limits=gateway.limits,
            address=address,
            resumable=route.transport not in _WEBSOCKETS,
        )

    def _open(self, session: Session, route: Route) -> None:
        """Open *session*, counting it from here on.  Raises Refused."""
        self.gateway.store.add(session)
        session.open()
        opened = self.gateway.opened
        opened[route.transport] = opened.get(route.transport, 0) + 1

    def _receive(self, route: Route) -> Awaitable[None] | None:
        if self.gateway.base_handler is not None and self.gateway.store.get(route.session_id) is None:
            return self._receive_asking(route)
        self._attach(route)
        return None

    async def _receive_asking(self, route: Route) -> None:
        if await self._ask_application():
            self._attach(route)

    def _attach(self, route: Route) -> None:
        gateway = self.gateway
        session = gateway.store.get(route.session_id)
        fresh = session is None
        try:
            if session is None:
                session, _ = self._new_session(route)
        except Refused as error:
            self._refused(error)
            return
        transport = self._carry_again() or self._open_transport()
        if transport is None:
            return
        if not fresh and gateway.verify_address and session.address != self._address():
            session.turn_away(transport, WRONG_ADDRESS)
            return
        if fresh:
            try:
                self._open(session, route)
            except Refused as error:
                session.refuse(CloseReason(REFUSED.code, error.text, may_return=False))
        session.attach(transport)

    def _open_transport(self) -> HttpTransport | None:
        """The transport that a client of SockJS asks for, or None after it was told what is wrong with that."""
        gateway = self.gateway
        route = self._route
        assert isinstance(route, Route)
        try:
            return self._carry(_HTTP_TRANSPORTS[route.transport], self._query_options, gateway.limits)
        except ProtocolError as error:
            assert self._exchange is not None
            headers = (gateway.date_header(), *self._session_headers(), _TEXT, _NOSNIFF)
            self._exchange.respond(error.status, headers, str(error).encode())
            return None

    def _query_options(self, route: Route) -> Mapping[str, Any]:
        return {**route.options, "callback": self._query("c") or self._query("callback")}

    def _carry(
        self,
        kind: type[HttpTransport],
        options: Callable[[Route], Mapping[str, Any]],
        limits: Limits,
        more: Headers = (),
    ) -> HttpTransport:
        """The transport of this request, on its answer.  *more* headers than those of every session's answer.

        Raises ProtocolError, the answer having been opened.
        """
        gateway, carrier = self.gateway, self._carrier
        date = gateway.date_header()
        if carrier is None:
            headers = (date, *self._session_headers(), *more)
            route = self._route
            assert isinstance(route, Route)
            carrier = kind(self._open_exchange(), headers, options(route), limits)
            if kind.one_shot:
                self._keep(carrier)
            return carrier
        if date is not self._dated:
            self._dated = date
            complete = kind.complete((date, *self._session_headers(), *more))
            self._carrier_headers = gateway.lane.heads.share(complete)
        carrier.again(self._open_exchange(), self._carrier_headers)
        return carrier

    def _carry_again(self) -> HttpTransport | None:
        """The same as ``_carry`` where the answer before this one was of the same second, else None."""
        carrier = self._carrier
        if carrier is None or self._dated is not self.gateway.date_header():
            return None
        carrier.again(self._open_exchange(), self._carrier_headers)
        return carrier

    def _query(self, name: str) -> str | None:
        values = self.request.query_arguments.get(name)
        return values[-1].decode("latin-1") if values else None

    def _send(self, route: Route) -> Awaitable[None] | None:
        gateway = self.gateway
        session = gateway.store.get(route.session_id)
        if session is None or session.state is not State.OPEN:
            self._answer(404, (*self._session_headers(), _TEXT), b"Unknown session.\n")
            return None
        if gateway.verify_address and session.address != self._address():
            self._answer(403, (*self._session_headers(), _TEXT), b"This session belongs to another address.\n")
            return None
        return self._deliver(route, session)

    def _deliver(self, route: Route, session: Session) -> Awaitable[None] | None:
        """Hand the body to *session*, and answer when it has room for more."""
        try:
            body, form = self._payload(route, b"".join(self._body), session)
            session.check_inbox()
            session.receive(body, form)
        except ProtocolError as error:
            self._answer_unread(session, error)
            return None
        if session.inbox_full:
            return self._answer_send_later(route, session)
        self._answer_send(route)
        return None

    def _payload(self, route: Route, body: bytes, session: Session) -> tuple[str | bytes, str]:
        """What *body* holds for the dialect, and in which form.  Raises ProtocolError."""
        unwrap = route.options.get("unwrap")
        if unwrap is not None:
            body = unwrap(body, self.request.headers.get("Content-Type", ""))
        return body, route.transport

    def _answer_unread(self, session: Session, error: ProtocolError) -> None:
        self._answer(error.status, (*self._session_headers(), _TEXT), str(error).encode())

    async def _answer_send_later(self, route: Route, session: Session) -> None:
        # Clients send the next payload when this one is answered: so a slow handler holds back its own client.
        await session.room()
        self._answer_send(route)

    def _answer_send(self, route: Route) -> None:
        status, body = route.options["answer"]
        self._answer(status, (*self._session_headers(), _TEXT), body)

    # -- WebSocket

    def _open_websocket(self, route: Route) -> Awaitable[None] | None:
        refusal = self._check_handshake()
        if refusal is None and self.request.version != "HTTP/1.1":
            refusal = Refusal(400, "A WebSocket needs HTTP/1.1.")
        if refusal is not None:
            self._refuse(refusal)
            return None
        relay = self.gateway.relay
        node = relay.socket_node(self, route.session_id) if relay is not None else None
        if node is not None:
            return self._tunnel(route, node)
        if self.gateway.base_handler is not None:
            return self._websocket_asking(route)
        return self._websocket(route)

    def _check_handshake(self) -> Refusal | None:
        """Why this request may not become a WebSocket; None where it may, by RFC 6455 or by an older draft."""
        request, drafts = self.request, self.gateway.draft76
        refusal = check_handshake(request.method or "", request.headers, HYBI_VERSIONS if drafts else (VERSION,))
        if refusal is None or refusal.status != 426 or not drafts:
            return refusal
        found = read_handshake(request.headers, request.uri or "", secure=request.protocol == "https")
        if isinstance(found, Handshake):
            self._draft = found
            return None
        return found or refusal

    async def _websocket_asking(self, route: Route) -> None:
        if await self._ask_application():
            opening = self._websocket(route)
            if opening is not None:
                await opening

    def _websocket(self, route: Route) -> Awaitable[None] | None:
        limits = self.gateway.limits
        raw = route.transport == "rawwebsocket"
        subprotocol = None
        try:
            session, listener = self._new_session(route)
            offered = self._offered_subprotocols() if raw else []
            if offered:
                subprotocol = listener.select_subprotocol(offered)
                if subprotocol is not None and subprotocol not in offered:
                    raise StateError(f"select_subprotocol chose {subprotocol!r}, which the client did not offer")
        except Refused as error:
            self._refused(error)
            return None
        try:
            self._open(session, route)
        except Refused as error:
            if raw:
                session.discard()
                self._refused(error)
                return None
            # A SockJS client that is told so gives up; one whose handshake fails tries every other transport.
            session.refuse(CloseReason(REFUSED.code, error.text, may_return=False))
        max_bytes = limits.max_message_bytes if raw else limits.max_payload_bytes
        self._upgrade(session.attach, route.transport, max_message_bytes=max_bytes, subprotocol=subprotocol)
        return None

    def _offered_subprotocols(self) -> list[str]:
        if self._draft is not None:
            return list(self._draft.subprotocols)
        return offered_subprotocols(self.request.headers.get("Sec-WebSocket-Protocol"))

    def _upgrade(
        self,
        take: Callable[[Transport], Any],
        transport_name: str,
        *,
        max_message_bytes: int,
        subprotocol: str | None = None,
    ) -> None:
        """Answer 101, and hand the WebSocket that this request becomes to *take*."""
        gateway, headers, draft = self.gateway, self.request.headers, self._draft
        limits = gateway.limits
        agreed = None
        if draft is not None:
            answer = draft.response(subprotocol)
        else:
            if gateway.compression is not None:
                agreed = negotiate(headers.get("Sec-WebSocket-Extensions"), gateway.compression)
            answer = handshake_response(
                headers["Sec-WebSocket-Key"], subprotocol, agreed[0] if agreed else None, (gateway.date_header(),)
            )
        pipe = self._leave_http(answer, fast=draft is None and agreed is None)
        transport: WebSocket
        if draft is not None:
            assert isinstance(pipe, IOStreamPipe)
            pipe.watch(limits.heartbeat_delay_s, limits.heartbeat_timeout_s)
            transport = _HIXIE[transport_name](
                pipe, limits, max_message_bytes=max_message_bytes, handshake=draft, clock=gateway.clock
            )
        else:
            transport = _WEBSOCKETS[transport_name](
                pipe, limits, max_message_bytes=max_message_bytes, deflate=agreed[1] if agreed else None
            )
        take(transport)
        pipe.start()

    def _leave_http(self, answer: bytes, *, fast: bool) -> Pipe:
        """Answer with *answer*, a 101; then the connection is a pipe, which is not read yet."""
        pipe = self._make_pipe(fast=fast)
        pipe.write(answer)
        self._done(101)
        return pipe


@stream_request_body
class TornadoRequest(PromptHandler):
    """A request that Tornado has read.

    The body is taken as bytes whatever its content type says (clients send any), so Tornado's own form parsing is
    kept out of it by streaming.
    """

    gateway: Gateway
    _server: HTTPServer | None = None

    if TYPE_CHECKING:  # of ``GatewayHandler``, which this is mixed with
        _gone: bool
        _is_complete: bool
        _draft: Handshake | None
        _holds_back: bool
        _is_judged: bool
        _rest: Callable[[], Awaitable[None] | None] | None
        _route: Route | Refusal | None
        _user: Any

        def admit(self) -> None: ...

        def choose(self) -> None: ...

        def _check_handshake(self) -> Refusal | None: ...

        def _done(self, status: int) -> None: ...

        def _serve(self) -> Awaitable[None] | None: ...

        def _known_route(self) -> Route | Refusal | None: ...

    @property
    def is_relayed(self) -> bool:
        return type(getattr(self.request.connection, "context", None)) is RelayedContext

    def check_xsrf_cookie(self) -> None:
        """Tornado's form token has no place in these protocols; the origin rule does its work."""

    def check_trusted_origin(self, origin: str) -> bool:
        """Asked by Tornado's own cross-origin protection, before ``prepare``: leave the judging to the gateway."""
        return True

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Errors as plain text; for a method that no transport has, with the ``Allow`` header it must have."""
        if status_code == 405:
            self.clear_header("Content-Type")
            # Tornado refuses a method it does not know before the body is read, and then ends the connection.
            self.set_header("Connection", "close")
            if isinstance(self._known_route(), Refusal):
                for name, value in self._known_route().headers:  # type: ignore[union-attr]
                    self.set_header(name, value)
            self.finish()
            return
        error = kwargs.get("exc_info", (None, None, None))[1]
        text = error.reason if isinstance(error, HTTPError) and error.reason else self._reason
        self.set_header("Content-Type", "text/plain; charset=UTF-8")
        self.finish(f"{text}\n")

    def _keep(self, carrier: HttpTransport) -> None:
        """Tornado makes a handler for each request."""

    def _no_more_body(self) -> None:
        # It ends the task that waits for the body.  Not what an application's own base_handler does: that is for those
        # that have a response.
        RequestHandler.on_connection_close(self)

    def _bound_body(self) -> None:
        connection: Any = self.request.connection
        connection.set_body_timeout(self.gateway.limits.body_timeout_s)

    # -- before the body would come

    def leaves_at_once(self) -> bool:
        """Serve a request that has no body, where its connection is ours from then on.

        False where it is Tornado's yet; what is left of the serving comes when Tornado says that the request is whole.
        """
        request, gateway = self.request, self.gateway
        headers, http = request.headers, cast(Any, request.connection)
        if gateway.base_handler is not None or request.version != "HTTP/1.1" or request.method not in _METHODS:
            return False
        if headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in headers or "Expect" in headers:
            return False
        if headers.get("Connection", "").lower() == "close":
            return False
        try:
            self.choose()
            route = self._route
            if not isinstance(route, Route) or route.kind != "receive":
                return False
            self.admit()
            self._is_judged = True
            if self._route is not route or not self._may_leave(route):
                return False
            self._holds_back = True
            answering = self._serve()
            if answering is not None:
                self._rest = lambda: answering  # Tornado's own task for this request waits for it
        except Exception as error:
            if http.stream is None:
                log.exception("a request failed: %s", self._request_summary())
                return True
            self._rest = partial(_fail, error)
        finally:
            self._holds_back = False
        return http.stream is None

    def _may_leave(self, route: Route) -> bool:
        if route.transport in NOT_HTTP:
            # The oldest drafts have something like a body.
            return not self.gateway.draft76 or (self._check_handshake() is None and self._draft is None)
        return self._find_server() is not None

    def _find_server(self) -> HTTPServer | None:
        """The server of this connection, where the connection can leave its stream."""
        if self._server is None:
            http: Any = self.request.connection
            if self.gateway.can_take_over(http.stream):
                self._server = find_server(self.request.server_connection)
        return self._server

    def _make_exchange(self) -> Exchange:
        request = self.request
        exchange: Exchange
        stuck = self.gateway.limits.write_timeout_s
        if request.version == "HTTP/1.1":
            close = request.headers.get("Connection", "").lower() == "close"
            if self._is_complete and not close and isinstance(self._route, Route) and self._route.kind in LANE_KINDS:
                taken = self._leave_stream()
                if taken is not None:
                    return taken
            connection: Any = request.connection
            exchange = KeepAliveExchange(connection, self._done, close=close, write_timeout_s=stuck)
        else:
            exchange = ClosingExchange(self.detach(), self._done, write_timeout_s=stuck)
        # What Tornado looks at to know that the answer is no longer its business.
        self._finished = True
        return exchange

    def _make_pipe(self, *, fast: bool) -> Pipe:
        gateway, limits = self.gateway, self.gateway.limits
        stream = self.detach()
        taken = gateway.take_over(stream) if fast else None
        if taken is not None:
            return taken
        return IOStreamPipe(stream, read_chunk_bytes=limits.read_chunk_bytes, write_timeout_s=limits.write_timeout_s)

    def _leave_stream(self) -> Exchange | None:
        """The answer on a connection of our own; None where this one has to stay with Tornado."""
        request, gateway = self.request, self.gateway
        http: Any = request.connection
        server = self._find_server()
        if server is None or http.stream.closed():  # the client may have left since that was found
            return None
        context = http.context
        self._finished = True
        sock, rest = take_over(self.detach())
        connection = HttpConnection(gateway.lane, gateway, self.application, type(self), server, context, request.host)
        connection.connect(sock, rest)
        return connection.begin(self._done)

    def _log_access(self, status: int) -> None:
        self.set_status(status)
        self.application.log_request(self)
        # As Tornado's own finish() does: its modules point back at this handler, a reference cycle for each request.
        self.ui = None  # type: ignore[assignment]

    async def _ask_application(self) -> bool:
        """Let the application's own handler look at the request once.

        False where it has answered by itself, or the client did not wait.
        """
        base = self.gateway.base_handler
        assert base is not None
        result = base.prepare(self)
        if inspect.isawaitable(result):
            await result
        if self._finished or self._gone:
            return False
        self._user = self.current_user
        return True


def _fail(error: Exception) -> None:
    raise error


_NOSNIFF = ("X-Content-Type-Options", "nosniff")
_ORIGIN_REFUSED = "This origin is not allowed here. List it in the server's origins setting if it should be.\n"
