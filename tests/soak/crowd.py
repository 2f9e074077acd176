"""Clients that come, talk, and go in every way; each counts what it says and hears."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from contextlib import suppress

from clients import KINDS, Ended, Life, reset
from ledger import Counting, Lost

from support.rawhttp import Connection, HandshakeRefused, SocketClosed, WireError

__all__ = ["Crowd"]

#: What the end of a connection looks like to a client.
BROKEN = (Ended, HandshakeRefused, SocketClosed, WireError, OSError, EOFError, AssertionError, ValueError)
#: Seconds that a client talks at most, between two of its messages on average and at most, and between two sessions.
LIFE_S, PAUSE_S, MAX_PAUSE_S, REST_S = 40.0, 3.0, 4.0, 2.0
#: Seconds in which an answer, or a heartbeat, or a broadcast must come on a busy machine.
PATIENCE_S = 60.0
LOOK_S = 1.0
MAX_MESSAGES_AT_ONCE = 3
#: Most messages are short; some are more than one read.
LENGTHS = (0, 0, 0, 10, 60, 60, 1000, 30_000)
RESETS = 0.4
MAX_KEPT = 20

#: How a client breaks off before its session is open, and after.
EARLY = ("connected", "half a request", "a request unanswered", "a request and half-closed")
LATE = ("idle", "half a message", "a message unanswered", "a goodbye unread", "half-closed", "closed without a word")


class Client:
    """One client, from session to session."""

    def __init__(self, crowd: Crowd, kind: str) -> None:
        self.crowd = crowd
        self.kind = kind
        self.heard_at = 0.0
        """When it last was well; 0 while nothing is due."""
        self.said = 0
        self.answered = asyncio.Event()

    async def run(self) -> None:
        chance = self.crowd.chance
        await self.crowd.rest()
        while not self.crowd.is_over:
            life = KINDS[self.kind](self.crowd.base)
            try:
                if chance.random() < RESETS / 2:
                    await self._break_off_early(life, chance.choice(EARLY))
                else:
                    await self._live(life)
            except (Lost, *BROKEN) as error:
                self.crowd.note(f"{self.kind}: {type(error).__name__}: {error}")
            finally:
                self.heard_at = 0.0
                life.close()
            await self.crowd.rest()

    async def _break_off_early(self, life: Life, how: str) -> None:
        self.crowd.resets[f"before: {how}"] += 1
        connection = await life.connect()
        request = life.greeting()
        if how != "connected":
            await connection.write(request[: len(request) // 2] if how == "half a request" else request)
        if how == "a request and half-closed":
            await self._half_close(connection)
        else:
            if self.crowd.chance.random() < 0.5:
                await asyncio.sleep(self.crowd.chance.uniform(0, 0.1))
            reset(connection)

    async def _half_close(self, connection: Connection) -> None:
        """End our half, and wait for the server to end its own."""
        self.heard_at = time.monotonic()
        with suppress(OSError):
            connection.writer.write_eof()
            while await connection.reader.read(65536):
                pass

    async def _live(self, life: Life) -> None:
        """One session: open, talk, wait for the answers, and go."""
        crowd, chance = self.crowd, self.crowd.chance
        self.heard_at = time.monotonic()
        await life.open()
        crowd.opened += 1
        self.said = 0
        hearing = asyncio.ensure_future(self._hear(life))
        try:
            until = time.monotonic() + chance.uniform(1, LIFE_S)
            while time.monotonic() < until and not crowd.is_over:
                # A goodbye that nobody has asked for ends this too.
                pause = crowd.no_longer(min(chance.expovariate(1 / PAUSE_S), MAX_PAUSE_S))
                await asyncio.wait((hearing,), timeout=pause)
                if hearing.done():
                    return hearing.result()
                await self._say(life)
            if chance.random() < RESETS:
                await self._break_off(life, hearing, chance.choice(LATE))
                return None
            while self.said and not (self.answered.is_set() or hearing.done()):
                waiting = asyncio.ensure_future(self.answered.wait())
                await asyncio.wait((hearing, waiting), return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
            if hearing.done():
                return hearing.result()
            await life.leave()
            if life.is_answered:
                with suppress(*BROKEN):
                    await hearing
            crowd.left += 1
        finally:
            hearing.cancel()
            with suppress(asyncio.CancelledError, *BROKEN):
                await hearing

    async def _say(self, life: Life) -> None:
        chance = self.crowd.chance
        texts = []
        for _ in range(chance.randint(1, MAX_MESSAGES_AT_ONCE)):
            self.said += 1
            texts.append(f"{self.said} {'x' * chance.choice(LENGTHS)}")
        self.answered.clear()
        await life.say(texts)
        self.crowd.said += len(texts)

    async def _hear(self, life: Life) -> None:
        """Count what comes: answers, each with a number of the server's and the number of what it answers, and
        broadcasts, which a client hears from some number on."""
        crowd = self.crowd
        given, answers, ticks = Counting("answer"), Counting("answer to"), Counting("broadcast", None)
        while True:
            texts = await life.hear()
            self.heard_at = time.monotonic()
            for text in texts:
                first, _, second = text.partition(" ")
                if first == "*":
                    ticks.take(int(second))
                    crowd.broadcasts += 1
                else:
                    given.take(int(first))
                    answers.take(int(second))
                    crowd.heard += 1
                    if answers.last == self.said:
                        self.answered.set()

    async def _break_off(self, life: Life, hearing: asyncio.Future[None], how: str) -> None:
        self.crowd.resets[f"after: {how}"] += 1
        self.said += 1
        if how in ("half a message", "a message unanswered"):
            connection, data = await life.begin(f"{self.said} {'x' * 50}")
            await connection.write(data[: len(data) // 2] if how == "half a message" else data)
        elif how == "a goodbye unread":
            with suppress(*BROKEN):
                await life.leave()
        elif how == "half-closed":
            hearing.cancel()
            with suppress(asyncio.CancelledError, *BROKEN):
                await hearing
            await self._half_close(life.connections[-1])
        hearing.cancel()
        if how != "closed without a word":
            life.reset()


class Crowd:
    """Clients of all kinds in equal parts, and what they have seen."""

    def __init__(self, base: str, count: int, seed: int) -> None:
        self.base = base
        self.chance = random.Random(seed)
        self.end = float("inf")
        self.opened = self.left = self.said = self.heard = self.broadcasts = 0
        self.resets: Counter[str] = Counter()
        self.wrong: list[str] = []
        kinds = list(KINDS)
        self.clients = [Client(self, kinds[number % len(kinds)]) for number in range(count)]

    def note(self, text: str) -> None:
        if len(self.wrong) < MAX_KEPT:
            self.wrong.append(text[:500])

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self.end

    def no_longer(self, seconds: float) -> float:
        """So many, or those until the end."""
        return max(0.0, min(seconds, self.end - time.monotonic()))

    async def rest(self) -> None:
        await asyncio.sleep(self.no_longer(self.chance.uniform(0, REST_S)))

    async def run(self, seconds: float) -> None:
        """Let them come and go for so long, and all of them go."""
        self.end = time.monotonic() + seconds
        tasks = {asyncio.ensure_future(client.run()): client for client in self.clients}
        while pending := {task for task in tasks if not task.done()}:
            now = time.monotonic()
            for task in pending:
                if (since := tasks[task].heard_at) and now - since > PATIENCE_S:
                    self.note(f"{tasks[task].kind}: nothing came for {PATIENCE_S:.0f} s")
                    task.cancel()
            await asyncio.wait(pending, timeout=LOOK_S)
        for task in tasks:
            if not task.cancelled():
                task.result()
