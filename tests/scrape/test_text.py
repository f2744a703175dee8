"""The text that is scraped, from the kernel's files on: what OTLP has, in Prometheus' names, as its parsers read it.

``python -m tests.scrape.test_text`` writes the texts that are kept in tests/fixtures/ anew; look at the difference.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_k8s_cgroup.metrics import Instrument, Rows, columns_of
from otel_k8s_cgroup.model import Description, Entity, EntityKind, Origin, Reading, Schema
from otel_k8s_cgroup.schemas import figures_of, select
from otel_k8s_cgroup.scrape import Latest, Pods, exposition
from otel_k8s_cgroup.scrape.names import labels_of, name_of
from tests.scrape.scraping import OPENMETRICS, PROMETHEUS, families_of, samples_of, scraped
from tests.test_schemas import CONTAINER, GROUPS, SCHEMAS, all_of, sent

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from otel_k8s_cgroup.metrics import Metric, Row
    from tests.otlp import Point
    from tests.scrape.scraping import Samples

FIXTURES = Path(__file__).parents[1] / "fixtures"
IDENTITY = {
    "pod": ("k8s.namespace.name", "k8s.pod.name", "k8s.pod.uid", "k8s.node.name", "k8s.container.name", "container.id"),
    "level": ("k8s.node.name", "otel_k8s_cgroup.qos_class", "cgroup.path"),
}


def latest_of(metrics: Sequence[Metric]) -> Latest:
    return Latest(metrics, ((figures_of(metrics), 1),), most_ns=10**18, clock=lambda: 0)


def kept_text(schema: Schema, fixture: str, directory: Path) -> str:
    metrics = select((schema,), ("cpu", "memory", "io")) if schema == "cadvisor" else select((schema,))
    latest = latest_of(metrics)
    sent(fixture, metrics, directory, latest)
    return scraped(latest)


def translated(point: Point) -> str:
    """The name as Prometheus' OTLP receiver makes it, by its documentation."""
    words = [word for word in re.split(r"[^A-Za-z0-9:]+", point.metric) if word]
    unit = {"s": "seconds", "ns": "nanoseconds", "By": "bytes", "%": "percent"}.get(point.unit)
    if unit is not None and unit not in words:
        words.append(unit)
    if "monotonic" in point.kind:
        words = [word for word in words if word != "total"] + ["total"]
    if point.unit == "1" and "gauge" in point.kind:
        words = [word for word in words if word != "ratio"] + ["ratio"]
    return "_".join(words)


def expected(points: Iterable[Point], schema: Schema) -> Samples:
    found: Samples = []
    for point in points:
        labels = point.attributes
        if schema == "semconv":
            keys = IDENTITY["pod" if point.pod else "level"]
            labels = labels | {key: value for key, value in point.resource.items() if key in keys}
        text = frozenset((re.sub(r"\W", "_", key), str(value)) for key, value in labels.items())
        found.append((translated(point), text, float(point.value)))
    return sorted(found, key=lambda sample: (sample[0], sorted(sample[1])))


@pytest.mark.parametrize("schema", SCHEMAS)
@pytest.mark.parametrize("fixture", ["v2-6.12", "v1"])
def test_each_point_is_a_sample(fixture: str, schema: Schema, tmp_path: Path) -> None:
    """Of the pod, its container and the levels, with every group: the same as over OTLP and no other, in both formats.
    What is a delta there is the total here: the cgroups were born in between.
    """
    metrics = all_of(schema)
    latest = latest_of(metrics)
    points = sent(fixture, metrics, tmp_path, latest)
    for accept in (OPENMETRICS, PROMETHEUS):
        found = [each for each in samples_of(scraped(latest, accept)) if not each[0].endswith("_info")]
        assert found == expected(points, schema)


@pytest.mark.parametrize("schema", SCHEMAS)
@pytest.mark.parametrize("fixture", ["v2-6.12", "v1"])
def test_a_whole_text_is_what_it_was(fixture: str, schema: Schema, tmp_path: Path) -> None:
    """What is sent by default, and in cAdvisor's schema what each device does."""
    assert kept_text(schema, fixture, tmp_path) == (FIXTURES / f"scrape-{schema}-{fixture}.txt").read_text()


