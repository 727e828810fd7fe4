"""Telling people: the log always, and the owner's routes.

Rule: `True` only if somebody took it. A route is `http(s)://…`, which gets the notice as JSON, or any Apprise URL; it
may name environment variables as `${NAME}`, so that secrets stay out of declarations.
"""

from __future__ import annotations

import http.client
import json
import logging
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from feature_platform.domain.feature_view import Owner

TIMEOUT_SECONDS = 10


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

    @property
    def title(self) -> str:
        """One line."""
        return f"[{self.status}] {self.severity}: {self.kind}: {self.subject}"

    def to_json(self) -> dict[str, str]:
        """What a plain webhook gets."""
        return {
            name: getattr(self, name) for name in ("status", "kind", "subject", "severity", "owner", "message", "title")
        }


def routes_of(owner: Owner, environ: Mapping[str, str]) -> Iterator[str]:
    """The owner's routes with their variables filled in; one whose variable is not set is no route."""
    for route in owner.routes:
        filled = re.sub(r"\$\{(\w+)\}", lambda found: environ.get(found[1], ""), route)
        if filled and (filled == route or all(environ.get(name) for name in re.findall(r"\$\{(\w+)\}", route))):
            yield filled


def notify(notice: Notice, owner: Owner, *, log: logging.Logger, environ: Mapping[str, str] | None = None) -> bool:
    """Tell the log and the owner. True if a route took it, or if the owner has none and the log is all there is."""
    log.log(logging.INFO if notice.status == "resolved" else logging.WARNING, f"{notice.title}: {notice.message}")
    routes = tuple(routes_of(owner, os.environ if environ is None else environ))
    if not routes:
        return True
    # one by one: Apprise calls a notification failed if any of its targets failed, and would repeat it to all
    taken = [_send(notice, route, log=log) for route in routes]
    return any(taken)


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
    return bool(target.notify(title=notice.title, body=notice.message, notify_type=kind))
