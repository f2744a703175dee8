"""Where settings are found, and in which order: flags, environment, file, defaults."""

from __future__ import annotations

import contextlib
import socket
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from pydantic_settings import PydanticBaseSettingsSource

from otel_k8s_cgroup.errors import SettingsError
from otel_k8s_cgroup.settings import values
from otel_k8s_cgroup.settings.before_install import defaults_before_install, without_files_of_the_pod
from otel_k8s_cgroup.settings.effects import warn_of_no_effect, warn_of_rounding
from otel_k8s_cgroup.settings.file import read_file
from otel_k8s_cgroup.settings.given import Given, joined, one_line, refusal, unknown
from otel_k8s_cgroup.settings.model import DEFAULT, POLL_INTERVAL, Settings, rows
from otel_k8s_cgroup.settings.otlp import from_environment
from otel_k8s_cgroup.settings.standard import (
    SERVICE_LINK,
    are_deltas,
    resource_attributes,
    sdk_disabled,
    service_name,
    warn_of_misspelt,
)

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping, Sequence

    from pydantic.fields import FieldInfo

    from otel_k8s_cgroup.model import ApiAccess

_ENVIRONMENT_PREFIX = "OTEL_K8S_CGROUP_"
_CONFIG_VARIABLE = "OTEL_K8S_CGROUP_CONFIG"
"""Names the configuration file: so that a command beside `run`, by `kubectl exec`, has the settings that `run` has."""
_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class _Place(PydanticBaseSettingsSource):
    """One place where settings are found; ``find`` is told what the places before it have."""

    def __init__(self, find: Callable[[Mapping[str, Given]], Mapping[str, Any]]) -> None:
        super().__init__(Settings)
        self._find = find

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """What is found for one field, if anything."""
        key = field.alias or field_name
        return self._find(self.current_state).get(key), key, False

    def __call__(self) -> dict[str, Any]:
        """What is found, by key."""
        return dict(self._find(self.current_state))


def _always(found: Mapping[str, Any]) -> Callable[[Mapping[str, Given]], Mapping[str, Any]]:
    return lambda _before: found


def load(
    *,
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    config_file: str | None,
    hostname: Callable[[], str] = socket.gethostname,
    service_account_dir: Path = _SERVICE_ACCOUNT,
    parameters: Mapping[str, str] = MappingProxyType({}),
    before_install: bool = False,
) -> Settings:
    """The settings: of each key the flag's value, else the environment's, else the file's, else the default.

    ``flags`` is what `flags_from` gives. The variables ``OTEL_EXPORTER_OTLP_*`` stand between ours and the file. What
    an Alumet file holds beside our settings is told in one line of the log. Without ``config_file`` it is the one that
    ``OTEL_K8S_CGROUP_CONFIG`` names. ``parameters``: of the keys of ``flags`` that a Python program gave, its names for
    them. ``before_install``: this machine is no node and has nothing of the pod. Raises `SettingsError`, a line a
    problem.
    """
    config_file = config_file or environ.get(_CONFIG_VARIABLE, "").strip() or None
    absent: dict[str, str] = {}
    from_file = {}
    if config_file is not None:
        from_file = read_file(config_file, environ, rows(), absent if before_install else None)
        if before_install:
            from_file = without_files_of_the_pod(from_file, absent)
    fixed = (_from_flags(flags, parameters), _from_environ(environ), from_environment(environ), from_file)
    # What a flag or a variable says instead is not lacking.
    absent = {key: why for key, why in absent.items() if not any(key in found for found in fixed)}
    warn_of_misspelt(environ)
    places = (
        *(_Place(_always(found)) for found in fixed),
        _Place(lambda found: defaults_before_install(found, environ) if before_install else {}),
        _Place(_kubeconfig),
        _Place(lambda found: _defaults(found, environ, hostname, service_account_dir)),
        _Place(lambda _found: _standard(environ)),
        _Place(_always({"absent": absent})),
    )
    try:
        settings = Settings(places)
    except ValidationError as error:
        raise joined(_refusals(error)) from None
    warn_of_no_effect(settings)
    warn_of_rounding(settings)
    return settings


def _refusals(error: ValidationError) -> Sequence[SettingsError]:
    """A default is wrong only where what it is made of is, which has a line of its own."""
    items = error.errors(include_url=False)
    return [
        refusal(str(item["loc"][0]), item["input"], str(item["ctx"]["error"]))
        for item in items
        if item["input"].where != DEFAULT
    ]


def _kubeconfig(found: Mapping[str, Any]) -> dict[str, Any]:
    """What the kubeconfig says, for the settings that nothing before it gives. Raises SettingsError."""
    given = found.get("k8s_kubeconfig")
    if given is None or not isinstance(given.value, str) or not given.value.strip():
        return {}
    from otel_k8s_cgroup.settings.kubeconfig import Kubeconfig  # noqa: PLC0415 YAML takes a while

    wanted = found.get("k8s_context")
    token_retrieval = found.get("token_retrieval", Given("kubeconfig", DEFAULT))
    try:
        path = values.optional_home_path(given.value) or ""
        config = Kubeconfig(path, str(wanted.value) if wanted is not None and wanted.value else None)
        where = f"kubeconfig {one_line(path)}, cluster {one_line(config.cluster_name)}"
        access = config.access(with_user=token_retrieval.value == "kubeconfig")
        if "k8s_ca_file" in found:
            access = replace(access, ca=None, insecure=False)
        return {
            "k8s_api_url": Given(config.server, where),
            "k8s_ca_file": Given(config.ca_file or "", where + _ca_source(access)),
            "token_retrieval": token_retrieval,
            "k8s_access": access,
        }
    except ValueError as why:
        raise SettingsError("k8s_kubeconfig", f"{one_line(given.value)} ({given.where}): {why}") from None


