"""RFC 7692: negotiation of permessage-deflate, and the two compression contexts of one connection.

Knows header values and message payloads, no frames: the parser in ``rfc6455`` calls ``inflate`` for a message with
RSV1, and whoever sends sets RSV1 on what ``deflate`` returned.  Compression is dear in memory (the sending side of a
connection with the default window about 256 KiB, the receiving side 40 KiB), so contexts are made when first needed.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass, replace

from .errors import INVALID_DATA, MESSAGE_TOO_BIG, ProtocolError

__all__ = ["CORRUPT", "EXTENSION", "DeflateOptions", "PerMessageDeflate", "negotiate"]

EXTENSION = "permessage-deflate"
#: 1007 for bytes that do not inflate; its usual text speaks of UTF-8.
CORRUPT = replace(INVALID_DATA, text="Compressed data is corrupt")

_MIN_WINDOW_BITS = 8  # RFC 7692 section 7.1.2
_MAX_WINDOW_BITS = 15
# zlib has no raw stream with a window of 256 bytes: older versions silently compress with 512 instead, newer refuse.
_MIN_ZLIB_WINDOW_BITS = 9
# What Z_SYNC_FLUSH ends in; it does not travel (section 7.2.1).
_TAIL = b"\x00\x00\xff\xff"


@dataclass(frozen=True)
class DeflateOptions:
    """How this server compresses, and what it asks of clients."""

    level: int = 6
    """zlib's effort, 1 to 9 (0: stored blocks, -1: zlib's default)."""
    memory_level: int = 8
    """zlib's ``memLevel``, 1 to 9: a connection's sending side weighs 2 ** (memory_level + 9) bytes for it."""
    threshold_bytes: int = 1024
    """Messages shorter than this go uncompressed."""
    server_no_context_takeover: bool = False
    """Forget the window after each message sent: less memory per idle connection, worse ratio."""
    client_no_context_takeover: bool = False
    """Ask clients to do the same."""
    server_max_window_bits: int = _MAX_WINDOW_BITS
    """Largest window for sending, 9 to 15: it weighs 2 ** (bits + 2) bytes."""
    client_max_window_bits: int = _MAX_WINDOW_BITS
    """Largest window asked of clients that let themselves be asked, 9 to 15."""

    def __post_init__(self) -> None:
        for name, low, high in (
            ("level", -1, 9),
            ("memory_level", 1, 9),
            ("server_max_window_bits", _MIN_ZLIB_WINDOW_BITS, _MAX_WINDOW_BITS),
            ("client_max_window_bits", _MIN_ZLIB_WINDOW_BITS, _MAX_WINDOW_BITS),
        ):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} must be {low} to {high}, not {getattr(self, name)!r}")
        if self.threshold_bytes < 0:
            raise ValueError(f"threshold_bytes must not be negative, not {self.threshold_bytes!r}")


class PerMessageDeflate:
    """Both directions of one connection, as negotiated."""

    __slots__ = ("_deflater", "_forget_received", "_forget_sent", "_inflater", "_options", "_recv_bits", "_send_bits")

    def __init__(
        self,
        options: DeflateOptions,
        *,
        server_no_context_takeover: bool,
        client_no_context_takeover: bool,
        server_window_bits: int,
        client_window_bits: int,
    ) -> None:
        self._options = options
        self._forget_sent = server_no_context_takeover
        self._forget_received = client_no_context_takeover
        self._send_bits = server_window_bits
        # A client whose zlib is old and that was told 8 uses 9; reading with the larger window is always right.
        self._recv_bits = max(client_window_bits, _MIN_ZLIB_WINDOW_BITS)
        self._deflater: zlib._Compress | None = None
        self._inflater: zlib._Decompress | None = None

    def deflate(self, data: bytes) -> bytes | None:
        """The payload of a message with RSV1, or None to send *data* as it is."""
        # An empty message has nothing to win, and a repeated flush of zlib would not give a valid one.
        if len(data) < self._options.threshold_bytes or not data:
            return None
        deflater = self._deflater
        if deflater is None:
            options = self._options
            deflater = zlib.compressobj(options.level, zlib.DEFLATED, -self._send_bits, options.memory_level)
        packed = deflater.compress(data) + deflater.flush(zlib.Z_SYNC_FLUSH)
        packed = packed[: -len(_TAIL)]
        if self._forget_sent:
            # Only here may the compressed form be thrown away: otherwise the client's window must see it.
            return packed if len(packed) < len(data) else None
        self._deflater = deflater
        return packed

    def inflate(self, data: bytes, limit: int) -> bytes:
        """The message that was compressed to *data*, of at most *limit* bytes.

        Raises ProtocolError: 1009 for a longer one (no more than the limit is ever inflated), 1007 for corrupt data.
        """
        inflater = self._inflater or zlib.decompressobj(-self._recv_bits)
        self._inflater = None  # not to be used again after an error
        try:
            message = inflater.decompress(data + _TAIL, limit + 1)
            if inflater.eof and len(message) <= limit:
                # A final block (section 7.2.3.4) ends zlib's stream, though not the message.  Real senders then have
                # an empty block left; a chain of final blocks would cost a new context for every two bytes.
                rest = inflater.unused_data
                inflater = zlib.decompressobj(-self._recv_bits)
                message += inflater.decompress(rest, limit + 1 - len(message))
                if inflater.eof:
                    raise ProtocolError("Too many final blocks in a compressed message", reason=CORRUPT)
        except zlib.error:
            raise ProtocolError("Compressed data is corrupt", reason=CORRUPT) from None
        if len(message) > limit:
            raise ProtocolError("Message too big", status=413, reason=MESSAGE_TOO_BIG)
        if not self._forget_received:
            self._inflater = inflater
        return message


# -- negotiation

_Params = dict[str, str | None]

_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_SPACE = r"[ \t]*"
_NAME = re.compile(rf"{_SPACE}({_TOKEN}){_SPACE}")
_PARAM = re.compile(rf';{_SPACE}({_TOKEN}){_SPACE}(?:={_SPACE}(?:({_TOKEN})|"({_TOKEN})"){_SPACE})?')
_BITS = re.compile(r"[89]|1[0-5]")


def _offers(header: str) -> list[_Params] | None:
    """The parameters of each offer of this extension, by preference; None where the header is not well-formed."""
    offers: list[_Params] = []
    at, end = 0, len(header)
    while True:
        name = _NAME.match(header, at)
        if name is None:
            return None
        at = name.end()
        params: _Params = {}
        repeated = False
        while param := _PARAM.match(header, at):
            at = param.end()
            key = param[1].lower()
            repeated = repeated or key in params
            params[key] = param[2] or param[3]
        if name[1].lower() == EXTENSION and not repeated:
            offers.append(params)
        if at == end:
            return offers
        if header[at] != ",":
            return None
        at += 1


def _is_known(name: str, value: str | None) -> bool:
    if name in ("server_no_context_takeover", "client_no_context_takeover"):
        return value is None
    if value is None:
        return name == "client_max_window_bits"
    return name in ("server_max_window_bits", "client_max_window_bits") and _BITS.fullmatch(value) is not None


def _accept(params: _Params, options: DeflateOptions) -> tuple[str, PerMessageDeflate] | None:
    if not all(_is_known(name, value) for name, value in params.items()):
        return None
    forget_sent = options.server_no_context_takeover or "server_no_context_takeover" in params
    # From a client it is a hint that it will forget anyway; confirmed, it spares us the window.
    forget_received = options.client_no_context_takeover or "client_no_context_takeover" in params
    send_bits = min(options.server_max_window_bits, int(params.get("server_max_window_bits") or _MAX_WINDOW_BITS))
    if send_bits < _MIN_ZLIB_WINDOW_BITS:
        return None
    recv_bits = _MAX_WINDOW_BITS
    if "client_max_window_bits" in params:  # else the client cannot use less, and must not be told to
        recv_bits = min(options.client_max_window_bits, int(params["client_max_window_bits"] or _MAX_WINDOW_BITS))
    answer = [EXTENSION]
    if forget_sent:
        answer.append("server_no_context_takeover")
    if forget_received:
        answer.append("client_no_context_takeover")
    if "server_max_window_bits" in params or send_bits < _MAX_WINDOW_BITS:
        answer.append(f"server_max_window_bits={send_bits}")
    if recv_bits < _MAX_WINDOW_BITS:
        answer.append(f"client_max_window_bits={recv_bits}")
    return "; ".join(answer), PerMessageDeflate(
        options,
        server_no_context_takeover=forget_sent,
        client_no_context_takeover=forget_received,
        server_window_bits=send_bits,
        client_window_bits=recv_bits,
    )


def negotiate(header: str | None, options: DeflateOptions) -> tuple[str, PerMessageDeflate] | None:
    """The answer to a request's ``Sec-WebSocket-Extensions`` and the extension's state, or None to go without.

    Takes the first offer that can be honoured (section 5.1).  An offer with an unknown, repeated or malformed
    parameter is passed over, a header that is malformed as a whole is ignored; no text raises.
    """
    for params in _offers(header or "") or ():
        accepted = _accept(params, options)
        if accepted is not None:
            return accepted
    return None
