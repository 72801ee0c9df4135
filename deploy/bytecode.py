"""Ebb's own packages compiled ahead: processes that are not root could not keep what they compile, and would do it at each start."""

import compileall
import contextlib
import sys

from deploy.components import CODE

PACKAGES = ("process", "store", "activator", "ingress", "autoscaler", "registry")


def compile() -> None:
    """Compile what changed. Blocking; milliseconds when nothing did. Where nothing can be kept, nothing is."""
    if sys.dont_write_bytecode:
        return
    for name in PACKAGES:
        with contextlib.suppress(OSError):
            compileall.compile_dir(CODE / name, quiet=2)
