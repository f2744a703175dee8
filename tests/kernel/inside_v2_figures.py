"""Figures of cgroup v2 in the kernel that ``uml_init.py`` has booted. Not collected by name: ``test_uml.py`` runs it
there, with two disks.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kernel.box import Box
from tests.kernel.box import box as made_box
from tests.kernel.figure_scenarios import MIB, FigureScenarios

if TYPE_CHECKING:
    from collections.abc import Iterator

_PAGE = 4096


@pytest.fixture
def box() -> Iterator[Box]:
    with made_box() as made:
        assert made.version == 2
        yield made


@pytest.fixture
def disk() -> Path:
    return Path("/dev/ubda")


@pytest.fixture
def swap() -> Iterator[None]:
    """The second disk, made and switched on as mkswap(8) and swapon(8) do."""
    device = Path("/dev/ubdb")
    libc = ctypes.CDLL(None, use_errno=True)
    header = bytearray(_PAGE)
    header[1024:1032] = (1).to_bytes(4, "little") + (64 * MIB // _PAGE - 1).to_bytes(4, "little")
    header[-10:] = b"SWAPSPACE2"
    with device.open("r+b", buffering=0) as file:
        file.write(header)
        os.fsync(file)
    assert libc.swapon(bytes(device), 0) == 0, os.strerror(ctypes.get_errno())
    yield
    assert libc.swapoff(bytes(device)) == 0, os.strerror(ctypes.get_errno())


class TestV2(FigureScenarios):
    """What must hold, there."""

    @pytest.mark.usefixtures("swap")
    def test_a_process_swaps(self, box: Box) -> None:
        """24 MiB where 16 may be: the rest is in swap, and what was scanned and reclaimed for that is counted."""
        box.limit("", "memory.max", 16 * MIB)
        box.limit("", "memory.swap.max", 32 * MIB)
        done = box.do("fault", 6_000)
        assert done is not None
        for after in (box.read(box.container), box.read(box.pod)):
            assert after.anon_bytes <= 16 * MIB
            assert after.anon_bytes + after.memory_swap_current_bytes >= 6_000 * _PAGE
            assert after.pgscan >= after.pgsteal > 1_000
            # What the container's limit did to it is told of the pod too.
            assert after.memory_events_max > 0
            assert (after.memory_events_oom_kill, after.memory_swap_events_max) == (0, 0)

    def test_the_kernel_tells_what_is_below_a_cgroup(self, box: Box) -> None:
        """The pod has one container below it, and the container none; none that has ended is held by its memory."""
        assert (box.read(box.pod).nr_descendants, box.read(box.container).nr_descendants) == (1, 0)
        assert box.read(box.pod).nr_dying_descendants == 0
