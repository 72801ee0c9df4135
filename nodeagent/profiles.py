"""Runtime profiles: which fence stands around an instance. Pure.

`default`: root inside, in a user namespace whose ids belong to its project, with eleven capabilities over what is in there.
`hardened`: no capability, a read-only root, and never uid 0. gVisor (`Revision.runtime`) is another kernel: it maps no ids of this one.
"""

from dataclasses import dataclass

from nodeagent.userdb import ResolvedUser
from store.model import Revision

HARDENED = "hardened"
IDS = 1 << 16
"""User and group ids of a project."""
DISK_BYTES = 1 << 30
"""What an instance may write that asks for nothing, at most."""
INODES = 1 << 16
LEAST_BYTES = 16 << 20


class NotAllowed(ValueError):
    """The profile forbids what the image or service asks for; the message says what, and the cure."""


@dataclass(frozen=True, slots=True)
class Writable:
    """What an instance may write, /tmp included, until it gets ENOSPC. `on_disk`: else it is memory of the instance's own."""

    size_bytes: int = DISK_BYTES
    inodes: int = INODES
    on_disk: bool = False


@dataclass(frozen=True, slots=True)
class Fence:
    """`first_id`: the host's id of root inside; 0: ids are the host's own. `hardened`: the profile of that name."""

    first_id: int = 0
    hardened: bool = False


OPEN = Fence()
"""No ids of its own, and no profile beyond the default's."""


def writable(revision: Revision) -> Writable:
    """Of who asks for room: a disk of that size. Of others: memory, half of its limit at most, so that a full disk ends no instance."""
    asked = revision.disk_limit_bytes or max(revision.disk_request_bytes, 0)
    if asked:
        return Writable(max(asked, LEAST_BYTES), max(INODES, asked // 16384), on_disk=True)
    half = revision.memory_limit_bytes // 2 or DISK_BYTES
    return Writable(max(LEAST_BYTES, min(DISK_BYTES, half)))


def admit(fence: Fence, user: ResolvedUser, mapped: int = IDS) -> None:
    """Raise NotAllowed for a user that the fence has no place for."""
    if fence.hardened and user.uid == 0:
        raise NotAllowed(
            "profile hardened: the image runs as root (uid 0), which it does not allow; set securityContext.runAsUser, or USER in"
            " the image, to another uid"
        )
    highest = max(user.uid, user.gid, *user.additional_gids, 0)
    if fence.first_id and highest >= mapped:
        raise NotAllowed(f"user id {highest} is beyond the {mapped} ids of a project; use a uid and gid below {mapped}")
