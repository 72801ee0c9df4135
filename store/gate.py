"""`python -m store.gate`: the way to etcd for who may not have all of it: node agents and the front door.

It speaks what store/etcd.py uses of etcd's API. Role and name are the client certificate's, and store/roles.py says what they may:
each call is checked, and what is not known to be harmless is refused. Nothing is kept here: a gate that dies is for its clients an
etcd that is away, and the next one goes on.
"""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

from process import logs
from process.admin import Admin
from process.identity import BadIdentity, Identity, when_renewed
from process.run import main
from process.settings import Common
from store import keys
from store.backend import Store
from store.channel import open_channel
from store.checks import Denied, Guest, Guests, plain
from store.connect import open_store
from store.errors import Conflict, StoreError
from store.leases import KEY_BYTES, number
from store.pb import kv_pb2
from store.pb import rpc_pb2 as pb
from store.txn import Guard, Put, Txn

CALL_S = 10.0
"""For a call that brings no deadline of its own."""
STREAMS_MOST = 2_000
"""Open streams and calls of one client."""
_OPTIONS = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_concurrent_streams", STREAMS_MOST),
    ("grpc.max_receive_message_length", 4 * 2**20),
    ("grpc.max_send_message_length", -1),
    # Our clients ask every 6 s whether we are there (store/channel.py).
    ("grpc.http2.min_ping_interval_without_data_ms", 3_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
)

_log = logs.get("gate")


class Settings(Common, frozen=True, kw_only=True):
    """Flags of the gate. `--etcd` is etcd itself."""

    listen: str = "127.0.0.1:2378"


async def lease_key(store: Store) -> bytes:
    """What all gates number leases with: made by the first one. Raises StoreError."""
    while (entry := await store.get(keys.GATE_LEASES)) is None:
        try:
            await store.commit(
                Txn(guards=(Guard(keys.GATE_LEASES, 0),), writes=(Put(keys.GATE_LEASES, os.urandom(KEY_BYTES)),))
            )
        except Conflict:
            continue
    return entry.value


