"""Tokens from a file, by "auto", and none; and that a token shows up nowhere."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import pytest

from otel_k8s_cgroup.errors import TokenError
from otel_k8s_cgroup.kube import Credentials
from otel_k8s_cgroup.kube.credentials import MAX_TOKEN_BYTES
from otel_k8s_cgroup.model import TokenRetrieval

if TYPE_CHECKING:
    from pathlib import Path

    from .support import Kubectl

HTTPS = "https://api.example:6443"
PROXY = "http://127.0.0.1:8080"
MISSING = "/nonexistent/token"


def _of_file(path: Path) -> Credentials:
    return Credentials(TokenRetrieval("file", file=str(path)), HTTPS)


# --- from a file ---


def test_each_token_is_known_before_it_is_used(tmp_path: Path) -> None:
    """To whoever keeps it out of the log; once, and again when it was replaced."""
    path = tmp_path / "token"
    path.write_text("token-1")
    known: list[str] = []
    credentials = Credentials(TokenRetrieval("file", file=str(path)), HTTPS, on_token=known.append)
    assert [credentials.token(), credentials.token()] == ["token-1", "token-1"]
    path.write_text("another-token")
    assert credentials.token() == "another-token"
    assert known == ["token-1", "another-token"]


def test_a_file_is_read_and_stripped(tmp_path: Path) -> None:
    """Editors and `kubectl create token > file` leave a line end."""
    path = tmp_path / "token"
    path.write_text("\n one-token \r\n")
    credentials = _of_file(path)
    assert credentials.token() == "one-token"
    assert credentials.origin == f"token file {str(path)!r}"


def test_a_mounted_token_rotates(tmp_path: Path) -> None:
    """The kubelet swaps the symbolic link ``..data``: the next request has the new token, of equal size and time."""
    for name, token in (("..1", "token-1"), ("..2", "token-2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "token").write_text(token)
        os.utime(tmp_path / name / "token", (1, 1))
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "token").symlink_to("..data/token")
    credentials = _of_file(tmp_path / "token")
    assert credentials.token() == "token-1"
    (tmp_path / "..tmp").symlink_to("..2")
    (tmp_path / "..tmp").rename(tmp_path / "..data")
    assert credentials.token() == "token-2"


def test_a_rewritten_file_is_read_again(tmp_path: Path) -> None:
    """In place, in the same inode."""
    path = tmp_path / "token"
    path.write_text("token-1")
    credentials = _of_file(path)
    assert credentials.token() == "token-1"
    path.write_text("another-token")
    assert credentials.token() == "another-token"


def test_a_file_that_is_gone_or_forbidden_is_named(tmp_path: Path) -> None:
    """The path, the reason and the way out; and it is taken up once it is there."""
    path = tmp_path / "token"
    credentials = _of_file(path)
    with pytest.raises(TokenError, match=r"token_retrieval file: token file '.*': No such file.*automount"):
        credentials.token()
    path.write_text("late")
    assert credentials.token() == "late"
    path.unlink()
    with pytest.raises(TokenError, match="No such file"):
        credentials.token()
    path.mkdir()
    with pytest.raises(TokenError, match="Is a directory"):
        credentials.token()


@pytest.mark.parametrize(
    "content",
    [
        b"s3cret\nX-Forged: 1",
        b"s3cret\r\nX: 1",
        b"s3cret with space",
        b"s3cret\x00",
        b"s3cret\xc3\xa9",
        b"s3cret\xff",
        b"s3cret" * MAX_TOKEN_BYTES,
        b"",
        b" \n",
    ],
)
def test_what_is_no_token_is_refused_and_not_shown(tmp_path: Path, content: bytes) -> None:
    """A line break could forge a header; the message says what is wrong without the content."""
    path = tmp_path / "token"
    path.write_bytes(content)
    with pytest.raises(TokenError) as caught:
        _of_file(path).token()
    assert "s3cret" not in str(caught.value)
    assert str(path) in str(caught.value)


# --- auto and none ---


def test_none_is_none() -> None:
    """Whatever the address."""
    assert Credentials(TokenRetrieval("none"), HTTPS).token() is None


def test_auto_takes_the_file_first(tmp_path: Path, kubectl: Kubectl) -> None:
    """In a pod: kubectl is not even started."""
    path = tmp_path / "token"
    path.write_text("of-the-file")
    kubectl.prints("of-kubectl")
    credentials = Credentials(TokenRetrieval("auto", file=str(path)), HTTPS, environ=kubectl.environ)
    assert credentials.token() == "of-the-file"
    assert kubectl.calls == []


def test_auto_takes_kubectl_where_there_is_no_file(kubectl: Kubectl) -> None:
    """On an administrator's machine."""
    kubectl.prints("of-kubectl")
    assert Credentials(TokenRetrieval("auto", file=MISSING), HTTPS, environ=kubectl.environ).token() == "of-kubectl"


@pytest.mark.parametrize("url", [PROXY, "http://localhost:8001", "http://[::1]:8080"])
def test_auto_sends_none_behind_kubectl_proxy(
    kubectl: Kubectl, url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The proxy's own credentials count, which a token would override: no file is read, no kubectl run; said once."""
    caplog.set_level(logging.INFO)
    kubectl.prints("of-kubectl")
    file = tmp_path / "token"
    file.write_text("of-the-file")
    credentials = Credentials(TokenRetrieval("auto", file=str(file)), url, environ=kubectl.environ)
    for _ in range(3):
        assert credentials.token() is None
        credentials.invalidate()  # a 401
    assert not credentials.sends_token
    assert not credentials.file_changed()
    assert kubectl.calls == []
    assert len(caplog.records) == 1


@pytest.mark.parametrize("url", [PROXY, "http://localhost:8001"])
def test_a_token_that_is_asked_for_is_sent_to_this_machine(kubectl: Kubectl, url: str) -> None:
    """By token_retrieval "kubectl" or a file: a port-forward may want one."""
    kubectl.prints("of-kubectl")
    assert Credentials(TokenRetrieval("kubectl"), url, environ=kubectl.environ).token() == "of-kubectl"


def test_a_changed_file_is_noticed(tmp_path: Path) -> None:
    """Also one that appears, and one with no token in it that gets one; not one that is as it was when it was read."""
    path = tmp_path / "token"
    credentials = _of_file(path)
    with pytest.raises(TokenError):
        credentials.token()
    assert not credentials.file_changed()
    path.write_text("")
    assert credentials.file_changed()
    with pytest.raises(TokenError, match="empty"):
        credentials.token()
    assert not credentials.file_changed()
    path.write_text("token")
    assert credentials.file_changed()
    credentials.token()
    credentials.invalidate()
    assert not credentials.file_changed()
    path.unlink()
    assert not credentials.file_changed()


@pytest.mark.parametrize("url", [HTTPS, "https://127.0.0.1:6443", "http://192.0.2.1"])
def test_auto_says_all_that_it_tried(kubectl: Kubectl, url: str) -> None:
    """Elsewhere an API without a token is no API: both reasons, in one line."""
    credentials = Credentials(TokenRetrieval("auto", file=MISSING), url, environ=kubectl.environ)
    with pytest.raises(TokenError, match=rf"token_retrieval auto: token file '{MISSING}'.*; `kubectl create token"):
        credentials.token()


# --- nothing shows ---


def test_no_repr_shows_the_token(tmp_path: Path) -> None:
    """Of anything that holds one."""
    path = tmp_path / "token"
    path.write_text("s3cret")
    credentials = _of_file(path)
    credentials.token()
    held = vars(credentials)
    assert held["_held"].token == "s3cret"
    assert "s3cret" not in repr(held)
