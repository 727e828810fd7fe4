"""dbt groups and exposure owners → who answers, with an address that reaches them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from feature_platform.declaration.findings import Reporter, Section, did_you_mean, show
from feature_platform.declaration.manifest import Manifest, Node, as_mapping, config_of, meta_of, yaml_path
from feature_platform.domain.feature_view import Owner
from feature_platform.errors import chosen_from

PLATFORM = "platform"
"""The dbt group that answers for what belongs to no view: schedules, stores, routes that fail."""

_EMAIL = re.compile(r"[^@\s,]+@[^@\s,]+\.[^@\s,]+")


def parse_groups(manifest: Manifest, reporter: Reporter, used: frozenset[str]) -> dict[str, Owner]:
    """The owner of every group that feature views name, each checked once however many views it has."""
    return {
        name: parse_owner(group, reporter.at(yaml_path(group), f"group {name}"))
        for name, group in sorted(manifest.groups.items())
        if name in used
    }


def parse_owner(node: Node, reporter: Reporter) -> Owner:
    """The owner of a group or an exposure. Reports an address that is missing or none."""
    owner = as_mapping(node.get("owner"))
    email = owner.get("email")
    if isinstance(email, list) and len(email) == 1:
        email = email[0]
    if not isinstance(email, str) or not _EMAIL.fullmatch(email):
        reporter.report(
            "has no owner with one e-mail address",
            found=show(email),
            allowed="an address",
            hint="write `owner: {name: …, email: team@example.com}`; more places to alert: `config.meta.routes`",
        )
        email = ""
    meta = meta_of(node)
    escalation = Section.read("config.meta.escalation", meta.get("escalation"), ("after", "routes"), reporter)
    remind_after = (
        escalation.duration("after", required="after: 4 hours", positive=True) if meta.get("escalation") else None
    )
    return Owner(
        name=str(owner.get("name") or email),
        email=email,
        routes=_routes("config.meta.routes", meta.get("routes"), reporter),
        remind_after=remind_after,
        escalation_routes=_routes(escalation.path("routes"), escalation.values.get("routes"), reporter),
    )


def parse_platform_owner(manifest: Manifest, reporter: Reporter) -> Owner:
    """Who answers for the platform itself: the group of that name; without one, the log is told and nobody else."""
    group = next((group for name, group in manifest.groups.items() if name == PLATFORM), None)
    if group is None:
        return Owner(name=PLATFORM, email="")
    return parse_owner(group, reporter.at(yaml_path(group), f"group {PLATFORM}"))


def _routes(place: str, routes: object, reporter: Reporter) -> tuple[str, ...]:
    routes = routes or []
    if not isinstance(routes, list) or not all(isinstance(route, str) and route for route in routes):
        reporter.report(
            f"`{place}` is no list of addresses",
            found=show(routes),
            allowed="a list of Apprise URLs; `${NAME}` stands for an environment variable",
            hint='write `routes: ["${OPERATIONS_WEBHOOK}"]`',
        )
        return ()
    return tuple(routes)


def owner_of_view(node: Node, owners: Mapping[str, Owner], reporter: Reporter) -> tuple[str, Owner]:
    """Group and owner of a view; reports a view without a group."""
    group = node.get("group") or config_of(node).get("group")
    if group and group in owners:
        return str(group), owners[group]
    reporter.report(
        "has no owner" if not group else "names a group that is not declared",
        found=show(group),
        allowed=f"one of the groups: {chosen_from(owners)}" if owners else "a group with an owner's e-mail address",
        hint=did_you_mean(str(group), owners)
        or "write `config: {group: <name>}`, and the group under `groups:` with `owner: {name: …, email: …}`",
    )
    return "", Owner(name="", email="")
