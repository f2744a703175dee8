"""The transport that a target's protocol asks for."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from otel_k8s_cgroup.export.transport import Transport
    from otel_k8s_cgroup.model import OtlpTarget


def open_transport(target: OtlpTarget) -> Transport:
    """The transport for the target's protocol.

    Raises:
        ExportRejected: a certificate or key cannot be used.
    """
    # Only what is used is imported: gRPC takes 8 MB and six threads.
    if target.protocol == "grpc":
        # Its C core writes lines of its own past our log: with the receiver's words as they are (a secret that it
        # echoes), a thousand a second, and waiting where nobody reads standard error. What matters we say ourselves.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        from otel_k8s_cgroup.export.grpc import GrpcTransport  # noqa: PLC0415

        return GrpcTransport(target)
    from otel_k8s_cgroup.export.http import HttpTransport  # noqa: PLC0415

    return HttpTransport(target)
