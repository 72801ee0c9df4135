"""Names of images, as everybody writes them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.imageref import MAX_NAME, BadReference, ImageRef, parse

DIGEST = "sha256:" + "a1" * 32


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("nginx", "docker.io/library/nginx:latest"),
        ("nginx:1.25", "docker.io/library/nginx:1.25"),
        ("me/app", "docker.io/me/app:latest"),
        ("docker.io/nginx", "docker.io/library/nginx:latest"),
        ("index.docker.io/library/nginx", "docker.io/library/nginx:latest"),
        ("localhost/x", "localhost/x:latest"),
        ("localhost:5000/x", "localhost:5000/x:latest"),
        ("localhost:5000/x:y", "localhost:5000/x:y"),
        ("127.0.0.1:5000/a/b__c/d-e.f:V_1", "127.0.0.1:5000/a/b__c/d-e.f:V_1"),
        ("[::1]:5000/x", "[::1]:5000/x:latest"),
        ("registry.example.com/team/app@" + DIGEST, "registry.example.com/team/app@" + DIGEST),
        ("registry.example.com/team/app:v1@" + DIGEST, "registry.example.com/team/app:v1@" + DIGEST),
        ("nginx@" + DIGEST, "docker.io/library/nginx@" + DIGEST),
        ("a:5000", "docker.io/library/a:5000"),
        ("HOST.example/x", "HOST.example/x:latest"),
    ],
)
def test_short_names_are_filled_in_as_everybody_does(text: str, canonical: str) -> None:
    assert str(parse(text)) == canonical


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("Nginx", "use lower case"),
        ("a//b", "empty path segment"),
        ("/a", "empty path segment"),
        ("a/", "empty path segment"),
        ("localhost:5000/", "no repository"),
        ("localhost:99999/x", "port 1-65535"),
        ("localhost:0/x", "port 1-65535"),
        ("-bad.host/x", "host '-bad.host'"),
        ("a:", "tag ''"),
        ("a:.x", "tag '.x'"),
        ("a:" + "t" * 129, "1 to 128"),
        ("a@sha256:abc", "64"),
        ("a@md5:" + "0" * 32, "digest"),
        ("a@" + DIGEST.upper(), "digest"),
        ("a___b", "path segment"),
        ("a..b", "path segment"),
        ("../../etc/passwd", "host '..'"),
        ("a/../b", "path segment"),
        ("a b", "path segment"),
        ("a\n", "path segment"),
        ("http://a/b", "host 'http:'"),
        ("x" * 2000, "at most 1024"),
        ("a/" * 121 + "bc", None),
        ("a/" * 124 + "bcdef", "at most 255"),
    ],
)
def test_what_is_wrong_is_named_with_what_is_allowed(text: str, says: str | None) -> None:
    if says is None:
        parse(text)
        return
    with pytest.raises(BadReference, match=says):
        parse(text)


def test_a_name_by_digest_has_no_tag() -> None:
    assert parse("nginx:1.25").at(DIGEST) == "docker.io/library/nginx@" + DIGEST
    with pytest.raises(BadReference):
        parse("nginx").at("latest")


_segments = st.from_regex(r"[a-z0-9]{1,8}((\.|_|__|-)[a-z0-9]{1,4})?", fullmatch=True)
_hosts = st.sampled_from(["docker.io", "localhost", "localhost:5000", "r.example:80", "10.0.0.1"])
_refs = st.builds(
    lambda host, path, tag, digest: ImageRef(
        host, "/".join(path), tag or ("" if digest else "latest"), DIGEST if digest else ""
    ),
    _hosts,
    st.lists(_segments, min_size=2, max_size=4),
    st.one_of(st.just(""), st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True)),
    st.booleans(),
)


@given(_refs)
def test_what_is_written_reads_back_the_same(ref: ImageRef) -> None:
    assert parse(str(ref)) == ref


@given(st.text(max_size=300))
def test_any_text_is_a_reference_or_refused(text: str) -> None:
    try:
        ref = parse(text)
    except BadReference:
        return
    assert parse(str(ref)) == ref
    assert len(ref.name) <= MAX_NAME
    assert ".." not in ref.repository
