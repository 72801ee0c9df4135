"""What registries write into WWW-Authenticate."""

from hypothesis import given
from hypothesis import strategies as st

from nodeagent.images.challenge import Challenge, Credential, parse


def test_a_bearer_challenge_gives_realm_service_and_scope() -> None:
    header = 'Bearer realm="https://auth.example/token",service="reg.example",scope="repository:a/b:pull,push"'
    assert parse(header) == [Challenge("bearer", "https://auth.example/token", "reg.example", "repository:a/b:pull,push")]


def test_several_challenges_in_one_header_are_told_apart() -> None:
    assert parse('Basic realm="x", Bearer realm="https://a/t", service=s') == [
        Challenge("basic", "x"),
        Challenge("bearer", "https://a/t", "s"),
    ]


def test_quotes_and_bare_schemes_are_understood() -> None:
    assert parse(r'Basic realm="a \"b\", c"') == [Challenge("basic", 'a "b", c')]
    assert parse("Negotiate") == [Challenge("negotiate")]
    assert parse("") == []


def test_a_credential_is_sent_as_basic() -> None:
    assert Credential("me", "s:ü").basic() == "Basic bWU6czrDvA=="


@given(st.text(max_size=200))
def test_any_header_is_read_without_failing(header: str) -> None:
    for found in parse(header):
        assert found.scheme
