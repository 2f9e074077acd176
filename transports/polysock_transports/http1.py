"""HTTP/1.1 bytes (RFC 9112): heads, chunks, and a strict reader of responses.  No I/O."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from http.client import responses
from typing import Final

from .errors import ProtocolError

__all__ = [
    "END",
    "FIELD",
    "LAST_CHUNK",
    "OF_THE_CONNECTION",
    "ChunkCache",
    "End",
    "FieldCache",
    "HeadCache",
    "ResponseHead",
    "ResponseReader",
    "chunk",
    "read_response_head",
    "request_head",
    "response_head",
]

LAST_CHUNK = b"0\r\n\r\n"

#: A header line.  RFC 9110 section 5: a name that is a token, one colon, a value of visible characters, spaces and
#: tabs; obs-fold, spaces before the colon, bare CR or LF and NUL are what requests are smuggled with.
FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([\t \x21-\x7e\x80-\xff]*)\Z")


def response_head(status: int, headers: Sequence[tuple[str, str]]) -> bytes:
    """Status line, headers and the blank line.  Raises ValueError for a line break in a header."""
    lines = [f"HTTP/1.1 {status} {responses.get(status, 'Unknown')}"]
    lines += [f"{name}: {value}" for name, value in headers]
    text = "\r\n".join(lines)
    if text.count("\n") != len(headers) or text.count("\r") != len(headers):
        raise ValueError("a header may not hold a line break")
    return (text + "\r\n\r\n").encode("latin-1")


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body (RFC 9112 section 7.1); *data* must not be empty, that would be the last one."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class ChunkCache:
    """The chunk made last: what goes to many receivers is one and the same object to all of them."""

    __slots__ = ("_chunk", "_data")

    def __init__(self) -> None:
        self._data = self._chunk = b""

    def chunk(self, data: bytes) -> bytes:
        """The same as the function of this name."""
        if data is not self._data:
            self._data, self._chunk = data, chunk(data)
        return self._chunk


_MAX_HEADS = 256
_MAX_REMEMBERED_BYTES = 2 * 1024
_Headers = tuple[tuple[str, str], ...]


class HeadCache:
    """Heads of answers, most of which differ in nothing but their length.

    The Date header makes each of them good for a second; the cache forgets all when it is full.  It holds the last
    answer whole, for as long as no other follows.
    """

    __slots__ = ("_heads", "_last", "_shared")

    def __init__(self) -> None:
        self._heads: dict[tuple[int, _Headers], bytes] = {}
        self._shared: dict[_Headers, _Headers] = {}
        self._last: tuple[int, _Headers, bytes, bytes] = (0, (), b"", b"")

    def share(self, headers: _Headers) -> _Headers:
        """*headers*, or equal ones that were shared before: those of many answers are then one and the same."""
        if len(self._shared) >= _MAX_HEADS:
            self._shared.clear()
        return self._shared.setdefault(headers, headers)

    def whole(self, status: int, headers: _Headers, body: bytes) -> bytes:
        """A complete answer.  *headers* without Content-Length."""
        last = self._last
        # Who answers many with the same does so in a row, and hands out the same objects.
        if body is last[2] and headers is last[1] and status == last[0]:
            return last[3]
        head = self._open(status, headers)
        # RFC 9110 section 8.6: no Content-Length on a 204; a 304 need not have one.
        answer = head + (b"\r\n" if status in (204, 304) else b"Content-Length: %d\r\n\r\n" % len(body)) + body
        self._last = (status, headers, body, answer)
        return answer

    def chunked(self, status: int, headers: _Headers) -> bytes:
        """The head of an answer whose body follows in chunks."""
        return self._open(status, headers) + b"Transfer-Encoding: chunked\r\n\r\n"

    def _open(self, status: int, headers: _Headers) -> bytes:
        key = (status, headers)
        found = self._heads.get(key)
        if found is None:
            if len(self._heads) >= _MAX_HEADS:
                self._heads.clear()
            found = self._heads[key] = response_head(status, headers)[:-2]
        return found


_MAX_FIELDS = 512
_MAX_FIELD_BYTES = 512


class FieldCache:
    """Header lines; requests mostly say in most of them what others have said.

    Forgets all when it is full.
    """

    __slots__ = ("_lines", "_without")

    def __init__(self, without: Set[str] = frozenset()) -> None:
        """*without*: names in lower case that have no line."""
        self._lines: dict[tuple[str, str], bytes] = {}
        self._without = without

    def lines(self, fields: Iterable[tuple[str, str]]) -> list[bytes]:
        """Each with its line break.  Raises ValueError for what could be read as anything else."""
        known = self._lines
        found = []
        for field in fields:
            line = known.get(field)
            found.append(self._line(field) if line is None else line)
        return found

    def _line(self, field: tuple[str, str]) -> bytes:
        name, value = field
        line = b""
        if name.lower() not in self._without:
            line = f"{name}: {value}".encode("latin-1")
            if FIELD.match(line) is None:
                raise ValueError("this header has no safe form")
            line += b"\r\n"
        if len(name) + len(value) <= _MAX_FIELD_BYTES:
            if len(self._lines) >= _MAX_FIELDS:
                self._lines.clear()
            self._lines[field] = line
        return line


_REQUEST_LINE = re.compile(rb"[A-Z]{1,20} [\x21-\x7e\x80-\xff]+ HTTP/1\.1\r\n\Z")


def request_head(method: str, target: str, lines: Iterable[bytes]) -> bytes:
    """Request line, headers (``FieldCache.lines``) and the blank line.

    Raises ValueError for what could be read as anything else.
    """
    line = f"{method} {target} HTTP/1.1\r\n".encode("latin-1")
    if _REQUEST_LINE.match(line) is None:
        raise ValueError("this request has no safe form")
    return b"".join((line, *lines, b"\r\n"))


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """What comes before the body of a response."""

    status: int
    headers: tuple[tuple[str, str], ...]
    """In the order and case in which they came, without those that are about the connection or the framing."""
    length: int | None
    """How many bytes of body follow; None where they come in chunks.  Without meaning for 101."""
    keeps_alive: bool
    """Whether another request may follow on the connection."""
    raw: bytes
    """All of it as it came, the blank line included."""


class End:
    """The end of a response."""

    def __repr__(self) -> str:
        return "END"


END: Final = End()

_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-5][0-9]{2}) [\t \x21-\x7e\x80-\xff]*\Z")
_LENGTH = re.compile(r"[0-9]{1,15}\Z")
_CHUNK_DIGITS = 8
_CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,%d}\Z" % _CHUNK_DIGITS)
_SWITCHING = 101
_BODYLESS = (204, 304)
#: Headers that are about the connection (RFC 9110 section 7.6.1) or the framing: of no meaning on the next one.
OF_THE_CONNECTION = frozenset(
    ("connection", "keep-alive", "proxy-connection", "te", "trailer", "upgrade", "content-length", "transfer-encoding")
)


class _At(enum.Enum):
    """What a reader expects next."""

    HEAD = enum.auto()
    BODY = enum.auto()  # of a response that has a length
    SIZE = enum.auto()  # the line before a chunk; before the last one, all that is left
    CHUNK = enum.auto()
    TAIL = enum.auto()  # the line break after a chunk
    OVER = enum.auto()  # this is not HTTP any more


class ResponseReader:
    """Reads the responses of one connection, one after another, however their bytes are split.

    Takes only what a server of this package sends: a length or chunks, no trailers, no chunk extensions, no response
    that ends with its connection, and of the responses below 200 only 101, after which everything is body.
    """

    __slots__ = ("_at", "_buffer", "_heads", "_left", "_max_head_bytes")

    def __init__(self, max_head_bytes: int, heads: dict[bytes, ResponseHead] | None = None) -> None:
        """*heads*: those that readers who share it have read lately; most differ in nothing for a second."""
        self._max_head_bytes = max_head_bytes
        self._heads = {} if heads is None else heads
        self._buffer = b""
        self._at = _At.HEAD
        self._left = 0  # of the body or of the chunk, in bytes

    @property
    def is_between(self) -> bool:
        """Whether the last response is complete, and nothing has come of the next one."""
        return self._at is _At.HEAD and not self._buffer

    def feed(self, data: bytes) -> list[ResponseHead | bytes | End]:
        """Take *data* in: a head, any number of pieces of body (never empty), ``END``, as far as they have come.

        Stops at an ``END``: whether another response may follow is for whoever asked to say.  Raises ProtocolError for
        everything else; the connection is of no use then.
        """
        events: list[ResponseHead | bytes | End] = []
        self._buffer = self._buffer + data if self._buffer else data
        while self._buffer and not (events and events[-1] is END):
            at = self._at
            if at is _At.HEAD:
                went_on = self._read_head(events)
            elif at is _At.SIZE:
                went_on = self._read_size(events)
            elif at is _At.TAIL:
                went_on = self._read_tail()
            else:
                went_on = self._read_body(events)
            if not went_on:
                break
        return events

    def _read_head(self, events: list[ResponseHead | bytes | End]) -> bool:
        buffer = self._buffer
        end = buffer.find(b"\r\n\r\n")
        # Where its end has not come whole, three bytes of it may have.
        if (end if end >= 0 else len(buffer) - 3) > self._max_head_bytes:
            raise ProtocolError("The head of a response is too long.")
        if end < 0:
            return False
        raw = buffer[: end + 4]
        head = self._heads.get(raw)
        if head is None:
            head = read_response_head(raw)
            if len(self._heads) >= _MAX_HEADS:
                self._heads.clear()
            if len(raw) <= _MAX_REMEMBERED_BYTES:
                self._heads[raw] = head
        self._buffer = buffer[end + 4 :]
        events.append(head)
        if head.status == _SWITCHING:
            self._at = _At.OVER
        elif head.length is None:
            self._at = _At.SIZE
        elif head.length:
            self._at, self._left = _At.BODY, head.length
        else:
            events.append(END)
        return True

    def _read_body(self, events: list[ResponseHead | bytes | End]) -> bool:
        buffer, left = self._buffer, self._left
        if self._at is _At.OVER or len(buffer) < left:
            events.append(buffer)
            self._buffer = b""
            self._left = left - len(buffer)
            return False
        events.append(buffer[:left])
        self._buffer = buffer[left:]
        if self._at is _At.CHUNK:
            self._at = _At.TAIL
        else:
            self._at = _At.HEAD
            events.append(END)
        return True

    def _read_tail(self) -> bool:
        if not _starts_alike(self._buffer, b"\r\n"):
            raise ProtocolError("A chunk is longer than it says.")
        if len(self._buffer) < 2:
            return False
        self._buffer = self._buffer[2:]
        self._at = _At.SIZE
        return True

    def _read_size(self, events: list[ResponseHead | bytes | End]) -> bool:
        buffer = self._buffer
        end = buffer.find(b"\r\n")
        if end < 0:
            if len(buffer) > _CHUNK_DIGITS + 1:
                raise ProtocolError("A chunk has a malformed size.")
            return False
        if _CHUNK_SIZE.match(buffer[:end]) is None:
            raise ProtocolError("A chunk has a malformed size.")
        size = int(buffer[:end], 16)
        if size:
            self._buffer = buffer[end + 2 :]
            self._at, self._left = _At.CHUNK, size
            return True
        if not _starts_alike(buffer[end:], b"\r\n\r\n"):
            raise ProtocolError("A response has trailers.")
        if len(buffer) < end + 4:
            return False
        self._buffer = buffer[end + 4 :]
        self._at = _At.HEAD
        events.append(END)
        return True


def _starts_alike(data: bytes, start: bytes) -> bool:
    """Whether *data* begins with *start*, as far as it has come."""
    return data[: len(start)] == start[: len(data)]


def read_response_head(raw: bytes) -> ResponseHead:
    """The head in *raw*, the blank line included.  Raises ProtocolError."""
    first, *lines = raw[:-4].split(b"\r\n")
    found = _STATUS_LINE.match(first)
    if found is None:
        raise ProtocolError("A response has no status line.")
    status = int(found.group(1))
    headers: list[tuple[str, str]] = []
    framing: dict[str, str] = {}
    keeps_alive = True
    for line in lines:
        field = FIELD.match(line)
        if field is None:
            raise ProtocolError("A response has a malformed header.")
        name, value = field.group(1).decode("ascii"), field.group(2).strip(b" \t").decode("latin-1")
        key = name.lower()
        if key not in OF_THE_CONNECTION:
            headers.append((name, value))
        elif key == "connection":
            keeps_alive = keeps_alive and "close" not in value.lower()
        elif key in ("content-length", "transfer-encoding"):
            if framing:
                raise ProtocolError("A response has two lengths.")
            framing[key] = value.lower()
    return ResponseHead(status, tuple(headers), _body_length(status, framing), keeps_alive, raw)


def _body_length(status: int, framing: dict[str, str]) -> int | None:
    """How long the body is; None for chunks (RFC 9112 section 6.3)."""
    if status < 200 and status != _SWITCHING:
        raise ProtocolError("A response is not final.")
    bodyless = status in _BODYLESS or status == _SWITCHING
    if "transfer-encoding" in framing:
        if framing["transfer-encoding"] != "chunked" or bodyless:
            raise ProtocolError("A response has an unknown coding.")
        return None
    text = framing.get("content-length", "0" if bodyless else "")
    if _LENGTH.match(text) is None:
        raise ProtocolError("A response has no length.")
    return 0 if bodyless else int(text)
