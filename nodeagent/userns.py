"""User namespaces of projects, held by descriptor; which ids are whose is kept in a file, over restarts of the agent and the machine."""

import os
import subprocess
from pathlib import Path

import msgspec

from nodeagent import uids
from nodeagent.profiles import IDS

MAKE_S = 5.0


class UserNamespaces:
    """One a project with instances here. `directory`: where the record of the ranges is kept. Methods block; one thread at a time."""

    def __init__(self, directory: Path, first_id: int = uids.FIRST_ID, most: int = uids.MOST) -> None:
        self._file, self._first_id, self._most = directory / "uids.json", first_id, most
        self._held: dict[str, int] = {}
        self._open: dict[str, int] = {}

    def load(self) -> None:
        """Read the record. Raises OSError, and ValueError when it is damaged: made anew, it would give ids away that are in use."""
        try:
            text = self._file.read_bytes()
        except FileNotFoundError:
            return
        try:
            self._held = msgspec.json.decode(text, type=dict[str, int])
        except msgspec.DecodeError as error:
            raise ValueError(f"{self._file}: {error}; stop all instances of this node and delete the file") from None

    def of(self, project: str, busy: frozenset[str]) -> tuple[int, int]:
        """The first id of `project`'s range and its namespace. Raises uids.Exhausted, OSError."""
        if project not in self._held:
            held = uids.allot(self._held, project, busy, self._first_id, self._most)
            self._save(held)
            for gone in self._held.keys() - held.keys():
                self.close(gone)
            self._held = held
        if project not in self._open:
            self._open[project] = make(self._held[project])
        return self._held[project], self._open[project]

    def close(self, project: str) -> None:
        """It has no instances here any more."""
        namespace = self._open.pop(project, None)
        if namespace is not None:
            os.close(namespace)

    def _save(self, held: dict[str, int]) -> None:
        part = self._file.with_suffix(".part")
        with open(part, "wb") as file:
            file.write(msgspec.json.encode(held))
            file.flush()
            os.fsync(file.fileno())
        part.rename(self._file)


def make(first_id: int) -> int:
    """A new user namespace whose ids 0 … 65535 are the machine's from `first_id` on. Raises OSError."""
    own = os.readlink("/proc/self/ns/user")
    # A process is needed that has not more than one thread, for a moment. It says so when it is in the namespace.
    argv = ["unshare", "--user", "--", "sh", "-c", "echo in; read _"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        try:
            assert child.stdout is not None
            if child.stdout.readline() != b"in\n" or os.readlink(f"/proc/{child.pid}/ns/user") == own:
                raise OSError("cannot make a user namespace; look at /proc/sys/user/max_user_namespaces")
            for name in ("uid_map", "gid_map"):
                Path(f"/proc/{child.pid}/{name}").write_text(f"0 {first_id} {IDS}\n")
            return os.open(f"/proc/{child.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            child.kill()
