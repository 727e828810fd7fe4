"""`feature-platform canary`: does a value come through, from the lake to a client?"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import click

from feature_platform.cli.output import json_option, print_json, print_table
from feature_platform.settings import Settings

if TYPE_CHECKING:
    from feature_platform.ledger import CanaryRead


@click.command()
@click.option("--store", "stores", multiple=True, help="Only this online store. May be repeated. [default: all]")
@json_option
@click.pass_context
def canary(context: click.Context, stores: tuple[str, ...], *, as_json: bool) -> None:
    """Send a fresh value the way of a batch, and see that a client reads exactly that.

    For each online store one row is written to the lake, audited and published in the ledger, synced, read with the
    client that services use, and compared: value, event time and status. Nothing that is served changes; the view is
    the platform's own. The sensor "canary" does the same every 5 minutes; by hand it is a smoke test after a deploy.

    Exit code 0: every store answers as it should; 1: one does not; 75: a deploy or another round is going on.
    """
    from feature_platform.canary import run_canary  # imports DuckDB and pyarrow
    from feature_platform.declaration import load_registry

    settings = Settings.from_env()
    registry = load_registry(settings.manifest_path)
    reads = run_canary(settings, registry, run_id=f"cli-{uuid.uuid4()}", stores=stores)
    if as_json:
        print_json([plain(read) for read in reads])
    else:
        print_table(
            ("store", "result", "written", "online after", "read after"),
            [
                (
                    read.store,
                    "ok" if read.is_ok else f"failed at {read.failed_at}: {read.failure}",
                    f"{read.written_at:%Y-%m-%d %H:%M:%S} UTC",
                    f"{(read.online_at - read.written_at).total_seconds():.2f} s" if read.online_at else "-",
                    f"{read.took.total_seconds():.2f} s" if read.took else "-",
                )
                for read in reads
            ],
        )
    context.exit(0 if all(read.is_ok for read in reads) else 1)


def plain(read: CanaryRead) -> dict[str, object]:
    """One result for programs."""
    return {
        "store": read.store,
        "ok": read.is_ok,
        "batch_id": read.batch_id,
        "written_at": read.written_at,
        "online_at": read.online_at,
        "read_at": read.read_at,
        "seconds": read.took,
        "failed_at": read.failed_at,
        "failure": read.failure,
    }
