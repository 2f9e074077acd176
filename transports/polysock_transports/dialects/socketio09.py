"""Socket.IO 0.9 (protocol 1): the wire language of clients 0.7 to 0.9.

The sources are the specification of that generation (socket.io-spec, protocol 1), client 0.9.17 and server 0.9.19;
where these differ, the programs count.  Knows packets as text whose first digit tells heartbeats and noops from what is
the application's; heartbeats, polls and their ends are the session's (``legacy.py``).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import ujson

from ..errors import CLIENT_CLOSED, INVALID_DATA, MESSAGE_TOO_BIG, CloseReason, ProtocolError
from ..limits import Limits
from ..wire import Frame, Message, Noop, Pong, Refusal, Request, Route, Signal
from .engineio import read_query
from .forms import form_field

__all__ = [
    "CONNECT",
    "DISCONNECT",
    "HEARTBEAT",
    "NOOP",
    "RECONNECT",
    "SOCKETIO09",
    "SocketIO09",
    "form_payload",
    "handshake",
    "poll_s",
    "refuse",
]

DISCONNECT, CONNECT, HEARTBEAT, NOOP = "0::", "1::", "2::", "8::"
#: An error with the reason "client not handshaken" and the advice to reconnect.
RECONNECT = "7:::1+0"

_SOCKETS = ("websocket", "flashsocket")
_POLLS = ("xhr-polling", "jsonp-polling")
_STREAMS = ("htmlfile", "xhr-multipart")
_METHODS = ("GET", "POST", "OPTIONS")
_PATH = re.compile(r"/([0-9]+)(?:/([^/]*)/([^/]+))?/?\Z")
_NOT_DIGITS = re.compile("[^0-9]")
_MAX_INDEX_DIGITS = 10
_SCRIPT = (("Content-Type", "application/javascript"),)

_MARK = "\ufffd"
# In UTF-16, in whose units lengths are counted.
_LENGTH = re.compile(rb"\xfd\xff((?:[0-9]\x00){1,10})\xfd\xff")
#: Browsers count a timer's milliseconds in 31 bits, and fire at once where that is not enough.
_MAX_TIMER_S = 2**31 // 1000


class SocketIO09:
    """One form of the dialect: several packets in one frame (polling), or a packet in each.

    Fragments are packets, the same in all forms.
    """

    language = "socketio09"
    lost_ends_session = False

    def __init__(self, *, framed: bool = False, notices_end: bool = False) -> None:
        """*notices_end*: whether the end of the transport is enough for the client to come back."""
        self.name = "socketio09-framed" if framed else "socketio09-single"
        self.framed = framed
        """Whether this is the form of polling, where each answer is one frame and there are no heartbeats."""
        self._notices_end = notices_end

    def over(self, transport: str) -> SocketIO09:
        """The form of the same client on another transport."""
        return _SOCKET if transport in _SOCKETS else _STREAM if transport in _STREAMS else _POLL

    def route(self, request: Request, limits: Limits) -> Route | Refusal | None:
        """Where *request* goes: ``/1/`` shakes hands (kind ``receive``, and no session id), the rest names a session.

        ``Route.options["call"]`` is the JavaScript expression that an answer by script calls.
        """
        found = _PATH.match(request.path)
        if found is None:
            return None
        protocol, transport, session_id = found.groups()
        if protocol != "1":
            return Refusal(500, "Protocol version not supported.")
        if request.method not in _METHODS:
            return Refusal(405, headers=(("Allow", ", ".join(_METHODS)),))
        try:
            query = read_query(request.query)
        except ProtocolError as problem:
            return Refusal(problem.status, str(problem))
        if session_id is None:
            if request.method == "OPTIONS":
                return Route("preflight", methods=_METHODS)
            return Route("receive", options=_call(query.get("jsonp")))
        if "disconnect" in query and request.method != "OPTIONS":
            # The client leaves out the transport here; other programs do not.
            return Route("leave", session_id=session_id)
        if transport not in (*_SOCKETS, *_POLLS, *_STREAMS):
            return None
        if request.method == "OPTIONS":
            return Route("preflight", transport=transport, methods=_METHODS)
        kind = "send" if request.method == "POST" and transport not in _SOCKETS else "receive"
        options = _call(query.get("i", "")) if transport == "jsonp-polling" else {}
        return Route(kind, transport=transport, session_id=session_id, options=options)

    def hello(self) -> Sequence[Frame]:
        return ()  # the answer to the main endpoint's connect, which is the application's to give

    def encode(self, message: object) -> Frame:
        """A packet as it is.  Raises TypeError for what is not text: there is no binary."""
        if isinstance(message, str):
            return message
        if isinstance(message, (bytes, bytearray, memoryview)):
            try:
                return bytes(message).decode()
            except UnicodeDecodeError:
                pass
        raise TypeError(f"Socket.IO 0.9 carries text, not {type(message).__name__}")

    def pack(self, fragments: Sequence[Frame]) -> Sequence[Frame]:
        if not self.framed or len(fragments) == 1:
            return fragments
        return ("".join([f"{_MARK}{_units(str(packet))}{_MARK}{packet!s}" for packet in fragments]),)

    def heartbeat(self) -> Frame | None:
        return None  # heartbeats belong to the session's deadlines

    def goodbye(self, reason: CloseReason) -> Frame | None:
        """Who says goodbye is not answered; who may return is told to, unless the end of the transport tells it."""
        if reason == CLIENT_CLOSED:
            return NOOP if self.framed else None
        if not reason.may_return:
            return DISCONNECT
        return None if self._notices_end else RECONNECT

    def decode(self, body: str | bytes, form: str, limits: Limits) -> Sequence[Signal]:
        """One packet or several framed ones, on every transport: old programs join them on a WebSocket too."""
        if len(body) > limits.max_payload_bytes:
            raise ProtocolError("Payload too big.", status=413, reason=MESSAGE_TOO_BIG)
        try:
            text = body if isinstance(body, str) else body.decode("utf-8")
        except UnicodeDecodeError:
            raise ProtocolError("Not UTF-8 text.", reason=INVALID_DATA) from None
        # XDomainRequest of IE 8 and 9 sends no content type, and some old clients make it look like a form's field.
        text = text.removeprefix("data=")
        packets = _unpack(text, limits) if text.startswith(_MARK) else [text] if text else []
        longest = limits.max_message_bytes
        # Four bytes a character at the most: count exactly only where it can matter.
        if any(len(text) * 4 > longest and len(text.encode("utf-8", "surrogatepass")) > longest for text in packets):
            raise ProtocolError("A packet is too big.", status=413, reason=MESSAGE_TOO_BIG)
        return [_signal(packet) for packet in packets]


def _call(index: str | None) -> dict[str, Any]:
    """The script call with number *index*; a number is all that may come back in a script."""
    return {} if index is None else {"call": f"io.j[{_NOT_DIGITS.sub('', index)[:_MAX_INDEX_DIGITS] or 0}]"}


def _units(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-16-le", "surrogatepass")) // 2


def _unpack(text: str, limits: Limits) -> list[str]:
    units = text.encode("utf-16-le", "surrogatepass")
    packets: list[str] = []
    at = count = 0
    while at < len(units):
        head = _LENGTH.match(units, at)
        if head is None:
            raise ProtocolError("The packets of a payload need their lengths.")
        count += 1
        if count > limits.max_payload_packets:
            raise ProtocolError("Too many packets in one payload.", status=413, reason=MESSAGE_TOO_BIG)
        start = head.end()
        at = start + 2 * int(head[1][::2])
        if at > len(units):
            raise ProtocolError("A packet of a payload is shorter than its length.")
        if at > start:
            packets.append(units[start:at].decode("utf-16-le", "surrogatepass"))
    return packets


_NOOP, _PONG = Noop(), Pong()


def _signal(packet: str) -> Signal:
    if packet.startswith(HEARTBEAT):
        return _PONG
    return _NOOP if packet.startswith(NOOP) else Message(packet)


def form_payload(body: bytes) -> str:
    """The payload in the form of a JSONP client: a JSON string, or from old ones the text itself.

    Raises ProtocolError where there is none.
    """
    field = form_field(body)
    if field is None:
        raise ProtocolError("The form has no field d.")
    try:
        text = field.decode("utf-8")
        payload = ujson.loads(text) if text.startswith('"') else text
    except ValueError:
        raise ProtocolError("The form's field is neither text nor a JSON string.") from None
    return str(payload)


def poll_s(limits: Limits) -> float:
    """How long a poll may wait, in seconds: no longer than the client waits for any sign of the server."""
    return min(limits.legacy_poll_s, limits.heartbeat_delay_s + limits.heartbeat_timeout_s / 2)


def handshake(session_id: str, transports: Sequence[str], limits: Limits) -> str:
    """What a client is told first: its id, how long silence may last, and the transports, best first.

    The first number is how long the client waits for anything on a stream or WebSocket, the second how long on any
    transport; whole seconds.  The specification lets the first one be empty, and client 0.9.17 then never connects.
    """
    silence = limits.heartbeat_delay_s + limits.heartbeat_timeout_s
    gone = max(silence, limits.legacy_poll_s + limits.heartbeat_timeout_s)
    heartbeat, close = (math.ceil(min(seconds, _MAX_TIMER_S)) for seconds in (silence, gone))
    return f"{session_id}:{heartbeat}:{close}:{','.join(transports)}"


def refuse(status: int, text: str, call: str = "") -> Refusal:
    """The answer that says no; to a script with the call that tells it so (a script cannot see another status)."""
    if not call:
        return Refusal(status, text)
    return Refusal(200, f"{call}(new Error({ujson.dumps(text)}));", headers=_SCRIPT)


_POLL, _STREAM, _SOCKET = SocketIO09(framed=True), SocketIO09(), SocketIO09(notices_end=True)

#: The dialect; ``over`` gives its form on another transport.
SOCKETIO09 = _POLL
