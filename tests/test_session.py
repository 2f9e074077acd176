"""The life of a session: its states, its end, its queue, its handlers, its deadlines."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from polysock import CloseReason, Refused, SessionClosed, StateError
from polysock_transports.dialects.sockjs import SOCKJS as SOCKJS_DIALECT
from polysock_transports.errors import (
    ABNORMAL_CLOSURE,
    CLIENT_CLOSED,
    GO_AWAY,
    HANDLER_FAILED,
    INTERRUPTED,
    NORMAL,
    PING_TIMEOUT,
    SESSION_TIMEOUT,
    SLOW_CONSUMER,
    WRONG_ADDRESS,
)
from polysock_transports.limits import Limits
from polysock_transports.session import Session, State
from polysock_transports.store import SessionStore
from support.clients import (
    EVERY,
    HTTP,
    POLLING,
    SOCKJS,
    STREAMING,
    WEBSOCKETS,
    Client,
    Quiet,
    Recorder,
    endpoint,
    quiet,  # noqa: F401  # autouse: nothing here logs unannounced
    turns,
    until,
)
from support.clock import FakeClock
from support.rawhttp import PING, TEXT, HandshakeRefused, SocketClosed, encode_frame, request

HEARTBEAT_S, ANSWER_S, RETURN_S, HANDSHAKE_S, SWEEP_S = 25.0, 20.0, 5.0, 5.0, 1.0
LONG_S = 1000.0


class Listener:
    """What a session tells, written down."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def on_open(self) -> None:
        self.told.append("open")

    def on_message(self, data: str | bytes) -> None:
        self.told.append(data)

    def on_close(self, reason: CloseReason) -> None:
        self.told.append(reason)


def make_session() -> tuple[Session, Listener]:
    clock, limits, listener = FakeClock(), Limits(), Listener()
    store = SessionStore(limits, clock)
    session = Session("s", listener, SOCKJS_DIALECT, scheduler=store, clock=clock, limits=limits)
    store.add(session)
    return session, listener


def session_in(state: State) -> Session:
    session, _ = make_session()
    if state is State.CLOSED:
        session.discard()
    elif state is not State.CONNECTING:
        session.open()
        if state is State.CLOSING:
            session.close()
    assert session.state is state
    return session


def released(event: asyncio.Event) -> type[Recorder]:
    """An application whose handler of every message waits for *event*."""

    class Slow(Recorder):
        async def on_message(self, message: str | bytes) -> None:
            self.messages.append(f"begin {message!s}")
            await event.wait()
            self.messages.append(f"end {message!s}")

    return Slow


async def assert_ended_once(app: type[Recorder], clock: FakeClock, reason: CloseReason) -> None:
    """``on_close`` was called with *reason*, and is not called again however long the world goes on."""
    (connection,) = app.made
    await until(lambda: connection.closes)
    clock.advance(LONG_S)
    await until(lambda: connection.session.core.state is State.CLOSED)
    connection.close()
    await turns()
    assert connection.closes == [reason]
    assert connection.is_closed
    assert connection.close_reason == reason
    assert not connection.send("too late")
    with pytest.raises(SessionClosed):
        await connection.drain()
    assert clock.timers == 0


# --- states -----------------------------------------------------------------------------------------------------------

LEGAL = {
    (State.CONNECTING, State.OPEN),
    (State.CONNECTING, State.CLOSING),
    (State.CONNECTING, State.CLOSED),
    (State.OPEN, State.CLOSING),
    (State.CLOSING, State.CLOSED),
}


@pytest.mark.parametrize("target", State)
@pytest.mark.parametrize("state", State)
async def test_state_table(state: State, target: State) -> None:
    session = session_in(state)
    if (state, target) in LEGAL:
        session._move(target)
        assert session.state is target
    else:
        with pytest.raises(StateError, match=f"from {state.name} to {target.name}"):
            session._move(target)
        assert session.state is state


