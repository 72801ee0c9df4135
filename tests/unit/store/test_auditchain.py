"""The chain of an audit log, and heads of it that were kept elsewhere."""

import pytest

from store.auditchain import Head, Line, check, head_of, link


def chain(count: int, who: str = "ana") -> tuple[list[Line], list[Head]]:
    lines, heads, head = [], [], Head()
    for number in range(count):
        line, head = link({"who": who, "number": number}, head)
        lines.append(line)
        heads.append(head)
    return lines, heads


def test_a_log_that_went_on_holds_from_the_head_that_was_kept() -> None:
    lines, heads = chain(9)
    for kept in heads:
        assert check(lines, kept) == (9, heads[-1], "")


def test_a_cut_off_end_is_seen_by_the_head_alone() -> None:
    lines, heads = chain(9)
    assert check(lines[:6])[2] == ""
    assert check(lines[:6], heads[8])[2] == "it ends at seq 6 and once went to seq 9: its last 3 lines were cut off"
    assert "its last 9 lines were cut off" in check([], heads[8])[2]


def test_a_log_that_was_made_anew_is_seen() -> None:
    (other, _), (_, heads) = chain(9, "eve"), chain(9)
    assert check(other)[2] == ""
    assert "was made anew" in check(other, heads[4])[2]


def test_a_head_that_was_rotated_away_is_not_taken_for_a_good_one() -> None:
    lines, heads = chain(9)
    assert check(lines[4:], heads[3])[2].startswith("seq 4 is no longer kept: the oldest line is seq 5")
    assert check(lines[4:], heads[4])[2] == ""


@pytest.mark.parametrize("text", ["", "7", "0:" + "a" * 64, "7:abc", "-1:" + "a" * 64, "7:" + "A" * 64])
def test_a_head_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="want SEQ:DIGEST"):
        head_of(text)
