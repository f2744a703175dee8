"""The configuration file: ours, Alumet's, and what may be wrong with either."""

from __future__ import annotations

import logging
import os
import threading
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from otel_k8s_cgroup.errors import SettingsError
from otel_k8s_cgroup.model import TokenRetrieval
from otel_k8s_cgroup.settings import load

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Read, Refused

ALUMET = """
max_update_interval = "500ms"
source_channel_size = 2048

[plugins.rapl]
poll_interval = "1s"
secret = "${NOT_SET}"

[plugins.k8s]
enabled = true
k8s_node = "node-1"
token_retrieval.file = "/t"
disable_sources = false
annotate_foreign_measurements = true
annotate_containers = true

[plugins.opentelemetry]
collector_host = "http://collector:4317"
prefix = "p_"
suffix = "_alumet"
use_unit_display_name = true
add_attributes_to_labels = true

[relay]
x = 1
"""


def test_an_alumet_file(read: Read, config_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Ours of it is taken, the rest is passed over with one line that names it (and its variables need not be set)."""
    caplog.set_level(logging.INFO)
    found = read(ALUMET)
    assert (found.k8s_node, found.token_retrieval) == ("node-1", TokenRetrieval("file", file="/t"))
    assert (found.metric_prefix, found.metric_suffix, found.point_attributes) == ("p_", "_alumet", True)
    assert (found.otlp.protocol, found.otlp.endpoint) == ("grpc", "http://collector:4317")
    assert found.sources["k8s_node"] == f"file {config_file}, [plugins.k8s]"
    assert found.sources["otlp_endpoint"] == f"file {config_file}, [plugins.opentelemetry] collector_host"
    passed_over = (
        "max_update_interval, source_channel_size, [relay], [plugins.rapl], "
        "[plugins.k8s] enabled, [plugins.k8s] disable_sources, "
        "[plugins.k8s] annotate_foreign_measurements, [plugins.k8s] annotate_containers, "
        "[plugins.opentelemetry] use_unit_display_name, [plugins.opentelemetry] add_attributes_to_labels"
    )
    assert caplog.record_tuples == [
        (
            "otel_k8s_cgroup.settings.file",
            logging.INFO,
            f"{config_file}: passed over, for it is Alumet's alone: {passed_over}",
        )
    ]


def test_a_file_of_ours_logs_nothing(read: Read, caplog: pytest.LogCaptureFixture) -> None:
    """Nor does one whose keys all stand in [plugins.k8s]."""
    caplog.set_level(logging.INFO)
    assert read('poll_interval = "1s"').poll_interval == timedelta(seconds=1)
    assert read('[plugins.k8s]\npoll_interval = "1s"').poll_interval == timedelta(seconds=1)
    assert read("").poll_interval == timedelta(seconds=5)
    assert not caplog.records


def test_keys_at_both_places(read: Read) -> None:
    """Each key where its author likes it."""
    found = read('log_level = "debug"\n[plugins.k8s]\nk8s_node = "a"\nstate_file = "/s"')
    assert (found.log_level, found.k8s_node, found.state_file) == ("debug", "a", "/s")


@pytest.mark.parametrize(
    ("file", "key"),
    [
        ('k8s_node = "a"\n[plugins.k8s]\nk8s_node = "a"', "k8s_node"),
        ('otlp_endpoint = "a:1"\n[plugins.opentelemetry]\ncollector_host = "b:1"', "otlp_endpoint"),
        ('metric_suffix = "a"\n[plugins.opentelemetry]\nsuffix = "b"', "metric_suffix"),
        ("point_attributes = true\n[plugins.opentelemetry]\nadd_attributes_to_labels = false", "point_attributes"),
    ],
)
def test_a_key_given_twice_is_refused(file: str, key: str, refused: Refused, config_file: Path) -> None:
    """Also where both say the same, for tomorrow only one of them will be changed."""
    message = refused(file)
    assert message.startswith(f"{key}: given twice (file {config_file}; file {config_file}, [plugins.")
    assert message.endswith("; keep one")


def test_alumets_attributes_switch_is_ours(read: Read, refused: Refused) -> None:
    """false is point_attributes = false, true leaves the choice to us, and what is neither is refused."""
    table = "[plugins.opentelemetry]\nadd_attributes_to_labels = "
    assert read(table + "false").point_attributes is False
    assert read("point_attributes = false\n" + table + "true").point_attributes is False
    assert refused(table + "2").endswith("[plugins.opentelemetry] add_attributes_to_labels); allowed: true, false")


@pytest.mark.parametrize(("host", "protocol"), [("http://c:4318", "grpc"), ("http://c:4317", "grpc")])
def test_alumets_collector_speaks_grpc(host: str, protocol: str, read: Read) -> None:
    """Whatever its port, for Alumet knows no other; unless our key says so."""
    file = f'[plugins.opentelemetry]\ncollector_host = "{host}"\n'
    assert read(file).otlp.protocol == protocol
    target = read(file + '[plugins.k8s]\notlp_protocol = "http/protobuf"').otlp
    assert (target.protocol, target.endpoint) == ("http/protobuf", f"{host}/v1/metrics")


def test_an_output_that_alumet_has_switched_off_says_nothing(read: Read) -> None:
    """``enabled = false`` (or ``enable``) takes the whole table out, as in Alumet."""
    assert read('[plugins.opentelemetry]\nenabled = false\nsuffix = "_alumet"').metric_suffix == ""


@pytest.mark.parametrize(
    ("file", "start", "nearest"),
    [
        ('pol_interval = "5s"', "pol_interval: unknown setting (file {})", "poll_interval"),
        ('[plugins.k8s]\nk8s_nod = "a"', "k8s_nod: unknown setting (file {}, [plugins.k8s])", "k8s_node"),
        ("pol_interval = 1\n[plugins.x]\na = 1", "pol_interval: unknown setting (file {})", "poll_interval"),
        ('[plugins.opentelemetry]\nsufix = ""', "sufix: unknown setting (file {}, [plugins.opentelemetry])", "suffix"),
        ("[token_retreival]\nfile = 1", "token_retreival: unknown setting (file {})", "token_retrieval"),
        ("sources = {}", "sources: unknown setting (file {})", "pod_source"),
        ('[plugin.k8s]\nk8s_node = "a"', "plugin: unknown setting (file {})", "plugins"),
        ("[Plugins.k8s]", "Plugins: unknown setting (file {})", "plugins"),
        ('"poll\\ninterval" = 1', "'poll\\ninterval': unknown setting (file {})", "poll_interval"),
    ],
)
def test_an_unknown_key_is_refused(file: str, start: str, nearest: str, refused: Refused, config_file: Path) -> None:
    """One line that names the key, the file, and the nearest known key."""
    assert refused(file) == f"{start.format(config_file)}; the nearest known one is {nearest}"


@pytest.mark.parametrize(
    ("line", "allowed"),
    [
        ("disable_sources = true", "found true"),
        ('disable_sources = "no"', "found 'no'"),
        ("enabled = false", "found false"),
        ("enable = false", "found false"),
    ],
)
def test_a_plugin_that_is_not_to_measure_is_refused(
    line: str, allowed: str, refused: Refused, config_file: Path
) -> None:
    """Alumet would measure nothing; to pass that over would measure all the same."""
    key, _, _ = line.partition(" ")
    message = refused(f"[plugins.k8s]\n{line}")
    assert message.startswith(f"plugins.k8s.{key}: {allowed} (file {config_file}, [plugins.k8s]); allowed: ")
    assert message.endswith("(to measure nothing, do not run the exporter: it does nothing else)")


def test_every_unknown_key_is_told_at_once(refused: Refused) -> None:
    """A line for each."""
    message = refused('a = 1\nb = 2\n[plugins.k8s]\nc = 3\nstate_file = "${NOT_SET}"')
    assert [line.partition(":")[0] for line in message.split("\n")] == ["a", "b", "c", "state_file"]


@pytest.mark.parametrize(("file", "key"), [("plugins = 3", "plugins"), ("[plugins]\nk8s = 3", "plugins.k8s")])
def test_plugins_are_tables(file: str, key: str, refused: Refused, config_file: Path) -> None:
    """As in an Alumet file."""
    assert refused(file) == f"{key}: found 3 (file {config_file}); allowed: a table, as in an Alumet file"


# --- ${NAME} --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "read_as"),
    [
        ('"${A}"', "one"),
        ('"/${A}/${B_2}/"', "/one/${A}/"),  # what a variable holds is not looked at again
        (r"'\${A}'", "${A}"),
        (r'"\\${A}"', "${A}"),
        (r'"\${A}"', "${A}"),  # a wrong escape to TOML, but the way Alumet has it
        ('"$A ${A}"', "$A one"),
        ('"a$"', "a$"),
        ('"""${A}"""', "one"),
    ],
)
def test_variables_are_replaced(written: str, read_as: str, read: Read) -> None:
    """In every kind of string, once."""
    assert read(f"state_file = {written}", environ={"A": "one", "B_2": "${A}"}).state_file == read_as


def test_variables_are_replaced_within_tables(read: Read) -> None:
    """A header's token is kept in a variable."""
    file = 'otlp_headers = { authorization = "Bearer ${TOKEN}" }\ntoken_retrieval.file = "${DIR}/token"'
    found = read(file, environ={"TOKEN": "x", "DIR": "/run"})
    assert found.otlp.headers == (("authorization", "Bearer x"),)
    assert found.token_retrieval.file == "/run/token"


@pytest.mark.parametrize(
    ("written", "found", "allowed"),
    [
        ('"${NOT_SET}"', "'${NOT_SET}'", "environment variables that are set; NOT_SET is not: set it"),
        ('"${}"', "'${}'", "${NAME} for an environment variable, and \\${ for a plain ${"),
        ('"${A-B}"', "'${A-B}'", "${NAME} for an environment variable"),
        ('"x${A"', "'x${A'", "${NAME} for an environment variable"),
        (r"'\${A}${NOT_SET}'", r"'\\${A}${NOT_SET}'", "NOT_SET is not"),
    ],
)
def test_a_variable_that_is_not_set_is_refused(written: str, found: str, allowed: str, refused: Refused) -> None:
    """With its name and the key's."""
    message = refused(f"state_file = {written}", environ={"A": "1"})
    assert message.startswith(f"state_file: found {found} (file ")
    assert allowed in message


def test_a_variable_set_to_nothing_is_nothing(refused: Refused) -> None:
    """It is set, so it is replaced; what comes of it is refused for what it is."""
    assert refused('k8s_node = "${EMPTY}"', environ={"EMPTY": ""}).startswith("k8s_node: found ''")


def test_flags_and_environment_are_taken_as_they_are(refused: Refused) -> None:
    """A shell has replaced its variables already."""
    message = refused(flags={"k8s_node": "${A}"}, environ={"A": "a", "OTEL_K8S_CGROUP_METRIC_PREFIX": "${A}"})
    assert "k8s_node: found '${A}'" in message
    assert "metric_prefix: found '${A}'" in message


# --- files that are none --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b'k8s_node = "a', "not TOML: "),
        (b"a = 1\nb =", "at line 2, the end of the file"),
        (b"a = 1\nb = [\n", "at line 3, the end of the file"),
        (b"k8s_node = 'a'\nk8s_node 'b'", "(at line 2, column 10)"),
        (b"k8s_node = 'a'\nk8s_node = 'b'\n", "(at line 2, column 15)"),
        (b"k8s_node = 'a'\n# \xff\xfe", "line 2: not UTF-8, which TOML is written in"),
        (b"a = " + b"[" * 5000 + b"]" * 5000, ""),
        (b"a = " + b"9" * 5000, ""),
        (b"#" * (1 << 20) + b"\n", "no configuration file is larger than 1048576 bytes"),
    ],
)
def test_what_is_no_toml_is_refused(content: bytes, problem: str, refused: Refused, config_file: Path) -> None:
    """One line with the file, and the line in it where there is one."""
    message = refused(content)
    assert message.startswith(f"{config_file}: ")
    assert problem in message
    assert "\n" not in message


