"""How commands print: tables for people, JSON for programs."""

from __future__ import annotations

import dataclasses
import enum
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table
    from rich.text import Text

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


def table(titles: Iterable[str], rows: Iterable[Sequence[str | Text]], *, whole_names: bool = False) -> Table:
    """A table of text, folded where it is too wide and never cut: people copy names.

    Args:
        titles: of the columns.
        rows: of cells.
        whole_names: the first column is not folded.
    """
    from rich import box  # not needed for --json and --help
    from rich.table import Column, Table

    columns = (Column(title, overflow="fold", no_wrap=whole_names and not n) for n, title in enumerate(titles))
    made = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        made.add_row(*row)
    return made


def print_table(titles: Iterable[str], rows: Iterable[Sequence[str | Text]], *, empty: str | None = None) -> None:
    """Print a table, or without rows what is said then."""
    made = table(titles, rows)
    if made.row_count or empty is None:
        console().print(made)
    else:
        click.echo(empty)


def progress_bars(*fields: str, shown: bool = True) -> Progress:
    """Bars on standard error while something lasts, if it is a terminal.

    Args:
        fields: texts behind the count, e.g. `{task.fields[speed]}`.
        shown: otherwise nothing is drawn.
    """
    from rich.console import Console  # not needed for --help
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        *map(TextColumn, fields),
        TimeElapsedColumn(),
        console=Console(stderr=True, highlight=False),
        transient=True,
        disable=not shown or not sys.stderr.isatty(),
    )


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int | None], None]]:
    """One bar, drawn by a call with what is done and how much there is, if that is known."""
    with progress_bars() as bars:
        task = bars.add_task(label, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


def counted(count: int, noun: str) -> str:
    """For people.

    >>> counted(1, "push"), counted(2, "push"), counted(0, "row")
    ('1 push', '2 pushes', '0 rows')
    """
    return f"{count} {noun}{'' if count == 1 else 'es' if noun.endswith('sh') else 's'}"


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
