"""Draws docs/images/time.svg: one row of a feature view and a correction of it, on every clock. Run it after editing.

Standard library only. Colours follow the reader's light or dark scheme by a media query in the SVG itself.
"""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 1000, 560
LEFT, RIGHT = 190, 970
FIRST_HOUR, LAST_HOUR = 16.0, 40.0
STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #24292f; }
  .small { font-size: 11.5px; } .quiet { fill: #57606a; } .bold { font-weight: 600; }
  .axis { stroke: #8c959f; } .grid { stroke: #d0d7de; stroke-dasharray: 2 4; }
  .first { fill: #0969da; stroke: #0969da; } .second { fill: #bc4c00; stroke: #bc4c00; }
  text.first, text.second { stroke: none; }
  .soft-first { fill: #0969da; fill-opacity: .22; } .soft-second { fill: #bc4c00; fill-opacity: .22; }
  .doubt { fill: #bf8700; fill-opacity: .55; } .label { fill: #1a7f37; stroke: #1a7f37; } text.label { stroke: none; }
  .window { fill: #57606a; fill-opacity: .15; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; } .quiet { fill: #9198a1; } .axis { stroke: #6e7681; } .grid { stroke: #3d444d; }
    .first { fill: #58a6ff; stroke: #58a6ff; } .second { fill: #f0883e; stroke: #f0883e; }
    .soft-first { fill: #58a6ff; } .soft-second { fill: #f0883e; } .doubt { fill: #d29922; }
    .label { fill: #3fb950; stroke: #3fb950; } .window { fill: #9198a1; }
  }
"""


def x(hour: float) -> float:
    """Where an hour lies; 24 is midnight."""
    return LEFT + (hour - FIRST_HOUR) / (LAST_HOUR - FIRST_HOUR) * (RIGHT - LEFT)


def text(at: float, y: float, words: str, *, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{at:.1f}" y="{y}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1}" x2="{x2:.1f}" y2="{y2}" class="{kind}"/>'


def bar(start: float, end: float, y: float, kind: str, height: int = 22) -> str:
    return f'<rect x="{x(start):.1f}" y="{y}" width="{x(end) - x(start):.1f}" height="{height}" rx="3" class="{kind}"/>'


def dot(hour: float, y: float, kind: str) -> str:
    return f'<circle cx="{x(hour):.1f}" cy="{y}" r="5" class="{kind}"/>'


def lane(y: float, name: str, note: str) -> str:
    return text(14, y, name, kind="bold") + text(14, y + 16, note, kind="small quiet")


def draw() -> str:
    parts = [
        text(14, 24, "One row of carrier_delays (daily, for UA), and its correction", kind="bold"),
        text(
            14,
            43,
            "blue: the batch computed in the night. orange: the batch computed again after late arrivals.",
            kind="small quiet",
        ),
    ]
    for hour in range(16, 41, 4):
        parts += [
            line(x(hour), 62, x(hour), 510, "grid"),
            text(x(hour), 528, f"{hour % 24:02d}:00", kind="small quiet", anchor="middle"),
        ]
    parts += [
        line(LEFT, 510, RIGHT, 510, "axis"),
        text(x(20), 546, "5 March", kind="small quiet", anchor="middle"),
        text(x(32), 546, "6 March", kind="small quiet", anchor="middle"),
        # facts
        lane(84, "facts", "when they were knowable"),
        bar(16, 24, 74, "window"),
        text(x(16.3), 89, "all arrivals before 24:00 count; none after", kind="small"),
        dot(22.2, 112, "first"),
        line(x(22.2), 112, x(22.7), 112, "first"),
        text(x(21.9), 116, "a delay, known at arrival", kind="small first", anchor="end"),
        dot(23, 136, "second"),
        line(x(23), 136, x(29.5), 136, "second"),
        text(x(22.6), 140, "another one …", kind="small second", anchor="end"),
        text(x(29.9), 140, "… that reached us only at 05:30 (ingested_at)", kind="small second"),
        # event_timestamp
        lane(184, "event_timestamp", "true as of"),
        line(x(24), 62, x(24), 510, "axis"),
        dot(24, 180, "axis first"),
        text(x(24.3), 184, "24:00, the end of the partition: every input is strictly earlier", kind="small"),
        # batches
        lane(232, "ledger", "computed, published"),
        dot(25.5, 228, "first"),
        text(x(25.2), 220, "computed 01:30", kind="small first", anchor="end"),
        dot(25.7, 228, "first"),
        text(x(26.1), 232, "published 01:31: its checks passed", kind="small first"),
        dot(30.5, 252, "second"),
        dot(30.7, 252, "second"),
        text(x(31.1), 256, "computed again 06:30, published 06:31", kind="small second"),
        # online
        lane(302, "served", "what Valkey held"),
        bar(25.9, 30.9, 288, "soft-first"),
        bar(25.7, 25.9, 288, "doubt"),
        bar(30.9, 31.4, 288, "doubt"),
        bar(31.4, 40, 288, "soft-second"),
        text(x(26.2), 303, "first value", kind="small first"),
        text(x(34.4), 303, "corrected (online_at 07:24)", kind="small second"),
        text(x(31.15), 280, "a sync in flight: either of the two", kind="small", anchor="middle"),
        text(x(24.3), 328, "the day before's row", kind="small quiet", anchor="end"),
        bar(16, 25.7, 288, "window"),
        # modelled
        lane(372, "modelled", "event + availability_delay"),
        bar(16, 25.5, 358, "window"),
        bar(25.5, 40, 358, "soft-second"),
        text(x(34.4), 373, "corrected value", kind="small second"),
        text(x(16.3), 373, "the day before's row", kind="small quiet"),
        # labels
        lane(422, "labels", "a prediction's time"),
    ]
    for hour, name in ((25.2, "A"), (28.5, "B"), (31.1, "C"), (34, "D")):
        parts += [
            line(x(hour), 286, x(hour), 412, "label"),
            dot(hour, 418, "label"),
            text(x(hour), 440, name, kind="bold label", anchor="middle"),
        ]
    parts += [
        text(
            LEFT,
            466,
            "A  both: the day before's row.    B  served: the first value. modelled: the corrected one, marked late-informed.",
            kind="small",
        ),
        text(
            LEFT,
            486,
            "C  served: ambiguous, the first value is given. modelled: the corrected one.    D  both: the corrected value.",
            kind="small",
        ),
    ]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="t">'
    title = '<title id="t">The clocks of one feature row: facts, event time, ledger, served and modelled values</title>'
    return f"{head}{title}<style>{STYLE}</style>{''.join(parts)}</svg>\n"


if __name__ == "__main__":
    Path(__file__).with_suffix(".svg").write_text(draw(), encoding="utf-8")
