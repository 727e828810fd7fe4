"""Whether this process writes what is deployed."""

from __future__ import annotations

from feature_platform.domain.feature_view import FeatureView
from feature_platform.errors import NotDeployedError, chosen_from
from feature_platform.ledger import Ledger


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
