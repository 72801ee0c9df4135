"""The commands against a fake API: what is asked, what is printed."""

import json
from typing import Any

import httpx
import pytest

from cli import commands, rollout, streams
from cli.errors import BadUsage, Refused
from cli.manifest import Wanted
from cli.show import Form
from cli.steps import Steps
from tests.unit.cli.fake import SERVICE, FakeApi, revision, status

BASE = "/apis/serving.knative.dev/v1/namespaces/default"
Captured = pytest.CaptureFixture[str]


def test_services_as_a_table(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 1795439100.0)
    commands.services(FakeApi().api(), [], False, Form.TABLE)
    assert capsys.readouterr().out == (
        "NAME   URL                                  LATEST       READY  TRAFFIC                        AGE\n"
        "hello  http://hello.default.localhost:8080  hello-00002  True   hello-00001=90 hello-00002=10  5m\n"
    )


@pytest.mark.parametrize(("form", "starts"), [(Form.JSON, "["), (Form.YAML, "- apiVersion"), (Form.NAME, "hello\n")])
def test_services_for_scripts(capsys: Captured, form: Form, starts: str) -> None:
    commands.services(FakeApi().api(), [], False, form)
    assert capsys.readouterr().out.startswith(starts)


def test_one_service_as_json_is_the_object_itself(capsys: Captured) -> None:
    commands.services(FakeApi().api(), ["hello"], False, Form.JSON)
    assert json.loads(capsys.readouterr().out) == SERVICE


def test_revisions_show_traffic_tags_and_instances(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 1795438803.0)
    commands.revisions(FakeApi().api(), [], "", Form.TABLE)
    assert capsys.readouterr().out == (
        "NAME         SERVICE  TRAFFIC  TAGS  INSTANCES  READY  AGE\n"
        "hello-00002  hello    10%      next  1 Ready    True   3s\n"
        "hello-00001  hello    90%      -     -          True   3s\n"
    )


def test_a_change_of_traffic_is_written_and_shown(capsys: Captured) -> None:
    fake = FakeApi()
    commands.traffic(fake.api(), "hello", ["hello-00001=50", "hello-00002=50"], [], [], False, True, Form.TABLE)
    written = [body for key, body in fake.asked if key.startswith("PUT")]
    assert [share["percent"] for share in written[0]["spec"]["traffic"]] == [50, 50]
    assert "hello-00001" in capsys.readouterr().out


def test_an_unknown_revision_in_traffic_is_bad_usage_and_nothing_is_written() -> None:
    fake = FakeApi()
    with pytest.raises(BadUsage, match="revisions are: hello-00001, hello-00002"):
        commands.traffic(fake.api(), "hello", ["nope=100"], [], [], False, True, Form.TABLE)
    assert not [key for key, _ in fake.asked if key.startswith("PUT")]


def test_a_deploy_ends_with_the_url(capsys: Captured) -> None:
    commands.deploy(FakeApi().api(), "hello", Wanted(image="hello:v2"), None, tag="", wait_s=5, form=Form.TABLE)
    captured = capsys.readouterr()
    assert captured.out == "http://hello.default.localhost:8080\n"
    for step in (
        "service hello changed (generation 2)",
        "revision hello-00002",
        "image hello@sha256:",
        "is ready",
        "traffic: ",
    ):
        assert step in captured.err


def test_two_people_deploying_at_once_both_get_through(capsys: Captured) -> None:
    fake = FakeApi()
    answers = iter([status(409, "Conflict", "the object has been modified"), httpx.Response(200, json=SERVICE)])
    fake.set(f"PUT {BASE}/services/hello", lambda _: next(answers))
    commands.deploy(fake.api(), "hello", Wanted(image="hello:v2"), None, tag="", wait_s=0, form=Form.NAME)
    assert capsys.readouterr().out == "hello\n"
    assert len([key for key, _ in fake.asked if key.startswith("PUT")]) == 2


def test_a_failed_deploy_says_reason_exit_code_and_last_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout, "FAILED_FOR_S", 0.0)
    fake = FakeApi()
    failing: dict[str, Any] = json.loads(json.dumps(SERVICE))
    failing["status"]["conditions"] = [{"type": "Ready", "status": "False", "reason": "RevisionFailed", "message": "it failed"}]
    fake.set(f"GET {BASE}/services/hello", failing)
    bad = revision("hello-00002", status="False", reason="ExitCode3", message="the app ended with exit code 3")
    fake.set(f"GET {BASE}/revisions/hello-00002", bad)
    line = json.dumps({"line": "no such file: \x1b[2Jconfig.ini"}) + "\n"
    fake.set("GET /apis/ebb.dev/v1/namespaces/default/services/hello/logs", lambda _: httpx.Response(200, text=line))
    with pytest.raises(Refused) as refused:
        rollout.Rollout(fake.api(), "hello", Steps(quiet=True)).wait(SERVICE, "hello:v2", 5)
    assert str(refused.value) == "hello-00002: ExitCode3: the app ended with exit code 3\n    no such file: ?[2Jconfig.ini"


def test_a_deploy_that_takes_too_long_says_what_it_waits_for() -> None:
    fake = FakeApi()
    slow: dict[str, Any] = json.loads(json.dumps(SERVICE))
    slow["status"]["conditions"] = [{"type": "Ready", "status": "Unknown", "message": "pulling"}]
    fake.set(f"GET {BASE}/services/hello", slow)
    ticks = iter(range(100))
    with pytest.raises(Refused, match=r"not ready after 5 s \(pulling\)"):
        rollout.Rollout(fake.api(), "hello", Steps(quiet=True), lambda: float(next(ticks) * 10)).wait(SERVICE, "x", 5)


