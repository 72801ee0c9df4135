"""Which system calls an instance may make."""

import ctypes

import pytest

from nodeagent import seccomp

MUST_BE_DENIED = """
    acct add_key bpf clock_adjtime clock_settime create_module delete_module fanotify_init finit_module fsconfig fsmount
    fsopen fspick get_kernel_syms init_module io_uring_enter io_uring_register io_uring_setup ioperm iopl kcmp
    kexec_file_load kexec_load keyctl lookup_dcookie migrate_pages mount mount_setattr move_mount move_pages nfsservctl
    open_by_handle_at open_tree perf_event_open pidfd_getfd pivot_root query_module quotactl quotactl_fd reboot
    request_key sched_setattr setdomainname sethostname setns settimeofday stime swapoff swapon sysfs _sysctl syslog umount
    umount2 unshare uselib userfaultfd ustat vhangup vm86 vm86old
"""
MUST_BE_ALLOWED = """
    accept4 access arch_prctl bind brk capset chdir chmod chown clock_gettime clock_nanosleep close close_range connect
    copy_file_range dup2 dup3 epoll_create1 epoll_ctl epoll_pwait eventfd2 execve exit exit_group faccessat2 fchownat
    fcntl flock fork fstat fsync futex getcwd getdents64 getpid getrandom getsockopt inotify_add_watch ioctl kill listen
    lseek madvise membarrier memfd_create mkdirat mmap mprotect mremap munmap nanosleep newfstatat openat openat2
    pidfd_open pipe2 poll ppoll prctl pread64 prlimit64 pselect6 pwritev2 read readlink recvmsg rename renameat2 rseq
    rt_sigaction rt_sigprocmask rt_sigreturn sched_getaffinity sched_yield seccomp select sendfile sendmsg
    set_robust_list set_tid_address setgid setgroups setsid setsockopt setuid shmget shutdown sigaltstack socketpair
    splice statx symlink sysinfo tgkill timerfd_create umask uname unlink utimensat vfork wait4 waitid write writev
"""


def decide(call: str, *arguments: int) -> tuple[str, int]:
    """What the profile does with a call: (action, errno)."""
    profile = seccomp.profile("x86_64")
    compare = {
        "SCMP_CMP_EQ": lambda got, rule: got == rule["value"],
        "SCMP_CMP_LT": lambda got, rule: got < rule["value"],
        "SCMP_CMP_GT": lambda got, rule: got > rule["value"],
        "SCMP_CMP_MASKED_EQ": lambda got, rule: got & rule["value"] == rule["valueTwo"],
    }
    for rule in profile["syscalls"]:
        if call in rule["names"] and all(compare[arg["op"]](arguments[arg["index"]], arg) for arg in rule.get("args", [])):
            return rule["action"], rule.get("errnoRet", 0)
    return profile["defaultAction"], profile["defaultErrnoRet"]


@pytest.mark.parametrize("call", MUST_BE_DENIED.split())
def test_what_reaches_the_machine_is_denied(call: str) -> None:
    assert decide(call) == ("SCMP_ACT_ERRNO", seccomp.EPERM)


@pytest.mark.parametrize("call", MUST_BE_ALLOWED.split())
def test_what_programs_live_on_is_allowed(call: str) -> None:
    assert decide(call) == ("SCMP_ACT_ALLOW", 0)


@pytest.mark.parametrize("flag", [0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000])
def test_clone_makes_threads_but_no_namespaces(flag: int) -> None:
    assert decide("clone", 0x3D0F00) == ("SCMP_ACT_ALLOW", 0)
    assert decide("clone", 0x3D0F00 | flag) == ("SCMP_ACT_ERRNO", seccomp.EPERM)


def test_clone3_is_said_not_to_exist() -> None:
    assert decide("clone3") == ("SCMP_ACT_ERRNO", seccomp.ENOSYS)


def test_sockets_of_two_families_are_denied_and_all_others_allowed() -> None:
    denied = {family for family in range(64) if decide("socket", family)[0] != "SCMP_ACT_ALLOW"}
    assert denied == {38, 40}


def test_only_harmless_personalities_are_allowed() -> None:
    allowed = {
        persona for persona in (0, 8, 0x20000, 0x20008, 0xFFFFFFFF, 0x40000, 0x400000) if decide("personality", persona)[1] == 0
    }
    assert allowed == {0, 8, 0x20000, 0x20008, 0xFFFFFFFF}


def test_no_name_is_misspelt() -> None:
    newer_than_debian_12 = {"mseal", "cachestat", "fchmodat2", "map_shadow_stack", "futex_wait", "futex_wake", "futex_requeue"}
    library = ctypes.CDLL("libseccomp.so.2")
    unknown = {name for name in seccomp.ALLOWED if library.seccomp_syscall_resolve_name(name.encode()) == -1}
    assert unknown <= newer_than_debian_12
    assert len(set(seccomp.ALLOWED)) == len(seccomp.ALLOWED)
