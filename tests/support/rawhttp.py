"""A byte-exact HTTP/1.x and WebSocket test client over `asyncio.open_connection`.

Ordinary client libraries tidy up what they send and hide what they get: they normalise paths, join chunks, refuse odd
headers and reconnect on their own. Conformance and hostile-input tests need the opposite, so this client sends every
byte as given and shows every chunk and frame as it arrived. It must know nothing about the server under test and
shares no code with it, the WebSocket framing included: a codec that checks itself checks nothing.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import struct
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TypeVar
from urllib.parse import urlsplit

T = TypeVar("T")
Text = str | bytes
HeaderList = Sequence[tuple[Text, Text]]

# Ends a test that would wait for ever; what is awaited comes at once, and on a machine that stands still a while later.
DEFAULT_TIMEOUT_SECONDS = 30.0
MAX_LINE_BYTES = 1 << 20
MAX_HEADER_LINES = 200

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
CODE_ABSENT = 1005
CODE_NO_CLOSE_FRAME = 1006
ACCEPT_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class WireError(Exception):
    """The peer broke HTTP or WebSocket framing, or ended in the middle of something."""


class HandshakeRefused(Exception):
    """The WebSocket handshake got an ordinary HTTP answer, kept in `response`."""

    def __init__(self, response: Response) -> None:
        super().__init__(f"{response.status} {response.reason}: {response.body[:200]!r}")
        self.response = response


class SocketClosed(Exception):
    """A close frame came where a message was expected; `code` and `reason` are the peer's."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason!r}")
        self.code = code
        self.reason = reason


class Headers:
    """Header lines in the order received; names compare without regard to case, repeated names are all kept."""

    def __init__(self, lines: Iterable[tuple[str, str]] = ()) -> None:
        self.lines = list(lines)

    def get_all(self, name: str) -> list[str]:
        return [value for key, value in self.lines if key.lower() == name.lower()]

    def get(self, name: str, default: str | None = None) -> str | None:
        values = self.get_all(name)
        return ", ".join(values) if values else default

    def __getitem__(self, name: str) -> str:
        value = self.get(name)
        assert value is not None, f"no {name} among {self.lines}"
        return value

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(self.get_all(name))

    def __repr__(self) -> str:
        return f"Headers({self.lines!r})"


@dataclass(frozen=True)
class Response:
    """One answer. `body` is empty while only the head was read (see `Connection.start`)."""

    status: int
    reason: str
    headers: Headers
    body: bytes = b""
    version: str = "1.1"

    @property
    def text(self) -> str:
        return self.body.decode("utf-8")


def to_bytes(text: Text) -> bytes:
    """Latin-1, the encoding in which every byte has a character, so that a `str` can name any byte."""
    return text if isinstance(text, bytes) else text.encode("latin-1")