def test_a_file_from_windows_is_read(read: Read) -> None:
    """With its byte order mark and line ends."""
    assert read(b'\xef\xbb\xbfk8s_node = "a"\r\nlog_level = "debug"\r\n').k8s_node == "a"


ALUMET_DOCUMENTED = """
token_retrieval.kubectl = {
    service_account = "alumet-reader"
    namespace = "alumet"
}
"""


@pytest.mark.parametrize(
    "file",
    [
        ALUMET_DOCUMENTED,
        "[plugins.k8s]" + ALUMET_DOCUMENTED,
        ALUMET_DOCUMENTED.replace('reader"', 'reader",'),
        ALUMET_DOCUMENTED.replace("\n", "\r\n"),
        ALUMET_DOCUMENTED.replace("token_retrieval", "plugins.k8s.token_retrieval"),
    ],
)
def test_alumets_documented_table_is_refused_with_the_way_to_write_it(file: str, refused: Refused) -> None:
    """Alumet's documentation writes what no TOML parser takes."""
    message = refused(file)
    assert "\n" not in message
    assert "(at line " in message
    assert message.endswith(
        "; an inline table stands on one line with commas: "
        'token_retrieval.kubectl = { service_account = "alumet-reader", namespace = "alumet" }'
    )


def test_the_way_to_write_it_is_taken(read: Read, refused: Refused) -> None:
    """What the error above says is read as it is meant."""
    corrected = refused(ALUMET_DOCUMENTED).partition("commas: ")[2]
    assert read(corrected).token_retrieval == TokenRetrieval("kubectl")


