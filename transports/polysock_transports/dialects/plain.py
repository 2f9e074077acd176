"""No language at all: a message is a frame and a frame is a message.

For the raw WebSocket endpoint, where opening, closing and liveness are the transport's own business.
"""

from __future__ import annotations

from collections.abc import Sequence

import ujson

from ..errors import MESSAGE_TOO_BIG, CloseReason, ProtocolError
from ..limits import Limits
from ..wire import Frame, Message, Refusal, Request, Route, Signal

__all__ = ["PLAIN", "PLAIN_TEXT", "Plain", "PlainText"]


class Plain:
    """The dialect; ``PLAIN`` is its one instance."""

    name = "plain"
    lost_ends_session = True

    def route(self, request: Request, limits: Limits) -> Route | Refusal | None:
        if request.path not in ("", "/"):
            return None
        if request.method != "GET":
            return Refusal(405, headers=(("Allow", "GET"),))
        return Route("receive", transport="rawwebsocket")

    def hello(self) -> Sequence[Frame]:
        return ()

    def encode(self, message: object) -> Frame:
        """Text and bytes as they are; any other JSON value as its text, as Tornado does with a dict."""
        if isinstance(message, (str, bytes)):
            return message
        if isinstance(message, (bytearray, memoryview)):
            return bytes(message)
        try:
            return ujson.dumps(message, ensure_ascii=False, escape_forward_slashes=False, allow_nan=False)
        except OverflowError:
            raise ValueError("JSON has no NaN and no infinity") from None

    def pack(self, fragments: Sequence[Frame]) -> Sequence[Frame]:
        return fragments

    def heartbeat(self) -> Frame | None:
        return None

    def goodbye(self, reason: CloseReason) -> Frame | None:
        return None

    def decode(self, body: str | bytes, form: str, limits: Limits) -> Sequence[Signal]:
        if len(body) > limits.max_message_bytes:
            raise ProtocolError("Message too big.", status=413, reason=MESSAGE_TOO_BIG)
        return (Message(body),)


class PlainText(Plain):
    """The same for a connection that has no binary messages; ``PLAIN_TEXT`` is its one instance."""

    name = "plain_text"

    def encode(self, message: object) -> str:
        """As ``Plain.encode``, but bytes count as UTF-8 text."""
        frame = super().encode(message)
        try:
            return frame if isinstance(frame, str) else frame.decode("utf-8")
        except UnicodeDecodeError:
            raise ValueError("this client takes text only, and these bytes are not UTF-8 text") from None


PLAIN = Plain()
PLAIN_TEXT = PlainText()
