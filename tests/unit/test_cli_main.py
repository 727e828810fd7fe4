"""The command line's frame: lazy commands, exit codes, messages."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from feature_platform import __version__
from feature_platform.cli import main as cli
from feature_platform.errors import CheckFailedError, StoreUnavailableError


@pytest.fixture
def failing(monkeypatch):
    """Run a command that raises."""

    def run(error: BaseException):
        @click.command()
        def command() -> None:
            raise error

        monkeypatch.setattr(cli, "_load", lambda target: command)
        return CliRunner().invoke(cli.main, ["status"])

    return run


def test_help_lists_all_commands_and_imports_none():
    program = (
        "import sys; from feature_platform.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in sys.modules if m.split('.')[0] in"
        " ('dagster', 'dbt', 'duckdb', 'psycopg2', 'valkey', 'rich', 'pandas', 'pyarrow', 'great_expectations')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    for name, target in cli.COMMANDS.items():
        assert name in done.stdout
        assert target.help in done.stdout


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_help(name):
    result = CliRunner().invoke(cli.main, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert f"{name} [" in result.output


def test_version():
    assert __version__ in CliRunner().invoke(cli.main, ["--version"]).output


def test_an_error_ends_with_its_message(failing):
    result = failing(CheckFailedError("a check failed", found="2 rows", hint="look at them"))
    assert result.exit_code == cli.EXIT_FAILED
    assert "a check failed\n  found:   2 rows\n  next:    look at them" in result.stderr
    assert not result.stdout


def test_a_transient_error_can_be_told_by_its_exit_code(failing):
    assert failing(StoreUnavailableError("no answer")).exit_code == 75


def test_interrupted(failing):
    result = failing(KeyboardInterrupt())
    assert (result.exit_code, result.stderr.strip()) == (130, "Interrupted.")


def test_exit_code_of_a_command_is_kept(failing):
    assert failing(click.exceptions.Exit(3)).exit_code == 3


def test_unknown_command():
    result = CliRunner().invoke(cli.main, ["no-such-command"])
    assert result.exit_code == 2
    assert "No such command" in result.stderr


def test_missing_package_names_the_extra(monkeypatch):
    target = cli.Target(module="no_such_package.module", function="command", help="")
    monkeypatch.setitem(cli.COMMANDS, "status", target)
    result = CliRunner().invoke(cli.main, ["status"])
    assert result.exit_code == cli.EXIT_FAILED
    assert "pip install" in result.stderr
