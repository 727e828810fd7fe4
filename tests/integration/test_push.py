"""Pushed rows on a real ledger, lake and Valkey: refused, logged, written, replayed, drained, and seen by training."""

from __future__ import annotations

import dataclasses
import json
import random
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow as pa
import pytest
from click.testing import CliRunner
from offline_platform import Platform, declare, registry_of
from online_support import running_valkey

from feature_platform.cli.main import main
from feature_platform.cli.push import _readers
from feature_platform.domain.types import ColumnType, ListType
from feature_platform.errors import EntityError, RequestError, SourceNotReadyError, TimestampError
from feature_platform.ledger import Ledger
from feature_platform.offline.sets.candidates import Fate
from feature_platform.offline.sets.explaining import ViewExplanation
from feature_platform.online import FeatureClient, FeatureStatus, functions
from feature_platform.online.codec import Layout
from feature_platform.online.connection import Connection
from feature_platform.online.keys import push_key, row_key
from feature_platform.online.settings import ValkeyAddress
from feature_platform.online.writable import Server
from feature_platform.orchestration import failing
from feature_platform.orchestration.pushes import build_pushed_asset, build_pushes_schedule
from feature_platform.settings import Settings
from feature_platform.sync import publish_schemas, sync
from feature_platform.sync.encoding import encode_pushed, layout_of
from feature_platform.sync.parity import Cause, check_parity, repair
from feature_platform.sync.parity import pushed as pushed_parity
from feature_platform.sync.push import FeaturePusher, drain_pushes
from feature_platform.sync.push.replaying import write
from feature_platform.sync.push.rows import arrow_schema, as_batches, to_ipc

VIEW = declare(
    "clicks",
    entities={"user": ColumnType.BIGINT},
    features={"n": ColumnType.BIGINT, "page": ColumnType.VARCHAR},
    ttl=timedelta(days=2),
    push=True,
)
PLAIN = declare("plain", entities={"user": ColumnType.BIGINT}, features={"n": ColumnType.BIGINT})
TYPED = declare(
    "typed",
    entities={"day": ColumnType.DATE, "name": ColumnType.VARCHAR},
    features={
        "v": ListType(element=ColumnType.FLOAT, length=3),
        "seen": ColumnType.TIMESTAMPTZ,
        "on": ColumnType.BOOLEAN,
        "x": ColumnType.DOUBLE,
    },
    push=True,
)
TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)


@pytest.fixture
def valkey_url() -> Iterator[str]:
    """A server of the test's own: it is emptied, and everything that knows it must notice."""
    with running_valkey() as url:
        yield url


@pytest.fixture
def platform(settings: Settings, valkey_url: str) -> Platform:
    platform = Platform(dataclasses.replace(settings, valkey_url=valkey_url), registry_of(VIEW, PLAIN))
    platform.deploy()
    publish_schemas(valkey_url, platform.registry)
    return platform


@pytest.fixture
def pusher(platform: Platform) -> Iterator[FeaturePusher]:
    with FeaturePusher(platform.settings, platform.registry, pushed_by="test") as pusher:
        yield pusher


@pytest.fixture
def client(platform: Platform) -> Iterator[FeatureClient]:
    with FeatureClient.connect(platform.settings.valkey_url) as client:
        yield client


def row(user: int, at: datetime, n: int | None, page: str | None = "é") -> dict[str, Any]:
    return {"user": user, "event_timestamp": at, "n": n, "page": page}


def sync_view(platform: Platform):
    return sync(platform.settings, platform.registry, VIEW, run_id="run")


def read(client: FeatureClient, user: int = 1):
    return client.get_online_features("clicks", [{"user": user}])[0]


