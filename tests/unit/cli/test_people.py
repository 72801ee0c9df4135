"""`ebb user`, `role`, `token`, `whoami`, `project` and `audit`."""

import json
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from cli import commands
from cli.errors import BadUsage, Refused
from cli.main import app
from store import auditchain
from tests.unit.cli.fake import FakeApi

EBB = "/apis/ebb.dev/v1"
TOKEN = {"id": "t1", "principal": "robot:ci", "projects": ["shop"], "role": "developer", "token": "ebb_t1_secret"}


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeApi:
    made = FakeApi()
    monkeypatch.setattr(commands, "connect", lambda address, project: made.api())
    return made


def run(*words: str) -> str:
    done = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_a_token_is_asked_for_with_its_scope_and_printed(fake: FakeApi) -> None:
    fake.set(f"POST {EBB}/tokens", TOKEN)
    said = run("token", "create", "--for", "robot:ci", "--scope", "shop", "--role", "developer", "--ttl", "12h", "--note", "CI")
    assert "ebb_t1_secret\n" in said
    body = {"principal": "robot:ci", "projects": ["shop"], "role": "developer", "ttlS": 43_200, "note": "CI"}
    assert fake.asked == [(f"POST {EBB}/tokens", body)]


@pytest.mark.parametrize("ttl", ["90", "d", "0d", "1y", "-1h", ""])
def test_a_time_of_another_form_is_refused_before_anything_is_asked(ttl: str, fake: FakeApi) -> None:
    with pytest.raises(BadUsage, match="such as 90d, 12h, 30m; or never"):
        run("token", "create", "--ttl", ttl)
    assert fake.asked == []


def test_an_identity_token_is_printed_and_nothing_else(fake: FakeApi) -> None:
    fake.set(f"POST {EBB}/identity-tokens", {"token": "a.b.c"})
    assert run("token", "identity", "--audience", "http://hello.default.localhost") == "a.b.c\n"
    assert fake.asked[0][1] == {"audience": "http://hello.default.localhost"}


def test_each_token_that_is_revoked_is_named(fake: FakeApi) -> None:
    for name in ("t1", "t2"):
        fake.set(f"DELETE {EBB}/tokens/{name}", {"revoked": [name]})
    assert run("token", "revoke", "t1", "t2") == "revoked t1\nrevoked t2\n"


def test_users_are_added_disabled_and_removed(fake: FakeApi) -> None:
    fake.set(f"POST {EBB}/users", {"principal": "user:ana"})
    fake.set(f"PATCH {EBB}/users/user:ana", {})
    fake.set(f"DELETE {EBB}/users/user:ana", {})
    assert "added user:ana; next: ebb role grant" in run("user", "add", "user:ana")
    for word in ("disable", "enable", "remove"):
        assert run("user", word, "user:ana") == f"{word}d user:ana\n"
    assert [body for _, body in fake.asked[1:3]] == [{"disabled": True}, {"disabled": False}]


def test_a_role_is_of_a_project_and_platform_admin_of_all(fake: FakeApi) -> None:
    of_project, of_all = f"{EBB}/namespaces/default/bindings/viewer/user:ana", f"{EBB}/bindings/platform-admin/user:ana"
    for path in (of_project, of_all):
        fake.set(f"PUT {path}", {})
        fake.set(f"DELETE {path}", {})
    assert run("role", "grant", "viewer", "user:ana") == "user:ana is now viewer in project default\n"
    assert run("role", "revoke", "viewer", "user:ana") == "user:ana is no longer viewer in project default\n"
    assert run("role", "grant", "platform-admin", "user:ana") == "user:ana is now platform-admin everywhere\n"
    assert [asked for asked, _ in fake.asked] == [f"PUT {of_project}", f"DELETE {of_project}", f"PUT {of_all}"]


def test_whoami_says_what_one_may_where(fake: FakeApi) -> None:
    me: dict[str, Any] = {
        "principal": "user:ana",
        "token": "t1",
        "roles": {"*": ["platform-admin"], "shop": ["admin", "viewer"]},
    }
    fake.set(f"GET {EBB}/whoami", me)
    said = run("whoami")
    assert "user:ana at http://fake, with token t1" in said
    assert "everywhere: platform-admin\n" in said
    assert "shop: admin, viewer\n" in said
    fake.set(f"GET {EBB}/whoami", {**me, "roles": {}})
    assert "no role anywhere" in run("whoami")


def test_a_projects_flags_are_a_patch_of_what_is_named_alone(fake: FakeApi) -> None:
    fake.set(f"PATCH {EBB}/projects/shop", {})
    words = (
        "--quota",
        "memory_bytes=8Gi",
        "--quota",
        "services=20",
        "--policy",
        "registries=a/,b/",
        "--policy",
        "private=true",
    )
    assert run("project", "set", "shop", *words) == "changed project shop\n"
    quota, policy = {"memory_bytes": 8 * 2**30, "services": 20}, {"registries": ["a/", "b/"], "private": True}
    assert fake.asked == [(f"PATCH {EBB}/projects/shop", {"quota": quota, "policy": policy})]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ((), "nothing to change"),
        (("--quota", "services"), "want WHAT=VALUE"),
        (("--quota", "services=many"), "want a number"),
        (("--policy", "signature_keys=/nonexistent.pem"), "want files of public keys"),
    ],
)
def test_flags_of_a_project_that_make_no_sense_are_refused(words: tuple[str, ...], why: str, fake: FakeApi) -> None:
    with pytest.raises(BadUsage, match=why):
        run("project", "set", "shop", *words)
    assert fake.asked == []


def test_projects_are_created_and_deleted(fake: FakeApi) -> None:
    fake.set(f"POST {EBB}/projects", {"name": "shop"})
    fake.set(f"DELETE {EBB}/projects/shop", {})
    assert run("project", "create", "shop", "--weight", "3") == "created project shop\n"
    assert fake.asked == [(f"POST {EBB}/projects", {"name": "shop", "weight": 3})]
    assert run("project", "delete", "shop") == "deleted project shop\n"


def test_the_audit_log_is_verified_and_what_was_cut_off_is_told(fake: FakeApi) -> None:
    lines, head = [], auditchain.Head()
    for number in range(5):
        line, head = auditchain.link({"number": number}, head)
        lines.append(json.dumps(line))
    fake.set(f"GET {EBB}/audit", lambda _: httpx.Response(200, text="\n".join(lines)))
    kept = f"5:{head.hash}"
    assert f"ebb audit --verify --since {kept}\n" in run("audit", "--verify")
    assert "5 lines hold" in run("audit", "--verify", "--since", kept)
    del lines[3:]
    assert "3 lines hold" in run("audit", "--verify")
    with pytest.raises(Refused, match="its last 2 lines were cut off"):
        run("audit", "--verify", "--since", kept)
    with pytest.raises(BadUsage, match="want SEQ:DIGEST"):
        run("audit", "--since", "5")
