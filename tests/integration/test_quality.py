"""Great Expectations on DuckDB: one passing and one failing case per supported kind, and the measured traps."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import datetime, timedelta

import duckdb
import pytest
from views import DAY, view_with

from feature_platform.domain.batch import Batch
from feature_platform.domain.feature_view import Expectation
from feature_platform.domain.quality_rules import QualityRules
from feature_platform.domain.windows import Grain, partition_starting
from feature_platform.errors import InvalidDeclarationsError
from feature_platform.quality import (
    SAMPLES,
    SUPPORTED,
    check_names,
    judge,
    library,
    refuse_unjudgeable,
    validate_expectations,
)
from feature_platform.quality.texts import said_of
from feature_platform.quality.validation import build_expectations


def batch_of(day: datetime) -> Batch:
    return Batch(
        batch_id=str(uuid.uuid4()), seq=1, view="carrier_delays@1", partition=partition_starting(day, Grain.DAY)
    )


@pytest.fixture(scope="module")
def batch() -> Batch:
    return batch_of(DAY)


@pytest.fixture
def con(batch):
    """One batch of 100 carriers: delays 0.0 to 99.0, flights 0 to 6 in turn; and a neighbour that breaks everything."""
    connection = duckdb.connect()
    connection.execute("set TimeZone = 'UTC'")
    connection.execute("attach ':memory:' as lake; create schema lake.batches")
    connection.execute(
        "create table lake.batches.carrier_delays_v1 as"
        " select 'c' || lpad(i::varchar, 2, '0') as carrier, timestamptz '2026-03-02 00:00:00+00' as event_timestamp,"
        " i::double as delay, (i % 7)::bigint as flights, (i % 2)::bigint as \"Half\", date '2026-03-01' as seen_on,"
        " ? as _batch_id, timestamptz '2026-03-01 00:00:00+00' as _partition_start from range(100) as r(i)",
        [batch.batch_id],
    )
    connection.execute(
        "insert into lake.batches.carrier_delays_v1 select null, null, -1e9, -5, 9, null, uuid()::varchar,"
        " timestamptz '2026-03-01 00:00:00+00' from range(50)"
    )
    yield connection
    connection.close()


def expect(kind: str, severity: str = "error", **arguments) -> Expectation:
    return Expectation(type=kind, arguments=arguments, severity=severity)


# kind: (arguments that pass, arguments that fail)
CASES = {
    "ExpectTableRowCountToBeBetween": ({"min_value": 1}, {"min_value": 101}),
    "ExpectTableRowCountToEqual": ({"value": 100}, {"value": 99}),
    "UnexpectedRowsExpectation": (
        {"unexpected_rows_query": "select * from {batch} where delay < 0"},
        {"unexpected_rows_query": "select * from {batch} where delay > 98"},
    ),
    "ExpectColumnDistinctValuesToBeInSet": (
        {"column": "flights", "value_set": list(range(7))},
        {"column": "flights", "value_set": [0, 1]},
    ),
    "ExpectColumnDistinctValuesToContainSet": (
        {"column": "flights", "value_set": [1]},
        {"column": "flights", "value_set": [8]},
    ),
    "ExpectColumnDistinctValuesToEqualSet": (
        {"column": "Half", "value_set": [0, 1]},
        {"column": "Half", "value_set": [0]},
    ),
    "ExpectColumnKLDivergenceToBeLessThan": (
        {"column": "Half", "partition_object": {"values": [0, 1], "weights": [0.5, 0.5]}, "threshold": 0.01},
        {"column": "Half", "partition_object": {"values": [0, 1], "weights": [0.99, 0.01]}, "threshold": 0.01},
    ),
    "ExpectColumnMaxToBeBetween": ({"column": "delay", "max_value": 99}, {"column": "delay", "max_value": 98}),
    "ExpectColumnMeanToBeBetween": (
        {"column": "delay", "min_value": 49.5, "max_value": 49.5},
        {"column": "delay", "max_value": 49.4},
    ),
    "ExpectColumnMedianToBeBetween": (
        {"column": "delay", "min_value": 49, "max_value": 50},
        {"column": "delay", "min_value": 51},
    ),
    "ExpectColumnMinToBeBetween": ({"column": "delay", "min_value": 0}, {"column": "delay", "min_value": 1}),
    "ExpectColumnMostCommonValueToBeInSet": (
        {"column": "flights", "value_set": [0, 1], "ties_okay": True},
        {"column": "flights", "value_set": [6]},
    ),
    "ExpectColumnPairValuesAToBeGreaterThanB": (
        {"column_A": "delay", "column_B": "flights", "or_equal": True},
        {"column_A": "delay", "column_B": "flights", "or_equal": False},
    ),
    "ExpectColumnPairValuesToBeEqual": (
        {"column_A": "delay", "column_B": "delay"},
        {"column_A": "delay", "column_B": "flights"},
    ),
    "ExpectColumnProportionOfNonNullValuesToBeBetween": (
        {"column": "delay", "min_value": 1},
        {"column": "delay", "max_value": 0.9},
    ),
    "ExpectColumnProportionOfUniqueValuesToBeBetween": (
        {"column": "carrier", "min_value": 1},
        {"column": "flights", "min_value": 1},
    ),
    "ExpectColumnQuantileValuesToBeBetween": (
        {"column": "delay", "quantile_ranges": {"quantiles": [0.5, 0.9], "value_ranges": [[45, 55], [85, 95]]}},
        {"column": "delay", "quantile_ranges": {"quantiles": [0.5, 0.9], "value_ranges": [[45, 55], [95, None]]}},
    ),
    "ExpectColumnStdevToBeBetween": (
        {"column": "delay", "min_value": 28, "max_value": 30},
        {"column": "delay", "max_value": 1},
    ),
    "ExpectColumnSumToBeBetween": (
        {"column": "delay", "min_value": 4950, "max_value": 4950},
        {"column": "delay", "max_value": 4949},
    ),
    "ExpectColumnUniqueValueCountToBeBetween": (
        {"column": "flights", "min_value": 7, "max_value": 7},
        {"column": "flights", "min_value": 8},
    ),
    "ExpectColumnValueLengthsToBeBetween": (
        {"column": "carrier", "min_value": 3, "max_value": 3},
        {"column": "carrier", "max_value": 2},
    ),
    "ExpectColumnValueLengthsToEqual": ({"column": "carrier", "value": 3}, {"column": "carrier", "value": 2}),
    "ExpectColumnValueZScoresToBeLessThan": (
        {"column": "delay", "threshold": 4, "double_sided": True},
        {"column": "delay", "threshold": 1, "double_sided": True},
    ),
    "ExpectColumnValuesToBeBetween": (
        {"column": "delay", "min_value": 0, "max_value": 99},
        {"column": "delay", "min_value": 1},
    ),
    "ExpectColumnValuesToBeInSet": (
        {"column": "flights", "value_set": [0, 1, 2], "mostly": 0.4},
        {"column": "flights", "value_set": [0, 1, 2], "mostly": 0.5},
    ),
    "ExpectColumnValuesToBeNull": ({"column": "delay", "mostly": 0}, {"column": "delay"}),
    "ExpectColumnValuesToBeUnique": ({"column": "carrier"}, {"column": "flights"}),
    "ExpectColumnValuesToMatchLikePattern": (
        {"column": "carrier", "like_pattern": "c%"},
        {"column": "carrier", "like_pattern": "c0%"},
    ),
    # a match anywhere in the text, as everywhere but in DuckDB's own `~`
    "ExpectColumnValuesToMatchRegex": (
        {"column": "carrier", "regex": "[0-9]"},
        {"column": "carrier", "regex": "^[0-9]"},
    ),
    "ExpectColumnValuesToMatchRegexList": (
        {"column": "carrier", "regex_list": ["^c[0-4]", "^c[5-9]"]},
        {"column": "carrier", "regex_list": ["^c[0-4]"]},
    ),
    "ExpectColumnValuesToNotBeInSet": (
        {"column": "flights", "value_set": [7]},
        {"column": "flights", "value_set": [6]},
    ),
    "ExpectColumnValuesToNotBeNull": ({"column": "delay"}, None),  # its failing case needs other rows, see below
    "ExpectColumnValuesToNotMatchRegex": (
        {"column": "carrier", "regex": "z"},
        {"column": "carrier", "regex": "9$"},
    ),
    "ExpectCompoundColumnsToBeUnique": (
        {"column_list": ["carrier", "event_timestamp"]},
        {"column_list": ["flights", "event_timestamp"]},
    ),
    "ExpectMulticolumnSumToEqual": (
        {"column_list": ["flights", "Half"], "sum_total": 3, "mostly": 0.1},
        {"column_list": ["flights", "Half"], "sum_total": 3},
    ),
    "ExpectSelectColumnValuesToBeUniqueWithinRecord": (
        {"column_list": ["flights", "Half"], "mostly": 0.5},
        {"column_list": ["flights", "Half"]},
    ),
}  # fmt: skip


def test_every_supported_kind_has_a_case():
    assert set(CASES) == SUPPORTED


def test_each_kind_passes_what_is_right_and_fails_what_is_wrong(con, batch):
    right = [expect(kind, **passing) for kind, (passing, _) in CASES.items()]
    wrong = [expect(kind, **failing) for kind, (_, failing) in CASES.items() if failing is not None]
    outcomes = judge(view_with(*right, *wrong), con, [batch])
    said = [(outcome.check, outcome.passed, dict(outcome.detail)) for outcome in outcomes]
    assert [one for one in said[: len(right)] if not one[1]] == []
    assert [one for one in said[len(right) :] if one[1] or "error" in one[2]] == []


def test_what_failed_says_what_was_declared(con, batch):
    asked = {"min_value": 50.5, "max_value": 60}
    mean = "ExpectColumnMeanToBeBetween"
    wrong, right = judge(
        view_with(expect(mean, column="delay", **asked), expect(mean, column="delay", max_value=60)), con, [batch]
    )
    assert wrong.detail == {"observed_value": 49.5, "declared": asked}
    assert said_of(wrong) == "observed 49.5, declared min_value 50.5 and max_value 60"
    assert "declared" not in right.detail


def test_values_that_failed_are_kept_only_where_that_is_declared(con, batch):
    con.execute("update lake.batches.carrier_delays_v1 set flights = 77, delay = 5000 where carrier < 'c09'")
    expectations = (
        expect("ExpectColumnValuesToBeInSet", column="flights", value_set=list(range(7))),
        expect("ExpectColumnPairValuesAToBeGreaterThanB", column_A="flights", column_B="delay"),
        expect("UnexpectedRowsExpectation", unexpected_rows_query="select carrier from {batch} where delay > 4000"),
        expect("ExpectColumnMaxToBeBetween", column="delay", max_value=99),
    )
    view = view_with(*expectations)
    assert not any("samples" in one.detail or "5000" in str(one.detail) for one in judge(view, con, [batch])[:3])
    kept = [one.detail.get("samples") for one in judge(replace(view, quality=QualityRules(samples=True)), con, [batch])]
    assert kept[0] == [77] * SAMPLES
    assert len(kept[1]) == SAMPLES and {tuple(pair) for pair in kept[1]} >= {(77, 5000.0)}
    assert len(kept[2]) == SAMPLES and {next(iter(row.values())) for row in kept[2]} <= {f"c0{i}" for i in range(9)}
    assert kept[3] is None  # of an aggregate there are no values
    passing = view_with(expect("ExpectColumnValuesToBeInSet", column="Half", value_set=[0, 1]))
    assert "samples" not in judge(replace(passing, quality=QualityRules(samples=True)), con, [batch])[0].detail


def test_not_null_fails_on_null(con, batch):
    con.execute("update lake.batches.carrier_delays_v1 set delay = null where carrier = 'c07'")
    (outcome,) = judge(view_with(expect("ExpectColumnValuesToNotBeNull", column="delay")), con, [batch])
    assert not outcome.passed
    assert outcome.blocking
    assert outcome.detail["unexpected_count"] == 1


@pytest.mark.parametrize(
    "expectation",
    [
        expect("ExpectColumnValuesToNotBeNull", column="delay"),
        expect("ExpectColumnValuesToBeBetween", column="delay", min_value=0),
        expect("ExpectColumnMinToBeBetween", column="delay", min_value=0),
    ],
)
def test_nan_never_passes(con, batch, expectation):
    con.execute("update lake.batches.carrier_delays_v1 set delay = 'nan'::double where carrier = 'c07'")
    (outcome,) = judge(view_with(expectation), con, [batch])
    assert not outcome.passed
    assert outcome.detail["nan"] == {"delay": 1}


def test_an_empty_batch_passes_nothing_unless_the_view_allows_it(con):
    empty = batch_of(DAY + timedelta(days=1))
    not_null = expect("ExpectColumnValuesToNotBeNull", column="delay")
    rows = expect("ExpectTableRowCountToBeBetween", min_value=1)
    assert [outcome.passed for outcome in judge(view_with(not_null, rows), con, [empty])] == [False, False]
    allowed = expect("ExpectTableRowCountToBeBetween", min_value=0)
    assert [outcome.passed for outcome in judge(view_with(not_null, allowed), con, [empty])] == [True, True]


def test_batches_are_judged_one_by_one(con, batch):
    empty = batch_of(DAY + timedelta(days=1))
    outcomes = judge(view_with(expect("ExpectTableRowCountToBeBetween", min_value=1)), con, [batch, empty])
    assert {outcome.batch_id: outcome.passed for outcome in outcomes} == {batch.batch_id: True, empty.batch_id: False}
    # the same of an expectation that looks at rows, beside a batch of the same run that breaks it
    late = batch_of(DAY + timedelta(days=1))
    con.execute(
        "insert into lake.batches.carrier_delays_v1 select * replace (-1 as delay, ? as _batch_id,"
        " ?::timestamptz as _partition_start) from lake.batches.carrier_delays_v1 where _batch_id = ?",
        [late.batch_id, late.partition.start.isoformat(), batch.batch_id],
    )
    between = view_with(expect("ExpectColumnValuesToBeBetween", column="delay", min_value=0))
    said = {one.batch_id: (one.passed, one.detail["element_count"]) for one in judge(between, con, [batch, late])}
    assert said == {batch.batch_id: (True, 100), late.batch_id: (False, 100)}


def test_an_exception_while_judging_is_a_failed_check(con, batch):
    broken = expect("UnexpectedRowsExpectation", unexpected_rows_query="select nothing from {batch}")
    fine = expect("ExpectColumnMaxToBeBetween", column="delay", max_value=99)
    broken_outcome, fine_outcome = judge(view_with(broken, fine), con, [batch])
    assert not broken_outcome.passed
    assert "nothing" in broken_outcome.detail["error"]
    assert fine_outcome.passed
    # of an aggregate, which the library is given and compares with a bound of another type
    (outcome,) = judge(view_with(expect("ExpectColumnMaxToBeBetween", column="carrier", max_value=5)), con, [batch])
    assert (outcome.passed, "Error" in outcome.detail["error"]) == (False, True)


def test_what_the_library_does_not_answer_has_failed(con, batch, monkeypatch):
    monkeypatch.setattr(library, "ask", lambda *_, **__: {})
    (outcome,) = judge(view_with(expect("ExpectColumnValuesToNotBeNull", column="delay")), con, [batch])
    assert (outcome.passed, outcome.detail["error"]) == (False, "no answer")


def test_a_missing_column_is_never_a_pass(con, batch):
    with pytest.raises(InvalidDeclarationsError, match="names a column the view does not have"):
        judge(view_with(expect("ExpectColumnMeanToBeBetween", column="dealy", min_value=0)), con, [batch])
    con.execute("alter table lake.batches.carrier_delays_v1 drop column delay")
    with pytest.raises(duckdb.BinderException, match="delay"):
        judge(view_with(expect("ExpectColumnMeanToBeBetween", column="delay", min_value=0)), con, [batch])


def test_bounds_on_timestamps_are_instants(con, batch):
    latest = expect("ExpectColumnMaxToBeBetween", column="event_timestamp", max_value="2026-03-01T23:59:59+00:00")
    (outcome,) = judge(view_with(latest), con, [batch])
    assert not outcome.passed
    day_only = expect("ExpectColumnMaxToBeBetween", column="event_timestamp", max_value="2026-03-02")
    with pytest.raises(InvalidDeclarationsError, match="no instant"):
        judge(view_with(day_only), con, [batch])
    on_dates = expect("ExpectColumnMaxToBeBetween", column="seen_on", max_value="2026-03-01")
    assert judge(view_with(on_dates), con, [batch])[0].passed


def test_warnings_do_not_block(con, batch):
    (outcome,) = judge(view_with(expect("ExpectTableRowCountToEqual", severity="warn", value=1)), con, [batch])
    assert (outcome.passed, outcome.blocking) == (False, False)


def test_the_callers_transaction_is_left_alone(con, batch):
    con.execute("begin; create temp table mine as select 1 as x")
    judge(
        view_with(expect("UnexpectedRowsExpectation", unexpected_rows_query="select nothing from {batch}")),
        con,
        [batch],
    )
    assert con.execute("from mine").fetchall() == [(1,)]
    con.execute("commit")


def test_wrong_declarations_are_found_with_reason():
    view = view_with(
        expect("ExpectColumnMeanToBeBetwen", column="delay"),
        expect("ExpectColumnMeanToBeBetween", column="dealy", min_value=0),
        expect("ExpectColumnValuesToNotBeNull", severity="fatal", column="delay"),
    )
    problems = [finding.problem for finding in validate_expectations(view)]
    assert problems == [
        "expectation ExpectColumnMeanToBeBetwen is not supported",
        "ExpectColumnMeanToBeBetween names a column the view does not have",
        "ExpectColumnValuesToNotBeNull has an unknown severity",
    ]
    (finding,) = validate_expectations(
        view_with(expect("ExpectColumnMeanToBeBetween", column="delay", min_value=0, lowest=0))
    )
    assert "does not take these arguments" in finding.problem
    assert "lowest" in finding.found


def test_names_of_checks_are_unique_in_a_view():
    mean = expect("ExpectColumnMeanToBeBetween", column="delay", min_value=0)
    names = check_names(view_with(mean, mean, expect("ExpectColumnKLDivergenceToBeLessThan", column="Half")))
    assert names == (
        "expect_column_mean_to_be_between_delay",
        "expect_column_mean_to_be_between_delay_2",
        "expect_column_kl_divergence_to_be_less_than_half",
    )


def test_what_could_never_be_judged_is_refused_and_all_of_it_at_once():
    good = view_with(expect("ExpectColumnMeanToBeBetween", column="delay", min_value=0))
    refuse_unjudgeable([view_with(), good])
    wrong = (
        expect("ExpectColumnValuesToBeOfType", column="delay"),
        expect("ExpectColumnMeanToBeBetween", column="delay", min_value=0, lowest=0),
        expect("ExpectColumnValuesToNotBeNull", column="delay", mostly=2),
        expect("ExpectColumnValuesToBeInSet", column="flights"),
        expect("UnexpectedRowsExpectation", unexpected_rows_query="select 1 where false"),
        expect("ExpectColumnMaxToBeBetween", column="delay"),
    )
    with pytest.raises(InvalidDeclarationsError) as caught:
        refuse_unjudgeable([good, *(view_with(one) for one in wrong)])
    assert [finding.problem for finding in caught.value.findings] == [
        "expectation ExpectColumnValuesToBeOfType is not supported",
        "ExpectColumnMeanToBeBetween does not take these arguments",
        "ExpectColumnValuesToNotBeNull does not take these arguments",
        "ExpectColumnValuesToBeInSet does not take these arguments",
        "UnexpectedRowsExpectation does not look at the batch",
        "ExpectColumnMaxToBeBetween bounds nothing: it would always pass",
    ]


def test_aggregates_of_many_batches_are_judged_as_the_library_alone_would(con, batch):
    """Our SQL for a metric gives what the library's own SQL gives: same verdict, same observed value."""
    con.execute("update lake.batches.carrier_delays_v1 set delay = null where carrier in ('c03', 'c04')")
    cases = [expect(kind, **arguments) for kind, both in CASES.items() for arguments in both if arguments is not None]
    view = view_with(*cases)
    built = build_expectations(view)
    places = [place for place, one in enumerate(built) if library.aggregate_of(one) is not None]
    assert {view.expectations[place].type for place in places} == {
        "ExpectTableRowCountToBeBetween",
        "ExpectTableRowCountToEqual",
        "ExpectColumnMaxToBeBetween",
        "ExpectColumnMeanToBeBetween",
        "ExpectColumnMinToBeBetween",
        "ExpectColumnStdevToBeBetween",
        "ExpectColumnSumToBeBetween",
        "ExpectColumnUniqueValueCountToBeBetween",
    }
    con.execute(f"create temp view alone as from lake.batches.carrier_delays_v1 where _batch_id = '{batch.batch_id}'")
    alone = library.ask(con, "alone", [built[place] for place in places])
    ours = {place: (outcome.passed, dict(outcome.detail)) for place, outcome in enumerate(judge(view, con, [batch]))}
    for place in places:
        (passed, observed), (expected, alone_observed) = ours[place], alone[place]
        assert passed == expected, view.expectations[place]
        assert observed["observed_value"] == pytest.approx(alone_observed["observed_value"])
