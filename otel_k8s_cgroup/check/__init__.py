"""``otel-k8s-cgroup check``: each thing that ``run`` needs is tried, and what is wrong is said with the way out.

`rows` is the table of the checks; `probes` and `sending` try them; `report` prints what came of it.
"""

from otel_k8s_cgroup.check.bench import Bench
from otel_k8s_cgroup.check.model import Check, Result
from otel_k8s_cgroup.check.outcomes import Status
from otel_k8s_cgroup.check.report import print_json, print_text
from otel_k8s_cgroup.check.rows import CHECKS, run_checks

__all__ = ["CHECKS", "Bench", "Check", "Result", "Status", "print_json", "print_text", "run_checks"]
