"""Training sets from a real ledger and a real lake: every input, every way out, and every refusal."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ledger_batches import measured
from offline_platform import CARRIER, ROUTE, Platform, arrow, declare, registry_of

from feature_platform.domain.types import ColumnType
from feature_platform.errors import (
    EntityError,
    FeaturePlatformError,
    LedgerUnavailableError,
    NotDeployedError,
    RequestError,
    TimestampError,
    UnknownNameError,
)
from feature_platform.offline import FeatureStore
from feature_platform.offline.parquet import read_content
from feature_platform.offline.point_in_time import Plan

DAY = datetime(2026, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
PLANS = list(Plan)


def at(days: float, hours: float = 0) -> datetime:
    return DAY + timedelta(days=days, hours=hours)


@pytest.fixture
def platform(settings) -> Platform:
    built = Platform(settings, registry_of(CARRIER, ROUTE))
    built.deploy()
    return built


@pytest.fixture
def filled(platform: Platform) -> Platform:
    """Two days of carriers (the second corrected, then opened again but not published), one hour of routes."""
    first, second, corrected, _, route = platform.open_all(
        [
            (CARRIER, at(0), [["AA", at(1), 1.0, 10], ["UA", at(1), 2.0, 20]]),
            (CARRIER, at(1), [["AA", at(2), 99.0, 99], ["UA", at(2), 99.0, 99]]),
            (CARRIER, at(1), [["AA", at(2), None, 11]]),
            (CARRIER, at(1), [["AA", at(2), -1.0, -1]]),
            (ROUTE, at(1), [["JFK", 1, at(1, 1), 0.5], ["JFK", 12, at(1, 1), 0.7]]),
        ]
    )
    platform.publish(first, corrected, route)
    platform.publish(second)  # opened before the correction: published later, it does not win
    return platform


LABELS = [
    {"carrier": "AA", "origin": "JFK", "gate": 1, "event_timestamp": at(2, 1.5), "note": "second day, just available"},
    {"carrier": "AA", "origin": "JFK", "gate": 12, "event_timestamp": at(2, 1), "note": "second day, not yet"},
    {"carrier": "UA", "origin": "EWR", "gate": 1, "event_timestamp": at(2, 9), "note": "vanished in the correction"},
    {"carrier": "AA", "origin": "JFK", "gate": 1, "event_timestamp": at(5), "note": "dead on reaching ttl"},
    {"carrier": None, "origin": "JFK", "gate": None, "event_timestamp": at(2, 9), "note": "null keys"},
    {"carrier": "AA", "origin": "JFK", "gate": 1, "event_timestamp": at(-9), "note": "before any data"},
    {"carrier": "AA", "origin": "JFK", "gate": 1, "event_timestamp": at(2, 1.5), "note": "duplicate label"},
]
ANSWERS = [
    (None, 11, 0.5),
    (1.0, 10, 0.7),
    (2.0, 20, None),
    (None, None, 0.5),
    (None,) * 3,
    (None,) * 3,
    (None, 11, 0.5),
]
NAMES = ["carrier_delays__delay", "flights", "route_delays__delay"]


def values(table: pa.Table) -> list[tuple[object, ...]]:
    return [tuple(row[name] for name in NAMES) for row in table.to_pylist()]


def test_views_of_different_keys_and_grains_in_one_call(filled: Platform) -> None:
    for plan in PLANS:
        check_answers(filled, plan)


def check_answers(filled: Platform, plan: Plan) -> None:
    with filled.store.get_historical_features(arrow(LABELS), "departure_delay", mode="modelled", plan=plan) as features:
        table = features.to_arrow()
        assert values(table) == ANSWERS
        # the labels come back as they were, in order, and first
        assert table.column_names == [*LABELS[0], *NAMES]
        assert table.select(list(LABELS[0])).to_pylist() == LABELS
        assert features.facts.row_count == len(LABELS)
        assert features.null_shares() == pytest.approx(
            {"carrier_delays__delay": 5 / 7, "flights": 3 / 7, "route_delays__delay": 3 / 7}
        )


def test_every_kind_of_input_and_output(filled: Platform, tmp_path) -> None:
    labels = arrow(LABELS)
    path = tmp_path / "labels [1]*.parquet"  # no glob
    pq.write_table(labels, path)
    frame = labels.to_pandas().astype({"gate": "Int64"})
    frame.index = pd.Index([*"gfedcba"])
    with duckdb.connect() as other:
        other.register("labels", labels)
        inputs = [frame, labels, labels.to_reader(2), labels.to_batches()[0], path, str(path), other.sql("from labels")]
        for entity_df in inputs:
            with filled.store.get_historical_features(entity_df, "departure_delay") as features:
                assert values(features.to_arrow()) == ANSWERS, type(entity_df)
    with filled.store.get_historical_features(labels, "departure_delay") as features:
        want = features.to_arrow()
        one, two = features.to_reader(2), features.to_reader(3)  # both open at once
        assert one.read_next_batch().num_rows == 2
        assert two.read_all() == want
        out = features.to_parquet(tmp_path / "out" / "set.parquet")
        assert features.to_parquet(out) == out  # replaces
        assert pq.read_table(out).equals(want)
        assert [p.name for p in out.parent.iterdir()] == ["set.parquet"]
        assert [*features.to_pandas().columns] == want.column_names


def test_a_failed_write_leaves_the_older_file(filled: Platform, tmp_path) -> None:
    out = tmp_path / "set.parquet"
    with filled.store.get_historical_features(arrow(LABELS), "departure_delay") as features:
        features.to_parquet(out)
        before = out.read_bytes()
        features._sql = "select error('disk full')"
        with pytest.raises(FeaturePlatformError, match=r"writing set\.parquet failed[\s\S]*disk full"):
            features.to_parquet(out)
    assert out.read_bytes() == before
    assert [*tmp_path.glob(".*")] == []


def test_references_names_and_types(filled: Platform) -> None:
    def names(references, **options) -> list[str]:
        with filled.store.get_historical_features(arrow(LABELS), references, **options) as features:
            return features.to_arrow().column_names[len(LABELS[0]) :]

    assert names(["carrier_delays:delay"]) == ["delay"]
    assert names("carrier_delays@1") == ["delay", "flights"]
    assert names(["carrier_delays:flights"], full_feature_names=True) == ["carrier_delays__flights"]
    with filled.store.get_historical_features(arrow(LABELS), "carrier_delays") as features:
        schema = features.to_arrow().schema
        assert schema.field("flights").type == pa.int64()
        assert schema.field("event_timestamp").type == pa.timestamp("us", "UTC")


def test_the_time_may_have_another_name_and_another_zone(filled: Platform) -> None:
    frame = pd.DataFrame(LABELS).rename(columns={"event_timestamp": "asked_at"})[["carrier", "asked_at"]]
    frame["asked_at"] = frame["asked_at"].dt.tz_convert("America/New_York").dt.as_unit("ns")
    with filled.store.get_historical_features(
        frame, ["carrier_delays:flights"], timestamp_column="asked_at"
    ) as features:
        assert features.to_arrow()["flights"].to_pylist() == [answer[1] for answer in ANSWERS]


def test_as_of_an_earlier_ledger_sequence(filled: Platform) -> None:
    labels = arrow(LABELS[:1])
    with filled.store.get_historical_features(labels, "departure_delay") as features:
        sequence = features.facts.ledger_sequence
    filled.add(CARRIER, at(1), [["AA", at(2), 5.0, 55]])
    with filled.store.get_historical_features(labels, "departure_delay") as features:
        assert values(features.to_arrow()) == [(5.0, 55, 0.5)]
    with filled.store.get_historical_features(labels, "departure_delay", at_sequence=sequence) as features:
        assert values(features.to_arrow()) == ANSWERS[:1]
    with pytest.raises(RequestError, match="no sequence 99999"):
        filled.store.get_historical_features(labels, "departure_delay", at_sequence=99999)


def test_empty_labels_give_an_empty_set_with_all_columns(filled: Platform) -> None:
    empty = [arrow(LABELS)[:0], pd.DataFrame(LABELS)[:0], pd.DataFrame({name: [] for name in LABELS[0]})]
    for labels, plan in itertools.product(empty, PLANS):
        with filled.store.get_historical_features(labels, "departure_delay", plan=plan) as features:
            table = features.to_arrow()
            assert table.num_rows == 0
            assert table.column_names == [*LABELS[0], *NAMES]
            assert set(features.null_shares().values()) == {0.0}


def test_nothing_published_gives_nulls(platform: Platform) -> None:
    platform.open(CARRIER, at(1), [["AA", at(2), -1.0, -1]])
    for plan in PLANS:
        with platform.store.get_historical_features(arrow(LABELS), "departure_delay", plan=plan) as features:
            assert values(features.to_arrow()) == [(None, None, None)] * len(LABELS)


def test_key_columns_without_values_and_of_other_widths(filled: Platform) -> None:
    nobody = pd.DataFrame({"carrier": [None, None], "event_timestamp": [at(2), at(3)]})
    with filled.store.get_historical_features(nobody, "carrier_delays") as features:
        assert features.to_arrow()["delay"].null_count == 2
    wide = arrow(LABELS[:2], gate=pa.uint64())
    categories = wide.to_pandas().astype({"origin": "category"})
    for labels in (wide, categories):
        with filled.store.get_historical_features(labels, "route_delays") as features:
            assert features.to_arrow()["delay"].to_pylist() == [0.5, 0.7]


INSTANT = pa.timestamp("us", "UTC")
GOOD = {"carrier": "AA", "origin": "JFK", "gate": 1, "event_timestamp": at(2)}


REFUSED = [
    (arrow([GOOD]).drop(["carrier", "gate"]), EntityError, r"carrier \(needed by carr.*; gate \(needed by route"),
    (arrow([{**GOOD, "gate": 1.7}]), EntityError, r"gate DOUBLE[\s\S]*gate INTEGER[\s\S]*Int64"),
    (arrow([{**GOOD, "gate": "1"}]), EntityError, "gate VARCHAR"),
    (arrow([{**GOOD, "carrier": 7}]), EntityError, r"carrier BIGINT[\s\S]*carrier VARCHAR"),
    (arrow([GOOD]).drop(["event_timestamp"]), TimestampError, "timestamp_column="),
    (arrow([{**GOOD, "event_timestamp": datetime(2026, 3, 1)}]), TimestampError, r"no time zone[\s\S]*tz_loc"),  # noqa: DTZ001
    (arrow([{**GOOD, "event_timestamp": "2026-03-01"}]), TimestampError, r"is no timestamp[\s\S]*to_datetime"),
    (arrow([GOOD, {**GOOD, "event_timestamp": None}]), TimestampError, r"1 of 2 labels have no time[\s\S]*row 1"),
    (arrow([{**GOOD, "event_timestamp": 2**60}], event_timestamp=INSTANT), TimestampError, "impossible"),
    (arrow([{**GOOD, "Carrier": "x"}]), RequestError, "cannot be told apart"),
    (arrow([{**GOOD, "_label_id": 1}]), RequestError, "rename it"),
    (arrow([{**GOOD, "event_timestamp": 1772409600}]), TimestampError, r'is no timestamp[\s\S]*unit="s"'),
    (arrow([{**GOOD, "": 1}]), RequestError, "has no name"),
    (arrow([{**GOOD, "late": timedelta(minutes=-3)}]), RequestError, r"late duration\[us\][\s\S]*total_seconds"),
    (arrow([{**GOOD, "all": [{"late": HOUR}]}]), RequestError, r"all list<.*duration"),
    (arrow([{**GOOD, "y": 1.0}], y=pa.float16()), RequestError, r"y halffloat"),
    (arrow([{**GOOD, "y": 1}], y=pa.decimal256(50)), RequestError, r"y decimal256"),
    (pd.DataFrame([{**GOOD, "month": pd.Period("2026-03")}]), RequestError, "month .*period"),
    (pd.DataFrame([GOOD]).assign(few=pd.arrays.SparseArray([0])), RequestError, "Sparse"),
    (pd.DataFrame(), RequestError, "at least one column"),
    (pd.DataFrame({"carrier": ["a", 1]}), RequestError, "one type each"),
    ([GOOD], RequestError, r"list[\s\S]*pandas DataFrame"),
    (arrow([GOOD]).to_batches(), RequestError, r"RecordBatchReader.from_batches"),
    ("/nowhere/labels.parquet", RequestError, "cannot read the labels from /nowhere"),
]  # fmt: skip


def test_what_cannot_be_answered_is_refused_with_a_way_out(platform: Platform) -> None:
    for labels, error, says in REFUSED:
        with pytest.raises(error, match=says):
            platform.store.get_historical_features(labels, "departure_delay")


def test_instants_of_which_some_have_no_zone_are_refused(filled: Platform) -> None:
    """pyarrow would take those without for UTC."""
    for times in ([at(2), at(2).replace(tzinfo=None)], [at(2).replace(tzinfo=None), pd.NaT, at(2)]):
        labels = pd.DataFrame({"carrier": "AA", "event_timestamp": pd.Series(times, dtype=object)})
        with pytest.raises(TimestampError, match=r"some times[\s\S]*1 of 2, first in row"):
            filled.store.get_historical_features(labels, "carrier_delays")
    zones = pd.Series([at(2, 9), at(2, 9).astimezone(timezone(-7 * HOUR))], dtype=object, index=["x", "y"])

    class Frame(pd.DataFrame):
        """Somebody's own."""

    with filled.store.get_historical_features(
        Frame({"carrier": "AA", "event_timestamp": zones}), "carrier_delays"
    ) as features:
        assert features.to_arrow().column_names == ["carrier", "event_timestamp", "delay", "flights"]
        assert features.to_arrow()["event_timestamp"].to_pylist() == [at(2, 9)] * 2
    with pytest.raises(TimestampError, match="some times"):
        filled.store.get_historical_features(Frame(labels), "carrier_delays")


