"""What is kept of the request that opened a session, as an application sees it.

Most applications look at little of it, and a session may live for days: so the head is kept as a piece of text, which
sessions of like browsers share, and read again by who asks.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cached_property
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING, Any

from tornado.escape import parse_qs_bytes
from tornado.httputil import HTTPHeaders, parse_cookie
from tornado.web import decode_signed_value

from .errors import StateError
from .wire import ConnectionInfo

__all__ = ["OpeningRequest", "read_arguments", "read_cookies", "write_headers"]


def read_arguments(query: str) -> dict[str, list[bytes]]:
    """Name to values, as Tornado has them."""
    return parse_qs_bytes(query, keep_blank_values=True) if query else {}


def read_cookies(headers: HTTPHeaders) -> SimpleCookie:
    """The cookies in *headers*, as Tornado has them."""
    cookies: SimpleCookie = SimpleCookie()
    for name, value in parse_cookie(headers.get("Cookie", "")).items():
        with suppress(CookieError):  # of a name that has no business in a cookie
            cookies[name] = value
    return cookies


def write_headers(headers: HTTPHeaders) -> str:
    """*headers* on lines, for ``OpeningRequest``."""
    return "\n".join([f"{name}:{value}" for name, value in headers.get_all()])


class OpeningRequest(ConnectionInfo):
    """A ``ConnectionInfo`` that is read from the request's head where it is asked for."""

    if not TYPE_CHECKING:  # the fields of the same names, which have no default

        @cached_property
        def headers(self) -> HTTPHeaders:
            headers = HTTPHeaders()
            for line in filter(None, self._head.split("\n")):
                name, _, value = line.partition(":")
                headers.add(name, value)
            return headers

        @cached_property
        def arguments(self) -> dict[str, list[bytes]]:
            return read_arguments(self._query)

        @cached_property
        def cookies(self) -> SimpleCookie:
            return read_cookies(self.headers)

        def secure_cookie(
            self, name: str, value: str | None, max_age_days: float, min_version: int | None
        ) -> bytes | None:
            settings = self.application.settings
            if "cookie_secret" not in settings:
                raise StateError('secure cookies need the application setting "cookie_secret"')
            if value is None:
                morsel = self.cookies.get(name)
                value = morsel.value if morsel is not None else None
            return decode_signed_value(
                settings["cookie_secret"], name, value, max_age_days=max_age_days, min_version=min_version
            )

    def __init__(self, head: str, query: str, **named: Any) -> None:
        """*head* is what ``write_headers`` made; *named* are the other fields of ``ConnectionInfo``."""
        put = object.__setattr__  # it is frozen
        put(self, "_head", head)
        put(self, "_query", query)
        for name, value in named.items():
            put(self, name, value)
