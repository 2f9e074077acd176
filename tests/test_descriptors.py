"""A process that may open no more files: who is there is served on, and who waits is let in when it may again."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import sys

import pytest

from polysock import SockJSRouter
from support.clients import TIMEOUT_SECONDS, Client, Quiet, Recorder, quiet, turns, until
from support.openfiles import no_more_files
from support.rawhttp import Connection as Wire
from support.rawhttp import request_bytes
from support.serving import serving

__all__ = ["quiet"]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs limits of a process")

GIVE_BACK = "a connection could not be given back to Tornado"


class Echo(Recorder):
    def on_message(self, message: str | bytes) -> None:
        self.send(message)


async def test_a_connection_that_cannot_go_back_ends_and_the_others_go_on(
    quiet: Quiet, caplog: pytest.LogCaptureFixture
) -> None:
    quiet.expect(GIVE_BACK)
    router = SockJSRouter(Echo, "/s")
    async with serving(router.urls) as base, Client(base, "websocket") as stays, await Wire.open(base) as wire:
        await stays.open()
        assert (await wire.request("POST", "/s/000/a/xhr")).body == b"o\n"
        with no_more_files():
            await wire.send("GET", "/s/info")  # not one of those that are answered there
            assert await wire.at_eof()
            await stays.send("still here")
            assert await stays.message() == "still here"
            await until(lambda: not router._gateway.lane._connections)
        assert [record.levelno for record in caplog.records if GIVE_BACK in record.message] == [logging.WARNING]
        async with await Wire.open(base) as again:
            assert (await again.request("GET", "/s/info")).status == 200
        await stays.socket.close()  # type: ignore[union-attr]
        router.close()


async def test_who_comes_while_none_is_free_is_served_when_one_is(
    quiet: Quiet, caplog: pytest.LogCaptureFixture
) -> None:
    """Accepting is Tornado's; what it says of it, in every turn of the loop, is its own."""
    quiet.expect("BaseAsyncIOLoop._handle_events")
    router = SockJSRouter(Echo, "/s")
    async with serving(router.urls) as base, Client(base, "websocket") as stays, await Wire.open(base) as polls:
        await stays.open()
        assert (await polls.request("POST", "/s/000/a/xhr")).body == b"o\n"
        port = int(base.rpartition(":")[2])
        with socket.socket() as late:
            late.setblocking(False)
            with no_more_files():
                assert late.connect_ex(("127.0.0.1", port)) in (0, errno.EINPROGRESS)
                await turns()
                late.send(request_bytes("a", "POST", "/s/000/b/xhr"))
                for text in ("one", "two"):
                    await stays.send(text)
                    assert await stays.message() == text
                    assert (await polls.request("POST", "/s/000/a/xhr_send", body=b'["three"]')).status == 204
                    assert (await polls.request("POST", "/s/000/a/xhr")).body == b'a["three"]\n'
                assert len(router._gateway.store) == 2
            await until(lambda: len(router._gateway.store) == 3)
            answer = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(late, 10_000), TIMEOUT_SECONDS)
            assert answer.endswith(b"\r\n\r\no\n")
        assert not [record.name for record in caplog.records if record.name.startswith("polysock")]
        await stays.socket.close()  # type: ignore[union-attr]
        router.close()
