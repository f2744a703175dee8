"""Per-pod CPU and memory from the kernel's cgroups to any OpenTelemetry backend."""

__version__ = "0.1.0"
