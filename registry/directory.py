"""Users, robots, tokens and roles as they are written: each change is one guarded transaction, and is known here when it returns."""

import asyncio
import re
from collections.abc import Callable

import msgspec

from process.clock import Clock
from registry import tokens
from registry.api import problems
from registry.api.problems import ApiError
from registry.people import People
from store import keys
from store.access import ALL_USERS, INVOKER, PLATFORM_ADMIN, PROJECT_ROLES, Binding, Token, User, binding_key
from store.backend import Store
from store.errors import Conflict
from store.model import decode, encode
from store.txn import Delete, Guard, Put, Txn
from store.watch import Table

TRIES = 8
TOKENS_MOST = 100
"""Of one principal, that still count."""
FORGET_S = 30 * 86_400.0
"""A token that ended so long ago is forgotten when its principal gets another."""
KNOWN_WITHIN_S = 2.0
ADMIN = "user:admin"
"""Who the first token is for."""
Change = Callable[[tuple[str, ...]], tuple[str, ...]]
_PRINCIPAL = re.compile(r"(user|robot):[a-z0-9][a-z0-9._@+-]{0,126}")
_SERVICE = re.compile(r"service:[a-z0-9-]{1,63}/[a-z0-9-]{1,63}")


def is_principal(name: str) -> bool:
    """Whether a user or robot may be called so."""
    return _PRINCIPAL.fullmatch(name) is not None


