"""Which node holds a session: ids with a tag, and rendezvous hashing."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polysock_transports.placement import NODE_ID_CHARS, Node, Placement

ids = st.text("abcXYZ019", min_size=NODE_ID_CHARS, max_size=NODE_ID_CHARS)
session_ids = st.text(st.characters(), max_size=40)


@st.composite
def clusters(draw: st.DrawFn) -> list[Node]:
    names = draw(st.lists(ids, min_size=1, max_size=8, unique=True))
    return [Node(name, joined_ms=draw(st.integers(0, 3))) for name in names]


def placed(nodes: list[Node]) -> Placement:
    placement = Placement(nodes[0])
    placement.update(nodes)
    return placement


def node(number: int, joined_ms: int | None = None) -> Node:
    return Node(f"node{number:04}", joined_ms=number if joined_ms is None else joined_ms)


# -- rendezvous


@given(clusters(), session_ids)
def test_every_node_names_the_same_home_whatever_order_it_learned_the_nodes_in(
    nodes: list[Node], session_id: str
) -> None:
    homes = set()
    for own in nodes:
        placement = Placement(own)
        placement.update(reversed(nodes))
        homes.add(placement.home_of(session_id))
        placement.update([node for node in nodes if node is not own])  # a node is always alive to itself
        homes.add(placement.home_of(session_id))
    assert len(homes) == 1


@given(clusters(), ids, session_ids)
def test_who_joins_takes_from_all_and_moves_nothing_between_the_others(
    nodes: list[Node], new: str, session_id: str
) -> None:
    others = [node for node in nodes if node.id != new]
    if not others:
        return
    before = placed(others).home_of(session_id)
    newcomer = Node(new, joined_ms=9)
    after = placed([*others, newcomer]).home_of(session_id)
    assert after in (before, newcomer)


@given(clusters(), st.data(), session_ids)
def test_who_leaves_moves_only_what_was_its_own(nodes: list[Node], data: st.DataObject, session_id: str) -> None:
    if len(nodes) < 2:
        return
    gone = data.draw(st.sampled_from(nodes))
    before = placed(nodes).home_of(session_id)
    after = placed([node for node in nodes if node is not gone]).home_of(session_id)
    assert after == before or before is gone


@given(clusters(), session_ids)
def test_earlier_homes_are_those_of_the_smaller_clusters_before(nodes: list[Node], session_id: str) -> None:
    joined = sorted(nodes, key=lambda node: (node.joined_ms, node.id))
    was = [placed(joined[:count]).home_of(session_id) for count in range(len(joined), 0, -1)]
    expected = [home for home, _ in itertools.groupby(was)]
    placement = placed(nodes)
    assert [placement.home_of(session_id), *placement.earlier_homes(session_id)] == expected


def test_sessions_spread_evenly() -> None:
    nodes = [node(number) for number in range(10)]
    placement = placed(nodes)
    found = Counter(placement.home_of(f"session{number}") for number in range(20_000))
    assert len(found) == 10
    # 2,000 each, with a standard deviation of 42.
    assert max(abs(count - 2_000) for count in found.values()) < 250


def test_homes_are_remembered_until_the_nodes_change_and_not_too_many_of_them() -> None:
    placement = placed([node(number) for number in range(4)])
    ids = [str(number) for number in range(12_000)]
    for session_id in ids:
        placement.home_of(session_id)
        assert len(placement._homes) <= 10_000
    for live in ([0, 1, 2, 3], [0, 2], [0], [0, 2, 3]):
        nodes = [node(number) for number in live]
        placement.update(nodes)
        expected = [placed(nodes).home_of(session_id) for session_id in ids[-50:]]
        for _ in range(2):
            assert [placement.home_of(session_id) for session_id in ids[-50:]] == expected


# So that a change of the hash is noticed: nodes of two versions would disagree while a new one is rolled out.
VECTORS = {"": "node0002", "abcdefgh": "node0000", "o5f4xk2m": "node0000", "\u00fc\ud800": "node0001"}


def test_the_hash_is_what_it_was() -> None:
    placement = placed([node(number) for number in range(3)])
    assert {session_id: placement.home_of(session_id).id for session_id in VECTORS} == VECTORS


def test_the_hash_does_not_depend_on_the_process() -> None:
    code = (
        "from polysock_transports.placement import Node, Placement\n"
        "p = Placement(Node('node0000'))\n"
        "p.update([Node('node0001'), Node('node0002')])\n"
        "print([p.home_of(str(n)).id for n in range(50)])"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            check=True,
            capture_output=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(runs) == 1


# -- ids with a tag


def test_an_id_leads_to_the_node_that_made_it() -> None:
    nodes = [node(number) for number in range(3)]
    made = Placement(nodes[1]).new_id()
    assert re.fullmatch(r"node0001[A-Za-z0-9_-]{20}", made)
    placement = placed(nodes)
    assert placement.owner_of(made) == nodes[1]
    assert Placement(nodes[0]).owner_of(made) is None  # it knows no such node
    placement.update([nodes[0]])
    assert placement.owner_of(made) is None


@pytest.mark.parametrize("session_id", ["", "node", "node000", "0node000x", "\ud800" * 20])
def test_other_ids_lead_nowhere(session_id: str) -> None:
    assert Placement(node(0)).owner_of(session_id) is None


def test_ids_are_never_the_same() -> None:
    placement = Placement(node(0))
    assert len({placement.new_id() for _ in range(1000)}) == 1000


# -- nodes


def test_the_version_counts_changes_of_the_set() -> None:
    placement = Placement(node(0))
    first = placement.version
    placement.update([node(0)])
    assert placement.version == first
    placement.update([node(0), node(1)])
    assert placement.version == first + 1
    placement.update([node(1), node(0)])
    assert placement.version == first + 1
    placement.update([node(1)])
    assert placement.version == first + 1  # this node is always there
    placement.update([])
    assert placement.version == first + 2


def test_a_node_is_what_the_latest_update_says() -> None:
    placement = Placement(node(0))
    moved = Node("node0000", joined_ms=7, tcp="127.0.0.1:1")
    placement.update([moved, node(1)])
    assert placement.own is moved
    assert placement.nodes == (node(1), moved)


@pytest.mark.parametrize("bad", ["", "short", "muchtoolong", "with-dsh", "node000\n", "n\u00f6de0000"])
def test_malformed_ids_are_refused_and_change_nothing(bad: str) -> None:
    with pytest.raises(ValueError, match="letters and digits"):
        Placement(Node(bad))
    placement = placed([node(0), node(1)])
    with pytest.raises(ValueError, match="letters and digits"):
        placement.update([node(2), Node(bad)])
    assert placement.nodes == (node(0), node(1))
