"""The answer of one view: which labels are modelled and which are served, from which batches, by which join.

Rule: what is read is decided by the ledger's records as of one sequence (`Evidence`), before a row is looked at. Every
view gets one narrow table by label; views are joined one at a time, which was measured cheaper and leaner than all in
one statement.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime

import duckdb
import pyarrow as pa

from feature_platform.domain.batch import PublishedBatch
from feature_platform.domain.feature_service import OutagePolicy
from feature_platform.domain.feature_view import EVENT_TIMESTAMP
from feature_platform.domain.serving_history import ServedHistory
from feature_platform.domain.types import usual_bytes
from feature_platform.lake.failures import lake_errors
from feature_platform.lake.sql import BATCH_ID, batches_table
from feature_platform.lake.sql import quote_identifier as quote
from feature_platform.ledger import Acknowledged
from feature_platform.offline import outages, pushed, served
from feature_platform.offline import point_in_time as pit
from feature_platform.offline.division import NEVER, Division, served_since
from feature_platform.offline.origins import LATE, origins
from feature_platform.offline.output import Origin
from feature_platform.offline.provenance import ProvenanceCounts
from feature_platform.offline.question import Evidence, Question


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The table of one view's answers, and how it came about."""

    table: str
    plans: tuple[pit.Plan, ...]
    """Of the join that models, of the one that serves; those that there were."""
    used: tuple[PublishedBatch, ...]
    """The batches that any label could see."""
    counts: ProvenanceCounts
    origins: tuple[Origin, ...]
    excluding: str | None
    """Table of labels that are marked if they fall into an outage; those are left out of the training set."""


def answer_view(connection: duckdb.DuckDBPyConnection, question: Question, evidence: Evidence) -> Answer:
    """Compute the answer table of one view."""
    return _Answering(connection, question, evidence).answer()


