"""Short turns, as the kernel has them. In threads of their own: the test's process keeps what it has."""

import ctypes
import platform
import struct
import threading

from process import turns

SCHED_GETATTR = {"x86_64": 315, "aarch64": 275}
SIZE = 48


def slice_us() -> float:
    """What the kernel says of the calling thread."""
    found = ctypes.create_string_buffer(SIZE)
    assert ctypes.CDLL(None).syscall(SCHED_GETATTR[platform.machine()], 0, found, SIZE, 0) == 0
    return float(struct.unpack_from("<Q", found, 24)[0]) / 1000


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
