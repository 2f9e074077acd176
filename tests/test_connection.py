"""The application's side: the contract of ``sockjs.tornado.SockJSConnection``, and what is promised beyond it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from tornado.web import Application, HTTPError, RequestHandler, create_signed_value

import polysock
from polysock import CloseReason, Connection, Refused, SockJSRouter, StateError
from polysock_transports.dialects.plain import Plain
from polysock_transports.dialects.sockjs import SockJS
from polysock_transports.errors import GO_AWAY
from polysock_transports.wire import Frame
from support.clients import (
    CALLBACK,
    EVERY,
    SOCKJS,
    WEBSOCKETS,
    Client,
    Quiet,
    Recorder,
    endpoint,
    quiet,
    turns,
    until,
)
from support.clock import FakeClock
from support.rawhttp import BINARY, TEXT, HandshakeRefused, Response, SocketClosed, WireSocket, request
from support.rawhttp import Connection as HttpConnection
from support.serving import serving, serving_application

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from sockjs.tornado import SockJSConnection
    from sockjs.tornado.migrate import WebsocketHandler

__all__ = ["quiet"]

SECRET = "a secret of this test"


# --- applications written for sockjs-tornado --------------------------------------------------------------------------


def test_connection_is_one_of_sockjs_tornados() -> None:
    assert issubclass(Connection, SockJSConnection)


@pytest.mark.parametrize("transport", EVERY)
async def test_unmodified_connection_class_runs(transport: str) -> None:
    class Chat(SockJSConnection):  # type: ignore[misc]
        participants: ClassVar[set[Any]] = set()
        log: ClassVar[list[str]] = []

        def on_open(self, info: Any) -> None:
            self.log.append(f"{info.ip} {info.get_argument('room')} {info.get_cookie('name').value}")
            self.broadcast(self.participants, "someone joined")
            self.participants.add(self)

        def on_message(self, message: str) -> None:
            if message == "quit":
                self.close()
            else:
                self.broadcast(self.participants, message)

        def on_close(self) -> None:
            self.participants.remove(self)
            self.log.append(f"left {self.is_closed}")

    async with (
        endpoint(Chat) as (base, _),
        Client(base, transport, query="?room=5", headers=[("Cookie", "name=joe")]) as first,
        Client(base, transport, query="?room=6", headers=[("Cookie", "name=ann")]) as second,
    ):
        await first.open()
        await second.open()
        assert await first.message() == "someone joined"
        await second.send("hello")
        assert await first.message() == await second.message() == "hello"
        await second.send("quit")
        assert await second.goodbye() == (3000, "Go away!")
        await until(lambda: Chat.log[-1] == "left True")
        assert Chat.log == ["127.0.0.1 b'5' joe", "127.0.0.1 b'6' ann", "left True"]
        (left,) = Chat.participants
        left.send("still here")
        assert await first.message() == "still here"
        first.abort()
        await until(lambda: not Chat.participants) if transport not in ("xhr", "jsonp") else left.close()


@pytest.mark.parametrize("transport", EVERY)
async def test_unmodified_websocket_handler_runs(transport: str) -> None:
    class Handler(WebsocketHandler):  # type: ignore[misc]
        def open(self) -> None:
            self.write_message(f"{self.ip} {self.request.arguments['a'][0].decode()}")

        def on_message(self, message: str) -> None:
            self.write_message(message)

    async with endpoint(Handler) as (base, _), Client(base, transport, query="?a=1") as client:
        await client.open()
        assert await client.message() == "127.0.0.1 1"
        await client.send("echo")
        assert await client.message() == "echo"


async def test_unmodified_connection_may_refuse_as_its_documentation_says() -> None:
    class Picky(SockJSConnection):  # type: ignore[misc]
        def on_open(self, info: Any) -> bool:
            return False

    async with endpoint(Picky) as (base, _), Client(base, "xhr") as client:
        assert await client.goodbye() == (1008, "Refused")


async def test_what_applications_read_from_their_session() -> None:
    class App(Recorder):
        def on_open(self, info: Any) -> None:
            super().on_open(info)
            self.seen = [self.session.state, self.session.is_closed, self.is_closed]

    async with endpoint(App) as (base, router), Client(base, "xhr") as client:
        await client.open()
        connection = App.made[0]
        session = connection.session
        assert connection.seen == [0, False, False]
        assert session.state == 1
        assert session.session_id == client.session_id
        assert session.conn is connection
        assert session.conn_info is connection.info
        assert session.server is router
        assert session.transport_name == "xhr"
        assert session.stats is router.stats
        assert session.handler is None
        assert session.close_reason is None
        assert session.get_close_reason() == (3000, "Go away!")
        session.send_message("one")
        session.send_jsonified('{"two": 2}')
        session.send_jsonified(b'"three"')
        assert await client.frame() == 'a["one",{"two":2},"three"]'
        await client.attach()
        await until(lambda: session.core.attached)
        assert router.stats.dump() == {"sessions_active": 1, "connections_active": 1, "transp_xhr": 1}
        session.delayed_close()
        assert not session.is_closed
        assert await client.goodbye() == (3000, "Go away!")
        assert session.is_closed
        assert session.state == 2
        assert session.close_reason == session.get_close_reason() == (3000, "Go away!")
        assert session.conn is None


async def test_router_has_the_contract_of_sockjs_tornados() -> None:
    router = SockJSRouter(Recorder, "/echo/", {})
    assert router.get_connection_class() is Recorder
    routes: list[Any] = [("/x", RequestHandler)]
    assert router.apply_routes(routes) is routes
    assert len(routes) == 1 + len(router.urls)
    async with serving([*router.urls]) as base:
        assert (await request(base, "GET", "/echo")).body == (await request(base, "GET", "/echo/")).body
        assert (await request(base, "GET", "/echo")).body == b"Welcome to SockJS!\n"


# --- refusing ---------------------------------------------------------------------------------------------------------

REFUSALS: dict[str, tuple[Any, int, int, str]] = {
    # how: what is returned or raised, HTTP status on raw, close code and text elsewhere
    "False": (False, 403, 1008, "Refused"),
    "Refused": (Refused(418, "teapots only"), 418, 1008, "teapots only"),
    "HTTPError": (HTTPError(402), 402, 1008, "Payment Required"),
    "HTTPError with a reason": (HTTPError(499, "for the log: %s", "x", reason="Odd"), 499, 1008, "Odd"),
    "HTTPError without a name": (HTTPError(599), 599, 1008, "Refused"),
    "a mistake": (ZeroDivisionError("on purpose"), 500, 1008, "Internal error"),
}


def refusing(what: Any, *, late: bool) -> type[Recorder]:
    class App(Recorder):
        def on_open(self, info: Any) -> Any:
            if late:
                return self.later()
            return self.decide()

        async def later(self) -> Any:
            await turns(3)
            return self.decide()

        def decide(self) -> Any:
            if isinstance(what, Exception):
                raise what
            return what

    return App


@pytest.mark.parametrize("transport", EVERY)
@pytest.mark.parametrize("how", REFUSALS)
async def test_refused_at_once(transport: str, how: str, quiet: Quiet) -> None:
    what, status, code, text = REFUSALS[how]
    app = refusing(what, late=False)
    if how == "a mistake":
        quiet.expect("on_open failed")
    async with endpoint(app) as (base, router), Client(base, transport) as client:
        if transport == "rawwebsocket":
            with pytest.raises(HandshakeRefused) as raised:
                await client.open()
            assert (raised.value.response.status, raised.value.response.text) == (status, text)
            assert len(router._gateway.store) == 0
            return
        await client.attach()
        # No open frame: the first is the end.
        assert await client.frame() == f'c[{code},"{text}"]'
        assert app.made[0].closes == []
        if transport != "websocket":
            assert await client.send("let me in") == 404
        assert app.made[0].messages == []


@pytest.mark.parametrize("transport", EVERY)
@pytest.mark.parametrize("how", REFUSALS)
async def test_refused_later(transport: str, how: str, quiet: Quiet) -> None:
    what, _, code, text = REFUSALS[how]
    app = refusing(what, late=True)
    if how == "a mistake":
        quiet.expect("on_open failed")
        code = 1011
    async with endpoint(app) as (base, _), Client(base, transport) as client:
        await client.open()
        assert await client.goodbye() == (code, text)
        assert app.made[0].closes == []
        assert app.made[0].is_closed


# --- the end ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", EVERY)
async def test_on_close_takes_no_argument_and_finds_the_reason(transport: str) -> None:
    class App(Connection):
        told: ClassVar[list[Any]] = []

        async def on_close(self) -> None:
            await turns(2)
            self.told.append((self.close_reason, self.is_closed))

    async with endpoint(App) as (base, router), Client(base, transport) as client:
        await client.open()
        (session,) = router._gateway.store
        session._listener.conn.close(3456, "that is all")
        assert await client.goodbye() == (3456, "that is all")
        await until(lambda: App.told)
        assert App.told == [(CloseReason(3456, "that is all", may_return=False), True)]


@pytest.mark.parametrize("transport", EVERY)
async def test_close_without_arguments_and_twice(transport: str) -> None:
    class App(Recorder):
        def on_message(self, message: str | bytes) -> None:
            self.close()
            self.close(3999, "too late")

    async with endpoint(App) as (base, _), Client(base, transport) as client:
        await client.open()
        assert not App.made[0].is_closed
        assert App.made[0].close_reason is None
        await client.send("x")
        assert await client.goodbye() == (GO_AWAY.code, GO_AWAY.text)
        assert App.made[0].is_closed
        assert App.made[0].close_reason == GO_AWAY


async def test_long_reason_is_cut_where_a_close_frame_ends() -> None:
    class App(Recorder):
        def on_message(self, message: str | bytes) -> None:
            self.close(3000, "\u00e9" * 100)

    async with endpoint(App) as (base, _):
        async with Client(base, "rawwebsocket") as client:
            await client.open()
            await client.send("x")
            assert await client.goodbye() == (3000, "\u00e9" * 61)
        async with Client(base, "xhr") as client:
            await client.open()
            await client.send("x")
            assert await client.goodbye() == (3000, "\u00e9" * 100)


# --- sending ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "framed", "raw"),
    [
        ("text", '"text"', "text"),
        ("", '""', ""),
        ("\u00e9\u2028\U0001f600", '"\\u00e9\\u2028\\ud83d\\ude00"', "\u00e9\u2028\U0001f600"),
        (b"bytes \xc3\xa9", '"bytes \\u00e9"', "bytes \u00e9"),
        (bytearray(b"x"), '"x"', "x"),
        ({"a": [1, None]}, '{"a":[1,null]}', '{"a":[1,null]}'),
        ([1, "\u00e9"], '[1,"\\u00e9"]', '[1,"\u00e9"]'),
        (5, "5", "5"),
        (None, "null", "null"),
        (True, "true", "true"),
    ],
    ids=repr,
)
async def test_what_can_be_sent(message: Any, framed: str, raw: str) -> None:
    class App(Recorder):
        def on_message(self, text: str | bytes) -> None:
            self.messages.append(str(self.send(message)))

    async with endpoint(App) as (base, _):
        for transport in SOCKJS:
            async with Client(base, transport) as client:
                await client.open()
                await client.send("go")
                assert (await client.frame()).replace("\\\\u0025", "%") == f"a[{framed}]"
        async with Client(base, "rawwebsocket") as client:
            await client.open()
            await client.send("go")
            assert await client.message() == raw
        assert all(connection.messages == ["True"] for connection in App.made)


@pytest.mark.parametrize("transport", ["xhr", "websocket", "rawwebsocket"])
@pytest.mark.parametrize("message", [float("nan"), {1, 2}, ..., b"\xff"], ids=repr)
async def test_what_cannot_be_sent_raises_and_harms_nothing(transport: str, message: Any) -> None:
    class App(Recorder):
        pass

    async with endpoint(App) as (base, _), Client(base, transport) as client:
        await client.open()
        with pytest.raises((TypeError, ValueError, OverflowError)):
            App.made[0].send(message)
        assert App.made[0].send("fine")
        assert await client.message() == "fine"


async def test_binary() -> None:
    class App(Recorder):
        def on_message(self, message: str | bytes) -> None:
            super().on_message(message)
            self.send(message, binary=True)

    async with endpoint(App) as (base, _):
        async with Client(base, "rawwebsocket") as client:
            await client.open()
            assert client.socket is not None
            await client.socket.send_frame(BINARY, b"\x00\xff")
            assert await client.socket.recv() == (BINARY, b"\x00\xff")
            await client.socket.send_frame(TEXT, b"text")
            assert await client.socket.recv() == (BINARY, b"text")
            assert App.made[0].messages == [b"\x00\xff", "text"]
        async with Client(base, "xhr") as client:
            # SockJS has no binary: text goes as text.
            await client.open()
            await client.send("text")
            assert await client.message() == "text"
            with pytest.raises(ValueError, match="text only"):
                App.made[1].send(b"\xff", binary=True)


# --- broadcast --------------------------------------------------------------------------------------------------------


class Counted:
    """How often a message was encoded and packed: the dialects' own methods, with a pencil behind the ear."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.encoded: list[str] = []
        self.packed: list[str] = []
        for dialect in (SockJS, Plain):
            patch.setattr(dialect, "encode", self.counting(dialect.encode, self.encoded))
            patch.setattr(dialect, "pack", self.counting(dialect.pack, self.packed))

    @staticmethod
    def counting(method: Any, calls: list[str]) -> Any:
        def counted(dialect: Any, what: object) -> Frame | Sequence[Frame]:
            calls.append(dialect.name)
            return method(dialect, what)  # type: ignore[no-any-return]

        return counted


