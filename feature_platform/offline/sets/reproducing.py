"""Making a kept training set again, and saying exactly what came of it.

Rule: made of the kept labels, the manifest's own declarations and the ledger as of the set's sequence, never of what
the project declares now. The verdict is by hash; where it is not `identical`, every reason that can be found is given.
"""

from __future__ import annotations

import enum
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from feature_platform import lake
from feature_platform.domain.batch import PublishedBatch
from feature_platform.errors import (
    DamagedFileError,
    DiskFullError,
    FeaturePlatformError,
    MemoryLimitError,
    Transient,
)
from feature_platform.lake.failures import lake_errors
from feature_platform.lake.sql import batches_table, quote_literal
from feature_platform.offline.parquet import read_content
from feature_platform.offline.sets.creating import Progress, versions
from feature_platform.offline.sets.files import hash_file
from feature_platform.offline.sets.kept import TrainingSet
from feature_platform.offline.sets.manifest import Manifest, hash_ids

if TYPE_CHECKING:
    from feature_platform.offline.store import FeatureStore

_SHOWN = 3


class Verdict(enum.StrEnum):
    """What came of making a set again."""

    IDENTICAL = "identical"
    """The same bytes."""
    SAME_CONTENT = "same content"
    """Other bytes that hold the same rows."""
    DIFFERENT = "different"
    """Other rows."""
    IMPOSSIBLE = "impossible"
    """It could not be made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reproduction:
    """A set made again."""

    key: str
    verdict: Verdict
    reasons: tuple[str, ...]
    """Why the verdict is not `identical`; also what is amiss although it is."""
    sha256: str | None
    content_hash: str | None
    expected_sha256: str
    expected_content_hash: str
    rows: int | None
    path: str | None
    """Where the new file was left, if that was asked for."""


def reproduce_training_set(
    store: FeatureStore, kept: TrainingSet, out: Path | None, progress: Progress
) -> Reproduction:
    """See `FeatureStore.reproduce_training_set`."""
    manifest = kept.manifest
    reasons = [*_other_versions(manifest), *_damaged_data(kept)]
    # in the target's directory, because a rename is atomic only within one file system
    parent = out.parent if out else lake.scratch_directory(store.settings.scratch)
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".reproducing-", dir=parent) as directory:
        made = Path(directory) / "data.parquet"
        try:
            used = _make(store, kept, made, progress)
        except (Transient, MemoryLimitError, DiskFullError):
            raise  # it says nothing about the set
        except FeaturePlatformError as error:
            reasons.append(str(error))
            return _reproduction(manifest, Verdict.IMPOSSIBLE, reasons)
        progress("hashing")
        with closing(lake.open_duckdb(store.settings)) as connection:
            content = read_content(connection, made)
        sha256 = hash_file(made)
        verdict = _judge(manifest, sha256, content.content_hash)
        if verdict is not Verdict.IDENTICAL:
            reasons += _other_batches(manifest, used)
        if verdict is Verdict.DIFFERENT:
            progress("looking for rows that are gone")
            reasons += _rows_gone(store, manifest, used)
        if out is not None:
            made.replace(out)
    return _reproduction(
        manifest,
        verdict,
        reasons or ([] if verdict is Verdict.IDENTICAL else ["no cause was found: please report this"]),
        sha256=sha256,
        content_hash=content.content_hash,
        rows=content.rows,
        path=str(out) if out else None,
    )


def _make(
    store: FeatureStore, kept: TrainingSet, path: Path, progress: Progress
) -> Mapping[str, tuple[PublishedBatch, ...]]:
    """Make the set; the batches that the join could see this time.

    Raises:
        FeaturePlatformError: it cannot be made.
    """
    then = type(store)(store.settings, kept.manifest.registry())
    with kept.local_labels() as labels:
        progress("joining the features")
        with then.get_historical_features(
            labels, kept.manifest.asked, at_sequence=kept.manifest.at_sequence, **kept.manifest.arguments
        ) as features:
            progress("writing the set")
            features.to_parquet(path, writer=kept.manifest.parquet)
    return features.facts.used


def _judge(manifest: Manifest, sha256: str, content_hash: str) -> Verdict:
    if sha256 == manifest.data.sha256:
        return Verdict.IDENTICAL
    return Verdict.SAME_CONTENT if content_hash == manifest.data.content_hash else Verdict.DIFFERENT


def _reproduction(
    manifest: Manifest,
    verdict: Verdict,
    reasons: Iterable[str],
    *,
    sha256: str | None = None,
    content_hash: str | None = None,
    rows: int | None = None,
    path: str | None = None,
) -> Reproduction:
    return Reproduction(
        key=manifest.key,
        verdict=verdict,
        reasons=tuple(reasons),
        sha256=sha256,
        content_hash=content_hash,
        expected_sha256=manifest.data.sha256,
        expected_content_hash=manifest.data.content_hash,
        rows=rows,
        path=path,
    )


def _other_versions(manifest: Manifest) -> list[str]:
    now = versions()
    return [
        f"made with {name} {then}, and this is {now.get(name, 'absent')}"
        for name, then in manifest.versions.items()
        # Python and pyarrow only carry the labels in; DuckDB joins and writes
        if name in ("feature_platform", "duckdb") and now.get(name) != then
    ]


def _damaged_data(kept: TrainingSet) -> list[str]:
    try:
        with kept.local_data():
            return []
    except DamagedFileError as error:
        return [f"the kept file: {error}"]


def _other_batches(manifest: Manifest, used: Mapping[str, tuple[PublishedBatch, ...]]) -> list[str]:
    reasons = []
    for then in manifest.batches:
        now = used.get(then.view, ())
        if hash_ids(now) != then.ids_sha256:
            reasons.append(f"{then.view}: the ledger names other batches now ({len(now)}, then {then.count})")
    return reasons


def _rows_gone(store: FeatureStore, manifest: Manifest, used: Mapping[str, tuple[PublishedBatch, ...]]) -> list[str]:
    """Batches that have not the rows in the lake which the ledger counted."""
    reasons = []
    doing = f"looking for rows of {manifest.key}"
    with lake_errors(doing), closing(lake.connect(store.settings, read_only=True)) as connection:
        for key, batches in used.items():
            counted = {batch.batch_id: batch for batch in batches}
            if not counted:
                continue
            listed = ", ".join(map(quote_literal, counted))
            found = dict(
                connection.execute(
                    f"select _batch_id, count(*) from {batches_table(manifest.view(key))}"
                    f" where _batch_id in ({listed}) group by _batch_id"
                ).fetchall()
            )
            gone = [batch for batch in counted.values() if found.get(batch.batch_id, 0) != batch.row_count]
            if gone:
                shown = ", ".join(
                    f"{batch.batch_id} of {batch.partition.key} ({found.get(batch.batch_id, 0)} of {batch.row_count})"
                    for batch in gone[:_SHOWN]
                )
                reasons.append(f"{key}: rows of {len(gone)} of {len(batches)} batches are not in the lake: {shown}")
    return reasons