def test_all_schemas_go_together(tmp_path: Path) -> None:
    """No family of one has the name of another's of another type, none is there twice, and no series is either."""
    metrics = select(SCHEMAS, GROUPS)
    latest = latest_of(metrics)
    sent("v2-6.12", metrics, tmp_path, latest)
    text = scraped(latest)
    families = [family.name for family in families_of(text)]
    assert len(families) == len(set(families))
    samples = [(name, labels) for name, labels, _ in samples_of(text)]
    assert len(samples) == len(set(samples))
    types: dict[str, Instrument] = {}
    for metric in metrics:
        for kind in metric.kinds:
            name = name_of(metric.named(kind), metric.unit, metric.instrument).family
            type_ = Instrument.GAUGE if metric.instrument is Instrument.UPDOWN else metric.instrument
            assert types.setdefault(name, type_) is type_, name


def test_what_is_known_of_a_pod_beside_who_it_is_is_joined(tmp_path: Path) -> None:
    """By an info metric, with the labels that the series have; the kubelet's schema has none."""
    latest = latest_of(all_of("semconv"))
    sent("v2-6.12", all_of("semconv"), tmp_path, latest)
    of = {family.name: family for family in families_of(scraped(latest))}
    (pod,), (container,) = of["k8s_pod"].samples, of["container"].samples
    assert (pod.name, pod.value, of["k8s_pod"].type) == ("k8s_pod_info", 1, "info")
    assert pod.labels["k8s_pod_start_time"] == "2027-01-15T06:00:00Z"
    assert (container.labels["container_id"], container.labels["container_image_tags"]) == (CONTAINER.id, '["v1"]')
    (series,) = (each for each in of["k8s_pod_memory_usage_bytes"].samples)
    assert series.labels.items() <= pod.labels.items()


def test_prefix_and_suffix_are_those_of_otlp(tmp_path: Path) -> None:
    """Before the unit is appended, as a receiver does it."""
    latest = latest_of(select(("alumet",)))
    sent("v2-6.12", select(("alumet",)), tmp_path, latest)
    names = {name for name, _, _ in samples_of(scraped(latest, prefix="k8s.", suffix="_alumet"))}
    assert {"k8s_cpu_time_delta_alumet_nanoseconds_total", "k8s_cpu_percent_alumet"} <= names


@pytest.mark.parametrize(
    ("escaping", "name", "label"),
    [
        ("allow-utf-8", "container_memory_usage_bytes", "k8s_pod_uid"),
        ("dots", "container__memory__usage__bytes", "k8s__pod__uid"),
        ("underscores", "container_memory_usage_bytes", "k8s_pod_uid"),
    ],
)
def test_names_are_escaped_as_it_is_asked_for(escaping: str, name: str, label: str, tmp_path: Path) -> None:
    """As the library has it; Prometheus asks for one of these."""
    latest = latest_of(all_of("semconv"))
    sent("v2-6.12", all_of("semconv"), tmp_path, latest)
    content_type, pieces = exposition((), Pods(latest), f"{OPENMETRICS};escaping={escaping}")
    assert escaping in content_type
    (line,) = (line for line in "".join(pieces).split("\n") if line.startswith(f"{name}{{"))
    assert f'{label}="' in line


# --- what others wrote ----------------------------------------------------------------------------------------------

METRIC = select(("semconv",), ("pids",))[:1]


def of_entities(*resources: dict[str, Any], values: Sequence[int | None] = ()) -> Latest:
    """A tick in which each pod has ``pids.current``, or what ``values`` has."""
    latest = latest_of(METRIC)
    entities = [
        Entity(str(number), EntityKind.POD, lambda each=each: Description(tuple(each.items())))  # type: ignore[misc]
        for number, each in enumerate(resources)
    ]
    readings = [Reading(each.key, each.kind, "/", Origin(True, 0, None), 0, None, 0, None) for each in entities]
    rows: list[Row] = [(value,) for value in values or range(len(entities))]
    latest.put(0, entities, readings, Rows(columns_of(METRIC), rows), frozenset({0}))
    return latest