class Gate(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Passes on what is allowed. `open_upstream` makes a channel to etcd."""

    def __init__(self, guests: Guests, open_upstream: Callable[[], grpc.aio.Channel]) -> None:
        self._guests, self._open = guests, open_upstream
        self.refused = 0
        self.renew()
        kv, lease = "/etcdserverpb.KV/", "/etcdserverpb.Lease/"
        self._methods = {
            kv + "Range": grpc.unary_unary_rpc_method_handler(self._checked(kv + "Range", pb.RangeRequest, self._range)),
            kv + "Put": self._plain(kv + "Put", pb.PutRequest, Guest.put),
            kv + "DeleteRange": self._plain(kv + "DeleteRange", pb.DeleteRangeRequest, Guest.delete),
            kv + "Txn": self._plain(kv + "Txn", pb.TxnRequest, Guest.txn),
            kv + "Compact": self._plain(kv + "Compact", pb.CompactionRequest, Guest.everything),
            lease + "LeaseGrant": self._plain(lease + "LeaseGrant", pb.LeaseGrantRequest, self._number),
            lease + "LeaseRevoke": self._plain(lease + "LeaseRevoke", pb.LeaseRevokeRequest, Guest.lease),
            lease + "LeaseKeepAlive": grpc.stream_stream_rpc_method_handler(self._keep_alive),
            "/etcdserverpb.Watch/Watch": grpc.stream_stream_rpc_method_handler(self._watch),
        }

    def service(self, call: Any) -> Any:
        return self._methods.get(call.method)

    def renew(self) -> None:
        """Speak to etcd over a new channel from now on. What goes on over the old one ends by itself, or with it."""
        self.upstream = self._open()

    # -- calls -----------------------------------------------------------------------------------------------------------------

    def _plain(self, method: str, kind: Any, check: Callable[[Guest, Any], None]) -> Any:
        """Checked, and passed on."""

        async def answer(guest: Guest, request: Any, context: Any) -> bytes:
            check(guest, request)
            return await self._pass(method, request, context)

        return grpc.unary_unary_rpc_method_handler(self._checked(method, kind, answer))

    def _checked(self, method: str, kind: Any, answer: Callable[[Guest, Any, Any], Awaitable[bytes]]) -> Any:
        async def call(data: bytes, context: Any) -> bytes:
            try:
                return await answer(self._guests.who(context), plain(kind, data), context)
            except Denied as denied:
                await self._refuse(context, denied, method)
            except grpc.aio.AioRpcError as error:
                await context.abort(error.code(), error.details() or "")
            except StoreError as error:
                await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
            raise AssertionError("abort raises")

        return call

    async def _pass(self, method: str, request: Any, context: Any) -> bytes:
        left_s = context.time_remaining()
        call = self.upstream.unary_unary(method)
        data = await call(request.SerializeToString(), timeout=CALL_S if left_s is None else left_s, wait_for_ready=True)
        return bytes(data)

    async def _range(self, guest: Guest, request: Any, context: Any) -> bytes:
        method = "/etcdserverpb.KV/Range"
        if guest.reads(request):
            return await self._pass(method, request, context)
        # Of this it sees what its assignments name, and those keys are asked for one by one, as of one moment.
        answer, at = pb.RangeResponse(), request.revision
        empty = pb.RangeRequest(key=b"\0", revision=at, count_only=True)
        answer.header.CopyFrom(pb.RangeResponse.FromString(await self._pass(method, empty, context)).header)
        for key in await guest.named(request):
            asked = pb.RangeRequest(key=key.encode(), revision=at or answer.header.revision, keys_only=request.keys_only)
            found = pb.RangeResponse.FromString(await self._pass(method, asked, context)).kvs
            answer.count += len(found)
            answer.kvs.extend(kv for kv in found if not request.count_only and kv.mod_revision >= request.min_mod_revision)
        return bytes(answer.SerializeToString())

    def _number(self, guest: Guest, request: Any) -> None:
        request.ID = number(self._guests.key, guest.who.uri, secrets.randbits(31))

    async def _refuse(self, context: Any, denied: Denied, method: str) -> None:
        self.refused += 1
        _log.warning("refused", method=method, who=denied.who, what=str(denied))
        await context.abort(grpc.StatusCode[denied.code], str(denied))

    # -- streams ---------------------------------------------------------------------------------------------------------------

    async def _keep_alive(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        def check(guest: Guest, data: bytes) -> Any:
            request = plain(pb.LeaseKeepAliveRequest, data)
            guest.lease(request)
            return request

        async for data in self._stream("/etcdserverpb.Lease/LeaseKeepAlive", requests, context, check):
            yield data

    async def _watch(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        filtered: list[Guest] = []
        births = False

        def check(guest: Guest, data: bytes) -> Any:
            nonlocal births
            request = plain(pb.WatchRequest, data)
            if request.WhichOneof("request_union") == "create_request":
                if not guest.reads(request.create_request):
                    filtered.append(guest)
                births = births or guest.births_alone(request.create_request)
            return request

        async for data in self._stream("/etcdserverpb.Watch/Watch", requests, context, check):
            if filtered:
                yield await _named_alone(filtered[0], data)
            elif not births:
                yield data
            elif born := _births_alone(data):
                yield born

    async def _stream(
        self, method: str, requests: AsyncIterator[bytes], context: Any, check: Callable[[Guest, bytes], Any]
    ) -> AsyncIterator[bytes]:
        """Both ways until one side ends, or the certificate does. Each waits for the other: nothing is queued here."""
        denied: list[Denied] = []
        call: Any = None
        try:
            guest = self._guests.who(context)
        except Denied as refused:
            await self._refuse(context, refused, method)
            return
        call = self.upstream.stream_stream(method)(wait_for_ready=True)

        async def forward() -> None:
            try:
                async for data in requests:
                    await call.write(check(guest, data).SerializeToString())
                await call.done_writing()
            except Denied as refused:
                denied.append(refused)
                call.cancel()
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                return

        loop = asyncio.get_running_loop()
        job = loop.create_task(forward(), name=method)
        ending = loop.call_later(guest.left_s(), call.cancel)
        try:
            while (data := await call.read()) is not grpc.aio.EOF:
                yield data
        except grpc.aio.AioRpcError as error:
            await context.abort(error.code(), error.details() or "")
        except (asyncio.CancelledError, asyncio.InvalidStateError):
            if (task := asyncio.current_task()) is None or task.cancelling() or not call.cancelled():
                raise
        finally:
            ending.cancel()
            job.cancel()
            call.cancel()
        if denied:
            await self._refuse(context, denied[0], method)
        if call.cancelled():
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "the certificate is over: come again with the renewed one")


async def _named_alone(guest: Guest, data: bytes) -> bytes:
    """The answer of a watch without the events of keys that the guest's assignments do not name."""
    answer = pb.WatchResponse.FromString(data)
    if not answer.events:
        return data
    kept = [event for event in answer.events if await guest.may_see(event.kv.key.decode())]
    del answer.events[:]
    answer.events.extend(kept)
    return bytes(answer.SerializeToString())


def _births_alone(data: bytes) -> bytes:
    """The answer of a watch without the events of keys that were there before and still are; empty when none is left of it."""
    answer = pb.WatchResponse.FromString(data)
    kept = [event for event in answer.events if event.type == kv_pb2.Event.DELETE or event.kv.version == 1]
    if len(kept) == len(answer.events):
        return data
    if not kept:
        return b""
    del answer.events[:]
    answer.events.extend(kept)
    return bytes(answer.SerializeToString())


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Run until `stop`."""
    if not settings.identity:
        raise BadIdentity("the gate needs --identity DIR: it is who knows the others by theirs")
    identity = Identity(settings.identity)
    store = await open_store(settings.etcd, identity)
    admin = Admin({"store": lambda: None if ready.is_set() else "etcd has not answered yet"})
    ready = asyncio.Event()
    await admin.start(settings.admin)
    guests = Guests(store, b"", identity.directory / "revoked")
    jobs: list[asyncio.Task[None]] = []
    server = grpc.aio.server(options=_OPTIONS)
    stopping = asyncio.get_running_loop().create_task(stop.wait())
    opening = asyncio.get_running_loop().create_task(_key_when_there(store))
    try:
        await asyncio.wait({stopping, opening}, return_when=asyncio.FIRST_COMPLETED)
        if opening.done():
            guests.key = opening.result()
            gate = Gate(guests, lambda: open_channel(settings.etcd, identity))
            server.add_generic_rpc_handlers((gate,))
            server.add_secure_port(settings.listen, _credentials(identity))
            await server.start()
            jobs.append(asyncio.get_running_loop().create_task(when_renewed(identity, gate.renew)))
            ready.set()
            _log.info("listening", address=settings.listen)
            await stopping
    finally:
        for job in (opening, stopping, *jobs):
            job.cancel()
        await server.stop(0.5)
        await guests.close()
        await admin.stop()
        await store.close()


async def _key_when_there(store: Store) -> bytes:
    while True:
        try:
            return await lease_key(store)
        except StoreError as error:
            _log.warning("waiting for etcd", error=str(error))
            await asyncio.sleep(0.2)


def _credentials(identity: Identity) -> grpc.ServerCredentials:
    """Read anew for each connection: a renewed certificate is served from then on."""

    def fetch() -> Any:
        try:
            own = identity.material()
        except BadIdentity as error:
            _log.error("the renewed certificate cannot be used", error=str(error))
            return None  # the last one goes on
        return grpc.ssl_server_certificate_configuration([(own.key, own.certificate)], own.authority)

    first = fetch()
    if first is None:
        raise BadIdentity(f"{identity.directory}: no certificate to serve")
    return grpc.dynamic_ssl_server_credentials(first, fetch, True)


if __name__ == "__main__":
    main("gate", Settings, serve)
