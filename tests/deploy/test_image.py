"""The image, assembled without an engine, and the program in it as a kubelet would start it."""

from __future__ import annotations

import json
import re
import shutil
import ssl
import sys
import tarfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
import trustme

from deploy.image import engine
from otel_k8s_cgroup import __version__
from tests import otlp
from tests.cluster.layout import EXPORTER_IMAGE
from tests.deploy.files import container
from tests.fakes import kube_api
from tests.fakes.cgroup_tree import CgroupTree, Figures
from tests.fakes.otlp_receiver import OtlpReceiver
from tests.kernel import sandbox
from tests.programs import PATIENCE_SECONDS, started

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.programs import Program

NODE = "worker-7.example.com"
LARGEST_BYTES = 90_000_000
SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"

pytestmark = pytest.mark.skipif(engine.why_not() is not None, reason=str(engine.why_not()))


@dataclass(frozen=True, slots=True)
class Image:
    """An image, unpacked."""

    root: Path
    config: dict[str, Any]
    files: frozenset[str]
    size_bytes: int


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """By what an OCI image layout says of itself, from its index on."""
    directory = tmp_path_factory.mktemp("image")
    layout, root = directory / "layout", directory / "root"
    with tarfile.open(engine.kept_image(EXPORTER_IMAGE)) as tar:
        tar.extractall(layout, filter="data")
    assert json.loads((layout / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    (described,) = json.loads((layout / "index.json").read_text())["manifests"]
    assert described["annotations"]["io.containerd.image.name"] == EXPORTER_IMAGE
    manifest = json.loads(blob(layout, described).read_text())
    config = json.loads(blob(layout, manifest["config"]).read_text())
    (layer,) = manifest["layers"]
    assert config["rootfs"]["diff_ids"] == [layer["digest"]]
    root.mkdir(mode=0o755)
    with tarfile.open(blob(layout, layer)) as tar:
        members = tar.getmembers()
        tar.extractall(root, filter="tar")
    assert {(each.uid, each.gid, each.mtime) for each in members} == {(0, 0, 0)}
    yield Image(root, config, frozenset(each.name for each in members), sum(each.size for each in members))
    shutil.rmtree(directory)


def blob(layout: Path, described: dict[str, Any]) -> Path:
    """The file that a descriptor is of."""
    path: Path = layout / "blobs" / described["digest"].replace(":", "/")
    assert path.stat().st_size == described["size"]
    return path


def test_it_is_small_and_has_nothing_that_run_does_not_need(image: Image) -> None:
    """No shell, no pip, no package manager, no tests, and no program that is another user's."""
    assert image.size_bytes < LARGEST_BYTES
    names = {Path(name).name for name in image.files}
    assert not names & {
        "sh",
        "bash",
        "dash",
        "busybox",
        "pip",
        "apt",
        "dpkg",
        "rich",
        "pytest",
        "setuptools",
        "ensurepip",
    }
    programs = {name for name in image.files if "/bin/" in name and not name.startswith("opt/otel-k8s-cgroup/")}
    assert all(Path(name).name.startswith("python") for name in programs)
    assert not [path for path in image.root.rglob("*") if not path.is_symlink() and path.stat().st_mode & 0o6000]
    sources = [name for name in image.files if name.endswith(".py")]
    compiled = [name for name in image.files if name.endswith(".pyc")]
    assert len(compiled) == pytest.approx(len(sources), rel=0.01)  # a read-only root is never compiled for


def test_it_says_what_it_is(image: Image) -> None:
    """OCI's labels, with the program's version and the commit; the user is the DaemonSet's."""
    config, labels = image.config["config"], image.config["config"]["Labels"]
    context = container().pod["securityContext"]
    assert config["User"] == f"{context['runAsUser']}:{context['runAsGroup']}"
    assert (config["Entrypoint"], config["Cmd"]) == (["otel-k8s-cgroup"], ["run"])
    prefix = "org.opencontainers.image."
    assert labels[f"{prefix}version"] == __version__
    assert labels[f"{prefix}licenses"] == "Apache-2.0"
    assert labels.keys() == {
        prefix + name for name in ("title", "description", "licenses", "version", "revision", "base.name")
    }


@contextmanager
def contained(
    image: Image, words: Sequence[str], environ: dict[str, str], mounts: dict[str, tuple[Path, bool]]
) -> Iterator[Program]:
    """A program of the image; ``mounts`` are path → (source, read-only)."""
    of_image = dict(line.split("=", 1) for line in image.config["config"]["Env"])
    spec = {
        "root": str(image.root),
        "mounts": [[str(source), path, read_only] for path, (source, read_only) in mounts.items()],
        "uid": container().pod["securityContext"]["runAsUser"],
        "environ": of_image | environ,
        "argv": list(words),
    }
    with started(["unshare", "--mount", sys.executable, "-m", "tests.deploy.contain", json.dumps(spec)]) as program:
        yield program


IMPORT_ALL = """
import importlib, pkgutil, otel_k8s_cgroup
for each in pkgutil.walk_packages(otel_k8s_cgroup.__path__, "otel_k8s_cgroup."):
    if not each.name.startswith("otel_k8s_cgroup.demo") and not each.name.endswith("__main__"):
        importlib.import_module(each.name)
print("all of them")
"""


def test_every_module_but_the_demos_can_be_imported(image: Image) -> None:
    """Nothing of the standard library or of a package is left out that one of them needs."""
    with contained(image, ["python", "-W", "error", "-c", IMPORT_ALL], {}, {}) as program:
        assert program.wait() == 0, program.output
    assert program.lines[-1] == "all of them"


SYSTEMS_CAS = """
import ssl
from otel_k8s_cgroup.export.grpc import _system_roots
roots = _system_roots()
print(len(ssl.create_default_context().get_ca_certs()), len(ssl.create_default_context(cafile=roots).get_ca_certs()))
"""


def test_it_has_the_systems_certificates(image: Image) -> None:
    """For HTTP, which asks OpenSSL, and for gRPC, which is given their file: those that the base image has."""
    with contained(image, ["python", "-c", SYSTEMS_CAS], {}, {}) as program:
        assert program.wait() == 0, program.output
    over_http, over_grpc = map(int, program.lines[-1].split())
    assert over_http == over_grpc > 0


def test_it_looks_hosts_up_as_a_kubelet_writes_them(image: Image, tmp_path: Path) -> None:
    """/etc/hosts comes first, as `hostAliases` of a pod need it."""
    hosts = tmp_path / "hosts"
    hosts.write_text("192.0.2.7 collector.test\n")
    program = "import socket; print(socket.getaddrinfo('collector.test', 80)[0][4][0])"
    with contained(image, ["python", "-c", program], {}, {"/etc/hosts": (hosts, True)}) as looking_up:
        assert looking_up.wait() == 0, looking_up.output
    assert looking_up.lines == ["192.0.2.7"]


@contextmanager
def measured(directory: Path) -> Iterator[tuple[Path, str, str]]:
    """A cgroup root with a pod in it, real where one can be made: where it is, the pod's uid, another pod's uid."""
    if sandbox.why_not() is None:
        with sandbox.sandbox() as real:
            yield sandbox.ROOT, real.pod().uid, real.pod().uid
    else:
        tree = CgroupTree(directory)
        for uid in ("uid-here", "uid-elsewhere"):
            tree.write(uid, Figures(anon=1))
        yield directory, "uid-here", "uid-elsewhere"


def answers_ok(url: str) -> bool:
    """Within the patience of a test: the answer to an export may be still on its way."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if requests.get(url, timeout=5).ok:
            return True
        time.sleep(0.05)
    return False


def test_it_runs_as_a_kubelet_starts_it(image: Image, tmp_path: Path) -> None:
    """With the DaemonSet's user, arguments, mounts and environment alone, on a read-only root and without a capability,
    it ships the pods of its node by the cluster's own API, and ends in order; so does a command beside it.
    """
    spec, entrypoint = container(), image.config["config"]["Entrypoint"]
    places = spec.lay_out(tmp_path / "node")
    places["/var/lib/otel-k8s-cgroup"].chmod(0o777)  # as an emptyDir is
    mounts = {path: (places[path], bool(mount.get("readOnly"))) for path, mount in spec.mounts.items()}
    account = tmp_path / "account"
    account.mkdir()
    ca, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    ca.cert_pem.write_to_path(account / "ca.crt")
    (account / "token").write_text("of-the-account")
    with (
        measured(tmp_path / "cgroups") as (root, here, elsewhere),
        kube_api.KubeApi(tls=context, token="of-the-account") as api,
        OtlpReceiver("grpc") as receiver,
    ):
        api.add(kube_api.pod("here", node=NODE, uid=here), kube_api.pod("elsewhere", node="worker-8", uid=elsewhere))
        mounts |= {"/host/sys/fs/cgroup": (root, True), SERVICE_ACCOUNT: (account, True)}
        # The one line that a user edits.
        config = places["/etc/otel-k8s-cgroup/config"] / "config.toml"
        text = spec.config["otel-k8s-cgroup"]["config.toml"]
        health = re.search(r'^health_listen = "(.*)"$', config.read_text(), re.MULTILINE)
        assert health
        text = text.replace("http://otel-collector.observability:4317", receiver.endpoint)
        config.write_text(text.replace("0.0.0.0:8080", health[1]))
        environ = spec.environ(NODE) | {
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": str(api.port),
        }
        with contained(image, [*entrypoint, *spec.spec["args"]], environ, mounts) as program:
            receiver.wait_for(lambda messages: here in {point.pod for point in otlp.points(messages)})
            for path in ("/livez", "/readyz"):
                assert answers_ok(f"http://{health[1]}{path}")
            status = Path(f"/proc/{program.process.pid}/status").read_text()
            with contained(image, [*entrypoint, "snapshot", "--json"], environ, mounts) as snapshot:
                assert snapshot.wait() == 0, snapshot.output
            assert here in snapshot.output
            assert program.stop() == 0, program.output
    points = [point for point in otlp.points(receiver.messages) if point.pod]
    assert {point.pod for point in points} == {here}
    assert {point.resource["k8s.node.name"] for point in points} == {NODE}
    assert (places["/var/lib/otel-k8s-cgroup"] / "state.json").exists()
    lines = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert set(lines["Uid"].split()) == {"65532"}
    assert (int(lines["CapEff"], 16), int(lines["CapBnd"], 16), lines["NoNewPrivs"]) == (0, 0, "1")
