"""The text that is scraped, in pieces: OpenMetrics or Prometheus' own, as the official library writes it.

The library takes 13 µs a sample. So it writes each family's head, and one line for each of its columns and each
entity's labels; a sample's line is put together of these, which is twenty times cheaper. A piece has some hundred
lines: others have their turn between two, and no scrape is in memory as a whole.

No sample has a timestamp: Prometheus would hold series of pods that have ended for five minutes then, and count a
restarted container twice. In return a value is up to an interval older than it says.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple, Protocol

from otel_k8s_cgroup.metrics import ENTITY_NAMES, Instrument
from otel_k8s_cgroup.scrape.names import Name, identity_of, labels_of, name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from prometheus_client import Metric as Family

    from otel_k8s_cgroup.metrics import Column, Metric
    from otel_k8s_cgroup.model import EntityKind, Schema
    from otel_k8s_cgroup.scrape.latest import Latest, Tick

    Write = Callable[[Iterable[Family]], str]

NO_LIBRARY = "install otel-k8s-cgroup[scrape] for /metrics: the library prometheus-client is not there"
_OWN = "otel_k8s_cgroup."
_LINES = 256
"""Of a piece."""
_ENTITIES = 32
"""Whose labels the library writes in one go."""
_END = "# EOF\n"


class OwnRow(Protocol):
    """One of the exporter's own metrics, as ``telemetry.OwnMetric``."""

    @property
    def name(self) -> str: ...
    @property
    def unit(self) -> str: ...
    @property
    def description(self) -> str: ...
    @property
    def get(self) -> Callable[[], float | Mapping[tuple[str, ...], int]]: ...
    @property
    def attributes(self) -> tuple[str, ...]: ...
    @property
    def monotonic(self) -> bool: ...


class Pods(NamedTuple):
    """What is scraped of what is measured."""

    latest: Latest
    prefix: str = ""
    """Of each metric's name, as ``suffix``."""
    suffix: str = ""


def is_library_there() -> bool:
    """Whether it is installed. It is imported then, so that no scrape has to, which would hold up a tick."""
    try:
        import_module("prometheus_client.exposition")
    except ImportError:
        return False
    return True


def exposition(own: Sequence[OwnRow], pods: Pods | None, accept: str) -> tuple[str, Iterator[str]]:
    """The content type and the text, in pieces; an empty one says that others may have a turn.

    Args:
        own: the exporter's own metrics; their values are as they are now.
        pods: None: nothing else.
        accept: the request's header of that name; a malformed one is as none.

    Raises:
        ImportError: the library is not installed.
    """
    # Some megabytes, which only who scrapes has to have.
    from prometheus_client.exposition import choose_encoder  # noqa: PLC0415

    try:
        encode, content_type = choose_encoder(accept)
    except Exception:  # noqa: BLE001 whoever asks writes the header, and the library trusts that it is well-formed
        encode, content_type = choose_encoder("")

    def write(families: Iterable[Family]) -> str:
        return encode(_Families(families)).decode().removesuffix(_END)

    first = write(map(_own_family, own))

    def pieces() -> Iterator[str]:
        yield first
        tick = None if pods is None else pods.latest.tick()
        if pods is not None and tick is not None:
            yield from _Scrape(pods, tick, write).pieces()
        if content_type.startswith("application/openmetrics-text"):
            yield _END

    return content_type, pieces()


class _Families:
    """A collector, for the library."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> Iterable[Family]:
        return self._families


def _family(name: Name, description: str, *, is_counter: bool) -> Family:
    from prometheus_client import Metric as Family  # noqa: PLC0415

    return Family(name.family, description, "counter" if is_counter else "gauge", name.unit)


def _own_family(row: OwnRow) -> Family:
    instrument = Instrument.COUNTER if row.monotonic else Instrument.GAUGE
    family = _family(name_of(_OWN + row.name, row.unit, instrument), row.description, is_counter=row.monotonic)
    value = row.get()
    for values, number in {(): value}.items() if isinstance(value, int | float) else value.items():
        labels = labels_of(zip(row.attributes, values, strict=True))
        family.add_sample(f"{family.name}_total" if row.monotonic else family.name, labels, number)
    return family


class _Part(NamedTuple):
    """One column's series of some entities."""

    place: int
    """In the rows."""
    column: Column
    entities: Sequence[int]
    """By their numbers."""


