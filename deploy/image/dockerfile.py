"""deploy/Dockerfile, read as far as it is written."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

REPOSITORY = Path(__file__).parents[2]
DOCKERFILE = REPOSITORY / "deploy/Dockerfile"


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction of the Dockerfile: ``COPY``, and what follows it."""

    word: str
    arguments: str


def dockerfile() -> list[list[Instruction]]:
    """The stages, each from its ``FROM`` on; what is before the first is in none."""
    text = DOCKERFILE.read_text().replace("\\\n", " ")
    stages: list[list[Instruction]] = []
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        word, _, arguments = line.partition(" ")
        if word == "FROM":
            stages.append([])
        if stages:
            stages[-1].append(Instruction(word, " ".join(arguments.split())))
    return stages


def labels(given: Mapping[str, str]) -> dict[str, str]:
    """Of the last stage, with the arguments that are ``given`` in place of the defaults."""
    arguments: dict[str, str] = {}
    found: dict[str, str] = {}
    for instruction in dockerfile()[-1]:
        if instruction.word == "ARG":
            name, _, default = instruction.arguments.partition("=")
            arguments[name] = given.get(name, default)
        elif instruction.word == "LABEL":
            for name, value in re.findall(r'(\S+?)="([^"]*)"', instruction.arguments):
                found[name] = re.sub(r"\$\{(\w+)\}", lambda match: arguments[match[1]], value)
    return found


def copied_from_context(stages: Sequence[Sequence[Instruction]]) -> list[str]:
    """What is copied of the repository, over all stages."""
    return [
        source
        for stage in stages
        for instruction in stage
        if instruction.word == "COPY" and not instruction.arguments.startswith("--from")
        for source in instruction.arguments.split()[:-1]
    ]