@pytest.mark.parametrize("state", [State.CONNECTING, State.CLOSED])
async def test_nothing_attaches_before_the_start_or_after_the_end(state: State) -> None:
    session = session_in(state)
    with pytest.raises(StateError, match=state.name):
        session.attach(None)  # type: ignore[arg-type]  # refused before it is looked at


async def test_close_twice_and_everything_after_the_end_is_harmless() -> None:
    session, listener = make_session()
    session.open()
    session.close(NORMAL)
    session.close(GO_AWAY)
    session.peer_closed(GO_AWAY)
    session.receive('["late"]')
    session.tick(LONG_S * LONG_S)
    session.discard()
    assert session.state is State.CLOSED
    assert session.reason is NORMAL
    assert not session.send("late")
    assert listener.told == ["open", NORMAL]


# --- exactly one on_close ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", WEBSOCKETS)
@pytest.mark.parametrize(("code", "text"), [(1000, ""), (3999, "b\u00ffe"), (1001, "away")])
async def test_client_says_goodbye(transport: str, code: int, text: str) -> None:
    class App(Recorder):
        pass

    clock = FakeClock()
    async with endpoint(App, clock=clock) as (base, _), Client(base, transport) as client:
        await client.open()
        assert client.socket is not None
        assert await client.socket.close(code, text) == (code, text)
        await assert_ended_once(App, clock, CloseReason(code, text, may_return=False))


@pytest.mark.parametrize("transport", EVERY)
async def test_client_is_cut_off(transport: str) -> None:
    class App(Recorder):
        pass

    clock = FakeClock()
    async with endpoint(App, clock=clock) as (base, _), Client(base, transport) as client:
        await client.open()
        if transport in POLLING:
            await client.attach()
        await until(lambda: App.made[0].session.core.attached)
        client.abort()
        await assert_ended_once(App, clock, ABNORMAL_CLOSURE if transport in WEBSOCKETS else INTERRUPTED)


@pytest.mark.parametrize("transport", POLLING)
async def test_client_does_not_come_back(transport: str) -> None:
    class App(Recorder):
        pass

    clock = FakeClock()
    async with endpoint(App, clock=clock) as (base, _), Client(base, transport) as client:
        await client.open()
        clock.advance(RETURN_S - 0.1)
        assert not App.made[0].closes
        clock.advance(SWEEP_S + 0.1)
        assert App.made[0].closes == [SESSION_TIMEOUT]
        await assert_ended_once(App, clock, SESSION_TIMEOUT)
        assert await client.send("to nobody") == 404


@pytest.mark.parametrize("transport", EVERY)
@pytest.mark.parametrize("where", ["on_open", "on_message", "on_close", "outside"])
async def test_application_closes(transport: str, where: str) -> None:
    class App(Recorder):
        def on_open(self, info: Any) -> None:
            if where == "on_open":
                self.close(3001, "enough")

        def on_message(self, message: str | bytes) -> None:
            self.close(3001, "enough")

        def on_close(self) -> None:
            super().on_close()
            if where == "on_close":
                self.close(3002, "twice")

    clock = FakeClock()
    async with endpoint(App, clock=clock) as (base, _), Client(base, transport) as client:
        await client.open()
        if where == "outside":
            App.made[0].close(3001, "enough")
        elif where != "on_open":
            await client.send("x", "never handled")
        assert await client.goodbye() == (3001, "enough")
        await assert_ended_once(App, clock, CloseReason(3001, "enough", may_return=False))


@pytest.mark.parametrize("transport", SOCKJS)
async def test_client_still_gets_what_was_sent_before_the_close(transport: str) -> None:
    class App(Recorder):
        def on_open(self, info: Any) -> None:
            self.send("one")
            self.send("two")
            self.close()

    async with endpoint(App) as (base, _), Client(base, transport) as client:
        await client.open()
        assert [await client.message(), await client.message()] == ["one", "two"]
        assert await client.goodbye() == (3000, "Go away!")


