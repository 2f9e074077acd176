"""The raw endpoint against the WebSocket libraries that people use, each with its own idea of the RFC's loose ends.

Drives `tests/interop/server.py` from outside; knows nothing of how it is made. Libraries that live in Node are driven
by interop/websocket_client.js. The whole of the RFC is Autobahn's business (autobahn/README.md).
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import websocket
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from support.needs import need, need_npm, need_program

pytest_plugins = ["support.interop"]

HERE = Path(__file__).resolve().parent
NODE_CLIENT = HERE / "interop" / "websocket_client.js"
PEERS = HERE / "interop" / ".peers"
PYWEBSOCKET3 = PEERS / "pywebsocket3-4.0.2"
SECONDS = 20.0

TEXTS = ["hello", "", "gr\u00fc\u00df \u20ac \U0001f600 \u2028 \ufffe\uffff", "x" * 100_000]
BINARY = [b"", bytes(range(256)), b"\x00\xff" * 50_000]


@dataclass(frozen=True)
class Plan:
    """Offer `protocols`, send all of `send`, wait for as many messages; then close, or wait to be closed."""

    send: list[str | bytes] = field(default_factory=list)
    close: tuple[int, str] | None = None
    protocols: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Outcome:
    """What the library made of it; `close` is the close frame it received (some libraries drop its reason)."""

    messages: list[str | bytes]
    close: tuple[int, str] | None
    protocol: str | None = None
    extensions: str = ""
    error: str | None = None


Client = Callable[[str, Plan], Outcome]


def in_node(library: str) -> Client:
    def converse(url: str, plan: Plan) -> Outcome:
        node = need_program("node", "nodejs", how="install Node.js (Debian: nodejs)")
        modules = need_npm(library).parents[1]
        send = [
            {"text": message} if isinstance(message, str) else {"binary": base64.b64encode(message).decode()}
            for message in plan.send
        ]
        wanted = json.dumps({"protocols": plan.protocols, "send": send, "close": plan.close})
        # On standard input, because Linux limits a single argument of a program to 128 KiB.
        run = subprocess.run(
            [node, NODE_CLIENT, library, url],
            input=wanted,
            env={**os.environ, "NODE_PATH": str(modules)},
            capture_output=True,
            encoding="utf-8",
            timeout=SECONDS,
            check=False,
        )
        assert run.returncode == 0, run.stderr
        told = json.loads(run.stdout)
        messages = [
            base64.b64decode(message["binary"]) if "binary" in message else message["text"]
            for message in told["messages"]
        ]
        close = tuple(told["close"]) if told["close"] else None
        return Outcome(messages, close, told["protocol"], told["extensions"], told["error"])

    return converse


def websockets_client(url: str, plan: Plan) -> Outcome:
    """PyPI websockets. It offers compression, unlike the others here but `ws`."""
    messages: list[str | bytes] = []
    with connect(url, subprotocols=plan.protocols or None, open_timeout=SECONDS, max_size=None) as socket:
        extensions = ", ".join(extension.name for extension in socket.protocol.extensions)
        for message in plan.send:
            socket.send(message)
            messages.append(socket.recv(timeout=SECONDS))
        if plan.close:
            socket.close(*plan.close)
        else:
            with pytest.raises(ConnectionClosed):
                socket.recv(timeout=SECONDS)
        received = socket.protocol.close_rcvd
    close = (int(received.code), received.reason) if received else None
    return Outcome(messages, close, socket.subprotocol, extensions)


def websocket_client(url: str, plan: Plan) -> Outcome:
    """PyPI websocket-client. Its close() swallows the answer, so the close frames are handled one level below."""
    try:
        socket = websocket.create_connection(url, timeout=SECONDS, subprotocols=plan.protocols or None)
    except websocket.WebSocketException as error:
        return Outcome([], None, error=str(error))
    try:
        messages: list[str | bytes] = []
        for message in plan.send:
            if isinstance(message, str):
                socket.send(message)
            else:
                socket.send_binary(message)
            messages.append(socket.recv())
        if plan.close:
            socket.send_close(plan.close[0], plan.close[1].encode())
        frame = socket.recv_frame()
        assert frame.opcode == websocket.ABNF.OPCODE_CLOSE
        close = (int.from_bytes(frame.data[:2], "big"), frame.data[2:].decode())
        return Outcome(messages, close, socket.getsubprotocol())
    finally:
        socket.shutdown()


CLIENTS = {
    "ws": in_node("ws"),
    "websocket-node": in_node("websocket"),
    "websockets": websockets_client,
    "websocket-client": websocket_client,
}
# The RFC leaves it to the client whether an offer that was passed over is an error.
CONTENT_WITHOUT_SUBPROTOCOL = {"websockets"}


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> Client:
    return CLIENTS[request.param]


@pytest.fixture(scope="session")
def ws_url(interop_url: str) -> str:
    return interop_url.replace("http", "ws", 1)


def test_echoes_text(client: Client, ws_url: str) -> None:
    outcome = client(f"{ws_url}/echo/websocket", Plan(send=[*TEXTS], close=(1000, "")))
    assert outcome.error is None
    assert outcome.messages == TEXTS


def test_echoes_binary_as_binary(client: Client, ws_url: str) -> None:
    outcome = client(f"{ws_url}/echo/websocket", Plan(send=[*BINARY], close=(1000, "")))
    assert outcome.error is None
    assert outcome.messages == BINARY


def test_server_closes_with_code_and_reason(client: Client, ws_url: str) -> None:
    outcome = client(f"{ws_url}/close/websocket", Plan())
    assert outcome.error is None
    assert outcome.close == (3000, "Go away!")


def test_server_answers_the_clients_close_with_its_code(client: Client, ws_url: str) -> None:
    outcome = client(f"{ws_url}/echo/websocket", Plan(send=["hello"], close=(3001, "bye")))
    assert outcome.error is None
    assert outcome.messages == ["hello"]
    assert outcome.close is not None
    assert outcome.close[0] == 3001
    # The RFC lets the answer repeat the reason or leave it out.
    assert outcome.close[1] in ("bye", "")


def test_server_selects_one_subprotocol(client: Client, ws_url: str) -> None:
    offer = ["first.example", "second.example"]
    outcome = client(f"{ws_url}/subprotocol/websocket", Plan(send=["hello"], close=(1000, ""), protocols=offer))
    assert outcome.error is None
    assert outcome.protocol == "first.example"
    assert outcome.messages == ["hello"]


@pytest.mark.parametrize("name", CLIENTS)
def test_an_offer_that_the_endpoint_does_not_know_is_left_unanswered(name: str, ws_url: str) -> None:
    plan = Plan(send=["hello"], close=(1000, ""), protocols=["unknown.example"])
    outcome = CLIENTS[name](f"{ws_url}/echo/websocket", plan)
    assert outcome.protocol is None
    if name in CONTENT_WITHOUT_SUBPROTOCOL:
        assert outcome.messages == ["hello"]
    else:
        assert outcome.error
        assert outcome.messages == []


@pytest.mark.parametrize("name", ["ws", "websockets"])
def test_compression_is_off_unless_asked_for(name: str, ws_url: str) -> None:
    plan = Plan(send=[*TEXTS, *BINARY], close=(1000, ""))
    plain = CLIENTS[name](f"{ws_url}/echo/websocket", plan)
    compressed = CLIENTS[name](f"{ws_url}/autobahn/websocket", plan)
    assert plain.extensions == ""
    assert "permessage-deflate" in compressed.extensions
    assert plain.messages == compressed.messages == plan.send


def test_pings_are_answered_in_order(ws_url: str) -> None:
    with connect(f"{ws_url}/echo/websocket", open_timeout=SECONDS) as socket:
        answers = [socket.ping(payload) for payload in (b"", b"one", b"x" * 125)]
        assert all(answer.wait(SECONDS) for answer in answers)
        socket.send("still there")
        assert socket.recv(timeout=SECONDS) == "still there"


class TestPywebsocket3:
    """Google's pywebsocket3: the example client of its source release."""

    def run(self, ws_url: str, path: str, *options: str) -> subprocess.CompletedProcess[str]:
        client = need(
            PYWEBSOCKET3 / "example" / "echo_client.py",
            "pywebsocket3's example client",
            "make test, or python tests/interop/fetch_pywebsocket3.py",
        )
        where = urlsplit(ws_url)
        origin = f"http://{where.netloc}"
        command = [sys.executable, client, "-s", where.hostname, "-p", str(where.port), "-o", origin, "-r", path]
        return subprocess.run(
            [*command, *options],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(map(str, (PYWEBSOCKET3, PEERS / "libraries"))),
                "PYTHONIOENCODING": "utf-8",
            },
            capture_output=True,
            encoding="utf-8",
            timeout=SECONDS,
            check=False,
        )

    @pytest.mark.parametrize(
        ("path", "options"),
        [("/echo/websocket", []), ("/autobahn/websocket", ["--use-permessage-deflate"])],
        ids=["plain", "compressed"],
    )
    def test_echo(self, ws_url: str, path: str, options: list[str]) -> None:
        messages = ["hello", "gr\u00fc\u00df \u20ac \U0001f600", "x" * 100_000]
        done = self.run(ws_url, path, *options, "-m", ",".join(messages))
        assert done.returncode == 0, done.stderr
        expected = [line for message in messages for line in (f"Send: {message}", f"Recv: {message}")]
        assert done.stdout.splitlines() == [*expected, "Send close", "Recv ack"]

    def test_close_by_the_server(self, ws_url: str) -> None:
        # The client has no words for a close it did not ask for: it shows the missing message and stumbles on.
        done = self.run(ws_url, "/close/websocket", "-m", "hello,again")
        assert done.stdout.splitlines() == ["Send: hello", "Recv: None"]
        assert "after sending out a closing handshake" in done.stderr


