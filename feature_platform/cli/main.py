"""The command `feature-platform`.

Rule: a command's module is imported when the command is called, so that `--help` is fast and the absence of one
extra breaks only the commands that need it. Errors of the platform end with their message and exit code 1; if the same
call may succeed later, with 75 (EX_TEMPFAIL), so that a scheduler knows to repeat it.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import click

from feature_platform import __version__
from feature_platform.errors import ConfigurationError, FeaturePlatformError, Transient

EXIT_FAILED: Final = 1
EXIT_TRY_LATER: Final = os.EX_TEMPFAIL
EXIT_INTERRUPTED: Final = 130

_OWN_PACKAGE = "feature_platform"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a command is written, and what `--help` says of it without importing it."""

    module: str
    function: str
    help: str


def _target(path: str, short_help: str) -> Target:
    module, function = path.split(":")
    return Target(module=f"{_OWN_PACKAGE}.cli.{module}", function=function, help=short_help)


COMMANDS: Final[Mapping[str, Target]] = {
    # in the order in which a newcomer meets them
    "demo": _target("demo:demo", "From nothing to served features, on real data."),
    "up": _target("stack:up", "Start the local stack: Postgres, Valkey, Dagster and its UI."),
    "down": _target("stack:down", "Stop the local stack; nothing is lost."),
    "status": _target("status:status", "What runs, how fresh each view is, what is wrong, who owns it."),
    "env": _target("stack:env", "Print the addresses of the local stack for a shell."),
    "validate": _target("declaration:validate", "Check all declarations and show every error at once."),
    "deploy": _target("materialization:deploy", "Create and alter what the declarations ask for."),
    "materialize": _target("runs:materialize", "Compute, audit and publish partitions of a view."),
    "backfill": _target("runs:backfill", "Materialize a range of partitions through Dagster."),
    "sync": _target("online:sync", "Bring a view's published batches to the online store."),
    "push": _target("push:push", "Push rows that are fresher than any batch to a view."),
    "drop": _target("dropping:drop", "Take a view version out of the online store."),
    "get": _target("online:get", "Read features of entities from the online store."),
    "parity": _target("parity:parity", "Is what the store holds what the ledger says? And repair."),
    "canary": _target("canary:canary", "Write, sync and read a fresh value: does the whole way work?"),
    "training-set": _target(
        "training_sets:training_set", "Features as of each label's time; kept, made again, explained."
    ),
    "audit": _target("audit:audit", "Do features look into the future? Rebuilt without it."),
    "drain": _target("served_log:drain", "Bring logged requests from the online store into the lake."),
    "skew": _target("served_log:skew", "Was what was served what training would see?"),
    "sql": _target("offline:sql", "Query the published features, read-only."),
    "maintain": _target("maintain:maintain", "Delete what nobody needs, merge files; --dry-run tells first."),
    "quality": _target("quality:quality", "What a view's features look like, and what checks said."),
    "late": _target("late:late", "Rows that came too late: what they concern, cost and wait for."),
    "silence": _target("silence:silence", "Tell nobody, for a time, of what is known."),
    "exporter": _target("exporter:exporter", "Serve metrics to Prometheus, until it is stopped."),
    "ledger": _target("ledger:ledger", "What happened: batches, checks, syncs."),
}


class LazyGroup(click.Group):
    """A group whose commands are named in a table and imported when called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All commands, in the order of the table."""
        return [*COMMANDS, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        target = COMMANDS.get(cmd_name)
        return _load(target) if target else super().get_command(ctx, cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, target.help) for name, target in COMMANDS.items()])

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any) -> Any:  # type: ignore[override]
        """Run; errors end the process with a message and an exit code of this module."""
        if not extra.pop("standalone_mode", True):
            return super().main(args, prog_name, standalone_mode=False, **extra)
        try:
            code = super().main(args, prog_name, standalone_mode=False, **extra)
        except FeaturePlatformError as error:
            click.secho(str(error), fg="red", err=True)
            sys.exit(EXIT_TRY_LATER if isinstance(error, Transient) else EXIT_FAILED)
        except click.ClickException as error:
            error.show()
            sys.exit(error.exit_code)
        except (KeyboardInterrupt, click.Abort):
            click.echo("\nInterrupted.", err=True)
            sys.exit(EXIT_INTERRUPTED)
        # without standalone mode click returns what `context.exit` was given, or what the command returned
        sys.exit(code if isinstance(code, int) else 0)


def _load(target: Target) -> click.Command:
    try:
        command = getattr(importlib.import_module(target.module), target.function)
    except ModuleNotFoundError as error:
        if error.name and error.name.partition(".")[0] == _OWN_PACKAGE:
            raise
        raise ConfigurationError(
            "this command needs a package that is not installed",
            found=f"no module {error.name}",
            hint="pip install 'feature-platform[platform,embedded,reference]'",
        ) from error
    if not isinstance(command, click.Command):
        raise TypeError(f"{target.module}:{target.function} is no click command")
    return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="feature-platform")
def main() -> None:
    """A feature platform: dbt models as feature views, audited, published, served from Valkey.

    Addresses come from the environment (FEATURE_PLATFORM_*), or from the local stack that `up` starts.
    """


if __name__ == "__main__":
    main()
