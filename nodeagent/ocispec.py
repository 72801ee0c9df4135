"""The OCI runtime spec of an instance: what the kernel is told about it, as one dict. Pure.

Rootless habits are left to images; the fences are always up: ids of the project's own, no capability beyond eleven and those only
over what is inside, no new privileges, system calls filtered, /proc and /sys masked, devices denied but the standard ones, own
namespaces of every kind. `profiles` says what differs from profile to profile.
"""

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from nodeagent import seccomp
from nodeagent.expand import expand
from nodeagent.profiles import IDS, OPEN, Fence
from nodeagent.userdb import ResolvedUser
from store.model import Revision

SHIM_GROUP = "io.containerd.runc.v2.group"
"""Annotation: tasks of one value share one containerd shim."""
FILTER = "run.oci.seccomp_bpf_data"
"""Annotation: the filter of system calls, compiled, for a runtime that takes it so."""
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_CPU_M = 100
"""Weight of an instance that asks for nothing."""
CPU_PERIOD_US = 100_000
SHORTEST_QUOTA_US = 1_000
OOM_SCORE = 500
"""Instances go before the engine when the machine is out of memory."""
NOFILE = 1 << 20

CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
)
MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
SYS_PARTS = ("/sys/devices/system/cpu",)
"""What programs look for under /sys: how many processors there are."""
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


class BadSpec(ValueError):
    """The image and revision give no runnable process; the message says why and what to do."""


class ImageConfig(Protocol):
    """What an image says of itself."""

    @property
    def entrypoint(self) -> Sequence[str]: ...
    @property
    def cmd(self) -> Sequence[str]: ...
    @property
    def env(self) -> Sequence[tuple[str, str]]: ...
    @property
    def working_dir(self) -> str: ...
    @property
    def user(self) -> str: ...


class InNamespace(Protocol):
    """A network namespace by path."""

    @property
    def ns_path(self) -> str: ...


SANDBOX_PIDS = 1024
"""Threads of gVisor's own that count beside the app's: with too few it hangs."""
SANDBOX_BYTES = 64 << 20
"""Memory of gVisor's own that counts beside the app's."""


@dataclass(frozen=True, slots=True)
class Files:
    """Files on the host that the instance sees, read-only: two under /etc, and what its volumes are."""

    resolv_conf: str
    hosts: str
    volumes: Sequence[tuple[str, str]] = ()
    """(directory on the host, where the instance sees it)"""


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What the spec must know of the machine."""

    machine: str = "x86_64"
    """As `uname -m`."""
    nofile_hard: int = NOFILE
    """The most open files that the runtime may grant: its own hard limit, unless it has CAP_SYS_RESOURCE."""
    swap_limit: bool = True
    """Whether swap can be limited (memory.swap.max, or memory.memsw.* of cgroup v1)."""
    cpu_m: int = 0
    """The machine's processors in milli-cores, or 0 when unknown."""
    filter: str = ""
    """What `seccomp.profile` is compiled to, where the node's own runtime takes that; else it compiles the profile."""


def build(
    revision: Revision,
    image: ImageConfig,
    network: InNamespace,
    instance: str,
    *,
    files: Files,
    user: ResolvedUser,
    cgroup: str,
    shim_group: str = "",
    host: HostFacts = HostFacts(),
    fence: Fence = OPEN,
) -> dict[str, Any]:
    """The spec, ready for JSON. The rootfs is `rootfs` beside it, as containerd has it. Raises BadSpec."""
    variables = environment(revision, image, instance, user)
    spec: dict[str, Any] = {
        "ociVersion": "1.0.2",
        "hostname": instance[:63],
        "root": {"path": "rootfs", "readonly": fence.hardened},
        "process": {
            "terminal": False,
            "user": _user(user),
            "args": [expand(word, variables) for word in command(revision, image)],
            "env": [f"{name}={value}" for name, value in variables.items()],
            "cwd": working_dir(revision, image),
            "noNewPrivileges": True,
            "capabilities": capabilities(revision, user, fence),
            "oomScoreAdj": OOM_SCORE,
            "rlimits": [
                {"type": "RLIMIT_NOFILE", "hard": min(NOFILE, host.nofile_hard), "soft": min(NOFILE, host.nofile_hard)}
            ],
        },
        "mounts": _mounts(files, fence),
        "linux": {
            "cgroupsPath": cgroup,
            "resources": resources(revision, host),
            "namespaces": [
                *({"type": kind} for kind in ("pid", "ipc", "uts", "mount", "cgroup")),
                {"type": "network", "path": network.ns_path},
                *([{"type": "user"}] if fence.first_id else []),
            ],
            "maskedPaths": list(MASKED),
            "readonlyPaths": list(READ_ONLY),
        },
    }
    if fence.first_id:
        whole = [{"containerID": 0, "hostID": fence.first_id, "size": IDS}]
        spec["linux"] |= {"uidMappings": whole, "gidMappings": whole}
    annotations = {SHIM_GROUP: shim_group} if shim_group else {}
    if host.filter and not revision.runtime:
        annotations[FILTER] = host.filter
    else:
        spec["linux"]["seccomp"] = seccomp.profile(host.machine)
    if annotations:
        spec["annotations"] = annotations
    return spec


def capabilities(revision: Revision, user: ResolvedUser, fence: Fence) -> dict[str, list[str]]:
    """By set. Exec takes them from who is not root; gVisor's does not, so they are not given."""
    sets = ("bounding",) if revision.runtime and user.uid else ("bounding", "effective", "permitted")
    return {kind: [] if fence.hardened else list(CAPABILITIES) for kind in sets}