class _Scrape:
    """One answer.

    Args:
        pods: whose.
        tick: what was read.
        write: families → their text.
    """

    def __init__(self, pods: Pods, tick: Tick, write: Write) -> None:
        self._pods = pods
        self._tick = tick
        self._write = write
        self._by_kind: dict[EntityKind, list[int]] = {}
        for number, entity in enumerate(tick.entities):
            self._by_kind.setdefault(entity.kind, []).append(number)
        self._labels: dict[Schema, list[str]] = {
            column.metric.schema: [""] * len(tick.entities) for column in tick.columns
        }
        """As they are written, one an entity."""

    def pieces(self) -> Iterator[str]:
        yield from self._identities()
        for name, parts in self._families().items():
            yield from self._series(name, parts)

    def _identities(self) -> Iterator[str]:
        """Writes the labels, and with them what is known of each entity beside who it is."""
        from prometheus_client import Metric as Family  # noqa: PLC0415

        by_name: dict[str, list[int]] = {}
        for kind, numbers in self._by_kind.items():
            by_name.setdefault(ENTITY_NAMES[kind], []).extend(numbers)
        # The kubelet has no such series.
        with_info = self._labels.keys() != {"cadvisor"}
        for name, numbers in by_name.items():
            for start in range(0, len(numbers), _ENTITIES):
                entities = [(number, self._tick.entities[number]) for number in numbers[start : start + _ENTITIES]]
                described = [(number, entity.kind, entity.describe()) for number, entity in entities]
                for schema, texts in self._labels.items():
                    family = Family("x", "", "gauge")
                    for _, kind, description in described:
                        family.add_sample("x", identity_of(schema, kind, description), 0.0)
                    for (number, _, _), (_, labels) in zip(described, self._lines(family)[1], strict=True):
                        texts[number] = labels
                family = Family(name_of(name, "", Instrument.GAUGE).family, "Attributes of each, for joins", "info")
                for _, _, description in described:
                    family.add_sample(f"{family.name}_info", labels_of(description.resource), 1.0)
                head, samples = _parted(self._write([family])) if with_info else ("", "")
                yield samples if start else head + samples

    def _families(self) -> dict[Name, list[_Part]]:
        found: dict[Name, list[_Part]] = {}
        everyone = range(len(self._tick.entities))
        for place, column in enumerate(self._tick.columns):
            metric = column.metric
            kinds = self._by_kind.items() if metric.of_entity else [(None, everyone)]
            for kind, numbers in kinds:
                if kind is None or kind in metric.kinds:
                    found.setdefault(self._name(metric, kind), []).append(_Part(place, column, numbers))
        return found

    def _name(self, metric: Metric, kind: EntityKind | None) -> Name:
        named = metric.name if kind is None else metric.named(kind)
        return name_of(f"{self._pods.prefix}{named}{self._pods.suffix}", metric.unit, metric.instrument)

    def _series(self, name: Name, parts: Sequence[_Part]) -> Iterator[str]:
        """One family: of each entity each column that has a value."""
        metric = parts[0].column.metric
        is_counter = metric.instrument is Instrument.COUNTER
        family = _family(name, metric.description, is_counter=is_counter)
        sample = f"{name.family}_total" if is_counter else name.family
        for part in parts:
            family.add_sample(sample, labels_of(part.column.attributes), 0.0)
        head, lines = self._lines(family)
        for part, (written, own) in zip(parts, lines, strict=True):
            beginning = f"{written}{{{own}," if own else f"{written}{{"
            labels = self._labels[part.column.metric.schema]
            for values in self._values(part):
                text = "".join([f"{beginning}{labels[number]}}} {value}\n" for number, value in values])
                if text:
                    yield head + text
                    head = ""
                else:
                    yield ""

    def _values(self, part: _Part) -> Iterator[list[tuple[int, int | float]]]:
        """A piece's at a time: an entity's number, and its value. Python writes numbers as both formats have them."""
        rows = self._pods.latest.rows(self._tick, part.column)
        place, scale = part.place, part.column.metric.scale
        for start in range(0, len(part.entities), _LINES):
            # A row of an earlier tick has no column yet of a device that was found since.
            there = [
                (number, row[place])
                for number in part.entities[start : start + _LINES]
                if len(row := rows[number]) > place and row[place] is not None
            ]
            if scale is not None:
                yield [(number, value * scale) for number, value in there if value is not None]
            else:
                yield [(number, value) for number, value in there if value is not None]

    def _lines(self, family: Family) -> tuple[str, list[tuple[str, str]]]:
        """Of a family's text: its head, and each sample's name, and its labels without their braces."""
        head, samples = _parted(self._write([family]))
        # Nothing follows on a value, and no name has a brace. A label may have what splitlines() takes for an end.
        lines = (line.rpartition(" ")[0] for line in samples.removesuffix("\n").split("\n"))
        return head, [(name, rest.removesuffix("}")) for name, _, rest in (line.partition("{") for line in lines)]


def _parted(text: str) -> tuple[str, str]:
    """A family's head and its samples."""
    at = 0
    while text.startswith("#", at):
        at = text.index("\n", at) + 1
    return text[:at], text[at:]
