"""On this machine's own kernel, whichever version of cgroups it has."""

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
    if reason := why_not():
        pytest.skip(reason)
    with made_sandbox() as made:
        yield made


class TestHost(KernelScenarios):
    """What must hold, here."""
