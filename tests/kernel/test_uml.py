"""Cgroup v2 in a kernel of its own, on any Linux machine and without root: the tests run there, and are told here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.kernel import inside_v2, inside_v2_figures, uml
from tests.kernel.figure_scenarios import FigureScenarios
from tests.kernel.scenarios import KernelScenarios

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.kernel.uml import Outcome

SCENARIOS = [name for name in vars(KernelScenarios) if name.startswith("test_")]
FIGURE_SCENARIOS = [name for name in vars(FigureScenarios) if name.startswith("test_")]
FIGURE_SCENARIOS += [name for name in vars(inside_v2_figures.TestV2) if name.startswith("test_")]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Outcome]:
    """Booted once for all of them."""
    if reason := uml.why_not():
        pytest.skip(reason)
    return uml.run_pytest(tmp_path_factory.mktemp("uml"), inside_v2.__file__)


@pytest.fixture(scope="module")
def figures_outcomes(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Outcome]:
    """Booted once for all of them, with a disk to use and one to swap to."""
    if reason := uml.why_not():
        pytest.skip(reason)
    return uml.run_pytest(tmp_path_factory.mktemp("uml"), inside_v2_figures.__file__, disks=2)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_in_user_mode_linux(outcomes: Mapping[str, Outcome], scenario: str) -> None:
    """The scenario held there, with each of its parameters."""
    _held(outcomes, scenario)


@pytest.mark.parametrize("scenario", FIGURE_SCENARIOS)
def test_figures_in_user_mode_linux(figures_outcomes: Mapping[str, Outcome], scenario: str) -> None:
    """The scenario held there."""
    _held(figures_outcomes, scenario)


def _held(outcomes: Mapping[str, Outcome], scenario: str) -> None:
    of_this = {name: outcome for name, outcome in outcomes.items() if name.partition("[")[0] == scenario}
    assert of_this, f"did not run: {sorted(outcomes)}"
    assert not {name: outcome.skipped for name, outcome in of_this.items() if outcome.skipped is not None}
    failures = [f"{name}\n{outcome.failure}" for name, outcome in of_this.items() if outcome.failure is not None]
    if failures:
        pytest.fail("\n\n".join(failures), pytrace=False)
