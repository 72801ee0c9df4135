"""Logs on disk: nothing lost, nothing told twice, nothing without a bound."""

import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from nodeagent.logfile import LINE_BYTES, Line, RateCap, Raw, Rotated, files, format_line, parse_line, read_lines


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


@given(st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"])), st.integers(0, 2**40))
def test_a_line_comes_back_as_it_was_written(text: str, offset: int) -> None:
    line = Line(1700000000.25, "e", text)
    assert parse_line(format_line(line, (offset, 7))) == Line(1700000000.25, "e", text, (offset, 7))


def test_a_line_cut_short_by_a_crash_is_left_out() -> None:
    assert parse_line(b"1700000000.2 o 12") is None
    assert parse_line(b"garbage in here too") is None


def test_old_files_go_when_the_log_grows(tmp_path: Path) -> None:
    log = Rotated(tmp_path / "log", rotate_bytes=1000, keep=3)
    for number in range(200):
        log.write(format_line(Line(float(number), "o", f"line {number}"), (0, 0)))
    log.close()
    assert [file.exists() for file in files(tmp_path / "log")] == [True, True, True]
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 3000
    kept = [line.text for line in read_lines(tmp_path / "log")]
    assert kept == [f"line {number}" for number in range(200 - len(kept), 200)]
    assert [line.text for line in read_lines(tmp_path / "log", tail=70)] == kept[-70:]
    assert [line.text for line in read_lines(tmp_path / "log", since=198)] == ["line 198", "line 199"]


def test_a_line_without_an_end_waits_for_it(tmp_path: Path) -> None:
    raw = Raw(tmp_path / "stdout", "o")
    append(tmp_path / "stdout", b"whole\npart")
    assert [line.text for line in raw.read(1.0, 1000)] == ["whole"]
    assert raw.logged == len("whole\n")
    append(tmp_path / "stdout", b"ial\n")
    assert [line.text for line in raw.read(2.0, 1000)] == ["partial"]
    append(tmp_path / "stdout", b"last")
    assert raw.read(3.0, 1000) == []
    assert [line.text for line in raw.rest(3.0)] == ["last"]
    raw.close()


def test_a_line_too_long_is_cut(tmp_path: Path) -> None:
    raw = Raw(tmp_path / "stdout", "o")
    append(tmp_path / "stdout", b"x" * (2 * LINE_BYTES + 10) + b"\n")
    assert [len(line.text) for line in raw.read(1.0, 10**6)] == [LINE_BYTES, LINE_BYTES, 10]
    raw.close()


def test_what_was_read_takes_no_room_on_the_disk(tmp_path: Path) -> None:
    raw = Raw(tmp_path / "stdout", "o")
    append(tmp_path / "stdout", b"0123456\n" * 2**17)
    while raw.waiting():
        raw.read(1.0, 10**6)
    raw.free()
    assert os.stat(tmp_path / "stdout").st_blocks * 512 <= 4096
    append(tmp_path / "stdout", b"more\n")
    assert [line.text for line in raw.read(2.0, 1000)] == ["more"]
    raw.close()


def test_after_a_skip_no_line_is_told_in_half(tmp_path: Path) -> None:
    raw = Raw(tmp_path / "stdout", "o")
    append(tmp_path / "stdout", b"one\ntwo\nthree\nfour\n")
    assert [line.text for line in raw.read(1.0, 4)] == ["one"]
    raw.skip(6)  # into the midst of `three`
    assert [line.text for line in raw.read(1.0, 1000)] == ["four"]
    assert raw.dropped_bytes == 6
    append(tmp_path / "stdout", b"five\nsix\n")
    raw.skip(5)  # to the end of `five`
    assert [line.text for line in raw.read(1.0, 1000)] == ["six"]
    raw.close()


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(0, 500)), max_size=40))
def test_no_more_than_the_rate_is_granted(asks: list[tuple[float, int]]) -> None:
    cap, now, granted = RateCap(100, 300, 0.0), 0.0, 0
    for pause, wanted in asks:
        now += pause
        granted += cap.take(wanted, now)
        assert granted <= 300 + 100 * now + 1e-6
