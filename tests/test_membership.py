"""Raw connections in rooms, from ``on_open`` on; who is refused is in no room."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import websockets
from tornado.web import HTTPError
from websockets.exceptions import ConnectionClosed, InvalidStatus

from polysock import Connection, Refused, Server, SockJSRouter
from support.serving import serving


def router(io: Server, ending: Callable[[], Any]) -> SockJSRouter:
    class Member(Connection):
        def on_open(self, info):
            self.join("news")
            io.to("news").emit("welcome")
            return ending()

        def on_message(self, message):
            self.send(json.dumps(self.rooms))

    return SockJSRouter(Member, "/raw", server=io)


async def test_a_room_joined_in_on_open() -> None:
    io = Server()
    async with serving(router(io, lambda: None).urls) as url:
        async with websockets.connect(f"{url.replace('http', 'ws')}/raw/websocket") as client:
            assert await client.recv() == '["welcome"]'
            assert io.to("news").emit("more", 1) == 1
            assert await client.recv() == '["more",1]'
            await client.send("rooms?")
            assert json.loads(await client.recv()) == ["news"]
        io.sockets.hub.check()


def refuse() -> None:
    raise Refused(403, "no")


def refuse_as_tornado_does() -> None:
    raise HTTPError(403)


async def refuse_later() -> bool:
    return False


async def read_to_the_end(url: str) -> None:
    async with websockets.connect(url) as client:
        while True:
            await client.recv()


@pytest.mark.parametrize("ending", [lambda: False, refuse, refuse_as_tornado_does, refuse_later])
async def test_who_is_refused_is_in_no_room(ending: Callable[[], Any]) -> None:
    io = Server()
    async with serving(router(io, ending).urls) as url:
        with pytest.raises((InvalidStatus, ConnectionClosed)):
            await read_to_the_end(f"{url.replace('http', 'ws')}/raw/websocket")
        assert io.to("news").emit("more") == 0
        assert len(io.sockets.hub) == 0
