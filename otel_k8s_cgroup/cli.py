"""The commands, and what they exit with: 0 done, 1 failed while running, 2 wrong usage or configuration."""

from __future__ import annotations

import argparse
import difflib
import logging
import os
import sys
import time
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from otel_k8s_cgroup import __version__, signals
from otel_k8s_cgroup.errors import ExporterError, SettingsError
from otel_k8s_cgroup.forked import in_own_process
from otel_k8s_cgroup.logs import KeptWarnings, LineWriter, Logs, open_standard_streams
from otel_k8s_cgroup.redaction import Redactor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from otel_k8s_cgroup.check import Bench
    from otel_k8s_cgroup.model import RunSettings

_log = logging.getLogger("otel_k8s_cgroup")

# What the last lines of the log may take to be written, of the 5 s within which SIGTERM must have ended it.
_FLUSH_SECONDS = 0.5
_WAIT_SECONDS = 3600.0
_CHECK_AGAIN_SECONDS = 2.0
_JSON_SCHEMA = object()
"""What ``config --schema`` without a value asks for."""


class _UsageError(ExporterError):
    """The command line cannot be used; the message says why."""


def _settings(arguments: argparse.Namespace) -> RunSettings:
    # Here, as in each command: `--version` and `--help` should not wait for pydantic, `demo` not for gRPC.
    from otel_k8s_cgroup import settings

    return settings.load(flags=settings.flags_from(arguments), environ=os.environ, config_file=arguments.config).plain()


def _apply(settings: RunSettings, logs: Logs) -> None:
    logs.redact.add_headers(settings.otlp.headers)
    logs.redact.add_url(settings.otlp.endpoint)
    logs.redact.add(settings.k8s_access.token or "")
    logs.redact.add_unless_path(settings.token_retrieval.file)
    logs.begin(settings.log_level)


def _run(argv: Sequence[str], stop: signals.StopSignals, logs: Logs) -> int:
    # pydantic takes 11 MB, which the exporter would keep for good.
    settings: RunSettings | None = in_own_process(
        lambda: _read_settings(argv, logs), stop, lambda: logs.writer.flush(_FLUSH_SECONDS)
    )
    if settings is None or stop(0):  # it has been ended before it began, and there is nothing to send
        return 0
    _apply(settings, logs)
    if settings.sdk_disabled:
        # Not the end of the process: a DaemonSet would start it again and again.
        _log.warning("OTEL_SDK_DISABLED is true: nothing is measured or sent until the exporter is started without it")
        from otel_k8s_cgroup.health import serving

        with serving(settings.health_listen, None):
            while not stop(_WAIT_SECONDS):
                pass
        return 0
    from otel_k8s_cgroup.run import run

    if not stop(0):
        run(settings, stop, hide_token=logs.redact.add_token, dropped_log_lines=lambda: logs.writer.dropped)
    return 0


def _read_settings(argv: Sequence[str], logs: Logs) -> tuple[int, RunSettings | None]:
    read: list[RunSettings] = []

    def do() -> int:
        read.append(_settings(_parsed("run", argv)))
        return 0

    return _exit_code(do, logs), read[0] if read else None


def _snapshot(arguments: argparse.Namespace, logs: Logs) -> int:
    settings = _settings(arguments)
    _apply(settings, logs)
    from otel_k8s_cgroup import snapshot, sources
    from otel_k8s_cgroup.coverage import no_cgroups
    from otel_k8s_cgroup.readings import ReadErrors
    from otel_k8s_cgroup.schemas import ALUMET

    metrics = dict.fromkeys((*ALUMET, *sources.metrics_of(settings)))
    cgroups = sources.open_cgroups(settings, metrics)
    _ = cgroups.hierarchy  # a root that is none is said at once
    watcher = sources.watch_pods(settings, logs.redact.add_token)
    watcher.start()
    try:
        if not watcher.synced.wait(arguments.wait):
            source = settings.pod_source
            where = {"api": settings.k8s_api_url, "kubelet": settings.kubelet_url}.get(source.method, source.file)
            why = snapshot.why_no_list(str(where), waited_seconds=arguments.wait, failure=watcher.list_failure)
            _log.error("%s", why)
            return 1
        pods, left_out = watcher.pods, len(watcher.left_out.pods)
        readings = snapshot.read_twice(cgroups, pods, ReadErrors().figure)
    finally:
        watcher.stop(timeout_seconds=0.5)
    if not readings:
        running = [pod for pod in pods if not pod.finished]
        if running:
            lists = sources.LISTED_BY[settings.pod_source.method]
            _log.error("%s", no_cgroups(len(running), len(cgroups.found), lists, settings.cgroup_root))
        else:
            has = f"only pods that have finished ({len(pods)})" if pods else "no pods"
            if left_out:
                has += f", but for {left_out} that the settings leave out"
            elif settings.choice.pod_selector:
                has += f" of pod_selector {settings.choice.pod_selector!r}"
            _log.error("nothing to show: node %r (k8s_node) has %s", settings.k8s_node, has)
        return 1
    if arguments.json:
        snapshot.print_json(readings, metrics, sys.stdout)
    else:
        snapshot.print_table(readings, sys.stdout)
    return 0


