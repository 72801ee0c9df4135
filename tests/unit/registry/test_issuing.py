"""Which certificates there shall be, and when they are made anew."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace as changed

from registry import issuing
from registry.issuing import Copy, Drop, Issue, Order, Reseal, View
from store import keys
from store.certificates import ENGINE, Certificate

DAY = 86_400.0
LIFE = 90 * DAY
EMPTY = View({}, authority="ca1", sealed_with="k1")


def made(issue: Issue, now: float, key: str = "v1.k1.x") -> tuple[str, Certificate]:
    found = Certificate(project=issue.project, name=issue.name, source="local", hosts=list(issue.hosts), chain="pem", key=key,
                        not_before=now, not_after=now + LIFE, made_from=issue.made_from)  # fmt: skip
    return keys.certificate(issue.project, issue.name), found


def settled(view: View, now: float) -> View:
    """`view` with all done that it asks for now."""
    issued = dict(made(step, now) for step in issuing.plan(view, now).steps if isinstance(step, Issue))
    return replace(view, certificates={**view.certificates, **issued})


def test_each_project_gets_a_wildcard_and_the_engine_its_own() -> None:
    steps = issuing.plan(replace(EMPTY, projects=frozenset(("b", "a"))), 0).steps
    assert [(s.project, s.hosts) for s in steps if isinstance(s, Issue)] == [
        (ENGINE, ("localhost", "127.0.0.1", "::1")),
        ("a", ("*.a.localhost",)),
        ("b", ("*.b.localhost",)),
    ]


def test_without_an_authority_nothing_is_issued() -> None:
    assert issuing.plan(View({}, projects=frozenset("a"), sealed_with="k1"), 0).steps == ()


@given(st.floats(0, 3), st.text("abc", min_size=1, max_size=5))
def test_what_is_made_rests_until_two_thirds_of_its_life_and_is_then_made_anew(share: float, project: str) -> None:
    view = settled(replace(EMPTY, projects=frozenset((project,))), 0)
    plan = issuing.plan(view, share * LIFE)
    if share < issuing.RENEW_AT - issuing.JITTER:
        assert plan.steps == ()
        assert 0 < plan.look_again_s <= issuing.LOOK_AGAIN_MOST_S
    if share > issuing.RENEW_AT + issuing.JITTER:
        assert len(plan.steps) == 2


def test_many_of_one_age_are_not_renewed_at_once() -> None:
    view = settled(replace(EMPTY, projects=frozenset(f"p{n}" for n in range(200))), 0)
    due = len(issuing.plan(view, LIFE * issuing.RENEW_AT).steps)
    assert 50 < due < 150


def test_another_authority_or_domain_makes_all_anew() -> None:
    view = settled(replace(EMPTY, projects=frozenset("a")), 0)
    assert len(issuing.plan(replace(view, authority="ca2"), 1).steps) == 2
    assert len(issuing.plan(replace(view, domain="apps.test"), 1).steps) == 2


def test_a_secret_is_taken_over_when_it_is_new_or_changed_and_dropped_with_it() -> None:
    view = View({}, secrets={("p", "shop"): 7}, sealed_with="k1")
    assert issuing.plan(view, 0).steps == (Copy("p", "shop", 7),)
    key = keys.certificate("p", "secret:shop")
    known = Certificate(project="p", name="secret:shop", source="secret", chain="pem", key="v1.k1.x", made_from="7")
    view = replace(view, certificates={key: known})
    assert issuing.plan(view, 0).steps == ()
    assert issuing.plan(replace(view, secrets={("p", "shop"): 8}), 0).steps == (Copy("p", "shop", 8),)
    assert issuing.plan(replace(view, secrets={}), 0).steps == (Drop(key),)


def test_a_new_key_in_the_key_file_seals_all_anew() -> None:
    view = settled(EMPTY, 0)
    key = keys.certificate(ENGINE, "local:engine")
    assert issuing.plan(replace(view, sealed_with="k2"), 1).steps == (Reseal(key),)
    again = {key: changed(view.certificates[key], key="v1.k2.x")}
    assert issuing.plan(replace(view, certificates=again, sealed_with="k2"), 1).steps == ()


def test_a_public_host_is_ordered_unless_a_secret_of_its_project_covers_it() -> None:
    hosts = {
        "shop.example.org": "p",
        "www.example.org": "q",
        "a.p.localhost": "p",
        "*.example.org": "p",
        "10.0.0.1": "p",
        "x": "p",
    }
    brought = Certificate(project="p", name="secret:s", source="secret", hosts=["*.example.org"], chain="pem", key="v1.k1.x",
                          not_after=LIFE, made_from="1")  # fmt: skip
    view = View({keys.certificate("p", "secret:s"): brought}, secrets={("p", "s"): 1}, hosts=hosts, sealed_with="k1")
    assert issuing.plan(view, 0).steps == (Order("q", "www.example.org"),)
    expired = issuing.plan(view, LIFE).steps
    assert [step.host for step in expired if isinstance(step, Order)] == ["shop.example.org", "www.example.org"]


def test_an_order_that_failed_waits_longer_each_time_and_keeps_what_there_was() -> None:
    key = keys.certificate("p", "acme:a.example.org")
    waits = [issuing.retry_s(attempts, "a.example.org") for attempts in range(1, 15)]
    assert waits == sorted(waits)
    assert waits[0] < 1.1 * issuing.FIRST_RETRY_S
    assert waits[-1] <= 1.1 * issuing.LAST_RETRY_S
    failed = Certificate(project="p", name="acme:a.example.org", source="acme", problem="dns: no such host", retry_at=500)
    view = View({key: failed}, hosts={"a.example.org": "p"}, sealed_with="k1")
    assert issuing.plan(view, 499) == issuing.Plan((), 1)
    assert issuing.plan(view, 500).steps == (Order("p", "a.example.org"),)


def test_a_host_without_a_route_loses_its_ordered_certificate() -> None:
    key = keys.certificate("p", "acme:a.example.org")
    known = Certificate(project="p", name="acme:a.example.org", source="acme", chain="pem", key="v1.k1.x", not_after=LIFE)
    assert issuing.plan(View({key: known}, sealed_with="k1"), 0).steps == (Drop(key),)
