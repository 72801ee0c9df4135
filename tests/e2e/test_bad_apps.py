"""What comes of apps and images that do not work: a named cause, fast, and nothing lost."""

import time

import httpx
import pytest

from tests.e2e.engine import Engine, until

SHORT = {"window": "6s"}


def test_an_image_that_does_not_exist_is_named(engine: Engine, app: str) -> None:
    engine.deploy(app, "127.0.0.1:9/no/such:v1", wait_s=0)
    failed = engine.wait_failed(app, 30)
    assert "127.0.0.1:9/no/such:v1" in failed["message"]


def test_an_app_that_exits_at_once_fails_with_its_code_and_last_lines(engine: Engine, app: str) -> None:
    engine.deploy(app, "test/testapp:v1", env={"EXIT_AT_START": "5"}, wait_s=0)
    failed = engine.wait_failed(app, 30)
    assert "5" in failed["reason"] + failed["message"]
    revision = engine.condition(f"{app}-00001", "revisions")
    assert "database is not configured" in revision["message"], revision
    shown = engine.ebb("deploy", app, "--image", "test/testapp:v1", "--env", "EXIT_AT_START=6", check=False)
    assert shown.returncode == 1
    assert "database is not configured" in shown.stdout + shown.stderr


def test_a_command_that_does_not_exist_is_named(engine: Engine, app: str) -> None:
    engine.deploy(app, "test/testapp:v1", container={"command": ["/no/such/program"]}, wait_s=0)
    assert "/no/such/program" in engine.wait_failed(app, 30)["message"]


def test_an_app_that_listens_late_is_waited_for(engine: Engine, app: str) -> None:
    engine.deploy(app, "test/testapp:v1", env={"LISTEN_AFTER_S": "3"}, annotations=SHORT)
    assert engine.get(app).status_code == 200


def test_an_app_that_never_listens_fails_at_its_deadline(engine: Engine, app: str) -> None:
    probe = {"tcpSocket": {}, "periodSeconds": 1, "failureThreshold": 5}
    engine.deploy(app, "test/testapp:v1", env={"NEVER_LISTEN": "1"}, container={"startupProbe": probe}, wait_s=0)
    failed = engine.wait_failed(app, 40)
    assert "8080" in failed["message"], failed


def test_a_start_that_fails_refuses_waiting_requests_with_the_cause(engine: Engine, app: str) -> None:
    """A revision that worked when deployed and cannot start now: the caller hears why, not a timeout."""
    engine.deploy(
        app, "test/testapp:v1", annotations=SHORT, env={"DIE_AFTER_S": "1"}, container={"args": ["/app/app.py"]}, wait_s=0
    )
    until(lambda: engine.service(app)["status"].get("latestReadyRevisionName"), "was Ready once", 30)
    begin = time.monotonic()
    answers = [engine.get(app, "/?ms=1500") for _ in range(3)]
    assert time.monotonic() - begin < 30
    assert {a.status_code for a in answers} <= {502, 503}
    assert all(a.headers["x-ebb-reason"] for a in answers)


def test_an_app_over_its_memory_is_said_to_be(engine: Engine, app: str) -> None:
    engine.deploy(app, "test/testapp:v1", container={"resources": {"limits": {"memory": "128Mi"}}})
    assert engine.get(app, "/bloat?mb=30").status_code == 200
    assert engine.get(app, "/bloat?mb=300").status_code == 502
    story = until(
        lambda: "OOMKilled" in (text := engine.api.get(f"/apis/ebb.dev/v1/story/{app}-00001").text) and text,
        "OOMKilled told",
        10,
    )
    assert "128" in story
    until(lambda: engine.get(app).status_code == 200, "another instance answers", 20)


def test_an_app_that_dies_in_mid_response_is_cut_visibly(engine: Engine, app: str) -> None:
    engine.deploy(app, "test/testapp:v1")
    with pytest.raises(httpx.RemoteProtocolError):
        engine.get(app, "/half")
    until(lambda: engine.get(app).status_code == 200, "another instance answers", 20)


def test_a_request_over_its_time_is_answered_504(engine: Engine, app: str) -> None:
    engine.deploy(app, "test/testapp:v1", spec={"timeoutSeconds": 2})
    answer = engine.get(app, "/?ms=6000")
    assert (answer.status_code, answer.headers["x-ebb-reason"]) == (504, "timeout")


def test_no_such_host_is_404_with_a_reason(engine: Engine) -> None:
    answer = engine.get("nobody-here")
    assert (answer.status_code, answer.headers["x-ebb-reason"]) == (404, "no-route")


def test_everything_wrong_is_said_at_once(engine: Engine) -> None:
    body = {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": {"name": "Bad_Name"},
            "spec": {"template": {"spec": {"containerConcurrency": -1, "timeoutSeconds": 99999,
                     "containers": [{"image": "UPPER//case", "env": [{"name": "1 2"}], "surprise": 1}]}}}}  # fmt: skip
    answer = engine.api.post("/apis/serving.knative.dev/v1/namespaces/default/services", json=body)
    assert answer.status_code == 422
    fields = {c["field"] for c in answer.json()["details"]["causes"]}
    assert {"metadata.name", "spec.template.spec.containerConcurrency", "spec.template.spec.timeoutSeconds"} <= fields
    assert any(f.endswith("image") for f in fields)


def test_two_people_updating_one_service_one_is_told_to_read_again(engine: Engine, app: str) -> None:
    first = engine.deploy(app, "test/static:v1")
    path = f"/apis/serving.knative.dev/v1/namespaces/default/services/{app}"
    mine = {**first, "metadata": {**first["metadata"], "annotations": {"who": "me"}}}
    assert engine.api.put(path, json=mine).status_code == 200
    answer = engine.api.put(path, json=mine)
    assert (answer.status_code, answer.json()["reason"]) == (409, "Conflict")
