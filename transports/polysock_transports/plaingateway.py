"""The Tornado glue of the plain endpoint: what a poll, an emit, a leave and a feed are answered.

Origin rule, body limits, CORS and caching headers are the gateway's; this adds the requests that no library sends.
"""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import replace

from .dialects.plain import PLAIN
from .dialects.plainhttp import FEED, PLAIN_HTTP, emit_answer, error, poll_answer
from .errors import CLIENT_CLOSED, INVALID_DATA, MESSAGE_TOO_BIG, PROTOCOL_VIOLATION, ProtocolError, Refused
from .feed import FeedStream
from .gateway import GatewayHandler, SessionListener
from .pages import NEVER_CACHE
from .polling import PolledSession, polled_limits
from .session import Session, State
from .wire import Route

__all__ = ["PlainHandler"]

_ID_BYTES = 18  # 144 random bits: the id is all that a client shows for itself
_JSON = ("Content-Type", "application/json; charset=UTF-8")
_NOSNIFF = ("X-Content-Type-Options", "nosniff")
# Reasons that a message of the client itself can be.
_BROKEN = frozenset((PROTOCOL_VIOLATION.code, INVALID_DATA.code, MESSAGE_TOO_BIG.code))
_UNKNOWN = "Unknown sid: it has timed out, has left, or never was. Get a new one with GET poll, without sid."
_NO_CURSOR = "since is missing or not a number: give the cursor of the last answer, as in poll?sid=...&since=12"


class PlainHandler(GatewayHandler):
    """One request to the plain endpoint."""

    ids_are_ours = True

    def _make_session(self, route: Route, listener: SessionListener, address: str) -> Session:
        gateway = self.gateway
        if route.transport == "poll":
            return PolledSession(
                route.session_id,
                listener,
                PLAIN_HTTP,
                scheduler=gateway.store,
                clock=gateway.clock,
                limits=polled_limits(gateway.limits),
                address=address,
            )
        return Session(
            route.session_id,
            listener,
            FEED if route.transport == "events" else PLAIN,
            scheduler=gateway.store,
            clock=gateway.clock,
            limits=gateway.limits,
            address=address,
            resumable=False,
        )

    def _json(self, status: int, body: bytes) -> None:
        self._answer(status, (*self._session_headers(), _JSON, _NOSNIFF), body)

    def _refused(self, refusal: Refused) -> None:
        if self._name() == "poll":
            self._json(refusal.status, error(refusal.text))
        else:
            super()._refused(refusal)

    def _known(self, route: Route) -> PolledSession | None:
        """The session that a request names, or None after telling the client why not."""
        session = self.gateway.store.get(route.session_id)
        if not isinstance(session, PolledSession):
            self._json(404, error(_UNKNOWN))
        elif self.gateway.verify_address and session.address != self._address():
            self._json(403, error("This sid belongs to another address."))
        else:
            return session
        return None

    def _receive(self, route: Route) -> Awaitable[None] | None:
        if route.kind == "leave":
            self._leave(route)
        elif route.session_id:
            self._poll(route)
        else:
            fresh = replace(route, session_id=self._new_id(_ID_BYTES))
            if self.gateway.base_handler is not None:
                return self._enter_asking(fresh)
            self._enter(fresh)
        return None

    async def _enter_asking(self, route: Route) -> None:
        if await self._ask_application():
            self._enter(route)

    def _enter(self, route: Route) -> None:
        """A client that nobody knows yet."""
        session = None
        try:
            session, _ = self._new_session(route)
            self._open(session, route)
        except Refused as refusal:
            if session is not None:
                session.discard()
            self._refused(refusal)
            return
        if isinstance(session, PolledSession):
            session.attach(session.mailbox)
            self._answer_poll(session, 0)
        else:
            headers = (self.gateway.date_header(), *self._session_headers())
            session.attach(FeedStream(self._open_exchange(), headers, route.options, self.gateway.limits))

    def _poll(self, route: Route) -> None:
        session = self._known(route)
        if session is None:
            return
        since = route.options["since"]
        if since is None:
            self._json(400, error(_NO_CURSOR))
            return
        session.alive()
        try:
            self._answer_poll(session, since)
        except ProtocolError as problem:
            self._json(problem.status, error(str(problem)))

    def _answer_poll(self, session: PolledSession, since: int) -> None:
        mailbox = session.mailbox
        letters = mailbox.collect(since)
        self._json(200, poll_answer(session.id, mailbox.cursor, letters, mailbox.closed))

    def _send(self, route: Route) -> Awaitable[None] | None:
        session = self._known(route)
        if session is None:
            return None
        if session.state is not State.OPEN:
            self._json(404, error(_UNKNOWN))
            return None
        before = session.accepted
        try:
            session.check_inbox()
            session.receive(b"".join(self._body), route.transport)
        except ProtocolError as problem:
            self._json(problem.status, error(str(problem)))
            return None
        reason = session.reason
        if reason is not None and reason.code in _BROKEN:
            self._json(400, error(f"The session has ended: {reason.text}. Get a new one with GET poll, without sid."))
            return None
        accepted = session.accepted - before
        if session.inbox_full:
            return self._answer_emit_later(session, accepted)
        self._answer_emit(accepted)
        return None

    async def _answer_emit_later(self, session: PolledSession, accepted: int) -> None:
        # Clients emit again when this is answered: so a slow handler holds back its own client.
        await session.room()
        self._answer_emit(accepted)

    def _answer_emit(self, accepted: int) -> None:
        self._json(200, emit_answer(accepted))

    def _leave(self, route: Route) -> None:
        session = self._known(route)
        if session is not None:
            session.peer_closed(CLIENT_CLOSED)
            self._answer(204, (NEVER_CACHE, *self._cors(), *self._cookies()))
