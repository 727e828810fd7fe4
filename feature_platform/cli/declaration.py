"""`feature-platform validate`: are the declarations right? Needs nothing running."""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from feature_platform import settings
from feature_platform.cli.output import counted, json_option, print_json, print_table
from feature_platform.declaration import FeatureRegistry, load_registry
from feature_platform.domain.durations import format_duration
from feature_platform.domain.feature_service import FeatureService
from feature_platform.domain.feature_view import FeatureView
from feature_platform.errors import Finding, InvalidDeclarationsError
from feature_platform.quality import refuse_unjudgeable


@click.command()
@click.option(
    "--manifest",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Check this manifest.json instead of parsing the dbt project.",
)
@json_option
@click.pass_context
def validate(context: click.Context, manifest: Path | None, *, as_json: bool) -> None:
    """Check all declarations and show every error at once.

    Exits with 1 if there is any.
    """
    warnings: list[str] = []
    try:
        registry = load_registry(manifest) if manifest else _parse_project(warnings)
        refuse_unjudgeable(registry.views.values())
    except InvalidDeclarationsError as error:
        if as_json:
            findings = [dataclasses.asdict(finding) for finding in error.findings]
            print_json({"valid": False, "findings": findings, "warnings": warnings})
        else:
            _print_findings(error.findings, warnings)
        context.exit(1)
    if as_json:
        print_json({"valid": True, **_summary(registry), "warnings": warnings})
    else:
        _print_registry(registry, warnings)


def _parse_project(warnings: list[str]) -> FeatureRegistry:
    from feature_platform.materialization.dbt_parse import parse  # imports dbt

    with tempfile.TemporaryDirectory(prefix="feature-platform-validate-") as target:
        return load_registry(parse(settings.project_dir() / "dbt_project", Path(target), on_warning=warnings.append))


def _summary(registry: FeatureRegistry) -> dict[str, Any]:
    return {
        "views": [
            {
                "key": view.key,
                "entities": {column.name: column.type.value for column in view.entities},
                "features": {column.name: column.type.value for column in view.features},
                "grain": view.grain.value,
                "begin": view.begin.isoformat(),
                "online": view.online.value,
                "owner": view.owner.email,
                "group": view.group,
                "access": view.access,
                "latest": registry.latest[view.name] == view.version,
                "deprecation_date": view.deprecation_date,
                "sources": [source.name for source in view.sources],
                "table": view.table,
                "code_version": view.code_version,
            }
            for view in registry.views.values()
        ],
        "services": [
            {
                "name": service.name,
                "owner": service.owner.email,
                "features": {selection.key: selection.features for selection in service.selections},
                "latency_budget_ms": service.latency_budget and service.latency_budget.total_seconds() * 1000,
                "batch_size": service.batch_size,
                "freshness_seconds": service.freshness and service.freshness.total_seconds(),
            }
            for service in registry.services.values()
        ],
    }


def _print_registry(registry: FeatureRegistry, warnings: Sequence[str]) -> None:
    titles = ("feature view", "entities", "grain", "features", "online", "owner")
    print_table(titles, map(_view_row, registry.views.values()))
    if registry.services:
        titles = ("service", "reads", "latency", "batch", "freshness", "owner")
        print_table(titles, map(_service_row, registry.services.values()))
    _print_warnings(warnings)
    count = (counted(len(registry.views), "feature view"), counted(len(registry.services), "feature service"))
    click.secho(f"{count[0]} and {count[1]}: all declarations are right", fg="green")


def _view_row(view: FeatureView) -> tuple[str, ...]:
    deprecated = f" (until {view.deprecation_date})" if view.deprecation_date else ""
    return (
        view.key + deprecated,
        ", ".join(view.entity_names),
        view.grain.value,
        str(len(view.features)),
        view.online.value,
        view.owner.email,
    )


def _service_row(service: FeatureService) -> tuple[str, ...]:
    latency = f"{service.latency_budget.total_seconds() * 1000:g} ms" if service.latency_budget else "-"
    return (
        service.name,
        "\n".join(f"{selection.key} ({len(selection.features)})" for selection in service.selections),
        latency,
        str(service.batch_size or "-"),
        format_duration(service.freshness) if service.freshness else "-",
        service.owner.email,
    )


def _print_findings(findings: Sequence[Finding], warnings: Sequence[str]) -> None:
    """All findings by file and node, then how many."""
    for file, in_file in itertools.groupby(findings, key=lambda finding: finding.file):
        click.secho(file, bold=True)
        for node, of_node in itertools.groupby(in_file, key=lambda finding: finding.node):
            click.secho(f"  {node}", fg="cyan")
            for finding in of_node:
                click.echo(f"    {click.style('✗', fg='red')} {finding.problem}")
                for label, text in (("found", finding.found), ("allowed", finding.allowed), ("next", finding.hint)):
                    if text:
                        click.echo(f"      {label + ':':<9}" + text.replace("\n", "\n" + 15 * " "))
        click.echo()
    _print_warnings(warnings)
    files = len({finding.file for finding in findings})
    click.secho(f"{counted(len(findings), 'error')} in {counted(files, 'file')}", fg="red", err=True)


def _print_warnings(warnings: Sequence[str]) -> None:
    for warning in warnings:
        click.echo(f"{click.style('dbt warns:', fg='yellow')} {warning}")