def test_the_later_of_batch_and_push_is_served(platform, pusher, client) -> None:
    platform.add(VIEW, TODAY - DAY, [(1, TODAY, 1, "batch"), (2, TODAY, 2, "batch")])
    sync_view(platform)
    before = read(client)
    assert before.values == {"n": 1, "page": "batch"}

    at = datetime.now(UTC)
    result = pusher.push("clicks", [row(1, at, 10), row(3, at, None, None)])
    assert result.acknowledged
    assert result.rows == 2
    assert read(client).values == {"n": 10, "page": "é"}
    assert read(client).views["clicks@1"].event_timestamp == at
    assert read(client).views["clicks@1"].position == before.views["clicks@1"].position
    assert read(client, 2).values["n"] == 2
    assert read(client, 3).views["clicks@1"].status is FeatureStatus.FRESH

    # late pushes lose: against a newer push, and against a batch that is as new
    pusher.push("clicks", [row(1, at - SECOND, 9), row(2, TODAY, 99)])
    assert read(client).values["n"] == 10
    assert read(client, 2).values["n"] == 2
    pusher.push("clicks", [row(1, at, 11)])
    assert read(client).values["n"] == 11, "of equal event times the one pushed last counts"

    platform.add(VIEW, TODAY, [(1, at + SECOND, 12, "batch")])
    sync_view(platform)
    assert read(client).values == {"n": 12, "page": "batch"}


def test_of_equal_rows_in_one_push_the_last_counts(pusher, client) -> None:
    at = datetime.now(UTC)
    assert pusher.push("clicks", [row(1, at, 1), row(2, at, 5), row(1, at, 2)]).rows == 2
    assert read(client).values["n"] == 2


def test_a_store_that_was_away_gets_the_rows_from_the_next_sync(platform, client) -> None:
    nowhere = dataclasses.replace(platform.settings, valkey_url="unix:///nowhere.sock")
    with FeaturePusher(nowhere, platform.registry) as pusher:
        result = pusher.push("clicks", [row(1, datetime.now(UTC), 10)])
    assert not result.acknowledged
    assert "nowhere.sock" in result.problem
    assert read(client).values["n"] is None
    sync_view(platform)
    assert read(client).values["n"] == 10


def test_a_store_that_lost_everything_gets_all_living_pushes_again(platform, pusher, client) -> None:
    now = datetime.now(UTC)
    pusher.push("clicks", [row(1, now, 10), row(2, now - 3 * DAY, 20)])
    sync_view(platform)
    with Connection(ValkeyAddress.parse(platform.settings.valkey_url), 5.0) as connection:
        connection.call("FLUSHALL")
    sync_view(platform)
    assert read(client).values["n"] == 10
    assert read(client, 2).values["n"] is None


REFUSED: list[tuple[Any, type[Exception], str]] = [
    ([{"user": 1, "event_timestamp": TODAY, "n": 1}], RequestError, "no page"),
    ([row(1, TODAY, 1) | {"m": 1}], RequestError, "unknown m"),
    ([row(1, TODAY, 1), {"user": 1}], RequestError, "row 1 has other columns"),
    ([row(None, TODAY, 1)], EntityError, "row 0 that is pushed to clicks@1 has no user"),
    ([row(1, TODAY, 1), row(1, None, 1)], TimestampError, "row 1 .* has no event_timestamp"),
    ([row(1, TODAY.replace(tzinfo=None), 1)], TimestampError, "has no time zone"),
    ([row(1, datetime.now(UTC) + timedelta(hours=1), 1)], TimestampError, "lies in the future"),
    ([row("1", TODAY, 1)], RequestError, "'user' .* has another type"),
    ([row(1, TODAY, 1.5)], RequestError, "'n' .* has another type"),
    ([row(1, TODAY, True)], RequestError, "'n' .* has another type"),
    ([row(1 << 70, TODAY, 1)], RequestError, "cannot read the rows"),
    ("user=1", RequestError, "cannot read the rows"),
    ([7], RequestError, "row 0 is no mapping"),
]


