"""A kubeconfig: which API server, whom it trusts, and who asks.

Of its users, those count whose credentials stand in it or in files that it names. A program that makes them (exec), a
provider that kubectl had once (auth-provider), and what would have other rights than kubectl's (impersonation) are
refused, each with the way out.

Source: https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/
"""

from __future__ import annotations

import base64
import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from otel_k8s_cgroup.model import ApiAccess, ClientCertificate, Pem
from otel_k8s_cgroup.settings.given import one_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_MOST_BYTES = 1 << 20
_PROXY = 'or `kubectl proxy --port=8080`, and k8s_api_url = "http://127.0.0.1:8080" without k8s_kubeconfig'
_TOKEN = f'set token_retrieval (such as {{ file = "path" }}), {_PROXY}'


class Kubeconfig:
    """One context of the file at ``path``; the current one where ``context`` is None.

    Every method raises ValueError whose text is why the file is of no use, and the way out; no secret is in it.
    """

    def __init__(self, path: str, context: str | None) -> None:
        self.path = Path(path)
        document = _mapping(_parsed(self.path), "the file")
        contexts = _by_name(document, "contexts", "context")
        if not contexts:
            raise ValueError("it has no contexts")
        if context is None:
            context = _text(document, "current-context", "the file")
            if context is None:
                raise ValueError(f"it has no current-context: set k8s_context to one of {_listed(contexts)}")
        self.context = context
        chosen = _named(contexts, context, "context")
        where = f"context {one_line(context)}"
        self.cluster_name = _text(chosen, "cluster", where) or ""
        self.user_name = _text(chosen, "user", where) or ""
        self._cluster = _named(_by_name(document, "clusters", "cluster"), self.cluster_name, "cluster")
        self._users = _by_name(document, "users", "user")

    @property
    def server(self) -> str:
        """The URL of the API."""
        server = _text(self._cluster, "server", self._in_cluster)
        if not server:
            raise ValueError(f"{self._in_cluster} has no server")
        if _text(self._cluster, "proxy-url", self._in_cluster):
            raise ValueError(
                f"{self._in_cluster} has a proxy-url, which is not used here: set HTTPS_PROXY to it, and take it "
                "out of a copy of the file"
            )
        return server

    @property
    def ca_file(self) -> str | None:
        """``certificate-authority``, where no ``certificate-authority-data`` is, which would come first."""
        if self.ca is not None:
            return None
        return self._file(self._cluster, "certificate-authority", self._in_cluster)

    @property
    def ca(self) -> Pem | None:
        """``certificate-authority-data``."""
        return self._data(self._cluster, "certificate-authority-data", self._in_cluster)

    def access(self, *, with_user: bool) -> ApiAccess:
        """What else the file says. ``with_user``: whether its user is the one that asks."""
        insecure = _flag(self._cluster, "insecure-skip-tls-verify", self._in_cluster)
        if insecure and (self.ca is not None or self.ca_file is not None):
            raise ValueError(f"{self._in_cluster} has a certificate-authority and insecure-skip-tls-verify: keep one")
        name = _text(self._cluster, "tls-server-name", self._in_cluster)
        user = self._user() if with_user else {}
        where = self._in_user
        token_file = self._file(user, "tokenFile", where)
        return ApiAccess(
            ca=self.ca,
            tls_server_name=name,
            insecure=insecure,
            client_certificate=self._client_certificate(user),
            token=None if token_file else _text(user, "token", where),
            token_file=token_file,
            context=self.context,
        )

    @property
    def _in_cluster(self) -> str:
        return f"cluster {one_line(self.cluster_name)}"

    @property
    def _in_user(self) -> str:
        return f"user {one_line(self.user_name)}"

    def _user(self) -> Mapping[str, Any]:
        if not self.user_name:
            return {}
        user = _named(self._users, self.user_name, "user")
        where = self._in_user
        # Also an empty one: kubectl would run it, and fail.
        if user.get("exec") is not None:
            run = user["exec"].get("command") if isinstance(user["exec"], dict) else None
            program = f"the program {one_line(str(run))}" if run else "a program"
            raise ValueError(f"{where} has its credentials of {program} (exec), which is not run here: {_TOKEN}")
        if user.get("auth-provider") is not None:
            raise ValueError(f"{where} has an auth-provider, which Kubernetes itself has given up: {_TOKEN}")
        if user.get("username") or user.get("password"):
            raise ValueError(f"{where} has a user name and password, which no API server takes today: {_TOKEN}")
        if impersonated := sorted(key for key in user if user[key] and (key == "as" or str(key).startswith("as-"))):
            raise ValueError(f"{where} is somebody else by {impersonated[0]!r}, which is not done here: {_TOKEN}")
        return user

    def _client_certificate(self, user: Mapping[str, Any]) -> ClientCertificate | None:
        certificate, key = self._pem(user, "client-certificate"), self._pem(user, "client-key")
        if certificate is not None and key is not None:
            return ClientCertificate(certificate, key)
        if certificate is None and key is None:
            return None
        missing = "client-certificate" if certificate is None else "client-key"
        raise ValueError(f"{self._in_user} has no {missing}, but the other of the pair")

    def _pem(self, user: Mapping[str, Any], key: str) -> Pem | None:
        file = self._file(user, key, self._in_user)
        return self._data(user, f"{key}-data", self._in_user) or (Pem(file) if file else None)

    def _file(self, table: Mapping[str, Any], key: str, where: str) -> str | None:
        """A path, which is from where the kubeconfig is."""
        found = _text(table, key, where)
        return str(self.path.parent / found) if found else None

    def _data(self, table: Mapping[str, Any], key: str, where: str) -> Pem | None:
        found = _text(table, key, where)
        if not found:
            return None
        try:
            content = base64.b64decode("".join(found.split()), validate=True)
        except ValueError:
            raise ValueError(f"{key} of {where} is no base64") from None
        return Pem(f"{self.path} ({key} of {where})", content)