async def test_slow_consumer_between_polls() -> None:
    class App(Recorder):
        pass

    clock = FakeClock()
    async with (
        endpoint(App, {"queue_max_messages": 3}, clock=clock) as (base, _),
        Client(base, "xhr") as client,
    ):
        await client.open()
        assert [App.made[0].send("x") for _ in range(5)] == [True, True, True, False, False]
        assert await client.goodbye() == (SLOW_CONSUMER.code, SLOW_CONSUMER.text)
        await assert_ended_once(App, clock, SLOW_CONSUMER)


@pytest.mark.parametrize("transport", [*STREAMING, *WEBSOCKETS])
async def test_slow_consumer_that_does_not_read(transport: str) -> None:
    class App(Recorder):
        pass

    clock = FakeClock()
    settings = {"queue_max_bytes": 1_000_000, "response_limit_bytes": 1_000_000_000}
    async with endpoint(App, settings, clock=clock) as (base, _), Client(base, transport) as client:
        await client.open()
        for _ in range(1000):
            if not App.made[0].send("x" * 100_000):
                break
        await assert_ended_once(App, clock, SLOW_CONSUMER)


@pytest.mark.parametrize("transport", EVERY)
@pytest.mark.parametrize("late", [False, True], ids=["at once", "later"])
async def test_handler_fails(transport: str, late: bool, quiet: Quiet) -> None:  # noqa: F811
    class App(Recorder):
        def on_message(self, message: str | bytes) -> Any:
            self.messages.append(message)
            if late:
                return self.later()
            raise ZeroDivisionError("on purpose")

        async def later(self) -> None:
            await asyncio.sleep(0)
            raise ZeroDivisionError("on purpose")

    quiet.expect("a message handler failed")
    clock = FakeClock()
    async with endpoint(App, clock=clock) as (base, _), Client(base, transport) as client:
        await client.open()
        await client.send("one", "two")
        assert await client.goodbye() == (1011, "Internal error")
        await assert_ended_once(App, clock, HANDLER_FAILED)
        assert App.made[0].messages == ["one"]


@pytest.mark.parametrize("late", [False, True], ids=["plain", "async"])
async def test_failing_on_close_is_logged_and_harms_nobody(late: bool, quiet: Quiet) -> None:  # noqa: F811
    class App(Recorder):
        def on_close(self) -> Any:
            super().on_close()
            if late:
                return self.later()
            raise ZeroDivisionError("on purpose")

        async def later(self) -> None:
            raise ZeroDivisionError("on purpose")

    quiet.expect("on_close failed")
    clock = FakeClock()
    async with endpoint(App, clock=clock) as (base, _), Client(base, "xhr") as client:
        await client.open()
        App.made[0].close()
        assert await client.goodbye() == (3000, "Go away!")
        await assert_ended_once(App, clock, GO_AWAY)


@pytest.mark.parametrize("transport", EVERY)
@pytest.mark.parametrize("way", ["False", "Refused", "async"])
async def test_refused_client_has_no_on_close(transport: str, way: str) -> None:
    class App(Recorder):
        def on_open(self, info: Any) -> Any:
            if way == "Refused":
                raise Refused(418, "not you")
            return self.refuse() if way == "async" else False

        async def refuse(self) -> bool:
            await asyncio.sleep(0)
            return False

    clock = FakeClock()
    async with endpoint(App, clock=clock) as (base, router), Client(base, transport) as client:
        if transport == "rawwebsocket" and way != "async":
            with pytest.raises(HandshakeRefused):
                await client.attach()
        else:
            await client.attach()
            assert (await client.goodbye())[0] == 1008
        clock.advance(LONG_S)
        await turns()
        assert App.made[0].closes == []
        assert router.stats.dump()["sessions_active"] == 0
        client.abort()
        await until(lambda: clock.timers == 0)


