"""The cold benchmark's own sums: percentiles, the table beside the goals, and the choice of parts."""

import pytest

from deploy import bench_cold, bench_cold_idle
from deploy.bench_cold_engine import percentile


def test_a_percentile_is_a_value_that_was_seen() -> None:
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile([float(n) for n in range(1, 101)], 0.99) == 99.0
    assert percentile([7.0], 0.99) == 7.0


def test_the_table_says_which_goal_is_missed() -> None:
    lines = bench_cold.table({"cold.parked_p50_ms": 21.0, "cold.starts_per_s": 41.0, "many.list_s": 0.5})
    told = {line.split()[0]: line for line in lines[1:]}
    assert told["cold.parked_p50_ms"].endswith("≤ 20  missed")
    assert told["cold.starts_per_s"].endswith("≥ 40")
    assert told["many.list_s"].endswith("0.5")


def test_a_part_that_does_not_exist_is_refused_with_those_that_do(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench_cold.main(["--only", "parked,warm"])
    said = capsys.readouterr().err
    assert "'warm' is no part" in said
    assert "parked-rate" in said


def test_what_is_the_engines_own_is_told_from_its_servers_and_its_instances() -> None:
    names = ("ingress", "deploy.allinone", "etcd", "containerd", "containerd-shim", "crun", "exe")
    assert [bench_cold_idle.whose_is(name) for name in names] == ["own", "own", "servers", "servers", *["instances"] * 3]
