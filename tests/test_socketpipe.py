"""Writing to taken-over connections: past asyncio's transport while nothing waits in it, and through it elsewhere."""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from polysock_transports.socketpipe import Lane, SocketPipe
from support.clients import quiet, turns, until

__all__ = ["quiet"]

HIGH_BYTES = 64 * 1024


class OtherLoop(Lane):
    """As on an event loop whose transports are not asyncio's own."""

    __slots__ = ()

    @staticmethod
    def writes_to_sockets() -> bool:
        return False


both_ways = pytest.mark.parametrize("kind", [Lane, OtherLoop], ids=["to the socket", "to the transport"])


class Owner:
    def __init__(self) -> None:
        self.drained = self.lost = 0

    def data_received(self, data: bytes) -> None:
        raise AssertionError("the peer says nothing")

    def pipe_drained(self) -> None:
        self.drained += 1

    def pipe_lost(self) -> None:
        self.lost += 1


def a_lane(kind: type[Lane]) -> Lane:
    return kind(read_bytes=4096, high_bytes=HIGH_BYTES, write_timeout_s=30)


@contextmanager
def connected(kind: type[Lane], lane: Lane | None = None) -> Iterator[tuple[SocketPipe, Owner, socket.socket]]:
    """A pipe on *lane* or one of its own, its owner, and the peer's socket, which takes little."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        peer = socket.socket()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        peer.connect(server.getsockname())
        sock, _ = server.accept()
    sock.setblocking(False)
    peer.setblocking(False)
    pipe, owner = SocketPipe(lane or a_lane(kind), b""), Owner()
    pipe.owner = owner
    pipe.connect(sock)
    try:
        yield pipe, owner, peer
    finally:
        pipe.abort()
        peer.close()


def taken(peer: socket.socket) -> bytes:
    """All that has come."""
    data = b""
    try:
        while piece := peer.recv(65536):
            data += piece
    except BlockingIOError:
        pass
    return data


@both_ways
async def test_what_is_written_in_one_turn_leaves_at_its_end(kind: type[Lane]) -> None:
    with connected(kind) as (pipe, _, peer):
        for piece in (b"one ", b"two ", b"three"):
            pipe.write(piece)
        assert taken(peer) == b""
        assert pipe.backlog == 13
        await turns(3)
        assert (taken(peer), pipe.backlog) == (b"one two three", 0)
    await turns()


@both_ways
@pytest.mark.skipif(not hasattr(select, "epoll"), reason="epoll tells in which order sockets became readable")
async def test_the_later_half_of_a_turn_is_sent_first(kind: type[Lane]) -> None:
    """Else uvloop answers the first ones of each turn twice as often as the last ones (docs/performance.md)."""
    lane = a_lane(kind)
    with ExitStack() as stack:
        connections = [stack.enter_context(connected(kind, lane)) for _ in range(5)]
        epoll = stack.enter_context(select.epoll())
        for pipe, _, peer in connections:
            epoll.register(peer, select.EPOLLIN)
            pipe.write(b"an answer")
        await turns(3)
        peers = [peer.fileno() for *_, peer in connections]
        assert [fd for fd, _ in epoll.poll(0)] == peers[2:] + peers[:2]
    await turns()


@both_ways
async def test_what_the_kernel_does_not_take_follows_whole_and_in_order(kind: type[Lane]) -> None:
    with connected(kind) as (pipe, owner, peer):
        sent, got = bytearray(), bytearray()

        def everything_came() -> bool:
            got.extend(taken(peer))
            return len(got) == len(sent)

        for again in range(3):  # the second time something may still be marked as stuck, and the third time not
            while pipe.backlog <= HIGH_BYTES:
                # Several in a turn and then a turn: some leave at once, one in part, and later ones behind it.
                for _ in range(3):
                    piece = struct.pack("!I", len(sent)) * 1000
                    sent += piece
                    pipe.write(piece)
                await turns(2)
            assert owner.drained == again
            # The kernel has room again before asyncio has noticed: what is written now must not overtake what waits.
            got += taken(peer)
            pipe.write(b"last")
            sent += b"last"
            await until(everything_came)
            assert got == sent
            await until(lambda: owner.drained > again)  # noqa: B023  # it is awaited here
            pipe.write(b"next")
            sent += b"next"
            await turns(3)
            got += taken(peer)
            assert (got, pipe.backlog) == (sent, 0)
    await turns()


@both_ways
async def test_a_turn_over_the_mark_that_the_kernel_takes_is_told_to_have_drained(kind: type[Lane]) -> None:
    with connected(kind) as (pipe, owner, peer):
        pipe._lane.high_bytes = 100
        pipe.write(b"x" * 101)
        assert owner.drained == 0
        await turns(3)
        assert (owner.drained, pipe.backlog, len(taken(peer))) == (1, 0, 101)
    await turns()


@both_ways
async def test_a_reset_is_a_loss_told_once(kind: type[Lane]) -> None:
    with connected(kind) as (pipe, owner, peer):
        await turns(3)
        pipe.pause()  # so that it is a write that meets it
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        for _ in range(10):
            pipe.write(b"x")
            await turns(2)
        assert owner.lost == 1
        pipe.write(b"after it")
        await turns(2)
        assert (owner.lost, pipe.backlog) == (1, 0)


@both_ways
async def test_nothing_leaves_after_an_abort(kind: type[Lane]) -> None:
    with connected(kind) as (pipe, owner, peer):
        await turns(3)
        pipe.write(b"in this turn")
        pipe.abort()
        pipe.write(b"after it")
        await turns()
        assert taken(peer) == b""
        assert owner.lost == 0


@both_ways
async def test_what_was_written_before_the_close_leaves_and_nothing_after_it(kind: type[Lane]) -> None:
    with connected(kind) as (pipe, _, peer):
        pipe.write(b"the last words")
        pipe.close()
        pipe.write(b"more")
        await turns()
        assert (taken(peer), pipe.backlog) == (b"the last words", 0)
    await turns()
