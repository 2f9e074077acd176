"""python-socketio's client, another implementation of the same protocol: other HTTP habits, and no JavaScript.

Its calls block, so each conversation runs in a thread beside the server's event loop.  Its handlers run in threads of
their own, so the order in which they are called says nothing.
"""

from __future__ import annotations

import asyncio
import queue
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import requests
import socketio
from engineio.payload import Payload
from socketio.exceptions import ConnectionError as ConnectionFailed

from interop.socketio_app import AWKWARD_EVENT, Lab
from support.clients import quiet, until
from support.hub import assert_no_ghosts

__all__ = ["quiet"]

STEP_S = 30
NAMESPACES = ["/", "/chat"]
TEXT = 'h\u00e9\u20ac\U0001f600\u2028 "quoted" \\back\\slash\n\0\x1e2'
DATA = {"list": [b"\0\xff", {"\u00e9": [b"", TEXT]}], "n": [1, None, True, -1.5]}
BURST = 200

TRANSPORTS = {"polling": ["polling"], "websocket": ["websocket"], "upgrade": ["polling", "websocket"]}
over_each_transport = pytest.mark.parametrize("transport", TRANSPORTS)


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    # A client whose POST is on its way when it is told to go waits for the end of its poll, and that for a ping.
    async with Lab(heartbeat_delay=2) as made:
        yield made
        io = made.main.io
        assert io is not None
        # A client whose POST is on its way when it is told to go forgets to say goodbye.
        await made.main.stop()
        await until(lambda: not any(len(namespace.hub) for namespace in io.namespaces.values()))
        assert_no_ghosts(io)


async def in_thread(conversation: Callable[..., None], *args: Any) -> None:
    await asyncio.wait_for(asyncio.to_thread(conversation, *args), 3 * STEP_S)


@contextmanager
def new_client() -> Iterator[socketio.Client]:
    """A client that is out of everything when this ends; by itself it would leave its HTTP connections open."""
    with requests.Session() as session:
        client = socketio.Client(
            handle_sigint=False, http_session=session, reconnection_delay=0.05, randomization_factor=0
        )
        try:
            yield client
        finally:
            client.disconnect()
            client.eio.wait()


@contextmanager
def connected(url: str, transport: str, **options: Any) -> Iterator[tuple[socketio.Client, queue.Queue[Any]]]:
    """A client in all NAMESPACES, and what it hears: (event, namespace, arguments)."""
    heard: queue.Queue[Any] = queue.Queue()
    with new_client() as client:
        for namespace in NAMESPACES:
            client.on("*", lambda event, *args, ns=namespace: heard.put((event, ns, args)), namespace=namespace)
            for event in ("connect", "disconnect"):
                client.on(event, lambda *args, e=event, ns=namespace: heard.put((e, ns, args)), namespace=namespace)
        enter(client, url, transport, **options)
        for _ in NAMESPACES:
            assert heard.get(timeout=STEP_S)[0] == "connect"
        yield client, heard


def enter(client: socketio.Client, url: str, transport: str, **options: Any) -> None:
    options = {"namespaces": NAMESPACES, "wait_timeout": STEP_S, **options}
    client.connect(url, transports=TRANSPORTS[transport], **options)
    assert client.transport() == ("polling" if transport == "polling" else "websocket")


@over_each_transport
async def test_events_and_acks_both_ways(lab: Lab, transport: str) -> None:
    def conversation() -> None:
        auth = {"name": TEXT}
        with connected(f"{lab.url}?tag=caf%C3%A9", transport, auth=auth) as (client, heard):
            for namespace in NAMESPACES:
                me = client.call("who am i", namespace=namespace, timeout=STEP_S)
                assert (me["namespace"], me["id"]) == (namespace, client.get_sid(namespace))
                assert (me["auth"], me["query"]["tag"]) == (auth, "caf\u00e9")
                for values in ((), (TEXT,), (DATA, TEXT), (b"\0" * 300_000, "\u00e9" * 50_000)):
                    client.emit("echo", values, namespace=namespace)
                    assert heard.get(timeout=STEP_S) == ("echoed", namespace, values)
                    answer = client.call("ack", values, namespace=namespace, timeout=STEP_S)
                    assert answer == (None if not values else values[0] if len(values) == 1 else values)
                client.emit(AWKWARD_EVENT, namespace=namespace)
                assert heard.get(timeout=STEP_S) == (AWKWARD_EVENT, namespace, ())
                client.on("question", lambda question: ([question], TEXT), namespace=namespace)
                answer = client.call("ask", DATA, namespace=namespace, timeout=STEP_S)
                assert answer == ([DATA], TEXT)
                client.emit("ask with a callback", b"\xff", namespace=namespace)
                assert heard.get(timeout=STEP_S) == ("answered", namespace, ([b"\xff"], TEXT))

    await in_thread(conversation)


