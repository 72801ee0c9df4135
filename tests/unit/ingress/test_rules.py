"""Hosts with rules: paths, tags, sessions, and where they leave a request alone."""

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingress.http1 import Request
from ingress.routes import Routes
from ingress.rules import Affinity, Paths, Ruled
from ingress.traffic import Choice, Split
from store import keys
from store.model import Domain, Limits, Mirror, PathRule, RouteEntry, TrafficTarget


def route(name: str, shares: dict[str, int], sticky: bool = False, **more: object) -> RouteEntry:
    return RouteEntry(
        project="p", route=name, main=name, hosts={name: [TrafficTarget(revision=r, percent=p) for r, p in shares.items()]},
        limits={r: Limits(session_affinity=sticky) for r in shares}, affinity_key="key" if sticky else "", **more,  # type: ignore[arg-type]
    )  # fmt: skip


def request(target: bytes = b"/", *fields: tuple[bytes, bytes], tag: bytes = b"") -> Request:
    made = Request(b"GET", target, b"h", list(fields))
    made.tag = tag
    return made


def ruled(entry: RouteEntry, host: str = "") -> Ruled:
    routes = Routes()
    routes.put(keys.route("p", entry.route), entry)
    found = routes.find((host or entry.main).encode())
    assert isinstance(found, Ruled)
    return found


def chosen(split: Ruled, sent: Request, chance: float = 0.0) -> str:
    choice, _, _ = split.choose(sent, chance)
    assert choice is not None
    return choice.revision


def where(routes: Routes, host: bytes, target: bytes) -> tuple[str, bytes]:
    """The revision that answers, and the target that it sees."""
    found, sent = routes.find(host), request(target)
    if isinstance(found, Paths):
        found = found.at(sent)
    choice = found.only if found is not None else None
    return choice.revision if choice is not None else "", sent.target


# -- paths ------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def routes() -> Routes:
    made = Routes()
    rules = [
        PathRule(prefix="/api", route="api"),
        PathRule(prefix="/api/v2", route="new"),
        PathRule(prefix="/img", route="img", strip=True),
    ]
    made.put(keys.route("p", "shop"), route("shop", {"shop-1": 100}, paths=[*rules, PathRule(prefix="/gone", route="gone")]))
    for name in ("api", "new", "img"):
        made.put(keys.route("p", name), route(name, {f"{name}-1": 100}))
    return made


@pytest.mark.parametrize(
    ("target", "revision", "seen"),
    [
        (b"/", "p/shop-1", b"/"),
        (b"/apis", "p/shop-1", b"/apis"),
        (b"/api", "p/api-1", b"/api"),
        (b"/api/", "p/api-1", b"/api/"),
        (b"/api?x=/api/v2", "p/api-1", b"/api?x=/api/v2"),
        (b"/api/v20/x", "p/api-1", b"/api/v20/x"),
        (b"/api/v2/x/y/z/" + b"a/" * 200, "p/new-1", b"/api/v2/x/y/z/" + b"a/" * 200),
        (b"/img", "p/img-1", b"/"),
        (b"/img?w=1", "p/img-1", b"/?w=1"),
        (b"/img//evil/a?b", "p/img-1", b"/evil/a?b"),
        (b"/gone/x", "", b"/gone/x"),
        (b"*", "p/shop-1", b"*"),
    ],
)
def test_the_longest_prefix_of_whole_segments_decides(routes: Routes, target: bytes, revision: str, seen: bytes) -> None:
    assert where(routes, b"shop", target) == (revision, seen)


def test_a_domain_has_its_services_paths_unless_it_has_its_own(routes: Routes) -> None:
    routes.put_domain("shop.example", Domain(project="p", route="shop"))
    assert where(routes, b"shop.example", b"/api")[0] == "p/api-1"
    routes.put_domain("shop.example", Domain(project="p", route="shop", paths=[PathRule(prefix="/x", route="new")]))
    assert where(routes, b"shop.example", b"/x")[0] == "p/new-1"
    assert where(routes, b"shop.example", b"/api")[0] == "p/shop-1"


def test_a_path_follows_its_services_present_shares(routes: Routes) -> None:
    assert where(routes, b"shop", b"/api")[0] == "p/api-1"
    routes.put(keys.route("p", "api"), route("api", {"api-2": 100}))
    assert where(routes, b"shop", b"/api")[0] == "p/api-2"


