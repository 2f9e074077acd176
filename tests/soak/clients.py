"""A session of each kind of client, on the wire by hand: how it opens, says, hears, leaves, and breaks off.

Built on the tests' own client of bytes (``support.rawhttp``), which shares no code with the server.  What a client says
and when it goes is ``crowd.py``'s.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import struct
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote

from support import clients
from support.interop_engine import EngineClient
from support.rawhttp import TEXT, Connection, HeaderList, WireSocket, encode_frame, request_bytes

__all__ = ["KINDS", "Ended", "Life", "reset"]

FORM: HeaderList = (("Content-Type", "application/x-www-form-urlencoded"),)
PLAIN_POLL_S = 1.0
_MARK = "\ufffd"
_LEGACY_SCRIPT = re.compile(rb'<script>_\(("[^\n]*?")\);</script>')
_LEGACY_JSONP = re.compile(r"io\.j\[0\]\((.*)\);")


class Ended(Exception):
    """The server ended a session, or refused what belongs to one."""


def reset(connection: Connection) -> None:
    """Leave as a machine does that loses its power: the peer hears RST, if anything."""
    if connection.writer.is_closing():
        return
    sock = connection.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.abort()


class Life(ABC):
    """One session.  Nothing here waits with a limit of time; who holds it does."""

    is_answered = True
    """Whether the server ends its half when it has heard the goodbye."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.connections: list[Connection] = []

    async def connect(self) -> Connection:
        made = await Connection.open(self.base, timeout=None)
        self.connections.append(made)
        return made

    @abstractmethod
    def greeting(self) -> bytes:
        """The first request."""

    @abstractmethod
    async def open(self) -> None:
        """Until it may say something."""

    @abstractmethod
    async def say(self, texts: Sequence[str]) -> None: ...

    @abstractmethod
    async def hear(self) -> Sequence[str]:
        """What comes next; nothing for heartbeats and the like."""

    @abstractmethod
    async def begin(self, text: str) -> tuple[Connection, bytes]:
        """What saying *text* sends, and on which connection."""

    @abstractmethod
    async def leave(self) -> None:
        """Say goodbye, as far as the language has a word for it."""

    def reset(self) -> None:
        for connection in self.connections:
            reset(connection)

    def close(self) -> None:
        for connection in self.connections:
            connection.close()


# -- languages: what a packet says


class Language(ABC):
    """Packets of one language; ``due`` is what it wants to have sent for itself."""

    def __init__(self) -> None:
        self.due: list[str] = []

    @abstractmethod
    def packets(self, texts: Sequence[str]) -> list[str]:
        """What is sent for *texts*, each a packet or a frame."""

    @abstractmethod
    def texts(self, packet: str) -> Sequence[str]:
        """What *packet* says."""

    def is_open(self, packet: str) -> bool:
        """Whether the session is open with this packet."""
        return False

    goodbye: Sequence[str] = ()


class Raw(Language):
    def packets(self, texts: Sequence[str]) -> list[str]:
        return list(texts)

    def texts(self, packet: str) -> Sequence[str]:
        return (packet,)


class SockJS(Language):
    def packets(self, texts: Sequence[str]) -> list[str]:
        return [json.dumps(list(texts))]

    def is_open(self, packet: str) -> bool:
        return packet == "o"

    def texts(self, packet: str) -> Sequence[str]:
        if packet[:1] == "a":
            heard: list[str] = json.loads(packet[1:])
            return heard
        if packet != "h":
            raise Ended(packet)
        return ()


class SocketIO(Language):
    """Protocol 5 on Engine.IO 4."""

    goodbye = ("41",)

    def packets(self, texts: Sequence[str]) -> list[str]:
        return ["42" + json.dumps(["n", text]) for text in texts]

    def is_open(self, packet: str) -> bool:
        return packet[:2] == "40"

    def texts(self, packet: str) -> Sequence[str]:
        if packet[:2] == "42":
            return (json.loads(packet[2:])[1],)
        if packet == "2":
            self.due.append("3")
        elif packet[:1] == "0":
            self.due.append("40")
        elif packet != "6":
            raise Ended(packet)
        return ()


class SocketIO4(SocketIO):
    """Protocol 4 on Engine.IO 3: it is in ``/`` at once, and it is the client who pings."""

    def packets(self, texts: Sequence[str]) -> list[str]:
        return ["2", *super().packets(texts)]

    def texts(self, packet: str) -> Sequence[str]:
        return () if packet[:1] in ("0", "3") else super().texts(packet)


