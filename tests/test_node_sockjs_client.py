"""sockjs-client 1.6.1 under Node, over each transport it has there, against the interop server.

The browsers' turn is elsewhere; what Node adds is a client with other sockets and other HTTP habits (chunked sends
without Content-Length, no Origin). The conversations are held by interop/sockjs_client.js.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from support.needs import need_npm, need_program

pytest_plugins = ["support.interop"]

CLIENT = Path(__file__).resolve().parent / "interop" / "sockjs_client.js"
SECONDS = 20.0

TRANSPORTS = ["websocket", "xhr-streaming", "xhr-polling", "eventsource"]
# What a frame, a script or an event stream could choke on, up to both ends of the ranges that SockJS escapes.
AWKWARD = [
    "hello",
    "",
    "gr\u00fc\u00df \u20ac \U0001f600",
    '"quoted" \\ back\\slash </script> \r\n\t\0\x1f\x7f %20 + &amp;',
    "\u00ad\u0600\u200c\u200f\u2028\u2029\u202f\u2060\u206f\ufeff\ufff0\ufffe\uffff",
]


def converse(
    url: str, transport: str, send: list[str], *, expect: int | None = None, close: tuple[int, str] | None = None
) -> dict[str, Any]:
    """Send, receive `expect` messages (as many as were sent, if not told), close; what the client saw."""
    node = need_program("node", "nodejs", how="install Node.js (Debian: nodejs)")
    modules = need_npm("sockjs-client").parents[1]
    plan = {"send": send, "expect": len(send) if expect is None else expect, "close": close}
    run = subprocess.run(
        [node, CLIENT, url, transport],
        input=json.dumps(plan),
        env={**os.environ, "NODE_PATH": str(modules)},
        capture_output=True,
        encoding="utf-8",
        timeout=SECONDS,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    outcome: dict[str, Any] = json.loads(run.stdout)
    return outcome


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def test_echo_keeps_every_character(interop_url: str, transport: str) -> None:
    outcome = converse(f"{interop_url}/echo", transport, AWKWARD, close=(3001, "bye"))
    assert outcome["transport"] == transport
    assert outcome["messages"] == AWKWARD
    assert outcome["events"] == ["open", "message", "close"]


def test_echo_keeps_the_order_across_many_responses(interop_url: str, transport: str) -> None:
    # 64 KB of frames: sixteen times the interop server's response limit, so streams are ended and taken up again.
    sent = [f"{number:04}" + "x" * 124 for number in range(500)]
    outcome = converse(f"{interop_url}/echo", transport, sent, close=(1000, "done"))
    assert outcome["messages"] == sent


def test_large_messages(interop_url: str, transport: str) -> None:
    sent = ["\u00e9" * 50_000, "x" * 100_000]
    outcome = converse(f"{interop_url}/echo", transport, sent, close=(1000, ""))
    assert outcome["messages"] == sent


def test_server_closes(interop_url: str, transport: str) -> None:
    outcome = converse(f"{interop_url}/close", transport, [])
    assert outcome["events"] == ["open", "close"]
    assert outcome["close"] == {"code": 3000, "reason": "Go away!", "wasClean": True}


def test_client_closes(interop_url: str, transport: str) -> None:
    outcome = converse(f"{interop_url}/echo", transport, ["hello"], close=(3001, "bye"))
    assert outcome["close"] == {"code": 3001, "reason": "bye", "wasClean": True}


def test_amplify(interop_url: str, transport: str) -> None:
    powers = [0, 1, 12, 15]
    outcome = converse(f"{interop_url}/amplify", transport, [str(power) for power in powers], close=(1000, ""))
    assert [len(message) for message in outcome["messages"]] == [2**power for power in powers]


def test_websocket_disabled(interop_url: str) -> None:
    """A client that insists on what the service does not offer is told so; one with a choice takes the next best."""
    url = f"{interop_url}/disabled_websocket_echo"
    refused = converse(url, "websocket", [])
    assert refused["events"] == ["close"]
    assert refused["close"] == {"code": 2000, "reason": "All transports failed", "wasClean": False}
    assert converse(url, "xhr-polling", ["hello"], close=(1000, ""))["messages"] == ["hello"]