@given(st.lists(st.sampled_from([b"api", b"v2", b"img", b"x", b""]), max_size=8))
def test_a_prefix_never_ends_inside_a_segment(segments: list[bytes]) -> None:
    shop, api, new = (Split("p", [(Choice("p", name, Limits()), 100)]) for name in ("shop", "api", "new"))
    paths = Paths("p", shop, {b"/api": (api, False), b"/api/v2": (new, False)})
    found = paths.at(request(b"/" + b"/".join(segments)))
    expected = new if segments[:2] == [b"api", b"v2"] else api if segments[:1] == [b"api"] else shop
    assert found is expected


# -- tags -------------------------------------------------------------------------------------------------------------------------


def test_a_header_chooses_only_a_tag_that_there_is_and_is_passed_on_then() -> None:
    split = ruled(route("shop", {"shop-1": 100, "shop-2": 0}, tags={"next": "shop-2"}))
    tagged, unknown = request(tag=b"next"), request(tag=b"nex")
    assert chosen(split, tagged) == "p/shop-2"
    assert tagged.fields == [(b"Knative-Serving-Tag", b"next")]
    assert chosen(split, unknown) == "p/shop-1"
    assert unknown.fields == []


def test_without_rules_a_host_is_a_plain_split() -> None:
    routes = Routes()
    routes.put(keys.route("p", "shop"), route("shop", {"shop-1": 100}))
    assert type(routes.find(b"shop")) is Split


# -- sessions ---------------------------------------------------------------------------------------------------------------------


def cookie(field: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
    """What a browser sends back."""
    return b"Cookie", b"a=b; " + field[1].partition(b";")[0] + b"; c=d"


def test_a_cookie_leads_back_to_its_revision_and_instance_and_says_neither() -> None:
    split = ruled(route("shop", {"shop-1": 50, "shop-2": 50}, sticky=True))
    choice, affinity, wish = split.choose(request(), 0.9)
    assert choice is not None
    assert affinity is not None
    assert (choice.revision, wish) == ("p/shop-2", b"")
    field = affinity.field(choice, "shop-2-abc")
    assert b"HttpOnly" in field[1]
    assert b"Max-Age=" in field[1]
    assert b"shop" not in field[1]
    assert field[1] + b"; Secure" == affinity.field(choice, "shop-2-abc", secure=True)[1]
    again, _, token = split.choose(request(b"/", cookie(field)), 0.0)
    assert again is choice
    elsewhere = ruled(route("shop", {"shop-1": 50, "shop-2": 50}, sticky=True)).affinity
    assert elsewhere is not None
    assert elsewhere.instance(token, ["shop-2-xyz", "shop-2-abc"]) == "shop-2-abc", "another ingress knows it too"
    assert elsewhere.instance(token, []) == "shop-2-abc"
    assert affinity.instance(b"x" * 16, ["shop-2-xyz"]) == ""


def test_a_cookie_yields_when_its_revision_has_no_share_any_more_or_the_key_is_another() -> None:
    first = ruled(route("shop", {"shop-1": 50, "shop-2": 50}, sticky=True))
    choice, affinity, _ = first.choose(request(), 0.9)
    assert choice is not None
    assert affinity is not None
    sent = request(b"/", cookie(affinity.field(choice, "i")))
    moved = ruled(route("shop", {"shop-1": 100, "shop-2": 0}, sticky=True))
    assert chosen(moved, sent) == "p/shop-1"
    forged = Affinity("another key", "p/shop", [choice]).field(choice, "i")
    assert first.choose(request(b"/", cookie(forged)), 0.0)[2] == b""


def test_new_sessions_are_shared_by_percent() -> None:
    split = ruled(route("shop", {"shop-1": 90, "shop-2": 10}, sticky=True))
    random = Random(2)
    counts = Counter(chosen(split, request(), random.random()) for _ in range(20_000))
    assert abs(counts["p/shop-2"] - 2000) < 3.29 * (20_000 * 0.1 * 0.9) ** 0.5


def test_a_tagged_request_leaves_sessions_alone() -> None:
    split = ruled(
        route("shop", {"shop-1": 100}, sticky=True, tags={"old": "shop-1"}, mirror=Mirror(revision="shop-1", percent=5))
    )
    choice, affinity, _ = split.choose(request(tag=b"old"), 0.0)
    assert choice is not None
    assert affinity is None
    assert (split.mirror, split.mirror_percent) == (choice, 5)
