"""The demo's table: live on a terminal, as plain text now and then elsewhere. The only module that needs ``rich``."""

from __future__ import annotations

import contextlib
import io
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from otel_k8s_cgroup.demo.views import LineWriter, View

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TextIO

    from otel_k8s_cgroup.demo.receiver import Point
    from otel_k8s_cgroup.demo.store import PodRow
    from otel_k8s_cgroup.demo.views import Progress
    from otel_k8s_cgroup.signals import StopFlag

_BAR_CELLS = 8
_SPARK_CELLS = 12
# A sparkline fills its height at the row's own maximum, but the noise of an idle pod stays low.
_SPARK_MIN_PERCENT = 5.0
# The exporter sends once a second: what is this old comes from a pod that has ended.
_STALE_SECONDS = 3.5
_EVENTS_SHOWN = 3
# Where there is no terminal to ask: wide enough for every column.
_PLAIN_WIDTH = 150
_PLAIN_EVERY_NS = 10 * 10**9


@dataclass(frozen=True, slots=True)
class Signs:
    """The characters of figures, by what the output can encode."""

    eighths: str
    """A cell of a bar, from empty to full: nine."""
    spark: str
    """A column of a sparkline, from low to high."""
    absent: str


UNICODE = Signs(" ▏▎▍▌▋▊▉█", "▁▂▃▄▅▆▇█", "–")
ASCII = Signs("    #####", "_.-=+*#", "-")


def signs_for(encoding: str | None) -> Signs:
    """What an output of this encoding can show."""
    return UNICODE if (encoding or "").lower().replace("-", "").startswith("utf") else ASCII


def bar(percent: float, signs: Signs) -> str:
    """One core used fully fills it; more does not show."""
    full, rest = divmod(round(min(percent, 100.0) / 100.0 * _BAR_CELLS * 8), 8)
    return (signs.eighths[8] * full + (signs.eighths[rest] if rest else "")).ljust(_BAR_CELLS)


def sparkline(history: Sequence[float], signs: Signs) -> str:
    """The last percentages, the newest on the right."""
    shown = history[-_SPARK_CELLS:]
    top = max(_SPARK_MIN_PERCENT, *shown) if shown else _SPARK_MIN_PERCENT
    steps = len(signs.spark) - 1
    return "".join(signs.spark[round(value / top * steps)] for value in shown).rjust(_SPARK_CELLS)


@dataclass(frozen=True, slots=True)
class _Cell:
    """What a column makes a row's cell of."""

    row: PodRow
    signs: Signs
    now_unix_nano: int

    def figure(self, value: float | None, form: str) -> Text:
        return Text(self.signs.absent if value is None else form.format(value))

    def mebibytes(self, number_of_bytes: int | None) -> Text:
        return self.figure(None if number_of_bytes is None else number_of_bytes / 2**20, "{:.1f} MiB")

    def cpu_time(self) -> Text:
        nanoseconds = self.row.cpu_time_ns
        return self.figure(None if nanoseconds is None else nanoseconds / 1e9, "{:.2f} s")

    def qos(self) -> Text:
        return Text(self.row.qos + (", static" if self.row.static else ""))

    def history(self) -> Text:
        shown = self.row.cpu_history[-_SPARK_CELLS:]
        peak = f"{max(shown):4.0f}" if shown else " " * 4
        return Text.assemble((sparkline(shown, self.signs), "cyan"), peak)

    def last_point(self) -> Text:
        seconds = self.seconds_since_last_point()
        return Text(f"{seconds:.1f} s ago", "yellow" if seconds > _STALE_SECONDS else "green")

    def seconds_since_last_point(self) -> float:
        return max(0, self.now_unix_nano - self.row.last_time_unix_nano) / 1e9


@dataclass(frozen=True, slots=True)
class _Column:
    header: str
    dropped: int
    """Where the terminal is too narrow, the column with the highest number goes first; 0 stays."""
    justify: Literal["left", "right"]
    text: Callable[[_Cell], Text]


_COLUMNS = (
    _Column("pod", 0, "left", lambda cell: Text(cell.row.label, "bold")),
    _Column("QoS", 2, "left", _Cell.qos),
    _Column("CPU %", 0, "right", lambda cell: cell.figure(cell.row.cpu_percent, "{:.1f}")),
    _Column("of a core", 4, "left", lambda cell: Text(bar(cell.row.cpu_percent or 0.0, cell.signs), "cyan")),
    _Column("history, peak", 1, "left", _Cell.history),
    _Column("CPU time", 5, "right", _Cell.cpu_time),
    _Column("memory", 0, "right", lambda cell: cell.mebibytes(cell.row.memory_bytes)),
    _Column("anonymous", 6, "right", lambda cell: cell.mebibytes(cell.row.anonymous_bytes)),
    _Column("points", 3, "right", lambda cell: Text(str(cell.row.points))),
    _Column("last point", 0, "right", _Cell.last_point),
)


