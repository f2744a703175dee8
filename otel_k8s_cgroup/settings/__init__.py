"""The one reader of flags, environment and configuration file; the result is frozen and every other part gets plain
values of it.

`model` has the rows; `loading` the places and their order; `values` reads what is written; `file` and `otlp` know what
is not ours (Alumet's file, the standard's variables); `effects` warns of what has no effect; `before_install` is for a
machine that is no node; `given` makes the lines about what is refused.
"""

from otel_k8s_cgroup.settings.loading import add_flags, flags_from, load
from otel_k8s_cgroup.settings.model import Settings

__all__ = ["Settings", "add_flags", "flags_from", "load"]