async def test_broadcast_encodes_once_for_a_dialect_and_once_for_a_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    class App(Recorder):
        pass

    streams = ("xhr_streaming", "eventsource", "htmlfile", "websocket", "rawwebsocket")
    async with endpoint(App) as (base, router):
        clients = [Client(base, transport) for transport in streams for _ in range(3)]
        for client in clients:
            await client.open()
        gone = App.made[-1]
        gone.close()
        counted = Counted(monkeypatch)
        message = "\u00e9</script>%41"
        App.made[0].broadcast(App.made, message)
        # Three of each, one closed: the shapes are what is packed for.
        assert sorted(counted.encoded) == ["plain", "sockjs"]
        assert sorted(counted.packed) == ["plain", *["sockjs"] * 4]
        for client in clients[:-1]:
            assert await client.message() == message
        assert not gone.send("x")
        router.broadcast(App.made, b"bytes too")
        for client in clients[:-1]:
            assert await client.message() == "bytes too"
            client.abort()
        clients[-1].abort()


async def test_broadcast_to_polls_and_to_those_between_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    class App(Recorder):
        pass

    async with endpoint(App) as (base, router):
        clients = [Client(base, transport) for transport in ("xhr", "jsonp") * 2]
        for client in clients:
            await client.open()
        for client, connection in zip(clients[:2], App.made, strict=False):
            await client.attach()
            await until(lambda core=connection.session.core: core.attached)
        counted = Counted(monkeypatch)
        router.broadcast(App.made, "to all")
        assert counted.encoded == ["sockjs"]
        for client in clients:
            assert await client.message() == "to all"
            client.abort()


