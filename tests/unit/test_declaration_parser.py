"""A valid manifest becomes a registry; every fault becomes a finding that says what to write."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from manifests import (
    DELAYS,
    FLIGHTS,
    SERVICE,
    STAGING,
    WEATHER,
    Manifest,
    column,
    config,
    feature_view,
    manifest,
    view_model,
)

from feature_platform.declaration import FeatureRegistry, canary, load_registry, parse_manifest
from feature_platform.declaration.archive import from_archive, to_archive
from feature_platform.domain.feature_service import FLAG_ALL, FeatureService, Remedy
from feature_platform.domain.feature_view import LateData, LatePolicy, OnlineTier
from feature_platform.domain.training_set import Mode
from feature_platform.domain.types import ColumnType
from feature_platform.domain.windows import Grain
from feature_platform.errors import (
    ConfigurationError,
    Finding,
    InvalidDeclarationsError,
    NotDeployedError,
    UnknownNameError,
)


def findings(content: Manifest) -> tuple[Finding, ...]:
    with pytest.raises(InvalidDeclarationsError) as raised:
        parse_manifest(content)
    return raised.value.findings


def node(content: Manifest, unique_id: str = DELAYS) -> dict[str, Any]:
    found: dict[str, Any] = content["nodes"][unique_id]
    return found


def service(content: Manifest) -> dict[str, Any]:
    found: dict[str, Any] = content["exposures"][SERVICE]["config"]["meta"]["feature_service"]
    return found


def test_a_valid_view_has_everything_it_declares() -> None:
    view = parse_manifest(manifest()).views["carrier_delays@1"]
    assert view.entity_names == ("carrier",)
    assert view.entities[0].type is ColumnType.VARCHAR
    assert view.feature_names == ("flights_7d", "dep_delay_mean_7d")
    assert (view.grain, view.begin) == (Grain.DAY, datetime(2013, 1, 1, tzinfo=UTC))
    assert (view.ttl, view.availability_delay) == (timedelta(days=3), timedelta(minutes=90))
    assert view.late_data == LateData(policy=LatePolicy.RECOMPUTE, window=timedelta(days=7))
    assert (view.freshness.warn_after, view.freshness.error_after) == (timedelta(hours=26), timedelta(hours=50))
    assert view.online is OnlineTier.VALKEY
    assert (view.owner.email, view.owner.routes) == ("operations@example.com", ("${OPERATIONS_URL}",))
    assert [source.unique_id for source in view.sources] == [FLIGHTS]
    assert view.sources[0].reporting_lag == timedelta(minutes=20)
    assert [(e.type, e.severity) for e in view.expectations] == [
        ("ExpectTableRowCountToBeBetween", "error"),
        ("ExpectColumnMeanToBeBetween", "warn"),
    ]
    assert "severity" not in view.expectations[1].arguments
    assert (view.table, view.yaml_path) == ("carrier_delays_v1", "models/feature_views/carrier_delays.yml")


def test_what_may_be_left_out_has_defaults() -> None:
    content = manifest()
    section = feature_view(content)
    del section["ttl"], section["late_data"], section["freshness"], section["expectations"], section["online"]
    content["exposures"] = {}
    view = parse_manifest(content).views["carrier_delays@1"]
    assert (view.ttl, view.online, view.expectations) == (None, OnlineTier.NONE, ())
    assert view.late_data == LateData(policy=LatePolicy.RECOMPUTE, window=timedelta(days=7))
    assert (view.freshness.warn_after, view.freshness.error_after) == (None, None)


def test_the_section_may_stand_on_the_node_itself() -> None:
    content = manifest()
    node(content)["meta"] = config(content).pop("meta")
    assert "carrier_delays@1" in parse_manifest(content).views


def test_a_begin_with_a_zone_is_brought_to_utc() -> None:
    content = manifest()
    config(content)["begin"] = "2013-01-01T02:00:00+02:00"
    assert parse_manifest(content).views["carrier_delays@1"].begin == datetime(2013, 1, 1, tzinfo=UTC)


def test_a_service_selects_in_the_order_of_its_dependencies() -> None:
    found = parse_manifest(manifest()).services["departure_delay"]
    assert [(s.key, s.features) for s in found.selections] == [
        ("airport_weather@1", ("temperature_f",)),
        ("carrier_delays@1", ("dep_delay_mean_7d",)),
    ]
    assert (found.latency_budget, found.batch_size) == (timedelta(milliseconds=20), 100)
    assert (found.freshness, found.owner.email) == (timedelta(hours=3), "prediction@example.com")


def test_a_service_says_what_to_do_about_values_that_are_not_fresh() -> None:
    content = manifest()
    assert parse_manifest(content).services["departure_delay"].policy == FLAG_ALL
    defaults = {"carrier_delays": {"dep_delay_mean_7d": 0}, "airport_weather@v1": {"temperature_f": None}}
    _service(policy={"stale": "raise", "missing": "default", "defaults": defaults})(content)
    policy = parse_manifest(content).services["departure_delay"].policy
    assert (policy.stale, policy.expired, policy.missing) == (Remedy.RAISE, Remedy.FLAG, Remedy.DEFAULT)
    assert policy.defaults == {
        "carrier_delays@1": {"dep_delay_mean_7d": 0},
        "airport_weather@1": {"temperature_f": None},
    }
    (service,) = parse_manifest(content).services.values()
    assert from_archive(FeatureService, json.loads(json.dumps(to_archive(service)))) == service
    assert hash(service) is not None


def test_a_training_set_has_labels_and_only_the_arguments_that_are_declared() -> None:
    content = manifest()
    _sets(
        mine={"labels": "stg_flights", "mode": "served", "store": "eu", "description": "d"},
        bare={"labels": "stg_flights"},
    )(content)
    registry = parse_manifest(content)
    declared = registry.training_set("mine")
    assert (declared.labels, declared.labels_id) == (("staging", "stg_flights"), STAGING)
    assert (declared.service, declared.source_ids) == (registry.services["departure_delay"], (FLIGHTS,))
    assert (declared.arguments, registry.training_sets["bare"].arguments) == ({"mode": "served", "store": "eu"}, {})
    with pytest.raises(UnknownNameError, match="did you mean `mine`"):
        registry.training_set("mines")


def test_one_name_one_training_set() -> None:
    content = manifest()
    _sets(mine={"labels": "stg_flights"})(content)
    other = json.loads(json.dumps(content["exposures"][SERVICE])) | {"name": "other", "unique_id": "exposure.other"}
    content["exposures"]["exposure.other"] = other
    assert [f.problem for f in findings(content)] == ["declares a training set under a name that is taken"]


@pytest.mark.parametrize("mode", Mode)
def test_every_mode_of_the_join_may_be_declared(mode: Mode) -> None:
    content = manifest()
    _sets(mine={"labels": "stg_flights", "mode": mode.value})(content)
    assert parse_manifest(content).training_sets["mine"].arguments == {"mode": mode}


def test_other_exposures_are_no_services() -> None:
    content = manifest()
    content["exposures"][SERVICE] |= {"type": "dashboard", "owner": {}}
    assert not parse_manifest(content).services


def _set(**values: Any) -> Callable[[Manifest], None]:
    return lambda content: feature_view(content).update(values)


def _drop(key: str) -> Callable[[Manifest], None]:
    return lambda content: feature_view(content).pop(key)


def _config(**values: Any) -> Callable[[Manifest], None]:
    return lambda content: config(content).update(values)


def _node(unique_id: str = DELAYS, **values: Any) -> Callable[[Manifest], None]:
    return lambda content: node(content, unique_id).update(values)


def _column(name: str, data_type: str | None = "double", description: str = "d") -> Callable[[Manifest], None]:
    return lambda content: node(content)["columns"].update({name: column(name, data_type, description)})


def _service(**values: Any) -> Callable[[Manifest], None]:
    return lambda content: service(content).update(values)


def _policy(defaults: Any) -> Callable[[Manifest], None]:
    return _service(policy={"missing": "default", "defaults": defaults})


def _exposure(**values: Any) -> Callable[[Manifest], None]:
    return lambda content: content["exposures"][SERVICE].update(values)


def _sets(**values: Any) -> Callable[[Manifest], None]:
    return lambda content: content["exposures"][SERVICE]["config"]["meta"].update(training_sets=values)


def _labels_as_a_table(content: Manifest) -> None:
    _sets(mine={"labels": "labels"})(content)
    table = node(content, STAGING) | {"name": "labels", "unique_id": "model.flights.labels"}
    content["nodes"]["model.flights.labels"] = table | {"config": {"materialized": "table"}}


def _labels_of_a_view(content: Manifest) -> None:
    _sets(mine={"labels": "labels"})(content)
    labels = node(content, STAGING) | {"name": "labels", "unique_id": "model.flights.labels"}
    content["nodes"]["model.flights.labels"] = labels | {"depends_on": {"macros": [], "nodes": [DELAYS]}}


def _source(**values: Any) -> Callable[[Manifest], None]:
    return lambda content: content["sources"][FLIGHTS].update(values)


def _group(**values: Any) -> Callable[[Manifest], None]:
    return lambda content: content["groups"]["group.flights.operations"].update(values)


def _ungroup(content: Manifest) -> None:
    node(content)["group"] = config(content)["group"] = None


def _misspell(content: Manifest) -> None:
    config(content)["batch_sise"] = config(content).pop("batch_size")


# one fault → (words of its problem, words of what to do or what is allowed)
FAULTS: dict[str, tuple[Callable[[Manifest], None], str, str]] = {
    "unknown key": (_set(entites=["carrier"]), "unknown key", "did you mean `entities`?"),
    "no entities": (_drop("entities"), "no list of names", "entities: [...]"),
    "entities as a word": (_set(entities="carrier"), "no list of names", "entities: [...]"),
    "entity that is no column": (_set(entities=["carier"]), "no column", "did you mean `carrier`?"),
    "entity twice": (_set(entities=["carrier", "carrier"]), "twice", "once"),
    "event_timestamp as entity": (_set(entities=["carrier", "event_timestamp"]), "may not hold", "leave it out"),
    "entity of a float": (_column("carrier", "double"), "a type that keys cannot have", "varchar"),
    "no delay": (_drop("availability_delay"), "missing", "availability_delay: 90 minutes"),
    "a vague delay": (_set(availability_delay="soon"), "no duration", "90 minutes"),
    "delay under the reporting lag": (_set(availability_delay="5 minutes"), "reporting lag", "at least 20 min"),
    "ttl of zero": (_set(ttl="0 days"), "longer than zero", ""),
    "ttl under the delay": (_set(ttl="1 hour"), "before a value is available", "1 h 30 min"),
    "warn after error": (
        _set(freshness={"warn_after": "60 hours", "error_after": "50 hours"}),
        "not shorter",
        "earlier",
    ),
    "freshness that always alarms": (_set(freshness={"warn_after": "24 hours"}), "would alarm", "1 d 1 h"),
    "served without freshness": (_drop("freshness"), "missing for a view that is served", "error_after"),
    "freshness key": (_set(freshness={"warn_afer": "26 hours"}), "unknown key", "did you mean `warn_after`?"),
    "freshness as a word": (_set(freshness="26 hours"), "not a mapping", "warn_after"),
    "late policy": (_set(late_data={"policy": "recompte"}), "no such value", "did you mean `recompute`?"),
    "late window": (_set(late_data={"policy": "version", "window": "long"}), "no duration", ""),
    "online tier": (_set(online="redis"), "no such value", "valkey"),
    "expectations as mapping": (_set(expectations={"ExpectX": {}}), "not a list", "Expect"),
    "expectation as a word": (_set(expectations=["ExpectX"]), "is no expectation", "- ExpectX: {}"),
    "expectation in snake case": (
        _set(expectations=[{"expect_column_mean_to_be_between": {}}]),
        "no expectation of Great Expectations",
        "`ExpectColumnMeanToBeBetween`",
    ),
    "expectation on no column": (
        _set(expectations=[{"ExpectColumnMaxToBeBetween": {"column": "flights_7"}}]),
        "does not have",
        "did you mean `flights_7d`?",
    ),
    "expectation severity": (
        _set(expectations=[{"ExpectTableRowCountToEqual": {"value": 1, "severity": "warning"}}]),
        "no such value",
        "did you mean `warn`?",
    ),
    "no owner": (_ungroup, "has no owner", "config: {group"),
    "unknown group": (_node(group="operation"), "not declared", ""),
    "owner without address": (_group(owner={"name": "Operations"}), "e-mail", "owner: {name"),
    "owner with a bad address": (_group(owner={"email": "operations"}), "e-mail", "owner: {name"),
    "escalation without a time": (
        _group(config={"meta": {"escalation": {"routes": ["x://y"]}}}),
        "config.meta.escalation.after` is missing",
        "after: 4 hours",
    ),
    "routes as a word": (_group(config={"meta": {"routes": "x"}}), "routes", "list"),
    "no description": (_node(description=" "), "no description", ""),
    "column without description": (_column("flights_7d", "bigint", ""), "column flights_7d has no description", ""),
    "column without type": (_column("flights_7d", None), "has no `data_type`", "double"),
    "column of decimals without scale": (
        _column("price", "decimal"),
        "does not serve",
        "cast to decimal(precision, scale)",
    ),
    "column of a list": (_column("price", "varchar[]"), "does not serve", "one column per element"),
    "feature with an underscore": (_column("_hidden"), "begins with an underscore", "call it hidden"),
    "feature with the name of a clock": (_column("computed_at"), "the platform uses itself", ""),
    "feature in capitals": (_column("DepDelay"), "no usable name", "lower-case"),
    "event_timestamp without zone": (_column("event_timestamp", "timestamp"), "does not serve", "timestamptz"),
    "event_timestamp of a date": (_column("event_timestamp", "date"), "wrong type", "timestamptz"),
    "contract": (_config(contract={"enforced": False}), "contract.enforced", "contract: {enforced: true}"),
    "a table": (_config(materialized="table"), "config.materialized", "incremental"),
    "microbatch": (_config(incremental_strategy="microbatch"), "microbatch", "28-day window sees one day"),
    "append": (_config(incremental_strategy="append"), "incremental_strategy", "batch_append"),
    "full refresh": (_config(full_refresh=None), "full_refresh", "full_refresh: false"),
    "schema change": (_config(on_schema_change="sync_all_columns"), "on_schema_change", "append_new_columns"),
    "event time": (_config(event_time="known_at"), "event_time", "event_timestamp"),
    "schema": (_node(schema="main_batches"), "another schema", "feature_views"),
    "alias": (_node(alias="delays"), "table of another name", "carrier_delays_v1"),
    "no version": (_node(version=None), "no version", "versions: [{v: 1}]"),
    "version of letters": (_node(version="beta", latest_version="beta"), "no version", "whole number"),
    "python model": (_node(language="python"), "no SQL model", "sql"),
    "key in the wrong place": (_config(ttl="3 days"), "wrong place", "config.meta.feature_view"),
    "grain": (_config(batch_size="year"), "no length of a partition", "day, hour, month"),
    "grain misspelt": (_misspell, "no length of a partition", "rename `batch_sise` to `batch_size`"),
    "no begin": (_config(begin=None), "no date or instant", "2013-01-01"),
    "begin within a day": (_config(begin="2013-01-01T05:00:00"), "not where a day begins", "2013-01-02"),
    "deprecation date": (_node(deprecation_date="never"), "no date", "2027"),
    "access": (_node(access="everyone"), "unknown `access`", "public"),
    "no source": (_node(depends_on={"nodes": []}), "reads no source", "source(…)"),
    "another view": (_node(depends_on={"nodes": [STAGING, WEATHER]}), "reads another feature view", "read what that"),
    "another view through staging": (
        _node(STAGING, depends_on={"nodes": [FLIGHTS, WEATHER]}),
        "reads another feature view",
        "read what that",
    ),
    "staging as a table": (_node(STAGING, config={"materialized": "table"}), "no run refreshes", "materialized: view"),
    "source without loaded_at_field": (_source(loaded_at_field=None), "loaded_at_field", "ingested_at"),
    "source without lag": (_source(config={"event_time": "known_at", "meta": {}}), "feature_source", "reporting_lag"),
    "source without event time": (
        _source(config={"meta": {"feature_source": {"reporting_lag": "1 minute"}}}),
        "`event_time`",
        "config: {event_time",
    ),
    "service without address": (_exposure(owner={"name": "P"}), "e-mail", "owner"),
    "service key": (_service(latency="20 ms"), "unknown key", "did you mean `latency_budget`?"),
    "service latency": (_service(latency_budget="fast"), "no latency", "20 ms"),
    "service batch": (_service(batch_size=0), "no number of entities", "1"),
    "service freshness": (_service(freshness="fresh"), "no duration", ""),
    "service with an unknown view": (
        _service(features={"carrier_delay": ["a"]}),
        "does not depend on",
        "carrier_delays",
    ),
    "service with an unknown feature": (
        _service(features={"carrier_delays": ["dep_delay_mean_7"]}),
        "does not have",
        "did you mean `dep_delay_mean_7d`?",
    ),
    "service with no list": (_service(features={"carrier_delays": "dep_delay_mean_7d"}), "no list of features", "all"),
    "policy as a word": (_service(policy="raise"), "not a mapping", "stale"),
    "policy key": (_service(policy={"stal": "flag"}), "unknown key", "did you mean `stale`?"),
    "policy remedy": (_service(policy={"stale": "rise"}), "no such value", "did you mean `raise`?"),
    "policy without defaults": (_service(policy={"missing": "default"}), "is missing", "every feature"),
    "policy defaults as a list": (_policy(["x"]), "no mapping of views", "<view>"),
    "policy defaults of a view as a list": (_policy({"carrier_delays": []}), "no mapping of features", "<feature>"),
    "policy defaults of an unknown view": (_policy({"carrier_delay": {}}), "does not read", "did you mean"),
    "policy defaults of an unknown feature": (
        _policy({"carrier_delays": {"flights_7d": 1}}),
        "no feature that the service reads",
        "dep_delay_mean_7d",
    ),
    "policy defaults of another type": (
        _policy({"carrier_delays": {"dep_delay_mean_7d": "none"}}),
        "no value of its type",
        "DOUBLE: not a number",
    ),
    "policy defaults not for all": (_policy({"carrier_delays": {"dep_delay_mean_7d": 0}}), "lacks", "`null` serves"),
    "policy defaults for nothing": (
        _service(policy={"defaults": {"carrier_delays": {"dep_delay_mean_7d": 0}}}),
        "used by no status",
        "default",
    ),
    "service on staging": (_exposure(depends_on={"nodes": [STAGING]}), "no feature view", "another type"),
    "service on nothing": (_exposure(depends_on={"nodes": []}), "depends on no feature view", "depends_on"),
    "service on a deprecated view": (_node(deprecation_date="2026-02-01T00:00:00"), "deprecated", "newer version"),
    "service on another group's private view": (_node(access="private"), "private to the group", "access: public"),
    "service on a view that is not served": (_set(online="none"), "not served online", "online: valkey"),
    "training sets as a list": (_exposure(config={"meta": {"training_sets": ["mine"]}}), "no mapping", "<name>"),
    "training set with a strange name": (
        _sets(**{"Mine 1": {"labels": "stg_flights"}}),
        "no training set can",
        "digits",
    ),
    "training set key": (_sets(mine={"label": "stg_flights"}), "unknown key", "did you mean `labels`?"),
    "training set without labels": (_sets(mine={"mode": "auto"}), "is missing", "write `labels: "),
    "training set of unknown labels": (
        _sets(mine={"labels": "stg_flight"}),
        "no dbt model",
        "did you mean `stg_flights`?",
    ),
    "training set of a feature view": (_sets(mine={"labels": "carrier_delays"}), "no dbt model", "not a feature view"),
    "training set through a feature view": (_labels_of_a_view, "reads a feature view", "leave carrier_delays"),
    "training set of a table": (_labels_as_a_table, "materialized as table", "materialized as view"),
    "training set mode": (_sets(mine={"labels": "stg_flights", "mode": "live"}), "mode", "modelled"),
    "training set names": (_sets(mine={"labels": "stg_flights", "full_feature_names": "yes"}), "wrong type", "true"),
    "service with the name of a view": (_exposure(name="carrier_delays"), "name of a feature view", "rename"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_found_and_says_what_to_write(fault: str) -> None:
    break_it, problem, way_out = FAULTS[fault]
    content = manifest()
    break_it(content)
    matching = [f for f in findings(content) if problem in f.problem]
    assert matching, [str(f) for f in findings(content)]
    assert any(way_out in f"{f.allowed} {f.hint}" for f in matching), [str(f) for f in matching]
    assert all(f.file.endswith((".yml", ".sql")) and f.node for f in matching)


def test_all_faults_of_a_project_are_reported_at_once() -> None:
    content = manifest()
    for fault in ("unknown key", "ttl of zero", "microbatch", "source without lag", "service batch", "grain"):
        FAULTS[fault][0](content)
    problems = " ".join(f.problem for f in findings(content))
    for expected in ("unknown key", "longer than zero", "microbatch", "feature_source", "number of entities", "length"):
        assert expected in problems


def test_a_shared_source_is_reported_once_however_many_views_read_it() -> None:
    content = manifest()
    content["sources"][FLIGHTS]["loaded_at_field"] = None
    assert len(findings(content)) == 1


def test_a_model_among_the_feature_views_must_be_one() -> None:
    content = manifest()
    config(content, WEATHER)["meta"] = {"feature_veiw": {}}
    content["exposures"] = {}
    (finding,) = findings(content)
    assert "lies among the feature views" in finding.problem
    assert finding.hint == "did you mean `feature_view`?"


def test_an_empty_section_declares_a_view_with_everything_missing() -> None:
    content = manifest()
    config(content)["meta"] = {"feature_view": None}
    assert {"`meta.feature_view.availability_delay` is missing"} <= {f.problem for f in findings(content)}


def test_one_entity_name_has_one_type() -> None:
    other = view_model("carrier_sizes", entities={"carrier": "integer"}, features={"planes": "bigint"})
    assert any("another type than in carrier_delays@1" in f.problem for f in findings(manifest(other)))


def test_a_name_may_be_declared_once() -> None:
    other = view_model("carrier_delays", entities={"carrier": "varchar"}, features={"x": "double"})
    other |= {"unique_id": "model.other.carrier_delays.v1", "package_name": "other"}
    assert any("declared twice" in f.problem for f in findings(manifest(other)))


def test_the_name_of_the_canary_is_taken() -> None:
    other = view_model(canary.NAME, entities={"store": "varchar"}, features={"x": "double"})
    assert any("view of its own" in f.problem for f in findings(manifest(other)))


def test_a_deprecation_in_the_future_forbids_nothing() -> None:
    content = manifest()
    node(content)["deprecation_date"] = "2026-03-02T00:00:00+00:00"
    assert parse_manifest(content).views["carrier_delays@1"].deprecation_date == date(2026, 3, 2)


def test_a_private_view_serves_its_own_group() -> None:
    content = manifest()
    node(content)["access"] = "private"
    content["exposures"][SERVICE]["owner"] = {"email": "operations@example.com"}
    assert parse_manifest(content).services


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)
SPOTS: dict[str, Callable[[Manifest], dict[str, Any]]] = {
    "section": feature_view,
    "freshness": lambda content: feature_view(content)["freshness"],
    "late_data": lambda content: feature_view(content)["late_data"],
    "expectation": lambda content: feature_view(content)["expectations"][1]["ExpectColumnMeanToBeBetween"],
    "config": config,
    "meta": lambda content: config(content)["meta"],
    "column": lambda content: node(content)["columns"]["carrier"],
    "source": lambda content: content["sources"][FLIGHTS]["config"],
    "source meta": lambda content: content["sources"][FLIGHTS]["config"]["meta"],
    "lag": lambda content: content["sources"][FLIGHTS]["config"]["meta"]["feature_source"],
    "service": service,
    "service meta": lambda content: content["exposures"][SERVICE]["config"]["meta"],
    "service features": lambda content: service(content)["features"],
    "group": lambda content: content["groups"]["group.flights.operations"]["owner"],
    "routes": lambda content: content["groups"]["group.flights.operations"]["config"]["meta"],
}


@given(spot=st.sampled_from([*SPOTS]), value=JSON, data=st.data())
def test_whatever_people_write_becomes_a_registry_or_findings(spot: str, value: Any, data: st.DataObject) -> None:
    content = manifest()
    place = SPOTS[spot](content)
    place[data.draw(st.sampled_from([*place]) | st.text(max_size=5))] = value
    try:
        assert isinstance(parse_manifest(content), FeatureRegistry)
    except InvalidDeclarationsError as error:
        assert error.findings


@pytest.mark.parametrize("url", ["https://schemas.getdbt.com/dbt/manifest/v11.json", "", None])
def test_another_schema_version_is_refused(url: str | None) -> None:
    content = manifest()
    content["metadata"]["dbt_schema_version"] = url
    with pytest.raises(ConfigurationError, match="schema version") as raised:
        parse_manifest(content)
    assert "v12" in raised.value.allowed


def test_loading_says_what_is_wrong_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    with pytest.raises(NotDeployedError) as missing:
        load_registry(path)
    assert "feature-platform deploy" in missing.value.hint
    path.write_text("{")
    with pytest.raises(ConfigurationError):
        load_registry(path)
    path.write_text("[]")
    with pytest.raises(ConfigurationError):
        load_registry(path)
    path.write_text(json.dumps(manifest()))
    assert set(load_registry(path).views) == {"carrier_delays@1", "airport_weather@1"}


def singular_test(name: str, *, macros: list[str], parent: str = DELAYS) -> dict[str, Any]:
    return {
        "unique_id": f"test.flights.{name}",
        "name": name,
        "resource_type": "test",
        "original_file_path": f"tests/{name}.sql",
        "depends_on": {"macros": macros, "nodes": [parent]},
    }


def test_a_singular_test_that_reads_all_of_a_view_is_refused() -> None:
    content = manifest()
    for test in (
        singular_test("of_everything", macros=["macro.dbt.ref"]),
        singular_test("of_the_batch", macros=["macro.feature_platform.this_batch"]),
        singular_test("of_something_else", macros=[], parent=STAGING),
    ):
        content["nodes"][test["unique_id"]] = test
    (found,) = findings(content)
    assert (found.file, found.node) == ("tests/of_everything.sql", "test of_everything")
    assert "judges all rows of" in found.problem
    assert "this_batch" in found.hint
