"""Keeps `certificates/` as `issuing` says: one issuer at a time, in the leading registry."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from process import logs, metrics
from process.clock import Clock
from registry import issuing, values
from registry.acme import AcmeError
from registry.authority import Authority
from registry.issuing import ACME, SECRET, Copy, Drop, Issue, Order, Reseal, Step
from registry.orders import Orders
from registry.pair import BadPair, Pair
from store import keys
from store.backend import Store
from store.certificates import Certificate
from store.errors import Conflict, StoreError
from store.model import Model, Values, decode, encode
from store.seal import Keyring, SealError
from store.txn import Delete, Guard, Put, Txn
from store.watch import Table

PACE_S = 0.05
ORDER_PACE_S = 0.25
"""The same with ACME, where every change of any route is looked at."""
RETRY_S = 5.0

log = logs.get("registry.issuer")
_STEPS = metrics.counter("registry_certificates_total", "What was done about certificates.", "step")


class TlsSecret(Model, frozen=True, kw_only=True):
    """A Secret as far as it decides whether it is a certificate."""

    type: str = ""


@dataclass(frozen=True, slots=True)
class Sources:
    """Where certificates come from, and what their private keys are sealed with."""

    seal: Keyring
    secrets: Keyring | None
    """Opens Secrets."""
    authority: Authority | None
    domain: str
    orders: Orders | None
    """ACME."""
    hosts: Callable[[], Mapping[str, str]]
    """Hosts that have a route → their projects: what ACME may be asked for."""


class Issuer:
    """`mark(project)` is called when something changes in it; once `ready()` returns it has been for all that there are."""

    def __init__(self, store: Store, clock: Clock, sources: Sources, ready: Callable[[], Awaitable[None]]) -> None:
        self._store, self._clock, self._sources, self._ready = store, clock, sources, ready
        self._ordering: asyncio.Task[None] | None = None
        self._written = "", 0
        self.certificates: Table[Certificate] = Table(store, keys.CERTIFICATES, Certificate, self._changed)
        self._secrets: Table[TlsSecret] = Table(store, keys.SECRETS, TlsSecret, self._secret, slim=lambda whole: whole)
        self._projects: set[str] = set()
        self._news = asyncio.Event()

    def tables(self) -> dict[str, Table[Any]]:
        return {"certificates": self.certificates, "certificate secrets": self._secrets}

    def mark(self, project: str) -> None:
        """Something changed in `project`; without ACME only its first sign of life counts."""
        if project not in self._projects or self._sources.orders is not None:
            self._projects.add(project)
            self._news.set()

    def _changed(self, key: str, new: Certificate | None, old: Certificate | None) -> None:
        self._news.set()

    def _secret(self, key: str, new: TlsSecret | None, old: TlsSecret | None) -> None:
        if values.TLS in (new.type if new is not None else "", old.type if old is not None else ""):
            self._news.set()

    async def lead(self, guard: Guard) -> None:
        """Run until cancelled, fenced by `guard`."""
        await self._ready()
        for table in self.tables().values():
            await table.synced()
        try:
            while True:
                self._news.clear()
                look_again_s = await self._pass(guard)
                try:
                    async with asyncio.timeout(look_again_s):
                        await self._news.wait()
                except TimeoutError:
                    pass
                await asyncio.sleep(PACE_S if self._sources.orders is None else ORDER_PACE_S)
        finally:
            if self._ordering is not None:
                self._ordering.cancel()
                await asyncio.gather(self._ordering, return_exceptions=True)
                self._ordering = None
            if self._sources.orders is not None:
                await self._sources.orders.close()

    async def _pass(self, guard: Guard) -> float:
        """Do what is to be done; seconds until it is worth looking again."""
        try:
            plan = issuing.plan(self._view(), self._clock.wall())
        except SealError as error:
            log.error("certificates cannot be sealed", error=str(error))
            return RETRY_S
        look_again_s = plan.look_again_s
        for step in plan.steps:
            try:
                await self._do(step, guard)
                _STEPS.labels(type(step).__name__.lower()).inc()
            except Conflict:
                self._news.set()
            except (StoreError, SealError) as error:
                log.warning("not done", step=repr(step), error=str(error))
                look_again_s = min(look_again_s, RETRY_S)
        return look_again_s

    def _view(self) -> issuing.View:
        secrets = {}
        for key, secret in self._secrets.items():
            entry = self._secrets.entry(key)
            if secret.type == values.TLS and entry is not None and self._sources.secrets is not None:
                project, name = keys.tail(key, keys.SECRETS)
                secrets[project, name] = entry.store_rev
        return issuing.View(
            certificates=dict(self.certificates.items()),
            secrets=secrets,
            hosts=self._sources.hosts() if self._sources.orders is not None else {},
            projects=frozenset(self._projects),
            domain=self._sources.domain,
            authority=self._sources.authority.id if self._sources.authority is not None else "",
            sealed_with=self._sources.seal.newest,
        )

    async def _do(self, step: Step, guard: Guard) -> None:
        match step:
            case Copy():
                made = await self._copy(step)
            case Issue():
                made = self._issue(step)
            case Order():
                if self._ordering is None and not self._behind():
                    self._ordering = asyncio.get_running_loop().create_task(self._order(step, guard))
                return
            case Reseal():
                made = self._reseal(self.certificates.get(step.key))
            case Drop():
                await self._write(step.key, Delete(step.key), guard)
                return
        if made is not None:
            key = keys.certificate(made.project, made.name)
            await self._write(key, Put(key, encode(made)), guard)

    async def _copy(self, step: Copy) -> Certificate | None:
        entry = await self._store.get(keys.secret(step.project, step.secret))
        if entry is None or entry.store_rev != step.store_rev:
            return None  # the table will say so in a moment
        assert self._sources.secrets is not None
        name = f"{SECRET}:{step.secret}"
        try:
            pair = values.pair_of(decode(Values, entry.value), self._sources.secrets)
        except (SealError, BadPair) as error:
            return Certificate(
                project=step.project, name=name, source=SECRET, made_from=str(step.store_rev), problem=str(error)
            )
        return self._sealed(step.project, name, pair, str(step.store_rev))

    def _issue(self, step: Issue) -> Certificate:
        assert self._sources.authority is not None
        pair = self._sources.authority.issue(step.hosts, self._clock.wall())
        return self._sealed(step.project, step.name, pair, step.made_from)

    def _behind(self) -> bool:
        """Whether the table has not yet seen what came of the last order."""
        key, store_rev = self._written
        entry = self.certificates.entry(key)
        return bool(key) and (entry is None or entry.store_rev < store_rev)

    async def _order(self, step: Order, guard: Guard) -> None:
        """One order from its beginning to what the store then says of it."""
        orders, key = self._sources.orders, keys.certificate(step.project, step.name)
        assert orders is not None
        try:
            try:
                made = self._sealed(step.project, step.name, await orders.run(step, guard), "")
            except (AcmeError, SealError) as error:
                made = self._failed(step, self.certificates.get(key), error)
            # Without a guard of its own: a table that is behind must not cost a certificate that was issued.
            self._written = key, await self._store.commit(Txn((guard,), (Put(key, encode(made)),), why=f"certificate {key}"))
        except StoreError as error:
            log.warning("order not finished", host=step.host, error=str(error))
        finally:
            self._ordering = None
            self._news.set()

    def _failed(self, step: Order, known: Certificate | None, error: Exception) -> Certificate:
        """What was known, with why it is not renewed and when that is tried again."""
        old = known or Certificate(project=step.project, name=step.name, source=ACME, hosts=[step.host])
        attempts = old.attempts + 1
        wait_s = issuing.retry_s(attempts, step.host)
        if isinstance(error, AcmeError):
            wait_s = max(wait_s, error.retry_after_s)
        log.warning("no certificate", host=step.host, error=str(error), attempts=attempts, retry_in_s=round(wait_s))
        return replace(old, problem=str(error), attempts=attempts, retry_at=self._clock.wall() + wait_s)

    def _sealed(self, project: str, name: str, pair: Pair, made_from: str) -> Certificate:
        return Certificate(
            project=project,
            name=name,
            source=name.partition(":")[0],
            hosts=list(pair.hosts),
            chain=pair.chain,
            key=self._sources.seal.seal(pair.key, bound_to=f"{project}/{name}"),
            not_before=pair.not_before,
            not_after=pair.not_after,
            made_from=made_from,
        )

    def _reseal(self, old: Certificate | None) -> Certificate | None:
        if old is None:
            return None
        ring = self._sources.seal
        return replace(old, key=ring.seal(ring.open(old.key, bound_to=old.bound_to), bound_to=old.bound_to))

    async def _write(self, key: str, write: Put | Delete, guard: Guard) -> None:
        entry = self.certificates.entry(key)
        seen = Guard(key, entry.store_rev if entry is not None else 0)
        await self._store.commit(Txn((guard, seen), (write,), why=f"certificate {key}"))
