"""How explanations and differences of training sets read in a terminal."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from feature_platform.cli.output import print_table
from feature_platform.domain.durations import format_duration

if TYPE_CHECKING:
    from feature_platform.offline.sets.causes import ViewCauses
    from feature_platform.offline.sets.comparing import SetsDiff
    from feature_platform.offline.sets.explaining import ViewExplanation

_LONGEST = 20


def print_view(view: ViewExplanation) -> None:
    """Print why a row has its values of one view."""
    click.echo(f"\n{view.view}: {view.basis}; ttl {format_duration(view.ttl) if view.ttl else 'none'}")
    for column, value in view.values.items():
        click.echo(f"  {column} = {text_of(value)}")
    if not view.agrees:
        click.echo("  the lake would answer otherwise now; `feature-platform training-set reproduce` says why")
    if any(value is None for value in view.keys.values()):
        click.echo("  its key is NULL, which no row has")
    elif not view.rows:
        click.echo("  the lake has no row of this key near that time")
    else:
        print_table(
            ("event_timestamp", "fate", "why", "values", "batch", "partition", "read up to", "computed", "published",
             "online"),
            (
                (
                    text_of(one.event_timestamp), one.fate.value, one.why,
                    "\n".join(f"{name}={text_of(value)}" for name, value in one.values.items()),
                    str(one.batch_seq), one.partition, text_of(one.source_watermark), text_of(one.computed_at),
                    text_of(one.published_at), text_of(one.online_at),
                )
                for one in view.rows
            ),
        )  # fmt: skip


def print_diff(found: SetsDiff) -> None:
    """Print which rows and features differ, and why."""
    if found.identical:
        click.echo(f"{found.a} and {found.b} are the same bytes")
        return
    by = f"matched by {', '.join(found.matched_by)}" if found.matched_by else "with the same labels, matched by place"
    click.echo(f"{found.matched} rows of {found.a} and {found.b} {by}")
    for count, where in ((found.only_in_a, found.a), (found.only_in_b, found.b)):
        if count:
            click.echo(f"{count} rows only in {where}")
    for names, where in ((found.features_only_in_a, found.a), (found.features_only_in_b, found.b)):
        if names:
            click.echo(f"features only in {where}: {', '.join(names)}")
    changed = [column for column in found.columns if column.changed]
    if changed:
        print_table(
            ("column", "view", "changed", "no value before", "no value now", "first rows: before, now"),
            (
                (
                    column.name_b,
                    column.view or "(labels)",
                    f"{column.changed} ({column.changed / found.matched:.1%})",
                    str(column.gained),
                    str(column.lost),
                    "\n".join(f"{one.row_b}: {text_of(one.a)}, {text_of(one.b)}" for one in column.examples),
                )
                for column in changed
            ),
        )
    else:
        click.echo("no value of a row that both have differs")
    if found.causes:
        print_table(
            ("what is not the same", found.a, found.b),
            ((cause.what, _short(cause.a), _short(cause.b)) for cause in found.causes),
        )
    for view in found.views:
        _print_causes(view, found)
    if features := [column for column in changed if column.view]:
        worst = max(features, key=lambda column: column.changed)
        row = worst.examples[0].row_b
        click.echo(f"next: feature-platform training-set explain {found.b} --row {row} --feature {worst.name_b}")


def _print_causes(view: ViewCauses, found: SetsDiff) -> None:
    parts = {
        f"{view.replaced} partitions were recomputed": view.replaced,
        f"{view.other_code} of them by other code": view.other_code,
        f"{view.only_in_a} are read by {found.a} alone": view.only_in_a,
        f"{view.only_in_b} are read by {found.b} alone": view.only_in_b,
    }
    click.echo(f"{view.view}: " + ", ".join(text for text, count in parts.items() if count))
    print_table(
        ("partition", f"batch in {found.a}", f"batch in {found.b}", "code", "published"),
        (
            (
                one.partition,
                text_of(one.seq_a) if one.seq_a else "-",
                text_of(one.seq_b) if one.seq_b else "-",
                "same" if one.code_a == one.code_b else f"{_short(one.code_a)} → {_short(one.code_b)}",
                text_of(one.published_b or one.published_a),
            )
            for one in view.examples
        ),
    )


def _short(value: Any) -> str:
    if isinstance(value, timedelta):
        return format_duration(value)
    text = "-" if value is None else str(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def text_of(value: Any) -> str:
    """A value for people."""
    if isinstance(value, datetime):
        return value.isoformat(" ", "microseconds" if value.microsecond else "seconds").removesuffix("+00:00")
    if isinstance(value, float):
        return f"{value:.6g}"
    return "NULL" if value is None else str(value)
