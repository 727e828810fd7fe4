"""Push: rows fresher than any batch, from a stream processor to the online store, the ledger and the lake.

Rule: a push is logged in the ledger before a store gets it, is written to a store until that store has acknowledged
it, and lies in the lake with its own clocks. Rule R8 of docs/reference/online-format.md; for
people: docs/reference/push.md.
"""

from feature_platform.sync.push.draining import PushDrain, drain_pushes
from feature_platform.sync.push.pushing import FeaturePusher, PushResult, push
from feature_platform.sync.push.reaching import reach_stores
from feature_platform.sync.push.replaying import replay

__all__ = ["FeaturePusher", "PushDrain", "PushResult", "drain_pushes", "push", "reach_stores", "replay"]
