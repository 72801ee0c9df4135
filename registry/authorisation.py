"""Who may do what: the one place that decides. Pure.

    decide(identity, "create", "shop", "services") → ALLOWED | NOT_FOUND | FORBIDDEN

An `Identity` comes from a token alone; what a request's body says of people or projects has no part in it. A project in which
somebody has no role does not exist for them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from store.access import ADMIN, DEVELOPER, INVOKER, PLATFORM_ADMIN, VIEWER

READ, READ_VALUES, WRITE, MANAGE, INVOKE, PLATFORM = "read", "read-values", "write", "manage", "invoke", "platform"

PERMISSIONS: Mapping[str, frozenset[str]] = {
    VIEWER: frozenset({READ}),
    DEVELOPER: frozenset({READ, READ_VALUES, WRITE}),
    ADMIN: frozenset({READ, READ_VALUES, WRITE, MANAGE}),
    INVOKER: frozenset({INVOKE}),
    PLATFORM_ADMIN: frozenset({READ, READ_VALUES, WRITE, MANAGE, INVOKE, PLATFORM}),
}
NOTHING: frozenset[str] = frozenset()

READING = frozenset({"get", "list", "watch"})
OPEN_KINDS = frozenset({"discovery", "self", "namespaces", "projects"})
"""Outside projects: read by everybody who is known, who sees of them what is theirs."""
MANAGED = frozenset({"bindings", "audit"})
"""In projects: an admin's, also to read."""
SEALED = frozenset({"secrets"})


class Decision(Enum):
    """What `decide` says."""

    ALLOWED = "allowed"
    NOT_FOUND = "not found"
    FORBIDDEN = "forbidden"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks, as far as their token lets them."""

    principal: str
    roles: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By project; of the platform under the empty name."""
    projects: tuple[str, ...] = ()
    """Where the token counts; empty: everywhere."""
    cap: str = ""
    """The most that the token may; empty: all that its principal may."""
    token: str = ""
    """Its id, or the issuer of an OIDC token."""
    expires_at: float = 0

    @property
    def scoped(self) -> bool:
        """Whether the token may less than its principal."""
        return bool(self.projects or self.cap)

    def permissions(self, project: str) -> frozenset[str]:
        """What may be done in `project`; with an empty name, outside of all."""
        if self.projects and project not in self.projects:
            return NOTHING
        held = NOTHING.union(
            *(PERMISSIONS.get(role, NOTHING) for role in (*self.roles.get("", ()), *self.roles.get(project, ())))
        )
        return held & PERMISSIONS.get(self.cap, NOTHING) if self.cap else held

    def sees(self, project: str) -> bool:
        """Whether the project is there for them."""
        return bool(self.permissions(project))

    @property
    def rules(self) -> bool:
        """Whether the platform is theirs."""
        return PLATFORM in self.permissions("")


def needed(action: str, project: str, kind: str) -> str:
    """The permission that `action` on `kind` asks for; empty: none."""
    if not project:
        return "" if kind == "self" or (kind in OPEN_KINDS and action in READING) else PLATFORM
    if kind in MANAGED:
        return MANAGE
    if kind == "projects":
        return READ if action in READING else PLATFORM
    if kind in SEALED and action == "get":
        return READ_VALUES
    return READ if action in READING else WRITE


def decide(identity: Identity, action: str, project: str, kind: str) -> Decision:
    """Whether `identity` may do `action` (get, list, watch, create, update, delete) to `kind` in `project` (empty: outside of all)."""
    need = needed(action, project, kind)
    if not need:
        return Decision.ALLOWED
    held = identity.permissions(project)
    if need in held:
        return Decision.ALLOWED
    return Decision.FORBIDDEN if held or not project else Decision.NOT_FOUND
