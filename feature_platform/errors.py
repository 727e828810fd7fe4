"""The error tree. Every error says what failed, what was found, what is allowed and what to do next.

    FeaturePlatformError
    ├── ConfigurationError          a setting is missing or malformed
    ├── InvalidDeclarationsError    declarations are wrong: all findings of a project at once
    ├── NotDeployedError            the lake or ledger lacks what the declaration asks for
    ├── RequestError                the caller asked for something that cannot be answered
    │   ├── UnknownNameError        no such feature view, feature, service, store, partition
    │   ├── NameTakenError          this name was given before and is never given again
    │   ├── RowsRetiredError        rows that the answer is made of were deleted by retention
    │   ├── EntityError             wrong entity column, type or a null key
    │   └── TimestampError          a naive or missing timestamp
    ├── UnusableFeaturesError       values are stale, expired or missing, and the service asked not to be given such
    ├── LedgerConflictError         the ledger refused a record that contradicts an earlier one
    ├── BatchRejectedError          rows of a batch break the contract of batches
    ├── ComputationError            the SQL of a feature view failed
    ├── MemoryLimitError            DuckDB needed more memory than it is given
    ├── DiskFullError               a disk has no room for what was to be written
    ├── CheckFailedError            a blocking check failed; the batch stays unpublished
    ├── SourceNotReadyError         a source has not been loaded far enough yet          (Transient)
    ├── StoreUnavailableError       Valkey cannot be reached                             (Transient)
    ├── StoreChangedError           Valkey lost or replaced its data during a sync       (Transient)
    ├── LedgerUnavailableError      Postgres cannot be reached                           (Transient)
    ├── LakeConflictError           another commit to the lake came first                (Transient)
    ├── ClockSkewError              this machine's clock is not the ledger's             (Transient)
    ├── LockBusyError               another process holds a lock that is needed          (Transient)
    ├── DamagedFileError            a kept file is missing or is not what was recorded
    ├── CorruptValueError           bytes in the store that no known schema explains
    └── ServiceStartError           an embedded service did not start

`Transient` says that the same call may succeed later; everything else is terminal. Retry by this type,
never by name or message.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

_REASON_LENGTH = 2000
_PASSWORD = re.compile(
    r"""(?P<keyword>\bpassword\s*=\s*)(?:'(?:[^'\\]|\\.)*'|[^\s"';]+)|(?P<user>://[^\s/:@"']*:)[^\s/@"']+(?=@)""",
    re.IGNORECASE,
)


def without_passwords(text: str) -> str:
    """The text with the passwords of addresses blotted out: what databases report may quote the whole address.

    >>> without_passwords("no answer: dbname=lake password=sesame host=db; postgresql://me:sesame@db/ledger")
    'no answer: dbname=lake password=… host=db; postgresql://me:…@db/ledger'
    """
    return _PASSWORD.sub(lambda found: f"{found['keyword'] or found['user']}…", text)


def reason_of(error: BaseException) -> str:
    """What went wrong, to be kept in a record: the error's type and text, not endless and without passwords."""
    return without_passwords(f"{type(error).__name__}: {error}")[:_REASON_LENGTH]


class Transient(Exception):  # noqa: N818 - a mix-in; an exception, so that `except Transient` works
    """Mix-in: the same call may succeed later without anybody changing anything."""


class FeaturePlatformError(Exception):
    """Base of all errors of the platform.

    Args:
        failed: what failed, as a sentence without a final full stop.
        found: what was found.
        allowed: what is allowed instead.
        hint: what to do next.
    """

    def __init__(self, failed: str, *, found: str = "", allowed: str = "", hint: str = "") -> None:
        self.failed = without_passwords(failed)
        self.found = without_passwords(found)
        self.allowed = allowed
        self.hint = hint
        super().__init__(self.failed)

    def __str__(self) -> str:
        lines = [self.failed]
        lines += [f"  found:   {self.found}"] if self.found else []
        lines += [f"  allowed: {self.allowed}"] if self.allowed else []
        lines += [f"  next:    {self.hint}"] if self.hint else []
        return "\n".join(lines)


class ConfigurationError(FeaturePlatformError):
    """A setting is missing or malformed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing wrong in a declaration: where, what was found, what is allowed, what to write."""

    file: str
    node: str
    problem: str
    found: str = ""
    allowed: str = ""
    hint: str = ""

    def __str__(self) -> str:
        return str(
            FeaturePlatformError(
                f"{self.file}: {self.node}: {self.problem}",
                found=self.found,
                allowed=self.allowed,
                hint=self.hint,
            )
        )