def test_what_ends_a_stream_of_labels_is_told_as_what_it_is(filled: Platform) -> None:
    schema = arrow([{"carrier": "AA", "event_timestamp": at(2)}]).schema

    def broken(message: str) -> Iterator[pa.RecordBatch]:
        yield from arrow([{"carrier": "AA", "event_timestamp": at(2)}]).to_batches()
        raise OSError(message)

    for message, error in (
        ("COMMIT: server closed the connection unexpectedly", LedgerUnavailableError),
        ("the sender went away", RequestError),
    ):
        labels = pa.RecordBatchReader.from_batches(schema, broken(message))
        with pytest.raises(error, match=r"read(ing)? the labels"):
            filled.store.get_historical_features(labels, "carrier_delays")


def test_directories_are_no_columns_of_a_label_file(filled: Platform, tmp_path) -> None:
    """DuckDB would read carrier=UA from the path, before the file's own column."""
    place = tmp_path / "carrier=UA" / "year=2026"
    place.mkdir(parents=True)
    pq.write_table(arrow([{"carrier": "AA", "event_timestamp": at(1, 2)}]), place / "labels.parquet")
    with filled.store.get_historical_features(place / "labels.parquet", "carrier_delays") as features:
        features.to_parquet(place / "set.parquet")
        assert features.to_arrow().to_pylist() == [
            {"carrier": "AA", "event_timestamp": at(1, 2), "delay": 1.0, "flights": 10}
        ]
    with closing(duckdb.connect()) as connection:
        assert [*read_content(connection, place / "set.parquet").schema] == [
            "carrier", "event_timestamp", "delay", "flights",
        ]  # fmt: skip


