"""etcd behind the Store port, over gRPC.

A call that finds etcd away waits for it within its own deadline, so that a restart of a second goes unnoticed. A watch is one
stream: it is opened again by itself and goes on after the last event it gave out.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

from process import logs
from process.identity import Identity, when_renewed
from store.backend import Change, Entry, Listing
from store.channel import open_channel
from store.errors import Ahead, Compacted, Conflict, Forbidden, LeaseLost, StoreError, TooLarge, Unavailable
from store.pb import rpc_pb2 as pb
from store.pb import rpc_pb2_grpc as stubs
from store.renewals import Renewals
from store.txn import Guard, Put, Txn, check_size

PAGE = 500
"""Entries read at once."""
MOVE_S = 60.0
"""Within this, streams go over to the connection of a renewed certificate: not all of them at once."""
_PUT = 0  # mvccpb.Event.PUT
_log = logs.get("store")


@dataclass(frozen=True, slots=True)
class Status:
    """What one etcd member says of itself. `alarms` are in etcd's words (`NOSPACE`)."""

    version: str
    db_bytes: int
    alarms: tuple[str, ...]


class EtcdStore:
    """A client of etcd at `etcd` (comma-separated host:port). Make it inside the event loop that will use it.

    `deadline_s` bounds every call but the watches. Nothing is contacted before the first call. With an `identity`, TLS is spoken;
    when its certificate is renewed, so is the connection, and what goes on over the old one goes on until it has moved.
    """

    def __init__(self, etcd: str, *, identity: Identity | None = None, deadline_s: float = 5.0) -> None:
        self._deadline_s = deadline_s
        self._etcd = etcd
        self._identity = identity
        self._watching: set[Any] = set()
        self._moving: set[Any] = set()
        self._jobs: set[asyncio.Task[None]] = set()
        self._connect()
        if identity is not None:
            self._job(when_renewed(identity, self._renew))

    def _connect(self) -> None:
        self._channel = open_channel(self._etcd, self._identity)
        self._kv = stubs.KVStub(self._channel)
        self._watch = stubs.WatchStub(self._channel)
        self._lease = stubs.LeaseStub(self._channel)
        self._renewals = Renewals(self._lease, self._deadline_s)
        self._maintenance = stubs.MaintenanceStub(self._channel)

    def _renew(self) -> None:
        """The certificate was replaced. Raises BadIdentity; then everything stays as it was."""
        assert self._identity is not None
        old, within_s = self._channel, min(MOVE_S, 2 * self._identity.look_every_s())
        self._connect()
        for call in self._watching:
            asyncio.get_running_loop().call_later(within_s * random.random(), self._move, call)
        self._job(_close_after(old, within_s + self._deadline_s))

    def _move(self, call: Any) -> None:
        if call in self._watching:
            self._moving.add(call)
            call.cancel()

    def _job(self, work: Coroutine[Any, Any, None]) -> None:
        job = asyncio.get_running_loop().create_task(work, name="store identity")
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)

    # -- keys ------------------------------------------------------------------------------------------------------------------

    async def get(self, key: str) -> Entry | None:
        answer = await self._call(self._kv.Range, pb.RangeRequest(key=key.encode()))
        return _entry(answer.kvs[0]) if answer.kvs else None

    async def list(self, prefix: str, *, at: int = 0, since: int = 0) -> Listing:
        start, end = prefix_range(prefix)
        if since:
            request = pb.RangeRequest(key=start, range_end=end, revision=at, min_mod_revision=since + 1)
            answer = await self._call(self._kv.Range, request, at=at)
            return Listing(tuple(_entry(kv) for kv in answer.kvs), at or answer.header.revision, int(answer.count))
        while True:
            try:
                return await self._pages(start, end, at)
            except Compacted:
                if at:
                    raise  # else history was compacted between two pages: begin anew

    async def _pages(self, start: bytes, end: bytes, at: int) -> Listing:
        """All of a range at one revision, a page at a time: other work of this process goes on in between."""
        entries: list[Entry] = []
        while True:
            request = pb.RangeRequest(key=start, range_end=end, revision=at, limit=PAGE)
            answer = await self._call(self._kv.Range, request, at=at)
            entries += [_entry(kv) for kv in answer.kvs]
            at = at or answer.header.revision
            if not answer.more:
                return Listing(tuple(entries), at, len(entries))
            start = answer.kvs[-1].key + b"\0"

    async def count(self, prefix: str) -> int:
        start, end = prefix_range(prefix)
        answer = await self._call(self._kv.Range, pb.RangeRequest(key=start, range_end=end, count_only=True))
        return int(answer.count)

    async def commit(self, txn: Txn) -> int:
        check_size(txn)
        request = pb.TxnRequest(compare=[_compare(guard) for guard in txn.guards], success=[_operation(w) for w in txn.writes])
        answer = await self._call(self._kv.Txn, request)
        if not answer.succeeded:
            raise Conflict(txn.conflict())
        return int(answer.header.revision)

    async def put(self, key: str, value: bytes, *, lease: int = 0) -> int:
        check_size(Txn(writes=(Put(key, value),)))
        answer = await self._call(self._kv.Put, pb.PutRequest(key=key.encode(), value=value, lease=lease))
        return int(answer.header.revision)

    async def delete(self, key: str) -> bool:
        answer = await self._call(self._kv.DeleteRange, pb.DeleteRangeRequest(key=key.encode()))
        return bool(answer.deleted)

    # -- watches ---------------------------------------------------------------------------------------------------------------

    async def watch(self, prefix: str, *, after: int, previous: bool = True) -> AsyncIterator[tuple[Change, ...]]:
        start, end = prefix_range(prefix)
        pause_s = 0.02
        while True:
            call = self._watch.Watch(wait_for_ready=True)
            self._watching.add(call)
            try:
                create = pb.WatchCreateRequest(key=start, range_end=end, start_revision=after + 1, prev_kv=previous)
                await call.write(pb.WatchRequest(create_request=create))
                pending: list[Any] = []
                while (answer := await call.read()) is not grpc.aio.EOF:
                    if answer.compact_revision:
                        raise Compacted(answer.compact_revision)
                    if answer.canceled:
                        _log.warning("watch cancelled by etcd; opened again", prefix=prefix, reason=answer.cancel_reason)
                        break
                    pause_s = 0.02
                    pending += answer.events
                    if answer.fragment:
                        continue  # the rest of the same transaction follows
                    for batch in _by_transaction(pending):
                        # Progress is what was given out, never the header's revision: events of it may still be on their way.
                        after = batch[0].store_rev
                        yield batch
                    pending = []
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
                if isinstance(error, grpc.aio.AioRpcError) and error.code() == grpc.StatusCode.PERMISSION_DENIED:
                    raise self._translated(error) from None
                _log.debug("watch interrupted; opened again", prefix=prefix, error=str(error))
            except asyncio.CancelledError:
                if call not in self._moving or (task := asyncio.current_task()) is None or task.cancelling():
                    raise
                pause_s = 0  # over to the connection of the renewed certificate
            finally:
                self._watching.discard(call)
                self._moving.discard(call)
                call.cancel()
            await asyncio.sleep(pause_s * random.uniform(0.5, 1))
            pause_s = min(max(pause_s, 0.01) * 2, 0.5)

    # -- leases ----------------------------------------------------------------------------------------------------------------

    async def grant(self, ttl_s: float) -> int:
        answer = await self._call(self._lease.LeaseGrant, pb.LeaseGrantRequest(TTL=-int(-ttl_s // 1)))
        return int(answer.ID)

    async def keep_alive(self, lease: int) -> float:
        try:
            seconds = await self._renewals.renew(lease)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
            raise self._translated(error) from None
        except TimeoutError:
            raise Unavailable(f"etcd {self._etcd}: lease {lease:x} not renewed within {self._deadline_s:g} s") from None
        if seconds is None:
            raise Unavailable(f"etcd {self._etcd}: ended the renewal of lease {lease:x} without an answer")
        if seconds <= 0:
            raise LeaseLost(f"lease {lease:x} expired or was revoked")
        return float(seconds)

    async def revoke(self, lease: int) -> None:
        try:
            await self._call(self._lease.LeaseRevoke, pb.LeaseRevokeRequest(ID=lease))
        except LeaseLost:
            return

    # -- the server ------------------------------------------------------------------------------------------------------------

    async def compact(self, store_rev: int) -> None:
        """Forget history before `store_rev`. In production etcd does this by itself (`--auto-compaction-retention`)."""
        await self._call(self._kv.Compact, pb.CompactionRequest(revision=store_rev, physical=True))

    async def status(self) -> Status:
        """Version, size and alarms of the member this client talks to."""
        answer = await self._call(self._maintenance.Status, pb.StatusRequest())
        return Status(answer.version, int(answer.dbSize), tuple(answer.errors))

    async def close(self) -> None:
        for job in list(self._jobs):
            job.cancel()
        await asyncio.gather(*self._jobs, return_exceptions=True)
        await self._channel.close()

    async def _call(self, method: Any, request: Any, *, at: int = 0) -> Any:
        try:
            return await method(request, timeout=self._deadline_s, wait_for_ready=True)
        except grpc.aio.AioRpcError as error:
            raise self._translated(error, at) from None

    def _translated(self, error: Exception, at: int = 0) -> StoreError:
        """What a failed call means. Everything not known to be refused may have happened, or not: Unavailable."""
        if not isinstance(error, grpc.aio.AioRpcError):
            return Unavailable(f"etcd {self._etcd}: {error}")
        code, details = error.code(), error.details() or ""
        if "required revision has been compacted" in details:
            return Compacted(at + 1)
        if "future revision" in details:
            return Ahead(f"store_rev {at} is in the future of etcd {self._etcd}: it may have been restored from a backup")
        if "lease not found" in details:
            return LeaseLost("the lease expired or was revoked")
        if "request is too large" in details:
            return TooLarge(f"etcd {self._etcd}: {details}; raise its --max-request-bytes or write less at once")
        if "space exceeded" in details:
            return Unavailable(f"etcd {self._etcd} is full: {details}; compact, defragment, then `etcdctl alarm disarm`")
        if code == grpc.StatusCode.PERMISSION_DENIED:
            return Forbidden(f"etcd {self._etcd}: {details}")
        if code == grpc.StatusCode.DEADLINE_EXCEEDED:
            return Unavailable(f"etcd {self._etcd}: no answer within {self._deadline_s:g} s")
        return Unavailable(f"etcd {self._etcd}: {code.name}: {details}")


async def _close_after(channel: grpc.aio.Channel, after_s: float) -> None:
    try:
        await asyncio.sleep(after_s)
    finally:
        await channel.close()


def prefix_range(prefix: str) -> tuple[bytes, bytes]:
    """etcd's [start, end) of all keys under `prefix`; of every key when it is empty."""
    start = prefix.encode()
    if not start:
        return b"\0", b"\0"
    # UTF-8 has no byte 0xff, so the last byte can always be raised.
    return start, start[:-1] + bytes([start[-1] + 1])


def _entry(kv: Any) -> Entry:
    return Entry(kv.key.decode(), kv.value, kv.mod_revision, kv.create_revision, kv.lease)


def _compare(guard: Guard) -> Any:
    key = guard.key.encode()
    if guard.created_rev is not None:
        return pb.Compare(target=pb.Compare.CREATE, key=key, create_revision=guard.created_rev)
    return pb.Compare(target=pb.Compare.MOD, key=key, mod_revision=guard.store_rev)


def _operation(write: Any) -> Any:
    if isinstance(write, Put):
        return pb.RequestOp(request_put=pb.PutRequest(key=write.key.encode(), value=write.value, lease=write.lease))
    return pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=write.key.encode()))


def _by_transaction(events: Sequence[Any]) -> list[tuple[Change, ...]]:
    """`events`, which are in order of their revision, in groups of one revision each."""
    groups: list[list[Change]] = []
    for event in events:
        change = _change(event)
        if groups and groups[-1][0].store_rev == change.store_rev:
            groups[-1].append(change)
        else:
            groups.append([change])
    return [tuple(group) for group in groups]


def _change(event: Any) -> Change:
    kv = event.kv
    previous = event.prev_kv.value if event.HasField("prev_kv") else None
    if event.type == _PUT:
        return Change(kv.key.decode(), kv.value, kv.mod_revision, kv.create_revision, previous)
    return Change(kv.key.decode(), None, kv.mod_revision, 0, previous)
