"""Readings → the SDK's instruments → rows."""

from __future__ import annotations

import pytest

from otel_k8s_cgroup.figures import Stats
from otel_k8s_cgroup.instruments import Instruments
from otel_k8s_cgroup.model import EntityKind, Origin, Reading
from otel_k8s_cgroup.schemas import ALUMET


def reading(number: int) -> Reading:
    """Every third pod has no memory figures, every fifth no CPU time of its kinds; each uses 1, 2 and 3 ns of 400."""
    kinds = (None, None) if number % 5 == 0 else (number + 2, number + 3)
    memory = (None,) * 5 if number % 3 == 0 else tuple(range(number + 4, number + 9))
    stats = Stats(number + 1, *kinds, *memory)
    origin = Origin(False, 0, stats)
    return Reading(f"uid-{number}", EntityKind.POD, "/", origin, 500, stats, 100, Stats(number, number, number))


def row(number: int) -> tuple[int | float | None, ...]:
    """What it comes to, point by point."""
    *_, stats, _, _ = reading(number)
    percent = (0.25, *((None, None) if number % 5 == 0 else (0.5, 0.75)))
    return (*stats[:3], *percent, *stats[3:])


@pytest.mark.parametrize("sizes", [(0, 1, 5), (127, 128, 129), (700, 3, 400)])
def test_each_row_has_its_own_readings_values(sizes: tuple[int, ...]) -> None:
    """In their order, whatever stood in the same places at the collect before, and absent where it is absent."""
    instruments = Instruments(ALUMET)
    for size in sizes:
        numbers = [size * 10_000 + number for number in range(size)]
        assert instruments.collect([reading(number) for number in numbers]).rows == [row(number) for number in numbers]
