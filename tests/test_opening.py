"""What an application sees of the request that opened a session is what Tornado has read of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tornado.httputil import HTTPHeaders, HTTPServerRequest, RequestStartLine
from tornado.web import Application, create_signed_value

from polysock_transports import ConnectionInfo
from polysock_transports.errors import StateError
from polysock_transports.opening import OpeningRequest, write_headers

NAMES = st.text("ABCabc123-_", min_size=1, max_size=8)
VALUES = st.text(st.characters(min_codepoint=0x21, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=8)


def opened(headers: HTTPHeaders, query: str = "", **named: Any) -> OpeningRequest:
    return OpeningRequest(write_headers(headers), query, **{"ip": "192.0.2.1", "path": "/", **named})


@given(st.lists(st.tuples(NAMES, VALUES), max_size=6))
def test_headers_are_as_they_came(lines: list[tuple[str, str]]) -> None:
    headers = HTTPHeaders()
    for name, value in lines:
        headers.add(name, value)
    info = opened(headers)
    assert list(info.headers.get_all()) == list(headers.get_all())  # type: ignore[attr-defined]  # they are Tornado's
    assert all(info.get_header(name.swapcase()) == headers[name] for name, _ in lines)
    assert info.get_header("nothing") is None


@pytest.mark.parametrize("query", ["", "a", "a=1&a=2&b=%ff&=x&c", "%&=&+=+"])
@pytest.mark.parametrize("cookie", [None, "", "a=b; c=d", '(a)=b; x="q\\"q"; a=1; a=2; =; e'])
def test_arguments_and_cookies_are_tornados(query: str, cookie: str | None) -> None:
    headers = HTTPHeaders({"Host": "a"} if cookie is None else {"Host": "a", "Cookie": cookie})
    start = RequestStartLine("GET", f"/?{query}", "HTTP/1.1")
    tornados = HTTPServerRequest(start_line=start, headers=headers, connection=_Connection())  # type: ignore[arg-type]
    info = opened(headers, query)
    assert info.arguments == tornados.arguments
    assert info.cookies == tornados.cookies
    assert info.get_argument("a") == (tornados.arguments["a"][0] if "a" in tornados.arguments else None)


def test_what_one_application_changes_no_other_sees() -> None:
    headers = HTTPHeaders({"Host": "a"})
    first, second = opened(headers), opened(headers)
    first.headers["Host"] = "b"  # type: ignore[index]
    headers["Host"] = "c"
    assert (first.get_header("host"), second.get_header("host")) == ("b", "a")


def test_it_is_a_connection_info_like_any_other() -> None:
    info = opened(HTTPHeaders({"Host": "a"}), "b=c", transport="xhr")
    plain = ConnectionInfo(
        ip="192.0.2.1", cookies={}, arguments={"b": [b"c"]}, headers=info.headers, path="/", transport="xhr"
    )
    fields = ("ip", "cookies", "arguments", "headers", "path", "origin", "transport", "text_only", "current_user")
    assert [getattr(info, name) for name in fields] == [getattr(plain, name) for name in fields]
    with pytest.raises(AttributeError):
        info.path = "/other"  # type: ignore[misc]
    assert replace(plain, path="/other").path == "/other"


def test_signed_cookies() -> None:
    signed = create_signed_value("secret", "who", "me").decode()
    headers = HTTPHeaders({"Cookie": f"who={signed}"})
    info = opened(headers, application=Application(cookie_secret="secret"))
    assert info.get_secure_cookie("who") == b"me"
    assert info.get_secure_cookie("other") is None
    assert info.get_signed_cookie("who", signed) == b"me"
    with pytest.raises(StateError):
        opened(headers, application=Application()).get_secure_cookie("who")


class _Connection:
    """What Tornado asks of a request's connection."""

    context = None
