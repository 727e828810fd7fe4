"""The pure parts: names, plans, reach, and the shape of the SQL. What the SQL answers: tests/property."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from feature_platform.domain.batch import PublishedBatch
from feature_platform.domain.feature_service import ViewSelection
from feature_platform.domain.training_set import Mode
from feature_platform.domain.types import ColumnType, ListType, usual_bytes
from feature_platform.domain.windows import Grain, Partition
from feature_platform.errors import RequestError
from feature_platform.offline import point_in_time as pit
from feature_platform.offline.modes import parse_mode
from feature_platform.offline.output import name_output

DAY = datetime(2026, 3, 1, tzinfo=UTC)


def days(n: float) -> timedelta:
    return timedelta(days=n)


def batch(day: int, rows: int = 10) -> PublishedBatch:
    return PublishedBatch(
        batch_id=f"b{day}", seq=day + 1, view="v@1", position=1, ledger_seq=1, row_count=rows, source_watermark=None,
        partition=Partition(start=DAY + days(day), end=DAY + days(day + 1), grain=Grain.DAY),
        opened_at=DAY, computed_at=DAY, published_at=DAY,
    )  # fmt: skip


def selection(view: str, *features: str, version: int = 1) -> ViewSelection:
    return ViewSelection(view=view, version=version, features=features)


def names(*selections: ViewSelection, taken: tuple[str, ...] = (), full: bool = False) -> list[str]:
    return [column.name for column in name_output(selections, taken, full_feature_names=full)]


def test_modes() -> None:
    assert parse_mode("modelled") is Mode.MODELLED
    with pytest.raises(RequestError, match=r"no point-in-time mode 'yesterday'[\s\S]*allowed: auto, modelled, served"):
        parse_mode("yesterday")


def test_features_keep_their_names_unless_these_clash() -> None:
    assert names(selection("a", "x", "y"), selection("b", "z")) == ["x", "y", "z"]
    assert names(selection("a", "x", "y"), selection("b", "x")) == ["a__x", "y", "b__x"]
    assert names(selection("a", "x"), full=True) == ["a__x"]
    assert names(selection("a", "x"), taken=("X",)) == ["a__x"]
    assert names(selection("a", "x"), taken=("x", "a__x")) == ["a_v1__x"]
    assert names(selection("a", "x"), selection("a", "x", version=2)) == ["a_v1__x", "a_v2__x"]
    # one view's long name may be another's feature
    assert names(selection("a", "x"), selection("b", "x", "a__x")) == ["a_v1__x", "b__x", "b__a__x"]


def test_a_clash_without_a_way_out_is_refused() -> None:
    with pytest.raises(RequestError, match=r"same name[\s\S]*a_v1__x"):
        names(selection("a", "x"), taken=("x", "a__x", "A_V1__X"))


@pytest.mark.parametrize(
    ("labels", "rows", "fan_out", "plan"),
    [
        # what was measured: research on 10M and 100M rows, ttl of 7 daily rows
        (100_000, 10_000_000, 7, pit.Plan.ONE_SCAN),
        (1_000_000, 10_000_000, 7, pit.Plan.HASH),
        (10_000_000, 10_000_000, 7, pit.Plan.ASOF),
        (100_000, 100_000_000, 7, pit.Plan.ONE_SCAN),
        (1_000_000, 100_000_000, 7, pit.Plan.HASH),
        (1_000_000, 100_000_000, 50, pit.Plan.HASH),
        (336_776, 5_000, 365, pit.Plan.ASOF),
        (0, 0, 0, pit.Plan.ONE_SCAN),
    ],
)
def test_the_plan_follows_the_sizes(labels: int, rows: int, fan_out: int, plan: pit.Plan) -> None:
    assert pit.choose_plan(labels=labels, rows=rows, rows_in_reach=fan_out, row_bytes=80) is plan


def test_wide_rows_are_not_kept() -> None:
    embedding = usual_bytes(ListType(ColumnType.FLOAT, 768))
    assert pit.choose_plan(labels=100_000, rows=10_000_000, rows_in_reach=7, row_bytes=embedding) is pit.Plan.HASH


def test_a_plan_is_chosen_by_name() -> None:
    assert pit.parse_plan(None) is None
    assert pit.parse_plan("asof") is pit.parse_plan(pit.Plan.ASOF) is pit.Plan.ASOF
    with pytest.raises(RequestError, match=r"no plan 'merge'[\s\S]*one_scan"):
        pit.parse_plan("merge")


def reach(oldest: datetime, newest: datetime, ttl: timedelta | None, delay: timedelta) -> pit.Reach:
    batches = [batch(day) for day in range(10)]
    return pit.within_reach(batches, oldest=oldest, newest=newest, ttl=ttl, availability_delay=delay)


def test_reach_is_what_any_label_can_see() -> None:
    at = DAY + days(5)
    # event times in (day 3, day 5 - 1 h]; partition 2 ends on day 3, which is dead; partition 5 begins after
    found = reach(at, at, days(2), timedelta(hours=1))
    assert [b.batch_id for b in found.batches] == ["b3", "b4"]
    assert (found.after, found.until) == (DAY + days(3), at - timedelta(hours=1))
    assert (found.first_partition, found.last_partition) == (DAY + days(3), DAY + days(4))
    assert (found.rows, found.rows_of_one_entity(days(2)), found.rows_of_one_entity(None)) == (20, 2, 2)
    # the last instant of a partition belongs to it
    assert [b.batch_id for b in reach(DAY + days(1), DAY + days(1), None, days(0)).batches] == ["b0"]
    assert len(reach(at, at, None, days(0)).batches) == 5
    assert reach(DAY, DAY, None, days(0)).batches == ()
    assert reach(DAY, DAY, None, days(0)).rows_of_one_entity(days(1)) == 0


def join(**changes: object) -> pit.ViewJoin:
    values: dict[str, object] = {
        "rows": pit.Statement(sql="r"), "keys": ('odd "key"',), "features": ("x",), "ttl": days(1),
        "availability_delay": timedelta(microseconds=5), "answer": "answer_0",
    }  # fmt: skip
    return pit.ViewJoin(**{**values, **changes})  # type: ignore[arg-type]


def test_values_are_parameters_and_names_are_quoted() -> None:
    for plan in pit.Plan:
        statements = [s for s in pit.join_statements(join(), plan) if "l._dead_until" in s.sql]
        assert statements
        for statement in statements:
            assert statement.parameters == {"delay": 5, "ttl": 86_400_000_000}
            assert 'l."odd ""key""" = r."odd ""key"""' in statement.sql


def test_without_ttl_nothing_dies() -> None:
    for statement in pit.join_statements(join(ttl=None), pit.Plan.ASOF):
        assert "_dead_until" not in statement.sql
        assert "ttl" not in statement.parameters


def test_columns_without_values_are_read_as_nulls_of_the_right_type() -> None:
    (statement,) = pit.join_statements(join(keys=("k",), valueless={"k": "VARCHAR"}), pit.Plan.ASOF)
    assert 'cast(null as VARCHAR) as "k"' in statement.sql
