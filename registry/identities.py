"""Identity tokens: their keys are kept, rotated and used here.

The leading registry makes keys and takes them away; every registry signs. People and robots ask by the API, node agents by the bus, each
for instances that are its own: the subject names the node, and the assignment says what runs there.
"""

import asyncio
import re
import secrets

import msgspec
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from process import logs
from process.clock import Clock
from registry import signing
from store import keys, messages
from store.backend import Store
from store.bus import Bus
from store.errors import Conflict, StoreError
from store.identity import TOKEN_S, AskIdentity, Claims, Identity, IdentityKey, SigningKey, jwk, new_key, private_key, sign
from store.model import Assignment, Revision, decode, encode
from store.seal import Keyring, SealError
from store.txn import Delete, Guard, Put, Txn
from store.watch import Table

LOOK_S = 60.0
AGAIN_S = 1.0
_ORIGIN = re.compile(r"(https?://)?[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?(:[0-9]{1,5})?(/[!-~]{0,200})?")
log = logs.get("registry")


class NoIdentity(Exception):
    """No token is given; the message says why."""


class NotYet(NoIdentity):
    """It is not who asks: in a moment there will be a key that signs."""


class Identities:
    """One for a registry. `ring` opens private keys."""

    def __init__(self, store: Store, clock: Clock, ring: Keyring) -> None:
        self._store, self._clock, self._ring = store, clock, ring
        self.public = Table(store, keys.IDENTITY, IdentityKey)
        self._signers = Table(store, keys.SIGNERS, SigningKey, self._changed)
        self._opened: dict[str, EllipticCurvePrivateKey] = {}

    def tables(self) -> dict[str, Table[IdentityKey] | Table[SigningKey]]:
        """To be run, by name."""
        return {"identity": self.public, "signers": self._signers}

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """The public keys, as others read them."""
        return {"keys": [jwk(key) for _, key in sorted(self.public.items())]}

    def token(self, principal: str, audience: str) -> Identity:
        """A token for `principal`. Raises NoIdentity; NotYet while no key signs."""
        if _ORIGIN.fullmatch(audience) is None:
            raise NoIdentity(f"audience {audience[:80]!r}: want the URL of the service that is called")
        now = self._clock.wall()
        kid = signing.current({key.kid: key.created_at for _, key in self._signers.items()}, now)
        if kid is None:
            raise NotYet("no key signs yet; try again in a moment")
        key = self._opened.get(kid)
        if key is None:
            stored = self._signers.get(keys.signer(kid))
            assert stored is not None
            try:
                key = self._opened[kid] = private_key(self._ring.open(stored.sealed, bound_to=f"signers/{kid}"))
            except (SealError, ValueError) as error:
                raise NoIdentity(f"the key that signs cannot be used: {error}") from None
        claims = Claims(sub=principal, aud=audience, iat=int(now), exp=int(now + TOKEN_S))
        return Identity(token=sign(key, kid, claims), expires_at=claims.exp)

    async def answer_nodes(self, bus: Bus) -> None:
        """Answer node agents from now on."""
        await bus.respond_by_subject(messages.IDENTITIES, self._asked)

    async def _asked(self, subject: str, data: bytes) -> bytes:
        node = subject.removeprefix(messages.identity(""))
        try:
            ask = decode(AskIdentity, data)
            return encode(self.token(await self._principal(node, ask.instance), ask.audience))
        except msgspec.MsgspecError as error:
            return encode(Identity(problem=f"the request cannot be read: {error}"))
        except NoIdentity as error:
            log.warning("no identity token given", node=node, why=str(error))
            return encode(Identity(problem=str(error)))
        except StoreError as error:
            return encode(Identity(problem=f"the store does not answer: {error}"))

    async def _principal(self, node: str, instance: str) -> str:
        """Of an instance that `node` was given. Raises NoIdentity, StoreError."""
        entry = await self._store.get(keys.assignment(node, instance))
        if entry is None:
            raise NoIdentity(f"instance {instance[:80]!r} is not of node {node[:80]!r}")
        given = decode(Assignment, entry.value)
        found = await self._store.get(keys.revision(given.project, given.revision))
        service = decode(Revision, found.value).service if found is not None else ""
        if not service:
            raise NoIdentity(f"revision {given.revision_key} belongs to no service")
        return f"service:{given.project}/{service}"

    # -- leading --------------------------------------------------------------------------------------------------------------

    async def lead(self, guard: Guard) -> None:
        """Keep the keys in order; never returns."""
        for table in (self.public, self._signers):
            await table.synced()
        while True:
            try:
                await self._tend(guard)
                await asyncio.sleep(LOOK_S)
            except (Conflict, StoreError, SealError) as error:
                log.error("the keys of identity tokens cannot be tended", error=str(error))
                await asyncio.sleep(AGAIN_S)

    async def _tend(self, guard: Guard) -> None:
        now = self._clock.wall()
        created = {key.kid: key.created_at for _, key in self._signers.items()}
        if signing.wanted(created, now):
            kid = f"k{secrets.token_hex(8)}"
            public, pem = new_key(kid, now)
            stored = SigningKey(kid=kid, sealed=self._ring.seal(pem, bound_to=f"signers/{kid}"), created_at=now)
            puts = (Put(keys.identity(kid), encode(public)), Put(keys.signer(kid), encode(stored)))
            await self._store.commit(Txn((guard,), puts, why="make a key for identity tokens"))
            log.info("a new key signs identity tokens", kid=kid)
        for kid in signing.over(created, now):
            gone = (Delete(keys.identity(kid)), Delete(keys.signer(kid)))
            await self._store.commit(Txn((guard,), gone, why="take away a key for identity tokens"))
            log.info("a key for identity tokens is gone", kid=kid)

    def _changed(self, key: str, new: SigningKey | None, old: SigningKey | None) -> None:
        self._opened.pop(keys.tail(key, keys.SIGNERS)[0], None)
