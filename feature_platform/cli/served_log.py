"""`feature-platform drain` and `feature-platform skew`: what was served, brought into the lake and compared with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING

import click

from feature_platform.cli.offline import open_store
from feature_platform.cli.output import counted, json_option, print_json, print_table, progress_bar
from feature_platform.cli.params import Instant
from feature_platform.cli.training_set_texts import text_of
from feature_platform.settings import Settings

if TYPE_CHECKING:
    from feature_platform.served_log import SkewReport
    from feature_platform.served_log.skew import Account


@click.command()
@json_option
def drain(*, as_json: bool) -> None:
    """Bring the requests that clients have logged from the online stores into the lake.

    The Dagster asset serving/served_features does the same every quarter of an hour.
    """
    from feature_platform.served_log import drain_stores  # loads DuckDB and pyarrow

    with progress_bar("draining") as progress:
        results = drain_stores(Settings.from_env(), progress=progress)
    if as_json:
        print_json(results)
        return
    for result in results:
        click.echo(f"{counted(result.entries, 'request')} of store {result.store}: {result.rows} rows")
        for count, what in (
            (result.lost, "were removed by the stream's cap before they were drained"),
            (result.dropped, "were dropped by clients"),
            (result.unreadable, "could not be read"),
        ):
            if count:
                click.echo(f"{count} {what}")


@click.command()
@click.argument("request_id", required=False)
@click.option("--since", type=Instant(), help="Requests from this instant on.")
@click.option("--until", type=Instant(), help="Requests before this instant.")
@json_option
def skew(request_id: str | None, since: datetime | None, until: datetime | None, *, as_json: bool) -> None:
    """Compare what was served with what training would see, and say where they part.

    REQUEST_ID: one request; without it all that were logged, or those between --since and --until.
    """
    from feature_platform.served_log import measure_skew  # loads DuckDB and pyarrow

    report = measure_skew(open_store(), request_id=request_id, since=since, until=until)
    if as_json:
        print_json(asdict(report) | {"has_skew": report.has_skew})
        return
    _print(report)


def _print(report: SkewReport) -> None:
    click.echo(f"{counted(report.requests, 'request')} of store {report.store}")
    print_table(
        ("view", "rows", "compared", "status", "account", "judged", "differing", "causes", "basis of the account"),
        (
            (
                view.view,
                str(view.rows),
                str(view.compared),
                ", ".join(f"{count} {status}" for status, count in view.statuses.items()),
                account.mode,
                str(account.judged),
                f"{account.differing} ({account.differing / account.judged:.1%})" if account.judged else "-",
                "\n".join(f"{count} {cause}" for cause, count in account.causes.items()),
                account.basis,
            )
            for view in report.views
            for account in view.accounts
        ),
    )
    if report.undeclared:
        click.echo(f"not declared any more, hence not compared: {', '.join(report.undeclared)}")
    for view in report.views:
        for account in view.accounts:
            if account.features:
                click.echo(f"\n{view.view}, {account.mode}")
                print_table(
                    ("feature", "differing", "request", "entity", "at", "served", account.mode, "row of", "why"),
                    _examples(account),
                )
    if not report.has_skew:
        click.secho("nothing that could be compared differs", fg="green")


def _examples(account: Account) -> Iterator[tuple[str, ...]]:
    for one in account.features:
        for place, example in enumerate(one.examples):
            yield (
                "" if place else one.feature,
                "" if place else f"{one.differing} of {account.judged}",
                example.request_id,
                example.entity,
                text_of(example.requested_at),
                text_of(example.logged),
                text_of(example.recomputed),
                text_of(example.served_event_timestamp),
                example.cause.value if example.cause else "",
            )
