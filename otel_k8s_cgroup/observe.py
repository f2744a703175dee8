"""The pods of a node as observable instruments of a program's own MeterProvider, as instrumentations have them.

The SDK keeps each attribute set of an observable instrument for good, and takes 2,000 of them. So the SDK must not tell
series apart by who a pod is: an observation has beside its attributes a number, which another series takes over once
this one's cgroup has ended. The View makes the SDK go by that number alone, with an aggregation whose attributes are
those of who has the number now.

Beside ``instruments``, this module names what is private to the SDK; tests/library/test_observe_pods.py fails where
that has changed.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from opentelemetry.metrics import CallbackOptions, Observation, get_meter_provider
from opentelemetry.sdk.metrics._internal.aggregation import _LastValueAggregation, _SumAggregation
from opentelemetry.sdk.metrics.view import Aggregation, DefaultAggregation, View

from otel_k8s_cgroup import __version__
from otel_k8s_cgroup.errors import CgroupRootError, ExporterError
from otel_k8s_cgroup.export.encode import SCHEMA_URLS
from otel_k8s_cgroup.instruments import SCOPE_NAME, creators
from otel_k8s_cgroup.library import PodReader
from otel_k8s_cgroup.metrics import member_attributes
from otel_k8s_cgroup.model import EntityKind
from otel_k8s_cgroup.readings import ReadErrors
from otel_k8s_cgroup.sources import device_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence, Set
    from types import TracebackType
    from typing import Self

    from opentelemetry.metrics import MeterProvider
    from opentelemetry.sdk.metrics._internal.measurement import Measurement

    from otel_k8s_cgroup.metrics import Metric
    from otel_k8s_cgroup.model import Group, Origin, Schema, Value
    from otel_k8s_cgroup.readings import Shot

    _Cgroup = tuple[str, Origin]
    """The entity's key, and which of the cgroups that were there by it."""
    _Attributes = tuple[tuple[str, str], ...]
    _Key = tuple[_Attributes, _Attributes]
    """Of a series of a cgroup: its point's attributes, and its member's."""

_log = logging.getLogger(__name__)

_NUMBER = "otel_k8s_cgroup.series"
"""Of a series; the View takes it off."""
MOST_SERIES = 100_000
"""Of one instrument at a time."""

_IDENTITY = (
    *("k8s.pod.uid", "k8s.pod.name", "k8s.namespace.name", "k8s.node.name"),
    *("k8s.container.name", "container.id"),
)
"""What stays as it is for the life of a series."""


class _Number(int):
    """Of a series. It notes that the View is there."""

    seen: threading.Event


class _RecycledSum(_SumAggregation):
    """Of a series for as long as it is the same one's."""

    def aggregate(self, measurement: Measurement, should_sample_exemplar: bool = True) -> None:
        own = _without_number(measurement.attributes)
        went_down = self._instrument_is_monotonic and measurement.value < self._previous_value
        if own != self._attributes or went_down:
            self._attributes = own
            self._value = None
            self._previous_value = 0
            self._start_time_unix_nano = self._previous_collection_start_nano = time.time_ns()
        super().aggregate(measurement, should_sample_exemplar)


class _RecycledValue(_LastValueAggregation):
    """A gauge's."""

    def aggregate(self, measurement: Measurement, should_sample_exemplar: bool = True) -> None:
        self._attributes = _without_number(measurement.attributes)
        super().aggregate(measurement, should_sample_exemplar)


class _Recycled(Aggregation):
    def _create_aggregation(self, *instrument_and_more: Any) -> Any:
        made = DefaultAggregation()._create_aggregation(*instrument_and_more)  # noqa: SLF001 the SDK's protocol
        made.__class__ = _RecycledSum if isinstance(made, _SumAggregation) else _RecycledValue
        return made