@over_each_transport
async def test_rooms_and_bursts(lab: Lab, transport: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Its documented way to more than 16 packets in an answer to a poll, which every server sends after a burst.
    monkeypatch.setattr(Payload, "max_decode_packets", 2 * BURST + 1)

    def conversation() -> None:
        with connected(lab.url, transport) as (one, heard), connected(lab.url, transport) as (other, heard_by_other):
            for client in (one, other, one):
                client.call("join", "room", timeout=STEP_S)
            one.call("tell", ("room", "all"), timeout=STEP_S)
            assert heard.get(timeout=STEP_S) == heard_by_other.get(timeout=STEP_S) == ("news", "/", ("all",))
            one.call("tell the others", ("room", "others"), timeout=STEP_S)
            assert heard_by_other.get(timeout=STEP_S) == ("news", "/", ("others",))
            for number in range(BURST):
                one.emit("number", number)
            one.emit("burst", BURST)
            assert one.call("numbers", timeout=STEP_S) == list(range(BURST))
            got = [heard.get(timeout=STEP_S) for _ in range(2 * BURST)]
            expected = [(event, "/", (number,)) for event in ("numbered", "burst") for number in range(BURST)]
            assert sorted(got) == sorted(expected)
            assert heard.empty()
            assert heard_by_other.empty()

    await in_thread(conversation)


@over_each_transport
async def test_refusals(lab: Lab, transport: str) -> None:
    def conversation() -> None:
        errors: queue.Queue[Any] = queue.Queue()
        with new_client() as client:
            for namespace, answer in (
                ("/guarded", {"message": "not authorized", "data": {"why": "nope"}}),
                ("/nowhere", {"message": "Invalid namespace"}),
            ):
                client.on("connect_error", errors.put, namespace=namespace)
                with pytest.raises(ConnectionFailed, match=namespace):
                    enter(client, lab.url, transport, namespaces=["/", namespace], auth={"token": "wrong"})
                assert errors.get(timeout=STEP_S) == answer
                client.eio.wait()
            enter(client, lab.url, transport, namespaces=["/guarded"], auth={"token": "sesame"})
            assert client.call("ack", "in", namespace="/guarded", timeout=STEP_S) == "in"

    await in_thread(conversation)


@over_each_transport
async def test_the_server_ends_it(lab: Lab, transport: str) -> None:
    def conversation() -> None:
        with connected(f"{lab.url}?tag=kicked", transport) as (client, heard):
            client.emit("kick", namespace="/chat")
            assert heard.get(timeout=STEP_S) == ("disconnect", "/chat", (client.reason.SERVER_DISCONNECT,))
            assert client.call("ack", "still here", timeout=STEP_S) == "still here"
            client.emit("kick from all")
            assert heard.get(timeout=STEP_S) == ("disconnect", "/", (client.reason.SERVER_DISCONNECT,))
            client.eio.wait()
            assert not client.connected

    await in_thread(conversation)
    assert await lab.visits.left("kicked", "/chat") == await lab.visits.left("kicked", "/")
    assert dict(lab.visits.entered["kicked"]) == {"/": 1, "/chat": 1}


@over_each_transport
async def test_the_server_restarts(lab: Lab, transport: str) -> None:
    loop = asyncio.get_running_loop()
    site = lab.spawn()

    def conversation() -> None:
        with connected(f"http://127.0.0.1:{site.port}", transport) as (client, heard):
            before, websocket = client.get_sid("/"), client.eio.ws
            asyncio.run_coroutine_threadsafe(site.stop(), loop).result(STEP_S)
            lost = [heard.get(timeout=STEP_S) for _ in NAMESPACES]
            assert {event for event, _, _ in lost} == {"disconnect"}
            loop.call_soon_threadsafe(site.start)
            back = [heard.get(timeout=STEP_S) for _ in NAMESPACES]
            assert {event for event, _, _ in back} == {"connect"}
            assert client.get_sid("/") != before
            for namespace in NAMESPACES:
                assert client.call("ack", DATA, namespace=namespace, timeout=STEP_S) == DATA
            if websocket is not None:
                websocket.shutdown()  # the client has forgotten it, and its socket would be found open

    await in_thread(conversation)
