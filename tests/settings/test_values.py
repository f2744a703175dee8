"""What may be written for each setting, and what a refusal says."""

from __future__ import annotations

import contextlib
import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_k8s_cgroup.errors import SettingsError
from otel_k8s_cgroup.model import Choice, PodSource, TokenRetrieval, Wanted
from otel_k8s_cgroup.settings import load
from otel_k8s_cgroup.settings.values import duration, duration_text, headers, size

from .test_order import SAMPLES, attribute

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from .conftest import Read, Refused

MS = timedelta(milliseconds=1)
ONE_LINE_TABLE = '{ kubectl = { service_account = "reader", namespace = "ns" } }'

ACCEPTED: list[tuple[str, object, object]] = [
    ("k8s_api_url", "https://rancher.example.com/k8s/clusters/c-1/", "https://rancher.example.com/k8s/clusters/c-1"),
    ("k8s_api_url", "HTTP://127.0.0.1:8080/", "http://127.0.0.1:8080"),
    ("k8s_ca_file", "", None),
    ("token_retrieval", "auto", TokenRetrieval("auto")),
    ("token_retrieval", "file", TokenRetrieval("file", file="/var/run/secrets/kubernetes.io/serviceaccount/token")),
    ("token_retrieval", "kubectl", TokenRetrieval("kubectl", service_account="alumet-reader", namespace="alumet")),
    ("token_retrieval", "none", TokenRetrieval("none")),
    ("token_retrieval", {"file": "/t"}, TokenRetrieval("file", file="/t")),
    ("token_retrieval", '{ file = "/t" }', TokenRetrieval("file", file="/t")),
    ("token_retrieval", ONE_LINE_TABLE, TokenRetrieval("kubectl", service_account="reader", namespace="ns")),
    ("token_retrieval", {"kubectl": {"namespace": "ns"}}, TokenRetrieval("kubectl", namespace="ns")),
    ("token_retrieval", {"kubectl": {}}, TokenRetrieval("kubectl")),
    ("poll_interval", "500ms", 500 * MS),
    ("poll_interval", "1m30s", 90_000 * MS),
    ("poll_interval", "1min 30sec", 90_000 * MS),
    ("poll_interval", "1.5s", 1500 * MS),
    ("poll_interval", " 10ms ", 10 * MS),
    ("poll_interval", "10000us", 10 * MS),
    ("poll_interval", "7d", timedelta(days=7)),
    ("point_attributes", "False", False),
    ("point_attributes", True, True),
    ("pod_source", "kubelet", PodSource("kubelet")),
    ("pod_source", {"file": "pods.json"}, PodSource("file", file="pods.json")),
    ("log_level", "WARNING", "warning"),
    ("queue_bytes", 16777216, 16777216),
    ("queue_bytes", "16777216", 16777216),
    ("queue_bytes", "16MiB", 16777216),
    ("queue_bytes", "16Mi", 16777216),
    ("queue_bytes", "16 mb", 16_000_000),
    ("queue_bytes", "0.5GiB", 2**29),
    ("queue_bytes", 65536, 65536),
    ("state_file", "", None),
    ("health_listen", "", None),
    ("health_listen", "8081", "127.0.0.1:8081"),
    ("health_listen", 8081, "127.0.0.1:8081"),
    ("health_listen", "localhost:8081", "127.0.0.1:8081"),
    ("health_listen", "0.0.0.0:08081", "0.0.0.0:8081"),
    ("health_listen", " [::1]:65535 ", "[::1]:65535"),
    ("otlp_headers", "Authorization=Bearer%20x%3D, B = c=d ,", (("authorization", "Bearer x="), ("b", "c=d"))),
    ("otlp_headers", {"X-Key": "50% off"}, (("x-key", "50% off"),)),
    ("otlp_headers", "a=1,A=2", (("a", "2"),)),
    ("otlp_headers", "a=", (("a", ""),)),
    ("otlp_headers", {"a": " token\n"}, (("a", "token"),)),
    ("otlp_timeout", "1ms", MS),
    ("include_namespaces", ["team-*", "shop", "shop"], ("team-*", "shop")),
    ("include_namespaces", " team-* , shop,", ("team-*", "shop")),
    ("exclude_namespaces", "", ()),
    ("exclude_namespaces", [], ()),
    ("pod_selector", " env in (prod, test),!canary ", "env in (prod, test),!canary"),
    ("pod_selector", "", ""),
    ("qos_classes", ["guaranteed", "BestEffort"], ("Guaranteed", "BestEffort")),
    ("pod_attributes", "none", ()),
    ("pod_attributes", ["None"], ()),
    ("pod_attributes", [], ()),
    ("pod_attributes", "Workload,IP", ("workload", "ip")),
    ("pod_labels", ["app.kubernetes.io/*", "*"], ("app.kubernetes.io/*", "*")),
    ("cluster_name", "prod / Köln", "prod / Köln"),
]


