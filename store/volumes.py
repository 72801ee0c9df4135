"""Files that instances get from Secrets and ConfigMaps."""

from store.schema import Model

DEFAULT_MODE = 0o644


class Item(Model, frozen=True, kw_only=True):
    """One key as one file."""

    key: str
    path: str
    """Below the volume's own."""
    mode: int = -1
    """-1: the volume's."""


class Volume(Model, frozen=True, kw_only=True):
    """The values of one Secret or ConfigMap as files in the directory `path`, which follow what is stored."""

    path: str
    secret: str = ""
    """The Secret's name, or empty."""
    config: str = ""
    """The ConfigMap's name, or empty."""
    items: list[Item] = []
    """Empty: every key is a file of its name."""
    mode: int = DEFAULT_MODE
    optional: bool = False