def test_parity_knows_pushed_rows(platform, pusher, client, monkeypatch) -> None:
    def check(**options):
        return check_parity(platform.settings, platform.registry, VIEW, **options)

    def counts(found) -> dict[str, int]:
        return {kind.value: count for kind, count in found.items() if count}

    def key(user: Any) -> bytes:
        return push_key(row_key(VIEW.key, str(user).encode()))

    monkeypatch.setattr(pushed_parity, "IN_FLIGHT", timedelta(0))
    at = datetime.now(UTC) - SECOND
    platform.add(VIEW, TODAY - DAY, [(1, TODAY, 1, "batch")])
    sync_view(platform)
    pusher.push("clicks", [row(user, at, user) for user in range(8)] + [row(8, at - 2 * DAY, 8)])
    with Server(ValkeyAddress.parse(platform.settings.valkey_url), 5.0) as store:
        old = store.call("GET", key(2))
        pusher.push("clicks", [row(2, at, 22)])
        report = check()
        assert (counts(report.outcomes), report.pushed) == ({"match": 9, "expired": 1}, 9), report.examples
        assert not report.differing

        with Ledger.connect(platform.settings.ledger_url) as ledger:  # a pusher that died when it had logged
            (batch,) = as_batches(VIEW, arrow_schema(VIEW), [row(6, at, 66)], now=datetime.now(UTC))
            ledger.record_push(VIEW.key, to_ipc(batch), row_count=1, newest_event=at, pushed_by="dies")
        late = check()
        assert (counts(late.causes), late.only_late) == ({"late sync": 1}, True)
        forged = Layout.of((c.name, c.type) for c in VIEW.features).encode(99, at + SECOND, {"n": 666, "page": None})
        forged = forged[8:16] + forged[:8] + forged[16:]
        store.call("DEL", key(1))
        store.call("SET", key(2), old)
        store.call("SET", key(3), forged)
        store.call("SET", key(4), b"short")
        store.call("SET", key("nobody"), forged)
        report = check(sample=None)
        assert counts(report.pushed_outcomes) == {"match": 3, "expired": 1, "missing": 1, "mismatch": 4, "extra": 1}
        assert {one.entity: one.cause for one in report.examples if one.pushed} == {
            **dict.fromkeys("12", Cause.LOST_WRITE),
            **dict.fromkeys(("3", "4", "nobody"), Cause.UNKNOWN),
            "6": Cause.LATE_SYNC,
        }
        assert report.differing == 6
        after = repair(platform.settings, platform.registry, report, run_id="run")
        assert (counts(after.pushed_outcomes), after.differing) == ({"match": 8, "expired": 1}, 0)
        assert [read(client, user).values["n"] for user in (1, 2, 3, 6)] == [1, 22, 3, 66]

        store.call("FLUSHALL")
        report = check()
        assert counts(report.pushed_causes) == {"store lost data": 8}
        assert counts(repair(platform.settings, platform.registry, report, run_id="run").pushed_outcomes)["match"] == 8
        # what was logged a moment ago need not be there yet, and may; what nobody logged may not
        monkeypatch.setattr(pushed_parity, "IN_FLIGHT", DAY)
        store.call("DEL", key(1))
        store.call("SET", key("nobody"), forged)
        assert counts(check().pushed_outcomes) == {"extra": 1}


def test_what_is_refused_leaves_nothing(platform, pusher) -> None:
    for rows, error, words in REFUSED:
        with pytest.raises(error, match=words):
            pusher.push("clicks", rows)
    with pytest.raises(RequestError, match="takes no pushed rows"):
        pusher.push("plain", [{"user": 1, "event_timestamp": TODAY, "n": 1}])
    with Ledger.connect(platform.settings.ledger_url) as ledger:
        assert ledger.last_push(VIEW.key) == 0


def test_frames_and_tables_of_any_size(platform, client, pusher) -> None:
    at = pd.Timestamp.now(tz="UTC").floor("us")
    frame = pd.DataFrame({"user": range(25_000), "event_timestamp": at, "n": range(25_000), "page": None})
    result = pusher.push("clicks", frame)
    assert (result.rows, len(result.numbers)) == (25_000, 3)
    assert read(client, 24_999).values == {"n": 24_999, "page": None}
    table = pa.Table.from_pandas(frame.head(10).assign(n=7), preserve_index=False)
    assert pusher.push("clicks", table).rows == 10
    assert read(client, 9).values["n"] == 7
    drained = drain_pushes(platform.settings, VIEW)
    assert (drained.pushes, drained.rows, drained.forgotten) == (4, 25_010, 0)
    assert drain_pushes(platform.settings, VIEW).pushes == 0