def chunk(data: bytes) -> bytes:
    """One HTTP chunk; of no data, the last one."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def request_bytes(
    host: str,
    method: Text,
    path: Text,
    *,
    headers: HeaderList = (),
    body: bytes | Sequence[bytes] = b"",
    version: str = "1.1",
) -> bytes:
    """A whole request. A `body` given as a list of pieces is sent chunked, one chunk for each.

    Host, Content-Length and Transfer-Encoding are added unless `headers` has them, so that a test can lie about each.
    """
    lines = [(to_bytes(name), to_bytes(value)) for name, value in headers]
    given = {name.lower() for name, _ in lines}
    if b"host" not in given:
        lines.insert(0, (b"Host", host.encode()))
    framed = bool(given & {b"content-length", b"transfer-encoding"})
    if isinstance(body, bytes):
        payload = body
        if not framed and (body or method in ("POST", "PUT", "PATCH")):
            lines.append((b"Content-Length", b"%d" % len(body)))
    else:
        payload = b"".join(chunk(piece) for piece in [*body, b""])
        if not framed:
            lines.append((b"Transfer-Encoding", b"chunked"))
    head = b"%s %s HTTP/%s\r\n" % (to_bytes(method), to_bytes(path), version.encode())
    return head + b"".join(b"%s: %s\r\n" % line for line in lines) + b"\r\n" + payload


class Connection:
    """One TCP connection: any number of requests one after another, each read whole or piece by piece."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        host: str,
        timeout_seconds: float | None = DEFAULT_TIMEOUT_SECONDS,
    ) -> None:
        self.reader = reader
        self.writer = writer
        self.host = host
        self.timeout_seconds = timeout_seconds
        self._chunked = False
        self._remaining: int | None = 0  # None: the body lasts until the peer closes
        self._rest = b""

    @classmethod
    async def open(cls, base_url: str, *, timeout: float | None = DEFAULT_TIMEOUT_SECONDS) -> Connection:
        url = urlsplit(base_url)
        assert url.scheme == "http", base_url
        assert url.hostname
        port = url.port or 80
        reader, writer = await asyncio.wait_for(
            asyncio.open_connection(url.hostname, port, limit=MAX_LINE_BYTES), timeout
        )
        return cls(reader, writer, url.netloc, timeout)

    async def __aenter__(self) -> Connection:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def _within(self, step: Awaitable[T]) -> T:
        return await asyncio.wait_for(step, self.timeout_seconds)

    async def write(self, data: bytes) -> None:
        """Bytes as they are; to nobody where the connection is gone."""
        if not self.writer.is_closing():  # which uvloop would make an error of, and asyncio does not
            self.writer.write(data)
        await self._within(self.writer.drain())

    async def send(
        self,
        method: Text,
        path: Text,
        *,
        headers: HeaderList = (),
        body: bytes | Sequence[bytes] = b"",
        version: str = "1.1",
    ) -> None:
        """Write a request without reading an answer."""
        await self.write(request_bytes(self.host, method, path, headers=headers, body=body, version=version))

    async def start(
        self,
        method: Text,
        path: Text,
        *,
        headers: HeaderList = (),
        body: bytes | Sequence[bytes] = b"",
        version: str = "1.1",
    ) -> Response:
        """Write a request and read the head of the answer; the body is left to `read_chunk` and its like."""
        await self.send(method, path, headers=headers, body=body, version=version)
        return await self.read_head(method)

    async def request(
        self,
        method: Text,
        path: Text,
        *,
        headers: HeaderList = (),
        body: bytes | Sequence[bytes] = b"",
        version: str = "1.1",
    ) -> Response:
        """Write a request and read the whole answer."""
        await self.send(method, path, headers=headers, body=body, version=version)
        return await self.read_response(method)

    async def read_response(self, method: Text = "GET") -> Response:
        head = await self.read_head(method)
        body = await self.read_rest()
        return Response(head.status, head.reason, head.headers, body, head.version)

    async def _read_line(self) -> bytes:
        line = await self._within(self.reader.readline())
        if not line.endswith(b"\r\n"):
            raise WireError(f"line not ended by CR LF: {line[:200]!r}")
        return line[:-2]

    async def read_head(self, method: Text = "GET") -> Response:
        """The next status line and headers; 100 (Continue) is passed over."""
        while True:
            words = (await self._read_line()).decode("latin-1").split(" ", 2)
            if len(words) < 2 or words[0] not in ("HTTP/1.0", "HTTP/1.1") or not words[1].isdigit():
                raise WireError(f"not a status line: {words!r}")
            lines: list[tuple[str, str]] = []
            while line := await self._read_line():
                name, colon, value = line.decode("latin-1").partition(":")
                if not colon or not name or name != name.strip() or len(lines) >= MAX_HEADER_LINES:
                    raise WireError(f"not a header line: {line[:200]!r}")
                lines.append((name, value.strip()))
            head = Response(
                int(words[1]),
                words[2] if len(words) > 2 else "",
                Headers(lines),
                version=words[0].removeprefix("HTTP/"),
            )
            if head.status != 100:
                break
        self._rest = b""
        self._chunked = False
        if method in ("HEAD", b"HEAD") or head.status in (101, 204, 304):
            self._remaining = 0
        elif "Transfer-Encoding" in head.headers:
            if head.headers["Transfer-Encoding"].lower() != "chunked" or "Content-Length" in head.headers:
                raise WireError(f"ambiguous body framing: {head.headers!r}")
            self._chunked = True
            self._remaining = None
        elif "Content-Length" in head.headers:
            self._remaining = int(head.headers["Content-Length"])
        else:
            self._remaining = None
        return head

    async def read_chunk(self) -> bytes:
        """The next HTTP chunk; without chunked encoding, whatever the next read brings. b"" at the end of the body."""
        if self._rest:
            data, self._rest = self._rest, b""
            return data
        if self._remaining == 0:
            return b""
        if self._chunked:
            line = await self._read_line()
            try:
                size = int(line.split(b";")[0], 16)
            except ValueError:
                raise WireError(f"not a chunk size: {line[:200]!r}") from None
            data = await self._exactly(size)
            if await self._read_line():
                raise WireError("chunk longer than its size says (or trailers, which nobody sends here)")
            if not size:
                self._remaining = 0
            return data
        data = await self._within(self.reader.read(65536 if self._remaining is None else self._remaining))
        if self._remaining is None:
            if not data:
                self._remaining = 0
        elif not data:
            raise WireError(f"end of stream, {self._remaining} bytes of body missing")
        else:
            self._remaining -= len(data)
        return data

    async def _exactly(self, size: int) -> bytes:
        try:
            return await self._within(self.reader.readexactly(size))
        except asyncio.IncompleteReadError as error:
            raise WireError(f"end of stream after {len(error.partial)} of {size} bytes") from error

    async def read_until(self, marker: bytes) -> bytes:
        """Body bytes up to and including `marker`; what came after it is given to the next read."""
        data = b""
        while marker not in data:
            piece = await self.read_chunk()
            if not piece:
                raise WireError(f"body ended before {marker!r}: {data[-200:]!r}")
            data += piece
        end = data.index(marker) + len(marker)
        self._rest = data[end:]
        return data[:end]

    async def read_rest(self) -> bytes:
        """Everything to the end of the body."""
        pieces = []
        while piece := await self.read_chunk():
            pieces.append(piece)
        return b"".join(pieces)

    async def at_eof(self) -> bool:
        """Wait for what comes next: True when the peer closed, False when it sent another byte (which is lost)."""
        try:
            return not self._rest and not await self._within(self.reader.read(1))
        except ConnectionError:
            return True

    def close(self) -> None:
        self.writer.close()

    def abort(self) -> None:
        """Drop the connection without a goodbye, as a browser does that navigates away."""
        self.writer.transport.abort()


