"""What the two versions of Engine.IO share: the requests they are told apart by, error answers, JSONP bodies, and what
a single packet of text means.

Source: the Engine.IO protocol texts, revisions 3 and 4, and what the reference servers and clients do.  How packets are
framed is in ``engineio4.py`` and ``engineio3.py``.
"""

from __future__ import annotations

import re
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Mapping, Sequence
from typing import Any, Protocol
from urllib.parse import parse_qsl

import ujson

from ..errors import CLIENT_CLOSED, ProtocolError
from ..limits import Limits
from ..wire import Bye, Message, Noop, Ping, Pong, Refusal, Request, Route, Signal, Upgrade
from . import Dialect
from .forms import form_field

__all__ = [
    "GREETING",
    "EngineDialect",
    "EngineRoutes",
    "EngineVersion",
    "error",
    "form_payload",
    "opening",
    "read_base64",
    "read_packet",
    "read_query",
]

GREETING = b"Welcome to socket.io."

_MESSAGES = (
    "Transport unknown",
    "Session ID unknown",
    "Bad handshake method",
    "Bad request",
    "Forbidden",
    "Unsupported protocol version",
)
UNKNOWN_TRANSPORT, UNKNOWN_SID, BAD_HANDSHAKE_METHOD, BAD_REQUEST, FORBIDDEN, UNSUPPORTED_PROTOCOL = range(6)

_TRANSPORTS = ("polling", "websocket")
_METHODS = ("GET", "POST", "OPTIONS")
_MAX_QUERY_FIELDS = 100
_MAX_INDEX_DIGITS = 10
_JSON = (("Content-Type", "application/json"),)
# What a WebSocket client is told before the upgrade: the bare text.
_HTML = (("Content-Type", "text/html"), ("Connection", "close"))


class EngineDialect(Dialect, Protocol):
    """A form of Engine.IO: one version of it on one kind of transport.

    Fragments are the same in all forms of a version, so that what waits for a client outlives a change of transport:
    a ``str`` is a whole packet with its type, ``bytes`` are a binary message.
    """

    protocol: int
    """The version of Engine.IO."""
    language: str
    """The name that all forms of the version share."""
    server_pings: bool
    """Whether it is the server that asks for signs of life."""
    ping: str
    """The packet that asks."""
    noop: str
    """The packet that ends a poll and says nothing."""
    bye: str
    """The packet that ends a session."""
    binary_payload: bool
    """Whether a payload may be bytes, which its content type then has to say."""

    def over(self, transport: str) -> EngineDialect:
        """The same client's form on another transport."""

    def opening(self, session_id: str, upgrades: Sequence[str], limits: Limits) -> str:
        """The packet that opens a session."""

    def pong(self, data: str) -> str:
        """The packet that answers a ping of the client which brought *data*."""


class EngineVersion(Protocol):
    """What the route table needs of a version."""

    def form(self, transport: str, query: Mapping[str, str]) -> EngineDialect:
        """The form that a client speaks which opens a session by *transport* with *query*."""


def opening(session_id: str, upgrades: Sequence[str], limits: Limits) -> dict[str, Any]:
    """The facts in the opening packet of both versions; times in milliseconds (Engine.IO protocol, "Handshake")."""
    return {
        "sid": session_id,
        "upgrades": list(upgrades),
        "pingInterval": round(limits.heartbeat_delay_s * 1000),
        "pingTimeout": round(limits.heartbeat_timeout_s * 1000),
    }


def error(code: int, *, upgrade: bool = False, status: int = 400, message: str | None = None) -> Refusal:
    """The answer that says no: JSON, or before an upgrade the text alone."""
    text = message or _MESSAGES[code]
    if upgrade:
        return Refusal(status, text, headers=_HTML)
    body = ujson.dumps({"code": code, "message": text}, escape_forward_slashes=False)
    return Refusal(status, body, headers=_JSON)