def render(progress: Progress, console: Console, signs: Signs) -> Group:
    """The whole picture: what it is, a row a pod, what happened."""
    cells = [_Cell(row, signs, progress.now_unix_nano) for row in progress.rows]
    columns = list(_COLUMNS)
    unbounded = console.options.update_width(1000)
    for going in sorted((column for column in _COLUMNS if column.dropped), key=lambda column: -column.dropped):
        if Measurement.get(console, unbounded, _table(columns, cells)).maximum <= console.width:
            break
        columns.remove(going)
    pods = "1 pod" if len(cells) == 1 else f"{len(cells)} pods"
    head = Text.assemble(
        ("otel-k8s-cgroup demo", "bold"),
        f"  {progress.phase}  {progress.pod_points} points of {pods} + {progress.own_points} of the exporter",
        no_wrap=True,
        overflow="ellipsis",
    )
    where = Text(f"{progress.tree}   OTLP {progress.otlp_url}")
    events = [Text(event, "dim") for event in progress.events[-_EVENTS_SHOWN:]]
    return Group(head, where, _table(columns, cells), *events)


def _table(columns: Sequence[_Column], cells: Sequence[_Cell]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column.header, justify=column.justify, no_wrap=True, overflow="ellipsis")
    for cell in cells:
        ended = cell.seconds_since_last_point() > _STALE_SECONDS
        table.add_row(*(column.text(cell) for column in columns), style="dim" if ended else "")
    return table


class LiveTable:
    """Redraws the table in place, on a terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._signs = signs_for(console.encoding)
        self._live = Live(
            console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False, vertical_overflow="crop"
        )
        self._has_reason = False
        self._live.start()

    def received(self, points: Sequence[Point]) -> None:
        pass

    def show(self, progress: Progress) -> None:
        if progress.tree_reason is not None and not self._has_reason:
            self._has_reason = True
            self._console.print(Text(progress.tree_in_full))  # above the table
        self._live.update(render(progress, self._console, self._signs), refresh=True)

    def finish(self, progress: Progress, summary: Sequence[str]) -> None:
        self.show(progress)
        self._live.stop()
        for line in summary:
            self._console.print(Text(line))

    def close(self) -> None:
        with contextlib.suppress(OSError):  # the terminal is gone
            self._live.stop()


class PlainTable:
    """Writes the table as plain text every 10 s and at the end, without control codes."""

    def __init__(self, out: TextIO, stop: StopFlag) -> None:
        self._writer = LineWriter(out, stop)
        self._encoding = getattr(out, "encoding", None) or "utf-8"  # a StringIO has none
        self._signs = signs_for(self._encoding)
        self._width = shutil.get_terminal_size((_PLAIN_WIDTH, 0)).columns
        self._shown_unix_nano: int | None = None

    def received(self, points: Sequence[Point]) -> None:
        pass

    def show(self, progress: Progress) -> None:
        if self._shown_unix_nano is None:
            self._writer.write(f"otel-k8s-cgroup demo: {progress.tree_in_full}")
            self._shown_unix_nano = progress.now_unix_nano
        elif progress.rows and progress.now_unix_nano - self._shown_unix_nano >= _PLAIN_EVERY_NS:
            self._print(progress)

    def finish(self, progress: Progress, summary: Sequence[str]) -> None:
        self._print(progress)
        for line in summary:
            self._writer.write(line)

    def close(self) -> None:
        pass

    def _print(self, progress: Progress) -> None:
        self._shown_unix_nano = progress.now_unix_nano
        page = Console(
            file=io.TextIOWrapper(io.BytesIO(), self._encoding, "replace"), width=self._width, color_system=None
        )
        with page.capture() as capture:
            page.print(render(progress, page, self._signs))
        for line in capture.get().splitlines():
            self._writer.write(line.rstrip())


def table_view(out: TextIO, stop: StopFlag) -> View:
    """The view for where ``out`` leads."""
    console = Console(file=out)
    if console.is_terminal and not console.is_dumb_terminal:
        return LiveTable(console)
    return PlainTable(out, stop)