def command(revision: Revision, image: ImageConfig) -> list[str]:
    """What is executed, by Kubernetes' rules: `command` replaces the entrypoint and drops the image's arguments; `args` replace those."""
    own = [*revision.command, *revision.args]
    words = own if revision.command else [*image.entrypoint, *(revision.args or image.cmd)]
    if not words or not words[0]:
        raise BadSpec(
            f"image {revision.image_name or revision.image} says nothing to run (no ENTRYPOINT, no CMD); set `command`"
        )
    return words


def environment(revision: Revision, image: ImageConfig, instance: str, user: ResolvedUser) -> dict[str, str]:
    """The variables: the image's, over them the user's own, which may refer to earlier ones, and over all what the platform promises."""
    found = {"PATH": DEFAULT_PATH, "HOSTNAME": instance[:63]}
    if user.home:
        found["HOME"] = user.home
    found.update(image.env)
    promised = {
        "PORT": str(revision.port),
        "K_SERVICE": revision.service,
        "K_REVISION": revision.name,
        "K_CONFIGURATION": revision.configuration or revision.service,
    }
    found.update(promised)
    for name, value in revision.env:
        if name not in promised:
            found[name] = expand(value, found)
    bad = [name for name, value in found.items() if not name or "=" in name or "\0" in name + value]
    if bad:
        raise BadSpec(f"variable {bad[0]!r}: a name must not be empty or have '=', and neither name nor value a NUL")
    return found


def working_dir(revision: Revision, image: ImageConfig) -> str:
    """Where the process starts. Not below /proc: through its links a working directory has led out of containers."""
    text = revision.working_dir or image.working_dir or "/"
    path = posixpath.normpath("/" + text.lstrip("/")) if text.startswith("/") else ""
    if not path or "\0" in path:
        raise BadSpec(f"working directory {text!r} is not absolute; it must begin with '/'")
    if any(path == top or path.startswith(top + "/") for top in ("/proc", "/sys", "/dev")):
        raise BadSpec(
            f"working directory {text!r} is below /proc, /sys or /dev, which is not allowed; use a directory of the image"
        )
    return path


def resources(revision: Revision, host: HostFacts) -> dict[str, Any]:
    """Limits, in the terms of cgroup v1 that runtimes translate for v2."""
    request = revision.cpu_request_m or revision.cpu_limit_m or DEFAULT_CPU_M
    cpu: dict[str, int] = {"shares": min(262_144, max(2, request * 1024 // 1000))}
    if revision.cpu_limit_m and not (host.cpu_m and revision.cpu_limit_m >= host.cpu_m):
        cpu |= {"quota": max(SHORTEST_QUOTA_US, revision.cpu_limit_m * CPU_PERIOD_US // 1000), "period": CPU_PERIOD_US}
    pids = (revision.pids_limit or 1024) + (SANDBOX_PIDS if revision.runtime else 0)
    found: dict[str, Any] = {"devices": _devices(), "cpu": cpu, "pids": {"limit": pids}}
    if revision.memory_limit_bytes:
        limit = revision.memory_limit_bytes + (SANDBOX_BYTES if revision.runtime else 0)
        memory = {"limit": limit}
        if host.swap_limit:
            memory["swap"] = limit
        found["memory"] = memory
    return found


def _user(user: ResolvedUser) -> dict[str, Any]:
    found: dict[str, Any] = {"uid": user.uid, "gid": user.gid}
    if user.additional_gids:
        found["additionalGids"] = list(user.additional_gids)
    return found


def _devices() -> list[dict[str, Any]]:
    """All denied, then null zero full random urandom tty, the pseudo-terminals."""
    allowed = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2), (136, None)]
    rules: list[dict[str, Any]] = [{"allow": False, "access": "rwm"}]
    for major, minor in allowed:
        rule: dict[str, Any] = {"allow": True, "type": "c", "major": major, "access": "rwm"}
        rules.append(rule if minor is None else {**rule, "minor": minor})
    return rules


def _mounts(files: Files, fence: Fence) -> list[dict[str, Any]]:
    fenced = ["nosuid", "noexec", "nodev"]
    bind = ["bind", "ro", *fenced]

    def mount(destination: str, kind: str, source: str, *options: str) -> dict[str, Any]:
        return {"destination": destination, "type": kind, "source": source, "options": list(options)}

    # The network namespace is the machine's, so the kernel gives no sysfs to root of another user namespace: it gets the parts that
    # programs look for, and the machine's hardware stays unseen.
    whole = [mount("/sys", "sysfs", "sysfs", *fenced, "ro")]
    parts = [mount("/sys", "tmpfs", "tmpfs", *fenced, "ro", "mode=755", "size=64k", "nr_inodes=64")]
    parts += [mount(path, "bind", path, *bind) for path in SYS_PARTS]
    scratch = [mount("/tmp", "tmpfs", "tmpfs", "nosuid", "nodev", "mode=1777", "size=64m", "nr_inodes=16384")]
    return [
        mount("/proc", "proc", "proc", *fenced),
        mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k", "nr_inodes=16384"),
        mount("/dev/pts", "devpts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
        mount("/dev/shm", "tmpfs", "shm", *fenced, "mode=1777", "size=65536k", "nr_inodes=16384"),
        mount("/dev/mqueue", "mqueue", "mqueue", *fenced),
        *(parts if fence.first_id else whole),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", *fenced, "relatime", "ro"),
        *(scratch if fence.hardened else []),
        mount("/etc/resolv.conf", "bind", files.resolv_conf, *bind),
        mount("/etc/hosts", "bind", files.hosts, *bind),
        *(mount(path, "bind", directory, *bind) for directory, path in files.volumes),
    ]
