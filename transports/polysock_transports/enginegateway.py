"""The Tornado glue of Engine.IO: what its polls, posts, handshakes and upgrades are answered.

Origin rule, body limits, CORS and caching headers are the gateway's; this adds the requests of Engine.IO clients.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, cast

from .dialects.engineio import (
    BAD_REQUEST,
    FORBIDDEN,
    UNKNOWN_SID,
    UNKNOWN_TRANSPORT,
    EngineDialect,
    EngineVersion,
    error,
    form_payload,
)
from .engine import EngineSession
from .errors import ABNORMAL_CLOSURE, PROTOCOL_VIOLATION, ProtocolError, Refused
from .gateway import GatewayHandler, SessionListener
from .jsonp import EngineJsonp
from .pipes import Headers
from .session import Session, State
from .transport import HttpTransport, Transport
from .wire import Refusal, Request, Route
from .xhr import EnginePolling

__all__ = ["EngineHandler"]

_ID_BYTES = 15  # 20 characters, as the reference server's: 120 random bits, and all that a client shows for itself
_OK = (("Content-Type", "text/html"), ("X-Content-Type-Options", "nosniff"))
_BINARY = "application/octet-stream"


class EngineHandler(GatewayHandler):
    """One request of an Engine.IO client."""

    ids_are_ours = True
    _posting: EngineSession | None = None  # the session whose one POST this is

    # -- one POST at a time

    def admit(self) -> None:
        super().admit()
        route = self._route
        if not isinstance(route, Route) or route.kind != "send" or self._exchange is not None:
            return
        session = self._find(route)
        if session is None or session.is_upgraded or self._is_foreign(session):
            return
        if session.posting:
            session.fail(PROTOCOL_VIOLATION)  # as with two polls at a time; the answer comes after the body
        else:
            session.posting = True
            self._posting = session

    def _posted(self) -> None:
        session, self._posting = self._posting, None
        if session is not None:
            session.posting = False

    def _done(self, status: int) -> None:
        if self._posting is not None:
            self._posted()
        super()._done(status)

    def on_connection_close(self) -> None:
        self._posted()
        super().on_connection_close()

    def on_finish(self) -> None:
        self._posted()
        super().on_finish()

    # -- what is refused

    def _find_route(self, request: Request) -> Route | Refusal | None:
        route = super()._find_route(request)
        if isinstance(route, Route) and self._is_disabled(route):
            return error(UNKNOWN_TRANSPORT, upgrade=request.upgrade)
        return route

    def _origin_refusal(self, route: Route) -> Refusal:
        text = "This origin is not allowed here. List it in the server's origins setting if it should be."
        return error(FORBIDDEN, upgrade=route.transport == "websocket", status=403, message=text)

    def _refuse(self, refusal: Refusal) -> None:
        request = self.request
        if self.gateway.origins.judge(request.headers, request.protocol, request.host):
            refusal = replace(refusal, headers=(*refusal.headers, *self._cors()))
        super()._refuse(refusal)

    def _refused(self, refusal: Refused) -> None:
        self._refuse(error(FORBIDDEN, upgrade=self._name() == "websocket", status=refusal.status, message=refusal.text))

    def _bad(self, code: int) -> None:
        self._refuse(error(code, upgrade=self._name() == "websocket"))

    def _cors(self) -> Headers:
        return self.gateway.origins.cors_headers(self.request.headers)

    def _body_rule(self, route: Route) -> tuple[int, bool]:
        return self.gateway.limits.max_message_bytes, "call" in route.options

    def _cookies(self) -> Headers:
        return ()

    def _sid_cookie(self, session: EngineSession) -> Headers:
        name = self.gateway.sid_cookie
        # The id is ours: letters, digits, "-" and "_".
        return (("Set-Cookie", f"{name}={session.id}; Path=/; HttpOnly; SameSite=Lax"),) if name else ()

    # -- sessions

    def _language(self, route: Route) -> str:
        return cast(EngineDialect, route.options["dialect"]).language

    def _make_session(self, route: Route, listener: SessionListener, address: str) -> Session:
        gateway = self.gateway
        websocket = route.transport == "websocket"
        return EngineSession(
            route.session_id,
            listener,
            route.options["dialect"],
            scheduler=gateway.store,
            clock=gateway.clock,
            limits=gateway.limits,
            address=address,
            resumable=not websocket,
            upgrades=() if websocket or "websocket" in gateway.disabled else ("websocket",),
        )

    def _find(self, route: Route) -> EngineSession | None:
        """The session that a request names, if it lives."""
        session = self.gateway.store.get(route.session_id)
        if not isinstance(session, EngineSession):
            return None
        session.catch_up()
        return None if session.is_gone else session

    def _is_foreign(self, session: EngineSession) -> bool:
        return self.gateway.verify_address and session.address != self._address()

    def _known(self, route: Route) -> EngineSession | None:
        """The session that a request names, or None after the client was told that it has none."""
        session = self._find(route)
        if session is None:
            self._bad(UNKNOWN_SID)
        elif self._is_foreign(session):
            self._refuse(error(FORBIDDEN, upgrade=route.transport == "websocket", status=403))
        else:
            return session
        return None

    # -- receiving

    def _receive(self, route: Route) -> Awaitable[None] | None:
        if not route.session_id:
            fresh = replace(route, session_id=self._new_id(_ID_BYTES))
            if self.gateway.base_handler is not None:
                return self._handshake_asking(fresh)
            return self._handshake(fresh)
        if self._carrier is not None:
            # The poll before, once more: its session is there (``LaneRequest.again``), and its client's.
            again: Any = self.gateway.store.get(route.session_id)
            if again.may_be_polled():
                again.attach(self._carry_again() or self._poll(route, again))
                return None
        session = self._known(route)
        if session is None:
            return None
        if session.is_upgraded or session.state is State.CONNECTING:
            self._bad(BAD_REQUEST)
        elif session.attached:
            session.fail(PROTOCOL_VIOLATION)  # two polls at a time: the first one is told that it is over
            self._bad(BAD_REQUEST)
        else:
            session.attach(self._poll(route, session))
        return None

    def _poll(self, route: Route, session: EngineSession, more: Headers = ()) -> HttpTransport:
        dialect = cast(EngineDialect, session.dialect)
        if dialect.protocol == 3 and not more:
            more = self._sid_cookie(session)
        kind = EngineJsonp if "call" in route.options else EnginePolling
        return self._carry(kind, partial(_poll_options, dialect), self.gateway.limits, more)

    async def _handshake_asking(self, route: Route) -> None:
        if await self._ask_application():
            answering = self._handshake(route)
            if answering is not None:
                await answering

    def _handshake(self, route: Route) -> Awaitable[None] | None:
        """A client that nobody knows yet, on polling."""
        session = self._admit(route)
        if session is None:
            return None
        opening = session.opening
        if opening is not None:
            return self._handshake_later(route, session, opening)
        session.attach(self._poll(route, session, self._sid_cookie(session)))
        return None

    async def _handshake_later(self, route: Route, session: EngineSession, opening: asyncio.Future[Any]) -> None:
        if await self._admitted(session, opening):
            session.attach(self._poll(route, session, self._sid_cookie(session)))

    def _admit(self, route: Route) -> EngineSession | None:
        """A new session, or None after the client was told why not."""
        session: Session | None = None
        try:
            session, _ = self._new_session(route)
            self._open(session, route)
        except Refused as refusal:
            if session is not None:
                session.discard()
            self._refused(refusal)
            return None
        return cast(EngineSession, session)

    async def _admitted(self, session: EngineSession, opening: asyncio.Future[Any]) -> bool:
        """Wait until an ``async`` authorization has decided; False where the request is answered or gone."""
        await asyncio.wait((opening,))
        if self._gone:
            session.peer_closed(ABNORMAL_CLOSURE)  # it never learned its sid, so nobody else can come for it
        elif session.refusal is not None:
            session.discard()  # nobody is to come for its goodbye
            self._refused(Refused(403, session.refusal.text))
        elif session.is_gone:
            self._bad(UNKNOWN_SID)
        else:
            return True
        return False

    # -- WebSocket

    def _websocket(self, route: Route) -> Awaitable[None] | None:
        dialect = cast(EngineDialect, route.options["dialect"])
        if self._draft is not None:
            if dialect.protocol != 3:
                self._bad(BAD_REQUEST)  # no client of that age speaks it, and it has no text form of binary there
                return None
            text_only = cast(EngineVersion, dialect).form("websocket", {"b64": "1"})
            route = replace(route, options={**route.options, "dialect": text_only})
        if route.session_id:
            session = self._known(route)
            if session is not None:
                form = route.options["dialect"] if self._draft is not None else None
                self._switch(partial(session.offer, form=form))
            return None
        session = self._admit(replace(route, session_id=self._new_id(_ID_BYTES)))
        if session is None:
            return None
        opening = session.opening
        if opening is not None:
            return self._websocket_later(session, opening)
        self._switch(partial(_open_soon, session))
        return None

    async def _websocket_later(self, session: EngineSession, opening: asyncio.Future[Any]) -> None:
        if await self._admitted(session, opening):
            self._switch(partial(_open_soon, session))

    def _switch(self, take: Callable[[Transport], Any]) -> None:
        self._upgrade(take, "websocket", max_message_bytes=self.gateway.limits.max_message_bytes)

    # -- sending

    def _send(self, route: Route) -> Awaitable[None] | None:
        session = self._known(route)
        if session is None:
            return None
        if session.is_upgraded or session.state is not State.OPEN:
            self._bad(BAD_REQUEST)
            return None
        return self._deliver(route, session)

    def _payload(self, route: Route, body: bytes, session: Session) -> tuple[str | bytes, str]:
        if "call" in route.options:
            return form_payload(body), "polling"
        if self.request.headers.get("Content-Type", "").partition(";")[0].strip().lower() != _BINARY:
            return body, "polling"
        if cast(EngineDialect, session.dialect).protocol != 3:
            raise ProtocolError("Engine.IO 4 posts text.")
        return body, "binary"

    def _answer_unread(self, session: Session, error: ProtocolError) -> None:
        if error.status == 400:
            cast(EngineSession, session).fail(error.reason)
        super()._answer_unread(session, error)

    def _answer_send(self, route: Route) -> None:
        self._answer(200, (*self._session_headers(), *_OK), b"ok")


def _poll_options(dialect: EngineDialect, route: Route) -> Mapping[str, Any]:
    return {**route.options, "binary_payload": dialect.binary_payload}


def _open_soon(session: EngineSession, transport: Transport) -> None:
    """Attach *transport*, but not at once.

    Programs (test suites above all) that begin to listen when they are told of the open connection lose a first frame
    that comes in one piece with the answer to their handshake.
    """

    def begin() -> None:
        if transport.ready:
            session.attach(transport)
        else:
            session.peer_closed(ABNORMAL_CLOSURE)  # it broke meanwhile

    asyncio.get_running_loop().call_soon(begin)