@pytest.mark.parametrize(("key", "written", "value"), ACCEPTED)
def test_accepted(key: str, written: object, value: object, read: Read) -> None:
    """Each way to write a value that is allowed."""
    assert attribute(read(flags={key: written}), key) == value


# The key, what is written, and what the message has to say of what is allowed.
REFUSED: list[tuple[str, object, str]] = [
    ("k8s_node", "", "kubectl get nodes"),
    ("k8s_node", "${NODE_NAME}", "kubectl get nodes"),
    ("k8s_node", "Node-1", "lower-case letters"),
    ("k8s_node", "a,metadata.name=b", "kubectl get nodes"),
    ("k8s_node", "a" * 254, "kubectl get nodes"),
    ("k8s_node", 5, "kubectl get nodes"),
    ("k8s_api_url", "10.0.0.1:443", "http:// or https://"),
    ("k8s_api_url", "ftp://10.0.0.1", "http:// or https://"),
    ("k8s_api_url", "https://", "http:// or https://"),
    ("k8s_api_url", "https://h:0", "http:// or https://"),
    ("k8s_api_url", "https://h:65536", "http:// or https://"),
    ("k8s_api_url", "https://[::1", "http:// or https://"),
    ("k8s_api_url", "https://h/?a=b", "without a user or a query"),
    ("k8s_api_url", "https://h/#a", "http:// or https://"),
    ("k8s_api_url", "https://a b", "http:// or https://"),
    ("k8s_api_url", "https://h\n.example.com", "http:// or https://"),
    ("k8s_ca_file", "/no/such.crt", "a file that can be read (No such file or directory)"),
    ("k8s_ca_file", "/", "a file that can be read (Is a directory)"),
    ("token_retrieval", "Token", '"auto", "file", "kubeconfig", "kubectl", "none", { file = "path" } or { kubectl = {'),
    ("token_retrieval", {"file": ""}, '{ file = "path" }'),
    ("token_retrieval", {"file": 3}, '{ file = "path" }'),
    ("token_retrieval", {"file": "a", "kubectl": {}}, '{ file = "path" }'),
    ("token_retrieval", '{ file = "a" ', '{ file = "path" }'),
    ("token_retrieval", {"kubectl": {"account": "a"}}, "service_account"),
    ("token_retrieval", {"kubectl": {"service_account": "--kubeconfig=x"}}, "service_account"),
    ("token_retrieval", {"kubectl": {"service_account": "a b"}}, "service_account"),
    ("token_retrieval", {"kubectl": {"namespace": "a.b"}}, "service_account"),
    ("token_retrieval", {"kubectl": {"namespace": 1}}, "service_account"),
    ("poll_interval", "5", "a duration with its unit (ns, us, ms, s, m, h, d)"),
    ("poll_interval", 5, "a duration with its unit (ns, us, ms, s, m, h, d)"),
    ("poll_interval", "", "a duration with its unit"),
    ("poll_interval", "5 parsecs", "a duration with its unit"),
    ("poll_interval", "5s!", "a duration with its unit"),
    ("poll_interval", "-5s", "a duration with its unit"),
    ("poll_interval", "1s30", "a duration with its unit"),
    ("poll_interval", "9ms", "from 10ms to 7d"),
    ("poll_interval", "8d", "from 10ms to 7d"),
    ("poll_interval", "٥s", "a duration with its unit"),
    ("export_interval", True, "a duration with its unit"),
    ("schema", "both", 'a list of "alumet", "semconv", "cadvisor"'),
    ("schema", "none", 'a list of "alumet", "semconv", "cadvisor"'),
    ("schema", "semcon", '"cadvisor"; did you mean "semconv"?'),
    ("schema", [], 'a list of "alumet", "semconv", "cadvisor"'),
    ("metrics", ["cpu", "memroy"], 'did you mean "memory"?'),
    ("metrics", 1, 'a list of "cpu", "memory"'),
    ("metrics", "none", '"network"'),
    ("metrics", ["none"], '"network"'),
    ("qos_classes", "none", '"BestEffort"'),
    ("intervals", {"none": "1m"}, '"network"'),
    ("intervals", {"Memory": "10s", "memory": "20s"}, 'each group once ("memory" is there twice)'),
    ("intervals", "10s", 'such as { memory = "10s" }'),
    ("intervals", {"memory": 10}, "a duration with its unit"),
    ("intervals", {"memroy": "10s"}, 'did you mean "memory"?'),
    ("intervals", {"memory": "1s"}, "at least poll_interval, which is 5s (default)"),
    ("otlp_endpoint", "none", "that only together with scrape, which is not set"),
    ("scrape", "true", "that only together with health_listen, which is not set"),
    ("exclude_containers", ["Istio"], 'such as ["istio-*"]'),
    ("cpu_percent_of", "cpu", '"core", "node"'),
    ("point_attributes", "yes", "true, false"),
    ("point_attributes", 1, "true, false"),
    ("cgroup_root", "", "a path"),
    ("cgroup_root", "/sys\0", "a path"),
    ("pod_source", "file", '"api", "kubelet" or { file = "pods.json" }'),
    ("pod_source", {"file": ["a"]}, '"api", "kubelet" or { file = "pods.json" }'),
    ("kubelet_url", "node:10250", "http:// or https://"),
    ("log_level", "verbose", '"debug", "info", "warning", "error"'),
    ("metric_prefix", "1", "a letter first"),
    ("metric_prefix", "a b", "letters, digits"),
    ("metric_suffix", "é", "letters, digits"),
    ("metric_suffix", "x" * 64, "at most 63"),
    ("queue_bytes", 65535, "from 65536"),
    ("queue_bytes", "16MiBs", "a number of bytes"),
    ("queue_bytes", True, "a number of bytes"),
    ("queue_bytes", -1, "a number of bytes"),
    ("queue_bytes", 2**60, "to 1099511627776"),
    ("queue_bytes", 1e6, "a number of bytes"),
    ("state_file", 1, "a path"),
    ("health_listen", ":8081", '"127.0.0.1:8081" or "8081" for this machine alone'),
    ("health_listen", "::1:8081", "for this machine alone"),
    ("health_listen", "[127.0.0.1]:8081", "for this machine alone"),
    ("health_listen", "example.com:8081", "for this machine alone"),
    ("health_listen", "127.0.0.1:0", "for this machine alone"),
    ("health_listen", "127.0.0.1:65536", "for this machine alone"),
    ("health_listen", "127.0.0.1:²", "for this machine alone"),
    ("health_listen", 0, "for this machine alone"),
    ("health_listen", 65536, "for this machine alone"),
    ("health_listen", -1, "for this machine alone"),
    ("health_listen", True, "for this machine alone"),
    ("health_listen", 8081.0, "for this machine alone"),
    ("otlp_endpoint", 4317, "text"),
    ("otlp_protocol", "http/json", '"grpc", "http/protobuf" (http/json is not spoken here)'),
    ("otlp_protocol", "http", '"grpc", "http/protobuf"'),
    ("otlp_headers", "a=b,Bearer", "(number 2 is none)"),
    ("otlp_headers", "a b=c", "(number 1 is none)"),
    ("otlp_headers", "trace-bin=c", "(number 1 is none)"),
    ("otlp_headers", "a=b%0d%0aX: y", "(number 1 is none)"),
    ("otlp_headers", "a=%ff", "(number 1 is none)"),
    ("otlp_headers", "a=é", "printable ASCII or percent-encoded"),
    ("otlp_headers", {"a": 1}, "(number 1 is none)"),
    ("otlp_headers", 1, '"name=value" pairs'),
    ("otlp_timeout", "10000", "a duration with its unit"),
    ("otlp_timeout", "0s", "from 1ms"),
    ("otlp_compression", "deflate", '"none", "gzip"'),
    ("otlp_certificate", "/no/such.pem", "a file that can be read (No such file or directory)"),
    ("otlp_insecure", "1", "true, false"),
    ("include_namespaces", ["Team-*"], "a list of namespaces or patterns"),
    ("include_namespaces", ["a" * 64], "a list of namespaces or patterns"),
    ("include_namespaces", ["a"] * 101, "a list of namespaces or patterns"),
    ("exclude_namespaces", {"a": "b"}, "a list of namespaces or patterns"),
    ("exclude_namespaces", [1], "a list of namespaces or patterns"),
    ("exclude_namespaces", [["a"]], "a list of namespaces or patterns"),
    ("pod_selector", "app=web,", "a label selector as of `kubectl get pods -l`"),
    ("pod_selector", "app in web", "a label selector as of `kubectl get pods -l`"),
    ("pod_selector", "app>1", "a label selector as of `kubectl get pods -l`"),
    ("pod_selector", ["app=web"], "text"),
    ("qos_classes", ["Best"], '"Guaranteed", "Burstable", "BestEffort"'),
    ("pod_attributes", "workload,uid", '"workload", "qos_class", "priority_class", "ip", "hostname" (or "none")'),
    ("pod_attributes", True, '"workload", "qos_class"'),
    ("pod_labels", ["app kubernetes"], "a list of keys or patterns"),
    ("pod_labels", "[a-z]*", "a list of keys or patterns"),
    ("pod_annotations", 7, "a list of keys or patterns"),
    ("service_attributes", "yes", "true, false"),
    ("cluster_name", "a\nb", "a name of at most 253 characters"),
    ("cluster_name", "a" * 254, "a name of at most 253 characters"),
]


