"""Numbers for a metrics page: each that the code counts has a name there and a word in the documentation."""

from __future__ import annotations

import re
from pathlib import Path

from tornado.web import Application

from polysock import Server
from polysock.backplane import MemoryBus
from polysock.testing import Client
from support.cluster import bus_of, cluster_of, world
from support.rawhttp import request
from support.serving import serving_application

ROOT = Path(__file__).resolve().parent.parent
SECTION = (ROOT / "docs" / "server-api.md").read_text(encoding="utf-8").partition("### Numbers to watch\n")[2]
COUNTED = re.compile(r'(?:counters\[|\bcounters\.update\(|\bnote\()"(\w+)"')
PARTS = ("server", "cluster", "backplane", "relay")


def test_the_same_names_with_and_without_other_nodes() -> None:
    alone, one_of_several = Server().stats(), Server(backplane=MemoryBus().backplane()).stats()
    assert alone.keys() == one_of_several.keys()
    assert set(alone.values()) == {0}


def test_all_that_is_counted_has_a_name() -> None:
    sources = [*(ROOT / "server").rglob("*.py"), *(ROOT / "transports").rglob("*.py")]
    counted = {name for path in sources for name in COUNTED.findall(path.read_text(encoding="utf-8"))}
    named = {name.partition("_")[2] for name in Server().stats() if name.startswith(PARTS)}
    assert len(counted) > 20
    assert counted <= named


def test_every_name_is_documented() -> None:
    table = SECTION.partition("\n#")[0]
    documented = re.findall(r"`(\w+)`", "".join(re.findall(r"^\|([^|]+)\|", table, re.MULTILINE)))
    assert documented == list(Server().stats())


async def test_what_happens_is_seen() -> None:
    async with world(2) as there:
        first, second = there.servers
        client = Client(second)
        second.of("/more")
        assert first.stats()["sessions"] == 0
        assert second.stats()["members"] == 1
        assert first.stats()["cluster_nodes"] == 1
        assert first.stats()["cluster_is_up"] == 1
        before = first.stats()["backplane_published"]
        first.emit("news")
        await client.wait("news")
        assert first.stats()["backplane_published"] == before + 1
        assert second.stats()["backplane_received"] > 0

        bus_of(first).cut = True
        first.emit("lost")
        seen = first.stats()
        assert (seen["backplane_outages"], seen["cluster_outages"], seen["cluster_is_up"]) == (1, 1, 0)
        assert seen["backplane_dropped"] == 1
        bus_of(first).counters["of_its_own"] += 3
        assert first.stats()["backplane_of_its_own"] == 3
        cluster_of(first).counters["too_big"] += 1
        first.note("bad_packets")
        assert first.stats()["cluster_too_big"] == first.stats()["server_bad_packets"] == 1


async def test_requests_passed_on_are_seen() -> None:
    bus = MemoryBus()
    nodes = [Server(backplane=bus.backplane()) for _ in range(2)]
    applications = [Application(node.routes(), log_function=lambda handler: None) for node in nodes]
    for node, application in zip(nodes, applications, strict=True):
        await node.start(application)
    first, second = nodes
    async with serving_application(applications[0]) as here, serving_application(applications[1]) as there:
        path = "/socket.io/?EIO=4&transport=polling"
        welcome = (await request(here, "GET", path)).body.decode()
        sid = re.search(r'"sid":"([\w-]+)"', welcome)
        assert sid is not None
        assert (await request(there, "POST", f"{path}&sid={sid[1]}", body=b"40")).body == b"ok"
        assert (first.stats()["sessions"], second.stats()["sessions"]) == (1, 0)
        assert (first.stats()["relay_relayed"], second.stats()["relay_relayed"]) == (0, 1)
        for node in nodes:
            node.close()
            await node.stop()
    # What was counted stays readable.
    assert second.stats()["relay_relayed"] == 1
