"""One server and the load on it: ``python load.py PEER LINE`` (names of ``lines.py``), used by ``bench.py``.

Starts the server, opens the clients and says ``ready``; then every line on its standard input is a round, answered
with a line of JSON.  Everything is an epoll loop over plain sockets, with requests and frames made beforehand, so that
it costs less than a server; and every byte that comes is compared with what it must be.  Linux only.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import resource
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ClassVar

from lines import LINES, PEERS, SCALING, Line

MESSAGE_BYTES = 64
READ_BYTES = 16 * 1024
ANSWER_TIMEOUT_S = 60
WARM_UP_S = 0.3
#: Between two looks at what came of a broadcast.  Who waits in epoll is woken by every single delivery, and the server
#: pays for that with its own time.
LOOK_S = 0.0005
#: Sessions opened and closed before memory is counted, so that what a process loads once is not counted.
MEMORY_WARM_UP_SESSIONS = 50
TEND_CLIENTS = 500
#: Different messages that one client sends in turn.
ECHO_MESSAGES = 16
MASK = b"\x37\xfa\x21\x3d"


class WrongAnswer(Exception):
    """A server did not do the work that is measured."""


def must(got: object, wanted: object) -> None:
    if got != wanted:
        raise WrongAnswer(f"wanted {wanted!r:.300}, got {got!r:.300}")


# -- bytes

# A browser's headers; the servers have to read them all.
_BROWSER = (
    "Host: {host}\r\nConnection: keep-alive\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 "
    "(KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36\r\nAccept: */*\r\nReferer: http://{host}/\r\n"
    "Sec-Fetch-Site: same-origin\r\nAccept-Encoding: gzip, deflate\r\nAccept-Language: en-US,en;q=0.9\r\n"
)
_UPGRADE = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
_CHUNKED = re.compile(rb"(?i)\r\ntransfer-encoding: *chunked")


def request(host: str, method: str, path: str, body: bytes = b"") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\n" + _BROWSER.format(host=host)
    if method == "POST":
        # Browsers name the origin of a page that posts to its own server, and not of one that gets.
        head += f"Origin: http://{host}\r\nContent-Type: text/plain;charset=UTF-8\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


def upgrade(host: str, path: str) -> bytes:
    fields = _BROWSER.format(host=host).replace("keep-alive", "Upgrade")
    return f"GET {path} HTTP/1.1\r\n{fields}Origin: http://{host}\r\n{_UPGRADE}\r\n".encode()


def text_frame(text: bytes) -> bytes:
    """A server's WebSocket frame; *text* is short enough for each form of length that occurs here."""
    size = len(text)
    return (bytes((0x81, size)) if size < 126 else b"\x81\x7e" + size.to_bytes(2, "big")) + text


def masked_frame(text: bytes) -> bytes:
    """A client's WebSocket frame, of less than 126 bytes."""
    return bytes((0x81, 0x80 | len(text))) + MASK + bytes(byte ^ MASK[at % 4] for at, byte in enumerate(text))


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def read_frame(data: bytes) -> tuple[bytes, bytes] | None:
    """The text of the first WebSocket frame of *data*, and what follows it; None where it is not whole."""
    if len(data) < 2:
        return None
    must(data[0], 0x81)
    start, size = (4, int.from_bytes(data[2:4], "big")) if data[1] == 126 else (2, data[1])
    stop = start + size
    return (data[start:stop], data[stop:]) if len(data) >= max(start, stop) else None


def read_chunks(data: bytes) -> tuple[bytes, bytes, bool]:
    """What the whole chunks at the start of *data* hold, what follows them, and whether the last one was among them."""
    body = b""
    while True:
        size, found, rest = data.partition(b"\r\n")
        stop = int(size, 16) if found else 0
        if not found or len(rest) < stop + 2:
            return body, data, False
        body, data = body + rest[:stop], rest[stop + 2 :]
        if not stop:
            return body, data, True


def read_response(data: bytes) -> tuple[bytes, bytes] | None:
    """Status and body of the answer that *data* is; None where it is not whole."""
    head, found, rest = data.partition(b"\r\n\r\n")
    if not found:
        return None
    if _CHUNKED.search(head):
        body, rest, is_whole = read_chunks(rest)
    else:
        length = _LENGTH.search(head)
        body, is_whole = rest, len(rest) >= (int(length[1]) if length else 0)
    return (head[9:12], body) if is_whole else None


# -- what clients say, by language


