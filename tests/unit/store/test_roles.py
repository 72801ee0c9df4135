"""Who may do what, by role: the table that gate and NATS hold to."""

import ast
import inspect
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store import keys, leases, roles
from store.model import EnvFrom, EnvRef, Revision
from store.roles import Span
from store.volumes import Volume

ROOT = Path(__file__).parents[3]
GATED = {"ingress": ("ingress", "activator"), "nodeagent": ("nodeagent",)}
"""Role → packages that run as it and reach etcd through the gate."""


def kinds_named_by(package: str) -> set[str]:
    """The kinds of keys (`routes`, `nodes`, …) that the code of a package names."""
    found = set()
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "keys":
                found.add(kind_of(getattr(keys, node.attr, None)))
    return found - {""}


def kind_of(named: object) -> str:
    if callable(named):
        wanted = len(inspect.signature(named).parameters)
        named = named(*["x"] * wanted) if named is not keys.tail else ""
    return named.removeprefix(keys.ROOT).split("/")[0] if isinstance(named, str) and named != keys.ROOT else ""


@pytest.mark.parametrize("role", GATED)
def test_the_gate_lets_a_role_do_what_its_code_needs_and_no_kind_of_key_more(role: str) -> None:
    needed = set().union(*(kinds_named_by(package) for package in GATED[role]))
    of = roles.role(role)
    granted = {kind_of(grant) for grant in (*of.reads, *of.writes, *of.refers)}
    assert granted - {"projects"} == needed - {"projects"}, "store/roles.py says what the gate lets through"


@pytest.mark.parametrize(
    ("grant", "start", "end", "inside"),
    [
        ("/ebb/a/", b"/ebb/a/", b"/ebb/a0", True),
        ("/ebb/a/", b"/ebb/a/x", b"", True),
        ("/ebb/a/", b"/ebb/a/x\0", b"/ebb/a0", True),
        ("/ebb/a/", b"/ebb/a", b"", False),
        ("/ebb/a/", b"/ebb/a", b"/ebb/b", False),
        ("/ebb/a/", b"/ebb/a/", b"/ebb/b", False),
        ("/ebb/a/", b"/ebb/a/x", b"\0", False),
        ("/ebb/a/", b"\0", b"\0", False),
        ("/ebb/a", b"/ebb/a", b"", True),
        ("/ebb/a", b"/ebb/a", b"/ebb/a\0", True),
        ("/ebb/a", b"/ebb/a", b"/ebb/b", False),
        ("/ebb/a", b"/ebb/a/x", b"", False),
        ("", b"\0", b"\0", True),
    ],
)
def test_a_range_is_granted_when_all_of_it_is(grant: str, start: bytes, end: bytes, inside: bool) -> None:
    assert Span(start, end).inside(grant) is inside


@given(st.text("abz/0\x00", max_size=6), st.text("abz/0\x00", max_size=6), st.sampled_from(["a", "a/", "ab/", "b/a/"]))
def test_no_key_of_a_granted_range_is_outside_of_the_grant(start: str, end: str, grant: str) -> None:
    span = Span(start.encode(), end.encode())
    if not span.inside(grant):
        return
    held = [key for length in range(4) for key in _words(length) if span.holds(key)] if end != "\0" else [""]
    assert all(key == grant or (grant.endswith("/") and key.startswith(grant)) for key in held)


def _words(length: int) -> list[str]:
    return [""] if not length else [word + letter for word in _words(length - 1) for letter in "ab/z"]


@pytest.mark.parametrize("name", ["node-1", "a.b"])
def test_a_nodes_name_is_in_all_that_it_writes_and_says(name: str) -> None:
    of = roles.role("nodeagent")
    assert all("{name}" in grant for grant in of.writes)
    says, hears = roles.subjects("nodeagent", name)
    assert all(subject.endswith(f".{name}") or subject == "ebb.story" for subject in says)
    assert f"_INBOX.nodeagent.{name}.>" in hears
    assert not any(subject in (">", "ebb.>", "_INBOX.>") for subject in (*says, *hears))


def test_a_role_that_is_not_in_the_table_may_nothing() -> None:
    nobody = roles.role("cli")
    assert not roles.may_read(nobody, "x", Span(b"/ebb/nodes/x"))
    assert not roles.may_write(nobody, "x", Span(b"/ebb/nodes/x"))
    assert roles.subjects("cli", "x")[0] == []


def test_a_revision_names_the_secrets_and_configs_of_its_own_project() -> None:
    revision = Revision(
        project="p", name="r", image="i", pull_secrets=["pull"], env_refs=[EnvRef(name="A", secret="s", key="k")],
        env_from=[EnvFrom(config="c"), EnvFrom(secret="t")], volumes=[Volume(path="/v", secret="v"), Volume(path="/w", config="w")],
    )  # fmt: skip
    assert roles.named_by(revision) == {
        keys.secret("p", "pull"), keys.secret("p", "s"), keys.secret("p", "t"), keys.config("p", "c"), keys.secret("p", "v"),
        keys.config("p", "w"),
    }  # fmt: skip


@given(st.binary(min_size=32, max_size=32), st.integers(0, 2**31 - 1), st.integers(0, 2**63 - 1))
def test_a_lease_belongs_to_whom_it_was_granted_and_nobody_guesses_one(key: bytes, random: int, guess: int) -> None:
    lease = leases.number(key, "ebb://nodeagent/a", random)
    assert 0 < lease < 2**63
    assert leases.owns(key, "ebb://nodeagent/a", lease)
    assert not leases.owns(key, "ebb://nodeagent/b", lease)
    assert not leases.owns(bytes(32), "ebb://nodeagent/a", lease) or key == bytes(32)
    assert not leases.owns(key, "ebb://nodeagent/a", guess) or guess == lease
