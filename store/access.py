"""Who may do what, as it is kept: users and robots, their API tokens, and what each may do in which project.

A principal is written `user:ana`, `robot:ci`, `service:<project>/<service>` or `allUsers`. Of a token only a digest is kept.
"""

from store import keys
from store.schema import V1, Model

VIEWER, DEVELOPER, ADMIN, INVOKER = "viewer", "developer", "admin", "invoker"
PLATFORM_ADMIN = "platform-admin"
PROJECT_ROLES = (VIEWER, DEVELOPER, ADMIN, INVOKER)
EVERYWHERE = "_"
"""In the place of a project's name in a binding's key: of the platform. No project can be called so."""
ALL_USERS = "allUsers"


class User(Model, frozen=True, kw_only=True):
    """A user or robot."""

    v: int = V1
    principal: str
    created_at: float = 0
    disabled: bool = False
    note: str = ""


class Token(Model, frozen=True, kw_only=True):
    """An API token `ebb_<id>_<secret>`, without its secret. One that was revoked stays, so that nothing makes it anew."""

    v: int = V1
    id: str
    principal: str
    digest: str
    """SHA-256 of the secret, in hex: 256 random bits need no salt and no slow hash."""
    projects: tuple[str, ...] = ()
    """Where it counts; empty: wherever its principal has a role."""
    role: str = ""
    """The most it may; empty: all that its principal may."""
    created_at: float = 0
    expires_at: float = 0
    """0: never."""
    revoked_at: float = 0
    made_by: str = ""
    """Id of the token it was made with: revoking that one revokes it."""
    note: str = ""


class Binding(Model, frozen=True, kw_only=True):
    """The roles of one principal in one project."""

    v: int = V1
    principal: str
    project: str = ""
    """Empty: the platform."""
    roles: tuple[str, ...] = ()


def binding_key(binding: Binding) -> str:
    """Where it is kept."""
    return keys.binding(binding.project or EVERYWHERE, binding.principal)
