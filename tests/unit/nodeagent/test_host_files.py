"""resolv.conf, hosts, /tmp: what instances find; and what cgroup files say."""

import os
from pathlib import Path

import pytest

from nodeagent import cgroups, firewall, resolv, rootfs
from nodeagent.cgroups import Mode, Usage


def test_loopback_and_ipv6_servers_are_left_out() -> None:
    servers = ("127.0.0.53", "10.0.0.2", "fe80::1%eth0", "10.0.0.2", "nonsense")
    text = "# x\n" + "".join(f"nameserver {server}\n" for server in servers) + "search a.b\n"
    assert resolv.nameservers(text) == ["10.0.0.2"]
    assert resolv.render(text) == "nameserver 10.0.0.2\nsearch a.b\n"


def test_given_servers_replace_the_hosts_and_its_search_list_stays() -> None:
    assert resolv.render("nameserver 10.0.0.2\noptions ndots:1\n", ["9.9.9.9"]) == "nameserver 9.9.9.9\noptions ndots:1\n"


def test_behind_a_stub_the_real_servers_are_taken(tmp_path: Path) -> None:
    stub, truth = tmp_path / "stub", tmp_path / "truth"
    stub.write_text("nameserver 127.0.0.53\n")
    truth.write_text("nameserver 192.0.2.53\n")
    assert resolv.nameservers(resolv.host_resolv_conf(stub, truth)) == ["192.0.2.53"]
    assert resolv.host_resolv_conf(stub, tmp_path / "none") == ""


@pytest.mark.parametrize("server", ["127.0.0.1", "::1", "dns.example", ""])
def test_a_server_that_instances_cannot_ask_is_refused(server: str) -> None:
    with pytest.raises(ValueError, match="--dns"):
        resolv.check_servers([server])


def test_an_instance_knows_its_own_name() -> None:
    assert "10.231.0.5\thello-x\n" in resolv.hosts("hello-x", "10.231.0.5")


def test_everybody_may_write_to_tmp_and_an_images_own_is_kept(tmp_path: Path) -> None:
    rootfs.furnish(str(tmp_path))
    assert (tmp_path / "tmp").stat().st_mode & 0o7777 == 0o1777
    os.chmod(tmp_path / "tmp", 0o700)
    rootfs.furnish(str(tmp_path))
    assert (tmp_path / "tmp").stat().st_mode & 0o7777 == 0o700
    assert rootfs.upper_of(["workdir=/w", "upperdir=/u", "lowerdir=/l"]) == "/u"


def write(root: Path, **files: str) -> None:
    for name, content in files.items():
        path = root / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def test_usage_is_read_from_cgroup_v2(tmp_path: Path) -> None:
    write(
        tmp_path,
        cgroup_DOT_controllers="cpu memory\n",
        ebb__a__memory_DOT_current="5000\n",
        ebb__a__memory_DOT_stat="anon 1\ninactive_file 2000\n",
        ebb__a__cpu_DOT_stat="usage_usec 1500000\nuser_usec 1\n",
        ebb__a__memory_DOT_events="low 0\noom 3\noom_kill 2\noom_group_kill 0\n",
    )
    assert cgroups.detect(tmp_path) is Mode.V2
    assert cgroups.usage(Mode.V2, "/ebb/a", tmp_path) == Usage(3000, 1.5, 2)
    assert cgroups.usage(Mode.V2, "/ebb/gone", tmp_path) is None
    assert cgroups.children(Mode.V2, "/ebb", tmp_path) == ["a"]


def test_usage_is_read_from_cgroup_v1(tmp_path: Path) -> None:
    write(tmp_path, unified__cgroup_DOT_procs="")
    base = tmp_path / "memory/ebb/a"
    base.mkdir(parents=True)
    (base / "memory.usage_in_bytes").write_text("5000\n")
    (base / "memory.stat").write_text("inactive_file 1\ntotal_inactive_file 2000\n")
    (base / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 1\n")
    cpu = tmp_path / "cpuacct/ebb/a"
    cpu.mkdir(parents=True)
    (cpu / "cpuacct.usage").write_text("2500000000\n")
    assert cgroups.detect(tmp_path) is Mode.HYBRID
    assert cgroups.usage(Mode.HYBRID, "/ebb/a", tmp_path) == Usage(3000, 2.5, 1)


def test_only_what_is_below_the_parent_can_be_removed(tmp_path: Path) -> None:
    (tmp_path / "memory/ebb/a/b").mkdir(parents=True)
    (tmp_path / "cpu/ebb/a").mkdir(parents=True)
    (tmp_path / "cpu/other").mkdir()
    assert cgroups.remove(Mode.V1, "/ebb", tmp_path)
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")) == ["cpu", "cpu/other", "memory"]
    for bad in ("/", "", "/ebb/../other"):
        with pytest.raises(ValueError, match="below the root"):
            cgroups.remove(Mode.V1, bad, tmp_path)


def test_the_ruleset_is_replaced_in_one_transaction_and_holds_no_rule_of_an_instance() -> None:
    text = firewall.ruleset("t1", "10.9.0.0/16", "t1-", ["10.0.0.2", "fd00::1"])
    assert text.split("\n")[1:4] == ["table inet ebb_t1 { }", "delete table inet ebb_t1", "table inet ebb_t1 {"]
    assert "elements = { 10.0.0.2 }" in text
    assert "fd00" not in text
    assert '"t1-*"' in text
