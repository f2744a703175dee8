"""What the documents for those who carry it on, and those who trust it, name is there."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
import yaml

from deploy import helm
from tests.deploy.files import DEPLOY, REPOSITORY, container, kustomized, why_no_kustomize

if TYPE_CHECKING:
    from pathlib import Path

DOCUMENTS = [REPOSITORY / "CONTRIBUTING.md", REPOSITORY / "SECURITY.md", *(DEPLOY / "chart").glob("*.md")]


def text_of(path: Path) -> str:
    return path.read_text()


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text_of(path), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_each_link_leads_to_a_file(document: Path) -> None:
    """Relative to the document; one with an anchor to a heading of that name."""
    for target in re.findall(r"\]\(([^)]+)\)", text_of(document)):
        name, _, anchor = target.partition("#")
        path = document.parent / name
        assert path.exists(), target
        headings = re.findall(r"^#+ (.*)$", text_of(path), re.MULTILINE) if anchor else []
        assert not anchor or anchor in {heading.lower().replace(" ", "-") for heading in headings}, target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_each_path_and_test_that_is_named_is_there(document: Path) -> None:
    """`tests/x.py::test_y` is a test of that file."""
    for name in re.findall(r"`((?:otel_k8s_cgroup|deploy|tests|bench|examples|\.ci)/[\w./:-]+)`", text_of(document)):
        path, _, test = name.partition("::")
        assert (REPOSITORY / path).exists(), name
        assert not test or f"def {test}(" in text_of(REPOSITORY / path), name


def test_each_room_is_on_the_map() -> None:
    """Of the program; the others are named as they are."""
    rooms = {path.parent.name for path in (REPOSITORY / "otel_k8s_cgroup").glob("*/__init__.py")}
    document = text_of(REPOSITORY / "CONTRIBUTING.md")
    assert rooms == {room for room in rooms if f"`otel_k8s_cgroup/{room}`" in document}


def test_pre_commit_has_cis_checks() -> None:
    """Each line of `make lint`, with the same tools, and the tests before a push."""
    (repository,) = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text())["repos"]
    entries = [hook["entry"] for hook in repository["hooks"]]
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", text_of(REPOSITORY / "Makefile"), re.MULTILINE)
    assert recipe
    lines = [line.strip().removeprefix("@").replace("$(BIN)", ".venv/bin") for line in recipe[1].splitlines()]
    assert entries == [*lines, "make test"]


def test_the_scc_allows_what_the_pod_needs_and_no_more() -> None:
    """Its user, its volumes, its profile."""
    (scc,) = (
        yaml.safe_load(each) for each in blocks(DEPLOY / "chart/README.md", "yaml") if "security.openshift" in each
    )
    pod, spec = container().pod, container().spec
    assert scc["runAsUser"]["uid"] == pod["securityContext"]["runAsUser"]
    used = {kind for volume in pod["volumes"] for kind in volume if kind != "name"}
    assert used <= set(scc["volumes"])
    assert scc["readOnlyRootFilesystem"] is spec["securityContext"]["readOnlyRootFilesystem"]
    assert scc["requiredDropCapabilities"] == spec["securityContext"]["capabilities"]["drop"]
    assert not [
        key for key, value in scc.items() if key.startswith("allow") and value and key != "allowHostDirVolumePlugin"
    ]
    assert scc["users"] == [f"system:serviceaccount:otel-k8s-cgroup:{pod['serviceAccountName']}"]


def test_the_figures_beside_the_resources_are_those_of_the_bench() -> None:
    """Of `make bench`, over gRPC at an interval of 1 s."""
    measured = re.findall(
        r"^ +(110|1000) grpc 1s +(\S+) +\d+ +(\S+)", text_of(REPOSITORY / "bench/README.md"), re.MULTILINE
    )
    (few, few_mb, few_percent), (many, many_mb, _) = measured
    expected = f"{float(few_mb):.0f} MB at {few} pods, {float(many_mb):.0f} MB at {int(many):,}, over gRPC; "
    expected += f"{float(few_percent):.1f} % of a core at {few} pods and poll_interval 1s."
    assert expected in text_of(DEPLOY / "chart/values.yaml")


@pytest.mark.skipif(not helm.helm().exists(), reason="Helm is not built: `make helm` does so (it needs Go)")
@pytest.mark.parametrize("name", ["README.md", "deploy/chart/README.md", "deploy/chart/UPGRADING.md"])
def test_each_helm_command_is_one_that_the_chart_takes(name: str) -> None:
    """Each value that it sets is a value of the chart; each flag is one of Helm's."""
    commands = [
        command.replace("\\\n", " ").split("#")[0].split()
        for block in blocks(REPOSITORY / name, "console")
        for command in re.findall(r"^(helm (?:install|upgrade) (?:.*\\\n)*.*)$", block, re.MULTILINE)
    ]
    assert commands
    for _, verb, _release, chart, *rest in commands:
        assert chart == "deploy/chart"
        known = subprocess.run([helm.helm(), verb, "--help"], capture_output=True, text=True, check=True).stdout
        assert all(f"{word} " in known for word in rest if word.startswith("--")), rest
        values = [
            word.replace("…", "http://x:4317").replace("REGISTRY", "registry.example.com")
            for word in rest
            if "=" in word
        ]
        helm.template(*(each for value in values for each in ("--set", value)))
        # The chart's own name of the image has no registry: pods that work would be replaced by some that cannot start.
        assert "--reset-then-reuse-values" in rest or "image.repository=registry.example.com/otel-k8s-cgroup" in values


@pytest.mark.skipif(why_no_kustomize() is not None, reason=str(why_no_kustomize()))
def test_the_overlay_of_the_readme_is_one(tmp_path: Path) -> None:
    """Beside a checkout, it has the image, the endpoint and the kubelet as its source."""
    shutil.copytree(DEPLOY, tmp_path / "otel-k8s-cgroup/deploy", ignore=shutil.ignore_patterns("__pycache__"))
    (text,) = (each for each in blocks(DEPLOY / "chart/README.md", "yaml") if each.startswith("# kustomization.yaml"))
    overlay = tmp_path / "mine"
    overlay.mkdir()
    (overlay / "kustomization.yaml").write_text(text)
    inside = container(kustomized(overlay))
    assert inside.spec["image"] == "REGISTRY/otel-k8s-cgroup:0.1.0"
    environ = inside.environ("node-1")
    assert environ["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://otel-collector.observability:4317"
    assert environ["OTEL_K8S_CGROUP_POD_SOURCE"] == "kubelet"
