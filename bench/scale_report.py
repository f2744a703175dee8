"""The result of ``bench.scale`` for people: which figures are measured, and which simulated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The first column to the left, the others to the right."""
    lines = [list(heads), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip() + "\n" for line in lines
    )


def text(result: dict[str, Any]) -> str:
    """The result for people."""
    assumed, of = result["assumed"], result["measured"]
    api, kubelet, spread, sent = (result["simulated"][key] for key in ("api", "kubelet", "jitter", "collectors"))
    messages = _table(
        ["message", "from the agent", "to the agent"],
        [
            [verb, _size(each["from_agent_bytes"]), _size(each["to_agent_bytes"])]
            for verb, each in of["messages"].items()
        ],
    )
    load = _table(
        ["", "requests/s", "peak", "bytes/s", "peak", "429s", "all listed after"],
        [
            [
                name,
                f"{row['requests_a_second']:.4g}",
                f"{row['peak_requests_a_second']:.0f}",
                _size(row["bytes_a_second"]),
                _size(row["peak_bytes_a_second"]),
                f"{row['refused']}" if "refused" in row else "",
                f"{row['all_listed_after_seconds']:.1f} s" if "refused" in row else "",
            ]
            for name, row in api.items()
        ],
    )
    spreading = _table(
        ["", "start: lists in 100 ms", "429s", "all after", "10 s outage: lists/s", "429s", "all after"],
        [
            [
                row["spread"],
                f"{row['start_peak_lists_in_100_ms']}",
                f"{row['start_refused']}",
                f"{row['start_all_listed_after_seconds']:.1f} s",
                f"{row['outage_peak_lists_a_second']}",
                f"{row['outage_refused']}",
                f"{row['outage_all_listed_after_seconds']:.1f} s",
            ]
            for row in spread
        ],
    )
    exports = _table(
        ["point_attributes, compression", "bytes a request", "a point", "points/s", "bytes/s", "requests/s", "peak"],
        [
            [
                f"{str(row['point_attributes']).lower()}, {row['compression']}",
                _size(row["wire_bytes"]),
                f"{row['bytes_a_point']:.3g} B",
                f"{row['points_a_second']:,.0f}",
                _size(row["bytes_a_second"]),
                f"{row['requests_a_second']:.0f}",
                f"{row['peak_requests_a_second']:.0f}",
            ]
            for row in sent
        ],
    )
    return (
        f"{assumed['nodes']} nodes of {assumed['pods']} pods, {assumed['api_servers']} API servers; "
        f"exporter {result['on']['exporter']}, Python {result['on']['python']}\n\n"
        f"MEASURED, one node (a pod's JSON is {_size(of['pod_bytes'])}; a list takes {of['parse_a_list_ms']:.1f} ms of "
        f"CPU to parse)\n{messages}\n"
        f'SIMULATED, load on the API servers, pod_source = "api"\n{load}\n'
        f'COMPUTED, pod_source = "kubelet": {kubelet["api_requests_a_second"]:.0f} requests/s at the API servers '
        f"(TokenReviews and SubjectAccessReviews of the kubelets),\nno list and no watch; on each node "
        f"{_size(kubelet['bytes_a_second_on_each_node'])}/s from its kubelet, "
        f"{kubelet['parsing_percent_of_a_core']:.2g} % of a core to parse it\n\n"
        f"SIMULATED, what spreading is worth: all agents start in one moment; all streams break in one moment\n"
        f"{spreading}\n"
        f"MEASURED sizes × nodes, towards the collectors, a reading every {assumed['poll_seconds']:g} s; "
        f"peak: all agents tick in the same second\n{exports}"
    )