class Directory:
    """Writes. Methods raise ApiError."""

    def __init__(self, store: Store, clock: Clock, people: People) -> None:
        self._store, self._clock, self._people = store, clock, people

    # -- users ------------------------------------------------------------------------------------------------------------

    async def add_user(self, principal: str, note: str = "") -> User:
        if not is_principal(principal):
            want = "user:NAME or robot:NAME, NAME of a-z, 0-9 and . _ @ + -, at most 127 characters"
            raise problems.bad_request(f"principal {principal[:80]!r}; allowed: {want}")
        made = User(principal=principal, created_at=self._clock.wall(), note=note)
        key = keys.user(principal)
        try:
            at = await self._store.commit(Txn((Guard(key, 0),), (Put(key, encode(made)),), why=f"add {principal}"))
        except Conflict:
            raise ApiError(409, "AlreadyExists", f"{principal} exists already") from None
        await self._known(self._people.users, key, at)
        return made

    async def change_user(self, principal: str, disabled: bool) -> User:
        key = keys.user(principal)
        for _ in range(TRIES):
            entry = await self._store.get(key)
            if entry is None:
                raise problems.unseen("users", principal)
            old = decode(User, entry.value)
            made = msgspec.structs.replace(old, disabled=disabled)
            try:
                put = Put(key, encode(made, over=entry.value))
                at = await self._store.commit(Txn((Guard(key, entry.store_rev),), (put,), why=f"change {principal}"))
            except Conflict:
                continue
            await self._known(self._people.users, key, at)
            return made
        raise _busy(principal)

    async def remove_user(self, principal: str) -> None:
        """With all roles; their tokens are revoked, and stay so when somebody gets the name again."""
        if await self._store.get(keys.user(principal)) is None:
            raise problems.unseen("users", principal)
        bound = [key for key, binding in self._people.bindings.items() if binding.principal == principal]
        now = self._clock.wall()
        held = [
            (key, token) for key, token in self._people.tokens.items() if token.principal == principal and not token.revoked_at
        ]
        ended = [Put(key, encode(msgspec.structs.replace(token, revoked_at=now))) for key, token in held]
        writes: list[Put | Delete] = [Delete(keys.user(principal)), *(Delete(key) for key in bound), *ended]
        rev = 0
        for at in range(0, len(writes), 100):
            rev = await self._store.commit(Txn((), tuple(writes[at : at + 100]), why=f"remove {principal}"))
        await self._known(self._people.users, keys.user(principal), rev)

    # -- roles ------------------------------------------------------------------------------------------------------------

    async def grant(self, project: str, principal: str, role: str) -> Binding:
        """`project` empty: of the platform."""
        self._may_have(project, principal, role)
        return await self._bind(project, principal, lambda roles: (*(r for r in roles if r != role), role))

    async def take(self, project: str, principal: str, role: str) -> Binding:
        """Take the role away again."""
        if role not in self._people.roles(principal).get(project, ()):
            raise problems.unseen("bindings", f"{role}/{principal}")
        return await self._bind(project, principal, lambda roles: tuple(r for r in roles if r != role))

    def _may_have(self, project: str, principal: str, role: str) -> None:
        allowed = PROJECT_ROLES if project else (PLATFORM_ADMIN,)
        if role not in allowed:
            where = f"in project {project}" if project else "outside of projects"
            raise problems.bad_request(f"role {role[:40]!r} {where}; allowed: {', '.join(allowed)}")
        if principal == ALL_USERS or _SERVICE.fullmatch(principal):
            if role != INVOKER:
                raise problems.bad_request(f"{principal} may be an invoker, not a {role}")
        elif not is_principal(principal):
            raise problems.bad_request(
                f"principal {principal[:80]!r}; allowed: user:…, robot:…, service:PROJECT/NAME, {ALL_USERS}"
            )

    async def _bind(self, project: str, principal: str, change: Change) -> Binding:
        key = binding_key(Binding(principal=principal, project=project))
        for _ in range(TRIES):
            entry = await self._store.get(key)
            old = decode(Binding, entry.value) if entry is not None else None
            made = Binding(principal=principal, project=project, roles=change(old.roles if old is not None else ()))
            write = Put(key, encode(made)) if made.roles else Delete(key)
            if entry is None and not made.roles:
                return made
            try:
                guard = Guard(key, entry.store_rev if entry is not None else 0)
                at = await self._store.commit(Txn((guard,), (write,), why=f"roles of {principal}"))
            except Conflict:
                continue
            await self._known(self._people.bindings, key, at)
            return made
        raise _busy(principal)

    # -- tokens -----------------------------------------------------------------------------------------------------------

    async def make_token(self, wanted: Token, text: str = "") -> tuple[str, Token]:
        """A token for `wanted.principal`, and its text, which nobody can read again."""
        now = self._clock.wall()
        own = [(key, token) for key, token in self._people.tokens.items() if token.principal == wanted.principal]
        alive = [token for _, token in own if not tokens.ended(token, now)]
        if len(alive) >= TOKENS_MOST:
            raise problems.over_quota(f"tokens of {wanted.principal}", TOKENS_MOST, len(alive), "")
        text = text or tokens.new_text()
        token_id, digest = tokens.parse(text)
        made = Token(
            id=token_id, principal=wanted.principal, digest=digest, projects=wanted.projects, role=wanted.role, created_at=now,
            expires_at=wanted.expires_at, made_by=wanted.made_by, note=wanted.note,
        )  # fmt: skip
        old = [key for key, token in own if token.made_by and 0 < _end_of(token) < now - FORGET_S][:100]
        key = keys.token(token_id)
        writes: tuple[Put | Delete, ...] = (Put(key, encode(made)), *(Delete(each) for each in old))
        at = await self._store.commit(Txn((Guard(key, 0),), writes, why=f"a token of {wanted.principal}"))
        await self._known(self._people.tokens, key, at)
        return text, made

    async def revoke(self, token_id: str) -> list[str]:
        """It and all that were made with it count no longer; their ids."""
        now = self._clock.wall()
        family, wave = [token_id], {token_id}
        while wave:
            wave = {t.id for _, t in self._people.tokens.items() if t.made_by in wave and t.id not in family}
            family += sorted(wave)
        rev = 0
        for each in family:
            entry = await self._store.get(keys.token(each))
            if entry is not None:
                made = msgspec.structs.replace(decode(Token, entry.value), revoked_at=now)
                rev = await self._store.put(entry.key, encode(made, over=entry.value))
        await self._known(self._people.tokens, keys.token(family[-1]), rev)
        return family

    async def first_admin(self, text: str) -> bool:
        """Make the token in `text` the admin's when nobody ever had it; whether that was done."""
        token_id, _ = tokens.parse(text)
        if await self._store.get(keys.token(token_id)) is not None:
            return False
        if self._people.user(ADMIN) is None:
            try:
                await self.add_user(ADMIN, "made at the first start")
            except ApiError as error:
                if error.code != 409:
                    raise
        await self.grant("", ADMIN, PLATFORM_ADMIN)
        await self.make_token(Token(id="", principal=ADMIN, digest="", note="of this machine's root"), text)
        return True

    async def _known(self, table: Table[User] | Table[Token] | Table[Binding], key: str, rev: int) -> None:
        """Wait until this process itself has seen the change of `key` at `rev`."""
        async with asyncio.timeout(KNOWN_WITHIN_S):
            while True:
                entry = table.entry(key)
                there = entry.store_rev if entry is not None else 0
                if there >= rev or (entry is None and await self._store.get(key) is None):
                    return
                await asyncio.sleep(0.005)


def _end_of(token: Token) -> float:
    return token.revoked_at or token.expires_at


def _busy(principal: str) -> ApiError:
    return ApiError(409, "Conflict", f"{principal} is being changed by somebody else; try again")
