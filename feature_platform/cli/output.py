"""How commands print: tables for people, JSON for programs."""

from __future__ import annotations

import dataclasses
import enum
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from rich.console import Console

_Command = TypeVar("_Command", bound=Callable[..., Any])

_WIDTH_WITHOUT_TERMINAL = 160


def json_option(function: _Command) -> _Command:
    """Add `--json`; the command receives it as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)


def print_json(content: object) -> None:
    """Print as JSON: records as objects, instants in ISO 8601, durations in seconds."""
    click.echo(json.dumps(content, indent=2, default=_plain))


def console() -> Console:
    """For tables. Without a terminal there is no width to keep to."""
    from rich.console import Console  # not needed for --json and --help

    return Console(width=None if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL, highlight=False, markup=False)


def print_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table of text."""
    from rich import box  # not needed for --json and --help
    from rich.table import Column, Table

    # folded, never cut: people copy names
    table = Table(*(Column(title, overflow="fold") for title in titles), box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    console().print(table)


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, enum.Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return str(value)