# --- the queue --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", SOCKJS)
async def test_nothing_is_lost_or_reordered_between_receiving_requests(transport: str) -> None:
    class App(Recorder):
        def on_message(self, message: str | bytes) -> None:
            self.send(message)

    async with (
        endpoint(App, {"response_limit_bytes": 100, "queue_max_messages": 1_000}) as (base, _),
        Client(base, transport) as client,
    ):
        await client.open()
        sent = [f"message {number}" for number in range(60)]
        got = []
        for start in range(0, len(sent), 6):
            # Two payloads, then fewer frames read than messages sent: some wait, some are on their way.
            await client.send(*sent[start : start + 3])
            await client.send(*sent[start + 3 : start + 6])
            got.append(await client.message())
        while len(got) < len(sent):
            got.append(await client.message())
        assert got == sent


async def test_drain_wakes_when_the_client_has_caught_up() -> None:
    class App(Recorder):
        pass

    async with endpoint(App, {"queue_high_bytes": 100}) as (base, _), Client(base, "xhr") as client:
        await client.open()
        connection = App.made[0]
        await connection.drain()  # nothing waits, so this does not either
        connection.send("x" * 200)
        waiting = [asyncio.ensure_future(connection.drain()) for _ in range(3)]
        await turns()
        assert not any(task.done() for task in waiting)
        waiting[0].cancel()
        assert await client.message() == "x" * 200
        await asyncio.wait_for(asyncio.gather(*waiting[1:]), 5)
        assert waiting[0].cancelled()


async def test_drain_raises_when_the_session_ends() -> None:
    class App(Recorder):
        pass

    async with endpoint(App, {"queue_high_bytes": 100}) as (base, _), Client(base, "xhr") as client:
        await client.open()
        connection = App.made[0]
        connection.send("x" * 200)
        waiting = asyncio.ensure_future(connection.drain())
        await turns()
        connection.close(3005, "over")
        with pytest.raises(SessionClosed, match="3005 over") as raised:
            await asyncio.wait_for(waiting, 5)
        assert raised.value.reason == CloseReason(3005, "over", may_return=False)


async def test_handler_that_waits_for_drain_is_told_of_the_end_without_a_word_in_the_log() -> None:
    class App(Recorder):
        async def on_message(self, message: str | bytes) -> None:
            self.send("x" * 200)
            await self.drain()

    clock = FakeClock()
    async with endpoint(App, {"queue_high_bytes": 100}, clock=clock) as (base, _), Client(base, "xhr") as client:
        await client.open()
        assert await client.send("go") == 204
        clock.advance(RETURN_S + SWEEP_S)
        await assert_ended_once(App, clock, SESSION_TIMEOUT)


# --- handlers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", EVERY)
async def test_handlers_of_one_client_run_one_after_another(transport: str) -> None:
    class App(Recorder):
        async def on_open(self, info: Any) -> None:
            self.messages.append("begin open")
            await turns(3)
            self.messages.append("end open")

        async def on_message(self, message: str | bytes) -> None:
            self.messages.append(f"begin {message!s}")
            await turns(3)
            self.messages.append(f"end {message!s}")
            self.send(message)

    async with endpoint(App) as (base, _), Client(base, transport) as client:
        await client.open()
        await client.send("1", "2")
        await client.send("3")
        assert [await client.message() for _ in range(3)] == ["1", "2", "3"]
        expected = [f"{edge} {name}" for name in ("open", "1", "2", "3") for edge in ("begin", "end")]
        assert App.made[0].messages == expected


async def test_slow_handler_stops_reading_from_its_own_websocket_and_from_no_other() -> None:
    release = asyncio.Event()

    class App(Recorder):
        async def on_message(self, message: str | bytes) -> None:
            self.messages.append(message)
            if message == "slow":
                await release.wait()
            self.send(message[:5])

    big, count = "x" * 60_000, 400
    async with endpoint(App) as (base, _), Client(base, "rawwebsocket") as slow, Client(base, "rawwebsocket") as quick:
        await slow.open()
        await quick.open()
        assert slow.socket is not None
        await slow.send("slow")
        await until(lambda: App.made[0].messages)
        writer = slow.socket.connection.writer
        for _ in range(count):
            writer.write(encode_frame(TEXT, big.encode()))
        for number in range(200):
            await quick.send(f"{number}")
            assert await quick.message() == f"{number}"
        # 24 MB were sent: what the kernel does not hold must still be with the client.
        assert writer.transport.get_write_buffer_size() > 0
        assert App.made[0].session.core._inbox_bytes <= Limits().read_chunk_bytes
        assert App.made[0].messages == ["slow"]
        release.set()
        assert await slow.message() == "slow"
        for _ in range(count):
            assert await slow.message() == "xxxxx"
        assert len(App.made[0].messages) == count + 1


