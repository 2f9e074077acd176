"""Socket.IO protocol 4: the packets of clients 1.x and 2.x, which Engine.IO 3 carries.

The layout is protocol 5's; what differs is here.  All JSON is ASCII: clients 1.x read the text of long polling as
UTF-8 encoded twice, clients 2.x do not, and only ASCII is the same to both.  The sources are the parsers of these
clients, socket.io-parser 2.x and 3.x, and what they were seen to send.
"""

from __future__ import annotations

from typing import Any

import ujson

from . import Connect, ConnectError, Packet, Rules, loads
from .socketio import SocketIO, SocketIOReader, split_query

__all__ = ["SOCKETIO4", "SocketIO4", "SocketIO4Reader"]


def _ascii(value: Any) -> str:
    """As ``dumps``, with an escape for everything beyond ASCII, half a surrogate pair included."""
    try:
        return ujson.dumps(value, escape_forward_slashes=False, allow_nan=False)
    except (OverflowError, RecursionError) as error:
        raise ValueError(str(error)) from None


def _socket_id(session_id: str, namespace: str) -> str:
    return session_id if namespace == "/" else f"{namespace}#{session_id}"


class SocketIO4(SocketIO):
    """The codec; ``SOCKETIO4`` is its one instance.  Attachments are bytes: how they travel is Engine.IO's matter."""

    rules = Rules(enters_main=True, forgiving=True, socket_id=_socket_id)
    _json = staticmethod(_ascii)

    def _connect(self, packet: Connect, namespace: str) -> str:
        # The welcome has no JSON: these clients know their id already. Only a client's own request has a query.
        return namespace if not packet.query else f"{packet.namespace}?{packet.query},"

    def _refusal(self, packet: ConnectError) -> str:
        body = self._json(packet.message if packet.data is None else packet.data)
        # Clients would take the digits of a number for an ack id, and false for what their JSON parser could not read.
        return f'"{body}"' if body == "false" or body[0].isdigit() else body

    def reader(self, *, max_attachments: int, max_attachment_bytes: int, from_server: bool = False) -> SocketIO4Reader:
        """With *from_server* a reader for a client's side, to which type 4 is a ConnectError with any JSON."""
        return SocketIO4Reader(self._text_only, max_attachments, max_attachment_bytes, from_server)


SOCKETIO4 = SocketIO4("socketio4", text_only=False)


class SocketIO4Reader(SocketIOReader):
    """One client's packets."""

    __slots__ = ()

    # A client told to (`socket.binary(true).emit(...)` in 2.x) announces attachments where there are none.
    _min_attachments = 0

    def _asked(self, name: str) -> tuple[str, str]:
        return split_query(name)

    def _refusal(self, namespace: str, number: str, body: str) -> Packet | None:
        text = number + body
        data = loads(text) if text else None
        if not self._from_server:
            # A 2.x client sends `4"encode error"` in place of a packet that it could not make JSON of.
            return None
        return ConnectError(namespace, data if isinstance(data, str) else text, data)