class SocketIO09(Language):
    goodbye = ("0::",)

    def packets(self, texts: Sequence[str]) -> list[str]:
        return ["5:::" + json.dumps({"name": "n", "args": [text]}) for text in texts]

    def is_open(self, packet: str) -> bool:
        return packet == "1::"

    def texts(self, packet: str) -> Sequence[str]:
        if packet[:4] == "5:::":
            return (json.loads(packet[4:])["args"][0],)
        if packet == "2::":
            self.due.append("2::")
        elif packet not in ("8::", "1::"):
            raise Ended(packet)
        return ()


class Plain(Language):
    def packets(self, texts: Sequence[str]) -> list[str]:
        return [json.dumps(["n", text]) for text in texts]

    def is_open(self, packet: str) -> bool:
        return packet[:11] == '["#connect"'

    def texts(self, packet: str) -> Sequence[str]:
        event = json.loads(packet)
        if event[0] != "n":
            raise Ended(packet)
        return (event[1],)


# -- WebSockets


class Socket(Life):
    """A WebSocket of *language*."""

    def __init__(self, base: str, path: str, language: Language) -> None:
        super().__init__(base)
        self.path = path
        self.language = language

    def greeting(self) -> bytes:
        fields = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "13")]
        key = ("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==")
        return request_bytes("127.0.0.1", "GET", self.path, headers=[*fields, key])

    async def open(self) -> None:
        await self.shake()
        while not isinstance(self.language, Raw):
            packet = await self.socket.recv_text()
            if self.language.is_open(packet):
                break
            self.language.texts(packet)
            await self.settle()

    async def shake(self) -> None:
        self.socket = await WireSocket.connect(self.base, self.path, timeout=None)
        self.connections.append(self.socket.connection)

    async def settle(self) -> None:
        """Send what the language has to say for itself."""
        due, self.language.due = self.language.due, []
        for packet in due:
            await self.socket.send_text(packet)

    async def say(self, texts: Sequence[str]) -> None:
        data = b"".join(encode_frame(TEXT, packet.encode()) for packet in self.language.packets(texts))
        await self.socket.connection.write(data)

    async def hear(self) -> Sequence[str]:
        texts = self.language.texts(await self.socket.recv_text())
        if self.language.due:
            await self.settle()
        return texts

    async def begin(self, text: str) -> tuple[Connection, bytes]:
        return self.socket.connection, encode_frame(TEXT, self.language.packets([text])[-1].encode())

    async def leave(self) -> None:
        for packet in self.language.goodbye:
            await self.socket.send_text(packet)
        await self.socket.send_close()


class LegacySocket(Socket):
    """Of Socket.IO 0.9, whose handshake is a request of its own."""

    def __init__(self, base: str) -> None:
        super().__init__(base, "/socket.io/1/", SocketIO09())

    def greeting(self) -> bytes:
        return request_bytes("127.0.0.1", "GET", self.path)

    async def shake(self) -> None:
        self.path = f"/socket.io/1/websocket/{await legacy_handshake(self)}"
        await super().shake()


async def legacy_handshake(life: Life) -> str:
    connection = await life.connect()
    sid = (await ask(connection, "GET", "/socket.io/1/")).partition(":")[0]
    connection.close()
    life.connections.remove(connection)
    return sid


async def ask(connection: Connection, method: str, path: str, body: str = "", headers: HeaderList = ()) -> str:
    """The body of the answer to a request, which must be a good one."""
    answer = await connection.request(method, path, headers=headers, body=body.encode())
    if answer.status not in (200, 204):
        raise Ended(f"{method} {path.partition('?')[0]}: {answer.status} {answer.body[:200]!r}")
    return answer.text


# -- requests


class Requests(Life):
    """Says by one kept-alive connection, and hears by another."""

    def __init__(self, base: str, path: str) -> None:
        super().__init__(base)
        self.path = path
        self.sending: Connection | None = None
        self.ours = asyncio.Lock()  # one request at a time

    def greeting(self) -> bytes:
        return request_bytes("127.0.0.1", "GET", self.path)

    @abstractmethod
    def posted(self, texts: Sequence[str]) -> tuple[str, str, HeaderList]:
        """Path, body and header fields of the request that says *texts*."""

    async def say(self, texts: Sequence[str]) -> None:
        await self.post(*self.posted(texts))

    async def post(self, path: str, body: str, headers: HeaderList = ()) -> None:
        async with self.ours:
            await ask(await self.sender(), "POST", path, body, headers)

    async def sender(self) -> Connection:
        if self.sending is None:
            self.sending = await self.connect()
        return self.sending

    async def begin(self, text: str) -> tuple[Connection, bytes]:
        async with self.ours:
            path, body, headers = self.posted([text])
            return await self.sender(), request_bytes("127.0.0.1", "POST", path, headers=headers, body=body.encode())

    async def leave(self) -> None:
        """There is no word for it."""


