"""Entries of the feature log come back as they were, and what is none is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_platform.errors import ConfigurationError, CorruptValueError
from feature_platform.online.codec import HEADER_BYTES
from feature_platform.online.feature_log import LogSettings
from feature_platform.online.log_format import LogEntry, LoggedView

AT = datetime(2026, 3, 1, 12, 0, 0, 1, tzinfo=UTC)
numbers = st.integers(0, 2**32 - 1)
views = st.lists(st.tuples(st.binary(max_size=9), st.none() | st.binary(max_size=40)), max_size=4).map(
    lambda pairs: LoggedView(view="delays@1", keys=[k for k, _ in pairs], values=[v for _, v in pairs])
)
entries = st.builds(
    LogEntry,
    client=st.binary(min_size=8, max_size=8),
    number=numbers,
    dropped=numbers,
    requested_at=st.timedeltas(timedelta(days=-40_000), timedelta(days=40_000)).map(lambda age: AT + age),
    request_id=st.text(st.characters(exclude_categories=["Cs"])),
    asked=st.text(max_size=9, alphabet="abc:@,"),
    is_whole=st.just(True),
    views=st.lists(views, max_size=3).map(tuple),
)


@given(entries)
def test_an_entry_comes_back(entry: LogEntry) -> None:
    assert LogEntry.parse(entry.encode()) == entry


@given(entries, st.data())
def test_what_is_cut_short_or_longer_is_none(entry: LogEntry, data) -> None:
    encoded = entry.encode()
    for broken in (encoded[: data.draw(st.integers(0, len(encoded) - 1))], encoded + b"\x00", b"\x02" + encoded[1:]):
        with pytest.raises(CorruptValueError, match="cannot be read"):
            LogEntry.parse(broken)


def test_golden_bytes() -> None:
    """Written down: readers of this format exist in other versions."""
    value = bytes(range(30))
    one = LoggedView(view="v@1", keys=[b"UA", b"AA"], values=[value, None])
    entry = LogEntry(
        client=b"12345678",
        number=7,
        dropped=2,
        requested_at=AT,
        request_id="r",
        asked="s",
        is_whole=False,
        views=(one,),
    )
    assert entry.encode().hex() == (
        "0100" + b"12345678".hex() + "0700000002000000" + "0110af35f54b0600"
        "0100000072" "0100000073" "0100" "03000000764031" "02000000"
        "020000005541" "14000000" + value[:HEADER_BYTES].hex() + "020000004141" "ffffffff"
    )  # fmt: skip
    assert LogEntry.parse(entry.encode()).views[0].values == [value[:HEADER_BYTES], None]


def test_any_request_id_can_be_logged() -> None:
    entry = LogEntry(
        client=bytes(8), number=0, dropped=0, requested_at=AT, request_id="\ud800", asked="s", is_whole=True, views=()
    )
    assert LogEntry.parse(entry.encode()).request_id == r"\ud800"


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="values from 0 to 1"):
        LogSettings(values=1.5)
