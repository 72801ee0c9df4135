"""Runs inside an instance, by nothing but the standard library: tries what an attacker would, and looks at what apps rely on.

Prints one JSON object: {"attempts": {name: "ALLOWED" | errno's name}, "sees": {…}}.
"""

import ctypes
import errno
import json
import os
import socket
import stat
import sys

libc = ctypes.CDLL(None, use_errno=True)
NUMBERS = {  # x86_64
    "mount": 165, "umount2": 166, "unshare": 272, "setns": 308, "keyctl": 250, "add_key": 248, "bpf": 321, "perf_event_open": 298,
    "io_uring_setup": 425, "userfaultfd": 323, "pivot_root": 155, "kexec_load": 246, "init_module": 175, "open_by_handle_at": 304,
    "clone3": 435, "fsopen": 430, "mount_setattr": 442, "swapon": 167, "reboot": 169, "settimeofday": 164, "sethostname": 170,
    "iopl": 172, "quotactl": 179, "acct": 163, "syslog": 103, "personality": 135, "kcmp": 312, "pidfd_getfd": 438,
}  # fmt: skip


def call(name: str, *arguments: object) -> str:
    ctypes.set_errno(0)
    result = libc.syscall(NUMBERS[name], *arguments)
    return "ALLOWED" if result >= 0 else errno.errorcode[ctypes.get_errno()]


def attempt(work: object) -> str:
    try:
        work()  # type: ignore[operator]
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "ALLOWED"


def write(path: str, text: str = "1") -> None:
    with open(path, "w") as file:
        file.write(text)


def attempts() -> dict[str, str]:
    tried = {f"unshare {name}": call("unshare", flag) for name, flag in NAMESPACES.items()}
    tried |= {
        name: call(name, 0, 0, 0, 0, 0)
        for name in NUMBERS
        if name not in {"unshare", "mount", "personality", "reboot", "umount2"}
    }
    tried["mount"] = call("mount", b"tmpfs", b"/tmp", b"tmpfs", 0, 0)
    tried["umount2"] = call("umount2", b"/proc", 2)
    tried["clone with a user namespace"] = clone(0x10000000 | 17)
    tried["personality without address randomisation"] = call("personality", 0x40000)
    tried["raw socket"] = attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
    tried["packet socket"] = attempt(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3))
    tried["vsock"] = attempt(lambda: socket.socket(40, socket.SOCK_STREAM))
    tried["crypto socket"] = attempt(lambda: socket.socket(38, socket.SOCK_SEQPACKET))
    tried["device node"] = attempt(lambda: os.mknod("/tmp/disk", 0o600 | stat.S_IFBLK, os.makedev(8, 0)))
    tried["write /proc/sys"] = attempt(lambda: write("/proc/sys/kernel/core_pattern", "|/x"))
    tried["write /proc/sysrq-trigger"] = attempt(lambda: write("/proc/sysrq-trigger", "x"))
    tried["write /sys"] = attempt(lambda: os.mkdir("/sys/x"))
    tried["make a cgroup"] = attempt(lambda: os.mkdir(cgroup_root() + "/x"))
    tried["raise the limit of open files"] = attempt(raise_nofile)
    return tried


NAMESPACES = {"user": 0x10000000, "mount": 0x20000, "net": 0x40000000, "pid": 0x20000000}


def clone(flags: int) -> str:
    ctypes.set_errno(0)
    pid = libc.syscall(56, flags, 0, 0, 0, 0)
    if pid == 0:
        os._exit(0)
    if pid > 0:
        os.waitpid(pid, 0)
        return "ALLOWED"
    return errno.errorcode[ctypes.get_errno()]


def cgroup_root() -> str:
    return "/sys/fs/cgroup/memory" if os.path.isdir("/sys/fs/cgroup/memory") else "/sys/fs/cgroup"


def raise_nofile() -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard + 1))
    except ValueError:
        raise OSError(errno.EPERM, "refused") from None


def read(*paths: str) -> str:
    for path in paths:
        try:
            with open(path) as file:
                return file.read().strip()
        except OSError:
            continue
    return ""


def sees() -> dict[str, object]:
    root = "/sys/fs/cgroup"
    return {
        "devices": {name: stat.filemode(os.lstat(f"/dev/{name}").st_mode) for name in sorted(os.listdir("/dev"))},
        "links": {name: os.readlink(f"/dev/{name}") for name in os.listdir("/dev") if os.path.islink(f"/dev/{name}")},
        "tmp": stat.filemode(os.stat("/tmp").st_mode),
        "tmp writable": attempt(lambda: write("/tmp/mine")),
        "null writable": attempt(lambda: write("/dev/null")),
        "random": len(open("/dev/urandom", "rb").read(4)),
        "resolv.conf": [stat.filemode(os.stat("/etc/resolv.conf").st_mode), read("/etc/resolv.conf")],
        "hosts": read("/etc/hosts"),
        "stdin": sys.stdin.read(),
        "pid": os.getpid(),
        "hostname": socket.gethostname(),
        "ids": [os.getuid(), os.getgid(), sorted(os.getgroups())],
        "cwd": os.getcwd(),
        "env": dict(os.environ),
        "status": {line.split(":")[0]: line.split(":")[1].strip() for line in read("/proc/self/status").splitlines()},
        "keys": read("/proc/keys"),
        "memory.max": read(f"{root}/memory.max", f"{root}/memory/memory.limit_in_bytes"),
        "cpu.max": read(f"{root}/cpu.max")
        or read(f"{root}/cpu/cpu.cfs_quota_us") + " " + read(f"{root}/cpu/cpu.cfs_period_us"),
        "pids.max": read(f"{root}/pids.max", f"{root}/pids/pids.max"),
        "oom_score_adj": read("/proc/self/oom_score_adj"),
        "interfaces": sorted(name for _, name in socket.if_nameindex()),
        "run": sorted(os.listdir("/run")) if os.path.isdir("/run") else [],
    }


if __name__ == "__main__":
    print(json.dumps({"sees": sees(), "attempts": attempts()}))
