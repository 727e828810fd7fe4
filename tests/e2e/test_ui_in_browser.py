"""Dagster's UI in a real browser: what a person sees of a running stack.

The stack is the tiny project's, started and driven through the command line as a person would; headless Chromium runs
the UI's own code and gives back the page it made.
"""

from __future__ import annotations

import html
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import browser
import pytest
from tiny_platform import TinyPlatform

from feature_platform import local
from feature_platform.ledger import Ledger
from feature_platform.local import supervision, webserver
from feature_platform.local.processes import wait_until
from feature_platform.settings import PREFIX, Settings

PROJECT = Path(__file__).parents[2]
BROWSER_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
DRAWING = ("--window-size=1500,2500", "--virtual-time-budget=40000")
VIEW = "user_activity"
DAYS = ("2024-01-02", "2024-01-03", "2024-01-04")
CLICKED, CLICKED_RANGE = ("2024-01-05",), ("2024-01-06", "2024-01-07", "2024-01-08")
BACKFILL = "query($id: String!) { partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { status } } }"

pytestmark = [pytest.mark.system, pytest.mark.timeout(1200)]


@dataclass(frozen=True, kw_only=True)
class Stack:
    """A running stack of the tiny project."""

    url: str
    environ: dict[str, str]
    settings: Settings

    def command(self, *arguments: str) -> str:
        """What `feature-platform …` prints."""
        return command(self.environ, *arguments)


def command(environ: dict[str, str], *arguments: str) -> str:
    script = str(Path(sys.executable).with_name("feature-platform"))
    answer = subprocess.run([script, *arguments], env=environ, capture_output=True, text=True, check=False, timeout=600)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """Source rows are there, the project is deployed, Dagster runs; nothing is materialized."""
    # not under pytest's directory, which the user of an embedded Postgres under root cannot enter
    directory = Path(tempfile.mkdtemp(prefix="fp-test-ui-"))
    directory.chmod(0o711)
    home = directory / "home"
    try:
        environ = os.environ | {PREFIX + "PROJECT": str(directory / "project"), PREFIX + "HOME": str(home)}
        connections = local.start(directory / "project", home)
        tiny = TinyPlatform.create(Settings.from_env(environ | connections), directory)
        shutil.copytree(PROJECT / "dagster_home", directory / "project" / "dagster_home")
        shutil.copy(PROJECT / "workspace.yaml", directory / "project")
        days = (*DAYS, *CLICKED, *CLICKED_RANGE)
        tiny.add_events(*((user, 10.0 * user, f"{day} 09:00") for user in (1, 2, 3) for day in days))
        tiny.load_through("2024-01-10")
        said = command(environ, "up")
        url = re.search(r"http://localhost:\d+", said)
        assert url, said
        yield Stack(url=url[0], environ=environ, settings=tiny.settings)
    finally:
        supervision.stop_dagster(home)
        local.stop(home)
        shutil.rmtree(directory)


@pytest.fixture(scope="module")
def backfill(stack: Stack) -> str:
    """The id of a backfill of three days, launched through the command line and done."""
    said = stack.command("backfill", VIEW, "--from", DAYS[0], "--to", DAYS[-1], "--no-wait")
    address = re.search(r"/runs/b/(\w+)", said)
    assert address, said

    def status() -> str:
        answer = webserver.query(stack.url, BACKFILL, {"id": address[1]})
        return answer["partitionBackfillOrError"]["status"]

    assert wait_until(lambda: status() not in {"REQUESTED", "COMPLETING"}, seconds=600)
    assert status() == "COMPLETED_SUCCESS"
    return address[1]


@pytest.fixture
def chromium() -> str:
    found = shutil.which("chromium")
    assert found, "these tests need Chromium: apt-get install chromium"
    return found


