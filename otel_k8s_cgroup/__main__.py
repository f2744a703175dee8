"""``otel-k8s-cgroup``, also as ``python -m otel_k8s_cgroup``."""

from __future__ import annotations

import os

from otel_k8s_cgroup.signals import StopSignals


def main() -> int:
    """Runs the command of the process's arguments and returns its exit code."""
    # Before all that takes a while to import: who ends a pod that has hardly begun must not wait for it.
    stop = StopSignals()
    from otel_k8s_cgroup import cli

    code = cli.main(stop=stop)
    if stop(0):
        # The interpreter would give back what a full queue holds piece by piece, which takes a second where the CPU is
        # busy, and wait for threads that hang.
        os._exit(code)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
