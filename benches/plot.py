"""Line plots as SVG, written by hand: panels side by side, each with its own scale, over the same steps below."""

import math
from dataclasses import dataclass
from xml.sax.saxutils import escape

PANEL_WIDTH, HEIGHT = 380, 260
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 44, 46
# Told apart without colours, too: each line has a mark of its own.
STYLES = [("#0b6fa4", "circle"), ("#c8553d", "square")]
FRAME = """<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" \
font-family="sans-serif" font-size="11" fill="#333">
<title>{title}</title>
<rect width="{width}" height="{height}" fill="#fff"/>
{body}
</svg>
"""


@dataclass
class Panel:
    """What one panel shows: lines as (name, values)."""

    unit: str
    lines: list
    log: bool = False


def draw(title, axis, labels, panels):
    """The picture; `labels` name the steps of the axis, which are equally far apart."""
    body = [line for at, panel in enumerate(panels) for line in draw_panel(panel, axis, labels, at * PANEL_WIDTH)]
    return FRAME.format(width=PANEL_WIDTH * len(panels), height=HEIGHT, title=escape(title), body="\n".join(body))


def draw_panel(panel, axis, labels, offset):
    left, right = offset + LEFT, offset + PANEL_WIDTH - RIGHT
    top, bottom = TOP, HEIGHT - BOTTOM
    ticks = scale(panel)
    low, high = ticks[0], ticks[-1]

    def across(step):
        return left + (right - left) * (step + 0.5) / len(labels)

    def up(value):
        if panel.log:
            share = math.log(max(value, low) / low) / math.log(high / low)
        else:
            share = (value - low) / (high - low)
        return bottom - (bottom - top) * share

    yield text(left, 16, panel.unit, "start", "font-weight='bold'")
    for tick in ticks:
        yield f"<path d='M{left} {up(tick):.1f}H{right}' stroke='#ddd'/>"
        yield text(left - 6, up(tick) + 4, short(tick), "end")
    for step, label in enumerate(labels):
        yield text(across(step), bottom + 16, short(float(label.replace(",", ""))), "middle")
    yield text((left + right) / 2, HEIGHT - 8, axis, "middle")
    for (name, values), (colour, mark), place in zip(panel.lines, STYLES, range(2)):
        points = [(across(step), up(value)) for step, value in enumerate(values)]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        yield f"<path d='M{path}' fill='none' stroke='{colour}' stroke-width='2'/>"
        yield from (dot(mark, colour, x, y) for x, y in points)
        legend = left + 90 + 60 * place
        yield dot(mark, colour, legend, 12)
        yield text(legend + 9, 16, name, "start")


def scale(panel):
    """Round numbers around all values of the panel, the least first."""
    values = [value for _, line in panel.lines for value in line]
    if panel.log:
        first = math.floor(math.log10(max(min(values), 1e-6)))
        last = max(math.ceil(math.log10(max(max(values), 1e-6))), first + 1)
        return [10.0 ** exponent for exponent in range(first, last + 1)]
    step = round_up(max(max(values), 1e-9) / 4)
    return [step * count for count in range(math.ceil(max(values) / step) + 1)]


def round_up(value):
    """The next of 1, 2, 2.5, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= value * 0.999999)


def short(value):
    """A number in few characters: 1.5M, 200k, 0.05."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}"[:5].rstrip(".") + letter
    return f"{value:g}"


def dot(mark, colour, x, y):
    if mark == "circle":
        return f"<circle cx='{x:.1f}' cy='{y:.1f}' r='3.5' fill='{colour}'/>"
    return f"<rect x='{x - 3:.1f}' y='{y - 3:.1f}' width='6' height='6' fill='{colour}'/>"


def text(x, y, words, anchor, more=""):
    return f"<text x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}' {more}>{escape(words)}</text>"
