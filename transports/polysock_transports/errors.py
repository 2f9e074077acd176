"""Everything that can go wrong, and why a session ended.

One tree of exceptions and one table of close reasons, shared by every dialect and transport, so that a code means
the same thing in a log line, in a metric and on the wire.  This module knows no wire text and does no I/O.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "ABNORMAL_CLOSURE",
    "ALREADY_ATTACHED",
    "CLIENT_CLOSED",
    "GOING_AWAY",
    "GO_AWAY",
    "HANDLER_FAILED",
    "INTERRUPTED",
    "INVALID_DATA",
    "MESSAGE_TOO_BIG",
    "NORMAL",
    "NO_STATUS",
    "OPEN_FAILED",
    "PING_TIMEOUT",
    "PROTOCOL_VIOLATION",
    "REFUSED",
    "SESSION_TIMEOUT",
    "SLOW_CONSUMER",
    "WRONG_ADDRESS",
    "CloseReason",
    "PolysockError",
    "ProtocolError",
    "Refused",
    "SessionClosed",
    "StateError",
    "is_sendable_close_code",
]


@dataclass(frozen=True, slots=True)
class CloseReason:
    """Why a session ended.

    ``code`` uses the number space of RFC 6455 section 7.4; ``text`` is for people (on a WebSocket at most 123 bytes
    of it travel); ``may_return`` says whether a client that lost this session has reason to open a new one.
    """

    code: int
    text: str
    may_return: bool = True

    def __str__(self) -> str:
        return f"{self.code} {self.text}" if self.text else str(self.code)


#: The application or the client ended the session in the ordinary way.
NORMAL = CloseReason(1000, "Normal closure", may_return=False)
#: What sockjs-tornado says when its application calls ``close()`` without a code.
GO_AWAY = CloseReason(3000, "Go away!", may_return=False)
#: The client said goodbye without a code.
CLIENT_CLOSED = CloseReason(1000, "Closed by the client", may_return=False)
#: The server process is shutting down (RFC 6455 section 7.4.1).
GOING_AWAY = CloseReason(1001, "Going away")
#: SockJS: the receiving connection broke before the server had ended it.
INTERRUPTED = CloseReason(1002, "Connection interrupted")
#: The peer broke the rules of its protocol.
PROTOCOL_VIOLATION = CloseReason(1002, "Protocol error", may_return=False)
#: Local report only: a WebSocket close frame that carried no code (RFC 6455 section 7.1.5).
NO_STATUS = CloseReason(1005, "", may_return=False)
#: Local report only: the connection vanished without a close frame (RFC 6455 section 7.1.5).
ABNORMAL_CLOSURE = CloseReason(1006, "Connection lost")
#: Text that is not UTF-8 (RFC 6455 section 8.1).
INVALID_DATA = CloseReason(1007, "Text is not valid UTF-8", may_return=False)
#: ``on_open`` returned False or raised, or a rule of the application refused the client.
REFUSED = CloseReason(1008, "Refused", may_return=False)
#: A message or payload over the limit (RFC 6455 section 7.4.1).
MESSAGE_TOO_BIG = CloseReason(1009, "Message too big", may_return=False)
#: A handler of the application raised while it handled a message.
HANDLER_FAILED = CloseReason(1011, "Internal error")
#: ``on_open`` of the application raised something that is not a refusal.
OPEN_FAILED = CloseReason(1011, "Internal error")
#: No answer to a ping within the heartbeat timeout.
PING_TIMEOUT = CloseReason(1006, "Ping timeout")
#: No receiving request came back within the disconnect delay.
SESSION_TIMEOUT = CloseReason(1006, "Session timed out")
#: SockJS 0.3.3: a second receiving connection while the first is attached.
ALREADY_ATTACHED = CloseReason(2010, "Another connection still open")
#: ``verify_ip``: the session belongs to another address.
WRONG_ADDRESS = CloseReason(2010, "Attempted to connect to session from different IP")
#: More than the queue's hard limit waits for a client that does not read.
SLOW_CONSUMER = CloseReason(4008, "Too slow: the send queue is full")


def is_sendable_close_code(code: int) -> bool:
    """Whether *code* may stand in a WebSocket close frame (RFC 6455 section 7.4, and the IANA registry)."""
    return 3000 <= code <= 4999 or (1000 <= code <= 1014 and code not in (1004, 1005, 1006))


class PolysockError(Exception):
    """The root of everything this project raises on purpose."""


class ProtocolError(PolysockError):
    """The peer broke the protocol.

    ``status`` is the HTTP status for a transport that can still answer, ``reason`` the close reason for one that
    cannot, and the message a text that is safe to send back (it never holds bytes of the request).
    """

    def __init__(self, text: str, *, status: int = 400, reason: CloseReason = PROTOCOL_VIOLATION) -> None:
        super().__init__(text)
        self.status = status
        self.reason = reason


class StateError(PolysockError):
    """We called something at a moment when it makes no sense: a bug on this side of the wire."""


class SessionClosed(PolysockError):
    """Waiting on a session that has ended; ``reason`` says why it did."""

    def __init__(self, reason: CloseReason) -> None:
        super().__init__(str(reason))
        self.reason = reason


class Refused(PolysockError):
    """The client may not come in: ``status`` is the HTTP status, the message the text it is told."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
