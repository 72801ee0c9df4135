"""Which of the machine's processors a project's instances run on, where each project gets only some (`--project-processors`).

Weights divide a processor between all who want it, but who wakes there waits until somebody's turn is over (decision 0061). Projects that
share no processor do not wait for each other. A project's cgroup is the record of what it has: it is there for as long as an instance is.
`choose` is pure, `confine` reads and writes cgroups.
"""

from collections.abc import Collection, Sequence
from pathlib import Path

from nodeagent import cgroups
from nodeagent.cgroups import ROOT, Mode

_CPUS, _MEMORIES = "cpuset.cpus", "cpuset.mems"


def choose(usable: Sequence[int], taken: Sequence[Collection[int]], count: int) -> list[int]:
    """`count` of the `usable` processors: those that fewest of the others have (`taken`), of equals the last, for machines do more of
    their own on the first."""
    others = {each: sum(each in some for some in taken) for each in usable}
    return sorted(sorted(usable, key=lambda each: (others[each], -each))[:count])


def problem(mode: Mode, root: Path = ROOT) -> str:
    """Why this machine cannot say which processors a cgroup has, or empty. Raises OSError."""
    known = {"cpuset"} if mode is not Mode.V2 and (root / "cpuset" / _CPUS).exists() else set[str]()
    if mode is Mode.V2:
        known.update((root / "cgroup.controllers").read_text().split())
    return "" if "cpuset" in known else f"there is no cpuset controller at {root}"


def confine(mode: Mode, place: str, count: int, root: Path = ROOT) -> None:
    """Give the project's cgroup `place` (`/ebb-x/p-shop`) `count` processors, unless it has some already. Raises OSError, ValueError."""
    at = cgroups.controlled(mode, place, "cpuset", root)
    if mode is not Mode.V2:
        _fill(at.parent, root / "cpuset")
    if (at / _CPUS).read_text().strip():
        return
    usable = parse((at.parent / (_CPUS if mode is not Mode.V2 else "cpuset.cpus.effective")).read_text())
    siblings = [each for each in at.parent.glob("p-*") if each != at]
    chosen = choose(usable, [parse((each / _CPUS).read_text()) for each in siblings], count)
    (at / _CPUS).write_text(",".join(map(str, chosen)))
    if mode is not Mode.V2:
        (at / _MEMORIES).write_text((at.parent / _MEMORIES).read_text())


def parse(text: str) -> list[int]:
    """The processors in a list such as `0-2,5`. Raises ValueError."""
    found: list[int] = []
    for part in text.strip().split(",") if text.strip() else ():
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def _fill(at: Path, top: Path) -> None:
    """v1: a new cpuset is empty, and nothing can be in it or below until it has what the one above has."""
    for each in (*reversed(at.relative_to(top).parents), at.relative_to(top)):
        for name in (_CPUS, _MEMORIES):
            file = top / each / name
            if not file.read_text().strip():
                file.write_text((file.parent.parent / name).read_text())
