"""What one instance of a revision takes of a node, while it runs, is parked or is frozen. Pure.

A parked instance holds `PARKED_BYTES` and a slot: no app code runs in it, and its request is asked for when it is woken.
"""

import math

from msgspec import Struct
from msgspec.structs import replace

from store.model import Node, Revision, RevisionKey
from store.scaling import Taint, Toleration

PARKED_BYTES = 4 << 20
PARKED_SANDBOX_BYTES = 48 << 20
"""A parked sandbox is a kernel that runs, without the app."""
EXPECTED_STEP_BYTES = 16 << 20
EXPECTED_STEP_M = 50
EXPECTED_LEAST = 0.25
"""CPU that is asked for and not used counts so much of itself: the app may use it any time."""


class Need(Struct, frozen=True):
    """What one instance of a revision takes. Without a memory request its limit is the request, as Kubernetes has it."""

    revision: RevisionKey
    image: str = ""
    cpu_m: int = 0
    memory_bytes: int = 0
    disk_bytes: int = 0
    selector: tuple[tuple[str, str], ...] = ()
    """Labels that the node must have."""
    tolerations: tuple[Toleration, ...] = ()
    runtime: str = ""
    """A runtime that not every node has, or empty."""
    expects_m: int = 0
    """The CPU that it counts with in a node's load, where its use is known; 0: as it asks for."""

    @staticmethod
    def of(revision: Revision) -> "Need":
        memory = revision.memory_request_bytes or revision.memory_limit_bytes
        cpu_m = revision.cpu_request_m or revision.cpu_limit_m
        if not (revision.disk_request_bytes or revision.node_selector or revision.tolerations or revision.runtime):
            return Need(revision.key, digest_of(revision.image), cpu_m, memory)
        selector, tolerations = tuple(sorted(revision.node_selector.items())), tuple(revision.tolerations)
        disk, runtime = revision.disk_request_bytes, revision.runtime
        return Need(revision.key, digest_of(revision.image), cpu_m, memory, disk, selector, tolerations, runtime)

    def expecting(self, memory_bytes: int, cpu_m: float = 0.0) -> "Need":
        """What it takes when instances of it are known to hold `memory_bytes` and use `cpu_m`.

        Memory that it does not ask for: what it holds and a tenth, in steps, so that what nobody asked for is not given twice; a request
        stands. CPU only orders nodes by load, so there it counts as it uses it, but no less than a share of its request.
        """
        asked_bytes, expects_m = self.memory_bytes, self.expects_m
        if cpu_m:
            expects_m = max(math.ceil(cpu_m / EXPECTED_STEP_M) * EXPECTED_STEP_M, int(self.cpu_m * EXPECTED_LEAST))
        if memory_bytes and not asked_bytes:
            asked_bytes = math.ceil(memory_bytes * 1.1 / EXPECTED_STEP_BYTES) * EXPECTED_STEP_BYTES
        return replace(self, memory_bytes=asked_bytes, expects_m=expects_m)

    def parked(self) -> "Need":
        """What it takes while it is parked."""
        return replace(self, cpu_m=0, expects_m=0, memory_bytes=PARKED_SANDBOX_BYTES if self.runtime else PARKED_BYTES)

    def frozen(self) -> "Need":
        """What it takes while it is frozen: what it holds, and no CPU."""
        return replace(self, cpu_m=0, expects_m=0)

    def misses(self, node: Node) -> str:
        """What of `node` keeps it away: a label it has not, or a taint that is not tolerated; empty when nothing does."""
        for name, value in self.selector:
            if node.labels.get(name) != value:
                return f"label {name}={value}"
        for taint in node.taints:
            if not any(tolerates(each, taint) for each in self.tolerations):
                return f"toleration of taint {taint.key}={taint.value}" if taint.value else f"toleration of taint {taint.key}"
        return ""


def tolerates(toleration: Toleration, taint: Taint) -> bool:
    """Whether the toleration is for that taint."""
    if toleration.key and toleration.key != taint.key:
        return False
    return toleration.exists or toleration.value == taint.value


def digest_of(image: str) -> str:
    """`sha256:…` of `host/repository@sha256:…`."""
    return image.rpartition("@")[2]


def mebibytes(size: int) -> str:
    """`512Mi`, or bytes when it is less than one."""
    return f"{size >> 20}Mi" if size >= 1 << 20 else f"{size}"
