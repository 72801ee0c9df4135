"""The system calls an instance may make. Everything not named here is refused with EPERM, as if it lacked the right.

What is left out lets a container reach what belongs to the whole machine: mounts, namespaces, kernel modules, keys, BPF,
performance counters, io_uring, clocks, swap, raw I/O, other processes' handles. `sched_setattr` would let it choose how long its turns
at a processor are, and with short ones it may interrupt its neighbours each time that it wakes. `clone` may not make namespaces; `clone3`
answers ENOSYS (its flags are behind a pointer that a filter cannot read), on which C libraries fall back to `clone`.

Only the machine's own instruction set is listed: 32-bit programs end with SIGSYS. Names that the machine's libseccomp does not know
are skipped by the runtimes.
"""

from functools import cache
from typing import Any

EPERM, ENOSYS = 1, 38
_NAMESPACE_FLAGS = 0x7E020000
"""CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}."""
_AF_ALG, _AF_VSOCK = 38, 40
_PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)

FILES = """
    access chdir chmod chown chown32 close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2 fadvise64
    fadvise64_64 fallocate fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr
    flistxattr flock fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futimesat
    getcwd getdents getdents64 getxattr inotify_add_watch inotify_init inotify_init1 inotify_rm_watch ioctl lchown lchown32
    lgetxattr link linkat listxattr llistxattr lremovexattr lseek _llseek lsetxattr lstat lstat64 mkdir mkdirat mknod mknodat
    name_to_handle_at newfstatat open openat openat2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead readlink
    readlinkat readv removexattr rename renameat renameat2 rmdir sendfile sendfile64 setxattr splice stat stat64 statfs
    statfs64 statx symlink symlinkat sync sync_file_range sync_file_range2 syncfs tee truncate truncate64 umask unlink
    unlinkat utime utimensat utimensat_time64 utimes vmsplice write writev chroot fanotify_mark
"""
MEMORY = """
    brk cachestat futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake get_mempolicy madvise map_shadow_stack
    mbind membarrier memfd_create memfd_secret mincore mlock mlock2 mlockall mmap mmap2 mprotect mremap mseal msync munlock
    munlockall munmap pkey_alloc pkey_free pkey_mprotect remap_file_pages set_mempolicy set_mempolicy_home_node
"""
PROCESSES = """
    arch_prctl capget capset execve execveat exit exit_group fork get_robust_list get_thread_area getcpu getegid
    getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getitimer getpgid getpgrp getpid getppid getpriority
    getresgid getresgid32 getresuid getresuid32 getrlimit getrusage getsid gettid getuid getuid32 ioprio_get ioprio_set kill
    landlock_add_rule landlock_create_ruleset landlock_restrict_self pause pidfd_open pidfd_send_signal prctl prlimit64
    process_mrelease process_vm_readv process_vm_writev ptrace restart_syscall rseq sched_get_priority_max
    sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval
    sched_rr_get_interval_time64 sched_setaffinity sched_setparam sched_setscheduler sched_yield seccomp
    set_robust_list set_thread_area set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups
    setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid
    setreuid32 setrlimit setsid setuid setuid32 sysinfo tgkill times tkill ugetrlimit uname vfork wait4 waitid waitpid
"""
SIGNALS = """
    alarm rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait
    rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaltstack signal signalfd signalfd4 sigprocmask sigreturn
"""
TIME = """
    clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep clock_nanosleep_time64 gettimeofday
    nanosleep time timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64
    timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64
"""
WAITING = """
    _newselect epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd
    eventfd2 io_cancel io_destroy io_getevents io_pgetevents io_setup io_submit pipe pipe2 poll ppoll ppoll_time64 pselect6
    pselect6_time64 select
"""
NETWORK = """
    accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg recvmmsg_time64 recvmsg send
    sendmmsg sendmsg sendto setsockopt shutdown socketcall socketpair
"""
EXCHANGE = """
    getrandom ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64
    mq_unlink msgctl msgget msgrcv msgsnd semctl semget semop semtimedop semtimedop_time64 shmat shmctl shmdt shmget
"""
ALLOWED: tuple[str, ...] = tuple(
    sorted(" ".join((FILES, MEMORY, PROCESSES, SIGNALS, TIME, WAITING, NETWORK, EXCHANGE)).split())
)

ARCHITECTURES = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64", "riscv64": "SCMP_ARCH_RISCV64"}


@cache
def profile(machine: str = "x86_64") -> dict[str, Any]:
    """The profile as OCI's `linux.seccomp`, for a machine as `uname -m` names it. Shared: do not change what is returned."""
    rules: list[dict[str, Any]] = [
        {"names": list(ALLOWED), "action": "SCMP_ACT_ALLOW"},
        {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [_argument(0, _NAMESPACE_FLAGS, "SCMP_CMP_MASKED_EQ")]},
        {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS},
    ]
    rules += [_one("personality", _argument(0, persona, "SCMP_CMP_EQ")) for persona in _PERSONALITIES]
    # Two forbidden families as three allowed ranges: rules of one call add up, so "not 38" and "not 40" would allow both.
    rules += [
        _one("socket", _argument(0, _AF_ALG, "SCMP_CMP_LT")),
        _one("socket", _argument(0, _AF_ALG + 1, "SCMP_CMP_EQ")),
        _one("socket", _argument(0, _AF_VSOCK, "SCMP_CMP_GT")),
    ]
    found: dict[str, Any] = {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": EPERM, "syscalls": rules}
    if machine in ARCHITECTURES:
        found["architectures"] = [ARCHITECTURES[machine]]
    return found


def _one(name: str, argument: dict[str, Any]) -> dict[str, Any]:
    return {"names": [name], "action": "SCMP_ACT_ALLOW", "args": [argument]}


def _argument(index: int, value: int, op: str) -> dict[str, Any]:
    # A masked comparison takes the mask in `value` and what must be left in `valueTwo`.
    return {"index": index, "value": value, "valueTwo": 0, "op": op}
