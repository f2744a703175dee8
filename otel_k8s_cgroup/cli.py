"""The commands, and what they exit with: 0 done, 1 failed while running, 2 wrong usage or configuration."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
from datetime import timedelta
from typing import TYPE_CHECKING

from otel_k8s_cgroup import __version__
from otel_k8s_cgroup.errors import ExporterError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_k8s_cgroup.settings import Settings

_log = logging.getLogger("otel_k8s_cgroup")


class OneLine(logging.Formatter):
    """What others wrote (a pod's name, an answer) must not begin a line of its own or move a terminal's cursor."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if record.exc_info:
            return text  # a traceback, which only a defect of ours makes
        return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def _log_to_stderr(level: str) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(OneLine("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    _log.setLevel(level.upper())


def _settings(arguments: argparse.Namespace) -> Settings:
    # Here, as in each command: `--version` and `--help` should not wait for pydantic, `demo` not for gRPC.
    from otel_k8s_cgroup import settings  # noqa: PLC0415

    loaded = settings.load(flags=settings.flags_from(arguments), environ=os.environ, config_file=arguments.config)
    _log_to_stderr(loaded.log_level)
    return loaded


def _stop_on_signals() -> threading.Event:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    return stop


def _run(arguments: argparse.Namespace) -> int:
    stop = _stop_on_signals()
    settings = _settings(arguments)
    from otel_k8s_cgroup import agent  # noqa: PLC0415

    agent.run(settings, stop)
    return 0


def _snapshot(arguments: argparse.Namespace) -> int:
    settings = _settings(arguments)
    from otel_k8s_cgroup import agent, snapshot  # noqa: PLC0415

    cgroups = agent.open_cgroups(settings)
    _ = cgroups.hierarchy  # a root that is none is said at once
    watcher = agent.watch_pods(settings)
    watcher.start()
    try:
        if not watcher.synced.wait(arguments.wait):
            _log.error("no list of pods within %g s; the line above says why (--wait waits longer)", arguments.wait)
            return 1
        readings = snapshot.read_twice(cgroups, watcher.pods, agent.ReadErrors().figure)
    finally:
        watcher.stop(timeout_seconds=0.5)
    if not readings:
        _log.warning(
            "no pod of node %r has a cgroup below %s: is k8s_node the node's name in the cluster?",
            settings.k8s_node,
            settings.cgroup_root,
        )
    (snapshot.print_json if arguments.json else snapshot.print_table)(readings, sys.stdout)
    return 0


def _demo(arguments: argparse.Namespace) -> int:
    from otel_k8s_cgroup.demo import run_demo  # noqa: PLC0415

    return run_demo(duration_seconds=arguments.duration, as_json=arguments.json, out=sys.stdout)


def _seconds(text: str) -> float:
    from otel_k8s_cgroup.settings.values import duration  # noqa: PLC0415

    try:
        return duration(timedelta(milliseconds=100), timedelta(days=1))(text).total_seconds()
    except ValueError as allowed:
        raise argparse.ArgumentTypeError(f"{text!r}: allowed is {allowed}") from None


def build_parser(command: str | None) -> argparse.ArgumentParser:
    """All commands; the settings become flags of ``command`` only, since they take a while to import."""
    parser = argparse.ArgumentParser(
        prog="otel-k8s-cgroup",
        description="Ships each pod's CPU and memory from the kernel's cgroups to any OpenTelemetry backend.",
    )
    parser.add_argument("--version", action="version", version=f"otel-k8s-cgroup {__version__}")
    commands = parser.add_subparsers(title="commands", dest="command", required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="the exporter", description="Runs the exporter until SIGTERM or Ctrl-C.")
    run.set_defaults(do=_run)

    demo = commands.add_parser(
        "demo",
        help="the whole pipeline on this machine, with no cluster",
        description="Runs the whole pipeline on this machine: an API server, pods, the exporter, an OTLP receiver.",
    )
    demo.add_argument("--duration", type=_seconds, default="30s", metavar="30s", help="how long (default: 30s)")
    demo.add_argument("--json", action="store_true", help="one JSON object a received point instead of the table")
    demo.set_defaults(do=_demo)

    snapshot = commands.add_parser(
        "snapshot",
        help="one reading of every pod on this node",
        description="Reads every pod on this node once (CPU %% over one second) and prints it.",
    )
    snapshot.add_argument("--json", action="store_true", help="JSON instead of the table")
    snapshot.add_argument(
        "--wait", type=_seconds, default="10s", metavar="10s", help="for the list of pods (default: 10s)"
    )
    snapshot.set_defaults(do=_snapshot)

    for with_settings in (run, snapshot):
        with_settings.add_argument("--config", metavar="FILE", help="configuration file (TOML)")
        if command == with_settings.prog.split()[-1]:
            from otel_k8s_cgroup.settings import add_flags  # noqa: PLC0415

            add_flags(with_settings)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    arguments_given = sys.argv[1:] if argv is None else list(argv)
    command = next((word for word in arguments_given if not word.startswith("-")), None)
    arguments = build_parser(command).parse_args(arguments_given)
    _log_to_stderr("info")
    try:
        return int(arguments.do(arguments))
    except SettingsError as error:
        print(f"otel-k8s-cgroup: {error}", file=sys.stderr)  # noqa: T201 the command's own words to its user
        return 2
    except ExporterError as error:
        _log.error("%s", error)
        return 1
    except KeyboardInterrupt:
        return 130
