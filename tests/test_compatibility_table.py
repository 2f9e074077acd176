"""docs/socketio-compatibility.md, held to the tests: what its table says was tried is a test, and each one is in it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
PAGE = (TESTS.parent / "docs" / "socketio-compatibility.md").read_text(encoding="utf-8")
COLLECTING_S = 240

NODE, BROWSER = "test_node_socketio_clients.py", "test_browser_socketio_clients.py"
LETTERS = "NBX"
NAMED = re.compile(r"`(test_\w+\.py)(?:::(test_\w+(?:\[[^\]`]+\])?))?`")
NOTE = re.compile(r" \((\d+)\)$")


@pytest.fixture(scope="module")
def collected() -> set[str]:
    """Every test in the files that the page names: ``file::name`` and, with parameters, ``file::name[...]`` too."""
    files = sorted({file for file, _ in NAMED.findall(PAGE)})
    command = [sys.executable, "-m", "pytest", "--collect-only", "--quiet", "-p", "no:cacheprovider", *files]
    run = subprocess.run(command, cwd=TESTS, capture_output=True, text=True, timeout=COLLECTING_S, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    ids = {line.removeprefix("tests/") for line in run.stdout.splitlines() if "::" in line}
    return ids | {name.partition("[")[0] for name in ids}


def rows(first: str) -> list[list[str]]:
    """The table whose headings begin so, its headings included."""
    found = re.search(rf"^\| {first} \|.*\n\|[- |]+\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    assert found is not None, f"there is no table that begins with {first!r}"
    lines = [found[0].partition("\n")[0], *found[1].splitlines()]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def scenarios(text: str) -> list[str]:
    return [] if text == "\u2013" else text.split(", ")


def claims() -> Iterator[tuple[str, str, list[str]]]:
    """Each place where a letter may stand: cell, letter, the tests behind it (none where the column has none)."""
    columns = {name: (scenarios(node), scenarios(browser)) for name, _, node, browser in rows("column")[1:]}
    (_, _, *names), *lines = rows(r"client \| transport")
    assert names == list(columns)
    for version, transport, *cells in lines:
        for name, cell in zip(names, cells, strict=True):
            node, browser = columns[name]
            where = f"{version}-{transport}"
            tests = {
                "N": [f"{NODE}::test_scenario[{where}-{scenario}]" for scenario in node],
                "B": [f"{BROWSER}::test_scenario[{where}-same-{scenario}]" for scenario in browser],
                "X": [f"{BROWSER}::test_scenario[{where}-cross-{scenario}]" for scenario in browser],
            }
            for letter, ids in tests.items():
                yield f"{where} {name}: {cell}", letter, ids


def test_every_cell_is_what_the_tests_are(collected: set[str]) -> None:
    wrong = []
    for cell, letter, ids in claims():
        isthere = bool(ids) and collected.issuperset(ids)
        if (letter in NOTE.sub("", cell.rpartition(": ")[2])) != isthere:
            wrong.append(f"{cell!r} {'lacks' if isthere else 'has no tests for'} {letter}: {ids}")
    assert not wrong


def test_every_scenario_has_its_cell(collected: set[str]) -> None:
    tried = {name for name in collected if re.match(rf"(?:{NODE}|{BROWSER})::test_scenario\[", name)}
    assert tried
    assert tried - {name for _, _, ids in claims() for name in ids} == set()


def test_every_empty_cell_says_why() -> None:
    notes = set(re.findall(r"^(\d+)\. ", PAGE, re.MULTILINE))
    cells = [cell for _, _, *cells in rows(r"client \| transport")[1:] for cell in cells]
    used = set()
    for cell in cells:
        note = NOTE.search(cell)
        used |= {note[1]} if note else set()
        assert re.fullmatch(f"[{LETTERS}]+" if note is None else f"(?:[{LETTERS}]+|\u2013)", NOTE.sub("", cell)), cell
    assert used == notes


def test_every_test_that_the_page_names_is_there(collected: set[str]) -> None:
    named = {f"{file}::{name}" for file, name in NAMED.findall(PAGE) if name}
    assert named
    assert named - collected == set()
