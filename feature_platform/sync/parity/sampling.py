"""Which entities are compared: by a hash of their encoded key, so that lake and store choose the same ones.

Rule: the SQL here spells entity keys exactly as `online.keys` does (tests/integration/test_parity.py compares them).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from feature_platform.domain.feature_view import EVENT_TIMESTAMP, Column, FeatureView
from feature_platform.domain.types import ColumnType
from feature_platform.lake.sql import batches_table, quote_literal
from feature_platform.lake.sql import quote_identifier as quote
from feature_platform.online import keys
from feature_platform.sync.plan import HORIZON, BatchRange, Statement, in_batches, typed

_DIGITS: Final = 8
_HASHES: Final = 1 << (4 * _DIGITS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A fraction of all keys."""

    fraction: float
    seed: str

    @property
    def bound(self) -> str:
        """The first hash that is not in the sample, in hexadecimal; `g` if all are."""
        return "g" if self.fraction >= 1 else f"{int(self.fraction * _HASHES):0{_DIGITS}x}"

    def holds(self, entity: bytes) -> bool:
        """Whether an encoded entity key is in the sample.

        >>> Sample(fraction=1.0, seed="s").holds(b"UA"), Sample(fraction=0.0, seed="s").holds(b"UA")
        (True, False)
        """
        digest = hashlib.md5(f"{self.seed}:".encode() + entity, usedforsecurity=False).hexdigest()
        return digest[:_DIGITS] < self.bound

    def predicate(self, view: FeatureView) -> Statement:
        """The same, for rows of the view's table."""
        return Statement(
            sql=f"left(md5(? || {entity_text(view)}), {_DIGITS}) < ?", parameters=(f"{self.seed}:", self.bound)
        )


def entity_text(view: FeatureView) -> str:
    """SQL of the encoded entity key."""
    return f" || {quote_literal(keys.SEPARATOR)} || ".join(_component(column) for column in view.entities)


def among(view: FeatureView, entities: Sequence[str]) -> Statement:
    """Predicate: the encoded key is one of these."""
    return Statement(sql=f"{entity_text(view)} in (select unnest(?::varchar[]))", parameters=(list(entities),))


def count_entities(view: FeatureView, batches: BatchRange) -> Statement:
    """About how many entities the batches have."""
    where, parameters = in_batches(batches)
    return Statement(
        sql=f"select approx_count_distinct({entity_text(view)}) from {batches_table(view)} where {where}",
        parameters=parameters,
    )


def published_rows(
    view: FeatureView, batches: BatchRange, entities: Sequence[str], events: Sequence[datetime]
) -> Statement:
    """Every row, superseded ones included, that these entities had at these event times (pairwise)."""
    where, parameters = in_batches(batches)
    return Statement(
        sql="with asked as (select unnest(?::varchar[]) as _entity, unnest(?::timestamptz[]) as _event)"
        f" select {typed(view.entities)}, {EVENT_TIMESTAMP} as {HORIZON}, {EVENT_TIMESTAMP}, {typed(view.features)}"
        f" from {batches_table(view)} semi join asked on {entity_text(view)} = _entity and {EVENT_TIMESTAMP} = _event"
        f" where {where}",
        parameters=(list(entities), list(events), *parameters),
    )


def _component(column: Column) -> str:
    text = f"cast({quote(column.name)} as varchar)"
    if column.type is not ColumnType.VARCHAR:
        return text
    for plain, escaped in keys.ESCAPES:
        text = f"replace({text}, {quote_literal(plain)}, {quote_literal(escaped)})"
    return f"coalesce(nullif({text}, ''), {quote_literal(keys.EMPTY)})"
