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
from polysock_transports.entrance import HTTPServer

from .acks import AckTimeout, CallResult
from .backplane import BackplaneDown
from .connection import Connection
from .enginerouter import EngineIORouter
from .handshake import ConnectionRefused, Handshake
from .presence import Presence
from .publisher import Publisher, SyncPublisher
from .remote import RemoteSocket
from .router import SockJSRouter
from .server import Server
from .settings import SettingError
from .sockets import Socket
from .workers import Worker

__all__ = [
    "AckTimeout",
    "BackplaneDown",
    "CallResult",
    "CloseReason",
    "Connection",
    "ConnectionInfo",
    "ConnectionRefused",
    "EngineIORouter",
    "HTTPServer",
    "Handshake",
    "Limits",
    "PolysockError",
    "Presence",
    "ProtocolError",
    "Publisher",
    "Refused",
    "RemoteSocket",
    "Server",
    "SessionClosed",
    "SettingError",
    "SockJSRouter",
    "Socket",
    "StateError",
    "SyncPublisher",
    "Worker",
    "__version__",
]

__version__ = "0.1.0"
