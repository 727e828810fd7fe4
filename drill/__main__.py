"""`python -m drill [FAULT …]`: see --help."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import click

from drill import faults  # noqa: F401 - registers all of them
from drill.clock import NoClockError
from drill.fault import FAULTS
from drill.judge import judge
from drill.project import REPOSITORY
from drill.stack import CommandError
from drill.table import as_markdown, as_text, result_line
from drill.world import fresh_directory, world

_MARK = "FP_DRILL_APART"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("names", metavar="[FAULT]...", nargs=-1)
@click.option("--list", "only_list", is_flag=True, help="Say which faults there are.")
@click.option("--docs", is_flag=True, help="Write the table into docs/drill.md.")
@click.option(
    "--home", type=click.Path(path_type=Path), help="Where the drill's stack lives. [default: a temporary one]"
)
@click.option("--keep", is_flag=True, help="Keep the records (answers, notices, faults).")
def main(names: tuple[str, ...], *, only_list: bool, docs: bool, home: Path | None, keep: bool) -> None:
    """Inject faults into a stack of its own, one by one, and say what came of each.

    The drill's clock is its own, hours pass in seconds; all faults take about 25 minutes on two idle cores. The last
    line is RESULT {…}: all counts but the first should be 0. Ends with 1 if one is not. Ctrl-C ends the drill with what
    was done so far.
    """
    if only_list:
        for fault in FAULTS.values():
            click.echo(f"{fault.name:20} {fault.what}")
        return
    if unknown := [name for name in names if name not in FAULTS]:
        raise click.UsageError(f"no such fault: {', '.join(unknown)}. There are: {', '.join(FAULTS)}")
    _may_mount()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the stack is stopped, as after Ctrl-C
    directory = home or Path(tempfile.mkdtemp(prefix="fp-drill-", dir="/var/tmp"))
    begin, records = time.monotonic(), directory / "records"
    try:
        ended_early = _run(names or tuple(FAULTS), fresh_directory(directory))
    except (NoClockError, CommandError) as error:
        click.secho(str(error), fg="red", err=True)
        if not (records / "keys.json").exists():  # nothing was injected yet
            sys.exit(1)
        ended_early = str(error).partition("\n")[0]
    verdict = judge(records, repository=REPOSITORY)
    click.echo(as_text(verdict))
    if docs:
        page = REPOSITORY / "docs" / "drill.md"
        page.write_text(as_markdown(verdict, page.read_text(encoding="utf-8")), encoding="utf-8")
    click.echo(f"{time.monotonic() - begin:.0f} s" + (f"; records: {records}" if keep else ""))
    if ended_early:
        click.secho(f"the drill ended before its end: {ended_early}", fg="red", err=True)
    click.echo(result_line(verdict))
    sys.exit(0 if verdict.is_clean and not ended_early else 1)


def _may_mount() -> None:
    """As an ordinary user, go on in a name space of our own, in which the lake's disk can be mounted."""
    unshare = shutil.which("unshare")
    if os.geteuid() == 0 or unshare is None or _MARK in os.environ:
        return
    apart = [unshare, "--user", "--map-current-user", "--keep-caps", "--mount", "--"]
    if subprocess.run([*apart, "true"], capture_output=True, check=False).returncode == 0:
        again = [*apart, sys.executable, "-m", "drill", *sys.argv[1:]]
        os.execve(unshare, again, os.environ | {_MARK: "1"})  # noqa: S606 - in place of this process


def _run(names: tuple[str, ...], directory: Path) -> str:
    """Run the drill; why it ended early, if it did."""
    cache = Path(tempfile.gettempdir()) / "fp-drill-cache"
    with world(directory, cache, say=click.echo) as drill:
        try:
            for fault in (FAULTS[name] for name in FAULTS if name in names):
                drill.run(fault)
                drill.settle()
                if drill.what_is_wrong():
                    drill.repair()
        except KeyboardInterrupt:
            drill.say("interrupted; what was done so far is judged (Ctrl-C again: without looking for what was lost)")
            with suppress(KeyboardInterrupt):
                drill.finish()
            return "it was interrupted"
        drill.finish()
    return ""


if __name__ == "__main__":
    main()
