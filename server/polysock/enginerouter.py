"""EngineIORouter: a raw Engine.IO mount inside any Tornado application, for clients that use engine.io-client alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from polysock_transports.clock import Clock

from .endpoint import EngineIOEndpoint
from .router import ConnectionRouter
from .settings import read_settings
from .sockjs_contract import SockJSConnection

if TYPE_CHECKING:
    from .server import Server

__all__ = ["EngineIORouter"]


class EngineIORouter(ConnectionRouter):
    """Routes the Engine.IO clients at *prefix*, of versions 3 and 4, to *connection*; the analogue of SockJSRouter.

    Messages are text or bytes, in both directions (``send(data, binary=True)``); a value that JSON could carry is a
    TypeError.  Close codes reach the client on a WebSocket only.  Socket.IO's clients want a ``Server`` instead.
    """

    def __init__(
        self,
        connection: type[SockJSConnection],
        prefix: str = "/engine.io",
        user_settings: Mapping[str, Any] | None = None,
        *,
        server: Server | None = None,
        clock: Clock | None = None,
    ) -> None:
        """*prefix* is a path.  The other arguments are SockJSRouter's.  Raises SettingError."""
        options = read_settings(user_settings)
        super().__init__(connection, prefix, options, EngineIOEndpoint, server=server, clock=clock)
