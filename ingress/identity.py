"""Who calls: identity tokens that were verified, who may invoke in which project, and whose addresses instances have."""

from collections.abc import Iterable

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from ingress.hosts import canonical
from process import logs
from store.access import ADMIN, DEVELOPER, INVOKER, PLATFORM_ADMIN
from store.identity import BadToken, IdentityKey, public_key, verify
from store.model import Instance

CALLERS = frozenset({INVOKER, DEVELOPER, ADMIN, PLATFORM_ADMIN})
"""Roles that may call what is private."""
VERIFIED_MOST = 4_096
"""Tokens that need not be verified again before they expire."""

log = logs.get("ingress")


class Identities:
    """What the front door knows of callers. `may_invoke` and `resident` are asked at guarded hosts alone."""

    def __init__(self) -> None:
        self._keys: dict[str, EllipticCurvePublicKey] = {}
        self._verified: dict[bytes, tuple[str, str, int]] = {}
        self._invokers: set[tuple[str, str]] = set()
        self._residents: dict[str, tuple[str, str, str]] = {}
        """Address → node and instance, and principal of its service."""
        self.version = 0
        """Another one whenever a token may no longer count, or its principal no longer call."""

    def who(self, token: bytes, wall: float) -> tuple[str, str, int]:
        """Principal, the host it is for, and until when (wall seconds). Raises BadToken."""
        known = self._verified.get(token)
        if known is None:
            claims = verify(token, self._keys, wall)
            known = (claims.sub, host_of(claims.aud), claims.exp)
            if len(self._verified) >= VERIFIED_MOST:
                # The oldest half: those that are asked for again come in again.
                for old in list(self._verified)[: VERIFIED_MOST // 2]:
                    del self._verified[old]
            self._verified[token] = known
        elif wall >= known[2]:
            del self._verified[token]
            raise BadToken("has expired")
        return known

    def may_invoke(self, project: str, principal: str) -> bool:
        """Whether the principal's role in the project, or everywhere, lets it call any service there."""
        return (project, principal) in self._invokers or ("", principal) in self._invokers

    def resident(self, address: str) -> str:
        """The principal of the instance at `address`, for what comes by the inner door: the node's kernel vouches for the address."""
        found = self._residents.get(address)
        return found[2] if found is not None else ""

    # -- what is heard --------------------------------------------------------------------------------------------------------

    def key(self, kid: str, key: IdentityKey | None) -> None:
        """A signing key is there, or not any more: then neither is what it signed."""
        self._keys.pop(kid, None)
        self._verified.clear()
        self.version += 1
        if key is not None:
            try:
                self._keys[kid] = public_key(key)
            except ValueError as error:
                log.error("not a key", kid=kid, error=str(error))

    def bound(self, project: str, principal: str, roles: Iterable[str]) -> None:
        """What roles a principal has in a project; in the empty one: everywhere."""
        invokes = not CALLERS.isdisjoint(roles)
        self.version += 1
        (self._invokers.add if invokes else self._invokers.discard)((project, principal))

    def instance(self, new: Instance | None, old: Instance | None) -> None:
        """An instance has an address, or not any more. One that another node's instance has stays whose it is."""
        if old is not None and old.address:
            address = old.address.rpartition(":")[0]
            if self._residents.get(address, ("", ""))[:2] == (old.node, old.instance):
                del self._residents[address]
        if new is not None and new.address and new.service:
            address = new.address.rpartition(":")[0]
            if self._residents.get(address, (new.node,))[0] == new.node:
                self._residents[address] = (new.node, new.instance, f"service:{new.project}/{new.service}")


def host_of(audience: str) -> str:
    """The host of an audience, which is an origin (`https://hello.shop.example:8443`) or a bare host; without its port."""
    rest = audience.partition("://")[2] or audience
    return canonical(rest.partition("/")[0].encode("ascii", "replace"))
