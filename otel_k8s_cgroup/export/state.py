"""What was delivered, as the bytes of the state file: the format, and what of it is believed.

It is JSON: the format's name and version, the boot's id (the monotonic clock and the counters begin anew with each
boot), and the look at the cgroups that all of it is of: its time, the root, and what could not be listed. Then, of each
pod's cgroup that was there, whose it was and where its next delta begins; and what waited to be delivered for good: the
newest reading of each pod that had ended, or of every pod where the receiver took nothing.

A cgroup that is not in the file was not there yet, unless it is where nothing could be listed; so all of its CPU time
came after that look. So did that of one whose directory has another inode now.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from otel_k8s_cgroup.export.ledger import Base, Bases
from otel_k8s_cgroup.model import INT64_MAX, CgroupRoot, Pod

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from otel_k8s_cgroup.export.ledger import Names

FORMAT = "otel-k8s-cgroup state"
VERSION = 3
_STALE = 0
"""Of a file that could be neither replaced nor removed when it was out of date."""

_FORMAT_HEAD = f'{{"format":"{FORMAT}"'.encode()
HEAD = _FORMAT_HEAD + b',"version":'
"""What every file begins with; one digit of the version follows."""
STALE_HEAD = HEAD + str(_STALE).encode()

# 10,000 pods of three counters have 2 MB, and as many that wait 6 MB.
MAX_BYTES = 32 << 20
MAX_WAITING = 20_000


class Remnant(NamedTuple):
    """What is left of a cgroup whose exporter has ended."""

    path: str
    inode: int
    """Of its directory; 0 where that is not known."""
    bases: Bases
    pod: Pod | None = None
    """Whose it was; None where it was not measured."""

    def is_another(self, path: str, inode: int) -> bool:
        """Whether what is at ``path`` now was made anew since."""
        return path == self.path and 0 not in (inode, self.inode) and inode != self.inode


class Waiting(NamedTuple):
    """A pod's newest reading that was not delivered."""

    pod: Pod
    remnant: Remnant
    """Its cgroup, with what was delivered before it."""
    mono_ns: int
    unix_ns: int
    values: tuple[int | float | None, ...]
    """As in ``ledger.Entry``."""


@dataclass(frozen=True, slots=True)
class Remembered:
    """What the file holds."""

    mono_ns: int
    """When the cgroups were looked at."""
    unix_ns: int
    pods: dict[str, Remnant | None]
    """By their cgroup's uid, all that were there; None where nothing was read of it."""
    root: CgroupRoot | None = None
    """None in a file of version 2."""
    unlisted: tuple[str, ...] = ()
    """As ``Look.unlisted``."""
    waiting: tuple[Waiting, ...] = ()
    """The oldest first."""


class NotOursError(ValueError):
    """The content is somebody else's."""


def is_ours(content: bytes) -> bool:
    """Whether ``content``, or its beginning, is of a state file, be it cut short."""
    return content.startswith(_FORMAT_HEAD) or _FORMAT_HEAD.startswith(content.rstrip(b"\0"))


def encode_state(remembered: Remembered, names: Names, *, boot_id: str) -> bytes:
    """The file's content."""
    root = remembered.root
    return json.dumps(
        {
            "format": FORMAT,
            "version": VERSION,
            "boot_id": boot_id,
            "mono_ns": remembered.mono_ns,
            "unix_ns": remembered.unix_ns,
            "root": None if root is None else root._asdict(),
            "unlisted": remembered.unlisted,
            "counters": names.counters,
            # A base is [mono_ns, unix_ns, value].
            "pods": {uid: None if remnant is None else _object(remnant) for uid, remnant in remembered.pods.items()},
            "values": names.values,
            "waiting": [
                waiting._asdict() | {"pod": _identity(waiting.pod), "remnant": _object(waiting.remnant)}
                for waiting in remembered.waiting[-MAX_WAITING:]
            ],
        },
        separators=(",", ":"),
    ).encode()


def parse_state(content: bytes, names: Names, *, boot_id: str, now_ns: int) -> Remembered:
    """The reverse of ``encode_state``; a counter that the file does not have has no base. Version 2 is read as well.

    Raises:
        NotOursError: the content is no state file's.
        ValueError: it is not whole, of another version or of another boot; tells which.
    """
    state = decoded(content)
    version = state.get("version")
    if version == _STALE and type(version) is int:
        raise ValueError("it was out of date: its exporter could not write it")
    if version not in (2, VERSION) or type(version) is not int:
        raise ValueError(f"its version is {str(version)[:20]!r}, not {VERSION}")
    if state.get("boot_id") != boot_id:
        raise ValueError("it is of another boot")
    pods = state.get("pods")
    if not isinstance(pods, dict):
        raise ValueError("its pods are missing")  # noqa: TRY004 the caller knows one error
    mono_ns = _number(state.get("mono_ns"))
    if mono_ns > now_ns:
        raise ValueError("it is of a time that has not come yet")
    places = _places(state, "counters", names.counters)
    remembered = Remembered(
        mono_ns,
        _number(state.get("unix_ns")),
        {uid: None if remnant is None else _remnant(remnant, places, now_ns) for uid, remnant in pods.items()},
    )
    if version == 2:
        # It does not tell of which root it is: only a cgroup of the same path and inode is surely known.
        return Remembered(remembered.mono_ns, remembered.unix_ns, remembered.pods, unlisted=("",))
    value_places = _places(state, "values", names.values)
    return Remembered(
        remembered.mono_ns,
        remembered.unix_ns,
        remembered.pods,
        _root(state.get("root")),
        tuple(_texts(state, "unlisted")),
        tuple(
            _waiting(waiting, names, places, value_places, now_ns)
            for waiting in _list(state.get("waiting"), "what waits")
        ),
    )


