"""Which transports of a SockJS client work against a running server, in one engine: a line a case.

    python -m browserlab.matrix chromium --server http://127.0.0.1:8000 --cross http://localhost:8000

The server must answer /sock.html with pages/sock.html, /static/NAME.js with the client library, and echo on --route;
--cross is the same server under another origin.  The exit status is 1 when a transport named with --need failed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any
from urllib.parse import urlencode

from .engines import ENGINES, KNOCKOUTS, Engine, HtmlUnit, knock_out, open_engine

TRANSPORTS = (
    *("websocket", "xhr-streaming", "xdr-streaming", "eventsource", "iframe-eventsource", "htmlfile"),
    *("iframe-htmlfile", "xhr-polling", "xdr-polling", "iframe-xhr-polling", "jsonp-polling"),
)
#: How much longer than the page's own limit the engine may take.
GRACE_SECONDS = 6


def one(
    engine: Engine,
    page: str,
    route: str,
    lib: str,
    transport: str = "",
    *,
    wait: int = 10,
    preload: str | None = None,
) -> dict[str, Any]:
    """The answer of pages/sock.html: ok, why, transport, ...; an empty ``transport`` lets the client choose."""
    query = urlencode({"lib": lib, "url": route, "t": transport, "wait": wait * 1000})
    started = time.monotonic()
    text = engine.run(f"{page}/sock.html?{query}", timeout=wait + GRACE_SECONDS, preload=preload)
    answer: dict[str, Any] = json.loads(text) if text else {"ok": False, "why": "no answer", "transport": "?"}
    answer["seconds"] = round(time.monotonic() - started, 1)
    return answer


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m browserlab.matrix", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("engine", choices=sorted(ENGINES))
    parser.add_argument("--server", required=True, help="origin of the page")
    parser.add_argument("--cross", help="the same server under another origin")
    parser.add_argument("--route", default="/echo")
    parser.add_argument("--lib", default="sockjs")
    parser.add_argument("--only", nargs="+", default=["default", *TRANSPORTS], help='"default": the client chooses')
    parser.add_argument("--need", nargs="+", default=[], help="transports that must work")
    parser.add_argument("--without", nargs="+", default=[], choices=sorted(KNOCKOUTS), help="features to remove first")
    parser.add_argument("--wait", type=int, default=10)
    parser.add_argument("--binary", help="the engine's program (htmlunit: the jar)")
    parser.add_argument("--browser", help="htmlunit: a BrowserVersion constant")
    arguments = parser.parse_args()
    options = {"binary": arguments.binary}
    if ENGINES[arguments.engine] is HtmlUnit and arguments.browser:
        options["browser"] = arguments.browser
    preload = knock_out(*arguments.without) or None
    worked = set()
    with open_engine(arguments.engine, **options) as engine:
        for where, origin in (("same", arguments.server), ("cross", arguments.cross)):
            for transport in arguments.only if origin else ():
                answer = one(
                    engine,
                    arguments.server,
                    origin + arguments.route,
                    arguments.lib,
                    "" if transport == "default" else transport,
                    wait=arguments.wait,
                    preload=preload,
                )
                if answer["ok"]:
                    worked.add(transport)
                mark, why = ("OK", "") if answer["ok"] else ("no", answer["why"])
                line = f"{where:5} {transport:20} {mark:4} {answer['transport']:18} {answer['seconds']:5.1f} s  {why}"
                print(line.rstrip(), flush=True)
    missing = sorted(set(arguments.need) - worked)
    if missing:
        print("did not work: " + ", ".join(missing))
    return int(bool(missing))


if __name__ == "__main__":
    sys.exit(main())
