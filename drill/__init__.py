"""The drill: faults injected into a running stack one by one, and what came of each.

Rule: the drill does not grade itself. `running` injects, waits and writes a log; `reader` and `receivers` record what
was served and who was told; `judge`, which imports nothing of the platform, compares these records with plain SQL over
the raw files. A fault is one small function in `faults/`.
"""
