"""Users, robots, their tokens and roles: known from watches, so that a token is checked with one look into memory."""

from collections.abc import Callable
from typing import Any

from process.clock import Clock
from registry import tokens
from registry.authorisation import Identity
from registry.tokens import NoToken
from store import keys
from store.access import ALL_USERS, Binding, Token, User
from store.backend import Store
from store.watch import Table


class Refused(Exception):
    """Nobody is known by what was shown; the message says why, without it."""


class People:
    """What the store knows of who there is. `on_change()` is called after every change of it."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._clock = clock
        self._roles: dict[str, dict[str, tuple[str, ...]]] = {}
        self.on_change: Callable[[], None] = lambda: None
        self.users: Table[User] = Table(store, keys.USERS, User, self._changed)
        self.tokens: Table[Token] = Table(store, keys.TOKENS, Token, self._changed)
        self.bindings: Table[Binding] = Table(store, keys.BINDINGS, Binding, self._bound)

    def tables(self) -> dict[str, Table[Any]]:
        return {"users": self.users, "tokens": self.tokens, "bindings": self.bindings}

    def user(self, principal: str) -> User | None:
        return self.users.get(keys.user(principal))

    def roles(self, principal: str) -> dict[str, tuple[str, ...]]:
        """By project; of the platform under the empty name. What all users may, each may."""
        own, everybody = self._roles.get(principal, {}), self._roles.get(ALL_USERS, {})
        return own if not everybody else {p: (*own.get(p, ()), *everybody.get(p, ())) for p in {*own, *everybody}}

    def by_token(self, text: str) -> Identity:
        """Whose token `text` is. Raises Refused."""
        try:
            token_id, digest = tokens.parse(text)
        except NoToken as error:
            raise Refused(str(error)) from None
        token = self.tokens.get(keys.token(token_id))
        if token is None or not tokens.matches(token, digest):
            raise Refused("no such token")
        return self._identity(token)

    def again(self, identity: Identity) -> Identity:
        """The same identity as it is now. Raises Refused when it no longer counts."""
        token = self.tokens.get(keys.token(identity.token))
        if token is not None:
            return self._identity(token)
        if not identity.expires_at or identity.expires_at <= self._clock.wall():
            raise Refused("the token has expired")
        return self.by_claim(identity.principal, identity.token, identity.expires_at)

    def by_claim(self, principal: str, issuer: str, expires_at: float) -> Identity:
        """Who an issuer's verified token speaks of. Raises Refused for a user who was disabled."""
        self._enabled(principal)
        return Identity(principal=principal, roles=self.roles(principal), token=issuer, expires_at=expires_at)

    def _identity(self, token: Token) -> Identity:
        if why := tokens.ended(token, self._clock.wall()):
            raise Refused(f"the token {token.id} does not count: {why}")
        if self.user(token.principal) is None:
            raise Refused(f"the token {token.id} does not count: there is no {token.principal}")
        self._enabled(token.principal)
        return Identity(
            principal=token.principal,
            roles=self.roles(token.principal),
            projects=token.projects,
            cap=token.role,
            token=token.id,
            expires_at=token.expires_at,
        )

    def _enabled(self, principal: str) -> None:
        user = self.user(principal)
        if user is not None and user.disabled:
            raise Refused(f"{principal} is disabled")

    # -- changes ----------------------------------------------------------------------------------------------------------

    def _changed(self, _: str, new: object, old: object) -> None:
        self.on_change()

    def _bound(self, _: str, new: Binding | None, old: Binding | None) -> None:
        if old is not None:
            held = self._roles.pop(old.principal, {})
            if rest := {project: roles for project, roles in held.items() if project != old.project}:
                self._roles[old.principal] = rest
        if new is not None and new.roles:
            self._roles[new.principal] = {**self._roles.get(new.principal, {}), new.project: new.roles}
        self.on_change()
