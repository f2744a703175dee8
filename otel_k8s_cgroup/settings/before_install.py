"""What settings are before an installation, as for ``check --pre``: on a machine outside the cluster, whose user has a
kubeconfig, and not the files and variables that the pod will have.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otel_k8s_cgroup.errors import SettingsError
from otel_k8s_cgroup.model import TokenRetrieval
from otel_k8s_cgroup.settings.given import Given, one_line
from otel_k8s_cgroup.settings.model import DEFAULT

if TYPE_CHECKING:
    from collections.abc import Mapping

_NODE = "none"
_FILES = ("k8s_ca_file", "kubelet_ca_file", "otlp_certificate", "otlp_client_certificate", "otlp_client_key")
_PAIR = frozenset({"otlp_client_certificate", "otlp_client_key"})


def without_files_of_the_pod(found: dict[str, Given], absent: dict[str, str]) -> dict[str, Given]:
    """What the configuration file has, without the settings that name files that are not here; those go to ``absent``
    with the reason.
    """
    paths = {key: found[key].value for key in _FILES if key in found}
    match found.get("token_retrieval", Given("", "")).value:
        case "file":
            paths["token_retrieval"] = TokenRetrieval("file").file
        case {"file": str(file)}:
            paths["token_retrieval"] = file
    for key, path in paths.items():
        if isinstance(path, str) and path and not os.path.lexists(path):
            absent[key] = f"{one_line(path)} is not on this machine"
    if not _PAIR.isdisjoint(absent):
        absent.update(
            {key: "the other of the pair is not there" for key in _PAIR if key in found and key not in absent}
        )
    return {key: given for key, given in found.items() if key not in absent}


def defaults_before_install(found: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, Given]:
    """In place of a pod's. Raises SettingsError."""
    # Nothing that is tried here needs a node, and a laptop may have a name that no node has.
    node = {} if environ.get("NODE_NAME", "").strip() else {"k8s_node": Given(_NODE, DEFAULT)}
    return node | _users_kubeconfig(found, environ)


def _users_kubeconfig(found: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, Given]:
    """As kubectl does, the user's own kubeconfig is taken where no setting says where the API is: of the files that
    ``KUBECONFIG`` names the first that has the context, else ``~/.kube/config``. Raises SettingsError.
    """
    given = {
        key: found[key].value for key in ("pod_source", "k8s_api_url", "k8s_context", "token_retrieval") if key in found
    }
    is_for_a_kubeconfig = "k8s_context" in given or given.get("token_retrieval") == "kubeconfig"
    if "k8s_kubeconfig" in found or ("k8s_api_url" in given and not is_for_a_kubeconfig):
        return {}
    if given.get("pod_source", "api") != "api":
        return {}
    named = [path for path in environ.get("KUBECONFIG", "").split(os.pathsep) if path.strip()]
    if not named:
        default = Path(environ.get("HOME") or Path.home(), ".kube/config")
        return {"k8s_kubeconfig": Given(str(default), "~/.kube/config")} if default.is_file() else {}
    where = "environment KUBECONFIG"
    there = [path for path in named if Path(path).expanduser().exists()]
    if not there:
        raise SettingsError("KUBECONFIG", f"no such file: {', '.join(map(one_line, named))}")
    if len(there) == 1:
        return {"k8s_kubeconfig": Given(there[0], where)}
    from otel_k8s_cgroup.settings.kubeconfig import first_with_context  # noqa: PLC0415 YAML takes a while

    try:
        path, context = first_with_context(there, given.get("k8s_context"))
    except ValueError as why:
        raise SettingsError("KUBECONFIG", str(why)) from None
    return {"k8s_kubeconfig": Given(path, where)} | ({"k8s_context": Given(context, where)} if context else {})
