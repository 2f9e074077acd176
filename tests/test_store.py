"""The store: one timer for all sessions, nothing left behind, and how many there may be."""

from __future__ import annotations

import pytest

from polysock_transports.dialects.sockjs import SOCKJS
from polysock_transports.errors import CloseReason, Refused
from polysock_transports.limits import Limits
from polysock_transports.session import Session, State
from polysock_transports.store import SessionStore
from support.clients import (
    EVERY,
    WEBSOCKETS,
    Client,
    Recorder,
    endpoint,
    quiet,  # noqa: F401  # autouse: nothing here logs unannounced
    until,
)
from support.clock import FakeClock
from support.rawhttp import HandshakeRefused, request

LIMITS = Limits()


class Listener:
    def on_open(self) -> None: ...

    def on_message(self, data: str | bytes) -> None: ...

    def on_close(self, reason: CloseReason) -> None: ...


def make(clock: FakeClock, limits: Limits = LIMITS) -> SessionStore:
    return SessionStore(limits, clock)


def add(store: SessionStore, clock: FakeClock, name: str, *, address: str = "a", resumable: bool = True) -> Session:
    session = Session(
        name, Listener(), SOCKJS, scheduler=store, clock=clock, limits=LIMITS, address=address, resumable=resumable
    )
    store.check_room(address)
    store.add(session)
    session.open()
    return session


async def test_one_timer_for_all_sessions_and_none_for_nobody() -> None:
    clock = FakeClock()
    store = make(clock)
    assert clock.timers == 0
    for number in range(200):
        add(store, clock, f"{number}")
        clock.advance(0.01)
        assert clock.timers == 1
    clock.advance(LIMITS.disconnect_delay_s + LIMITS.sweep_interval_s)
    assert len(store) == 0
    assert clock.timers == 0


async def test_removing_the_last_session_stops_the_timer() -> None:
    clock = FakeClock()
    store = make(clock)
    one, two = add(store, clock, "1"), add(store, clock, "2")
    store.remove(one)
    store.remove(one)  # twice is no harm
    assert (len(store), clock.timers) == (1, 1)
    store.remove(two)
    assert (len(store), clock.timers) == (0, 0)
    assert one.deadline is None
    assert not store._heap


async def test_deadlines_are_met_in_their_order_and_no_later_than_one_sweep() -> None:
    clock = FakeClock()
    store = make(clock)
    ended: list[tuple[str, float]] = []
    begin = clock.now()
    sessions = []
    for number in range(10):
        sessions.append(add(store, clock, f"{number}"))
        clock.advance(0.3)
    for _ in range(100):
        clock.advance(0.1)
        for session in sessions:
            if session.state is State.CLOSED and session.id not in dict(ended):
                ended.append((session.id, clock.now() - begin))
    assert [name for name, _ in ended] == [f"{number}" for number in range(10)]
    for name, at in ended:
        due = int(name) * 0.3 + LIMITS.disconnect_delay_s
        assert due - 0.01 <= at <= due + LIMITS.sweep_interval_s + 0.11


async def test_a_sooner_deadline_wakes_the_sweep_sooner() -> None:
    clock = FakeClock()
    store = make(clock)
    session = add(store, clock, "s")
    ticks: list[float] = []
    begin = clock.now()
    store.schedule(session, begin + 100)  # later than what stands: changes nothing
    store.schedule(session, begin + 2)
    store.schedule(session, begin + 3)
    assert clock.timers == 1
    assert store._timer_at == begin + 2
    clock.advance(2)
    ticks.append(clock.now())
    assert session.deadline is not None
    assert session.deadline[0] == begin + LIMITS.disconnect_delay_s  # the tick found nothing due and put it back


async def test_attaching_and_detaching_leaves_nothing_behind() -> None:
    class App(Recorder):
        pass

    clock = FakeClock()
    async with endpoint(App, clock=clock) as (base, router), Client(base, "xhr") as client:
        await client.open()
        store = router._gateway.store
        most = 0
        for number in range(300):
            App.made[0].send(f"{number}")
            assert await client.message() == f"{number}"
            clock.advance(0.2)
            most = max(most, len(store._heap))
            assert clock.timers == 1
        # Entries that a sooner one has replaced stay for a heartbeat at the most: a handful, not one for each poll.
        assert most <= LIMITS.heartbeat_delay_s / LIMITS.disconnect_delay_s + 2
        App.made[0].close()
        assert (await client.goodbye())[0] == 3000
        clock.advance(LIMITS.disconnect_delay_s + LIMITS.sweep_interval_s)
        assert len(store) == 0
        assert not store._heap
        assert not store._by_id
        assert not store._by_address
        assert clock.timers == 0


