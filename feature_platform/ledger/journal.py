"""What else the ledger keeps: syncs, source loads, deployments, facts fixed once."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from feature_platform.domain.batch import SyncRecord
from feature_platform.domain.serving_history import Asked, Sighting
from feature_platform.errors import LedgerConflictError
from feature_platform.ledger.connection import LedgerConnection
from feature_platform.ledger.records import Deployment, LedgerEvent, SourceLoad
from feature_platform.ledger.stores import insert_observation


class SyncLedger(LedgerConnection):
    """The part of the ledger that knows syncs: history, from which `online_at` is derived."""

    def begin_sync(
        self,
        view: str,
        store: str,
        from_position: int,
        to_position: int,
        *,
        server_run_id: str,
        run_id: str,
        asked: Asked | None = None,
        seen: Sighting | None = None,
    ) -> str:
        """Record, before the first write, that the store will be asserted to hold `state(to_position)`; the id.

        Args:
            view: `name@version`.
            store: name of the store.
            from_position: where the plan starts.
            to_position: what it asserts.
            server_run_id: the server process that was asked.
            run_id: who does this.
            asked: when the store was asked where it is. Without it and `seen`, the sync proves nothing about the store.
            seen: what it said.
        """
        sync_id = str(uuid.uuid4())
        with self._append() as append:
            append.insert(
                "insert into sync_began (sync_id, view, store, from_position, to_position, server_run_id, run_id)"
                " values %s returning 1",
                [(sync_id, view, store, from_position, to_position, server_run_id, run_id)],
            )
            if asked and seen:
                insert_observation(append, store, asked, {view: seen}, server_run_id=server_run_id, sync_id=sync_id)
        return sync_id

    def end_sync(
        self,
        sync_id: str,
        *,
        entities: int,
        written: int,
        tombstones: int,
        refused: int,
        seconds: float,
        bytes_sent: int | None = None,
        asked: Asked | None = None,
        nonce: str | None = None,
    ) -> None:
        """Record that the store acknowledged all of a sync and advanced to its position.

        Args:
            sync_id: what `begin_sync` returned.
            entities: entities asserted.
            written: values that changed the store.
            tombstones: of those asserted, the ones asserted as "none".
            refused: where the store held a later position.
            seconds: how long it took.
            bytes_sent: to the store, commands and rows; None if nobody counted.
            asked: when the store was asked to advance.
            nonce: of the store that accepted to.

        Raises:
            LedgerConflictError: no such sync began, or it has ended already.
        """
        with self._append() as append:
            append.insert(
                "insert into sync_ended (sync_id, entities, written, tombstones, refused, seconds, bytes_sent)"
                " values %s returning 1",
                [(sync_id, entities, written, tombstones, refused, seconds, bytes_sent)],
            )
            if asked and nonce:
                ((view, store, position, server_run_id),) = append.fetch(
                    "select view, store, to_position, server_run_id from sync_began where sync_id = %s::uuid",
                    (sync_id,),
                )
                seen = Sighting(nonce=nonce, position=position, at_least=True)
                insert_observation(append, store, asked, {view: seen}, server_run_id=server_run_id, sync_id=sync_id)

    def syncs(self, view_key: str | None = None, store: str | None = None) -> tuple[SyncRecord, ...]:
        """All syncs, in the order in which they began."""
        rows = self._fetch(
            "select s.sync_id::text, s.view, s.store, s.from_position, s.to_position, s.began_at, e.ended_at"
            " from sync_began s left join sync_ended e using (sync_id)"
            " where (%s::text is null or s.view = %s) and (%s::text is null or s.store = %s) order by s.ledger_seq",
            (view_key, view_key, store, store),
        )
        return tuple(
            SyncRecord(
                sync_id=r[0], view=r[1], store=r[2], from_position=r[3], to_position=r[4], began_at=r[5], ended_at=r[6]
            )
            for r in rows
        )

    def synced_position(self, view_key: str, store: str) -> int:
        """The greatest position a completed sync brought the store to; 0 if none did. History, never where to begin."""
        return int(
            self._fetch_value(
                "select coalesce(max(s.to_position), 0) from sync_began s join sync_ended e using (sync_id)"
                " where s.view = %s and s.store = %s",
                (view_key, store),
            )
        )

    def is_of_this_ledger(self, view_key: str, store: str, position: int) -> bool:
        """Whether a sync that this ledger knows may have brought the store to exactly this position.

        A store that this ledger never synced may be the copy, or the new name, of one that it did.
        """
        return bool(
            self._fetch_value(
                "select exists (select from sync_began where view = %s and to_position = %s and (store = %s"
                " or not exists (select from sync_began where view = %s and store = %s)))",
                (view_key, position, store, view_key, store),
            )
        )

    def online_at(self, view_key: str, store: str) -> dict[str, datetime]:
        """Per published batch the end of the first completed sync that covers it; batches not yet online are absent."""
        rows = self._fetch(
            "select p.batch_id::text, min(e.ended_at) from batch_published p"
            " join sync_began s on s.view = p.view and s.to_position >= p.position"
            " join sync_ended e using (sync_id)"
            " where p.view = %s and s.store = %s group by p.batch_id",
            (view_key, store),
        )
        return dict(rows)


class Journal(LedgerConnection):
    """Source loads, deployments, facts, incidents."""

    def record_source_load(
        self, source: str, *, loaded_through: datetime, row_count: int, watermark: datetime | None, run_id: str
    ) -> None:
        """Record what a load of a source brought. `loaded_through`: up to this arrival instant nothing is missing."""
        with self._append() as append:
            append.insert(
                "insert into source_loads (source, loaded_through, row_count, watermark, run_id) values %s returning 1",
                [(source, loaded_through, row_count, watermark, run_id)],
            )

    def loaded_through(self, source: str) -> datetime | None:
        """Up to which arrival instant nothing is missing of a source; None if it was never loaded."""
        load = self.source_load(source)
        return load.loaded_through if load else None

    def source_load(self, source: str) -> SourceLoad | None:
        """The load that reached furthest; None if the source was never loaded."""
        rows = self._fetch(
            "select source, loaded_through, watermark, loaded_at from source_loads where source = %s"
            " order by loaded_through desc, ledger_seq desc limit 1",
            (source,),
        )
        for name, through, watermark, loaded_at in rows:
            return SourceLoad(source=name, loaded_through=through, watermark=watermark, loaded_at=loaded_at)
        return None

    def first_loaded_at(self, source: str) -> datetime | None:
        """When a source was loaded for the first time; None if it never was."""
        first: datetime | None = self._fetch_value(
            "select min(loaded_at) from source_loads where source = %s", (source,)
        )
        return first

    def record_deployment(self, *, platform_version: str, manifest_hash: str, views: Mapping[str, Any]) -> None:
        """Record a deploy: what each view's table, columns, owner and code were from then on."""
        with self._append() as append:
            append.insert(
                "insert into deployments (platform_version, manifest_hash, views) values %s returning 1",
                [(platform_version, manifest_hash, json.dumps(views, default=str, sort_keys=True))],
            )

    def deployments(self, *, limit: int | None = None) -> tuple[Deployment, ...]:
        """Recorded deploys, newest first."""
        rows = self._fetch(
            "select ledger_seq, deployed_at, platform_version, manifest_hash, views from deployments"
            " order by ledger_seq desc limit %s",
            (limit,),
        )
        return tuple(
            Deployment(ledger_seq=r[0], deployed_at=r[1], platform_version=r[2], manifest_hash=r[3], views=r[4])
            for r in rows
        )

    def first_deployed(self, view_key: str) -> datetime | None:
        """When a view was deployed for the first time; None if it never was."""
        first: datetime | None = self._fetch_value(
            "select min(deployed_at) from deployments where views ? %s", (view_key,)
        )
        return first

    def fact(self, name: str) -> str | None:
        """A fact fixed once for the project; None if it is not fixed."""
        value: str | None = self._fetch_value("select value from project_facts where name = %s", (name,))
        return value

    def record_fact(self, name: str, value: str) -> None:
        """Fix a fact for good. Fixing the same value again is harmless.

        Raises:
            LedgerConflictError: it is fixed to another value.
        """
        with self._append() as append:
            append.insert(
                "insert into project_facts (name, value) values %s on conflict (name) do nothing returning 1",
                [(name, value)],
            )
            ((fixed,),) = append.fetch("select value from project_facts where name = %s", (name,))
            if fixed != value:
                raise LedgerConflictError(f"fact {name!r} is fixed already", found=value, allowed=fixed)

    def events(
        self, view_key: str | None = None, *, without: str | None = None, limit: int | None = None
    ) -> tuple[LedgerEvent, ...]:
        """Everything that happened, newest first.

        Args:
            view_key: only to this view.
            without: but to this one.
            limit: at most so many.
        """
        rows = self._fetch(
            "select ledger_seq, at, event, view, subject, detail from ledger_events"
            " where (%s::text is null or view = %s) and (%s::text is null or view is distinct from %s)"
            " order by ledger_seq desc limit %s",
            (view_key, view_key, without, without, limit),
        )
        return tuple(
            LedgerEvent(ledger_seq=r[0], at=r[1], event=r[2], view=r[3], subject=r[4], detail=r[5]) for r in rows
        )