@pytest.mark.parametrize("transport", ["xhr", "jsonp"])
async def test_slow_handler_makes_posts_wait_and_then_refuses_them(transport: str) -> None:
    release = asyncio.Event()
    app = released(release)
    settings = {"max_inbox_messages": 2, "max_waiting_sends": 1}
    async with (
        endpoint(app, settings) as (base, _),
        Client(base, transport) as client,
        Client(base, transport) as bystander,
    ):
        await client.open()
        await bystander.open()
        accepted = 204 if transport == "xhr" else 200
        assert await client.send("1") == accepted  # being handled
        assert await client.send("2") == accepted  # waits for its turn
        third = asyncio.ensure_future(client.send("3"))  # fills the inbox
        core = app.made[0].session.core
        await until(lambda: core.inbox_full)
        assert await client.send("4") == 503
        assert await bystander.send("other") == accepted
        assert not third.done()
        release.set()
        assert await asyncio.wait_for(third, 5) == accepted
        assert await client.send("5") == accepted
        await until(lambda: app.made[0].messages[-1] == "end 5")
        assert [text for text in app.made[0].messages if text.startswith("begin")] == [  # type: ignore[union-attr, arg-type]
            "begin 1",
            "begin 2",
            "begin 3",
            "begin 5",
        ]


async def test_inbox_that_one_payload_overfills_refuses_the_next() -> None:
    release = asyncio.Event()
    app = released(release)
    async with endpoint(app, {"max_inbox_messages": 2}) as (base, _), Client(base, "xhr") as client:
        await client.open()
        first = asyncio.ensure_future(client.send("1", "2", "3", "4", "5"))
        await until(lambda: app.made and app.made[0].session.core.inbox_full)
        assert await client.send("6") == 503
        release.set()
        assert await asyncio.wait_for(first, 5) == 204
        await until(lambda: len(app.made[0].messages) == 10)


async def test_post_that_waits_is_answered_when_the_session_ends() -> None:
    never = asyncio.Event()
    app = released(never)
    async with endpoint(app, {"max_inbox_messages": 1}) as (base, _), Client(base, "xhr") as client:
        await client.open()
        assert await client.send("1") == 204
        waiting = asyncio.ensure_future(client.send("2"))
        await until(lambda: app.made[0].session.core._room_waiters)
        app.made[0].close()
        assert await asyncio.wait_for(waiting, 5) == 204
        never.set()


@pytest.mark.parametrize("transport", WEBSOCKETS)
async def test_nothing_is_read_while_the_client_is_being_let_in(transport: str) -> None:
    release = asyncio.Event()

    class App(Recorder):
        async def on_open(self, info: Any) -> None:
            await release.wait()

    async with endpoint(App) as (base, _), Client(base, transport) as client:
        await client.open()
        # One read may stand already; what comes after it must wait with the client.
        for number in range(5):
            await client.send(f"{number}")
            await turns(20)
        assert App.made[0].session.core._inbox_messages <= 1
        assert App.made[0].messages == []
        release.set()
        await until(lambda: App.made[0].messages == [f"{number}" for number in range(5)])


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_post_whose_client_left_while_it_waited(version: str) -> None:
    release = asyncio.Event()
    app = released(release)
    async with (
        endpoint(app, {"max_inbox_messages": 1}) as (base, _),
        Client(base, "xhr") as client,
        Client(base, "xhr") as sender,
    ):
        await client.open()
        assert await client.send("1") == 204
        await sender.open()
        assert sender.connection is not None
        await sender.connection.send("POST", f"{client.url}/xhr_send", body=b'["2"]', version=version)
        core = app.made[0].session.core
        await until(lambda: core.inbox_full)
        sender.abort()
        await turns(100)
        release.set()
        await until(lambda: app.made[0].messages[-1] == "end 2")
        await turns(100)
        assert await client.send("3") == 204


