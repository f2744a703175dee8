"""References of container images, as they stand in a pod's spec and status.

Source: https://github.com/distribution/reference/blob/main/reference.go (the grammar)
"""

from __future__ import annotations

import re
from typing import NamedTuple

_MAX_CHARACTERS = 1024
_DIGEST = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_HOST = r"(?:\[[0-9a-fA-F:]+\]|[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?)(?::[0-9]+)?"
_REFERENCE = re.compile(
    rf"(?P<name>(?:{_HOST}/)?{_COMPONENT}(?:/{_COMPONENT})*)(?::(?P<tag>{_TAG}))?(?:@(?P<digest>{_DIGEST}))?"
)
_BARE_DIGEST = re.compile(_DIGEST)
# dockershim's and cri-dockerd's.
_SCHEMES = ("docker-pullable://", "docker://")


class Image(NamedTuple):
    """What a reference says; None where it does not."""

    name: str | None = None
    """With its registry and port, as it is written."""
    tag: str | None = None
    digest: str | None = None


def parse_image(reference: str | None) -> Image:
    """Nothing is known of what is no reference, or the id of an image (``sha256:…``)."""
    if reference is None or len(reference) > _MAX_CHARACTERS:
        return Image()
    for scheme in _SCHEMES:
        reference = reference.removeprefix(scheme)
    found = _REFERENCE.fullmatch(reference)
    if found is None or _BARE_DIGEST.fullmatch(reference):
        return Image()
    return Image(found["name"], found["tag"], found["digest"])


def repo_digest(image_id: str | None) -> str | None:
    """``repository@digest`` of the ``imageID`` of a container's status; an id that is no repository's is none."""
    image = parse_image(image_id)
    return f"{image.name}@{image.digest}" if image.name and image.digest else None
