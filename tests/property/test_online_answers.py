"""Rows, dicts of columns, Arrow and numpy say the same as a plain decoder, whatever mixture of values came."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_codec import EPOCH_NOW, FEATURES, same, values_of

from feature_platform.domain.feature_service import FLAG_ALL, Remedy, ServingPolicy, ViewSelection
from feature_platform.domain.types import ColumnType, FeatureType, ListType
from feature_platform.errors import CorruptValueError
from feature_platform.online.catalog import Catalog, ViewDocument
from feature_platform.online.codec import Layout, tombstone
from feature_platform.online.request import ReadPlan
from feature_platform.online.result import OnlineFeatures
from feature_platform.online.view_values import FeatureStatus

NOW = EPOCH_NOW
TTL, STALE = timedelta(days=3), timedelta(days=1)
DEFAULTS: dict[FeatureType, Any] = {ColumnType.DOUBLE: 0, ColumnType.VARCHAR: "none", ColumnType.BIGINT: -1}


def document(name: str, features: Any) -> ViewDocument:
    return ViewDocument(
        name=name,
        version=1,
        latest=True,
        entities=(("k", ColumnType.INTEGER),),
        features=features,
        layout_id=Layout.of(features).layout_id,
        ttl=TTL,
        warn_after=STALE,
        error_after=None,
        owner="o@example.org",
    )


@st.composite
def answers(draw: st.DrawFn) -> tuple[OnlineFeatures, list[dict[str, Any]], list[FeatureStatus]]:
    """An answer, and what a plain decoder makes of it: values and statuses, entity by entity."""
    features = tuple((f"f{i}", type_) for i, type_ in enumerate(draw(FEATURES)))
    older = features[: draw(st.integers(1, len(features)))]
    asked = tuple(draw(st.permutations([name for name, _ in features]))[: draw(st.integers(1, len(features)))])
    defaults = {name: DEFAULTS[type_] for name, type_ in features if type_ in DEFAULTS}
    remedies = {name: draw(st.sampled_from([Remedy.FLAG, Remedy.DEFAULT])) for name in ("stale", "expired", "missing")}
    policy = draw(st.just(FLAG_ALL) | st.just(ServingPolicy(**remedies, defaults={"v@1": defaults})))
    values: list[bytes | None] = []
    expected, statuses = [], []
    kinds = st.sampled_from(["row", "row", "older", "stale", "expired", "gone", "never"])
    for kind in draw(st.lists(kinds, max_size=6) | st.lists(st.sampled_from(["row", "stale"]), max_size=12)):
        columns = older if kind == "older" else features
        row = {name: draw(st.none() | values_of(type_)) for name, type_ in columns}
        age = {"stale": draw(st.sampled_from([STALE, TTL - timedelta(microseconds=1)])), "expired": TTL}.get(kind)
        value = Layout.of(columns).encode(1, NOW - (age or timedelta(0)), row)
        values.append({"gone": tombstone(1), "never": None}.get(kind, value))
        status = FeatureStatus(
            {"row": "fresh", "older": "fresh", "gone": "missing", "never": "missing"}.get(kind, kind)
        )
        served = {} if status in ("missing", "expired") else row
        if policy is not FLAG_ALL and status != "fresh" and remedies[status] is Remedy.DEFAULT:
            served = {name: float(value) if value == 0 else value for name, value in defaults.items()}
        expected.append({name: served.get(name) for name in asked})
        statuses.append(status)
    layouts = {("v@1", layout.layout_id): layout for layout in map(Layout.of, (features, older))}
    catalog = Catalog(views={"v@1": document("v", features)}, services={}, layouts=layouts)
    plan = ReadPlan(catalog, (ViewSelection(view="v", version=1, features=asked),), policy)
    answer = plan.answer(plan.request({"k": list(range(len(values)))}), values, NOW)
    assert isinstance(answer, OnlineFeatures)
    return answer, expected, statuses


@pytest.fixture(autouse=True)
def columns_of_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("feature_platform.online.decoding._TOGETHER", 2)


@given(answers(), st.sampled_from([0, 32]))
@settings(
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture], max_examples=150, deadline=None
)
def test_all_forms_of_an_answer_agree_with_a_plain_decoder(
    monkeypatch: pytest.MonkeyPatch, drawn: Any, few: int
) -> None:
    by_way_of_python(monkeypatch, few)
    answer, expected, statuses = drawn
    keys = list(range(len(expected)))
    assert answer.statuses() == {"v@1": statuses}
    rows = [answer.named(i) for i in range(len(answer))]
    (part,) = answer.by_view
    assert repr([row.values for row in answer]) == repr(rows)
    columns = answer.to_columns()
    assert columns.pop("k") == keys
    table = answer.to_arrow()
    assert table.column("k").to_pylist() == keys
    found = table.drop_columns(["k"]).to_pylist()
    assert {len(column) for column in columns.values()} == {len(keys)}
    for i, one in enumerate(expected):
        for name, value in one.items():
            assert same(rows[i][name], value), name
            assert same(columns[name][i], value), name
            assert arrow_same(found[i][name], value), name
    for name, type_, array in zip(part.form.features, part.form.types, answer.to_numpy().values(), strict=True):
        assert_numpy(type_, array, [one[name] for one in expected])
    kinds = [array.dtype for array in answer.to_numpy().values()]
    by_way_of_python(monkeypatch, 32 - few)
    assert kinds == [array.dtype for array in answer.to_numpy().values()]
    assert table.schema == answer.to_arrow().schema


def by_way_of_python(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    """Up to so many rows."""
    for limit in ("_FEW", "_FEW_MIXED"):
        monkeypatch.setattr(f"feature_platform.online.columnar.{limit}", rows)


def arrow_same(a: Any, b: Any) -> bool:
    """Arrow has its own record of UTC, and a decimal zero has no sign."""
    return a == b if hasattr(a, "tzinfo") or hasattr(a, "as_tuple") else same(a, b)


def assert_numpy(type_: FeatureType, array: Any, values: list[Any]) -> None:
    assert len(array) == len(values)
    if isinstance(type_, ListType) and type_.length is not None and None not in values:
        assert array.shape == (len(values), type_.length)
    elif array.dtype == object:
        assert all(arrow_same(a, b) for a, b in zip(array.tolist(), values, strict=True))
    else:
        assert np.array_equal(
            array.astype(float), np.array([np.nan if v is None else float(v) for v in values]), equal_nan=True
        )


@given(answers(), st.sampled_from([0, 32]), st.data())
@settings(
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture], max_examples=50, deadline=None
)
def test_a_value_that_is_cut_or_too_long_is_refused_when_it_is_read(
    monkeypatch: pytest.MonkeyPatch, drawn: Any, few: int, data: st.DataObject
) -> None:
    by_way_of_python(monkeypatch, few)
    answer, _, _ = drawn
    (part,) = answer.by_view
    whole = [i for i, value in enumerate(part.values) if value is not None and len(value) > 20]
    if not whole:
        return
    values = list(part.values)
    at = data.draw(st.sampled_from(whole))
    cut = data.draw(st.integers(20, len(values[at])))
    values[at] = values[at][:cut] if cut < len(values[at]) else values[at] + b"x"
    layouts = {("v@1", d.layout.layout_id): d.layout for d in part.form.decoders.values()}
    features = max((layout.columns for _, layout in layouts.items()), key=len)
    catalog = Catalog(views={"v@1": document("v", features)}, services={}, layouts=layouts)
    names = tuple(name for name, _ in features)
    plan = ReadPlan(catalog, (ViewSelection(view="v", version=1, features=names),))
    answer = plan.answer(plan.request({"k": list(range(len(values)))}), values, NOW)
    readers = (
        lambda: answer[at].values,
        answer.to_columns,
        answer.to_arrow,
        answer.to_numpy,
        lambda: [row.values for row in answer],
    )
    if answer.by_view[0].status(at) != FeatureStatus.EXPIRED:
        for read in readers:
            with pytest.raises(CorruptValueError):
                read()
