"""``otel-k8s-cgroup demo``: the whole pipeline on one machine, with no cluster.

An API server, pods, and an OTLP receiver of the demo's own stand around the exporter, which runs as a child process
with the settings that it would have on a node. What is shown is what the receiver decoded.
"""

from otel_k8s_cgroup.demo.run import run_demo as run_demo
