"""Wire languages.  A dialect is stateless and pure: text and bytes in, frames and signals out.

It imports nothing but the standard library, ujson and this package's ``wire``, ``errors`` and ``limits``; it does no
I/O and holds nothing between two calls.  A new dialect is one file here plus its vectors in ``tests/vectors``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..errors import CloseReason
from ..limits import Limits
from ..wire import Frame, Refusal, Request, Route, Signal

__all__ = ["Dialect"]


class Dialect(Protocol):
    """What a session and the gateway need to know of a wire language."""

    name: str

    @property
    def lost_ends_session(self) -> bool:
        """Whether a receiving connection that breaks takes the session with it."""

    def route(self, request: Request, limits: Limits) -> Route | Refusal | None:
        """Where *request* goes; None where the path is not one of ours."""

    def hello(self) -> Sequence[Frame]:
        """What opens a session."""

    def encode(self, message: object) -> Frame:
        """One fragment for one message: the dear half of sending.

        Raises TypeError or ValueError for a message that this language cannot carry.
        """

    def pack(self, fragments: Sequence[Frame]) -> Sequence[Frame]:
        """Join *fragments* into the frames that carry them: the cheap half of sending."""

    def heartbeat(self) -> Frame | None:
        """What is sent on an idle connection; None where the transport's own ping must do."""

    def goodbye(self, reason: CloseReason) -> Frame | None:
        """The last frame of a session; None where only the transport can say it."""

    def decode(self, body: str | bytes, form: str, limits: Limits) -> Sequence[Signal]:
        """What *body*, which came in the format *form* (see ``Route.transport``), means.

        Raises ProtocolError, and nothing else, for any input whatever.
        """
