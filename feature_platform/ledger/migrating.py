"""Numbered SQL files bring the ledger's database to the code's version; applied files never change again."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from itertools import pairwise

from feature_platform.errors import ConfigurationError
from feature_platform.ledger.locks import MIGRATION
from feature_platform.ledger.postgres import open_connection, translated

_FILE_NAME = re.compile(r"(\d{4})_\w+\.sql")


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """One numbered SQL file."""

    version: int
    name: str
    sql: str

    @property
    def sha256(self) -> str:
        """Hash of the file's text."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def load_migrations() -> tuple[Migration, ...]:
    """The migrations this version of the code brings, in order.

    Raises:
        ConfigurationError: two files have one number.
    """
    entries = resources.files("feature_platform.ledger").joinpath("migrations").iterdir()
    return in_order(
        Migration(version=int(match[1]), name=entry.name, sql=entry.read_text(encoding="utf-8"))
        for entry in entries
        if (match := _FILE_NAME.fullmatch(entry.name))
    )


def in_order(migrations: Iterable[Migration]) -> tuple[Migration, ...]:
    """Migrations by number.

    Raises:
        ConfigurationError: two have one number; branches that were merged can bring that about.
    """
    found = tuple(sorted(migrations, key=lambda one: (one.version, one.name)))
    for one, other in pairwise(found):
        if one.version == other.version:
            raise ConfigurationError(
                f"two migrations have the number {one.version:04d}",
                found=f"{one.name} and {other.name}",
                hint="rename the one that was never released",
            )
    return found


def pending(migrations: tuple[Migration, ...], applied: dict[int, str]) -> tuple[Migration, ...]:
    """What is left to apply, given the hash of each applied version.

    Raises:
        ConfigurationError: the database is newer than the code, or history was changed.
    """
    known = {migration.version: migration for migration in migrations}
    if unknown := sorted(set(applied) - set(known)):
        raise ConfigurationError(
            "the ledger's database is newer than this code",
            found=f"migration {unknown[-1]:04d} is applied",
            allowed=f"up to {max(known, default=0):04d}",
            hint="use the version of feature-platform that migrated it, or a later one",
        )
    for version, sha256 in applied.items():
        if known[version].sha256 != sha256:
            raise ConfigurationError(
                f"migration {known[version].name} was changed after it had been applied",
                found=f"sha256 {known[version].sha256[:12]}… in the code, {sha256[:12]}… in the database",
                hint="restore the file and write a new migration",
            )
    return tuple(migration for migration in migrations if migration.version not in applied)


def migrate(url: str, migrations: tuple[Migration, ...] | None = None) -> tuple[str, ...]:
    """Apply what is pending, all or nothing; names of the applied files. Safe to call from several processes.

    Raises:
        ConfigurationError: the database is newer than the code, or history was changed.
        LedgerUnavailableError: Postgres cannot be reached.
    """
    migrations = load_migrations() if migrations is None else migrations
    connection = open_connection(url)
    try:
        with translated(), connection.cursor() as cursor:
            cursor.execute("begin")
            cursor.execute("select pg_advisory_xact_lock(%s)", (MIGRATION,))
            cursor.execute("select to_regclass('schema_migrations') is not null")
            if not (cursor.fetchone() or (False,))[0]:
                cursor.execute(
                    "create table schema_migrations (version integer primary key, name text not null,"
                    " sha256 text not null, applied_at timestamptz not null default clock_timestamp())"
                )
            cursor.execute("select version, sha256 from schema_migrations")
            todo = pending(migrations, dict(cursor.fetchall()))
            for migration in todo:
                cursor.execute(migration.sql)
                cursor.execute(
                    "insert into schema_migrations (version, name, sha256) values (%s, %s, %s)",
                    (migration.version, migration.name, migration.sha256),
                )
            cursor.execute("commit")
    finally:
        connection.close()  # an open transaction is rolled back
    return tuple(migration.name for migration in todo)
