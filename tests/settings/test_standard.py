"""The standard's variables that are no settings of ours: what they say, and warnings where nothing comes of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import Read

PREFIX = "OTEL_EXPORTER_OTLP_"


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        (f"{PREFIX}ENPOINT", f"{PREFIX}ENDPOINT"),
        (f"{PREFIX}METRIC_ENDPOINT", f"{PREFIX}METRICS_ENDPOINT"),
        (f"{PREFIX}METRICS_HEADER", f"{PREFIX}METRICS_HEADERS"),
        ("OTEL_EXPORTER_OLTP_ENDPOINT", f"{PREFIX}ENDPOINT"),
        ("OTEL_RESOURCE_ATTRIBUTE", "OTEL_RESOURCE_ATTRIBUTES"),
        ("OTEL_SDK_DISABLE", "OTEL_SDK_DISABLED"),
    ],
)
def test_a_misspelt_variable_is_one_warning(
    name: str, nearest: str, read: Read, caplog: pytest.LogCaptureFixture
) -> None:
    """With the nearest one that there is, and without its value."""
    read(environ={name: "secret"})
    assert caplog.messages == [f"{name}: no such variable, so it is passed over; the nearest known one is {nearest}"]


@pytest.mark.parametrize(
    "name",
    [
        f"{PREFIX}TRACES_ENDPOINT",
        f"{PREFIX}LOGS_HEADERS",
        f"{PREFIX}SPAN_INSECURE",
        f"{PREFIX}METRICS_DEFAULT_HISTOGRAM_AGGREGATION",
        f"{PREFIX}SERVICE_HOST",
        f"{PREFIX}PORT_4317_TCP_ADDR",
        "OTEL_PYTHON_LOG_LEVEL",
        "OTEL_TRACES_EXPORTER",
    ],
)
def test_other_variables_are_nobodys_mistake(name: str, read: Read, caplog: pytest.LogCaptureFixture) -> None:
    """Other signals', other programs', and those that Kubernetes makes of a service's name."""
    read(environ={name: "x"})
    assert not caplog.records


@pytest.mark.parametrize(
    ("name", "text", "beginning"),
    [
        ("OTEL_METRICS_EXPORTER", "none", "found none, which has no effect: set otlp_endpoint and scrape instead"),
        (
            f"{PREFIX}METRICS_TEMPORALITY_PREFERENCE",
            "deltas",
            "found deltas, taken as cumulative; allowed: cumulative, delta, lowmemory",
        ),
    ],
)
def test_a_variable_without_effect_is_one_warning(
    name: str, text: str, beginning: str, read: Read, caplog: pytest.LogCaptureFixture
) -> None:
    """Where it asks for something else than what is done."""
    read(environ={name: text})
    (line,) = caplog.messages
    assert line.startswith(f"{name}: {beginning}")


def test_a_variable_that_asks_for_what_is_done(read: Read, caplog: pytest.LogCaptureFixture) -> None:
    """Is obeyed, so there is nothing to say."""
    read(environ={"OTEL_METRICS_EXPORTER": "otlp", f"{PREFIX}METRICS_TEMPORALITY_PREFERENCE": "delta"})
    assert not caplog.records


@pytest.mark.parametrize(
    ("text", "is_disabled", "warned"),
    [("true", True, False), ("TRUE ", True, False), ("false", False, False), ("", False, False), ("1", False, True)],
)
def test_the_sdk_is_disabled(
    text: str, is_disabled: bool, warned: bool, read: Read, caplog: pytest.LogCaptureFixture
) -> None:
    """By "true" alone, in any case; what is no boolean is false, with a warning."""
    assert read(environ={"OTEL_SDK_DISABLED": text}).plain().sdk_disabled is is_disabled
    lines = ["OTEL_SDK_DISABLED: found 1, taken as false; allowed: true, false"]
    assert caplog.messages == (lines if warned else [])


@pytest.mark.parametrize(
    ("text", "attributes"),
    [
        ("", ()),
        ("a=b", (("a", "b"),)),
        (" k8s.cluster.name = prod , team=a%20b%2Cc=d ,", (("k8s.cluster.name", "prod"), ("team", "a b,c=d"))),
        ("a=b=c,d=", (("a", "b=c"), ("d", ""))),
        ("a=1,b=2,a=3", (("a", "3"), ("b", "2"))),
        ("%C3%A4=%C3%A4", (("ä", "ä"),)),
    ],
)
def test_resource_attributes(
    text: str, attributes: tuple[tuple[str, str], ...], read: Read, caplog: pytest.LogCaptureFixture
) -> None:
    """Pairs with percent-encoded values, as W3C Baggage has them."""
    assert read(environ={"OTEL_RESOURCE_ATTRIBUTES": text}).plain().resource_attributes == attributes
    assert not caplog.records


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("a=b,c", "member 2 is no key=value"),
        ("=b", "member 1 is no key=value"),
        ("a=%ff", "member 1 is not UTF-8 when it is decoded"),
    ],
)
def test_malformed_resource_attributes_are_passed_over_as_a_whole(
    text: str, what: str, read: Read, caplog: pytest.LogCaptureFixture
) -> None:
    """As the standard asks, with one warning."""
    assert read(environ={"OTEL_RESOURCE_ATTRIBUTES": text}).plain().resource_attributes == ()
    (line,) = caplog.messages
    assert line.startswith(f"OTEL_RESOURCE_ATTRIBUTES: passed over as a whole: {what}; allowed: key=value,key2=value2")


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        ({}, "otel-k8s-cgroup"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=b"}, "b"),
        ({"OTEL_SERVICE_NAME": "a", "OTEL_RESOURCE_ATTRIBUTES": "service.name=b"}, "a"),
    ],
)
def test_the_exporters_own_name(environ: dict[str, str], name: str, read: Read) -> None:
    """OTEL_SERVICE_NAME wins over OTEL_RESOURCE_ATTRIBUTES."""
    assert read(environ=environ).plain().service_name == name


@pytest.mark.parametrize(("text", "is_said"), [("10", True), ("99", True), ("100", False), ("0", False)])
def test_a_timeout_that_is_hardly_meant(text: str, is_said: bool, read: Read, caplog: pytest.LogCaptureFixture) -> None:
    """Milliseconds are obeyed; where they are so few, the warning says what seconds would be written as."""
    settings = read(environ={f"{PREFIX}TIMEOUT": text})
    assert settings.sources["otlp_timeout"] == f"environment {PREFIX}TIMEOUT"
    assert caplog.messages == (
        [f"{PREFIX}TIMEOUT: {text} is {text} ms; for {text} s write {text}000"] if is_said else []
    )
