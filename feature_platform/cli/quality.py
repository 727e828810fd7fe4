"""`feature-platform quality`: what a view's features look like, batch by batch, and what checks said of them.

Rule: nothing is computed and no row is read: it shows what the ledger keeps, of a bounded number of batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import click

from feature_platform.cli.output import json_option, print_json, print_table
from feature_platform.cli.quality_texts import last_told, marks, sparkline, trend_of
from feature_platform.declaration import load_registry, tested_columns
from feature_platform.domain.feature_view import Column, FeatureView
from feature_platform.domain.profile import QUANTILES
from feature_platform.errors import UnknownNameError, chosen_from
from feature_platform.quality import (
    BatchInHistory,
    drift_text,
    history_of,
    known_checks,
    missing_text,
    number,
    range_text,
    said_of,
    value_of,
    verdict,
)
from feature_platform.settings import Settings

_SHOWN_QUANTILES = (0.05, 0.5, 0.95)


@click.command()
@click.argument("view")
@click.option("--feature", help="A table of this feature, one line per batch.")
@click.option("--check", help="What this check said, one line per batch.")
@click.option("--last", type=click.IntRange(min=1, max=1000), default=30, show_default=True, help="How many batches.")
@json_option
def quality(view: str, feature: str | None, check: str | None, last: int, *, as_json: bool) -> None:
    """What the features of VIEW look like, batch by batch, and what checks said of them.

    Of each partition the last attempt counts, also one that failed and was not published. Without an option: one line
    per feature, of the newest batch, with a trend over the last ones (oldest left), and the checks that did not pass.

    \b
    feature-platform quality carrier_delays
    feature-platform quality carrier_delays --feature dep_delay_mean_7d
    feature-platform quality carrier_delays --check batch_volume --last 90
    feature-platform quality carrier_delays --feature dep_delay_mean_7d --json | jq '.batches[].features[].mean'

    Drift is the distance from earlier batches, in the unit of its tolerance; docs/reference/quality.md says which. "-"
    is what does not exist or was not judged.
    """  # noqa: D301 - click's mark is the character
    from feature_platform.ledger import Ledger  # psycopg2

    settings = Settings.from_env()
    declared = load_registry(settings.manifest_path).view(view)
    if feature is not None and feature not in declared.feature_names:
        raise UnknownNameError(
            f"{declared.key} has no feature {feature!r}", allowed=chosen_from(declared.feature_names)
        )
    tested = tested_columns(settings.manifest_path, declared.unique_id)
    with Ledger.connect(settings.ledger_url) as ledger:
        ids = ledger.last_attempts(declared.key, last=last)
        records = ledger.histories(ids)
        history = history_of(
            declared, (records[one] for one in ids), ledger.profiles(ids), ledger.checks(*ids), tested=tested
        )
    if check is not None and check not in (known := known_checks(declared, history, tested=tested)):
        raise UnknownNameError(f"{declared.key} has no check {check!r}", allowed=chosen_from(known))
    if as_json:
        print_json(_plain(declared, history, feature, check))
        return
    click.echo(_headline(declared, history))
    if not history:
        return
    if feature is not None:
        _print_feature(next(one for one in declared.features if one.name == feature), history)
    if check is not None:
        _print_check(check, history)
    if feature is None and check is None:
        _print_view(declared, history)


def _plain(
    view: FeatureView, history: Sequence[BatchInHistory], feature: str | None, check: str | None
) -> dict[str, Any]:
    """Documented in docs/reference/quality.md."""
    batches = [one.to_json() for one in history]
    for one in batches:
        one["features"] = {name: found for name, found in one["features"].items() if feature in (None, name)}
        one["checks"] = [found for found in one["checks"] if check in (None, found["check"])]
    return {"view": view.key, "owner": view.owner.email, "quantiles_at": QUANTILES, "batches": batches}


def _headline(view: FeatureView, history: Sequence[BatchInHistory]) -> str:
    if not history:
        return f"{view.key} has no batch yet\n  next: feature-platform backfill {view.key} --from … --to …"
    keys = [one.record.batch.partition.key for one in history]
    rows = [one.profile.row_count for one in history]
    unpublished = [one for one in history if one.record.state not in ("published", "retired")]
    states = ", ".join(f"{one.record.batch.partition.key} {one.record.state}" for one in unpublished[-5:])
    more = f"\n  not published: {len(unpublished)} ({'… ' if unpublished[5:] else ''}{states})" if unpublished else ""
    span = f"partition {keys[0]}" if len(keys) == 1 else f"{len(keys)} partitions, {keys[0]} to {keys[-1]}"
    return f"{view.key}: {span}; rows {sparkline(rows)} {rows[-1]:,}{more}"


def _print_view(view: FeatureView, history: Sequence[BatchInHistory]) -> None:
    print_table(
        ("feature", "no value", "value", "5 % to 95 %", "trend", "drift", "warned", "failed"),
        (_feature_row(column, history) for column in view.features),
    )
    said: dict[str, list[str]] = {}
    for found in (found for one in history for found in one.checks):
        said.setdefault(found.check, []).append(verdict(found))
    told = sorted(name for name, verdicts in said.items() if {*verdicts} & {"warned", "failed"})
    if told:
        print_table(
            ("check", "w warned, F failed", "warned", "failed", "the last time"),
            (
                (name, marks(name, history), *(str(said[name].count(word) or "") for word in ("warned", "failed")),
                 last_told(name, history))
                for name in told
            ),
        )  # fmt: skip
    passed = len(said) - len(told)
    click.echo(f"{passed} check{'s' * (passed != 1)} never warned or failed" if said else "no check has spoken yet")
    click.echo(f"next: feature-platform quality {view.key} --feature NAME, or --check NAME: one line per batch")


def _feature_row(column: Column, history: Sequence[BatchInHistory]) -> tuple[str, ...]:
    of_batches = [one.features[column.name] for one in history]
    newest = of_batches[-1]
    told = [found for one in of_batches for found in one.told]
    return (
        column.name,
        missing_text(newest),
        value_of(newest.profile, column.type),
        range_text(newest.profile),
        sparkline([trend_of(one.profile, column.type) for one in of_batches]),
        drift_text(newest),
        str(sum(not one.blocking for one in told) or ""),
        str(sum(one.blocking for one in told) or ""),
    )


def _print_feature(column: Column, history: Sequence[BatchInHistory]) -> None:
    of_batches = [(one, one.features[column.name]) for one in history]
    has_quantiles = any(found.profile and found.profile.quantiles for _, found in of_batches)
    between = tuple(f"{point:.0%}".replace("%", " %") for point in _SHOWN_QUANTILES) if has_quantiles else ()
    click.echo(f"{column.name} ({column.type.value.lower()}): {column.description}".rstrip(": "))

    def rows() -> Iterator[tuple[str, ...]]:
        for batch, found in of_batches:
            profile = found.profile
            points = dict(zip(QUANTILES, profile.quantiles, strict=False)) if profile else {}
            yield (
                batch.record.batch.partition.key,
                batch.record.state,
                f"{batch.profile.row_count:,}",
                missing_text(found),
                value_of(profile, column.type),
                number(profile.minimum if profile else None),
                *(number(points.get(point)) for point in (_SHOWN_QUANTILES if between else ())),
                number(profile.maximum if profile else None),
                drift_text(found),
                ", ".join(f"{one.check} {'failed' if one.blocking else 'warned'}" for one in found.told),
            )

    titles = ("partition", "state", "rows", "no value", "value", "min", *between, "max", "drift", "checks")
    print_table(titles, rows())


def _print_check(check: str, history: Sequence[BatchInHistory]) -> None:
    print_table(
        ("partition", "state", "rows", "verdict", check),
        (
            (
                one.record.batch.partition.key,
                one.record.state,
                f"{one.profile.row_count:,}",
                verdict(found) if (found := next((c for c in one.checks if c.check == check), None)) else "-",
                said_of(found) if found else "it did not speak",
            )
            for one in history
        ),
    )