class InvalidDeclarationsError(FeaturePlatformError):
    """The declarations of a project are wrong; `findings` holds every reason, not only the first."""

    def __init__(self, findings: tuple[Finding, ...]) -> None:
        self.findings = findings
        count = len(findings)
        super().__init__(f"{count} declaration {'error' if count == 1 else 'errors'}")

    def __str__(self) -> str:
        return "\n".join([self.failed, *(str(finding) for finding in self.findings)])


class NotDeployedError(FeaturePlatformError):
    """The lake or the ledger lacks what the declaration asks for; `feature-platform deploy` creates it."""


class RequestError(FeaturePlatformError):
    """The caller asked for something that cannot be answered."""


class UnknownNameError(RequestError):
    """No feature view, feature, service, store or partition has this name."""


class NameTakenError(RequestError):
    """A name that is given once was given before."""


class RowsRetiredError(RequestError):
    """Rows that the answer is made of were deleted by retention, or are about to be."""


class EntityError(RequestError):
    """An entity column is missing, unexpected, of the wrong type, or holds a null key."""


class TimestampError(RequestError):
    """A timestamp is missing or has no time zone."""


class UnusableFeaturesError(FeaturePlatformError):
    """Values are stale, expired or missing, and the feature service declares that a request must not be given such.

    Args:
        failed: what failed.
        unusable: per bad value the index of its entity, the view (`name@version`) and the status.
        found: what was found.
        allowed: what is allowed instead.
        hint: what to do next.
    """

    def __init__(
        self,
        failed: str,
        *,
        unusable: tuple[tuple[int, str, str], ...] = (),
        found: str = "",
        allowed: str = "",
        hint: str = "",
    ) -> None:
        self.unusable = unusable
        super().__init__(failed, found=found, allowed=allowed, hint=hint)


class LedgerConflictError(FeaturePlatformError):
    """The ledger refused a record that contradicts an earlier one."""


class BatchRejectedError(FeaturePlatformError):
    """The rows of a batch break the contract of batches (window, keys, batch id)."""


class ComputationError(FeaturePlatformError):
    """The SQL of a feature view failed; nothing of the run was written."""


class MemoryLimitError(FeaturePlatformError):
    """DuckDB needed more memory than it is given, and could not spill the rest; nothing was written."""


class DiskFullError(FeaturePlatformError):
    """A disk has no room for what was to be written; what was there before is whole."""


class CheckFailedError(FeaturePlatformError):
    """A blocking check failed; the batch stays unpublished and the last good one keeps serving.

    Args:
        failed: what failed.
        outcomes: what every check said (`domain.batch.CheckOutcome`), the passed ones included.
        found: what was found.
        allowed: what is allowed instead.
        hint: what to do next.
    """

    def __init__(
        self, failed: str, *, outcomes: tuple[Any, ...] = (), found: str = "", allowed: str = "", hint: str = ""
    ) -> None:
        self.outcomes = outcomes
        super().__init__(failed, found=found, allowed=allowed, hint=hint)


class SourceNotReadyError(Transient, FeaturePlatformError):
    """A source has not been loaded far enough for the partition asked for."""


class StoreUnavailableError(Transient, FeaturePlatformError):
    """Valkey cannot be reached or did not answer in time."""


class StoreChangedError(Transient, FeaturePlatformError):
    """Valkey lost or replaced its data during a sync; the next plan starts from what it really holds."""


class LedgerUnavailableError(Transient, FeaturePlatformError):
    """Postgres cannot be reached."""


class LakeConflictError(Transient, FeaturePlatformError):
    """Another commit to the lake came first, more often than DuckLake tries again; nothing was written."""


class ClockSkewError(Transient, FeaturePlatformError):
    """The clock of this machine differs from the ledger's; what is decided by it would be wrong. Another may do it."""


class LockBusyError(Transient, FeaturePlatformError):
    """Another process holds a lock that is needed: a deploy, maintenance, the maker of a training set."""


class DamagedFileError(FeaturePlatformError):
    """A kept file is missing, or its bytes are not those that were recorded."""


class CorruptValueError(FeaturePlatformError):
    """Bytes in the online store that no known schema explains."""


class ServiceStartError(FeaturePlatformError):
    """An embedded service did not start."""


def chosen_from(names: object) -> str:
    """Names for the `allowed` line of an error, in a stable order.

    >>> chosen_from({"b", "a"})
    'a, b'
    """
    return ", ".join(sorted(map(str, names))) or "(none)"  # type: ignore[call-overload]
