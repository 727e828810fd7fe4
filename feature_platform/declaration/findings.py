"""Findings: everything wrong in a project, collected instead of raised, so that one run shows all of it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, cast

from feature_platform.domain.durations import ALLOWED, parse_duration
from feature_platform.errors import Finding, chosen_from

_LINE = 120


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """The most similar name as a question, or nothing.

    >>> did_you_mean("entites", ["entities", "ttl"])
    'did you mean `entities`?'
    """
    similar = difflib.get_close_matches(name, [*names], n=1, cutoff=0.6)
    return f"did you mean `{similar[0]}`?" if similar else ""


def show(value: object) -> str:
    """A found value, short enough for one line."""
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= _LINE else text[: _LINE - 1] + "…"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reporter:
    """Collects the findings of one node of the manifest; all reporters of a project share one list."""

    file: str
    node: str
    collected: list[Finding] = field(default_factory=list)

    def at(self, file: str, node: str) -> Reporter:
        """A reporter for another node, into the same list."""
        return Reporter(file=file, node=node, collected=self.collected)

    def report(self, problem: str, *, found: str = "", allowed: str = "", hint: str = "") -> None:
        """Record one finding."""
        self.collected.append(
            Finding(file=self.file, node=self.node, problem=problem, found=found, allowed=allowed, hint=hint)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A mapping of the declaration that has a fixed set of keys, e.g. `meta.feature_view`."""

    name: str
    values: Mapping[str, Any]
    reporter: Reporter

    @classmethod
    def read(cls, name: str, value: object, keys: Iterable[str], reporter: Reporter) -> Section:
        """The section, after reporting keys it does not have. A value that is no mapping is reported as one finding."""
        keys = [*keys]
        if not isinstance(value, Mapping):
            if value is not None:
                reporter.report(
                    f"`{name}` is not a mapping", found=show(value), allowed=f"the keys {chosen_from(keys)}"
                )
            return cls(name=name, values={}, reporter=reporter)
        for key in value:
            if key not in keys:
                reporter.report(
                    f"`{name}` has an unknown key",
                    found=str(key),
                    allowed=chosen_from(keys),
                    hint=did_you_mean(str(key), keys) or "remove it",
                )
        return cls(name=name, values=cast("Mapping[str, Any]", value), reporter=reporter)

    def inner(self, key: str, keys: Iterable[str]) -> Section:
        """The section that stands under the key."""
        return Section.read(self.path(key), self.values.get(key), keys, self.reporter)

    def path(self, key: str) -> str:
        """Where the key stands, for messages."""
        return f"{self.name}.{key}"

    def report(self, key: str, problem: str, *, allowed: str = "", hint: str = "") -> None:
        """Record a finding about one key."""
        self.reporter.report(
            f"`{self.path(key)}` {problem}", found=show(self.values.get(key)), allowed=allowed, hint=hint
        )

    def duration(self, key: str, *, required: str = "", positive: bool = False) -> timedelta | None:
        """The duration under the key. `required` is what to write if it is missing."""
        value = self.values.get(key)
        if value is None:
            if required:
                self.report(key, "is missing", allowed=ALLOWED, hint=f"write `{required}`")
            return None
        duration = parse_duration(value)
        if duration is None:
            self.report(key, "is no duration", allowed=ALLOWED)
        elif positive and duration <= timedelta(0):
            self.report(key, "must be longer than zero", allowed=ALLOWED)
            return None
        return duration

    def switch(self, key: str) -> bool:
        """True or false; a switch that is not declared is off."""
        value = self.values.get(key, False)
        if not isinstance(value, bool):
            self.report(key, "is neither true nor false", allowed="true, false")
        return value is True

    def choice(self, key: str, allowed: Iterable[str], default: str) -> str:
        """One of a closed set of words; the default also stands in for a value that was reported."""
        allowed = [*allowed]
        value = self.values.get(key, default)
        # YAML reads a bare `null` as nothing; a list or number is not hashable or not a word
        if isinstance(value, str) and value in allowed:
            return value
        self.report(key, "has no such value", allowed=chosen_from(allowed), hint=did_you_mean(str(value), allowed))
        return default

    def names(self, key: str) -> Iterator[str]:
        """The strings of a list; anything else is reported."""
        value = self.values.get(key)
        if not isinstance(value, list) or not value:
            self.report(
                key, "is no list of names", allowed="a list with at least one name", hint=f"write `{key}: [...]`"
            )
            return
        for item in value:
            if isinstance(item, str):
                yield item
            else:
                self.report(key, f"holds something that is no name: {show(item)}", allowed="a list of names")
