"""A router's settings: the old names, the new ones, and what is said to somebody who mistypes one."""

from __future__ import annotations

import warnings
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from polysock import Connection, Limits, SockJSRouter
from polysock.settings import TRANSPORT_NAMES, SettingError, Settings, read_settings
from polysock_transports.permessage_deflate import DeflateOptions
from support.clients import Client, Quiet, Recorder, endpoint, quiet  # noqa: F401
from support.rawhttp import request

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from sockjs.tornado.router import DEFAULT_SETTINGS


class App(Connection):
    pass


def read(**user: Any) -> Settings:
    return read_settings(user)


def test_nothing_set() -> None:
    assert read_settings(None) == read_settings({}) == Settings()
    assert Settings().limits == Limits()


@pytest.mark.parametrize("name", sorted(DEFAULT_SETTINGS))
def test_every_setting_of_sockjs_tornado_is_known(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read_settings({name: DEFAULT_SETTINGS[name]})


@pytest.mark.parametrize(
    ("old", "value", "limit"),
    [
        ("disconnect_delay", 7, "disconnect_delay_s"),
        ("heartbeat_delay", 8, "heartbeat_delay_s"),
        ("response_limit", 9, "response_limit_bytes"),
        ("session_check_interval", 2, "sweep_interval_s"),
    ],
)
def test_old_names_of_limits(old: str, value: int, limit: str) -> None:
    assert getattr(read_settings({old: value}).limits, limit) == value
    with pytest.raises(SettingError, match=limit):
        read_settings({old: -1})
    with pytest.raises(SettingError, match=f"{old}.*{limit}|{limit}.*{old}"):
        read_settings({old: value, limit: value})
    with pytest.raises(SettingError, match=f"{old}.*{limit}|{limit}.*{old}"):
        read_settings({limit: value, old: value})


def test_old_names_of_the_rest() -> None:
    settings = read(
        disabled_transports=["websocket"],
        sockjs_url="https://a.example/sockjs.js",
        jsessionid=True,
        verify_ip=True,
        websocket_allow_origin=["https://a.example"],
    )
    assert settings.disabled_transports == ("websocket",)
    assert settings.sockjs_url == "https://a.example/sockjs.js"
    assert settings.jsessionid
    assert settings.verify_ip
    assert settings.origins == ["https://a.example"]


@pytest.mark.parametrize("name", ["immediate_flush", "disable_nagle"])
@pytest.mark.parametrize("value", [True, False])
def test_what_means_nothing_any_more_is_said(name: str, value: bool) -> None:
    with pytest.warns(UserWarning, match=f"{name}' means nothing here: ") as caught:
        settings = read_settings({name: value})
    assert len(caught) == 1
    assert settings == Settings()


@pytest.mark.parametrize("name", ["io_loop", "session_kls"])
def test_arguments_that_mean_nothing_any_more_are_said(name: str) -> None:
    with pytest.warns(UserWarning, match=name) as caught:
        SockJSRouter(App, "/s", **{name: object()})
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("heartbeat_dealy", "heartbeat_delay"),
        ("jsession", "jsessionid"),
        ("sockjs_urls", "sockjs_url"),
        ("origin", "origins"),
        ("max_message_byte", "max_message_bytes"),
        ("disable_transports", "disabled_transports"),
        ("Verify_IP", "verify_ip"),
        ("limit", "limits"),
    ],
)
def test_unknown_setting_suggests_the_nearest(wrong: str, meant: str) -> None:
    with pytest.raises(SettingError, match=f"there is no setting '{wrong}'; did you mean '{meant}'"):
        read_settings({wrong: 1})


def test_unknown_setting_that_is_near_nothing_lists_all() -> None:
    with pytest.raises(SettingError) as raised:
        read_settings({"zzzzzz": 1})
    for field in (*fields(Settings), *fields(Limits)):
        assert field.name in str(raised.value)


@pytest.mark.parametrize(
    ("user", "complaint"),
    [
        ({"sockjs_url": "/a.js", "sockjs_file": "/a.js"}, "sockjs_url or sockjs_file, not both"),
        ({"origins": ["https://a.example"], "websocket_allow_origin": "*"}, "old name of origins"),
        ({"disabled_transports": ["xhr-streaming"]}, "no transport 'xhr-streaming'; did you mean 'xhr_streaming'"),
        ({"disabled_transports": 5}, "disabled_transports"),
        ({"trusted_proxies": 5}, "trusted_proxies"),
        ({"base_handler": object}, "base_handler must be a subclass"),
        ({"base_handler": 5}, "base_handler must be a subclass"),
        ({"limits": {"max_sessions": 5}}, "limits must be a polysock.Limits, not dict"),
        ({"origins": ["https://a.example/path"]}, "https://a.example/path"),
        ({"origins": 5}, "origins"),
        ({"origins": None}, "origins"),
        ({"origin_unknown": "maybe"}, "origin_unknown"),
        ({"trusted_proxies": ["nonsense"]}, "trusted_proxies: 'nonsense'"),
        ({"origins": ["a.example/path"]}, "a.example/path"),
        ({"origins": ["a.example b.example"]}, "a.example b.example"),
        ({"origins": ["a.example, b.example"]}, "a.example, b.example"),
        ({"origins": ["https://user@a.example"]}, "https://user@a.example"),
        ({"origins": ["https://a.example?x"]}, "https://a.example"),
        # Of a text such as "no" out of the environment the whole would be true.
        ({"allow_credentials": "no"}, "allow_credentials must be True or False, not 'no'"),
        ({"verify_ip": "false"}, "verify_ip must be True or False"),
        ({"jsessionid": None}, "jsessionid must be True or False"),
        ({"fast_lane": "0"}, "fast_lane must be True or False"),
        ({"draft76": ""}, "draft76 must be True or False"),
        ({"compression": "on"}, "compression must be True, False or a DeflateOptions"),
    ],
)
def test_what_makes_no_sense_is_an_error_that_says_so(user: dict[str, Any], complaint: str) -> None:
    with pytest.raises(SettingError, match=complaint):
        SockJSRouter(App, "/s", user)


