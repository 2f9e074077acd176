"""Who may come from where: the origin rule as tables."""

from __future__ import annotations

from typing import Any

import pytest
from tornado.httputil import HTTPHeaders

from polysock_transports.origins import OriginPolicy
from support.clients import (
    EVERY,
    WEBSOCKETS,
    Client,
    Recorder,
    endpoint,
    quiet,  # noqa: F401  # autouse: nothing here logs unannounced
)
from support.rawhttp import HandshakeRefused, request

HOST = "app.example.com"


def judge(policy: OriginPolicy, *, scheme: str = "http", host: str = HOST, **headers: str) -> bool:
    lines = {name.replace("_", "-"): value for name, value in headers.items()}
    return policy.judge(HTTPHeaders(lines), scheme, host)


@pytest.mark.parametrize(
    ("origin", "scheme", "host", "allowed"),
    [
        ("http://app.example.com", "http", HOST, True),
        ("https://app.example.com", "https", HOST, True),
        ("HTTP://APP.EXAMPLE.COM", "http", HOST, True),
        ("http://app.example.com.", "http", HOST, True),
        ("http://app.example.com", "http", "APP.example.com", True),
        # A proxy ends TLS: the browser says https, we see http.
        ("https://app.example.com", "http", HOST, True),
        # But a plain page is not the same origin as a TLS server: anybody on its way may have changed it.
        ("http://app.example.com", "https", HOST, False),
        ("http://app.example.com:80", "http", HOST, True),
        ("http://app.example.com", "http", f"{HOST}:80", True),
        ("https://app.example.com:443", "https", HOST, True),
        ("http://app.example.com:8080", "http", HOST, False),
        ("http://app.example.com", "http", f"{HOST}:8080", False),
        ("http://app.example.com:8080", "http", f"{HOST}:8080", True),
        ("https://app.example.com:8443", "http", f"{HOST}:8443", True),
        ("http://other.example.com", "http", HOST, False),
        ("http://example.com", "http", HOST, False),
        ("http://app.example.com.evil.example", "http", HOST, False),
        ("http://evil-app.example.com", "http", HOST, False),
        ("http://app.example.com@evil.example", "http", HOST, False),
        ("http://[::1]:8080", "http", "[::1]:8080", True),
        ("http://[::1]:8080", "http", "[::2]:8080", False),
        ("http://127.0.0.1:80", "http", "127.0.0.1", True),
        # Socket.IO 0.9 in Node sends host and port alone.
        ("app.example.com:8080", "http", f"{HOST}:8080", True),
        ("app.example.com:8081", "http", f"{HOST}:8080", False),
        ("null", "http", HOST, False),
        ("null", "http", "null", False),
        ("file://", "http", HOST, False),
        ("chrome-extension://abcdef", "http", HOST, False),
        ("http://", "http", HOST, False),
        ("http://app.example.com:port", "http", HOST, False),
        ("http://app.example.com:99999", "http", HOST, False),
        ("http://[::1", "http", HOST, False),
        ("http://app.example.com http://evil.example", "http", HOST, False),
        ("*", "http", HOST, False),
        ("http://app.example.com", "http", "", False),
        ("http://app.example.com", "http", "app.example.com:port", False),
        ("x" * 513, "http", "x" * 513, False),
        ("http://app.ex\u00e4mple.com", "http", "app.ex\u00e4mple.com", False),
    ],
)
def test_same_origin(origin: str, scheme: str, host: str, allowed: bool) -> None:
    assert judge(OriginPolicy(), scheme=scheme, host=host, Origin=origin) is allowed
    # Draft versions of the WebSocket protocol had a header of their own.
    assert judge(OriginPolicy(), scheme=scheme, host=host, Sec_WebSocket_Origin=origin) is allowed


