"""Emitting over HTTP: an authenticated POST becomes an event for clients of all nodes.

For programs that have no Python, or no way to the backplane.  Who may is the token's or the application's to say; this
knows Tornado, and of the cluster only that it counts the nodes that took an event.
"""

from __future__ import annotations

import binascii
import hmac
import inspect
import logging
import re
from base64 import b64decode
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from tornado.httputil import HTTPServerRequest
from tornado.web import RequestHandler, stream_request_body

from polysock_transports import ProtocolError

from .backplane import BackplaneDown
from .hub import Target
from .namespace import namespace_name
from .packets import Event, check_event, dumps, loads
from .settings import SettingError

if TYPE_CHECKING:
    from .server import Server

__all__ = ["MIN_TOKEN_CHARS", "publish_routes"]

log = logging.getLogger("polysock")

#: A token that nobody guesses: 16 characters of base64 are 96 random bits.
MIN_TOKEN_CHARS = 16

#: ``check(request)``: whether this request may emit.
Check = Callable[[HTTPServerRequest], bool | Awaitable[bool]]

_KEYS = frozenset(("namespace", "rooms", "except", "event", "args", "binary"))
_BEARER = re.compile(r"Bearer +(\S+)", re.IGNORECASE)


def publish_routes(server: Server, prefix: str, *, token: str | None, check: Check | None) -> list[Any]:
    """URL specs of the endpoint at the path *prefix*.  Raises SettingError without a token that is long enough, or a
    *check* in its place."""
    if (token is None) is (check is None):
        raise SettingError("route_publish needs token=... or check=..., one of them: whoever can emit can say anything")
    if token is not None and not (
        isinstance(token, str) and len(token) >= MIN_TOKEN_CHARS and re.fullmatch(r"[!-~]+", token)
    ):
        raise SettingError(
            f"token must be at least {MIN_TOKEN_CHARS} printable ASCII characters without spaces: "
            "secrets.token_urlsafe() makes one"
        )
    if check is not None and not callable(check):
        raise SettingError("check must be a function of the request")
    pattern = re.escape("/" + prefix.strip("/")) + "/?"
    return [(pattern, _PublishHandler, {"server": server, "token": token, "check": check})]


class _Wrong(Exception):
    """What is asked makes no sense; the text is for who asks."""


@stream_request_body
class _PublishHandler(RequestHandler):
    """One request.  It is judged by its head before any of its body is read."""

    def initialize(self, server: Server, token: str | None, check: Check | None) -> None:
        self._server = server
        self._token = token
        self._check = check
        self._limit_bytes = server.cluster_limits.max_publish_bytes
        self._body = bytearray()

    def check_xsrf_cookie(self) -> None:
        """Pages of others make a browser send its cookies, which a *check* may trust, but no token."""
        if self._token is None:
            super().check_xsrf_cookie()

    async def prepare(self) -> None:
        request = self.request
        if request.method != "POST":
            self.set_header("Allow", "POST")
            self._refuse(405, "Use POST.")
            return
        if not await self._is_allowed():
            return
        length = request.headers.get("Content-Length", "")
        if length.isdecimal() and int(length[:20]) > self._limit_bytes:
            self._too_big()
        elif request.connection is not None:
            # A body that never ends would hold its connection for ever.
            request.connection.set_body_timeout(self._server.limits.body_timeout_s)  # type: ignore[attr-defined]

    async def _is_allowed(self) -> bool:
        if self._token is not None:
            found = _BEARER.fullmatch(self.request.headers.get("Authorization", ""))
            given = found[1] if found else ""
            if hmac.compare_digest(given.encode("utf-8", "replace"), self._token.encode("ascii")):
                return True
            self.set_header("WWW-Authenticate", "Bearer")
            self._refuse(401, "The token is missing or wrong.")
            return False
        assert self._check is not None
        try:
            answer = self._check(self.request)
            is_allowed = await answer if inspect.isawaitable(answer) else answer
        except Exception:
            log.exception("the check of route_publish failed")
            self._refuse(500, "Internal error.")
            return False
        if is_allowed is not True:
            self._refuse(403, "Not allowed.")
            return False
        return True

    def data_received(self, chunk: bytes) -> None:
        if self._finished:
            return
        self._body += chunk
        if len(self._body) > self._limit_bytes:
            self._body.clear()
            self._too_big()

    async def post(self) -> None:
        if self._finished:
            return
        try:
            packet, target = _read(bytes(self._body))
            answer = await self._emit(packet, target)
        except _Wrong as error:
            self._refuse(400, str(error))
        else:
            self.set_status(503 if "error" in answer else 200)
            self._finish(answer)

    async def _emit(self, packet: Event, target: Target) -> dict[str, Any]:
        server = self._server
        cluster, namespace = server.cluster, server.namespaces.get(packet.namespace)
        try:
            # Encoded first: what cannot travel reaches nobody.
            hand_over = cluster.hand_over(packet, target) if cluster is not None else None
            local = namespace.hub.deliver(target, packet) if namespace is not None else 0
        except (TypeError, ValueError) as error:
            raise _Wrong(f"This cannot be emitted: {error}") from None
        if hand_over is None:
            return {"nodes": 0, "local": local}
        try:
            return {"nodes": await hand_over(), "local": local}
        except BackplaneDown:
            return {"error": "The backplane is down: only clients of this node got it.", "local": local}

    # -- answers

    def _too_big(self) -> None:
        # Answered before the body is read, the connection closes: the rest is never read.
        self._refuse(413, f"The body is longer than {self._limit_bytes} bytes.")

    def _refuse(self, status: int, text: str) -> None:
        self.set_status(status)
        self._finish({"error": text})

    def _finish(self, answer: Mapping[str, Any]) -> None:
        self.set_header("Content-Type", "application/json; charset=UTF-8")
        self.set_header("Cache-Control", "no-store")
        self.finish(dumps(answer))

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """What goes wrong elsewhere in Tornado is JSON too."""
        self._finish({"error": self._reason})


def _read(body: bytes) -> tuple[Event, Target]:
    """The event that *body* asks for, and whom it is for.  Raises _Wrong."""
    try:
        wish = loads(body.decode("utf-8"))
    except (UnicodeDecodeError, ProtocolError):
        raise _Wrong("The body is not JSON.") from None
    if not isinstance(wish, dict):
        raise _Wrong("The body must be a JSON object.")
    unknown = sorted(wish.keys() - _KEYS)
    if unknown:
        raise _Wrong(f"There is no {unknown[0][:40]!r}; there are {', '.join(sorted(_KEYS))}.")
    event, args = wish.get("event"), wish.get("args", [])
    if not isinstance(event, str):
        raise _Wrong("event must be a text.")
    if not isinstance(args, list):
        raise _Wrong("args must be a list.")
    namespace = wish.get("namespace", "/")
    if not isinstance(namespace, str):
        raise _Wrong("namespace must be a text.")
    try:
        packet = Event(namespace_name(namespace), check_event(event), [*args, *map(_binary, _texts(wish, "binary"))])
    except ValueError as error:
        raise _Wrong(str(error)) from None
    return packet, Target(tuple(_texts(wish, "rooms")), tuple(_texts(wish, "except")))


def _texts(wish: Mapping[str, Any], name: str) -> list[str]:
    values = wish.get(name, [])
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise _Wrong(f"{name} must be a list of texts.")
    return values


def _binary(text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise _Wrong("binary must be a list of texts in base64.") from None
