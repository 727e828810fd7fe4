"""dbt groups and exposure owners → who answers, with an address that reaches them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from feature_platform.declaration.findings import Reporter, did_you_mean, show
from feature_platform.declaration.manifest import Manifest, Node, as_mapping, config_of, meta_of, yaml_path
from feature_platform.domain.feature_view import Owner
from feature_platform.errors import chosen_from

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
    routes = meta_of(node).get("routes") or []
    if not isinstance(routes, list) or not all(isinstance(route, str) and route for route in routes):
        reporter.report(
            "`config.meta.routes` is no list of addresses",
            found=show(routes),
            allowed="a list of Apprise URLs; `${NAME}` stands for an environment variable",
            hint='write `routes: ["${OPERATIONS_WEBHOOK}"]`',
        )
        routes = []
    return Owner(name=str(owner.get("name") or email), email=email, routes=tuple(routes))


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
