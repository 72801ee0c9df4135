"""The cluster's own authority: what it issues, when anew, and who can read it."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from deploy.identities import DIRECT, Identities, NotIssued
from deploy.issued import Issued
from deploy.settings import Engine
from process.identity import OWN, BadIdentity, Identity, Who, who_in

DAY_S = 86_400.0
NOW = 1_800_000_000.0


@pytest.fixture
def made(tmp_path: Path) -> Identities:
    return Identities(tmp_path)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_keys_are_their_owners_alone_and_the_authority_is_made_once(tmp_path: Path) -> None:
    first = Identities(tmp_path)
    first.issue(Who("ingress", "a"), first.directory("ingress"), NOW)
    assert (mode(first.key), mode(first.key.parent)) == (0o600, 0o700)
    assert (mode(first.directory("ingress") / OWN), mode(first.directory("ingress"))) == (0o600, 0o700)
    again = Identities(tmp_path)
    assert again.certificate.read_bytes() == first.certificate.read_bytes()
    first.key.write_text("no key")
    with pytest.raises(NotIssued):
        Identities(tmp_path)


def test_a_certificate_says_its_role_and_name_and_lasts_a_day(made: Identities) -> None:
    where = made.directory("nodeagent")
    made.issue(Who("nodeagent", "node-1"), where, NOW)
    own = Identity(where)
    assert own.who == Who("nodeagent", "node-1")
    assert own.certificate().not_valid_after_utc.timestamp() == NOW + DAY_S
    assert own.look_every_s() <= 30


@pytest.mark.parametrize(
    ("role", "serves", "direct"),
    [
        ("nodeagent", True, False),
        ("ingress", True, False),
        ("registry", False, True),
        ("autoscaler", False, True),
        ("cli", False, False),
    ],
)
def test_only_a_server_can_serve_and_only_who_may_goes_to_etcd_itself(
    role: str, serves: bool, direct: bool, made: Identities
) -> None:
    made.issue(Who(role, "a"), made.directory(role), NOW)
    known = Identity(made.directory(role)).certificate()
    uses = known.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    names = known.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName)
    assert (ExtendedKeyUsageOID.SERVER_AUTH in uses) is serves
    assert (DIRECT in names) is direct
    assert "store.ebb" not in names


def test_it_is_due_when_a_third_of_its_life_is_left(made: Identities) -> None:
    where = made.directory("gate")
    assert made.due(where, NOW)
    made.issue(Who("gate", "a"), where, NOW)
    assert not made.due(where, NOW + 0.6 * DAY_S)
    assert made.due(where, NOW + 0.7 * DAY_S)
    (where / "ca.crt").write_text("another authority's")
    assert made.due(where, NOW)


@pytest.mark.parametrize(
    "uri", ["ebb://nodeagent/a/b", "ebb://nodeagent/", "ebb://root/a", "ebb://nodeagent/*", "ebb://nodeagent/>", "https://a"]
)
def test_a_uri_that_is_not_exactly_ours_names_nobody(uri: str) -> None:
    assert who_in([uri]) is None
    assert who_in(["ebb://nodeagent/a", "ebb://nodeagent/b"]) is None


def test_what_is_not_there_is_told_with_the_cure(tmp_path: Path) -> None:
    with pytest.raises(BadIdentity, match=r"deploy\.identities issue"):
        Identity(tmp_path)


def test_a_machine_that_joins_is_known_to_nats_until_it_is_shut_out(tmp_path: Path) -> None:
    engine = Engine(root=str(tmp_path / "root"))
    issued = Issued(engine)
    assert issued.renew()
    assert not issued.renew()
    argv = [
        sys.executable,
        "-m",
        "deploy.identities",
        "issue",
        "--root",
        engine.root,
        "--role",
        "nodeagent",
        "--name",
        "node-2",
    ]
    subprocess.run([*argv, "--out", str(tmp_path / "node-2"), "--hours", "1"], check=True, timeout=60)
    assert Identity(tmp_path / "node-2").certificate().not_valid_after_utc.timestamp() < time.time() + 3700

    def users() -> set[str]:
        return {user["user"] for user in json.loads(engine.nats_config.read_text())["authorization"]["users"]}

    assert issued.renew()
    assert "ebb://nodeagent/node-2" in users()
    (engine.identity("gate") / "revoked").write_text("ebb://nodeagent/node-2\n")
    assert issued.renew()
    assert "ebb://nodeagent/node-2" not in users()
    assert mode(engine.nats_config) == 0o600
