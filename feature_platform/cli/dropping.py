"""`feature-platform drop`: take a view version out of an online store."""

from __future__ import annotations

import click

from feature_platform.cli.output import json_option, print_json
from feature_platform.settings import Settings


@click.command()
@click.argument("view", metavar="VIEW@VERSION")
@click.option("--store", help="Name of the online store (default: FEATURE_PLATFORM_STORE).")
@click.option("--even-if-used", is_flag=True, help="Also if a feature service reads it.")
@click.option("--scan", is_flag=True, help="Look through all keys of the store for rows the lake no longer knows.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def drop(*, view: str, store: str | None, even_if_used: bool, scan: bool, yes: bool, as_json: bool) -> None:
    """Take a version of a view out of the online store: its rows, its position, its documents.

    It need not be declared any more. Lake and ledger keep everything, so that `feature-platform sync` brings a declared
    version back; to keep it out, declare `online: none` first. Safe to repeat.
    """
    from feature_platform.declaration import load_registry
    from feature_platform.sync import drop as drop_view  # imports DuckDB and pyarrow

    settings = Settings.from_env() if store is None else Settings.from_env().at_store(store)
    registry = load_registry(settings.manifest_path)
    if not yes:
        click.confirm(f"Delete all rows of {view} from the online store {settings.store}?", abort=True, err=True)
    result = drop_view(settings, registry, view, even_if_used=even_if_used, scan=scan)
    if as_json:
        print_json(result)
    else:
        click.echo(f"{result.view}: {result.rows:,} rows taken out of store {result.store}")
