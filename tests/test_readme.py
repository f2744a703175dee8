"""The README's tables say what the code does."""

from __future__ import annotations

import html
import re
import tomllib
from pathlib import Path
from unittest.mock import Mock

import pytest

from otel_k8s_cgroup import run
from otel_k8s_cgroup.check import CHECKS
from otel_k8s_cgroup.cli import build_parser
from otel_k8s_cgroup.demo.pods import PODS
from otel_k8s_cgroup.metrics import Instrument
from otel_k8s_cgroup.schemas import ALUMET
from otel_k8s_cgroup.settings import load
from otel_k8s_cgroup.settings.model import rows
from tests.metrics_page import PAGE, page

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *(path for room in ("bench", "deploy", "docs") for path in (ROOT / room).rglob("*.md"))]
)

OTLP_TYPES = {
    Instrument.COUNTER: "Sum, delta, monotonic",
    Instrument.GAUGE: "Gauge",
}


def table(name: str) -> list[list[str]]:
    """The rows of the table between the README's markers, without its head."""
    found = re.search(rf"<!-- {name}: begin -->\n(.*)<!-- {name}: end -->", README, re.DOTALL)
    assert found, f"no table {name} in the README"
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in found[1].splitlines()[2:]]


def test_the_metric_table_has_every_metric_with_its_type_and_unit() -> None:
    """One row of the README a row of the code, in the same order."""
    rows = [[cell.strip("`") for cell in row[:3]] for row in table("metrics")]
    assert rows == [
        [metric.name, f"{OTLP_TYPES[metric.instrument]}, {'double' if metric.is_double else 'int'}", metric.unit]
        for metric in ALUMET
    ]


def test_the_settings_table_has_every_key_with_its_default_and_meaning() -> None:
    """One row of the README a key, with the words of ``run --help``."""
    # A renderer would take <key> for a tag, and drop it.
    described = {name: (field.description or "").replace("<", r"\<") for name, field in rows().items()}
    told = {key.strip("`"): f"{meaning} (default: {default})" for key, default, meaning in table("settings")}
    assert told == described


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_word_of_a_document_is_taken_for_a_tag(document: Path) -> None:
    """A renderer of Markdown drops what it does not know. Only anchors and marks are HTML."""
    text = re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", text, flags=re.DOTALL)
    tags = re.findall(r"(?<!\\)<[\w/!?][^>]*>", text)
    assert [tag for tag in tags if not re.fullmatch(r'<a id="[\w-]+">|</a>|<!-- \w+: (begin|end) -->', tag)] == []


def test_the_table_of_own_metrics_has_every_row() -> None:
    """Name, unit and description as in the code."""
    own = run.own_rows(Mock(), Mock(), Mock(), Mock())
    told = [[row.name, row.unit, row.description, ", ".join(row.attributes)] for row in own]
    assert [[name.strip("`"), unit.strip("`"), *rest] for name, unit, *rest in table("own")] == told


def test_the_table_of_checks_has_every_row() -> None:
    """Code (with the anchor that `check` links to), what is tried, and the way out."""
    told = [[f'<a id="check-{check.code}"></a>`{check.code}`', check.what, check.remedy] for check in CHECKS]
    assert table("checks") == told


def test_the_page_of_all_metrics_is_that_of_the_rows() -> None:
    """``python -m tests.metrics_page`` writes it."""
    assert PAGE.read_text() == page()


def test_what_a_group_costs_is_by_its_files() -> None:
    """A page size has files of its own in each version of cgroups."""
    assert "| `hugetlb` | 3 a size | 3 a size | 3 a size |" in page()


@pytest.mark.parametrize("command", re.findall(r"^\| `otel-k8s-cgroup (\w+)", README, re.MULTILINE))
def test_every_command_of_the_readme_is_there(command: str) -> None:
    """The parser takes it."""
    assert build_parser(None).parse_args([command]).command == command


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(([\w./-]+)\)", README))))
def test_every_file_that_the_readme_links_to_is_there(path: str) -> None:
    """No dead link."""
    assert (Path(__file__).parent.parent / path).exists()


def test_the_pictures_are_of_what_the_commands_print() -> None:
    """``python -m tests.screens`` makes them."""
    check, demo = (
        html.unescape(re.sub(r"<[^>]*>", "", (PAGE.parent / name).read_text())).replace("\xa0", " ")
        for name in ("check.svg", "demo.svg")
    )
    assert [check_.what for check_ in CHECKS if f" {check_.what}: " not in check] == []
    assert [pod.label for pod in PODS if pod.label not in demo] == []
    assert "the same." in demo


@pytest.mark.parametrize("written", re.findall(r"```toml\n(.*?)```", README, re.DOTALL))
def test_each_configuration_of_the_readme_is_one(written: str, tmp_path: Path) -> None:
    """The program reads it, and each key in it takes effect."""
    file = tmp_path / "config.toml"
    file.write_text(written)
    found = load(flags={"k8s_node": "node-1"}, environ={}, config_file=str(file))
    assert set(tomllib.loads(written)) == {key for key, where in found.sources.items() if str(file) in where}


def test_every_example_is_in_the_table() -> None:
    """A file that nobody finds is of no use."""
    section = README.partition("\n## Examples\n")[2].partition("\n## ")[0]
    files = {path.name for path in (Path(__file__).parent.parent / "examples").iterdir() if path.is_file()}
    assert set(re.findall(r"\]\(examples/([\w.-]+)\)", section)) == files


def test_every_path_in_a_command_of_the_readme_is_there() -> None:
    """What a user copies into a shell names files of this repository."""
    for path in re.findall(r"(?:--config|-f) ((?:examples|deploy)/\S+)", README):
        assert (Path(__file__).parent.parent / path).exists(), path
