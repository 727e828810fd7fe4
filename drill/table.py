"""The table of a drill, for a terminal and for docs/drill.md."""

from __future__ import annotations

import json
from collections import Counter
from datetime import timedelta

from drill.judge import Case, Verdict

_BEGIN, _END = "<!-- drill: begin -->", "<!-- drill: end -->"
_HEADER = ("fault", "detected by", "after", "who was told", "served meanwhile", "recovered by", "after")
_SHOWN = 5


def result_line(verdict: Verdict) -> str:
    """The last line."""
    return "RESULT " + json.dumps(verdict.result)


def as_text(verdict: Verdict) -> str:
    """A block per fault, and what is to be said against it."""
    lines = []
    for case in verdict.cases:
        lines.append(f"\n{case.name}: {case.what}")
        lines += [f"  {title:16} {text}" for title, text in zip(_HEADER[1:], _cells(case)[1:], strict=True)]
        lines += [f"  {complaint}" for complaint in _complaints(case)]
    lines += [f"\nbetween faults: {_served(verdict.between)}", *(f"  {one}" for one in _complaints(verdict.between))]
    lines += [f"  lost: {one}" for one in _lost(verdict)]
    return "\n".join([*lines, f"{verdict.judged:,} rows served as fresh or stale were compared with the raw files"])


def as_markdown(verdict: Verdict, page: str) -> str:
    """The page with this drill's table in place of the one it has."""
    rows = [_HEADER, tuple("---" for _ in _HEADER), *(_cells(case) for case in verdict.cases)]
    table = "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in row) + " |" for row in rows)
    against = [f"- {case.name}: {one}" for case in (*verdict.cases, verdict.between) for one in _complaints(case)]
    against += [f"- lost: {one}" for one in _lost(verdict)]
    said = "\n\nWhat is to be said against it:\n\n" + "\n".join(against) if against else ""
    before, _, rest = page.partition(_BEGIN)
    after = rest.partition(_END)[2]
    compared = f"{verdict.judged:,} rows served as fresh or stale were compared with the raw files."
    return f"{before}{_BEGIN}\n\n{table}{said}\n\n{compared}\n\n`{result_line(verdict)}`\n\n{_END}{after}"


def _lost(verdict: Verdict) -> list[str]:
    return ["not compared: the drill ended early"] if verdict.lost is None else verdict.lost[:_SHOWN]


def _cells(case: Case) -> tuple[str, ...]:
    if case.not_injected:
        return (case.name, f"not drilled: {case.not_injected}", "", "", "", "", "")
    return (
        case.name,
        case.by or "**nothing**",
        _length(case.detected - case.injected) if case.detected else "-",
        _told(case),
        _served(case),
        "; ".join(f"`{command}`" for command in case.commands) or "itself",
        _length(case.over - case.healed) if case.over and case.healed and case.is_resolved else "**not**",
    )


def _told(case: Case) -> str:
    counted = Counter((one.receiver, one.kind, one.status) for one in case.told)
    return (
        "; ".join(
            f"{receiver}: {kind} {status}" + (f" {count} times" if count > 1 else "")
            for (receiver, kind, status), count in counted.items()
        )
        or "nobody"
    )


def _served(case: Case) -> str:
    counts = [f"{count:,} {name}" for name, count in case.answers.most_common()]
    if case.incomplete:
        counts.append(f"of these {case.incomplete:,} without rows that were held back")
    if case.wrong:
        counts.append(f"**{len(case.wrong):,} wrong**")
    return ", ".join(counts) or "nothing"


def _complaints(case: Case) -> list[str]:
    found = [f"still wrong: {one}" for one in case.left[:_SHOWN]]
    found += [f"wrongly routed: {one}" for one in case.misrouted[:_SHOWN]]
    found += [f"served wrong: {one}" for one in case.wrong[:_SHOWN]]
    more = len(case.wrong) - _SHOWN
    return [*found, f"and {more:,} more rows served wrong"] if more > 0 else found


def _length(length: timedelta) -> str:
    minutes = round(length / timedelta(minutes=1))
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
