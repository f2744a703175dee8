"""The commands, and what they exit with: 0 done, 1 failed while running, 2 wrong usage or configuration."""

from __future__ import annotations

import argparse
import logging
import os
import pickle
import signal
import sys
from datetime import timedelta
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from otel_k8s_cgroup import __version__
from otel_k8s_cgroup.errors import ExporterError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otel_k8s_cgroup.model import RunSettings

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
    # It warns of headers that it cannot parse, with a traceback. What comes of such an answer we say ourselves.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    _log.setLevel(level.upper())


def _settings(arguments: argparse.Namespace) -> RunSettings:
    # Here, as in each command: `--version` and `--help` should not wait for pydantic, `demo` not for gRPC.
    from otel_k8s_cgroup import settings  # noqa: PLC0415

    return settings.load(flags=settings.flags_from(arguments), environ=os.environ, config_file=arguments.config).plain()


class StopSignals:
    """SIGTERM and SIGINT, from its creation on: waits for one.

    Not an Event: the handler runs in the thread that waits, wherever that is, and would wait for ever for the lock that
    the Event's own wait() holds at times. A SimpleQueue may be interrupted by itself.
    """

    def __init__(self) -> None:
        self._came: SimpleQueue[int] = SimpleQueue()
        self._has_come = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, _frame: self._came.put(number))

    def __call__(self, seconds: float) -> bool:
        """Whether one has come, after so many seconds at most."""
        if not self._has_come:
            try:
                self._came.get(timeout=seconds)
            except Empty:
                return False
            self._has_come = True
        return True


def _settings_apart(argv: Sequence[str]) -> RunSettings:
    """``run``'s settings, read in a process of its own: pydantic takes 11 MB, which the exporter would keep for good.

    Raises:
        SystemExit: that process has ended otherwise (``--help``, a setting that cannot be used), and said why.
    """
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(receiving)
            code = _exit_code(lambda: _send(_settings(_parsed("run", argv)), sending))
        except SystemExit as error:  # argparse's
            code = error.code if isinstance(error.code, int) else 1
        except BrokenPipeError:
            pass  # the exporter was killed meanwhile, and its end says enough
        except Exception:  # noqa: BLE001 a defect of ours; this process must not go on as the other one
            _log.exception("the settings could not be read")
        finally:
            sys.stdout.flush()
            os._exit(code)
    os.close(sending)
    with os.fdopen(receiving, "rb") as pipe:
        sent = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code != 0 or not sent:
        raise SystemExit(code)
    settings: RunSettings = pickle.loads(sent)  # noqa: S301 our own child's
    return settings


def _send(settings: RunSettings, descriptor: int) -> int:
    with os.fdopen(descriptor, "wb") as pipe:
        pickle.dump(settings, pipe)
    return 0


def _run(argv: Sequence[str]) -> int:
    # Before all that takes a while to import: who ends a pod that has hardly begun should not wait for it.
    stop = StopSignals()
    settings = _settings_apart(argv)
    _log_to_stderr(settings.log_level)
    from otel_k8s_cgroup import agent  # noqa: PLC0415

    if not stop(0):  # else it has been ended before it began, and there is nothing to send
        agent.run(settings, stop)
    return 0


def _snapshot(arguments: argparse.Namespace) -> int:
    settings = _settings(arguments)
    _log_to_stderr(settings.log_level)
    from otel_k8s_cgroup import agent, snapshot  # noqa: PLC0415
    from otel_k8s_cgroup.coverage import no_cgroups  # noqa: PLC0415

    cgroups = agent.open_cgroups(settings)
    _ = cgroups.hierarchy  # a root that is none is said at once
    watcher = agent.watch_pods(settings)
    watcher.start()
    try:
        if not watcher.synced.wait(arguments.wait):
            source = settings.pod_source
            where = {"api": settings.k8s_api_url, "kubelet": settings.kubelet_url}.get(source.method, source.file)
            why = snapshot.why_no_list(str(where), waited_seconds=arguments.wait, failures=watcher.list_failures)
            _log.error("%s", why)
            return 1
        pods = watcher.pods
        readings = snapshot.read_twice(cgroups, pods, agent.ReadErrors().figure)
    finally:
        watcher.stop(timeout_seconds=0.5)
    if not readings:
        if pods:
            lists = agent.SOURCES[settings.pod_source.method]
            _log.error("%s", no_cgroups(len(pods), len(cgroups.found), lists, settings.cgroup_root))
        else:
            _log.error("nothing to show: node %r (k8s_node) has no pods", settings.k8s_node)
        return 1
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


def _parsed(command: str | None, argv: Sequence[str]) -> argparse.Namespace:
    return build_parser(command).parse_args(argv)


def _exit_code(do: Callable[[], int]) -> int:
    """What ``do`` returns; an error of ours is said, and is the code that belongs to it."""
    try:
        return do()
    except SettingsError as error:
        print(f"otel-k8s-cgroup: {error}", file=sys.stderr)  # noqa: T201 the command's own words to its user
        return 2
    except ExporterError as error:
        _log.error("%s", error)
        return 1
    except KeyboardInterrupt:
        return 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    given = sys.argv[1:] if argv is None else list(argv)
    command = next((word for word in given if not word.startswith("-")), None)
    _log_to_stderr("info")
    if command == "run":
        return _exit_code(lambda: _run(given))
    arguments = _parsed(command, given)
    return _exit_code(lambda: int(arguments.do(arguments)))
