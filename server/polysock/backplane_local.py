"""LocalBackplane: any number of processes on one host joined by Unix sockets in a private folder, without a broker.

Every node listens in the folder and is connected to every other one: a newcomer connects to all it finds, and each
connection is used both ways.  A node tells the others which channels it wants, and sends a message only to those that
want it.  That a process has ended its connection's end tells at once.

For each peer there is one write in a turn of the loop, and a bound on what waits (``backplane_queue_bytes``).  Over it
messages for that peer are dropped and counted; what it must know of our channels is told anew once it reads again, so
that a stopped process costs the others no more than the bound.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, cast

from polysock_transports import DEFAULT_LIMITS, Limits, ProtocolError, StateError
from polysock_transports.clock import Clock, LoopClock, Timer
from polysock_transports.placement import NODE_ID_CHARS

from .backplane import Backplane, BackplaneDown, Receive, check_channel
from .meshframes import (
    Channels,
    FrameReader,
    Hello,
    Message,
    Sync,
    Synced,
    channel_frames,
    hello_frame,
    is_node_id,
    message_frame,
    sync_frame,
    synced_frame,
)
from .retry import retry_delay_s
from .socketfolder import Gone, SocketFolder

__all__ = ["LocalBackplane"]

log = logging.getLogger("polysock.backplane")

_SUFFIX = ".mesh"
_READ_BYTES = 256 * 1024
#: What asyncio may hold of a connection before it counts as slow; the rest waits here, where it is counted.
_TRANSPORT_BYTES = 64 * 1024
#: How long nobody is taken in where the process or the system has no descriptor left.
_ACCEPT_PAUSE_S = 1.0
#: So often ``start`` waits for a node that does not take the connection.
_TRIES_AT_START = 3


class LocalBackplane(Backplane):
    """A node on this host.  ``Server(backplane="unix:///run/myapp")`` makes one in the folder /run/myapp.

    *directory*: a folder for the sockets, of this user alone; made where it is absent, unless *makes_folder* is False.
    All nodes of one application name the same one, and no other application does.
    Counts beside the contract's: ``cut`` (connections ended for what came over them), ``unanswered`` (times that
    ``settled`` went on without a node).
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        makes_folder: bool = True,
        limits: Limits = DEFAULT_LIMITS,
        clock: Clock | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """*chance*: numbers from 0 to 1, to spread what would happen at the same moment everywhere.

        Raises SettingError where the directory's path is too long for Unix sockets.
        """
        super().__init__()
        self.limits = limits
        self.folder = SocketFolder(directory, _SUFFIX, name_chars=NODE_ID_CHARS)
        self._makes_folder = makes_folder
        self.node_id = ""
        self.channels: set[str] = set()
        """What this node is subscribed to."""
        self.buffer = memoryview(bytearray(_READ_BYTES))
        """What all connections read into; each read is handled before the next."""
        self.clock: Clock = clock or LoopClock()
        self._chance = chance
        self._receive: Receive | None = None
        self._listener: socket.socket | None = None
        self._pause: Timer | None = None
        self._peers: dict[str, _Peer] = {}
        self._links: dict[str, _Link] = {}  # those of the peers, ready for messages
        self._strangers: set[_Link] = set()  # connected, and not greeted yet or on their way out
        self._delta: dict[str, bool] = {}
        self._unsent: list[_Link] = []
        self._flushing = False
        self._settling: _Settling | None = None
        self._asked: dict[int, _Settling] = {}
        self._number = 0
        self._said_full = False

    def __repr__(self) -> str:
        return f"<LocalBackplane {self.folder.folder}>"

    @property
    def nodes(self) -> list[str]:
        """The ids of the other nodes that are connected, sorted."""
        return sorted(self._links)

    # -- the contract

    async def start(self, node_id: str, receive: Receive) -> None:
        """As ``Backplane.start``; what both sides are subscribed to is in force when it returns.

        Raises SettingError where the folder is not this user's own, is open to others, or cannot be used, and
        BackplaneDown where it is not there and is not to be made.
        """
        if self._receive is not None:
            raise StateError("a backplane starts once")
        if not is_node_id(node_id):
            raise ValueError("a node's id is letters, digits, - and _")
        if self._makes_folder:
            self.folder.make()
        elif self.folder.is_absent():
            raise BackplaneDown(f"{self.folder.folder} does not exist: is a server running with this backplane?")
        self.folder.check()
        self._listener = self.folder.listen(node_id)
        self.node_id, self._receive = node_id, receive
        try:
            self._listen()
            for name in self.folder.names():
                if name != node_id and is_node_id(name) and name not in self._peers and self._has_room():
                    peer = self._peers[name] = _Peer(self, name)
                    peer.connect()
            for peer in list(self._peers.values()):
                await asyncio.wait((peer.first_try,))
        except BaseException:
            await self.stop()
            raise
        if self._receive is None:
            raise BackplaneDown("stopped while it was starting")

    async def stop(self) -> None:
        if self._receive is None:
            return
        self._flush()  # what was published in this turn
        self._receive = None
        self.folder.remove(self.node_id)
        if self._listener is not None:
            if self._pause is not None:
                self._pause.cancel()
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None
        peers, self._peers = self._peers, {}
        for peer in peers.values():
            peer.forget()
        for settling in (self._settling, *self._asked.values()):
            if settling is not None:
                settling.end(failed=True)
        self._settling = None
        self._asked.clear()
        self._strangers.update(self._links.values())
        self._links.clear()
        leaving = list(self._strangers)
        for link in leaving:
            link.leave()
        if leaving:
            timer = self.clock.call_later(self.limits.backplane_timeout_s, self._abort_all)
            await asyncio.wait([link.ended for link in leaving])
            timer.cancel()

    # Not by a server of asyncio's: what one has accepted in the turn in which it is closed gets lost on the way.

    def _listen(self) -> None:
        self._pause = None
        if self._listener is not None:
            asyncio.get_running_loop().add_reader(self._listener, self._accept, self._listener)

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:
            # No descriptor is left, mostly, and the loop would be back here at once, again and again.
            log.error("%s cannot take a connection: %s", self, error.strerror)
            asyncio.get_running_loop().remove_reader(listener)
            self._pause = self.clock.call_later(_ACCEPT_PAUSE_S, self._listen)
            return
        _Link(self, None).take(sock)

    def _abort_all(self) -> None:
        for link in list(self._strangers):
            link.cut()

    @property
    def is_up(self) -> bool:
        return self._receive is not None

    def publish(self, channel: str, data: bytes) -> None:
        self._hand_out(channel, data)

    async def deliver(self, channel: str, data: bytes) -> int:
        if self._receive is None:
            raise BackplaneDown(f"{self!r} is not started")
        if len(data) > self.limits.backplane_max_message_bytes:
            self.counters["dropped"] += 1
            raise BackplaneDown(f"a message of {len(data)} bytes is too long")
        return self._hand_out(channel, data)

    def _hand_out(self, channel: str, data: bytes) -> int:
        if self._receive is None or len(data) > self.limits.backplane_max_message_bytes:
            self.counters["dropped"] += 1
            return 0
        frame = b""
        taken = 0
        for link in self._links.values():
            # Whatever is no channel's name is in nobody's set.
            if channel in link.channels:
                frame = frame or message_frame(channel, data)
                if link.send(frame):
                    taken += 1
                else:
                    self.counters["dropped"] += 1
        self.counters["published"] += 1
        return taken

    def subscribe(self, channel: str) -> None:
        check_channel(channel)
        if channel not in self.channels:
            self.channels.add(channel)
            self._tell(channel, True)

    def unsubscribe(self, channel: str) -> None:
        if channel in self.channels:
            self.channels.discard(channel)
            self._tell(channel, False)

    def _tell(self, channel: str, is_on: bool) -> None:
        if self._delta.pop(channel, None) is None:
            self._delta[channel] = is_on
            self._flush_soon()

    async def settled(self) -> None:
        if self._receive is None:
            raise BackplaneDown(f"{self!r} is not started")
        if self._settling is None:
            self._settling = _Settling()
            self._flush_soon()
        settling = self._settling
        await asyncio.wait((settling.done,))
        if settling.failed:
            raise BackplaneDown(f"{self!r} was stopped")

    # -- what leaves in one turn of the loop

    def enlist(self, link: _Link) -> None:
        """Have *link* flushed at the end of this turn."""
        self._unsent.append(link)
        self._flush_soon()

    def _flush_soon(self) -> None:
        if not self._flushing and self._receive is not None:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        if self._receive is None:
            return
        self.tell_changes()
        if self._settling is not None:
            self._ask(self._settling)
            self._settling = None
        unsent, self._unsent = self._unsent, []
        for link in unsent:
            link.flush()

    def tell_changes(self) -> None:
        """Of the channels that we want, to all nodes."""
        if self._delta:
            delta, self._delta = self._delta, {}
            for is_on in (False, True):
                channels = [channel for channel, state in delta.items() if state is is_on]
                frames = list(channel_frames(channels, is_on=is_on))
                for link in self._links.values():
                    link.tell(frames)

    def _ask(self, settling: _Settling) -> None:
        self._number = number = self._number + 1
        # Who did not answer the last time is not waited for until it does.
        settling.waiting = {link for link in self._links.values() if not link.is_silent}
        for link in self._links.values():
            link.ask(number)
        if not settling.waiting:
            settling.end()
            return
        self._asked[number] = settling
        settling.timer = self.clock.call_later(self.limits.backplane_timeout_s, lambda: self._give_up(number))

    def _give_up(self, number: int) -> None:
        settling = self._asked.pop(number)
        for link in settling.waiting:
            link.is_silent = True
            self.counters["unanswered"] += 1
        settling.end()

    def _answered(self, link: _Link, up_to: int | None) -> None:
        """*link* answered what it was asked up to this number, or is no more."""
        for number in [number for number in self._asked if up_to is None or number <= up_to]:
            settling = self._asked[number]
            settling.waiting.discard(link)
            if not settling.waiting:
                del self._asked[number]
                settling.end()

    # -- who is there

    def _has_room(self) -> bool:
        if len(self._peers) < self.limits.max_backplane_nodes:
            return True
        if not self._said_full:
            self._said_full = True
            log.warning("%s holds more nodes than max_backplane_nodes, and they cannot all be connected", self)
        return False

    def delay_s(self, tries: int) -> float:
        """How long to wait after this many tries."""
        return retry_delay_s(tries, self.limits.backplane_retry_s, self._chance)

    def forget(self, peer: _Peer) -> None:
        """*peer* is no more."""
        if self._peers.get(peer.name) is not peer:
            return
        del self._peers[peer.name]
        peer.forget()
        if peer.was_linked and self.on_node_lost is not None:
            try:
                self.on_node_lost(peer.name)
            except Exception:
                log.exception("on_node_lost failed")

    # -- told by connections

    def arrived(self, link: _Link) -> None:
        # Who does not greet is bounded as well, by another such number.
        if self._receive is None or len(self._strangers) > self.limits.max_backplane_nodes:
            link.cut()
        self._strangers.add(link)

    def greeted(self, link: _Link, name: str) -> bool:
        """*link* says that it is *name*; whether it is welcome."""
        if link.peer is not None:
            # The one that we called.
            if name != link.peer.name:
                return False
        else:
            peer = self._peers.get(name)
            if name == self.node_id or (peer is None and not self._has_room()):
                return False
            if peer is None:
                peer = self._peers[name] = _Peer(self, name)
            elif peer.link is not None and peer.link.is_ours and self.node_id < name:
                # Two that call each other at the same moment: the call of the smaller id stands.  In any other case
                # who calls has lost the connection that we still see.
                return False
            peer.answer(link)
            link.write(hello_frame(self.node_id))
        self._strangers.discard(link)
        self._links[name] = link
        link.renew()
        return True

    def took(self, link: _Link, frame: Channels | Message | Sync | Synced) -> None:
        if isinstance(frame, Message):
            # A stopped node that goes on may not know yet what we want.
            if self._receive is not None and frame.channel in self.channels:
                self._hand_over(self._receive, frame.channel, frame.data)
        elif isinstance(frame, Channels):
            link.wants(frame)
        elif isinstance(frame, Sync):
            link.owe(frame.number)
        else:
            link.answered()
            if link.peer is not None:
                link.peer.ready()
            self._answered(link, frame.number)

    def lost(self, link: _Link) -> None:
        self._strangers.discard(link)
        peer = link.peer
        if peer is not None and self._links.get(peer.name) is link:
            del self._links[peer.name]
        self._answered(link, None)
        if peer is not None and peer.link is link and self._receive is not None:
            peer.lost()


