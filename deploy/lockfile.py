"""The lock files as data: which packages, in which version, with which hashes. Pure."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

_PACKAGE = re.compile(r"^(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[A-Za-z0-9.+!_-]+)\s*(?:;\s*(?P<marker>.*))?$")
_HASH = re.compile(r"\s--hash=(\S+)")


class BadLock(Exception):
    """A lock file holds what it may not; the message says which line and why."""


@dataclass(frozen=True, slots=True)
class Locked:
    """One package as the lock pins it."""

    name: str
    version: str
    hashes: tuple[str, ...]
    """SHA-256 in hex, one for each file that may be installed."""
    marker: str = ""
    """Where it is installed at all; empty: everywhere."""


def parse(text: str) -> list[Locked]:
    """The packages of a lock file, by name. Raises BadLock for whatever is not a version and at least one hash of it."""
    found: dict[str, Locked] = {}
    for line in _joined(text.splitlines()):
        hashes = _HASH.findall(line)
        said = _HASH.sub("", line).strip()
        match = _PACKAGE.match(said)
        if match is None:
            raise BadLock(f"{said[:100]!r}: want NAME==VERSION and hashes; make the lock anew with deploy/lock")
        name = match["name"].lower().replace("_", "-").replace(".", "-")
        bad = [each for each in hashes if not re.fullmatch(r"sha256:[0-9a-f]{64}", each)]
        if bad or not hashes:
            why = f"the hash {bad[0]!r} is not a SHA-256" if bad else "it has no hash"
            raise BadLock(f"{name}=={match['version']}: {why}; make the lock anew with deploy/lock")
        if name in found:
            raise BadLock(f"{name}: is pinned twice; make the lock anew with deploy/lock")
        digests = tuple(sorted({each.removeprefix("sha256:") for each in hashes}))
        found[name] = Locked(name, match["version"], digests, (match["marker"] or "").strip())
    return [found[name] for name in sorted(found)]


def union(locks: Iterable[list[Locked]]) -> list[Locked]:
    """All packages of several locks. Raises BadLock where two pin different versions of one."""
    found: dict[str, Locked] = {}
    for package in (each for lock in locks for each in lock):
        other = found.setdefault(package.name, package)
        if other.version != package.version:
            raise BadLock(f"{package.name}: one lock pins {other.version}, another {package.version}; run deploy/lock")
    return [found[name] for name in sorted(found)]


def _joined(lines: Iterable[str]) -> Iterable[str]:
    """Lines that end in a backslash go on in the next; comments and empty lines are nobody's."""
    whole = ""
    for line in lines:
        if not whole and (not line.strip() or line.lstrip().startswith("#")):
            continue
        whole += line.rstrip().removesuffix("\\") + " "
        if not line.rstrip().endswith("\\"):
            yield whole
            whole = ""
    if whole:
        yield whole
