"""Revisions share traffic by percent, tags have hosts of their own, and changes are atomic."""

import asyncio

import httpx
import pytest

from tests.e2e.engine import Engine, Load, until


async def test_shares_stay_inside_the_binomial_interval(engine: Engine, app: str) -> None:
    engine.deploy(app, "test/testapp:v1", env={"VERSION": "blue"})
    engine.deploy(app, "test/testapp:v1", env={"VERSION": "green"}, traffic=[
        {"revisionName": f"{app}-00001", "percent": 50, "tag": "blue"},
        {"revisionName": f"{app}-00002", "percent": 50, "tag": "green"},
    ])  # fmt: skip
    until(lambda: {engine.get(app).json()["version"] for _ in range(20)} == {"blue", "green"}, "both answer", 10)
    load = Load(engine, app)
    async with load.steady(100) as outcomes:
        await asyncio.sleep(4)
    assert outcomes.failed == 0, outcomes.failures[:3]
    share = outcomes.by_revision[f"{app}-00001"] / outcomes.total
    spread = 4.42 * (0.25 / outcomes.total) ** 0.5  # Outside of it is one run in a hundred thousand.
    assert abs(share - 0.5) <= spread, f"{share:.3f} of {outcomes.total}"
    assert {engine.get(f"blue-{app}").json()["version"] for _ in range(5)} == {"blue"}
    assert {engine.get(f"green-{app}").json()["version"] for _ in range(5)} == {"green"}


def test_a_domain_leads_to_services_by_path_and_keeps_sessions(engine: Engine, app: str) -> None:
    host, deep = f"{app}.example", f"x.y.{app}.example"
    sticky = {"ebb.dev/session-affinity": "true", "min-scale": "2", "initial-scale": "2"}
    engine.deploy(app, "test/testapp:v1", env={"VERSION": "shop"}, annotations=sticky)
    engine.deploy(f"api-{app}", "test/testapp:v1", env={"VERSION": "api"})
    assert engine.ebb("domain", "add", host, "--service", app, "--path", f"/api=api-{app}").stdout.startswith(f"http://{host}:")
    engine.ebb("domain", "add", f"*.{host}", "--service", f"api-{app}")

    def says(at: str, path: str, **headers: str) -> httpx.Response:
        return engine.front.get(path, headers={"Host": at, **headers})

    try:
        assert says(host, "/api/x").json()["version"] == "api"
        assert says(deep, "/").json()["version"] == "api"
        first = says(host, "/")
        cookie = first.headers["set-cookie"].partition(";")[0]
        engine.front.cookies.clear()
        again = [says(host, "/", Cookie=cookie) for _ in range(10)]
        assert {answer.json()["instance"] for answer in again} == {first.json()["instance"]}
        assert not any("set-cookie" in answer.headers for answer in again)
    finally:
        engine.front.cookies.clear()
        engine.ebb("domain", "delete", host, f"*.{host}")
        engine.delete(f"api-{app}")


def test_a_revision_that_does_not_work_takes_no_traffic(engine: Engine, app: str) -> None:
    engine.deploy(app, "test/testapp:v1", env={"VERSION": "good"})
    engine.deploy(app, "test/testapp:v1", env={"EXIT_AT_START": "5"}, wait_s=0)
    until(lambda: engine.condition(f"{app}-00002", "revisions").get("status") == "False", "the new revision has failed", 40)
    assert {engine.get(app).json()["version"] for _ in range(10)} == {"good"}


def test_traffic_to_an_unknown_revision_says_which(engine: Engine, app: str) -> None:
    engine.deploy(app, "test/testapp:v1")
    engine.deploy(app, "test/testapp:v1", traffic=[{"revisionName": f"{app}-00077", "percent": 100}], wait_s=0)
    failed = engine.wait_failed(app, 20)
    assert "00077" in failed["message"]
    assert engine.get(app).status_code == 200


@pytest.mark.parametrize(
    ("traffic", "word"),
    [
        ([{"latestRevision": True, "percent": 90}], "100"),
        ([{"latestRevision": True, "percent": 101}], "100"),
        ([{"latestRevision": True, "percent": 100, "tag": "Not_A_Label"}], "tag"),
    ],
)
def test_bad_traffic_is_refused_with_its_path(engine: Engine, app: str, traffic: list[dict[str, object]], word: str) -> None:
    body = {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": {"name": app.rstrip("0123456789-")[:30]},
            "spec": {"template": {"spec": {"containers": [{"image": "test/static:v1"}]}}, "traffic": traffic}}  # fmt: skip
    answer = engine.api.post("/apis/serving.knative.dev/v1/namespaces/default/services", json=body)
    assert answer.status_code == 422, answer.text
    assert "spec.traffic" in answer.text
    assert word in answer.text
