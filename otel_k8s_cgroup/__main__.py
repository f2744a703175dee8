"""``python -m otel_k8s_cgroup``."""

from otel_k8s_cgroup.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
