"""The hub over real sockets: every row of the server API on every transport, and all transports in one room."""

from __future__ import annotations

import pytest

from polysock import Server, Socket
from support.clients import (
    EVERY,
    POLLING,
    Quiet,
    quiet,  # noqa: F401  # autouse: nothing here logs unannounced
    turns,
    until,
)
from support.hub import World, served_world
from support.hub_table import ROWS, Row

every_transport = pytest.mark.parametrize("transport", EVERY)


@every_transport
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.__name__)
async def test_row(row: Row, transport: str) -> None:
    async with served_world(transport) as world:
        await row(world)
