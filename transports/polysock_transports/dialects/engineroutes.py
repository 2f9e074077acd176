"""Both versions of Engine.IO at one mount, told apart by each request."""

from __future__ import annotations

from ..limits import Limits
from ..wire import Refusal, Request, Route
from .engineio import EngineRoutes
from .engineio3 import ENGINEIO3
from .engineio4 import ENGINEIO4, EngineIO4

__all__ = ["ENGINEIO"]

_ROUTES = EngineRoutes({"4": ENGINEIO4, "3": ENGINEIO3})


class _EngineIO(EngineIO4):
    """The newer version, and the routes of both; each route says which form its client speaks."""

    def route(self, request: Request, limits: Limits) -> Route | Refusal | None:
        return _ROUTES.route(request, limits)


#: The dialect of a mount.
ENGINEIO = _EngineIO(polling=True)
