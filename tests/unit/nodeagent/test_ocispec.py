"""What containerd is told about an instance."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nodeagent import ocispec, seccomp
from nodeagent.expand import expand
from nodeagent.ocispec import BadSpec, Files, HostFacts
from nodeagent.profiles import Fence
from nodeagent.uids import FIRST_ID
from nodeagent.userdb import ResolvedUser
from store.model import Revision

GOLDEN = Path(__file__).with_name("ocispec_golden.json")


ROOT = ResolvedUser()


@dataclass(frozen=True)
class Image:
    entrypoint: tuple[str, ...] = ("/entry",)
    cmd: tuple[str, ...] = ("one", "two")
    env: tuple[tuple[str, str], ...] = (("LANG", "C"), ("PORT", "1"))
    working_dir: str = ""
    user: str = ""


@dataclass(frozen=True)
class Net:
    ns_path: str = "/proc/7/fd/9"


def revision(**fields: Any) -> Revision:
    return Revision(**{"project": "default", "name": "hello-00001", "service": "hello", "image": "r/h@sha256:0", **fields})


def build(rev: Revision, image: Image = Image(), user: ResolvedUser = ROOT, **more: Any) -> dict[str, Any]:
    files = Files("/run/r/resolv.conf", "/run/r/hosts")
    return ocispec.build(
        rev, image, Net(), "hello-00001-x7k2q", files=files, user=user, cgroup="/ebb-t/hello-00001-x7k2q", **more
    )


def test_the_whole_spec_is_as_recorded() -> None:
    rev = revision(
        configuration="hello",
        args=["--port", "$(PORT)"],
        env=[("GREETING", "hi")],
        cpu_request_m=250,
        cpu_limit_m=500,
        memory_limit_bytes=128 << 20,
    )
    user = ResolvedUser(1000, 1001, (10, 44), "/home/app")
    spec = json.loads(json.dumps(build(rev, user=user, shim_group="g1", host=HostFacts(cpu_m=2000), fence=Fence(FIRST_ID))))
    del spec["linux"]["seccomp"]  # has tests of its own
    assert spec == json.loads(GOLDEN.read_text())


def test_a_compiled_filter_takes_the_profiles_place_but_for_another_kernel() -> None:
    host = HostFacts(filter="AAAA")
    spec = build(revision(), host=host, shim_group="g1")
    assert spec["annotations"] == {ocispec.SHIM_GROUP: "g1", ocispec.FILTER: "AAAA"}
    assert "seccomp" not in spec["linux"]
    sandboxed = build(revision(runtime="gvisor"), host=host)
    assert sandboxed["linux"]["seccomp"] == seccomp.profile()
    assert "annotations" not in sandboxed


@pytest.mark.parametrize(
    ("command", "args", "want"),
    [
        ([], [], ["/entry", "one", "two"]),
        ([], ["a"], ["/entry", "a"]),
        (["/own"], [], ["/own"]),
        (["/own"], ["a"], ["/own", "a"]),
    ],
)
def test_command_replaces_the_entrypoint_and_args_the_images_arguments(
    command: list[str], args: list[str], want: list[str]
) -> None:
    assert build(revision(command=command, args=args))["process"]["args"] == want


def test_an_image_that_says_nothing_to_run_is_refused_with_the_cure() -> None:
    with pytest.raises(BadSpec, match=r"no ENTRYPOINT, no CMD.*set `command`"):
        build(revision(image_name="empty"), Image((), ()))


def test_what_the_platform_promises_wins_over_image_and_user() -> None:
    rev = revision(port=9000, env=[("PORT", "2"), ("K_SERVICE", "other"), ("URL", "http://x:$(PORT)/$$(PORT)")])
    env = build(rev)["process"]["env"]
    assert {"PORT=9000", "K_SERVICE=hello", "K_REVISION=hello-00001", "K_CONFIGURATION=hello", "LANG=C"} <= set(env)
    assert "URL=http://x:9000/$(PORT)" in env
    assert len({item.split("=")[0] for item in env}) == len(env)
    assert f"PATH={ocispec.DEFAULT_PATH}" in env


@pytest.mark.parametrize(
    "path", ["/proc/self/fd/7", "/../proc", "//proc/1/cwd", "/sys", "/dev/fd/3", "relative", "a/../../proc"]
)
def test_a_working_directory_that_could_lead_out_is_refused(path: str) -> None:
    with pytest.raises(BadSpec, match="working directory"):
        build(revision(), Image(working_dir=path))


def test_the_revisions_working_directory_wins_and_the_root_is_the_default() -> None:
    assert build(revision(working_dir="/b"), Image(working_dir="/a"))["process"]["cwd"] == "/b"
    assert build(revision(), Image(working_dir="/a/"))["process"]["cwd"] == "/a"
    assert build(revision())["process"]["cwd"] == "/"


def test_a_limit_at_or_above_the_whole_machine_needs_no_quota() -> None:
    assert "quota" not in ocispec.resources(revision(cpu_limit_m=2000), HostFacts(cpu_m=2000))["cpu"]
    assert ocispec.resources(revision(cpu_limit_m=5), HostFacts())["cpu"]["quota"] == 1000


def test_swap_is_off_where_it_can_be_limited() -> None:
    rev = revision(memory_limit_bytes=1 << 28)
    assert ocispec.resources(rev, HostFacts())["memory"] == {"limit": 1 << 28, "swap": 1 << 28}
    assert ocispec.resources(rev, HostFacts(swap_limit=False))["memory"] == {"limit": 1 << 28}


def test_no_more_open_files_are_asked_than_the_runtime_may_grant() -> None:
    assert build(revision(), host=HostFacts(nofile_hard=4096))["process"]["rlimits"][0]["hard"] == 4096


def test_an_instance_has_podmans_eleven_capabilities_at_most_and_gets_no_new_ones() -> None:
    process = build(revision())["process"]
    assert process["noNewPrivileges"]
    assert not process["terminal"]
    for forbidden in ("CAP_SYS_ADMIN", "CAP_NET_RAW", "CAP_MKNOD", "CAP_SYS_PTRACE", "CAP_NET_ADMIN", "CAP_AUDIT_WRITE"):
        assert all(forbidden not in held for held in process["capabilities"].values())
    assert all(len(held) == 11 for held in process["capabilities"].values())


@pytest.mark.parametrize("bad", [("", "x"), ("A=B", "x"), ("A", "x\0y")])
def test_a_variable_that_cannot_be_is_refused(bad: tuple[str, str]) -> None:
    with pytest.raises(BadSpec, match="variable"):
        build(revision(env=[bad]))


@pytest.mark.parametrize(
    ("text", "want"),
    [("$(A)b", "1b"), ("$$(A)", "$(A)"), ("$(NO)", "$(NO)"), ("$A ${A}", "$A ${A}"), ("$$$$", "$$"), ("$(A)$(B)", "1$(A)")],
)
def test_references_expand_once_as_kubernetes_does(text: str, want: str) -> None:
    assert expand(text, {"A": "1", "B": "$(A)"}) == want
