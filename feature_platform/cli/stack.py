"""`up`, `down` and `env`: the local stack."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping
from pathlib import Path

import click

from feature_platform import settings
from feature_platform.cli.output import json_option, print_json
from feature_platform.errors import ConfigurationError
from feature_platform.settings import Settings


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), help="Port of the UI. [default: 3000, or the next free one]")
@click.option("--services-only", is_flag=True, help="Only Postgres and Valkey, no Dagster.")
@click.option("--restart", is_flag=True, help="Stop Dagster first, so that it loads the code anew.")
def up(port: int | None, *, services_only: bool, restart: bool) -> None:
    """Start the local stack: Postgres, Valkey, Dagster and its UI.

    What runs already is left as it is. Everything lies in the data directory (default: .feature_platform in the
    project).
    """
    from feature_platform import local  # psutil, psycopg2, valkey

    project, home = settings.project_dir(), settings.home_dir()
    _step("Postgres and Valkey")
    connections = local.start(project, home)
    _refuse_other_addresses(connections)
    os.environ.update(connections)
    if services_only:
        click.echo("Postgres and Valkey are up. `feature-platform env` prints their addresses.")
        return
    from feature_platform.local import supervision

    if restart:
        _step("stopping Dagster")
        supervision.stop_dagster(home)
    here = Settings.from_env()
    if not here.manifest_path.exists():
        from feature_platform.cli.materialization import deploy_project

        _step("deploying the declarations")
        deploy_project(here)  # imports dbt; the usual start does not need it
    _step("Dagster: webserver, daemon, definitions")
    url = supervision.start_dagster(project, home, connections, port=port)
    click.echo(f"\nThe feature platform is up: {click.style(url, bold=True)}")
    if port is None and not url.endswith(f":{supervision.DEFAULT_PORT}"):
        click.echo(f"  (port {supervision.DEFAULT_PORT} was in use; choose another with --port)")
    click.echo(
        f"  data and logs: {home}\n  what runs:     feature-platform status\n  stop it:       feature-platform down"
    )


@click.command()
@click.option("--delete-data", is_flag=True, help="Delete the data directory afterwards: lake, ledger, everything.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def down(*, delete_data: bool, yes: bool) -> None:
    """Stop the local stack; nothing is lost.

    Queued runs go on at the next `up`. Runs in progress are cut off and begin again then; until they are done, nobody
    sees anything of them.
    """
    from feature_platform import local  # psutil, psycopg2, valkey
    from feature_platform.local import supervision

    home = settings.home_dir()
    if delete_data and not yes and home.exists():
        click.confirm(f"Delete {home}?", abort=True)
    stopped = [*supervision.stop_dagster(home), *local.stop(home)]
    click.echo(f"stopped: {', '.join(stopped)}" if stopped else "nothing was running")
    if delete_data:
        local.delete(home)
        click.echo(f"deleted: {home}")


@click.command()
@json_option
def env(*, as_json: bool) -> None:
    """Print the addresses of the local stack for a shell.

    Use: eval "$(feature-platform env)"
    """
    home = settings.home_dir()
    path = home / settings.CONNECTIONS_FILE
    if not path.exists():
        raise ConfigurationError(
            "the local stack was never started here", found=f"no {path}", hint="`feature-platform up`"
        )
    addresses = json.loads(path.read_text(encoding="utf-8"))
    values = addresses | {
        "DAGSTER_HOME": str(home / "dagster"),
        "DAGSTER_PG_URL": addresses[settings.PREFIX + "DAGSTER_URL"],
    }
    if as_json:
        print_json(values)
    else:
        click.echo("\n".join(f"export {name}={shlex.quote(value)}" for name, value in values.items()))


def _step(text: str) -> None:
    click.secho(f"… {text}", dim=True, err=True)


def _refuse_other_addresses(connections: Mapping[str, str]) -> None:
    """The environment wins over `connections.json`: half the stack elsewhere would be a strange place to be."""
    for name, value in connections.items():
        found = os.environ.get(name)
        if found and found != value and not _same_path(name, found, value):
            raise ConfigurationError(
                f"{name} is set to another place than the local stack",
                found=found,
                allowed=f"{value}, or not set",
                hint=f"unset {name}; `up` is for the local stack only",
            )


def _same_path(name: str, found: str, value: str) -> bool:
    return name in (settings.PREFIX + "PROJECT", settings.PREFIX + "HOME") and Path(found).resolve() == Path(value)
