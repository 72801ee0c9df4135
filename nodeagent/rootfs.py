"""What every instance finds in its file system although its image may not have it: /tmp that everybody may write to."""

import os
from collections.abc import Sequence


def upper_of(options: Sequence[str]) -> str | None:
    """The writable directory among an overlay mount's options."""
    return next((option.removeprefix("upperdir=") for option in options if option.startswith("upperdir=")), None)


def furnish(upper: str) -> None:
    """Make /tmp in a snapshot's writable directory, before it is mounted. An image's own /tmp keeps its files below."""
    path = os.path.join(upper, "tmp")
    try:
        os.mkdir(path)
    except FileExistsError:
        return
    os.chmod(path, 0o1777)
