"""Runs inside an instance, by nothing but the standard library: tries what an attacker would, and looks at what apps rely on.

Prints one JSON object: {"attempts": {name: "ALLOWED" | errno's name}, "more": {…}, "sees": {…}}. With PROBE_SERVE set it answers it on
$PORT.
"""

import ctypes
import errno
import json
import os
import socket
import stat
import struct
import sys

libc = ctypes.CDLL(None, use_errno=True)
NUMBERS = {  # x86_64
    "mount": 165, "umount2": 166, "unshare": 272, "setns": 308, "keyctl": 250, "add_key": 248, "bpf": 321, "perf_event_open": 298,
    "io_uring_setup": 425, "userfaultfd": 323, "pivot_root": 155, "kexec_load": 246, "init_module": 175, "open_by_handle_at": 304,
    "clone3": 435, "fsopen": 430, "mount_setattr": 442, "swapon": 167, "reboot": 169, "settimeofday": 164, "sethostname": 170,
    "iopl": 172, "quotactl": 179, "acct": 163, "syslog": 103, "personality": 135, "kcmp": 312, "pidfd_getfd": 438,
    "ioperm": 173, "finit_module": 313, "delete_module": 176, "kexec_file_load": 320, "clock_settime": 227, "fanotify_init": 300,
    "move_pages": 279, "lookup_dcookie": 212, "vhangup": 153, "request_key": 249, "io_uring_enter": 426, "open_tree": 428,
    "move_mount": 429, "fsmount": 432, "process_madvise": 440, "setdomainname": 171, "ustat": 136, "sysfs": 139, "uselib": 134,
    "sched_setattr": 314,
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
        if name not in {"unshare", "mount", "personality", "reboot", "umount2", "sched_setattr"} | LATER
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


LATER = {
    "ioperm",
    "finit_module",
    "delete_module",
    "kexec_file_load",
    "clock_settime",
    "fanotify_init",
    "move_pages",
    "lookup_dcookie",
    "vhangup",
    "request_key",
    "io_uring_enter",
    "open_tree",
    "move_mount",
    "fsmount",
    "process_madvise",
    "setdomainname",
    "ustat",
    "sysfs",
    "uselib",
}


def more() -> dict[str, str]:
    """What goes beyond single calls: files, other processes, other namespaces, rights that are gained."""
    tried = {f"unshare {name}": call("unshare", flag) for name, flag in MORE_NAMESPACES.items()}
    tried |= {name: call(name, 0, 0, 0, 0, 0) for name in LATER}
    tried["reboot"] = call("reboot", 0, 0, 0, 0)  # with no magic number: who may gets EINVAL
    tried["read kernel memory by /proc/kcore"] = readable("/proc/kcore")
    tried["read the kernel's log"] = attempt(lambda: open("/dev/kmsg", "rb").close())
    tried["read physical memory"] = attempt(lambda: open("/dev/mem", "rb").close())
    tried["read keys of others"] = readable("/proc/keys")
    tried["see interrupts of the machine"] = readable("/proc/interrupts")
    tried["read timers of the machine"] = readable("/proc/timer_list")
    tried["set the program for core dumps"] = attempt(lambda: write("/proc/sys/kernel/core_pattern", "|/x"))
    tried["set a kernel parameter"] = attempt(lambda: write("/proc/sys/vm/overcommit_memory", "1"))
    tried["set a network parameter"] = attempt(lambda: write("/proc/sys/net/ipv4/ip_forward", "1"))
    tried["set a release agent"] = attempt(lambda: write(cgroup_root() + "/release_agent", "/x"))
    tried["mount cgroups anew"] = call("mount", b"cgroup", b"/tmp", b"cgroup", 0, b"memory")
    tried["mount proc anew"] = call("mount", b"proc", b"/tmp", b"proc", 0, 0)
    tried["remount the root"] = call("mount", b"none", b"/", b"none", 32 | 4096, 0)
    tried["raise its own cgroup's limit"] = attempt(lambda: write(own_limit(), "9999999999"))
    tried["leave by chroot"] = leave_by_chroot()
    tried["leave by the root of process 1"] = foreign("/proc/1/root/etc/shadow-of-the-machine")
    tried["gain root by a set-user-id program"] = gain()
    tried["become root"] = attempt(lambda: os.setuid(0)) if os.getuid() else "ALREADY"
    tried["chroot"] = apart(lambda: os.chroot("/tmp"))
    tried["change its user id"] = apart(lambda: os.setuid(12345))
    tried["be a user beyond its ids"] = apart(lambda: os.setuid(65536))
    tried["give a file away"] = attempt(lambda: give_away(1234))
    tried["give a file to an id beyond its own"] = attempt(lambda: give_away(70_000))
    tried["lower its own oom score"] = attempt(lambda: write("/proc/self/oom_score_adj", "-900"))
    tried["run ahead of others"] = attempt(lambda: os.setpriority(os.PRIO_PROCESS, 0, -10))
    tried["run in real time"] = attempt(lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)))
    tried["choose how long its turns at a processor are"] = shorten_turns()
    tried["write to the root"] = attempt(lambda: write("/probe-was-here"))
    tried["write to /usr"] = attempt(lambda: write("/usr/probe-was-here"))
    tried["make a character device"] = attempt(lambda: os.mknod("/tmp/kmsg", 0o600 | stat.S_IFCHR, os.makedev(1, 11)))
    tried["device beyond the standard ones"] = beyond(set(os.listdir("/dev")) - STANDARD)
    tried["block device of the machine"] = beyond({name for name in os.listdir("/dev") if block(name)})
    tried["mount of the machine seen"] = beyond(set(read("/proc/self/mountinfo").split()) & {"/home", "/var", "/root"})
    tried["process of others seen"] = beyond(
        {name for name in os.listdir("/proc") if name.isdecimal() and foreign_process(name)}
    )
    tried["socket of others by name"] = beyond({line for line in read("/proc/net/unix").splitlines()[1:] if "@" in line})
    tried["shared memory of others"] = beyond(set(read("/proc/sysvipc/shm").splitlines()[1:]))
    tried["network interface of others"] = beyond({name for _, name in socket.if_nameindex()} - {"lo", "eth0"})
    tried["socket of containerd"] = beyond({name for name in ("/run/containerd", "/run/ebb") if os.path.exists(name)})
    tried["listen on port 80"] = attempt(lambda: socket.create_server(("0.0.0.0", 80)).close())
    tried["change its own network"] = attempt(change_network)
    return tried


