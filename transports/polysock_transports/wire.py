"""The frozen values that pass between dialects, sessions, transports and the gateway.

Nothing here does I/O, knows a wire language or imports more than the standard library.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "Bye",
    "ConnectionInfo",
    "Frame",
    "Message",
    "Noop",
    "Ping",
    "Pong",
    "Refusal",
    "Request",
    "Route",
    "Signal",
    "Speaks",
    "Upgrade",
]

#: One unit as a transport carries it: text as ``str`` (already escaped for the dialect), binary as ``bytes``.
Frame = str | bytes


@dataclass(frozen=True, slots=True)
class Message:
    """One message of the client for the application: text or bytes."""

    data: str | bytes


@dataclass(frozen=True, slots=True)
class Ping:
    """The peer asks whether we live; it wants ``data`` back."""

    data: str = ""


@dataclass(frozen=True, slots=True)
class Pong:
    """The peer's answer to our ping."""

    data: str = ""


@dataclass(frozen=True, slots=True)
class Noop:
    """Legal and without meaning: an empty SockJS text frame, an Engine.IO noop."""


@dataclass(frozen=True, slots=True)
class Upgrade:
    """The peer finishes its move to a better transport."""


@dataclass(frozen=True, slots=True)
class Speaks:
    """The peer has shown which form of its language it speaks: from here on ``dialect`` is the one to read it by."""

    dialect: Any


@dataclass(frozen=True, slots=True)
class Bye:
    """The peer says goodbye, with the code and text it gave (1005 where it gave none)."""

    code: int = 1005
    text: str = ""


#: What ``Dialect.decode`` makes of bytes from the client.
Signal = Message | Ping | Pong | Noop | Upgrade | Speaks | Bye


@dataclass(frozen=True, slots=True)
class Request:
    """What a dialect may know of an HTTP request: enough to route it, and no way to answer it.

    ``path`` is the raw (still percent-encoded) path after the mount's prefix, ``query`` the raw query string,
    ``upgrade`` whether it asks for a WebSocket.
    """

    method: str
    path: str
    query: str = ""
    upgrade: bool = False


@dataclass(frozen=True, slots=True)
class Route:
    """Where a request goes.

    ``kind`` is ``"page"`` (a fixed answer: ``page`` names it), ``"receive"`` (a transport that the session attaches),
    ``"send"`` (a body for the session), ``"leave"`` (its client says goodbye) or ``"preflight"``.  ``transport`` is the
    transport's name, or for ``send`` the name of the body format.  ``options`` carries what differs between dialects to
    a transport that must not ask.
    """

    kind: str
    transport: str = ""
    session_id: str = ""
    page: str = ""
    methods: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that ends the request at once: status, headers, text."""

    status: int
    text: str = ""
    headers: tuple[tuple[str, str], ...] = ()


def _no_secure_cookie(*_args: Any) -> bytes | None:
    return None


@dataclass(frozen=True)
class ConnectionInfo:
    """A snapshot of the request that opened a session; it outlives that request.

    The first five names and the three ``get_`` methods are those of ``sockjs.tornado.session.ConnectionInfo``.
    """

    ip: str
    """The client's address, after the trusted-proxy rule."""
    cookies: Mapping[str, Any]
    """Cookie name to ``http.cookies.Morsel``."""
    arguments: Mapping[str, list[bytes]]
    """Query argument name to its values, as bytes (as in Tornado and sockjs-tornado)."""
    headers: Mapping[str, str]
    """The request's headers, looked up without regard to case."""
    path: str
    """The request's path, without the query."""
    origin: str | None = None
    """The page's origin as the browser gave it, ``"null"`` included; None where none was sent."""
    transport: str = ""
    """Name of the transport that opened the session."""
    dialect: str = ""
    """The language of the client: ``"sockjs"``, ``"engineio4"``, ``"engineio3"``, ``"socketio09"`` or ``"plain"``."""
    text_only: bool = False
    """A WebSocket that carries no binary messages (hixie-75, hixie-76)."""
    application: Any = None
    """The ``tornado.web.Application`` that the request came to."""
    current_user: Any = None
    """What the application's own ``get_current_user`` said; None without the ``base_handler`` setting."""
    secure_cookie: Callable[..., bytes | None] = _no_secure_cookie

    def get_argument(self, name: str) -> bytes | None:
        """The first value of the query argument *name*, as bytes, or None."""
        values = self.arguments.get(name)
        return values[0] if values else None

    def get_cookie(self, name: str) -> Any:
        """The cookie *name* as a ``Morsel`` (its text is ``.value``), or None."""
        return self.cookies.get(name)

    def get_header(self, name: str) -> str | None:
        """The header *name*, or None."""
        return self.headers.get(name)

    def get_secure_cookie(
        self, name: str, value: str | None = None, max_age_days: float = 31, min_version: int | None = None
    ) -> bytes | None:
        """The signed cookie *name*, checked with the application's ``cookie_secret``, or None.

        Arguments are those of ``tornado.web.RequestHandler.get_signed_cookie``.
        """
        return self.secure_cookie(name, value, max_age_days, min_version)

    get_signed_cookie = get_secure_cookie

    def get_current_user(self) -> Any:
        """The same as ``current_user``, under the name Tornado's handlers have."""
        return self.current_user
