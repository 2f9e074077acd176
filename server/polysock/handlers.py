"""Event handlers: ``on``, ``once``, ``off`` and the catch-all, and how a handler is called.

A handler may be a plain function or ``async def``.  Nothing here knows a client or a wire.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

__all__ = ["EventHandlers", "Handler", "settle"]

log = logging.getLogger("polysock")

Handler = Callable[..., Any]
_H = TypeVar("_H", bound=Handler)


async def settle(result: Any) -> Any:
    """What a handler returned, awaited where it is awaitable."""
    return await result if inspect.isawaitable(result) else result


class EventHandlers:
    """Handlers by event name, called in the order they were added."""

    def __init__(self) -> None:
        self._handlers: dict[str, list[tuple[Handler, bool]]] = {}
        self._any: list[Handler] = []

    def on(self, event: str, handler: Handler | None = None) -> Any:
        """Call *handler* at each *event*; without a handler, a decorator."""
        return self._add(event, handler, once=False)

    def once(self, event: str, handler: Handler | None = None) -> Any:
        """The same for the first time only."""
        return self._add(event, handler, once=True)

    def on_any(self, handler: Handler) -> Handler:
        """Call ``handler(event, *args)`` at every event, before those of its name; a decorator too."""
        self._any.append(handler)
        return handler

    def off(self, event: str | None = None, handler: Handler | None = None) -> None:
        """Forget *handler* of *event*, or all of *event*, or all there are."""
        if event is None:
            if handler is None:
                self._handlers.clear()
                self._any.clear()
            else:
                self._any = [other for other in self._any if other is not handler]
            return
        kept = [pair for pair in self._handlers.get(event, ()) if handler is not None and pair[0] is not handler]
        if kept:
            self._handlers[event] = kept
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
        self._handlers.setdefault(event, []).append((handler, once))
        return handler

    def has_handlers(self, event: str) -> bool:
        return event in self._handlers

    def take(self, event: str) -> list[Handler]:
        """The handlers to call now for *event*; those added with ``once`` are forgotten by it."""
        found = self._handlers.get(event)
        if not found:
            return []
        if any(once for _, once in found):
            kept = [pair for pair in found if not pair[1]]
            if kept:
                self._handlers[event] = kept
            else:
                del self._handlers[event]
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

    def take_any(self) -> list[Handler]:
        """The catch-all handlers."""
        return list(self._any) if self._any else []
