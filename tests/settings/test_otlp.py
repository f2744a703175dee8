"""The standard's variables with the standard's meaning, and our keys over and under them.

Source: https://opentelemetry.io/docs/specs/otel/protocol/exporter/
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_k8s_cgroup.settings.otlp import BaseUrl, CollectorHost, MetricsUrl, resolve

if TYPE_CHECKING:
    from .conftest import Read, Refused

STANDARD = "OTEL_EXPORTER_OTLP_"

# The variables (without their common beginning), and where metrics go by them.
WHERE: list[tuple[dict[str, str], str, str]] = [
    ({}, "grpc", "http://localhost:4317"),
    ({"PROTOCOL": "grpc"}, "grpc", "http://localhost:4317"),
    ({"PROTOCOL": "http/protobuf"}, "http/protobuf", "http://localhost:4318/v1/metrics"),
    ({"METRICS_PROTOCOL": "http/protobuf", "PROTOCOL": "grpc"}, "http/protobuf", "http://localhost:4318/v1/metrics"),
    # The standard's three examples.
    ({"ENDPOINT": "http://collector:4318"}, "http/protobuf", "http://collector:4318/v1/metrics"),
    ({"METRICS_ENDPOINT": "http://collector:4318"}, "http/protobuf", "http://collector:4318/"),
    (
        {"ENDPOINT": "http://collector:4318/mycollector/", "METRICS_ENDPOINT": "https://c.example.com/v1/metrics/"}
        | {"PROTOCOL": "http/protobuf"},
        "http/protobuf",
        "https://c.example.com/v1/metrics/",
    ),
    (
        {"ENDPOINT": "http://collector:4318/mycollector/"},
        "http/protobuf",
        "http://collector:4318/mycollector/v1/metrics",
    ),
    # The path is put behind the general one in any case, and behind the one of metrics in none.
    ({"ENDPOINT": "http://c:4318/v1/metrics"}, "http/protobuf", "http://c:4318/v1/metrics/v1/metrics"),
    ({"METRICS_ENDPOINT": "http://c:4318/api?tenant=a"}, "http/protobuf", "http://c:4318/api?tenant=a"),
    ({"ENDPOINT": "http://c:4318?tenant=a"}, "http/protobuf", "http://c:4318/v1/metrics?tenant=a"),
    ({"ENDPOINT": "https://c", "PROTOCOL": "http/protobuf"}, "http/protobuf", "https://c/v1/metrics"),
    # gRPC: the scheme decides on TLS, and only without one does INSECURE.
    ({"ENDPOINT": "http://c:4317/"}, "grpc", "http://c:4317"),
    ({"ENDPOINT": "https://c:4317"}, "grpc", "https://c:4317"),
    ({"ENDPOINT": "c:4317"}, "grpc", "https://c:4317"),
    ({"ENDPOINT": "c:4317", "INSECURE": "false"}, "grpc", "https://c:4317"),
    ({"ENDPOINT": "c:4317", "INSECURE": "True"}, "grpc", "http://c:4317"),
    ({"ENDPOINT": "c:4317", "INSECURE": "true", "METRICS_INSECURE": "false"}, "grpc", "https://c:4317"),
    ({"ENDPOINT": "https://c:4317", "INSECURE": "true"}, "grpc", "https://c:4317"),
    ({"ENDPOINT": "http://c:4317", "INSECURE": "false"}, "grpc", "http://c:4317"),
    ({"METRICS_ENDPOINT": "[fd00::1]:4317"}, "grpc", "https://[fd00::1]:4317"),
    ({"ENDPOINT": "http://c"}, "grpc", "http://c:80"),
    ({"ENDPOINT": "https://c"}, "grpc", "https://c:443"),
    ({"ENDPOINT": "c"}, "grpc", "https://c:443"),
    ({"ENDPOINT": "http://c:4318", "PROTOCOL": "grpc"}, "grpc", "http://c:4318"),
    # An empty one is none.
    ({"METRICS_ENDPOINT": "", "ENDPOINT": "http://c:4317"}, "grpc", "http://c:4317"),
]


@pytest.mark.parametrize(("variables", "protocol", "endpoint"), WHERE)
def test_where_the_standards_variables_lead(
    variables: dict[str, str], protocol: str, endpoint: str, read: Read
) -> None:
    """Protocol and whole URL, by the standard's rules (and by the port where no protocol is given)."""
    target = read(environ={STANDARD + name: text for name, text in variables.items()}).otlp
    assert (target.protocol, target.endpoint) == (protocol, endpoint)


