"""HTTP/1.1 response bytes (RFC 9112): heads and chunks.  Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from http.client import responses

__all__ = ["LAST_CHUNK", "ChunkCache", "HeadCache", "chunk", "response_head"]

LAST_CHUNK = b"0\r\n\r\n"


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