def first_with_context(paths: Sequence[str], context: object) -> tuple[str, str | None]:
    """Of several files, as kubectl merges them, the first that has ``context``, or else the first current-context; and
    which that is. Raises ValueError as above.
    """
    documents: dict[str, Mapping[str, Any]] = {}
    for path in paths:
        try:
            documents[path] = _mapping(_parsed(Path(path).expanduser()) or {}, "the file")
        except ValueError as why:
            raise ValueError(f"{one_line(path)}: {why}") from None
    currents = (_text(document, "current-context", "the file") for document in documents.values())
    wanted = context or next((each for each in currents if each), None)
    if not isinstance(wanted, str):
        return paths[0], None
    for path, document in documents.items():
        if wanted in _by_name(document, "contexts", "context"):
            return path, wanted
    raise ValueError(f"none of its {len(documents)} files has a context {one_line(wanted)}")


def _parsed(path: Path) -> object:
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise ValueError(f"it cannot be read: {error.strerror}") from None
    if len(content) > _MOST_BYTES:
        raise ValueError(f"no kubeconfig is larger than {_MOST_BYTES} bytes")
    try:
        return yaml.load(content, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 both are the safe one
    except yaml.MarkedYAMLError as error:
        # Not its whole text, which quotes the file.
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ValueError(f"it is no YAML: {line}{one_line(error.problem or 'malformed')}") from None
    except (yaml.YAMLError, ValueError, RecursionError):  # ValueError: a date that is none
        raise ValueError("it is no YAML") from None


def _mapping(found: object, where: str) -> Mapping[str, Any]:
    if not isinstance(found, dict):
        raise ValueError(f"{where} is no kubeconfig: a mapping with clusters, contexts and users is expected")  # noqa: TRY004 its text is for a user
    return found


def _by_name(document: Mapping[str, Any], key: str, inner: str) -> dict[str, Mapping[str, Any]]:
    """A list of ``{name: …, <inner>: {…}}``; each name once, as kubectl has it.

    Source: https://github.com/kubernetes/client-go/blob/v0.35.4/tools/clientcmd/api/v1/conversion.go
    """
    found: dict[str, Mapping[str, Any]] = {}
    entries = document.get(key) or []
    if not isinstance(entries, list):
        raise ValueError(f"{key} is no list")  # noqa: TRY004 its text is for a user
    for entry in entries:
        if isinstance(entry, dict) and isinstance(name := entry.get("name"), str):
            if name in found:
                raise ValueError(f"two {key} are called {one_line(name)}: keep one")
            found[name] = _mapping(entry.get(inner) or {}, f"the {inner} {one_line(name)}")
    return found


def _named(found: Mapping[str, Mapping[str, Any]], name: str, kind: str) -> Mapping[str, Any]:
    if name not in found:
        nearest = difflib.get_close_matches(name, found, n=1, cutoff=0.6)
        has = f"is {one_line(nearest[0])} meant?" if nearest else f"it has {_listed(found)}"
        raise ValueError(f"it has no {kind} {one_line(name) or '(no name)'}; {has}")
    return found[name]


def _listed(found: Mapping[str, object]) -> str:
    return ", ".join(one_line(name) for name in list(found)[:8]) or "none"


def _text(table: Mapping[str, Any], key: str, where: str) -> str | None:
    found = table.get(key)
    if found is None or found == "":
        return None
    if not isinstance(found, str):
        raise ValueError(f"{key} of {where} is no text")  # noqa: TRY004 its text is for a user
    return found


def _flag(table: Mapping[str, Any], key: str, where: str) -> bool:
    found = table.get(key, False)
    if not isinstance(found, bool):
        raise ValueError(f"{key} of {where} is neither true nor false")  # noqa: TRY004 its text is for a user
    return found
