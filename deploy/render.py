"""Writes what follows from the program and the chart; `make chart` runs it, and tests hold the files to it.

- Chart.yaml: the program's version,
- values.schema.json: the settings that `config` may have,
- Dockerfile: the program's version, as the default of its argument,
- otel-k8s-cgroup.yaml: the chart with its defaults, for those who have no Helm.
"""

from __future__ import annotations

import re
from pathlib import Path

from deploy import helm
from otel_k8s_cgroup import __version__
from otel_k8s_cgroup.settings.model import rows

MANIFEST = Path(__file__).parent / "otel-k8s-cgroup.yaml"
CHART_FILE = helm.CHART / "Chart.yaml"
DOCKERFILE = Path(__file__).parent / "Dockerfile"
SCHEMA = helm.CHART / "values.schema.json"

_HEAD = """\
# otel-k8s-cgroup on every node of a cluster: deploy/chart with its defaults, as `make chart` renders it. Two lines are
# yours to edit, marked EDIT; then
#   kubectl apply -f deploy/otel-k8s-cgroup.yaml
"""
_EDIT = {
    r"^( +image: \S+)$": "where you have pushed the image of deploy/Dockerfile",
    r"^( +otlp_endpoint = \S+)$": "your collector or backend",
}


def chart_file(text: str) -> str:
    """Chart.yaml's ``text`` with the program's version."""
    text = re.sub(r"^version: .*$", f"version: {__version__}", text, flags=re.MULTILINE)
    return re.sub(r"^appVersion: .*$", f'appVersion: "{__version__}"', text, flags=re.MULTILINE)


def dockerfile(text: str) -> str:
    """The Dockerfile's ``text`` with the program's version."""
    text = re.sub(r"(?<=build -t otel-k8s-cgroup:)\S+", __version__, text)
    return re.sub(r"(?<=^ARG VERSION=).*$", __version__, text, flags=re.MULTILINE)


def schema(text: str) -> str:
    """The ``text`` of values.schema.json with each setting that `config` may have; the program checks their values."""
    keys = ", ".join(f'"{name}": true' for name in sorted(rows()))
    return re.sub(r'(?<="properties": \{)[^{}]*(?=\}\},\n    "podSource")', keys, text)


def manifest() -> str:
    """The text of otel-k8s-cgroup.yaml."""
    text = helm.template("--set", "namespace.create=true")
    text = re.sub(r"^# Source: .*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"\n+---\n", "\n---\n", text.removeprefix("---\n"))
    for line, note in _EDIT.items():
        text, count = re.subn(line, rf"\1 # EDIT: {note}", text, flags=re.MULTILINE)
        if count != 1:
            raise ValueError(f"deploy/chart renders {count} lines like {line}, and not one")
    return _HEAD + text.rstrip("\n") + "\n"


def main() -> None:
    CHART_FILE.write_text(chart_file(CHART_FILE.read_text()))
    DOCKERFILE.write_text(dockerfile(DOCKERFILE.read_text()))
    SCHEMA.write_text(schema(SCHEMA.read_text()))
    MANIFEST.write_text(manifest())


if __name__ == "__main__":
    main()
