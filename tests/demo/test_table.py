"""What the table shows, and that it fits where it is shown."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from otel_k8s_cgroup.demo.store import PodRow
from otel_k8s_cgroup.demo.table import ASCII, UNICODE, LiveTable, PlainTable, bar, render, signs_for, sparkline
from otel_k8s_cgroup.demo.views import Progress
from otel_k8s_cgroup.signals import StopFlag

NOW = 1_800_000_000 * 10**9
REASON = "no cgroups are mounted here"

ROW = PodRow(
    uid="u",
    label="shop/checkout-7d4b9c6f5d-x2x8k",
    qos="Burstable",
    static=True,
    cpu_percent=25.04,
    cpu_history=(0.0, 50.0, 25.04),
    cpu_time_ns=1_234_000_000,
    memory_bytes=3 * 2**20,
    anonymous_bytes=None,
    points=81,
    last_time_unix_nano=NOW - 400_000_000,
)


def _progress(*rows: PodRow, now: int = NOW) -> Progress:
    events = tuple(f"{n} s: event {n}" for n in range(5))
    return Progress("SIMULATED cgroups", REASON, "http://127.0.0.1:1", "3 s of 9 s", 81, 40, rows, events, now)


def _rendered(width: int, *rows: PodRow) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    with console.capture() as capture:
        console.print(render(_progress(*rows), console, UNICODE))
    return capture.get().splitlines()


def test_a_row_tells_every_figure() -> None:
    """Every figure, what is absent as a dash; in the head where it all comes from."""
    text = "\n".join(_rendered(200, ROW))
    for shown in (
        "shop/checkout-7d4b9c6f5d-x2x8k",
        "Burstable, static",
        "25.0",
        "1.23 s",
        "3.0 MiB",
        "–",
        "81",
        "0.4 s",
    ):
        assert shown in text
    for shown in ("██ ", "▁█▅", "SIMULATED cgroups", "3 s of 9 s", "http://127.0.0.1:1"):
        assert shown in text


def test_the_head_counts_the_points_of_pods_apart_from_the_exporters_own() -> None:
    """What the exporter sends about itself is no point of a pod."""
    assert "81 points of 1 pod + 40 of the exporter" in _rendered(80, ROW)[0]


def test_no_column_has_the_name_of_another_figure() -> None:
    """AGE in kubectl is the pod's; here it is how long ago the last point was read."""
    (header,) = (line for line in _rendered(200, ROW) if "CPU %" in line)
    assert "last point" in header
    assert "age" not in header.split()
    assert "0.4 s ago" in "\n".join(_rendered(200, ROW))


def test_a_sparkline_shows_what_its_full_height_is() -> None:
    """Each row has a scale of its own: its peak stands beside it."""
    (header,) = (line for line in _rendered(200, ROW) if "CPU %" in line)
    (row,) = (line for line in _rendered(200, ROW) if ROW.label in line)
    assert "history, peak" in header
    assert "▁█▅  50" in row


def test_why_it_is_simulated_is_not_in_every_frame() -> None:
    """The reason is long, and is shown once."""
    assert REASON not in "\n".join(_rendered(200, ROW))


def test_on_a_terminal_the_reason_is_shown_once() -> None:
    """Above the table that is redrawn."""
    console = Console(file=io.StringIO(), width=100, force_terminal=True)
    view = LiveTable(console)
    with console.capture() as capture:
        view.show(_progress(ROW))
        view.show(_progress(ROW))
        view.finish(_progress(ROW), [])
    assert capture.get().count(REASON) == 1


def test_only_the_latest_events_are_shown() -> None:
    """A short terminal keeps its table."""
    text = "\n".join(_rendered(200, ROW))
    assert "event 4" in text
    assert "event 1" not in text


def test_the_history_fits_on_80_columns() -> None:
    """The width of most terminals that nobody has resized."""
    assert "▁█▅" in "\n".join(_rendered(80, ROW))


@pytest.mark.parametrize("width", [70, 80, 100, 120, 150])
def test_it_fits_by_leaving_columns_out(width: int) -> None:
    """No cell is cut at usual widths: the least important columns go, and pod, CPU %, memory and last point stay."""
    lines = _rendered(width, ROW)
    assert max(map(len, lines)) <= width
    (row,) = (line for line in lines if line.lstrip().startswith("shop/"))
    assert "…" not in row
    for shown in (ROW.label, "25.0", "3.0 MiB", "0.4 s"):
        assert shown in row


@pytest.mark.parametrize(
    ("percent", "drawn"),
    [(0.0, "        "), (50.0, "████    "), (100.0, "████████"), (640.0, "████████"), (6.25, "▌       ")],
)
def test_bar_is_a_share_of_one_core(percent: float, drawn: str) -> None:
    """Full at one core, and never longer."""
    assert bar(percent, UNICODE) == drawn


def test_sparkline_scales_to_its_row_but_not_noise() -> None:
    """The row's maximum is its height; an idle pod's noise stays at the bottom; no history is blank."""
    assert sparkline([10.0, 80.0, 40.0], UNICODE).lstrip() == "▂█▅"
    assert set(sparkline([0.01, 0.2, 0.1], UNICODE).lstrip()) == {"▁"}
    assert sparkline([], UNICODE).strip() == ""
    assert len(sparkline([1.0] * 50, UNICODE)) == len(sparkline([], UNICODE))


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_plain_output_can_be_encoded(encoding: str) -> None:
    """A locale without these characters gets others, not an error."""
    assert signs_for(encoding) is ASCII
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding)
    view = PlainTable(out, StopFlag())
    view.show(_progress(ROW))
    view.finish(_progress(ROW), ["done"])
    assert b"#" in raw.getvalue()
    assert b"?" not in raw.getvalue()


def test_plain_output_has_no_control_codes_and_comes_now_and_then() -> None:
    """At once one line of what it is, the table every 10 s and at the end."""
    out = io.StringIO()
    view = PlainTable(out, StopFlag())
    view.show(_progress(ROW))
    assert out.getvalue().splitlines() == [f"otel-k8s-cgroup demo: SIMULATED cgroups: {REASON}"]
    view.show(_progress(ROW, now=NOW + 5 * 10**9))
    assert len(out.getvalue().splitlines()) == 1
    view.show(_progress(ROW, now=NOW + 10 * 10**9))
    assert out.getvalue().count(ROW.label) == 1
    view.finish(_progress(ROW, now=NOW + 11 * 10**9), ["the end"])
    assert out.getvalue().count(ROW.label) == 2
    assert out.getvalue().splitlines()[-1] == "the end"
    assert "\x1b" not in out.getvalue()
