"""Where the values of one view come from, as columns of a training set. Pure SQL, no connection."""

from __future__ import annotations

from typing import Final

from feature_platform.lake.sql import BATCH_ID, quote_instant
from feature_platform.lake.sql import quote_identifier as quote
from feature_platform.offline import outages, served
from feature_platform.offline.division import NEVER, Division
from feature_platform.offline.output import Origin
from feature_platform.offline.provenance import Provenance

LATE: Final = "_late_informed"
"""Column of an answer: whether the row had seen source rows that came after its event time and the declared delay."""


def origins(division: Division, *, has_moments: bool) -> tuple[Origin, ...]:
    """Provenance, event time and batch of a view's values, and whether they knew more than they should have."""
    view, answer = division.question.view.key, division.question.answer
    cases = _cases(division, has_moments=has_moments)
    provenance = Origin(
        view=view,
        suffix="provenance",
        sql=f"case {' '.join(cases)} end" if len(cases) > 1 else cases[0].removeprefix("else "),
        joins=(
            *((division.marked,) if division.marked else ()),
            *((f"{answer}_moments", f"{answer}_ambiguous") if has_moments else ()),
        ),
    )
    columns = {"event_timestamp": served.EVENT_COLUMN, "batch": BATCH_ID, "late_informed": LATE}
    return (
        provenance,
        *(Origin(view=view, suffix=suffix, sql=f"{quote(answer)}.{column}") for suffix, column in columns.items()),
    )


def _cases(division: Division, *, has_moments: bool) -> list[str]:
    """How to tell a label's provenance."""
    since, question = division.served_since, division.question
    cases = []
    if division.marked:
        meaning = Provenance.OUTAGE if division.replays else Provenance.MODELLED
        cases.append(f"when {quote(division.marked)}.{outages.IS_OUTAGE} then '{meaning}'")
    if since is None:
        return [*cases, f"else '{Provenance.MODELLED}'"]
    if since > (question.labels.oldest or NEVER):
        column = quote(question.timestamp_column)
        cases.append(f"when l.{column} < {quote_instant(since)} then '{Provenance.MODELLED}'")
    if has_moments:
        unknown, ambiguous = (quote(f"{question.answer}_{name}") for name in ("moments", "ambiguous"))
        cases.append(f"when {unknown}.is_unknown then '{Provenance.UNKNOWN}'")
        cases.append(f"when {ambiguous}.is_ambiguous then '{Provenance.SERVED_AMBIGUOUS}'")
    return [*cases, f"else '{Provenance.SERVED_EXACT}'"]