def test_deleting_goes_on_after_one_that_is_not_there(capsys: Captured) -> None:
    fake = FakeApi()
    fake.set(f"DELETE {BASE}/services/hello", {"kind": "Status", "status": "Success"})
    with pytest.raises(Refused, match="no service 'gone' in project default; there is hello"):
        commands.delete(fake.api(), ["gone", "hello"], "services", wait=False)
    assert capsys.readouterr().out == "deleted service hello\n"


def test_what_is_not_there_is_refused_with_what_there_is() -> None:
    fake = FakeApi()
    fake.set(f"GET {BASE}/services", {"items": []})
    with pytest.raises(Refused, match="no service 'nix' in project default; there are no services"):
        commands.services(fake.api(), ["nix"], False, Form.TABLE)
    with pytest.raises(Refused, match="no revision 'nix' in project default; there are hello-00001, hello-00002"):
        commands.revisions(fake.api(), ["nix"], "", Form.TABLE)


def test_logs_of_a_service_that_is_not_there_are_refused() -> None:
    with pytest.raises(Refused, match="no service 'nix'"):
        streams.logs(FakeApi().api(), "nix", follow=True, tail=1, revision="", instance="", since_s=0, form=Form.TABLE)


def test_the_front_door_is_not_taken_for_the_api() -> None:
    fake = FakeApi()
    fake.set(f"GET {BASE}/services", lambda _: httpx.Response(404, text="no-route", headers={"x-ebb-reason": "no-route"}))
    with pytest.raises(Refused, match="http://fake is where apps are served, not the API; name another address with --api"):
        commands.services(fake.api(), [], False, Form.TABLE)


@pytest.mark.parametrize(
    ("image", "does"), [("hello:v1", False), ("me/hello", False), ("host.example/hello", True), ("host:5000/x", True)]
)
def test_an_image_names_a_registry_when_its_first_part_is_a_host(image: str, does: bool) -> None:
    assert rollout.names_a_registry(image) is does


def test_apply_checks_all_documents_before_it_writes_any(tmp_path: Any) -> None:
    file = tmp_path / "two.yaml"
    file.write_text("kind: Service\nmetadata: {name: hello}\nspec: {}\n---\nkind: Deployment\nmetadata: {name: x}\n")
    fake = FakeApi()
    with pytest.raises(BadUsage, match="document 2: kind is 'Deployment'"):
        commands.apply(fake.api(), str(file), 0)
    assert fake.asked == []


def test_apply_says_created_changed_or_unchanged(capsys: Captured, tmp_path: Any) -> None:
    file = tmp_path / "one.yaml"
    file.write_text(
        "kind: Service\nmetadata: {name: hello}\nspec: {template: {}}\n---\nkind: Service\nmetadata: {name: new}\nspec: {}\n"
    )
    fake = FakeApi()
    fake.set(f"PUT {BASE}/services/hello", SERVICE)
    fake.set(f"POST {BASE}/services", lambda r: httpx.Response(201, content=r.content))
    commands.apply(fake.api(), str(file), 0)
    assert capsys.readouterr().out == "service hello unchanged\nservice new created\n"


def test_a_story_shows_the_time_between_steps(capsys: Captured) -> None:
    fake = FakeApi()
    events = [
        {"at": 100.0074, "process": "nodeagent", "what": "task started", "instance": "i1"},
        {"at": 100.0, "process": "ingress", "what": "wake sent", "revision": "default/r1", "detail": {"waiting": 1}},
    ]
    fake.set("GET /apis/ebb.dev/v1/story/c-1", {"items": events})
    commands.story(fake.api(), "c-1", Form.TABLE)
    assert capsys.readouterr().out == (
        "AT ms  STEP ms  PROCESS    WHAT          ABOUT       DETAIL\n"
        "0.0    +0.0     ingress    wake sent     default/r1  waiting=1\n"
        "7.4    +7.4     nodeagent  task started  i1\n"
    )


def test_a_story_of_nothing_says_what_is_wanted() -> None:
    fake = FakeApi()
    with pytest.raises(BadUsage, match="ID is empty; want an answer's x-ebb-cause"):
        commands.story(fake.api(), " ", Form.TABLE)
    assert not fake.asked


def test_what_an_app_logs_cannot_drive_the_terminal() -> None:
    shown = streams.log_line({"at": 0, "instance": "i1", "line": "a\x1b[2Jb\r", "stream": "stdout"}, {}, False)
    assert shown.endswith(" i1 a?[2Jb?\n")


def test_lines_end_where_they_end_whatever_is_written_in_them() -> None:
    fake, written = FakeApi(), ["a\u2028b", "a\x85b\u2029", "\u2028", "last"]
    fake.set(
        "GET /lines", lambda _: httpx.Response(200, text="\n\n".join(json.dumps(each, ensure_ascii=False) for each in written))
    )
    assert list(fake.api().lines("/lines")) == written


def test_no_answer_says_where_it_asked_and_what_to_do() -> None:
    def away(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    fake = FakeApi()
    fake.set(f"GET {BASE}/services", away)
    with pytest.raises(Refused, match=r"no API at http://fake \(refused\).*sudo ebb up -d"):
        commands.services(fake.api(), [], False, Form.TABLE)
