"""Quantities of the Kubernetes API ("100m", "128Mi", "1e3"), exactly.

Source: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
"""

from __future__ import annotations

import math
import re
from fractions import Fraction

from otel_k8s_cgroup.model import INT64_MAX

_QUANTITY = re.compile(
    r"(?P<number>[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))(?:[eE](?P<exponent>[+-]?[0-9]{1,3})|(?P<suffix>[KMGTPE]i|[numkMGTPE]?))"
)
_MAX_CHARACTERS = 64
_MAX_EXPONENT = 40
_FACTORS = {
    "": Fraction(1),
    **{name: Fraction(1, 1000**power) for power, name in enumerate("mun", 1)},
    **{name: Fraction(1000**power) for power, name in enumerate("kMGTPE", 1)},
    **{f"{name}i": Fraction(1024**power) for power, name in enumerate("KMGTPE", 1)},
}


def parse_quantity(text: str) -> Fraction:
    """The number that ``text`` stands for. Raises ValueError where it is none."""
    found = _QUANTITY.fullmatch(text) if len(text) <= _MAX_CHARACTERS else None
    if found is None:
        raise ValueError("not a quantity")
    if found["exponent"] is None:
        return Fraction(found["number"]) * _FACTORS[found["suffix"]]
    exponent = int(found["exponent"])
    if abs(exponent) > _MAX_EXPONENT:
        raise ValueError("not a quantity that anything has")
    return Fraction(found["number"]) * Fraction(10) ** exponent


def nanocores(text: str) -> int | None:
    """Of an amount of CPU, rounded up as the API does; None where it is none."""
    return _amount(text, 10**9)


def whole_bytes(text: str) -> int | None:
    """Of an amount of memory, rounded up as the API does; None where it is none."""
    return _amount(text, 1)


def _amount(text: str, parts: int) -> int | None:
    try:
        amount = math.ceil(parse_quantity(text) * parts)
    except ValueError:
        return None
    return amount if 0 <= amount <= INT64_MAX else None
