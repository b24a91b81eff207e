"""Bars as SVG, readable on light and dark ground."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from benchmarks.model import UNITS, Group, Results, Target
from benchmarks.rows import number

WIDTH, LEFT, RIGHT = 760, 220, 130
BAR, GAP, HEADING, TOP = 14, 6, 22, 34
STYLE = """\
text { font: 12px system-ui, sans-serif; fill: #1f2328 }
.title { font-size: 15px; font-weight: 600 }
.heading { font-weight: 600 }
.ours { fill: #2f81f7 } .raw { fill: #8b949e } .faststream { fill: #d29922 }
.other { fill: #a371f7 }
.spread { stroke: #1f2328; stroke-width: 1 }
.mark { stroke: #e5534b; stroke-width: 2; stroke-dasharray: 3 2 }
.marked { fill: #c93c37 }
@media (prefers-color-scheme: dark) {
  text { fill: #d1d7e0 } .spread { stroke: #d1d7e0 } .marked { fill: #ff7b72 }
}
"""


@dataclass(frozen=True)
class Bar:
    """One subject's median, with the smallest and the largest value."""

    label: str
    kind: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Cluster:
    """The bars of one row, with a scale of their own, and the limit where there is one."""

    heading: str
    unit: str
    bars: Sequence[Bar]
    mark: float | None
    at_least: bool


def plot(group: Group, results: Results) -> str:
    """The plot of a group: a cluster for each row that shows subjects of its own."""
    kinds = {subject.name: subject.library for subject in group.subjects}
    clusters: list[Cluster] = []
    shown: list[set[str]] = []
    for target in group.targets:
        names = (*target.subjects, *target.beside)
        failed = any(
            name not in results or target.figure not in results[name].figures for name in names
        )
        if failed or any({*names, target.figure} <= before for before in shown):
            continue
        shown.append({*names, target.figure})
        clusters.append(_cluster(target, names, kinds, results))
    return svg(group.title, clusters)


def _cluster(
    target: Target, names: Sequence[str], kinds: dict[str, str], results: Results
) -> Cluster:
    bars = [
        Bar(name, kinds[name], results[name][target.figure], *results[name].ends(target.figure))
        for name in names
    ]
    return Cluster(
        target.name, UNITS[target.figure], bars, target.mark(results), target.at_least
    )  # fmt: skip


def svg(title: str, clusters: Sequence[Cluster]) -> str:
    """The picture."""
    lines: list[str] = []
    y = TOP
    for cluster in clusters:
        lines.append(f'<text class="heading" x="0" y="{y + 12}">{escape(cluster.heading)}</text>')
        y += HEADING
        y = _bars(lines, cluster, y) + 2 * GAP
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" width="{WIDTH}"'
        f' height="{y}" role="img" aria-label="{escape(title)}">'
    )
    heading = f'<text class="title" x="0" y="16">{escape(title)}</text>'
    return "\n".join([head, f"<style>\n{STYLE}</style>", heading, *lines, "</svg>", ""])


def _bars(lines: list[str], cluster: Cluster, y: int) -> int:
    """Draws the bars of a cluster; where the next one begins."""
    most = max([*(bar.high for bar in cluster.bars), cluster.mark or 0.0, 1e-9])
    scale = (WIDTH - LEFT - RIGHT) / most

    def x(value: float) -> str:
        return f"{LEFT + max(value, 0) * scale:.1f}"

    start = y
    for bar in cluster.bars:
        middle = y + BAR / 2
        width = max(bar.value * scale, 1)
        end = float(x(max(bar.high, cluster.mark or 0))) + 8
        told = number(bar.value, cluster.unit)
        lines += [
            f'<text x="{LEFT - 8}" y="{y + 11}" text-anchor="end">{escape(bar.label)}</text>',
            f'<rect class="{bar.kind}" x="{LEFT}" y="{y}" width="{width:.1f}" height="{BAR}"/>',
            _line("spread", x(bar.low), x(bar.high), middle, middle),
            f'<text x="{end:.1f}" y="{y + 11}">{escape(told)}</text>',
        ]
        y += BAR + GAP
    if cluster.mark is not None:
        sign = "at least" if cluster.at_least else "at most"
        told = f"{sign} {number(cluster.mark, cluster.unit)}"
        at = x(cluster.mark)
        lines.append(_line("mark", at, at, start - 3, y - 3))
        lines.append(
            f'<text class="marked" x="{at}" y="{y + 8}" text-anchor="middle">{escape(told)}</text>'
        )
        y += BAR
    return y


def _line(kind: str, left: str, right: str, top: float, bottom: float) -> str:
    return f'<line class="{kind}" x1="{left}" x2="{right}" y1="{top}" y2="{bottom}"/>'
