"""`feature-platform deploy`: create and alter what the declarations ask for."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from feature_platform.cli.output import json_option, print_json
from feature_platform.declaration import ChangeKind
from feature_platform.errors import InvalidDeclarationsError
from feature_platform.settings import Settings

if TYPE_CHECKING:
    from feature_platform.materialization import DeployResult

_REFERENCE_SOURCE = "nycflights13"
_COLORS = {ChangeKind.BREAKING: "red", ChangeKind.VALUES: "yellow", ChangeKind.REMOVED: "yellow"}


@click.command()
@click.option(
    "--wait",
    type=click.IntRange(min=0),
    default=300,
    show_default=True,
    help="Seconds to wait until no run is going on.",
)
@json_option
@click.pass_context
def deploy(context: click.Context, wait: int, *, as_json: bool) -> None:
    """Create and alter what the declarations ask for: ledger, tables, staging views, serving schemas.

    Runs alone; does nothing if everything is as declared. Restart Dagster afterwards so that it loads the new manifest.
    """
    try:
        result = deploy_project(
            Settings.from_env(),
            progress=lambda line: None if as_json else click.secho(f"… {line}", dim=True, err=True),
            lock_wait=timedelta(seconds=wait),
        )
    except InvalidDeclarationsError as error:
        if not as_json:
            raise
        print_json({"deployed": False, "findings": error.findings})
        context.exit(1)
    if as_json:
        print_json(
            {
                "deployed": True,
                "actions": result.actions,
                "changes": result.changes,
                "views": list(result.registry.views),
                "manifest": result.manifest,
            }
        )
        return
    for change in result.changes:
        click.secho(f"{change.name}: {change.what}", fg=_COLORS.get(change.kind))
    views = f"{len(result.registry.views)} feature views"
    click.secho(f"deployed: {views}" if result.changed else f"nothing to change: {views} as declared", fg="green")
    if result.changed:
        click.echo("If Dagster runs, it loads this with `feature-platform up --restart`.")


def deploy_project(
    settings: Settings,
    *,
    progress: Callable[[str], None] = lambda _: None,
    lock_wait: timedelta | None = None,
) -> DeployResult:
    """Deploy; for the reference project first fix its clock and create its source tables."""
    from feature_platform.materialization import deploy as run_deploy  # imports DuckDB; dbt follows
    from feature_platform.materialization.deploy import LOCK_WAIT

    environ = _prepare_reference(settings) if reads_reference_data(settings.project) else {}
    return run_deploy(settings, environ=environ, progress=progress, lock_wait=lock_wait or LOCK_WAIT)


def reads_reference_data(project: Path) -> bool:
    """Whether the project declares the reference flights as a source (its clock decides how the project is parsed)."""
    return any(
        f"name: {_REFERENCE_SOURCE}" in path.read_text(encoding="utf-8")
        for path in sorted((project / "dbt_project" / "models").rglob("*.yml"))
    )


def _prepare_reference(settings: Settings) -> dict[str, str]:
    from feature_platform.lake import connect
    from feature_platform.ledger import Ledger, migrate
    from feature_platform.reference import fix_clock, prepare

    migrate(settings.ledger_url)
    with Ledger.connect(settings.ledger_url) as ledger, closing(connect(settings)) as lake:
        clock = fix_clock(ledger, now=datetime.now(UTC))
        prepare(lake, ledger)
    return clock.dbt_environment
