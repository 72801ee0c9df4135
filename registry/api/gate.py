"""The gate before the API: who asks (401), whether they ask too often (429), and the word of it in the audit log.

It stands outside of Litestar: what has no valid token reaches no route, no body is read for it. What a known caller may do is decided
by `authorise`, a guard of every route, through `authorisation.decide`. An answer that still streams ends when it would no longer be
allowed: a revoked token's watch is over at once.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from process import ids, logs, metrics
from process.clock import Clock
from registry.api import doors, problems
from registry.api.doors import Entry, NoSuchPlace
from registry.api.problems import ApiError
from registry.audit import Attempt, AuditFailed, AuditLog
from registry.authorisation import Decision, Identity, decide
from registry.people import People, Refused
from registry.ratelimit import Buckets, retry_after_s

FAILED_PER_S, FAILED_BURST = 1.0, 20.0
"""Wrong tokens from one address before they are answered 429; right ones are not held up by wrong ones."""
RECHECK_S = 0.5
log = logs.get("registry.gate")
_REFUSED = metrics.counter("registry_refused_total", "Requests the gate refused.", "why")

ByClaim = Callable[[str], Awaitable[Identity]]
"""The identity in a bearer token of another issuer's. Raises people.Refused."""


@dataclass(slots=True)
class Asked:
    """One request on its way; in the scope as `ebb`."""

    identity: Identity
    address: str
    cause_id: str
    entry: Entry | None = None
    denied: str = ""
    name: str = ""
    """What a creation made, when the path does not say."""
    task: "asyncio.Task[Any] | None" = None
    begun: bool = False
    over: bool = False
    more: Mapping[str, Any] = field(default_factory=dict)

    def attempt(self) -> Attempt:
        entry = self.entry
        who = Attempt(who=self.identity.principal, token=self.identity.token, address=self.address, cause_id=self.cause_id)
        if entry is None:
            return who
        return replace(
            who, action=entry.action, kind=entry.kind, project=entry.project, name=entry.name or self.name, why=self.denied
        )


def asked(connection: Any) -> Asked:
    """Of a request that came through the gate."""
    return connection.scope["ebb"]  # type: ignore[no-any-return]


