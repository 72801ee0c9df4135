"""A probe program runs as an instance, under each runtime by itself: what it cannot do, and what the runtime contract promises it."""

import dataclasses
import json
import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nodeagent import cgroups, ocispec, resolv, rootfs
from nodeagent.images.manifest import ImageConfig
from nodeagent.network import links
from nodeagent.ocispec import Files, HostFacts
from nodeagent.profiles import Fence
from nodeagent.userdb import RootfsView, resolve
from store.model import GVISOR, Revision
from tests.integration.netns_world import in_namespace

pytestmark = pytest.mark.real

PROBE = Path(__file__).with_name("sandbox_probe.py")
PARENT = f"/ebb-sandbox-{os.getpid()}"
PRIVILEGED = """
    unshare user, unshare mount, unshare net, unshare pid, mount, umount2, setns, keyctl, add_key, bpf,
    perf_event_open, io_uring_setup, userfaultfd, pivot_root, kexec_load, init_module, open_by_handle_at,
    fsopen, mount_setattr, swapon, settimeofday, sethostname, iopl, quotactl, acct, syslog, kcmp, pidfd_getfd,
    clone with a user namespace, personality without address randomisation, raw socket, packet socket, vsock,
    crypto socket, device node, raise the limit of open files
"""
PRIVILEGED_NAMES = [name.strip() for name in PRIVILEGED.split(",")]
FIRST_ID = 0x7000_0000
GVISOR_FLAGS = ["--platform=ptrace", "--network=host", "--oci-seccomp"]
ON_THE_KERNEL = pytest.mark.parametrize("sandbox", ["runc", "crun"], indirect=True)
"""gVisor shows no cgroups inside; what bounds all of its processes together is the sandbox's cgroup outside."""
READ_ONLY = ["write /proc/sys", "write /sys", "make a cgroup"]


@dataclasses.dataclass(frozen=True)
class Inside:
    """A namespace by path."""

    ns_path: str


@dataclasses.dataclass(frozen=True)
class Sandbox:
    """Runs one container of a given runtime in a bundle, on the machine's own programs, mounted read-only."""

    bundle: Path
    runtime: str
    namespace: int

    @property
    def gvisor(self) -> bool:
        return self.runtime == "runsc"

    def run(self, user: str = "", image: ImageConfig = ImageConfig(), **fields: Any) -> subprocess.CompletedProcess[str]:  # noqa: B008
        own: dict[str, Any] = {"project": "default", "name": "probe-00001", "service": "probe", "image": "x", "pids_limit": 32}
        own["runtime"] = GVISOR if self.gvisor else ""
        revision = Revision(**{**own, "memory_limit_bytes": 64 << 20, "cpu_limit_m": 500, **fields})
        view = RootfsView([str(self.bundle / "rootfs")])
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        spec = ocispec.build(
            revision,
            image,
            Inside(f"/proc/{os.getpid()}/fd/{self.namespace}"),
            "probe-00001-abcde",
            files=Files(str(self.bundle / "resolv.conf"), str(self.bundle / "hosts")),
            user=resolve(user, view.read("etc/passwd"), view.read("etc/group")),
            cgroup=f"{PARENT}/probe-00001-abcde",
            host=HostFacts(nofile_hard=min(hard, 4096), swap_limit=cgroups.swap_limit(cgroups.detect()), cpu_m=16_000),
            fence=Fence(0 if self.gvisor else FIRST_ID),
        )
        spec["mounts"].append({"destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro"]})
        (self.bundle / "config.json").write_text(json.dumps(spec))
        program = " ".join([f'"{self.runtime}"', *(GVISOR_FLAGS if self.gvisor else [])])
        command = f'{program} --root "{self.bundle}/state" run --bundle "{self.bundle}" probe-{os.getpid()}'
        if self.runtime == "crun" and cgroups.detect() is cgroups.Mode.HYBRID:
            command = f"umount /sys/fs/cgroup/unified && {command}"  # crun refuses the mixture
        argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", command]
        return subprocess.run(argv, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)