@pytest.mark.parametrize(("key", "written", "allowed"), REFUSED)
def test_refused(key: str, written: object, allowed: str, refused: Refused) -> None:
    """The one line names the key, what was found and where, and what is allowed."""
    message = refused(flags={key: written})
    start, _, end = message.partition("; allowed: ")
    assert "\n" not in message
    assert start.startswith(f"{key}: found ")
    assert start.endswith(f" (flag --{key.replace('_', '-')})")
    assert allowed in end


@pytest.mark.parametrize("key", ["metrics", "qos_classes", "schema", "intervals"])
def test_none_is_offered_only_where_it_means_something(key: str, refused: Refused) -> None:
    """Nothing chosen there is the default, all, or wrong."""
    assert "none" not in refused(flags={key: {"cpuu": "1m"} if key == "intervals" else "cpuu"})


@pytest.mark.parametrize(
    ("key", "written", "secret"),
    [
        ("otlp_headers", "authorization=s3cret,broken", "s3cret"),
        ("otlp_headers", "s3cret", "s3cret"),
        ("k8s_api_url", "https://admin:s3cret@10.0.0.1", "s3cret"),
        ("otlp_endpoint", "https://admin:s3cret/@10.0.0.1:4317", "s3cret"),
        ("otlp_endpoint", "admin:s3cret@10.0.0.1:4317", "s3cret"),
        ("token_retrieval", "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl", "bGciOiJSUzI1NiJ9"),
        ("token_retrieval", {"file": ["eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl"]}, "c2lnbmF0dXJl"),
    ],
)
def test_a_refusal_shows_no_secret(key: str, written: object, secret: str, refused: Refused) -> None:
    """Headers, a password in a URL, a token where its file's path belongs."""
    assert secret not in refused(flags={key: written})


