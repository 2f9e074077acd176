"""Who may come from where: one rule for every transport.  Pure functions of header values.

Browsers let any page open a WebSocket, a script element or a frame to any server, so the server must judge.  The
``Origin`` header is the word of the browser; where it is absent (JSONP script elements, htmlfile frames, old browsers,
curl) ``Sec-Fetch-Site`` and ``Referer`` stand in for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Literal
from urllib.parse import urlsplit

__all__ = ["OriginPolicy", "Origins"]

#: ``"*"``, a list of origins (and ``"null"``), or a function of the origin.
Origins = Literal["*"] | Iterable[str] | Callable[[str], bool]

_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_PRINTABLE = re.compile(r"[\x21-\x7e]{1,512}\Z")
_TOKEN = r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}"
#: What may be listed.  (Browsers write a slash after it in the address bar, and names of hosts in ASCII.)
_LISTED = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*://)?[A-Za-z0-9._:\[\]-]+/?\Z")
_HEADER_NAMES = re.compile(rf"{_TOKEN}(?: ?, ?{_TOKEN}){{0,31}}\Z")


def _parse(origin: str) -> tuple[str, str, int | None] | None:
    """(scheme, host, port) of an origin, a URL or a bare ``host[:port]`` (scheme is then empty)."""
    try:
        parts = urlsplit(origin if "://" in origin else "//" + origin)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if not host:
        return None
    scheme = parts.scheme.lower()
    return scheme, host.rstrip("."), port if port is not None else _DEFAULT_PORTS.get(scheme)


def _origin_of(url: str) -> str:
    """The origin of a page's address as browsers write it; empty where it has none."""
    parsed = _parse(url) if "://" in url else None
    if parsed is None:
        return ""
    scheme, host, port = parsed
    origin = f"{scheme}://[{host}]" if ":" in host else f"{scheme}://{host}"
    return origin if port == _DEFAULT_PORTS.get(scheme) else f"{origin}:{port}"


class OriginPolicy:
    """The origin rule of one endpoint.

    - A page of the same host and port is always allowed; an ``http`` page is not the same origin as an ``https``
      server, while an ``https`` page is taken for the same behind a proxy that ends TLS.
    - *origins*: further allowed ones such as ``"https://app.example.com"``; a bare ``"app.example.com"`` allows both
      schemes.  ``"*"`` allows all.  ``"null"`` (sandboxed frames, ``file:`` pages) is allowed only where it is listed
      or by ``"*"``.
    - *allow_credentials* is for ``"*"``: it lets every page in the world act with the visitor's cookies.  Listed
      origins always get the header, since naming them says they are trusted.
    - *unknown*: what to do with a request that says nothing at all about where it comes from: ``"allow"`` (old
      browsers and programs that are not browsers work) or ``"refuse"``.
    """

    def __init__(
        self,
        origins: Origins = (),
        *,
        allow_credentials: bool = False,
        unknown: Literal["allow", "refuse"] = "allow",
    ) -> None:
        if unknown not in ("allow", "refuse"):
            raise ValueError(f'origin_unknown must be "allow" or "refuse", not {unknown!r}')
        self.any = False
        self._function: Callable[[str], bool] | None = None
        self._listed: set[tuple[str, str, int | None]] = set()
        self._null = False
        if callable(origins):
            self._function = origins
        else:
            self._list([origins] if isinstance(origins, str) else list(origins))
        self._allow_unknown = unknown == "allow"
        self._allow_credentials = allow_credentials or not self.any
        #: Whether ``judge`` says the same whenever it is asked the same.
        self.is_fixed = self._function is None
        #: For ``Content-Security-Policy: frame-ancestors``; None where anybody may frame our pages.
        self.frame_ancestors = None if self.any or self._function else self._ancestors(origins)

    def _list(self, origins: list[str]) -> None:
        for origin in origins:
            if origin == "*":
                self.any = True
            elif origin == "null":
                self._null = True
            else:
                parsed = _parse(origin) if isinstance(origin, str) and "*" not in origin else None
                if parsed is None or not _LISTED.match(origin):
                    raise ValueError(
                        f"{origin!r} is not an origin: write it as https://host or https://host:port, "
                        'in ASCII and without a path, or use "*" or "null"'
                    )
                if parsed[0]:
                    self._listed.add(parsed)
                else:
                    for scheme in ("http", "https"):
                        port = parsed[2] if parsed[2] is not None else _DEFAULT_PORTS[scheme]
                        self._listed.add((scheme, parsed[1], port))

    def _ancestors(self, origins: Origins) -> str:
        named = [f"{scheme}://{host}:{port}" for scheme, host, port in sorted(self._listed, key=str)]
        return " ".join(["'self'", *named])

    def _is_same(self, origin: tuple[str, str, int | None], scheme: str, host: str) -> bool:
        here = _parse(host)
        if here is None or here[1] != origin[1]:
            return False
        if not origin[0]:
            # Socket.IO 0.9 in Node sends host and port alone.
            return origin[2] == here[2]
        if scheme == "https" and origin[0] == "http":
            return False
        # Host leaves out the default port of whatever scheme the browser used.
        return origin[2] == (here[2] if here[2] is not None else _DEFAULT_PORTS.get(origin[0]))

    def _allows(self, origin: str, scheme: str, host: str) -> bool:
        if self.any or origin == f"{scheme}://{host}":
            return True
        if origin == "null":
            return self._null
        parsed = _parse(origin)
        if parsed is None:
            return False
        if self._is_same(parsed, scheme, host) or parsed in self._listed:
            return True
        return self._function is not None and bool(self._function(origin))

    def judge(self, headers: Mapping[str, str], scheme: str, host: str) -> bool:
        """Whether a request with *headers*, to *scheme* and *host* of this server, may be served."""
        origin = headers.get("Origin") or headers.get("Sec-WebSocket-Origin")
        if origin is not None:
            return bool(_PRINTABLE.match(origin)) and self._allows(origin, scheme, host)
        if self.any:
            return True
        site = headers.get("Sec-Fetch-Site")
        # "none": the user typed the address or opened a bookmark; no page is behind it.
        if site in ("same-origin", "none"):
            return True
        referer = headers.get("Referer")
        if referer:
            return self._allows(_origin_of(referer), scheme, host)
        return site is None and self._allow_unknown

    def cors_headers(self, headers: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
        """The CORS headers of an answer to a request that ``judge`` let in (Fetch standard, section 3.2)."""
        origin = headers.get("Origin")
        if origin is None or (self.any and not self._allow_credentials):
            answer: list[tuple[str, str]] = [("Access-Control-Allow-Origin", "*")] if self.any else []
        else:
            answer = [("Access-Control-Allow-Origin", origin)]
            if self._allow_credentials:
                answer.append(("Access-Control-Allow-Credentials", "true"))
        if not self.any or self._allow_credentials:
            answer.append(("Vary", "Origin"))
        wanted = headers.get("Access-Control-Request-Headers")
        if wanted and _HEADER_NAMES.match(wanted):
            answer.append(("Access-Control-Allow-Headers", wanted))
        return tuple(answer)