@pytest.mark.parametrize("transport", [*STREAMING, *WEBSOCKETS])
async def test_messages_accepted_before_the_client_left_are_handled_before_on_close(transport: str) -> None:
    release = asyncio.Event()

    class App(released(release)):  # type: ignore[misc]
        def on_close(self) -> None:
            self.messages.append("close")
            super().on_close()

    async with endpoint(App) as (base, _), Client(base, transport) as client:
        await client.open()
        await client.send("1", "2")
        await client.send("3")
        connection = App.made[0]
        core = connection.session.core
        if transport not in WEBSOCKETS:
            await until(lambda: len(core._inbox) == 2)
            client.abort()
            await until(lambda: core.state is State.CLOSING)
        else:
            assert client.socket is not None
            await client.socket.send_close(1000)
            await turns(100)
        assert connection.closes == []
        release.set()
        await until(lambda: connection.closes)
        expected = [f"{edge} {number}" for number in (1, 2, 3) for edge in ("begin", "end")]
        assert connection.messages == [*expected, "close"]
        assert connection.closes == [
            CloseReason(1000, "", may_return=False) if transport in WEBSOCKETS else INTERRUPTED
        ]


@pytest.mark.parametrize("transport", STREAMING)
async def test_stuck_handler_does_not_hold_back_on_close_for_ever(transport: str) -> None:
    never = asyncio.Event()
    app = released(never)
    clock = FakeClock()
    settings = {"close_timeout_s": 3, "disconnect_delay_s": 7, "sweep_interval_s": 1}
    async with endpoint(app, settings, clock=clock) as (base, _), Client(base, transport) as client:
        await client.open()
        await client.send("1", "2")
        connection = app.made[0]
        client.abort()
        await until(lambda: connection.session.core.state is State.CLOSING)
        clock.advance(2.9)
        assert connection.closes == []
        clock.advance(1.1)
        assert connection.closes == [INTERRUPTED]
        never.set()
        await assert_ended_once(app, clock, INTERRUPTED)
        assert "begin 2" not in connection.messages


async def test_stuck_handler_of_a_websocket_that_the_application_closes() -> None:
    never = asyncio.Event()
    app = released(never)
    clock = FakeClock()
    async with endpoint(app, clock=clock) as (base, _), Client(base, "websocket") as client:
        await client.open()
        await client.send("1")
        await until(lambda: app.made[0].messages)
        app.made[0].close()
        assert app.made[0].closes == [GO_AWAY]  # our own decision waits for nobody
        assert await client.goodbye() == (3000, "Go away!")
        assert client.socket is not None
        assert await client.socket.expect_close() == (3000, "Go away!")
        never.set()
        await assert_ended_once(app, clock, GO_AWAY)


# --- liveness ---------------------------------------------------------------------------------------------------------


async def attached(client: Client, app: type[Recorder]) -> Session:
    """Open *client* and leave a receiving connection standing."""
    await client.open()
    core: Session = app.made[0].session.core
    if client.transport in POLLING:
        await client.attach()
        await until(lambda: core.attached)
    return core


@pytest.mark.parametrize("transport", HTTP)
async def test_silence_brings_a_heartbeat(transport: str) -> None:
    class App(Recorder):
        pass

    clock = FakeClock()
    async with endpoint(App, clock=clock) as (base, _), Client(base, transport) as client:
        await attached(client, App)
        clock.advance(HEARTBEAT_S + SWEEP_S)
        assert await client.frame() == "h"
        assert App.made[0].closes == []


@pytest.mark.parametrize("transport", [*STREAMING, "websocket"])
async def test_what_is_sent_puts_the_heartbeat_off(transport: str) -> None:
    class App(Recorder):
        pass

    clock = FakeClock()
    async with endpoint(App, clock=clock) as (base, _), Client(base, transport) as client:
        await attached(client, App)
        for number in range(3):
            clock.advance(12)
            App.made[0].send(f"{number}")
            assert await client.frame() == f'a["{number}"]'


