"""``connect``: a backplane from what a setting says, and errors that say what was meant."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from polysock.backplane import MemoryBus
from polysock.backplane_local import LocalBackplane
from polysock.backplane_url import connect
from polysock.settings import SettingError
from polysock_transports.limits import Limits
from support.clock import FakeClock


def test_a_folder() -> None:
    limits, clock = Limits(max_backplane_nodes=3), FakeClock()
    backplane = connect("unix:///run/my%20app/", limits=limits, clock=clock)
    assert isinstance(backplane, LocalBackplane)
    assert backplane.folder.folder == Path("/run/my app")
    assert (backplane.limits, backplane.clock) == (limits, clock)
    assert repr(backplane) == "<LocalBackplane /run/my app>"
    assert not backplane.is_up


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_a_redis(scheme: str) -> None:
    from polysock.backplane_redis import RedisBackplane

    limits, clock = Limits(max_backplane_nodes=3), FakeClock()
    backplane = connect(f"{scheme}://host:1234?prefix=mine:", limits=limits, clock=clock)
    assert isinstance(backplane, RedisBackplane)
    assert repr(backplane) == f"<RedisBackplane {scheme}://host:1234 prefix='mine:'>"
    assert (backplane.limits, backplane.clock) == (limits, clock)


def test_one_that_is_made_already_is_returned() -> None:
    made = MemoryBus().backplane()
    assert connect(made) is made


@pytest.mark.parametrize("wrong", ["", "redis", "nats://host", "http://host", "/run/myapp", "[", None, 5, b"redis://h"])
def test_anything_else_says_what_is_possible(wrong: Any) -> None:
    with pytest.raises(SettingError, match=r'"redis://host:6379", "rediss://.*unix:///run/myapp".*Backplane'):
        connect(wrong)


@pytest.mark.parametrize(
    "wrong", ["unix://run/myapp", "unix://", "unix:///", "unix:////", "unix:///run/a?b=c", "unix:///run/a#b"]
)
def test_a_folder_is_written_with_three_strokes(wrong: str) -> None:
    with pytest.raises(SettingError, match=r'three strokes: "unix:///run/myapp"'):
        connect(wrong)


def test_without_the_package_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "polysock.backplane_redis", raising=False)
    monkeypatch.setitem(sys.modules, "redis", None)
    for module in [name for name in sys.modules if name.startswith("redis.")]:
        monkeypatch.delitem(sys.modules, module)
    with pytest.raises(SettingError, match=r'pip install "polysock\[redis\]"'):
        connect("redis://user:secret@host")
    assert isinstance(connect("unix:///run/myapp"), LocalBackplane)
