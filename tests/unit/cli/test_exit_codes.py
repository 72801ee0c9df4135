"""Exit codes and start-up of the real command, in a process of its own, with no engine to talk to."""

import subprocess
import sys

import pytest

NOWHERE = "http://127.0.0.1:1"


def ebb(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-P", "-m", "cli", *words], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["version"], 0, "ebb 0."),
        (["--help"], 0, "deploy"),
        (["completion", "bash"], 0, "_EBB_COMPLETE"),
        (["services", "--api", NOWHERE], 1, "no API at"),
        (["deploy", "x", "--image", "a", "--archive", "b"], 2, "exclude each other"),
        (["nonsense"], 2, "No such command"),
        (["deploy"], 2, "Missing argument"),
        (["up", "--http", "nonsense", "--id", "TOO-LONG"], 2, "--id TOO-LONG"),
        (["services", "--api", "nonsense"], 2, "want a URL such as https://127.0.0.1:8090"),
        (["up", "--bogus"], 2, "usage: ebb up"),
        (["down", "--run", "/nonexistent"], 0, "nothing runs here"),
        (["status", "--run", "/nonexistent"], 1, "no engine runs here"),
        (["completion", "powershell"], 2, "want bash, zsh or fish"),
    ],
)
def test_the_exit_code_says_done_refused_or_bad_usage(words: list[str], code: int, says: str) -> None:
    done = ebb(*words)
    assert (done.returncode, says in done.stdout + done.stderr) == (code, True), done.stdout + done.stderr


def test_the_command_line_imports_nothing_of_the_engine_and_no_client_before_it_needs_one() -> None:
    code = (
        "import sys, cli.main; print([m for m in sys.modules if m in ('httpx', 'rich', 'yaml', 'grpc', 'store', 'registry')])"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