async def request(
    base_url: str,
    method: Text,
    path: Text,
    *,
    headers: HeaderList = (),
    body: bytes | Sequence[bytes] = b"",
    version: str = "1.1",
    timeout: float | None = DEFAULT_TIMEOUT_SECONDS,
) -> Response:
    """One request on a connection of its own."""
    async with await Connection.open(base_url, timeout=timeout) as connection:
        return await connection.request(method, path, headers=headers, body=body, version=version)


def encode_frame(opcode: int, payload: bytes, *, fin: bool = True, mask: bool = True, rsv: int = 0) -> bytes:
    """A frame as RFC 6455, section 5.2, draws it; nothing stops the caller from drawing it wrong."""
    first = (0x80 if fin else 0) | (rsv << 4) | opcode
    masked = 0x80 if mask else 0
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", first, masked | size)
    elif size < 1 << 16:
        head = struct.pack("!BBH", first, masked | 126, size)
    else:
        head = struct.pack("!BBQ", first, masked | 127, size)
    if not mask:
        return head + payload
    key = os.urandom(4)
    pad = (key * (size // 4 + 1))[:size]
    return head + key + (int.from_bytes(payload, "big") ^ int.from_bytes(pad, "big")).to_bytes(size, "big")


class WireSocket:
    """A WebSocket client that may break every rule itself and lets the server break none."""

    def __init__(self, connection: Connection, response: Response) -> None:
        self.connection = connection
        self.response = response
        self.subprotocol = response.headers.get("Sec-WebSocket-Protocol")
        self._close_sent = False
        self._fragments: list[bytes] = []
        self._fragments_opcode = 0

    @classmethod
    async def connect(
        cls,
        base_url: str,
        path: Text,
        headers: HeaderList = (),
        subprotocols: Sequence[str] = (),
        *,
        timeout: float | None = DEFAULT_TIMEOUT_SECONDS,
    ) -> WireSocket:
        """Shake hands. `headers` replace the usual ones of the same name. Raises `HandshakeRefused`."""
        key = base64.b64encode(os.urandom(16))
        usual: list[tuple[Text, Text]] = [
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", key),
        ]
        if subprotocols:
            usual.append(("Sec-WebSocket-Protocol", ", ".join(subprotocols)))
        given = {to_bytes(name).lower(): to_bytes(value) for name, value in headers}
        key = given.get(b"sec-websocket-key", key)
        merged = [line for line in usual if to_bytes(line[0]).lower() not in given] + list(headers)
        connection = await Connection.open(base_url, timeout=timeout)
        try:
            response = await connection.start("GET", path, headers=merged)
            if response.status != 101:
                body = await connection.read_rest()
                raise HandshakeRefused(
                    Response(response.status, response.reason, response.headers, body, response.version)
                )
            accept = base64.b64encode(hashlib.sha1(key + ACCEPT_GUID).digest()).decode()
            answer = response.headers
            if (
                answer["Upgrade"].lower() != "websocket"
                or answer["Connection"].lower() != "upgrade"
                or answer["Sec-WebSocket-Accept"] != accept
                or "Content-Length" in answer
                or "Transfer-Encoding" in answer
            ):
                raise WireError(f"wrong handshake answer: {answer!r}")
            chosen = answer.get("Sec-WebSocket-Protocol")
            if chosen is not None and chosen not in subprotocols:
                raise WireError(f"subprotocol {chosen!r} was not offered")
        except BaseException:
            connection.abort()
            raise
        return cls(connection, response)

    async def __aenter__(self) -> WireSocket:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.connection.abort()

    async def send_frame(
        self, opcode: int, payload: bytes = b"", *, fin: bool = True, mask: bool = True, rsv: int = 0
    ) -> None:
        if opcode == CLOSE:
            self._close_sent = True
        await self.connection.write(encode_frame(opcode, payload, fin=fin, mask=mask, rsv=rsv))

    async def send_text(self, text: str) -> None:
        await self.send_frame(TEXT, text.encode("utf-8"))

    async def send_close(self, code: int = 1000, reason: str = "") -> None:
        await self.send_frame(CLOSE, struct.pack("!H", code) + reason.encode("utf-8"))

    async def recv(self) -> tuple[int, bytes]:
        """The next whole message or control frame. Raises `WireError` for a frame no server may send, and at EOF."""
        while True:
            first, second = await self.connection._exactly(2)
            fin, opcode, size = bool(first & 0x80), first & 0x0F, second & 0x7F
            if first & 0x70 or second & 0x80 or opcode not in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG):
                raise WireError(f"reserved bit, mask or reserved opcode from the server: {first:02x} {second:02x}")
            if opcode >= CLOSE and (not fin or size > 125):
                raise WireError(f"fragmented or long control frame: {first:02x} {second:02x}")
            if size == 126:
                (size,) = struct.unpack("!H", await self.connection._exactly(2))
                shortest = size >= 126
            elif size == 127:
                (size,) = struct.unpack("!Q", await self.connection._exactly(8))
                shortest = size >= 1 << 16
            else:
                shortest = True
            if not shortest:
                raise WireError("length not in its shortest form")
            payload = await self.connection._exactly(size)
            if opcode >= CLOSE:
                return opcode, payload
            if (opcode == CONTINUATION) != bool(self._fragments):
                raise WireError("continuation without a start, or a start inside a message")
            if opcode != CONTINUATION:
                self._fragments_opcode = opcode
            self._fragments.append(payload)
            if fin:
                message = b"".join(self._fragments)
                self._fragments = []
                return self._fragments_opcode, message

    async def recv_text(self) -> str:
        """The next text message; pings on the way are answered. Raises `SocketClosed` for a close frame."""
        while True:
            opcode, payload = await self.recv()
            if opcode == PING:
                await self.send_frame(PONG, payload)
            elif opcode == CLOSE:
                raise SocketClosed(*parse_close(payload))
            elif opcode == TEXT:
                return payload.decode("utf-8")
            elif opcode != PONG:
                raise WireError(f"text expected, got opcode {opcode}: {payload[:200]!r}")

    async def expect_close(self) -> tuple[int, str]:
        """Code and reason of the server's close frame; answers it and waits for the server to close TCP.

        1005: a close frame without a code. 1006: the connection ended without a close frame. Messages still on their
        way are passed over.
        """
        try:
            while True:
                opcode, payload = await self.recv()
                if opcode == CLOSE:
                    break
        except ConnectionError:
            return CODE_NO_CLOSE_FRAME, ""
        except WireError:
            if self.connection.reader.at_eof():
                return CODE_NO_CLOSE_FRAME, ""
            raise
        code, reason = parse_close(payload)
        try:
            if not self._close_sent:
                await self.send_frame(CLOSE, payload)
        except ConnectionError:
            return code, reason
        if not await self.connection.at_eof():
            raise WireError("bytes after the close frame")
        return code, reason

    async def close(self, code: int = 1000, reason: str = "") -> tuple[int, str]:
        """The whole closing handshake from our side; the server's answer."""
        await self.send_close(code, reason)
        return await self.expect_close()

    def abort(self) -> None:
        self.connection.abort()


def parse_close(payload: bytes) -> tuple[int, str]:
    if not payload:
        return CODE_ABSENT, ""
    if len(payload) == 1:
        raise WireError("close frame with one byte")
    code: int = struct.unpack("!H", payload[:2])[0]
    if not (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999):
        raise WireError(f"close code {code} must not be on the wire")
    return code, payload[2:].decode("utf-8")
