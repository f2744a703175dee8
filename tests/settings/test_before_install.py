"""Settings for ``check --pre``: on a machine outside the cluster, with its user's kubeconfig and nothing of the pod."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import yaml

from otel_k8s_cgroup.errors import SettingsError
from otel_k8s_cgroup.model import TokenRetrieval
from otel_k8s_cgroup.settings import Settings, load

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SECRET = "s3cret-token-of-this-test"


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Settings]:
    """Reads ``file``, flags and variables on a laptop whose name no node may have."""

    def read(file: str | None = None, flags: dict[str, object] | None = None, **environ: str) -> Settings:
        config = tmp_path / "config.toml"
        config.write_text(file or "")
        return load(
            flags=flags or {},
            environ={"HOME": str(tmp_path)} | environ,
            config_file=str(config),
            hostname=lambda: "My_Laptop",
            service_account_dir=tmp_path,
            before_install=True,
        )

    return read


def write(path: Path, *contexts: str, current: str = "") -> str:
    """A kubeconfig with these contexts, of clusters at https://<context>."""
    content = {
        "current-context": current,
        "contexts": [{"name": name, "context": {"cluster": name, "user": "me"}} for name in contexts],
        "clusters": [{"name": name, "cluster": {"server": f"https://{name}"}} for name in contexts],
        "users": [{"name": "me", "user": {"token": SECRET}}],
    }
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(content))
    return str(path)


def test_the_users_kubeconfig(read: Callable[..., Settings], tmp_path: Path) -> None:
    """~/.kube/config, and $KUBECONFIG before it, with where each is from; before a pod's own API, as kubectl has it."""
    home = write(tmp_path / ".kube/config", "home", current="home")
    settings = read()
    assert (settings.k8s_api_url, settings.k8s_access.token) == ("https://home", SECRET)
    assert (settings.k8s_kubeconfig, settings.sources["k8s_kubeconfig"]) == (home, "~/.kube/config")
    named = write(tmp_path / "named.yaml", "named", current="named")
    settings = read(KUBECONFIG=named, KUBERNETES_SERVICE_HOST="10.96.0.1")
    assert (settings.k8s_api_url, settings.sources["k8s_kubeconfig"]) == ("https://named", "environment KUBECONFIG")


def test_flags_about_the_kubeconfig(read: Callable[..., Settings], tmp_path: Path) -> None:
    """They are about the one that is taken, as if k8s_kubeconfig had been set."""
    write(tmp_path / ".kube/config", "a", "b", current="a")
    assert read(flags={"k8s_context": "b"}).k8s_api_url == "https://b"
    assert read(flags={"token_retrieval": "kubeconfig"}).k8s_access.token == SECRET
    assert read(flags={"token_retrieval": "none"}).token_retrieval == TokenRetrieval("none")


def test_a_setting_that_says_where_the_api_is_comes_first(read: Callable[..., Settings], tmp_path: Path) -> None:
    """Then no kubeconfig is read; nor where the API is not asked."""
    (tmp_path / ".kube").mkdir()
    (tmp_path / ".kube/config").write_text("no: kubeconfig")
    assert read("k8s_api_url = 'http://127.0.0.1:8080'").k8s_kubeconfig is None
    assert read("k8s_kubeconfig = ''").k8s_kubeconfig is None
    assert read("pod_source = 'kubelet'").k8s_kubeconfig is None


def test_several_files(read: Callable[..., Settings], tmp_path: Path) -> None:
    """The first that has the context; that is the first current-context, unless k8s_context says another."""
    a = write(tmp_path / "a", "a")
    b = write(tmp_path / "b", "b", "shared", current="c")
    c = write(tmp_path / "c", "c", "shared", current="b")
    several = f"{a}:{tmp_path / 'none'}:{b}:{c}"
    settings = read(KUBECONFIG=several)
    assert (settings.k8s_kubeconfig, settings.k8s_context) == (c, "c")
    assert read(flags={"k8s_context": "shared"}, KUBECONFIG=several).k8s_kubeconfig == b
    with pytest.raises(SettingsError, match="KUBECONFIG: none of its 3 files has a context x"):
        read(flags={"k8s_context": "x"}, KUBECONFIG=several)
    with pytest.raises(SettingsError, match="it has no current-context"):
        read(KUBECONFIG=f"{a}:{a}")


