"""Why two sets differ: what was asked or declared otherwise, and which batches came in each other's place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

from feature_platform.domain.feature_view import FeatureView
from feature_platform.domain.number_ranges import Ranges, subtract
from feature_platform.ledger import Ledger
from feature_platform.offline.sets.manifest import Manifest

_SHOWN = 5
# of a view's declaration, what decides which row wins
_DECIDING = ("ttl", "availability_delay", "grain", "code_version")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Something that is not the same in both sets."""

    what: str
    a: Any
    b: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Replaced:
    """A partition that the two sets read from different batches; a number is None if one did not read it."""

    partition: str
    seq_a: int | None
    seq_b: int | None
    code_a: str | None
    code_b: str | None
    published_a: datetime | None
    published_b: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewCauses:
    """How the batches of one view differ."""

    view: str
    replaced: int
    """Partitions that both read, from different batches."""
    only_in_a: int
    """Partitions that only A read."""
    only_in_b: int
    other_code: int
    """Of the replaced ones, those that another code version computed."""
    examples: tuple[Replaced, ...]


def find_causes(one: Manifest, other: Manifest) -> tuple[Cause, ...]:
    """What was asked, declared or installed otherwise."""
    compared: dict[str, tuple[Any, Any]] = {
        "labels": (one.labels.content_hash, other.labels.content_hash),
        "ledger sequence": (one.at_sequence, other.at_sequence),
        "service declaration": (one.service_sha256, other.service_sha256),
    }
    for name in (*one.arguments, *(name for name in other.arguments if name not in one.arguments)):
        compared[name] = (one.arguments.get(name), other.arguments.get(name))
    mine, theirs = ({view.key: view for view in manifest.views} for manifest in (one, other))
    for key, view in mine.items():
        if key in theirs:
            compared |= dict(_declared(view, theirs[key]))
    for name in one.versions:
        compared[f"version of {name}"] = (one.versions[name], other.versions.get(name))
    return tuple(Cause(what=what, a=a, b=b) for what, (a, b) in compared.items() if a != b)


def _declared(one: FeatureView, other: FeatureView) -> Iterator[tuple[str, tuple[Any, Any]]]:
    for name in _DECIDING:
        yield f"{name} of {one.key}", (getattr(one, name), getattr(other, name))


def find_view_causes(ledger: Ledger, one: Manifest, other: Manifest) -> tuple[ViewCauses, ...]:
    """Per view that both sets used, what became of its batches."""
    theirs = {used.view: used for used in other.batches}
    return tuple(
        _view_causes(ledger, used.view, used.seqs, theirs[used.view].seqs)
        for used in one.batches
        if used.view in theirs and used.ids_sha256 != theirs[used.view].ids_sha256
    )


def _view_causes(ledger: Ledger, view: str, seqs_a: Ranges, seqs_b: Ranges) -> ViewCauses:
    gone = {b.partition: b for b in ledger.batches_numbered(view, subtract(seqs_a, seqs_b))}
    come = {b.partition: b for b in ledger.batches_numbered(view, subtract(seqs_b, seqs_a))}
    codes = ledger.code_versions(batch.batch_id for batch in (*gone.values(), *come.values()))
    partitions = sorted({*gone, *come})
    replaced = [partition for partition in partitions if partition in gone and partition in come]

    def code(batches: Mapping[Any, Any], partition: Any) -> str | None:
        return codes[batches[partition].batch_id] if partition in batches else None

    def ordered() -> Iterable[Any]:
        yield from replaced
        yield from (partition for partition in partitions if partition not in gone or partition not in come)

    return ViewCauses(
        view=view,
        replaced=len(replaced),
        only_in_a=len(gone) - len(replaced),
        only_in_b=len(come) - len(replaced),
        other_code=sum(code(gone, partition) != code(come, partition) for partition in replaced),
        examples=tuple(
            Replaced(
                partition=partition.key,
                seq_a=gone[partition].seq if partition in gone else None,
                seq_b=come[partition].seq if partition in come else None,
                code_a=code(gone, partition),
                code_b=code(come, partition),
                published_a=gone[partition].published_at if partition in gone else None,
                published_b=come[partition].published_at if partition in come else None,
            )
            for partition in islice(ordered(), _SHOWN)
        ),
    )
