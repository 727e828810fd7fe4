"""dbt sources → the arrival of data: when a row was loaded, when it became knowable, how late it may be."""

from __future__ import annotations

from datetime import timedelta

from feature_platform.declaration.findings import Reporter, Section, did_you_mean
from feature_platform.declaration.manifest import Node, as_mapping, config_of, meta_of, yaml_path
from feature_platform.domain.durations import parse_duration
from feature_platform.domain.feature_view import FreshnessSla, Source

SECTION = "meta.feature_source"
KEYS = ("reporting_lag",)


def parse_source(node: Node, reporter: Reporter) -> Source:
    """A source that feature views read. Reports what is missing and goes on with a stand-in."""
    name = f"{node.get('source_name')}.{node.get('name')}"
    reporter = reporter.at(yaml_path(node), f"source {name}")
    config = config_of(node)
    loaded_at = node.get("loaded_at_field") or config.get("loaded_at_field")
    if not loaded_at:
        reporter.report(
            "has no `loaded_at_field`",
            found="`loaded_at_query`" if node.get("loaded_at_query") else "",
            allowed="the column with the instant at which a row reached us",
            hint="write `loaded_at_field: ingested_at`; batches keep the newest one they used as their watermark",
        )
    meta = meta_of(node)
    section = Section.read(SECTION, meta.get("feature_source"), KEYS, reporter)
    if "feature_source" not in meta:
        reporter.report(
            "has no `config.meta.feature_source`",
            allowed="`feature_source: {reporting_lag: <duration>}`",
            hint=next(filter(None, (did_you_mean(str(key), ["feature_source"]) for key in meta)), "")
            or "say how long after its event time a row may reach us: `feature_source: {reporting_lag: 20 minutes}`",
        )
        lag = None
    else:
        lag = section.duration("reporting_lag", required="reporting_lag: 20 minutes")
    event_time = config.get("event_time")
    freshness = as_mapping(node.get("freshness") or config.get("freshness"))
    return Source(
        unique_id=str(node.get("unique_id")),
        name=name,
        schema=str(node.get("schema")),
        table=str(node.get("identifier") or node.get("name")),
        loaded_at_field=str(loaded_at or ""),
        event_time=str(event_time) if event_time else None,
        reporting_lag=lag or timedelta(0),
        freshness=FreshnessSla(
            warn_after=parse_duration(freshness.get("warn_after")) or None,
            error_after=parse_duration(freshness.get("error_after")) or None,
        ),
    )
