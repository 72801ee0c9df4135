from autoscaler.backoff import Row, delay_s, failed, record, restored, was_start
from store.lifecycle import Phase
from store.model import Failure, Instance


def test_the_wait_doubles_from_one_second_to_five_minutes() -> None:
    assert [delay_s(n) for n in range(12)] == [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    assert delay_s(10_000) == 300


def test_instances_started_together_that_fail_together_are_one_failure() -> None:
    row = failed(Row(), assigned_at=100, now=101)
    for instance in range(10):
        row = failed(row, assigned_at=100.5, now=101 + instance / 100)
    assert row.count == 1
    assert failed(row, assigned_at=102.1, now=102.5).count == 2


def test_an_instance_that_ran_well_is_no_failed_start() -> None:
    assert was_start(None, 100)
    assert was_start(95, 100), "it listened, and died within seconds: a crash loop"
    assert not was_start(80, 100)


def test_the_row_outlives_the_autoscaler() -> None:
    row = failed(failed(Row(), 1, 2), 4, 5)
    status = Instance(
        instance="r-1", project="p", revision="r", node="n", phase=Phase.FAILED,
        failure=Failure(reason="ExitCode3", message="exited with 3", exit_code=3, log_tail=[str(n) for n in range(50)]),
    )  # fmt: skip
    kept = record(row, status, 5)
    assert (kept.reason, kept.count, kept.retry_at, kept.exit_code) == ("ExitCode3", 2, 7, 3)
    assert len(kept.log_tail) == 20
    assert restored(kept) == row
    assert restored(None) == Row()


def test_a_node_that_does_not_say_why_still_gives_a_reason() -> None:
    status = Instance(instance="r-1", project="p", revision="r", node="n", phase=Phase.FAILED)
    assert "r-1" in record(failed(Row(), 1, 2), status, 2).message