def read_query(query: str) -> dict[str, str]:
    """Name to value, of a name given twice the first.  Raises ProtocolError for more fields than anybody needs."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=_MAX_QUERY_FIELDS)
    except ValueError:
        raise ProtocolError("Too many fields in the query.") from None
    return dict(reversed(pairs))


class EngineRoutes:
    """The route table of a mount: its one path, and everything else in the query."""

    def __init__(self, versions: Mapping[str, EngineVersion]) -> None:
        """*versions*: what ``EIO`` may be."""
        self._versions = versions

    def route(self, request: Request, limits: Limits) -> Route | Refusal | None:
        """Where *request* goes; ``Route.options["dialect"]`` is the form it asks for."""
        method, upgrade = request.method, request.upgrade
        if request.path not in ("", "/"):
            return None
        try:
            query = read_query(request.query)
        except ProtocolError:
            return error(BAD_REQUEST, upgrade=upgrade)
        if not query.keys() & {"EIO", "transport", "sid"}:
            # Nothing of Engine.IO in it: somebody looks with a browser, or a check whether the server is up.
            if method == "GET" and not upgrade:
                return Route("page", page="greeting")
            return error(UNKNOWN_TRANSPORT, upgrade=upgrade)
        version = self._versions.get(query.get("EIO", ""))
        if version is None:
            return error(UNSUPPORTED_PROTOCOL, upgrade=upgrade)
        transport = query.get("transport", "")
        if transport not in _TRANSPORTS:
            return error(UNKNOWN_TRANSPORT, upgrade=upgrade)
        session_id = query.get("sid", "")
        if method == "OPTIONS":
            return Route("preflight", transport=transport, session_id=session_id, methods=_METHODS)
        if len(session_id) > limits.max_session_id_chars:
            return error(UNKNOWN_SID, upgrade=upgrade)
        if upgrade != (transport == "websocket"):
            return error(BAD_REQUEST, upgrade=upgrade)
        if method != "GET" and (method != "POST" or upgrade or not session_id):
            return error(BAD_HANDSHAKE_METHOD, upgrade=upgrade)
        options: dict[str, Any] = {"dialect": version.form(transport, query)}
        if "j" in query:
            # A number is all that a client ever sends, and all that may come back in a script.
            options["call"] = f"___eio[{re.sub('[^0-9]', '', query['j'])[:_MAX_INDEX_DIGITS] or 0}]"
        kind = "receive" if method == "GET" else "send"
        return Route(kind, transport=transport, session_id=session_id, options=options)


# Browsers make every line break of a text area CR LF, so the client writes them as backslash and n, and doubles the
# backslash where those two characters stood in the text (engine.io-client, polling-jsonp).
_LINE_BREAK = re.compile(rb"(\\)?\\n")


def form_payload(body: bytes) -> bytes:
    """The payload in a JSONP form of Engine.IO.  Raises ProtocolError where there is none."""
    payload = form_field(body)
    if payload is None:
        raise ProtocolError("The form has no field d.")
    return _LINE_BREAK.sub(lambda found: rb"\n" if found.group(1) else b"\n", payload)


_NOOP, _UPGRADE = Noop(), Upgrade()
_BYE = Bye(CLIENT_CLOSED.code, CLIENT_CLOSED.text)


def read_packet(packet: str) -> Signal:
    """What a packet of text means, a digit and its data.  Raises ProtocolError for what no client sends."""
    kind = packet[:1]
    if kind == "4":
        return Message(packet[1:])
    if kind == "3":
        return Pong(packet[1:])
    if kind == "2":
        return Ping(packet[1:])
    if kind == "5":
        return _UPGRADE
    if kind == "6":
        return _NOOP
    if kind == "1":
        return _BYE
    raise ProtocolError("Unknown packet type.")


def read_base64(text: str) -> Message:
    """A binary message where only text travels.  Raises ProtocolError for what is not base64."""
    try:
        return Message(b64decode(text, validate=True))
    except (Base64Error, ValueError):
        raise ProtocolError("A binary packet is not base64.") from None
