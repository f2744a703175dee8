"""What was delivered, as the bytes of the state file: the format, and what of it is believed.

It is JSON: the format's name and version, the boot's id (the monotonic clock and the counters begin anew with each
boot), and the discovery of cgroups that all of it is of: its time, the root, and what could not be listed. Then, of
each cgroup that was there, which pod it was named after and where its next delta begins; and what waited to be
delivered for good: the newest reading of each entity that had ended, or of every one where the receiver took nothing.

A cgroup that is not in the file was not there yet, unless it is where nothing could be listed; so all of its CPU time
came after that discovery. So did that of one whose directory has another inode now.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, NamedTuple, TypeAlias

import msgspec

from otel_k8s_cgroup.export.layout import Names
from otel_k8s_cgroup.export.ledger import Base, Bases
from otel_k8s_cgroup.model import INT64_MAX, Attributes, CgroupRoot, Description, EntityKind, Pod, kind_of

if TYPE_CHECKING:
    from otel_k8s_cgroup.metrics import Row

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
# Of a number that JSON's readers and msgspec agree on.
_BITS = 63


class Remnant(NamedTuple):
    """What is left of a cgroup whose exporter has ended."""

    path: str
    inode: int
    """Of its directory; 0 where that is not known."""
    bases: Bases
    pod: Pod | None = None
    """Which it was named after; None where it was not measured, or is no pod's."""
    by_device: frozenset[str] = frozenset()
    """Families of columns (``Column.family``) that it has, be it with no device yet."""
    start_unix_ns: int = 0
    """When it was made anew, where it was; 0: it is as old as its entity."""

    def is_another(self, path: str, inode: int) -> bool:
        """Whether what is at ``path`` now was made anew since."""
        return path == self.path and 0 not in (inode, self.inode) and inode != self.inode


class Waiting(NamedTuple):
    """An entity's newest reading that was not delivered."""

    key: str
    kind: EntityKind
    description: Description
    remnant: Remnant
    """Its cgroup, with what was delivered before it."""
    mono_ns: int
    unix_ns: int
    values: Row


NO_NAMES = Names((), ())


@dataclass(frozen=True, slots=True)
class Remembered:
    """What the file holds."""

    mono_ns: int
    """When the cgroups were discovered."""
    unix_ns: int
    cgroups: dict[str, Remnant | None]
    """By their entity's key, all that were there; None where nothing was read of it."""
    root: CgroupRoot | None = None
    """None in a file of version 2."""
    unlisted: tuple[str, ...] = ()
    """As ``Discovery.unlisted``."""
    waiting: tuple[Waiting, ...] = ()
    """The oldest first."""
    kinds: frozenset[EntityKind] = frozenset({EntityKind.POD})
    """As ``Discovery.kinds``."""
    names: Names = NO_NAMES
    """Of the counters that the bases are of, and of what waits."""

    def may_have_missed(self, key: str, path: str) -> bool:
        """Whether a cgroup that is not among ``cgroups`` may have been there all the same."""
        return path.startswith(self.unlisted) or kind_of(key) not in self.kinds

    @property
    def labels(self) -> frozenset[str]:
        """Those of ``names`` that anything has: a device that nobody uses any more takes no column."""
        remnants = [*filter(None, self.cgroups.values()), *(waits.remnant for waits in self.waiting)]
        counters = {number for remnant in remnants for number in remnant.bases.numbers}
        values = {place for waits in self.waiting for place, value in enumerate(waits.values) if value is not None}
        return frozenset(self.names.counters[number] for number in counters) | {
            self.names.values[place] for place in values
        }


class NotOursError(ValueError):
    """The content is somebody else's."""


# --- the file -------------------------------------------------------------------------------------------------------

_Number: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=INT64_MAX)]


class _Base(NamedTuple):
    mono_ns: _Number
    unix_ns: _Number
    value: _Number


class _Pod(msgspec.Struct):
    """Who it is; what may change of it is listed again."""

    uid: str
    name: str
    namespace: str
    node: str
    start_time: str | None
    cgroup_uid: str
    config_hash: str | None = None
    finished: bool = False


class _Remnant(msgspec.Struct):
    path: str
    inode: _Number
    bases: list[_Base | None]
    """One a counter."""
    pod: _Pod | None = None
    by_device: _Number = 0
    """Bit n: it has the file's n-th family of columns by device."""
    start_unix_ns: _Number = 0


class _Waiting(msgspec.Struct):
    key: str
    kind: EntityKind
    resource: Attributes
    points: dict[str, Attributes]
    remnant: _Remnant
    mono_ns: _Number
    unix_ns: _Number
    values: list[_Number | float | None]


class _Root(NamedTuple):
    device: _Number
    inode: _Number
    version: _Number


class _File2(msgspec.Struct):
    """As 0.1.0 has it. ``pods`` are its cgroups, by their keys."""

    boot_id: str
    mono_ns: _Number
    unix_ns: _Number
    counters: list[str]
    pods: dict[str, _Remnant | None]


class _File3(msgspec.Struct):
    boot_id: str
    mono_ns: _Number
    unix_ns: _Number
    root: _Root | None
    unlisted: list[str]
    kinds: list[EntityKind]
    counters: list[str]
    cgroups: dict[str, _Remnant | None]
    values: list[str]
    waiting: list[_Waiting]
    by_device: list[str] = msgspec.field(default_factory=list)
    """Families of columns; at most 63, the bits of a number."""


