"""What a pod's network interfaces have carried: the text of ``net/dev``, reading by reading → counters that only grow.

No byte counts twice. After a restart of the exporter an interface of an unknown name counts from zero, as one that has
come meanwhile; so one that was there at the pod's first reading is never left out while others count.

Source: https://docs.kernel.org/filesystems/proc.html (1.4 Networking info in /proc/net)
"""

from __future__ import annotations

from operator import add, ge
from typing import TYPE_CHECKING, TypeAlias

from otel_k8s_cgroup.errors import MalformedFile, TooManyInterfaces

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from otel_k8s_cgroup.errors import CgroupError

Numbers: TypeAlias = "tuple[int, ...]"

MOST_BYTES = 1 << 16
"""Of a text: some 500 interfaces."""
_HEAD_LINES = 2
_NUMBERS = 16
_ZEROS: Numbers = (0,) * _NUMBERS
_MOST_DIGITS = 18
"""Of a number that is an int64 in any case."""
_STEADY = (0, 1, 8, 9)
"""Bytes and packets, received and sent: they go down only where the interface is made anew. Drivers are less careful
with the others.
"""
_MOST = 16
"""Of a pod in its life: whoever may make interfaces in it, or rename them, could else make series without end."""
_MALFORMED = -1
"""Stands for a number that is."""
_LOOPBACK = "lo"
_INNER = ("veth", "docker", "nerdctl")
"""How the names begin of what a container engine in a pod makes, without end: its traffic goes through the pod's own
interfaces, too. cAdvisor leaves out the same.
"""


