"""One dbt model → one feature view, with every fault of its declaration reported.

Rule: dbt's own configuration wherever dbt has a word for it, `meta.feature_view` for the rest; parsing goes on after a
fault with a stand-in, because a registry with findings is never handed out.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from feature_platform.declaration.code_version import code_version
from feature_platform.declaration.columns import NAME, NAME_ALLOWED, parse_columns
from feature_platform.declaration.expectations import parse_expectations
from feature_platform.declaration.findings import Reporter, Section, did_you_mean, show
from feature_platform.declaration.manifest import Manifest, Node, as_mapping, config_of, meta_of, parse_date, yaml_path
from feature_platform.declaration.owners import owner_of_view
from feature_platform.declaration.quality import parse_quality
from feature_platform.domain.durations import format_duration
from feature_platform.domain.feature_view import (
    EVENT_TIMESTAMP,
    FeatureView,
    FreshnessSla,
    LateData,
    LatePolicy,
    OnlineTier,
    Owner,
    Source,
)
from feature_platform.domain.retention import SHORTEST, Retention
from feature_platform.domain.windows import Grain, floor, following
from feature_platform.errors import chosen_from

SECTION = "meta.feature_view"
KEYS = (
    "availability_delay",
    "entities",
    "expectations",
    "freshness",
    "late_data",
    "online",
    "push",
    "quality",
    "retention",
    "ttl",
)
ACCESS = ("private", "protected", "public")
SCHEMA = "batches"
FOLDER = "feature_views"
STRATEGY = "batch_append"
DEFAULT_LATE_WINDOW = timedelta(days=7)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """What the views of a project share."""

    manifest: Manifest
    owners: Mapping[str, Owner]
    sources: Mapping[str, Source]
    """By unique id."""
    view_names: Mapping[str, str]
    """Unique id of every model that is a feature view → what to call it."""


def declared_section(node: Node) -> object:
    """The value of `meta.feature_view`, in `config` or on the node itself; None if there is none."""
    meta = meta_of(node)
    if "feature_view" not in meta:
        return None
    # a bare `feature_view:` declares a view too, with everything missing
    return meta["feature_view"] if meta["feature_view"] is not None else {}


def label(node: Node) -> str:
    """What findings call a model."""
    version = node.get("version")
    return f"feature view {node.get('name')}" + (f"@{version}" if version is not None else "")


def check_undeclared(node: Node, reporter: Reporter) -> None:
    """Report a model that lies where feature views lie and is none."""
    if FOLDER not in node.get("fqn", [])[:-1] and node.get("schema") != SCHEMA:
        return
    reporter.at(yaml_path(node), f"model {node.get('name')}").report(
        f"lies among the feature views and has no `{SECTION}`",
        found=str(node.get("original_file_path")),
        allowed=f"only feature views in the folder {FOLDER} and the schema {SCHEMA}",
        hint=next(filter(None, (did_you_mean(str(key), ["feature_view"]) for key in meta_of(node))), "")
        or "write `config: {meta: {feature_view: {entities: [...], …}}}`, or move the model to staging",
    )


def parse_view(node: Node, project: Project, reporter: Reporter) -> FeatureView:
    """The feature view a model declares."""
    reporter = reporter.at(yaml_path(node), label(node))
    section = Section.read(SECTION, declared_section(node), KEYS, reporter)
    _check_identity(node, reporter)
    _check_storage(node, reporter)
    grain, begin = _partitions(config_of(node), reporter)
    columns = parse_columns(node, section)
    group, owner = owner_of_view(node, project.owners, reporter)
    if (access := str(node.get("access"))) not in ACCESS:
        reporter.report("has an unknown `access`", found=access, allowed=chosen_from(ACCESS))
    delay = section.duration("availability_delay", required="availability_delay: 90 minutes") or timedelta(0)
    online = OnlineTier(section.choice("online", OnlineTier, OnlineTier.NONE))
    ttl = section.duration("ttl", positive=True)
    freshness = _freshness(section)
    sources = _sources(node, project, reporter)
    _check_lag(section, delay, sources)
    _check_times(section, grain, delay=delay, ttl=ttl, freshness=freshness, online=online)
    return FeatureView(
        name=str(node.get("name")),
        version=node["version"] if isinstance(node.get("version"), int) else 0,
        description=str(node.get("description") or "").strip(),
        entities=columns.entities,
        features=columns.features,
        grain=grain,
        begin=begin,
        ttl=ttl,
        availability_delay=delay,
        late_data=_late_data(section),
        freshness=freshness,
        online=online,
        owner=owner,
        group=group,
        access=access,
        tags=tuple(node.get("tags") or config_of(node).get("tags") or ()),
        deprecation_date=_deprecation_date(node, reporter),
        sources=sources,
        expectations=tuple(
            parse_expectations(
                section.path("expectations"), section.values.get("expectations"), columns.names, reporter
            )
        ),
        unique_id=str(node.get("unique_id")),
        table=str(node.get("alias")),
        sql_path=str(node.get("original_file_path")),
        yaml_path=yaml_path(node),
        code_version=code_version(project.manifest, node),
        retention=_retention(section),
        push=_push(section, online),
        quality=parse_quality(section, columns.features, grain),
    )


def _check_identity(node: Node, reporter: Reporter) -> None:
    name, version = str(node.get("name")), node.get("version")
    if not NAME.fullmatch(name):
        reporter.report("has no usable name", found=name, allowed=NAME_ALLOWED)
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        reporter.report(
            "has no version",
            found=show(version),
            allowed="a whole number from 1",
            hint="write `latest_version: 1` and `versions: [{v: 1}]`",
        )
    elif node.get("alias") != f"{name}_v{version}":
        reporter.report(
            "has a table of another name",
            found=show(node.get("alias")),
            allowed=f"{name}_v{version}",
            hint="remove `alias`: dbt names the table of a version by itself",
        )
    if not str(node.get("description") or "").strip():
        reporter.report("has no description", hint="say what the features are about and who may use them for what")


def _check_storage(node: Node, reporter: Reporter) -> None:
    """How dbt writes the table: only appending keeps batches immutable and lets runs write at the same time."""
    config = config_of(node)
    strategy = config.get("incremental_strategy")
    if node.get("language", "sql") != "sql":
        reporter.report("is no SQL model", found=show(node.get("language")), allowed="sql")
    if strategy == "microbatch":
        reporter.report(
            "uses dbt's microbatch strategy",
            found="incremental_strategy: microbatch",
            allowed=STRATEGY,
            hint="microbatch filters every ref to the batch itself: a 28-day window sees one day of data and the run "
            f"still reports success. Write `incremental_strategy: {STRATEGY}` and use the window macros",
        )
    wanted: tuple[tuple[str, object, tuple[object, ...]], ...] = (
        ("materialized", config.get("materialized"), ("incremental",)),
        ("incremental_strategy", strategy, (STRATEGY, "microbatch")),
        ("full_refresh", config.get("full_refresh"), (False,)),
        ("on_schema_change", config.get("on_schema_change"), ("append_new_columns", "fail")),
        ("event_time", config.get("event_time"), (EVENT_TIMESTAMP,)),
        ("contract.enforced", as_mapping(config.get("contract")).get("enforced"), (True,)),
    )
    for key, found, allowed in wanted:
        if found not in allowed:
            right = str(allowed[0]).lower() if isinstance(allowed[0], bool) else str(allowed[0])
            reporter.report(
                f"`config.{key}` is not {right}",
                found=show(found),
                allowed=right,
                hint=f"write `{key}: {right}`, or remove the override if dbt_project.yml sets it for {FOLDER}"
                if "." not in key
                else "write `contract: {enforced: true}`",
            )
    if node.get("schema") != SCHEMA:
        reporter.report(
            "is written to another schema",
            found=show(node.get("schema")),
            allowed=SCHEMA,
            hint=f"put the model into the folder {FOLDER}, for which dbt_project.yml sets `+schema: {SCHEMA}`",
        )
    for key in (*KEYS, "feature_view"):
        if key != "freshness" and config.get(key) is not None:  # dbt has a `freshness` of its own
            reporter.report(f"`config.{key}` stands in the wrong place", hint=f"move it under `config.{SECTION}`")


def _partitions(config: Mapping[str, Any], reporter: Reporter) -> tuple[Grain, datetime]:
    """Length and first of the partitions."""
    size, written = config.get("batch_size"), config.get("begin")
    grain = next((grain for grain in Grain if grain == size), None)
    if grain is None:
        reporter.report(
            "`config.batch_size` is no length of a partition",
            found=show(size),
            allowed=chosen_from(Grain),
            hint=_misspelt(config, "batch_size") or "write `batch_size: day`",
        )
    try:
        begin = datetime.fromisoformat(str(written))
    except ValueError:
        reporter.report(
            "`config.begin` is no date or instant",
            found=show(written),
            allowed="an ISO date or instant, in UTC if it names no zone",
            hint=_misspelt(config, "begin") or "write `begin: '2013-01-01'`",
        )
        return grain or Grain.DAY, _EPOCH
    begin = begin.replace(tzinfo=UTC) if begin.tzinfo is None else begin.astimezone(UTC)
    if grain is not None and floor(begin, grain) != begin:
        reporter.report(
            f"`config.begin` is not where a {grain} begins in UTC",
            found=begin.isoformat(),
            allowed=f"a boundary, e.g. {floor(begin, grain).isoformat()} or {_next(begin, grain)}",
        )
    return grain or Grain.DAY, begin


def _misspelt(config: Mapping[str, Any], key: str) -> str:
    """What to rename, if a key that looks like this one is written: dbt keeps keys it does not know, silently."""
    written = [name for name, value in config.items() if value is not None and name != key]
    similar = difflib.get_close_matches(key, written, n=1, cutoff=0.8)
    return f"rename `{similar[0]}` to `{key}`" if similar else ""


def _next(begin: datetime, grain: Grain) -> str:
    return following(floor(begin, grain), grain).isoformat()


def _freshness(section: Section) -> FreshnessSla:
    bounds = section.inner("freshness", ("warn_after", "error_after"))
    warn = bounds.duration("warn_after", positive=True)
    error = bounds.duration("error_after", positive=True)
    if warn is not None and error is not None and warn >= error:
        bounds.report("warn_after", f"is not shorter than error_after ({format_duration(error)})", hint="warn earlier")
    return FreshnessSla(warn_after=warn, error_after=error)


def _late_data(section: Section) -> LateData:
    late = section.inner("late_data", ("policy", "window"))
    policy = LatePolicy(late.choice("policy", LatePolicy, LatePolicy.RECOMPUTE))
    window = late.duration("window", positive=policy is not LatePolicy.IGNORE)
    if window is None:
        window = timedelta(0) if policy is LatePolicy.IGNORE else DEFAULT_LATE_WINDOW
    return LateData(policy=policy, window=window)


def _retention(section: Section) -> Retention:
    kept = section.inner("retention", ("superseded", "logged"))
    found = {key: kept.duration(key, positive=True) for key in ("superseded", "logged")}
    for key, duration in found.items():
        if duration is not None and duration < SHORTEST:
            kept.report(key, "is shorter than a query may take", allowed=f"at least {format_duration(SHORTEST)}")
    return Retention(**found)


def _push(section: Section, online: OnlineTier) -> bool:
    pushed = section.switch("push")
    if pushed and online is OnlineTier.NONE:
        section.report("push", "is true for a view that is not served", hint="write `online: valkey`, or remove `push`")
    return pushed


def _check_times(
    section: Section,
    grain: Grain,
    *,
    delay: timedelta,
    ttl: timedelta | None,
    freshness: FreshnessSla,
    online: OnlineTier,
) -> None:
    """Times that are fine one by one and contradict each other."""
    if ttl is not None and ttl <= delay:
        section.report(
            "ttl",
            "ends before a value is available",
            allowed=f"more than availability_delay ({format_duration(delay)})",
        )
    bounds = [bound for bound in (freshness.warn_after, freshness.error_after) if bound is not None]
    longest = {Grain.HOUR: timedelta(hours=1), Grain.DAY: timedelta(days=1), Grain.MONTH: timedelta(days=31)}[grain]
    if bounds and min(bounds) < longest + delay:
        section.report(
            "freshness",
            "would alarm although everything is on time",
            allowed=f"at least {format_duration(longest + delay)}: one {grain} until the next value, "
            f"and {format_duration(delay)} until it is available",
        )
    if online is not OnlineTier.NONE and not bounds and "freshness" not in section.values:
        section.report(
            "freshness",
            "is missing for a view that is served",
            allowed="`{warn_after: <duration>, error_after: <duration>}`, at least one of them",
            hint=f"write `freshness: {{error_after: {2 * (longest + delay) // timedelta(hours=1)} hours}}`",
        )


def _deprecation_date(node: Node, reporter: Reporter) -> date | None:
    written = node.get("deprecation_date")
    if written is None:
        return None
    if (day := parse_date(written)) is None:
        reporter.report("`deprecation_date` is no date", found=show(written), allowed="an ISO date, e.g. 2027-01-31")
    return day


def _sources(node: Node, project: Project, reporter: Reporter) -> tuple[Source, ...]:
    """The sources upstream of a view, after checking what may lie between them and the view."""
    sources: list[Source] = []
    for parent, path in project.manifest.upstream(node):
        unique_id, kind = parent.get("unique_id"), parent.get("resource_type")
        materialized = config_of(parent).get("materialized")
        way = " → ".join((str(node.get("name")), *path))
        if unique_id in project.view_names:
            reporter.report(
                "reads another feature view",
                found=way,
                allowed="sources, staging models, seeds",
                hint="read what that view reads: it is computed and published apart, so its rows may be missing, "
                "unpublished or superseded when this one is computed",
            )
        elif kind == "source":
            sources.append(project.sources[str(unique_id)])
        elif kind == "snapshot" or (kind == "model" and materialized not in ("view", "ephemeral")):
            reporter.report(
                f"reads a {kind if kind == 'snapshot' else materialized} that no run refreshes",
                found=way,
                allowed="models materialized as view or ephemeral, seeds and sources",
                hint=f"write `materialized: view` for {parent.get('name')}, or load it as a source",
            )
    if not sources:
        reporter.report(
            "reads no source",
            found=f"upstream: {chosen_from(path[-1] for _, path in project.manifest.upstream(node))}",
            hint="read a dbt source with `{{ source(…) }}`, directly or through staging models",
        )
    elif not any(source.event_time for source in sources):
        reporter.report(
            "reads no source with an `event_time`",
            found=chosen_from(source.name for source in sources),
            allowed="at least one source that says when its rows became knowable",
            hint="write `config: {event_time: <column>}` for the source",
        )
    return tuple(sorted(sources, key=lambda source: source.unique_id))


def _check_lag(section: Section, delay: timedelta, sources: tuple[Source, ...]) -> None:
    slowest = max(sources, key=lambda source: source.reporting_lag, default=None)
    if slowest is not None and section.values.get("availability_delay") and delay < slowest.reporting_lag:
        section.report(
            "availability_delay",
            f"is shorter than the reporting lag of source {slowest.name}",
            allowed=f"at least {format_duration(slowest.reporting_lag)}, and the time a run takes",
            hint="a partition computed earlier than its rows arrive is always computed without them",
        )
