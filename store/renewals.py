"""Renewals of leases over one stream that stays open: to open one for each costs many times what the renewal does."""

import asyncio
from typing import Any

import grpc
import grpc.aio

from store.pb import rpc_pb2 as pb


class Renewals:
    """Asks one at a time. `stub` is etcd's Lease service; an answer takes at most `deadline_s`."""

    def __init__(self, stub: Any, deadline_s: float) -> None:
        self._stub, self._deadline_s = stub, deadline_s
        self._stream: Any = None
        self._turn = asyncio.Lock()

    async def renew(self, lease: int) -> int | None:
        """Seconds the lease has from now on, 0 when it is gone; None: etcd ended the stream without an answer.

        A stream that broke since the last renewal (etcd restarted) is opened again, once. Raises grpc.aio.AioRpcError,
        asyncio.InvalidStateError, TimeoutError.
        """
        async with self._turn:
            if self._stream is not None:
                try:
                    seconds = await self._ask(lease)
                except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                    seconds = None
                if seconds is not None:
                    return seconds
            return await self._ask(lease)

    async def _ask(self, lease: int) -> int | None:
        if self._stream is None:
            self._stream = self._stub.LeaseKeepAlive(wait_for_ready=True)
        stream, answer = self._stream, None
        try:
            async with asyncio.timeout(self._deadline_s):
                await stream.write(pb.LeaseKeepAliveRequest(ID=lease))
                answer = await stream.read()
                return None if answer is grpc.aio.EOF else int(answer.TTL)
        finally:
            # After a call that was given up half-way, the next answer would be the wrong one.
            if answer is None or answer is grpc.aio.EOF:
                self._stream = None
                stream.cancel()
