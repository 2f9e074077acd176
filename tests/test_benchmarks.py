"""That ``make bench`` runs, counts, notices and prints what its README shows; never how fast anything is."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from contextlib import closing
from pathlib import Path
from shutil import which

import pytest

from polysock.backplane_local import LocalBackplane

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
TIMEOUT_S = 240
SMALL = ("--rounds", "1", "--seconds", "0.05", "--clients", "3")
# These are installed with polysock itself.
PEERS = ("--peers", "polysock-io", "--peers", "sockjs-tornado")

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the benchmark needs Linux")


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / "bench.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


def rows(text: str) -> list[list[str]]:
    """The cells of the tables in *text*."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_lines_are_measured_printed_and_written(tmp_path: Path) -> None:
    lines = ("broadcast-8", "echo", "poll", "stream-htmlfile", "memory-poll")
    only = [part for line in lines for part in ("--only", line)]
    done = bench(*only, *SMALL, *PEERS, "--results", str(tmp_path / "rounds"), "--write", str(tmp_path))
    assert done.returncode == 0, done.stderr

    tables, _, aims = done.stdout.partition("## Aims")
    servers = [row[0] for row in rows(tables)]
    for server, times in (("polysock, Socket.IO", 4), ("sockjs-tornado", 5)):
        assert servers.count(server) == times
    echo = next(row for row in rows(tables) if "p99, ms" in row)
    assert echo[-2:] == ["p99, ms", "least / most served"]
    assert {row[-1] for row in rows(aims)[2:]} <= {"yes", "no"}

    (file,) = (tmp_path / "rounds").glob("*.json")
    kept = json.loads(file.read_text())
    assert kept["environment"]["sockjs-tornado"].startswith("1.")
    assert list(kept["rounds"]) == list(lines)
    for line, by_server in kept["rounds"].items():
        for rounds in by_server.values():
            assert len(rounds) == 1
            # Whole broadcasts, in which nobody was left out.
            assert all(record["units"] % 3 == 0 for record in rounds if line != "echo")

    page = (tmp_path / "results.md").read_text()
    assert "](results.svg)" in page
    assert all(line in page for line in done.stdout.splitlines())
    ElementTree.fromstring((tmp_path / "results.svg").read_text())