class SockJS:
    """SockJS: message framing, and how a session opens on each of its transports."""

    #: Transport -> method and path.
    RECEIVE: ClassVar = {
        "poll": ("POST", "xhr"),
        "xhr_streaming": ("POST", "xhr_streaming"),
        "eventsource": ("GET", "eventsource"),
        "htmlfile": ("GET", "htmlfile?c=callback"),
    }
    #: Transport -> a frame as its response carries it.
    WRAP: ClassVar = {
        "poll": b"%b\n",
        "xhr_streaming": b"%b\n",
        "eventsource": b"data: %b\r\n\r\n",
    }

    @staticmethod
    def heard(text: bytes) -> bytes:
        return b'a["%b"]' % text

    @staticmethod
    def said(text: bytes) -> bytes:
        return b'["%b"]' % text

    @classmethod
    def wrap(cls, transport: str, frame: bytes) -> bytes:
        if transport == "htmlfile":
            return b"<script>\np(%b);\n</script>\r\n" % json.dumps(frame.decode()).encode()
        return cls.WRAP[transport] % frame

    def __init__(self, host: str) -> None:
        self.path = f"/bench/000/{os.urandom(8).hex()}/"
        self.host = host

    def websocket(self) -> bytes:
        return upgrade(self.host, self.path + "websocket")

    def greet(self, client: Client) -> None:
        must(client.frame(), b"o")

    def open(self, client: Client) -> None:
        self.greet(client)

    def receive(self, transport: str) -> bytes:
        method, path = self.RECEIVE[transport]
        return request(self.host, method, self.path + path)

    def greet_poll(self, client: Client) -> bytes:
        """Open a polling session; the request of a poll to come."""
        poll = self.receive("poll")
        must(client.ask(poll), (b"200", b"o\n"))
        return poll

    open_poll = greet_poll


class SocketIO:
    """Socket.IO protocol 5 on Engine.IO 4; broadcasts and echoes are the event ``said``."""

    PATH = "/socket.io/?EIO=4&transport="
    #: What names a session that is open already, in a query.
    session = ""

    @staticmethod
    def heard(text: bytes) -> bytes:
        return b'42["said","%b"]' % text

    said = heard

    @staticmethod
    def wrap(transport: str, frame: bytes) -> bytes:
        return frame

    def __init__(self, host: str) -> None:
        self.host = host

    def websocket(self) -> bytes:
        return upgrade(self.host, f"{self.PATH}websocket{self.session}")

    def greet(self, client: Client) -> None:
        must(client.frame()[:8], b'0{"sid":')

    def open(self, client: Client) -> None:
        self.greet(client)
        client.socket.sendall(masked_frame(b"40"))
        must(client.frame()[:9], b'40{"sid":')

    def greet_poll(self, client: Client) -> bytes:
        status, body = client.ask(request(self.host, "GET", self.PATH + "polling"))
        must((status, body[:1]), (b"200", b"0"))
        self.session = f"&sid={json.loads(body[1:])['sid']}"
        self.mine = f"{self.PATH}polling{self.session}"
        return request(self.host, "GET", self.mine)

    def open_poll(self, client: Client) -> bytes:
        poll = self.greet_poll(client)
        status, body = client.ask(request(self.host, "POST", self.mine, b"40"))
        must((status, body.lower()), (b"200", b"ok"))
        status, body = client.ask(poll)
        must((status, body[:9]), (b"200", b'40{"sid":'))
        return poll


class Raw:
    """A bare WebSocket."""

    @staticmethod
    def heard(text: bytes) -> bytes:
        return text

    said = heard

    def __init__(self, host: str) -> None:
        self.host = host

    def websocket(self) -> bytes:
        return upgrade(self.host, "/bench")

    def greet(self, client: Client) -> None:
        """The handshake is all."""

    open = greet


LANGUAGES = {"sockjs": SockJS, "socketio": SocketIO, "raw": Raw}


