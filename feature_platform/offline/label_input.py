"""What a caller may give as labels, opened as one relation that DuckDB reads once.

Rule: every column comes back as it went in, from Parquet as well, or is refused by name. What a file's path says is no
column, and text, numbers or instants that mean two things are never read as one of them by guess.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from feature_platform.errors import RequestError, TimestampError
from feature_platform.lake.failures import known_failure, lake_errors
from feature_platform.lake.sql import quote_identifier as quote
from feature_platform.offline.point_in_time import Statement

_INPUT = "labels_input"
_ACCEPTED = (
    "a pandas DataFrame, anything Arrow (table, record batch, reader), a DuckDB relation, or a path of a Parquet file"
)
_NO_ZONE = 'df["{0}"] = df["{0}"].dt.tz_localize("UTC")'


def naive_hint(column: str) -> str:
    """What to do about instants without a time zone."""
    example = _NO_ZONE.format(column)
    return f"say in which zone it was recorded, e.g. {example}, or in SQL: {column} at time zone 'UTC'"


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelInput:
    """Labels that are open and not read yet."""

    names: tuple[str, ...]
    """The columns, in order."""
    relation: Statement
    """Selects them; may be read once."""


@contextmanager
def open_labels(
    connection: duckdb.DuckDBPyConnection, entity_df: Any, *, timestamp_column: str, doing: str
) -> Iterator[LabelInput]:
    """Open labels; what fails while they are read, by whomever, is told as a failure of reading them.

    Args:
        connection: a private connection.
        entity_df: a pandas DataFrame, Arrow data, a DuckDB relation or the path of a Parquet file.
        timestamp_column: name of the column that holds the labels' time.
        doing: what the labels are read for, as the beginning of a sentence.

    Raises:
        RequestError: this kind of input is unknown, or a column cannot be kept as it is.
        TimestampError: some of the times have a zone and some have none.
    """
    is_path = isinstance(entity_df, (str, Path))
    doing += f" from {entity_df}" * is_path
    with lake_errors(doing), _readable(doing):
        if is_path:
            yield _open_file(Path(entity_df))
            return
        data = _to_arrow(entity_df, timestamp_column)
        _check_types(data.schema)
        try:
            connection.register(_INPUT, data)
            yield LabelInput(names=tuple(data.schema.names), relation=Statement(sql=_select(data.schema, _INPUT)))
        finally:
            connection.unregister(_INPUT)


@contextmanager
def _readable(doing: str) -> Iterator[None]:
    try:
        yield
    except (duckdb.InvalidInputException, duckdb.NotImplementedException, duckdb.ConversionException) as error:
        # whatever ends an Arrow stream is an invalid input to DuckDB, a lost Postgres as well
        known = known_failure(str(error), doing=doing)
        raise known or RequestError("cannot read the labels", found=str(error), allowed=_ACCEPTED) from error


def _open_file(path: Path) -> LabelInput:
    try:
        schema = pq.read_schema(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise RequestError(f"cannot read the labels from {path}", found=str(error), allowed="a Parquet file") from error
    _check_types(schema)
    # DuckDB would take a directory called carrier=AA for a column, before the file's own
    source = "read_parquet($path, hive_partitioning = false)"
    relation = Statement(sql=_select(schema, source), parameters={"path": glob.escape(str(path))})
    return LabelInput(names=tuple(schema.names), relation=relation)


def _select(schema: pa.Schema, source: str) -> str:
    """All columns. Times of day get microseconds: finer ones would be text in a Parquet file of DuckDB."""
    fine = [field.name for field in schema if field.type == pa.time64("ns")]
    replaced = f" replace ({', '.join(f'{quote(name)}::time as {quote(name)}' for name in fine)})" if fine else ""
    return f"(select *{replaced} from {source})"


def _to_arrow(entity_df: Any, timestamp_column: str) -> pa.Table | pa.RecordBatchReader:
    try:
        if _is_frame(entity_df):
            _check_objects(entity_df, timestamp_column)
            return pa.Table.from_pandas(entity_df, preserve_index=False)
        if isinstance(entity_df, pa.Table):
            return entity_df
        if hasattr(entity_df, "__arrow_c_stream__"):
            return pa.RecordBatchReader.from_stream(entity_df)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise RequestError(
            "cannot read the labels", found=str(error), allowed="columns that hold values of one type each"
        ) from error
    except (ValueError, TypeError) as error:  # pyarrow's complaints about equal names and sparse columns of pandas
        raise RequestError("cannot read the labels", found=str(error), allowed=_ACCEPTED) from error
    raise RequestError(
        "cannot read the labels",
        found=type(entity_df).__qualname__,
        allowed=_ACCEPTED,
        hint="record batches in a list or generator: pyarrow.RecordBatchReader.from_batches(schema, batches)",
    )


def _is_frame(entity_df: Any) -> bool:
    """Whether it is a frame of pandas or of somebody's subclass: the Arrow stream of these would add the index."""
    # looked at by name: pandas is imported only by who uses it
    kinds = {kind.__module__.partition(".")[0] for kind in type(entity_df).__mro__}
    return "pandas" in kinds and hasattr(entity_df, "columns")


def _check_objects(frame: Any, column: str) -> None:
    """Refuse Python datetimes of which some have a zone: pyarrow would take the others for UTC.

    Raises:
        TimestampError: that is so.
    """
    if not frame.columns.is_unique or column not in frame or frame[column].dtype != object:
        return
    # NaT is a datetime that is not itself
    instants = [(row, at) for row, at in enumerate(frame[column]) if isinstance(at, datetime) and at == at]  # noqa: PLR0124
    naive = [row for row, at in instants if at.tzinfo is None]
    if naive and len(naive) < len(instants):
        raise TimestampError(
            f"some times of column {column!r} of the labels have no time zone",
            found=f"{len(naive)} of {len(instants)}, first in row {naive[0]}: {dict(instants)[naive[0]]}",
            allowed="instants with a time zone",
            hint="say in which zone these were recorded, e.g. .replace(tzinfo=timezone.utc)",
        )


def _check_types(schema: pa.Schema) -> None:
    """Refuse columns that would come back as something else, or as nothing.

    Raises:
        RequestError: there are some.
    """
    unfit = [f"{field.name} {field.type}" for field in schema if _is_unfit(field.type)]
    if unfit:
        raise RequestError(
            "columns of the labels cannot be kept as they are",
            found=", ".join(unfit),
            allowed="types that DuckDB and Parquet both have; among these are no durations, periods and half floats",
            hint='convert or drop them, e.g. a duration to seconds: df["x"] = df["x"].dt.total_seconds()',
        )


def _is_unfit(kind: pa.DataType) -> bool:
    types = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        # a period is a bare number to whoever does not know pandas
        return kind.extension_name == "pandas.period" or _is_unfit(kind.storage_type)
    if types.is_dictionary(kind):
        return _is_unfit(kind.value_type)
    if types.is_nested(kind):
        return bool(types.is_union(kind) or not kind.num_fields or any(_is_unfit(f.type) for f in _fields(kind)))
    unfit = (types.is_duration, types.is_interval, types.is_float16, types.is_decimal256)
    return any(is_of(kind) for is_of in unfit)


def _fields(kind: pa.DataType) -> Sequence[pa.Field]:
    return [kind.field(index) for index in range(kind.num_fields)]
