"""Values back into what one writes: read again, each is the same."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING

import pytest

from otel_k8s_cgroup.settings import load
from otel_k8s_cgroup.settings.written import as_written, toml

from .test_order import SAMPLES, needed_by

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("key", SAMPLES)
def test_what_is_written_is_read_as_the_same(key: str, tmp_path: Path, pem: str) -> None:
    """Of every setting."""
    for sample in SAMPLES[key]:
        text = pem if sample == "PEM" else sample
        needed = needed_by(key, pem)
        value = load(flags={key: text, **needed}, environ={}, config_file=None).value(key)
        file = tmp_path / "written.toml"
        file.write_text(f"{key} = {toml(as_written(value))}\n")
        assert load(flags=needed, environ={}, config_file=str(file)).value(key) == value


def test_toml_of_hostile_text() -> None:
    """Quotes, control characters, variables and what is no text come back as they were, on one line."""
    hostile = 'a"b\\c\x1b[2J\n\x7f${X}\x9b€😀'
    line = toml({"odd key": [hostile, True, 5], "k": {}})
    assert line.isprintable()
    parsed = tomllib.loads(f"x = {line.replace(chr(92) + '${', '${')}")["x"]
    assert parsed == {"odd key": [hostile, True, 5], "k": {}}
    assert tomllib.loads(f"x = {toml(chr(0xDC80))}") == {"x": "\ufffd"}
