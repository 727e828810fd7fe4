"""Rows that are pushed, brought to the types of their view; nothing is converted by guess.

Rule: every column that the view has, and no other; keys and event times are never NULL; a text is no number, and 1.7 is
no integer. A push is refused as a whole, before anything of it is logged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from feature_platform.domain.feature_view import EVENT_TIMESTAMP, FeatureView
from feature_platform.domain.types import in_lake
from feature_platform.errors import EntityError, RequestError, TimestampError, chosen_from
from feature_platform.lake.push_tables import PUSH_NUMBER, PUSHED_AT
from feature_platform.ledger.pushes import Push

ROWS_PER_PUSH: Final = 10_000
"""A longer input becomes several pushes."""
ROWS_PER_CHUNK: Final = 100_000
"""Of pushes that are read back, about so many at a time: a commit of a drain."""
FUTURE: Final = timedelta(minutes=1)
"""How far the clock of a producer may be ahead of ours."""
_ACCEPTED: Final = "a list of dicts, a pandas DataFrame, an Arrow table, batch or reader"


def arrow_schema(view: FeatureView) -> pa.Schema:
    """Keys, `event_timestamp` and features, as the lake hands them out."""
    columns = [
        *((column.name, column.type.value) for column in view.entities),
        (EVENT_TIMESTAMP, "timestamptz"),
        *((column.name, in_lake(column.type).value) for column in view.features),
    ]
    with duckdb.connect() as connection:
        connection.execute("set TimeZone = 'UTC'")
        nothing = ", ".join(f'cast(null as {kind}) as "c{i}"' for i, (_, kind) in enumerate(columns))
        types = connection.execute(f"select {nothing} limit 0").to_arrow_table().schema.types
    return pa.schema([*zip((name for name, _ in columns), types, strict=True)])


def as_batches(view: FeatureView, schema: pa.Schema, rows: Any, *, now: datetime) -> Iterator[pa.RecordBatch]:
    """The rows in parts of at most `ROWS_PER_PUSH`, in their order, each checked.

    Args:
        view: the view they are pushed to.
        schema: its `arrow_schema`.
        rows: a list of dicts, a pandas DataFrame, or anything Arrow.
        now: the instant of the push.

    Raises:
        RequestError: the input is of another kind, a column is missing, unexpected or of another type.
        EntityError: a key is NULL.
        TimestampError: an event time is NULL, has no zone, or lies in the future.
    """
    for part in _parts(rows):
        yield _checked(view, schema, part, now)


def _parts(rows: Any) -> Iterator[pa.RecordBatch]:
    for table in _tables(rows):
        for first in range(0, table.num_rows, ROWS_PER_PUSH):
            yield table.slice(first, ROWS_PER_PUSH).combine_chunks()


def _tables(rows: Any) -> Iterator[pa.Table]:
    try:
        if isinstance(rows, Sequence) and not isinstance(rows, str | bytes):
            if rows:
                yield _from_dicts(rows)
        # looked at by name: pandas is imported only by who uses it
        elif type(rows).__module__.partition(".")[0] == "pandas" and hasattr(rows, "columns"):
            yield pa.Table.from_pandas(rows, preserve_index=False)
        elif hasattr(rows, "__arrow_c_stream__"):
            for batch in pa.RecordBatchReader.from_stream(rows):
                yield pa.Table.from_batches([batch])
        elif isinstance(rows, pa.RecordBatch):
            yield pa.Table.from_batches([rows])
        else:
            raise RequestError("cannot read the rows to push", found=type(rows).__qualname__, allowed=_ACCEPTED)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError) as error:
        raise RequestError("cannot read the rows to push", found=str(error), allowed=_ACCEPTED) from error


def _from_dicts(rows: Sequence[Any]) -> pa.Table:
    names: tuple[str, ...] | None = None
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise RequestError(
                f"row {number} is no mapping from column to value", found=type(row).__qualname__, allowed=_ACCEPTED
            )
        names = tuple(row) if names is None else names
        if {*row} != {*names}:
            odd = {*row} ^ {*names}
            raise RequestError(
                f"row {number} has other columns than the rows before it",
                found=chosen_from(map(str, odd)),
                hint="give every row every feature; None where it has no value",
            )
    return pa.table({name: pa.array([row[name] for row in rows]) for name in names or ()})


def _checked(view: FeatureView, schema: pa.Schema, table: pa.Table, now: datetime) -> pa.RecordBatch:
    _check_names(view, schema, table.schema.names)
    columns = []
    for wanted in schema:
        values = table.column(wanted.name)
        _check_kind(view, wanted, values.type)
        try:
            columns.append(values.cast(wanted.type, safe=True).combine_chunks())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise _wrong_type(view, wanted, values.type, str(error)) from error
    batch = pa.record_batch([*map(_one_array, columns)], schema=schema)
    for name in (*view.entity_names, EVENT_TIMESTAMP):
        if batch.column(name).null_count:
            row = pc.index(pc.is_null(batch.column(name)), True).as_py()
            problem = TimestampError if name == EVENT_TIMESTAMP else EntityError
            raise problem(
                f"row {row} that is pushed to {view.key} has no {name}",
                found="NULL",
                hint="leave such rows out: they can belong to no entity and no instant",
            )
    newest = pc.max(batch.column(EVENT_TIMESTAMP)).as_py()
    if newest > now + FUTURE:
        raise TimestampError(
            f"a row that is pushed to {view.key} lies in the future",
            found=f"{EVENT_TIMESTAMP} {newest.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z, now it is {now:%H:%M:%S}Z",
            allowed=f"up to {int(FUTURE.total_seconds())} seconds ahead",
            hint="it would be served as fresh, and hide all that comes until then; look at the producer's clock",
        )
    return _last_of_equals(view, batch)


def _last_of_equals(view: FeatureView, batch: pa.RecordBatch) -> pa.RecordBatch:
    """Of rows of one entity and instant only the last: a push has one number, so nothing else could tell them apart."""
    keys = [*view.entity_names, EVENT_TIMESTAMP]
    numbered = pa.Table.from_batches([batch.select(keys)]).append_column("_row", pa.array(range(batch.num_rows)))
    last = numbered.group_by(keys).aggregate([("_row", "max")]).column("_row_max")
    return batch if len(last) == batch.num_rows else batch.take(last.combine_chunks().sort())


def _one_array(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    return column.chunk(0) if isinstance(column, pa.ChunkedArray) and column.num_chunks else column


def _check_names(view: FeatureView, schema: pa.Schema, names: Sequence[str]) -> None:
    repeated = [name for name, count in Counter(names).items() if count > 1]
    missing, unexpected = [n for n in schema.names if n not in names], [n for n in names if n not in schema.names]
    if missing or unexpected or repeated:
        found = {"no": missing, "unknown": unexpected, "twice": repeated}
        raise RequestError(
            f"the columns are not those of {view.key}",
            found="; ".join(f"{word} {chosen_from(columns)}" for word, columns in found.items() if columns),
            allowed=chosen_from(schema.names),
            hint="push every feature of the view; NULL where there is no value",
        )


def _check_kind(view: FeatureView, wanted: pa.Field, found: pa.DataType) -> None:
    """Refuse what Arrow would convert and nobody meant."""
    if pa.types.is_null(found):
        return
    if wanted.name == EVENT_TIMESTAMP and pa.types.is_timestamp(found) and found.tz is None:
        raise TimestampError(
            f"`{EVENT_TIMESTAMP}` has no time zone", found=str(found), hint="say in which zone it is, e.g. UTC"
        )
    kinds = (pa.types.is_boolean, _is_text, pa.types.is_temporal)
    if any(is_kind(wanted.type) != is_kind(found) for is_kind in kinds):
        raise _wrong_type(view, wanted, found, "")


def _is_text(type_: pa.DataType) -> bool:
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_dictionary(type_))


def _wrong_type(view: FeatureView, wanted: pa.Field, found: pa.DataType, why: str) -> RequestError:
    return RequestError(
        f"column {wanted.name!r} that is pushed to {view.key} has another type",
        found=f"{found}{f' ({why})' if why else ''}",
        allowed=str(wanted.type),
        hint="convert it yourself; nothing is converted by guess",
    )


def to_ipc(batch: pa.RecordBatch) -> bytes:
    """The rows as an Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def from_ipc(view: FeatureView, schema: pa.Schema, data: bytes) -> pa.RecordBatch:
    """The rows of a logged push; features that the view got since are NULL."""
    with pa.ipc.open_stream(data) as reader:
        batch = reader.read_next_batch()
    absent = [name for name in schema.names if name not in batch.schema.names and name in view.feature_names]
    for name in absent:
        batch = batch.append_column(name, pa.nulls(batch.num_rows, schema.field(name).type))
    return batch.select(schema.names)


def chunks(view: FeatureView, pushes: Iterable[Push]) -> Iterator[tuple[pa.Table, int, int]]:
    """Rows of logged pushes with number and instant of their push, some pushes at a time; how many, and the last."""
    schema = arrow_schema(view)
    batches: list[pa.RecordBatch] = []
    rows = last = 0
    for one in pushes:
        batch = from_ipc(view, schema, one.arrow)
        numbers = pa.array([one.number] * batch.num_rows, pa.int64())
        logged = pa.array([one.pushed_at] * batch.num_rows, pa.timestamp("us", "UTC"))
        batches.append(batch.append_column(PUSH_NUMBER, numbers).append_column(PUSHED_AT, logged))
        rows, last = rows + batch.num_rows, one.number
        if rows >= ROWS_PER_CHUNK:
            yield pa.Table.from_batches(batches), len(batches), last
            batches, rows = [], 0
    if batches:
        yield pa.Table.from_batches(batches), len(batches), last
