"""polysock: one connection to every browser that ever shipped, inside any Tornado application.

``Connection`` and ``SockJSRouter`` are call-compatible with sockjs-tornado::

    import tornado.web
    from polysock import Connection, SockJSRouter

    class Echo(Connection):
        def on_message(self, message):
            self.send(message)

    application = tornado.web.Application(SockJSRouter(Echo, "/echo").urls)
"""

from __future__ import annotations

from polysock_transports import (
    CloseReason,
    ConnectionInfo,
    Limits,
    PolysockError,
    ProtocolError,
    Refused,
    SessionClosed,
    StateError,
)

from .connection import Connection
from .router import SockJSRouter

__all__ = [
    "CloseReason",
    "Connection",
    "ConnectionInfo",
    "Limits",
    "PolysockError",
    "ProtocolError",
    "Refused",
    "SessionClosed",
    "SockJSRouter",
    "StateError",
    "__version__",
]

__version__ = "0.1.0"
