"""Every setting has a flag, made from the model's rows."""

from __future__ import annotations

import argparse

import pytest

from otel_k8s_cgroup.settings import add_flags, flags_from, load

from .test_order import SAMPLES


@pytest.fixture
def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--config")
    add_flags(parser)
    return parser


def test_every_key_has_a_flag(parser: argparse.ArgumentParser) -> None:
    """What is written behind it is what `load` gets; other arguments are none of its business."""
    written = {key: texts[0] for key, texts in SAMPLES.items()}
    arguments = [part for key, text in written.items() for part in (f"--{key.replace('_', '-')}", text)]
    assert flags_from(parser.parse_args(["--config", "x", *arguments])) == written


def test_flags_not_given_say_nothing(parser: argparse.ArgumentParser) -> None:
    """So that environment and file can."""
    assert flags_from(parser.parse_args([])) == {}
    assert flags_from(argparse.Namespace()) == {}


def test_a_booleans_flag_alone_means_true(parser: argparse.ArgumentParser) -> None:
    """And with a word it means that word."""
    flags = flags_from(parser.parse_args(["--otlp-insecure", "--point-attributes", "false"]))
    settings = load(flags=flags, environ={}, config_file=None, hostname=lambda: "host")
    assert (settings.otlp_insecure, settings.point_attributes) == (True, False)


def test_a_table_is_written_inline(parser: argparse.ArgumentParser) -> None:
    """As it would stand in the file."""
    flags = flags_from(
        parser.parse_args(["--token-retrieval", '{ file = "/t" }', "--pod-source", '{ file = "p.json" }'])
    )
    settings = load(flags=flags, environ={}, config_file=None, hostname=lambda: "host")
    assert (settings.token_retrieval.file, settings.pod_source.file) == ("/t", "p.json")


def test_help_tells_every_default(parser: argparse.ArgumentParser) -> None:
    """Each flag's help ends with it."""
    text = " ".join(parser.format_help().split())
    assert text.count("(default: ") == len(SAMPLES)
    assert "--poll-interval VALUE time between two readings, such as 500ms or 1m30s (default: 5s)" in text
