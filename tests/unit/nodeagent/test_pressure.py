"""When a machine says that it has too little memory."""

from nodeagent.pressure import available, pressed, stalled

PSI = "some avg10={} avg60=1.00 avg300=0.10 total=1\nfull avg10=99.00 avg60=0.00 avg300=0.00 total=0\n"
MEMINFO = "MemTotal:       1000000 kB\nMemFree:         1 kB\nMemAvailable:   {} kB\nHugePages_Total:       0\n"
ENOUGH = MEMINFO.format(500000)


def test_the_kernels_files_are_read() -> None:
    assert stalled(PSI.format("12.34")) == 12.34
    assert stalled("") == 0
    assert available(ENOUGH) == (500000 << 10, 1000000 << 10)
    assert available("") == (0, 0)


def test_it_is_pressed_when_processes_wait_for_memory_and_until_they_hardly_do() -> None:
    said = pressed(PSI.format("12.00"), ENOUGH, "")
    assert said == "memory pressure: processes waited for memory 12 % of the last 10 s"
    assert pressed(PSI.format("5.00"), ENOUGH, "") == ""
    assert pressed(PSI.format("5.00"), ENOUGH, said)
    assert pressed(PSI.format("1.00"), ENOUGH, said) == ""


def test_it_is_pressed_when_hardly_anything_is_available_although_nobody_waits_yet() -> None:
    said = pressed(PSI.format("0.00"), MEMINFO.format(40000), "")
    assert said == "memory pressure: 39 MiB of 976 MiB available"
    assert pressed("", MEMINFO.format(60000), "") == ""
    assert pressed("", MEMINFO.format(60000), said)