def test_settings_show_no_secret(read: Read) -> None:
    """Neither their text nor their repr has the headers' values."""
    settings = read(flags={"otlp_headers": "authorization=s3cret"})
    assert settings.otlp.headers == (("authorization", "s3cret"),)
    assert "s3cret" not in f"{settings} {settings!r} {settings.otlp!r} {settings.sources}"


def test_a_long_value_is_cut(refused: Refused) -> None:
    """A line of the log stays one that can be read."""
    assert len(refused(flags={"k8s_node": "x" * 5000})) < 300


def test_a_file_that_may_not_be_read_is_refused(refused: Refused, tmp_path: Path) -> None:
    """A loop of links is as good as a missing permission, and fails for root too."""
    loop = tmp_path / "loop.pem"
    loop.symlink_to(loop)
    assert "a file that can be read (Too many levels of symbolic links)" in refused(flags={"k8s_ca_file": str(loop)})


@pytest.mark.parametrize("key", ["k8s_ca_file", "kubelet_ca_file", "otlp_certificate", "otlp_client_key"])
def test_a_pipe_in_place_of_a_file_is_refused(tmp_path: Path, refused: Refused, key: str) -> None:
    """Who opens it would wait for its writer, and no signal would end that."""
    os.mkfifo(tmp_path / "ca.pem")
    assert "a file that can be read (it is a pipe)" in refused(flags={key: str(tmp_path / "ca.pem")})


