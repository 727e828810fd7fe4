"""Singular tests of feature views: they must judge the run's batches, not the whole table.

Rule: what is judged is what is published. A test that reads all of a view's table would hold back today's batch for a
row of last year, or one that was never published. Generic tests are limited by the package; singular ones say so.
"""

from __future__ import annotations

from collections.abc import Mapping

from feature_platform.declaration.findings import Reporter
from feature_platform.declaration.manifest import Manifest, as_mapping, parents

_MACROS = ("this_batch", "batches")


def check_singular_tests(manifest: Manifest, view_names: Mapping[str, str], reporter: Reporter) -> None:
    """Report every enabled singular test that reads a feature view and does not ask for the run's batches.

    Args:
        manifest: the project.
        view_names: the label of each feature view by its unique id.
        reporter: collects the findings.
    """
    for _, node in sorted(manifest.nodes.items()):
        if node.get("resource_type") != "test" or node.get("test_metadata"):
            continue
        read = [view_names[parent] for parent in parents(node) if parent in view_names]
        macros = {str(macro).rpartition(".")[2] for macro in as_mapping(node.get("depends_on")).get("macros") or ()}
        if read and not macros & {*_MACROS}:
            reporter.at(str(node.get("original_file_path", "")), f"test {node.get('name')}").report(
                f"judges all rows of {', '.join(read)}, not the batches of the run",
                found="`ref` of a feature view without `this_batch`",
                hint="write `{{ this_batch(ref('…', v=1)) }}` where it reads the view",
            )
