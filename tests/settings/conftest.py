"""How the tests of the settings read and what they expect of a refusal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import pytest

from otel_k8s_cgroup.errors import SettingsError
from otel_k8s_cgroup.settings import Settings, load

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class Read(Protocol):
    """Reads settings on a machine called ``Host-1`` that has nothing else to tell."""

    def __call__(
        self,
        file: str | bytes | None = None,
        *,
        flags: Mapping[str, object] = ...,
        environ: Mapping[str, str] = ...,
        service_account_dir: Path = ...,
    ) -> Settings: ...


class Refused(Protocol):
    """Reads what must be refused, and gives the message: a line for each key, and nothing else."""

    def __call__(
        self, file: str | bytes | None = None, *, flags: Mapping[str, object] = ..., environ: Mapping[str, str] = ...
    ) -> str: ...


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    """Where ``read`` writes the file it is given."""
    return tmp_path / "config.toml"


@pytest.fixture
def read(config_file: Path, tmp_path: Path) -> Read:
    def read(
        file: str | bytes | None = None,
        *,
        flags: Mapping[str, object] | None = None,
        environ: Mapping[str, str] | None = None,
        service_account_dir: Path = tmp_path / "none",
    ) -> Settings:
        if file is not None:
            config_file.write_bytes(file if isinstance(file, bytes) else file.encode())
        return load(
            flags=flags or {},
            environ=environ or {},
            config_file=None if file is None else str(config_file),
            hostname=lambda: "Host-1",
            service_account_dir=service_account_dir,
        )

    return read


@pytest.fixture
def refused(read: Read) -> Refused:
    def refused(
        file: str | bytes | None = None,
        *,
        flags: Mapping[str, object] | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> str:
        with pytest.raises(SettingsError) as caught:
            read(file, flags=flags or {}, environ=environ or {})
        message = str(caught.value)
        assert message.startswith(f"{caught.value.key}: ")
        assert all(": " in line for line in message.split("\n"))
        assert message.replace("\n", "").isprintable()
        assert caught.value.__cause__ is None
        return message

    return refused


@pytest.fixture
def pem(tmp_path: Path) -> str:
    """A file that a certificate may be in, and a kubeconfig: nothing more is asked of either where it is only named."""
    file = tmp_path / "some.pem"
    file.write_text(
        "# -----BEGIN CERTIFICATE-----\n"
        "{clusters: [{name: c, cluster: {server: 'https://10.0.0.1:6443'}}], current-context: a,\n"
        " contexts: [{name: a, context: {cluster: c}}, {name: b, context: {cluster: c}}]}\n"
    )
    return str(file)
