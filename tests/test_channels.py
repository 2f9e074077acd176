"""Names of channels: any namespace and room has one, no two have the same, and events go to few."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polysock.channels import (
    ALL_NODES,
    channels_for,
    namespace_channel,
    new_node_id,
    node_channel,
    node_of,
    room_channel,
    topic_channel,
)
from polysock.hub import EVERYONE, Target
from polysock_transports.placement import NODE_ID_CHARS
from support.packets import TEXT

#: What the contract of a backplane allows.
CHANNEL = re.compile(r"[!-~]{1,1000}\Z")
NAMES = st.text(st.sampled_from("/*%-~. ab\ud800é"), max_size=6) | TEXT | TEXT.map(lambda text: text * 300)


@given(NAMES, NAMES)
def test_every_name_makes_a_channel(namespace: str, room: str) -> None:
    for channel in (
        namespace_channel(namespace),
        room_channel(namespace, room),
        topic_channel(namespace, room),
        node_channel(new_node_id()),
        ALL_NODES,
    ):
        assert CHANNEL.match(channel)


@given(st.lists(st.tuples(NAMES, NAMES), min_size=2, max_size=2, unique=True))
def test_no_two_rooms_share_a_channel(pairs: list[tuple[str, str]]) -> None:
    assert len({room_channel(*pair) for pair in pairs}) == len(pairs)
    kinds = [room_channel(*pairs[0]), topic_channel(*pairs[0]), namespace_channel(pairs[0][0]), ALL_NODES]
    assert len(set(kinds)) == len(kinds)


def test_long_names_that_differ_at_the_end_differ() -> None:
    long = "é" * 5000
    assert room_channel("/", long + "a") != room_channel("/", long + "b")
    assert namespace_channel("/" + long) != namespace_channel("/" + long + "b")
    # The hash is no name that somebody could give a room.
    hashed = room_channel("/", long).rpartition("/")[2]
    assert room_channel("/", hashed) != room_channel("/", long)


def test_a_node_s_id() -> None:
    ids = {new_node_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(re.fullmatch(f"[A-Za-z0-9]{{{NODE_ID_CHARS}}}", one) for one in ids)


@pytest.mark.parametrize(
    ("name", "node"),
    [
        ("abcd1234xyz", "abcd1234"),
        ("/chat#abcd1234xyz", "abcd1234"),
        ("/a#b#abcd1234xyz", "abcd1234"),
        ("abcd1234", None),
        ("abcd123", None),
        ("lobby", None),
        ("room 1 of many", None),
        ("/chat", None),
        ("", None),
        ("abcdé234xyz", None),
        ("a#abcd1234xyz", None),
    ],
)
def test_the_node_in_an_id(name: str, node: str | None) -> None:
    assert node_of(name) == node


def test_where_an_event_goes() -> None:
    live = {"abcd1234"}

    def where(target: Target) -> tuple[str, ...]:
        return channels_for("/chat", target, live.__contains__)

    everyone = (namespace_channel("/chat"),)
    assert where(EVERYONE) == where(Target(but=("x",))) == where(Target(("a", "b"))) == everyone
    assert where(Target(("red",))) == where(Target(("red",), ("blue",))) == (room_channel("/chat", "red"),)
    # An id is known to its node alone, and somebody may be in a room of that name.
    assert where(Target(("abcd1234xyz",))) == (room_channel("/chat", "abcd1234xyz"), node_channel("abcd1234"))
    assert where(Target(("gone1234xyz",))) == (room_channel("/chat", "gone1234xyz"),)
