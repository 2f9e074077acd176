"""SockJS 0.3.3: the wire language of sockjs-client 0.2 to 1.6.

Source: the SockJS protocol text 0.3.3 and what its reference server and client do.  Knows nothing of HTTP beyond a
method and a path, and of sessions nothing at all.
"""

from __future__ import annotations

import hashlib
import html
import re
from collections.abc import Mapping, Sequence
from typing import Any

import ujson

from ..errors import INVALID_DATA, MESSAGE_TOO_BIG, CloseReason, ProtocolError
from ..limits import Limits
from ..wire import Frame, Message, Refusal, Request, Route, Signal
from .forms import form_field

__all__ = ["GREETING", "SOCKJS", "URL_PATTERN", "SockJS", "iframe_page", "info", "jsonp_payload"]

GREETING = b"Welcome to SockJS!\n"

_RECEIVE = {
    "xhr": "POST",
    "xhr_streaming": "POST",
    "eventsource": "GET",
    "htmlfile": "GET",
    "jsonp": "GET",
    "websocket": "GET",
}
_SEND = ("xhr_send", "jsonp_send")
# Browsers preflight what an XMLHttpRequest or an EventSource asks for; a script element and a frame never do.
_PREFLIGHTED = ("xhr", "xhr_send", "xhr_streaming", "eventsource")

#: The part of a URL pattern that follows the prefix: every path that is ours, and no other, so that an endpoint at
#: the root of a site leaves the rest of it alone.
URL_PATTERN = (
    r"(?:/?|/info|/iframe[^/]*\.html|/sockjs\.js|/websocket|/[^/.]+/[^/.]+/(?:"
    + "|".join(sorted((*_RECEIVE, *_SEND)))
    + "))"
)
_SESSION_PATH = re.compile(r"/[^/.]+/([^/.]+)/([a-z_]+)\Z")
_IFRAME_PATH = re.compile(r"/iframe[^/]*\.html\Z")


def _method_not_allowed(*methods: str) -> Refusal:
    return Refusal(405, headers=(("Allow", ", ".join(methods)),))


def jsonp_payload(body: bytes, content_type: str) -> bytes:
    """The payload of a ``jsonp_send`` body: field ``d`` of a form, or the body as it is with any other content type."""
    if content_type.partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        return body
    return form_field(body) or b""


_NO_OPTIONS: Mapping[str, Any] = {}
# How a body is unwrapped, and what a successful send is answered.
_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "xhr_send": {"answer": (204, b"")},
    "jsonp_send": {"answer": (200, b"ok"), "unwrap": jsonp_payload},
}


