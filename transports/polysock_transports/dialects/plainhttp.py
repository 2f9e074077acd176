"""The plain endpoint: addresses and bodies for clients without any library.

A raw WebSocket, timed polling (``/poll``, ``/emit``, ``/leave``) and the one-way EventSource feed (``/events``).  What
is inside a message, a JSON array as text, is none of this module's business.  See docs/wire-plain.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

import ujson

from ..errors import MESSAGE_TOO_BIG, CloseReason, ProtocolError
from ..limits import Limits
from ..wire import Frame, Message, Refusal, Request, Route, Signal
from .plain import Plain

__all__ = ["FEED", "PLAIN_HTTP", "URL_PATTERN", "Feed", "FeedEvent", "PlainHttp", "emit_answer", "error", "poll_answer"]

#: The part of a URL pattern that follows the prefix: every path that is ours, and no other.
URL_PATTERN = r"(?:/websocket|/poll|/emit|/leave|/events)"

_METHODS: Mapping[str, tuple[str, ...]] = {
    "/websocket": ("GET",),
    "/poll": ("OPTIONS", "GET"),
    "/emit": ("OPTIONS", "POST"),
    "/leave": ("OPTIONS", "POST", "DELETE"),
    "/events": ("OPTIONS", "GET"),
}
_CURSOR = re.compile(r"[0-9]{1,15}\Z")
_MAX_QUERY_FIELDS = 100


def _dumps(value: Any) -> str:
    return ujson.dumps(value, ensure_ascii=False, escape_forward_slashes=False, allow_nan=False)


def _utf8(text: str) -> bytes:
    """JSON text as UTF-8.  A lone surrogate, which only strings hold, leaves as the escape that JSON has for it."""
    return text.encode("utf-8", "backslashreplace")


def error(text: str) -> bytes:
    """The body of an answer that says no."""
    return _utf8(_dumps({"error": text}))


def emit_answer(accepted: int) -> bytes:
    return _utf8(_dumps({"accepted": accepted}))


def poll_answer(session_id: str, cursor: int, messages: Sequence[Frame], closed: CloseReason | None) -> bytes:
    """What a poll is answered: *messages* are JSON arrays as text, *cursor* is the number of the last of them."""
    facts: dict[str, Any] = {"sid": session_id, "cursor": cursor}
    if closed is not None:
        facts["closed"] = {"code": closed.code, "reason": closed.text, "may_return": closed.may_return}
    events = ",".join(text if isinstance(text, str) else text.decode() for text in messages)
    return _utf8(_dumps(facts)[:-1] + ',"events":[' + events + "]}")


class PlainHttp(Plain):
    """The dialect of the endpoint and of timed polling; ``PLAIN_HTTP`` is its one instance."""

    name = "plainhttp"

    def route(self, request: Request, limits: Limits) -> Route | Refusal | None:
        path, method = request.path, request.method
        methods = _METHODS.get(path)
        if methods is None:
            return None
        if method not in methods:
            return Refusal(405, headers=(("Allow", ", ".join(methods)),))
        name = path[1:]
        if method == "OPTIONS":
            return Route("preflight", transport=name, methods=methods)
        if name == "websocket":
            return Route("receive", transport="rawwebsocket")
        if name == "events":
            return Route("receive", transport="events")
        try:
            query = parse_qs(request.query, keep_blank_values=True, max_num_fields=_MAX_QUERY_FIELDS)
        except ValueError:
            return Refusal(400, "Too many arguments.\n")
        session_id = query.get("sid", [""])[0]
        if len(session_id) > limits.max_session_id_chars:
            session_id = session_id[: limits.max_session_id_chars]  # nobody has such a long one: unknown
        if name == "poll":
            since = query.get("since", [""])[0]
            cursor = int(since) if since.isascii() and _CURSOR.match(since) else None
            return Route("receive", transport="poll", session_id=session_id, options={"since": cursor})
        return Route("send" if name == "emit" else "leave", transport=name, session_id=session_id)

    def decode(self, body: str | bytes, form: str, limits: Limits) -> Sequence[Signal]:
        """The messages in a body: one array, or an array of arrays."""
        if len(body) > limits.max_payload_bytes:
            raise ProtocolError("The body is too big.", status=413, reason=MESSAGE_TOO_BIG)
        try:
            text = body if isinstance(body, str) else body.decode("utf-8")
            payload = ujson.loads(text)
        except (ValueError, RecursionError):
            raise ProtocolError("The body is not JSON.") from None
        if type(payload) is not list:
            raise ProtocolError("The body must be a JSON array: a message, or an array of messages.")
        if payload and type(payload[0]) is not list:
            texts = [text]
        elif len(payload) > limits.max_payload_messages:
            raise ProtocolError("Too many messages in one body.", status=413, reason=MESSAGE_TOO_BIG)
        elif all(type(item) is list for item in payload):
            try:
                texts = [_dumps(item) for item in payload]
            except (ValueError, OverflowError, RecursionError):
                raise ProtocolError("A number in the body is out of range, or it is nested too deep.") from None
        else:
            raise ProtocolError("Every message in the body must be a JSON array.")
        longest = limits.max_message_bytes
        # Four bytes a character at the most: count exactly only where it can matter.
        if any(len(text) * 4 > longest and len(_utf8(text)) > longest for text in texts):
            raise ProtocolError("A message is too big.", status=413, reason=MESSAGE_TOO_BIG)
        return [Message(text) for text in texts]


PLAIN_HTTP = PlainHttp()


@dataclass(frozen=True, slots=True)
class FeedEvent:
    """One block of a Server-Sent Events stream (HTML standard, section 9.2)."""

    data: str = ""
    """JSON text, which never holds a line break; without any, browsers take note of the id and tell nobody."""
    id: str = ""
    kind: str = ""
    """The event's type; empty means ``message``."""


class Feed:
    """The dialect of the one-way feed; ``FEED`` is its one instance."""

    name = "feed"
    lost_ends_session = True

    def route(self, request: Request, limits: Limits) -> Route | Refusal | None:
        return PLAIN_HTTP.route(request, limits)

    def hello(self) -> Sequence[Frame]:
        return ()

    def encode(self, message: object) -> Frame:
        """A block without the empty line that ends it; text alone is an event that no one can resume after."""
        event = message if isinstance(message, FeedEvent) else FeedEvent(str(message))
        fields = (("id", event.id), ("event", event.kind), ("data", event.data))
        return "\n".join(f"{name}: {value}" for name, value in fields if value)

    def pack(self, fragments: Sequence[Frame]) -> Sequence[Frame]:
        return fragments

    def heartbeat(self) -> Frame | None:
        return ":"  # a comment

    def goodbye(self, reason: CloseReason) -> Frame | None:
        return None  # the response ends, and the client comes back by itself

    def decode(self, body: str | bytes, form: str, limits: Limits) -> Sequence[Signal]:
        raise ProtocolError("A feed takes nothing.")


FEED = Feed()