class _Settling:
    """One question to all nodes, and who has not answered."""

    def __init__(self) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.failed = False
        self.waiting: set[_Link] = set()
        self.timer: Timer | None = None

    def end(self, *, failed: bool = False) -> None:
        self.failed = failed
        if self.timer is not None:
            self.timer.cancel()
        if not self.done.done():
            self.done.set_result(None)


class _Peer:
    """Another node, as long as its socket is there."""

    def __init__(self, mesh: LocalBackplane, name: str) -> None:
        self.name = name
        self.link: _Link | None = None
        self.was_linked = False
        self.first_try: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done once it is connected and both sides know what the other wants, or cannot be now."""
        self._mesh = mesh
        self._tries = 0
        self._ready_at: float | None = None
        self._timer: Timer | None = None
        self._held: socket.socket | None = None  # connected, and not greeted before the next try is due

    def connect(self) -> None:
        self._timer = None
        try:
            sock = self._let_go() or self._mesh.folder.connect(self.name)
        except Gone:
            self._mesh.forget(self)
        except OSError:
            self._again()
        else:
            self.link = link = _Link(self._mesh, self)
            link.call(sock)

    def answer(self, link: _Link) -> None:
        """It connected to us, over *link*."""
        self._cancel()
        ours, self.link = self.link, link
        link.peer = self
        if ours is not None:
            # It has given up that one, and may never read from it again.
            ours.peer = None
            ours.cut()

    def silent(self) -> None:
        """It is busy, or stopped; its connection stands."""
        self._tried()

    def ready(self) -> None:
        """Both sides know what the other wants."""
        if self._ready_at is None:
            self._ready_at = self._mesh.clock.now()
        self.was_linked = True
        self._tried()

    def lost(self) -> None:
        """The connection is no more."""
        greeted = self.link is not None and self.link.is_greeted
        self.link = None
        ready_at, self._ready_at = self._ready_at, None
        if ready_at is not None and self._mesh.clock.now() - ready_at >= self._mesh.limits.backplane_retry_s:
            self._tries = 0  # (one that ends a moment after it began is a try like those that failed)
        if greeted:
            self.was_linked = True
            self._look(hold=True)
        else:
            self._again()

    def _look(self, *, hold: bool) -> None:
        """Whether the process has ended, its socket tells now.  If not: try again later."""
        try:
            sock = self._mesh.folder.connect(self.name)
        except Gone:
            self._mesh.forget(self)
            return
        except OSError:
            pass
        else:
            if hold:
                # A process that ends may lose this connection before its socket.  So the next one is made at once, and
                # its end tells, too.
                self._held = sock
                asyncio.get_running_loop().add_reader(sock, self._held_ended)
            else:
                sock.close()
        if self._timer is None:
            self._again()

    def _held_ended(self) -> None:
        # Nobody greets there before we do.
        sock = self._let_go()
        if sock is not None:
            sock.close()
            self._look(hold=False)

    def _let_go(self) -> socket.socket | None:
        sock, self._held = self._held, None
        if sock is not None:
            asyncio.get_running_loop().remove_reader(sock)
        return sock

    def _again(self) -> None:
        self._tries += 1
        if self._tries >= _TRIES_AT_START:
            self._tried()
        self._timer = self._mesh.clock.call_later(self._mesh.delay_s(self._tries), self.connect)

    def _tried(self) -> None:
        if not self.first_try.done():
            self.first_try.set_result(None)

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        sock = self._let_go()
        if sock is not None:
            sock.close()

    def forget(self) -> None:
        self._cancel()
        self._tried()


class _Link(asyncio.BufferedProtocol):
    """One connection to another node."""

    transport: asyncio.Transport

    def __init__(self, mesh: LocalBackplane, peer: _Peer | None) -> None:
        """*peer*: whom we call; None where we are called."""
        self.peer = peer
        self.is_ours = peer is not None
        """We called."""
        self.channels: set[str] = set()
        """What the other side is subscribed to."""
        self.is_greeted = False
        self.is_silent = False
        """It did not answer in time, and has not since."""
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._mesh = mesh
        self._reader = FrameReader(mesh.limits.backplane_max_message_bytes)
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._held_bytes = 0  # what asyncio held when it called the connection slow
        self._is_open = False
        self._is_slow = False
        self._is_leaving = False
        self._is_stale = False  # it does not know what we want: told anew when it reads again
        self._asked = 0
        self._owed: int | None = None
        self._channel_bytes = 0
        self._timer: Timer | None = None
        self._opening: asyncio.Task[Any] | None = None

    def call(self, sock: socket.socket) -> None:
        """Go on over *sock*, which we connected."""
        self._open(asyncio.get_running_loop().create_unix_connection(lambda: self, sock=sock))

    def take(self, sock: socket.socket) -> None:
        """Go on over *sock*, which we accepted."""
        self._open(asyncio.get_running_loop().connect_accepted_socket(lambda: self, sock))

    def _open(self, opening: Coroutine[Any, Any, Any]) -> None:
        self._mesh.arrived(self)
        # Kept here: the loop itself does not hold on to tasks.
        self._opening = asyncio.get_running_loop().create_task(opening)
        self._opening.add_done_callback(self._opened)

    def _opened(self, opening: asyncio.Task[Any]) -> None:
        if opening.cancelled() or opening.exception() is not None:
            # The loop could not take the socket.
            self.connection_lost(None)

    # -- writing

    def send(self, frame: bytes) -> bool:
        """Write *frame*, unless too much waits; whether it will be."""
        limits = self._mesh.limits
        if (
            self._held_bytes + self._pending_bytes + len(frame) > limits.backplane_queue_bytes
            or len(self._pending) >= limits.backplane_queue_messages
        ):
            return False
        self.write(frame)
        return True

    def write(self, frame: bytes) -> None:
        if not self._pending:
            self._mesh.enlist(self)
        self._pending.append(frame)
        self._pending_bytes += len(frame)

    def tell(self, frames: Iterable[bytes]) -> None:
        """Of the channels that we want, or no more."""
        if not self._is_stale:
            self._is_stale = not all(self.send(frame) for frame in frames)

    def ask(self, number: int) -> None:
        """Ask for an answer once everything so far is in force."""
        self._asked = number
        self.tell([sync_frame(number)])

    def owe(self, number: int) -> None:
        """It wants an answer.  One for the last question answers all."""
        if self._owed is None and not self._pending:
            self._mesh.enlist(self)
        self._owed = number

    def renew(self) -> None:
        """Tell all channels that we want, and ask for the answer that is due."""
        self._is_stale = False
        # What has changed and was told to nobody yet is told first: it could change back, and no more be told of.
        self._mesh.tell_changes()
        for frame in channel_frames(self._mesh.channels, anew=True):
            self.write(frame)
        self.write(sync_frame(self._asked))

    def flush(self) -> None:
        """Write what has come together, unless the other side is slow."""
        if self._is_slow or self.transport.is_closing():
            return
        if self._owed is not None:
            self._pending.append(synced_frame(self._owed))
            self._owed = None
        pending = self._pending
        if not pending:
            return
        data = pending[0] if len(pending) == 1 else b"".join(pending)
        pending.clear()
        self._pending_bytes = 0
        self.transport.write(data)
        if self._is_stale and not self._is_slow:
            self.renew()

    def answered(self) -> None:
        """It has taken all that it was asked to."""
        self.is_silent = False
        self._cancel()

    def leave(self) -> None:
        """End the connection once everything is written."""
        self._is_leaving = True
        if self._is_open and not self._is_slow:
            self.flush()
            self.transport.close()

    def cut(self) -> None:
        """End the connection now."""
        self._is_leaving = True
        if self._is_open:
            self.transport.abort()

    def _late(self) -> None:
        self._timer = None
        if not self.is_greeted:
            self.cut()
        elif self.peer is not None:
            self.is_silent = True
            self.peer.silent()

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def wants(self, frame: Channels) -> None:
        """It says what it is subscribed to.  Raises ProtocolError where that is too much."""
        limits, channels = self._mesh.limits, self.channels
        if frame.anew:
            channels.clear()
            self._channel_bytes = 0
        if frame.is_on:
            added = set(frame.channels) - channels
            channels |= added
            self._channel_bytes += sum(map(len, added))
            if len(channels) > limits.max_backplane_channels:
                raise ProtocolError("it wants too many channels")
            if self._channel_bytes > limits.max_backplane_channel_bytes:
                raise ProtocolError("the names of the channels it wants are too long")
        else:
            left = channels.intersection(frame.channels)
            channels -= left
            self._channel_bytes -= sum(map(len, left))

    # -- told by asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._is_open = True
        self.transport.set_write_buffer_limits(_TRANSPORT_BYTES)
        if self._is_leaving:
            self.transport.abort()
            return
        self._timer = self._mesh.clock.call_later(self._mesh.limits.backplane_timeout_s, self._late)
        if self.peer is not None:
            self.write(hello_frame(self._mesh.node_id))

    def get_buffer(self, sizehint: int) -> Any:
        return self._mesh.buffer

    def buffer_updated(self, count: int) -> None:
        try:
            for frame in self._reader.feed(bytes(self._mesh.buffer[:count])):
                if self._is_leaving:
                    return
                if isinstance(frame, Hello):
                    self.is_greeted = self._mesh.greeted(self, frame.node_id)
                    if not self.is_greeted:
                        self.cut()
                else:
                    self._mesh.took(self, frame)
        except ProtocolError as error:
            self._mesh.counters["cut"] += 1
            log.warning("a connection in %s was cut: %s", self._mesh.folder.folder, error)
            self.cut()

    def pause_writing(self) -> None:
        self._is_slow = True
        self._held_bytes = self.transport.get_write_buffer_size()

    def resume_writing(self) -> None:
        self._is_slow = False
        self._held_bytes = 0
        self.flush()
        if self._is_leaving and not self._is_slow:
            self.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self._cancel()
        self._pending.clear()
        if self.ended.done():
            return  # the loop was told to end while the connection was being made
        self.ended.set_result(None)
        self._mesh.lost(self)