def test_every_type_survives_the_ledger_and_the_store(settings: Settings, valkey_url: str) -> None:
    view = TYPED
    platform = Platform(dataclasses.replace(settings, valkey_url=valkey_url), registry_of(view))
    platform.deploy()
    publish_schemas(valkey_url, platform.registry)
    now = datetime.now(UTC)
    entity = {"day": TODAY.date(), "name": "{a,%}"}
    values = {"v": [1.0, 2.0, 3.0], "seen": now, "on": True, "x": float("inf")}
    with FeaturePusher(platform.settings, platform.registry) as pusher:
        pusher.push("typed", [{**entity, "event_timestamp": now, **values}])
    with FeatureClient.connect(valkey_url) as client:
        assert client.get_online_features("typed", [entity])[0].values == values
    assert drain_pushes(platform.settings, view).rows == 1
    sync(platform.settings, platform.registry, view, run_id="run")


def label_table(labels: list[tuple[int, datetime]]) -> pa.Table:
    return pa.table(
        {
            "user": pa.array([user for user, _ in labels], pa.int64()),
            "event_timestamp": pa.array([at for _, at in labels], pa.timestamp("us", "UTC")),
        }
    )


def explain(platform: Platform, key: str, number: int) -> ViewExplanation:
    (view,) = platform.store.explain_training_set(key, row=number).views
    return view


def served(platform: Platform, labels: list[tuple[int, datetime]], **options):
    table = label_table(labels)
    with platform.store.get_historical_features(table, "clicks", mode="served", provenance=True, **options) as found:
        return found.to_arrow().to_pylist()


def test_training_waits_for_pushes_that_are_not_in_the_lake(platform, pusher) -> None:
    sync_view(platform)
    pusher.push("clicks", [row(1, datetime.now(UTC) - 4 * DAY, 1)])
    pusher.push("clicks", [row(1, datetime.now(UTC), 1)])
    with pytest.raises(SourceNotReadyError, match=r"2 push\(es\) to clicks@1 .* are not in the lake"):
        served(platform, [(1, datetime.now(UTC))])
    assert drain_pushes(platform.settings, VIEW).forgotten == 1, "its rows are dead and in the lake"
    served(platform, [(1, datetime.now(UTC))])
    assert drain_pushes(platform.settings, VIEW).forgotten == 0


class History:
    """Pushes, batches, syncs and losses as they come, and what a client read between them."""

    def __init__(self, platform: Platform, client: FeatureClient, seed: int) -> None:
        self.platform = platform
        self.client = client
        self.random = random.Random(seed)
        self.number = 0
        self.read: list[tuple[int, datetime, datetime, int | None]] = []
        self.schema = arrow_schema(VIEW)

    def look(self) -> None:
        for user in (1, 2):
            before = datetime.now(UTC)
            value = self.client.get_online_features(["clicks@1:n"], [{"user": user}])[0].values["n"]
            self.read.append((user, before, datetime.now(UTC), value))

    def some_rows(self) -> list[dict[str, Any]]:
        now = datetime.now(UTC)
        found = []
        for user in self.random.sample((1, 2), self.random.choice((1, 2))):
            self.number += 1
            at = self.random.choice((now, now - SECOND, TODAY - timedelta(hours=3), now - 2 * DAY + 0.3 * SECOND))
            found.append(row(user, at, self.random.choice((self.number, None)), None))
        return found

    def push(self) -> None:
        with FeaturePusher(self.platform.settings, self.platform.registry) as pusher:
            pusher.push(VIEW, self.some_rows())

    def push_and_die(self, *, after_writing: bool) -> None:
        """A pusher that dies when the push is logged, or when it is written and not yet acknowledged."""
        (batch,) = as_batches(VIEW, self.schema, self.some_rows(), now=datetime.now(UTC))
        with Ledger.connect(self.platform.settings.ledger_url) as ledger:
            number, _ = ledger.record_push(
                VIEW.key, to_ipc(batch), row_count=1, newest_event=datetime.now(UTC), pushed_by="dies"
            )
        if after_writing:
            with self.store() as connection:
                functions.load(connection)
                write(connection, encode_pushed(VIEW, layout_of(VIEW), number, batch))

    def batch(self) -> None:
        self.number += 1
        start = self.random.choice((TODAY - DAY, TODAY - 2 * DAY))
        users = self.random.sample((1, 2), self.random.choice((1, 2)))
        events = start + timedelta(hours=self.random.choice((20, 22)))
        self.platform.add(VIEW, start, [(user, events, self.number, "batch") for user in users])

    def sync(self) -> None:
        sync_view(self.platform)

    def lose(self) -> None:
        with self.store() as connection:
            connection.call("FLUSHALL")
        publish_schemas(self.platform.settings.valkey_url, self.platform.registry)

    def store(self) -> Server:
        return Server(ValkeyAddress.parse(self.platform.settings.valkey_url), 5.0)


