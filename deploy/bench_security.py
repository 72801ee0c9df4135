"""`deploy/bench security`: what each fence around an instance, and each control of a request, costs, on and off in turn.

No engine: the node agent's own parts make a root, and crun (else runc) creates and starts a static program in it, as a shim would.
`create` is what a pooled start pays and a parked one has behind it; `start` is all that a parked start pays.
Requests are `bench_security_requests`, the wires of a wake `bench_security_wire`.
"""

import argparse
import ctypes
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from deploy import bench_security_requests as requests
from deploy import bench_security_wire as wire
from nodeagent import cgroups, ocispec, rootfs, userns
from nodeagent.images.manifest import ImageConfig
from nodeagent.ocispec import Files
from nodeagent.profiles import Fence, Writable
from nodeagent.uids import FIRST_ID
from nodeagent.userdb import ResolvedUser
from store.model import Revision

PARENT = f"/ebb-bench-security-{os.getpid()}"
GOAL_MS = 3.0
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Variant:
    """Which controls are on. `disk`: memory, file, or empty for a plain directory without a limit."""

    name: str
    own_ids: bool = True
    seccomp: bool = True
    disk: str = "memory"


VARIANTS = (
    Variant("all, as shipped"),
    Variant("without user namespace", own_ids=False),
    Variant("without seccomp", seccomp=False),
    Variant("without disk limit", disk=""),
    Variant("disk in a file", disk="file"),
    Variant("none of them", own_ids=False, seccomp=False, disk=""),
)


