"""A kubeconfig: what is taken of it, what comes before it, and what is refused with the way out."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from otel_k8s_cgroup.model import ApiAccess, ClientCertificate, Pem, TokenRetrieval

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Read, Refused

SECRET = "s3cret-token-of-this-test"
PEM = b"-----BEGIN CERTIFICATE-----"


def kubeconfig(user: object = None, **cluster: object) -> dict[str, Any]:
    """As kubectl writes it, of two contexts."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "prod",
        "clusters": [{"name": "c", "cluster": {"server": "https://10.0.0.1:6443", **cluster}}],
        "users": [{"name": "me", "user": {"token": SECRET} if user is None else user}],
        "contexts": [
            {"name": "prod", "context": {"cluster": "c", "user": "me", "namespace": "x"}},
            {"name": "other", "context": {"cluster": "c", "user": ""}},
        ],
    }


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "kube.yaml"


def write(path: Path, content: object) -> dict[str, object]:
    path.write_text(yaml.safe_dump(content))
    return {"k8s_kubeconfig": str(path)}


def test_url_ca_and_token(read: Read, path: Path) -> None:
    """With where each is from; the token is in no repr."""
    data = base64.b64encode(PEM).decode()
    flags = write(path, kubeconfig(**{"certificate-authority-data": data, "tls-server-name": "kubernetes"}))
    settings = read(flags=flags)
    assert (settings.k8s_api_url, settings.k8s_ca_file) == ("https://10.0.0.1:6443", None)
    assert settings.token_retrieval == TokenRetrieval("kubeconfig")
    assert settings.k8s_access == ApiAccess(
        ca=Pem(f"{path} (certificate-authority-data of cluster c)", PEM),
        tls_server_name="kubernetes",
        token=SECRET,
        context="prod",
    )
    assert settings.sources["k8s_api_url"] == f"kubeconfig {path}, cluster c"
    assert settings.sources["k8s_ca_file"] == f"kubeconfig {path}, cluster c: certificate-authority-data"
    assert SECRET not in repr(settings) + repr(settings.plain())


def test_files_are_looked_for_beside_it(read: Read, path: Path) -> None:
    """As kubectl does: minikube writes absolute ones, others relative ones."""
    user = {"client-certificate": "me.crt", "client-key": "/keys/me.key", "tokenFile": "token", "token": "old"}
    (path.parent / "ca.crt").write_bytes(PEM)
    settings = read(flags=write(path, kubeconfig(user, **{"certificate-authority": "ca.crt"})))
    assert settings.k8s_ca_file == str(path.parent / "ca.crt")
    assert settings.k8s_access.ca is None
    assert settings.k8s_access.token is None
    assert settings.k8s_access.token_file == str(path.parent / "token")
    assert settings.k8s_access.client_certificate == ClientCertificate(
        Pem(str(path.parent / "me.crt")), Pem("/keys/me.key")
    )


def test_settings_come_first(read: Read, path: Path, pem: str) -> None:
    """Each of the three by itself; a token_retrieval takes the place of the file's user, whatever that is."""
    user = {"exec": {"command": "aws"}}
    flags = write(path, kubeconfig(user, **{"insecure-skip-tls-verify": True}))
    flags |= {"k8s_api_url": "https://127.0.0.1:1", "k8s_ca_file": pem, "token_retrieval": "none"}
    settings = read(flags=flags)
    assert (settings.k8s_api_url, settings.k8s_ca_file) == ("https://127.0.0.1:1", pem)
    assert settings.token_retrieval == TokenRetrieval("none")
    assert not settings.k8s_access.insecure


def test_it_comes_before_the_defaults_of_a_pod(read: Read, path: Path, tmp_path: Path) -> None:
    """A service account that is there, too, is not mixed with it."""
    (tmp_path / "ca.crt").write_text("PEM")
    environ = {"KUBERNETES_SERVICE_HOST": "10.96.0.1"}
    settings = read(flags=write(path, kubeconfig()), environ=environ, service_account_dir=tmp_path)
    assert (settings.k8s_api_url, settings.k8s_ca_file) == ("https://10.0.0.1:6443", None)


def test_base64_with_line_breaks(read: Read, path: Path) -> None:
    """As `certificate-authority-data: |` has it, and what `base64` prints."""
    data = "".join(f"{base64.b64encode(PEM).decode()[at : at + 8]}\n" for at in range(0, 40, 8))
    settings = read(flags=write(path, kubeconfig(**{"certificate-authority-data": data})))
    assert settings.k8s_access.ca == Pem(f"{path} (certificate-authority-data of cluster c)", PEM)


def test_keys_without_a_value(read: Read, path: Path) -> None:
    """Tools write each key that there is: what is null or empty asks for nothing."""
    empty: dict[str, object] = {
        "exec": None,
        "auth-provider": None,
        "as": "",
        "as-uid": None,
        "as-groups": [],
        "as-user-extra": {},
    }
    settings = read(flags=write(path, kubeconfig({"token": SECRET, "username": "", **empty})))
    assert settings.k8s_access.token == SECRET


