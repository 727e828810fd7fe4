"""Declarations survive as JSON, whatever was added to or taken from their classes since."""

from __future__ import annotations

import json

import pytest
from manifests import manifest

from feature_platform.declaration import parse_manifest
from feature_platform.declaration.archive import from_archive, to_archive
from feature_platform.domain.feature_service import FeatureService
from feature_platform.domain.feature_view import FeatureView
from feature_platform.errors import ConfigurationError


def test_views_and_services_come_back_as_they_were() -> None:
    registry = parse_manifest(manifest())
    for kind, declared in ((FeatureView, registry.views), (FeatureService, registry.services)):
        for one in declared.values():
            assert from_archive(kind, json.loads(json.dumps(to_archive(one)))) == one


def test_fields_of_other_versions() -> None:
    (service,) = parse_manifest(manifest()).services.values()
    archived = to_archive(service)
    assert from_archive(FeatureService, archived | {"of_a_later_version": 1}) == service
    del archived["owner"]["routes"]  # has a default
    assert from_archive(FeatureService, archived).owner.routes == ()
    with pytest.raises(ConfigurationError, match=r"archived FeatureService cannot be read[\s\S]*next:"):
        from_archive(FeatureService, {"name": "no more"})
