"""Writes what follows from the program and the chart; `make chart` runs it, and tests hold the files to it.

- Chart.yaml: the program's version,
- values.schema.json: the settings that `config` may have, and their values' shapes,
- Dockerfile: the program's version, as the default of its argument,
- otel-k8s-cgroup.yaml: the chart with its defaults, for those who have no Helm.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from deploy import helm
from otel_k8s_cgroup import __version__
from otel_k8s_cgroup.settings.schema import json_schema

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
    """The ``text`` of values.schema.json with each setting that `config` may have, a line each.

    They are those of the configuration file's own schema, which is never stricter than the program.
    """
    settings = json_schema()["properties"]
    del settings["plugins"]
    lines = ",\n".join(
        f"        {json.dumps(name)}: {json.dumps(_of_value(settings[name]))}" for name in sorted(settings)
    )
    head, config, rest = text.partition('"config": {')
    _, after, rest = rest.partition('\n    "podSource": {')
    properties = f'"type": "object",\n      "additionalProperties": false,\n      "properties": {{\n{lines}\n      }}'
    return f"{head}{config}\n      {properties}\n    }},{after}{rest}"


def _of_value(row: dict[str, Any]) -> dict[str, Any]:
    """A setting's schema for its value of the chart, where null is as if it were not there."""
    return {"description": row["description"]} | _of_types(_shapes(row), "null")


def _shapes(of: dict[str, Any]) -> list[dict[str, Any]]:
    return of.get("anyOf") or [{key: value for key, value in of.items() if key not in ("description", "default")}]


def _of_types(shapes: list[dict[str, Any]], *more: str) -> dict[str, Any]:
    """One schema for all ``shapes`` and the types ``more``, each keyword of which is about one type: so that Helm
    complains in one line, and not in one a shape.
    """
    made: dict[str, Any] = {"type": ""}
    types, patterns, objects = list(more), [], []
    for shape in shapes:
        match shape:
            case {"const": str(word)}:
                patterns.append(f"^{re.escape(word)}$")
            case {"enum": words}:
                patterns.append(f"^({'|'.join(map(re.escape, words))})$")
            case {"type": "string"}:
                patterns.append(shape.get("pattern", ""))
            case {"type": "object"}:
                objects.append(_nullable(shape))
            case {"type": "array", "items": items, **rest}:
                made |= rest | {"items": _of_types(_shapes(items))}
                types.append("array")
            case {"type": kind, **rest}:
                made |= rest
                types.append(kind)
    if patterns:
        types.append("string")
        if "" not in patterns:
            made["pattern"] = "|".join(patterns)
    if objects:
        types.append("object")
        made |= objects[0] if len(objects) == 1 else {"anyOf": [*objects, {"not": {"type": "object"}}]}
    return made | {"type": sorted(set(types)) if len(set(types)) > 1 else types[0]}


def _nullable(shape: dict[str, Any]) -> dict[str, Any]:
    """A table's, in which what need not be there may be null."""
    made, required = dict(shape), shape.get("required", ())
    if "properties" in shape:
        made["properties"] = {
            name: _of_types(_shapes(of), *(() if name in required else ("null",)))
            for name, of in shape["properties"].items()
        }
    if isinstance(of := shape.get("additionalProperties"), dict):
        made["additionalProperties"] = _of_types(_shapes(of), "null")
    return made


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
