"""Plots as small SVG files, which are readable on light and on dark pages."""
import pathlib

from measuring import ROOT

IMAGES = ROOT / "docs" / "images"
WIDTH, HEIGHT = 720, 300
LEFT, RIGHT, TOP, BOTTOM = 60, 60, 45, 45
STYLE = """<style>
text { font: 12px sans-serif; fill: #333; } .axis { stroke: #888; } .grid { stroke: #8884; }
.a { stroke: #1f6fb2; fill: #1f6fb2; } .b { stroke: #c2571a; fill: #c2571a; } .line { fill: none; stroke-width: 2; } text.a, text.b { stroke: none; }
@media (prefers-color-scheme: dark) { text { fill: #ccc; } .a { stroke: #6cb2ee; fill: #6cb2ee; } .b { stroke: #f0935a; fill: #f0935a; } }
</style>"""
# Files that the current run has drawn, by name. They are written together with the page.
drawn: dict[str, str] = {}


def svg(name: str, title: str, height: int, parts: list[str]) -> None:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{title}">'
    drawn[name] = "\n".join([head, f"<title>{title}</title>", STYLE, *parts, "</svg>", ""])


def write() -> list[pathlib.Path]:
    files = [IMAGES / f"bench-{name}.svg" for name in drawn]
    for file, text in zip(files, drawn.values()):
        file.write_text(text)
    drawn.clear()
    return files


def text(x: float, y: float, content: str, anchor: str = "middle", kind: str = "") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}"{f" class={kind!r}" if kind else ""}>{content}</text>'


def nice(highest: float) -> float:
    """Returns a round number that is not below the value."""
    step = 10 ** (len(str(int(highest))) - 1)
    return next(step * factor for factor in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if step * factor >= highest)


def bars(name: str, title: str, unit: str, values: list[tuple[str, float, bool]]) -> None:
    """Draws horizontal bars: label, value, and whether it is the project's own."""
    row, label = 24, 260
    height = TOP + row * len(values) + 10
    scale = (WIDTH - label - 90) / max(value for _, value, _ in values)
    parts = [text(WIDTH / 2, 18, f"{title}, {unit}")]
    for at, (caption, value, own) in enumerate(values):
        y = TOP + row * at
        parts.append(text(label - 8, y + 15, caption, "end"))
        parts.append(f'<rect x="{label}" y="{y + 3}" width="{max(1, value * scale):.1f}" height="{row - 8}" class="{"a" if own else "b"}"/>')
        parts.append(text(label + value * scale + 6, y + 15, f"{value:.0f}", "start"))
    svg(name, title, height, parts)


def overload(name: str, points: list[dict], capacity: float) -> None:
    """Draws what is served and the latency over what is offered."""
    rates, latencies = nice(max(point["offered"] for point in points)), nice(max(point["served_ms"]["p99"] or 0 for point in points))
    x = lambda value: LEFT + value / rates * (WIDTH - LEFT - RIGHT)
    y = lambda value, highest: HEIGHT - BOTTOM - value / highest * (HEIGHT - TOP - BOTTOM)
    parts = [text(WIDTH / 2, 18, "Purchases offered in an open loop, against what is served and how long it takes")]
    for part in range(5):
        at = y(part, 4)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.0f}" y2="{at:.0f}" class="grid"/>')
        parts.append(text(LEFT - 6, at + 4, f"{rates * part / 4:.0f}", "end", "a"))
        parts.append(text(WIDTH - RIGHT + 6, at + 4, f"{latencies * part / 4:.0f}", "start", "b"))
        parts.append(text(x(rates * part / 4), HEIGHT - BOTTOM + 18, f"{rates * part / 4:.0f}"))
    parts.append(f'<line x1="{x(capacity):.0f}" x2="{x(capacity):.0f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" class="axis" stroke-dasharray="4"/>')
    parts.append(text(x(capacity), HEIGHT - 8, "capacity in a closed loop"))
    parts.append(text(WIDTH - RIGHT, HEIGHT - 8, "offered per second", "end"))
    parts.append(text(LEFT, TOP - 2, "served per second", "start", "a"))
    parts.append(text(WIDTH - RIGHT, TOP - 2, "p99, ms", "end", "b"))
    for kind, value, highest in (("a", lambda p: p["served"], rates), ("b", lambda p: p["served_ms"]["p99"] or 0, latencies)):
        places = " ".join(f"{x(point['offered']):.1f},{y(value(point), highest):.1f}" for point in points)
        parts.append(f'<polyline points="{places}" class="line {kind}" style="fill:none"/>')
    svg(name, "Offered and served load", HEIGHT, parts)
