"""Tokens as text, rate limits, the audit log and its chain, and what routes mean."""

import json
import os
from pathlib import Path

import pytest

from registry import tokens
from registry.api import doors
from registry.audit import Attempt, AuditFailed, AuditLog
from registry.authorisation import Decision, Identity, decide
from registry.ratelimit import Buckets, retry_after_s
from store import auditchain
from store.access import Token


class Clock:
    """Stands still."""

    def now(self) -> float:
        return 100.0

    def wall(self) -> float:
        return 1_800_000_000.0


def test_a_token_has_256_random_bits_and_only_its_digest_is_kept() -> None:
    text, other = tokens.new_text(), tokens.new_text()
    token_id, digest = tokens.parse(text)
    assert text.startswith(f"ebb_{token_id}_")
    assert len(text.rpartition("_")[2]) * 4 == 256
    kept = Token(id=token_id, principal="user:ana", digest=digest)
    assert text.rpartition("_")[2] not in repr(kept)
    assert tokens.matches(kept, digest)
    assert not tokens.matches(kept, tokens.parse(other)[1])


@pytest.mark.parametrize(
    "text", ["", "ebb", "x" * 10_000, "ebb_abcd_" + "g" * 64, "EBB_abcd_" + "0" * 64, "ebb_abcd_" + "٠" * 64]
)
def test_what_is_no_token_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(tokens.NoToken) as refused:
        tokens.parse(text)
    assert len(text) < 9 or text not in str(refused.value)


def test_a_bucket_gives_its_burst_at_once_and_then_its_rate() -> None:
    buckets = Buckets(per_s=10, burst=3)
    assert [buckets.take("ana", 0.0) for _ in range(3)] == [0, 0, 0]
    assert buckets.take("ana", 0.0) == pytest.approx(0.1)
    assert buckets.take("bob", 0.0) == 0, "one's requests do not slow down another's"
    assert buckets.take("ana", 0.1) == 0
    assert [retry_after_s(wait) for wait in (0.01, 1.0, 1.2)] == [1, 1, 2]
    assert Buckets(per_s=0, burst=0).take("ana", 0) == 0


def test_buckets_are_bounded_and_the_one_not_seen_for_longest_is_forgotten() -> None:
    buckets = Buckets(per_s=1, burst=1, most=2)
    for name in ("a", "b", "c"):
        assert buckets.take(name, 0) == 0
    assert buckets.take("c", 0) > 0
    assert buckets.take("a", 0) == 0


def attempts(log: AuditLog, count: int) -> None:
    for number in range(count):
        log.write(Attempt(who="user:ana", action="create", kind="services", project="shop", name=f"s{number}"), 201)


def chain(log: AuditLog) -> tuple[int, auditchain.Head, str]:
    return auditchain.check(json.loads(line) for line in log.lines())


def test_the_audit_log_is_one_chain_over_restarts_and_rotations(tmp_path: Path) -> None:
    clock = Clock()
    first = AuditLog(tmp_path / "audit", clock, file_most_bytes=2000)
    first.open()
    attempts(first, 20)
    second = AuditLog(tmp_path / "audit", clock, file_most_bytes=2000)
    second.open()
    attempts(second, 20)
    assert len(second.files()) > 5
    assert chain(second) == (40, second.head, "")
    assert {path.stat().st_mode & 0o777 for path in second.files()} == {0o600}


def test_old_files_go_and_what_is_left_still_is_a_chain(tmp_path: Path) -> None:
    log = AuditLog(tmp_path, Clock(), file_most_bytes=1000, files_most=3)
    log.open()
    attempts(log, 50)
    assert len(log.files()) == 3
    count, head, wrong = chain(log)
    assert (wrong, head) == ("", log.head)
    assert count < 50


def test_half_a_line_of_a_machine_that_lost_power_is_cut_off(tmp_path: Path) -> None:
    log = AuditLog(tmp_path, Clock())
    log.open()
    attempts(log, 3)
    with log.files()[0].open("ab") as file:
        file.write(b'{"seq": 4, "who"')
    again = AuditLog(tmp_path, Clock())
    again.open()
    attempts(again, 1)
    assert chain(again) == (4, again.head, "")


def test_a_line_that_was_changed_taken_out_or_moved_is_found(tmp_path: Path) -> None:
    log = AuditLog(tmp_path, Clock())
    log.open()
    attempts(log, 6)
    lines = [json.loads(line) for line in log.lines()]
    changed = [*lines[:2], {**lines[2], "who": "user:bob"}, *lines[3:]]
    rewritten = [*lines[:2], {**changed[2], "hash": auditchain.digest(changed[2])}, *lines[3:]]
    for spoiled in (changed, rewritten, [*lines[:2], *lines[3:]], [lines[1], lines[0], *lines[2:]], [lines[0], *lines]):
        assert auditchain.check(spoiled)[2], spoiled
    assert not auditchain.check(lines)[2]


def test_refusals_are_told_but_cannot_flood_and_what_is_left_out_is_counted(tmp_path: Path) -> None:
    clock = Clock()
    log = AuditLog(tmp_path, clock)
    log.open()
    for _ in range(1000):
        log.refused(Attempt(address="192.0.2.1", why="no such token"), 401)
    told = list(log.lines())
    assert 0 < len(told) < 50
    log.refused(Attempt(address="192.0.2.2", why="no such token"), 401)
    assert json.loads(list(log.lines())[-1])["left_out"] == 1000 - len(told), "another address is still told of"


def test_no_name_breaks_a_line_of_the_log(tmp_path: Path) -> None:
    log = AuditLog(tmp_path, Clock())
    log.open()
    log.write(Attempt(who="user:ana", name='x"}\n{"seq": 9}\x1b[31m' + "y" * 5000, action="create"), 422)
    (line,) = log.lines()
    said = json.loads(line)
    assert "\n" not in said["name"]
    assert "\x1b" not in said["name"]
    assert len(line) < 1500


def test_a_log_that_cannot_be_written_says_so_before_and_after(tmp_path: Path) -> None:
    log = AuditLog(tmp_path, Clock())
    log.open()
    attempts(log, 1)
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, log._fd)
    os.close(full)
    with pytest.raises(AuditFailed):
        attempts(log, 1)


def test_a_route_that_the_table_does_not_know_is_the_platforms_admins_alone() -> None:
    entry = doors.entry("POST", "/apis/ebb.dev/v1/new/{ns}", {"ns": "shop"}, {})
    assert decide(Identity("user:ana", {"shop": ("admin",)}), entry.action, entry.project, entry.kind) is Decision.FORBIDDEN
    assert entry.told


@pytest.mark.parametrize(
    "path", [{"ns": "../x"}, {"ns": "A"}, {"ns": "a" * 64}, {"ns": "a", "name": "x\0y"}, {"ns": "a", "name": "é"}]
)
def test_a_path_that_names_nothing_that_can_be_is_nowhere(path: dict[str, str]) -> None:
    with pytest.raises(doors.NoSuchPlace):
        doors.entry("GET", "/apis/ebb.dev/v1/namespaces/{ns}/instances", path, {})