async def test_broadcast_to_nobody_and_to_any_iterable() -> None:
    class App(Recorder):
        pass

    async with endpoint(App) as (base, router), Client(base, "xhr") as client:
        router.broadcast([], "nobody")
        await client.open()
        router.broadcast((connection for connection in App.made), {"some": 1})
        assert await client.frame() == 'a[{"some":1}]'


# --- info -------------------------------------------------------------------------------------------------------------


class Login(RequestHandler):
    """An application's own handler."""

    def get_current_user(self) -> str | None:
        name = self.get_signed_cookie("user")
        return name.decode() if name else None


@pytest.mark.parametrize("transport", EVERY)
async def test_info_outlives_the_request(transport: str) -> None:
    class App(Recorder):
        pass

    cookie = create_signed_value(SECRET, "user", "ann").decode()
    async with endpoint(App, {"origins": ["https://a.example"]}, prefix="/app/s", cookie_secret=SECRET) as (
        base,
        _,
    ):
        headers = [
            ("Cookie", f'user="{cookie}"; plain=1'),
            ("Origin", "https://a.example"),
            ("User-Agent", "test"),
            ("X-Custom", "yes"),
        ]
        client = Client(base, transport, "/app/s", query="?a=1&a=2&b=%C3%A9", headers=headers)
        async with client:
            await client.open()
            App.made[0].close()
            await client.goodbye()
        info = App.made[0].info
        assert info.ip == "127.0.0.1"
        assert info.get_header("x-custom") == info.headers["X-Custom"] == "yes"
        assert info.get_header("nothing") is None
        assert info.get_cookie("plain").value == info.cookies["plain"].value == "1"
        assert info.get_cookie("nothing") is None
        assert info.get_argument("a") == b"1"
        assert info.arguments["a"] == [b"1", b"2"]
        assert info.get_argument("b") == "\u00e9".encode()
        assert info.get_argument("nothing") is None
        name = "websocket" if transport == "rawwebsocket" else f"000/{client.session_id}/{transport}"
        assert info.path == f"/app/s/{name}"
        assert info.origin == "https://a.example"
        assert info.transport == transport
        assert isinstance(info.application, Application)
        assert info.application.settings["cookie_secret"] == SECRET
        assert info.get_secure_cookie("user") == info.get_signed_cookie("user") == b"ann"
        assert info.get_secure_cookie("plain") is None
        assert info.get_secure_cookie("nothing") is None
        assert info.get_secure_cookie("user", create_signed_value(SECRET, "user", "bob").decode()) == b"bob"
        forged = create_signed_value("another secret", "user", "eve").decode()
        assert info.get_secure_cookie("user", forged) is None
        assert info.get_current_user() is info.current_user is None


