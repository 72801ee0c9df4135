"""Hosts at which the front door answers some requests itself: proofs for ACME, redirects to TLS."""

import pytest

from ingress.detour import Detour
from ingress.http1 import Request
from ingress.routes import Routes
from store.model import Limits, RouteEntry, TrafficTarget

HOST = b"shop.example.org"
PROOF = b"/.well-known/acme-challenge/t0ken"


def routes(*, redirects: bool = False, https_port: int = 443) -> Routes:
    made = Routes()
    made.https_port = https_port
    targets = {HOST.decode(): [TrafficTarget(revision="r1", percent=100)]}
    made.put("k", RouteEntry(project="p", route="shop", hosts=targets, limits={"r1": Limits()}, redirects=redirects))
    return made


def said(
    found: object, target: bytes = b"/a?b=c", method: bytes = b"GET", secure: bool = False, host: bytes = HOST
) -> tuple[int, str]:
    """Status, and Location or body; (0, "") when the request is passed on."""
    assert isinstance(found, Detour)
    answered = found.answer(Request(method, target, host, []), secure)
    if answered is None:
        return 0, ""
    response, body = answered
    return response.status, dict(response.fields).get(b"Location", body).decode()


@pytest.mark.parametrize(
    ("method", "host", "target", "port", "expected"),
    [
        (b"GET", HOST, b"/a?b=c", 443, (301, "https://shop.example.org/a?b=c")),
        (b"HEAD", HOST + b":80", b"/", 443, (301, "https://shop.example.org/")),
        (b"POST", HOST + b":8080", b"/a", 8443, (308, "https://shop.example.org:8443/a")),
        (b"OPTIONS", HOST, b"*", 443, (308, "https://shop.example.org/")),
        (b"GET", b"[::1]:80", b"/", 8443, (301, "https://[::1]:8443/")),
    ],
)
def test_plain_http_is_sent_to_the_same_place_by_tls(
    method: bytes, host: bytes, target: bytes, port: int, expected: tuple[int, str]
) -> None:
    found = routes(redirects=True, https_port=port).find(HOST)
    assert said(found, target, method, host=host) == expected
    assert said(found, target, method, secure=True, host=host) == (0, "")
    assert isinstance(found, Detour)
    assert found.only is None
    assert found.pick(0.5) is None
    assert found.behind is not None
    assert found.behind.only is not None


def test_without_tls_nobody_is_redirected() -> None:
    assert not isinstance(routes(redirects=True, https_port=0).find(HOST), Detour)
    assert not isinstance(routes().find(HOST), Detour)


def test_a_proof_is_answered_before_the_redirect_and_only_where_it_is_asked_for() -> None:
    book = routes(redirects=True)
    assert said(book.find(HOST), PROOF)[0] == 301
    book.prove(HOST.decode(), "t0ken", "t0ken.print")
    assert said(book.find(HOST), PROOF) == (200, "t0ken.print")
    assert said(book.find(HOST), PROOF + b"x")[0] == 301
    assert said(book.find(HOST), PROOF, b"HEAD") == (200, "")
    book.prove("new.example.org", "t0ken", "other")
    unrouted = book.find(b"new.example.org")
    assert said(unrouted, PROOF) == (200, "other")
    assert said(unrouted, b"/") == (0, "")
    assert book.project_of("new.example.org") == ""
    for host in (HOST.decode(), "new.example.org", "never.example.org"):
        book.prove(host, "t0ken", None)
    assert said(book.find(HOST), PROOF)[0] == 301
    assert book.find(b"new.example.org") is None
