"""Deploy: bring ledger, lake and serving schemas to what the project declares.

Rule: deploy runs alone, under the exclusive deployment lock, because creating or altering tables in DuckLake aborts
every open append. It can stop anywhere and be repeated: each step finds what the one before it left. The manifest,
which every other process reads, is replaced last and in one step.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb

import feature_platform
from feature_platform.declaration import Change, FeatureRegistry, compare, load_registry
from feature_platform.declaration.canary import with_canary
from feature_platform.declaration.lineage import FILE as LINEAGE_FILE
from feature_platform.declaration.lineage import load_lineage, write_lineage
from feature_platform.domain.feature_view import FeatureView
from feature_platform.errors import (
    FeaturePlatformError,
    Finding,
    InvalidDeclarationsError,
    NotDeployedError,
    StoreUnavailableError,
)
from feature_platform.lake import connect, log_tables, push_tables, sql, tables
from feature_platform.ledger import Deployment, Ledger, deployment_lock, migrate
from feature_platform.materialization import dbt_run
from feature_platform.materialization.column_lineage import trace_views
from feature_platform.materialization.dbt_parse import parse
from feature_platform.materialization.rejection import explain
from feature_platform.quality import refuse_unjudgeable
from feature_platform.settings import Settings

LOCK_WAIT = timedelta(minutes=5)
_KEPT = 3
"""Parsed manifests kept: the deployed one and some before it, for processes that are just about to read them."""

# what changes in a manifest from parse to parse although nothing of the project did
_VOLATILE = frozenset({"created_at", "generated_at", "invocation_id", "invocation_started_at", "env", "run_started_at"})


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployResult:
    """What a deploy did. Nothing, if everything was as declared."""

    registry: FeatureRegistry
    actions: tuple[str, ...]
    """What was created or altered, in order."""
    changes: tuple[Change, ...]
    """How the declarations differ from those deployed before (empty for the first deploy)."""
    manifest: Path

    @property
    def changed(self) -> bool:
        """Whether anything had to be done."""
        return bool(self.actions)


def deploy(
    settings: Settings,
    *,
    environ: Mapping[str, str] | None = None,
    progress: Callable[[str], None] = lambda _: None,
    lock_wait: timedelta = LOCK_WAIT,
) -> DeployResult:
    """Deploy the project.

    Args:
        settings: addresses and directories.
        environ: environment variables for dbt besides those of the settings.
        progress: called with a line for each thing done.
        lock_wait: how long to wait for runs to end.

    Raises:
        InvalidDeclarationsError: declarations are wrong or do not fit deployed tables; holds all findings.
        NotDeployedError: a source table does not exist.
        LockBusyError: runs did not end in time.
    """
    parsed_root = settings.home / "dbt" / "parsed"
    parsed_root.mkdir(parents=True, exist_ok=True)
    with _scratch_target(parsed_root) as target:
        progress("parsing the dbt project")
        with dbt_run.environment({**(environ or {}), **dbt_run.dbt_environment(settings)}):
            registry = load_registry(parse(settings.project / "dbt_project", target))
            refuse_unjudgeable(registry.views.values())
            manifest_hash = hash_manifest(target / "manifest.json")
            with (
                Ledger.connect(settings.ledger_url) as ledger,
                deployment_lock(ledger.connection, exclusive=True, wait=lock_wait),
            ):
                return _deploy(
                    settings, ledger, registry, target=target, manifest_hash=manifest_hash, progress=progress
                )


def hash_manifest(path: Path) -> str:
    """Hash over what a manifest says, without when and where it was written."""
    content = json.loads(path.read_bytes())
    return hashlib.sha256(json.dumps(_stable(content), sort_keys=True).encode()).hexdigest()


def _deploy(
    settings: Settings,
    ledger: Ledger,
    registry: FeatureRegistry,
    *,
    target: Path,
    manifest_hash: str,
    progress: Callable[[str], None],
) -> DeployResult:
    actions: list[str] = []

    def done(action: str) -> None:
        actions.append(action)
        progress(action)

    for name in migrate(settings.ledger_url):
        done(f"migrate the ledger: {name}")
    deployed = next(iter(ledger.deployments(limit=1)), None)
    changes = _changes(settings, registry)
    with connect(settings) as lake:
        _check_fit(lake, registry, deployed)
        for action in _deploy_lake(lake, registry):
            done(action)
        # labels have no code version: their views are made again with every change of the project
        labels_stand = not registry.training_sets or (deployed and deployed.manifest_hash == manifest_hash)
        if not (labels_stand and _staging_stands(lake, registry, deployed, target)):
            done(_deploy_staging(settings, registry, target))
        columns = {
            (schema, table): tuple(names)
            for schema in {source.schema for source in registry.sources.values()}
            for table, names in tables.read_columns(lake, schema).items()
        }
    down = _publish(settings, registry)
    manifest = target.parent / manifest_hash[:16] / "manifest.json"
    if deployed is None or deployed.manifest_hash != manifest_hash:
        views = {key: asdict(view) for key, view in registry.views.items()}
        ledger.record_deployment(
            platform_version=feature_platform.__version__, manifest_hash=manifest_hash, views=views
        )
        done(f"record the deployment of {len(views)} feature views")
    if not settings.manifest_path.exists() or settings.manifest_path.resolve() != manifest.resolve():
        _trace_columns(settings, registry, target, columns, progress)
        _place_manifest(settings, target, manifest)
        done("replace the manifest")
    if down is not None:  # everything else is deployed; the next deploy publishes there what this one could not
        raise down
    return DeployResult(registry=registry, actions=tuple(actions), changes=changes, manifest=settings.manifest_path)


def _publish(settings: Settings, registry: FeatureRegistry) -> StoreUnavailableError | None:
    """Publish the schemas to every store; why a further store (region) did not get them.

    Raises:
        StoreUnavailableError: the platform's own store cannot be reached.
    """
    if not settings.valkey_url or not registry.served_views:
        return None
    from feature_platform.sync import publish_schemas  # its columnar parts take a moment to import

    down = None
    publish_schemas(settings.valkey_url, registry)
    for _, url in settings.more_stores:
        try:
            publish_schemas(url, registry)
        except StoreUnavailableError as error:
            down = error
    return down


def _deploy_lake(lake: duckdb.DuckDBPyConnection, registry: FeatureRegistry) -> Iterator[str]:
    """Schemas and physical tables."""
    written = with_canary(registry) if registry.served_views else registry
    columns, row_groups = tables.read_columns(lake, sql.BATCHES_SCHEMA), tables.read_row_groups(lake)
    plan = tables.plan_tables(written.views, columns, row_groups)
    for name in tables.create_schemas(lake):
        yield f"create schema {name}"
    log = log_tables.plan_tables(tables.read_columns(lake, sql.SERVING_SCHEMA))
    pushed = push_tables.plan_tables(registry.views.values(), tables.read_columns(lake, sql.PUSHED_SCHEMA))
    for action, statements in (*plan, *log, *pushed):
        with tables.transaction(lake):
            for statement in statements:
                lake.execute(statement)
        yield action


def _check_fit(lake: duckdb.DuckDBPyConnection, registry: FeatureRegistry, deployed: Deployment | None) -> None:
    """Everything is checked before anything is changed.

    Raises:
        InvalidDeclarationsError: views do not fit what is deployed; holds all findings.
        NotDeployedError: a source table does not exist.
    """
    misfits = tables.find_misfits(registry.views, tables.read_columns(lake, sql.BATCHES_SCHEMA))
    if findings := (*misfits, *_changed_grains(registry, deployed)):
        raise InvalidDeclarationsError(findings)
    if missing := tables.missing_sources(lake, registry.sources.values()):
        raise NotDeployedError(
            "source tables are missing from the lake",
            found="no " + ", ".join(f"{source.schema}.{source.table}" for source in missing),
            allowed="each source that a feature view reads exists before deploy",
            hint="create them, then deploy again",
        )


def _changed_grains(registry: FeatureRegistry, deployed: Deployment | None) -> tuple[Finding, ...]:
    """Views given another grain than at the last deployment; a table does not tell its grain."""
    before = deployed.views if deployed else {}
    return tuple(
        Finding(
            file=view.yaml_path,
            node=key,
            problem="batch_size changed",
            found=f"{before[key]['grain']} deployed, {view.grain} declared",
            allowed="within a version, features may be added; nothing else changes",
            hint=f"declare version {view.version + 1} of {view.name}",
        )
        for key, view in registry.views.items()
        if key in before and before[key]["grain"] != view.grain
    )


def _changes(settings: Settings, registry: FeatureRegistry) -> tuple[Change, ...]:
    try:
        return compare(load_registry(settings.manifest_path), registry)
    except FeaturePlatformError:
        return ()  # the first deploy from this machine, or an older manifest that this version cannot read


def _staging_stands(
    lake: duckdb.DuckDBPyConnection, registry: FeatureRegistry, deployed: Deployment | None, target: Path
) -> bool:
    """Whether all staging views exist and come from this very code."""
    before = deployed.views if deployed else {}
    if any(before.get(key, {}).get("code_version") != view.code_version for key, view in registry.views.items()):
        return False
    rows = lake.execute("select schema_name, view_name from duckdb_views() where database_name = 'lake'").fetchall()
    return {(node["schema"], node["alias"]) for node in _staging_models(registry, target).values()} <= set(rows)


def _deploy_staging(settings: Settings, registry: FeatureRegistry, target: Path) -> str:
    """(Re)create the views upstream of feature views, and those that select labels."""
    manifest = dbt_run.read_manifest(target / "manifest.json")
    staging = sorted(_staging_models(registry, target))
    if staging:
        outcome = dbt_run.invoke(
            settings,
            ["run", "--select", *(dbt_run.select_node(manifest, unique_id) for unique_id in staging)],
            manifest=manifest,
            run_directory=target / "staging",
        )
        if not outcome.success:
            raise explain(_first_reader(registry), outcome, target / "staging")
    return f"create staging views: {', '.join(unique_id.rpartition('.')[2] for unique_id in staging) or 'none'}"


def _first_reader(registry: FeatureRegistry) -> FeatureView:
    return next(iter(registry.views.values()))


def _staging_models(registry: FeatureRegistry, target: Path) -> dict[str, Any]:
    """The models upstream of feature views and labels that are views in the lake, by unique id."""
    nodes = json.loads((target / "manifest.json").read_bytes())["nodes"]
    labels = {one.labels_id for one in registry.training_sets.values()}
    waiting = [*(view.unique_id for view in registry.views.values()), *labels]
    found: dict[str, Any] = {unique_id: nodes[unique_id] for unique_id in labels}
    while waiting:
        for parent in nodes[waiting.pop()]["depends_on"]["nodes"]:
            if parent in nodes and parent not in found and nodes[parent]["config"]["materialized"] == "view":
                found[parent] = nodes[parent]
                waiting.append(parent)
    return found


def _trace_columns(
    settings: Settings,
    registry: FeatureRegistry,
    target: Path,
    columns: Mapping[tuple[str, str], tuple[str, ...]],
    progress: Callable[[str], None],
) -> None:
    """Which source columns each feature is computed from, for Dagster to show."""
    lineage = trace_views(
        settings,
        dbt_run.read_manifest(target / "manifest.json"),
        registry.views.values(),
        before=load_lineage(settings.manifest_path),
        columns=columns,
        directory=target / "lineage",
        progress=progress,
    )
    write_lineage(lineage, target)


def _place_manifest(settings: Settings, target: Path, manifest: Path) -> None:
    """Move the parsed files to their place, then let the name that all read point to them, in one step."""
    if not manifest.exists():
        shutil.rmtree(manifest.parent, ignore_errors=True)
        staged = manifest.parent.with_suffix(f".{os.getpid()}")
        shutil.rmtree(staged, ignore_errors=True)  # of a deploy that died; in a container all have the same number
        staged.mkdir()
        for name in ("manifest.json", dbt_run.PARSED_FILE, LINEAGE_FILE):
            shutil.copyfile(target / name, staged / name)
        staged.rename(manifest.parent)
    link = settings.manifest_path.with_name(f".manifest.{os.getpid()}")
    link.unlink(missing_ok=True)
    link.symlink_to(manifest.relative_to(settings.manifest_path.parent))
    link.replace(settings.manifest_path)
    others = [path for path in manifest.parent.parent.iterdir() if path.is_dir() and path != manifest.parent]
    for old in sorted(others, key=lambda path: path.stat().st_mtime, reverse=True)[_KEPT:]:
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def _scratch_target(root: Path) -> Iterator[Path]:
    target = Path(tempfile.mkdtemp(prefix="parsing-", dir=root))
    try:
        yield target
    finally:
        shutil.rmtree(target, ignore_errors=True)


def _stable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _stable(inner) for key, inner in value.items() if key not in _VOLATILE}
    return [_stable(inner) for inner in value] if isinstance(value, list) else value
