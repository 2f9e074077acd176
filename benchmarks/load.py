"""The load driver, in a process of its own: asyncio protocols on plain sockets, so that it costs less than a server.

``python load.py LINE --server NAME=PORT ...`` prints a line of JSON for every round.  Every answer is compared with
what it must be; anything else ends the run.  ``LINES`` says what there is to measure.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import resource
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote_plus

MESSAGE_BYTES = 64
OPENING_AT_A_TIME = 50
WARM_UP_S = 0.3
ANSWER_TIMEOUT_S = 60
# Sessions opened and closed before memory is counted, so that what a process loads once is not counted.
MEMORY_WARM_UP_SESSIONS = 50


class WrongAnswer(Exception):
    """A server did not do the work that is measured."""


# -- connections

_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
_CHUNKED = re.compile(rb"(?i)\r\ntransfer-encoding: *chunked")
# A browser's headers; the servers have to read them all.
_BROWSER = (
    "Host: {host}\r\nConnection: keep-alive\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 "
    "(KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36\r\nAccept: */*\r\nReferer: http://{host}/\r\n"
    "Sec-Fetch-Site: same-origin\r\nAccept-Encoding: gzip, deflate\r\nAccept-Language: en-US,en;q=0.9\r\n"
)


class HttpConnection(asyncio.Protocol):
    """A kept-alive connection: *on_part* gets each chunk of an answer, *on_end* its status and plain body."""

    def __init__(self, on_part: Callable[[bytes], None], on_end: Callable[[int, bytes], None]) -> None:
        self._on_part, self._on_end = on_part, on_end
        self._buffer = b""
        self._status = 0
        self._length = 0

    def connection_made(self, transport) -> None:
        self.transport = transport
        self.ask = transport.write

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while self._buffer and self._step():
            pass

    def _step(self) -> bool:
        if not self._status:
            head, found, rest = self._buffer.partition(b"\r\n\r\n")
            if not found:
                return False
            self._status, self._buffer = int(head[9:12]), rest
            length = _LENGTH.search(head)
            self._length = int(length[1]) if length else -1 if _CHUNKED.search(head) else 0
            if not self._length:
                self._end(b"")
        elif self._length > 0:
            if len(self._buffer) < self._length:
                return False
            body, self._buffer = self._buffer[: self._length], self._buffer[self._length :]
            self._end(body)
        else:
            size, found, rest = self._buffer.partition(b"\r\n")
            stop = int(size, 16) if found else 0
            if not found or len(rest) < stop + 2:
                return False
            self._buffer = rest[stop + 2 :]
            if stop:
                self._on_part(rest[:stop])
            else:
                self._end(b"")
        return True

    def _end(self, body: bytes) -> None:
        status, self._status = self._status, 0
        self._on_end(status, body)


# -- clients: ``send`` a message, be told of each frame and of each answered send


class Client:
    """*answers_sends* says whether a send is answered on its own, besides the frame that comes back."""

    answers_sends = True

    def __init__(self, port: int, endpoint: str) -> None:
        self.port, self.host = port, f"127.0.0.1:{port}"
        self.path = f"/{endpoint}/000/{os.urandom(8).hex()}/"
        self.opened = asyncio.get_running_loop().create_future()
        self.on_frame: Callable[[bytes], None] = self._first_frame
        self.on_answer: Callable[[], None] = _unasked
        self.connections: list[asyncio.Transport] = []

    def _first_frame(self, frame: bytes) -> None:
        _must(frame, b"o")
        self.opened.set_result(None)

    async def join(self) -> None:
        """Enter the hub's namespace: ask, and wait until the server has said yes."""
        joined = asyncio.get_running_loop().create_future()

        def answered(frame: bytes) -> None:
            _must(frame[:5], b'a["0{')
            joined.set_result(None)

        self.on_frame, self.on_answer = answered, lambda: None
        self.send(b"0")
        await joined

    def send(self, text: bytes) -> None:
        raise NotImplementedError

    async def connect(self, protocol: asyncio.Protocol) -> None:
        transport, _ = await asyncio.get_running_loop().create_connection(lambda: protocol, "127.0.0.1", self.port)
        self.connections.append(transport)

    def close(self) -> None:
        for transport in self.connections:
            transport.abort()


def _unasked(frame: bytes = b"") -> None:
    raise WrongAnswer(f"nobody asked for {frame[:200]!r}")


def _must(got: object, wanted: object) -> None:
    if got != wanted:
        raise WrongAnswer(f"wanted {wanted!r:.200}, got {got!r:.200}")


