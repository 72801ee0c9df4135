"""Rotation of a child's log."""

from pathlib import Path

from process.supervise import log_tail, rotate


def test_a_log_within_its_limit_is_left_alone(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("short\n")
    assert not rotate(log, limit_bytes=100)
    assert [p.name for p in tmp_path.iterdir()] == ["a.log"]


def test_a_log_over_its_limit_moves_on_and_the_writer_keeps_its_file(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    with open(log, "ab", buffering=0) as writer:
        writer.write(b"old" * 10)
        assert rotate(log, limit_bytes=10)
        writer.write(b"new")
    assert log.read_bytes() == b"new"
    assert (tmp_path / "a.log.1").read_bytes() == b"old" * 10


def test_no_more_than_three_old_logs_are_kept(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    for number in range(6):
        log.write_text(f"{number}" * 20)
        rotate(log, limit_bytes=10, kept=3)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.log", "a.log.1", "a.log.2", "a.log.3"]
    assert (tmp_path / "a.log.3").read_text() == "3" * 20


def test_the_tail_is_the_last_lines_and_empty_without_a_file(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    assert log_tail(log) == ""
    log.write_text("".join(f"{n}\n" for n in range(100)))
    assert log_tail(log, lines=2) == "    98\n    99"
