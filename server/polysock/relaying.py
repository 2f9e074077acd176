"""Relaying: the part of a Server that passes requests on to the node whose session they are for.

``polysock_transports.relay`` does it; this reads the settings, listens, keeps the relay told of the nodes that there
are, and gives it to every gateway.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from polysock_transports import Limits, StateError
from polysock_transports.clock import Clock
from polysock_transports.gateway import Gateway
from polysock_transports.placement import Node, Placement
from polysock_transports.relay import Relay

from .backplane import Backplane
from .backplane_local import LocalBackplane
from .cluster import Cluster
from .settings import SettingError

__all__ = ["Relaying", "read_address", "read_secret"]

_MIN_SECRET_BYTES = 16
_MAX_PORT = 65_535
#: A Unix socket's path ends at 104 bytes (BSD, macOS); a folder in it and the socket's own name need the rest.
_MAX_FOLDER_BYTES = 72


def read_secret(value: object) -> bytes:
    """The setting ``cluster_secret``; empty where there is none.  Raises SettingError."""
    if value is None:
        return b""
    if not isinstance(value, (str, bytes)):
        raise SettingError(f"cluster_secret must be a text or bytes, not {type(value).__name__}")
    secret = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
    if len(secret) < _MIN_SECRET_BYTES:
        raise SettingError(f"cluster_secret must have at least {_MIN_SECRET_BYTES} bytes, such as secrets.token_hex()")
    return secret


def read_address(value: object) -> tuple[str, int] | None:
    """The setting ``relay``; None where there is none.  Raises SettingError."""
    if value is None:
        return None
    example = 'an address of this machine that the other hosts can call, and a port: "10.0.0.5:7000"'
    if not isinstance(value, str):
        raise SettingError(f"relay must be {example}, not {value!r}")
    host, _, port = value.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not (port.isascii() and port.isdecimal() and int(port) <= _MAX_PORT):
        raise SettingError(f"relay must be {example}, not {value!r}")
    try:
        is_any = ip_address(host).is_unspecified
    except ValueError:
        is_any = False  # a host's name
    if is_any:
        raise SettingError(f"relay must be {example}; nobody can call {host}")
    return host, int(port)


def _beside(backplane: Backplane) -> Path | None:
    """Where the sockets of *backplane* are, if it has some: what a killed process leaves there goes with them."""
    if not isinstance(backplane, LocalBackplane):
        return None
    folder = backplane.folder.folder
    return folder if folder.is_dir() and len(os.fsencode(folder)) <= _MAX_FOLDER_BYTES else None


class Relaying:
    """One Server's relay, and the gateways that use it."""

    def __init__(
        self, cluster: Cluster, *, secret: bytes, address: tuple[str, int] | None, limits: Limits, clock: Clock
    ) -> None:
        self.relay: Relay | None = None
        """The relay, once it was started."""
        self._cluster = cluster
        self._secret = secret
        self._address = address
        self._limits = limits
        self._clock = clock
        self._application: Any = None
        self._folder: Path | None = None
        self._gateways: list[Gateway] = []
        cluster.on("node_joined", self._node_joined)
        cluster.on("node_left", self._node_left)

    @property
    def counters(self) -> Counter[str]:
        """What the relay counted; nothing before it was started."""
        return self.relay.counters if self.relay is not None else Counter()

    def prepare(self, application: Any) -> None:
        """Listen for *application* at the start; None to pass nothing on.  Raises StateError."""
        if application is None and self._address is not None:
            raise StateError("relay= needs the application whose requests are passed on: await io.start(application)")
        self._application = application

    async def listen(self, node: Node) -> Node:
        """*node* with where it takes requests of others.  Raises OSError where that cannot be had."""
        if self._application is None:
            return node
        # A folder that nobody else may enter: whoever can reach the socket is of this user.
        self._folder = Path(tempfile.mkdtemp(prefix="polysock-", dir=_beside(self._cluster.backplane)))
        self.relay = Relay(Placement(node), secret=self._secret, limits=self._limits, clock=self._clock)
        try:
            heard_at = await self.relay.start(self._application, unix=str(self._folder / "relay"), tcp=self._address)
        except BaseException:
            await self.stop()
            raise
        for gateway in self._gateways:
            gateway.relay = self.relay
        return heard_at

    async def stop(self) -> None:
        """Take nothing more of others."""
        if self.relay is not None:
            await self.relay.stop()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def attach(self, gateway: Gateway) -> None:
        """Pass on what comes to *gateway* and is another node's."""
        self._gateways.append(gateway)
        gateway.relay = self.relay

    # -- told by the cluster

    def _node_joined(self, node: Node) -> None:
        if self.relay is not None:
            self.relay.placement.update(self._cluster.nodes.values())

    def _node_left(self, node: Node, why: str) -> None:
        if self.relay is not None:
            self.relay.placement.update(self._cluster.nodes.values())
            self.relay.forget(node.id)