async def test_secure_cookie_without_a_secret_says_what_is_missing() -> None:
    class App(Recorder):
        pass

    async with endpoint(App) as (base, _), Client(base, "xhr") as client:
        await client.open()
        with pytest.raises(StateError, match="cookie_secret"):
            App.made[0].info.get_secure_cookie("user")


@pytest.mark.parametrize("transport", EVERY)
async def test_current_user_of_the_applications_own_handler(transport: str) -> None:
    class App(Recorder):
        pass

    cookie = create_signed_value(SECRET, "user", "ann").decode()
    async with endpoint(App, {"base_handler": Login}, cookie_secret=SECRET) as (base, _):
        for headers, user in (([("Cookie", f'user="{cookie}"')], "ann"), ([], None)):
            async with Client(base, transport, headers=headers) as client:
                await client.open()
                await client.send("hello")
                App.made[-1].send("hello")
                assert await client.message() == "hello"
                assert App.made[-1].info.current_user == App.made[-1].info.get_current_user() == user


async def answer_of(client: Client) -> Response:
    """What the opening request is answered, where it is no transport."""
    try:
        await client.attach()
    except HandshakeRefused as refused:
        return refused.response
    assert client.connection is not None
    return await client.connection.read_response()


@pytest.mark.parametrize("transport", EVERY)
@pytest.mark.parametrize("late", [False, True], ids=["plain", "async"])
@pytest.mark.parametrize("how", ["redirect", "HTTPError", "finish"])
async def test_applications_own_handler_answers_instead(transport: str, late: bool, how: str) -> None:
    class App(Recorder):
        pass

    class Gate(RequestHandler):
        def prepare(self) -> Any:
            if late:
                return self.later()
            self.judge()
            return None

        async def later(self) -> None:
            await turns(2)
            self.judge()

        def judge(self) -> None:
            if how == "redirect":
                self.redirect("/login")
            elif how == "HTTPError":
                raise HTTPError(403, reason="Members only")
            else:
                self.set_status(401)
                self.finish("who are you?")

    async with (
        endpoint(App, {"base_handler": Gate}) as (base, router),
        Client(base, transport) as client,
    ):
        answer = await answer_of(client)
        if how == "redirect":
            assert (answer.status, answer.headers["Location"]) == (302, "/login")
        elif how == "HTTPError":
            assert (answer.status, answer.text) == (403, "Members only\n")
        else:
            assert (answer.status, answer.text) == (401, "who are you?")
        assert App.made == []
        assert len(router._gateway.store) == 0


