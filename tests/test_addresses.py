"""Whose address it is when proxies stand between."""

from __future__ import annotations

from typing import Any

import pytest
from tornado.httputil import HTTPHeaders

from polysock_transports.addresses import TrustedProxies
from support.clients import (
    Client,
    Recorder,
    endpoint,
    quiet,  # noqa: F401  # autouse: nothing here logs unannounced
)

PROXY, INNER, CLIENT = "10.0.0.1", "10.0.0.2", "192.0.2.1"


@pytest.mark.parametrize(
    ("trusted", "remote", "forwarded", "real", "address"),
    [
        # Nobody is trusted unless named: anybody can send these headers.
        ([], CLIENT, None, None, CLIENT),
        ([], CLIENT, "198.51.100.7", "198.51.100.8", CLIENT),
        ([PROXY], CLIENT, "198.51.100.7", "198.51.100.8", CLIENT),
        ([PROXY], PROXY, CLIENT, None, CLIENT),
        (["10.0.0.0/8"], PROXY, CLIENT, None, CLIENT),
        (["10.0.0.0/8"], PROXY, f"{CLIENT}, {INNER}", None, CLIENT),
        ([PROXY], PROXY, f"{CLIENT}, {INNER}", None, INNER),
        # What the client itself wrote stands at the front, and is not believed.
        ([PROXY], PROXY, f"127.0.0.1, {CLIENT}", None, CLIENT),
        (["10.0.0.0/8"], PROXY, f"10.9.9.9, {CLIENT}, {INNER}", None, CLIENT),
        (["10.0.0.0/8"], PROXY, f"nonsense, {CLIENT}", None, CLIENT),
        # Only proxies in the chain: the first of them asked.
        (["10.0.0.0/8"], PROXY, f"10.0.0.9, {INNER}", None, "10.0.0.9"),
        ([PROXY], PROXY, None, CLIENT, CLIENT),
        ([PROXY], PROXY, "", CLIENT, CLIENT),
        ([PROXY], PROXY, " , ,", f" {CLIENT} ", CLIENT),
        ([PROXY], PROXY, CLIENT, "198.51.100.8", CLIENT),
        ([PROXY], PROXY, None, None, PROXY),
        ([PROXY], PROXY, "nonsense", None, PROXY),
        ([PROXY], PROXY, None, "<script>", PROXY),
        ([PROXY], PROXY, f"{CLIENT}, unknown", None, PROXY),
        (["::1"], "::1", "2001:db8::1", None, "2001:db8::1"),
        (["2001:db8::/32"], "2001:db8::5", CLIENT, None, CLIENT),
        (["10.0.0.0/8"], "2001:db8::5", CLIENT, None, "2001:db8::5"),
        (["10.0.0.0/8"], "", CLIENT, None, ""),
        (["10.0.0.0/8"], "/run/socket", CLIENT, None, "/run/socket"),
    ],
)
def test_client_address(trusted: list[str], remote: str, forwarded: str | None, real: str | None, address: str) -> None:
    headers = HTTPHeaders()
    if forwarded is not None:
        headers["X-Forwarded-For"] = forwarded
    if real is not None:
        headers["X-Real-Ip"] = real
    assert TrustedProxies(trusted).client_address(remote, headers) == address


@pytest.mark.parametrize("network", ["nonsense", "10.0.0.1/8", "300.0.0.1", "10.0.0.0/33", ""])
def test_what_is_not_a_network(network: str) -> None:
    with pytest.raises(ValueError, match=r"network|host bits"):
        TrustedProxies([network])


@pytest.mark.parametrize(
    ("settings", "ip"),
    [({}, "127.0.0.1"), ({"trusted_proxies": ["127.0.0.0/8"]}, CLIENT)],
    ids=["untrusted", "trusted"],
)
async def test_application_sees_it(settings: dict[str, Any], ip: str) -> None:
    class App(Recorder):
        pass

    async with (
        endpoint(App, settings) as (base, _),
        Client(base, "xhr", headers=[("X-Forwarded-For", f"198.51.100.7, {CLIENT}")]) as client,
    ):
        await client.open()
        assert App.made[0].info.ip == ip
        assert App.made[0].session.core.address == ip
