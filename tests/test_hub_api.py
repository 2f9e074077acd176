"""The server API in memory: every row of the table, and what only a test in memory can hold still."""

from __future__ import annotations

import pytest

from support.clients import quiet  # noqa: F401  # autouse: nothing here logs unannounced
from support.hub import memory_world
from support.hub_table import ROWS, Row


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.__name__)
async def test_row(row: Row) -> None:
    async with memory_world() as world:
        await row(world)
