"""The manifest of a kept training set: what it was made of, and what came out.

Rule: it is enough, and where order means something it holds lists (Postgres keeps no order of keys). The set is
made again from the manifest, the labels beside it and the rows of the batches it names, whatever the project declares
by then. The same document lies in the ledger and as JSON beside the Parquet.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from feature_platform.declaration import FeatureRegistry
from feature_platform.declaration.archive import from_archive, to_archive
from feature_platform.domain.batch import PublishedBatch
from feature_platform.domain.feature_service import FeatureService
from feature_platform.domain.feature_view import FeatureView
from feature_platform.domain.number_ranges import Ranges
from feature_platform.errors import RequestError

FORMAT = 1
"""Of this document. A later version of the platform reads every earlier format."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,99}")
_NAME_FORM = "a letter, then letters, digits and underscores, at most 100"
_REFERENCE = re.compile(rf"(?P<name>{_NAME.pattern})(?:@v?(?P<version>[1-9][0-9]{{0,8}}))?")


def parse_name(reference: str) -> tuple[str, int | None]:
    """Name and version of `name` or `name@3`.

    Raises:
        RequestError: it is neither.

    >>> parse_name("departure_delay@3"), parse_name("departure_delay")
    (('departure_delay', 3), ('departure_delay', None))
    """
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise RequestError(
            f"{reference!r} is no name of a training set", allowed=f"`name` or `name@3`; a name is {_NAME_FORM}"
        )
    return match["name"], int(match["version"]) if match["version"] else None


@dataclass(frozen=True, slots=True, kw_only=True)
class SetColumn:
    """One column of a file."""

    name: str
    type: str
    """DuckDB's name of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetFile:
    """One Parquet file of a set."""

    file: str
    """Its name in the set's directory."""
    bytes: int
    sha256: str
    """Of the file's bytes."""
    content_hash: str
    """Of names, types and rows, in whatever order: see `offline.parquet.read_content`."""
    rows: int
    columns: tuple[SetColumn, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SetFeature:
    """One feature column: where it comes from and what it is called in the set."""

    view: str
    feature: str
    name: str
    null_share: float
    """Share of rows without a value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UsedBatches:
    """The batches of one view whose rows the join could see."""

    view: str
    """`name@version`."""
    count: int
    seqs: Ranges
    """Their numbers in the ledger (`batch_seq`), as ranges [first, last]."""
    ids_sha256: str
    """Of `hash_ids`."""
    code_versions: Mapping[str, int]
    """How many of them each code version computed."""
    declared_code_version: str
    """That of the view when the set was made."""


def hash_ids(batches: Iterable[PublishedBatch]) -> str:
    """SHA-256 over the ids of batches in the order of their numbers, one per line."""
    ordered = sorted(batches, key=lambda batch: batch.seq)
    return hashlib.sha256("".join(f"{batch.batch_id}\n" for batch in ordered).encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Everything that is known of a kept training set."""

    format: int
    name: str
    version: int
    created_at: datetime
    created_by: str
    mode: str
    at_sequence: int
    """The state of the ledger that decided which batches were visible."""
    row_count: int
    service: FeatureService | None
    """As declared then; None if features were asked for by reference."""
    service_sha256: str | None
    references: Sequence[str]
    """What was asked for, each feature by its full name `view@1:feature`."""
    arguments: Mapping[str, Any]
    """All arguments of `get_historical_features` that decide the answer, also those left at their default."""
    label_columns: Sequence[str]
    features: tuple[SetFeature, ...]
    labels: SetFile
    data: SetFile
    batches: tuple[UsedBatches, ...]
    """By view, in the order of the features."""
    parquet: Mapping[str, Any]
    """Settings of the Parquet writer."""
    versions: Mapping[str, str]
    """Of the platform, DuckDB, pyarrow, Python."""
    views: tuple[FeatureView, ...]
    """The declarations of the views, in the order of the features."""

    @property
    def key(self) -> str:
        """`name@version`."""
        return f"{self.name}@{self.version}"

    @property
    def asked(self) -> FeatureService | list[str]:
        """What to ask `get_historical_features` for to get the same."""
        return self.service if self.service is not None else [*self.references]

    @property
    def excluded(self) -> int:
        """Labels that are not among its rows: they fell into an outage, and the service excludes such."""
        return self.labels.rows - self.row_count

    @property
    def timestamp_column(self) -> str:
        """Column of the labels that holds their time."""
        return str(self.arguments["timestamp_column"])

    def view(self, key: str) -> FeatureView:
        """The declaration of one of its views."""
        return next(view for view in self.views if view.key == key)

    def registry(self) -> FeatureRegistry:
        """The declarations as they were."""
        latest: dict[str, int] = {}
        for view in self.views:
            latest[view.name] = max(view.version, latest.get(view.name, 0))
        services = {self.service.name: self.service} if self.service else {}
        return FeatureRegistry(
            views={view.key: view for view in self.views}, services=services, sources={}, latest=latest
        )

    def to_json(self) -> dict[str, Any]:
        """The document."""
        document: dict[str, Any] = to_archive(self)
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Manifest:
        """The manifest of a document.

        Raises:
            ConfigurationError: no version of the platform up to this one wrote it.
        """
        return from_archive(cls, document)


def declaration_hash(declaration: object) -> str:
    """SHA-256 over a declaration's archive."""
    return hashlib.sha256(json.dumps(to_archive(declaration), sort_keys=True).encode()).hexdigest()