class Interfaces:
    """The interfaces of one pod. It is kept for the life of the pod's cgroup.

    Args:
        path: for messages.
        born: whether the pod was born while the exporter was there, and so all of its interfaces.
    """

    def __init__(self, path: str, *, born: bool = False) -> None:
        self._path = path
        self._namespace = 0
        self._names: set[str] | None = set() if born else None
        """Of all interfaces that have counted; None before the first reading of what was there before."""
        self._seen: dict[str, Numbers] = {}
        """Interface → its numbers at the last reading, of each that is there …"""
        self._before: dict[str, Numbers] = {}
        """… and what makes them what its name has carried, of those that count: the numbers of ones of that name that
        are gone; less what one that was renamed had under its old name.
        """
        self._borne: set[str] = set()
        """Names that do not count, of interfaces that had ones that do."""
        self._is_full = False
        """Whether one was left out, which was reported."""

    def read(
        self, data: bytes, namespace: int, wanted: Sequence[int], report: Callable[[CgroupError], None]
    ) -> tuple[Mapping[str, int] | None, ...]:
        """Of each number of a line that is ``wanted``: interface → value. None where one of them is malformed, or the
        pod has too many interfaces at its first reading, which is reported.

        Args:
            data: the text, or the first ``MOST_BYTES`` of it.
            namespace: which network that is of.
            wanted: numbers from 0 on: received bytes.
            report: is given what is wrong.
        """
        now = self._parsed(data, report)
        is_cut = len(data) >= MOST_BYTES
        names = None if now is None else self._admit(now, report, is_cut=is_cut)
        if now is None or names is None:
            return (None,) * len(wanted)
        self._take(now, names, namespace, is_cut=is_cut)
        seen, before = self._seen, self._before
        totals = {
            name: _plus(seen[name], before[name]) if name in before else seen[name] for name in now if name in names
        }
        return tuple(
            None
            if any(now[name][number] == _MALFORMED for name in totals)
            else {name: total[number] for name, total in totals.items()}
            for number in wanted
        )

    def _parsed(self, data: bytes, report: Callable[[CgroupError], None]) -> dict[str, Numbers] | None:
        """Interface → its numbers, loopback's left out. None where the text is not as the kernel writes it:
        an interface that is missing would be taken for one that is gone.
        """
        found: dict[str, Numbers] = {}
        *lines, rest = data.split(b"\n")
        for line in lines[_HEAD_LINES:]:
            raw_name, _, text = line.strip().partition(b":")
            name, words = raw_name.decode(errors="replace"), text.split()
            if len(words) != _NUMBERS:
                report(self._malformed(line))
                return None
            if name == _LOOPBACK:
                continue
            is_plain = max(map(len, words)) <= _MOST_DIGITS and b"".join(words).isdigit()
            found[name] = numbers = tuple(map(int if is_plain else _number, words))
            if _MALFORMED in numbers and not name.startswith(_INNER):
                report(self._malformed(line))
        if (rest and len(data) < MOST_BYTES) or len(lines) < _HEAD_LINES:
            report(self._malformed(rest))
            return None
        return found

    def _malformed(self, line: bytes) -> MalformedFile:
        shown = line[:200].decode(errors="replace")
        return MalformedFile(self._path, shown, f"a name and {_NUMBERS} numbers are expected")

    def _admit(
        self, now: Mapping[str, object], report: Callable[[CgroupError], None], *, is_cut: bool
    ) -> set[str] | None:
        """The names that count; None where they are too many at the first reading."""
        names, is_first = self._names or set(), self._names is None
        new = [name for name in now if name not in names and not name.startswith(_INNER)]
        left_out = new[_MOST - len(names) :]
        is_none = is_first and bool(left_out or is_cut)
        if (left_out or is_none) and not self._is_full:
            self._is_full = True
            what = "its network is" if is_none else f"{left_out[0]!r} and further ones are"
            report(TooManyInterfaces(self._path, _MOST, what))
        if is_none:
            return None
        if is_first:
            self._is_full = False
        names.update(new[: _MOST - len(names)])
        self._names = names
        return names

    def _take(self, now: dict[str, Numbers], names: set[str], namespace: int, *, is_cut: bool) -> None:
        """Counts on where an interface was made anew, or has another name: the pod's counters only grow.

        ``is_cut``: there are more than these.
        """
        last, before = self._seen, self._before
        is_same = namespace == self._namespace
        # As nearly always: none is lower, or malformed.
        if is_same and last.keys() == now.keys() and all(all(map(ge, now[name], last[name])) for name in now):
            self._seen = now
            return
        came = {name for name in now if name not in last or not _goes_on(last[name], now[name])}
        gone = [name for name in last if name in came or (name not in now and not is_cut)]
        # None of another network was renamed; but a device that was moved there has its counters still.
        counted = [name for name in gone if is_same and (name in names or name in self._borne)]
        renamed = self._renamed(came, counted, now)
        self._namespace = namespace
        for name in gone:
            self._borne.discard(name)
            if name in names:
                before[name] = _plus(before.get(name, _ZEROS), last[name])
        seen = {name: numbers for name, numbers in last.items() if is_cut and name in names and name not in now}
        for name, numbers in now.items():
            is_known = name not in came
            was = last[name] if is_known else last.get(renamed.get(name, ""), _ZEROS)
            # What is malformed has stayed as it was.
            seen[name] = filled = tuple(
                old if new == _MALFORMED else new for new, old in zip(numbers, was, strict=True)
            )
            if name not in names:
                if name in renamed:
                    self._borne.add(name)
            elif is_known:
                if any(lost := tuple(max(0, old - new) for new, old in zip(filled, was, strict=True))):
                    before[name] = _plus(before.get(name, _ZEROS), lost)
            elif name in renamed:
                carried = tuple(-min(old, new) for new, old in zip(filled, was, strict=True))
                before[name] = _plus(before.get(name, _ZEROS), carried)
        self._seen = seen

    def _renamed(self, came: Collection[str], gone: Sequence[str], now: Mapping[str, Numbers]) -> dict[str, str]:
        """New name → old one, of those whose numbers go on under another name: the nearest ones."""
        near = sorted(
            (sum(now[name]) - sum(self._seen[old]), name, old)
            for name in came
            for old in gone
            if name != old and any(self._seen[old]) and _goes_on(self._seen[old], now[name])
        )
        found: dict[str, str] = {}
        for _, name, old in near:
            if name not in found and old not in found.values():
                found[name] = old
        return found


def _number(word: bytes) -> int:
    return int(word) if len(word) <= _MOST_DIGITS and word.isdigit() else _MALFORMED


def _goes_on(last: Numbers, now: Numbers) -> bool:
    """Whether these may be the same interface's numbers, later."""
    return all(now[number] >= last[number] or now[number] == _MALFORMED for number in _STEADY)


def _plus(one: Numbers, other: Numbers) -> Numbers:
    return tuple(map(add, one, other))