def test_every_problem_is_told_at_once(refused: Refused) -> None:
    """A line for each key, whatever place it is from."""
    message = refused(
        "k8s_node = ''", environ={"OTEL_K8S_CGROUP_QUEUE_BYTES": "3"}, flags={"poll_interval": "5", "schema": "both"}
    )
    assert [line.partition(":")[0] for line in message.split("\n")] == [
        "k8s_node", "poll_interval", "schema", "queue_bytes",
    ]  # fmt: skip


# --- properties -----------------------------------------------------------------------------------------------------

toml_values = st.recursive(
    st.text() | st.integers() | st.booleans() | st.floats() | st.datetimes(timezones=st.just(UTC)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=5,
)
written_values = (
    toml_values
    | st.sampled_from([text for pair in SAMPLES.values() for text in pair])
    | st.builds(lambda name, inner: {name: inner}, st.sampled_from(["file", "kubectl", "x"]), toml_values)
)


def problem(flags: Mapping[str, object] = {}, environ: Mapping[str, str] = {}) -> SettingsError | None:
    """What is refused, if anything; whatever else is raised fails the test."""
    try:
        load(flags=flags, environ=environ, config_file=None, hostname=lambda: "host")
    except SettingsError as error:
        return error
    return None


@given(key=st.sampled_from(list(SAMPLES)), written=written_values)
def test_any_value_is_taken_or_refused_in_one_line(key: str, written: object) -> None:
    """Whatever is written, nothing but a SettingsError comes of it, and that names the key."""
    error = problem(flags={key: written})
    assert error is None or error.key in (key, "otlp_client_key", "otlp_client_certificate")  # the last two go together
    assert str(error).isprintable()


@given(st.dictionaries(st.text(st.characters(codec="utf-8")), st.text()))
def test_any_environment_is_taken_or_refused(environ: dict[str, str]) -> None:
    """Also one that nobody meant for us."""
    names = {f"{prefix}{name}": text for name, text in environ.items() for prefix in ("", "OTEL_EXPORTER_OTLP_")}
    assert str(problem(environ=names)).replace("\n", "").isprintable()


@given(st.timedeltas(10 * MS, timedelta(days=7)))
def test_durations_are_read_as_they_are_written(value: timedelta) -> None:
    """To the microsecond."""
    assert duration(10 * MS, timedelta(days=7))(duration_text(value)) == value


@given(st.text("0123456789.smhd uMinµ-e_", max_size=30))
def test_a_duration_is_within_its_bounds_or_refused(text: str) -> None:
    """Texts made of its own letters are the likeliest to slip through."""
    with contextlib.suppress(ValueError):
        assert 10 * MS <= duration(10 * MS, timedelta(days=7))(text) <= timedelta(days=7)


@given(st.integers(0, 2**30), st.sampled_from([("", 1), ("KiB", 1024), ("MB", 10**6), ("Gi", 2**30), ("tib", 2**40)]))
def test_sizes_are_a_number_times_its_unit(number: int, unit: tuple[str, int]) -> None:
    """Exactly, for these are bytes."""
    assert size(0, 2**80)(f"{number} {unit[0]}") == number * unit[1]


@given(
    st.dictionaries(st.from_regex(r"[a-z0-9_-]{0,20}[a-m]", fullmatch=True), st.from_regex(r"[ -~]*", fullmatch=True))
)
def test_headers_are_read_as_they_are_encoded(found: dict[str, str]) -> None:
    """Every printable value survives its percent-encoding, but for space around it."""
    text = ",".join(f"{name}={quote(value, safe='')}" for name, value in found.items())
    assert dict(headers(text)) == {name: value.strip() for name, value in found.items()}


@given(st.text())
def test_headers_never_break_a_request(text: str) -> None:
    """What is taken can be sent: names in lower case, values printable ASCII."""
    with contextlib.suppress(ValueError):
        for name, value in headers(text):
            assert name == name.strip().lower() != ""
            assert value.isascii()
            assert value == "" or value.isprintable()


def test_dates_are_no_values(refused: Refused) -> None:
    """TOML has them, no setting has."""
    value: Any = datetime(2026, 1, 1, tzinfo=UTC)
    assert "a path" in refused(flags={"state_file": value})


def test_what_is_chosen_and_what_is_wanted(read: Read) -> None:
    """The settings as the watcher takes them; by default all pods, and their workload."""
    plain = read().plain()
    assert (plain.choice, plain.wanted) == (Choice(), Wanted(attributes=frozenset({"workload"})))
    plain = read(
        'include_namespaces = ["team-*"]\nexclude_namespaces = ["team-x"]\npod_selector = "app"\n'
        'qos_classes = ["Burstable"]\npod_attributes = []\npod_labels = ["a"]\npod_annotations = ["b"]\n'
        "service_attributes = true"
    ).plain()
    assert plain.choice == Choice(("team-*",), ("team-x",), "app", ("Burstable",))
    assert plain.wanted == Wanted(labels=("a",), annotations=("b",), service=True)


def test_the_clusters_name_is_one_of_every_resource(read: Read) -> None:
    """It wins over that of OTEL_RESOURCE_ATTRIBUTES, and leaves the others as they are."""
    environ = {"OTEL_RESOURCE_ATTRIBUTES": "k8s.cluster.name=old,team=a"}
    named = dict(read('cluster_name = "${REGION}-1"', environ=environ | {"REGION": "eu"}).plain().resource_attributes)
    assert named == {"k8s.cluster.name": "eu-1", "team": "a"}
    assert dict(read(environ=environ).plain().resource_attributes) == {"k8s.cluster.name": "old", "team": "a"}


def test_variables_stand_in_lists_too(read: Read) -> None:
    """As in any string of the file."""
    settings = read('include_namespaces = ["${TEAM}-*"]', environ={"TEAM": "shop"})
    assert settings.include_namespaces == ("shop-*",)
