"""SockJSRouter: one SockJS endpoint inside any Tornado application, with the router contract of sockjs-tornado."""

from __future__ import annotations

import logging
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from polysock_transports import CloseReason
from polysock_transports.addresses import TrustedProxies
from polysock_transports.clock import Clock, LoopClock
from polysock_transports.dialects.sockjs import SOCKJS, URL_PATTERN
from polysock_transports.errors import GOING_AWAY
from polysock_transports.gateway import Gateway
from polysock_transports.origins import OriginPolicy
from polysock_transports.pages import SockJSPages
from polysock_transports.permessage_deflate import DeflateOptions

from .connection import ConnectionSession, prepare
from .settings import SettingError, Settings, read_settings
from .sockjs_contract import SockJSConnection

__all__ = ["SockJSRouter", "Stats"]

log = logging.getLogger("polysock")


class SockJSRouter:
    """Routes *prefix* to *connection*.

    ``user_settings`` takes sockjs-tornado's names and those of ``polysock.settings.Settings`` and ``Limits``.  Two
    routers share nothing, in one application or in two.
    """

    def __init__(
        self,
        connection: type[SockJSConnection],
        prefix: str = "",
        user_settings: Mapping[str, Any] | None = None,
        io_loop: Any = None,
        session_kls: Any = None,
        *,
        clock: Clock | None = None,
    ) -> None:
        """*prefix* is part of a URL pattern, as in sockjs-tornado; *clock* is for tests.

        Raises SettingError for settings that make no sense, OSError where ``sockjs_file`` cannot be read.
        """
        for name, value in (("io_loop", io_loop), ("session_kls", session_kls)):
            if value is not None:
                warnings.warn(f"SockJSRouter's argument {name!r} means nothing here", stacklevel=2)
        self._connection = connection
        self.prefix = prefix.rstrip("/")
        self.options: Settings = read_settings(user_settings)
        self._gateway = self._build(clock or LoopClock())
        self.stats = Stats(self._gateway)

    def _build(self, clock: Clock) -> Gateway:
        options = self.options
        try:
            origins = OriginPolicy(
                options.origins,
                allow_credentials=options.allow_credentials,
                unknown=options.origin_unknown,  # type: ignore[arg-type]  # checked there
            )
            proxies = TrustedProxies(options.trusted_proxies)
        except ValueError as error:
            raise SettingError(str(error)) from error
        if origins.any and options.allow_credentials:
            log.warning(
                "%s: origins='*' with allow_credentials lets any web page act with its visitor's cookies here",
                self.prefix or "/",
            )
        compression = options.compression
        gateway = Gateway(
            dialect=SOCKJS,
            listener=self._listener,
            mount=re.compile(self.prefix),
            page=self._page,
            limits=options.limits,
            clock=clock,
            origins=origins,
            proxies=proxies,
            disabled=frozenset(options.disabled_transports),
            session_cookie=options.jsessionid,
            verify_address=options.verify_ip,
            compression=DeflateOptions() if compression is True else compression or None,
            base_handler=options.base_handler,
        )
        self._pages = SockJSPages(
            websocket="websocket" not in gateway.disabled,
            cookie_needed=options.jsessionid,
            script_url=options.sockjs_url,
            script=SockJSPages.read_script(options.sockjs_file) if options.sockjs_file is not None else None,
            frame_headers=gateway.frame_headers,
        )
        return gateway

    def _page(self, page: str, mount: str, headers: Mapping[str, str]) -> Any:
        return self._pages.answer(page, mount, headers)

    def _listener(self, info: Any, session_id: str) -> ConnectionSession:
        return ConnectionSession(self, info, session_id)

    @property
    def urls(self) -> list[tuple[str, type, dict[str, Any]]]:
        """URL specs for ``tornado.web.Application``."""
        return [(self.prefix + URL_PATTERN, self._gateway.handler_class(), {"gateway": self._gateway})]

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