async def test_websockets_that_come_and_go_leave_nothing_behind() -> None:
    class App(Recorder):
        pass

    clock = FakeClock()
    async with endpoint(App, clock=clock) as (base, router):
        store = router._gateway.store
        for transport in WEBSOCKETS * 10:
            async with Client(base, transport) as client:
                await client.open()
                assert len(store) == 1
                assert not store._by_id  # nobody can attach to a WebSocket's session
            await until(lambda: len(store) == 0)
        assert not store._heap
        assert not store._by_address
        assert clock.timers == 0


async def test_one_id_finds_one_session_and_a_websocket_of_the_same_id_is_another() -> None:
    clock = FakeClock()
    store = make(clock)
    polling = add(store, clock, "same")
    socket = add(store, clock, "same", resumable=False)
    assert store.get("same") is polling
    store.remove(socket)
    assert store.get("same") is polling
    store.remove(polling)
    assert store.get("same") is None


async def test_room_is_counted_and_given_back() -> None:
    clock = FakeClock()
    store = make(clock, Limits(max_sessions=3, max_sessions_per_address=2))
    one, _ = add(store, clock, "1"), add(store, clock, "2")
    with pytest.raises(Refused, match="address") as raised:
        add(store, clock, "3")
    assert raised.value.status == 429
    add(store, clock, "4", address="b")
    with pytest.raises(Refused, match="server") as raised:
        add(store, clock, "5", address="c")
    assert raised.value.status == 503
    store.remove(one)
    add(store, clock, "6")
    assert sorted(session.id for session in store) == ["2", "4", "6"]


@pytest.mark.parametrize("transport", EVERY)
@pytest.mark.parametrize(
    ("settings", "status"), [({"max_sessions": 1}, 503), ({"max_sessions_per_address": 1}, 429)], ids=["all", "address"]
)
async def test_one_session_too_many(transport: str, settings: dict[str, int], status: int) -> None:
    class App(Recorder):
        pass

    clock = FakeClock()
    async with endpoint(App, settings, clock=clock) as (base, router):
        async with Client(base, transport) as first:
            await first.open()
            async with Client(base, transport) as second:
                if transport in WEBSOCKETS:
                    with pytest.raises(HandshakeRefused) as raised:
                        await second.open()
                    assert raised.value.response.status == status
                else:
                    with pytest.raises(AssertionError, match=f"{status}"):
                        await second.open()
            assert len(App.made) == 1  # refused before the application hears of it
            App.made[0].send("undisturbed")
            assert await first.message() == "undisturbed"
            App.made[0].close()
            await first.goodbye()
        clock.advance(LIMITS.disconnect_delay_s + LIMITS.sweep_interval_s)
        await until(lambda: len(router._gateway.store) == 0)
        async with Client(base, transport) as third:
            await third.open()


async def test_a_refused_client_gives_its_room_back() -> None:
    class App(Recorder):
        def on_open(self, info: object) -> bool:
            return False

    clock = FakeClock()
    async with endpoint(App, {"max_sessions": 1}, clock=clock) as (base, router):
        for _ in range(3):
            async with Client(base, "rawwebsocket") as client:
                with pytest.raises(HandshakeRefused):
                    await client.open()
            assert len(router._gateway.store) == 0
        async with Client(base, "xhr") as client:
            assert await client.goodbye() == (1008, "Refused")
        clock.advance(LIMITS.disconnect_delay_s + LIMITS.sweep_interval_s)
        assert len(router._gateway.store) == 0


async def test_each_address_has_its_own_room() -> None:
    class App(Recorder):
        pass

    settings = {"max_sessions_per_address": 1, "trusted_proxies": ["127.0.0.1"]}
    async with endpoint(App, settings) as (base, _):
        for number, status in (("1", 200), ("2", 200), ("1", 429)):
            answer = await request(
                base, "POST", f"/s/0/{number}{status}/xhr", headers=[("X-Forwarded-For", f"192.0.2.{number}")]
            )
            assert answer.status == status


async def test_close_all_tells_everybody() -> None:
    class App(Recorder):
        pass

    async with endpoint(App) as (base, router):
        clients = [Client(base, transport) for transport in EVERY]
        for client in clients:
            await client.open()
        router.close()
        for client in clients:
            assert await client.goodbye() == (1001, "Going away")
            client.abort()
        assert all(len(connection.closes) == 1 for connection in App.made)
