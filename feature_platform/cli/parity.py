"""`feature-platform parity`: is what the online store holds what the ledger says?"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from feature_platform.cli.output import json_option, print_json, print_table, progress_bar
from feature_platform.declaration import load_registry
from feature_platform.settings import Settings

if TYPE_CHECKING:
    from feature_platform.sync.parity import ParityReport

EXIT_DIFFERS = 1
EXIT_LATE = 3
"""Not 2, by which click says that a command was called wrongly."""

_SAMPLE = 1_000
_INSTANT = "%Y-%m-%d %H:%M:%S UTC"


@click.command()
@click.argument("views", nargs=-1)
@click.option(
    "--sample",
    type=click.IntRange(min=1),
    default=_SAMPLE,
    show_default=True,
    help="About how many entities to compare per view, chosen by a hash of their key.",
)
@click.option("--full", is_flag=True, help="Compare every entity.")
@click.option("--seed", help="Choose the sample of an earlier run again. [default: another sample each time]")
@click.option("--store", help="Name of the online store in the ledger (default: FEATURE_PLATFORM_STORE).")
@click.option("--repair", "repairs", is_flag=True, help="Bring the store back to what the ledger derives.")
@json_option
@click.pass_context
def parity(
    context: click.Context,
    views: tuple[str, ...],
    *,
    sample: int,
    full: bool,
    seed: str | None,
    store: str | None,
    repairs: bool,
    as_json: bool,
) -> None:
    """Compare entities of VIEWS (default: all served) in the online store with what the ledger derives for them.

    Per entity: "match", "mismatch" (another row), "missing" (a living row is not there), "extra" (a row that no batch
    has) or "expired" (past its ttl; no difference). Of what differs, the cause is named where it can be proven: late
    sync, store lost data, lost write, code change. Anything else is unknown, and something else writes to the store.

    Exit code 0: in parity; 1: something differs; 3: all that differs is late, and the next sync settles it.
    With --repair, what is said is true after the repair.
    """
    from feature_platform.sync.parity import check_parity, repair  # imports DuckDB and pyarrow

    settings = Settings.from_env() if store is None else Settings.from_env().at_store(store)
    registry = load_registry(settings.manifest_path)
    reports: list[ParityReport] = []
    for view in registry.views_named(views) if views else registry.served_views:
        with progress_bar(view.key) as progress:
            report = check_parity(
                settings,
                registry,
                view,
                sample=None if full else sample,
                seed=seed,
                progress=progress,
            )
        if repairs and report.differing:
            if not as_json:
                _print_report(report)
                click.echo(f"Repairing {view.key} …", err=True)
            report = repair(settings, registry, report, run_id=f"cli-{uuid.uuid4()}")
        reports.append(report)
        if not as_json:
            _print_report(report)
    if as_json:
        print_json([_plain(report) for report in reports])
    else:
        _print_end(reports, repaired=repairs)
    context.exit(_exit_code(reports))


def _exit_code(reports: Iterable[ParityReport]) -> int:
    differing = [report for report in reports if report.differing]
    if not differing:
        return 0
    return EXIT_LATE if all(report.only_late for report in differing) else EXIT_DIFFERS


def _print_report(report: ParityReport) -> None:
    outcomes = {kind.value: f"{count:,}" for kind, count in report.outcomes.items()}
    places = report.places
    compared = f"{report.compared - report.pushed:,} entities" + (
        f" and {report.pushed:,} pushed rows" if report.pushed else ""
    )
    sampled = "all" if report.fraction >= 1 else f"{report.fraction:.2%}"
    click.echo(
        f"{report.view} in store {report.store}: {compared} compared ({sampled} of about"
        f" {report.entities:,}, seed {report.seed}); store at {places.store}, ledger at {places.head}"
    )
    kinds = ("match", "mismatch", "missing", "extra", "expired")
    print_table(
        (*kinds, "causes"), [[*(outcomes.get(kind, "0") for kind in kinds), causes_in_words(report.causes) or "-"]]
    )
    if report.examples:
        print_table(
            ("entity", "is", "cause", "because", "stored: true as of", "expected"),
            [
                (
                    one.row,
                    one.outcome.value,
                    one.cause.value,
                    one.why,
                    one.stored_event.strftime(_INSTANT) if one.stored_event else "-",
                    one.expected_event.strftime(_INSTANT) if one.expected_event else "none",
                )
                for one in report.examples
            ],
        )


def causes_in_words(causes: Any) -> str:
    """Counts by cause, most frequent first.

    >>> causes_in_words({"late sync": 2, "lost write": 30})
    'lost write 30, late sync 2'
    """
    ordered = sorted(causes.items(), key=lambda item: -item[1])
    return ", ".join(f"{cause} {count:,}" for cause, count in ordered if count)


def _print_end(reports: Iterable[ParityReport], *, repaired: bool) -> None:
    differing = [report for report in reports if report.differing]
    if not differing:
        click.secho("The online store is in parity with the ledger.", fg="green")
        return
    names = " ".join(report.view for report in differing)
    if repaired:
        click.echo(f"Still differing: {names}. Values beyond the sample need `--full --repair`.", err=True)
    elif all(report.only_late for report in differing):
        click.echo(f"A sync settles it: feature-platform sync {names}", err=True)
    else:
        click.echo(f"To repair: feature-platform parity {names} --full --repair", err=True)


def _plain(report: ParityReport) -> dict[str, Any]:
    places = report.places
    return {
        "view": report.view,
        "store": report.store,
        "store_position": places.store,
        "synced_position": places.synced,
        "ledger_position": places.head,
        "entities": report.entities,
        "compared": report.compared,
        "fraction": report.fraction,
        "seed": report.seed,
        "outcomes": {kind.value: count for kind, count in report.outcomes.items() if count},
        "causes": {cause.value: count for cause, count in report.causes.items() if count},
        "pushed_outcomes": {kind.value: count for kind, count in report.pushed_outcomes.items() if count},
        "pushed_causes": {cause.value: count for cause, count in report.pushed_causes.items() if count},
        "examples": report.examples,
        "seconds": report.seconds,
    }