def test_columns_that_ride_along_come_back_as_they_were(filled: Platform, tmp_path) -> None:
    """Of every type that Parquet and DuckDB share, under names that SQL and the join have a meaning for."""
    values = {
        "i32": pa.array([-1, None], pa.int32()),
        "u64": pa.array([2**64 - 1, 0], pa.uint64()),
        "on": pa.array([date(2026, 3, 1), None]),
        "local": pa.array([1234567891, None], pa.timestamp("ns")),
        "price": pa.array([Decimal("1.10"), None], pa.decimal128(38, 10)),
        "raw": pa.array([b"\0\xff", b""]),
        "many": pa.array([[1, None], []]),
        "pair": pa.array([{"a": 1}, None]),
        "flag": pa.array([True, None]),
        "nothing": pa.nulls(2, pa.int32()),
        "of_day": pa.array([time(10, 0, 0, 1), None], pa.time64("us")),
    }
    names = ['a"b', "a'b", "$delay", "a;drop table labels", "a\nb", " ", "_as_of", "_is_outage", "_at", "l", "select"]
    given = arrow([{"carrier": "AA", "event_timestamp": at(1, 2)}] * 2)
    for name, column in (values | dict.fromkeys(names, pa.array([7, 8]))).items():
        given = given.append_column(name, column)
    fine = given.append_column("fine", pa.array([time(10, 0, 0, 1), None], pa.time64("ns")))
    given = given.append_column("fine", pa.array([time(10, 0, 0, 1), None], pa.time64("us")))
    path = tmp_path / "set.parquet"
    with filled.store.get_historical_features(fine, "carrier_delays", provenance=True) as features:
        features.to_parquet(path)
        for found in (features.to_arrow(), pq.read_table(path)):
            assert found.select(given.column_names).to_pylist() == given.to_pylist()
            assert found["flights"].to_pylist() == [10, 10]
            assert found.schema.field("fine").type == pa.time64("us")


