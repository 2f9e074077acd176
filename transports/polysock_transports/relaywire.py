"""What nodes say to each other before and around the requests that they pass on.  Pure.

A connection begins with three lines of fixed length: the listener's greeting (its id and a nonce), the caller's answer
(its id, a nonce, and the proof that it knows the secret), and the listener's own proof.  Then follows HTTP/1.1, each
request with one header more, ``RELAY_HEADER``, which says what the first node has judged about the client.  No client
can send it: it is looked at on such connections only, and every other one of that name is dropped when a request is
passed on.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Iterable
from typing import NamedTuple

from .http1 import OF_THE_CONNECTION, FieldCache, request_head
from .placement import NODE_ID_CHARS

__all__ = [
    "ANSWER_BYTES",
    "ASK",
    "GREETING_BYTES",
    "HELD",
    "LIST",
    "PROOF_BYTES",
    "RELAY_HEADER",
    "SERVE",
    "Passed",
    "RequestWriter",
    "answer",
    "greeting",
    "listener_proof",
    "nonce",
    "read_answer",
    "read_greeting",
    "read_passed",
]

_MAGIC = b"polysock-relay/1 "
_NONCE_BYTES = 32
_NONCE_CHARS = 2 * _NONCE_BYTES
_PROOF_CHARS = 64  # SHA-256 in hexadecimal
GREETING_BYTES = len(_MAGIC) + NODE_ID_CHARS + 1 + _NONCE_CHARS + 1
ANSWER_BYTES = NODE_ID_CHARS + 1 + _NONCE_CHARS + 1 + _PROOF_CHARS + 1
PROOF_BYTES = _PROOF_CHARS + 1

_GREETING = re.compile(rb"%b([A-Za-z0-9]{%d}) ([0-9a-f]{%d})\n\Z" % (re.escape(_MAGIC), NODE_ID_CHARS, _NONCE_CHARS))
_ANSWER = re.compile(
    rb"([A-Za-z0-9]{%d}) ([0-9a-f]{%d}) ([0-9a-f]{%d})\n\Z" % (NODE_ID_CHARS, _NONCE_CHARS, _PROOF_CHARS)
)


def nonce() -> bytes:
    """A number that nobody uses twice, in hexadecimal."""
    return secrets.token_hex(_NONCE_BYTES).encode("ascii")


def greeting(node_id: str, own_nonce: bytes) -> bytes:
    """The listener's first line."""
    return b"%b%b %b\n" % (_MAGIC, node_id.encode("ascii"), own_nonce)


def read_greeting(line: bytes) -> tuple[str, bytes] | None:
    """The listener's id and nonce; None for anything else."""
    found = _GREETING.match(line)
    return (found.group(1).decode("ascii"), found.group(2)) if found is not None else None


def answer(secret: bytes, greeting_line: bytes, node_id: str, own_nonce: bytes) -> bytes:
    """The caller's line."""
    start = b"%b %b" % (node_id.encode("ascii"), own_nonce)
    return b"%b %b\n" % (start, _proof(secret, b"caller", greeting_line, start))


def read_answer(secret: bytes, greeting_line: bytes, line: bytes) -> str | None:
    """The id of a caller that knows *secret*; None for anybody else."""
    found = _ANSWER.match(line)
    if found is None:
        return None
    expected = _proof(secret, b"caller", greeting_line, line[: -_PROOF_CHARS - 2])
    return found.group(1).decode("ascii") if hmac.compare_digest(expected, found.group(3)) else None


def listener_proof(secret: bytes, greeting_line: bytes, answer_line: bytes) -> bytes:
    """The listener's second line.  The caller compares it with its own in constant time (``hmac.compare_digest``)."""
    return _proof(secret, b"listener", greeting_line, answer_line) + b"\n"


def _proof(secret: bytes, whose: bytes, greeting_line: bytes, answer_line: bytes) -> bytes:
    # Both nonces and both ids are in the two lines; who speaks is in it too, so that no proof is good as the other's.
    return hmac.new(secret, whose + b"\n" + greeting_line + answer_line, "sha256").hexdigest().encode("ascii")


RELAY_HEADER = "X-Polysock-Relay"

#: Answer it as if the client had sent it to you.
SERVE = "serve"
#: The same where you hold the session; otherwise answer 421.
HELD = "held"
#: Answer 204 where you hold the session, and 404 where not.
ASK = "ask"
#: Answer with the ids of the sessions of this endpoint that you hold and that are at home with me, a line for each.
LIST = "list"
_MODES = frozenset((SERVE, HELD, ASK, LIST))


class Passed(NamedTuple):
    """What is said of a request that was passed on."""

    mode: str
    """``SERVE``, ``HELD``, ``ASK`` or ``LIST``."""
    node_id: str
    """Who passes it on."""
    address: str
    """The client's address."""
    scheme: str
    """Of the URL that the client used."""


#: For a request whose header says nothing of the kind.
_NOTHING = Passed(SERVE, "", "0.0.0.0", "http")


def read_passed(value: str) -> Passed:
    """What ``RELAY_HEADER`` says."""
    parts = value.split(" ")
    if len(parts) != 4 or parts[0] not in _MODES or parts[3] not in ("http", "https"):
        return _NOTHING
    return Passed(*parts)


class RequestWriter:
    """Writes requests as they are passed on: the clients', byte for byte but for what is the connection's own."""

    __slots__ = ("_clients", "_own")

    def __init__(self) -> None:
        self._clients = FieldCache(_NOT_PASSED_ON)
        self._own = FieldCache()

    def write(
        self,
        method: str,
        target: str,
        headers: Iterable[tuple[str, str]],
        passed: Passed,
        body: bytes,
        host: str,
        upgrade: str = "",
    ) -> bytes:
        """*host* counts, not what *headers* say of it; *upgrade* is for a request that wants to be a WebSocket.

        A header that Connection names is kept: the nodes are one server, and no client may hide its Origin from one of
        them.  Raises ValueError for what has no safe form.
        """
        own = [("Host", host), (RELAY_HEADER, f"{passed.mode} {passed.node_id} {passed.address} {passed.scheme}")]
        # By the method alone: a body without its length would be the next request, and another client's.
        if method != "GET":
            own.append(("Content-Length", str(len(body))))
        elif body:
            raise ValueError("a GET that is passed on has no body")
        elif upgrade:
            own += (("Connection", "Upgrade"), ("Upgrade", upgrade))
        return request_head(method, target, (*self._own.lines(own), *self._clients.lines(headers))) + body


# Expect was met by whoever read the body.
_NOT_PASSED_ON = OF_THE_CONNECTION | {RELAY_HEADER.lower(), "expect", "host"}
