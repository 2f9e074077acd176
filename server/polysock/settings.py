"""A router's settings: sockjs-tornado's names, ours beside them, and errors that say what was meant.

Pure: a dict in, a frozen ``Settings`` out.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from tornado.web import RequestHandler

from polysock_transports import DEFAULT_LIMITS, Limits, PolysockError
from polysock_transports.origins import Origins
from polysock_transports.permessage_deflate import DeflateOptions

__all__ = ["LEGACY_TRANSPORT_NAMES", "TRANSPORT_NAMES", "SettingError", "Settings", "read_settings"]

#: What ``disabled_transports`` may hold.
TRANSPORT_NAMES = ("websocket", "xhr_streaming", "eventsource", "htmlfile", "xhr", "jsonp", "polling")
#: What ``legacy_transports`` may hold (Socket.IO 0.9).
LEGACY_TRANSPORT_NAMES = ("websocket", "flashsocket", "htmlfile", "xhr-multipart", "xhr-polling", "jsonp-polling")
_FLAGS = ("allow_credentials", "jsessionid", "verify_ip", "fast_lane", "draft76")
_COOKIE_NAME = re.compile(r"[A-Za-z0-9_.-]*\Z")

#: sockjs-tornado's name -> the limit that it sets.
_LIMIT_ALIASES = {
    "disconnect_delay": "disconnect_delay_s",
    "heartbeat_delay": "heartbeat_delay_s",
    "response_limit": "response_limit_bytes",
    "session_check_interval": "sweep_interval_s",
}
_LIMIT_NAMES = frozenset(field.name for field in fields(Limits))
#: Settings of sockjs-tornado that mean nothing here, and why.
_MEANINGLESS = {
    "immediate_flush": "messages always leave at once, or wait for the next receiving request",
    "disable_nagle": "connections that carry frames never wait for Nagle's algorithm",
}


class SettingError(PolysockError, ValueError):
    """A setting that does not exist, or a value that it cannot have."""


@dataclass(frozen=True)
class Settings:
    """What a router can be told."""

    limits: Limits = DEFAULT_LIMITS
    origins: Origins = ()
    """Origins allowed beside the server's own (see ``OriginPolicy``): a list, ``"*"``, or a function of the origin."""
    allow_credentials: bool = False
    """With ``origins="*"``: let every page in the world act with the visitor's cookies."""
    origin_unknown: str = "allow"
    """A request with neither ``Origin`` nor ``Sec-Fetch-Site`` nor ``Referer``: ``"allow"`` or ``"refuse"``."""
    disabled_transports: tuple[str, ...] = ()
    sockjs_url: str | None = None
    """Address of the client script that the iframe page loads."""
    sockjs_file: str | Path | None = None
    """A local sockjs.min.js that this endpoint then serves itself; wins nothing over ``sockjs_url``: set one."""
    client_files: Mapping[str, str | Path] | None = None
    """Where Socket.IO's own browser clients lie, to be served under the Socket.IO mount: generation to folder."""
    legacy_transports: tuple[str, ...] = ("websocket", "htmlfile", "xhr-polling", "jsonp-polling")
    """What Socket.IO 0.9 clients are offered, best first; ``"flashsocket"`` and ``"xhr-multipart"`` are possible."""
    sid_cookie: str = ""
    """Name of a cookie that repeats an Engine.IO session's id, for load balancers that route by it."""
    jsessionid: bool = False
    """Set a JSESSIONID cookie, for load balancers that route by it."""
    verify_ip: bool = False
    """Bind a session to the address that opened it.  Off: mobile networks and proxies change addresses."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses or networks whose X-Forwarded-For is believed."""
    compression: bool | DeflateOptions = False
    """Offer permessage-deflate on WebSockets."""
    fast_lane: bool = True
    """Take plain-TCP connections out of Tornado's streams once a request was let in: the same, for less CPU."""
    draft76: bool = False
    """Let in WebSockets of the drafts before RFC 6455: hixie-76 (Safari 5, Opera 11), hixie-75, hybi-07 and later."""
    base_handler: type[RequestHandler] | None = None
    """The application's own handler class: its ``prepare`` and ``get_current_user`` see the first request."""

    def __post_init__(self) -> None:
        for name in _FLAGS:
            # A text out of the environment, "no" for instance, would be as good as True.
            if getattr(self, name) not in (True, False):
                raise SettingError(f"{name} must be True or False, not {getattr(self, name)!r}")
        if self.compression not in (True, False) and not isinstance(self.compression, DeflateOptions):
            raise SettingError(f"compression must be True, False or a DeflateOptions, not {self.compression!r}")
        unknown = [name for name in self.disabled_transports if name not in TRANSPORT_NAMES]
        if unknown:
            raise SettingError(
                f"disabled_transports: there is no transport {unknown[0]!r}{_suggest(unknown[0], TRANSPORT_NAMES)}"
            )
        for name in self.legacy_transports:
            if name not in LEGACY_TRANSPORT_NAMES:
                known = _suggest(name, LEGACY_TRANSPORT_NAMES)
                raise SettingError(f"legacy_transports: there is no transport {name!r}{known}")
        if not isinstance(self.sid_cookie, str) or not _COOKIE_NAME.match(self.sid_cookie):
            raise SettingError("sid_cookie must be a cookie's name: letters, digits and _.-")
        if not callable(self.origins) and not isinstance(self.origins, Iterable):
            raise SettingError(f'origins must be a list, "*" or a function, not {type(self.origins).__name__}')
        if self.sockjs_url is not None and self.sockjs_file is not None:
            raise SettingError("set sockjs_url or sockjs_file, not both: the iframe page loads one script")
        if self.base_handler is not None and not (
            isinstance(self.base_handler, type) and issubclass(self.base_handler, RequestHandler)
        ):
            raise SettingError("base_handler must be a subclass of tornado.web.RequestHandler")


