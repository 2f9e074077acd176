"""docs/socketio-compatibility.md says what is proved: every cell of its table is a test, and every test a cell."""

from __future__ import annotations

import re
from pathlib import Path

from test_node_socketio_clients import CELLS, PACKAGES

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs" / "socketio-compatibility.md"


def test_every_cell_is_a_test_and_every_test_a_cell() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    table = text.split("<!-- cells -->")[1].split("<!-- end of cells -->")[0].strip().splitlines()
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    versions = head[2:]
    assert versions == list(PACKAGES)
    named = {
        (version, transport, row[1].strip("`"))
        for row in rows
        for version, cell in zip(versions, row[2:], strict=True)
        if cell != "-"
        for transport in cell.split(", ")
    }
    assert named == set(CELLS)


def test_the_files_it_names_exist() -> None:
    names = re.findall(r"`(tests/[a-z0-9_]+\.py)`", DOCUMENT.read_text(encoding="utf-8"))
    assert len(names) >= 5
    assert [name for name in names if not (ROOT / name).is_file()] == []
