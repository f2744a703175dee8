"""The same node on cgroup v2: in a User-Mode-Linux kernel, one processor, a few minutes."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from deploy.cache import cache_directory
from deploy.image.engine import kept_image
from tests.cluster import binaries, uml_init
from tests.cluster.layout import EXPORTER_IMAGE
from tests.cluster.node import NodeFailed
from tests.cluster.versions import KUBERNETES
from tests.kernel import uml

TESTS = ("tests/cluster/test_kinds.py", "tests/cluster/test_books.py")
_LEFT_OUT = "tests/cluster/test_kinds.py::test_pods_that_live_six_seconds"
"""In six seconds a container does not even start there."""
_TIMEOUT_SECONDS = 900.0


def run() -> int:
    """Boots it, runs the tests in the node there, and prints how they ended; an exit code.

    Raises NodeFailed where it cannot be run here.
    """
    if reason := binaries.why_not() or uml.why_not():
        raise NodeFailed(reason)
    binaries.kubernetes(KUBERNETES[2])
    binaries.workload()
    kept_image(EXPORTER_IMAGE)
    with tempfile.TemporaryDirectory(prefix="otel-k8s-cgroup-uml-") as made:
        directory = Path(made)
        cache = os.fspath(cache_directory().parent)
        uml.boot(
            directory,
            uml_init.__file__,
            [cache, "--deselect", _LEFT_OUT, *TESTS],
            memory="6G",
            timeout_seconds=_TIMEOUT_SECONDS,
        )
        outcomes = uml.outcomes(directory / "report.xml")
    for name, outcome in outcomes.items():
        ended = "FAILED" if outcome.failure else f"skipped: {outcome.skipped}" if outcome.skipped else "passed"
        sys.stdout.write(f"{name} {ended}\n{outcome.failure or ''}")
    return int(not outcomes or any(outcome.failure for outcome in outcomes.values()))
