"""What the documents draw is what the code says."""

import json
import re
from pathlib import Path

import pytest

from store.lifecycle import TRANSITIONS, Phase

ROOT = Path(__file__).parents[2]


def test_the_diagram_of_an_instances_life_is_the_table() -> None:
    drawn = {
        line.strip() for line in (ROOT / "ARCHITECTURE.md").read_text().splitlines() if " --> " in line and "──" not in line
    }
    assert drawn == {f"{a.value} --> {b.value}" for a in Phase for b in TRANSITIONS[a]}


def test_every_part_has_its_row_in_the_architecture() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    for part in ("process", "store", "activator", "ingress", "autoscaler", "nodeagent", "registry", "cli", "deploy"):
        assert f"`{part}/`" in text, part


def test_what_an_instance_can_do_is_what_was_measured() -> None:
    golden = json.loads((ROOT / "tests/integration/profiles_golden.json").read_text())
    words = {"sandboxed": "in its own kernel"}
    rows = {
        f"| {name} | "
        + " | ".join(words.get(each, "yes") if golden[each].get(name) == "ALLOWED" else "no" for each in golden)
        + " |"
        for name in golden["default"]
        if any(profile.get(name) == "ALLOWED" for profile in golden.values())
    }
    lines = set((ROOT / "docs/security.md").read_text().splitlines())
    assert rows <= lines, "\n".join(sorted(rows - lines))


@pytest.mark.parametrize("document", ["faults.md", "threats.md"])
def test_each_test_that_a_table_names_is_there(document: str) -> None:
    """A cell reads: `file` some words of a test's name, some of another's, `file` …; without words, the file as a whole."""
    missing = []
    for row in _rows(ROOT / "docs" / document):
        named = re.findall(r"`([^`]+)`([^`]*)", row[-1])
        assert named, f"no test plays {row[0]!r}"
        for file, words in named:
            found = [path for path in (ROOT / f"tests/{file}.py", ROOT / f"tests/integration/{file}.py") if path.exists()]
            names = re.findall(r"^(?:async )?def (test_\w+)", found[0].read_text(), re.MULTILINE) if found else []
            parts = [word.strip() for word in words.split(",") if word.strip()]
            missing += [f"{row[0]}: `{file}` {part}" for part in parts or [""] if not any(part in name for name in names)]
    assert not missing, "\n".join(missing)


def test_every_threat_has_its_control_and_who_plays_the_attacker() -> None:
    every = [f"T{number}" for number in range(1, 23)]
    assert [row[0].split()[0] for row in _rows(ROOT / "docs/threats.md")] == every
    controls = [row for row in _rows(ROOT / "SECURITY.md") if re.fullmatch(r"T\d+", row[0])]
    assert [row[0] for row in controls] == every
    assert all(cell for row in controls for cell in row)


def _rows(path: Path) -> list[list[str]]:
    """The cells of the tables in a document, without their heads."""
    lines = [line for line in path.read_text().splitlines() if line.startswith("| ")]
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in lines
        if not line.startswith(("| fault ", "| threat "))
    ]
