"""Which images may go. Pure.

An image goes when no instance uses it and its last use is longer ago than `keep_s`. Imported ones stay until somebody
removes them: there is no registry to bring them back.
"""

from collections.abc import Iterable, Set
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kept:
    """One name of an image on this node; `last_used` in the same seconds as `now`."""

    name: str
    project: str
    digest: str
    last_used: float
    imported: bool = False


def choose(images: Iterable[Kept], in_use: Set[str], keep_s: float, now: float) -> list[tuple[str, str]]:
    """(name, project) to delete. `in_use` holds digests, or references that end in `@digest`."""
    used = {image.rpartition("@")[2] for image in in_use}
    return [
        (image.name, image.project)
        for image in images
        if image.digest not in used and not image.imported and now - image.last_used > keep_s
    ]
