"""socket.io-client of every generation under Node, unmodified, over every transport that it has there.

One Node process for each generation plays all scenarios of interop/socketio_client.js at once against one server with
interop/socketio_app.py; each test here is one scenario on one transport.  The browsers' turn is elsewhere.
"""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from interop.socketio_app import Lab, make_io
from support.clients import Client, quiet, until
from support.hub import WireClient, assert_no_ghosts
from support.rawhttp import Connection, WireSocket, request
from support.serving import serving
from support.socketio_node import PACKAGES, SOCKJS_TRANSPORTS, TRANSPORTS, node

__all__ = ["quiet"]

PROCESS_S = 120.0
STEP_S = 40.0

SCENARIOS = (
    "connect",
    "events",
    "messages",
    "acks",
    "server acks",
    "binary",
    "rooms",
    "turned away",
    "refused",
    "unknown namespace",
    "credentials",
    "leave",
    "leave all",
    "kicked",
    "kicked from all",
    "restart",
    "big",
    "burst",
)
CELLS = [
    (version, transport, scenario)
    for version, transports in TRANSPORTS.items()
    for transport in transports
    for scenario in SCENARIOS
    if (version, scenario) != ("0.9.17", "binary")
]


@dataclass
class Outcome:
    """What all the processes told."""

    cells: dict[tuple[str, str, str], dict[str, Any]]
    noise: list[str]
    """What a process said on its standard error, or the server logged."""


class Log(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


async def play(url: str, version: str, outcome: Outcome) -> None:
    async with node(url, version) as process:
        output, errors = await asyncio.wait_for(process.communicate(), PROCESS_S)
    for line in output.splitlines():
        cell = json.loads(line)
        outcome.cells[version, cell["transport"], cell["scenario"]] = cell
    if errors or process.returncode:
        outcome.noise.append(f"{version} ended with {process.returncode}: {errors.decode()}")


async def play_all() -> Outcome:
    outcome = Outcome({}, [])
    async with Lab() as lab:
        await asyncio.gather(*(play(lab.url, version, outcome) for version in PACKAGES))
        io = lab.main.io
        assert io is not None
        await lab.main.stop()
        await until(lambda: not any(len(namespace.hub) for namespace in io.namespaces.values()))
        assert_no_ghosts(io)
    return outcome


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    log = Log()
    logging.getLogger().addHandler(log)
    try:
        result = asyncio.run(play_all())
    finally:
        logging.getLogger().removeHandler(log)
    result.noise += log.lines
    return result


@pytest.mark.parametrize(("version", "transport", "scenario"), CELLS)
def test_scenario(outcome: Outcome, version: str, transport: str, scenario: str) -> None:
    cell = outcome.cells.get((version, transport, scenario))
    assert cell is not None, outcome.noise
    assert not cell["error"], cell["error"]


def test_nothing_else_was_said(outcome: Outcome) -> None:
    assert set(outcome.cells) == set(CELLS)
    assert outcome.noise == []


REASONS = {
    "leave": {"reason": "client namespace disconnect"},
    "kicked": {"reason": "server namespace disconnect"},
    "kicked from all": {"reasons": ["server namespace disconnect"] * 2},
}


@pytest.mark.parametrize("version", PACKAGES)
def test_the_server_knows_why_they_left(outcome: Outcome, version: str) -> None:
    for transport in TRANSPORTS[version]:
        for scenario, saw in REASONS.items():
            assert outcome.cells[version, transport, scenario]["saw"] == saw
        reasons = outcome.cells[version, transport, "leave all"]["saw"]["reasons"]
        assert set(reasons) <= {"client namespace disconnect", "transport close"}


ROOM = "everybody"
NEWS = ["\u00e9\u20ac\U0001f600\u2028", {"n": [1, None]}]


async def test_one_room_with_a_member_of_every_generation_and_every_other_kind() -> None:
    io = make_io()
    io.sockets.allow_feed(ROOM)
    async with serving(io.routes()) as base, AsyncExitStack() as stack:
        process = await stack.enter_async_context(node(base, "room", ROOM))
        assert process.stdin is not None
        assert process.stdout is not None
        raw = await stack.enter_async_context(Client(base, "rawwebsocket", "/polysock"))
        wire = await (await WireClient(raw).open()).connect()
        stack.push_async_callback(wire.vanish)
        await wire.call("join", ROOM)
        plain = await stack.enter_async_context(await WireSocket.connect(base, "/plain/websocket"))
        assert json.loads(await plain.recv_text())[0] == "#connect"
        await plain.send_text(json.dumps([1, "join", ROOM]))
        assert json.loads(await plain.recv_text()) == ["#ack", 1]
        poll = json.loads((await request(base, "GET", "/plain/poll")).text)
        here = f"sid={poll['sid']}"
        await request(base, "POST", f"/plain/emit?{here}", body=json.dumps(["join", ROOM]).encode())
        feed = await Connection.open(base)
        stack.callback(feed.abort)
        await feed.start("GET", f"/plain/events?room={ROOM}")
        for _ in ("retry", "hello"):
            await feed.read_until(b"\n\n")
        assert (await asyncio.wait_for(process.stdout.readline(), PROCESS_S)) == b"ready\n"
        nodes = sum(map(len, TRANSPORTS.values())) + len(SOCKJS_TRANSPORTS)
        assert len(io.sockets.clients(ROOM)) == nodes + 3

        assert io.to(ROOM).emit("news", *NEWS) == nodes + 4

        process.stdin.write(b"report\n")
        got = json.loads(await asyncio.wait_for(process.stdout.readline(), STEP_S))
        assert len(got) == nodes
        assert got == {name: [NEWS] for name in got}
        await asyncio.wait_for(process.wait(), STEP_S)
        assert await wire.take() == [("news", *NEWS)]
        io.to(ROOM).emit("end")
        events = [["news", *NEWS], ["end"]]
        assert [json.loads(await plain.recv_text()) for _ in events] == events
        answer = await request(base, "GET", f"/plain/poll?{here}&since={poll['cursor']}")
        assert json.loads(answer.text)["events"] == events
        for event in events:
            lines = (await feed.read_until(b"\n\n")).decode().split("\n")
            assert [json.loads(line[6:]) for line in lines if line.startswith("data: ")] == [event]
        io.close()