@pytest.mark.parametrize(
    ("ours", "endpoint"),
    [
        ("http://c:4318", "http://c:4318/v1/metrics"),
        ("http://c:4318/", "http://c:4318/v1/metrics"),
        ("http://c:4318/v1/metrics", "http://c:4318/v1/metrics"),
        ("http://c:4318/v1/metrics/", "http://c:4318/v1/metrics/"),
        ("http://c:4318/base", "http://c:4318/base/v1/metrics"),
        ("http://c:4317", "http://c:4317"),
    ],
)
def test_where_our_endpoint_leads(ours: str, endpoint: str, read: Read) -> None:
    """Over HTTP the path is put behind ours unless it is there; the port tells the protocol."""
    assert read(flags={"otlp_endpoint": ours}).otlp.endpoint == endpoint


# For each: the end of the variable, its text, the target's field and its value.
OTHERS: list[tuple[str, str, str, object]] = [
    ("HEADERS", "Api-Key=a%20b,x=y", "headers", (("api-key", "a b"), ("x", "y"))),
    ("TIMEOUT", "1500", "timeout_seconds", 1.5),
    ("TIMEOUT", "0", "timeout_seconds", 7 * 86400.0),
    ("TIMEOUT", "2147483647", "timeout_seconds", 7 * 86400.0),
    ("COMPRESSION", "gzip", "compression", "gzip"),
    ("COMPRESSION", "none", "compression", "none"),
    ("CERTIFICATE", "/dev/null", "certificate_file", "/dev/null"),
]


@pytest.mark.parametrize(("ending", "text", "field", "value"), OTHERS)
def test_the_other_variables(ending: str, text: str, field: str, value: object, read: Read) -> None:
    """General and for metrics; the timeout is in milliseconds, and its 0 a very long time."""
    for variable in (f"{STANDARD}{ending}", f"{STANDARD}METRICS_{ending}"):
        settings = read(environ={variable: text})
        assert getattr(settings.otlp, field) == value
        assert settings.sources[f"otlp_{ending.lower()}"] == f"environment {variable}"


def test_headers_for_metrics_replace_the_general_ones(read: Read) -> None:
    """As a whole: nothing of the general ones is sent to a receiver of metrics alone."""
    settings = read(environ={f"{STANDARD}HEADERS": "a=1,b=2", f"{STANDARD}METRICS_HEADERS": "b=3"})
    assert settings.otlp.headers == (("b", "3"),)


def test_without_a_ca_file(read: Read) -> None:
    """TLS with the system's certificates needs no variable."""
    target = read(environ={f"{STANDARD}ENDPOINT": "https://c:4317"}).otlp
    assert (target.certificate_file, target.client_certificate_file, target.client_key_file) == (None, None, None)


def test_mtls(read: Read, pem: str) -> None:
    """Certificate and key, without a CA file, as the standard allows."""
    variables = {f"{STANDARD}CLIENT_CERTIFICATE": pem, f"{STANDARD}METRICS_CLIENT_KEY": pem}
    target = read(environ=variables).otlp
    assert (target.client_certificate_file, target.client_key_file) == (pem, pem)


def test_order(read: Read) -> None:
    """Our flags, our variables, the standard's variables, the file, the default."""
    file = 'otlp_endpoint = "http://file:4317"'
    standard = {f"{STANDARD}ENDPOINT": "http://standard:4317"}
    ours = {"OTEL_K8S_CGROUP_OTLP_ENDPOINT": "http://ours:4317"}
    flags = {"otlp_endpoint": "http://flag:4317"}
    settings = [
        read(file, flags=flags, environ=standard | ours),
        read(file, environ=standard | ours),
        read(file, environ=standard),
        read(file),
        read(),
    ]
    hosts = ["flag", "ours", "standard", "file", "localhost"]
    assert [each.otlp.endpoint for each in settings] == [f"http://{host}:4317" for host in hosts]


def test_our_endpoint_is_read_by_our_rule_also_beside_the_standards(read: Read) -> None:
    """The rule goes with the value that won, not with a variable that lost."""
    environ = {f"{STANDARD}METRICS_ENDPOINT": "http://c:4318/exact"}
    assert (
        read(environ=environ, flags={"otlp_endpoint": "http://c:4318/x"}).otlp.endpoint == "http://c:4318/x/v1/metrics"
    )


@pytest.mark.parametrize(
    ("variables", "beginning", "allowed"),
    [
        ({"PROTOCOL": "http/json"}, "otlp_protocol: found 'http/json'", "http/json is not spoken here"),
        ({"CERTIFICATE": "/no.pem"}, "otlp_certificate: found '/no.pem'", "No such file"),
        ({"METRICS_CLIENT_KEY": "/no.pem"}, "otlp_client_key: found '/no.pem'", "No such file"),
        ({"HEADERS": "nothing"}, "otlp_headers: found a value that is not shown", "(number 1 is none)"),
        ({"ENDPOINT": "unix:///run/otlp.sock"}, "otlp_endpoint: found 'unix:///run/otlp.sock'", "host:port"),
        (
            {"ENDPOINT": "http://c:4317/path"},
            "otlp_endpoint: found 'http://c:4317/path'",
            'otlp_protocol to "http/protobuf"',
        ),
        ({"ENDPOINT": "http://c:99999"}, "otlp_endpoint: found 'http://c:99999'", "a port from 1 to 65535"),
        ({"ENDPOINT": "http://u:p@c:4317"}, "otlp_endpoint: found 'http://***@c:4317'", "without a user"),
    ],
)
def test_refused(variables: dict[str, str], beginning: str, allowed: str, refused: Refused) -> None:
    """One line names key and variable, what was found and what is allowed."""
    message = refused(environ={STANDARD + name: text for name, text in variables.items()})
    assert message.startswith(f"{beginning} (environment {STANDARD}{next(iter(variables))}); allowed: ")
    assert allowed in message