class _Answering:
    """One question, answered in up to two parts: labels before the view was live, and labels since."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, question: Question, evidence: Evidence) -> None:
        self._connection = connection
        self._question = question
        self._evidence = evidence
        self._used: dict[str, PublishedBatch] = {}
        self._plans: list[pit.Plan] = []
        self._unknown = self._unconfirmed = self._ambiguous = 0
        self._has_moments = False
        labels = question.labels
        self._oldest, self._newest = labels.oldest or NEVER, labels.newest or NEVER
        self._parts = Division(question=question, served_since=served_since(question, evidence.history))

    def answer(self) -> Answer:
        """Run both parts; the table holds the labels that have a value."""
        question = self._question
        self._parts = parts = replace(self._parts, marked=self._mark_outages())
        in_outage = self._count(f"{outages.IS_OUTAGE}") if parts.marked and parts.replays else 0
        modelled = self._count(parts.is_modelled)
        served_ones = 0 if parts.served_since is None else self._count(parts.is_served)
        if modelled or parts.served_since is None:
            oldest, newest = self._range(parts.is_modelled)
            self._model(self._join(pit.Visibility.MODELLED), oldest=oldest, newest=newest, count=modelled)
        if parts.served_since is not None:
            oldest, newest = self._range(parts.is_served)
            join = self._join(pit.Visibility.SERVED, extends=bool(modelled))
            self._serve(join, oldest=oldest, newest=newest, count=served_ones)
        stale = self._count(f"{parts.is_modelled} and {outages.IS_OUTAGE}") if in_outage and parts.is_stale else 0
        of_served = in_outage - stale if parts.is_stale else 0
        return Answer(
            table=question.answer,
            plans=tuple(self._plans),
            used=tuple(self._used.values()),
            counts=ProvenanceCounts(
                modelled=modelled - stale,
                served_exact=served_ones - of_served - self._unknown - self._ambiguous,
                served_ambiguous=self._ambiguous,
                unknown=self._unknown,
                unconfirmed=self._unconfirmed,
                outage=in_outage,
            ),
            origins=origins(parts, has_moments=self._has_moments) if question.has_origins else (),
            excluding=parts.marked if parts.replays and question.outage_policy is OutagePolicy.EXCLUDE else None,
        )

    def _mark_outages(self) -> str | None:
        """The table of labels that are marked if they fall into an outage; None if it does not matter."""
        question, history = self._question, self._evidence.history
        if question.outages is None or history is None or not question.labels.count:
            return None
        found = outages.outage_table(history, oldest=self._oldest, newest=self._newest)
        if found is None:
            return None
        table = f"{question.answer}_marked"
        lost = self._list("outages", found)
        keys, time = question.view.entity_names, question.timestamp_column
        self._run(outages.mark_labels(table, lost, keys=keys, timestamp_column=time))
        return table

    def _count(self, condition: str) -> int:
        if condition == "true":
            return self._question.labels.count
        ((count,),) = self._connection.execute(
            f"select count(*) from {self._parts.labels} where {condition}"
        ).fetchall()
        return int(count)

    def _range(self, condition: str) -> tuple[datetime, datetime]:
        """The oldest and newest instant that decides what these labels see."""
        parts = self._parts
        if condition == "true" and not parts.marked:
            return self._oldest, self._newest
        ((oldest, newest),) = self._connection.execute(
            f"select min({parts.time}), max({parts.time}) from {parts.labels} where {condition}"
        ).fetchall()
        return (NEVER, NEVER) if oldest is None else (oldest.astimezone(UTC), newest.astimezone(UTC))

    # -- the parts ----------------------------------------------------------------------------------------------

    def _model(self, join: pit.ViewJoin, *, oldest: datetime, newest: datetime, count: int) -> None:
        view = self._question.view
        reach = pit.within_reach(
            self._evidence.active,
            oldest=oldest,
            newest=newest,
            ttl=view.ttl,
            availability_delay=view.availability_delay,
        )
        ids = {BATCH_ID: pa.array([batch.batch_id for batch in reach.batches], pa.string())}
        marks = [batch.source_watermark for batch in reach.batches]
        ids |= {"_watermark": pa.array(marks, pa.timestamp("us", "UTC"))} if self._question.has_origins else {}
        listed = self._list("batches", pa.table(ids))
        rows = self._rows(listed, reach, of_batch=("_watermark",) if self._question.has_origins else ())
        plan = self._choose(reach, count)
        self._run(*pit.join_statements(replace(join, rows=rows), plan))

    def _serve(self, join: pit.ViewJoin, *, oldest: datetime, newest: datetime, count: int) -> None:
        history = self._evidence.history
        assert history is not None  # noqa: S101 - served_since
        ttl = self._question.view.ttl
        history = served.without_retired(history, self._evidence.published, ttl)
        join = self._without_unknown(join, history, oldest, newest)
        batches = served.seen_batches(self._evidence.published, history)
        settled = served.settled_batches(batches, oldest=oldest, newest=newest, ttl=ttl)
        plan = self._choose(served.reach_of(settled, oldest=oldest, ttl=ttl), count)
        if plan is pit.Plan.ASOF:
            rows = self._batch_rows("settled", settled, oldest, "_seen_from", "_seen_until", "_seq", "_next_seq")
            self._run(*served.asof_served(replace(join, rows=rows, bare_rows=self._bare_rows(settled, oldest))))
            if self._has_moments:
                self._compare(join, batches, oldest=oldest)
        else:
            self._serve_by_scan(join, plan, batches, settled, oldest=oldest)
        if self._evidence.acknowledged is not None:
            self._merge_pushed(join, self._evidence.acknowledged, history, oldest=oldest)

    def _serve_by_scan(
        self,
        join: pit.ViewJoin,
        plan: pit.Plan,
        batches: tuple[served.SeenBatch, ...],
        settled: tuple[served.SeenBatch, ...],
        *,
        oldest: datetime,
    ) -> None:
        """Answer labels, and in the same scans what syncs in flight may have made of them."""
        positions = self._candidates(join) if self._has_moments else []
        seen = ["_seen_from", "_seen_until"]
        if positions:
            possible = served.possible_batches(batches, positions, oldest=oldest, ttl=self._question.view.ttl)
            settled = tuple({one.batch.batch_id: one for one in (*settled, *possible)}.values())
            seen += ["_from_position", "_until_position"]
            self._run(served.ask_candidates(join))
            asked = pit.Statement(sql=served.asked_table(join))
            join = replace(join, labels=asked, has_candidates=True)
        rows = self._batch_rows("settled", settled, oldest, *seen)
        join = replace(join, rows=rows, bare_rows=self._bare_rows(settled, oldest))
        self._run(*pit.scan_join(join, plan))
        if positions:
            self._run(*served.judge_candidates(join))
            self._ambiguous = self._count_ambiguous(join)
        elif self._has_moments:
            self._run(served.none_ambiguous(join))

    def _batch_rows(
        self, name: str, batches: tuple[served.SeenBatch, ...], oldest: datetime, *of_batch: str
    ) -> pit.Statement:
        """The rows of batches that labels may see, with these facts of their batches."""
        reach = served.reach_of(batches, oldest=oldest, ttl=self._question.view.ttl)
        return self._rows(self._list(name, served.batch_table(batches)), reach, of_batch=of_batch)

    def _bare_rows(self, batches: tuple[served.SeenBatch, ...], oldest: datetime) -> pit.Statement | None:
        """The rows without any of these facts, where one partition has one batch."""
        return None if served.repeat_partitions(batches) else self._batch_rows("settled_again", batches, oldest)

    def _candidates(self, join: pit.ViewJoin) -> list[int]:
        """The positions that syncs in flight may have reached at the time of some label."""
        found = self._connection.execute(
            f"select distinct unnest(candidates) from {served.moments_table(join)} where not is_unknown"
        ).fetchall()
        return [position for (position,) in found]

    def _merge_pushed(
        self, join: pit.ViewJoin, acknowledged: tuple[Acknowledged, ...], history: ServedHistory, *, oldest: datetime
    ) -> None:
        """Let the pushed rows that were given take the place of older ones."""
        if not self._has_moments:
            self._has_moments = True
            self._run(pushed.no_moments(join), served.none_ambiguous(join))
        rows = pushed.pushed_rows(
            self._question.view,
            join,
            acknowledged=self._list("acknowledged", pushed.acknowledged_table(acknowledged)),
            at_sequence=self._evidence.sequence,
            oldest=oldest,
        )
        self._run(*pushed.merge_pushed(join, rows, live_since=history.live_since))
        self._ambiguous = self._count_ambiguous(join)

    def _without_unknown(
        self, join: pit.ViewJoin, history: ServedHistory, oldest: datetime, newest: datetime
    ) -> pit.ViewJoin:
        """Note the labels without a plain answer, and leave those out that have none at all."""
        windows = history.windows(oldest, newest)
        if not windows:
            return join
        self._has_moments = True
        self._run(served.moments(join, self._list("windows", served.window_table(windows))))
        moments = served.moments_table(join)
        ((self._unknown, self._unconfirmed),) = self._connection.execute(
            f"select count(*), count(*) filter (where {self._parts.time} > $until) from {self._parts.labels}"
            f" semi join (from {moments} where is_unknown) using ({pit.LABEL_ID}) where {self._parts.counts}",
            {"until": history.confirmed_until or NEVER},
        ).fetchall()
        if not self._unknown:
            return join
        known = f"(select * from {join.labels.sql} anti join (from {moments} where is_unknown) using ({pit.LABEL_ID}))"
        return replace(join, labels=pit.Statement(sql=known, parameters=join.labels.parameters))

    def _compare(self, join: pit.ViewJoin, batches: tuple[served.SeenBatch, ...], *, oldest: datetime) -> None:
        """Ask of the labels that fell into a sync whether it made a difference to them."""
        positions = self._candidates(join)
        if not positions:
            self._run(served.none_ambiguous(join))
            return
        ttl = self._question.view.ttl
        possible = served.possible_batches(batches, positions, oldest=oldest, ttl=ttl)
        reach = served.reach_of(possible, oldest=oldest, ttl=ttl)
        listed = self._list("possible", served.batch_table(possible))
        rows = self._rows(listed, reach, of_batch=("_from_position", "_until_position"))
        self._run(*served.ambiguous(join, rows))
        self._ambiguous = self._count_ambiguous(join)

    def _count_ambiguous(self, join: pit.ViewJoin) -> int:
        ((count,),) = self._connection.execute(
            f"select count(*) from {self._parts.labels} semi join {served.ambiguous_table(join)} using ({pit.LABEL_ID})"
            f" where {self._parts.counts}"
        ).fetchall()
        return int(count)

    # -- what they are made of ----------------------------------------------------------------------------------

    def _join(self, visibility: pit.Visibility, *, extends: bool = False) -> pit.ViewJoin:
        question = self._question
        some = self._parts.is_served if visibility is pit.Visibility.SERVED else self._parts.is_modelled
        labels = self._parts.labels if some == "true" else f"(select * from {self._parts.labels} where {some})"
        return pit.ViewJoin(
            rows=pit.Statement(sql=""),
            keys=question.view.entity_names,
            features=question.features,
            ttl=question.view.ttl,
            availability_delay=question.view.availability_delay,
            answer=question.answer,
            timestamp_column=question.timestamp_column,
            valueless=question.labels.valueless,
            visibility=visibility,
            labels=pit.Statement(sql=labels),
            as_of=outages.AS_OF if self._parts.marked and self._parts.is_stale else "",
            carried=self._carried(visibility),
            extends=extends,
        )

    def _carried(self, visibility: pit.Visibility) -> dict[str, str]:
        carried = {}
        if self._parts.served_since or self._question.has_origins:
            carried[served.EVENT_COLUMN] = f"r.{EVENT_TIMESTAMP}"
        if self._question.has_origins:
            late = f"r._watermark > r.{EVENT_TIMESTAMP} + to_microseconds($delay)"
            carried |= {
                BATCH_ID: f"r.{BATCH_ID}",
                LATE: late if visibility is pit.Visibility.MODELLED else "cast(null as boolean)",
            }
        return carried

    def _rows(self, listed: str, reach: pit.Reach, *, of_batch: tuple[str, ...]) -> pit.Statement:
        self._used |= {batch.batch_id: batch for batch in reach.batches}
        question = self._question
        own = (BATCH_ID,) if question.has_origins else ()
        return pit.reachable_rows(
            batches_table(question.view),
            (*question.view.entity_names, EVENT_TIMESTAMP, *question.features, *own),
            batches=listed,
            reach=reach,
            of_batch=of_batch,
        )

    def _choose(self, reach: pit.Reach, count: int) -> pit.Plan:
        view, wanted = self._question.view, set(self._question.features)
        plan = self._question.plan or pit.choose_plan(
            labels=count,
            rows=reach.rows,
            rows_in_reach=reach.rows_of_one_entity(view.ttl),
            row_bytes=sum(usual_bytes(feature.type) for feature in view.features if feature.name in wanted),
        )
        self._plans.append(plan)
        return plan

    def _list(self, name: str, table: pa.Table) -> str:
        """A small table of the answer's own; its quoted name."""
        quoted = quote(f"{self._question.answer}_{name}")
        self._connection.register("listed", table)
        self._connection.execute(f"create table {quoted} as select * from listed")
        self._connection.unregister("listed")
        return quoted

    def _run(self, *statements: pit.Statement) -> None:
        for statement in statements:
            self._connection.execute(pit.JOINS_AS_ESTIMATED if statement.is_asof else pit.JOINS_AS_WRITTEN)
            with lake_errors(f"joining {self._question.view.key} to the labels"):
                self._connection.execute(statement.sql, dict(statement.parameters))
