"""The cgroup freezer of an instance, by the kernel's own file: a tenth of a millisecond, where a pause through containerd and its
shim takes seven. containerd goes on to show the task as running; what is frozen is asked of the kernel, also after a restart.

A frozen process of cgroup v1 does not even die of SIGKILL until it is thawed: whoever ends an instance thaws it first.
"""

from pathlib import Path

from nodeagent.cgroups import ROOT, Mode, Places, field

CALM_BYTES = 1 << 20
"""Less cold memory than this is not worth asking for."""


class Freezer:
    """Of the instances at `places`. One that is gone is neither frozen nor a problem."""

    def __init__(self, mode: Mode, places: Places, root: Path = ROOT) -> None:
        self._v2 = mode is Mode.V2
        self._root, self._places = root if self._v2 else root / "freezer", places
        self._file = "cgroup.freeze" if self._v2 else "freezer.state"

    def freeze(self, instance: str) -> None:
        """Stop every process of it. The kernel finishes by itself what cannot be stopped this instant. Raises OSError."""
        self._write(instance, self._file, "1" if self._v2 else "FROZEN")

    def thaw(self, instance: str) -> None:
        """Let it run on. Raises OSError."""
        self._write(instance, self._file, "0" if self._v2 else "THAWED")

    def frozen(self, instance: str) -> bool:
        """Whether it is stopped, or about to be."""
        try:
            return (self._at(instance) / self._file).read_text().strip() in ("1", "FROZEN", "FREEZING")
        except OSError:
            return False

    def reclaim(self, instance: str) -> None:
        """Give back file cache that it has not touched lately. May take a while: not for the event loop.

        Only cgroup v2 can be asked for so much and no more; v1's `force_empty` takes the program's own pages too, and the next
        request would wait for the disk.
        """
        if not self._v2:
            return
        try:
            cold = field((self._at(instance) / "memory.stat").read_text(), "inactive_file")
            if cold >= CALM_BYTES:
                self._write(instance, "memory.reclaim", str(cold))
        except OSError:
            pass  # It gave back less than asked, or the kernel is older than 5.19: nothing depends on it.

    def _write(self, instance: str, file: str, word: str) -> None:
        try:
            (self._at(instance) / file).write_text(word)
        except FileNotFoundError:
            pass

    def _at(self, instance: str) -> Path:
        return self._root / self._places.of(instance).lstrip("/")
