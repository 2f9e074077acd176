"""The event loops that polysock is tested on: name -> what makes one."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable

from support.needs import lacking

__all__ = ["LOOPS"]


def new_uvloop() -> asyncio.AbstractEventLoop:
    try:
        uvloop = importlib.import_module("uvloop")
    except ImportError:
        lacking("uvloop", "pip install -e '.[fast]'")
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop, "uvloop": new_uvloop}
