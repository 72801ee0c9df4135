"""Ebb's own packages compiled ahead: processes that are not root could not keep what they compile, and would do it at each start."""

import compileall
import sys
from pathlib import Path

from deploy.components import CODE

PACKAGES = ("process", "store", "activator", "ingress", "autoscaler", "registry")


def compile(code: Path = CODE) -> None:
    """Compile what changed below `code`. Blocking; milliseconds when nothing did. Where nothing can be kept, nothing is."""
    if sys.dont_write_bytecode:
        return
    for name in PACKAGES:
        compileall.compile_dir(code / name, quiet=2)