def _without_number(attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    own = dict(attributes or {})
    number = own.pop(_NUMBER, None)
    if isinstance(number, _Number):
        number.seen.set()
    return own


def pod_view() -> View:
    """The View that a MeterProvider needs for ``observe_pods``: ``MeterProvider(…, views=[pod_view()])``.

    With it, pods may come and go for ever: an ended pod's series are forgotten, and no ``otel.metric.overflow`` comes
    before 100,000 series of an instrument at a time. It concerns the instruments of ``observe_pods`` alone.
    """
    return View(
        instrument_name="*",
        meter_name=SCOPE_NAME,
        attribute_keys={_NUMBER},
        aggregation=_Recycled(),
        aggregation_cardinality_limit=MOST_SERIES,
    )


class _Series:
    """The numbers of an instrument's series: each keeps its own until its cgroup is no longer there."""

    def __init__(self, name: str, seen: threading.Event) -> None:
        self._name = name
        self._seen = seen
        self._numbers: dict[_Cgroup, dict[_Key, _Number]] = {}
        self._free: list[_Number] = []
        self._used = 0
        self._is_full = False

    def number(self, cgroup: _Cgroup, series: _Key) -> _Number | None:
        """Of one of the series of ``cgroup``; None: there are no more."""
        of_entity = self._numbers.setdefault(cgroup, {})
        found = of_entity.get(series)
        if found is not None:
            return found
        if self._free:
            found = self._free.pop()
        elif self._used < MOST_SERIES:
            found = _Number(self._used)
            found.seen = self._seen
            self._used += 1
        else:
            if not self._is_full:
                self._is_full = True
                _log.warning(
                    "%s: no more than %d series are observed; further ones are left out", self._name, MOST_SERIES
                )
            return None
        of_entity[series] = found
        return found

    def keep(self, cgroups: Set[_Cgroup]) -> None:
        """Frees the numbers of all others."""
        for cgroup in self._numbers.keys() - cgroups:
            self._free.extend(self._numbers.pop(cgroup).values())

    def keep_members(self, cgroup: _Cgroup, of_point: _Attributes, members: Set[_Attributes]) -> None:
        """Frees the numbers of all other series of ``cgroup`` that a point has."""
        of_entity = self._numbers.get(cgroup, {})
        for series in [each for each in of_entity if each[0] == of_point and each[1] not in members]:
            self._free.append(of_entity.pop(series))


class ObservedPods:
    """What ``observe_pods`` has registered; ``close`` ends it. (The SDK cannot unregister instruments: they observe
    nothing from then on.)
    """

    def __init__(self, reader: PodReader, provider: MeterProvider) -> None:
        self._reader = reader
        self._lock = threading.Lock()
        self._is_closed = False
        self._has_view = threading.Event()
        self._errors = ReadErrors()
        self._said: dict[_Cgroup, dict[str, Value]] = {}
        """Who each is, as its first points have said it."""
        self._observed: dict[str, list[Observation]] = {}
        """Of the last reading, what has not been collected yet."""
        self._attributes: dict[tuple[Metric, str], _Attributes] = {}
        """Of each member of a metric that has some, at the last reading."""
        self._by_name: dict[str, list[tuple[Metric, EntityKind]]] = {}
        for metric in reader.metrics:
            for kind in (EntityKind.POD, EntityKind.CONTAINER):
                if kind in metric.kinds:
                    self._by_name.setdefault(metric.named(kind), []).append((metric, kind))
        self._series = {name: _Series(name, self._has_view) for name in self._by_name}
        (self._schema,) = {metric.schema for metric in reader.metrics}
        meter = provider.get_meter(SCOPE_NAME, __version__, SCHEMA_URLS.get(self._schema))
        create = creators(meter)
        for name, of_name in self._by_name.items():
            first, _ = of_name[0]
            callback = self._callback(name)
            instrument = create[first.instrument](name, [callback], first.unit, first.description)
            # Of an instrument that is there the SDK takes no further callbacks, and says nothing.
            if callback not in getattr(instrument, "_callbacks", (callback,)):
                raise ExporterError("observe_pods: this MeterProvider has its instruments already; it takes one call")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the reading: nothing is observed after it."""
        if self._reader.is_forked:
            self._is_closed = True
            self._reader.close()
            return
        with self._lock:
            self._is_closed = True
            self._observed = {}
            self._reader.close()

    def _callback(self, name: str) -> Callable[[CallbackOptions], Iterator[Observation]]:
        def observe(_options: CallbackOptions) -> Iterator[Observation]:
            for observation in self._observe(name):
                yield observation
                # The SDK has taken it by now.
                if not self._has_view.is_set():
                    _log.error("no pods are observed: the MeterProvider needs views=[otel_k8s_cgroup.pod_view()]")
                    self.close()
                    return

        return observe

    def _observe(self, name: str) -> Sequence[Observation]:
        # Before the lock, too: in the child of a fork, a thread that is not there may hold it.
        if self._is_over():
            return ()
        with self._lock:
            if self._is_over():
                return ()
            # Who comes a second time is of another collection.
            if name not in self._observed:
                self._observed = self._read()
            return self._observed.pop(name)

    def _is_over(self) -> bool:
        if not self._is_closed and self._reader.is_forked:
            self._is_closed = True
            _log.error(
                "no pods are observed: this process was forked after observe_pods; call it with a new MeterProvider"
            )
        return self._is_closed

    def _read(self) -> dict[str, list[Observation]]:
        found: dict[str, list[Observation]] = {name: [] for name in self._by_name}
        try:
            shots = self._reader.shots()
        except CgroupRootError as error:
            self._errors.root(error)
            return found
        self._errors.read()
        cgroups = [(shot.entity.key, shot.reading.origin) for shot in shots]
        for series in self._series.values():
            series.keep(set(cgroups))
        # What changes in the life of a cgroup, as its image's name may, would make it another series.
        self._said = {
            cgroup: self._said.get(cgroup) or _identity(shot, self._schema)
            for cgroup, shot in zip(cgroups, shots, strict=True)
        }
        attributes_before, self._attributes = self._attributes, {}
        table = self._reader.table(shots, time.time_ns() - time.monotonic_ns())
        for name, of_name in self._by_name.items():
            for metric, kind in of_name:
                for point in metric.points:
                    for cgroup, shot, value in zip(cgroups, shots, table.column(point.figure), strict=True):
                        if value is None or shot.entity.kind is not kind:
                            continue
                        whose = self._said[cgroup]
                        members = self._members(metric, value, attributes_before)
                        if metric.by:
                            self._series[name].keep_members(cgroup, point.attributes, members.keys())
                        for member, of_member in members.items():
                            if of_member is None:
                                continue
                            number = self._series[name].number(cgroup, (point.attributes, member))
                            if number is not None:
                                scaled = of_member if metric.scale is None else of_member * metric.scale
                                attributes: dict[str, Any] = {**whose, **dict(point.attributes), **dict(member)}
                                found[name].append(Observation(scaled, attributes | {_NUMBER: number}))
        return found

    def _members(
        self, metric: Metric, value: Any, before: Mapping[tuple[Metric, str], _Attributes]
    ) -> dict[_Attributes, int | float | None]:
        """Of a figure that has one value for each of something: their attributes, and the value.

        ``before``: the attributes at the reading before; what a device is called is not looked up at each.
        """
        if not metric.by:
            return {(): value}
        found: dict[_Attributes, int | float | None] = {}
        for member, of_member in value.items():
            key = metric, member
            attributes = self._attributes.get(key) or before.get(key)
            if attributes is None:
                attributes = member_attributes(metric, member, device_name(member))
            self._attributes[key] = attributes
            found[attributes] = of_member
        return found


def _identity(shot: Shot, schema: Schema) -> dict[str, Value]:
    described = shot.entity.describe()
    if schema in described.points:
        return dict(described.points[schema])
    resource = dict(described.resource)
    return {key: resource[key] for key in _IDENTITY if key in resource}


def observe_pods(
    meter_provider: MeterProvider | None = None,
    *,
    schema: Schema = "semconv",
    node: str | None = None,
    cgroup_root: str | None = None,
    api_url: str | None = None,
    token: str | None = None,
    pods_file: str | None = None,
    groups: Sequence[Group] | None = None,
    containers: bool | None = None,
    wait_seconds: float = 10.0,
) -> ObservedPods:
    """Registers the schema's metrics of the node's pods in ``meter_provider``, or else in the global one.

    The provider must be made with ``views=[pod_view()]``: without it an error is logged, and no pods are observed. It
    takes one call: a second one raises ``ExporterError``. Its readers and exporters may be any. Each collection reads
    the cgroups once. The points carry the pods' identity. Counters are the kernel's, cumulative since the cgroup was
    made, and exact in either temporality; the first delta of a pod is all that it has used so far. A rate
    (``k8s.pod.cpu.usage``) covers the time since the previous collection, which may be another reader's. In a process
    that is forked afterwards, an error is logged, and no pods are observed.

    The other parameters, and the errors, are those of ``PodReader``.
    """
    reader = PodReader(
        node=node,
        cgroup_root=cgroup_root,
        api_url=api_url,
        token=token,
        pods_file=pods_file,
        groups=groups,
        containers=containers,
        wait_seconds=wait_seconds,
        schema=schema,
    )
    with ExitStack() as undo:
        undo.enter_context(reader)
        observed = ObservedPods(reader, meter_provider or get_meter_provider())
        undo.pop_all()
    return observed