async def test_framed_websocket_gets_both_kinds_of_heartbeat() -> None:
    class App(Recorder):
        pass

    clock = FakeClock()
    async with endpoint(App, clock=clock) as (base, _), Client(base, "websocket") as client:
        await client.open()
        clock.advance(HEARTBEAT_S + SWEEP_S)
        assert client.socket is not None
        seen = [await client.socket.recv(), await client.socket.recv()]
        assert sorted(seen) == [(TEXT, b"h"), (PING, b"")]


async def test_raw_websocket_is_pinged_and_sees_no_frame_of_ours() -> None:
    class App(Recorder):
        pass

    clock = FakeClock()
    async with endpoint(App, clock=clock) as (base, _), Client(base, "rawwebsocket") as client:
        await client.open()
        clock.advance(HEARTBEAT_S + SWEEP_S)
        assert client.socket is not None
        assert await client.socket.recv() == (PING, b"")
        App.made[0].send("first")
        assert await client.socket.recv() == (TEXT, b"first")


@pytest.mark.parametrize("transport", EVERY)
async def test_peer_that_vanished_is_noticed(transport: str) -> None:
    """It keeps its TCP connection open (nobody told us otherwise) and answers nothing."""

    class App(Recorder):
        pass

    clock = FakeClock()
    async with endpoint(App, clock=clock) as (base, _), Client(base, transport) as client:
        await attached(client, App)
        clock.advance(HEARTBEAT_S - 0.1)
        assert App.made[0].closes == []
        clock.advance(ANSWER_S + SWEEP_S + 0.1)
        expected = PING_TIMEOUT if transport in WEBSOCKETS else SESSION_TIMEOUT
        await assert_ended_once(App, clock, expected)


@pytest.mark.parametrize("transport", EVERY)
async def test_peer_that_vanished_is_noticed_although_we_keep_sending(transport: str) -> None:
    class App(Recorder):
        pass

    clock = FakeClock()
    async with endpoint(App, clock=clock) as (base, _), Client(base, transport) as client:
        await attached(client, App)
        for _ in range(int(HEARTBEAT_S + ANSWER_S + SWEEP_S)):
            clock.advance(1)
            App.made[0].send("tick")
            await turns(3)
        await assert_ended_once(App, clock, PING_TIMEOUT if transport in WEBSOCKETS else SESSION_TIMEOUT)


@pytest.mark.parametrize("transport", EVERY)
async def test_peer_that_answers_lives_on(transport: str) -> None:
    class App(Recorder):
        pass

    clock = FakeClock()
    async with endpoint(App, clock=clock) as (base, _), Client(base, transport) as client:
        core = await attached(client, App)

        async def listen() -> None:
            while True:
                await client.frame()

        listening = asyncio.ensure_future(listen())
        try:
            for _ in range(int(3 * (HEARTBEAT_S + ANSWER_S) / 5)):
                clock.advance(5)
                if transport in WEBSOCKETS:
                    await until(lambda: not core._pinged)
                else:
                    await until(lambda: core.attached)
        finally:
            listening.cancel()
        assert core.is_open
        assert App.made[0].closes == []


@pytest.mark.parametrize("transport", WEBSOCKETS)
async def test_running_handler_is_not_taken_for_a_dead_peer(transport: str) -> None:
    release = asyncio.Event()
    app = released(release)
    clock = FakeClock()
    async with endpoint(app, clock=clock) as (base, _), Client(base, transport) as client:
        await client.open()
        await client.send("long work")
        await until(lambda: app.made[0].messages)
        clock.advance(10 * (HEARTBEAT_S + ANSWER_S) + HEARTBEAT_S / 2)
        assert app.made[0].closes == []
        release.set()
        await until(lambda: len(app.made[0].messages) == 2)
        clock.advance(HEARTBEAT_S - 1)
        assert app.made[0].closes == []
        assert not app.made[0].session.core._pinged  # its time began when the handler was done


