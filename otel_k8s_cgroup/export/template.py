"""A protobuf message as bytes with gaps: what changes from request to request is filled in by one ``struct`` call.

All times and values of an OTLP point have a fixed width (``fixed64``, ``sfixed64``, ``double``), so a message keeps
its length and the places of its fields whatever they hold. The library serializes it once, with marks in the fields.
(It leaves out a time of 0, which is filled in here; both mean the same.)

Source: https://github.com/open-telemetry/opentelemetry-proto (``metrics.proto``) and
https://protobuf.dev/programming-guides/encoding/#non-varint-numbers.
"""

from __future__ import annotations

import random
import struct
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from google.protobuf.message import Message

_BYTES = 8


class Gap(NamedTuple):
    """A field of a message that is filled each time."""

    set: Callable[[Any], None]
    """Sets it in the message that the template is made of."""
    code: str
    """Its type, as in ``struct``: ``Q`` fixed64, ``q`` sfixed64, ``d`` double."""
    place: int
    """Of its value among those that ``fill`` is given."""
    scale: float | None = None
    """What its value is multiplied by."""


class Template:
    """Fills a message.

    Args:
        message: as it is but for the gaps; it is changed.
        gaps: at least one, at most 2**24.
    """

    def __init__(self, message: Message, gaps: Sequence[Gap]) -> None:
        data, in_order = _marked(message, gaps)
        self._parts: list[Any] = []
        layout = ["<"]
        at = 0
        for begin, gap in in_order:
            self._parts += (data[at:begin], None)
            layout += (f"{begin - at}s", gap.code)
            at = begin + _BYTES
        self._parts.append(data[at:])
        layout.append(f"{len(data) - at}s")
        self._pack = struct.Struct("".join(layout)).pack
        places = tuple(gap.place for _, gap in in_order)
        self.places = places
        """Of what is filled in, in the order of the bytes."""
        self._scaled = [
            (2 * number + 1, gap.scale) for number, (_, gap) in enumerate(in_order) if gap.scale is not None
        ]
        # itemgetter() gives a tuple only of several.
        self._pick: Callable[[Sequence[Any]], Sequence[Any]] = (
            itemgetter(*places) if len(places) > 1 else lambda values: [values[places[0]]]
        )

    def fill(self, values: Sequence[int | float | None]) -> bytes:
        """The message's bytes with ``values`` in its gaps. Not for several threads."""
        return self.fill_in_order(self._pick(values))

    def fill_in_order(self, values: Sequence[int | float | None]) -> bytes:
        """As ``fill``, where the values stand in the order of ``places``."""
        parts = self._parts
        parts[1::2] = values
        for place, scale in self._scaled:
            parts[place] *= scale
        return self._pack(*parts)


def _marked(message: Message, gaps: Sequence[Gap]) -> tuple[bytes, list[tuple[int, Gap]]]:
    """The message's bytes with a mark in each gap, and where each gap begins, in the order of the bytes.

    A mark is the gap's number in three bytes, and five that all marks share.
    """
    while True:
        # Not to be guessed: names of pods stand in the message as well. The last byte makes a finite double of it.
        shared = random.randbytes(4) + b"\x3f"  # noqa: S311 no secret depends on it
        for number, gap in enumerate(gaps):
            gap.set(*struct.unpack(f"<{gap.code}", number.to_bytes(3, "little") + shared))
        data = message.SerializeToString()
        found = []
        at = data.find(shared)
        while at >= 0:
            found.append(at - 3)
            at = data.find(shared, at + len(shared))
        numbers = [int.from_bytes(data[begin : begin + 3], "little") for begin in found]
        if sorted(numbers) == list(range(len(gaps))):
            return data, [(begin, gaps[number]) for begin, number in zip(found, numbers, strict=True)]