def _ca_source(access: ApiAccess) -> str:
    """Why no file is named, where none is."""
    if access.insecure:
        return ": insecure-skip-tls-verify"
    return ": certificate-authority-data" if access.ca is not None else ""


def _flag(key: str) -> str:
    return f"--{key.replace('_', '-')}"


def _from_flags(flags: Mapping[str, object], parameters: Mapping[str, str]) -> dict[str, Given]:
    known = {_flag(key) for key in rows()}
    problems = [unknown(_flag(key), "flag", known) for key in flags if _flag(key) not in known]
    if problems:
        raise joined(problems)
    return {
        key: Given(value, f"parameter {parameters[key]}", parameters[key])
        if key in parameters
        else Given(value, f"flag {_flag(key)}")
        for key, value in flags.items()
    }


def _from_environ(environ: Mapping[str, str]) -> dict[str, Given]:
    """Ours alone. An empty variable is none, as the standard has it for its own."""
    key_of = {_ENVIRONMENT_PREFIX + key.upper(): key for key in rows()}
    ours = {name: text.strip() for name, text in environ.items() if name.startswith(_ENVIRONMENT_PREFIX)}
    given = {name: text for name, text in ours.items() if text and name != _CONFIG_VARIABLE}
    problems = [
        unknown(name, "environment", key_of)
        for name in given
        if name not in key_of and SERVICE_LINK.fullmatch(name.removeprefix(_ENVIRONMENT_PREFIX)) is None
    ]
    if problems:
        raise joined(problems)
    return {key_of[name]: Given(text, f"environment {name}") for name, text in given.items() if name in key_of}


def _standard(environ: Mapping[str, str]) -> dict[str, Any]:
    """What the standard's variables say beside where metrics are sent."""
    attributes = resource_attributes(environ)
    name = service_name(environ, attributes)
    found: dict[str, Any] = {
        "sdk_disabled": sdk_disabled(environ),
        "are_deltas": are_deltas(environ),
        "resource_attributes": attributes,
    }
    return found | ({"service_name": name} if name else {})


def _defaults(
    found: Mapping[str, Given], environ: Mapping[str, str], hostname: Callable[[], str], service_account_dir: Path
) -> dict[str, Given]:
    """The defaults that hang on the machine or on other settings."""
    if name := environ.get("NODE_NAME", "").strip():
        node = Given(name, "environment NODE_NAME")
    else:
        # The kubelet names its node so: https://kubernetes.io/docs/reference/labels-annotations-taints/#kubernetesiohostname
        node = Given(hostname().strip().lower(), "host name")
    if host := environ.get("KUBERNETES_SERVICE_HOST", "").strip():
        port = environ.get("KUBERNETES_SERVICE_PORT", "").strip() or "443"
        api = Given(f"https://{_in_url(host)}:{port}", "environment KUBERNETES_SERVICE_HOST")
    else:
        api = Given("http://127.0.0.1:8080", DEFAULT)
    if address := environ.get("HOST_IP", "").strip():
        kubelet = Given(f"https://{_in_url(address)}:10250", "environment HOST_IP")
    else:
        kubelet = Given(f"https://{found.get('k8s_node', node).value}:10250", DEFAULT)
    defaults = {
        "k8s_node": node,
        "k8s_api_url": api,
        "export_interval": Given(found.get("poll_interval", Given(POLL_INTERVAL, DEFAULT)).value, DEFAULT),
        "kubelet_url": kubelet,
    }
    if str(found.get("k8s_api_url", api).value).startswith("https://"):
        ca_file = service_account_dir / "ca.crt"
        with contextlib.suppress(OSError):  # a directory above that one may not look into: not there
            if ca_file.is_file():
                defaults["k8s_ca_file"] = Given(str(ca_file), "service account")
    return defaults


def _in_url(host: str) -> str:
    """``host`` as a URL has it: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


# --- flags ----------------------------------------------------------------------------------------------------------


def add_flags(parser: argparse.ArgumentParser, bare: Mapping[str, object] = MappingProxyType({})) -> None:
    """A flag for every setting: ``--k8s-node`` for ``k8s_node``. A boolean's ``--x`` alone means true; of the keys in
    ``bare``, what that has for it.
    """
    group = parser.add_argument_group(
        "settings", f"each also as environment variable {_ENVIRONMENT_PREFIX}K8S_NODE, … and in the configuration file"
    )
    for key, field in rows().items():
        alone = bare.get(key, "true" if field.annotation is bool else None)
        extra: dict[str, Any] = {} if alone is None else {"nargs": "?", "const": alone}
        meaning = (field.description or "").replace("%", "%%")
        group.add_argument(_flag(key), dest=key, metavar="VALUE", help=meaning, **extra)


def flags_from(namespace: argparse.Namespace) -> dict[str, object]:
    """The settings that flags gave, for `load`."""
    given = vars(namespace)
    return {key: given[key] for key in rows() if given.get(key) is not None}