class Gate:
    """An ASGI application around another."""

    def __init__(
        self, people: People, audit: AuditLog, clock: Clock, by_claim: ByClaim | None,
        principal_per_s: float, address_per_s: float,
    ) -> None:  # fmt: skip
        self._people, self._audit, self._clock, self._by_claim = people, audit, clock, by_claim
        self.app: ASGIApp | None = None
        """What is behind it; set before the first request."""
        self._principals = Buckets(principal_per_s, principal_per_s * 10)
        self._addresses = Buckets(address_per_s, address_per_s * 10)
        self._failed = Buckets(FAILED_PER_S, FAILED_BURST)
        self._open: dict[int, Asked] = {}
        self._wanted = False
        people.on_change = self._people_changed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self.app is not None
        if str(scope["type"]) != "http" or scope["path"] in doors.OPEN:
            await self.app(scope, receive, send)
            return
        client = scope.get("client")
        address = client[0] if client else ""
        try:
            identity = await self._who(scope, address)
        except ApiError as error:
            await self._refuse(send, scope, error, address)
            return
        one = Asked(identity, address, ids.cause_id(), task=asyncio.current_task())
        scope["ebb"] = one  # type: ignore[typeddict-unknown-key]
        self._open[id(one)] = one
        try:
            await self.app(scope, receive, self._telling(one, send))
        except asyncio.CancelledError:
            if not one.over or one.task is None:
                raise
            one.task.uncancel()
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            del self._open[id(one)]

    # -- who --------------------------------------------------------------------------------------------------------------

    async def _who(self, scope: Scope, address: str) -> Identity:
        """Raises ApiError 401 or 429."""
        now = self._clock.now()
        self._hold(self._addresses, address, now, f"this address ({address})")
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"").decode("latin-1")
        scheme, _, text = given.partition(" ")
        text = text.strip()
        try:
            if scheme.lower() != "bearer" or not text:
                raise Refused("say who you are, with the header `Authorization: Bearer TOKEN`; see `ebb login --help`")
            if text.startswith("eyJ") and self._by_claim is not None:
                identity = await self._by_claim(text)
            else:
                identity = self._people.by_token(text)
        except Refused as error:
            if wait_s := self._failed.take(address, now):
                _REFUSED.labels("failed logins").inc()
                raise problems.too_many(
                    f"too many wrong tokens from {address}; try again later", retry_after_s(wait_s)
                ) from None
            raise problems.unauthorized(str(error)) from None
        self._hold(self._principals, identity.principal, now, identity.principal)
        return identity

    @staticmethod
    def _hold(buckets: Buckets, name: str, now: float, whose: str) -> None:
        if wait_s := buckets.take(name, now):
            _REFUSED.labels("rate").inc()
            limit = f"{buckets.per_s:g} requests a second, {buckets.burst:g} at once"
            raise problems.too_many(f"too many requests of {whose}: the limit is {limit}; slow down", retry_after_s(wait_s))

    async def _refuse(self, send: Send, scope: Scope, error: ApiError, address: str) -> None:
        if error.code == 401:
            _REFUSED.labels("unknown").inc()
            said = Attempt(address=address, action=str(scope.get("method", "")), name=scope["path"], why=error.message)
            try:
                self._audit.refused(said, error.code)
            except AuditFailed as failed:
                log.error("audit", error=str(failed))
        await _send(send, error)

    # -- the answer -------------------------------------------------------------------------------------------------------

    def _telling(self, one: Asked, send: Send) -> Send:
        """`send`, with the audit log's line before the head of the answer."""
        instead = False

        async def telling(message: Message) -> None:
            nonlocal instead
            if message["type"] == "http.response.start":
                one.begun = True
                try:
                    self._tell(one, message["status"])
                except AuditFailed as error:
                    log.error("audit", error=str(error))
                    instead = True
                    await _send(send, _audit_failed(error))
                    return
                message["headers"] = [*message["headers"], (b"x-ebb-cause", one.cause_id.encode())]
            if not instead:
                await send(message)

        return telling

    def _tell(self, one: Asked, code: int) -> None:
        if one.denied:
            _REFUSED.labels("forbidden").inc()
            self._audit.refused(one.attempt(), code)
        elif one.entry is not None and one.entry.told:
            self._audit.write(one.attempt(), code)

    # -- what goes on -----------------------------------------------------------------------------------------------------

    def _people_changed(self) -> None:
        """Look at what is open, once for all changes that came together."""
        if self._open and not self._wanted:
            self._wanted = True
            asyncio.get_running_loop().call_soon(self._recheck)

    async def run(self) -> None:
        """For ever: ends what has become too old."""
        while True:
            await asyncio.sleep(RECHECK_S)
            self._recheck()

    def _recheck(self) -> None:
        self._wanted = False
        for one in list(self._open.values()):
            if one.begun and not one.over and not self._still(one) and one.task is not None:
                one.over = True
                one.task.cancel()

    def _still(self, one: Asked) -> bool:
        try:
            now = self._people.again(one.identity)
        except Refused:
            return False
        entry = one.entry
        return entry is None or decide(now, entry.action, entry.project, entry.kind) is Decision.ALLOWED

    def authorise(self, connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
        """A guard of every route. Raises ApiError 403, 404, or 503 when what is asked for could not be audited."""
        scope = connection.scope
        if scope["path"] in doors.OPEN:
            return
        one = asked(connection)
        try:
            entry = doors.entry(
                str(scope.get("method", "")), scope["path_template"], connection.path_params, connection.query_params
            )
        except NoSuchPlace:
            raise problems.no_such_resource() from None
        one.entry = entry
        said = decide(one.identity, entry.action, entry.project, entry.kind)
        if said is Decision.NOT_FOUND:
            one.denied = "the project is not theirs"
            raise problems.unseen(entry.kind, entry.name)
        if said is Decision.FORBIDDEN:
            one.denied = "their roles do not allow it"
            raise problems.may_not(one.identity.principal, entry.action, entry.kind, entry.project)
        if entry.told:
            try:
                self._audit.writable()
            except AuditFailed as error:
                raise _audit_failed(error) from None


def _audit_failed(error: AuditFailed) -> ApiError:
    return problems.unavailable(f"what is done here must be written to the audit log, and cannot be: {error}")


async def _send(send: Send, error: ApiError) -> None:
    headers = [(b"content-type", b"application/json")]
    if error.code == 401:
        headers.append((b"www-authenticate", b'Bearer realm="ebb"'))
    if "retryAfterSeconds" in error.details:
        headers.append((b"retry-after", str(error.details["retryAfterSeconds"]).encode()))
    data = msgspec.json.encode(error.status())
    headers.append((b"content-length", str(len(data)).encode()))
    await send({"type": "http.response.start", "status": error.code, "headers": headers})
    await send({"type": "http.response.body", "body": data, "more_body": False})
