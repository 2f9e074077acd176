"""HTTP/1.1 response bytes (RFC 9112): heads and chunks.  Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from http.client import responses

__all__ = ["LAST_CHUNK", "chunk", "response_head"]

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