class SockJS:
    """The dialect; ``SOCKJS`` is its one instance."""

    name = "sockjs"
    lost_ends_session = True
    _hello = ("o",)

    def route(self, request: Request, limits: Limits) -> Route | Refusal | None:
        path, method = request.path, request.method
        found = _SESSION_PATH.match(path)
        if found is None:
            return self._route_page(path, method)
        session_id, name = found.groups()
        if len(session_id) > limits.max_session_id_chars:
            return None
        if name in _RECEIVE:
            wanted, kind = _RECEIVE[name], "receive"
        elif name in _SEND:
            wanted, kind = "POST", "send"
        else:
            return None
        if method == wanted:
            return Route(kind, transport=name, session_id=session_id, options=_OPTIONS.get(name, _NO_OPTIONS))
        if name in _PREFLIGHTED:
            if method == "OPTIONS":
                return Route("preflight", transport=name, session_id=session_id, methods=("OPTIONS", wanted))
            return _method_not_allowed("OPTIONS", wanted)
        return _method_not_allowed(wanted)

    def _route_page(self, path: str, method: str) -> Route | Refusal | None:
        if path in ("", "/"):
            page = "greeting"
        elif path == "/info":
            if method == "OPTIONS":
                return Route("preflight", page="info", methods=("OPTIONS", "GET"))
            if method != "GET":
                return _method_not_allowed("OPTIONS", "GET")
            page = "info"
        elif path == "/websocket":
            if method != "GET":
                return _method_not_allowed("GET")
            return Route("receive", transport="rawwebsocket")
        elif path == "/sockjs.js":
            page = "script"
        elif _IFRAME_PATH.match(path):
            page = "iframe"
        else:
            return None
        return Route("page", page=page) if method == "GET" else _method_not_allowed("GET")

    def hello(self) -> Sequence[Frame]:
        return self._hello

    def encode(self, message: object) -> str:
        """One element of an ``a[...]`` frame: JSON with all non-ASCII escaped in lower-case hex.

        Escaping everything covers the code points that transports and old JavaScript parsers mangle (U+200C to
        U+FFFF in places, lone surrogates), and makes every frame ASCII.  Bytes count as UTF-8 text, since SockJS has
        no binary; other JSON values travel as themselves, as sockjs-tornado lets them.
        """
        if isinstance(message, (bytes, bytearray, memoryview)):
            try:
                message = bytes(message).decode("utf-8")
            except UnicodeDecodeError:
                raise ValueError("SockJS carries text only, and these bytes are not UTF-8 text") from None
        try:
            return ujson.dumps(message, ensure_ascii=True, escape_forward_slashes=False, allow_nan=False)
        except OverflowError:
            raise ValueError("JSON has no NaN and no infinity") from None

    def pack(self, fragments: Sequence[Frame]) -> Sequence[Frame]:
        return ("a[" + ",".join(fragments) + "]",)  # type: ignore[arg-type]  # encode() makes str only

    def heartbeat(self) -> Frame | None:
        return "h"

    def goodbye(self, reason: CloseReason) -> Frame | None:
        return "c" + ujson.dumps([reason.code, reason.text], escape_forward_slashes=False)

    def decode(self, body: str | bytes, form: str, limits: Limits) -> Sequence[Signal]:
        """Messages out of the body of ``xhr_send`` or ``jsonp_send``, or out of a WebSocket text frame.

        A WebSocket frame may be empty or hold one bare string; a POST holds an array (protocol text, section
        "Protocol details").
        """
        if not body:
            if form == "websocket":
                return ()
            raise ProtocolError("Payload expected.", status=500)
        if len(body) > limits.max_payload_bytes:
            raise ProtocolError("Payload too big.", status=413, reason=MESSAGE_TOO_BIG)
        try:
            text = body if isinstance(body, str) else body.decode("utf-8")
        except UnicodeDecodeError:
            raise ProtocolError("Broken JSON encoding.", status=500, reason=INVALID_DATA) from None
        try:
            payload = ujson.loads(text)
        except (ValueError, RecursionError):
            raise ProtocolError("Broken JSON encoding.", status=500) from None
        if type(payload) is str and form == "websocket":
            payload = [payload]
        if type(payload) is not list:
            raise ProtocolError("Payload expected.", status=500)
        if len(payload) > limits.max_payload_messages:
            raise ProtocolError("Too many messages in one payload.", status=413, reason=MESSAGE_TOO_BIG)
        longest = limits.max_message_bytes
        signals = []
        for text in payload:
            if type(text) is not str:
                raise ProtocolError("Payload expected.", status=500)
            # Four bytes a character at the most: count exactly only where it can matter.
            if len(text) * 4 > longest and len(text.encode("utf-8", "surrogatepass")) > longest:
                raise ProtocolError("Message too big.", status=413, reason=MESSAGE_TOO_BIG)
            signals.append(Message(text))
        return signals


SOCKJS = SockJS()


def info(*, websocket: bool, cookie_needed: bool, entropy: int) -> bytes:
    """The body of ``/info``.  Exactly these keys: the 1.x client lets any further one override its own settings."""
    facts: dict[str, Any] = {
        "websocket": websocket,
        "origins": ["*:*"],
        "cookie_needed": cookie_needed,
        "entropy": entropy,
    }
    return ujson.dumps(facts, escape_forward_slashes=False).encode()


_IFRAME_PAGE = """<!DOCTYPE html>
<html>
<head>
  <meta http-equiv="X-UA-Compatible" content="IE=edge" />
  <meta http-equiv="Content-Type" content="text/html; charset=UTF-8" />
  <script src="{url}"></script>
  <script>
    document.domain = document.domain;
    SockJS.bootstrap_iframe();
  </script>
</head>
<body>
  <h2>Don't panic!</h2>
  <p>This is a SockJS hidden iframe. It's used for cross domain magic.</p>
</body>
</html>"""


def iframe_page(script_url: str) -> tuple[bytes, str]:
    """The helper page of the iframe transports, and its ETag (which depends on the body only)."""
    body = _IFRAME_PAGE.format(url=html.escape(script_url, quote=True)).encode()
    return body, '"' + hashlib.sha256(body).hexdigest()[:32] + '"'
