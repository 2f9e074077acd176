"""docs/server-api.md, held against the code: every example runs, every row has one, and the server answers as shown."""

from __future__ import annotations

import ast
import inspect
import os
import re
import socket
import subprocess
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import websocket

import polysock
from polysock import peer, server

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE = DOCS / "server-api.md"
PROGRAM = DOCS / "examples" / "hub_server.py"
START_S = 20
ANSWER_S = 10
POLL_S = 0.05
# Between picking a free port and listening on it, another program may take it.
PORT_TRIES = 3

PARTS = re.split(r"^(?=##+ )", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
SECTIONS = {part.partition("\n")[0].strip("# "): part for part in PARTS[1:]}


def fences(section: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", SECTIONS[section], re.MULTILINE | re.DOTALL)


def anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


(PREAMBLE,) = fences("How to read the examples", "py")
EXAMPLES = {name: code for name in SECTIONS for code in fences(name, "py") if code != PREAMBLE}
#: Where a handler fails on purpose, or a client misbehaves: what the log then says.
ANNOUNCED = {
    "Rooms": ["the handler of 'join' failed"],
    "Errors in handlers": ["the handler of 'divide' failed"] * 2,
    "What a client's mistakes do": ["closing the connection of 127.0.0.1: An event needs a name that is not reserved."],
}


async def run(code: str, name: str) -> dict[str, Any]:
    """Run *code*, which may ``await`` outside functions, in a module of its own."""
    module = types.ModuleType("example").__dict__
    for part in (PREAMBLE, code):
        compiled = compile(part, f"{PAGE.name}: {name}", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        result = eval(compiled, module)
        if inspect.iscoroutine(result):
            await result
    return module


@pytest.mark.parametrize("name", EXAMPLES)
async def test_example(name: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYSOCK_ENV", "development")
    module = await run(EXAMPLES[name], name)
    for test in [value for key, value in module.items() if key.startswith("test_")]:
        result = test()
        if inspect.iscoroutine(result):
            await result
    said = [record.getMessage() for record in caplog.records if record.levelname not in ("DEBUG", "INFO")]
    wanted = ANNOUNCED.get(name, [])
    assert len(said) == len(wanted), said
    assert all(text.startswith(start) for text, start in zip(said, wanted, strict=True)), said
    io = module.get("io")
    for namespace in io.namespaces.values() if io is not None else ():
        namespace.hub.check()


@pytest.mark.parametrize("heading", ["The calls of Socket.IO", "Beyond the original"])
def test_every_row_has_an_example(heading: str) -> None:
    rows = [line for line in SECTIONS[heading].splitlines() if line.startswith("| ") and "---" not in line][1:]
    assert len(rows) >= 8
    with_example = {anchor(name) for name in EXAMPLES}
    for row in rows:
        links = re.findall(r"\]\(#([\w-]+)\)", row)
        assert links, row
        assert set(links) <= with_example, row


def test_every_setting_of_a_server_is_documented_with_its_default() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `([\d.]+)` \|", SECTIONS["Settings of the Server"], re.MULTILINE)
    assert {name: ast.literal_eval(default) for name, default in rows} == server._OWN_SETTINGS
    io = polysock.Server()
    assert {name: str(io.get(name)) for name, _ in rows} == dict(rows)


def test_every_option_of_the_original_with_a_meaning_is_documented() -> None:
    rows = dict(re.findall(r"^\| `([a-z ]+)` \| `?(\w*)", SECTIONS["Options"], re.MULTILINE))
    assert {*server._OPTIONS, "log level", "authorization"} == rows.keys()
    assert {name: rows[name] for name in server._OPTIONS if name != "transports"} == {
        name: setting for name, setting in server._OPTIONS.items() if name != "transports"
    }


def test_every_reason_for_a_disconnect_is_documented() -> None:
    rows = re.findall(r"^\| `([a-z ]+)` \|", SECTIONS["Reasons for a disconnect"], re.MULTILINE)
    of_the_code = {
        *peer._REASONS.values(),
        "transport close",
        "client namespace disconnect",
        "server namespace disconnect",
    }
    assert set(rows) == of_the_code
    assert len(rows) == len(of_the_code)


# -- the server at the top of the page


def test_the_server_shown_is_the_file() -> None:
    assert fences("A server", "python") == [PROGRAM.read_text(encoding="utf-8")]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running_program() -> Iterator[str]:
    """The program, run as a reader would; yields the address of its raw WebSocket."""
    for _ in range(PORT_TRIES):
        port = free_port()
        with subprocess.Popen([sys.executable, str(PROGRAM)], env={**os.environ, "PORT": str(port)}) as process:
            try:
                if listens(process, port):
                    yield f"ws://127.0.0.1:{port}/polysock/websocket"
                    return
            finally:
                process.kill()
    pytest.fail("the program did not start")


def listens(process: subprocess.Popen[bytes], port: int) -> bool:
    for _ in range(int(START_S / POLL_S)):
        try:
            socket.create_connection(("127.0.0.1", port), ANSWER_S).close()
            return True
        except ConnectionRefusedError:
            try:
                process.wait(POLL_S)
                return False
            except subprocess.TimeoutExpired:
                pass
    return False


def test_a_bare_websocket_talks_to_the_server() -> None:
    with running_program() as url:
        ann, bob = (websocket.create_connection(url, timeout=ANSWER_S) for _ in range(2))
        ids = []
        for client in (ann, bob):
            client.send("0")
            ids.append(re.fullmatch(r'0\{"sid":"([\w-]+)","maxMessage":1000000\}', client.recv())[1])  # type: ignore[index, arg-type]
        assert len(set(ids)) == 2
        ann.send('27["say","hello"]')
        said = f'2["said","{ids[0]}","hello"]'
        assert [ann.recv(), ann.recv()] == [said, "37[2]"]
        assert bob.recv() == said
        bob.close()
        ann.send('28["shout","hello"]')
        assert ann.recv() == '38[{"error":"No handler for this event"}]'
        ann.close()