STANDARD = {
    "console",
    "core",
    "fd",
    "full",
    "mqueue",
    "null",
    "ptmx",
    "pts",
    "random",
    "shm",
    "stderr",
    "stdin",
    "stdout",
    "tty",
    "urandom",
    "zero",
}
MORE_NAMESPACES = {"ipc": 0x8000000, "uts": 0x4000000, "cgroup": 0x2000000, "time": 0x80}


def beyond(found: object) -> str:
    return "ALLOWED" if found else "NONE"


def readable(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return "ALLOWED" if file.read(64) else "EMPTY"
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def block(name: str) -> bool:
    return stat.S_ISBLK(os.lstat(f"/dev/{name}").st_mode)


def foreign_process(pid: str) -> bool:
    program = read(f"/proc/{pid}/cmdline").partition("\0")[0]
    return any(word in program for word in ("containerd", "etcd", "nats-server", "systemd"))


def foreign(path: str) -> str:
    """Only the machine's own root would have been left by this path: it is the instance's."""
    same = os.path.exists("/proc/1/root/proc/self/mountinfo") and os.stat("/proc/1/root").st_ino != os.stat("/").st_ino
    return "ALLOWED" if same or os.path.exists(path) else "NONE"


def own_limit() -> str:
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        if os.path.exists(path):
            return path
    return "/sys/fs/cgroup/memory.max"


def apart(work: object) -> str:
    """`work` in a child, whose errno is its exit code."""
    pid = os.fork()
    if pid == 0:
        try:
            work()  # type: ignore[operator]
        except OSError as error:
            os._exit(error.errno or 1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return "ALLOWED" if code == 0 else errno.errorcode.get(code, str(code))


def shorten_turns() -> str:
    """To a tenth of a millisecond: `struct sched_attr` with a `sched_runtime`."""
    return call("sched_setattr", 0, struct.pack("=IIQiIQQQ", 48, 0, 0, 0, 0, 100_000, 0, 0), 0)


def leave_by_chroot() -> str:
    """The old way: a second root below, with a directory above it still open."""

    def work() -> None:
        top = os.open("/", os.O_RDONLY)
        os.makedirs("/tmp/jail", exist_ok=True)
        os.chroot("/tmp/jail")
        os.fchdir(top)
        for _ in range(64):
            os.chdir("..")
        os.chroot(".")
        if not any(os.path.exists(name) for name in ("/run/containerd", "/lost+found", "/proc/1/exe/../boot")):
            raise OSError(errno.ENOENT, "still inside")

    return apart(work)


def gain() -> str:
    """A copy of a program, made set-user-id for who owns it, run as another user (who is root inside can be another)."""

    def work() -> None:
        with open("/usr/bin/id", "rb") as source, open("/tmp/id", "wb") as copy:
            copy.write(source.read())
        os.chmod("/tmp/id", 0o4755)
        if os.getuid() == 0:
            os.setgid(12345)
            os.setuid(12345)
        before = os.getuid()
        out, into = os.pipe()
        if os.fork() == 0:
            os.dup2(into, 1)
            os.execv("/tmp/id", ["id", "-u"])
        os.wait()
        if os.read(out, 16).strip() in (b"", str(before).encode()):
            raise OSError(errno.EPERM, "nothing gained")

    return apart(work)


def give_away(owner: int) -> None:
    write("/tmp/given")
    os.chown("/tmp/given", owner, owner)


def change_network() -> None:
    import fcntl
    import struct

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 0))  # SIOCSIFFLAGS: down


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
    found = json.dumps({"sees": sees(), "attempts": attempts(), "more": more()})
    print(found)
    if "PROBE_SERVE" in os.environ:
        from http.server import BaseHTTPRequestHandler, HTTPServer

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(found.encode())

        HTTPServer(("", int(os.environ["PORT"])), Answer).serve_forever()
