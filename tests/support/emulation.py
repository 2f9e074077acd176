"""For tests in HtmlUnit, the emulation of old Internet Explorers."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any

__all__ = ["once_more"]


def once_more(test: Callable[..., Any]) -> Callable[..., Any]:
    """Run *test* a second time where the first failed.

    On a busy machine this emulation sometimes loses a request on a kept connection and, other than browsers, does not
    ask again; it does so with any server.  What really fails does so twice.
    """
    if asyncio.iscoroutinefunction(test):

        @functools.wraps(test)
        async def tried_async(*args: Any, **named: Any) -> None:
            try:
                await test(*args, **named)
            except AssertionError:
                await test(*args, **named)

        return tried_async

    @functools.wraps(test)
    def tried(*args: Any, **named: Any) -> None:
        try:
            test(*args, **named)
        except AssertionError:
            test(*args, **named)

    return tried
