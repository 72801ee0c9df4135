"""Short turns, as the kernel has them. In threads of their own: the test's process keeps what it has."""

import platform
import subprocess
import threading

from process import turns
from tests.slices import slice_us


def in_a_thread(found: list[float], then: bool = False) -> None:
    assert turns.shorten()
    found.append(slice_us())
    if then:
        heir = threading.Thread(target=lambda: found.append(slice_us()))
        heir.start()
        heir.join()


def test_who_asks_for_short_turns_has_them_and_who_does_not_has_longer_ones() -> None:
    found: list[float] = []
    thread = threading.Thread(target=in_a_thread, args=(found,))
    thread.start()
    thread.join()
    assert found == [turns.SHORT_US]
    assert slice_us() > turns.SHORT_US


def test_a_thread_that_is_started_later_has_them_too() -> None:
    found: list[float] = []
    thread = threading.Thread(target=in_a_thread, args=(found, True))
    thread.start()
    thread.join()
    assert found == [turns.SHORT_US] * 2


def test_on_a_machine_whose_call_is_not_known_nothing_is_asked(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    assert not turns.shorten()


def test_another_process_is_given_short_turns_and_its_usual_ones_again_and_keeps_its_niceness() -> None:
    with subprocess.Popen(["nice", "-n", "3", "sleep", "60"]) as other:
        usual = slice_us(other.pid)
        assert turns.ask(other.pid, turns.SHORT_US)
        assert slice_us(other.pid) == turns.SHORT_US
        assert turns.ask(other.pid, 0)
        assert slice_us(other.pid) == usual
        other.kill()
    assert not turns.ask(other.pid, 0), "it is gone"
