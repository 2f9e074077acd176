"""For tests in HtmlUnit, the emulation of old Internet Explorers."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from contextlib import suppress
from typing import Any

__all__ = ["once_more"]


TRIES = 3


def once_more(test: Callable[..., Any]) -> Callable[..., Any]:
    """Run *test* again where it failed, and a third time.

    On a busy machine this emulation sometimes loses a request on a kept connection and, other than browsers, does not
    ask again; it does so with any server.  What really fails does so each time.
    """
    if asyncio.iscoroutinefunction(test):

        @functools.wraps(test)
        async def tried_async(*args: Any, **named: Any) -> None:
            for _ in range(TRIES - 1):
                with suppress(Exception):
                    return await test(*args, **named)
            return await test(*args, **named)

        return tried_async

    @functools.wraps(test)
    def tried(*args: Any, **named: Any) -> None:
        for _ in range(TRIES - 1):
            with suppress(Exception):
                return test(*args, **named)
        return test(*args, **named)

    return tried