@pytest.mark.parametrize(
    ("listed", "origin", "allowed"),
    [
        (["https://a.example"], "https://a.example", True),
        (["https://a.example"], "https://a.example:443", True),
        (["https://a.example/"], "https://a.example", True),
        (["https://a.example"], "http://a.example", False),
        (["https://a.example"], "https://a.example:8443", False),
        (["https://a.example"], "https://b.a.example", False),
        (["https://a.example"], "https://a.example.evil.example", False),
        (["HTTPS://A.example"], "https://a.EXAMPLE", True),
        (["https://a.example:8443"], "https://a.example:8443", True),
        (["https://a.example:8443"], "https://a.example", False),
        (["a.example"], "https://a.example", True),
        (["a.example"], "http://a.example", True),
        (["a.example"], "http://a.example:8080", False),
        (["a.example:8080"], "http://a.example:8080", True),
        (["a.example:8080"], "https://a.example:8080", True),
        (["a.example:8080"], "https://a.example", False),
        (["https://a.example", "https://b.example"], "https://b.example", True),
        (["https://a.example"], f"http://{HOST}", True),
        ("https://a.example", "https://a.example", True),
        (["null"], "null", True),
        ("null", "null", True),
        (["https://a.example"], "null", False),
        ("*", "https://any.example", True),
        (["*"], "https://any.example", True),
        (["*", "https://a.example"], "http://b.example", True),
        ("*", "null", True),
        ("*", "line\nbreak", False),
        ("*", "sp ace", False),
        ("*", "\u00e4", False),
        ("*", "x" * 513, False),
        (lambda origin: origin.endswith(".a.example"), "https://x.a.example", True),
        (lambda origin: origin.endswith(".a.example"), "https://a.example.evil.example", False),
        (lambda origin: False, f"http://{HOST}", True),
        (lambda origin: True, "null", False),
        (lambda origin: True, "http://[", False),
    ],
)
def test_listed_origins(listed: Any, origin: str, allowed: bool) -> None:
    assert judge(OriginPolicy(listed), Origin=origin) is allowed


@pytest.mark.parametrize(
    "origin", ["https://a.example/path", "https://*.example", "", "http://", "http://a:b", 5, None]
)
def test_what_is_not_an_origin_cannot_be_listed(origin: Any) -> None:
    with pytest.raises(ValueError, match=r"is not an origin: write it as https://host"):
        OriginPolicy([origin])


def test_unknown_is_allow_or_refuse() -> None:
    with pytest.raises(ValueError, match='"allow" or "refuse", not \'maybe\''):
        OriginPolicy(unknown="maybe")  # type: ignore[arg-type]


LISTED = ["https://a.example"]


@pytest.mark.parametrize(
    ("headers", "allowed", "strict"),
    [
        # Nothing at all: the setting decides.
        ({}, True, False),
        ({"Origin": ""}, True, False),
        ({"Sec_Fetch_Site": "same-origin"}, True, True),
        # The user typed the address: no page is behind it.
        ({"Sec_Fetch_Site": "none"}, True, True),
        ({"Sec_Fetch_Site": "same-site"}, False, False),
        ({"Sec_Fetch_Site": "cross-site"}, False, False),
        ({"Sec_Fetch_Site": "nonsense"}, False, False),
        ({"Sec_Fetch_Site": "cross-site", "Referer": "https://a.example/page"}, True, True),
        ({"Sec_Fetch_Site": "cross-site", "Referer": "https://b.example/page"}, False, False),
        ({"Referer": f"http://{HOST}/page?q#f"}, True, True),
        ({"Referer": f"https://{HOST}/"}, True, True),
        ({"Referer": "https://a.example/"}, True, True),
        ({"Referer": "https://b.example/"}, False, False),
        ({"Referer": f"https://b.example/{HOST}"}, False, False),
        ({"Referer": "https://b.example/https://a.example/"}, False, False),
        ({"Referer": "nonsense"}, False, False),
        ({"Referer": ""}, True, False),
        # The browser's own word goes before the others.
        ({"Origin": "https://b.example", "Referer": "https://a.example/"}, False, False),
        ({"Origin": "https://b.example", "Sec_Fetch_Site": "same-origin"}, False, False),
        ({"Origin": "https://a.example", "Sec_Fetch_Site": "cross-site"}, True, True),
        ({"Origin": "null", "Referer": "https://a.example/"}, False, False),
    ],
)
def test_requests_without_an_origin(headers: dict[str, str], allowed: bool, strict: bool) -> None:
    assert judge(OriginPolicy(LISTED), **headers) is allowed
    assert judge(OriginPolicy(LISTED, unknown="refuse"), **headers) is strict


@pytest.mark.parametrize("unknown", ["allow", "refuse"])
def test_star_asks_nothing_of_requests_without_an_origin(unknown: Any) -> None:
    policy = OriginPolicy("*", unknown=unknown)
    assert judge(policy)
    assert judge(policy, Sec_Fetch_Site="cross-site")
    assert judge(policy, Referer="https://b.example/")