def test_unknown_modes_names_and_an_undeployed_lake(platform: Platform, settings) -> None:
    with pytest.raises(RequestError, match=r"no point-in-time mode 'live'[\s\S]*auto, modelled, served"):
        platform.store.get_historical_features(arrow([GOOD]), "departure_delay", mode="live")
    with pytest.raises(UnknownNameError, match=r"no online store 'eu'"):
        platform.store.get_historical_features(arrow([GOOD]), "departure_delay", mode="served", store="eu")
    with pytest.raises(UnknownNameError, match="departure_dely"):
        platform.store.get_historical_features(arrow([GOOD]), "departure_dely")
    new = declare("new", entities={"carrier": ColumnType.VARCHAR}, features={"x": ColumnType.DOUBLE})
    with pytest.raises(NotDeployedError, match=r"does not hold new@1[\s\S]*deploy"):
        FeatureStore(settings, registry_of(new)).get_historical_features(arrow([GOOD]), "new")


def test_more_batches_than_a_list_in_sql_would_hold(platform: Platform) -> None:
    """Hourly batches of 40 days, some published twice, checked row by row in Python."""
    from feature_platform import lake
    from feature_platform.domain.windows import Grain, partitions_between
    from feature_platform.ledger import Ledger

    partitions = [*partitions_between(at(0), at(40), Grain.HOUR)]
    rng = random.Random(1)
    active: dict[datetime, int] = {}
    with Ledger.connect(platform.settings.ledger_url) as ledger:
        batches = [
            *ledger.open_batches(ROUTE, partitions, run_id="r1"),
            *ledger.open_batches(ROUTE, rng.sample(partitions, 200), run_id="r2"),
        ]
        ids = [batch.batch_id for batch in batches]
        ledger.record_computed(map(measured, ids))
        ledger.record_audited(ids, passed=True)
        published = [batch for batch in batches if batch.seq % 7]
        ledger.publish([batch.batch_id for batch in published])
        with lake.connect(platform.settings) as connection:
            rows = pa.Table.from_pylist(
                [
                    {"origin": "JFK", "gate": 1, "event_timestamp": b.partition.end, "delay": float(b.seq),
                     "_batch_id": b.batch_id, "_partition_start": b.partition.start}
                    for b in batches
                ]
            )  # fmt: skip
            connection.register("rows", rows)
            connection.execute("insert into lake.batches.route_delays_v1 from rows")
    for batch in published:
        active[batch.partition.end] = max(batch.seq, active.get(batch.partition.end, 0))
    labels = [{"origin": "JFK", "gate": 1, "event_timestamp": at(0, rng.uniform(0, 960))} for _ in range(300)]
    want = [
        next((float(active[end]) for end in sorted(active, reverse=True) if end <= label["event_timestamp"]), None)
        for label in labels
    ]
    for plan in PLANS:
        with platform.store.get_historical_features(arrow(labels), "route_delays", plan=plan) as features:
            assert features.to_arrow()["delay"].to_pylist() == want
