"""From a stale view to its owner's webhook: the real exporter, Prometheus and Alertmanager on a real ledger and Valkey.

The rules are the ones that ship; the routes differ in their addresses alone.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from ledger_batches import publish_batches
from tiny_platform import TinyPlatform

from feature_platform.domain.windows import Grain, partition_starting
from feature_platform.ledger import Ledger
from feature_platform.local.processes import wait_until
from feature_platform.settings import PREFIX

RULES = Path(__file__).parents[2] / "infra" / "prometheus"
GROUPS = Path(__file__).parents[2] / "dbt_project" / "models" / "groups.yml"
DAY = timedelta(days=1)

pytestmark = pytest.mark.system


@dataclass(frozen=True, kw_only=True)
class Received:
    receiver: str
    status: str
    alert: str
    labels: dict[str, str]


class Webhooks:
    """What each receiver was sent, in order."""

    def __init__(self) -> None:
        self.taken: list[Received] = []
        taken = self.taken

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                taken.extend(
                    Received(
                        receiver=self.path.strip("/"),
                        status=alert["status"],
                        alert=alert["labels"]["alertname"],
                        labels=alert["labels"],
                    )
                    for alert in body["alerts"]
                )
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def url(self, receiver: str) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/{receiver}"

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def about(self, view: str) -> list[tuple[str, str, str]]:
        """(receiver, status, alert) of a view."""
        return [(one.receiver, one.status, one.alert) for one in self.taken if one.labels.get("view") == view]

    def of(self, alert: str) -> list[tuple[str, str]]:
        return [(one.receiver, one.status) for one in self.taken if one.alert == alert]


@pytest.fixture
def webhooks() -> Iterator[Webhooks]:
    made = Webhooks()
    yield made
    made.close()


@contextmanager
def running(command: list[str], log: Path, **environ: str) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, **environ})
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=30)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def publish(tiny: TinyPlatform, view: str, start: datetime, grain: Grain) -> None:
    """An audited batch of one partition, synced. No rows are needed: what counts is what the ledger says."""
    declared = tiny.registry.view(view)
    with Ledger.connect(tiny.settings.ledger_url) as ledger:
        publish_batches(ledger, declared, [partition_starting(start, grain)], rows=3, watermark=start)
        sync_id = ledger.begin_sync(
            declared.key, "default", 0, ledger.head(declared.key), server_run_id="s", run_id="run"
        )
        ledger.end_sync(sync_id, entities=1, written=1, tombstones=0, refused=0, seconds=0.1)


def firing(port: int) -> set[str]:
    """Views that Prometheus calls stale."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/alerts") as answer:
        alerts = json.load(answer)["data"]["alerts"]
    return {one["labels"]["view"] for one in alerts if one["labels"]["alertname"] == "FeatureViewStale"}


