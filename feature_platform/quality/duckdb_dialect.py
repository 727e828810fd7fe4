"""DuckDB for SQLAlchemy, as far as Great Expectations needs it: read-only, on a DuckDB cursor that exists already.

Great Expectations knows PostgreSQL but not DuckDB, and DuckDB speaks nearly PostgreSQL's SQL. So this is SQLAlchemy's
PostgreSQL dialect with a driver of its own that

* reads a whole result at once: the library reads results after it gave the connection back;
* never begins, commits or rolls back;
* bounds what one result may hold, because pushdown that fetches a whole column is none.

Imported only by a call that judges.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import duckdb
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql.base import PGCompiler, PGDialect
from sqlalchemy.engine import Engine

from feature_platform.lake.sql import quote_identifier

MAX_RESULT_ROWS = 100_000
"""Most rows one result may have: distinct values of a column, say. A check that needs more fails with an error."""

_TYPES: dict[str, sa.types.TypeEngine[Any]] = {
    "BOOLEAN": sa.types.BOOLEAN(),
    "TINYINT": sa.types.SMALLINT(),
    "SMALLINT": sa.types.SMALLINT(),
    "INTEGER": sa.types.INTEGER(),
    "BIGINT": sa.types.BIGINT(),
    "FLOAT": sa.types.FLOAT(),
    "DOUBLE": sa.types.DOUBLE(),
    "VARCHAR": sa.types.VARCHAR(),
    "DATE": sa.types.DATE(),
    "TIMESTAMP WITH TIME ZONE": sa.types.TIMESTAMP(timezone=True),
}


class _Cursor:
    """A DB-API cursor whose rows are all in memory."""

    arraysize = 1
    rowcount = -1
    lastrowid = None

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._rows: Iterator[Any] = iter(())
        self.description: Any = None

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> None:
        self._connection.execute(statement, list(parameters) or None)
        self.description = self._connection.description
        rows = self._connection.fetchmany(MAX_RESULT_ROWS + 1) if self.description else []
        if len(rows) > MAX_RESULT_ROWS:
            raise duckdb.OutOfMemoryException(f"the check would fetch more than {MAX_RESULT_ROWS} rows")
        self._rows = iter(rows)

    def fetchone(self) -> Any:
        return next(self._rows, None)

    def fetchmany(self, size: int | None = None) -> list[Any]:
        return list(itertools.islice(self._rows, size or self.arraysize))

    def fetchall(self) -> list[Any]:
        return list(self._rows)

    def close(self) -> None:
        self._rows = iter(())


class _Connection:
    """A DB-API connection that leaves transactions and closing to whoever owns the DuckDB connection."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection

    def cursor(self) -> _Cursor:
        return _Cursor(self._connection)

    def commit(self) -> None: ...

    def rollback(self) -> None: ...

    def close(self) -> None: ...


class _Driver:
    """What SQLAlchemy expects of a DB-API module."""

    apilevel = "2.0"
    threadsafety = 1
    paramstyle = "qmark"
    Error = duckdb.Error
    InterfaceError = OperationalError = ProgrammingError = duckdb.Error
    DatabaseError = IntegrityError = DataError = NotSupportedError = InternalError = duckdb.Error


class _Compiler(PGCompiler):  # type: ignore[misc] # SQLAlchemy is not followed by mypy
    def visit_custom_op_binary(self, binary: Any, operator: Any, **kw: Any) -> str:
        """PostgreSQL's `~` finds a match anywhere; DuckDB's `~` matches the whole text."""
        if operator.opstring not in ("~", "!~"):
            return str(super().visit_custom_op_binary(binary, operator, **kw))
        matches = f"regexp_matches({self.process(binary.left, **kw)}, {self.process(binary.right, **kw)})"
        return f"(not {matches})" if operator.opstring == "!~" else matches


class DuckDBDialect(PGDialect):  # type: ignore[misc]
    """PostgreSQL's SQL on DuckDB's catalog."""

    driver = "feature_platform_duckdb"
    supports_statement_cache = True
    statement_compiler = _Compiler

    def initialize(self, connection: Any) -> None:  # noqa: ARG002 - the signature is SQLAlchemy's
        """Set what PostgreSQL's dialect would ask a PostgreSQL server for."""
        self.server_version_info = (16,)
        self.default_schema_name = "main"
        self.max_identifier_length = 63

    def get_columns(
        self,
        connection: Any,
        table_name: str,
        schema: str | None = None,  # noqa: ARG002 - the signature is SQLAlchemy's
        **kw: Any,  # noqa: ARG002
    ) -> list[dict[str, Any]]:
        """Names and types of a relation's columns."""
        described = connection.execute(sa.text(f"describe {quote_identifier(table_name)}")).fetchall()
        return [
            {"name": name, "type": _TYPES.get(kind, sa.types.NullType()), "nullable": True, "default": None}
            for name, kind, *_ in described
        ]

    def get_pk_constraint(self, *_: Any, **__: Any) -> dict[str, Any]:
        """DuckLake has no keys."""
        return {"constrained_columns": [], "name": None}


sa.dialects.registry.register(f"postgresql.{DuckDBDialect.driver}", __name__, DuckDBDialect.__name__)


def engine_over(connection: duckdb.DuckDBPyConnection) -> Engine:
    """An engine that runs on this very DuckDB connection."""
    return sa.create_engine(
        f"postgresql+{DuckDBDialect.driver}://",
        module=_Driver,
        creator=lambda: _Connection(connection),
        poolclass=sa.pool.StaticPool,
    )
