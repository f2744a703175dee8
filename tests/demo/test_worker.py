"""The workload follows its plan."""

from __future__ import annotations

import os
import time

import pytest

from otel_k8s_cgroup.demo.worker import Workload, burn, cpu_share, memory_mib


@pytest.mark.parametrize(
    ("elapsed", "share"), [(0.0, 0.5), (2.9, 0.5), (3.0, 0.1), (6.9, 0.1), (7.0, 0.5), (7.0 * 1000 + 4, 0.1)]
)
def test_steps_follow_each_other_and_begin_again(elapsed: float, share: float) -> None:
    """3 s at one share, 4 s at another, over and over."""
    assert cpu_share(Workload(((3, 0.5), (4, 0.1)), 1, 1), elapsed) == share


def test_memory_grows_to_its_limit_and_no_further() -> None:
    """Growth by the second, from the start's amount to the limit."""
    workload = Workload(((1, 0.0),), memory_mib=10, memory_limit_mib=16, growth_mib_per_second=2)
    assert [memory_mib(workload, elapsed) for elapsed in (0, 1, 3, 100)] == [10, 12, 16, 16]


def test_burning_uses_the_cpu_time_asked_for() -> None:
    """The process's CPU time is brought to the target; where it is past it, nothing is burnt."""
    zeros = os.open("/dev/zero", os.O_RDONLY)
    target = time.process_time() + 0.05
    burn(target, 0.5, zeros)
    used = time.process_time()
    assert target <= used < target + 0.04
    burn(target, 0.5, zeros)
    os.close(zeros)
    assert time.process_time() - used < 0.02
