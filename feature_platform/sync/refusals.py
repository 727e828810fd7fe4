"""What is refused before a store is written or compared."""

from __future__ import annotations

from feature_platform.declaration import FeatureRegistry
from feature_platform.domain.feature_view import FeatureView
from feature_platform.errors import LedgerConflictError, NotDeployedError, RequestError, chosen_from
from feature_platform.ledger import Ledger


def served_view(registry: FeatureRegistry, view: FeatureView | str) -> FeatureView:
    """The view, or the one that a reference means.

    Raises:
        RequestError: it is not served online.
    """
    view = registry.view(view) if isinstance(view, str) else view
    if not view.is_served:
        raise RequestError(
            f"feature view {view.key} is not served online", found="online: none", hint="declare `online: valkey`"
        )
    return view


def refuse_store_ahead(view: FeatureView, position: int, head: int) -> None:
    """No store is further than the ledger that wrote it.

    Raises:
        LedgerConflictError: this one is.
    """
    if position > head:
        raise LedgerConflictError(
            f"the online store holds {view.key} as of position {position}, this ledger ends at {head}",
            hint="the store was written from another ledger: point FEATURE_PLATFORM_VALKEY_URL to a store of "
            "this project, or empty that one",
        )


def refuse_older_declarations(view: FeatureView, ledger: Ledger) -> None:
    """Rows written without a feature added since would count as in step with the ledger, and stay without it.

    Raises:
        NotDeployedError: the view was deployed with features that this process does not know.
    """
    deployments = ledger.deployments(limit=1)
    deployed = deployments[0].views.get(view.key, {}) if deployments else {}
    unknown = {column["name"] for column in deployed.get("features", ())} - {*view.feature_names}
    if unknown:
        raise NotDeployedError(
            f"{view.key} was deployed with features that this process does not know",
            found=chosen_from(unknown),
            hint="restart the process: it has loaded older declarations",
        )