class TestLibwebsockets:
    """The C library's test client. It always offers a subprotocol, and runs until it is stopped."""

    # Log levels of libwebsockets: errors, warnings and notices, with info, with debug.
    INFO, DEBUG = "15", "31"
    RECEIVED = re.compile(r"bulk ws rx: inp used (\d+), output (\d+)")

    @contextmanager
    def running(self, url: str, *options: str) -> Iterator[Iterator[str]]:
        program = need_program("libwebsockets-test-client", how="apt-get install libwebsockets-test-server")
        process = subprocess.Popen(
            [program, url, *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
        )
        assert process.stderr
        deadline = threading.Timer(SECONDS, process.kill)
        deadline.start()
        try:
            yield iter(process.stderr)
        finally:
            deadline.cancel()
            process.kill()
            process.wait(SECONDS)
            process.stderr.close()

    @pytest.mark.parametrize("path", ["/subprotocol/websocket", "/autobahn/websocket"])
    def test_echo(self, ws_url: str, path: str) -> None:
        with self.running(ws_url + path, "--justmirror", "--debug", self.DEBUG) as lines:
            echoes = 0
            for line in lines:
                assert "CLIENT_CONNECTION_ERROR" not in line
                assert "LWS_CALLBACK_CLOSED" not in line
                echoes += bool(self.RECEIVED.search(line))
                if echoes == 100:
                    break
        assert echoes == 100

    def test_text_from_the_server(self, ws_url: str) -> None:
        with self.running(f"{ws_url}/ticker/websocket", "--nomirror", "--debug", self.INFO) as lines:
            assert next((line for line in lines if re.search(r"I: rx \d+ '", line)), None)

    def test_close_by_the_server(self, ws_url: str) -> None:
        with self.running(f"{ws_url}/close/websocket", "--justmirror", "--once", "--debug", self.INFO) as lines:
            told = "".join(lines)
        assert "scheduling return close as ack" in told
        assert "mirror: LWS_CALLBACK_CLOSED" in told
        assert "CLIENT_CONNECTION_ERROR" not in told