def configure(directory: Path, webhooks: Webhooks, *, exporter: int, alertmanager: int) -> None:
    """The shipped files, faster, and with this test's addresses."""
    shutil.copy(RULES / "rules.yml", directory)
    prometheus = yaml.safe_load((RULES / "prometheus.yml").read_text())
    prometheus["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s", "scrape_timeout": "1s"}
    prometheus["scrape_configs"][0]["static_configs"][0]["targets"] = [f"127.0.0.1:{exporter}"]
    prometheus["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] = [f"127.0.0.1:{alertmanager}"]
    (directory / "prometheus.yml").write_text(yaml.safe_dump(prometheus))
    routes = yaml.safe_load((RULES / "alertmanager.yml").read_text())
    routes["route"] |= {"group_wait": "1s", "group_interval": "1s"}
    # the reference project's first owner, under the name of the tiny project's
    routes["route"]["routes"][2]["matchers"] = ['owner = "Tiny team"']
    for receiver in routes["receivers"]:
        if receiver.pop("slack_configs", None) is None:
            continue  # the one that tells nobody
        receiver["webhook_configs"] = [
            {"url": webhooks.url(receiver["name"]), "send_resolved": receiver["name"] != "watchdog"}
        ]
    (directory / "alertmanager.yml").write_text(yaml.safe_dump(routes))


def test_the_owner_is_told_once_and_told_of_the_recovery(
    tiny: TinyPlatform, valkey_server: str, webhooks: Webhooks, tmp_path: Path
) -> None:
    tiny.settings = replace(tiny.settings, valkey_url=valkey_server)
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    publish(tiny, "user_activity", today - 30 * DAY, Grain.DAY)  # stale
    publish(tiny, "user_pulse", hour - 30 * DAY, Grain.HOUR)  # stale, and silenced
    with Ledger.connect(tiny.settings.ledger_url) as ledger:
        silence = ledger.add_silence(view="user_pulse@1", kind=None, why="test", made_by="test", lasts=DAY)
    exporter, prometheus, alertmanager = free_port(), free_port(), free_port()
    configure(tmp_path, webhooks, exporter=exporter, alertmanager=alertmanager)
    environ = {
        PREFIX + name: str(getattr(tiny.settings, name.lower()))
        for name in ("PROJECT", "HOME", "LEDGER_URL", "LAKE_CATALOG", "LAKE_DATA", "VALKEY_URL", "STORE")
    }
    export = [sys.executable, "-m", "feature_platform.cli.main", "exporter", "--port", str(exporter)]
    told: Callable[[], list[tuple[str, str, str]]] = lambda: webhooks.about("user_activity@1")  # noqa: E731
    with (
        running(
            [
                "prometheus-alertmanager",
                f"--config.file={tmp_path / 'alertmanager.yml'}",
                f"--storage.path={tmp_path / 'alertmanager'}",
                f"--web.listen-address=127.0.0.1:{alertmanager}",
                "--cluster.listen-address=",
            ],
            tmp_path / "alertmanager.log",
        ),
        running(
            [
                "prometheus",
                f"--config.file={tmp_path / 'prometheus.yml'}",
                f"--storage.tsdb.path={tmp_path / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{prometheus}",
                # the first notices are lost if Alertmanager is not discovered yet
                "--rules.alert.resend-delay=1s",
            ],
            tmp_path / "prometheus.log",
        ),
    ):
        with running(export, tmp_path / "exporter.log", **environ):
            assert wait_until(lambda: bool(told()), seconds=180), (tmp_path / "exporter.log").read_text()
            assert wait_until(lambda: bool(webhooks.of("Watchdog")), seconds=180)
            assert wait_until(lambda: "user_pulse@1" in firing(prometheus), seconds=180)
            assert webhooks.about("user_pulse@1") == [], "it fires, and nobody is told"
        # the exporter is gone: that is no recovery, and it is told in its own right after two minutes (rules_test.yml)
        assert told() == [("flight_operations", "firing", "FeatureViewStale")]
        with running(export, tmp_path / "exporter2.log", **environ):
            publish(tiny, "user_activity", today, Grain.DAY)
            with Ledger.connect(tiny.settings.ledger_url) as ledger:
                ledger.end_silence(silence.silence_id, ended_by="test")
            assert wait_until(lambda: len(told()) > 1, seconds=180)
            assert wait_until(lambda: bool(webhooks.about("user_pulse@1")), seconds=180)
    assert told() == [
        ("flight_operations", "firing", "FeatureViewStale"),
        ("flight_operations", "resolved", "FeatureViewStale"),
    ]
    assert webhooks.about("user_pulse@1") == [("flight_operations", "firing", "FeatureViewStale")]
    assert webhooks.of("FeatureSilenced") == []
    assert {receiver for receiver, _ in webhooks.of("Watchdog")} == {"watchdog"}


def test_the_rules_hold_their_unit_tests() -> None:
    subprocess.run(["promtool", "test", "rules", str(RULES / "rules_test.yml")], check=True, capture_output=True)
    subprocess.run(["promtool", "check", "config", str(RULES / "prometheus.yml")], check=True, capture_output=True)


def test_every_receiver_is_told_of_recoveries_but_the_watchdogs() -> None:
    """The end-to-end test replaces the receivers by webhooks; these are the ones that ship."""
    receivers = yaml.safe_load((RULES / "alertmanager.yml").read_text())["receivers"]
    told = {one["name"]: [slack["send_resolved"] for slack in one.get("slack_configs", [])] for one in receivers}
    assert told.pop("nobody") == []
    assert told.pop("watchdog") == [False]
    assert told and all(resolved == [True] for resolved in told.values())


def test_every_owner_of_the_reference_project_has_a_route() -> None:
    config = str(RULES / "alertmanager.yml")
    subprocess.run(["amtool", "check-config", config], check=True, capture_output=True)
    wanted = {group["owner"]["name"]: group["name"] for group in yaml.safe_load(GROUPS.read_text())["groups"]}
    exposures = yaml.safe_load((GROUPS.parent / "exposures.yml").read_text())["exposures"]
    services = [one for one in exposures if "freshness" in one["config"]["meta"].get("feature_service", {})]
    assert services
    wanted |= {one["owner"]["name"]: one["owner"]["name"].lower().replace(" ", "_") for one in services}
    for owner, receiver in wanted.items():
        route = subprocess.run(
            ["amtool", "config", "routes", "test", f"--config.file={config}", f"owner={owner}"],
            check=True,
            capture_output=True,
            text=True,
        )
        assert route.stdout.strip() == receiver