def test_another_context(read: Read, path: Path) -> None:
    """Its own user, here nobody."""
    settings = read(flags=write(path, kubeconfig()) | {"k8s_context": "other"})
    assert (settings.k8s_access.context, settings.k8s_access.token) == ("other", None)


def test_the_home_directory(read: Read, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`~` is what a configuration file or `--k8s-kubeconfig=~/…` has."""
    monkeypatch.setenv("HOME", str(path.parent))
    write(path, kubeconfig())
    assert read(flags={"k8s_kubeconfig": "~/kube.yaml"}).k8s_kubeconfig == str(path)


def test_json_is_yaml(read: Read, path: Path) -> None:
    """Some tools write it so."""
    path.write_text('{"current-context": "a", "contexts": [{"name": "a", "context": {"cluster": "c"}}], '
                    '"clusters": [{"name": "c", "cluster": {"server": "http://localhost:1"}}]}')  # fmt: skip
    assert read(flags={"k8s_kubeconfig": str(path)}).k8s_api_url == "http://localhost:1"


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (kubeconfig({"exec": {"command": "aws-iam"}}), ["user me", "the program aws-iam (exec)", "kubectl proxy"]),
        (kubeconfig({"auth-provider": {"name": "gcp"}}), ["user me", "auth-provider", "token_retrieval"]),
        (kubeconfig({"username": "u", "password": SECRET}), ["user me", "user name and password"]),
        (kubeconfig({"token": SECRET, "as": "admin"}), ["user me", "'as'", "token_retrieval"]),
        (kubeconfig({"client-certificate": "x"}), ["user me has no client-key"]),
        (kubeconfig({"client-key-data": "!", "client-certificate": "x"}), ["client-key-data of user me is no base64"]),
        (kubeconfig({"token": 12345}), ["token of user me is no text"]),
        (kubeconfig(**{"proxy-url": "http://p"}), ["cluster c has a proxy-url", "HTTPS_PROXY"]),
        (kubeconfig(**{"certificate-authority": "x", "insecure-skip-tls-verify": True}), ["keep one"]),
        (kubeconfig(**{"insecure-skip-tls-verify": "yes"}), ["neither true nor false"]),
        (kubeconfig(server=""), ["cluster c has no server"]),
        (kubeconfig() | {"current-context": ""}, ["no current-context", "k8s_context", "prod, other"]),
        (kubeconfig() | {"current-context": "prd"}, ["no context prd", "is prod meant?"]),
        (kubeconfig() | {"clusters": None}, ["no cluster c", "none"]),
        (kubeconfig() | {"users": []}, ["no user me"]),
        (kubeconfig() | {"contexts": None}, ["it has no contexts"]),
        (kubeconfig() | {"contexts": "x"}, ["contexts is no list"]),
        (kubeconfig({"exec": {}}), ["a program (exec)"]),
        (kubeconfig({"as-groups": ["x"]}), ["'as-groups'"]),
        (
            kubeconfig() | {"users": [{"name": "me", "user": {"token": t}} for t in (SECRET, "b")]},
            ["two users are called me", "keep one"],
        ),
        ([SECRET], ["is no kubeconfig"]),
    ],
)
def test_refused(content: object, named: list[str], path: Path, refused: Refused) -> None:
    """One line that names the file, what is wrong in it, and what to do; no secret."""
    message = refused(flags=write(path, content))
    assert message.startswith(f"k8s_kubeconfig: {path} (flag --k8s-kubeconfig): ")
    assert "\n" not in message
    assert SECRET not in message
    assert all(word in message for word in named), message


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"a: [",
        f"token: {SECRET}\n  x: {{".encode(),
        b"\xff\xfe\x00",
        b"x: 2026-99-99",
        b"[" * 5000,
        b"x" * (1 << 21),
    ],
    ids=["empty", "half", "half with a secret", "binary", "no date", "deep", "large"],
)
def test_what_is_no_yaml(content: bytes, path: Path, refused: Refused) -> None:
    """One line, and nothing of the file in it."""
    path.write_bytes(content)
    message = refused(flags={"k8s_kubeconfig": str(path)})
    assert len(message) < 300
    assert SECRET not in message


def test_a_file_that_is_not_there(path: Path, refused: Refused) -> None:
    """Named, with the system's reason."""
    assert "cannot be read: No such file or directory" in refused(flags={"k8s_kubeconfig": str(path)})


@pytest.mark.parametrize("flags", [{"k8s_context": "a"}, {"token_retrieval": "kubeconfig"}])
def test_what_needs_a_kubeconfig(flags: dict[str, object], refused: Refused) -> None:
    """Alone it would mean nothing."""
    assert "together with k8s_kubeconfig" in refused(flags=flags)
