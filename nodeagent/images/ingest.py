"""Bytes into containerd's content store and out of it: verified, resumable, held by a gc_lease."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import grpc

from nodeagent.containerd import errors
from nodeagent.containerd.client import Containerd
from nodeagent.images.errors import BadDigest
from nodeagent.images.manifest import Descriptor
from nodeagent.pb import content_pb2 as pb
from nodeagent.pb import leases_pb2

STREAM_DEADLINE_S = 6 * 3600.0
"""Of one write stream: a bound on what is forgotten, not on what is slow (the source has its own idle deadline)."""
LOCKED_TRIES = 50

Source = Callable[[int], AbstractAsyncContextManager[tuple[int, Any]]]
"""`source(offset)` opens (start, chunks): start is `offset`, or 0 where it cannot begin there."""


async def hold(engine: Containerd, gc_lease: str, kind: str, name: str) -> None:
    """Let `gc_lease` keep `name`; `kind`: content, or snapshots/<snapshotter>."""
    resource = leases_pb2.Resource(id=name, type=kind)
    try:
        await engine.leases.AddResource(leases_pb2.AddResourceRequest(id=gc_lease, resource=resource))
    except errors.AlreadyExists:
        pass


async def has(engine: Containerd, digest: str) -> bool:
    """Whether the content store has the blob."""
    try:
        await engine.content.Info(pb.InfoRequest(digest=digest))
    except errors.NotFound:
        return False
    return True


async def read(engine: Containerd, digest: str, limit: int) -> bytes:
    """A small blob. Raises errors.NotFound; stops at `limit` bytes."""
    data = bytearray()
    async for part in engine.content.stream("Read", pb.ReadContentRequest(digest=digest, size=0)):
        data += part.data
        if len(data) > limit:
            break
    return bytes(data)


async def put(engine: Containerd, blob: Descriptor, data: bytes) -> None:
    """Store a small blob that is in memory. `engine` is under a gc_lease."""

    async def chunks() -> AsyncIterator[bytes]:
        yield data

    @asynccontextmanager
    async def source(_: int) -> AsyncIterator[tuple[int, Any]]:
        yield 0, chunks()

    await write(engine, blob, source, lambda _: None)


async def write(engine: Containerd, blob: Descriptor, source: Source, on_bytes: Callable[[int], None]) -> None:
    """Store `blob` from `source`, going on where an earlier write ended; on_bytes(done) tells how far it is.

    `engine` is under a gc_lease, which then holds the blob. Raises BadDigest, containerd's errors, and what `source` raises.
    """
    ref = f"ebb-{blob.digest}"
    for attempt in range(LOCKED_TRIES):
        try:
            await _write(engine, ref, blob, source, on_bytes)
            return
        except errors.AlreadyExists:
            on_bytes(blob.size)
            return
        except errors.Unavailable as error:
            # A writer that was cut off a moment ago still has the ref.
            if "locked" not in str(error) or attempt == LOCKED_TRIES - 1:
                raise
            await asyncio.sleep(0.1)
        except BadDigest:
            await _abort(engine, ref)
            raise


async def _write(engine: Containerd, ref: str, blob: Descriptor, source: Source, on_bytes: Callable[[int], None]) -> None:
    call = engine.content.duplex("Write", STREAM_DEADLINE_S)
    try:
        state = await _say(call, pb.WriteContentRequest(action=pb.STAT, ref=ref, total=blob.size, expected=blob.digest))
        done = min(state.offset, blob.size)
        if done < blob.size or state.offset > blob.size:
            async with source(done) as (start, chunks):
                done = start
                on_bytes(done)
                async for chunk in chunks:
                    if done + len(chunk) > blob.size:
                        raise BadDigest(
                            f"blob {blob.digest}: more than its {blob.size} bytes came; the registry's copy is damaged"
                        )
                    await _say(call, pb.WriteContentRequest(action=pb.WRITE, ref=ref, offset=done, data=chunk))
                    done += len(chunk)
                    on_bytes(done)
        if done < blob.size:
            raise BadDigest(f"blob {blob.digest}: {done} bytes came of {blob.size}; the registry's copy is damaged")
        last = pb.WriteContentRequest(action=pb.COMMIT, ref=ref, offset=done, total=blob.size, expected=blob.digest)
        await _say(call, last)
        await call.done_writing()
        # Without reading on to the end the call never ends.
        while await call.read() is not grpc.aio.EOF:
            pass
        on_bytes(done)
    except grpc.aio.AioRpcError as error:
        raise _judge(error, blob) from None
    finally:
        call.cancel()


async def _say(call: Any, request: pb.WriteContentRequest) -> Any:
    try:
        await call.write(request)
        answer = await call.read()
    except asyncio.InvalidStateError:
        answer = grpc.aio.EOF
    if answer is grpc.aio.EOF:
        code, details = await call.code(), await call.details()
        raise grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details)
    return answer


def _judge(error: grpc.aio.AioRpcError, blob: Descriptor) -> Exception:
    said = error.details() or ""
    if error.code() == grpc.StatusCode.FAILED_PRECONDITION and (
        "unexpected commit" in said or "failed size validation" in said
    ):
        return BadDigest(f"blob {blob.digest}: its bytes are others ({said}); the registry's copy is damaged")
    return errors.translate(error, "Content.Write")


async def _abort(engine: Containerd, ref: str) -> None:
    """Forget what was written under `ref`.

    A writer cut off a moment ago may still hold the ref, or put files where containerd takes them away ("directory
    not empty"): both pass. What stays all the same goes with the gc_lease.
    """
    for _ in range(LOCKED_TRIES):
        try:
            await engine.content.Abort(pb.AbortRequest(ref=ref))
        except errors.NotFound:
            return
        except errors.ContainerdError:
            await asyncio.sleep(0.1)
        else:
            return