class WebSocketClient(Client, asyncio.Protocol):
    """One connection, no compression offered."""

    answers_sends = False
    _MASK = b"\x37\xfa\x21\x3d"

    async def open(self, *, sends: bool) -> None:
        self._buffer = b""
        self._upgraded = False
        await self.connect(self)
        self.connections[0].write(
            (
                f"GET {self.path}websocket HTTP/1.1\r\n{_BROWSER.format(host=self.host)}Origin: http://{self.host}\r\n"
                "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
            .replace("Connection: keep-alive", "Connection: Upgrade")
            .encode()
        )
        await self.opened

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data
        if not self._upgraded:
            head, found, rest = buffer.partition(b"\r\n\r\n")
            if found:
                _must(head[9:12], b"101")
                self._upgraded, buffer = True, rest
            else:
                rest = b""
            if not rest:
                self._buffer = buffer
                return
        # No frame of these lines is longer than the one-byte length says.
        at = 0
        while len(buffer) >= at + 2 and len(buffer) >= at + 2 + buffer[at + 1]:
            _must(buffer[at], 0x81)
            start, at = at + 2, at + 2 + buffer[at + 1]
            self.on_frame(buffer[start:at])
        self._buffer = buffer[at:]

    def send(self, text: bytes) -> None:
        payload = b'["%b"]' % text
        size = len(payload)
        key = (self._MASK * (size // 4 + 1))[:size]
        masked = (int.from_bytes(payload, "little") ^ int.from_bytes(key, "little")).to_bytes(size, "little")
        self.connections[0].write(bytes((0x81, 0x80 | size)) + self._MASK + masked)


class HttpClient(Client):
    """Receives on one connection and sends on another, as browsers do."""

    receive_method = "POST"
    receive_path = ""
    send_path = "xhr_send"
    send_type = "text/plain"
    send_answer = (204, b"")

    async def open(self, *, sends: bool) -> None:
        browser = _BROWSER.format(host=self.host)
        # Browsers name the origin of a page that posts to its own server, and not of one that gets.
        origin = f"Origin: http://{self.host}\r\n"
        extra = f"{origin}Content-Length: 0\r\n" if self.receive_method == "POST" else ""
        self._again = (
            f"{self.receive_method} {self.path}{self.receive_path} HTTP/1.1\r\n{browser}{extra}\r\n"
        ).encode()
        self._send_head = (
            f"POST {self.path}{self.send_path} HTTP/1.1\r\n{browser}{origin}"
            f"Content-Type: {self.send_type}\r\nContent-Length: %d\r\n\r\n"
        ).encode()
        self._receiver = HttpConnection(self.part, self.end)
        await self.connect(self._receiver)
        if sends:
            self._sender = HttpConnection(_unasked, self._sent)
            await self.connect(self._sender)
        self.receive()
        await self.opened

    def receive(self) -> None:
        self._receiver.ask(self._again)

    def send(self, text: bytes) -> None:
        payload = self.payload(text)
        self._sender.ask(self._send_head % len(payload) + payload)

    def payload(self, text: bytes) -> bytes:
        return b'["%b"]' % text

    def _sent(self, status: int, body: bytes) -> None:
        _must((status, body), self.send_answer)
        self.on_answer()

    def part(self, data: bytes) -> None:
        _unasked(data)

    def end(self, status: int, body: bytes) -> None:
        _must(status, 200)
        self.receive()
        self.on_frame(self.unwrap(body))

    def unwrap(self, body: bytes) -> bytes:
        _must(body[-1:], b"\n")
        return body[:-1]


class XhrClient(HttpClient):
    receive_path = "xhr"


class JsonpClient(HttpClient):
    receive_method = "GET"
    receive_path = "jsonp?c=_jp.a1b2c3d"
    send_path = "jsonp_send"
    send_type = "application/x-www-form-urlencoded"
    send_answer = (200, b"ok")

    def payload(self, text: bytes) -> bytes:
        return b"d=" + quote_plus(b'["%b"]' % text).encode()

    def unwrap(self, body: bytes) -> bytes:
        start, name, rest = body.partition(b"_jp.a1b2c3d(")
        if start not in (b"", b"/**/") or not name or not rest.endswith(b");\r\n"):
            _unasked(body)
        return json.loads(rest[:-4]).encode()


class XhrStreamingClient(HttpClient):
    receive_path = "xhr_streaming"
    _left = b""
    _greeted = False
    _end_of_frame = b"\n"
    _before_frame = b""
    _prelude = b"h" * 2048

    def part(self, data: bytes) -> None:
        *frames, self._left = (self._left + data).split(self._end_of_frame)
        for frame in frames:
            if not self._greeted:
                _must(frame, self._prelude)
                self._greeted = True
            else:
                _must(frame[: len(self._before_frame)], self._before_frame)
                self.on_frame(frame[len(self._before_frame) :])

    def end(self, status: int, body: bytes) -> None:
        # Over the response limit: go on with a new one.
        _must((status, self._left), (200, b""))
        self._greeted = False
        self.receive()


class EventSourceClient(XhrStreamingClient):
    receive_method = "GET"
    receive_path = "eventsource"
    _end_of_frame = b"\r\n\r\n"
    _before_frame = b"data: "
    _greeted = True

    def part(self, data: bytes) -> None:
        # The prelude is an empty line.
        super().part(data[2:] if not self._left and data.startswith(b"\r\n") else data)

    def end(self, status: int, body: bytes) -> None:
        super().end(status, body)
        self._greeted = True


# -- what is measured


class Work:
    """Units of work, done until told to stop; ``finished`` once nothing is under way any more."""

    def __init__(self) -> None:
        self.units = 0
        self.running = False
        self.number = 0

    async def run(self, seconds: float) -> int:
        """How many units were done in *seconds* and the rest of those begun."""
        loop = asyncio.get_running_loop()
        self.finished = loop.create_future()
        self.units, self.running = 0, True
        loop.call_later(seconds, self._stop)
        self.begin()
        await asyncio.wait_for(self.finished, seconds + ANSWER_TIMEOUT_S)
        return self.units

    def _stop(self) -> None:
        self.running = False

    def text(self, sender: int) -> bytes:
        self.number += 1
        return (b"%05d-%09d-" % (sender, self.number)).ljust(MESSAGE_BYTES, b"x")

    def begin(self) -> None:
        raise NotImplementedError


class Echoes(Work):
    """Every client sends, waits for its own message, sends the next."""

    def __init__(self, clients: list[Client]) -> None:
        super().__init__()
        self._echoers = [Echoer(self, client, number) for number, client in enumerate(clients)]

    def begin(self) -> None:
        self._busy = len(self._echoers)
        for echoer in self._echoers:
            echoer.send()

    def done(self, echoer: Echoer) -> None:
        self.units += 1
        if self.running:
            echoer.send()
            return
        self._busy -= 1
        if not self._busy:
            self.finished.set_result(None)


class Echoer:
    def __init__(self, work: Echoes, client: Client, number: int) -> None:
        self._work, self._client, self._number = work, client, number
        client.on_frame, client.on_answer = self._frame, self._one_of_two

    def send(self) -> None:
        text = self._work.text(self._number)
        self._wanted = b'a["%b"]' % text
        self._waiting = 2 if self._client.answers_sends else 1
        self._client.send(text)

    def _frame(self, frame: bytes) -> None:
        _must(frame, self._wanted)
        self._wanted = b""
        self._one_of_two()

    def _one_of_two(self) -> None:
        self._waiting -= 1
        if not self._waiting:
            self._work.done(self)


class Broadcasts(Work):
    """A speaker over WebSocket says something, all members hear it, then the next."""

    def __init__(self, speaker: Client, members: list[Client], heard: bytes) -> None:
        """*heard*: the frame that members get, with ``%b`` for what was said."""
        super().__init__()
        self._speaker, self._members, self._frame = speaker, len(members), heard
        for member in members:
            member.on_frame = self._heard

    def begin(self) -> None:
        text = self.text(0)
        self._wanted, self._missing = self._frame % text, self._members
        self._speaker.send(text)

    def _heard(self, frame: bytes) -> None:
        _must(frame, self._wanted)
        self.units += 1
        self._missing -= 1
        if not self._missing:
            if self.running:
                self.begin()
            else:
                self.finished.set_result(None)


@dataclass(frozen=True)
class Line:
    """One line of the table."""

    title: str
    kind: str
    client: type[Client]


LINES = {
    "echo-websocket": Line("echo, WebSocket", "echo", WebSocketClient),
    "echo-xhr": Line("echo, xhr long-polling (send + poll)", "echo", XhrClient),
    "echo-xhr-streaming": Line("echo, xhr_streaming (send + frame)", "echo", XhrStreamingClient),
    "echo-eventsource": Line("echo, eventsource (send + frame)", "echo", EventSourceClient),
    "echo-jsonp": Line("echo, jsonp (send + poll)", "echo", JsonpClient),
    "broadcast-websocket": Line("broadcast delivery, WebSocket", "broadcast", WebSocketClient),
    "broadcast-xhr-streaming": Line("broadcast delivery, xhr_streaming", "broadcast", XhrStreamingClient),
    "broadcast-eventsource": Line("broadcast delivery, eventsource", "broadcast", EventSourceClient),
    "broadcast-xhr": Line("broadcast delivery, xhr long-polling", "broadcast", XhrClient),
    "hub-websocket": Line("hub: room emit, WebSocket", "hub", WebSocketClient),
    "hub-xhr-streaming": Line("hub: room emit, xhr_streaming", "hub", XhrStreamingClient),
    "hub-eventsource": Line("hub: room emit, eventsource", "hub", EventSourceClient),
    "hub-xhr": Line("hub: room emit, xhr long-polling", "hub", XhrClient),
    "memory-websocket": Line("memory of an idle WebSocket session", "memory", WebSocketClient),
    "memory-xhr": Line("memory of a parked xhr poll", "memory", XhrClient),
}


class Control:
    """Asks a server what it has used."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def ask(self, *, collect: bool = False) -> dict[str, float]:
        answer = asyncio.get_running_loop().create_future()
        loop, query = asyncio.get_running_loop(), "?collect=1" if collect else ""
        transport, connection = await loop.create_connection(
            lambda: HttpConnection(_unasked, lambda _status, body: answer.set_result(json.loads(body))),
            "127.0.0.1",
            self._port,
        )
        connection.ask(f"GET /control{query} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        try:
            return await asyncio.wait_for(answer, ANSWER_TIMEOUT_S)
        finally:
            transport.close()


async def opened(kind: type[Client], port: int, endpoint: str, number: int, *, sends: bool) -> list[Client]:
    clients = [kind(port, endpoint) for _ in range(number)]
    for start in range(0, number, OPENING_AT_A_TIME):
        some = clients[start : start + OPENING_AT_A_TIME]
        await asyncio.wait_for(asyncio.gather(*(client.open(sends=sends) for client in some)), ANSWER_TIMEOUT_S)
    return clients


async def measure_cpu(line: Line, servers: dict[str, int], options: argparse.Namespace) -> None:
    works: dict[str, Work] = {}
    for name, port in servers.items():
        if line.kind == "echo":
            works[name] = Echoes(await opened(line.client, port, "echo", options.clients, sends=True))
        elif line.kind == "broadcast":
            members = await opened(line.client, port, "hall", options.clients, sends=False)
            (speaker,) = await opened(WebSocketClient, port, "speaker", 1, sends=True)
            works[name] = Broadcasts(speaker, members, b'a["%b"]')
        else:
            members = await opened(line.client, port, "hub", options.clients, sends=True)
            for member in members:
                await asyncio.wait_for(member.join(), ANSWER_TIMEOUT_S)
            (speaker,) = await opened(WebSocketClient, port, "emitter", 1, sends=True)
            works[name] = Broadcasts(speaker, members, b'a["2[\\"said\\",\\"%b\\"]"]')
        await works[name].run(min(WARM_UP_S, options.seconds))
    for _ in range(options.rounds):
        for name, port in servers.items():
            control = Control(port)
            before = (await control.ask())["cpu_s"]
            own = _own_cpu_s()
            units = await works[name].run(options.seconds)
            own = _own_cpu_s() - own
            used = (await control.ask())["cpu_s"] - before
            _say(server=name, units=units, value=used * 1e6 / units, driver=own * 1e6 / units)


def _own_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def measure_memory(line: Line, servers: dict[str, int], options: argparse.Namespace) -> None:
    for name, port in servers.items():
        control = Control(port)
        for client in await opened(line.client, port, "echo", MEMORY_WARM_UP_SESSIONS, sends=False):
            client.close()
        before = (await control.ask(collect=True))["rss_bytes"]
        clients = await opened(line.client, port, "echo", options.clients, sends=False)
        after = (await control.ask(collect=True))["rss_bytes"]
        _say(server=name, units=len(clients), value=(after - before) / 1024 / len(clients), driver=0)


def _say(**record: object) -> None:
    print(json.dumps(record), flush=True)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("line", choices=LINES)
    parser.add_argument("--server", action="append", required=True, help="NAME=PORT, once for each server")
    parser.add_argument("--seconds", type=float, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clients", type=int, default=32)
    options = parser.parse_args()
    servers = {name: int(port) for name, _, port in (server.partition("=") for server in options.server)}
    line = LINES[options.line]
    loop, failed = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()

    def fail(_loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        if not failed.done():
            failed.set_exception(context.get("exception") or WrongAnswer(str(context["message"])))

    # What a protocol raises goes to the loop, and must not be lost there.
    loop.set_exception_handler(fail)
    measuring = loop.create_task((measure_memory if line.kind == "memory" else measure_cpu)(line, servers, options))
    await asyncio.wait((measuring, failed), return_when=asyncio.FIRST_COMPLETED)
    (failed if failed.done() else measuring).result()


if __name__ == "__main__":
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(main())
