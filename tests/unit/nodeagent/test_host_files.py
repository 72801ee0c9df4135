"""resolv.conf, hosts, /tmp: what instances find; and what cgroup files say."""

import os
from pathlib import Path

import pytest

from nodeagent import cgroups, resolv, rootfs
from nodeagent.cgroups import Mode, Usage


def test_instances_ask_the_engines_name_server_and_the_hosts_search_list_stays() -> None:
    text = "# x\nnameserver 10.0.0.2\nsearch a.b\noptions ndots:1\n"
    assert resolv.render(text, "169.254.169.254") == "nameserver 169.254.169.254\nsearch a.b\noptions ndots:1\n"


def test_the_machines_servers_are_asked_on_their_behalf_also_those_on_loopback() -> None:
    text = "".join(f"nameserver {server}\n" for server in ("127.0.0.53", "fd00::1", "127.0.0.53", "9.9.9.9", "8.8.8.8"))
    assert resolv.every_nameserver(text) == ("127.0.0.53", "fd00::1", "9.9.9.9")
    assert resolv.every_nameserver(text, "nameserver 192.0.2.53\n") == ("192.0.2.53",)
    assert resolv.every_nameserver("") == ("127.0.0.1",)


@pytest.mark.parametrize("server", ["dns.example", "", "1.2.3"])
def test_a_server_that_cannot_be_asked_is_refused(server: str) -> None:
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


def test_projects_share_the_processors_by_weight_and_the_last_instance_takes_its_projects_cgroup_along(tmp_path: Path) -> None:
    places = cgroups.Places("/ebb-x")
    places.put("a1", "a")
    places.put("a2", "a")
    assert places.of("a1") == "/ebb-x/p-a/a1"
    cgroups.weigh(Mode.V1, places.of_project("a"), 3 * cgroups.WEIGHT, tmp_path)
    assert (tmp_path / "cpu/ebb-x/p-a/cpu.shares").read_text() == "3072"
    assert places.drop("a1") == ""
    assert places.drop("a2") == "/ebb-x/p-a"
    assert places.drop("a2") == ""
