"""Namespaces that patterns make: whose rules hold, and that nobody is left behind in one that has gone."""

from __future__ import annotations

import asyncio
import re

import pytest

from polysock import ConnectionRefused, Server
from polysock.testing import Client, FakeClock

GAMES = re.compile("/game-[0-9]+")


async def test_a_namespace_first_named_by_the_application_has_the_rules_of_its_pattern() -> None:
    io = Server()
    games = io.of(GAMES)
    entered: list[str] = []

    @games.use
    def members_only(socket):
        if socket.handshake.auth is None:
            raise ConnectionRefused("members only")

    games.on("connection", lambda socket: entered.append(socket.namespace.name))
    assert io.of("/game-1").emit("nobody is there") == 0

    stranger = Client(io, "/game-1")
    assert stranger.error is not None
    assert stranger.error.message == "members only"
    member = Client(io, "/game-1", auth={})
    assert entered == ["/game-1"]
    member.disconnect()
    assert "/game-1" in io.namespaces, "the application has named it, and may hold handlers on it"


async def test_a_namespace_made_for_a_client_goes_with_the_last_one() -> None:
    io = Server()
    io.of(GAMES)
    ann, bob = Client(io, "/game-1"), Client(io, "/game-1")
    ann.disconnect()
    assert io.of("/game-1").emit("still here") == 1
    bob.drop()
    assert set(io.namespaces) == {"/"}


async def test_who_waits_for_middleware_enters_the_namespace_that_there_is_then() -> None:
    io = Server()
    games = io.of(GAMES)
    gate = asyncio.Event()

    @games.use
    async def slowly(socket):
        if socket.handshake.auth is None:
            await gate.wait()

    first = Client(io, "/game-1", auth={})
    await first.wait()
    waiting = Client(io, "/game-1")
    first.disconnect()  # the namespace goes with it
    later = Client(io, "/game-1", auth={})
    await later.wait()
    gate.set()
    await waiting.wait()
    assert io.of("/game-1").emit("both") == 2
    assert waiting.take() == later.take() == [("both",)]
    io.of("/game-1").hub.check()


@pytest.mark.parametrize("excluded", [False, True])
async def test_a_room_may_have_the_name_of_somebody_s_id(*, excluded: bool) -> None:
    """Both are meant, the room and the one whose id it is."""
    io = Server()
    ann, bob, cat = Client(io), Client(io), Client(io)
    io.sockets.socket(bob.id).join(ann.id)  # type: ignore[arg-type, union-attr]
    target = io.except_(ann.id) if excluded else io.to(ann.id)  # type: ignore[arg-type]
    target.emit("x")
    assert [bool(client.take()) for client in (ann, bob, cat)] == (
        [False, False, True] if excluded else [True, True, False]
    )


async def test_close_tells_every_client_and_why() -> None:
    io = Server()
    reasons: list[tuple[str, int]] = []
    io.on("disconnect", lambda socket, reason: reasons.append((reason, socket.close_reason.code)))
    client = Client(io)
    io.close(4001, "maintenance")
    assert client.close_reason is not None
    assert (client.close_reason.code, client.close_reason.text) == (4001, "maintenance")
    assert reasons == [("server shutting down", 4001)]


def test_a_client_outside_a_loop_says_what_it_needs() -> None:
    with pytest.raises(RuntimeError, match="running event loop"):
        Client(Server())
    assert Client(Server(clock=FakeClock())).connected