@pytest.mark.parametrize("endpoint", ["c:4318", "https://", "http://u:p@c:4318"])
def test_refused_over_http(endpoint: str, refused: Refused) -> None:
    """HTTP needs its scheme and host, and a user's password belongs into a header."""
    variables = {f"{STANDARD}PROTOCOL": "http/protobuf", f"{STANDARD}ENDPOINT": endpoint}
    assert "allowed: for HTTP an http:// or https:// URL without a user" in refused(environ=variables)


@pytest.mark.parametrize(
    ("given_file", "missing"), [("CLIENT_KEY", "client_certificate"), ("CLIENT_CERTIFICATE", "client_key")]
)
def test_certificate_and_key_go_together(given_file: str, missing: str, pem: str, refused: Refused) -> None:
    """One without the other would be sent without a word, and the receiver's refusal is hard to read."""
    message = refused(environ={STANDARD + given_file: pem})
    assert message == (
        f"otlp_{missing}: found '' (default); allowed: a file, since otlp_{given_file.lower()} is set "
        f"(environment {STANDARD}{given_file}) and the two go together"
    )


@pytest.mark.parametrize(
    ("variable", "text", "key"),
    [
        ("PROTOCOL", "thrift", "otlp_protocol"),
        ("COMPRESSION", "zstd", "otlp_compression"),
        ("TIMEOUT", "10s", "otlp_timeout"),
        ("TIMEOUT", "-1", "otlp_timeout"),
        ("TIMEOUT", "2147483648", "otlp_timeout"),
        ("TIMEOUT", "1.5", "otlp_timeout"),
    ],
)
def test_what_the_standard_does_not_know_is_passed_over(
    variable: str, text: str, key: str, read: Read, caplog: pytest.LogCaptureFixture
) -> None:
    """With a warning, for it has to be taken as not set; then the general variable counts, or the default."""
    name = f"{STANDARD}METRICS_{variable}"
    settings = read(environ={name: text})
    assert settings == read()
    assert settings.sources[key] == "default"
    [line] = caplog.messages
    assert line.startswith(f"{name}: found {text}, passed over; allowed: ")
    valid = {"PROTOCOL": "grpc", "COMPRESSION": "gzip", "TIMEOUT": "1"}[variable]
    assert read(environ={name: text, STANDARD + variable: valid}).sources[key] == f"environment {STANDARD}{variable}"


def test_a_boolean_that_the_standard_does_not_know_is_false(read: Read, caplog: pytest.LogCaptureFixture) -> None:
    """And so nobody sends without TLS who did not say "true"."""
    variables = {f"{STANDARD}METRICS_INSECURE": "yes", f"{STANDARD}INSECURE": "true", f"{STANDARD}ENDPOINT": "c:4317"}
    assert read(environ=variables).otlp.endpoint == "https://c:4317"
    assert caplog.record_tuples == [
        (
            "otel_k8s_cgroup.settings.otlp",
            logging.WARNING,
            f"{STANDARD}METRICS_INSECURE: found yes, taken as false; allowed: true, false",
        )
    ]


def test_other_signals_are_none_of_ours(read: Read) -> None:
    """A wrong endpoint for traces costs no metric."""
    assert read(environ={f"{STANDARD}TRACES_ENDPOINT": "!", f"{STANDARD}LOGS_TIMEOUT": "x"}) == read()


@given(
    kind=st.sampled_from([str, BaseUrl, MetricsUrl, CollectorHost]),
    text=st.text() | st.from_regex(r"(https?://)?[a-z\[\]:@.]{1,9}(:[0-9]{1,5})?(/[a-z?#]{0,4})*", fullmatch=True),
    protocol=st.sampled_from(["grpc", "http/protobuf", None]),
    insecure=st.booleans(),
)
def test_any_endpoint_leads_to_a_url_or_is_refused(
    kind: type[str], text: str, protocol: Literal["grpc", "http/protobuf"] | None, *, insecure: bool
) -> None:
    """Never anything between: what is taken is an http or https URL, without a path for gRPC, with one for HTTP."""
    try:
        taken, url = resolve(kind(text), protocol, insecure=insecure)
    except ValueError:
        return
    assert url.startswith(("http://", "https://"))
    assert "@" not in url.split("/")[2]
    assert (url.count("/") == 2) is (taken == "grpc")
