"""Every contract type, from a dbt model through the lake into Valkey and training sets."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal

import pyarrow as pa
import pytest
from tiny_platform import TinyPlatform

from feature_platform.errors import BatchRejectedError
from feature_platform.offline import FeatureStore
from feature_platform.online import FeatureClient, LogSettings
from feature_platform.served_log import drain, measure_skew
from feature_platform.sync import sync

FEATURES = {
    "flag": ("boolean", "true", True),
    "i1": ("tinyint", "-1", -1),
    "u1": ("utinyint", "255", 255),
    "u2": ("usmallint", "65535", 65_535),
    "u4": ("uinteger", "4294967295", 4_294_967_295),
    "u8": ("ubigint", "18446744073709551615", 2**64 - 1),
    "real": ("float", "0.5", 0.5),
    "price": ("decimal(10, 2)", "12.5", Decimal("12.50")),
    "exact": ("numeric(38, 10)", "-1.0000000001", Decimal("-1.0000000001")),
    "raw": ("bytea", r"'\x00\xFF'", b"\x00\xff"),
    "day": ("date", "'2024-01-02'", date(2024, 1, 2)),
    "at": ("timestamptz", "'2024-01-02 03:04:05.000001+00'", datetime(2024, 1, 2, 3, 4, 5, 1, UTC)),
    "vector": ("float[3]", "[1::float, 2.5::float, 'nan'::float]", [1.0, 2.5, float("nan")]),
    "scores": ("double[]", "[]", []),
    "ids": ("ubigint[]", "[1, 18446744073709551615]", [1, 2**64 - 1]),
    "nothing": ("float[2]", "null", None),
    "not_there": ("decimal(38, 0)", "null", None),
}


@pytest.fixture
def platform(tiny: TinyPlatform, valkey_url: str) -> TinyPlatform:
    tiny = TinyPlatform(replace(tiny.settings, valkey_url=valkey_url))
    tiny.edit("user_activity.yml", "          ttl: 3 days\n", "")  # the store would take rows of 2024 for long dead
    declared = "".join(
        f"      - {{name: {name}, data_type: '{type_}', description: of its type}}\n"
        for name, (type_, _, _) in FEATURES.items()
    )
    tiny.edit("user_activity.yml", "      - name: events_1d\n", declared + "      - name: events_1d\n")
    selected = "".join(f"    cast({sql} as {type_}) as {name},\n" for name, (type_, sql, _) in FEATURES.items())
    tiny.edit("user_activity.sql", "    event_timestamp,\n", "    event_timestamp,\n" + selected)
    tiny.deploy()
    tiny.add_events((1, 10.0, "2024-01-02 09:00"))
    tiny.load_through("2024-01-10")
    return tiny


def test_every_type_arrives_online_and_in_training_sets(platform: TinyPlatform) -> None:
    platform.materialize("user_activity", "2024-01-02")
    sync(platform.settings, platform.registry, "user_activity", run_id="test")
    clock = datetime(2024, 1, 3, 1, tzinfo=UTC)
    expected = {name: value for name, (_, _, value) in FEATURES.items()}
    with FeatureClient.connect(platform.settings.valkey_url, clock=lambda: clock, log=LogSettings()) as client:
        (row,) = client.get_online_features("user_activity", [{"user_id": 1}])
    served = {name: row.values[name] for name in expected}
    assert repr(served) == repr(expected)
    labels = pa.table({"user_id": [1], "event_timestamp": [clock]})
    trained = FeatureStore(platform.settings, platform.registry).get_historical_features(
        labels, ["user_activity"], mode="modelled"
    )
    (found,) = trained.to_arrow().to_pylist()
    found["at"] = found["at"].astimezone(UTC)  # Arrow has its own record of UTC
    assert repr({name: found[name] for name in expected}) == repr(expected)
    # and through the log, exactly
    assert drain(platform.settings).rows == 1
    (view,) = measure_skew(FeatureStore(platform.settings, platform.registry)).views
    (account,) = (one for one in view.accounts if one.mode == "modelled")
    assert (account.judged, account.features) == (1, ())


def test_a_null_element_is_refused_with_its_column(platform: TinyPlatform) -> None:
    platform.edit("user_activity.sql", "cast([] as double[])", "cast([1.0, null] as double[])")
    platform.deploy()
    with pytest.raises(BatchRejectedError, match="scores has NULL elements"):
        platform.materialize("user_activity", "2024-01-02")
