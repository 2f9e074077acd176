"""Connection: the object an application subclasses for a raw message stream.

The contract is that of ``sockjs.tornado.SockJSConnection``, so an application written for it runs by changing one
import; unmodified subclasses of it run too.  ``ConnectionSession`` stands between a connection and its session and
shows what sockjs-tornado applications read from ``self.session``.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Iterable, Iterator
from contextlib import contextmanager
from http.client import responses
from typing import TYPE_CHECKING, Any

import ujson
from tornado.web import HTTPError

from polysock_transports import CloseReason, ConnectionInfo, Refused
from polysock_transports.errors import GO_AWAY, REFUSED
from polysock_transports.prepared import PreparedMessage
from polysock_transports.session import Session, State

from .membership import Membership
from .sockjs_contract import SockJSConnection

if TYPE_CHECKING:
    from .router import ConnectionRouter

__all__ = ["Connection", "ConnectionSession"]


class Connection(SockJSConnection):
    """One client, whatever transport it came by.

    Handlers may be plain functions or ``async def``.  Messages of one client are handled one after another: the next
    one waits until the coroutine of the one before is done.
    """

    session: ConnectionSession

    def on_open(self, info: ConnectionInfo) -> Any:
        """A client connects.

        Return False, or raise ``polysock.Refused`` or ``tornado.web.HTTPError``, to turn it away: a SockJS client then
        sees no open event but a close with code 1008 and the reason, a raw WebSocket the HTTP status.  An ``async
        def`` runs after the client was let in, and refusing there closes with 1008.
        """

    def on_message(self, message: str | bytes) -> Any:
        """One message: text, or bytes from a binary frame of a raw WebSocket.  If this raises, the error is logged
        and the session closed with 1011."""
        raise NotImplementedError

    def on_close(self) -> Any:
        """The session has ended; called once for each that opened, and ``close_reason`` says why."""

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        """A raw WebSocket offers *subprotocols*: return one of them, or None for none (many clients then fail)."""
        return None

    def send(self, message: Any, binary: bool = False) -> bool:
        """Send *message*: text, bytes, or any value that JSON can carry.

        With *binary* a raw WebSocket gets a binary frame; SockJS carries text only.  Returns False where the session
        has ended or its queue ran over; raises TypeError or ValueError for what cannot be sent.
        """
        return self.session.send_message(message, binary=binary)

    def broadcast(self, clients: Iterable[SockJSConnection], message: Any) -> None:
        """Send *message* to all *clients*, encoding it once.  Those that have closed are passed over."""
        self.session.broadcast(clients, message)

    def close(self, code: int = GO_AWAY.code, reason: str = GO_AWAY.text) -> None:
        """End the session; the client sees *code* (1000 or 3000 to 4999) and *reason*.  Closing twice is no error."""
        self.session.close(code, reason)

    async def drain(self) -> None:
        """Wait until this client has caught up (less than ``queue_high_bytes`` wait for it).

        Raises ``polysock.SessionClosed`` where the session has ended or ends meanwhile.
        """
        await self.session.core.drain()

    def join(self, room: str) -> None:
        """Be in *room* of the Server given to the router: what is emitted to it comes as a JSON array of text,
        ``["event", arg, ...]``.  Raises StateError without such a Server."""
        self.session.membership.join(room)

    def leave(self, room: str) -> None:
        """Leave *room*; leaving one that one is not in changes nothing."""
        self.session.membership.leave(room)

    @property
    def rooms(self) -> tuple[str, ...]:
        """The rooms this connection is in."""
        return self.session.membership.rooms

    @property
    def is_closed(self) -> bool:
        """Whether the session has ended."""
        return self.session.is_closed

    @property
    def close_reason(self) -> CloseReason | None:
        """Why the session ended; None while it has not."""
        return self.session.core.reason


class ConnectionSession:
    """The session as a connection sees it (``self.session``), under sockjs-tornado's names."""

    #: sockjs-tornado's router asks this before it broadcasts.
    send_expects_json = False
    #: sockjs-tornado's handler object, which has no counterpart here.
    handler = None

    def __init__(self, server: ConnectionRouter, info: ConnectionInfo, session_id: str) -> None:
        self.server = server
        self.conn_info = info
        self.session_id = session_id
        self.core: Session = None  # type: ignore[assignment]  # bind() follows at once
        self.membership: Membership = None  # type: ignore[assignment]  # the same
        self.subprotocol: str | None = None
        """The raw WebSocket's subprotocol, where one was selected."""
        self.conn: Any = server.get_connection_class()(self)
        """None once its ``on_close`` was called, as in sockjs-tornado: the two would keep each other in memory."""

    # -- what sockjs-tornado applications read and call

    @property
    def stats(self) -> Any:
        return self.server.stats

    @property
    def state(self) -> int:
        """0 connecting, 1 open, 2 closing, 3 closed."""
        return int(self.core.state)

    @property
    def is_closed(self) -> bool:
        return self.core.state >= State.CLOSING

    @property
    def transport_name(self) -> str:
        """Name of the transport that opened the session: ``websocket``, ``xhr``, ``rawwebsocket`` and so on."""
        return self.conn_info.transport

    @property
    def close_reason(self) -> tuple[int, str] | None:
        """(code, text), or None while the session is open."""
        reason = self.core.reason
        return (reason.code, reason.text) if reason is not None else None

    def get_close_reason(self) -> tuple[int, str]:
        """The same, with sockjs-tornado's default while the session is open."""
        return self.close_reason or (GO_AWAY.code, GO_AWAY.text)

    def send_message(self, msg: Any, stats: bool = True, binary: bool = False) -> bool:
        if binary:
            if isinstance(msg, str):
                msg = msg.encode("utf-8")
        elif isinstance(msg, (bytes, bytearray, memoryview)):
            msg = bytes(msg).decode("utf-8")
        return self.core.send(msg)

    def send_jsonified(self, msg: str | bytes, stats: bool = True) -> bool:
        """Send a message that is already JSON text."""
        return self.core.send(ujson.loads(msg))

    def broadcast(self, clients: Iterable[SockJSConnection], msg: Any) -> None:
        self.server.broadcast(clients, msg)

    def close(self, code: int = GO_AWAY.code, message: str = GO_AWAY.text) -> None:
        self.core.close(CloseReason(code, message, may_return=False))

    def delayed_close(self) -> None:
        """Close on the next turn of the event loop."""
        asyncio.get_running_loop().call_soon(self.close)

    # -- told by the session and the gateway

    def bind(self, session: Session) -> None:
        self.core = session
        self.membership = Membership(self.server.hub_server, session)

    def select_subprotocol(self, offered: list[str]) -> str | None:
        select = getattr(self.conn, "select_subprotocol", None)  # a bare SockJSConnection has none
        self.subprotocol = select(offered) if select is not None else None
        return self.subprotocol

    def on_open(self) -> Awaitable[Any] | None:
        with self._refusing():
            result = self.conn.on_open(self.conn_info)
            if inspect.isawaitable(result):
                return self._opening(result)
            if result is False:
                raise Refused(403, REFUSED.text)
        return None

    async def _opening(self, opening: Awaitable[Any]) -> None:
        with self._refusing():
            if await opening is False:
                raise Refused(403, REFUSED.text)

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        """What ``on_open`` raises, as the session wants it; who is refused is in no room, and is told no close."""
        try:
            yield
        except HTTPError as error:
            self._let_go()
            raise _refusal(error) from error
        except BaseException:
            self._let_go()
            raise

    def _let_go(self) -> None:
        self.membership.end()
        self.conn = None

    def on_message(self, data: str | bytes) -> Awaitable[Any] | None:
        result = self.conn.on_message(data)
        # Most handlers are plain functions that return None: ask no more than that of them.
        return result if result is not None and inspect.isawaitable(result) else None

    def on_close(self, reason: CloseReason) -> Awaitable[Any] | None:
        self.membership.end()
        try:
            result = self.conn.on_close()
        finally:
            self.conn = None
        return result if result is not None and inspect.isawaitable(result) else None


def _refusal(error: HTTPError) -> Refused:
    """What ``HTTPError`` says to the client; its log message stays here."""
    return Refused(error.status_code, error.reason or responses.get(error.status_code, REFUSED.text))


def prepare(message: Any) -> PreparedMessage:
    """*message* as it goes to many: bytes count as text, as in ``send``."""
    if isinstance(message, (bytes, bytearray, memoryview)):
        message = bytes(message).decode("utf-8")
    return PreparedMessage(message)
