"""`columns` of a feature view: entities, `event_timestamp`, features, each with a type a client can decode."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from feature_platform.declaration.findings import Section, did_you_mean
from feature_platform.declaration.manifest import Node
from feature_platform.domain.feature_view import EVENT_TIMESTAMP, Column
from feature_platform.domain.types import (
    ELEMENT_TYPES,
    ENTITY_TYPES,
    MAX_LIST_LENGTH,
    MAX_PRECISION,
    ColumnType,
    FeatureType,
    parse_column_type,
)
from feature_platform.errors import chosen_from

RESERVED = frozenset(
    {
        "batch_id",
        "computed_at",
        "ingested_at",
        "online_at",
        "partition_end",
        "partition_start",
        "published_at",
        "request_time",
    }
)
"""The platform's own words: a feature of this name would be confused with the clock or the batch it names."""

NAME = re.compile(r"[a-z][a-z0-9_]*")
NAME_ALLOWED = "lower-case letters, digits and underscores, beginning with a letter"
_SPELLINGS = {
    ColumnType.TIMESTAMPTZ: "timestamptz",
}
_INSTEAD = {
    "TIMESTAMP": "timestamptz: an instant without a time zone means another moment elsewhere",
    "DATETIME": "timestamptz: an instant without a time zone means another moment elsewhere",
    "DECIMAL": f"decimal(precision, scale) with a precision from 1 to {MAX_PRECISION} and a scale up to it",
    "NUMERIC": f"decimal(precision, scale) with a precision from 1 to {MAX_PRECISION} and a scale up to it",
    "HUGEINT": "decimal(38, 0), bigint or double",
    "UHUGEINT": "decimal(38, 0), ubigint or double",
    "UUID": "varchar",
    "CHAR": "varchar",
    "BPCHAR": "varchar",
}
_LISTS = (
    f"a list of {chosen_from(type_.value.lower() for type_ in ELEMENT_TYPES)}, of one dimension, `type[]` or"
    f" `type[length]` with a length up to {MAX_LIST_LENGTH}; other things become one column per element"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """The columns of a view, sorted by role."""

    names: tuple[str, ...]
    entities: tuple[Column, ...]
    features: tuple[Column, ...]


def parse_columns(node: Node, section: Section) -> Columns:
    """The columns of a view. Reports every fault; a column whose type is unknown is left out."""
    reporter = section.reporter
    declared: Mapping[str, Mapping[str, object]] = node.get("columns") or {}
    entities = _entity_names(declared, section)
    columns: dict[str, Column] = {}
    for name, column in declared.items():
        if not str(column.get("description") or "").strip():
            reporter.report(f"column {name} has no description", hint="say what it means, its unit and its window")
        if name != EVENT_TIMESTAMP and name not in entities:
            _check_feature_name(name, section)
        elif name != EVENT_TIMESTAMP and not NAME.fullmatch(name):
            reporter.report(f"entity {name} has no usable name", found=name, allowed=NAME_ALLOWED)
        if (parsed := _column_type(name, column.get("data_type"), section)) is not None:
            columns[name] = Column(name=name, type=parsed, description=str(column.get("description") or "").strip())
    for name in entities:
        if name in columns and columns[name].type not in ENTITY_TYPES:
            reporter.report(
                f"entity {name} has a type that keys cannot have",
                found=columns[name].type.value.lower(),
                allowed=chosen_from(type_.value.lower() for type_ in ENTITY_TYPES),
                hint="a key needs one exact spelling per value, which floats and instants do not have",
            )
    _check_event_timestamp(declared, columns, section)
    features = [name for name in declared if name != EVENT_TIMESTAMP and name not in entities]
    if not features:
        reporter.report(
            "has no feature", found=f"columns {chosen_from(declared)}", hint="declare at least one column more"
        )
    return Columns(
        names=tuple(declared),
        entities=tuple(columns[name] for name in entities if name in columns),
        features=tuple(columns[name] for name in features if name in columns),
    )


def _entity_names(declared: Mapping[str, object], section: Section) -> tuple[str, ...]:
    """Key columns in key order, without those that are wrong."""
    names: dict[str, None] = {}
    for name in section.names("entities"):
        if name in names:
            section.report("entities", f"names {name} twice", hint="name each key column once")
        elif name == EVENT_TIMESTAMP:
            section.report(
                "entities", f"may not hold {EVENT_TIMESTAMP}", hint="every feature view has it; leave it out"
            )
        elif name not in declared:
            section.report(
                "entities",
                f"names {name}, which is no column of the model",
                allowed=chosen_from(column for column in declared if column != EVENT_TIMESTAMP),
                hint=did_you_mean(name, declared) or f"declare the column {name} under `columns`",
            )
        else:
            names[name] = None
    return tuple(names)


def _check_feature_name(name: str, section: Section) -> None:
    if name.startswith("_"):
        problem, hint = "begins with an underscore", f"call it {name.lstrip('_') or 'something else'}"
    elif name in RESERVED:
        problem, hint = "has a name the platform uses itself", "choose a name that says what the value is"
    elif not NAME.fullmatch(name):
        problem, hint = "has no usable name", ""
    else:
        return
    section.reporter.report(
        f"feature {name} {problem}", found=name, allowed=f"{NAME_ALLOWED}; not {chosen_from(RESERVED)}", hint=hint
    )


def _column_type(name: str, data_type: object, section: Section) -> FeatureType | None:
    simple = (_SPELLINGS.get(type_, type_.value.lower()) for type_ in ColumnType)
    allowed = chosen_from((*simple, "decimal(p,s)", "float[]", "float[768] and other lists of numbers"))
    if not data_type:
        section.reporter.report(f"column {name} has no `data_type`", allowed=allowed, hint="write `data_type: double`")
        return None
    parsed = parse_column_type(str(data_type))
    if parsed is None:
        base = re.split(r"[\s(\[]", str(data_type).strip().upper())[0]
        instead = _INSTEAD.get(base, "") if "[" not in str(data_type) else _LISTS
        section.reporter.report(
            f"column {name} has a type the platform does not serve",
            found=str(data_type),
            allowed=allowed,
            hint=f"cast to {instead}" if instead else "",
        )
    return parsed


def _check_event_timestamp(declared: Mapping[str, object], columns: Mapping[str, Column], section: Section) -> None:
    write = f"write `- {{name: {EVENT_TIMESTAMP}, data_type: timestamptz, description: …}}`"
    if EVENT_TIMESTAMP not in declared:
        section.reporter.report(
            f"has no column {EVENT_TIMESTAMP}",
            found=f"columns {chosen_from(declared)}",
            allowed="the instant as of which a row is true, as timestamptz",
            hint=did_you_mean(EVENT_TIMESTAMP, declared) or write,
        )
    elif EVENT_TIMESTAMP in columns and columns[EVENT_TIMESTAMP].type is not ColumnType.TIMESTAMPTZ:
        section.reporter.report(
            f"column {EVENT_TIMESTAMP} has the wrong type",
            found=columns[EVENT_TIMESTAMP].type.value.lower(),
            allowed="timestamptz",
            hint=write,
        )