@pytest.mark.parametrize("seed", [1])
def test_served_says_what_a_client_read(platform, client, seed: int) -> None:
    """Wherever `served` says exact, that was read; and pushes do not make everything ambiguous or unknown."""
    history = History(platform, client, seed)
    history.batch()
    history.sync()
    steps = [
        *(3 * [history.push, history.batch, history.sync]),
        lambda: history.push_and_die(after_writing=False),
        lambda: history.push_and_die(after_writing=True),
    ]
    history.random.shuffle(steps)
    steps.insert(history.random.randrange(4, len(steps)), history.lose)
    for step in steps:
        history.look()
        step()
        history.look()
    history.sync()
    history.look()
    time.sleep(0.01)
    sync_view(platform)  # confirms what was seen
    drain_pushes(platform.settings, VIEW)

    labels = [(user, when) for user, before, after, _ in history.read for when in (before, after)]
    answers = served(platform, labels)
    kinds: dict[str, int] = {}
    for (user, _, _, value), first, second in zip(history.read, answers[::2], answers[1::2], strict=True):
        kind = first["clicks__provenance"]
        kinds[kind] = kinds.get(kind, 0) + 1
        if kind == second["clicks__provenance"] == "served_exact" and first["n"] == second["n"]:
            assert first["n"] == value, (user, first, value, seed)
    assert kinds.get("served_exact", 0) > 5, kinds

    kept = platform.store.create_training_set(label_table(labels), "clicks", name="pushed", mode="served")
    explained = [explain(platform, kept.key, at) for at in range(0, len(labels), 5)]
    assert all(view.agrees for view in explained)
    assert any(row.fate is Fate.CHOSEN and not row.batch_id for view in explained for row in view.rows)


def test_a_push_that_was_never_acknowledged_makes_ambiguous(platform, client) -> None:
    history = History(platform, client, 0)
    history.batch()
    history.sync()
    history.some_rows = lambda: [row(1, datetime.now(UTC), 77, None)]  # type: ignore[method-assign]
    history.push_and_die(after_writing=True)
    at = datetime.now(UTC)
    history.sync()
    later = datetime.now(UTC)
    sync_view(platform)
    drain_pushes(platform.settings, VIEW)
    one, two = served(platform, [(1, at), (1, later)])
    assert one["clicks__provenance"] == "served_ambiguous"
    assert one["n"] != 77
    assert (two["clicks__provenance"], two["n"]) == ("served_exact", 77)
    again = served(platform, [(1, at), (1, later)])
    assert again == [one, two]
    kept = platform.store.create_training_set(label_table([(1, at)]), "clicks", name="pushed", mode="served")
    why = explain(platform, kept.key, 0)
    assert why.agrees
    assert next((row.fate, row.values["n"]) for row in why.rows) == (Fate.NOT_ACKNOWLEDGED, 77)


