"""The Flash policy port: one question has an answer, everything else gets none, and nobody holds it up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any
from xml.etree import ElementTree

import pytest

from polysock import Server
from polysock.settings import SettingError
from polysock_transports.errors import StateError
from polysock_transports.flashpolicy import FLASH_POLICY_PORT, FlashPolicyServer, flash_policy
from polysock_transports.limits import Limits
from support.clients import (
    quiet,  # noqa: F401  # autouse: nothing here logs unannounced
    until,
)
from support.clock import FakeClock

EDGES_OF_LIMITS = ("flash_policy_timeout_s", "max_flash_policy_connections")

QUESTION = b"<policy-file-request/>\0"
#: As a server 0.9.19 sent it, without a NUL after it.
ANSWER = (
    b'<?xml version="1.0"?>'
    b'<!DOCTYPE cross-domain-policy SYSTEM "http://www.macromedia.com/xml/dtds/cross-domain-policy.dtd">'
    b'<cross-domain-policy><allow-access-from domain="*" to-ports="*"/></cross-domain-policy>'
)
LOOPBACK = "127.0.0.1"
TIMEOUT_S = 30
#: More than the kernels of both sides hold for a connection.
MANY_DOMAINS = [f"{number}.{'x' * 200}.example.com" for number in range(60_000)]


class Visitor:
    """One connection to the port."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def at(cls, server: FlashPolicyServer) -> Visitor:
        return cls(*await asyncio.open_connection(LOOPBACK, server.port))

    async def rest(self) -> bytes:
        """All that comes until the server ends it."""
        got = b""
        with suppress(ConnectionError):
            while piece := await asyncio.wait_for(self.reader.read(1 << 16), TIMEOUT_S):
                got += piece
        self.writer.close()
        return got

    async def ask(self, *pieces: bytes) -> bytes:
        with suppress(ConnectionError):
            for piece in pieces:
                self.writer.write(piece)
                await self.writer.drain()
                await asyncio.sleep(0)
        return await self.rest()


@asynccontextmanager
async def listening(
    ports: Any = "*", domains: Iterable[str] = ("*",), **options: Any
) -> AsyncIterator[FlashPolicyServer]:
    server = FlashPolicyServer(ports, domains, **options)
    await server.start(0, LOOPBACK)
    try:
        yield server
    finally:
        server.close()
        await until(lambda: not server.visits)


# -- what it says


@pytest.mark.parametrize("pieces", [[QUESTION], [QUESTION[:1], QUESTION[1:]], [bytes([byte]) for byte in QUESTION]])
async def test_the_question_is_answered_as_by_the_original_and_the_connection_ended(pieces: list[bytes]) -> None:
    async with listening() as server:
        assert await (await Visitor.at(server)).ask(*pieces) == ANSWER


HOSTILE = [
    b"\0",
    b"<",
    QUESTION[:-1] + b" ",
    QUESTION.replace(b"/", b" /"),
    QUESTION.upper(),
    b"\xef\xbb\xbf" + QUESTION,
    QUESTION + QUESTION,
    QUESTION + b"x",
    b"<cross-domain-request/>\0",
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),
    b"<policy-file-request" + b"x" * 1_000_000,
    b"\xff" * 100_000,
]


async def test_anything_else_gets_nothing_and_is_cut() -> None:
    async with listening() as server:
        for said in HOSTILE:
            visitor = await Visitor.at(server)
            # A part of the question is waited for, until the visitor says that this was all.
            visitor.writer.write(said)
            if QUESTION.startswith(said):
                visitor.writer.write_eof()
            assert await visitor.rest() == b"", said
        assert await (await Visitor.at(server)).ask(QUESTION) == ANSWER


async def test_who_goes_away_leaves_nothing_behind() -> None:
    clock = FakeClock()
    async with listening(clock=clock) as server:
        for said in (b"", QUESTION[:5]):
            visitor = await Visitor.at(server)
            visitor.writer.write(said)
            await until(lambda: server.visits)
            visitor.writer.transport.abort()
            await until(lambda: not server.visits)
        assert clock.timers == 0


# -- how long, how many


@pytest.mark.parametrize("said", [b"", QUESTION[:-1]])
async def test_a_slow_question_is_cut(said: bytes) -> None:
    clock = FakeClock()
    async with listening(clock=clock, limits=Limits(flash_policy_timeout_s=3)) as server:
        visitor = await Visitor.at(server)
        visitor.writer.write(said)
        await until(lambda: server.visits)
        clock.advance(2.99)
        (visit,) = server.visits
        assert not visit.transport.is_closing()
        clock.advance(0.02)
        assert await visitor.rest() == b""
        await until(lambda: not server.visits)


async def test_an_answer_that_is_not_read_is_cut() -> None:
    clock = FakeClock()
    async with listening([80], MANY_DOMAINS, clock=clock, limits=Limits(flash_policy_timeout_s=3)) as server:
        visitor = await Visitor.at(server)
        visitor.writer.write(QUESTION)
        await until(lambda: any(visit.transport.is_closing() for visit in server.visits))
        clock.advance(2.99)
        assert server.visits
        clock.advance(0.02)
        await until(lambda: not server.visits)
        assert len(await visitor.rest()) < len(server.policy)


