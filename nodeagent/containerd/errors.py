"""What containerd's answers mean, translated once from gRPC's codes."""

import grpc


class ContainerdError(Exception):
    """containerd refused or failed; the message names the call and what containerd said. `retry`: the same call may succeed later."""

    retry = False


class NotFound(ContainerdError):
    """What the call names is not there."""


class AlreadyExists(ContainerdError):
    """What the call would make is there already."""


class FailedPrecondition(ContainerdError):
    """The thing is in another state than the call needs (task not stopped, snapshot in use, wrong digest or size)."""


class InvalidArgument(ContainerdError):
    """The request itself is wrong."""


class OutOfRange(ContainerdError):
    """A write does not begin where the last one ended."""


class Unsupported(ContainerdError):
    """This containerd, or the plugin asked, cannot do that."""


class NoSpace(ContainerdError):
    """The disk under containerd's root is full. Free some space there; nothing was lost."""


class Unavailable(ContainerdError):
    """No connection to containerd. Nothing is known about the call's outcome."""

    retry = True


class TimedOut(Unavailable):
    """No answer before the deadline. Nothing is known about the call's outcome."""


_KINDS: dict[grpc.StatusCode, type[ContainerdError]] = {
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPrecondition,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgument,
    grpc.StatusCode.OUT_OF_RANGE: OutOfRange,
    grpc.StatusCode.UNIMPLEMENTED: Unsupported,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: TimedOut,
}


def translate(error: grpc.aio.AioRpcError, call: str) -> ContainerdError:
    """`error` of the call `call` as one of the kinds above."""
    said = error.details() or error.code().name
    kind = _KINDS.get(error.code(), ContainerdError)
    if "no space left on device" in said or "disk quota exceeded" in said:
        kind = NoSpace
    return kind(f"{call}: {said}")