@dataclass(frozen=True)
class Here:
    """The network namespace the benchmark runs in."""

    ns_path: str = f"/proc/{os.getpid()}/ns/net"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write JSON. Exit code 1 when a container did not start."""
    parser = argparse.ArgumentParser(prog="deploy/bench security", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", metavar="FILE", help="write the figures there as well")
    parser.add_argument("--quick", action="store_true", help="10 samples of each instead of 60")
    parser.add_argument("--apart", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if not options.apart:
        # In a mount namespace of its own: what is mounted vanishes with it, and crun refuses a hybrid of cgroups.
        script = 'if [ -e /sys/fs/cgroup/unified/cgroup.controllers ]; then umount /sys/fs/cgroup/unified; fi; exec "$@"'
        again = [sys.executable, "-P", "-m", "deploy.bench_security", "--apart", *(sys.argv[1:] if argv is None else argv)]
        apart = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", *again]
        return subprocess.run(apart, check=False).returncode
    with tempfile.TemporaryDirectory(prefix="ebb-bench-") as home:
        Path(home).chmod(0o755)
        took = measure(Path(home), 10 if options.quick else 60)
    cgroups.remove(cgroups.detect(), PARENT)
    figures = {
        f"security.{variant.name.replace(' ', '_').replace(',', '')}_{step}_ms": round(statistics.median(times), 2)
        for (variant, step), times in took.items()
    }
    rounds, count = (3, 500) if options.quick else (9, 3_000)
    costs, connection = requests.measure(rounds, count), requests.connection_us(rounds, count)
    for control, cost in costs.items():
        name = f"security.request_{control.name.replace(' ', '_').replace(',', '')}"
        figures |= {f"{name}_on_us": round(cost.on_us, 2), f"{name}_off_us": round(cost.off_us, 2)}
    figures["security.connection_us"] = round(connection, 2)
    with tempfile.TemporaryDirectory(prefix="ebb-bench-") as home:
        wired = wire.measure(Path(home), 50 if options.quick else 300)
    for step, (on, off) in wired.items():
        name = f"security.{step.replace(' ', '_').lower()}"
        figures |= {f"{name}_on_ms": round(on, 3), f"{name}_off_ms": round(off, 3)}
    if options.json:
        Path(options.json).write_text(json.dumps(figures, indent=2, sort_keys=True) + "\n")
    show(took)
    requests.show(costs, connection)
    wire.show(wired)
    return 0


def measure(home: Path, samples: int) -> dict[tuple[Variant, str], list[float]]:
    """Milliseconds by variant and step (root, create, start), all variants in turn."""
    layer = home / "layer"
    for name in ("bin", "etc", "dev", "proc", "sys"):
        (layer / name).mkdir(parents=True)
    shutil.copy(shutil.which("busybox") or "/bin/busybox", layer / "bin/busybox")
    for name in ("resolv.conf", "hosts"):
        (home / name).write_text("")
    namespace = userns.make(FIRST_ID)
    took: dict[tuple[Variant, str], list[float]] = {(v, step): [] for v in VARIANTS for step in ("root", "create", "start")}
    for number in range(samples):
        for variant in VARIANTS:
            for step, ms in once(home, variant, namespace, f"s{number}").items():
                took[variant, step].append(ms)
    os.close(namespace)
    return took


def once(home: Path, variant: Variant, namespace: int, name: str) -> dict[str, float]:
    """One instance made, started and taken away. Raises subprocess.CalledProcessError."""
    bundle = home / name
    (bundle / "rootfs").mkdir(parents=True)
    fence = Fence(FIRST_ID if variant.own_ids else 0)
    revision = Revision(
        project="bench", name=name, image="bench", command=["/bin/busybox", "true"], memory_limit_bytes=64 << 20
    )
    files = Files(str(home / "resolv.conf"), str(home / "hosts"))
    place = f"{PARENT}/{name}"
    spec = ocispec.build(revision, ImageConfig(), Here(), name, files=files, user=ResolvedUser(), cgroup=place, fence=fence)
    if not variant.seccomp:
        del spec["linux"]["seccomp"]
    spec["process"]["rlimits"] = []
    (bundle / "config.json").write_text(json.dumps(spec))
    runtime = [shutil.which("crun") or "runc", "--root", str(home / "state")]
    began = time.perf_counter()
    options, laid = root_of(home, bundle, variant, namespace, fence)
    mount(bundle / "rootfs", options)
    if laid is not None:
        laid.close()
    made = time.perf_counter()
    _run(*runtime, "create", "--bundle", str(bundle), name)
    created = time.perf_counter()
    _run(*runtime, "start", name)
    started = time.perf_counter()
    _run(*runtime, "delete", "--force", name)
    _libc.umount2(str(bundle / "rootfs").encode(), 2)
    shutil.rmtree(bundle)
    return {"root": (made - began) * 1e3, "create": (created - made) * 1e3, "start": (started - created) * 1e3}


def root_of(home: Path, bundle: Path, variant: Variant, namespace: int, fence: Fence) -> tuple[str, rootfs.Laid | None]:
    """The overlay's options, and what must stand until it is mounted."""
    image = rootfs.Overlay((f"lowerdir={home / 'layer'}",))
    limit = Writable(64 << 20, 4096, on_disk=variant.disk == "file")
    laid = rootfs.lay(image, namespace if variant.own_ids else -1, fence.first_id, limit, home)
    if variant.disk:
        return ",".join(laid.mount.options), laid
    for part in ("upper", "work"):
        (bundle / part).mkdir()
        os.chown(bundle / part, fence.first_id, fence.first_id)
    return f"{laid.mount.options[0]},upperdir={bundle}/upper,workdir={bundle}/work", laid


def mount(target: Path, options: str) -> None:
    """An overlay. Raises OSError."""
    if _libc.mount(b"overlay", str(target).encode(), b"overlay", 0, options.encode()):
        code = ctypes.get_errno()
        raise OSError(code, f"cannot mount {options}: {os.strerror(code)}")


def show(took: dict[tuple[Variant, str], list[float]]) -> None:
    """A table, medians, and the p99 of what a parked start pays."""
    table = Table(title=f"what fences cost, ms (goal: start within {GOAL_MS:g} ms of none)", box=None)
    for column in ("variant", "root", "create", "start", "start p99"):
        table.add_column(column, justify="left" if column == "variant" else "right")
    for variant in VARIANTS:
        cells = [f"{statistics.median(took[variant, step]):.2f}" for step in ("root", "create", "start")]
        table.add_row(variant.name, *cells, f"{sorted(took[variant, 'start'])[int(len(took[variant, 'start']) * 0.99)]:.2f}")
    Console().print(table)


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=30)


if __name__ == "__main__":
    sys.exit(main())