def test_the_command(settings_in_environ, platform, client, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("FEATURE_PLATFORM_VALKEY_URL", platform.settings.valkey_url)
    monkeypatch.setattr("feature_platform.cli.push.load_registry", lambda _: platform.registry)
    lines = tmp_path / "rows.jsonl"
    now = datetime.now(UTC)
    lines.write_text(
        "".join(f'{{"user":{n},"event_timestamp":"{now.isoformat()}","n":{n},"page":"p"}}\n' for n in (1, 2))
    )
    run = CliRunner().invoke(main, ["push", "clicks", str(lines), "--drain", "--json"])
    assert run.exit_code == 0, run.output
    answer = json.loads(run.stdout)
    assert (answer["rows"], answer["acknowledged"], answer["drained_rows"]) == (2, True, 2)
    assert read(client, 2).values == {"n": 2, "page": "p"}
    assert dict(_readers(TYPED))["seen"]("2026-11-26T08:00:00Z") == datetime(2026, 11, 26, 8, tzinfo=UTC)
    assert dict(_readers(TYPED))["day"]("2026-11-26") == date(2026, 11, 26)
    lines.write_text('{"user":1}\n[1]\n')
    refused = CliRunner().invoke(main, ["push", "clicks", str(lines)])
    assert refused.exit_code == 1
    assert "line 2 is no row" in refused.output
    assert CliRunner().invoke(main, ["push", "clicks"]).exit_code == 2


def test_the_asset_runs_when_something_was_pushed(platform, pusher) -> None:
    asset, schedule = (
        build_pushed_asset(platform.settings, platform.registry, VIEW),
        build_pushes_schedule(platform.settings, platform.registry),
    )
    definitions = dg.Definitions(assets=[asset], schedules=[schedule])

    def tick(instance: dg.DagsterInstance):
        context = dg.build_schedule_context(
            instance=instance,
            scheduled_execution_time=datetime.now(UTC),
            repository_def=definitions.get_repository_def(),
        )
        return schedule.evaluate_tick(context).run_requests

    with dg.instance_for_test() as instance:
        assert not tick(instance)
        pusher.push("clicks", [row(1, datetime.now(UTC), 1)])
        (asked,) = tick(instance)
        assert asked.asset_selection == [asset.key]
        assert dg.materialize([asset], instance=instance).success
        assert not tick(instance)


def test_what_a_store_did_not_get_is_brought_by_the_asset_as_long_as_it_takes(platform, client) -> None:
    """No batch is published meanwhile, so no sync comes by."""
    away = dataclasses.replace(platform.settings, valkey_url="valkey://127.0.0.1:1")
    with FeaturePusher(away, platform.registry) as pusher:
        assert not pusher.push("clicks", [row(1, TODAY, 7)]).acknowledged
    schedule = build_pushes_schedule(platform.settings, platform.registry)
    asset = build_pushed_asset(platform.settings, platform.registry, VIEW)
    repository = dg.Definitions(assets=[asset], schedules=[schedule]).get_repository_def()

    def asked(instance: dg.DagsterInstance):
        context = dg.build_schedule_context(
            instance=instance, scheduled_execution_time=TODAY, repository_def=repository
        )
        return schedule.evaluate_tick(context).run_requests

    with dg.instance_for_test() as instance, running_valkey() as region:
        down = dataclasses.replace(platform.settings, more_stores=(("us", "valkey://127.0.0.1:1"),))
        run = lambda settings: dg.materialize(  # noqa: E731
            [build_pushed_asset(settings, platform.registry, VIEW)], instance=instance, raise_on_error=False
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(failing, "MAX_RETRIES", 0)
            assert not run(down).success
        assert read(client).values["n"] == 7, "another store that is down holds up nobody"
        assert asked(instance), "and it is asked for again"
        both = dataclasses.replace(platform.settings, more_stores=(("us", region),))
        assert run(both).success
        with FeatureClient.connect(region) as us:
            assert read(us).values["n"] == 7
        assert not asked(instance)
