"""Draws pictures of who sends what to whom: the directive `sequence`, an SVG in the page.

    ```{sequence} An order is handled
    broker -> runtime: order A-7
    runtime -> handler: bill_order
    handler x> runtime: ValueError
    runtime: waits 1 s
    ---: the process dies
    ```

`->` is an arrow, `-->` a dashed one (an answer), `x>` a failed one. A line with one name is what
happens there; `---:` is a line across. Colours are those of the theme, light and dark.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

if TYPE_CHECKING:
    from sphinx.application import Sphinx

_LINE = re.compile(
    r"(?P<source>[\w -]+?)(?: (?P<arrow>->|-->|x>) (?P<target>[\w -]+?))?: (?P<text>.+)"
)
_WIDTH, _COLUMN, _TOP, _STEP, _BOX = 720, 130, 44, 40, 28
_INK = "var(--color-foreground-primary, #222)"
_MUTED = "var(--color-foreground-muted, #666)"
_BRAND = "var(--color-brand-primary, #0a4bff)"
_PAPER = "var(--color-background-primary, #fff)"
_BACK = "var(--color-background-secondary, #f4f4f6)"
_FAILED = "var(--color-problematic, #b30000)"


@dataclass(frozen=True)
class Step:
    """A line of the picture.

    Attributes:
        source: who sends, or where something happens; empty for a line across.
        target: who receives, if it is an arrow.
        arrow: `->`, `-->` or `x>`.
        text: what.
    """

    source: str
    target: str | None
    arrow: str | None
    text: str


def parse(lines: list[str]) -> list[Step]:
    """Reads the lines. Raises ValueError, which names the line that is none."""
    steps = []
    for line in filter(None, (line.strip() for line in lines)):
        if line.startswith("---: "):
            steps.append(Step("", None, None, line[5:]))
        elif found := _LINE.fullmatch(line):
            steps.append(Step(found["source"], found["target"], found["arrow"], found["text"]))
        else:
            raise ValueError(f"{line!r}: write `a -> b: text`, `a: text` or `---: text`")
    return steps


def draw(title: str, steps: list[Step]) -> str:
    """Returns the picture as SVG."""
    names = list(
        dict.fromkeys(name for step in steps for name in (step.source, step.target) if name)
    )
    gap = (_WIDTH - _COLUMN) / max(len(names) - 1, 1)
    x = {name: _COLUMN / 2 + gap * place for place, name in enumerate(names)}
    height = _TOP + _STEP * len(steps) + 24
    parts = [f'<svg class="sequence" role="img" viewBox="0 0 {_WIDTH} {height}">']
    parts.append(f"<title>{escape(title)}</title>")
    for name in names:
        parts += _participant(name, x[name], height)
    for place, step in enumerate(steps):
        y = _TOP + _STEP * place + 30
        if step.target is not None:
            parts += _arrow(step, x[step.source], x[step.target], y)
        elif step.source:
            parts += _event(step, x[step.source], y)
        else:
            parts += _across(step, y)
    return "".join([*parts, "</svg>"])


def _participant(name: str, x: float, height: int) -> Iterator[str]:
    yield (
        f'<line x1="{x:g}" y1="{_BOX}" x2="{x:g}" y2="{height - 4}" stroke="{_MUTED}" '
        'stroke-dasharray="2 4"/>'
        f'<rect x="{x - 64:g}" y="2" width="128" height="{_BOX}" rx="6" fill="{_BACK}" '
        f'stroke="{_MUTED}"/>'
    )
    yield _text(name, x, 21, weight="600")


def _arrow(step: Step, start: float, end: float, y: int) -> Iterator[str]:
    colour = _FAILED if step.arrow == "x>" else _BRAND
    dashes = ' stroke-dasharray="6 4"' if step.arrow == "-->" else ""
    back = 8 if end > start else -8
    if start == end:
        yield (
            f'<path d="M{start:g} {y - 8}h36v12h-30" fill="none" stroke="{colour}" '
            f'stroke-width="1.6"{dashes}/>'
        )
        back, end, y = -8, start, y + 4
    else:
        yield (
            f'<line x1="{start:g}" y1="{y}" x2="{end - back:g}" y2="{y}" stroke="{colour}" '
            f'stroke-width="1.6"{dashes}/>'
        )
    yield f'<path d="M{end:g} {y}l{-back} -4v8z" fill="{colour}"/>'
    yield _text(step.text, (start + end) / 2, y - 7, halo=True)


def _event(step: Step, x: float, y: int) -> Iterator[str]:
    width = 7.2 * len(step.text) + 20
    left = min(max(x - width / 2, 2), _WIDTH - width - 2)
    yield (
        f'<rect x="{left:g}" y="{y - 16}" width="{width:g}" height="24" rx="12" fill="{_BACK}" '
        f'stroke="{_BRAND}"/>'
    )
    yield _text(step.text, left + width / 2, y)


def _across(step: Step, y: int) -> Iterator[str]:
    yield (
        f'<line x1="0" y1="{y - 4}" x2="{_WIDTH}" y2="{y - 4}" stroke="{_FAILED}" '
        'stroke-dasharray="8 4"/>'
    )
    yield _text(step.text, _WIDTH / 2, y, halo=True, weight="600")


def _text(text: str, x: float, y: float, *, halo: bool = False, weight: str = "400") -> str:
    around = f' stroke="{_PAPER}" stroke-width="5" paint-order="stroke"' if halo else ""
    return (
        f'<text x="{x:g}" y="{y:g}" text-anchor="middle" font-size="13" font-weight="{weight}" '
        f'font-family="var(--font-stack, sans-serif)" fill="{_INK}"{around}>{escape(text)}</text>'
    )


class Sequence(SphinxDirective):
    """The directive."""

    has_content = True
    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """Returns the picture."""
        try:
            picture = draw(self.arguments[0], parse(list(self.content)))
        except ValueError as error:
            raise self.error(str(error)) from None
        return [nodes.raw("", f"<figure>{picture}</figure>", format="html")]


def setup(app: Sphinx) -> dict[str, bool]:
    """Sphinx's entry."""
    app.add_directive("sequence", Sequence)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
