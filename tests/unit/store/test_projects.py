"""Projects."""

from store import keys
from store.memory import MemoryStore
from store.model import decode, encode
from store.projects import Policy, Project, Quota, project_of
from store.watch import Table


def test_a_project_without_a_record_has_the_defaults() -> None:
    table = Table(MemoryStore(), keys.PROJECTS, Project)
    found = project_of(table, "shop")
    assert (found.name, found.weight, found.quota, found.policy) == ("shop", 1, Quota(), Policy())
    assert (found.policy.egress, found.policy.profile, found.policy.private) == ("open", "default", False)


def test_a_project_is_read_as_it_was_written() -> None:
    policy = Policy(registries=("example.org/",), egress="none", private=True)
    made = Project(name="shop", weight=3, quota=Quota(services=2), policy=policy)
    assert decode(Project, encode(made)) == made
