"""Making a training set that is kept.

Rule: the labels are written first, and the set is made of that copy by the same call that makes it again later. Files
come before the record and the record is one append, so a set exists whole or not at all, whenever its maker dies.
"""

from __future__ import annotations

import inspect
import json
import platform
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

import feature_platform
from feature_platform import lake
from feature_platform.declaration.archive import to_archive
from feature_platform.domain.batch import PublishedBatch
from feature_platform.domain.feature_service import FeatureService, ViewSelection
from feature_platform.domain.feature_view import FeatureView
from feature_platform.domain.number_ranges import to_ranges
from feature_platform.errors import NameTakenError, RequestError
from feature_platform.ledger import Ledger, training_set_lock
from feature_platform.offline.labels import write_labels
from feature_platform.offline.parquet import read_content
from feature_platform.offline.sets import manifest as documents
from feature_platform.offline.sets.files import DATA, LABELS, MANIFEST, SetFiles, hash_file
from feature_platform.offline.sets.kept import TrainingSet

if TYPE_CHECKING:
    from feature_platform.offline.store import FeatureStore

Progress = Callable[[str], None]
# what an argument list holds besides the arguments that decide the answer
_NOT_RECORDED = frozenset({"self", "entity_df", "service_or_refs", "at_sequence", "plan"})


def create_training_set(
    store: FeatureStore,
    entity_df: Any,
    service_or_refs: str | FeatureService | Iterable[str],
    *,
    name: str | None,
    created_by: str,
    progress: Progress,
    options: Mapping[str, Any],
) -> TrainingSet:
    """See `FeatureStore.create_training_set`."""
    if not isinstance(service_or_refs, (str, FeatureService)):
        service_or_refs = tuple(service_or_refs)
    selections = store.registry.select(service_or_refs)
    service = _service(store, service_or_refs)
    name, wanted = documents.parse_name(name or _derive_name(service, selections))
    arguments = _arguments(store, options)
    views = tuple(store.registry.views[selection.key] for selection in selections)
    files = SetFiles.of(store.settings)
    with Ledger.connect(store.settings.ledger_url) as ledger, training_set_lock(ledger.connection, name):
        version = _version(ledger, name, wanted)
        with files.making(name) as directory, closing(lake.open_duckdb(store.settings)) as connection:
            progress("copying the labels")
            write_labels(
                connection,
                entity_df,
                directory / LABELS,
                views=views,
                timestamp_column=arguments["timestamp_column"],
            )
            progress("joining the features")
            with store.get_historical_features(directory / LABELS, service_or_refs, **options) as features:
                progress("writing the set")
                features.to_parquet(directory / DATA)
                null_shares = features.null_shares()
            facts = features.facts
            progress("hashing")
            manifest = documents.Manifest(
                format=documents.FORMAT,
                name=name,
                version=version,
                created_at=datetime.now(UTC),
                created_by=created_by,
                mode=str(facts.mode),
                at_sequence=facts.ledger_sequence,
                row_count=facts.row_count,
                service=service,
                service_sha256=documents.declaration_hash(service) if service else None,
                references=[f"{one.key}:{feature}" for one in selections for feature in one.features],
                arguments=arguments | {"mode": str(facts.mode), "store": facts.store},
                label_columns=[*facts.label_columns],
                features=tuple(
                    documents.SetFeature(
                        view=column.view, feature=column.feature, name=column.name, null_share=null_shares[column.name]
                    )
                    for column in facts.features
                ),
                labels=_describe_file(connection, directory / LABELS),
                data=_describe_file(connection, directory / DATA),
                batches=tuple(_describe_batches(ledger, facts.used[view.key], view) for view in views),
                parquet=facts.writer,
                versions=versions(),
                views=views,
            )
            text = json.dumps(manifest.to_json(), indent=2, ensure_ascii=False)
            (directory / MANIFEST).write_text(text + "\n", encoding="utf-8")
            files.place(directory, name, version)
            ledger.record_training_set(
                name,
                version,
                at_sequence=manifest.at_sequence,
                manifest=json.loads(text),
                batches={key: [batch.seq for batch in used] for key, used in facts.used.items()},
                created_by=manifest.created_by,
            )
        return TrainingSet(ledger.training_set(name, version), files)


def _version(ledger: Ledger, name: str, wanted: int | None) -> int:
    """The version to give: the one asked for, else the next."""
    version = ledger.next_version(name)
    if wanted is None or wanted == version:
        return version
    if wanted < version:
        raise NameTakenError(
            f"there is a training set {name}@{wanted} already",
            allowed=f"{name}@{version}, or another name",
            hint=f"create it as {name!r}, which takes the next version",
        )
    raise RequestError(
        f"the next version of {name} is {version}", found=f"{name}@{wanted}", allowed=f"{name}@{version}"
    )


def _service(store: FeatureStore, asked: str | FeatureService | tuple[str, ...]) -> FeatureService | None:
    if isinstance(asked, FeatureService):
        return asked
    return store.registry.services.get(asked) if isinstance(asked, str) else None


def _derive_name(service: FeatureService | None, selections: tuple[ViewSelection, ...]) -> str:
    return service.name if service else "_and_".join(dict.fromkeys(selection.view for selection in selections))


def _arguments(store: FeatureStore, options: Mapping[str, Any]) -> dict[str, Any]:
    """All arguments of the join that decide its answer, as JSON holds them."""
    try:
        bound = inspect.signature(store.get_historical_features).bind(None, None, **options)
    except TypeError as error:
        raise RequestError(
            "no such argument of a training set", found=str(error), hint="see `FeatureStore.get_historical_features`"
        ) from error
    bound.apply_defaults()
    return {key: to_archive(value) for key, value in bound.arguments.items() if key not in _NOT_RECORDED}


def _describe_batches(ledger: Ledger, used: tuple[PublishedBatch, ...], view: FeatureView) -> documents.UsedBatches:
    return documents.UsedBatches(
        view=view.key,
        count=len(used),
        seqs=to_ranges(batch.seq for batch in used),
        ids_sha256=documents.hash_ids(used),
        code_versions=ledger.count_code_versions(batch.seq for batch in used),
        declared_code_version=view.code_version,
    )


def _describe_file(connection: duckdb.DuckDBPyConnection, path: Path) -> documents.SetFile:
    content = read_content(connection, path)
    return documents.SetFile(
        file=path.name,
        bytes=path.stat().st_size,
        sha256=hash_file(path),
        content_hash=content.content_hash,
        rows=content.rows,
        columns=tuple(documents.SetColumn(name=name, type=kind) for name, kind in content.schema.items()),
    )


def versions() -> dict[str, str]:
    """Versions of what decides the bytes of a set."""
    return {
        "feature_platform": feature_platform.__version__,
        "duckdb": duckdb.__version__,
        "pyarrow": pa.__version__,
        "python": platform.python_version(),
    }