_LISTS = frozenset(("disabled_transports", "legacy_transports", "trusted_proxies"))
_NAMES = tuple(field.name for field in fields(Settings) if field.name != "limits")


def read_settings(user: Mapping[str, Any] | None, also: Iterable[str] = ()) -> Settings:
    """The settings that *user* names; limits by their own names (``max_message_bytes``) or sockjs-tornado's.

    *also*: names that the caller knows, to suggest where one was misspelled.
    Raises SettingError, and warns of settings of sockjs-tornado that mean nothing here.
    """
    chosen: dict[str, Any] = {}
    limits: dict[str, Any] = {}
    for name, value in (user or {}).items():
        if name in _MEANINGLESS:
            warnings.warn(f"the setting {name!r} means nothing here: {_MEANINGLESS[name]}", stacklevel=3)
        elif name == "websocket_allow_origin":
            if "origins" in (user or {}):
                raise SettingError("websocket_allow_origin is the old name of origins: set one of them")
            chosen["origins"] = value
        elif name == "limits":
            if not isinstance(value, Limits):
                raise SettingError(f"limits must be a polysock.Limits, not {type(value).__name__}")
            chosen["limits"] = value
        elif name in _LIMIT_ALIASES or name in _LIMIT_NAMES:
            limit = _LIMIT_ALIASES.get(name, name)
            if limit in limits:
                old = next(alias for alias, meant in _LIMIT_ALIASES.items() if meant == limit)
                raise SettingError(f"{old} is the old name of {limit}: set one of them")
            limits[limit] = value
        elif name in _NAMES:
            chosen[name] = _several(name, value) if name in _LISTS else value
        else:
            known = (*_NAMES, *_LIMIT_ALIASES, *sorted(_LIMIT_NAMES), "limits", *_MEANINGLESS, "websocket_allow_origin")
            known += tuple(also)
            raise SettingError(f"there is no setting {name!r}{_suggest(name, known)}")
    try:
        if limits:
            chosen["limits"] = replace(chosen.get("limits", Limits()), **limits)
        return Settings(**chosen)
    except (TypeError, ValueError) as error:
        if isinstance(error, SettingError):
            raise
        raise SettingError(str(error)) from error


def read_one(settings: Settings, name: str, also: Iterable[str] = ()) -> Any:
    """The value in force of the setting *name*, by any of its names.  Raises SettingError as ``read_settings`` does."""
    name = _LIMIT_ALIASES.get(name, "origins" if name == "websocket_allow_origin" else name)
    if name in _LIMIT_NAMES:
        return getattr(settings.limits, name)
    if name in _NAMES or name == "limits":
        return getattr(settings, name)
    read_settings({name: None}, also)  # says what was meant
    return None


def _several(name: str, value: Any) -> tuple[str, ...]:
    """A list, or one text, which a careless ``tuple()`` would take apart."""
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, Iterable):
        raise SettingError(f"{name} must be a list, not {type(value).__name__}")
    return tuple(value)


def _suggest(name: object, known: tuple[str, ...]) -> str:
    close = get_close_matches(str(name), known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f". There are: {', '.join(sorted(known))}"