@pytest.mark.parametrize("transport", WEBSOCKETS)
async def test_peer_that_does_not_answer_a_close_is_cut_off(transport: str) -> None:
    class App(Recorder):
        pass

    clock = FakeClock()
    async with endpoint(App, clock=clock) as (base, _), Client(base, transport) as client:
        await client.open()
        App.made[0].close()
        core = App.made[0].session.core
        clock.advance(HANDSHAKE_S - 0.1)
        assert core.state is State.CLOSING
        clock.advance(SWEEP_S)
        assert core.state is State.CLOSED
        assert clock.timers == 0


# --- after the end ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", HTTP)
async def test_close_is_repeated_until_the_disconnect_delay_has_passed(transport: str) -> None:
    class App(Recorder):
        pass

    clock = FakeClock()
    async with endpoint(App, clock=clock) as (base, _):
        async with Client(base, transport) as client:
            await client.open()
            App.made[0].close(3003, "done")
            assert await client.goodbye() == (3003, "done")
            session_id = client.session_id
        for late in HTTP:
            clock.advance(RETURN_S / (len(HTTP) + 1))
            async with Client(base, late, session_id=session_id) as again:
                assert await again.goodbye() == (3003, "done")
                assert await again.send("late") == 404
        clock.advance(RETURN_S)
        async with Client(base, transport, session_id=session_id) as fresh:
            await fresh.open()
        assert len(App.made) == 2
        assert len(App.made[0].closes) == 1


@pytest.mark.parametrize("transport", HTTP)
async def test_second_receiver_is_turned_away(transport: str) -> None:
    class App(Recorder):
        pass

    async with endpoint(App) as (base, _), Client(base, "xhr_streaming") as first:
        await first.open()
        async with Client(base, transport, session_id=first.session_id) as second:
            assert await second.goodbye() == (2010, "Another connection still open")
        App.made[0].send("still here")
        assert await first.message() == "still here"


async def test_verify_ip() -> None:
    class App(Recorder):
        pass

    settings = {"verify_ip": True, "trusted_proxies": ["127.0.0.1"]}
    mine, other = [("X-Forwarded-For", "192.0.2.1")], [("X-Forwarded-For", "192.0.2.2")]
    async with endpoint(App, settings) as (base, _), Client(base, "xhr", headers=mine) as client:
        await client.open()
        assert App.made[0].info.ip == "192.0.2.1"
        async with Client(base, "xhr", session_id=client.session_id, headers=other) as stranger:
            assert await stranger.goodbye() == (WRONG_ADDRESS.code, WRONG_ADDRESS.text)
            assert await stranger.send("mine now") == 403
        assert await client.send("mine") == 204
        assert App.made[0].messages == ["mine"]
        App.made[0].send("still yours")
        assert await client.message() == "still yours"


async def test_session_of_another_address_is_served_without_verify_ip() -> None:
    class App(Recorder):
        pass

    async with endpoint(App, {"trusted_proxies": ["127.0.0.1"]}) as (base, _), Client(base, "xhr") as client:
        await client.open()
        moved = [("X-Forwarded-For", "192.0.2.2")]
        answer = await request(base, "POST", f"{client.url}/xhr_send", headers=moved, body=json.dumps(["hi"]).encode())
        assert answer.status == 204


async def test_framed_websocket_tells_its_end_in_both_languages() -> None:
    class App(Recorder):
        pass

    async with endpoint(App) as (base, _), Client(base, "websocket") as client:
        await client.open()
        App.made[0].close(3007, "twice told")
        assert await client.goodbye() == (3007, "twice told")
        with pytest.raises(SocketClosed, match="3007 'twice told'"):
            await client.frame()


def test_client_closed_is_for_good() -> None:
    assert not CLIENT_CLOSED.may_return
    assert all(reason.may_return for reason in (INTERRUPTED, PING_TIMEOUT, SESSION_TIMEOUT, SLOW_CONSUMER))
