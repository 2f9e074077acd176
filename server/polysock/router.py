"""SockJSRouter: one SockJS endpoint inside any Tornado application, with the router contract of sockjs-tornado.

What it shares with other mounts for ``Connection`` subclasses (``enginerouter.py``) is ``ConnectionRouter``.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from polysock_transports import CloseReason
from polysock_transports.clock import Clock, LoopClock
from polysock_transports.errors import GOING_AWAY
from polysock_transports.gateway import Gateway

from .connection import ConnectionSession, prepare
from .endpoint import EngineIOEndpoint, SockJSEndpoint
from .settings import Settings, read_settings
from .sockjs_contract import SockJSConnection

if TYPE_CHECKING:
    from .server import Server

__all__ = ["ConnectionRouter", "SockJSRouter", "Stats"]


class ConnectionRouter:
    """A mount whose clients are instances of *connection*.

    Two routers share nothing, in one application or in two.
    """

    def __init__(
        self,
        connection: type[SockJSConnection],
        prefix: str,
        options: Settings,
        endpoint: type[SockJSEndpoint] | type[EngineIOEndpoint],
        *,
        server: Server | None,
        clock: Clock | None,
    ) -> None:
        self._connection = connection
        self.options = options
        self.hub_server = server
        self._endpoint = endpoint(prefix, options, self._listener, clock or LoopClock())
        self._gateway = self._endpoint.gateways[0]
        self.stats = Stats(self._gateway)

    @property
    def gateways(self) -> tuple[Gateway, ...]:
        return self._endpoint.gateways

    def _listener(self, info: Any, session_id: str) -> ConnectionSession:
        return ConnectionSession(self, info, session_id)

    @property
    def urls(self) -> list[tuple[str, type, dict[str, Any]]]:
        """URL specs for ``tornado.web.Application``."""
        return self._endpoint.urls

    def apply_routes(self, routes: list[Any]) -> list[Any]:
        """Append the URL specs to *routes*, and return it."""
        routes.extend(self.urls)
        return routes

    def get_connection_class(self) -> type[SockJSConnection]:
        return self._connection

    def broadcast(self, clients: Iterable[SockJSConnection], msg: Any) -> None:
        """Send *msg* to *clients*, encoding it once; those that have closed are passed over."""
        prepared = prepare(msg)
        for client in clients:
            client.session.core.send_prepared(prepared)

    def close(self, code: int = GOING_AWAY.code, reason: str = GOING_AWAY.text) -> None:
        """Close every session, for instance when the server stops."""
        self._gateway.store.close_all(CloseReason(code, reason))


class SockJSRouter(ConnectionRouter):
    """Routes *prefix* to *connection*.

    ``user_settings`` takes sockjs-tornado's names and those of ``polysock.settings.Settings`` and ``Limits``.
    """

    def __init__(
        self,
        connection: type[SockJSConnection],
        prefix: str = "",
        user_settings: Mapping[str, Any] | None = None,
        io_loop: Any = None,
        session_kls: Any = None,
        *,
        server: Server | None = None,
        clock: Clock | None = None,
    ) -> None:
        """*prefix* is part of a URL pattern, as in sockjs-tornado.  With *server*, connections have ``join``,
        ``leave`` and ``rooms`` in that Server's ``/``.  *clock* is for tests.

        Raises SettingError for settings that make no sense, OSError where ``sockjs_file`` cannot be read.
        """
        for name, value in (("io_loop", io_loop), ("session_kls", session_kls)):
            if value is not None:
                warnings.warn(f"SockJSRouter's argument {name!r} means nothing here", stacklevel=2)
        super().__init__(connection, prefix, read_settings(user_settings), SockJSEndpoint, server=server, clock=clock)


class Stats:
    """``router.stats.dump()``, as far as it means something here."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def dump(self) -> dict[str, int]:
        """Counts of this moment: sessions, sessions with a receiving connection, and the latter by transport."""
        sessions = [session for session in self._gateway.store if session.is_open]
        attached = Counter(session.transport_name for session in sessions if session.attached)
        return {
            "sessions_active": len(sessions),
            "connections_active": sum(attached.values()),
            **{f"transp_{name}": count for name, count in sorted(attached.items())},
        }
