"""``connect``: a Backplane from what a setting says."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from polysock_transports import DEFAULT_LIMITS, Limits
from polysock_transports.clock import Clock

from .backplane import Backplane
from .backplane_local import LocalBackplane
from .settings import SettingError

__all__ = ["connect"]

_POSSIBLE = (
    'a backplane is "redis://host:6379", "rediss://user:password@host:6379", "unix:///run/myapp" (a folder for the'
    " processes of this host), or a polysock.backplane.Backplane"
)


def connect(
    backplane: str | Backplane,
    *,
    makes_folder: bool = True,
    limits: Limits = DEFAULT_LIMITS,
    clock: Clock | None = None,
) -> Backplane:
    """The backplane that *backplane* names, not started; one that is a Backplane already is returned as it is.

    *makes_folder*: whether a local one makes its folder where there is none.
    Raises SettingError, which says what is possible, or what has to be installed.
    """
    if isinstance(backplane, Backplane):
        return backplane
    if not isinstance(backplane, str):
        raise SettingError(f"{_POSSIBLE}; not {type(backplane).__name__}")
    try:
        parts = urlsplit(backplane)
    except ValueError:
        raise SettingError(_POSSIBLE) from None
    if parts.scheme in ("redis", "rediss"):
        try:
            from .backplane_redis import RedisBackplane
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != "redis":
                raise
            raise SettingError(
                f'{parts.scheme}:// needs the package redis, which is not here: pip install "polysock[redis]"'
            ) from None
        return RedisBackplane(backplane, limits=limits, clock=clock)
    if parts.scheme != "unix":
        raise SettingError(_POSSIBLE)
    if parts.netloc or not parts.path.strip("/") or parts.query or parts.fragment:
        # Of unix://run/myapp, "run" would be the name of a host.
        raise SettingError('the folder of a local backplane is written with three strokes: "unix:///run/myapp"')
    return LocalBackplane(unquote(parts.path), makes_folder=makes_folder, limits=limits, clock=clock)
