"""What may be written for a setting: text or a TOML value in, a plain value out.

A reader refuses with a ``ValueError`` whose text is the end of "allowed: …"; who calls it knows the key and where the
value was found, and makes the whole line of them (`given.refusal`).
"""

from __future__ import annotations

import ipaddress
import os
import re
import stat
import tomllib
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NewType
from urllib.parse import SplitResult, unquote, urlsplit

from otel_k8s_cgroup.model import PodSource, TokenRetrieval

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

# --- numbers with units ---------------------------------------------------------------------------------------------

_QUANTITY = re.compile(r"([0-9]{1,18})(?:\.([0-9]{1,9}))?\s*([A-Za-zµ]*)\s*")

# The names of humantime (https://docs.rs/humantime), which Alumet reads, in nanoseconds; no months or years.
_NS_PER_UNIT = {
    name: ns
    for names, ns in (
        ("ns nsec nanos", 1),
        ("us µs usec micros", 10**3),
        ("ms msec millis", 10**6),
        ("s sec secs second seconds", 10**9),
        ("m min mins minute minutes", 60 * 10**9),
        ("h hr hrs hour hours", 3600 * 10**9),
        ("d day days", 86400 * 10**9),
    )
    for name in names.split()
}

DURATION_UNITS = tuple(_NS_PER_UNIT)

_BYTES_PER_UNIT = {
    "": 1,
    "b": 1,
    **{f"{letter}b": 1000**power for power, letter in enumerate("kmgt", 1)},
    **{f"{letter}i{b}": 1024**power for power, letter in enumerate("kmgt", 1) for b in ("", "b")},
}


