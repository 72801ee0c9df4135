"""What people are told when an instance fails."""

import pytest

from nodeagent import failures
from store.model import Revision

LIMITED = Revision(project="p", name="r", image="i", memory_limit_bytes=64 * 2**20)


@pytest.mark.parametrize(
    "said",
    [
        "OCI runtime create failed: executable file `/bin/nope` not found in $PATH: No such file or directory: unknown",
        'exec: "/bin/nope": stat /bin/nope: no such file or directory: unknown',
    ],
)
def test_a_command_that_is_missing_is_named(said: str) -> None:
    failure = failures.start_failed(said, ["/bin/nope"])
    assert failure.reason == "StartFailed"
    assert "'/bin/nope' not found in the image" in failure.message


def test_a_program_for_another_machine_is_called_that() -> None:
    assert "architecture" in failures.start_failed("exec /app: exec format error", ["/app"]).message


def test_the_memory_limit_is_named() -> None:
    failure = failures.exited(137, True, LIMITED, ["line"], 5.0)
    assert (failure.reason, failure.exit_code, failure.log_tail) == ("OOMKilled", 137, ["line"])
    assert "64Mi" in failure.message


@pytest.mark.parametrize(
    ("code", "reason", "words"), [(3, "ExitCode3", "code 3"), (0, "ExitCode0", "keep running"), (139, "Signal", "SIGSEGV")]
)
def test_exit_codes_are_told_apart(code: int, reason: str, words: str) -> None:
    failure = failures.exited(code, False, LIMITED, [], 0)
    assert failure.reason == reason
    assert words in failure.message
