"""What a project may hold of images on one node (`quota.image_bytes`): its layers as they are stored, each counted once. Pure.

Images that all may use are nobody's. What was pulled and nobody uses goes before anything is refused; what was imported
stays, since there is no registry to bring it back.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from nodeagent.images.errors import OverQuota

Layers = Mapping[str, int]
"""Bytes by digest."""


def total(images: Iterable[Layers]) -> int:
    """Bytes of the layers of all these images, each layer once."""
    return sum({digest: size for layers in images for digest, size in layers.items()}.values())


def choose(has: Mapping[str, Layers], idle: Sequence[str], coming: Layers, most: int) -> list[str] | None:
    """The images to let go so that `coming` fits into `most` bytes; None when it does not even without all of `idle`.

    `has`: an image's digest → its layers. `idle`: digests that may go, in the order in which they shall.
    """
    kept, gone = dict(has), list[str]()
    rest = iter(idle)
    while total([*kept.values(), coming]) > most:
        next_ = next(rest, None)
        if next_ is None:
            return None
        kept.pop(next_, None)
        gone.append(next_)
    return gone


class Quota:
    """`most(project)`: its limit in bytes, 0 for none. Remembers what is on its way, so that two at once are not both the last."""

    def __init__(self, most: Callable[[str], int]) -> None:
        self._most = most
        self._coming: dict[tuple[str, str], Layers] = {}

    def limits(self, project: str) -> bool:
        """Whether there is a limit at all. What belongs to all has none."""
        return bool(project) and self._most(project) > 0

    def take(self, project: str, digest: str, coming: Layers, has: Mapping[str, Layers], idle: Sequence[str]) -> list[str]:
        """Room for image `digest` until `done`; which images to let go for it. Raises OverQuota."""
        most = self._most(project)
        on_the_way = {image: layers for (whose, image), layers in self._coming.items() if whose == project and image != digest}
        gone = choose({**on_the_way, **has}, [each for each in idle if each != digest], coming, most)
        if gone is None:
            there = total([*on_the_way.values(), *has.values()])
            raise OverQuota(
                f"image {digest}: project {project} may have {most} bytes of images on a node (quota image_bytes), has {there}, and "
                f"this image is {total([coming])}; delete some (ebb image list, ebb image delete NAME; what runs stays until it is "
                f"gone), or have the quota raised (ebb project set {project} --quota image_bytes=…)"
            )
        self._coming[project, digest] = coming
        return gone

    def done(self, project: str, digest: str) -> None:
        """It is here, or does not come."""
        self._coming.pop((project, digest), None)
