"""Who may do what."""

import pytest

from registry.authorisation import Decision, Identity, decide
from store.access import ADMIN, DEVELOPER, INVOKER, PLATFORM_ADMIN, VIEWER

YES, NO, HIDDEN = Decision.ALLOWED, Decision.FORBIDDEN, Decision.NOT_FOUND
WRITES = ("create", "update", "delete")


def of(role: str, project: str = "shop", **more: object) -> Identity:
    return Identity(principal="user:ana", roles={project: (role,)}, **more)  # type: ignore[arg-type]


TABLE = {
    # what                      viewer dev  admin invoker
    ("list", "services"): (YES, YES, YES, NO),
    ("get", "logs"): (YES, YES, YES, NO),
    ("create", "services"): (NO, YES, YES, NO),
    ("delete", "domainmappings"): (NO, YES, YES, NO),
    ("list", "secrets"): (YES, YES, YES, NO),
    ("get", "secrets"): (NO, YES, YES, NO),
    ("list", "bindings"): (NO, NO, YES, NO),
    ("update", "bindings"): (NO, NO, YES, NO),
    ("list", "audit"): (NO, NO, YES, NO),
    ("get", "projects"): (YES, YES, YES, NO),
    ("update", "projects"): (NO, NO, NO, NO),
    ("get", "something new"): (YES, YES, YES, NO),
}


@pytest.mark.parametrize(("what", "expected"), TABLE.items(), ids=lambda value: " ".join(map(str, value)))
def test_each_role_may_what_the_table_says(what: tuple[str, str], expected: tuple[Decision, ...]) -> None:
    action, kind = what
    assert tuple(decide(of(role), action, "shop", kind) for role in (VIEWER, DEVELOPER, ADMIN, INVOKER)) == expected
    assert decide(of(PLATFORM_ADMIN, ""), action, "shop", kind) is YES


@pytest.mark.parametrize("role", [VIEWER, DEVELOPER, ADMIN, INVOKER])
def test_another_projects_things_are_not_there(role: str) -> None:
    for action, kind in TABLE:
        assert decide(of(role), action, "other", kind) is HIDDEN


def test_outside_of_projects_one_sees_oneself_and_rules_only_as_the_platforms_admin() -> None:
    for action in ("list", *WRITES):
        assert decide(of(ADMIN), action, "", "users") is NO
        assert decide(of(PLATFORM_ADMIN, ""), action, "", "users") is YES
        assert decide(Identity("user:nobody"), action, "", "self") is YES
    assert decide(Identity("user:nobody"), "list", "", "projects") is YES
    assert decide(Identity("user:nobody"), "create", "", "projects") is NO
    assert decide(Identity("user:nobody"), "list", "", "services") is NO


def test_a_token_may_no_more_than_its_scope_and_cap() -> None:
    ruler = {"": (PLATFORM_ADMIN,)}
    scoped = Identity("user:admin", roles=ruler, projects=("shop",))
    assert [decide(scoped, "create", project, "services") for project in ("shop", "other")] == [YES, HIDDEN]
    assert decide(scoped, "list", "", "users") is NO, "outside of projects a token with projects is nobody's"
    capped = Identity("user:admin", roles=ruler, cap=VIEWER)
    assert [decide(capped, action, "shop", "services") for action in ("list", "create")] == [YES, NO]
    assert decide(of(INVOKER, cap=VIEWER), "list", "shop", "services") is HIDDEN, "a cap gives nothing"
    assert decide(of(VIEWER, cap="no such role"), "list", "shop", "services") is HIDDEN
