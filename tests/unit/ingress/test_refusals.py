"""The one table of errors."""

import pytest

from ingress.refusals import TABLE, body_of, printable, retry_after


@pytest.mark.parametrize("reason", TABLE)
def test_every_reason_has_a_status_and_says_something(reason: str) -> None:
    row = TABLE[reason]
    assert 400 <= row.status <= 505
    assert body_of(reason) == f"{reason}: {row.text}\n"


def test_whoever_may_come_back_is_told_when() -> None:
    assert retry_after("queue-full") == 1
    assert retry_after("cannot-start", 2.1) == 3
    assert retry_after("no-route") == 0


def test_nothing_a_client_or_instance_says_can_break_a_line() -> None:
    assert printable("a\r\nSet-Cookie: x\x00\x1b[2J\u20ac") == "a??Set-Cookie: x??[2J?"
    assert len(printable("a" * 1000)) == 300
