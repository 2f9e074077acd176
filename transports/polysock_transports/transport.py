"""The transport contract, and the shared base of those that ride on an HTTP response.

A transport owns one HTTP response or one WebSocket.  It never looks into a message and never asks which dialect it
serves: what differs comes in ``options``.  A new HTTP transport is a class of a few lines in a file of its own: a
content type, a prelude, a shape, and whether one frame ends it (see ``xhr.py``).
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from .errors import CloseReason, ProtocolError
from .limits import Limits
from .pipes import Exchange, Headers
from .prepared import Shape
from .wire import Frame

__all__ = ["HttpTransport", "Transport", "TransportOwner", "callback_option"]


_CALLBACK = re.compile(r"[A-Za-z0-9_.-]+\Z")


class TransportOwner(Protocol):
    """What a transport tells the session it is attached to."""

    def transport_ready(self, transport: Transport) -> None:
        """It takes bytes again."""

    def transport_ended(self, transport: Transport) -> None:
        """It is over, and we ended it."""

    def transport_lost(self, transport: Transport, reason: CloseReason | None = None) -> None:
        """It broke."""

    def peer_closed(self, reason: CloseReason) -> None:
        """The peer said goodbye on it, or broke its rules; ``transport_ended`` follows."""

    def alive(self) -> None:
        """Bytes came in."""

    def receive(self, body: str | bytes, form: str = "") -> None:
        """A message came in.  Raises ProtocolError."""


class Transport(ABC):
    """How frames travel on one response or socket."""

    if not TYPE_CHECKING:  # mypy takes what a subclass has a slot for as an error where only the base is known
        __slots__ = ()  # a subclass may do without a dict

    name: ClassVar[str]
    #: Whether the peer answers ``ping`` on the same connection.
    answers_ping: ClassVar[bool] = False
    #: Whether the client comes back when we end this connection, and shows by that that it lives.
    may_recycle: ClassVar[bool] = True
    #: Wraps one frame; None where the bytes depend on the request and cannot be shared.
    shape: Shape | None = None
    #: Whether ``write`` may be called now.
    ready: bool = True
    #: Whether ``finish`` was called.
    finishing: bool = False
    owner: TransportOwner | None = None

    @abstractmethod
    def write(self, frames: Sequence[Frame]) -> None:
        """Wrap and send *frames*.  May end the transport, which ``owner`` is then told before this returns."""

    @abstractmethod
    def write_wire(self, data: bytes) -> None:
        """Send bytes that ``shape`` made."""

    @abstractmethod
    def finish(self, reason: CloseReason | None) -> None:
        """End after what was written; *reason* is None where only this response ends and not the session."""

    @abstractmethod
    def abort(self) -> None:
        """End now, unsent bytes or not.  The owner is not told."""

    def ping(self) -> None:  # noqa: B027  # most transports have no ping, and that is no fault
        """Ask the peer for a sign of life, where ``answers_ping``."""

    def pause(self) -> None:  # noqa: B027  # only a transport that also receives can stop doing so
        """Stop reading from the peer."""

    def resume(self) -> None:  # noqa: B027
        """Read again."""


class HttpTransport(Transport):
    """A response that carries frames: one and the end (``one_shot``), or many until ``response_limit_bytes``."""

    __slots__ = ("_exchange", "_headers", "_high", "_left", "_limits", "finishing", "owner", "ready", "started")

    content_type: ClassVar[str]
    one_shot: ClassVar[bool] = False
    #: Whether a streaming response begins with its first frame, and not at once.
    starts_late: ClassVar[bool] = False
    #: What a streaming response begins with; it does not count towards the response limit.
    prelude: bytes = b""
    #: Headers beyond the common ones.
    extra_headers: ClassVar[Headers] = ()

    def __init__(self, exchange: Exchange, headers: Headers, options: Mapping[str, Any], limits: Limits) -> None:
        """*options*: what came in the query (``callback``) or is set by the route.  Raises ProtocolError."""
        self.owner: TransportOwner | None = None
        self.ready = True
        self.finishing = False
        self.started = False
        """Whether a streaming response has begun."""
        self._exchange = exchange
        self._limits = limits
        self._left = limits.response_limit_bytes  # until a streaming response ends
        self._high = limits.pipe_high_bytes
        self._headers: Headers = self.complete(headers)
        self.configure(options)
        exchange.owner = self
        if not self.one_shot and not self.starts_late:
            self._start()

    @classmethod
    def complete(cls, headers: Headers) -> tuple[tuple[str, str], ...]:
        """*headers* and those that every response of this kind has."""
        return (*headers, ("Content-Type", cls.content_type), *cls.extra_headers)

    def again(self, exchange: Exchange, headers: Headers) -> None:
        """Carry one more answer, of a request that is the same as the one before, where that is over (``one_shot``).

        *headers* are complete.
        """
        self._exchange = exchange
        self._headers = headers
        self.ready = True
        self.finishing = False
        exchange.owner = self

    def _start(self) -> None:
        self.started = True
        self._exchange.start(200, (*self._headers, ("X-Accel-Buffering", "no")), self.prelude)

    def configure(self, options: Mapping[str, Any]) -> None:  # few transports need any
        """Read *options*, before a byte is written; raise ProtocolError where one is wrong."""

    def wrap(self, frame: Frame) -> bytes:
        """One frame as bytes; overridden where the transport has no ``shape``."""
        assert self.shape is not None
        return self.shape(frame)

    def write(self, frames: Sequence[Frame]) -> None:
        self.write_wire(b"".join(map(self.shape or self.wrap, frames)))

    def write_wire(self, data: bytes) -> None:
        if self.finishing:
            return
        if self.one_shot:
            self.ready = False
            self.finishing = True
            self._exchange.respond(200, self._headers, data)
            self._ended()
            return
        if not self.started:
            self._start()
        exchange = self._exchange
        exchange.write(data)
        self._left -= len(data)
        if self._left <= 0:
            self.finish(None)
        elif exchange.backlog > self._high:
            self.ready = False

    def finish(self, reason: CloseReason | None) -> None:
        if self.finishing:
            return
        self.ready = False
        self.finishing = True
        if self.one_shot:
            self._exchange.respond(200, self._headers, b"")
        else:
            self._exchange.finish()
        self._ended()

    def _ended(self) -> None:
        owner, self.owner = self.owner, None  # it may be kept for the next poll, and its session end before that
        if owner is not None:
            owner.transport_ended(self)

    def abort(self) -> None:
        self.owner = None
        self._exchange.abort()

    # -- told by the exchange

    def exchange_drained(self) -> None:
        if not self.finishing:
            self.ready = True
            if self.owner is not None:
                self.owner.transport_ready(self)

    def exchange_lost(self) -> None:
        self.ready = False
        if self.owner is not None and not self.finishing:
            self.finishing = True
            self.owner.transport_lost(self)


def callback_option(options: Mapping[str, Any], limits: Limits) -> str:
    """The checked callback name of a JSONP or htmlfile request (SockJS protocol text: letters, digits, ``-_.``)."""
    callback: str | None = options.get("callback")
    if not callback:
        raise ProtocolError('"callback" parameter required', status=500)
    if len(callback) > limits.max_callback_chars or _CALLBACK.match(callback) is None:
        raise ProtocolError('invalid "callback" parameter', status=500)
    return callback
