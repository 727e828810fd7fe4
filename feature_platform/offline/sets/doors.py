"""The part of `FeatureStore` that keeps training sets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from feature_platform.domain.feature_service import FeatureService
from feature_platform.errors import RequestError
from feature_platform.ledger import Ledger, whoami
from feature_platform.offline.sets import comparing, creating, declared, explaining, reproducing
from feature_platform.offline.sets.files import SetFiles
from feature_platform.offline.sets.kept import TrainingSet
from feature_platform.offline.sets.manifest import parse_name

if TYPE_CHECKING:
    from feature_platform.offline.store import FeatureStore


def _silent(_: str) -> None: ...


class TrainingSetDoors:
    """Methods of `FeatureStore`: see docs/reference/training-sets.md."""

    def create_training_set(
        self,
        entity_df: Any,
        service_or_refs: str | FeatureService | Iterable[str],
        *,
        name: str | None = None,
        created_by: str | None = None,
        progress: Callable[[str], None] = _silent,
        **options: Any,
    ) -> TrainingSet:
        """Make a training set and keep it, with its labels and a manifest.

        Args:
            entity_df: the labels, as `get_historical_features` takes them.
            service_or_refs: a feature service, or references.
            name: its name (default: the service's), or `name@3`. A name alone takes its next version.
            created_by: who made it (default: the user of this process).
            progress: called with a line for each stage.
            options: further arguments of `get_historical_features`; they are recorded.

        Raises:
            NameTakenError: there is a set of this name and version.
            LockBusyError: another process makes a set of this name just now.
            RequestError: as `get_historical_features`.
        """
        return creating.create_training_set(
            self._store,
            entity_df,
            service_or_refs,
            name=name,
            created_by=created_by or whoami(),
            progress=progress,
            options=options,
        )

    def create_declared_training_set(
        self, name: str, *, created_by: str | None = None, progress: Callable[[str], None] = _silent
    ) -> TrainingSet:
        """Make the next version of a training set that an exposure declares, of the labels that are there now.

        Args:
            name: its name in `meta.training_sets`.
            created_by: who made it (default: the user of this process).
            progress: called with a line for each stage.

        Raises:
            UnknownNameError: none of this name is declared.
            NotDeployedError: the lake lacks the labels' view.
            LockBusyError: another process makes a set of this name just now.
            RequestError: as `get_historical_features`.
        """
        return declared.create_declared_training_set(
            self._store,
            self._store.registry.training_set(name),
            created_by=created_by or whoami(),
            progress=progress,
        )

    def training_set(self, name: str) -> TrainingSet:
        """A kept training set: `name` (its newest version) or `name@3`.

        Raises:
            UnknownNameError: there is none.
        """
        with Ledger.connect(self._store.settings.ledger_url) as ledger:
            return TrainingSet(ledger.training_set(*parse_name(name)), SetFiles.of(self._store.settings))

    def training_sets(self, name: str | None = None) -> tuple[TrainingSet, ...]:
        """All training sets, or all versions of one name; newest first, those given up included."""
        with Ledger.connect(self._store.settings.ledger_url) as ledger:
            records = ledger.training_sets(name)
        return tuple(TrainingSet(record, SetFiles.of(self._store.settings)) for record in records)

    def reproduce_training_set(
        self, name: str, out: Path | None = None, *, progress: Callable[[str], None] = _silent
    ) -> reproducing.Reproduction:
        """Make a kept set again, from its labels and its manifest, and compare by hash.

        Args:
            name: `name` or `name@3`.
            out: where to leave the new file (default: nowhere).
            progress: called with a line for each stage.

        Raises:
            UnknownNameError: there is no such set.
            Transient, MemoryLimitError, DiskFullError: it was not found out whether the set can be made.
        """
        return reproducing.reproduce_training_set(self._store, self.training_set(name), out, progress)

    def explain_training_set(
        self,
        name: str,
        *,
        row: int | None = None,
        where: Mapping[str, str] | None = None,
        time: datetime | None = None,
        features: Iterable[str] = (),
    ) -> explaining.Explanation:
        """Why one row of a kept set holds what it holds: the rows that could have won, their clocks, their fates.

        Args:
            name: `name` or `name@3`.
            row: number of the row, from 0; or
            where: values of the labels' columns as text, e.g. `{"carrier": "AA"}`, and
            time: the label's time. Of several such rows the first is explained.
            features: columns of the set, `view:feature`, or views (default: all).

        Raises:
            UnknownNameError: no such set, column or feature.
            RequestError: no such row.
            DamagedFileError: the set's file is missing, or is not the one that was kept.
        """
        asked = explaining.Asked(row=row, where=where or {}, time=time, features=tuple(features))
        return explaining.explain_training_set(self._store, self.training_set(name), asked)

    def diff_training_sets(self, a: str, b: str) -> comparing.SetsDiff:
        """Which rows and features of two kept sets differ, and why.

        Raises:
            UnknownNameError: there is no such set.
            RequestError: their rows cannot be matched: no common entity, or another time column.
            DamagedFileError: a file is missing, or is not the one that was kept.
        """
        return comparing.diff_training_sets(self._store, self.training_set(a), self.training_set(b))

    def release_training_set(self, name: str, *, reason: str, released_by: str | None = None) -> bool:
        """Give a set up: retention may remove the batches it needs. Its record and its files stay.

        Args:
            name: `name@3`, or a name that has one version.
            reason: why, for the record.
            released_by: who (default: the user of this process).

        Returns:
            False if it was given up before.

        Raises:
            UnknownNameError: there is no such set.
            RequestError: the name has several versions, and none is said: what is given up may be gone for good.
        """
        record = self.training_set(name).record
        versions = [] if parse_name(name)[1] else [one.key for one in self.training_sets(name)]
        if len(versions) > 1:
            raise RequestError(
                f"{name} has {len(versions)} versions",
                allowed=", ".join(versions),
                hint=f"say which one is given up, e.g. {versions[-1]}",
            )
        with Ledger.connect(self._store.settings.ledger_url) as ledger:
            return ledger.release_training_set(
                record.name, record.version, reason=reason, released_by=released_by or whoami()
            )

    @property
    def _store(self) -> FeatureStore:
        return cast("FeatureStore", self)
