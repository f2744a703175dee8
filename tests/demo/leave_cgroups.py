"""A program for the tests: makes a demo's cgroups with one pod in them, says so, and waits to be killed."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from otel_k8s_cgroup.demo.cgroups import CgroupTree
from otel_k8s_cgroup.demo.pods import PODS

if __name__ == "__main__":
    tree = CgroupTree(Path(sys.argv[1]), Path(sys.argv[2]))
    tree.start(PODS[0])
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    time.sleep(600)
