"""`feature-platform training-set`: features joined to labels, exported or kept, made again, compared, explained."""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from feature_platform.cli.offline import open_store
from feature_platform.cli.output import json_option, print_json, print_table
from feature_platform.cli.params import Instant
from feature_platform.cli.training_set_texts import print_diff, print_view, text_of
from feature_platform.domain.number_ranges import format_ranges
from feature_platform.errors import RequestError

if TYPE_CHECKING:
    from feature_platform.offline import FeatureStore, HistoricalFeatures, TrainingSet

_NOT_REPRODUCED = 1
_HASH_DIGITS = 16


@click.group("training-set", context_settings={"help_option_names": ["-h", "--help"]})
def training_set() -> None:
    """Features joined to labels, as of each label's time.

    A kept set is called NAME (its newest version) or NAME@3. It never changes, and what it was made of stays in the
    lake until it is released.
    """


@training_set.command("create")
@click.argument("service_or_refs", nargs=-1, required=True)
@click.option(
    "--labels",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Parquet file with key columns and each label's time. Without it SERVICE_OR_REFS is a declared training set.",
)
@click.option("--name", help="Keep it under this name (default: the service's, unless --out is given).")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Parquet file to write.")
@click.option(
    "--mode",
    help="auto: served where the view was live at the label's time, modelled before (default). served: what the online"
    " store held. modelled: what would have been seen, had the view been live.",
)
@click.option("--store", help="The online store that served and auto speak of (default: that of the settings).")
@click.option(
    "--provenance", is_flag=True, help="Add per view where its values come from: <view>__provenance, __batch, …"
)
@click.option(
    "--outages",
    help="as_recorded: labels in a store's outage are answered by the service's `outage` policy. never_happened: they"
    " are modelled. (default: unknown where the store is asked, else as if none had been)",
)
@click.option("--timestamp-column", help="Column of the labels' time.  [default: event_timestamp]")
@click.option("--full-feature-names", is_flag=True, help="Name columns <view>__<feature>.")
@click.option("--at-sequence", type=int, help="Answer as of this ledger sequence (default: now).")
@json_option
def create(
    *,
    service_or_refs: tuple[str, ...],
    labels: Path | None,
    name: str | None,
    out: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Make a training set for SERVICE_OR_REFS: a feature service, or references like carrier_delays:flights.

    Rows and columns of the labels come first and unchanged, one column per feature follows. With --out alone the file
    is written and nothing else; otherwise the set is kept, with its labels and a manifest. Without --labels the next
    version of a training set is made that an exposure declares, e.g. departure_delay_flights.
    """
    asked = service_or_refs[0] if len(service_or_refs) == 1 else service_or_refs
    given = {key: value for key, value in options.items() if value not in (None, False)}
    store = open_store()
    if labels is None:
        _create_declared(store, service_or_refs, given, name=name, out=out, as_json=as_json)
        return
    if out is not None and name is None:
        with store.get_historical_features(labels, asked, **given) as features:
            try:
                features.to_parquet(out)
            except OSError as error:
                raise RequestError(f"cannot write {out}", found=str(error)) from error
            _show_export(features, out, as_json=as_json)
        return
    with _writing():
        kept = store.create_training_set(labels, asked, name=name, progress=_progress, **given)
        if out is not None:
            _copy(kept, out)
    _show_kept(kept, as_json=as_json)


def _create_declared(
    store: FeatureStore, asked: Sequence[str], given: Mapping[str, Any], *, name: str | None, out: Path | None,
    as_json: bool,
) -> None:  # fmt: skip
    if len(asked) > 1 or given or name:
        raise click.UsageError("give --labels; only a declared training set, named alone, has labels of its own")
    with _writing():
        kept = store.create_declared_training_set(asked[0], progress=_progress)
        if out is not None:
            _copy(kept, out)
    _show_kept(kept, as_json=as_json)


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RequestError("cannot write the training set", found=str(error)) from error


def _show_kept(kept: TrainingSet, *, as_json: bool) -> None:
    if as_json:
        print_json(_facts(kept))
        return
    _print_features(kept)
    click.echo(f"kept as {kept.key}: {kept.manifest.row_count} rows, {kept.path}")
    click.echo(f"{kept.manifest.mode}, as of ledger sequence {kept.manifest.at_sequence}")
    _tell_excluded(kept.manifest.excluded)


@training_set.command("list")
@click.argument("name", required=False)
@json_option
def list_sets(name: str | None, *, as_json: bool) -> None:
    """Kept training sets, newest first; all, or all versions of NAME."""
    found = open_store().training_sets(name)
    if as_json:
        print_json([_facts(one) for one in found])
        return
    if not found:
        click.echo("none is kept; `feature-platform training-set create --help`")
        return
    print_table(
        ("set", "rows", "mode", "sequence", "service or features", "created", "by", "state"),
        (
            (
                one.key,
                str(one.manifest.row_count),
                one.manifest.mode,
                str(one.manifest.at_sequence),
                one.manifest.service.name if one.manifest.service else f"{len(one.manifest.features)} features",
                _instant(one.manifest.created_at),
                one.manifest.created_by,
                "released" if one.is_released else "kept",
            )
            for one in found
        ),
    )


@training_set.command("show")
@click.argument("name")
@json_option
def show(name: str, *, as_json: bool) -> None:
    """What a kept set was made of. --json prints the whole manifest."""
    kept = open_store().training_set(name)
    if as_json:
        print_json(_facts(kept) | {"manifest": kept.record.manifest})
        return
    manifest = kept.manifest
    click.echo(f"{kept.key}: {manifest.row_count} rows, {len(manifest.label_columns) + len(manifest.features)} columns")
    asked = f"service {manifest.service.name}" if manifest.service else ", ".join(manifest.references)
    lines = {
        "for": asked,
        "arguments": ", ".join(f"{key}={value}" for key, value in manifest.arguments.items() if value is not None),
        "as of sequence": str(manifest.at_sequence),
        "created": f"{_instant(manifest.created_at)} by {manifest.created_by}",
        "made with": ", ".join(f"{what} {version}" for what, version in manifest.versions.items()),
        "labels": f"sha256 {manifest.labels.sha256[:_HASH_DIGITS]}…, {', '.join(manifest.label_columns)}",
        "data": f"sha256 {manifest.data.sha256[:_HASH_DIGITS]}…, content {manifest.data.content_hash[:_HASH_DIGITS]}…",
        "files": kept.directory,
    }
    if manifest.excluded:
        lines["left out"] = f"{manifest.excluded} labels in an outage, as the service declares"
    if kept.is_released:
        lines["released"] = f"by {kept.record.released_by}: {kept.record.released_reason}"
    for title, text in lines.items():
        click.echo(f"  {title:<14} {text}")
    print_table(
        ("view", "code version", "batches", "their numbers"),
        (
            (used.view, used.declared_code_version[:_HASH_DIGITS], str(used.count), _some_ranges(used.seqs))
            for used in manifest.batches
        ),
    )
    _print_features(kept)


@training_set.command("reproduce")
@click.argument("name")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Leave the new file here.")
@json_option
@click.pass_context
def reproduce(context: click.Context, name: str, out: Path | None, *, as_json: bool) -> None:
    """Make a kept set again from its labels and the lake, and compare by hash.

    Exit code 1 unless the rows are the same.
    """
    from feature_platform.offline.sets import Verdict  # see open_store

    try:
        made = open_store().reproduce_training_set(name, out, progress=_progress)
    except OSError as error:
        raise RequestError(f"cannot write {out or 'the set'}", found=str(error)) from error
    if as_json:
        print_json(made)
    else:
        says = {
            Verdict.IDENTICAL: "the same bytes",
            Verdict.SAME_CONTENT: "the same rows in other bytes",
            Verdict.DIFFERENT: "other rows",
            Verdict.IMPOSSIBLE: "it cannot be made again",
        }
        click.echo(f"{made.key}: {says[made.verdict]}")
        click.echo(f"  file sha256    kept {made.expected_sha256}\n                 now  {made.sha256 or '-'}")
        click.echo(
            f"  content hash   kept {made.expected_content_hash}\n                 now  {made.content_hash or '-'}"
        )
        for reason in made.reasons:
            click.echo(f"- {reason}")
        if made.path:
            click.echo(f"written to {made.path}")
    if made.verdict not in (Verdict.IDENTICAL, Verdict.SAME_CONTENT):
        context.exit(_NOT_REPRODUCED)


@training_set.command("diff")
@click.argument("a")
@click.argument("b")
@json_option
def diff(a: str, b: str, *, as_json: bool) -> None:
    """Which rows and features of two kept sets differ, and why."""
    found = open_store().diff_training_sets(a, b)
    if as_json:
        print_json(found)
    else:
        print_diff(found)


@training_set.command("explain")
@click.argument("name")
@click.option("--row", type=click.IntRange(min=0), help="Number of the row, from 0.")
@click.option(
    "--key", "keys", multiple=True, metavar="COLUMN=VALUE", help="Or values of the labels' columns; repeatable."
)
@click.option("--at", type=Instant(), help="And the label's time: 2026-03-05T07:00:00+00:00.")
@click.option("--feature", "features", multiple=True, help="Only this column, view or view:feature; repeatable.")
@json_option
def explain(
    name: str, *, row: int | None, keys: tuple[str, ...], at: datetime | None, features: tuple[str, ...], as_json: bool
) -> None:
    """Why one row of a kept set holds its values: which batch, which clocks, why this row and not another.

    The row is given by its number, or by its key and time.
    """
    found = open_store().explain_training_set(name, row=row, where=_pairs(keys), time=at, features=features)
    if as_json:
        print_json(found)
        return
    label = ", ".join(f"{column}={text_of(value)}" for column, value in found.label.items())
    click.echo(f"{found.key}, row {found.row}: {label}")
    if found.matching > 1:
        click.echo(f"({found.matching} rows were asked for; this is the first)")
    for view in found.views:
        print_view(view)


@training_set.command("release")
@click.argument("name")
@click.option("--reason", required=True, help="Why, for the record.")
@json_option
def release(name: str, reason: str, *, as_json: bool) -> None:
    """Give a kept set up: retention may remove the batches it needs. The record and the files stay.

    NAME alone will do if it has one version.
    """
    store = open_store()
    done = store.release_training_set(name, reason=reason)
    kept = store.training_set(name)
    if as_json:
        print_json({"key": kept.key, "released_now": done, "directory": kept.directory})
    else:
        click.echo(f"{kept.key} {'is released' if done else 'was released before'}; its files stay in {kept.directory}")


def _pairs(keys: Sequence[str]) -> dict[str, str]:
    if wrong := [key for key in keys if "=" not in key]:
        raise click.BadParameter(f"{wrong[0]!r} is not COLUMN=VALUE", param_hint="--key")
    return {column: value for column, _, value in (key.partition("=") for key in keys)}


def _progress(line: str) -> None:
    """To stderr, so that `--json` stays JSON."""
    if sys.stderr.isatty():
        click.echo(f"… {line}", err=True)


def _facts(kept: TrainingSet) -> dict[str, Any]:
    manifest = kept.manifest
    return {
        "key": kept.key,
        "path": kept.path,
        "rows": manifest.row_count,
        "excluded": manifest.excluded,
        "columns": len(manifest.label_columns) + len(manifest.features),
        "mode": manifest.mode,
        "ledger_sequence": manifest.at_sequence,
        "service": manifest.service.name if manifest.service else None,
        "null_shares": {one.name: one.null_share for one in manifest.features},
        "features": {one.name: f"{one.view}:{one.feature}" for one in manifest.features},
        "batches": {used.view: used.count for used in manifest.batches},
        "sha256": manifest.data.sha256,
        "content_hash": manifest.data.content_hash,
        "created_at": manifest.created_at,
        "created_by": manifest.created_by,
        "released_at": kept.record.released_at,
    }


def _print_features(kept: TrainingSet) -> None:
    types = {column.name: column.type.lower() for column in kept.manifest.data.columns}
    print_table(
        ("feature", "view", "type", "without a value"),
        ((one.name, one.view, types[one.name], f"{one.null_share:.1%}") for one in kept.manifest.features),
    )


def _show_export(features: HistoricalFeatures, out: Path, *, as_json: bool) -> None:
    facts, shares = features.facts, features.null_shares()
    if as_json:
        print_json(
            {
                "out": str(out),
                "rows": facts.row_count,
                "excluded": facts.excluded,
                "columns": len(facts.label_columns) + len(facts.features),
                "mode": facts.mode.value,
                "store": facts.store,
                "provenance": {key: dataclasses.asdict(counts) for key, counts in facts.provenance.items()},
                "ledger_sequence": facts.ledger_sequence,
                "null_shares": shares,
                "features": {column.name: f"{column.view}:{column.feature}" for column in facts.features},
                "batches": facts.batches,
                "plans": {key: [plan.value for plan in plans] for key, plans in facts.plans.items()},
            }
        )
        return
    print_table(
        ("feature", "view", "without a value"),
        [(column.name, column.view, f"{shares[column.name]:.1%}") for column in facts.features],
    )
    click.echo(f"{out}: {facts.row_count} rows x {len(facts.label_columns) + len(facts.features)} columns")
    click.echo(f"{facts.mode.value}, as of ledger sequence {facts.ledger_sequence}")
    for key, counts in facts.provenance.items():
        click.echo(f"{key}: {counts}")
    _tell_excluded(facts.excluded)
    click.echo("not kept: with --name it is, and can be made again and explained")


def _tell_excluded(count: int) -> None:
    if count:
        click.echo(f"left out: {count} labels in an outage, as the service declares")


def _copy(kept: TrainingSet, out: Path) -> None:
    """The file appears under its name when it is complete."""
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        with kept.local_data() as path:
            shutil.copyfile(path, unfinished)
        unfinished.replace(out)
    finally:
        unfinished.unlink(missing_ok=True)


def _some_ranges(ranges: Sequence[tuple[int, int]], shown: int = 4) -> str:
    more = len(ranges) - shown
    return format_ranges(ranges[:shown]) + (f", and {more} more" if more > 0 else "")


def _instant(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M:%S")
