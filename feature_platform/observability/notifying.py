"""Telling people: the log always, and the routes of those who are concerned.

Rule: `True` only if the route took it. A route is `http(s)://…`, which gets the notice as JSON, or any Apprise URL; it
may name environment variables as `${NAME}`, so that secrets stay out of declarations.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import logging
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from feature_platform.domain.feature_view import Owner

TIMEOUT_SECONDS = 10
_ESCALATION = "escalation route"
_VARIABLE = re.compile(r"\$\{(\w+)\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """One message about one problem."""

    status: str
    """`firing` or `resolved`."""
    kind: str
    subject: str
    severity: str
    owner: str
    message: str
    impact: str = ""
    command: str = ""
    runbook: str = ""

    @property
    def title(self) -> str:
        """One line."""
        return f"[{self.status}] {self.severity}: {self.kind}: {self.subject}"

    @property
    def body(self) -> str:
        """What people read: the cause, then who feels it, the command and the page."""
        said = {"Impact": self.impact, "Run": self.command, "Runbook": self.runbook}
        return "\n".join([self.message, *(f"{name}: {text}" for name, text in said.items() if text)])

    def to_json(self) -> dict[str, str]:
        """What a plain webhook gets."""
        names = ("status", "kind", "subject", "severity", "owner", "message", "impact", "command", "runbook", "title")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One place that notices go to."""

    key: str
    """What the ledger knows it by: a hash of the route as declared, because an address may be a secret."""
    name: str
    """For people: `route 1 of Flight operations`."""
    url: str = field(repr=False)


LOG: Final = Route(key="log", name="log", url="")


def routes_of(owner: Owner, environ: Mapping[str, str], *, escalated: bool = False) -> Iterator[Route]:
    """The owner's routes with their variables filled in; one whose variable is not set is no route."""
    yield from _filled("route", owner.routes, owner, environ)
    if escalated:
        yield from _filled(_ESCALATION, owner.escalation_routes, owner, environ)


def unset_routes(owner: Owner, environ: Mapping[str, str]) -> Iterator[Route]:
    """The owner's routes, of any kind, that cannot be used because a variable is not set; as declared."""
    for route in (*_declared("route", owner.routes, owner), *_declared(_ESCALATION, owner.escalation_routes, owner)):
        if not _is_set(route.url, environ):
            yield route


def _filled(what: str, declared: tuple[str, ...], owner: Owner, environ: Mapping[str, str]) -> Iterator[Route]:
    for route in _declared(what, declared, owner):
        if _is_set(route.url, environ):
            yield replace(route, url=_VARIABLE.sub(lambda found: environ[found[1]], route.url))


def _declared(what: str, declared: tuple[str, ...], owner: Owner) -> Iterator[Route]:
    for number, text in enumerate(declared, start=1):
        key = hashlib.sha256(text.encode()).hexdigest()[:12]
        yield Route(key=key, name=f"{what} {number} of {owner.name}", url=text)


def _is_set(text: str, environ: Mapping[str, str]) -> bool:
    return all(environ.get(name) for name in _VARIABLE.findall(text))


def environment(environ: Mapping[str, str] | None) -> Mapping[str, str]:
    """Where routes find their variables; by default the process's own."""
    return os.environ if environ is None else environ


def send(notice: Notice, route: Route, *, log: logging.Logger) -> bool:
    """Send a notice to one route; whether it was taken. Nothing that a route does is raised."""
    if route == LOG:
        level = logging.INFO if notice.status == "resolved" else logging.WARNING
        log.log(level, f"{notice.title}: {notice.message}")
        return True
    # one by one: Apprise calls a notification failed if any of its targets failed, and would repeat it to all
    return _send(notice, route.url, log=log)


def _send(notice: Notice, route: str, *, log: logging.Logger) -> bool:
    scheme = route.partition("://")[0]
    try:
        accepted = _post(notice, route) if scheme in ("http", "https") else _apprise(notice, route)
    except (OSError, ValueError) as error:  # urllib's errors are OSErrors; never log the route, it holds secrets
        log.error("a notice of %s was not taken by its %s route: %s", notice.subject, scheme, error)
        return False
    except http.client.HTTPException as error:  # an answer that is no HTTP, or a URL that is none: its text has the URL
        log.error("a notice of %s was not taken by its %s route: %s", notice.subject, scheme, type(error).__name__)
        return False
    if not accepted:
        log.error("a notice of %s was not taken by its %s route", notice.subject, scheme)
    return accepted


def _post(notice: Notice, url: str) -> bool:
    request = urllib.request.Request(  # noqa: S310 - the scheme was looked at
        url,
        data=json.dumps(notice.to_json()).encode(),
        headers={"Content-Type": "application/json"},
        method="POST",
    )
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310
        return bool(answer.status < 300)  # noqa: PLR2004


def _apprise(notice: Notice, url: str) -> bool:
    import apprise  # half a second, and rarely needed

    target = apprise.Apprise()
    if not target.add(url):
        raise ValueError("it is no URL that Apprise knows")
    kind = apprise.NotifyType.SUCCESS if notice.status == "resolved" else apprise.NotifyType.WARNING
    # the answer is an object: `is True` would be false even on success
    return bool(target.notify(title=notice.title, body=notice.body, notify_type=kind))
