"""Wire languages, transports and sessions: how bytes reach one client, whatever its browser.

This package knows no room, no event name and no application object; ``polysock`` builds those on top of it.
Start reading at ``session.py`` (the life of one client), then ``transport.py`` (the contract of a transport) and
``dialects/`` (the wire languages).
"""

from __future__ import annotations

from .errors import (
    CloseReason,
    PolysockError,
    ProtocolError,
    Refused,
    SessionClosed,
    StateError,
)
from .limits import DEFAULT_LIMITS, Limits
from .wire import ConnectionInfo

__all__ = [
    "DEFAULT_LIMITS",
    "CloseReason",
    "ConnectionInfo",
    "Limits",
    "PolysockError",
    "ProtocolError",
    "Refused",
    "SessionClosed",
    "StateError",
]
