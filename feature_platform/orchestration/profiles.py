"""What the UI shows of a batch's values: two numbers to plot, and one table of its features.

Rule: a fixed number of entries and lines however many features there are; all of it is in the ledger, and
`feature-platform quality` shows it.
"""

from __future__ import annotations

from typing import Any

import dagster as dg

from feature_platform.domain.feature_view import FeatureView
from feature_platform.quality import BatchInHistory, FeatureInBatch, drift_text, missing_text, range_text, value_of

SHOWN_FEATURES = 30


def profile_metadata(view: FeatureView, batch: BatchInHistory) -> dict[str, Any]:
    """Metadata of one batch; empty if no profile of it is kept."""
    entries: dict[str, Any] = {}
    for name, numbers in (
        ("null_rate", {name: one.null_rate for name, one in batch.features.items()}),
        ("drift", {name: one.drift for name, one in batch.features.items()}),
    ):
        known = {feature: value for feature, value in numbers.items() if value is not None}
        if known:
            worst = max(known, key=lambda feature: known[feature])
            # a number on its own is what the UI plots, so the feature's name is beside it
            entries[f"worst_{name}"] = float(known[worst])
            if known[worst] > 0:
                entries[f"worst_{name}_of"] = worst
    if any(one.profile for one in batch.features.values()):
        entries["features"] = dg.MetadataValue.md(_table(view, batch))
    return entries


def _table(view: FeatureView, batch: BatchInHistory) -> str:
    """The features as Markdown, in declared order; of very many, those that were told and those that drifted most."""
    chosen = sorted(view.features, key=lambda column: _order(batch.features[column.name]))[:SHOWN_FEATURES]
    lines = ["| feature | no value | value | 5 % to 95 % | drift | checks |", "|---|---|---|---|---|---|"]
    for column in view.features:
        if column not in chosen:
            continue
        found = batch.features[column.name]
        told = ", ".join(f"{one.check} {'failed' if one.blocking else 'warned'}" for one in found.told)
        cells = (
            f"`{column.name}`",
            missing_text(found),
            value_of(found.profile, column.type).replace("|", "\\|"),
            range_text(found.profile),
            drift_text(found),
            told,
        )
        lines.append(f"| {' | '.join(cells)} |")
    if more := len(view.features) - len(chosen):
        lines += ["", f"and {more} more: `feature-platform quality {view.key} --last 1`"]
    return "\n".join(lines)


def _order(found: FeatureInBatch) -> tuple[bool, float]:
    return (not found.told, -(found.drift or 0.0))
