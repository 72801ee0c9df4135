"""The first admin's token: made at the first start, kept where only root reads it; the registry is told of it by its file."""

import os
from pathlib import Path

from registry import tokens


def write(path: Path) -> None:
    """A new token in `path`, 0600, whole or not at all. Raises OSError."""
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(tokens.new_text() + "\n")
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
