"""What instances may that is not the default, in small files: the next agent's table lets them do the same from its first moment."""

import os
from collections.abc import Iterable
from pathlib import Path

from nodeagent.firewall import Permit
from store import egress


class Permits:
    """The permits of one engine. `directory` has a file for each address whose permit is not the default."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._known: dict[str, Permit] = {}
        self._circles: dict[str, int] = {}

    def of(self, address: str) -> Permit:
        return self._known.get(address, Permit())

    def number(self, circle: str) -> int:
        """The number of a circle in the kernel's table; 0: it is none. It is another one after a restart, as the table is."""
        return self._circles.setdefault(circle, len(self._circles) + 1) if circle else 0

    def put(self, address: str, permit: Permit) -> None:
        """Keep `permit`, first on the disk. Raises OSError."""
        if permit == Permit():
            self.drop(address)
            return
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = self._directory / f"{address}.new"
        fresh.write_text(f"{permit.egress}\n{permit.circle}\n")
        os.replace(fresh, self._directory / address)
        self._known[address] = permit

    def drop(self, address: str) -> None:
        """`address` is nobody's, or has the default."""
        if self._known.pop(address, None) is not None:
            (self._directory / address).unlink(missing_ok=True)

    def load(self, addresses: Iterable[str]) -> None:
        """Read what an earlier agent kept of `addresses`, and remove the rest. What cannot be read allows nothing."""
        wanted = set(addresses)
        for path in list(self._directory.iterdir()) if self._directory.is_dir() else []:
            if path.name not in wanted:
                path.unlink(missing_ok=True)
                continue
            try:
                text, circle, _ = path.read_text().split("\n")
                self._known[path.name] = Permit(egress.parse(text), circle)
            except (OSError, ValueError):
                self._known[path.name] = Permit(egress.NONE)

    def clear(self) -> None:
        """Nothing is kept any more."""
        self._known.clear()
        for path in list(self._directory.iterdir()) if self._directory.is_dir() else []:
            path.unlink(missing_ok=True)
        if self._directory.is_dir():
            self._directory.rmdir()
