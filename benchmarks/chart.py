"""The figures as SVG, without a drawing library: bars for the table, curves for cost against size."""

from __future__ import annotations

import math
from collections.abc import Iterable
from html import escape
from itertools import groupby

from lines import LINES, PEERS, SCALING, Line
from report import Records, middle

OWN, OTHER = "#1f6feb", "#9aa4b2"
COLORS = ("#1f6feb", "#8250df", "#d4731c", "#57606a", "#bf3989", "#1b7c83", "#9a6700", "#2da44e")
PANEL_WIDTH, BAR_HEIGHT, LABEL_WIDTH, BAR_WIDTH = 470, 18, 190, 200
CURVE_WIDTH, CURVE_HEIGHT, MARGIN = 470, 230, 46
GAP = 20
ROW_HEIGHT = 14


def _text(x: float, y: float, text: str, extra: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {extra}>{escape(text)}</text>'


def picture(panels: Iterable[tuple[str, int]], columns: int = 2) -> str:
    """*panels*, each a drawing and its height, side by side."""
    parts, x, y, tallest = [], 0, 0, 0
    for number, (drawing, height) in enumerate(panels):
        if number and number % columns == 0:
            x, y, tallest = 0, y + tallest + GAP, 0
        parts.append(f'<g transform="translate({x + GAP},{y + GAP})">{drawing}</g>')
        x, tallest = x + PANEL_WIDTH + GAP, max(tallest, height)
    width, height = columns * (PANEL_WIDTH + GAP) + GAP, y + tallest + 2 * GAP
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12" fill="#24292f">\n'
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def bars(results: dict[str, Records]) -> str:
    """A panel for each line, a bar for each server."""
    return picture(_bars(LINES[name], records) for name, records in results.items())


def _bars(line: Line, records: Records) -> tuple[str, int]:
    values = sorted((middle(rounds), name) for name, rounds in records.items() if rounds)
    bars = [(PEERS[name].title, value, OWN if PEERS[name].own else OTHER) for value, name in values]
    return bar_panel(f"{line.title} ({line.unit})", bars)


def bar_panel(title: str, bars: list[tuple[str, float, str]]) -> tuple[str, int]:
    """Bars, each with its label, value and color; the drawing and its height."""
    most = max((value for _, value, _ in bars), default=1) or 1
    parts = [_text(0, 12, title, 'font-weight="bold"')]
    for at, (label, value, color) in enumerate(bars):
        y, width = 22 + at * BAR_HEIGHT, max(1.0, BAR_WIDTH * value / most)
        parts.append(_text(LABEL_WIDTH - 6, y + 12, label, 'text-anchor="end"'))
        parts.append(f'<rect x="{LABEL_WIDTH}" y="{y + 2}" width="{width:.1f}" height="13" fill="{color}"/>')
        parts.append(_text(LABEL_WIDTH + width + 5, y + 12, f"{value:.1f}"))
    return "".join(parts), 22 + len(bars) * BAR_HEIGHT


def scaling(results: dict[str, Records]) -> str:
    """A panel for each kind of growth: curves, or bars where there is one size."""
    panels = []
    for stem, names in groupby(results, lambda name: name.rpartition("-")[0]):
        sizes = {int(name.rpartition("-")[2]): name for name in names}
        if len(sizes) == 1:
            (name,) = sizes.values()
            panels.append(_bars(SCALING[name], results[name]))
        else:
            panels.append(_curves(stem, {size: results[name] for size, name in sizes.items()}))
    return picture(panels)


def _curves(stem: str, by_size: dict[int, Records]) -> tuple[str, int]:
    titles = {"fan-out": "us for a delivery, against clients", "rooms": "us for a delivery, against rooms that exist"}
    peers = list(dict.fromkeys(peer for records in by_size.values() for peer, rounds in records.items() if rounds))
    curves = {
        # The same color in every panel.
        PEERS[peer].title: (
            COLORS[list(PEERS).index(peer) % len(COLORS)],
            {size: middle(records[peer]) for size, records in by_size.items() if records.get(peer)},
        )
        for peer in peers
    }
    return curve_panel(titles[stem], curves)


def curve_panel(title: str, curves: dict[str, tuple[str, dict[int, float]]]) -> tuple[str, int]:
    """Curves, label -> color and values against sizes, which are on a logarithmic scale; the drawing and its height."""
    sizes = sorted({size for _, values in curves.values() for size in values})
    most = max((value for _, values in curves.values() for value in values.values()), default=1)
    low, high = math.log10(sizes[0]), math.log10(sizes[-1])
    width, height = CURVE_WIDTH - 2 * MARGIN, CURVE_HEIGHT - 2 * MARGIN
    # Below the names, two in a row.
    top = MARGIN + (len(curves) - 1) // 2 * ROW_HEIGHT

    def place(size: int, value: float) -> tuple[float, float]:
        return MARGIN + width * (math.log10(size) - low) / ((high - low) or 1), top + height * (1 - value / most)

    parts = [_text(0, 12, title, 'font-weight="bold"')]
    parts.append(f'<path d="M{MARGIN},{top} v{height} h{width}" fill="none" stroke="#57606a"/>')
    parts += [
        _text(MARGIN - 5, place(sizes[0], most * f)[1] + 4, f"{most * f:.0f}", 'text-anchor="end"') for f in (0, 1)
    ]
    parts += [_text(place(size, 0)[0], top + height + 16, f"{size:,}", 'text-anchor="middle"') for size in sizes]
    for at, (label, (color, values)) in enumerate(curves.items()):
        points = [place(size, value) for size, value in sorted(values.items())]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{color}"/>' for x, y in points]
        parts.append(_text(MARGIN + 8 + at % 2 * 190, 30 + at // 2 * ROW_HEIGHT, label, f'fill="{color}"'))
    return "".join(parts), CURVE_HEIGHT + top - MARGIN
