"""`dbt parse` in this process: a project's files → `manifest.json`, with nothing running.

Rule: whatever dbt has to say comes back as findings and warnings, never as a traceback or as lines on the terminal.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from feature_platform.errors import ConfigurationError, Finding, InvalidDeclarationsError

_FILE = re.compile(r"[\w./\\-]+\.(?:ya?ml|sql|csv)\b")


def parse(project: Path, target: Path, *, on_warning: Callable[[str], None] | None = None) -> Path:
    """Parse a dbt project in full and return the path of its manifest.

    Args:
        project: directory with `dbt_project.yml` and `profiles.yml`.
        target: where the manifest is written.
        on_warning: called with each warning of dbt. A partial parse would not repeat them, so the parse is a full one.

    Raises:
        ConfigurationError: there is no dbt project.
        InvalidDeclarationsError: dbt cannot parse it; it stops at the first fault it cannot pass.
    """
    if not (project / "dbt_project.yml").is_file():
        raise ConfigurationError(
            "there is no dbt project",
            found=f"no file {project / 'dbt_project.yml'}",
            hint="change into the project, or set FEATURE_PLATFORM_PROJECT",
        )
    from dbt.cli.main import dbtRunner  # three seconds to import

    errors: list[str] = []

    def listen(event: Any) -> None:
        if event.info.level == "error":
            errors.append(event.info.msg)
        elif event.info.level == "warn" and on_warning is not None:
            on_warning(event.info.msg.strip())

    directories = ("--project-dir", project, "--profiles-dir", project, "--target-path", target, "--log-path", target)
    silence = ("--log-level", "none", "--log-level-file", "none", "--no-send-anonymous-usage-stats")
    arguments = ["parse", *map(str, directories), *silence, "--no-partial-parse", "--show-all-deprecations"]
    result = dbtRunner(callbacks=[listen]).invoke(arguments)
    if not result.success:
        raise InvalidDeclarationsError((_finding(project, errors, result.exception),))
    return target / "manifest.json"


def _finding(project: Path, errors: list[str], exception: BaseException | None) -> Finding:
    """What dbt could not parse, without its decoration."""
    message = errors[0] if errors else str(exception or "no reason given")
    lines = [line.strip() for line in message.removeprefix("Encountered an error:").splitlines()]
    if "Traceback (most recent call last):" in lines:  # a crash of dbt itself: its message alone means little
        lines = [f"{type(exception).__name__}: {exception}"]
    kind, *rest = [line for line in lines if line]
    return Finding(
        file=_file(project, " ".join(rest)),
        node="dbt",
        problem="dbt cannot parse the project",
        found="\n".join([kind, *rest]),
        hint="correct this first: dbt stops at its first fault, so there may be more",
    )


def _file(project: Path, message: str) -> str:
    """The file a message of dbt is about. It names some by their path within `models/`."""
    named = _FILE.search(message)
    if named is None:
        return "dbt_project.yml"
    if not (project / named[0]).is_file() and (within := next(project.glob(f"*/{named[0]}"), None)):
        return within.relative_to(project).as_posix()
    return named[0]
