"""What `run` imports in the process that stays: nothing of other commands, and no YAML."""

from __future__ import annotations

import json
import subprocess
import sys

RUN = """
import json, sys
from otel_k8s_cgroup import cli, run
print(json.dumps(sorted(sys.modules)))
"""
NOT_FOR_RUN = ("otel_k8s_cgroup.check", "otel_k8s_cgroup.config", "otel_k8s_cgroup.settings", "otel_k8s_cgroup.demo",
               "http.server", "jsonschema", "prometheus_client", "pydantic", "rich", "yaml")  # fmt: skip


def test_run_imports_only_what_it_needs() -> None:
    """The settings are read in a process of their own; each of the others would be memory for good."""
    done = subprocess.run([sys.executable, "-c", RUN], capture_output=True, text=True, check=True)
    modules = json.loads(done.stdout)
    assert {"otel_k8s_cgroup.run", "otel_k8s_cgroup.agent"} <= {*modules}
    assert [name for name in NOT_FOR_RUN if name in modules] == []


def test_settings_import_no_yaml() -> None:
    """Who names no kubeconfig does not wait for it."""
    program = "import sys; from otel_k8s_cgroup import settings; settings.load(flags={}, environ={}, config_file=None)"
    done = subprocess.run(
        [sys.executable, "-c", f"{program}; print('yaml' in sys.modules)"], capture_output=True, check=True
    )
    assert done.stdout.strip() == b"False", done.stderr