def decoded(content: bytes) -> dict[str, object]:
    """Its JSON, of whatever version.

    Raises:
        NotOursError, ValueError: as ``parse_state``.
    """
    ours = is_ours(content[: len(_FORMAT_HEAD)])
    if ours and len(content) > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES} bytes")
    try:
        state = json.loads(content)
    except (ValueError, RecursionError):
        if ours:
            raise ValueError("it is not whole") from None
        state = None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise NotOursError("it is no state file of this exporter")
    return state


def _object(remnant: Remnant) -> dict[str, object]:
    return remnant._asdict() | {"pod": None if remnant.pod is None else _identity(remnant.pod)}


_IDENTITY = ("uid", "name", "namespace", "node", "start_time", "cgroup_uid", "config_hash", "finished")


def _identity(pod: Pod) -> dict[str, object]:
    """Who it is; what may change is what the API says once it is asked again."""
    return {field: getattr(pod, field) for field in _IDENTITY}


def _list(value: object, what: str) -> list[object]:
    if not isinstance(value, list):
        raise ValueError(f"{what} of it is no list")  # noqa: TRY004 as above
    return value


def _texts(state: Mapping[str, object], key: str) -> list[str]:
    return [_text(text) for text in _list(state.get(key), key)]


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("a text of it is none")  # noqa: TRY004 as above
    return value


def _places(state: Mapping[str, object], key: str, wanted: Sequence[str]) -> list[int | None]:
    names = _list(state.get(key), key)
    return [names.index(name) if name in names else None for name in wanted]


def _root(value: object) -> CgroupRoot | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise ValueError("its root is not as it should be")  # noqa: TRY004 as above
    return CgroupRoot(*(_number(value.get(field)) for field in CgroupRoot._fields))


def _remnant(remnant: object, places: Sequence[int | None], now_ns: int) -> Remnant:
    if isinstance(remnant, dict):
        path, bases, pod = (remnant.get(field) for field in ("path", "bases", "pod"))
        if isinstance(path, str) and isinstance(bases, list):
            return Remnant(
                path,
                _number(remnant.get("inode")),
                tuple(_base(bases, place, now_ns) for place in places),
                None if pod is None else _pod(pod),
            )
    raise ValueError("a pod of it is not as it should be")


def _base(bases: list[object], place: int | None, now_ns: int) -> Base | None:
    if place is None:
        return None
    match bases[place] if place < len(bases) else None:
        case None:
            return None
        case [mono_ns, unix_ns, value] if (base := Base(*map(_number, (mono_ns, unix_ns, value)))).mono_ns <= now_ns:
            return base
        case other:
            raise ValueError(f"a base of it is {str(other)[:60]!r}")


def _waiting(
    value: object, names: Names, places: Sequence[int | None], value_places: Sequence[int | None], now_ns: int
) -> Waiting:
    if not isinstance(value, dict):
        raise ValueError("what waits of it is not as it should be")  # noqa: TRY004 as above
    mono_ns = _number(value.get("mono_ns"))
    if mono_ns > now_ns:
        raise ValueError("what waits of it is of a time that has not come yet")
    values = _list(value.get("values"), "a reading")
    return Waiting(
        _pod(value.get("pod")),
        _remnant(value.get("remnant"), places, now_ns),
        mono_ns,
        _number(value.get("unix_ns")),
        tuple(
            None if place is None or place >= len(values) else _value(values[place], is_double)
            for place, is_double in zip(value_places, names.doubles, strict=True)
        ),
    )


def _pod(value: object) -> Pod:
    if not isinstance(value, dict):
        raise ValueError("a pod of it is not as it should be")  # noqa: TRY004 as above
    uid, name, namespace, node, cgroup_uid = (
        _text(value.get(field)) for field in ("uid", "name", "namespace", "node", "cgroup_uid")
    )
    start_time, config_hash = (
        None if value.get(field) is None else _text(value.get(field)) for field in ("start_time", "config_hash")
    )
    return Pod(uid, name, namespace, node, start_time, cgroup_uid, config_hash, value.get("finished") is True)


def _value(value: object, is_double: bool) -> int | float | None:
    if value is None:
        return None
    if not is_double:
        return _number(value)
    if type(value) is not float or not math.isfinite(value):
        raise ValueError(f"a figure of it is {str(value)[:40]!r}")
    return value


def _number(value: object) -> int:
    if type(value) is not int or not 0 <= value <= INT64_MAX:
        raise ValueError(f"a number of it is {str(value)[:40]!r}")
    return value
