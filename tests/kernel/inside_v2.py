"""Cgroup v2 in the kernel that ``uml_init.py`` has booted. Not collected by name: ``test_uml.py`` runs it there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.kernel.sandbox import Sandbox, why_not
from tests.kernel.sandbox import sandbox as made_sandbox
from tests.kernel.scenarios import KernelScenarios

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    assert why_not() is None
    with made_sandbox() as made:
        assert made.version == 2
        yield made


class TestV2(KernelScenarios):
    """What must hold, there."""
