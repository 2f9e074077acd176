"""Several nodes behind one address: processes of interop/cluster_node.py, what joins them, and nginx in front."""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from support.balancers import listener, nginx
from support.needs import need_npm
from support.programs import Host, Program

__all__ = ["Cluster", "Member", "running_cluster"]

TESTS = Path(__file__).resolve().parents[1]
NODE = TESTS / "interop" / "cluster_node.py"
ANSWER_S = 60.0


@dataclass
class Member:
    """One node.  ``address`` is where nginx reaches it."""

    name: str
    program: Program
    address: str = ""
    lab: str = ""

    def ask(self, page: str, **query: Any) -> dict[str, Any]:
        """What it answers at /lab/*page*."""
        url = f"{self.lab}/lab/{page}?{urlencode(query)}"
        with urllib.request.urlopen(url, timeout=ANSWER_S) as answer:
            found: dict[str, Any] = json.loads(answer.read())
            return found


@dataclass
class Cluster:
    """``urls`` are all of the balancer; several, because a browser opens six connections to one at most."""

    members: list[Member] = field(default_factory=list)
    urls: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return self.urls[0]

    def __getitem__(self, name: str) -> Member:
        return next(member for member in self.members if member.name == name)


@contextmanager
def running_cluster(
    folder: Path,
    nodes: Sequence[tuple[Host | None, dict[str, Any]]],
    *,
    addresses: int = 1,
    next_upstream: str = "off",
) -> Iterator[Cluster]:
    """A node for each of *nodes* (its host, and settings of its Server), and nginx on the first one's host before them.

    What nodes or nginx wrote to their standard error fails the test, unless ``Program.log`` was emptied.
    """
    cluster = Cluster()
    with ExitStack() as stack:
        doors = [stack.enter_context(listener()) for _ in range(addresses)]
        cluster.urls = ["http://{}:{}".format(*door.getsockname()) for door in doors]
        sockjs = need_npm("sockjs-client", "dist/sockjs.min.js")
        for number, (host, settings) in enumerate(nodes):
            name = "abcdefgh"[number]
            entrance = stack.enter_context(listener())
            arguments = {
                "--name": name,
                "--address": host.address if host is not None else "127.0.0.1",
                "--lab-socket": str(entrance.fileno()),
                "--settings": json.dumps({"origins": cluster.urls, **settings}),
                "--sockjs": str(sockjs.parent),
            }
            program = Program(
                [sys.executable, NODE, *(word for pair in arguments.items() for word in pair)],
                folder / f"{name}.log",
                host=host,
                sockets=[entrance],
            )
            stack.callback(program.stop)
            cluster.members.append(Member(name, program))
        for member in cluster.members:
            said = json.loads(member.program.next_line())
            member.address, member.lab = said["url"].removeprefix("http://"), said["lab"]
        before = nginx(
            [member.address for member in cluster.members],
            folder,
            doors,
            next_upstream=next_upstream,
            host=nodes[0][0],
        )
        stack.callback(before.stop)
        yield cluster
        before.check()
