"""Projects as everybody needs them: weight, quota, policy. Kept under `projects/<name>`; one without a record has the defaults."""

from store import keys
from store.schema import V1, Model
from store.watch import Table


class Quota(Model, frozen=True, kw_only=True):
    """The most that a project may have; 0: no limit."""

    services: int = 0
    revisions: int = 0
    instances: int = 0
    cpu_m: int = 0
    memory_bytes: int = 0
    image_bytes: int = 0
    requests_per_s: int = 0
    in_flight: int = 0
    queued: int = 0
    domains: int = 0
    secret_bytes: int = 0
    """Of all Secrets as they are stored."""


class Policy(Model, frozen=True, kw_only=True):
    """What a project's services must be, whatever they ask for."""

    registries: tuple[str, ...] = ()
    """Prefixes of images that may run; empty: all."""
    signature_keys: tuple[str, ...] = ()
    """Public keys (PEM); when there are any, an image needs a signature by one of them."""
    runtime: str = ""
    """`gvisor`: every instance runs in it."""
    profile: str = "default"
    """`default` or `hardened`."""
    egress: str = "open"
    """`open`, `private`, `none`, or a comma-separated list of `cidr:port`."""
    open_between: bool = False
    """Whether instances of the project may reach each other."""
    private: bool = False
    """Whether services need an invoker unless they say otherwise."""


class Project(Model, frozen=True, kw_only=True):
    """A tenant."""

    v: int = V1
    name: str
    weight: int = 1
    """Its part where projects compete."""
    quota: Quota = Quota()
    policy: Policy = Policy()
    created_at: float = 0
    """Wall seconds; 0: it has no record."""


def project_of(table: Table[Project], name: str) -> Project:
    """The project's record, or one of defaults."""
    return table.get(keys.project(name)) or Project(name=name)
