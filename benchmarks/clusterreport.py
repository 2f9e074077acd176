"""The figures of ``cluster.py`` as Markdown and SVG: a table and a panel for each part.  Pure."""

from __future__ import annotations

from chart import COLORS, bar_panel, curve_panel, picture
from report import Record, middle, table

from polysock.limits import DEFAULT_CLUSTER_LIMITS

#: Series -> size -> its rounds.
Part = dict[str, dict[str, list[Record]]]
#: Part -> its figures.
Results = dict[str, Part]

#: What the part ``client`` has, with the title and unit of each.
CLIENT = {
    "memory-websocket": ("memory, Socket.IO on a WebSocket", "KiB"),
    "memory-poll": ("memory, Socket.IO with a parked poll", "KiB"),
    "heartbeat": ("a heartbeat, ping and pong on a WebSocket", "us"),
    "connect": ("a connection to its open frame and its end, WebSocket", "us"),
}
TITLES = {
    "fan_out": "Fan-out: a delivery of a broadcast, the clients spread evenly over nodes",
    "requests": "Requests: one to all nodes, how many clients there are in the room of the fan-out",
    "relay": "Relay: a parked poll answered and the next one parked, or a delivery to an upgraded WebSocket",
    "messages": "Backplane: a message of 200 bytes, without a Server",
    "rooms": "Rooms: an emit to a room with one client on another node, against the rooms that this client is in",
    "joins": "Rooms: joining one more, and what it weighs",
    "membership": "Membership: a heartbeat of one node, said by it and heard by all others",
    "client": "A client that does nothing, on one node",
}


def cell(records: list[Record], key: str, form: str = ".1f") -> str:
    return format(middle(records, key), form) if key in records[0] else ""


def rows_of(part: Part) -> list[tuple[str, str, list[Record]]]:
    return [(series, size, records) for series, sizes in part.items() for size, records in sizes.items()]


def gain(one: float, busiest: float, nodes: int) -> float:
    """What each node beyond the first adds, as a share of what one can do alone on its core.

    *one* and *busiest*: microseconds for a delivery, of one node alone, and of the busiest of *nodes*, whose core is
    the first to be full.
    """
    return (one / busiest - 1) / (nodes - 1)


def fan_out(part: Part) -> str:
    rows = []
    for series, size, records in rows_of(part):
        busiest = middle(records, "busiest")
        one = middle(part[series]["1"], "busiest") if "1" in part[series] else None
        added = f"{100 * gain(one, busiest, int(size)):.0f} %" if one is not None and size != "1" else ""
        row = [series, size, cell(records, "value", ".2f"), f"{busiest:.2f}", f"{1e6 / busiest:,.0f}", added]
        rows.append([*row, cell(records, "generator")])
    most = "busiest node, us"
    return table(["broadcasts", "nodes", "all, us", most, "deliveries/s", "a core adds", "generator, us"], rows)


def requests(part: Part) -> str:
    rows = [[size, *(cell(found, key, ".0f") for key in ("asker", "value"))] for _, size, found in rows_of(part)]
    return table(["nodes", "node that asks, us", "all, us"], rows)


def relay(part: Part) -> str:
    rows = []
    for series, way, records in rows_of(part):
        direct = middle(part[series]["direct"]) if "direct" in part[series] else None
        ratio = f"{middle(records) / direct:.2f}" if direct else ""
        cells = [cell(records, key) for key in ("owner", "other", "value")]
        rows.append([series, way, *cells, ratio, cell(records, "generator")])
    return table(["client", "way", "owner, us", "other node, us", "both, us", "over direct", "generator, us"], rows)


def messages(part: Part) -> str:
    rows = [[kind, size, *(cell(found, key) for key in _ENDS)] for kind, size, found in rows_of(part)]
    return table(["backplane", "other nodes", "publish, us", "take, us", "broker, us"], rows)


def rooms(part: Part) -> str:
    rows = [
        [kind, f"{int(size):,}", *(cell(found, key) for key in ("publish", "take"))]
        for kind, size, found in rows_of(part)
    ]
    return table(["backplane", "rooms", "publish, us", "take and deliver, us"], rows)


def joins(part: Part) -> str:
    rows = []
    for kind, size, records in rows_of(part):
        row = [kind, f"{int(size):,}", cell(records, "channels", ",.0f")]
        row += [cell(records, key) for key in _JOINERS]
        rows.append([*row, *(cell(records, f"{key}_kib", ".2f") for key in _JOINERS)])
    where = ("its node", "another node", "broker")
    head = ["backplane", "rooms", "channels", *(f"{name}, us" for name in where), *(f"{name}, KiB" for name in where)]
    return table(head, rows)