def test_true_and_false_by_other_names() -> None:
    assert read(verify_ip=1, jsessionid=0) == Settings(verify_ip=True)


@pytest.mark.parametrize("name", ["disabled_transports", "trusted_proxies"])
def test_one_where_many_may_be(name: str) -> None:
    value = "websocket" if name == "disabled_transports" else "10.0.0.0/8"
    assert getattr(read_settings({name: value}), name) == (value,)


def test_limits_as_a_whole_and_single_ones_beside() -> None:
    settings = read(limits=Limits(max_sessions=5, max_message_bytes=6), max_message_bytes=7, heartbeat_delay=8)
    assert settings.limits == Limits(max_sessions=5, max_message_bytes=7, heartbeat_delay_s=8)


def test_settings_are_copied() -> None:
    disabled = ["websocket"]
    settings = read(disabled_transports=disabled)
    disabled.append("xhr")
    assert settings.disabled_transports == ("websocket",)


def test_star_with_credentials_says_what_it_exposes(quiet: Quiet) -> None:  # noqa: F811
    quiet.expect("/s: origins='*' with allow_credentials lets any web page act")
    SockJSRouter(App, "/s", {"origins": "*", "allow_credentials": True})


def test_star_alone_is_nothing_to_talk_about() -> None:
    SockJSRouter(App, "/s", {"origins": "*"})


#: "polling" is Engine.IO's, at another mount.
SOCKJS_TRANSPORTS = [name for name in TRANSPORT_NAMES if name != "polling"]


@pytest.mark.parametrize("name", SOCKJS_TRANSPORTS)
async def test_disabled_transport_is_not_there_and_the_others_are(name: str) -> None:
    class Recording(Recorder):
        pass

    async with endpoint(Recording, {"disabled_transports": [name]}) as (base, _):
        for transport in SOCKJS_TRANSPORTS:
            method = "POST" if transport in ("xhr", "xhr_streaming") else "GET"
            answer_wanted = transport == name
            if answer_wanted:
                assert (await request(base, method, f"/s/0/{transport}/{transport}")).status == 404
            else:
                async with Client(base, transport) as client:
                    await client.open()
        raw = await request(base, "GET", "/s/websocket")
        assert (raw.status == 404) is (name == "websocket")
        jsonp_send = await request(base, "POST", "/s/0/nobody/jsonp_send", body=b'["x"]')
        assert jsonp_send.text == ("Not found.\n" if name == "jsonp" else "Unknown session.\n")
        assert (b'"websocket":true' in (await request(base, "GET", "/s/info")).body) is (name != "websocket")


async def test_script_of_the_iframe_page(tmp_path: Path) -> None:
    script = tmp_path / "sockjs.min.js"
    script.write_text("/* the client */", encoding="utf-8")
    async with endpoint(App, {"sockjs_file": script}) as (base, _):
        page = (await request(base, "GET", "/s/iframe.html")).text
        address = page.split('<script src="')[1].split('"')[0]
        assert address.startswith("/s/sockjs.js?v=")
        answer = await request(base, "GET", address)
        assert answer.text == "/* the client */"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        again = await request(base, "GET", address, headers=[("If-None-Match", answer.headers["ETag"])])
        assert (again.status, again.body) == (304, b"")
    async with endpoint(App, {"sockjs_url": "https://a.example/x.js"}) as (base, _):
        assert '<script src="https://a.example/x.js">' in (await request(base, "GET", "/s/iframe.html")).text
        missing = await request(base, "GET", "/s/sockjs.js")
        assert missing.status == 404
        assert b"sockjs_file" in missing.body
    with pytest.raises(FileNotFoundError, match="nowhere"):
        SockJSRouter(App, "/s", {"sockjs_file": tmp_path / "nowhere.js"})


async def test_compression_is_off_unless_asked_for() -> None:
    offer = [("Sec-WebSocket-Extensions", "permessage-deflate")]
    for value, agreed in ((False, False), (True, True), (DeflateOptions(), True)):
        async with (
            endpoint(App, {"compression": value}) as (base, _),
            Client(base, "rawwebsocket", headers=offer) as client,
        ):
            await client.open()
            assert client.socket is not None
            assert ("Sec-WebSocket-Extensions" in client.socket.response.headers) is agreed


async def test_jsessionid_is_what_info_says() -> None:
    for value in (False, True):
        async with endpoint(App, {"jsessionid": value}) as (base, _):
            info = await request(base, "GET", "/s/info")
            assert (b'"cookie_needed":true' in info.body) is value
            assert ("Set-Cookie" in (await request(base, "POST", "/s/0/a/xhr")).headers) is value