def test_other_tables_over_several_lines_are_refused_without_their_values(refused: Refused) -> None:
    """The hint never repeats what may be a secret."""
    message = refused('otlp_headers = {\n  authorization = "s3cret"\n}\n')
    assert "s3cret" not in message
    assert message.endswith('with commas: otlp_headers = { name = "value", other = "value" }')


def test_a_file_that_is_not_there_is_refused() -> None:
    """One line; also for a directory, a name no file can have, and a loop."""
    for path, reason in [
        ("/no/such.toml", "No such file or directory"),
        ("/", "Is a directory"),
        ("a\0b", "embedded null byte"),
        ("/etc/passwd/x", "Not a directory"),
    ]:
        with pytest.raises(SettingsError) as caught:
            load(flags={}, environ={}, config_file=path, hostname=lambda: "host")
        assert str(caught.value).endswith(f": cannot read the configuration file: {reason}")
        assert str(caught.value).isprintable()


def test_a_pipe_is_read(tmp_path: Path) -> None:
    """``--config <(…)`` of a shell."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    writer = threading.Thread(target=fifo.write_text, args=('k8s_node = "piped"',))
    writer.start()
    found = load(flags={}, environ={}, config_file=str(fifo), hostname=lambda: "host")
    writer.join()
    assert found.k8s_node == "piped"


# --- properties -----------------------------------------------------------------------------------------------------

PIECES = [
    "[plugins.k8s]\n", "[plugins.opentelemetry]\n", "[plugins]\n", "k8s_node = ", "token_retrieval = {", "}", "\n",
    "poll_interval = ", '"5s"', '"${A}"', '"\\${"', "'", '"', "collector_host", "=", "3", "[[", "]]", "# ", ",", "\\",
]  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # the file is written anew each time
@given(st.binary(max_size=200) | st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=20).map("".join))
def test_any_file_is_taken_or_refused(config_file: Path, content: bytes | str) -> None:
    """Nothing but a SettingsError comes of it, and each of its lines is one."""
    config_file.write_bytes(content if isinstance(content, bytes) else content.encode(errors="surrogatepass"))
    try:
        load(flags={}, environ={"A": "a"}, config_file=str(config_file), hostname=lambda: "host")
    except SettingsError as error:
        message = str(error)
    else:
        message = ""
    assert message.replace("\n", "").isprintable()
    assert all(": " in line for line in message.splitlines())