class SockJSRequests(Requests):
    """xhr, jsonp and the streaming transports, as the other tests' client speaks them."""

    is_answered = False  # there is no goodbye

    def __init__(self, base: str, transport: str) -> None:
        self.client = clients.Client(base, transport, "/raw")
        super().__init__(base, f"{self.client.url}/{transport}?c={clients.CALLBACK}")
        self.is_jsonp = transport == "jsonp"

    async def open(self) -> None:
        self.client.connection = await self.connect()
        await self.client.open()

    async def hear(self) -> Sequence[str]:
        frame = await self.client.frame()
        return SockJS().texts(frame)

    def posted(self, texts: Sequence[str]) -> tuple[str, str, HeaderList]:
        payload = json.dumps(list(texts))
        if self.is_jsonp:
            return f"{self.client.url}/jsonp_send", f"d={quote(payload)}", FORM
        return f"{self.client.url}/xhr_send", payload, ()


class EnginePolls(Requests):
    """Polling of Engine.IO 4 or 3, and the way from there to a WebSocket."""

    def __init__(self, base: str, version: int, *, upgrades: bool = False) -> None:
        self.engine = EngineClient(base, version, "/socket.io/")
        super().__init__(base, self.engine.url())
        self.language: SocketIO = SocketIO() if version == 4 else SocketIO4()
        self.upgrades = upgrades
        self.socket: WireSocket | None = None
        self.early: list[str] = []

    async def poll(self) -> list[str]:
        return self.engine.packets(await ask(self.polling, "GET", self.engine.url()))

    async def open(self) -> None:
        self.polling = await self.connect()
        first, *others = await self.poll()
        self.engine.opened(first)
        self.language.texts(first)
        await self.settle()
        while not any(map(self.language.is_open, others)):
            others = await self.poll()
        self.early = [text for packet in others if not self.language.is_open(packet) for text in self.texts(packet)]
        if self.upgrades:
            await self.upgrade()

    async def upgrade(self) -> None:
        polled = asyncio.ensure_future(self.poll())
        try:
            new = await WireSocket.connect(self.base, self.engine.url("websocket"), timeout=None)
            self.connections.append(new.connection)
            await new.send_text("2probe")
            answer = await new.recv_text()
            if answer != "3probe":
                raise Ended(answer)
            # The poll that waits is answered, if with nothing.
            for packet in await polled:
                self.early += self.texts(packet)
        finally:
            polled.cancel()
        await new.send_text("5")
        self.socket = new
        await self.settle()

    def texts(self, packet: str) -> Sequence[str]:
        return self.language.texts(packet)

    async def settle(self) -> None:
        due, self.language.due = self.language.due, []
        if due:
            await self.send(due)

    async def send(self, packets: Sequence[str]) -> None:
        if self.socket is not None:
            for packet in packets:
                await self.socket.send_text(packet)
        else:
            await self.post(self.engine.url(), self.engine.payload(*packets))

    async def say(self, texts: Sequence[str]) -> None:
        await self.send(self.language.packets(texts))

    async def hear(self) -> Sequence[str]:
        if self.early:
            early, self.early = self.early, []
            return early
        packets = [await self.socket.recv_text()] if self.socket is not None else await self.poll()
        texts = [text for packet in packets for text in self.texts(packet)]
        await self.settle()
        return texts

    def posted(self, texts: Sequence[str]) -> tuple[str, str, HeaderList]:
        return self.engine.url(), self.engine.payload(*self.language.packets(texts)), ()

    async def begin(self, text: str) -> tuple[Connection, bytes]:
        if self.socket is None:
            return await super().begin(text)
        return self.socket.connection, encode_frame(TEXT, self.language.packets([text])[-1].encode())

    async def leave(self) -> None:
        await self.send(["41", "1"])