async def test_one_more_than_there_may_be_is_closed_at_once() -> None:
    async with listening(limits=Limits(max_flash_policy_connections=2)) as server:
        one, two = await Visitor.at(server), await Visitor.at(server)
        await until(lambda: len(server.visits) == 2)
        assert await (await Visitor.at(server)).rest() == b""
        assert len(server.visits) == 2
        assert await one.ask(QUESTION) == ANSWER
        await until(lambda: len(server.visits) == 1)
        assert await (await Visitor.at(server)).ask(QUESTION) == ANSWER
        assert await two.ask(QUESTION) == ANSWER


async def test_close_cuts_everything_and_may_be_called_again() -> None:
    async with listening() as server:
        visitor = await Visitor.at(server)
        await until(lambda: server.visits)
        server.close()
        server.close()
        assert await visitor.rest() == b""
        with pytest.raises(ConnectionRefusedError):
            await Visitor.at(server)
        with pytest.raises(StateError):
            await server.start(0, LOOPBACK)


async def test_it_starts_once_and_says_when_the_port_is_taken() -> None:
    async with listening() as server:
        with pytest.raises(StateError):
            await server.start(0, LOOPBACK)
        with pytest.raises(OSError, match=str(server.port)):
            await FlashPolicyServer("*", ["*"]).start(server.port, LOOPBACK)


async def test_closed_while_it_was_starting() -> None:
    server = FlashPolicyServer("*", ["*"])
    starting = asyncio.ensure_future(server.start(0, LOOPBACK))
    await asyncio.sleep(0)
    server.close()
    with pytest.raises(StateError):
        await starting


# -- the policy


def test_domains_and_ports() -> None:
    policy = flash_policy([80, 8080], ["chat.example.com", "*.example.org", "127.0.0.1"])
    allowed = ElementTree.fromstring(policy)
    assert [element.attrib for element in allowed] == [
        {"domain": domain, "to-ports": "80,8080"} for domain in ("chat.example.com", "*.example.org", "127.0.0.1")
    ]
    assert flash_policy("*", "*") == flash_policy("*", ["*"]) == ANSWER
    assert flash_policy("*", "example.com") == flash_policy("*", ["example.com"])


@pytest.mark.parametrize(
    "domains",
    [
        *([], "", [""], ["a b"], ['a"/><b'], ["https://a.example"], ["a.example:80"], ["a\n"], ["*.*"], ["a*"]),
        *(["\u00e9.fr"], ["x" * 254], [None], ["a", 1]),
    ],
    ids=repr,
)
def test_a_domain_that_is_none_is_an_error(domains: Any) -> None:
    with pytest.raises(ValueError, match="domain"):
        flash_policy("*", domains)


@pytest.mark.parametrize("ports", [[], [0], [65536], [True], ["80"], "80", "", [80.0]], ids=repr)
def test_a_port_that_is_none_is_an_error(ports: Any) -> None:
    with pytest.raises(ValueError, match="ports must be"):
        flash_policy(ports, ["*"])


# -- Server.serve_flash_policy


async def test_a_server_with_origins_for_all_needs_no_domains() -> None:
    for origins in ("*", ["https://a.example", "*"]):
        io = Server(origins=origins)
        policy = await io.serve_flash_policy(0, LOOPBACK)
        visitor = await Visitor.at(policy)
        assert await visitor.ask(QUESTION) == ANSWER
        io.close()
        with pytest.raises(ConnectionRefusedError):
            await Visitor.at(policy)


@pytest.mark.parametrize("origins", [(), ["https://a.example"], lambda origin: True, ["null"]])
async def test_any_other_server_asks_for_them(origins: Any) -> None:
    io = Server(origins=origins)
    with pytest.raises(SettingError, match=r"serve_flash_policy needs domains=\[...\]"):
        await io.serve_flash_policy(0, LOOPBACK)
    policy = await io.serve_flash_policy(0, LOOPBACK, domains=["a.example"], ports=[8080])
    answer = await (await Visitor.at(policy)).ask(QUESTION)
    assert answer == ANSWER.replace(b'domain="*" to-ports="*"', b'domain="a.example" to-ports="8080"')
    policy.close()
    io.close()


async def test_mistakes_are_setting_errors_and_leave_nothing_behind() -> None:
    io = Server(origins="*")
    with pytest.raises(SettingError, match="not a domain"):
        await io.serve_flash_policy(0, LOOPBACK, domains=["http://a.example"])
    with pytest.raises(SettingError, match="ports must be"):
        await io.serve_flash_policy(0, LOOPBACK, ports=[])
    policy = await io.serve_flash_policy(0, LOOPBACK)
    with pytest.raises(OSError, match=str(policy.port)):
        await io.serve_flash_policy(policy.port, LOOPBACK)
    assert io._flash_policies == [policy]
    io.close()


async def test_the_servers_limits_and_clock_count() -> None:
    clock = FakeClock()
    io = Server(origins="*", clock=clock, flash_policy_timeout_s=7, max_flash_policy_connections=1)
    policy = await io.serve_flash_policy(0, LOOPBACK)
    visitor = await Visitor.at(policy)
    await until(lambda: policy.visits)
    assert await (await Visitor.at(policy)).rest() == b""
    clock.advance(7)
    assert await visitor.rest() == b""
    io.close()


def test_the_options_of_the_original_say_what_to_call() -> None:
    io = Server()
    for name, value in (("flash policy server", True), ("flash policy port", FLASH_POLICY_PORT)):
        with pytest.warns(UserWarning, match="serve_flash_policy"):
            io.set(name, value)
        assert io.get(name) == value
    assert FLASH_POLICY_PORT == 10843
