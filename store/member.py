"""The processes that are there now, as they say of themselves under their own leases."""

from store.schema import V1, Model


class Member(Model, frozen=True, kw_only=True):
    """A live process of a role (ingress, autoscaler, registry), under its own lease."""

    v: int = V1
    role: str
    member: str
    address: str = ""
    admin: str = ""
    ports: dict[int, str] = {}
    """TCP ports that routes name, as an ingress sees them: empty, it listens; else why it cannot."""
    worker: str = ""
    """This process among the workers of the front door; another one under the same name is another."""
    machine: str = ""
    peers: str = ""
    """Where other workers reach it: a Unix socket of its machine, or host:port."""
