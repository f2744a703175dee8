"""The package as a library, on this machine's own kernel."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from otel_k8s_cgroup import observe_pods, pod_view
from tests.fakes.kube_api import pod
from tests.kernel.sandbox import Sandbox, sandbox, why_not

from .test_observe_pods import DELTA, points
from .test_read_pods import environment, pods_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["environment"]


@pytest.fixture
def made() -> Iterator[Sandbox]:
    if reason := why_not():
        pytest.skip(reason)
    with sandbox() as made:
        yield made


@pytest.fixture
def reader() -> InMemoryMetricReader:
    return InMemoryMetricReader(preferred_temporality=DELTA)


@pytest.fixture
def provider(reader: InMemoryMetricReader) -> MeterProvider:
    return MeterProvider([reader], views=[pod_view()], shutdown_on_exit=False)


def test_the_deltas_sum_up_to_the_kernels_counter(
    made: Sandbox, reader: InMemoryMetricReader, provider: MeterProvider, tmp_path: Path
) -> None:
    """Of a pod whose process works between collections; its memory is what the kernel has."""
    here = made.pod()
    listed = pods_file(tmp_path, pod("worker", uid=here.uid))
    sums: dict[str, int] = {}
    with observe_pods(provider, schema="alumet", pods_file=listed):
        for _ in range(2):
            here.order(burn_seconds=0.05)
            counter = here.cpu_time_ns()
            found = points(reader)
            for point in found["cpu_time_delta"]:
                kind = point.attributes["kind"]
                sums[kind] = sums.get(kind, 0) + point.value
            assert sums == counter
    assert found["memory_usage"][0].value > 0
    assert {point.attributes["uid"] for point in found["memory_usage"]} == {here.uid}
    assert found["memory_usage"][0].attributes["resource_consumer_id"] == here.path


def test_a_cgroup_that_is_made_anew_is_counted_from_zero(
    made: Sandbox, reader: InMemoryMetricReader, provider: MeterProvider, tmp_path: Path
) -> None:
    """As of a static pod's restart: also where the new one has used more by then than the one before it."""
    here = made.pod()
    here.cpu_time_ns()
    listed = pods_file(tmp_path, pod("worker", uid=here.uid))
    with observe_pods(provider, schema="alumet", pods_file=listed):
        points(reader)
        made.remove(here)
        # In the same place: not what the sandbox usually makes.
        anew = replace(here, worker=made._start(here.path.lstrip("/"), here.container))
        anew.order(burn_seconds=0.2)
        counter = anew.cpu_time_ns()
        deltas = {point.attributes["kind"]: point.value for point in points(reader)["cpu_time_delta"]}
    assert deltas == counter
