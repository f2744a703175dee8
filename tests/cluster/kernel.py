"""What the kernel counts for each pod, sampled beside the exporter, without its code."""

from __future__ import annotations

import bisect
import os
import re
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.cluster.background import Background

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path("/sys/fs/cgroup")
_POD = re.compile(r"pod([0-9a-f-]{32,36})")
_PERIOD_SECONDS = 0.05
_LIST_EVERY = 4


def is_v2() -> bool:
    return (ROOT / "cgroup.controllers").exists()


def pod_directories(controller: str = "cpuacct") -> dict[str, Path]:
    """The uid in its name → each pod's cgroup."""
    parent = (ROOT if is_v2() else ROOT / controller) / "kubepods"
    found = {}
    for directory in (parent, parent / "burstable", parent / "besteffort"):
        with suppress(FileNotFoundError):
            for name in os.listdir(directory):  # noqa: PTH208 names are what is wanted
                if match := _POD.fullmatch(name):
                    found[match[1]] = directory / name
    return found


class Sample(NamedTuple):
    """The counter was ``usage_ns`` at a moment between the two (wall clock)."""

    before_ns: int
    after_ns: int
    usage_ns: int


@dataclass(slots=True)
class Life:
    """What was seen of one pod's cgroup. Of equal samples in a row only the first and the last are kept."""

    path: str
    samples: list[Sample] = field(default_factory=list)

    def add(self, sample: Sample) -> None:
        if len(self.samples) > 1 and self.samples[-2].usage_ns == self.samples[-1].usage_ns == sample.usage_ns:
            self.samples[-1] = sample
        else:
            self.samples.append(sample)

    def bounds_ns(self, at_ns: int, slack_ns: int) -> tuple[int, int | None]:
        """The least and the most that the counter can have been at ``at_ns``, give or take ``slack_ns``; no most where
        nothing was sampled later.
        """
        earlier = bisect.bisect_right(self.samples, at_ns - slack_ns, key=lambda sample: sample.after_ns)
        later = bisect.bisect_left(self.samples, at_ns + slack_ns, key=lambda sample: sample.before_ns)
        least = self.samples[earlier - 1].usage_ns if earlier else 0
        return least, self.samples[later].usage_ns if later < len(self.samples) else None

    def usage_ns_for(self, seconds: float) -> int | None:
        """The counter, where it has stood still for the last ``seconds``."""
        if len(self.samples) < 2:
            return None
        first, last = self.samples[-2:]
        quiet = first.usage_ns == last.usage_ns and last.before_ns - first.after_ns > seconds * 1e9
        return last.usage_ns if quiet else None


class Sampler(Background):
    """Reads every pod's counter of CPU time some twenty times a second; a context manager."""

    def __init__(self) -> None:
        super().__init__("sampler")
        self.lives: dict[str, Life] = {}
        """By the uid in the cgroup's name; also those that have ended."""
        self._files: dict[str, int] = {}
        self._read = _usage_v2 if is_v2() else int
        self._name = "cpu.stat" if is_v2() else "cpuacct.usage"

    def _close(self) -> None:
        for descriptor in self._files.values():
            os.close(descriptor)

    @property
    def running(self) -> set[str]:
        """Whose cgroup is there now."""
        return set(pod_directories())

    def _run(self) -> None:
        rounds = 0
        while not self._stop.wait(_PERIOD_SECONDS):
            if rounds % _LIST_EVERY == 0:
                self._list()
            rounds += 1
            for uid, descriptor in list(self._files.items()):
                before = time.time_ns()
                try:
                    usage_ns = self._read(os.pread(descriptor, 4096, 0))
                except OSError:  # the cgroup is gone
                    os.close(self._files.pop(uid))
                    continue
                self.lives[uid].add(Sample(before, time.time_ns(), usage_ns))

    def _list(self) -> None:
        for uid, directory in pod_directories().items():
            if uid not in self._files:
                with suppress(FileNotFoundError):
                    self._files[uid] = os.open(directory / self._name, os.O_RDONLY)
                    path = "/" + "/".join(directory.parts[directory.parts.index("kubepods") :])
                    self.lives.setdefault(uid, Life(path))


def _usage_v2(data: bytes) -> int:
    """https://docs.kernel.org/admin-guide/cgroup-v2.html#cpu-interface-files"""
    return int(data.split(maxsplit=2)[1]) * 1000


def memory(uid: str) -> dict[str, int]:
    """The memory metrics of the pod, by the kernel's files."""
    directory = pod_directories("memory")[uid]
    stat = dict(line.split() for line in (directory / "memory.stat").read_text().splitlines())
    usage, anonymous, file = (
        ("memory.current", "anon", "file") if is_v2() else ("memory.usage_in_bytes", "total_rss", "total_cache")
    )
    return {
        "memory_usage": int((directory / usage).read_text()),
        "cgroup_memory_anonymous": int(stat[anonymous]),
        "cgroup_memory_file": int(stat[file]),
    }


@contextmanager
def frozen(uid: str) -> Iterator[None]:
    """The pod's processes stand still, so its counters do."""
    directory = pod_directories("freezer")[uid]
    name, freeze, thaw = ("cgroup.freeze", "1", "0") if is_v2() else ("freezer.state", "FROZEN", "THAWED")
    (directory / name).write_text(freeze)
    try:
        while not is_v2() and (directory / name).read_text().strip() != "FROZEN":
            time.sleep(0.01)
        yield
    finally:
        (directory / name).write_text(thaw)