def test_cost_against_size_is_drawn(tmp_path: Path) -> None:
    only = ("--only", "rooms-1", "--only", "rooms-100")
    done = bench("scaling", *only, *SMALL, *PEERS, "--results", str(tmp_path / "rounds"), "--write", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "where 100 exist" in (tmp_path / "scaling.md").read_text()
    drawing = ElementTree.fromstring((tmp_path / "scaling.svg").read_text())
    assert len(list(drawing.iter("{http://www.w3.org/2000/svg}circle"))) == 2


def test_backplanes_are_measured(tmp_path: Path) -> None:
    done = bench("backplane", "--rounds", "1", "--seconds", "0.05", "--clients", "2", "--results", str(tmp_path))
    assert done.returncode == 0, done.stderr
    kinds = ["local", *(["redis"] if which("redis-server") else [])]
    assert [row[:2] for row in rows(done.stdout)[2:]] == [[kind, "2"] for kind in kinds]
    kept = json.loads((tmp_path / "backplane.json").read_text())["rounds"]
    assert all(record["units"] % 50 == 0 and record["take"] > 0 for (record,) in kept.values())


async def test_a_node_that_gets_something_else_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import backplane

    sender = LocalBackplane(tmp_path / "nodes")
    await sender.start("sender00", lambda channel, data: None)
    try:
        async with backplane.taker(f"unix://{tmp_path}/nodes", "taker000") as node:
            await node.cost()
            sender.publish("room", (5).to_bytes(8, "big"))
            await sender.settled()  # what went before the question is taken when it is answered
            with pytest.raises(backplane.WrongAnswer, match="message 5 of 8 bytes where 0 was due"):
                await node.cost()
    finally:
        await sender.stop()


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import load

    return load


def test_a_wrong_answer_is_noticed(load, monkeypatch: pytest.MonkeyPatch) -> None:
    line = load.LINES["broadcast"]
    with (
        load.started("polysock", line.heartbeat_s) as server,
        closing(load.Broadcasts(server, line, load.SockJS, 2)) as work,
    ):
        work.round(0)
        monkeypatch.setattr(load.SockJS, "heard", staticmethod(lambda text: b'a["%b."]' % text))
        with pytest.raises(load.WrongAnswer, match="wanted"):
            work.round(0)


def test_a_message_that_nobody_asked_for_is_noticed(load) -> None:
    line = load.LINES["broadcast"]
    with (
        load.started("polysock", line.heartbeat_s) as server,
        closing(load.Broadcasts(server, line, load.SockJS, 1)) as work,
    ):
        server.say([b"unasked"])
        work.events()
        with pytest.raises(load.WrongAnswer, match="nobody asked"):
            work.quiet()


def test_a_line_that_does_not_exist_is_refused() -> None:
    done = bench("--only", "echo-pigeon")
    assert done.returncode == 2
    assert "broadcast-5000" in done.stderr


def test_shares_are_counted_where_the_samples_were_taken() -> None:
    command = [
        sys.executable,
        "-c",
        "import shares, sys; owners, functions = shares.shares(sys.stdin); "
        "print(shares.table('whose', owners)); print(shares.table('function', functions, 1))",
    ]
    raw = "main (servers.py:3);send (polysock_transports/socketpipe.py:9);send (libc.so.6) 60\n"
    raw += "main (servers.py:3);deliver (polysock/hub.py:7) 30\nmain (servers.py:3);deliver (polysock/hub.py:8) 9\n"
    raw += "(odd 1\n\n"
    done = subprocess.run(
        command, input=raw, capture_output=True, text=True, timeout=TIMEOUT_S, check=True, cwd=BENCHMARKS
    )
    assert rows(done.stdout)[2:5] == [
        ["system calls and libc", "60%"],
        ["polysock", "39%"],
        ["the interpreter", "1%"],
    ]
    assert rows(done.stdout)[-1] == ["send (libc.so.6)", "60%"]


# -- several nodes


def test_several_nodes_are_measured_printed_and_written(tmp_path: Path) -> None:
    only = ("--only", "fan-out", "--only", "relay")
    small = ("--rounds", "1", "--seconds", "0.05", "--clients", "2")
    done = bench("cluster", *only, *small, "--results", str(tmp_path / "rounds"), "--write", str(tmp_path))
    assert done.returncode == 0, done.stderr
    clients = ("SockJS xhr", "Engine.IO polling", "Engine.IO WebSocket")
    ways = [row[:2] for row in rows(done.stdout) if row[1] in ("direct", "unix", "tcp")]
    assert ways == [[client, way] for client in clients for way in ("direct", "unix", "tcp")]

    (file,) = (tmp_path / "rounds").glob("*.json")
    kept = json.loads(file.read_text())["rounds"]
    assert list(kept) == ["fan_out", "requests", "relay"]
    for way, (record,) in kept["relay"]["SockJS xhr"].items():
        assert (record["other"] == 0) == (way == "direct")
    assert all(record["units"] % 2 == 0 for sizes in kept["fan_out"].values() for (record,) in sizes.values())

    page = (tmp_path / "cluster.md").read_text()
    assert all(line in page for line in done.stdout.splitlines())
    ElementTree.fromstring((tmp_path / "cluster.svg").read_text())


def test_a_part_that_does_not_exist_is_refused() -> None:
    done = bench("cluster", "--only", "broadcast")
    assert done.returncode == 2
    assert "membership" in done.stderr


@pytest.fixture
def clusterreport(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import clusterreport

    return clusterreport


@pytest.mark.parametrize(("busiest", "nodes", "gain"), [(5.0, 2, 1.0), (10.0, 2, 0.0), (2.5, 4, 1.0), (8.0, 2, 0.25)])
def test_what_a_core_adds(clusterreport, busiest: float, nodes: int, gain: float) -> None:
    assert clusterreport.gain(10.0, busiest, nodes) == gain


def test_fan_out_tells_what_the_busiest_core_leaves_room_for(clusterreport) -> None:
    one = [{"value": 10.0, "busiest": 10.0, "generator": 1.0}]
    two = [{"value": value, "busiest": value / 2, "generator": 1.0} for value in (12.0, 13.0, 20.0)]
    alone, both = rows(clusterreport.fan_out({"1 in flight": {"1": one, "2": two}}))[2:]
    assert alone[1:6] == ["1", "10.00", "10.00", "100,000", ""]
    assert both[1:6] == ["2", "13.00", "6.50", "153,846", "54 %"]


def test_a_relayed_poll_is_compared_with_one_of_the_same_client(clusterreport) -> None:
    def took(owner: float, other: float) -> list[dict[str, float]]:
        return [{"value": owner + other, "owner": owner, "other": other, "generator": 5.0}]

    part = {"SockJS xhr": {"direct": took(10, 0), "unix": took(20, 25)}, "Engine.IO polling": {"tcp": took(20, 20)}}
    assert [row[4:6] for row in rows(clusterreport.relay(part))[2:]] == [
        ["10.0", "1.00"],
        ["45.0", "4.50"],
        ["40.0", ""],
    ]


def test_what_a_heartbeat_costs_is_told_for_each_other_node(clusterreport) -> None:
    record = {"value": 2000.0, "broker": 150.0, "bytes": 190.0}
    (row,) = rows(clusterreport.membership({"redis": {"11": [record]}}))[2:]
    assert row == ["redis", "11", "2000", "200", "150.0", "0.100 %", "190"]


def test_parts_are_drawn_with_what_they_have(clusterreport) -> None:
    message = {"publish": 2.0, "take": 3.0}
    results = {
        "messages": {"local": {"1": [message], "4": [message]}, "redis": {"1": [{**message, "broker": 1.0}]}},
        "client": {"client": {"connect": [{"value": 300.0}]}},
    }
    drawing = ElementTree.fromstring(clusterreport.draw(results))
    assert len(list(drawing.iter("{http://www.w3.org/2000/svg}circle"))) == 7
    assert "redis, broker" in {text.text for text in drawing.iter("{http://www.w3.org/2000/svg}text")}


def test_a_poll_that_came_another_way_is_noticed(load, monkeypatch: pytest.MonkeyPatch) -> None:
    import backplane
    import cluster

    monkeypatch.setattr(cluster, "WAIT_S", 0.2)
    with backplane.place("local") as (url, _), cluster.cluster(url, ["--sockjs"], ["--sockjs"]) as (owner, other):
        line = load.Line("", "broadcast", "poll", 1, ())
        with closing(cluster.PollsThrough(owner, other, owner, line, load.SockJS)) as work:
            direct = cluster.broadcasts(work, line, [owner, other], cluster.told_of_two)
            with pytest.raises(load.WrongAnswer, match="came another way"):
                cluster.all_relayed(direct, other, 0)(0)
