"""The load-step picture as SVG, with nothing but text: three panels over one axis of time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, LEFT, RIGHT, TOP = 900, 70, 20, 60
PANEL, GAP = 130, 45


@dataclass(frozen=True, slots=True)
class Moment:
    """What was seen at one moment of a run. Latencies are None while nobody was answered."""

    at_s: float
    callers: int
    need: int
    ready: int
    instances: int
    queued: int
    p50_ms: float | None
    worst_ms: float | None


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a panel. `stepped`: it keeps its value until the next moment."""

    name: str
    colour: str
    value: Callable[[Moment], float | None]
    stepped: bool = True


PANELS: tuple[tuple[str, tuple[Line, ...]], ...] = (
    (
        "instances",
        (
            Line("needed", "#999999", lambda m: m.need),
            Line("asked for", "#e69f00", lambda m: m.instances),
            Line("Ready", "#0072b2", lambda m: m.ready),
        ),
    ),
    (
        "requests",
        (Line("callers", "#999999", lambda m: m.callers), Line("waiting for an instance", "#d55e00", lambda m: m.queued)),
    ),
    (
        "answered within, ms",
        (
            Line("slowest", "#cc79a7", lambda m: m.worst_ms, stepped=False),
            Line("median", "#009e73", lambda m: m.p50_ms, stepped=False),
        ),
    ),
)


def draw(moments: Sequence[Moment], caption: str) -> str:
    """The picture of a run."""
    height = TOP + len(PANELS) * (PANEL + GAP) + 10
    end_s = max(moment.at_s for moment in moments)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        _text(LEFT, 24, "A load that steps 1 → 10 → 100 → 10 → 0", size=16),
        _text(LEFT, 42, caption, colour="#555555"),
    ]
    for number, (title, lines) in enumerate(PANELS):
        parts += _panel(moments, end_s, TOP + 20 + number * (PANEL + GAP), title, lines)
    return "\n".join([*parts, "</svg>", ""])


def _panel(moments: Sequence[Moment], end_s: float, top: float, title: str, lines: Sequence[Line]) -> list[str]:
    most = max((value for line in lines for m in moments if (value := line.value(m)) is not None), default=1) or 1
    step = _round_step(most)
    ceiling = step * -(-most // step)

    def x(at_s: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * at_s / max(end_s, 1e-9)

    def y(value: float) -> float:
        return top + PANEL * (1 - value / ceiling)

    parts = [_text(LEFT, top - 8, title, weight="bold")]
    at = 0.0
    while at <= ceiling:
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(at):.1f}" y2="{y(at):.1f}" stroke="#eeeeee"/>')
        parts.append(_text(LEFT - 8, y(at) + 4, f"{at:g}", anchor="end", colour="#555555"))
        at += step
    for second in range(0, int(end_s) + 1, 10):
        parts.append(_text(x(second), top + PANEL + 15, f"{second} s", anchor="middle", colour="#555555"))
    for number, line in enumerate(lines):
        parts.append(_path(moments, line, x, y))
        parts.append(_text(WIDTH - RIGHT - 170 * number, top - 8, line.name, anchor="end", colour=line.colour))
    return parts


def _path(moments: Sequence[Moment], line: Line, x: Callable[[float], float], y: Callable[[float], float]) -> str:
    words, pen_down = list[str](), False
    for moment in moments:
        value = line.value(moment)
        if value is None:
            pen_down = False
            continue
        if pen_down and line.stepped:
            words.append(f"H{x(moment.at_s):.1f}")
        words.append(f"{'L' if pen_down else 'M'}{x(moment.at_s):.1f} {y(value):.1f}")
        pen_down = True
    return f'<path d="{" ".join(words)}" fill="none" stroke="{line.colour}" stroke-width="1.5"/>'


def _round_step(most: float) -> float:
    """A step of 1, 2 or 5 × 10ⁿ that makes three to six lines."""
    step = 1.0
    while step * 5 < most:
        for factor in (2, 2.5, 2):
            step *= factor
            if step * 5 >= most:
                break
    return step


def _text(
    x: float, y: float, words: str, *, anchor: str = "start", colour: str = "#222222", size: int = 12, weight: str = "normal"
) -> str:
    look = f'text-anchor="{anchor}" fill="{colour}" font-size="{size}" font-weight="{weight}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {look}>{escape(words)}</text>'
