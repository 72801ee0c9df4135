"""Which images a project may run, by where they come from. Pure."""

from collections.abc import Sequence

from store import imageref


def refusal(image: str, prefixes: Sequence[str]) -> str:
    """Why a project that takes images from `prefixes` alone does not take `image`; empty: it does, or takes all.

    A prefix is whole path segments: `ghcr.io/acme` allows `ghcr.io/acme/app` and not `ghcr.io/acme-too/app`.
    """
    if not prefixes:
        return ""
    try:
        name = imageref.parse(image).name
    except imageref.BadReference as error:
        return str(error)
    if any(name == each or name.startswith(each.rstrip("/") + "/") for each in prefixes if each.rstrip("/")):
        return ""
    return f"image {image!r} ({name}) is from none of the places that the project takes images from: {', '.join(prefixes)}"
