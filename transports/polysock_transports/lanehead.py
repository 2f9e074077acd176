"""The head of a request in the one shape that the lane reads: what clients of an endpoint send, and nothing else.

Whatever is in any way unusual is None here and Tornado's to judge: lengths that are doubled or odd, folded lines, bare
line breaks, a coding of the body.  So nothing is read in two ways.  Knows no connection and no endpoint.
"""

from __future__ import annotations

import re
import time
from http.cookies import SimpleCookie

from tornado.httputil import HTTPHeaders, split_host_and_port

from .http1 import FIELD
from .opening import read_arguments, read_cookies

__all__ = [
    "MAX_ARGUMENTS",
    "MAX_HEAD_BYTES",
    "PLAIN_HOST",
    "REQUEST_LINE",
    "FieldCache",
    "Fields",
    "LaneHead",
    "read_fields",
]

#: RFC 9112 section 3, and of the methods those that polls and sends have.
REQUEST_LINE = re.compile(rb"(GET|POST) (/[\x21\x23-\x7e]*) HTTP/1\.1\Z")
#: A name or an address, with or without a port (RFC 9110 section 7.2); others are Tornado's to judge.
PLAIN_HOST = re.compile(r"[0-9A-Za-z._-]{1,255}(:[0-9]{1,5})?\Z|\[[0-9A-Fa-f:.]{2,45}\](:[0-9]{1,5})?\Z")
MAX_HEAD_BYTES = 16 * 1024
#: Tornado counts what it parses of a query; ours have a handful of arguments.
MAX_ARGUMENTS = 64
_ONCE = frozenset(("Host", "Content-Length", "Content-Type", "Connection", "Origin", "Cookie"))
# Fields that change how a request is read, or what it is.
_TORNADOS = ("Transfer-Encoding", "Content-Encoding", "Expect")
_LENGTH = re.compile(r"[0-9]{1,10}\Z")
_MAX_REMEMBERED = 512
_MAX_REMEMBERED_BYTES = 2 * 1024


class Fields:
    """The header fields of a request; requests of one browser mostly share them to the byte."""

    __slots__ = ("block", "headers", "leaves_http", "length")

    def __init__(self, headers: HTTPHeaders, length: int) -> None:
        self.headers = headers
        self.length = length
        """Of the body that follows, in bytes."""
        self.leaves_http = "Upgrade" in headers
        """Whether it asks for another protocol."""
        self.block = b""
        """The bytes that they were read from, the empty line after them included; empty where they are too long."""


def read_fields(block: bytes) -> Fields | None:
    """The fields in *block* (its lines, each with its line break); None where Tornado has to look at them."""
    headers = HTTPHeaders()
    for line in block.split(b"\r\n")[:-1]:
        found = FIELD.match(line)
        if found is None:
            return None
        name = found.group(1).decode("ascii").title()
        if name in headers and name in _ONCE:
            return None
        headers.add(name, found.group(2).strip(b" \t").decode("latin-1"))
    if "Host" not in headers or any(name in headers for name in _TORNADOS):
        return None
    length = headers.get("Content-Length", "0")
    if not _LENGTH.match(length):
        return None
    fields = Fields(headers, int(length))
    if fields.leaves_http:
        return None if fields.length else fields
    return fields if headers.get("Connection", "keep-alive").lower() == "keep-alive" else None


class FieldCache:
    """Reads fields, and those that come again only once."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[bytes, Fields] = {}

    def find(self, block: bytes) -> Fields | None:
        """As ``read_fields``."""
        found = self._known.get(block)
        if found is None:
            found = read_fields(block)
            # (What leaves HTTP holds a key of its own, and does not come again.)
            if found is not None and not found.leaves_http and len(block) <= _MAX_REMEMBERED_BYTES:
                if len(self._known) >= _MAX_REMEMBERED:
                    self._known.clear()
                self._known[block] = found
                found.block = block + b"\r\n"
        return found


class LaneHead:
    """What handlers look at of a request, under the names of ``tornado.httputil.HTTPServerRequest``."""

    __slots__ = ("_arguments", "headers", "host", "method", "path", "protocol", "query", "remote_ip", "started", "uri")

    version = "HTTP/1.1"
    connection = None  # nobody may write to it

    def __init__(
        self, method: str, uri: str, headers: HTTPHeaders, remote_ip: str, protocol: str, started: float
    ) -> None:
        """*started*: when it came, in the loop's time."""
        self.method = method
        self.uri = uri
        self.path, _, self.query = uri.partition("?")
        self.headers = headers
        self.host = headers["Host"]
        self.remote_ip = remote_ip
        self.protocol = protocol
        self.started = started
        self._arguments: dict[str, list[bytes]] | None = None

    @classmethod
    def read(cls, line: re.Match[bytes], fields: Fields, remote_ip: str, protocol: str) -> LaneHead:
        """What came just now: *line* is a match of ``REQUEST_LINE``."""
        method, uri = line.group(1).decode("ascii"), line.group(2).decode("ascii")
        return cls(method, uri, fields.headers, remote_ip, protocol, time.monotonic())

    @property
    def query_arguments(self) -> dict[str, list[bytes]]:
        if self._arguments is None:
            self._arguments = read_arguments(self.query)
        return self._arguments

    arguments = query_arguments

    @property
    def host_name(self) -> str:
        return split_host_and_port(self.host.lower())[0]

    @property
    def cookies(self) -> SimpleCookie:
        return read_cookies(self.headers)

    def request_time(self) -> float:
        return time.monotonic() - self.started

    def again(self, uri: str, started: float) -> LaneHead:
        """The same request, come at another time."""
        return LaneHead(self.method, uri, self.headers, self.remote_ip, self.protocol, started)
