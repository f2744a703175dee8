"""``config``: the settings in force, each with where it is from; no secret in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING

from otel_k8s_cgroup.settings.model import rows

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "s3cret-of-this-test"


def config(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "otel_k8s_cgroup", "config", *arguments],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_each_place_is_named(tmp_path: Path) -> None:
    """A flag, ours of the environment, the standard's, a file, a default that hangs on another setting."""
    file = tmp_path / "settings.toml"
    file.write_text("[plugins.k8s]\npoll_interval = '2s'\n")
    environment = {"OTEL_K8S_CGROUP_LOG_LEVEL": "error", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}
    result = config("--config", str(file), "--json", "--k8s-node", "n1", **environment)
    assert result.returncode == 0, result.stderr
    settings = json.loads(result.stdout)["settings"]
    assert list(settings) == list(rows())
    assert settings["k8s_node"] == {"value": "n1", "from": "flag --k8s-node"}
    assert settings["log_level"] == {"value": "error", "from": "environment OTEL_K8S_CGROUP_LOG_LEVEL"}
    assert settings["poll_interval"] == {"value": "2s", "from": f"file {file}, [plugins.k8s]"}
    assert settings["export_interval"] == {"value": "2s", "from": "default"}
    assert settings["otlp_endpoint"]["value"] == "http://collector:4318/v1/metrics"
    assert settings["otlp_endpoint"]["from"] == "environment OTEL_EXPORTER_OTLP_ENDPOINT"
    assert settings["otlp_protocol"] == {"value": "http/protobuf", "from": "default"}


def test_what_it_prints_is_a_configuration_file(tmp_path: Path) -> None:
    """TOML with the same values; where each is from stands behind it."""
    scraped_alone = ("--otlp-endpoint", "none", "--health-listen", "8081", "--scrape")
    result = config("--k8s-node", "n1", "--poll-interval", "90s", "--metric-prefix", "my.", *scraped_alone)
    assert 'otlp_endpoint = "none"' in result.stdout
    assert 'poll_interval = "1m30s"' in result.stdout
    assert "# flag --poll-interval" in result.stdout
    file = tmp_path / "printed.toml"
    file.write_text(result.stdout)
    again = config("--config", str(file))
    assert tomllib.loads(again.stdout) == tomllib.loads(result.stdout)


def test_no_secret_is_shown() -> None:
    """Values of headers, however short, and a key in a URL; a line with one in it is a comment, and says so."""
    environment = {
        "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer%20{SECRET},x=abc",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"https://collector:4318/?api_key={SECRET}",
    }
    for flags in ((), ("--json",)):
        result = config(*flags, **environment)
        assert result.returncode == 0, result.stderr
        assert SECRET not in result.stdout + result.stderr
        assert "abc" not in result.stdout
        assert "authorization" in result.stdout
    lines = [line for line in config(**environment).stdout.splitlines() if "***" in line]
    assert len(lines) == 2
    assert all(line.startswith("# otlp_") and line.endswith("a secret is hidden") for line in lines)


def test_a_token_in_the_place_of_its_files_path_is_not_shown() -> None:
    """As in the log."""
    result = config("--token-retrieval", f'{{ file = "{SECRET}" }}')
    assert SECRET not in result.stdout


def test_the_standards_variables_without_a_setting_are_shown() -> None:
    """They are in force too."""
    found = json.loads(config("--json", OTEL_SERVICE_NAME="mine", OTEL_RESOURCE_ATTRIBUTES="a=b").stdout)
    assert found["environment"] == {
        "OTEL_SDK_DISABLED": False,
        "OTEL_SERVICE_NAME": "mine",
        "OTEL_RESOURCE_ATTRIBUTES": {"a": "b"},
    }


def test_the_schema_of_the_file_and_the_setting_of_that_name() -> None:
    """``--schema`` alone asks for the one; with a value it sets the other."""
    assert set(rows()) < set(json.loads(config("--schema").stdout)["properties"])
    assert 'schema = ["alumet"]  ' in config("--schema", "alumet").stdout


def test_a_wrong_setting_is_exit_code_2() -> None:
    """As of every command."""
    result = config("--poll-interval", "5")
    assert (result.returncode, result.stdout) == (2, "")
    assert "poll_interval" in result.stderr
