"""The cluster's certificates, keys and kubeconfigs."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.cluster.layout import (
    ADMIN_KUBECONFIG,
    API_URL,
    CA,
    KUBELET_KUBECONFIG,
    NODE,
    NODE_ADDRESS,
    PKI,
    SERVICE_ADDRESS,
    SIGNING_KEY,
    VERIFYING_KEY,
)

if TYPE_CHECKING:
    from pathlib import Path


def write() -> None:
    """All of them, anew."""
    PKI.mkdir(parents=True)
    ca = trustme.CA()
    ca.cert_pem.write_to_path(CA)
    _certificate(ca, "apiserver", NODE_ADDRESS, SERVICE_ADDRESS, "127.0.0.1", "localhost", "kubernetes.default.svc")
    # https://kubernetes.io/docs/reference/access-authn-authz/node/ , …/rbac/#user-facing-roles
    _certificate(ca, "kubelet", user=f"system:node:{NODE}", group="system:nodes")
    _certificate(ca, "admin", user="admin", group="system:masters")
    new_signing_key()
    _kubeconfig(ADMIN_KUBECONFIG, "admin")
    _kubeconfig(KUBELET_KUBECONFIG, "kubelet")


def new_signing_key() -> None:
    """Tokens of service accounts that the one before has signed are good no more, once the API server is restarted."""
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    SIGNING_KEY.write_bytes(private)
    VERIFYING_KEY.write_bytes(public)


def write_token_kubeconfig(path: Path, token: str) -> None:
    """A kubeconfig with the token as its only credentials."""
    _write_kubeconfig(path, {"token": token})


def _certificate(
    ca: trustme.CA, name: str, *identities: str, user: str | None = None, group: str | None = None
) -> None:
    # A certificate of trustme's has an identity at least; for a client's it means nothing.
    issued = ca.issue_cert(*(identities or [f"{name}.test"]), common_name=user, organization_name=group)
    issued.private_key_pem.write_to_path(PKI / f"{name}.key")
    (certificate,) = issued.cert_chain_pems
    certificate.write_to_path(PKI / f"{name}.crt")


def _kubeconfig(path: Path, user: str) -> None:
    credentials = {
        "client-certificate-data": _data(PKI / f"{user}.crt"),
        "client-key-data": _data(PKI / f"{user}.key"),
    }
    _write_kubeconfig(path, credentials)


def _data(file: Path) -> str:
    return base64.b64encode(file.read_bytes()).decode()


def _write_kubeconfig(path: Path, credentials: dict[str, str]) -> None:
    cluster = {"server": API_URL, "certificate-authority-data": _data(CA)}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "node", "cluster": cluster}],
        "users": [{"name": "user", "user": credentials}],
        "contexts": [{"name": "node", "context": {"cluster": "node", "user": "user"}}],
        "current-context": "node",
    }
    path.write_text(json.dumps(config))  # JSON is YAML