class Client:
    """One connection.  It opens in blocking steps, and is then only a file descriptor of the loop."""

    def __init__(self, language: type, port: int) -> None:
        self.language = language(f"127.0.0.1:{port}")
        self.socket = socket.create_connection(("127.0.0.1", port), ANSWER_TIMEOUT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.poll = b""
        self._data = b""

    def _more(self) -> None:
        data = self.socket.recv(READ_BYTES)
        if not data:
            raise WrongAnswer(f"the server closed the connection after {self._data!r:.300}")
        self._data += data

    def ask(self, asked: bytes) -> tuple[bytes, bytes]:
        """Status and body of the answer to a request."""
        self._data = b""
        self.socket.sendall(asked)
        while (answer := read_response(self._data)) is None:
            self._more()
        return answer

    def frame(self) -> bytes:
        """The next WebSocket frame."""
        while (found := read_frame(self._data)) is None:
            self._more()
        text, self._data = found
        return text

    def upgrade(self) -> None:
        self.socket.sendall(self.language.websocket())
        while b"\r\n\r\n" not in self._data:
            self._more()
        head, _, self._data = self._data.partition(b"\r\n\r\n")
        must(head[9:12], b"101")

    def greet(self, transport: str) -> None:
        """As far as the open frame."""
        if transport == "websocket":
            self.upgrade()
            self.language.greet(self)
        else:
            self.language.greet_poll(self)

    def open(self, transport: str) -> None:
        """Until broadcasts reach it: for polling, with a poll parked."""
        if transport == "websocket":
            self.upgrade()
            self.language.open(self)
            must(self._data, b"")
        elif transport == "poll":
            self.poll = self.language.open_poll(self)
            self.socket.sendall(self.poll)
        else:
            self._open_stream(transport)
        self.socket.setblocking(False)

    def _open_stream(self, transport: str) -> None:
        self.socket.sendall(self.language.receive(transport))
        opened = self.language.wrap(transport, b"o")
        while True:
            head, _, rest = self._data.partition(b"\r\n\r\n")
            if rest and read_chunks(rest)[0].endswith(opened):
                break
            self._more()
        must(head[9:12], b"200")
        must(read_chunks(rest)[1:], (b"", False))


# -- the server


class Server:
    """The process under measurement."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        assert process.stdin is not None
        assert process.stdout is not None
        self._in, self._out = process.stdin.fileno(), process.stdout
        # What clock_getcpuclockid(3) makes of a process id: its time and that of all its threads, in nanoseconds.
        self._clock = (~process.pid << 3) | 2
        self.port = int(self._answer())

    def _answer(self) -> bytes:
        # (select(2) knows no descriptor beyond 1,023.)
        waiting = select.poll()
        waiting.register(self._out, select.POLLIN)
        if not waiting.poll(ANSWER_TIMEOUT_S * 1000):
            raise WrongAnswer("the server does not answer")
        line = self._out.readline()
        if not line:
            raise WrongAnswer("the server ended")
        return line

    def cpu_s(self) -> float:
        return time.clock_gettime(self._clock)

    def resident_kib(self) -> float:
        self.command(b"collect")
        with open(f"/proc/{self._process.pid}/statm", encoding="ascii") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE") / 1024

    def ask(self, line: bytes) -> bytes:
        """Its answer to a command."""
        os.write(self._in, line + b"\n")
        return self._answer().rstrip(b"\n")

    def command(self, line: bytes) -> None:
        must(self.ask(line), b"done")

    def say(self, texts: list[bytes]) -> None:
        os.write(self._in, b"".join(b"say %b\n" % text for text in texts))


@contextmanager
def running(command: list[str], cores: list[int]) -> Iterator[Server]:
    """The server that *command* starts, on *cores*."""
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    os.sched_setaffinity(0, own)
    try:
        yield Server(process)
    finally:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        process.stdout.close()
        try:
            process.wait(ANSWER_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def started(name: str, heartbeat_s: float) -> Iterator[Server]:
    """The server *name*, on a core of its own where there are two."""
    command = PEERS[name].command(name)
    if command is None:
        raise WrongAnswer(f"{name} is not installed")
    cores = sorted(os.sched_getaffinity(0))
    with running([*command, str(heartbeat_s)], cores[:1]) as server:
        os.sched_setaffinity(0, cores[1:] or cores)
        try:
            yield server
        finally:
            os.sched_setaffinity(0, cores)


# -- what is measured: each has ``round(seconds)``, which gives units done and what else there is to tell


class Works:
    """Clients in one epoll."""

    def __init__(self, server: Server, line: Line, language: type, clients: int) -> None:
        self.server, self.line, self.language = server, line, language
        self.number = 0
        self.clients = {}
        self.epoll = select.epoll()
        for number in range(clients):
            client = self.connect(number)
            self.clients[client.socket.fileno()] = client
            self.epoll.register(client.socket.fileno(), select.EPOLLIN)
            if len(self.clients) % TEND_CLIENTS == 0:
                self.tend()

    def connect(self, number: int) -> Client:
        """The client *number*, open."""
        client = Client(self.language, self.server.port)
        client.open(self.line.transport)
        return client

    def close(self) -> None:
        self.epoll.close()
        for client in self.clients.values():
            client.socket.close()

    def text(self) -> bytes:
        self.number += 1
        return (b"%012d-" % self.number).ljust(MESSAGE_BYTES, b"x")

    def events(self) -> list[tuple[int, int]]:
        found = self.epoll.poll(ANSWER_TIMEOUT_S)
        if not found:
            raise WrongAnswer("a client waits in vain")
        return found

    def tend(self) -> object:
        """Now and then while more clients open: what those that are open already need."""

    def quiet(self) -> None:
        """Nothing has come that nobody asked for."""
        for fd, _ in self.epoll.poll(0):
            raise WrongAnswer(f"nobody asked for {os.read(fd, READ_BYTES)!r:.300}")

    def round(self, seconds: float) -> tuple[int, dict[str, float]]:
        raise NotImplementedError


class Broadcasts(Works):
    """So many broadcasts at once, and when everybody has heard them all, the next."""

    def round(self, seconds: float) -> tuple[int, dict[str, float]]:
        deadline = time.monotonic() + seconds
        done = 0
        while True:
            self.once([self.text() for _ in range(self.line.in_flight)])
            done += len(self.clients) * self.line.in_flight
            if time.monotonic() > deadline:
                self.quiet()
                return done, {}

    def once(self, texts: list[bytes]) -> None:
        frames = [self.language.heard(text) for text in texts]
        if self.line.transport == "websocket":
            whole, read_all = b"".join(map(text_frame, frames)), None
        else:
            # A stream mostly comes as one chunk for each frame.
            wrapped = [self.language.wrap(self.line.transport, frame) for frame in frames]
            whole, read_all = b"".join(map(chunk, wrapped)), b"".join(wrapped)
        self.server.say(texts)
        left, parts = len(self.clients), {}
        read, sleep = os.read, time.sleep
        while left:
            for fd, _ in self.events():
                data = read(fd, READ_BYTES)
                if (data == whole and fd not in parts) or self._is_whole(fd, data, whole, read_all, parts):
                    left -= 1
            if left:
                sleep(LOOK_S)

    def _is_whole(self, fd: int, data: bytes, whole: bytes, read_all: bytes | None, parts: dict[int, bytes]) -> bool:
        """What came in more than one piece, or in other chunks."""
        parts[fd] = got = parts.get(fd, b"") + data
        if not data:
            raise WrongAnswer("the server closed a connection")
        if read_all is None:
            must(got, whole[: len(got)])
            return got == whole
        body, rest, ended = read_chunks(got)
        must((body, ended), (read_all[: len(body)], False))
        return body == read_all and not rest


class Polls(Broadcasts):
    """The same to parked polls; each is followed by the next one."""

    def once(self, texts: list[bytes]) -> None:
        body = self.language.wrap("poll", self.language.heard(texts[0]))
        chunked = chunk(body) + b"0\r\n\r\n"
        self.server.say(texts)
        left, parts, clients = len(self.clients), {}, self.clients
        read, write, sleep = os.read, os.write, time.sleep
        while left:
            for fd, _ in self.events():
                data = read(fd, READ_BYTES)
                if parts:
                    data = parts.pop(fd, b"") + data
                came = data[data.find(b"\r\n\r\n") + 4 :]
                if came not in (body, chunked) or data[9:12] != b"200":
                    answer = read_response(data)
                    if answer is None and data:
                        parts[fd] = data
                        continue
                    must(answer, (b"200", body))
                write(fd, clients[fd].poll)
                left -= 1
            if left:
                sleep(LOOK_S)


class Echoes(Works):
    """Every client sends, waits for its own message, sends the next."""

    def __init__(self, server: Server, line: Line, language: type, clients: int) -> None:
        super().__init__(server, line, language, clients)
        self._made = {}
        for fd in self.clients:
            texts = [self.text() for _ in range(ECHO_MESSAGES)]
            self._made[fd] = [(masked_frame(language.said(t)), text_frame(language.heard(t))) for t in texts]

    def round(self, seconds: float) -> tuple[int, dict[str, float]]:
        made, clock, read, write = self._made, time.perf_counter, os.read, os.write
        served, since = dict.fromkeys(made, 0), {}
        parts: dict[int, bytes] = {}
        latencies = []
        for fd, messages in made.items():
            since[fd] = clock()
            write(fd, messages[0][0])
        deadline, left = clock() + seconds, len(made)
        while left:
            for fd, _ in self.events():
                data = read(fd, READ_BYTES)
                if parts:
                    data = parts.pop(fd, b"") + data
                done = served[fd]
                wanted = made[fd][done % ECHO_MESSAGES][1]
                if data != wanted:
                    must((data[:1], data), (b"\x81", wanted[: len(data)]))
                    parts[fd] = data
                    continue
                now = clock()
                latencies.append(now - since[fd])
                served[fd] = done = done + 1
                if now < deadline:
                    since[fd] = now
                    write(fd, made[fd][done % ECHO_MESSAGES][0])
                else:
                    left -= 1
        self.quiet()
        latencies.sort()
        p99 = latencies[math.ceil(len(latencies) * 0.99) - 1]
        return len(latencies), {"p99_ms": p99 * 1000, "least_most": min(served.values()) / max(served.values())}


class Connects:
    """One client after the other connects, gets its open frame, and goes."""

    def __init__(self, server: Server, line: Line, language: type, clients: int) -> None:
        self._server, self._line, self._language = server, line, language

    def round(self, seconds: float) -> tuple[int, dict[str, float]]:
        deadline, done = time.monotonic() + seconds, 0
        while done == 0 or time.monotonic() < deadline:
            client = Client(self._language, self._server.port)
            client.greet(self._line.transport)
            client.socket.close()
            done += 1
        return done, {}


class Idle(Works):
    """Clients that do nothing but answer pings, until each has had one."""

    PONG = masked_frame(b"3")

    def tend(self, wait_s: float = 0) -> set[int]:
        events = self.epoll.poll(wait_s)
        for fd, _ in events:
            data = os.read(fd, READ_BYTES)
            # SockJS servers may ping with a frame of WebSocket's own.
            if data == b"\x81\x012":
                os.write(fd, self.PONG)
            elif data[:1] == b"\x89":
                os.write(fd, b"\x8a\x80" + MASK)
            else:
                must(data, b"\x81\x01h")
        return {fd for fd, _ in events}

    def round(self, seconds: float) -> tuple[int, dict[str, float]]:
        # A server counts from the last answer, which may have been late while clients opened.
        length_s = self.line.heartbeat_s * 1.2
        deadline, heard, units = time.monotonic() + length_s, set(), 0
        while (left := deadline - time.monotonic()) > 0:
            some = self.tend(left)
            units += len(some)
            heard |= some
        if len(heard) < len(self.clients):
            raise WrongAnswer(f"only {len(heard)} of {len(self.clients)} clients had a heartbeat")
        return units, {"seconds": length_s}


def work_for(line: Line) -> Callable[..., Works | Connects]:
    if line.kind == "broadcast":
        return Polls if line.transport == "poll" else Broadcasts
    return {"echo": Echoes, "connect": Connects, "idle": Idle}[line.kind]


def measure(server: Server, work: Works | Connects, line: Line, seconds: float) -> dict[str, float]:
    server_before, own_before = server.cpu_s(), time.process_time()
    units, more = work.round(seconds)
    used, own = server.cpu_s() - server_before, time.process_time() - own_before
    if line.kind == "idle":
        return {"value": 100 * used / more["seconds"], "generator": 100 * own / more["seconds"], "units": units}
    return {"value": used * 1e6 / units, "generator": own * 1e6 / units, "units": units, **more}


def measure_memory(server: Server, line: Line, language: type, clients: int) -> dict[str, float]:
    for _ in range(MEMORY_WARM_UP_SESSIONS):
        client = Client(language, server.port)
        client.open(line.transport)
        client.socket.close()
    before = server.resident_kib()
    Works(server, line, language, clients).quiet()
    return {"value": (server.resident_kib() - before) / clients, "generator": 0.0, "units": clients}


def say(answer: object) -> None:
    print(answer if isinstance(answer, str) else json.dumps(answer), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("line", choices=LINES | SCALING)
    parser.add_argument("--clients", type=int, help="instead of the line's own number")
    parser.add_argument("--seconds", type=float, default=1.0)
    options = parser.parse_args()
    line = (LINES | SCALING)[options.line]
    clients = options.clients or line.clients
    language = LANGUAGES[PEERS[options.peer].language]
    with started(options.peer, line.heartbeat_s) as server:
        if line.kind == "memory":
            say("ready")
            for _ in sys.stdin:
                say(measure_memory(server, line, language, clients))
                return
        work = work_for(line)(server, line, language, clients)
        if line.rooms > 1:
            server.command(b"rooms %d" % line.rooms)
        if line.kind != "idle":
            work.round(min(WARM_UP_S, options.seconds))
        say("ready")
        for _ in sys.stdin:
            say(measure(server, work, line, options.seconds))


def open_files() -> None:
    """Let this process have as many connections as it may."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    open_files()
    try:
        main()
    except (WrongAnswer, OSError) as error:
        sys.exit(f"{sys.argv[1]}, {sys.argv[2]}: {error}")
