"""deploy/'s files, read into what tests ask of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

REPOSITORY = Path(__file__).parents[2]
DEPLOY = REPOSITORY / "deploy"


def manifest() -> list[dict[str, Any]]:
    """The objects of the manifest, in its order."""
    return list(yaml.safe_load_all((DEPLOY / "otel-k8s-cgroup.yaml").read_text()))


def with_optional_lines() -> list[dict[str, Any]]:
    """The manifest's objects with each line of YAML that is commented out."""
    text = re.sub(r"^( +)# (- |  )", r"\1\2", (DEPLOY / "otel-k8s-cgroup.yaml").read_text(), flags=re.MULTILINE)
    return list(yaml.safe_load_all(text))


def of_kind(kind: str) -> dict[str, Any]:
    """The manifest's one object of that kind."""
    (found,) = (each for each in manifest() if each["kind"] == kind)
    return found


@dataclass(frozen=True, slots=True)
class Container:
    """The DaemonSet's container, as a kubelet starts it on a node."""

    pod: dict[str, Any]
    spec: dict[str, Any]

    @property
    def volumes(self) -> dict[str, dict[str, Any]]:
        """Mount path → the volume that is there."""
        by_name = {volume["name"]: volume for volume in self.pod["volumes"]}
        return {mount["mountPath"]: by_name[mount["name"]] for mount in self.spec["volumeMounts"]}

    @property
    def mounts(self) -> dict[str, dict[str, Any]]:
        """Mount path → how it is mounted."""
        return {mount["mountPath"]: mount for mount in self.spec["volumeMounts"]}

    def environ(self, node: str, directories: Mapping[str, Path] | None = None) -> dict[str, str]:
        """The variables that its process has on ``node``.

        A value at or below a mount path is moved to where ``directories`` (mount path → directory) has that mount.
        """
        environ = {
            # A kubelet's own: https://kubernetes.io/docs/concepts/containers/container-environment/
            "KUBERNETES_SERVICE_HOST": "10.96.0.1",
            "KUBERNETES_SERVICE_PORT": "443",
            "HOSTNAME": "otel-k8s-cgroup-x7k2p",
        }
        for each in self.spec["env"]:
            if "valueFrom" in each:
                assert each["valueFrom"] == {"fieldRef": {"fieldPath": "spec.nodeName"}}
                environ[each["name"]] = node
            else:
                environ[each["name"]] = _moved(each["value"], directories or {})
        return environ


def container() -> Container:
    """The DaemonSet's only one."""
    pod = of_kind("DaemonSet")["spec"]["template"]["spec"]
    (spec,) = pod["containers"]
    return Container(pod, spec)


def _moved(value: str, directories: Mapping[str, Path]) -> str:
    for mount_path, directory in directories.items():
        if PurePosixPath(value).is_relative_to(mount_path):
            return str(directory / PurePosixPath(value).relative_to(mount_path))
    return value


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction of the Dockerfile: ``COPY``, and what follows it."""

    word: str
    arguments: str


def dockerfile() -> list[list[Instruction]]:
    """The stages, each from its ``FROM`` on."""
    text = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
    stages: list[list[Instruction]] = []
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        word, _, arguments = line.partition(" ")
        if word == "FROM":
            stages.append([])
        stages[-1].append(Instruction(word, " ".join(arguments.split())))
    return stages


def copied_from_context(stages: Sequence[Sequence[Instruction]]) -> list[str]:
    """What is copied of the repository, over all stages."""
    return [
        source
        for stage in stages
        for instruction in stage
        if instruction.word == "COPY" and not instruction.arguments.startswith("--from")
        for source in instruction.arguments.split()[:-1]
    ]


def pins(path: Path) -> dict[str, str]:
    """Package → pinned version of a constraints file, in which every package has a hash."""
    found: dict[str, str] = {}
    for block in path.read_text().replace("\\\n", " ").splitlines():
        if block and not block.startswith("#"):
            assert "--hash=sha256:" in block, block
            name, _, rest = block.partition("==")
            found[name] = rest.split()[0]
    return found
