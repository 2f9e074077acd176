"""One message for many receivers: bytes made once for each (dialect, transport shape), shared by all.

Knows no session and no room; a fan-out loop makes one of these and hands it to every session.
"""

from __future__ import annotations

from collections.abc import Callable

from .dialects import Dialect
from .wire import Frame

__all__ = ["PreparedMessage", "Shape"]

#: How a transport wraps one frame into bytes.  A module-level function, so that it is the key of what is shared.
Shape = Callable[[Frame], bytes]


class PreparedMessage:
    """A message and everything that was made of it so far."""

    __slots__ = ("_bytes", "_dialect", "_fragments", "_shape", "_wire", "message")

    def __init__(self, message: object) -> None:
        self.message = message
        self._fragments: dict[str, Frame] = {}
        self._wire: dict[tuple[str, Shape], bytes] = {}
        # What was asked for last: receivers of one kind mostly follow each other, and most often there is one kind.
        self._dialect: Dialect | None = None
        self._shape: Shape | None = None
        self._bytes = b""

    def fragment(self, dialect: Dialect) -> Frame:
        """The message's fragment in *dialect* (see ``Dialect.encode``), made at most once."""
        found = self._fragments.get(dialect.name)
        if found is None:
            found = self._fragments[dialect.name] = dialect.encode(self.message)
        return found

    def wire(self, dialect: Dialect, shape: Shape) -> bytes:
        """The message alone, packed and wrapped: the bytes a receiver without a queue gets."""
        if shape is self._shape and dialect is self._dialect:
            return self._bytes
        key = (dialect.name, shape)
        found = self._wire.get(key)
        if found is None:
            frames = dialect.pack((self.fragment(dialect),))
            found = self._wire[key] = b"".join(map(shape, frames))
        self._dialect, self._shape, self._bytes = dialect, shape, found
        return found
