"""One endpoint from its settings: the gateway, the pages and the URL specs."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from polysock_transports.addresses import TrustedProxies
from polysock_transports.clock import Clock
from polysock_transports.dialects import plainhttp
from polysock_transports.dialects.engineio import GREETING
from polysock_transports.dialects.engineroutes import ENGINEIO
from polysock_transports.dialects.socketio09 import SOCKETIO09
from polysock_transports.dialects.sockjs import SOCKJS, URL_PATTERN
from polysock_transports.enginegateway import EngineHandler
from polysock_transports.gateway import Gateway, ListenerFactory
from polysock_transports.legacygateway import LegacyGateway, LegacyHandler
from polysock_transports.origins import OriginPolicy
from polysock_transports.pages import NEVER_CACHE, Answer, SockJSPages
from polysock_transports.permessage_deflate import DeflateOptions
from polysock_transports.plaingateway import PlainHandler

from .settings import LEGACY_TRANSPORT_NAMES, SettingError, Settings

__all__ = ["EngineIOEndpoint", "PlainEndpoint", "SockJSEndpoint", "SocketIOEndpoint", "origin_policy"]

log = logging.getLogger("polysock")

#: What ``disabled_transports`` switches off -> the same transport under Socket.IO 0.9's name.
_LEGACY_NAMES = {"websocket": "websocket", "htmlfile": "htmlfile", "xhr": "xhr-polling", "jsonp": "jsonp-polling"}


def origin_policy(settings: Settings, where: str) -> OriginPolicy:
    """The origin rule that *settings* name.  Raises SettingError."""
    try:
        policy = OriginPolicy(
            settings.origins,
            allow_credentials=settings.allow_credentials,
            unknown=settings.origin_unknown,  # type: ignore[arg-type]  # checked there
        )
    except ValueError as error:
        raise SettingError(str(error)) from error
    if policy.any and settings.allow_credentials:
        log.warning(
            "%s: origins='*' with allow_credentials lets any web page act with its visitor's cookies here", where
        )
    return policy


def _gateway(prefix: str, settings: Settings, **own: Any) -> Gateway:
    try:
        proxies = TrustedProxies(settings.trusted_proxies)
    except ValueError as error:
        raise SettingError(f"trusted_proxies: {error}") from error
    compression = settings.compression
    return Gateway(
        limits=settings.limits,
        origins=origin_policy(settings, prefix or "/"),
        proxies=proxies,
        disabled=frozenset(settings.disabled_transports),
        session_cookie=settings.jsessionid,
        verify_address=settings.verify_ip,
        compression=DeflateOptions() if compression is True else compression or None,
        draft76=settings.draft76,
        fast_lane=settings.fast_lane,
        base_handler=settings.base_handler,
        **own,
    )


class SockJSEndpoint:
    """What is mounted at one prefix."""

    def __init__(self, prefix: str, settings: Settings, listener: ListenerFactory, clock: Clock) -> None:
        """Raises SettingError, and OSError where ``sockjs_file`` cannot be read."""
        self.prefix = prefix.rstrip("/")
        self.gateway = _gateway(
            self.prefix,
            settings,
            dialect=SOCKJS,
            listener=listener,
            mount=re.compile(self.prefix),
            page=self._page,
            clock=clock,
        )
        self._pages = SockJSPages(
            websocket="websocket" not in self.gateway.disabled,
            cookie_needed=settings.jsessionid,
            script_url=settings.sockjs_url,
            script=SockJSPages.read_script(settings.sockjs_file) if settings.sockjs_file is not None else None,
            frame_headers=self.gateway.frame_headers,
        )

    def _page(self, page: str, mount: str, headers: Mapping[str, str]) -> Answer:
        return self._pages.answer(page, mount, headers)

    @property
    def gateways(self) -> tuple[Gateway, ...]:
        return (self.gateway,)

    @property
    def urls(self) -> list[tuple[str, type, dict[str, Any]]]:
        """URL specs for ``tornado.web.Application``."""
        return [(self.prefix + URL_PATTERN, self.gateway.handler_class(), {"gateway": self.gateway})]


class PlainEndpoint:
    """The addresses for clients without any library, at one prefix."""

    def __init__(self, prefix: str, settings: Settings, listener: ListenerFactory, clock: Clock) -> None:
        """Raises SettingError."""
        self.prefix = prefix.rstrip("/")
        self.gateway = _gateway(
            self.prefix,
            settings,
            dialect=plainhttp.PLAIN_HTTP,
            listener=listener,
            mount=re.compile(f"{self.prefix}(?={plainhttp.URL_PATTERN}\\Z)"),
            page=_no_page,
            clock=clock,
            handler=PlainHandler,
        )

    @property
    def gateways(self) -> tuple[Gateway, ...]:
        return (self.gateway,)

    @property
    def urls(self) -> list[tuple[str, type, dict[str, Any]]]:
        """URL specs for ``tornado.web.Application``."""
        return [(self.prefix + plainhttp.URL_PATTERN, self.gateway.handler_class(), {"gateway": self.gateway})]


class EngineIOEndpoint:
    """What answers clients of Engine.IO 3 and 4 at one prefix, told apart by the request."""

    def __init__(self, prefix: str, settings: Settings, listener: ListenerFactory, clock: Clock) -> None:
        """*prefix* is a path.  Raises SettingError."""
        self.prefix = re.escape("/" + prefix.strip("/"))
        self.engine = _gateway(
            prefix,
            settings,
            dialect=ENGINEIO,
            listener=listener,
            mount=re.compile(self.prefix),
            page=_engine_page,
            clock=clock,
            handler=EngineHandler,
            sid_cookie=settings.sid_cookie,
        )

    @property
    def gateways(self) -> tuple[Gateway, ...]:
        return (self.engine,)

    @property
    def urls(self) -> list[tuple[str, type, dict[str, Any]]]:
        """URL specs for ``tornado.web.Application``."""
        return [(self.prefix + "/?", self.engine.handler_class(), {"gateway": self.engine})]


class SocketIOEndpoint(EngineIOEndpoint):
    """What answers Socket.IO's own clients at one prefix: all generations, told apart by the request."""

    def __init__(self, prefix: str, settings: Settings, listener: ListenerFactory, clock: Clock) -> None:
        super().__init__(prefix, settings, listener, clock)
        off = {_LEGACY_NAMES.get(name) for name in settings.disabled_transports}
        offered = tuple(name for name in settings.legacy_transports if name not in off)
        shared = {field.name: getattr(self.engine, field.name) for field in fields(self.engine) if field.init}
        own = {
            "dialect": SOCKETIO09,
            "page": _no_page,
            "handler": LegacyHandler,
            "disabled": frozenset(LEGACY_TRANSPORT_NAMES).difference(offered),
            "offered": offered,
        }
        self.legacy = LegacyGateway(**{**shared, **own})

    @property
    def gateways(self) -> tuple[Gateway, ...]:
        return (self.engine, self.legacy)

    @property
    def urls(self) -> list[tuple[str, type, dict[str, Any]]]:
        # The protocol's number comes first in the paths of 0.9; what else lies here are files.
        pattern = self.prefix + "/[0-9]+(?:/.*)?"
        return [*super().urls, (pattern, self.legacy.handler_class(), {"gateway": self.legacy})]


def _engine_page(page: str, mount: str, headers: Mapping[str, str]) -> Answer:
    return 200, (("Content-Type", "text/plain; charset=UTF-8"), NEVER_CACHE), GREETING


def _no_page(page: str, mount: str, headers: Mapping[str, str]) -> Answer:
    return 404, (), b""