def duration(least: timedelta, most: timedelta) -> Callable[[object], timedelta]:
    """A reader of ``"500ms"``, ``"1.5s"``, ``"1m30s"``, …, from ``least`` to ``most``."""
    allowed = (
        'a duration with its unit (ns, us, ms, s, m, h, d), such as "500ms", "5s" or "1m30s", '
        f"from {duration_text(least)} to {duration_text(most)}"
    )

    def read(value: object) -> timedelta:
        text = value.strip() if isinstance(value, str) else ""
        total, position = 0, 0
        while part := _QUANTITY.match(text, position):
            whole, decimals, unit = part.groups(default="")
            if unit not in _NS_PER_UNIT:
                raise ValueError(allowed)
            total += int(whole + decimals) * _NS_PER_UNIT[unit] // 10 ** len(decimals)
            position = part.end()
        if position != len(text) or not _ns(least) <= total <= _ns(most):
            raise ValueError(allowed)
        return timedelta(microseconds=total // 1000)

    return read


def duration_text(value: timedelta) -> str:
    """``value`` as one writes it: ``"1m30s"``, ``"500ms"``."""
    rest, parts = _ns(value), []
    for unit in ("d", "h", "m", "s", "ms", "us"):
        count, rest = divmod(rest, _NS_PER_UNIT[unit])
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def _ns(value: timedelta) -> int:
    return value // timedelta(microseconds=1) * 1000


def size(least: int, most: int) -> Callable[[object], int]:
    """A reader of a number of bytes, ``16777216`` or ``"16MiB"``, from ``least`` to ``most``."""
    allowed = f'a number of bytes, such as 16777216 or "16MiB" (B, kB, MB, GB, KiB, MiB, GiB), from {least} to {most}'

    def read(value: object) -> int:
        part = _QUANTITY.fullmatch(str(value).strip()) if isinstance(value, (str, int)) else None
        if part is None or part[3].lower() not in _BYTES_PER_UNIT:
            raise ValueError(allowed)
        whole, decimals, unit = part.groups(default="")
        total: int = int(whole + decimals) * _BYTES_PER_UNIT[unit.lower()] // 10 ** len(decimals)
        if not least <= total <= most:
            raise ValueError(allowed)
        return total

    return read


# --- words, names and paths -----------------------------------------------------------------------------------------


def choice(words: Sequence[str], note: str = "") -> Callable[[object], str]:
    """A reader of one of ``words`` (in lower case; any case is taken); ``note`` ends the text of what is allowed."""

    def read(value: object) -> str:
        if isinstance(value, str) and value.strip().lower() in words:
            return value.strip().lower()
        raise ValueError(", ".join(f'"{word}"' for word in words) + note)

    return read


def boolean(value: object) -> bool:
    """TOML's booleans, and their two words where only text can be written."""
    word = str(value).strip().lower() if isinstance(value, (str, bool)) else None
    if word not in ("true", "false"):
        raise ValueError("true, false")
    return word == "true"


def name(pattern: str, allowed: str) -> Callable[[object], str]:
    """A reader of text that the whole of ``pattern`` matches."""
    compiled = re.compile(pattern)

    def read(value: object) -> str:
        if not isinstance(value, str) or compiled.fullmatch(value) is None:
            raise ValueError(allowed)
        return value

    return read


def text(value: object) -> str:
    """Text; what is right in it hangs on other settings."""
    if isinstance(value, str):
        return value  # as it is, for an endpoint's class tells what kind it is (`otlp.BaseUrl`)
    raise ValueError("text")


def path(value: object) -> str:
    """A path; that something is there is for its user to find out, for it may come later."""
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise ValueError("a path")
    return value


def optional_path(value: object) -> str | None:
    """A path, or nothing, which is also written ``""``."""
    return None if value is None or value == "" else path(value)


def optional_home_path(value: object) -> str | None:
    """As `optional_path`; ``~`` is the home directory."""
    found = optional_path(value)
    return None if found is None else str(Path(found).expanduser())


def optional_file(value: object) -> str | None:
    """The path of a file that can be read now, or nothing, which is also written ``""``."""
    found = optional_path(value)
    if found is not None:
        why = None
        try:
            # A pipe would be waited for, here and each time that it is read, whatever signal comes.
            with os.fdopen(os.open(found, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
                why = "it is a pipe" if stat.S_ISFIFO(os.fstat(file.fileno()).st_mode) else None
        except OSError as error:
            why = error.strerror
        if why is not None:
            raise ValueError(f'a file that can be read ({why}), or "" for none')
    return found


def inline(value: object) -> object:
    """``value``; where it is the text of an inline table, as flags and the environment carry it, that table."""
    if not isinstance(value, str) or not value.lstrip().startswith("{"):
        return value
    try:
        return tomllib.loads(f"value = {value.strip()}")["value"]
    except (ValueError, RecursionError):
        return value  # and so the reader's own refusal shows it


# The names of the API's objects: https://kubernetes.io/docs/concepts/overview/working-with-objects/names/
# None begins with a dash, so none can be taken for an option of kubectl's.
_SUBDOMAIN = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")

node_name = name(
    _SUBDOMAIN.pattern,
    'a node\'s name as `kubectl get nodes` shows it (lower-case letters, digits, "-", "."); set k8s_node or NODE_NAME',
)

tls_name = name(
    r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|[0-9A-Fa-f:.]{2,45}",
    'a host name or an IP address as in a certificate, such as "worker-1"',
)


def token_retrieval(value: object) -> TokenRetrieval:
    """A word, ``{ file = … }`` or ``{ kubectl = { … } }``."""
    match inline(value):
        case "auto" | "file" | "kubeconfig" | "kubectl" | "none" as method:
            return TokenRetrieval(method)
        case {"file": str(file), **others} if not others and file:
            return TokenRetrieval("file", file=path(file))
        case {"kubectl": dict(account), **others} if not others and account.keys() <= {"service_account", "namespace"}:
            found = TokenRetrieval("kubectl", **account)
            if _matches(_SUBDOMAIN, found.service_account) and _matches(_LABEL, found.namespace):
                return found
    raise ValueError(
        '"auto", "file", "kubeconfig", "kubectl", "none", { file = "path" } or '
        '{ kubectl = { service_account = "alumet-reader", namespace = "alumet" } }'
    )


def pod_source(value: object) -> PodSource:
    """``"api"``, ``"kubelet"`` or ``{ file = … }``."""
    match inline(value):
        case "api" | "kubelet" as method:
            return PodSource(method)
        case {"file": str(file), **others} if not others and file:
            return PodSource("file", file=path(file))
    raise ValueError('"api", "kubelet" or { file = "pods.json" }')


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


ListenAddress = NewType("ListenAddress", str)
"""``host:port`` with an IP address."""


def listen_address(value: object) -> ListenAddress | None:
    """``host:port`` with an IP address, ``localhost:port`` or a port alone, which is on loopback; nothing is ``""``."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    text = value.strip() if isinstance(value, str) else "?"
    if not text:
        return None
    host, sign, port = text.rpartition(":")
    host = "127.0.0.1" if not sign or host == "localhost" else host
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    with suppress(ValueError):
        version = ipaddress.ip_address(bare).version
        if (version == 6) == (bare != host) and re.fullmatch("[0-9]{1,5}", port) and 0 < int(port) < 65536:
            return ListenAddress(f"{host}:{int(port)}")
    raise ValueError(
        '"127.0.0.1:8081" or "8081" for this machine alone, "0.0.0.0:8081" or "[::]:8081" for all, "" for none'
    )


# --- URLs and headers -----------------------------------------------------------------------------------------------

_HOST = re.compile(r"[\w.-]+|[0-9a-f:.]+(%[\w.-]+)?")
_NOT_IN_URLS = re.compile(r"[\x00-\x20\x7f\\]")


PORTS = "with a port from 1 to 65535 or none"


def split_url(text: str) -> SplitResult:
    """The parts of an http or https URL with a host and without a user or a fragment.

    Raises `ValueError` (its text is of no use to a user) where it is none.
    """
    if _NOT_IN_URLS.search(text) is not None:  # urlsplit would drop some of them without a word
        raise ValueError("a character that no URL has")
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or "@" in parts.netloc or parts.fragment or parts.port == 0:
        raise ValueError("scheme, user, fragment or port")
    if _HOST.fullmatch(parts.hostname or "") is None:
        raise ValueError("host")
    return parts


def api_url(value: object) -> str:
    """An http or https URL without a slash at its end; a path is allowed, as of a proxy in front of the API."""
    try:
        if isinstance(value, str) and not (parts := split_url(value.strip())).query:
            return parts._replace(path=parts.path.rstrip("/")).geturl()
    except ValueError:
        pass
    raise ValueError(f'an http:// or https:// URL without a user or a query, {PORTS}, such as "https://10.96.0.1:443"')


# What both protocols carry. To gRPC a name's end "-bin" means bytes:
# https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
_HEADER_NAME = re.compile(r"(?!.*-bin$)[0-9a-z_.-]+")
_HEADER_VALUE = re.compile(r"[\x20-\x7e]*")


def headers(value: object) -> tuple[tuple[str, str], ...]:
    """``"key=value,key2=value2"`` with percent-encoded values (W3C Baggage's form, as the standard has it), or a table.

    Of a name given twice the last counts; space around a value is no part of it. The refusal shows no value.
    """
    if isinstance(value, str):
        members = (member.partition("=") for member in value.split(",") if member.strip())
        pairs: Iterable[tuple[object, object]] = (
            (key, _decoded(item) if sign else None) for key, sign, item in members
        )
    elif isinstance(value, dict):
        pairs = value.items()
    else:
        pairs = [(None, None)]
    found = {}
    for number, (key, text) in enumerate(pairs, 1):
        lower = key.strip().lower() if isinstance(key, str) else ""
        stripped = text.strip() if isinstance(text, str) else text
        if not _matches(_HEADER_NAME, lower) or not _matches(_HEADER_VALUE, stripped):
            raise ValueError(
                f'"name=value" pairs with commas between them, their values printable ASCII or percent-encoded '
                f"(number {number} is none)"
            )
        found[lower] = str(stripped)
    return tuple(found.items())


def _decoded(text: str) -> str | None:
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        return None