def is_ours(content: bytes) -> bool:
    """Whether ``content``, or its beginning, is of a state file, be it cut short."""
    return content.startswith(_FORMAT_HEAD) or _FORMAT_HEAD.startswith(content.rstrip(b"\0"))


def encode_state(remembered: Remembered, *, boot_id: str) -> bytes:
    """The file's content."""
    names = remembered.names
    counters = len(names.counters)
    remnants = [*filter(None, remembered.cgroups.values()), *(of.remnant for of in remembered.waiting)]
    by_device = sorted(frozenset().union(*{of.by_device for of in remnants}))[:_BITS]
    masks: dict[frozenset[str], int] = {}

    def mask(of: frozenset[str]) -> int:
        if of not in masks:
            masks[of] = sum(1 << number for number, family in enumerate(by_device) if family in of)
        return masks[of]

    def remnant(of: Remnant) -> _Remnant:
        pod = None if of.pod is None else _Pod(*(getattr(of.pod, field) for field in _Pod.__struct_fields__))
        bases = [base and _Base(*base) for base in of.bases.each(counters)]
        return _Remnant(of.path, of.inode, bases, pod, mask(of.by_device), of.start_unix_ns)

    file = _File3(
        boot_id,
        remembered.mono_ns,
        remembered.unix_ns,
        remembered.root and _Root(*remembered.root),
        list(remembered.unlisted),
        sorted(remembered.kinds, key=lambda kind: kind.value),
        list(names.counters),
        {key: of and remnant(of) for key, of in remembered.cgroups.items()},
        list(names.values),
        [
            _Waiting(
                of.key,
                of.kind,
                of.description.resource,
                dict(of.description.points),
                remnant(of.remnant),
                of.mono_ns,
                of.unix_ns,
                list(of.values),
            )
            for of in remembered.waiting[-MAX_WAITING:]
        ],
        by_device,
    )
    # Not msgspec's bytes: a path may have half of a surrogate pair, which is no UTF-8.
    content = {"format": FORMAT, "version": VERSION} | msgspec.to_builtins(file)
    return json.dumps(content, separators=(",", ":")).encode()


def parse_state(content: bytes, *, boot_id: str, now_ns: int) -> Remembered:
    """The reverse of ``encode_state``. Version 2 is read as well.

    Raises:
        NotOursError: the content is no state file's.
        ValueError: it is not whole, of another version or of another boot; the message names which.
    """
    state = decoded(content)
    version = state.get("version")
    if version == _STALE and type(version) is int:
        raise ValueError("it was out of date: its exporter could not write it")
    if version not in (2, VERSION) or type(version) is not int:
        raise ValueError(f"its version is {str(version)[:20]!r}, not {VERSION}")
    if state.get("boot_id") != boot_id:
        raise ValueError("it is of another boot")
    file: _File2 | _File3
    try:
        file = msgspec.convert(state, _File2) if version == 2 else msgspec.convert(state, _File3)
    except (msgspec.ValidationError, RecursionError) as error:
        raise ValueError(f"it is not as it should be: {error}") from None
    if file.mono_ns > now_ns:
        raise ValueError("it is of a time that has not come yet")

    families = [] if isinstance(file, _File2) else file.by_device[:_BITS]
    sets: dict[int, frozenset[str]] = {}

    def by_device(mask: int) -> frozenset[str]:
        if mask not in sets:
            sets[mask] = frozenset(family for number, family in enumerate(families) if mask >> number & 1)
        return sets[mask]

    def remnant(of: _Remnant) -> Remnant:
        each = [_base(base, now_ns) for base in of.bases[: len(file.counters)]]
        pod = None if of.pod is None else Pod(*msgspec.structs.astuple(of.pod))
        return Remnant(of.path, of.inode, Bases.of(each), pod, by_device(of.by_device), of.start_unix_ns)

    if isinstance(file, _File2):
        cgroups = {key: None if of is None else remnant(of) for key, of in file.pods.items()}
        # It does not tell of which root it is: only a cgroup of the same path and inode is surely known.
        names = Names(tuple(file.counters), ())
        return Remembered(file.mono_ns, file.unix_ns, cgroups, unlisted=("",), names=names)
    waiting = []
    for of in file.waiting:
        if of.mono_ns > now_ns:
            raise ValueError("what waits of it is of a time that has not come yet")
        if len(of.values) != len(file.values) or not all(map(_is_sane, of.values)):
            raise ValueError("a reading of it is not as it should be")
        description = Description(of.resource, of.points)
        waiting.append(
            Waiting(of.key, of.kind, description, remnant(of.remnant), of.mono_ns, of.unix_ns, tuple(of.values))
        )
    return Remembered(
        file.mono_ns,
        file.unix_ns,
        {key: None if of is None else remnant(of) for key, of in file.cgroups.items()},
        file.root and CgroupRoot(*file.root),
        tuple(file.unlisted),
        tuple(waiting),
        frozenset(file.kinds),
        Names(tuple(file.counters), tuple(file.values)),
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


def _base(base: _Base | None, now_ns: int) -> Base | None:
    if base is None:
        return None
    if base.mono_ns > now_ns:
        raise ValueError("a base of it is of a time that has not come yet")
    return Base(*base)


def _is_sane(value: int | float | None) -> bool:
    return value is None or isinstance(value, int) or math.isfinite(value)
