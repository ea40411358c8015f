"""Figures as a drawing: bars in groups, with the spread of their repeats, as SVG in plain text."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, LEFT, RIGHT = 760, 150, 150
BAR, GAP, GROUP_GAP, TOP = 15, 3, 16, 56
COLOURS = ("#0b7a75", "#c8553d", "#8d99ae", "#6a4c93")
_STYLE = """
text { font: 12px system-ui, sans-serif; fill: #24292f; }
.title { font-size: 15px; font-weight: 600; }
.faint { fill: #6e7781; }
.strong { font-weight: 600; }
.spread { stroke: #24292f; opacity: .6; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .faint { fill: #8d96a0; }
  .spread { stroke: #e6edf3; }
}
"""


@dataclass(frozen=True, slots=True)
class Bar:
    """One server's figure: the median of its repeats, and the least and most of them."""

    server: str
    median: float
    least: float
    most: float


@dataclass(frozen=True, slots=True)
class Group:
    """The same work by several servers. Its bars are drawn to its own scale."""

    title: str
    bars: Sequence[Bar]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    where = f'x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}"'
    return f"<text {where}>{escape(text)}</text>"


def _bar(x: float, y: float, width: float, height: float, colour: str) -> str:
    where = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height}"'
    return f'<rect {where} rx="2" fill="{colour}"/>'


def _level(least: float, most: float, y: float) -> str:
    where = f'x1="{least:.1f}" x2="{most:.1f}" y1="{y:.1f}" y2="{y:.1f}"'
    return f'<line class="spread" {where}/>'


def _group(group: Group, y: float, colours: dict[str, str]) -> list[str]:
    """The elements of a group whose first bar begins at `y`."""
    scale = (WIDTH - LEFT - RIGHT) / max(bar.most for bar in group.bars)
    elements = [_text(LEFT - 10, y + BAR - 3, group.title, "strong", "end")]
    first = group.bars[0].median
    for number, bar in enumerate(group.bars):
        at = y + number * (BAR + GAP)
        least, most = LEFT + bar.least * scale, LEFT + bar.most * scale
        told = _number(bar.median)
        if number:
            told += f" ({bar.median / first:.2f} of it)"
        elements += [
            _bar(LEFT, at, bar.median * scale, BAR, colours[bar.server]),
            _level(least, most, at + BAR / 2),
            _text(most + 6, at + BAR - 3, told),
        ]
    return elements


def _key(servers: Sequence[str], colours: dict[str, str]) -> list[str]:
    elements, x = [], float(LEFT)
    for server in servers:
        elements += [
            _bar(x, TOP - 21, 11, 11, colours[server]),
            _text(x + 16, TOP - 11, server),
        ]
        x += 32 + 7.5 * len(server)
    return elements


def svg(title: str, note: str, groups: Sequence[Group]) -> str:
    """A drawing. Behind a bar: its figure, and what part it is of its group's first."""
    servers = list(dict.fromkeys(bar.server for group in groups for bar in group.bars))
    if len(servers) > len(COLOURS):
        raise ValueError(f"{len(servers)} servers; there are {len(COLOURS)} colours")
    colours = dict(zip(servers, COLOURS, strict=False))
    elements, y = [_text(LEFT, 20, title, "title"), *_key(servers, colours)], float(TOP + 10)
    for group in groups:
        elements += _group(group, y, colours)
        y += len(group.bars) * (BAR + GAP) + GROUP_GAP
    elements.append(_text(LEFT, y + 8, note, "faint"))
    box = f'viewBox="0 0 {WIDTH} {y + 20:.0f}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {box} role="img">',
            f"<title>{escape(title)}</title>",
            f"<style>{_STYLE}</style>",
            *elements,
            "</svg>\n",
        ]
    )