@pytest.fixture
def browse(stack: Stack, chromium: str, tmp_path: Path) -> Callable[[str], str]:
    """The text of a page, as the browser has drawn it."""

    def look(path: str) -> str:
        flags = [*BROWSER_FLAGS, *DRAWING, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
        answer = subprocess.run(
            [chromium, *flags, stack.url + path], capture_output=True, text=True, check=True, timeout=300
        )
        body = re.sub(r"<(script|style)\b.*?</\1>", "", answer.stdout, flags=re.DOTALL)
        return html.unescape(re.sub(r"<[^>]+>", "\n", body))

    return look


def assert_shown(page: str, *texts: str) -> None:
    lines = {line.strip() for line in page.splitlines()}
    missing = [text for text in texts if text not in lines]
    assert not missing, f"{missing} is not among {sorted(lines)}"


def test_the_graph_shows_groups_and_when_opened_their_assets(browse) -> None:
    assert_shown(browse("/asset-groups"), "Global asset lineage", "sources", "tiny_team")
    opened = browse("/asset-groups?expanded=global@global:tiny_team")
    assert_shown(opened, "user_activity", "user_pulse")


def test_a_view_shows_its_owner_its_columns_and_its_last_batch(browse, backfill: str) -> None:
    page = browse(f"/assets/{VIEW}")
    assert_shown(page, "How much each user did.", "tiny_team")
    assert_shown(page, "Owners", "tiny@example.com")
    assert_shown(page, "user_id", "The user", "entity key", "amount_3d", "Amount of the last 3 days")
    assert_shown(page, "lake.batches.user_activity_v1", "Source code", "SQL", "declaration")
    assert_shown(page, "From", "tiny.events", "amount")
    assert_shown(page, DAYS[-1], "batch_id", "lag_event_to_published_seconds")
    assert_shown(page, "event_timestamp", "source_watermark", "computed_at", "published_at")


def test_rows_in_the_store_show_their_age_beside_dagsters_own_policy(browse, backfill: str) -> None:
    page = browse(f"/assets/online/{VIEW}?view=checks&checkDetail=fresh")
    assert_shown(page, "Failed", "age_seconds", "allowed_seconds", "lag_sync_seconds", "state", "error")
    assert "the newest event in store default is" in page
    # it counts materializations, and that of a minute ago brought days of 2024
    assert_shown(browse(f"/assets/online/{VIEW}"), "Freshness policy", "Passing")


def test_a_view_shows_its_checks_and_which_of_them_block(browse, backfill: str) -> None:
    page = browse(f"/assets/{VIEW}?view=checks&checkDetail=not_null_user_activity_v1_user_id")
    assert_shown(page, "not_null_user_activity_v1_user_id", "amount_is_usual", "Succeeded", "Passed")
    assert_shown(page, "blocking")
    assert_shown(browse(f"/assets/{VIEW}?view=checks&checkDetail=amount_is_usual"), "non-blocking")


def test_a_backfill_shows_its_partitions_and_the_sync_that_followed(browse, backfill: str) -> None:
    page = browse(f"/runs/b/{backfill}?tab=overview")
    assert_shown(page, f"Backfills | {backfill}", f"{DAYS[0]}...{DAYS[-1]}", VIEW, "100% completed", str(len(DAYS)))
    assert_shown(page, f"online / {VIEW}")


def test_the_automation_page_shows_schedules_and_sensors(browse) -> None:
    page = browse("/automation")
    assert_shown(page, "daily_features_after_30_min", "incidents", "sync_what_was_published")


def test_partitions_launched_by_clicks_are_published_and_served(stack: Stack, chromium: str, tmp_path: Path) -> None:
    with (
        browser.running(chromium, tmp_path / "profile", *BROWSER_FLAGS) as page,
        Ledger.connect(stack.settings.ledger_url) as ledger,
    ):
        before = published(ledger)
        for days, button in ((CLICKED, "Launch 1 run"), (CLICKED_RANGE, "Launch backfill")):
            page.open(f"{stack.url}/assets/{VIEW}")
            # it offers the partitions of the last 90 days; the field names the first of those it offers as an example
            page.fill(
                days[0] if len(days) == 1 else f"[{days[0]}...{days[-1]}]",
                selector="input[placeholder^='ex: 2024-01-01, ']",
                behind=("Show all partitions", "Materialize…"),
            )
            page.click_away(button)
            assert wait_until(lambda days=days: published(ledger).issuperset(days), seconds=300), page.text()
        assert published(ledger) == before.union(CLICKED, CLICKED_RANGE), "just what was typed"
        assert wait_until(lambda: is_served(ledger), seconds=300), page.text()


def published(ledger: Ledger) -> set[str]:
    return {f"{batch.partition.start:%Y-%m-%d}" for batch in ledger.active_batches(f"{VIEW}@1")}


def is_served(ledger: Ledger) -> bool:
    """Whether a sync has followed: nothing is left to do."""
    return ledger.synced_position(f"{VIEW}@1", "default") == ledger.head(f"{VIEW}@1")
