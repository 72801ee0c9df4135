"""Which certificate a name gets."""

import pytest

from ingress.certificates import Certificates
from store.certificates import ENGINE, Certificate

PROJECTS = {"a.p.localhost": "p", "b.q.localhost": "q", "shop.example.org": "p"}
NOW = 1000.0


def certificate(*hosts: str, project: str = "p", source: str = "secret", begin: float = 0, end: float = 2000) -> Certificate:
    return Certificate(project=project, name=f"{source}:{hosts[0]}", source=source, hosts=list(hosts), chain="pem", key="sealed",
                       not_before=begin, not_after=end)  # fmt: skip


def chosen(name: str, *certificates: Certificate) -> Certificate | None:
    book = Certificates(lambda host: PROJECTS.get(host, ""))
    for number, each in enumerate(certificates):
        book.put(str(number), each)
    return book.choose(name, NOW)


def test_the_exact_name_goes_before_the_wildcard_whatever_its_case_and_final_dot() -> None:
    exact, wild = certificate("a.p.localhost", source="local"), certificate("*.p.localhost")
    assert chosen("A.p.LOCALHOST.", wild, exact) is exact
    assert chosen("a.p.localhost", wild) is wild


def test_a_wildcard_is_for_one_label() -> None:
    assert chosen("x.a.p.localhost", certificate("*.p.localhost", source="local")) is None
    assert chosen("p.localhost", certificate("*.p.localhost", source="local")) is None


@pytest.mark.parametrize("order", [1, -1])
def test_valid_goes_before_expired_brought_before_issued_new_before_old(order: int) -> None:
    expired, early = certificate("a.p.localhost", end=NOW), certificate("a.p.localhost", begin=NOW + 1)
    acme, local = certificate("a.p.localhost", source="acme"), certificate("a.p.localhost", source="local", begin=900)
    old, new = certificate("a.p.localhost", begin=1), certificate("a.p.localhost", begin=2)
    assert chosen("a.p.localhost", *[expired, early, local][::order]) is local
    assert chosen("a.p.localhost", *[acme, local][::order]) is acme
    assert chosen("a.p.localhost", *[old, new, acme][::order]) is new
    assert chosen("a.p.localhost", expired) is expired


def test_a_host_is_served_by_certificates_of_its_own_project_and_of_the_engine() -> None:
    theirs = certificate("b.q.localhost", project="p")
    assert chosen("b.q.localhost", theirs) is None
    engines = certificate("*.q.localhost", project=ENGINE, source="local")
    assert chosen("b.q.localhost", theirs, engines) is engines


def test_a_host_without_a_route_can_have_only_what_the_engine_issued() -> None:
    brought, issued = certificate("new.p.localhost"), certificate("*.p.localhost", source="local")
    assert chosen("new.p.localhost", brought) is None
    assert chosen("new.p.localhost", brought, issued) is issued


def test_who_says_no_name_gets_the_engines_own() -> None:
    engines = certificate("localhost", "127.0.0.1", project=ENGINE, source="local")
    assert chosen("", certificate("a.p.localhost"), engines) is engines
    assert chosen("", certificate("a.p.localhost")) is None


def test_what_is_replaced_or_deleted_is_not_chosen_any_more() -> None:
    book = Certificates(lambda host: PROJECTS.get(host, ""))
    first, second = certificate("a.p.localhost", "shop.example.org"), certificate("a.p.localhost")
    book.put("k", first)
    book.put("k", second)
    assert book.choose("shop.example.org", NOW) is None
    assert book.choose("a.p.localhost", NOW) is second
    book.put("k", Certificate(project="p", name="acme:a", source="acme", hosts=["a.p.localhost"], problem="not yet"))
    assert book.choose("a.p.localhost", NOW) is None
    book.put("k", first)
    book.delete("k")
    book.delete("k")
    assert len(book) == 0
    assert book.choose("a.p.localhost", NOW) is None
