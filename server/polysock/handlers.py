"""Event handlers: ``on``, ``once``, ``off`` and the catch-all, and how a handler is called.

A handler may be a plain function or ``async def``.  Nothing here knows a client or a wire.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

__all__ = ["EventHandlers", "Handler", "is_pending", "settle"]

log = logging.getLogger("polysock")

Handler = Callable[..., Any]
_H = TypeVar("_H", bound=Handler)


async def settle(result: Any) -> Any:
    """What a handler returned, awaited where it is awaitable."""
    return await result if inspect.isawaitable(result) else result


# What handlers mostly return; to ask ``inspect`` about it takes longer than many of them.
_VALUES = frozenset((type(None), bool, int, str, dict, list, tuple))


def is_pending(result: Any) -> bool:
    """Whether what a handler returned has to be awaited."""
    return type(result) not in _VALUES and inspect.isawaitable(result)


class EventHandlers:
    """Handlers by event name, called in the order they were added."""

    __slots__ = ("_any", "_handlers")

    # There is one of these for each client: tuples, and None for nothing, weigh least.

    def __init__(self) -> None:
        self._handlers: dict[str, tuple[tuple[Handler, bool], ...]] | None = None  # with whether it is for once
        self._any: tuple[Handler, ...] = ()

    def on(self, event: str, handler: Handler | None = None) -> Any:
        """Call *handler* at each *event*; without a handler, a decorator."""
        return self._add(event, handler, once=False)

    def once(self, event: str, handler: Handler | None = None) -> Any:
        """The same for the first time only."""
        return self._add(event, handler, once=True)

    def on_any(self, handler: Handler) -> Handler:
        """Call ``handler(event, *args)`` at every event, before those of its name; a decorator too."""
        self._any = (*self._any, handler)
        return handler

    def off(self, event: str | None = None, handler: Handler | None = None) -> None:
        """Forget *handler* of *event*, or all of *event*, or all there are."""
        if event is None:
            if handler is None:
                self._handlers = None
                self._any = ()
            else:
                self._any = tuple(other for other in self._any if other is not handler)
            return
        kept = [pair for pair in self._added(event) if handler is not None and pair[0] is not handler]
        self._keep(event, kept)

    def _added(self, event: str) -> tuple[tuple[Handler, bool], ...]:
        return self._handlers.get(event, ()) if self._handlers is not None else ()

    def _keep(self, event: str, pairs: Sequence[tuple[Handler, bool]]) -> None:
        if self._handlers is None:
            self._handlers = {}
        if pairs:
            self._handlers[event] = tuple(pairs)
        else:
            self._handlers.pop(event, None)

    def _add(self, event: str, handler: Handler | None, *, once: bool) -> Any:
        if handler is None:

            def decorate(function: _H) -> _H:
                self._add(event, function, once=once)
                return function

            return decorate
        if not callable(handler):
            raise TypeError(f"the handler of {event!r} must be callable, not {type(handler).__name__}")
        self._keep(event, (*self._added(event), (handler, once)))
        return handler

    def has_handlers(self, event: str) -> bool:
        return bool(self._added(event))

    def take(self, event: str) -> list[Handler]:
        """The handlers to call now for *event*; those added with ``once`` are forgotten by it."""
        found = self._added(event)
        if len(found) == 1 and not found[0][1]:
            return [found[0][0]]  # as it mostly is
        if any(once for _, once in found):
            self._keep(event, [pair for pair in found if not pair[1]])
        return [handler for handler, _ in found]

    def tell(self, event: str, args: tuple[Any, ...], run_later: Callable[[Awaitable[Any], str], None]) -> None:
        """Call the handlers of something that happened here: what they raise is logged, and coroutines are given to
        *run_later*."""
        for handler in self.take(event):
            try:
                result = handler(*args)
            except Exception:
                log.exception("the %s handler failed", event)
                continue
            if inspect.isawaitable(result):
                run_later(result, event)

    def take_any(self) -> tuple[Handler, ...]:
        """The catch-all handlers."""
        return self._any
