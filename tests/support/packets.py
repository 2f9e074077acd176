"""What the tests of packets share: vectors read, and values of every kind made."""

from __future__ import annotations

import json
import math
import re
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from polysock.packets import Ack, Connect, ConnectError, Disconnect, Event, Packet

__all__ = ["JSON", "TEXT", "VALUE", "all_finite", "expanded", "load", "packet_of", "vectors_of"]

_KINDS = {"connect": Connect, "disconnect": Disconnect, "event": Event, "ack": Ack, "connect_error": ConnectError}
_REPEAT = re.compile(r"@(\d+)\*([^@]+)@")

TEXT = st.text(st.characters(exclude_categories=()))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=10,
)
#: What an application may send: JSON, and bytes anywhere in it.
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT | st.binary(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(TEXT.filter(lambda key: key not in ("_placeholder", "#base64")), inner, max_size=4)
    ),
    max_leaves=10,
)


def load(name: str) -> dict[str, list[dict[str, Any]]]:
    """The vectors of one form of packets, by group."""
    path = Path(__file__).parent.parent / "vectors" / f"{name}.json"
    vectors: dict[str, list[dict[str, Any]]] = json.loads(path.read_text(encoding="utf-8"))
    return vectors


def vectors_of(vectors: dict[str, list[dict[str, Any]]], *groups: str) -> Any:
    """A test's parameter ``vector``: each one of *groups*."""
    chosen = [vector for group in groups for vector in vectors[group]]
    return pytest.mark.parametrize("vector", chosen, ids=[vector["name"] for vector in chosen])


def _to_bytes(value: Any) -> Any:
    """The vector's ``{"base64": ...}`` as bytes, wherever it stands."""
    if isinstance(value, dict):
        if list(value) == ["base64"]:
            return b64decode(value["base64"])
        return {key: _to_bytes(item) for key, item in value.items()}
    return [_to_bytes(item) for item in value] if isinstance(value, list) else value


def packet_of(vector: dict[str, Any]) -> Packet:
    fields = _to_bytes(vector["packet"])
    made: Packet = _KINDS[fields.pop("type")](**fields)
    return made


def expanded(messages: list[Any]) -> list[str | bytes]:
    """A vector's messages; ``@5000*1@`` in a text means 5,000 times 1."""
    return [
        _REPEAT.sub(lambda found: found[2] * int(found[1]), message) if isinstance(message, str) else message
        for message in _to_bytes(messages)
    ]


def all_finite(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(map(all_finite, value.values()))
    return all(map(all_finite, value)) if isinstance(value, list) else True
