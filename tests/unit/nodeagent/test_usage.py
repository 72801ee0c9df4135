"""What instances use, from their cgroups' files of both versions."""

from pathlib import Path

import pytest

from nodeagent import usage
from nodeagent.cgroups import Mode, Places
from store.model import Revision, ScaleSpec


def write(root: Path, mode: Mode, name: str, cpu_s: float, memory: int) -> None:
    if mode is Mode.V2:
        files = {
            f"ebb/p-p/{name}/memory.current": str(memory),
            f"ebb/p-p/{name}/memory.stat": "anon 1\ninactive_file 1000\n",
            f"ebb/p-p/{name}/cpu.stat": f"usage_usec {int(cpu_s * 1e6)}\nuser_usec 1\n",
            f"ebb/p-p/{name}/memory.events": "oom_kill 0\n",
        }
    else:
        files = {
            f"memory/ebb/p-p/{name}/memory.usage_in_bytes": str(memory),
            f"memory/ebb/p-p/{name}/memory.stat": "total_inactive_file 1000\n",
            f"memory/ebb/p-p/{name}/memory.oom_control": "oom_kill 0\n",
            f"cpuacct/ebb/p-p/{name}/cpuacct.usage": str(int(cpu_s * 1e9)),
        }
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)


@pytest.mark.parametrize("mode", list(Mode))
def test_cpu_is_the_mean_since_the_last_reading(tmp_path: Path, mode: Mode) -> None:
    places = Places("/ebb")
    places.put("a", "p")
    meter = usage.Meter(mode, places, tmp_path)
    write(tmp_path, mode, "a", 1.0, 5_000_000)
    assert meter.read(["a", "gone"], 10.0) == {}, "nothing to compare with yet"
    write(tmp_path, mode, "a", 3.5, 6_000_000)
    assert meter.read(["a", "gone"], 15.0) == {"a": (500.0, 5_999_000)}


def test_only_those_that_scale_by_it_are_asked_for() -> None:
    def asked(metric: str) -> bool:
        return usage.asked_for(Revision(project="p", name="r", image="i", scale=ScaleSpec(metric=metric)))

    assert [asked(metric) for metric in ("concurrency", "rps", "cpu", "memory")] == [False, False, True, True]
