"""What `ebb status` shows."""

import io
import os

import pytest
from rich.console import Console

from deploy import view
from deploy.settings import Engine
from deploy.statefile import ChildState, EngineState
from process import pids
from process.pids import Pid

ME = pids.identify(os.getpid()) or Pid(0, 0)
GONE = Pid(2**22 + 1, 1)


def state(*children: ChildState, supervisor: Pid = ME) -> EngineState:
    return EngineState(phase="up", supervisor=supervisor, engine=Engine(), started_at=100.0, children=list(children))


def child(name: str = "etcd", who: Pid = ME, **more: object) -> ChildState:
    return ChildState(name=name, pid=who.pid, ticks=who.ticks, **{"state": "running", "since": 100.0, **more})  # type: ignore[arg-type]


def test_all_well_is_healthy() -> None:
    assert all(row.healthy for row in view.rows(state(child()), {}))


def test_a_component_that_says_what_is_wrong_is_not_healthy() -> None:
    rows = view.rows(state(child("registry")), {"registry": "etcd: no answer for 4 s"})
    assert (rows[1].healthy, rows[1].problem) == (False, "etcd: no answer for 4 s")


def test_a_restart_is_shown_with_how_it_ended_last_and_is_healthy_again() -> None:
    row = view.rows(state(child(restarts=2, last_exit="killed by SIGKILL")), {})[1]
    assert (row.healthy, row.restarts, row.note) == (True, 2, "last time: killed by SIGKILL")


def test_a_child_that_died_unsupervised_is_not_shown_as_running() -> None:
    rows = view.rows(state(child(who=GONE), child("nats"), supervisor=GONE), {})
    assert [row.state for row in rows] == ["gone", "died", "running"]
    assert "`ebb up` takes it over" in rows[0].problem
    assert rows[1].problem == "ended while nobody supervised it"


def test_a_pid_used_again_by_another_process_is_not_ours() -> None:
    assert view.rows(state(child(who=Pid(ME.pid, ME.ticks - 1))), {})[1].state == "died"


@pytest.mark.parametrize(
    ("seconds", "text"), [(-1, "0 s"), (59, "59 s"), (60, "1 m"), (200, "3 m 20 s"), (7500, "2 h 5 m"), (90000, "1 d 1 h")]
)
def test_durations_are_said_in_two_units(seconds: float, text: str) -> None:
    assert view.ago(seconds) == text


def test_the_table_as_it_is_printed() -> None:
    rows = [
        view.Row(name="ebb up", pid=10, state="running", restarts=0, since=0, memory_bytes=30 * 2**20),
        view.Row(
            name="etcd", pid=0, state="restarting", restarts=3, since=95, memory_bytes=0, problem="last time: exit code 1"
        ),
    ]
    console = Console(file=io.StringIO(), width=100, color_system=None)
    console.print(view.table(rows, 100.0))
    lines = [line.rstrip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]
    assert lines == [
        "COMPONENT  PID  STATE       RESTARTS  SINCE  MEMORY",
        "ebb up      10  running            0  -       30 MB",
        "etcd         -  restarting         3  5 s         -  last time: exit code 1",
    ]


def test_nodes_and_instances_in_words() -> None:
    found = {
        "nodes": [{"node": "n1", "cpu_m": 2000, "memory_bytes": 2**31}],
        "revisions": [{"instances": {"Ready": 2, "Parked": 1}}, {"instances": {"Parked": 1}}],
    }
    assert view.cluster_lines(found) == ["node n1: 2000m CPU, 2048 MiB, schedulable", "instances: 2 Parked, 2 Ready"]
