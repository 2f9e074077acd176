"""The least WebSocket client that can steer a browser: text messages and numbered commands, for CDP and BiDi alike.

Written apart from every WebSocket library on purpose: those are under test here as clients of ours.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import socket
import struct
import time
from typing import Any

CONNECT_SECONDS = 60.0
COMMAND_SECONDS = 60.0
READ_BYTES = 65536


class EngineTimeout(Exception):
    """The engine did not answer in the given time."""


class WireSocket:
    """A blocking WebSocket connection to a browser on this machine."""

    def __init__(self, host: str, port: int, path: str) -> None:
        self.sock = socket.create_connection((host, port), CONNECT_SECONDS)
        self.buffer = b""
        key = base64.b64encode(os.urandom(16)).decode()
        try:
            self.sock.sendall(
                f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
            )
            while b"\r\n\r\n" not in self.buffer:
                self._more()
        except BaseException:
            self.close()
            raise
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        if b" 101 " not in head.split(b"\r\n")[0]:
            self.close()
            raise OSError(f"the browser refused the upgrade: {head[:200]!r}")

    def _more(self) -> None:
        data = self.sock.recv(READ_BYTES)
        if not data:
            raise OSError("the browser closed the connection")
        self.buffer += data

    def _take(self, count: int) -> bytes:
        while len(self.buffer) < count:
            self._more()
        out, self.buffer = self.buffer[:count], self.buffer[count:]
        return out

    def send(self, payload: str | bytes, opcode: int = 1) -> None:
        data = payload.encode() if isinstance(payload, str) else payload
        count = len(data)
        if count < 126:
            head = struct.pack(">BB", 0x80 | opcode, 0x80 | count)
        elif count < 65536:
            head = struct.pack(">BBH", 0x80 | opcode, 0x80 | 126, count)
        else:
            head = struct.pack(">BBQ", 0x80 | opcode, 0x80 | 127, count)
        mask = os.urandom(4)  # Firefox hangs up on a mask of zeros
        pad = (mask * (count // 4 + 1))[:count]
        masked = (int.from_bytes(data, "big") ^ int.from_bytes(pad, "big")).to_bytes(count, "big")
        self.sock.sendall(head + mask + masked)

    def recv(self, timeout: float) -> str:
        self.sock.settimeout(timeout)
        out = b""
        while True:
            first, second = self._take(2)
            count = second & 127
            if count == 126:
                (count,) = struct.unpack(">H", self._take(2))
            elif count == 127:
                (count,) = struct.unpack(">Q", self._take(8))
            data = self._take(count)
            opcode = first & 15
            if opcode == 8:
                raise OSError("the browser closed the session")
            if opcode == 9:
                self.send(data, 10)
            elif opcode != 10:
                out += data
                if first & 128:
                    return out.decode("utf-8", "replace")

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.close()


class Rpc:
    """Numbered commands over a WireSocket; everything else that arrives is kept in ``events``."""

    def __init__(self, wire: WireSocket) -> None:
        self.wire = wire
        self.last = 0
        self.events: list[dict[str, Any]] = []

    def call(
        self, method: str, params: dict[str, Any] | None = None, timeout: float = COMMAND_SECONDS
    ) -> dict[str, Any]:
        self.last += 1
        self.wire.send(json.dumps({"id": self.last, "method": method, "params": params or {}}))
        end = time.monotonic() + timeout
        while (left := end - time.monotonic()) > 0:
            try:
                message = json.loads(self.wire.recv(left))
            except TimeoutError:
                break
            if message.get("id") == self.last:
                if "error" in message:
                    raise RuntimeError(f"{method}: {json.dumps(message)[:400]}")
                result: dict[str, Any] = message.get("result", {})
                return result
            self.events.append(message)
        raise EngineTimeout(method)