@settings(max_examples=60, deadline=None)
@given(names=st.lists(st.text(max_size=12), min_size=1, max_size=4), key=st.text(min_size=1, max_size=8))
def test_any_text_is_read_back(names: list[str], key: str) -> None:
    """Whatever a pod's name has in it, and whatever a label of it is called; half a surrogate pair becomes a mark."""
    resources = [
        {"k8s.pod.name": name, "k8s.pod.uid": str(number), f"k8s.pod.label.{key}": name}
        for number, name in enumerate(names)
    ]
    latest = of_entities(*resources)
    written = [name.encode("utf-8", "replace").decode() for name in names]
    for accept in (OPENMETRICS, PROMETHEUS):
        samples = samples_of(scraped(latest, accept))
        found = {
            dict(labels)["k8s_pod_uid"]: (dict(labels).get("k8s_pod_name", ""), value) for _, labels, value in samples
        }
        assert len(samples) == 2 * len(names)
        assert {uid: name for uid, (name, _) in found.items()} == {str(n): name for n, name in enumerate(written)}


@pytest.mark.parametrize(
    "name", ["a\ud800b", "\udfff", "\x00", "\x85\u2028\r", '"} 1\n# EOF\n', "\\", "\\n", "x{", "}"]
)
def test_a_name_that_means_harm(name: str) -> None:
    """Ends no label, no line and no answer."""
    samples = samples_of(scraped(of_entities({"k8s.pod.uid": "u", "k8s.pod.name": name}, {"k8s.pod.uid": "v"})))
    assert len(samples) == 4
    assert name.encode("utf-8", "replace").decode() in {dict(labels).get("k8s_pod_name") for _, labels, _ in samples}


def test_no_attribute_takes_the_place_of_another() -> None:
    """An annotation says neither which pod it is, nor which target it was scraped from."""
    resource = {"k8s.pod.uid": "u", "k8s_pod_uid": "v", "job": "node", "instance": "i", "__name__": "up", "1a": "b"}
    assert labels_of(resource.items()) == {
        "k8s_pod_uid": "u",
        "exported_job": "node",
        "exported_instance": "i",
        "exported___name__": "up",
        "key_1a": "b",
    }


def test_what_is_absent_is_no_sample() -> None:
    """Never 0; and where no pod has a value there is no family."""
    resources = [{"k8s.pod.uid": uid} for uid in "abc"]
    found = samples_of(scraped(of_entities(*resources, values=[7, None, 0])))
    of_pids = [(dict(labels)["k8s_pod_uid"], value) for name, labels, value in found if not name.endswith("_info")]
    assert of_pids == [("a", 7.0), ("c", 0.0)]
    assert "pids" not in scraped(of_entities(*resources, values=[None] * 3))


def test_large_numbers_are_exact() -> None:
    """A counter of nanoseconds goes beyond what is written in full by default."""
    assert " 9223372036854775807\n" in scraped(of_entities({"k8s.pod.uid": "u"}, values=[2**63 - 1]))


def test_a_large_node_comes_in_small_pieces() -> None:
    """And each has some lines, so that others have their turn; the labels are written a few pods at a time."""
    latest = of_entities(*({"k8s.pod.uid": str(number), "k8s.pod.name": "x" * 200} for number in range(1500)))
    pieces = list(exposition((), Pods(latest), OPENMETRICS)[1])
    assert max(map(len, pieces)) < 128 * 1024
    assert max(piece.count("\n") for piece in pieces) < 300
    assert len(samples_of("".join(pieces))) == 3000


def test_a_tick_that_ends_meanwhile_changes_nothing() -> None:
    """A scrape is of one tick; two at once may be of two."""
    latest = of_entities({"k8s.pod.uid": "u"}, values=[1])
    first = exposition((), Pods(latest), OPENMETRICS)[1]
    next(first), next(first)
    other = of_entities({"k8s.pod.uid": "v"}, values=[2])
    tick = other.tick()
    assert tick is not None
    latest.put(0, tick.entities, tick.readings, Rows(tick.columns, list(tick.rows)), frozenset({0}))
    assert "".join(first).count('k8s_pod_uid="u"') == 1
    assert scraped(latest).count('k8s_pod_uid="v"') == 2


def test_units_that_no_name_is_known_for_are_refused() -> None:
    """All that is sent has one."""
    with pytest.raises(KeyError):
        name_of("x", "furlong", Instrument.GAUGE)
    for metric in select(SCHEMAS, GROUPS):
        assert name_of(metric.name, metric.unit, metric.instrument).family


if __name__ == "__main__":
    for each in SCHEMAS:
        for tree in ("v2-6.12", "v1"):
            with tempfile.TemporaryDirectory() as temporary:
                (FIXTURES / f"scrape-{each}-{tree}.txt").write_text(kept_text(each, tree, Path(temporary)))
    sys.stdout.write("look at git diff tests/fixtures\n")