def test_function_is_given_an_origin_and_nothing_else() -> None:
    asked: list[str] = []

    def ask(origin: str) -> bool:
        asked.append(origin)
        return True

    policy = OriginPolicy(ask)
    assert judge(policy, Origin="https://a.example:8443")
    assert judge(policy, Referer="https://user:word@a.example:8443/https://b.example/?q#f")
    assert judge(policy, Referer="https://A.example/")
    assert not judge(policy, Referer="nonsense")
    assert asked == ["https://a.example:8443", "https://a.example:8443", "https://a.example"]


ORIGIN = ("Access-Control-Allow-Origin", "https://a.example")
STAR = ("Access-Control-Allow-Origin", "*")
CREDENTIALS = ("Access-Control-Allow-Credentials", "true")
VARY = ("Vary", "Origin")


@pytest.mark.parametrize(
    ("origins", "allow_credentials", "origin", "headers"),
    [
        ((), False, "https://a.example", [ORIGIN, CREDENTIALS, VARY]),
        (LISTED, False, "https://a.example", [ORIGIN, CREDENTIALS, VARY]),
        (LISTED, False, None, [VARY]),
        ("*", False, "https://a.example", [STAR]),
        ("*", False, None, [STAR]),
        ("*", False, "null", [STAR]),
        ("*", True, "https://a.example", [ORIGIN, CREDENTIALS, VARY]),
        ("*", True, "null", [("Access-Control-Allow-Origin", "null"), CREDENTIALS, VARY]),
        ("*", True, None, [STAR, VARY]),
        (lambda origin: True, False, "https://a.example", [ORIGIN, CREDENTIALS, VARY]),
    ],
)
def test_cors_headers(origins: Any, allow_credentials: bool, origin: str | None, headers: list[Any]) -> None:
    policy = OriginPolicy(origins, allow_credentials=allow_credentials)
    given = HTTPHeaders({"Origin": origin} if origin is not None else {})
    assert list(policy.cors_headers(given)) == headers


@pytest.mark.parametrize(
    ("wanted", "allowed"),
    [
        ("Content-Type", True),
        ("a, b ,c", True),
        ("a,b", True),
        ("", False),
        ("a b", False),
        ("a,,b", False),
        ("a\r\nSet-Cookie: x", False),
        ("x" * 65, False),
        (",".join("a" * 33), False),
        (",".join("a" * 32), True),
        ("<script>", False),
    ],
)
def test_headers_that_a_preflight_asks_for(wanted: str, allowed: bool) -> None:
    answer = OriginPolicy("*").cors_headers({"Origin": "https://a.example", "Access-Control-Request-Headers": wanted})
    assert (("Access-Control-Allow-Headers", wanted) in answer) is allowed
    assert len(answer) == 1 + allowed


@pytest.mark.parametrize(
    ("origins", "ancestors"),
    [
        ((), "'self'"),
        (LISTED, "'self' https://a.example:443"),
        (["a.example:8080"], "'self' http://a.example:8080 https://a.example:8080"),
        (["null"], "'self'"),
        ("*", None),
        (lambda origin: True, None),
    ],
)
def test_who_may_frame_our_pages(origins: Any, ancestors: str | None) -> None:
    assert OriginPolicy(origins).frame_ancestors == ancestors


@pytest.mark.parametrize("transport", EVERY)
async def test_the_rule_stands_before_every_transport(transport: str) -> None:
    class App(Recorder):
        pass

    strange = [("Origin", "https://b.example")]
    async with endpoint(App, {"origins": LISTED}) as (base, router):
        async with Client(base, transport, headers=strange) as client:
            if transport in WEBSOCKETS:
                with pytest.raises(HandshakeRefused) as raised:
                    await client.open()
                assert raised.value.response.status == 403
            else:
                with pytest.raises(AssertionError, match="403"):
                    await client.open()
        assert len(router._gateway.store) == 0
        assert App.made == []
        for origin in ("https://a.example", base):
            async with Client(base, transport, headers=[("Origin", origin)]) as client:
                await client.open()


@pytest.mark.parametrize("path", ["xhr_send", "jsonp_send"])
async def test_the_rule_stands_before_sending(path: str) -> None:
    class App(Recorder):
        pass

    async with endpoint(App) as (base, _), Client(base, "xhr") as client:
        await client.open()
        for headers in ([("Origin", "https://b.example")], [("Referer", "https://b.example/x")]):
            answer = await request(base, "POST", f"{client.url}/{path}", headers=headers, body=b'["x"]')
            assert answer.status == 403
        assert App.made[0].messages == []
        assert App.made[0].session.core.is_open
