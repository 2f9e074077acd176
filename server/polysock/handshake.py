"""The handshake: what is known of a client's first request, under Socket.IO's names."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from polysock_transports import ConnectionInfo, Refused

__all__ = ["ConnectionRefused", "Handshake"]

_MAX_QUERY_FIELDS = 100


class ConnectionRefused(Refused):
    """Raise this in an authorization or a middleware: the client is told *text*, and *data* where its form has room."""

    def __init__(self, text: str = "not authorized", data: Any = None, *, status: int = 403) -> None:
        super().__init__(status, text)
        self.data = data


@dataclass(frozen=True, slots=True)
class Handshake:
    """``socket.handshake``; the names can be read as attributes or as keys (``handshake["headers"]``)."""

    info: ConnectionInfo
    auth: Any = None
    """What the client sent along when it asked for the namespace (Socket.IO 3 and later)."""
    namespace_query: str = ""
    """The query that came with the namespace's name (Socket.IO 0.9 to 2.x)."""
    issued: float = field(default_factory=time.time)
    """When, in seconds since 1970."""

    @property
    def headers(self) -> Any:
        return self.info.headers

    @property
    def address(self) -> str:
        """The client's IP address."""
        return self.info.ip

    @property
    def query(self) -> dict[str, str]:
        """The arguments of the first request's URL, the first of each name, and over them those of the namespace."""
        asked = {name: values[0].decode("utf-8", "replace") for name, values in self.info.arguments.items() if values}
        if self.namespace_query:
            with suppress(ValueError):  # more fields than anybody needs
                asked.update(parse_qsl(self.namespace_query, keep_blank_values=True, max_num_fields=_MAX_QUERY_FIELDS))
        return asked

    @property
    def url(self) -> str:
        """The path of the first request."""
        return self.info.path

    @property
    def feed_rooms(self) -> tuple[str, ...]:
        """The rooms that an EventSource feed asks for; empty for all of the namespace, and for every other client."""
        if self.info.transport != "events":
            return ()
        return tuple(name.decode("utf-8", "replace") for name in self.info.arguments.get("room", ()))

    @property
    def xdomain(self) -> bool:
        """Whether a browser said that the page comes from somewhere (it says so across origins, and more)."""
        return self.info.origin is not None

    @property
    def time(self) -> str:
        """When, as text."""
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.issued))

    def __getitem__(self, name: str) -> Any:
        if name.startswith("_") or not hasattr(self, name):
            raise KeyError(name)
        return getattr(self, name)
