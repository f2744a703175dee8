"""The pods of a node, read from a Python program: what ``read_pods`` and ``PodReader`` of the package are."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from otel_k8s_cgroup import settings as _settings
from otel_k8s_cgroup import sources
from otel_k8s_cgroup.errors import ExporterError, KubeError
from otel_k8s_cgroup.identity import Describe, shared_attributes
from otel_k8s_cgroup.model import EntityKind
from otel_k8s_cgroup.readings import NodeReader, ReadErrors
from otel_k8s_cgroup.redaction import RedactedRecords, Redactor
from otel_k8s_cgroup.table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from otel_k8s_cgroup.metrics import Metric
    from otel_k8s_cgroup.model import Group, Schema, Value
    from otel_k8s_cgroup.readings import Shot

_STOP_SECONDS = 0.5

_KEYS = {
    "node": "k8s_node",
    "api_url": "k8s_api_url",
    "token": "token_retrieval",
    "pods_file": "pod_source",
    "groups": "metrics",
}
"""Parameter → setting, where the names differ."""


@dataclass(frozen=True, slots=True)
class PodReading:
    """One reading of a pod or, where they are asked for, of one of its containers."""

    kind: Literal["pod", "container"]
    uid: str
    """``metadata.uid`` of the pod, as of all below."""
    name: str
    namespace: str
    node: str
    container: str | None
    """The container's name; None of a pod."""
    cgroup_path: str
    """Below the hierarchy's root, with its leading ``/``."""
    time_unix_ns: int
    """When the cgroup was read."""
    resource: Mapping[str, Value]
    """The attributes of its OpenTelemetry Resource."""
    figures: Mapping[str, int | float | Mapping[str, int | float]]
    """By name, which ends in the unit: ``cpu_usage_ns`` (a counter since the cgroup was made), ``memory_usage_bytes``.
    One that has a value for each device is a mapping by ``major:minor``. What the kernel does not give is absent, as
    rates (``cpu_usage_percent``: one core used fully is 100) are at a first reading.
    """


