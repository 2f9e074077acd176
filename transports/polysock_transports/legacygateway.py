"""The Tornado glue of Socket.IO 0.9: what its handshakes, polls, posts, streams and upgrades are answered.

Origin rule, body limits, CORS and caching headers are the gateway's; this adds the requests of 0.9 clients.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import cast

from .dialects.socketio09 import RECONNECT, SocketIO09, form_payload, handshake, refuse
from .errors import ABNORMAL_CLOSURE, NORMAL, REFUSED, CloseReason, ProtocolError, Refused
from .gateway import Gateway, GatewayHandler, SessionListener
from .htmlfile import LegacyHtmlFile
from .javascript import javascript_string
from .jsonp import LegacyJsonp
from .legacy import LegacySession
from .multipart import XhrMultipart
from .pages import NEVER_CACHE
from .pipes import Headers
from .session import Session
from .transport import HttpTransport, Transport
from .wire import Refusal, Request, Route
from .xhr import LegacyPolling

__all__ = ["LegacyGateway", "LegacyHandler"]

_HTTP_TRANSPORTS: dict[str, type[HttpTransport]] = {
    transport.name: transport for transport in (LegacyPolling, LegacyJsonp, LegacyHtmlFile, XhrMultipart)
}
_ID_BYTES = 15  # 20 characters, as the reference server's: 120 random bits, and all that a client shows for itself
_UNKNOWN = CloseReason(NORMAL.code, "Unknown session")
# The texts that clients report as their error event (reference server, lib/manager.js); others are told as they are.
_REFUSALS = {403: "handshake unauthorized", 500: "handshake error"}
_TEXT = ("Content-Type", "text/plain; charset=UTF-8")
# IE 8's filter takes what a page sends and gets back for an attack, and breaks the answer.
_UNFILTERED = ("X-XSS-Protection", "0")
_NOSNIFF = ("X-Content-Type-Options", "nosniff")


@dataclass(eq=False, repr=False)
class LegacyGateway(Gateway):
    """The endpoint of 0.9 clients."""

    offered: tuple[str, ...] = ()
    """The transports that clients are told of, best first."""


class LegacyHandler(GatewayHandler):
    """One request of a Socket.IO 0.9 client."""

    ids_are_ours = True

    # -- what is refused

    def _find_route(self, request: Request) -> Route | Refusal | None:
        route = super()._find_route(request)
        if route is None or (isinstance(route, Route) and self._is_disabled(route)):
            return Refusal(404, "There is no such transport.")
        return route

    def _origin_refusal(self, route: Route) -> Refusal:
        return refuse(403, "handshake bad origin", _handshake_call(route))

    def _refuse(self, refusal: Refusal) -> None:
        super()._refuse(replace(refusal, headers=(*refusal.headers, *self._cors())))

    def _refused(self, refusal: Refused) -> None:
        route = self._route
        call = _handshake_call(route) if isinstance(route, Route) else ""
        self._refuse(refuse(refusal.status, _REFUSALS.get(refusal.status, refusal.text), call))

    def _cors(self) -> Headers:
        return self.gateway.origins.cors_headers(self.request.headers)

    def _session_headers(self) -> Headers:
        # No rule who may frame an htmlfile: its page is nothing without an id that only its own client knows.
        return (NEVER_CACHE, *self._cors(), *self._cookies())

    # -- sessions

    def _language(self, route: Route) -> str:
        return SocketIO09.language

    def _make_session(self, route: Route, listener: SessionListener, address: str) -> Session:
        gateway = self.gateway
        return LegacySession(
            route.session_id,
            listener,
            gateway.dialect,
            scheduler=gateway.store,
            clock=gateway.clock,
            limits=gateway.limits,
            address=address,
        )

    def _fresh_session(self, route: Route) -> LegacySession:
        """A session with an id that nobody can guess, in the store.  Raises Refused."""
        session, _ = self._new_session(replace(route, session_id=self._new_id(_ID_BYTES)))
        self.gateway.store.add(session)
        return cast(LegacySession, session)

    def _find(self, route: Route) -> LegacySession | None:
        """The session that a request names, if it is the client's own and lives."""
        session = self.gateway.store.get(route.session_id)
        if not isinstance(session, LegacySession):
            return None
        if self.gateway.verify_address and session.address != self._address():
            return None
        session.tick(self.gateway.clock.now())  # what is due is due, whenever the sweep would have come
        return None if session.is_gone else session

    def _attach_to(self, session: LegacySession, transport: Transport) -> None:
        if not session.has_begun:
            opened = self.gateway.opened
            opened[transport.name] = opened.get(transport.name, 0) + 1
        session.attach(transport)

    # -- the handshake

    async def _handshake_asking(self, route: Route) -> None:
        if await self._ask_application():
            answering = self._handshake(route)
            if answering is not None:
                await answering

    def _handshake(self, route: Route) -> Awaitable[None] | None:
        session: LegacySession | None = None
        try:
            session = self._fresh_session(route)
            session.open()
        except Refused as refusal:
            if session is not None:
                session.discard()
            self._refused(refusal)
            return None
        if session.opening is not None:
            return self._welcome_later(route, session)
        self._welcome(route, session)
        return None

    async def _welcome_later(self, route: Route, session: LegacySession) -> None:
        """Wait until an ``async`` authorization has decided."""
        assert session.opening is not None
        await asyncio.wait((session.opening,))
        if self._gone:
            session.peer_closed(ABNORMAL_CLOSURE)  # it never learned its sid, so nobody else can come for it
        elif session.refusal is not None:
            self._refused(Refused(403 if session.refusal.code == REFUSED.code else 500, session.refusal.text))
        elif session.is_gone:
            self._refused(Refused(500, ""))  # it took longer than a handshake is remembered
        else:
            self._welcome(route, session)

    def _welcome(self, route: Route, session: LegacySession) -> None:
        text = handshake(session.id, cast(LegacyGateway, self.gateway).offered, self.gateway.limits)
        headers: Headers = (*self._session_headers(), ("Content-Type", "text/plain"))
        call = _handshake_call(route)
        if call:
            text = f"{call}({javascript_string(text)});"
            headers = (*self._session_headers(), ("Content-Type", "application/javascript"), _UNFILTERED, _NOSNIFF)
        self._answer(200, headers, text.encode())

    # -- receiving

    def _receive(self, route: Route) -> Awaitable[None] | None:
        if not route.session_id:
            return self._handshake_asking(route) if self.gateway.base_handler is not None else self._handshake(route)
        if route.transport == "flashsocket":
            return self._open_websocket(route)
        session = self._find(route)
        if route.kind == "leave":
            if session is not None:
                session.leave()
            self._answer(200, (*self._session_headers(), _TEXT))
            return None
        limits = self.gateway.limits
        if route.transport == LegacyHtmlFile.name:
            # Its client does not come back when the page ends, nor does it notice before its heartbeats are due.
            limits = replace(limits, response_limit_bytes=sys.maxsize)
        headers = (self.gateway.date_header(), *self._session_headers())
        transport = _HTTP_TRANSPORTS[route.transport](self._open_exchange(), headers, route.options, limits)
        if session is not None:
            self._attach_to(session, transport)
        else:
            transport.write((RECONNECT,))
            transport.finish(None)
        return None

    # -- WebSocket

    async def _websocket_asking(self, route: Route) -> None:
        self._websocket(route)  # the application was asked at the handshake

    def _websocket(self, route: Route) -> None:
        session = self._find(route)
        take: Callable[[LegacySession, Transport], None] = self._attach_to
        if session is None:
            # A session that is over has its deadlines too: a client that never closes must not stay.
            try:
                session = self._fresh_session(route)
            except Refused as refusal:
                self._refused(refusal)
                return
            session.refuse(_UNKNOWN)
            take = _tell_unknown

        def attach(transport: Transport) -> None:
            if route.transport == "flashsocket":
                transport.name = route.transport  # type: ignore[misc]  # the same under the client's own name for it
            take(session, transport)

        self._upgrade(attach, "websocket", max_message_bytes=self.gateway.limits.max_payload_bytes)

    # -- sending

    def _body_rule(self, route: Route) -> tuple[int, bool]:
        return self.gateway.limits.max_payload_bytes, "call" in route.options

    def _send(self, route: Route) -> Awaitable[None] | None:
        session = self._find(route)
        if session is None or not session.is_open:
            # As the reference server does; the client learns of it on what it receives by.
            self._answer_send(route)
            return None
        return self._deliver(route, session)

    def _payload(self, route: Route, body: bytes, session: Session) -> tuple[str | bytes, str]:
        return (form_payload(body) if "call" in route.options else body), ""

    def _answer_unread(self, session: Session, error: ProtocolError) -> None:
        self._answer(error.status, (*self._session_headers(), _TEXT, _UNFILTERED), str(error).encode())

    def _answer_send(self, route: Route) -> None:
        self._answer(200, (*self._session_headers(), _TEXT, _UNFILTERED), b"1")


def _handshake_call(route: Route) -> str:
    """The script call that a handshake wants its answer in; empty for plain text, and for every other request."""
    return "" if route.session_id else str(route.options.get("call", ""))


def _tell_unknown(session: LegacySession, transport: Transport) -> None:
    transport.write((RECONNECT,))
    session.attach(transport)
