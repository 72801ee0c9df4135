"""Orders at an ACME authority: within the rates that public ones allow, with the account's key and the challenges in the store."""

import asyncio
import hashlib
from collections import deque
from dataclasses import dataclass

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from process import logs
from process.clock import Clock
from registry import pair
from registry.acme import Acme, AcmeError
from registry.issuing import Order
from registry.pair import Pair, PrivateKey
from store import keys
from store.backend import Store
from store.certificates import Account, Challenge
from store.errors import Conflict
from store.model import decode, encode
from store.seal import Keyring
from store.txn import Guard, Put, Txn

MOST, WINDOW_S = 250, 3 * 3600.0
"""Orders in a time: Let's Encrypt takes 300 in 3 hours."""
CHALLENGE_TTL_S = 600.0

log = logs.get("registry.orders")


@dataclass(frozen=True, slots=True)
class Authority:
    """Which ACME authority, and how it is reached. `email` and `ca_file` may be empty."""

    directory: str
    email: str = ""
    ca_file: str = ""


class Orders:
    """Orders at `authority`; `ring` seals the account's key."""

    def __init__(self, store: Store, clock: Clock, ring: Keyring, authority: Authority) -> None:
        self._store, self._clock, self._ring, self._authority = store, clock, ring, authority
        self._client: Acme | None = None
        self._began: deque[float] = deque()

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def run(self, order: Order, guard: Guard) -> Pair:
        """The certificate that was ordered. Raises AcmeError, StoreError, SealError."""
        self._within_rates()
        client = await self._account(guard)
        published: list[str] = []

        async def publish(token: str, answer: str) -> None:
            key = keys.challenge(token)
            lease = await self._store.grant(CHALLENGE_TTL_S)
            said = encode(Challenge(host=order.host, token=token, answer=answer))
            await self._store.commit(Txn((guard,), (Put(key, said, lease),), why=f"challenge of {order.host}"))
            published.append(key)

        log.info("ordering", host=order.host, authority=self._authority.directory)
        try:
            return await client.certificate(order.host, publish)
        finally:
            for key in published:
                await asyncio.shield(self._store.delete(key))

    def _within_rates(self) -> None:
        now = self._clock.now()
        while self._began and self._began[0] < now - WINDOW_S:
            self._began.popleft()
        if len(self._began) >= MOST:
            wait_s = self._began[0] + WINDOW_S - now
            raise AcmeError(f"{MOST} orders in {WINDOW_S / 3600:g} hours are made; the next goes out later", "ours", wait_s)
        self._began.append(now)

    async def _account(self, guard: Guard) -> Acme:
        if self._client is None:
            authority = self._authority
            self._client = Acme(authority.directory, await self._key(guard), authority.email, authority.ca_file)
        return self._client

    async def _key(self, guard: Guard) -> PrivateKey:
        """The account's: the one in the store, or a new one that is kept there."""
        name = hashlib.sha256(self._authority.directory.encode()).hexdigest()[:16]
        where = keys.account(name)
        for _ in range(3):
            entry = await self._store.get(where)
            if entry is not None:
                pem = self._ring.open(decode(Account, entry.value).key, bound_to=f"accounts/{name}")
                key = serialization.load_pem_private_key(pem, None)
                assert isinstance(key, ec.EllipticCurvePrivateKey)
                return key
            sealed = self._ring.seal(pair.pem_of(pair.new_key()), bound_to=f"accounts/{name}")
            made = Put(where, encode(Account(directory=self._authority.directory, key=sealed)))
            try:
                await self._store.commit(Txn((guard, Guard(where, 0)), (made,), why="ACME account"))
            except Conflict:
                continue
        raise AcmeError("the account's key cannot be kept: another leads now")