def test_files_that_are_no_kubeconfig(read: Callable[..., Settings], tmp_path: Path) -> None:
    """Each is named; none is passed over in silence."""
    with pytest.raises(SettingsError, match=f"KUBECONFIG: no such file: {tmp_path}/x, {tmp_path}/y"):
        read(KUBECONFIG=f"{tmp_path}/x:{tmp_path}/y")
    good = write(tmp_path / "good", "a", current="a")
    (tmp_path / "bad").write_text("[")
    with pytest.raises(SettingsError, match=f"KUBECONFIG: {tmp_path}/bad: it is no YAML"):
        read(KUBECONFIG=f"{tmp_path}/bad:{good}")
    (tmp_path / "bad").write_text("")  # as an empty file is for kubectl
    assert read(KUBECONFIG=f"{tmp_path}/bad:{good}").k8s_api_url == "https://a"


def test_a_name_that_no_node_may_have(read: Callable[..., Settings]) -> None:
    """Nothing that is tried needs one."""
    settings = read()
    assert ("Laptop" in settings.k8s_node, settings.sources["k8s_node"]) == (False, "default")
    assert read(NODE_NAME="node-2").k8s_node == "node-2"
    assert read(flags={"k8s_node": "node-1"}).k8s_node == "node-1"


# As deploy/chart renders it.
OF_THE_POD = """
cgroup_root = "/host/sys/fs/cgroup"
k8s_node = "${NO_NODE_NAME}"
otlp_certificate = "/etc/otel-k8s-cgroup/none/ca.crt"
otlp_client_certificate = "/etc/otel-k8s-cgroup/none/tls.crt"
otlp_client_key = "/dev/null"
otlp_headers = { authorization = "Bearer ${NO_TOKEN}" }
otlp_endpoint = "https://otel-collector:4317"
health_listen = "${NO_IP}:8081"
scrape = true
token_retrieval = { file = "/var/run/secrets/none/token" }
k8s_ca_file = ""
"""


def test_what_only_the_pod_has(read: Callable[..., Settings], tmp_path: Path) -> None:
    """Is left at its default, with the reason; the kubeconfig's user asks instead of the pod's."""
    write(tmp_path / ".kube/config", "a", current="a")
    settings = read(OF_THE_POD)
    assert settings.absent == {
        "k8s_node": "NO_NODE_NAME is not set",
        "otlp_headers": "NO_TOKEN is not set",
        "health_listen": "NO_IP is not set",
        "otlp_certificate": "/etc/otel-k8s-cgroup/none/ca.crt is not on this machine",
        "otlp_client_certificate": "/etc/otel-k8s-cgroup/none/tls.crt is not on this machine",
        "otlp_client_key": "the other of the pair is not there",
        "token_retrieval": "/var/run/secrets/none/token is not on this machine",
    }
    assert settings.sources["otlp_certificate"] == "default"
    assert settings.k8s_access.token == SECRET
    assert settings.otlp.endpoint == "https://otel-collector:4317"


def test_what_flags_and_variables_name_has_to_be_there(read: Callable[..., Settings]) -> None:
    """They were given for this machine; and they take the place of what the file lacks."""
    with pytest.raises(SettingsError, match=r"otlp_certificate: .*No such file"):
        read(OTEL_EXPORTER_OTLP_CERTIFICATE="/no/such.crt")
    assert "otlp_headers" not in read(OF_THE_POD, flags={"otlp_headers": "a=b"}).absent


def test_without_it_all_of_that_is_refused(tmp_path: Path) -> None:
    """`run` has no excuse."""
    (tmp_path / "config.toml").write_text(OF_THE_POD)
    with pytest.raises(SettingsError) as caught:
        load(flags={}, environ={}, config_file=str(tmp_path / "config.toml"))
    assert [line.partition(":")[0] for line in str(caught.value).split("\n")] == [
        "k8s_node",
        "otlp_headers",
        "health_listen",
    ]
