"""Runs a page in a real browser engine and hands back what the page found out; README.md tells how to use it."""

from .engines import (
    ENGINES,
    KHTML,
    KNOCKOUTS,
    STANDINS,
    Chromium,
    Engine,
    EngineMissing,
    Firefox,
    HtmlUnit,
    PhantomJS,
    QtWebKit,
    WebKitGTK,
    WineJScript,
    knock_out,
    open_engine,
)
from .wire import EngineTimeout

__all__ = [
    "ENGINES",
    "KHTML",
    "KNOCKOUTS",
    "STANDINS",
    "Chromium",
    "Engine",
    "EngineMissing",
    "EngineTimeout",
    "Firefox",
    "HtmlUnit",
    "PhantomJS",
    "QtWebKit",
    "WebKitGTK",
    "WineJScript",
    "knock_out",
    "open_engine",
]