class LegacyRequests(Requests):
    """xhr-polling, jsonp-polling or htmlfile of Socket.IO 0.9."""

    def __init__(self, base: str, transport: str) -> None:
        super().__init__(base, "/socket.io/1/")
        self.language = SocketIO09()
        self.transport = transport
        self._streaming = False

    async def open(self) -> None:
        self.path = f"/socket.io/1/{self.transport}/{await legacy_handshake(self)}?i=0"
        self.receiving = await self.connect()
        while "1::" not in await self.packets():
            pass

    async def packets(self) -> list[str]:
        if self.transport == "htmlfile":
            if not self._streaming:
                await self.receiving.start("GET", self.path)
                self._streaming = True
            piece = await self.receiving.read_chunk()
            if not piece:
                raise Ended("the page is over")
            return [json.loads(found) for found in _LEGACY_SCRIPT.findall(piece)]
        payload = await ask(self.receiving, "GET", self.path)
        if self.transport == "jsonp-polling":
            found = _LEGACY_JSONP.fullmatch(payload)
            if found is None:
                raise Ended(payload)
            payload = json.loads(found[1])
        if payload[:1] != _MARK:
            return [payload]
        return payload.split(_MARK)[2::2]

    def payload(self, packets: Sequence[str]) -> tuple[str, str, HeaderList]:
        joined = "".join(f"{_MARK}{len(packet)}{_MARK}{packet}" for packet in packets)
        body = joined if len(packets) > 1 else packets[0]
        if self.transport == "jsonp-polling":
            return self.path, "d=" + quote(json.dumps(body)), FORM
        return self.path, body, ()

    def posted(self, texts: Sequence[str]) -> tuple[str, str, HeaderList]:
        return self.payload(self.language.packets(texts))

    async def hear(self) -> Sequence[str]:
        texts = [text for packet in await self.packets() for text in self.language.texts(packet)]
        due, self.language.due = self.language.due, []
        if due:
            await self.post(*self.payload(due))
        return texts

    async def leave(self) -> None:
        await self.post(*self.payload(self.language.goodbye))


class PlainPolls(Requests):
    """Timed polling of plain clients."""

    def __init__(self, base: str) -> None:
        super().__init__(base, "/plain/poll")
        self.language = Plain()
        self.early: list[str] = []

    async def events(self, query: str) -> list[str]:
        facts = json.loads(await ask(self.polling, "GET", f"/plain/poll{query}"))
        if "closed" in facts:
            raise Ended(f"{facts['closed']}")
        self.sid, self.cursor = facts["sid"], facts["cursor"]
        return [json.dumps(event, separators=(",", ":")) for event in facts["events"]]

    async def open(self) -> None:
        self.polling = await self.connect()
        events = await self.events("")
        while not any(map(self.language.is_open, events)):
            events = await self.events(f"?sid={self.sid}&since={self.cursor}")
        self.early = [event for event in events if not self.language.is_open(event)]

    async def hear(self) -> Sequence[str]:
        events, self.early = self.early, []
        if not events:
            await asyncio.sleep(PLAIN_POLL_S)
            events = await self.events(f"?sid={self.sid}&since={self.cursor}")
        return [text for event in events for text in self.language.texts(event)]

    def posted(self, texts: Sequence[str]) -> tuple[str, str, HeaderList]:
        return f"/plain/emit?sid={self.sid}", f"[{','.join(self.language.packets(texts))}]", ()

    async def leave(self) -> None:
        await self.post(f"/plain/leave?sid={self.sid}", "")


def _sockjs_socket(base: str) -> Life:
    return Socket(base, f"/raw/000/{uuid.uuid4().hex}/websocket", SockJS())


def _engine_socket(version: int) -> Callable[[str], Life]:
    def make(base: str) -> Life:
        path = f"/socket.io/?EIO={version}&transport=websocket"
        return Socket(base, path, SocketIO() if version == 4 else SocketIO4())

    return make


def _named(kind: Callable[..., Life], *given: Any, **options: Any) -> Callable[[str], Life]:
    return lambda base: kind(base, *given, **options)


#: What a client is -> what makes a session of it.
KINDS: dict[str, Callable[[str], Life]] = {
    "SockJS websocket": _sockjs_socket,
    "SockJS raw websocket": _named(Socket, "/raw/websocket", Raw()),
    **{f"SockJS {name}": _named(SockJSRequests, name) for name in clients.HTTP},
    "Engine.IO 4 websocket": _engine_socket(4),
    "Engine.IO 4 polling": _named(EnginePolls, 4),
    "Engine.IO 4 upgrade": _named(EnginePolls, 4, upgrades=True),
    "Engine.IO 3 websocket": _engine_socket(3),
    "Engine.IO 3 polling": _named(EnginePolls, 3),
    "Engine.IO 3 upgrade": _named(EnginePolls, 3, upgrades=True),
    "Socket.IO 0.9 websocket": LegacySocket,
    **{f"Socket.IO 0.9 {name}": _named(LegacyRequests, name) for name in ("xhr-polling", "jsonp-polling", "htmlfile")},
    "plain websocket": _named(Socket, "/plain/websocket", Plain()),
    "plain polling": PlainPolls,
}