def _config(arguments: argparse.Namespace, logs: Logs) -> int:
    from otel_k8s_cgroup import config, settings

    if arguments.schema is _JSON_SCHEMA:
        config.print_schema(sys.stdout)
        return 0
    found = settings.load(flags=settings.flags_from(arguments), environ=os.environ, config_file=arguments.config)
    _apply(found.plain(), logs)
    write = config.print_json if arguments.json else config.print_toml
    write(config.entries(found, logs.redact), config.standard(found, logs.redact), sys.stdout)
    return 0


def _check(arguments: argparse.Namespace, logs: Logs) -> int:
    from otel_k8s_cgroup import check

    deadline = time.monotonic() + arguments.wait
    open_bench, are_settings_wrong = _open_bench(arguments, logs)
    while True:
        bench = open_bench()
        try:
            results = check.run_checks(bench)
        finally:
            bench.close()
        failed = any(result.status is check.Status.FAILED for result in results)
        # Settings are read once, as `run` does: to wait makes none of them right.
        if not failed or are_settings_wrong or time.monotonic() >= deadline:
            break
        time.sleep(min(_CHECK_AGAIN_SECONDS, max(0.0, deadline - time.monotonic())))
    (check.print_json if arguments.json else check.print_text)(results, logs.redact, sys.stdout)
    return 1 if failed else 0


def _open_bench(arguments: argparse.Namespace, logs: Logs) -> tuple[Callable[[], Bench], bool]:
    """What opens a bench for each round; and whether the settings are wrong."""
    from otel_k8s_cgroup import check, settings

    warnings = KeptWarnings()
    with warnings.of("otel_k8s_cgroup"):
        try:
            found = settings.load(
                flags=settings.flags_from(arguments),
                environ=os.environ,
                config_file=arguments.config,
                before_install=arguments.pre,
            )
        except SettingsError as error:
            problem = str(error)
            return lambda: check.Bench(None, origins={}, problem=problem, before_install=arguments.pre), True
    plain = found.plain()
    _apply(plain, logs)
    # What it would say on standard error is in the report.
    logging.getLogger("otel_k8s_cgroup").setLevel(logging.CRITICAL)
    bench = partial(
        check.Bench,
        plain,
        origins=found.sources,
        absent=found.absent,
        warnings=warnings.lines,
        hide_token=logs.redact.add_token,
        before_install=arguments.pre,
    )
    return bench, False


def _demo(arguments: argparse.Namespace, _logs: Logs) -> int:
    from otel_k8s_cgroup.demo import run_demo

    return run_demo(duration_seconds=arguments.duration, as_json=arguments.json, out=sys.stdout)


def _seconds(text: str) -> float:
    from otel_k8s_cgroup.settings.values import duration

    try:
        return duration(timedelta(milliseconds=100), timedelta(days=1))(text).total_seconds()
    except ValueError as allowed:
        raise argparse.ArgumentTypeError(f"{text!r}: allowed is {allowed}") from None


