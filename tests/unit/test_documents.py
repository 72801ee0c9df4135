"""What the documents draw is what the code says."""

import json
from pathlib import Path

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