async def test_applications_own_handler_is_asked_once_for_a_session() -> None:
    class App(Recorder):
        def on_message(self, message: str | bytes) -> None:
            self.send(message)

    class Gate(RequestHandler):
        asked: ClassVar[list[str]] = []

        async def prepare(self) -> None:
            await turns(2)
            self.asked.append(self.request.path)

    async with endpoint(App, {"base_handler": Gate}) as (base, _), Client(base, "xhr") as client:
        await client.open()
        for number in range(3):
            assert await client.send(f"{number}") == 204
            assert await client.message() == f"{number}"
        assert (await request(base, "GET", "/s/info")).status == 200
        assert Gate.asked == [f"{client.url}/xhr"]


@pytest.mark.parametrize("transport", EVERY)
async def test_client_that_leaves_while_the_applications_own_handler_thinks(transport: str) -> None:
    asked, answer = asyncio.Event(), asyncio.Event()

    class App(Recorder):
        pass

    class Gate(RequestHandler):
        async def prepare(self) -> None:
            asked.set()
            await answer.wait()

    async with endpoint(App, {"base_handler": Gate}, clock=FakeClock()) as (base, router):
        client = Client(base, transport)
        attaching = asyncio.ensure_future(client.attach())
        await asyncio.wait_for(asked.wait(), 5)
        if transport in WEBSOCKETS:
            attaching.cancel()
            with pytest.raises(asyncio.CancelledError):
                await attaching
        else:
            await attaching
            client.abort()
        await turns(50)
        answer.set()
        await turns(50)
        assert len(router._gateway.store) == 0
        assert App.made == []


