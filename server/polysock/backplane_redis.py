"""RedisBackplane: nodes on any number of hosts, joined by the pub/sub of one Redis.

One channel of Redis for each of ours, one connection that listens and one that publishes.  Nothing here waits for
Redis: what is published goes into a bounded queue, which leaves in one write for a turn of the loop, and what one turn
subscribes to and leaves goes in one command.  While Redis is away, messages are dropped and counted, and all channels
are subscribed to anew when it is back.

Needs redis-py (``pip install "polysock[redis]"``).  Of it only the connection is used, which speaks TCP, TLS, AUTH and
RESP; its PubSub and its pool would each connect again, and wait, by rules of their own.  With ``hiredis`` installed it
reads with that, at a fraction of the cost.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from itertools import islice
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

from redis.asyncio.connection import Connection, parse_url
from redis.exceptions import RedisError, ResponseError

from polysock_transports import DEFAULT_LIMITS, Limits, StateError
from polysock_transports.clock import Clock, LoopClock, Timer

from .backplane import Backplane, BackplaneDown, Receive, check_channel, is_channel
from .retry import retry_delay_s
from .settings import SettingError

__all__ = ["DEFAULT_PREFIX", "RedisBackplane"]

log = logging.getLogger("polysock.backplane")

DEFAULT_PREFIX = "polysock:"

#: What a URL may say beside its address; the rest of what redis-py knows is ours to choose.
_OPTIONS = ("db", "password", "prefix", "username")
_MAX_PREFIX_CHARS = 200
_PORT = 6379
#: So many channels go into one command, and so many bytes into one write, that neither holds up Redis or the loop.
_COMMAND_CHANNELS = 1_000
_WRITE_BYTES = 256 * 1024
#: Reading what has arrived does not by itself let others have their turn.
_READS_IN_A_TURN = 64

#: (channel, data, who waits for the count).
_Item = tuple[str, bytes, "asyncio.Future[int] | None"]


class RedisBackplane(Backplane):
    """A node of those that share a Redis.  ``Server(backplane="redis://host:6379/0")`` makes one.

    *url*: ``redis://[user:password@]host[:port]``, or ``rediss://`` for TLS (``?ssl_ca_certs=`` and the other
    ``ssl_`` options of redis-py).  *prefix*: begins the name of every channel; applications that share a Redis have
    different ones (also ``?prefix=`` in the URL).  The database in a URL separates nothing: pub/sub ignores it.
    Counts beside the contract's: ``unconfirmed`` (sent when the connection broke; Redis may have them or not),
    ``refused`` (Redis answered with an error), ``oversized`` (came, and were longer than a node may send).
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str | None = None,
        limits: Limits = DEFAULT_LIMITS,
        clock: Clock | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """*chance*: numbers from 0 to 1, to spread what would happen at the same moment everywhere.

        Raises SettingError.
        """
        super().__init__()
        self.limits = limits
        self.clock: Clock = clock or LoopClock()
        self.channels: set[str] = set()
        """What this node is subscribed to."""
        self.address, self._connection, from_url, self._secrets = _read_url(url, limits)
        chosen = prefix if prefix is not None else from_url if from_url is not None else DEFAULT_PREFIX
        if len(chosen) > _MAX_PREFIX_CHARS or not all("!" <= character <= "~" for character in chosen):
            raise SettingError(f"prefix must be at most {_MAX_PREFIX_CHARS} printable ASCII characters without spaces")
        self.prefix = chosen.encode("ascii")
        self.node_id = ""
        self._chance = chance
        self._receive: Receive | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._session: _Session | None = None  # up, or on its way up
        self._last: _Session | None = None

    def __repr__(self) -> str:
        return f"<RedisBackplane {self.address} prefix={self.prefix.decode('ascii')!r}>"

    # -- the contract

    async def start(self, node_id: str, receive: Receive) -> None:
        if self._supervisor is not None:
            raise StateError("a backplane starts once")
        self.node_id, self._receive = node_id, receive
        loop = asyncio.get_running_loop()
        begun: asyncio.Future[None] = loop.create_future()
        self._supervisor = supervisor = loop.create_task(self._supervise(begun))
        try:
            await asyncio.wait((begun, supervisor), return_when=asyncio.FIRST_COMPLETED)
            if not begun.done():
                raise BackplaneDown(f"{self.address}: stopped while it was starting")
            begun.result()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        supervisor, self._supervisor = self._supervisor, None
        if supervisor is None:
            return
        self._receive = None
        try:
            if self._session is not None:
                await self._session.emptied()
        finally:
            supervisor.cancel()
            await asyncio.wait((supervisor,))
            # It may have been about to do so.
            if self._last is not None:
                await self._last.close()
                self._last = None

    @property
    def is_up(self) -> bool:
        return self._receive is not None and self._session is not None and self._session.is_up

    def publish(self, channel: str, data: bytes) -> None:
        self._send(channel, data, None)

    async def deliver(self, channel: str, data: bytes) -> int:
        """As ``Backplane.deliver``; where Redis is a cluster, of the nodes that are connected to the same server."""
        # Whether Redis counts us as well must be certain before it counts.
        while self.is_up and self._session is not None and self._session.is_changing(channel):
            await self._session.settled()
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        own = channel in self.channels
        if not self._send(channel, data, answer):
            raise BackplaneDown(f"{self.address}: down, or too slow, or the message is too long")
        return max(0, await answer - own)

    def _send(self, channel: str, data: bytes, answer: asyncio.Future[int] | None) -> bool:
        session = self._session
        if session is None or not self.is_up or not is_channel(channel) or not session.publish(channel, data, answer):
            self.counters["dropped"] += 1
            return False
        self.counters["published"] += 1
        return True

    def subscribe(self, channel: str) -> None:
        check_channel(channel)
        if channel not in self.channels:
            self.channels.add(channel)
            if self._session is not None:
                self._session.change(channel)

    def unsubscribe(self, channel: str) -> None:
        if channel in self.channels:
            self.channels.discard(channel)
            if self._session is not None:
                self._session.change(channel)

    async def settled(self) -> None:
        if self._session is None or not self.is_up:
            raise BackplaneDown(f"{self.address}: down")
        await self._session.settled()

    # -- one session with Redis after another

    async def _supervise(self, begun: asyncio.Future[None]) -> None:
        tries = 0
        while True:
            self._session = self._last = session = _Session(self)
            up_at: float | None = None
            try:
                await session.open(self._connection)
                up_at = self.clock.now()
                if begun.done():
                    log.warning("the backplane %s is back", self.address)
                    self._changed(True)
                else:
                    begun.set_result(None)
                await session.broken()
            except Exception as error:
                # Not RedisError alone: redis-py meets bytes that are no RESP with whatever goes wrong first.
                self._session = None
                if not begun.done():
                    begun.set_exception(BackplaneDown(f"{self.address}: {self._plain(error)}"))
                elif session.is_up and self._receive is not None:
                    log.warning("the backplane %s is down: %s", self.address, self._plain(error))
                    self._changed(False)
            finally:
                self._session = None
                await session.close()
            if self._receive is None or begun.exception() is not None:
                return
            if up_at is not None and self.clock.now() - up_at >= self.limits.backplane_retry_s:
                tries = 0  # (one that ends a moment after it began is a try like those that failed)
            tries += 1
            await self._pause(retry_delay_s(tries, self.limits.backplane_retry_s, self._chance))

    async def _pause(self, seconds: float) -> None:
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self.clock.call_later(seconds, lambda: _done(over))
        try:
            await over
        finally:
            timer.cancel()

    def _plain(self, error: Exception) -> str:
        """What went wrong, without what is secret: a server that knows no AUTH repeats its arguments."""
        text = str(error) or type(error).__name__
        for secret in self._secrets:
            text = text.replace(secret, "...")
        return text

    def message(self, channel: bytes, data: bytes) -> None:
        """Redis brought this."""
        # redis-py has no bound to what it reads: what Redis itself takes is the bound (docs/deploying.md).
        if len(data) > self.limits.backplane_max_message_bytes:
            self.counters["oversized"] += 1
            return
        name = channel[len(self.prefix) :].decode("latin-1")
        # What is on its way when a channel is left may come; our own channel of each node is not one of them.
        if self._receive is not None and name in self.channels:
            self._hand_over(self._receive, name, data)


