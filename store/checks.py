"""The gate's questions: who is this, and may he? Denied says what was asked and by whom."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography import x509

from process import logs
from process.identity import Who, who_in
from store import roles
from store.backend import Store
from store.leases import owns
from store.referral import Referral
from store.roles import Span

KNOWN_MOST = 1000
"""Certificates whose end is remembered."""
LOOK_S = 1.0
"""How often the list of who is shut out is looked at."""
_log = logs.get("gate")


class Denied(Exception):
    """Not allowed; `who` asked. `code` is gRPC's: what has that of UNAUTHENTICATED may come again with another certificate."""

    def __init__(self, who: str, what: str, code: str = "PERMISSION_DENIED") -> None:
        super().__init__(what)
        self.who, self.code = who, code


def plain(kind: Any, data: bytes) -> Any:
    """The message, without fields that are not known here: those would pass unchecked."""
    message = kind.FromString(data)
    message.DiscardUnknownFields()
    return message


class Guest:
    """Somebody with a certificate, for one call."""

    def __init__(self, who: Who, ends_at: float, key: bytes, referral: Callable[[], Referral]) -> None:
        self.who, self._ends_at, self._key, self._referral = who, ends_at, key, referral
        self._role = roles.role(who.role)

    def left_s(self) -> float:
        return max(0.0, self._ends_at - time.time())

    def reads(self, request: Any) -> bool:
        """True: the range is his to read. False: he sees of it what his assignments name. Raises Denied."""
        span = Span(request.key, request.range_end)
        if roles.may_read(self._role, self.who.name, span):
            return True
        if not roles.refers(self._role, span):
            raise self._denied("read", span)
        return False

    def births_alone(self, request: Any) -> bool:
        """Whether a watch of the range tells of keys that come and go, and of nothing else."""
        return roles.births_alone(self._role, Span(request.key, request.range_end))

    async def named(self, request: Any) -> list[str]:
        """The keys that his assignments name. Raises Denied for a single key that they do not; StoreError."""
        span = Span(request.key, request.range_end)
        if span.end:
            return await self._referral().keys(span)
        key = span.start.decode("utf-8", "replace")
        if not await self._referral().allows(key):
            raise self._denied("read", span)
        return [key]

    async def may_see(self, key: str) -> bool:
        return await self._referral().allows(key)

    def put(self, request: Any) -> None:
        self._write(Span(request.key))
        if request.lease:
            self._lease(request.lease)

    def delete(self, request: Any) -> None:
        self._write(Span(request.key, request.range_end))

    def txn(self, request: Any) -> None:
        for compare in request.compare:
            span = Span(compare.key)
            if not roles.may_read(self._role, self.who.name, span):
                raise self._denied("compare", span)
        for operation in (*request.success, *request.failure):
            which = operation.WhichOneof("request")
            if which == "request_put":
                self.put(operation.request_put)
            elif which == "request_delete_range":
                self.delete(operation.request_delete_range)
            elif which != "request_range" or not self.reads(operation.request_range):
                raise Denied(self.who.uri, f"{self.who.uri} may not do this inside a transaction")

    def everything(self, request: Any) -> None:
        """For what concerns all keys."""
        if not self._role.straight:
            raise Denied(self.who.uri, f"{self.who.uri} may not do this to all keys")

    def lease(self, request: Any) -> None:
        self._lease(request.ID)

    def _lease(self, lease: int) -> None:
        if not owns(self._key, self.who.uri, lease):
            raise Denied(self.who.uri, f"{self.who.uri} has no lease {lease:x}")

    def _write(self, span: Span) -> None:
        if not roles.may_write(self._role, self.who.name, span):
            raise self._denied("write", span)

    def _denied(self, verb: str, span: Span) -> Denied:
        shown = span.start.decode("utf-8", "backslashreplace")
        return Denied(self.who.uri, f"{self.who.uri} may not {verb} {shown}{'…' if span.end else ''}")


class Guests:
    """Tells who calls. `revoked`: a file with a URI a line (`ebb://nodeagent/node-2`), of who is not let in any more."""

    def __init__(self, store: Store, key: bytes, revoked: Path) -> None:
        self._store, self.key, self._file = store, key, revoked
        self._ends: dict[bytes, float] = {}
        self._revoked: frozenset[str] = frozenset()
        self._looked = 0.0
        self._referrals: dict[str, Referral] = {}

    def who(self, context: Any) -> Guest:
        """Who made this call. Raises Denied."""
        told = context.auth_context()
        who = who_in([each.decode("utf-8", "replace") for each in told.get("peer_uri", ())])
        if who is None:
            raise Denied("nobody", "the certificate has no URI such as ebb://nodeagent/node-1")
        if who.uri in self._shut_out():
            raise Denied(who.uri, f"{who.uri} is shut out ({self._file})")
        ends_at = self._end_of(told["x509_pem_cert"][0])
        if time.time() > ends_at:
            raise Denied(who.uri, f"the certificate of {who.uri} is over: come again with the renewed one", "UNAUTHENTICATED")
        return Guest(who, ends_at, self.key, lambda: self._referral(who.name))

    async def close(self) -> None:
        for referral in self._referrals.values():
            await referral.close()

    def _referral(self, node: str) -> Referral:
        if node not in self._referrals:
            self._referrals[node] = Referral(self._store, node)
        return self._referrals[node]

    def _end_of(self, pem: bytes) -> float:
        found = self._ends.get(pem)
        if found is None:
            if len(self._ends) >= KNOWN_MOST:
                self._ends.clear()
            found = self._ends[pem] = x509.load_pem_x509_certificate(pem).not_valid_after_utc.timestamp()
        return found

    def _shut_out(self) -> frozenset[str]:
        now = time.monotonic()
        if now - self._looked > LOOK_S:
            self._looked = now
            try:
                self._revoked = frozenset(self._file.read_text().split())
            except FileNotFoundError:
                self._revoked = frozenset()
            except OSError as error:  # as it was, rather than nobody
                _log.error("who is shut out cannot be read: chmod 644 it", file=str(self._file), error=str(error))
        return self._revoked
