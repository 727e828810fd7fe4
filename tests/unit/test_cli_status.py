"""What `feature-platform status` shows in terminals of some widths."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from feature_platform.cli import status

EVENT = datetime(2026, 11, 27, 3, tzinfo=UTC)
HOUR = timedelta(hours=1)
VIEW = status.ViewStatus(
    view="aircraft_profile@1",
    store="default",
    owner="flight-operations@example.com",
    state="stale",
    published_event=EVENT,
    served_event=EVENT,
    age=HOUR,
    allowed=2 * HOUR,
    lags=dict.fromkeys(("arrival", "compute", "publish", "sync"), HOUR),
    partitions=675,
    rows=274_596,
    waiting=0,
    unfinished=1,
    late={"due": 2, "ignored": 3},
)
ESSENTIAL = ("aircraft_profile@1", "stale", "1 h", "2 h", "2026-11-27 03:00Z", "1 unfinished, 2 late, due")
MORE = ("1 h + 1 h + 1 h + 1 h", "675", "274,596", "flight-operations@example.com")


@pytest.mark.parametrize(("width", "shows_all"), [(100, False), (220, True)])
def test_what_does_not_fit_is_left_out_and_nothing_is_folded(monkeypatch, capsys, width, shows_all) -> None:
    monkeypatch.setattr(status, "console", lambda: Console(width=width))
    status._print(status.Report(services=(), views=(VIEW,)))
    said = capsys.readouterr().out
    assert all(text in said for text in ESSENTIAL)
    assert all((text in said) is shows_all for text in MORE)
    assert ("From 150 columns on" in said) is not shows_all
