"""Declarations: dbt's `manifest.json` → a frozen registry of feature views, services and sources.

Rule: this package reads JSON and returns values or findings. It never imports dbt, never connects to anything.
"""

from __future__ import annotations

from feature_platform.declaration.diff import Change, ChangeKind, compare
from feature_platform.declaration.manifest import tested_columns
from feature_platform.declaration.parser import load_registry, parse_manifest
from feature_platform.declaration.registry import FeatureRegistry

__all__ = ["Change", "ChangeKind", "FeatureRegistry", "compare", "load_registry", "parse_manifest", "tested_columns"]