def membership(part: Part) -> str:
    every_s = DEFAULT_CLUSTER_LIMITS.cluster_heartbeat_s
    rows = []
    for kind, size, records in rows_of(part):
        value = middle(records)
        row = [kind, size, f"{value:.0f}", f"{value / (int(size) - 1):.0f}", cell(records, "broker")]
        rows.append([*row, f"{100 * value / every_s / 1e6:.3f} %", cell(records, "bytes", ".0f")])
    each = f"of each core, one in {every_s:g} s"
    return table(["backplane", "nodes", "all nodes, us", "for each other, us", "broker, us", each, "bytes"], rows)


def client(part: Part) -> str:
    rows = [[CLIENT[name][0], cell(records, "value"), CLIENT[name][1]] for _, name, records in rows_of(part)]
    return table(["what", "costs", ""], rows)


_ENDS = ("publish", "take", "broker")
_JOINERS = ("member", "other", "broker")
_TABLES = {
    "fan_out": fan_out,
    "requests": requests,
    "relay": relay,
    "messages": messages,
    "rooms": rooms,
    "joins": joins,
    "membership": membership,
    "client": client,
}


def sections(results: Results) -> list[str]:
    """A heading and a table for each part."""
    return [f"\n### {TITLES[name]}\n\n{_TABLES[name](part)}\n" for name, part in results.items()]


def page(facts: dict[str, str], how: dict[str, object], results: Results) -> str:
    """``cluster.md``."""
    parts = [
        '# What several nodes cost\n\nWritten by `make bench ARGS="cluster"`; [README.md](README.md) says what a unit '
        f"is and how it is measured.\n{how['rounds']} rounds of {how['seconds']:g} s for each row, taking turns within "
        "a table; medians, processor time in us for a unit, memory in KiB.\n\n"
        "All nodes share one core, and the load has the other. So none of this is throughput by the clock, which could "
        "not double here:\n`deliveries/s` is what the busiest node's processor time leaves room for, had each node a "
        "core of its own, and `a core adds`\nwhat each core beyond the first brings, over what the first does alone. "
        "Many processes on one core also share its caches: the figures\nof 16 nodes are rather too high.\n\n"
        "![the figures as a chart](cluster.svg)\n",
        "\n" + table(["machine and versions", ""], [list(fact) for fact in facts.items()]) + "\n",
        "\n## Figures\n",
        *sections(results),
    ]
    return "\n".join(part.rstrip("\n") for part in parts) + "\n"


# -- the chart


def draw(results: Results) -> str:
    """A panel for each part that there is."""
    return picture(panel for name, part in results.items() if name in _PANELS for panel in _PANELS[name](part))


def _curve(part: Part, keys: tuple[str, ...], names: dict[str, str]) -> dict[str, tuple[str, dict[int, float]]]:
    """A curve for each series and key that the part has."""
    curves = {}
    for series, sizes in part.items():
        for key in keys:
            values = {int(size): middle(records, key) for size, records in sizes.items() if key in records[0]}
            if values:
                label = f"{series}, {names[key]}" if names else series
                curves[label] = (COLORS[len(curves) % len(COLORS)], values)
    return curves


def _fan_out(part: Part) -> list[tuple[str, int]]:
    title = "us for a delivery, of all nodes, against nodes"
    return [curve_panel(title, _curve(part, ("value",), {}))]


def _requests(part: Part) -> list[tuple[str, int]]:
    curves = _curve(part, ("value", "asker"), {"value": "all nodes", "asker": "node that asks"})
    return [curve_panel("us for a request to all nodes, against nodes", curves)]


def _relay(part: Part) -> list[tuple[str, int]]:
    colors = dict(zip(part, COLORS, strict=False))
    found = [(f"{series}, {way}", middle(records), colors[series]) for series, way, records in rows_of(part)]
    return [bar_panel("us for a poll or a delivery, of both nodes, by its way", found)]


def _messages(part: Part) -> list[tuple[str, int]]:
    names = {key: key for key in _ENDS}
    return [curve_panel("us for a message of the backplane, against other nodes", _curve(part, _ENDS, names))]


def _rooms(part: Part) -> list[tuple[str, int]]:
    names = {"publish": "publish", "take": "deliver"}
    return [curve_panel("us for an emit to another node, against rooms", _curve(part, ("publish", "take"), names))]


def _joins(part: Part) -> list[tuple[str, int]]:
    names = {"member": "its node", "other": "another node", "broker": "broker"}
    bars = []
    for kind, sizes in part.items():
        size = max(sizes, key=int)
        for at, key in enumerate(_JOINERS):
            if key in sizes[size][0]:
                bars.append((f"{kind}, {names[key]}", middle(sizes[size], f"{key}_kib"), COLORS[at]))
    return [bar_panel("KiB for a room", bars)]


def _membership(part: Part) -> list[tuple[str, int]]:
    names = {"value": "all nodes", "broker": "broker"}
    return [curve_panel("us for a heartbeat of one node, against nodes", _curve(part, ("value", "broker"), names))]


_PANELS = {
    "fan_out": _fan_out,
    "requests": _requests,
    "relay": _relay,
    "messages": _messages,
    "rooms": _rooms,
    "joins": _joins,
    "membership": _membership,
}
