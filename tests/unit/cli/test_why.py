"""`ebb why` prints what the autoscaler says, for people and for scripts."""

import json

import pytest

from cli import why
from cli.errors import BadUsage
from cli.show import Form
from tests.unit.cli.fake import FakeApi

STEP = {"rule": "stable", "value": 2.0, "why": "100 ÷ 70 → 2, within 0…1000"}
TOLD = {
    "service": "hello",
    "revisions": [
        {
            "revision": "default/hello-00002",
            "ready": 1,
            "profile": {
                "idle_seen": 12, "idle_p5_s": 4, "idle_p50_s": 40, "idle_p95_s": 300,
                "start_s": 0.02, "start_probe_s": 0.0012, "start_start_s": 0.011,
            },
            "decisions": [
                {"at": 0, "desired": 1, "reason": "Waking", "ready": 0, "starting": 0},
                {"at": 1, "desired": 2, "reason": "Traffic", "ready": 1, "starting": 0, "outcome": "placed 1", "steps": [STEP]},
            ],
        },
        {"revision": "default/hello-00001"},
    ],
}  # fmt: skip


def api() -> FakeApi:
    fake = FakeApi()
    fake.set("GET /apis/ebb.dev/v1/namespaces/default/services/hello/why", TOLD)
    return fake


def test_habits_decisions_and_their_steps_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    why.why(api().api(), "hello", Form.TABLE, last=1)
    out = capsys.readouterr().out
    assert "default/hello-00002: 1 ready, 0 starting" in out
    assert "idle 12 times: 5 % within 4 s, 50 % within 40 s, 95 % within 300 s" in out
    assert "starts in 20 ms (probe 1.2, start 11.0)" in out
    assert "2 wanted, Traffic (1 ready, 0 starting): placed 1" in out
    assert "100 ÷ 70 → 2, within 0…1000" in out
    assert "Waking" not in out
    assert "nothing was decided since the autoscaler started" in out


def test_scripts_get_all_of_it_as_data(capsys: pytest.CaptureFixture[str]) -> None:
    why.why(api().api(), "hello", Form.JSON, last=1)
    assert json.loads(capsys.readouterr().out) == TOLD
    with pytest.raises(BadUsage):
        why.why(api().api(), "hello", Form.NAME, last=1)


def test_what_a_call_takes_is_printed_where_it_is_known() -> None:
    profile = {"memory_bytes": 64 << 20, "cpu_m": 100.0, "call_cpu_m": 40.0, "call_cpu_s": 0.008, "call_memory_bytes": 2 << 20}
    assert why.habits(profile)[-1] == "a call at once more takes 40m of CPU (8.0 ms of CPU each) and 2.0Mi"
    assert not any("a call" in line for line in why.habits({"memory_bytes": 64 << 20, "cpu_m": 100.0}))
