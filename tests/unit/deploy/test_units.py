"""The systemd units: all but the node agent run as nobody who is known, and can do little."""

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
UNITS = ROOT / "deploy/systemd"
FENCED = {"ebb-autoscaler": "autoscaler", "ebb-gate": "store.gate", "ebb-ingress": "ingress", "ebb-registry": "registry"}
EXPOSURE_MOST = 2.0
"""Of systemd's ten; what a service without any of it has is 9.6."""
WANTED = {
    "DynamicUser": "yes",
    "NoNewPrivileges": "yes",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "ProtectProc": "invisible",
    "ProtectClock": "yes",
    "ProtectHostname": "yes",
    "ProtectKernelLogs": "yes",
    "ProtectKernelModules": "yes",
    "ProtectKernelTunables": "yes",
    "ProtectControlGroups": "yes",
    "PrivateTmp": "yes",
    "PrivateDevices": "yes",
    "RestrictAddressFamilies": "AF_UNIX AF_INET AF_INET6 AF_NETLINK",
    "RestrictNamespaces": "yes",
    "RestrictRealtime": "yes",
    "RestrictSUIDSGID": "yes",
    "LockPersonality": "yes",
    "MemoryDenyWriteExecute": "yes",
    "SystemCallArchitectures": "native",
    "UMask": "0077",
}


def lines(unit: str) -> list[tuple[str, str]]:
    """The assignments of a unit, in order: some may be there twice, so that configparser would lose one."""
    text = (UNITS / f"{unit}.service").read_text()
    said = [line.partition("=") for line in text.splitlines() if line and line[0] not in "#["]
    return [(name, value) for name, _, value in said]


def test_each_unit_is_the_node_agents_or_fenced() -> None:
    assert {path.stem for path in UNITS.glob("*.service")} == {"ebb-nodeagent", *FENCED}


@pytest.mark.parametrize("unit", FENCED)
def test_a_unit_runs_as_nobody_with_nothing_it_does_not_need(unit: str) -> None:
    said = lines(unit)
    assert {name: value for name, value in said if name in WANTED} == WANTED
    more = ["sched_setattr"] if unit == "ebb-ingress" else []
    assert [value for name, value in said if name == "SystemCallFilter"] == [
        "@system-service",
        "~@privileged @resources",
        *more,
    ]
    assert not {"User", "Group", "SupplementaryGroups"} & dict(said).keys()
    assert f"-m {FENCED[unit]} " in dict(said)["ExecStart"]


@pytest.mark.parametrize("unit", FENCED)
def test_no_unit_but_the_front_doors_has_a_capability(unit: str) -> None:
    own = "CAP_NET_BIND_SERVICE" if unit == "ebb-ingress" else ""
    for name in ("CapabilityBoundingSet", "AmbientCapabilities"):
        assert [value for found, value in lines(unit) if found == name] == [own]


@pytest.mark.parametrize("unit", FENCED)
def test_the_machines_boot_id_can_be_read(unit: str) -> None:
    assert "ProcSubset" not in dict(lines(unit)), "it hides /proc/sys/kernel/random/boot_id, by which who lives is told"


@pytest.mark.parametrize("unit", ["ebb-nodeagent", *FENCED])
def test_systemd_finds_little_exposed(unit: str) -> None:
    path = str(UNITS / f"{unit}.service")
    asked = ["systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE_MOST * 10:.0f}", path]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=False)
    assert "Overall exposure level" in done.stdout, done.stderr
    # The node agent is what the others would be without: the measure tells them apart.
    assert (done.returncode == 0) == (unit in FENCED), done.stdout


@pytest.mark.parametrize("unit", ["ebb-nodeagent", *FENCED])
def test_systemd_understands_each_line(unit: str) -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(UNITS / f"{unit}.service")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    wrong = [line for line in done.stderr.splitlines() if unit in line and "is not executable" not in line]
    assert not wrong


@pytest.mark.parametrize("module", FENCED.values())
def test_each_program_loads_where_no_memory_is_written_and_executed(module: str) -> None:
    """PR_SET_MDWE is the kernel's own form of MemoryDenyWriteExecute."""
    begin = "import ctypes, runpy, sys; assert ctypes.CDLL(None).prctl(65, 1, 0, 0, 0) == 0; sys.argv = ['x', '--nonsense=1']; "
    done = subprocess.run(
        [sys.executable, "-c", f"{begin}runpy.run_module({module!r}, run_name='__main__')"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    # It got as far as to refuse the flag: everything it needs was imported.
    assert "nonsense" in done.stderr, done.stderr
    assert ctypes.CDLL(None).prctl(66, 0, 0, 0, 0) == 0, "this test's own process is as it was"