# --- where it is mounted ----------------------------------------------------------------------------------------------


class Page(RequestHandler):
    def get(self, *groups: str) -> None:
        self.finish("a page of the site")


class Here(Recorder):
    pass


class There(Recorder):
    pass


async def test_two_routers_in_one_application_do_not_see_each_other() -> None:
    one, two = SockJSRouter(Here, "/one"), SockJSRouter(There, "/two", {"max_payload_messages": 1, "origins": "*"})
    Here.made.clear()
    There.made.clear()
    async with (
        serving([*one.urls, *two.urls]) as base,
        Client(base, "xhr", "/one", session_id="same") as first,
        Client(base, "xhr", "/two", session_id="same") as second,
    ):
        await first.open()
        assert await second.send("not yours") == 404
        await second.open()
        assert await first.send("1", "2") == 204
        assert await second.send("1", "2") == 413
        assert await second.send("3") == 204
        assert [connection.messages for connection in (*Here.made, *There.made)] == [["1", "2"], ["3"]]
        assert (one.stats.dump()["sessions_active"], two.stats.dump()["sessions_active"]) == (1, 1)
        one.close()
        assert (await first.goodbye())[0] == 1001
        There.made[0].send("undisturbed")
        assert await second.message() == "undisturbed"


async def test_two_applications_in_one_process_do_not_see_each_other() -> None:
    routers = [SockJSRouter(Here, "/s"), SockJSRouter(Here, "/s")]
    applications = [Application(router.urls, log_function=lambda handler: None) for router in routers]
    Here.made.clear()
    async with (
        serving_application(applications[0]) as first,
        serving_application(applications[1]) as second,
        Client(first, "xhr", session_id="same") as one,
        Client(second, "xhr", session_id="same") as two,
    ):
        await one.open()
        assert await two.send("not yours") == 404
        await two.open()
        assert [connection.info.application for connection in Here.made] == applications
        routers[0].close()
        assert (await one.goodbye())[0] == 1001
        assert Here.made[1].session.core.is_open


async def test_one_router_in_two_applications_is_one_endpoint() -> None:
    router = SockJSRouter(Here, "/s")
    Here.made.clear()
    async with (
        serving_application(Application(router.urls)) as first,
        serving_application(Application(router.urls)) as second,
        Client(first, "xhr", session_id="same") as one,
        Client(second, "xhr", session_id="same") as two,
    ):
        await one.open()
        assert await two.send("the same endpoint") == 204
        assert Here.made[0].messages == ["the same endpoint"]


@pytest.mark.parametrize("router_first", [True, False])
async def test_endpoint_at_the_root_leaves_the_rest_of_the_site_alone(router_first: bool) -> None:
    router = SockJSRouter(Here, "")
    pages: list[Any] = [
        ("/page", Page),
        ("/a/b/page", Page),
        ("/info/more", Page),
        ("/x/y", Page),
        ("/robots.txt", Page),
    ]
    handlers = [*router.urls, *pages] if router_first else [*pages, *router.urls]
    async with serving(handlers) as base:
        for path, _ in pages:
            assert (await request(base, "GET", path)).body == b"a page of the site"
        assert (await request(base, "GET", "/")).body == b"Welcome to SockJS!\n"
        assert (await request(base, "GET", "/info")).status == 200
        assert (await request(base, "GET", "/nothing")).status == 404
        async with Client(base, "xhr", "") as client:
            await client.open()
        async with Client(base, "rawwebsocket", "") as client:
            await client.open()


