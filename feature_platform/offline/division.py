"""How the labels of one question are divided: modelled, served, in an outage. Pure SQL, no connection.

Rule: every label is in exactly one part. Where an outage is replayed as NULL or excludes its labels, those in it are in
none; where it is answered as of the instant before it, they stay where that instant falls.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from feature_platform.domain.feature_service import OutagePolicy
from feature_platform.domain.serving_history import ServedHistory
from feature_platform.domain.training_set import Mode
from feature_platform.lake.sql import quote_identifier as quote
from feature_platform.lake.sql import quote_instant
from feature_platform.offline import outages
from feature_platform.offline import point_in_time as pit
from feature_platform.offline.modes import Outages
from feature_platform.offline.question import Question

NEVER: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Division:
    """The parts of the labels, each as a condition over `labels`."""

    question: Question
    served_since: datetime | None
    """From when on labels are served; None: none of them is."""
    marked: str | None = None
    """Table of labels that are marked if they fall into an outage; None if that does not matter."""

    @property
    def replays(self) -> bool:
        """Whether labels in an outage are answered by the service's policy."""
        return self.question.outages is Outages.AS_RECORDED

    @property
    def is_stale(self) -> bool:
        """Whether labels in an outage are answered as of just before it."""
        return self.replays and self.question.outage_policy is OutagePolicy.STALE

    @property
    def is_modelled(self) -> str:
        """Which labels are modelled."""
        has_none = bool(self.marked) and self.replays and not self.is_stale
        if self.served_since is None:
            return f"not {outages.IS_OUTAGE}" if has_none else "true"
        before = f"{quote(self.question.timestamp_column)} < {self._since}"
        if has_none:
            return f"({before} and not {outages.IS_OUTAGE})"
        return f"({before} or {outages.IS_OUTAGE})" if self.marked and not self.replays else before

    @property
    def is_served(self) -> str:
        """Which labels are served."""
        since = f"{quote(self.question.timestamp_column)} >= {self._since}"
        return f"({since} and not {outages.IS_OUTAGE})" if self.marked and not self.is_stale else since

    @property
    def counts(self) -> str:
        """Which labels count by what is known of them: those in a replayed outage count as such."""
        return f"not {outages.IS_OUTAGE}" if self.marked and self.replays else "true"

    @property
    def labels(self) -> str:
        """The relation that the conditions are over."""
        return quote(self.marked) if self.marked else pit.LABELS

    @property
    def time(self) -> str:
        """The instant that decides what a label sees."""
        return outages.AS_OF if self.marked and self.is_stale else quote(self.question.timestamp_column)

    @property
    def _since(self) -> str:
        assert self.served_since is not None  # noqa: S101 - asked only then
        return quote_instant(self.served_since)


def served_since(question: Question, history: ServedHistory | None) -> datetime | None:
    """From when on labels are served; None: none of them is."""
    if history is None or question.mode is Mode.MODELLED or not question.labels.count:
        return None
    if question.mode is Mode.SERVED:
        return question.labels.oldest or NEVER
    live = history.live_since
    return live if live is not None and live <= (question.labels.newest or NEVER) else None
