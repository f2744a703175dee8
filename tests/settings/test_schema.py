"""The JSON schema of the file: it takes what the program takes, and names a key that is none."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import jsonschema
import pytest

from otel_k8s_cgroup.settings.model import rows
from otel_k8s_cgroup.settings.schema import json_schema

from .test_order import SAMPLES

if TYPE_CHECKING:
    from .conftest import Read, Refused

EXAMPLES = Path(__file__).parents[2] / "examples"


def problems(text: str) -> list[str]:
    """What an editor with the schema would say of the file."""
    validator = jsonschema.Draft202012Validator(json_schema())
    # As `settings.file` does: Alumet's files have "\${" in strings, which TOML has not.
    parsed = tomllib.loads(re.sub(r"\\{1,2}\$\{", "${", text))
    return [error.message for error in validator.iter_errors(parsed)]


def test_it_is_a_schema() -> None:
    """Of the draft that it names, and JSON all through."""
    jsonschema.Draft202012Validator.check_schema(json.loads(json.dumps(json_schema())))


@pytest.mark.parametrize("key", SAMPLES)
@pytest.mark.parametrize("table", ["", "[plugins.k8s]\n"])
def test_it_takes_each_setting(key: str, table: str) -> None:
    """As every test of the order writes it, with a variable in it, and in both places."""
    for text in (*SAMPLES[key], "${NAME}"):
        assert problems(f"{table}{key} = '{text}'") == []


def test_it_takes_the_examples() -> None:
    """Each file under examples/, and the one of every setting with each of its lines switched on."""
    for path in EXAMPLES.glob("*.toml"):
        assert problems(path.read_text()) == [], path
    uncommented = re.sub(r"^# (?=\w+ = )", "", (EXAMPLES / "otel-k8s-cgroup.toml").read_text(), flags=re.MULTILINE)
    assert problems(uncommented) == []


@pytest.mark.parametrize(
    "line",
    [
        "qos_classes = ['guaranteed', 'BESTEFFORT']",
        "qos_classes = 'guaranteed,, BestEffort,'",
        "schema = 'Semconv'",
        "metrics = ''",
        "metrics = []",
        "pod_attributes = ' None '",
        "pod_attributes = ['NONE']",
        "pod_attributes = ['Workload', 'IP']",
        "log_level = 'WARNING'",
        "intervals = []",
        "intervals = { Memory = '10s' }",
        "health_listen = 8081",
        "health_listen = '8081'",
        "[plugins.opentelemetry]\nenabled = false\nfoo = 1",
        "[plugins.opentelemetry]\nenable = false\ncollector_host = 1",
    ],
)
def test_what_the_program_takes_it_takes(line: str, read: Read) -> None:
    """Whatever case words are in, and whatever stands in a table that is switched off."""
    read(line)
    assert problems(line) == []


@pytest.mark.parametrize(
    "line",
    [
        "metrics = 'none'",
        "metrics = ['none']",
        "qos_classes = 'none'",
        "schema = 'none'",
        "pod_attributes = 'uid'",
        "health_listen = 0",
        "health_listen = 65536",
        "[plugins.opentelemetry]\nenabled = true\nfoo = 1",
        "poll_intervall = '1s'",
        "poll_interval = 5",
        "poll_interval = '5 parsecs'",
        "point_attributes = 'yes'",
        "point_attributes = 1",
        "log_level = 'loud'",
        "otlp_protocol = 'http/json'",
        "pod_source = 'nobody'",
        "pod_source = { files = 'x' }",
        "token_retrieval = { kubectl = { account = 'x' } }",
        "queue_bytes = 'many'",
        "k8s_node = 1",
        "[plugins.k8s]\npoll_intervall = '1s'",
        "[plugins.opentelemetry]\nhost = 'x'",
    ],
)
def test_what_it_refuses_the_program_refuses(line: str, refused: Refused) -> None:
    """A wrong key, a wrong type, a word that is none."""
    assert problems(line) != []
    assert refused(line)


def test_every_setting_has_a_shape() -> None:
    """None may be just anything: a new type needs its row in ``schema``."""
    properties = json_schema()["properties"]
    assert [key for key in rows() if not properties[key].keys() & {"type", "anyOf", "enum"}] == []