@pytest.mark.parametrize(
    ("pattern", "prefix"),
    [
        (r"/rooms/(\w+)/s", "/rooms/kitchen/s"),
        (r"/rooms/(?P<room>\w+)/s", "/rooms/kitchen/s"),
        (r"/s[0-9]*", "/s42"),
        (r"(?:/en|/de)/s", "/de/s"),
    ],
)
async def test_prefix_is_a_pattern(pattern: str, prefix: str) -> None:
    class App(Recorder):
        pass

    router = SockJSRouter(App, pattern)
    async with serving([*router.urls, ("/.*", Page)]) as base:
        assert (await request(base, "GET", prefix)).body == b"Welcome to SockJS!\n"
        page = (await request(base, "GET", f"{prefix}/iframe.html")).text
        assert f'<script src="{prefix}/sockjs.js">' in page
        for transport in EVERY:
            async with Client(base, transport, prefix) as client:
                await client.open()
                await client.send("hello")
                await until(lambda: App.made[-1].messages == ["hello"])
                if transport != "rawwebsocket":
                    assert App.made[-1].info.path == f"{prefix}/000/{client.session_id}/{transport}"
        assert (await request(base, "GET", f"{prefix}/nothing/of/ours/at/all")).body == b"a page of the site"


# --- subprotocols -----------------------------------------------------------------------------------------------------


class Choosy(Recorder):
    offered: ClassVar[list[list[str]]] = []
    choice: ClassVar[str | None] = None

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        self.offered.append(subprotocols)
        return self.choice


@pytest.mark.parametrize(("choice", "answered"), [("chat", "chat"), ("v2", "v2"), (None, None)])
async def test_subprotocol(choice: str | None, answered: str | None) -> None:
    Choosy.choice = choice
    Choosy.offered.clear()
    Choosy.made.clear()
    async with endpoint(Choosy) as (base, _):
        async with await WireSocket.connect(base, "/s/websocket", subprotocols=["v2", "chat"]) as socket:
            assert socket.subprotocol == answered
            assert Choosy.made[0].session.subprotocol == answered
        assert Choosy.offered == [["v2", "chat"]]
        async with await WireSocket.connect(base, "/s/websocket") as socket:
            assert socket.subprotocol is None
        async with Client(base, "websocket") as client:
            await client.open()
        assert len(Choosy.offered) == 1  # asked only where something was offered, and only on the raw endpoint


@pytest.mark.parametrize("choice", ["never offered", "not\r\na: token", ""])
async def test_subprotocol_that_was_not_offered_is_our_mistake(choice: str, quiet: Quiet) -> None:
    Choosy.choice = choice
    Choosy.made.clear()
    quiet.expect("Uncaught exception GET /s/websocket")
    async with endpoint(Choosy) as (base, router):
        with pytest.raises(HandshakeRefused) as raised:
            await WireSocket.connect(base, "/s/websocket", subprotocols=["chat"])
        assert raised.value.response.status == 500
        assert len(router._gateway.store) == 0
        assert Choosy.made[0].info is None  # it never opened


async def test_bare_connection_selects_no_subprotocol() -> None:
    async with (
        endpoint(SockJSConnection) as (base, _),
        await WireSocket.connect(base, "/s/websocket", subprotocols=["chat"]) as socket,
    ):
        assert socket.subprotocol is None


# --- the rest ---------------------------------------------------------------------------------------------------------


async def test_handler_that_is_missing_is_a_failed_handler(quiet: Quiet) -> None:
    quiet.expect("a message handler failed")
    async with endpoint(Connection) as (base, _), Client(base, "websocket") as client:
        await client.open()
        await client.send("x")
        with pytest.raises(SocketClosed, match="1011"):
            await client.message()


async def test_keep_alive_connection_serves_pages_and_sessions_alike() -> None:
    class App(Recorder):
        pass

    router = SockJSRouter(App, "/s")
    async with serving([*router.urls, ("/page", Page)]) as base, await HttpConnection.open(base) as connection:
        for number in range(3):
            assert (await connection.request("GET", "/page")).body == b"a page of the site"
            assert (await connection.request("POST", f"/s/0/{number}/xhr")).body == b"o\n"
            assert (await connection.request("GET", f"/s/0/j{number}/jsonp?c={CALLBACK}")).status == 200
            assert (await connection.request("GET", "/s/nothing")).status == 404
    assert len(App.made) == 6


@pytest.mark.parametrize("flags", [["-W", "error"], ["-W", "error", "-X", "dev"], ["-W", "error", "-bb", "-O"]])
def test_import_warns_of_nothing(flags: list[str]) -> None:
    roots = [
        str(Path(module).resolve().parent.parent)
        for module in (polysock.__file__, sys.modules["polysock_transports"].__file__ or "")
    ]
    done = subprocess.run(
        [sys.executable, *flags, "-c", "import polysock, sys; assert 'sockjs.tornado' in sys.modules"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(roots)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