class _Parser(argparse.ArgumentParser):
    """Takes flags by their whole names only; what it refuses it raises."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs | {"allow_abbrev": False})

    def error(self, message: str) -> NoReturn:
        """Raises: who caught it knows where to say it."""
        raise _UsageError(f"{self.format_usage()}{self.prog}: error: {message}")

    def flags(self) -> list[str]:
        """All that this command takes."""
        return [name for name in self._option_string_actions if name.startswith("--")]


def build_parser(command: str | None) -> _Parser:
    """All commands; the settings become flags of ``command`` only, since they take a while to import."""
    parser = _Parser(
        prog="otel-k8s-cgroup",
        description="Ships each pod's CPU and memory from the kernel's cgroups to any OpenTelemetry backend.",
    )
    parser.add_argument("--version", action="version", version=f"otel-k8s-cgroup {__version__}")
    commands = parser.add_subparsers(title="commands", dest="command", required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="the exporter", description="Runs the exporter until SIGTERM or Ctrl-C.")

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
        description="Reads every pod on this node once (CPU % over one second), with --containers and --node-totals "
        "those too, and prints it; --json has the --metrics that are asked for.",
    )
    snapshot.add_argument("--json", action="store_true", help="JSON instead of the table")
    snapshot.add_argument(
        "--wait", type=_seconds, default="10s", metavar="10s", help="for the list of pods (default: 10s)"
    )
    snapshot.set_defaults(do=_snapshot)

    check = commands.add_parser(
        "check",
        help="what is wrong, and how to mend it",
        description="Tests everything that `run` needs, in the same way that `run` uses it. For each failure it shows "
        "the cause and the fix.",
    )
    check.add_argument("--json", action="store_true", help="JSON instead of the table")
    check.add_argument(
        "--pre", action="store_true", help="before you install, on a machine outside the cluster, with your kubeconfig"
    )
    check.add_argument(
        "--wait", type=_seconds, default=0.0, metavar="1m", help="repeat until nothing fails, for at most so long"
    )
    check.set_defaults(do=_check)

    config = commands.add_parser(
        "config",
        help="the settings in force",
        description="Prints the settings in force and where each is from, as the configuration file has them.",
    )
    config.add_argument("--json", action="store_true", help="JSON instead of TOML")
    # `schema` is also a setting: the flag alone is the command's, with a value it is the setting's.
    config.add_argument_group("the file's form", "--schema alone prints the JSON schema of the configuration file")
    config.set_defaults(do=_config)

    for with_settings in (run, snapshot, check, config):
        with_settings.add_argument("--config", metavar="FILE", help="configuration file (TOML)")
        if command == with_settings.prog.split()[-1]:
            from otel_k8s_cgroup.settings import add_flags

            add_flags(with_settings, bare={"schema": _JSON_SCHEMA} if with_settings is config else {})
    for each in (run, demo, snapshot, check, config):
        each.set_defaults(parser=each)
    return parser


def _parsed(command: str | None, argv: Sequence[str]) -> argparse.Namespace:
    parser = build_parser(command)
    found, unknown = parser.parse_known_args(argv)
    if unknown:
        raise _UsageError(f"{found.parser.prog}: {'; '.join(_refusals(unknown, found.parser.flags()))}")
    return found


def _refusals(unknown: Sequence[str], known: Sequence[str]) -> Iterator[str]:
    """A part of a sentence for each word of ``unknown``."""
    before = ""
    for word in unknown:
        if word.startswith("-"):
            flag = word.partition("=")[0]
            nearest = [name for name in known if name.startswith(flag)] or difflib.get_close_matches(flag, known, n=1)
            yield f"unknown flag {flag}" + (f"; is {' or '.join(nearest)} meant?" if nearest else "")
        elif not before.startswith("-"):
            # Not the word itself: it may be the second half of a header that was not quoted.
            yield "a word that belongs to no flag: put a value that has spaces in quotes"
        before = word


def _exit_code(do: Callable[[], int], logs: Logs) -> int:
    """What ``do`` returns; an error is said, and is the code that belongs to it."""
    try:
        return do()
    except SettingsError as error:
        logs.write(f"otel-k8s-cgroup: {error}")
        return 2
    except _UsageError as error:
        logs.write(str(error))
        return 2
    except ExporterError as error:
        _log.error("%s", error)
        return 1
    except BrokenPipeError:
        # Who reads has read enough (`snapshot | head`). Python itself would complain again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except Exception:  # noqa: BLE001 to log it where all else is logged
        _log.exception("the exporter has a defect, and ends")
        return 1


def main(argv: Sequence[str] | None = None, stop: signals.StopSignals | None = None) -> int:
    """Runs one command and returns its exit code. ``stop``: as it was made when the process began."""
    open_standard_streams()
    logs = Logs(Redactor(), LineWriter())
    logs.redact.add_environ(os.environ)
    logs.begin()
    given = sys.argv[1:] if argv is None else list(argv)
    command = next((word for word in given if not word.startswith("-")), None)
    try:
        if command == "run":
            stop = stop or signals.StopSignals()
            return _exit_code(lambda: _run(given, stop, logs), logs)
        if stop is not None:
            signals.exit_at_once()
            if stop(0):
                return 0  # it has been ended before it began
        return _exit_code(lambda: _other(command, given, logs), logs)
    finally:
        logs.writer.flush(_FLUSH_SECONDS)


def _other(command: str | None, argv: Sequence[str], logs: Logs) -> int:
    arguments = _parsed(command, argv)
    code: int = arguments.do(arguments, logs)
    sys.stdout.flush()
    return code