def _read_url(url: str, limits: Limits) -> tuple[str, Callable[[], Any], str | None, list[str]]:
    """(the address without secrets, what makes a connection, the prefix, what is secret).  Raises SettingError."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or "localhost"
        address = f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{parts.port or _PORT}"
        pairs = parse_qsl(parts.query, keep_blank_values=True)
        if parts.scheme not in ("redis", "rediss"):
            raise SettingError("the address of a Redis begins with redis:// or rediss://")
        for name, _ in pairs:
            if name not in _OPTIONS and not name.startswith("ssl_"):
                raise SettingError(f"{address}: there is no option {name!r}. There are: {', '.join(_OPTIONS)}, ssl_...")
        query = urlencode([(name, value) for name, value in pairs if name != "prefix"])
        options: dict[str, Any] = dict(parse_url(urlunsplit((*parts[:3], query, ""))))
        make = options.pop("connection_class", Connection)
        options |= {"protocol": 2, "socket_timeout": None, "socket_connect_timeout": limits.backplane_timeout_s}
        options |= {"socket_keepalive": True, "socket_keepalive_options": _patience(limits.backplane_timeout_s)}
        make(**options)  # it says what it does not take; nothing is connected yet
    except (TypeError, ValueError, RedisError) as error:
        if isinstance(error, SettingError):
            raise
        # The message of the error may hold parts of the URL, and so the password.
        raise SettingError("this is not the address of a Redis, such as redis://user:password@host:6379") from None
    password = options.get("password")
    secrets = [password, quote(password, safe=""), unquote(password)] if password else []
    return address, lambda: make(**options), dict(pairs).get("prefix"), secrets


def _patience(seconds: float) -> dict[int, int]:
    """Have the kernel give up where Redis takes nothing for so long (RFC 5482; Linux): what waits is then let go."""
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    return {} if option is None else {option: max(1, int(seconds * 1000))}


def _done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _batches(channels: list[str]) -> Iterator[list[str]]:
    ahead = iter(channels)
    while batch := list(islice(ahead, _COMMAND_CHANNELS)):
        yield batch


class _Session:
    """Both connections, from connecting to the fault that ends them."""

    def __init__(self, owner: RedisBackplane) -> None:
        self.is_up = False
        self._owner = owner
        self._own = f" {owner.node_id}"
        """A channel of this node alone: with its space it is no other's."""
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tasks: list[asyncio.Task[None]] = []
        self._timers: set[Timer] = set()
        self._listening: Any = None
        self._publishing: Any = None
        self._heard = [0, 0]
        """How much came on the one and on the other."""
        # Publishing.
        self._queue: deque[_Item] = deque()
        self._in_flight: deque[tuple[asyncio.Future[int] | None, int]] = deque()  # and their bytes
        self._waiting_bytes = 0
        """Of both: not every asyncio tells when a connection has taken too much (``writelines`` in 3.12 and 3.13)."""
        self._may_publish = asyncio.Event()
        self._empty: asyncio.Future[None] | None = None
        self._said_refused = False
        # Listening.  Each write ends with a PING of its number, which Redis repeats once all before it is in force.
        self._changed = dict.fromkeys(owner.channels)
        self._changing: dict[str, int] = {}
        self._sent: deque[tuple[int, list[str]]] = deque()
        self._number = 0
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._may_subscribe = asyncio.Event()

    # -- its life

    async def open(self, connection: Callable[[], Any]) -> None:
        """Connect, and subscribe to everything; raises whatever goes wrong."""
        call_off = self._in_time()
        connecting = self._spawn(self._connect(connection))
        await self._reach(connecting)
        self._tasks.remove(connecting)
        call_off()
        in_force = self._waiting[1] = asyncio.get_running_loop().create_future()
        self._may_subscribe.set()
        for work in (self._listen(), self._take_answers(), self._send_published(), self._send_channels()):
            self._spawn(work)
        self._check_later()
        await self._reach(in_force)
        self.is_up = True

    async def broken(self) -> None:
        """Wait for what goes wrong, and raise it."""
        await self._reach(self._failed)

    async def close(self) -> None:
        """Let go of everything; who waits for something is told.  May be called again."""
        self.is_up = False
        for timer in self._timers:
            timer.cancel()
        connections = [connection for connection in (self._listening, self._publishing) if connection is not None]
        for connection in connections:
            # redis-py closes in order, also where a write is cancelled: what a dead Redis does not take would stay.
            writer = getattr(connection, "_writer", None)
            if writer is not None:
                writer.transport.abort()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for connection in connections:
            with suppress(RedisError, OSError):
                await connection.disconnect(nowait=True)
        counters = self._owner.counters
        counters["dropped"] += len(self._queue)
        counters["unconfirmed"] += len(self._in_flight)
        answers = (*(sent[0] for sent in self._in_flight), *(item[2] for item in self._queue))
        for future in (*answers, *self._waiting.values(), self._failed):
            if future is not None:
                if not future.done():
                    future.set_exception(BackplaneDown(f"{self._owner.address}: down"))
                if not future.cancelled():
                    future.exception()  # there may be nobody who waits for it any more
        self._queue.clear()
        self._in_flight.clear()
        if self._empty is not None:
            _done(self._empty)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.append(task)
        return task

    async def _reach(self, goal: asyncio.Future[None]) -> None:
        """Wait for *goal*, or raise what comes in between."""
        await asyncio.wait({goal, self._failed, *self._tasks}, return_when=asyncio.FIRST_COMPLETED)
        for end in (self._failed, *self._tasks, goal):
            if end.done():
                end.result()

    async def _connect(self, connection: Callable[[], Any]) -> None:
        self._publishing = connection()
        await self._publishing.connect()
        # Whether this user may publish at all.  Nobody listens there yet.
        await self._write(self._publishing, self._publishing.pack_command("PUBLISH", self._named(self._own), b""))
        await self._publishing.read_response()
        self._listening = connection()
        await self._listening.connect()

    async def _write(self, connection: Any, packed: Any) -> None:
        # redis-py would connect again by itself, and nothing would be subscribed there.
        if not connection.is_connected:
            raise BackplaneDown("the connection was closed")
        await connection.send_packed_command(packed, check_health=False)

    def _named(self, channel: str) -> bytes:
        return self._owner.prefix + channel.encode("ascii")

    # -- whether Redis is there

    def _later(self, seconds: float, call: Callable[[], None]) -> Timer:
        def due() -> None:
            self._timers.discard(timer)
            call()

        timer = self._owner.clock.call_later(seconds, due)
        self._timers.add(timer)
        return timer

    def _in_time(self) -> Callable[[], None]:
        """Fail unless both connections have brought something until then.  Returns what calls that off.

        In two halves, the second one counted from when the first was noticed: where a handler of the application, or
        the machine, held this process up for all of the time, what Redis has answered is still to be read.
        """
        before = list(self._heard)
        half_s = self._owner.limits.backplane_timeout_s / 2
        timer: Timer

        def judge() -> None:
            if any(now == then for now, then in zip(self._heard, before, strict=True)) and not self._failed.done():
                seconds = self._owner.limits.backplane_timeout_s
                self._failed.set_exception(BackplaneDown(f"Redis did not answer within {seconds:g} seconds"))

        def halfway() -> None:
            nonlocal timer
            timer = self._later(half_s, judge)

        timer = self._later(half_s, halfway)
        return lambda: timer.cancel()

    def _check_later(self) -> None:
        self._later(self._owner.limits.backplane_ping_s, self._check)

    def _check(self) -> None:
        self._may_subscribe.set()  # a PING, where nothing else is to be said
        self._queue.append((self._own, b"", None))
        self._waiting_bytes += len(self._own)
        self._may_publish.set()
        self._in_time()
        self._check_later()

    # -- publishing

    def publish(self, channel: str, data: bytes, answer: asyncio.Future[int] | None) -> bool:
        limits = self._owner.limits
        size = len(channel) + len(data)
        if (
            len(data) > limits.backplane_max_message_bytes
            or len(self._queue) + len(self._in_flight) >= limits.backplane_queue_messages
            or self._waiting_bytes + size > limits.backplane_queue_bytes
        ):
            return False
        self._queue.append((channel, data, answer))
        self._waiting_bytes += size
        self._may_publish.set()
        return True

    async def _send_published(self) -> None:
        pack = self._publishing.pack_command
        queue, in_flight = self._queue, self._in_flight
        while True:
            await self._may_publish.wait()
            while queue:
                packed: list[bytes] = []
                written = 0
                while queue and written < _WRITE_BYTES:
                    channel, data, answer = queue.popleft()
                    packed += pack("PUBLISH", self._named(channel), data)
                    size = len(channel) + len(data)
                    written += size
                    in_flight.append((answer, size))
                await self._write(self._publishing, packed)
            self._may_publish.clear()

    async def _take_answers(self) -> None:
        read = self._publishing.read_response
        in_flight = self._in_flight
        while True:
            refusal = ""
            count = 0
            try:
                count = await read(disable_decoding=True, disconnect_on_error=False)
            except ResponseError as error:
                refusal = str(error)
            self._heard[1] += 1
            if not in_flight or not isinstance(count, int):
                raise BackplaneDown("it answers what it was not asked")
            answer, size = in_flight.popleft()
            self._waiting_bytes -= size
            if refusal:
                self._refused(refusal, answer)
            elif answer is not None and not answer.done():
                answer.set_result(count)
            if self._empty is not None and not in_flight and not self._queue:
                _done(self._empty)
            if self._heard[1] % _READS_IN_A_TURN == 0:
                await asyncio.sleep(0)

    def _refused(self, refusal: str, answer: asyncio.Future[int] | None) -> None:
        self._owner.counters["refused"] += 1
        if answer is not None and not answer.done():
            answer.set_exception(BackplaneDown(f"{self._owner.address}: {refusal}"))
        if not self._said_refused:
            self._said_refused = True
            log.warning("the backplane %s refuses messages: %s", self._owner.address, refusal)

    async def emptied(self) -> None:
        """Wait until all that was published has left, as long as Redis may take for anything."""
        if self.is_up and (self._queue or self._in_flight):
            self._empty = empty = asyncio.get_running_loop().create_future()
            timer = self._later(self._owner.limits.backplane_timeout_s, lambda: _done(empty))
            await asyncio.wait((empty,))
            timer.cancel()

    # -- listening

    def change(self, channel: str) -> None:
        """*channel* was subscribed to, or left."""
        self._changed[channel] = None
        # The first write has all channels there are by then.
        if self._number:
            self._may_subscribe.set()

    def is_changing(self, channel: str) -> bool:
        """Whether Redis may not know yet what we want of *channel*."""
        return channel in self._changed or channel in self._changing

    async def settled(self) -> None:
        if self._changed or self._sent:
            number = self._number + bool(self._changed)
            if number not in self._waiting:
                self._waiting[number] = asyncio.get_running_loop().create_future()
            waiting = self._waiting[number]
            await asyncio.wait((waiting,))
            waiting.result()

    async def _send_channels(self) -> None:
        pack = self._listening.pack_command
        wanted = self._owner.channels
        while True:
            await self._may_subscribe.wait()
            self._may_subscribe.clear()
            if self._sent:
                # One at a time: what a Redis that does not answer would have to be told does not pile up.
                continue
            changed, self._changed = list(self._changed), {}
            self._number = number = self._number + 1
            self._sent.append((number, changed))
            self._changing.update(dict.fromkeys(changed, number))
            on = [channel for channel in changed if channel in wanted]
            off = [channel for channel in changed if channel not in wanted]
            if number == 1:
                on.append(self._own)
            for command, channels in (("SUBSCRIBE", on), ("UNSUBSCRIBE", off)):
                for batch in _batches(channels):
                    await self._write(self._listening, pack(command, *map(self._named, batch)))
                    await asyncio.sleep(0)  # a write alone lets nobody have a turn
            await self._write(self._listening, pack("PING", str(number)))

    async def _listen(self) -> None:
        read = self._listening.read_response
        brought = self._owner.message
        while True:
            answer = await read(disable_decoding=True, disconnect_on_error=False)
            self._heard[0] += 1
            if not isinstance(answer, list):
                raise BackplaneDown("it answers what it was not asked")
            if answer[0] == b"message":
                brought(answer[1], answer[2])
            elif answer[0] == b"pong":
                self._in_force(int(answer[1]))
            if self._heard[0] % _READS_IN_A_TURN == 0:
                await asyncio.sleep(0)

    def _in_force(self, number: int) -> None:
        """All that was written up to *number* is."""
        while self._sent and self._sent[0][0] <= number:
            at, channels = self._sent.popleft()
            for channel in channels:
                if self._changing.get(channel) == at:
                    del self._changing[channel]
            waiting = self._waiting.pop(at, None)
            if waiting is not None:
                _done(waiting)
        if self._changed:
            self._may_subscribe.set()