class PodReader:
    """Reads the pods of a node, as often as it is asked. To be used once, in a ``with`` statement,
    from one thread.

    Each parameter that is not given is what ``otel-k8s-cgroup run`` takes: of the environment (``NODE_NAME``,
    ``OTEL_K8S_CGROUP_…``), or the default.

    Args:
        node: whose pods (``k8s_node``).
        cgroup_root: where the cgroup hierarchy is mounted.
        api_url: of the Kubernetes API (``k8s_api_url``).
        token: ``"auto"``, ``"file"``, ``"kubectl"`` or ``"none"`` (``token_retrieval``).
        pods_file: a PodList in JSON, in place of the API.
        groups: of metrics, whose figures are read (``metrics``).
        containers: whether containers are read, too.
        wait_seconds: for the first list of pods.
        schema: whose metrics the groups are of.

    Raises:
        SettingsError: a parameter cannot be used.
    """

    def __init__(
        self,
        *,
        node: str | None = None,
        cgroup_root: str | None = None,
        api_url: str | None = None,
        token: str | None = None,
        pods_file: str | None = None,
        groups: Sequence[Group] | None = None,
        containers: bool | None = None,
        wait_seconds: float = 10.0,
        schema: Schema | None = None,
    ) -> None:
        given: dict[str, object] = {
            "node": node,
            "cgroup_root": cgroup_root,
            "api_url": api_url,
            "token": token,
            "pods_file": None if pods_file is None else {"file": pods_file},
            "groups": None if groups is None else list(groups),
            "containers": containers,
            "schema": schema,
        }
        flags = {_KEYS.get(name, name): value for name, value in given.items() if value is not None}
        # Where the program's own exporter sends to is none of ours.
        environ = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_EXPORTER_")}
        parameters = {_KEYS.get(name, name): name for name in given}
        found = _settings.load(flags=flags, environ=environ, config_file=None, parameters=parameters).plain()
        self._settings = found
        self._wait_seconds = wait_seconds
        self.metrics: tuple[Metric, ...] = sources.metrics_of(found)
        self._figures = tuple(dict.fromkeys(point.figure for metric in self.metrics for point in metric.points))
        self._cgroups = sources.open_cgroups(found, self.metrics, is_guest=True)
        self._redact = Redactor()
        self._redact.add(found.k8s_access.token or "")
        self._hidden = RedactedRecords(self._redact)
        self._watcher = sources.watch_pods(found, self._redact.add_token)
        describe = Describe(found.k8s_node, shared_attributes(found.resource_attributes))
        self._reader = NodeReader(
            self._cgroups, lambda: self._watcher.pods, describe=describe, left_out=lambda: self._watcher.left_out
        )
        self._errors = ReadErrors()
        self._is_open = False
        self._process = os.getpid()
        """Which has it open."""

    def __enter__(self) -> Self:
        """Waits for the list of pods.

        Raises:
            CgroupRootError: the root is no cgroup root.
            KubeError: the pods could not be listed in that time; the message says why.
        """
        _ = self._cgroups.hierarchy
        self._is_open, self._process = True, os.getpid()
        self._hidden.begin()
        self._watcher.start()
        if not self._watcher.synced.wait(self._wait_seconds):
            failure = self._watcher.list_failure
            self.close()
            why = "no answer" if failure is None else self._redact(str(failure))
            raise KubeError(f"no list of pods within {self._wait_seconds:g} s: {why}")
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the watch of the pods, and closes all files."""
        if self._is_open:
            self._is_open = False
            # What the child of a fork has are the parent's connections, and locks of threads that are not there.
            if not self.is_forked:
                self._watcher.stop(timeout_seconds=_STOP_SECONDS)
            self._cgroups.close()
            self._hidden.end()

    def read(self) -> list[PodReading]:
        """One reading of each pod that has a cgroup here. A figure that cannot be read is absent, and logged once.

        Raises:
            CgroupRootError: the root is no cgroup root (now); the next call tries again.
            ExporterError: the reader is not open, or was opened before this process was forked.
        """
        wall_offset_ns = time.time_ns() - time.monotonic_ns()
        shots = self.shots()
        table = self.table(shots, wall_offset_ns)
        columns = [(name, table.column(name)) for name in self._figures]
        found: list[PodReading] = []
        for number, shot in enumerate(shots):
            resource = dict(shot.entity.describe().resource)
            is_pod = shot.entity.kind is EntityKind.POD
            found.append(
                PodReading(
                    kind="pod" if is_pod else "container",
                    uid=str(resource["k8s.pod.uid"]),
                    name=str(resource["k8s.pod.name"]),
                    namespace=str(resource["k8s.namespace.name"]),
                    node=str(resource["k8s.node.name"]),
                    container=None if is_pod else str(resource["k8s.container.name"]),
                    cgroup_path=shot.reading.path,
                    time_unix_ns=shot.reading.mono_ns + wall_offset_ns,
                    resource=resource,
                    figures={name: value for name, column in columns if (value := column[number]) is not None},
                )
            )
        return found

    @property
    def is_forked(self) -> bool:
        """Whether this process was forked after it was opened: the thread that watches the pods is not here then; not
        public.
        """
        return self._process != os.getpid()

    def shots(self) -> list[Shot]:
        """As ``read``, as the package has them; not public."""
        if not self._is_open:
            raise ExporterError("PodReader: it is not open; use it in a `with` statement")
        if self.is_forked:
            raise ExporterError("PodReader: this process was forked after it was opened; open another one here")
        # The levels of the node, which the environment may ask for, are no pods.
        kinds = (EntityKind.POD, EntityKind.CONTAINER)
        return [shot for shot in self._reader.read(self._errors.figure) if shot.entity.kind in kinds]

    @staticmethod
    def table(shots: Sequence[Shot], wall_offset_ns: int) -> Table:
        """Of the readings; not public. ``wall_offset_ns``: the wall clock less the monotonic one."""
        return Table([shot.reading for shot in shots], [shot.entity.reported for shot in shots], wall_offset_ns)


def read_pods(
    *,
    node: str | None = None,
    cgroup_root: str | None = None,
    api_url: str | None = None,
    token: str | None = None,
    pods_file: str | None = None,
    groups: Sequence[Group] | None = None,
    containers: bool | None = None,
    wait_seconds: float = 10.0,
) -> list[PodReading]:
    """One reading of each pod of the node. The parameters and errors are those of ``PodReader``, which reads repeatedly
    without finding all of it anew.
    """
    with PodReader(
        node=node,
        cgroup_root=cgroup_root,
        api_url=api_url,
        token=token,
        pods_file=pods_file,
        groups=groups,
        containers=containers,
        wait_seconds=wait_seconds,
    ) as reader:
        return reader.read()
