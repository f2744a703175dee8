"""deploy/'s files, read into what tests ask of them."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

REPOSITORY = Path(__file__).parents[2]
DEPLOY = REPOSITORY / "deploy"

Object = dict[str, Any]


def objects_in(text: str) -> list[Object]:
    """The objects of YAML documents, in their order."""
    return [each for each in yaml.safe_load_all(text) if each is not None]


def manifest() -> list[Object]:
    """The objects of the plain manifest."""
    return objects_in((DEPLOY / "otel-k8s-cgroup.yaml").read_text())


def why_no_kustomize() -> str | None:
    """Why nothing can be kustomized here; None where it can."""
    return None if shutil.which("kubectl") else "kubectl, which kustomizes, is not installed"


def kustomized(directory: Path) -> list[Object]:
    """What `kubectl kustomize` makes of a directory."""
    done = subprocess.run(["kubectl", "kustomize", directory], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return objects_in(done.stdout)


def asking_the_kubelet(directory: Path) -> list[Object]:
    """The manifest's objects with the component that asks the kubelet; ``directory`` takes a few files."""
    base, overlay = directory / "deploy", directory / "overlay"
    shutil.copytree(DEPLOY / "kustomize", base / "kustomize")
    for name in ("kustomization.yaml", "otel-k8s-cgroup.yaml"):
        shutil.copy(DEPLOY / name, base / name)
    overlay.mkdir()
    text = "resources: [../deploy]\ncomponents: [../deploy/kustomize/kubelet]\n"
    (overlay / "kustomization.yaml").write_text(text)
    return kustomized(overlay)


def of_kind(kind: str, objects: Iterable[Object] | None = None) -> Object:
    """The one object of that kind; of the plain manifest where no ``objects`` are given."""
    (found,) = (each for each in (manifest() if objects is None else objects) if each["kind"] == kind)
    return found


@dataclass(frozen=True, slots=True)
class Container:
    """The DaemonSet's container, as a kubelet starts it on a node."""

    pod: Object
    spec: Object
    config: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """The ConfigMaps: name → entries."""
    secrets: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def volumes(self) -> dict[str, Object]:
        """Mount path → the volume that is there."""
        by_name = {volume["name"]: volume for volume in self.pod["volumes"]}
        return {mount["mountPath"]: by_name[mount["name"]] for mount in self.spec["volumeMounts"]}

    @property
    def mounts(self) -> dict[str, Object]:
        """Mount path → how it is mounted."""
        return {mount["mountPath"]: mount for mount in self.spec["volumeMounts"]}

    def environ(
        self, node: str, directories: Mapping[str, Path] | None = None, host_ip: str = "10.0.0.7"
    ) -> dict[str, str]:
        """The variables that its process has on ``node``, whose address is ``host_ip``.

        A value at or below a mount path is moved to where ``directories`` (mount path → directory) has that mount.
        """
        of_node = {"spec.nodeName": node, "status.hostIP": host_ip}
        environ = {
            # A kubelet's own: https://kubernetes.io/docs/concepts/containers/container-environment/
            "KUBERNETES_SERVICE_HOST": "10.96.0.1",
            "KUBERNETES_SERVICE_PORT": "443",
            "HOSTNAME": "otel-k8s-cgroup-x7k2p",
        }
        for each in self.spec["env"]:
            match each.get("valueFrom"):
                case {"fieldRef": {"fieldPath": path}}:
                    environ[each["name"]] = of_node[path]
                case {"secretKeyRef": {"name": name, "key": key}}:
                    environ[each["name"]] = self.secrets[name][key]
                case None:
                    # As a kubelet expands $(NAME).
                    value = re.sub(r"\$\((\w+)\)", lambda found: environ[found[1]], each["value"])
                    environ[each["name"]] = _moved(value, directories or {})
        return environ

    def lay_out(self, directory: Path) -> dict[str, Path]:
        """Mount path → a directory or file for it below ``directory``.

        ConfigMaps have their entries, the paths in them moved; a Secret's entries and a file of the node are ``PEM``.
        """
        places = {path: directory / volume["name"] for path, volume in self.volumes.items()}
        for path, volume in self.volumes.items():
            place = places[path]
            place.parent.mkdir(parents=True, exist_ok=True)
            if volume.get("hostPath", {}).get("type") == "File":
                place.write_text("PEM")
                continue
            place.mkdir(parents=True)
            for name, text in self.config.get(volume.get("configMap", {}).get("name"), {}).items():
                # A port of this machine's that is free, not one for all tests.
                text = re.sub(r'(?<=^health_listen = ").*(?="$)', f"127.0.0.1:{_free_port()}", text, flags=re.MULTILINE)  # noqa: PLW2901
                for mount_path, moved in places.items():
                    text = text.replace(f'"{mount_path}', f'"{moved}')  # noqa: PLW2901 one after the other
                (place / name).write_text(text)
            for name in ("ca.crt", "tls.crt", "tls.key") if "secret" in volume else ():
                (place / name).write_text("PEM")
        return places


def container(objects: Sequence[Object] | None = None) -> Container:
    """The DaemonSet's only one; of the plain manifest where no ``objects`` are given."""
    objects = manifest() if objects is None else objects
    pod = of_kind("DaemonSet", objects)["spec"]["template"]["spec"]
    (spec,) = pod["containers"]
    config = {each["metadata"]["name"]: each["data"] for each in objects if each["kind"] == "ConfigMap"}
    secrets = {each["metadata"]["name"]: each["stringData"] for each in objects if each["kind"] == "Secret"}
    return Container(pod, spec, config, secrets)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _moved(value: str, directories: Mapping[str, Path]) -> str:
    for mount_path, directory in directories.items():
        if PurePosixPath(value).is_relative_to(mount_path):
            return str(directory / PurePosixPath(value).relative_to(mount_path))
    return value


def pins(path: Path) -> dict[str, str]:
    """Package → pinned version of a constraints file, in which every package has a hash."""
    found: dict[str, str] = {}
    for block in path.read_text().replace("\\\n", " ").splitlines():
        if block and not block.startswith("#"):
            assert "--hash=sha256:" in block, block
            name, _, rest = block.partition("==")
            found[name] = rest.split()[0]
    return found
