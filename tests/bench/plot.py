"""docs/images/performance.svg: bars for the ratios to smtp-source, a line for the rate over a million.

Two charts of straight lines need no library: the numbers are placed by the same few lines that anybody can check.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from tests.bench.figures import DATABASES
from tests.bench.goals import RATIOS
from tests.bench.sizes import WINDOWS
from tests.bench.table import Found, figures, name

WIDTH, HEIGHT = 860, 340
TOP, BOTTOM = 60.0, 280.0  # of both charts
LEFT, MIDDLE, RIGHT = 60.0, 480.0, 840.0
BAR = 44.0
STYLE = """
svg { font: 13px system-ui, sans-serif; --paper: #fff; --ink: #1f2328; --faint: #d0d7de; --sqlite: #0969da;
  --postgres: #bc4c00 }
@media (prefers-color-scheme: dark) { svg { --paper: #0d1117; --ink: #e6edf3; --faint: #3d444d; --sqlite: #58a6ff;
  --postgres: #f0883e } }
text { fill: var(--ink) } .inside { fill: var(--paper) }
.title { font-weight: 600; font-size: 15px } .paper { fill: var(--paper) }
.faint { stroke: var(--faint) } .goal { stroke: var(--ink); stroke-width: 2; stroke-dasharray: 5 3 }
.sqlite { fill: var(--sqlite) } .postgres { fill: var(--postgres) }
polyline { fill: none !important; stroke-width: 2.5 } polyline.sqlite { stroke: var(--sqlite) }
polyline.postgres { stroke: var(--postgres) } .end { text-anchor: end } .middle { text-anchor: middle }
"""


def make(found: Found) -> str:
    shapes = "\n".join([*ratios(found), *flat(found), *legend()])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="Rate of work against smtp-source, and over a million copies">\n<style>{STYLE}</style>\n'
        f'<rect class="paper" width="{WIDTH}" height="{HEIGHT}"/>\n{shapes}\n</svg>\n'
    )


def ratios(found: Found) -> Iterator[str]:
    """One sender; a bar for each database and window, and across it its goal."""
    yield text(LEFT, 30, "One sender, as a share of smtp-source", "title")
    yield from axis(LEFT, MIDDLE - 60, [(share / 5, f"{share / 5:.1f}") for share in range(6)], 1.0)
    x = LEFT + 25
    for database in DATABASES:
        for window in WINDOWS:
            its = figures(found, "wire", database).get(f"{window} x 1")
            if its:
                top = height(its["ratio"], 1.0)
                yield (f'<rect class="{database}" x="{x}" y="{top:.1f}" width="{BAR}" '
                       f'height="{BOTTOM - top:.1f}"/>')  # fmt: skip
                yield text(x + BAR / 2, top + 18, f"{its['ratio']:.2f}", "middle inside")
            else:
                yield text(x + BAR / 2, BOTTOM - 6, "not measured", "middle")
            goal = height(RATIOS[database, window], 1.0)
            yield line(x - 8, goal, x + BAR + 8, goal, "goal")
            yield text(x + BAR / 2, BOTTOM + 18, f"window {window}", "middle")
            x += BAR + 40


def flat(found: Found) -> Iterator[str]:
    """Copies a second in each tenth of a million."""
    rates = {database: figures(found, "flat", database).get("rates", []) for database in DATABASES}
    most = max((rate for row in rates.values() for rate in row), default=1000.0)
    step = next(step for step in (100, 200, 500, 1000, 2000, 5000, 10**9) if most / step <= 6)
    top = step * (int(most / step) + 1)
    yield text(MIDDLE + 40, 30, "Copies a second, by tenths of a million", "title")
    yield from axis(MIDDLE + 40, RIGHT, [(n, f"{n:,}") for n in range(0, top + 1, step)], top)
    between = (RIGHT - MIDDLE - 80) / 9
    for database, row in rates.items():
        places = [(MIDDLE + 60 + n * between, height(rate, top)) for n, rate in enumerate(row)]
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        if points:
            yield f'<polyline class="{database}" points="{points}"/>'
            yield from (
                f'<circle class="{database}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in places
            )
    for n in range(10):
        yield text(MIDDLE + 60 + n * between, BOTTOM + 18, str(n + 1), "middle")


def axis(left: float, right: float, marks: list[tuple[float, str]], most: float) -> Iterator[str]:
    for value, words in marks:
        y = height(value, most)
        yield line(left, y, right, y, "faint")
        yield text(left - 6, y + 4, words, "end")


def legend() -> Iterator[str]:
    for n, database in enumerate(DATABASES):
        x = LEFT + 120 * n
        yield f'<rect class="{database}" x="{x}" y="312" width="12" height="12"/>'
        yield text(x + 18, 323, name(database))
    yield line(LEFT + 245, 318, LEFT + 275, 318, "goal")
    yield text(LEFT + 282, 323, "goal")


def height(value: float, most: float) -> float:
    """The place on the page of a value, of which `most` is at the top."""
    return BOTTOM - (BOTTOM - TOP) * min(value, most) / most


def text(x: float, y: float, words: str, kind: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}">{escape(words)}</text>'


def line(x: float, y: float, to_x: float, to_y: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x:.1f}" y1="{y:.1f}" x2="{to_x:.1f}" y2="{to_y:.1f}"/>'
