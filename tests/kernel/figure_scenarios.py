"""Figures against what real processes did, whichever the version of the cgroups.

Run by ``test_figures_host.py`` on this machine, and by ``inside_v2_figures.py`` in a User-Mode-Linux kernel.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from otel_k8s_cgroup.figures import FIGURES

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kernel.box import Box

MIB = 1 << 20


class FigureScenarios:
    """The fixtures ``box`` and ``disk`` come from the module that inherits this."""

    def test_a_process_is_throttled(self, box: Box) -> None:
        """At a fifth of a core, 120 ms of CPU time take six periods, in nearly all of which it has to wait."""
        if box.version == 2:
            box.limit("cpu", "cpu.max", "20000 100000")
        else:
            box.limit("cpu", "cpu.cfs_quota_us", 20_000)
        before = box.read(box.container)
        done = box.do("burn", 0.12)
        after = box.read(box.container)
        assert done is not None
        assert (after.cpu_quota_us, after.cpu_period_us) == (20_000, 100_000)
        throttled = after.nr_throttled - before.nr_throttled
        assert 3 <= throttled <= after.nr_periods - before.nr_periods
        # It was not on a CPU for this long; before it began to measure it has started, and waited too.
        waited_seconds = done["elapsed_seconds"] - done["cpu_seconds"]
        assert after.throttled_ns - before.throttled_ns > 0.5e9 * waited_seconds
        assert box.read(box.pod).nr_throttled == 0, "the pod has no limit of its own"

    def test_a_process_pages(self, box: Box) -> None:
        """4,000 pages are touched for the first time: so many faults, in the container and in the pod."""
        box.do("burn", 0.0)
        before = box.read(box.container), box.read(box.pod)
        done = box.do("fault", 4_000)
        after = box.read(box.container), box.read(box.pod)
        assert done is not None
        assert done["minor"] >= 4_000
        for was, now in zip(before, after, strict=True):
            # What Python needs to start is less than this again.
            assert done["minor"] <= now.pgfault - was.pgfault < done["minor"] + 8_000
            assert now.anon_bytes - was.anon_bytes >= 4_000 * 4096
            assert now.memory_peak_bytes >= now.memory_usage_bytes
            lru = now.active_anon_bytes + now.inactive_anon_bytes + now.unevictable_bytes
            assert lru == pytest.approx(now.anon_bytes + (now.shmem_bytes or 0), abs=MIB)

    def test_a_process_is_oom_killed(self, box: Box) -> None:
        """In a small limit: one kill of the container; on v1 none that a pod would be told of."""
        limit = 24 * MIB
        box.limit("memory", "memory.max" if box.version == 2 else "memory.limit_in_bytes", limit)
        before = box.read(box.container)
        assert before.memory_events_oom_kill == 0
        assert box.do("fault", 16_000) is None
        after = box.read(box.container)
        assert after.memory_max_bytes == limit
        assert after.memory_events_oom_kill == 1
        assert limit * 0.9 < after.memory_peak_bytes <= limit
        assert box.read(box.pod).memory_events_oom_kill == (1 if box.version == 2 else None)
        if box.version == 2:
            assert min(after.memory_events_oom, after.memory_events_max) >= 1
        else:
            assert after.memory_failcnt >= 1

    def test_a_process_forks_until_it_is_refused(self, box: Box) -> None:
        """Eight processes may be there: seven children are made, and the eighth is refused."""
        box.limit("pids", "pids.max", 8)
        assert box.read(box.container).pids_current == 0
        assert box.do("fork", None) == {"children": 7}
        after = box.read(box.container)
        assert (after.pids_current, after.pids_max, after.pids_peak) == (8, 8, 8)
        assert after.pids_events_max == 1
        assert box.read(box.pod).pids_current == 8

    def test_a_process_uses_a_disk(self, box: Box, disk: Path) -> None:
        """To the byte, by device; and a page that had to be fetched is a major fault."""
        number = disk.stat().st_rdev
        device = f"{os.major(number)}:{os.minor(number)}"
        if box.version == 1:
            # From 6.10 on it counts only on disks for which there is a limit.
            box.limit("blkio", "blkio.throttle.write_bps_device", f"{device} {1 << 40}")
        before = box.read(box.container)
        assert {before.io_rbytes.get(device), before.io_wios.get(device)} <= {0, None}
        done = box.do("disk", {"device": str(disk), "writes": 8, "reads": 4})
        assert done is not None
        for after in (box.read(box.container), box.read(box.pod)):
            assert (after.io_wbytes[device], after.io_rbytes[device]) == (done["written"], done["read"])
            assert (after.io_wios[device] >= 8, after.io_rios[device] >= 4, after.io_dbytes[device]) == (True, True, 0)
        before = after
        assert box.do("fetch", str(disk)) == {"major": 1}
        after = box.read(box.pod)
        assert after.io_rbytes[device] >= before.io_rbytes[device] + 4096
        assert after.pgmajfault - before.pgmajfault >= 1

    def test_limits_are_as_they_were_set(self, box: Box) -> None:
        """Each one; and what nobody has set is absent."""
        limits: dict[str, Any] = {"memory_max_bytes": 64 * MIB, "pids_max": 100}
        names = {"memory_max_bytes": "memory.limit_in_bytes", "pids_max": "pids.max"}
        if box.version == 2:
            names |= {name: f"memory.{name[7:-6].replace('_', '.')}" for name in _V2_LIMITS} | {
                "memory_max_bytes": "memory.max",
                "cpu_weight": "cpu.weight",
            }
            limits |= _V2_LIMITS | {"cpu_weight": 39}
        else:
            names |= {"memory_soft_limit_bytes": "memory.soft_limit_in_bytes", "cpu_shares": "cpu.shares"}
            limits |= {"memory_soft_limit_bytes": 32 * MIB, "cpu_shares": 204}
        before = box.read(box.container)
        unset = {"memory_max_bytes", "pids_max", "cpu_quota_us", "memory_high_bytes", "memory_soft_limit_bytes"}
        assert {name for name in unset if getattr(before, name) is not None} == set()
        for name, limit in limits.items():
            box.limit(name.partition("_")[0], names[name], limit)
        after = box.read(box.container)
        assert {name: getattr(after, name) for name in limits} == limits

    def test_nothing_is_negative_or_odd(self, box: Box) -> None:
        """A container that does all kinds of things, and ends: each counter only grows."""
        box.do("burn", 0.0)
        counters = [figure.name for figure in FIGURES if figure.is_counter and not figure.by]
        before = box.read(box.container)
        for what, argument in (("fault", 1_000), ("burn", 0.05), ("fault", 1_000)):
            box.do(what, argument)
            after = box.read(box.container)
            for name in counters:
                was, now = getattr(before, name), getattr(after, name)
                assert (was is None) == (now is None)
                assert was is None or now >= was >= 0
            before = after


_V2_LIMITS = {
    "memory_high_bytes": 48 * MIB,
    "memory_low_bytes": 8 * MIB,
    "memory_min_bytes": 4 * MIB,
    "memory_swap_max_bytes": 16 * MIB,
}