@pytest.fixture(params=["runc", "crun", "runsc"])
def sandbox(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Sandbox]:
    inner = tmp_path / "rootfs"
    for name in ("etc", "usr", "app"):
        (inner / name).mkdir(parents=True)
    for name in ("bin", "lib", "lib64"):
        (inner / name).symlink_to(f"usr/{name}")
    (inner / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n")
    (inner / "etc/group").write_text("root:x:0:\nvideo:x:44:app\n")
    shutil.copy(PROBE, inner / "app/probe.py")
    rootfs.furnish(str(inner))
    (tmp_path / "resolv.conf").write_text(resolv.render("", "192.0.2.53"))
    (tmp_path / "hosts").write_text(resolv.hosts("probe-00001-abcde", "10.231.0.9"))
    for directory in (tmp_path, *tmp_path.parents):
        if directory != Path("/tmp"):
            directory.chmod(directory.stat().st_mode | 0o011)
    if request.param != "runsc":
        subprocess.run(["chown", "-hR", f"{FIRST_ID}:{FIRST_ID}", inner], check=True, timeout=20)
    namespace = in_namespace(None, links.open_own_namespace)
    try:
        yield Sandbox(tmp_path, request.param, namespace)
    finally:
        os.close(namespace)
        cgroups.remove(cgroups.detect(), PARENT)


def probe(sandbox: Sandbox, **fields: Any) -> dict[str, Any]:
    done = sandbox.run(command=["/usr/bin/python3", "/app/probe.py"], **fields)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_root_in_an_instance_can_do_nothing_to_the_machine(sandbox: Sandbox) -> None:
    attempts = probe(sandbox)["attempts"]
    wanted = dict.fromkeys(PRIVILEGED_NAMES, "EPERM") | dict.fromkeys(READ_ONLY, "EROFS") | {"clone3": "ENOSYS"}
    if sandbox.gvisor:
        wanted |= {"raw socket": "EAFNOSUPPORT", "packet socket": "EAFNOSUPPORT", "clone3": "EPERM", "write /proc/sys": "EPERM"}
        wanted["device node"] = "ALLOWED"  # in gVisor's own kernel, which has no such device
    assert attempts.pop("write /proc/sysrq-trigger") in ("EROFS", "ENOENT", "EPERM")  # not every kernel has it
    assert attempts == wanted


def test_a_user_by_name_can_do_even_less(sandbox: Sandbox) -> None:
    found = probe(sandbox, user="app")
    uid, gid, groups = found["sees"]["ids"]
    assert (uid, gid, set(groups) - {1001}) == (1000, 1001, {44})
    assert found["sees"]["env"]["HOME"] == "/home/app"
    if sandbox.gvisor:
        del found["attempts"]["device node"]  # in gVisor's own kernel, which has no such device
    assert "ALLOWED" not in found["attempts"].values()
    assert found["sees"]["status"]["CapEff"] == "0" * 16


def test_the_runtime_contract_holds(sandbox: Sandbox) -> None:
    sees = probe(sandbox, env=[("GREETING", "hi $(K_SERVICE)")], working_dir="/app", port=9000)["sees"]
    devices = sees["devices"]
    for name in ("full", "null", "random", "tty", "urandom", "zero"):
        assert devices[name] == "crw-rw-rw-"
    assert "ptmx" in devices
    assert "console" not in devices
    assert {name: sees["links"][name] for name in ("fd", "stdin", "stdout", "stderr")} == {
        "fd": "/proc/self/fd",
        "stdin": "/proc/self/fd/0",
        "stdout": "/proc/self/fd/1",
        "stderr": "/proc/self/fd/2",
    }
    assert sees["tmp"] == "drwxrwxrwt"
    assert (sees["tmp writable"], sees["null writable"], sees["random"]) == ("ALLOWED", "ALLOWED", 4)
    assert sees["resolv.conf"] == ["-rw-r--r--", "nameserver 192.0.2.53"]
    assert "10.231.0.9\tprobe-00001-abcde" in sees["hosts"]
    assert (sees["stdin"], sees["pid"], sees["cwd"]) == ("", 1, "/app")
    assert sees["hostname"] == "probe-00001-abcde"
    wanted = {
        "PORT": "9000",
        "K_SERVICE": "probe",
        "K_REVISION": "probe-00001",
        "K_CONFIGURATION": "probe",
        "GREETING": "hi probe",
    }
    assert {name: sees["env"].get(name) for name in wanted} == wanted


@ON_THE_KERNEL
def test_an_instance_sees_its_own_limits_and_nothing_of_the_machine(sandbox: Sandbox) -> None:
    sees = probe(sandbox)["sees"]
    assert sees["memory.max"] == str(64 << 20)
    assert sees["cpu.max"] == "50000 100000"
    assert sees["pids.max"] == "32"
    assert sees["oom_score_adj"] == str(ocispec.OOM_SCORE)
    assert (sees["status"]["NoNewPrivs"], sees["status"]["Seccomp"]) == ("1", "2")
    assert int(sees["status"]["CapBnd"], 16).bit_count() == len(ocispec.CAPABILITIES)
    assert sees["interfaces"] == ["lo"]
    assert (sees["keys"], sees["run"]) == ("", [])


@ON_THE_KERNEL
def test_a_fork_bomb_stays_within_its_limit(sandbox: Sandbox) -> None:
    program = """
import os, errno
made, (never, _) = 0, os.pipe()
try:
    while made < 500:
        if os.fork() == 0:
            os.read(never, 1)
        made += 1
except OSError as error:
    print(made, errno.errorcode[error.errno])
"""
    done = sandbox.run(command=["/usr/bin/python3", "-c", program], memory_limit_bytes=512 << 20)
    assert done.stdout == "31 EAGAIN\n", done.stderr


def test_who_takes_too_much_memory_is_killed_alone(sandbox: Sandbox) -> None:
    done = sandbox.run(command=["/usr/bin/python3", "-c", "x = bytearray(200 << 20); print(len(x))"])
    assert (done.returncode, done.stdout) == (137, "")


@ON_THE_KERNEL
def test_who_opens_sockets_without_end_pays_for_them_out_of_its_own_memory(sandbox: Sandbox) -> None:
    """Sockets with all that they hold count to the instance: it dies at its limit before the limit of open files stops it."""
    program = """
import socket
held = []
while True:
    one, other = socket.socketpair()
    one.setblocking(False)
    held += [one, other]
    try:
        while True:
            one.send(bytes(65536))
    except BlockingIOError:
        pass
    print(len(held), flush=True)
"""
    done = sandbox.run(command=["/usr/bin/python3", "-c", program])
    assert done.returncode == 137, done.stderr
    assert 20 < int(done.stdout.split()[-1]) < 4000


def test_a_command_that_does_not_exist_is_said_so(sandbox: Sandbox) -> None:
    done = sandbox.run(command=["/no/such/program"])
    assert done.returncode != 0
    assert "/no/such/program" in done.stderr


def test_links_in_the_places_of_mounts_do_not_lead_out(sandbox: Sandbox, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "rootfs/etc/resolv.conf").symlink_to(f"../../../../../../../..{victim}")
    done = sandbox.run(command=["/usr/bin/python3", "-c", "print(open('/etc/hosts').read())"])
    assert victim.read_text() == "mine"
    assert done.returncode != 0 or "probe-00001-abcde" in done.stdout


ESCAPE = """
import os
up = "../" * 40
for name in ({canary!r}, "/lost+found", "/boot"):
    for way in (up + name.lstrip("/"), name):
        if os.path.exists(way):
            print("outside by", way, os.getcwd())
"""


def escapes(sandbox: Sandbox, canary: Path, **fields: Any) -> str:
    """What of the machine a process finds from where it was started; refused starts find nothing."""
    canary.write_text("mine")
    program = ESCAPE.format(canary=str(canary))
    done = sandbox.run(command=["/usr/bin/python3", "-c", program], **fields)
    assert canary.read_text() == "mine"
    return done.stdout


@pytest.mark.parametrize("number", range(6, 10))
def test_a_working_directory_that_a_link_leads_to_a_runtimes_descriptor_is_not_outside(
    sandbox: Sandbox, tmp_path: Path, number: int
) -> None:
    (tmp_path / "rootfs/w").symlink_to("/proc/self/fd")
    (tmp_path / "rootfs/v").symlink_to(f"/proc/self/fd/{number}")
    assert escapes(sandbox, tmp_path / "canary", working_dir=f"/w/{number}") == ""
    assert escapes(sandbox, tmp_path / "canary", working_dir="/v") == ""


@pytest.mark.parametrize("place", ["dev", "dev/console", "dev/null", "dev/pts", "proc", "sys", "sys/fs/cgroup", "tmp", "etc"])
def test_links_in_an_image_where_the_runtime_mounts_reach_nothing_of_the_machine(
    sandbox: Sandbox, tmp_path: Path, place: str
) -> None:
    link = tmp_path / "rootfs" / place
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.is_dir():
        shutil.rmtree(link)
    link.symlink_to(f"../../../../../../../..{tmp_path}/victim")
    (tmp_path / "victim").mkdir()
    assert escapes(sandbox, tmp_path / "canary") == ""
    assert list((tmp_path / "victim").iterdir()) == []
