"""What the checks of one round share."""

from __future__ import annotations

import time
from types import MappingProxyType
from typing import TYPE_CHECKING

from otel_k8s_cgroup import sources
from otel_k8s_cgroup.check.outcomes import Skipped

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from otel_k8s_cgroup.cgroup import NodeCgroups
    from otel_k8s_cgroup.export import Receipt, Transport
    from otel_k8s_cgroup.kube import ApiClient
    from otel_k8s_cgroup.model import OtlpTarget, Pod, RunSettings

IDLE_SECONDS = 10.0
"""The longest silence of whom a check asks."""


class Bench:
    """What the checks of one round share: settings, and what earlier checks have opened and found.

    Args:
        settings: those of `run`; None: they cannot be read, for ``problem``.
        origins: of each setting, where it is from.
        absent: settings that need what this machine has not, each with the reason.
        warnings: what was said while they were read.
        hide_token: gets each token that is had.
        before_install: whether this is no node.
        wall_clock: seconds since 1970.
    """

    def __init__(
        self,
        settings: RunSettings | None,
        *,
        origins: Mapping[str, str],
        absent: Mapping[str, str] = MappingProxyType({}),
        warnings: Sequence[str] = (),
        problem: str = "",
        hide_token: Callable[[str], None] = lambda _token: None,
        before_install: bool = False,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self.origins = origins
        self.absent = absent
        self.warnings = warnings
        self.problem = problem
        self.before_install = before_install
        self.wall_clock = wall_clock
        self._hide_token = hide_token
        self._client: ApiClient | None = None
        self._cgroups: NodeCgroups | None = None
        self._transport: Transport | None = None
        self.pods: tuple[Pod, ...] = ()
        """The node's that are measured."""
        self.left_out: tuple[Pod, ...] = ()
        """The node's that the settings leave out."""
        self.cgroup_uids: frozenset[str] = frozenset()
        self.receiver_date = "", 0.0
        """Of the receiver's last answer; and when that came, by our wall clock."""

    @property
    def settings(self) -> RunSettings:
        """Raises Skipped where there are none."""
        if self._settings is None:
            raise Skipped("the settings cannot be read")
        return self._settings

    @property
    def client(self) -> ApiClient:
        """Of the API server or the kubelet. Raises Skipped where nobody is asked from here, and KubeError."""
        if self._client is None:
            if self.before_install and self.settings.pod_source.method == "kubelet":
                raise Skipped("pod_source is kubelet: only a pod of its node asks it")
            client = sources.open_client(self.settings, self._hide_token, idle_seconds=IDLE_SECONDS)
            if client is None:
                raise Skipped("pod_source is a file: nobody is asked")
            self._client = client
        return self._client

    @property
    def cgroups(self) -> NodeCgroups:
        """The node's. Raises Skipped before an installation."""
        if self.before_install:
            raise Skipped("--pre is for a machine that is no node")
        if self._cgroups is None:
            self._cgroups = sources.open_cgroups(self.settings)
        return self._cgroups

    @property
    def receiver(self) -> OtlpTarget:
        """Whom metrics are sent to. Raises Skipped where nothing is sent from here."""
        target = self.settings.otlp
        for key, why in self.absent.items():
            if key.startswith("otlp_"):
                raise Skipped(f"{key}: {why}")
        if not target.endpoint:
            raise Skipped("otlp_endpoint is none: nothing is sent")
        if self.before_install and self.origins.get("otlp_endpoint") == "default":
            raise Skipped("otlp_endpoint is not set")
        return target

    def send(self, body: bytes) -> Receipt:
        """Sends an OTLP request. Raises Skipped where nothing is sent from here, and ExportError."""
        from otel_k8s_cgroup.export import open_transport  # noqa: PLC0415 gRPC takes a while

        target = self.receiver
        if self._transport is None:
            self._transport = open_transport(target)
        receipt = self._transport.send(body)
        self.receiver_date = receipt.date, self.wall_clock()
        return receipt

    def token(self) -> tuple[str | None, str]:
        """The token and where it is from. Raises TokenError."""
        _ = self.client
        url = self._server_url()
        credentials = sources.open_credentials(self.settings, url, self._hide_token)
        try:
            return credentials.token(), credentials.origin
        finally:
            credentials.close()

    def _server_url(self) -> str:
        settings = self.settings
        return settings.kubelet_url if settings.pod_source.method == "kubelet" else settings.k8s_api_url

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
        if self._cgroups is not None:
            self._cgroups.close()
        if self._transport is not None:
            self._transport.close()
