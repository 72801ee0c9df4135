"""Who has which address on this node, and what it may: its service's own wish within its project's policy. Pure."""

from collections.abc import Callable
from dataclasses import dataclass

from nodeagent.firewall import Permit
from store import egress
from store.projects import Policy


@dataclass(frozen=True, slots=True)
class Who:
    """An instance, as others shall know it. `egress` is what its revision asks for; empty: what its project has."""

    instance: str
    project: str
    revision: str
    service: str
    egress: str = ""


class Residents:
    """By address. `policy` gives a project's policy as it is now."""

    def __init__(self, policy: Callable[[str], Policy]) -> None:
        self._policy = policy
        self._by_address: dict[str, Who] = {}

    def add(self, address: str, who: Who) -> None:
        self._by_address[address] = who

    def drop(self, address: str) -> None:
        self._by_address.pop(address, None)

    def at(self, address: str) -> Who | None:
        """Who speaks from `address`, which the kernel vouches for; None: no instance of this node."""
        return self._by_address.get(address)

    def of(self, project: str) -> list[tuple[str, Who]]:
        """All of a project, with their addresses."""
        return [(address, who) for address, who in self._by_address.items() if who.project == project]

    def permit(self, who: Who) -> Permit:
        """What an instance may now. What cannot be understood allows nothing."""
        policy = self._policy(who.project)
        circle = who.project if policy.open_between else ""
        try:
            bound = egress.parse(policy.egress)
            return Permit(egress.narrow(egress.parse(who.egress), bound) if who.egress else bound, circle)
        except ValueError:
            return Permit(egress.NONE, circle)

    def may_ask(self, address: str) -> bool | None:
        """Whether who is at `address` may ask for names of the world's; None: nobody is there."""
        who = self._by_address.get(address)
        return None if who is None else not self.permit(who).egress.nothing
