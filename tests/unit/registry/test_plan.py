"""From a Service to revisions, routes and conditions."""

import pytest

from registry import objects
from registry.conditions import Resolution
from store import keys
from store.lifecycle import Phase
from store.model import Failure, Instance, Scale
from tests.unit.registry.world import World, service


def ready_world() -> World:
    world = World()
    world.create(service())
    world.make_ready("hello-00001")
    return world


def test_a_new_service_becomes_ready_in_three_transactions() -> None:
    world = World()
    world.create(service())
    made = world.step()
    assert [w.image for w in made.wanted] == ["hello:v1"]
    assert world.condition("services")["status"] == "Unknown"
    world.resolve("hello-00001")
    world.step()
    assert world.compiled("hello-00001").image.endswith("@sha256:" + "a" * 64)
    world.verify("hello-00001")
    world.step()
    assert world.commits == 3
    assert world.step().txns == ()
    status = world.obj("services")["status"]
    assert {c["type"]: c["status"] for c in status["conditions"]} == {
        "Ready": "True", "ConfigurationsReady": "True", "RoutesReady": "True",
    }  # fmt: skip
    assert status["url"] == "http://hello.default.localhost:8080"
    assert status["latestReadyRevisionName"] == status["latestCreatedRevisionName"] == "hello-00001"
    assert status["traffic"] == [{"revisionName": "hello-00001", "latestRevision": True, "percent": 100}]
    assert status["observedGeneration"] == 1
    assert world.shares() == {"hello-00001": 100}
    digest = world.obj("revisions", "hello-00001")["status"]["containerStatuses"][0]["imageDigest"]
    assert digest.startswith("docker.io/library/hello@sha256:")


def test_a_changed_template_mints_a_revision_and_traffic_moves_only_when_it_is_ready() -> None:
    world = ready_world()
    assert world.update(service("hello:v2"))
    world.settle()
    assert world.shares() == {"hello-00001": 100}
    assert world.condition("services")["status"] == "Unknown"
    assert world.condition("services", "RoutesReady")["status"] == "True"
    world.resolve("hello-00002")
    world.settle()
    assert world.shares() == {"hello-00001": 100}
    world.verify("hello-00002")
    world.settle()
    assert world.shares() == {"hello-00002": 100}
    assert world.condition("services")["status"] == "True"
    assert world.obj("revisions", "hello-00001")["metadata"]["labels"][objects.LABEL_ROUTING_STATE] == "reserve"


def test_changed_metadata_mints_no_revision_but_reaches_configuration_and_route() -> None:
    world = ready_world()
    body = service()
    body["metadata"]["labels"] = {"team": "blue"}
    body["metadata"]["annotations"] = {"note": "x"}
    world.update(body)
    world.settle()
    assert not world.has("revisions", "hello-00002")
    for plural in ("configurations", "routes"):
        assert world.obj(plural)["metadata"]["labels"]["team"] == "blue"
        assert world.obj(plural)["metadata"]["annotations"]["note"] == "x"
    assert "team" not in world.obj("revisions", "hello-00001")["metadata"]["labels"]


def test_the_same_spec_written_another_way_changes_nothing() -> None:
    world = ready_world()
    body = service()
    body["spec"]["template"]["metadata"] = {"creationTimestamp": None}
    body["spec"]["template"]["spec"]["containers"][0] |= {"name": "", "resources": {}, "env": []}
    body["spec"]["template"]["spec"] |= {"timeoutSeconds": 300}
    assert not world.update(body)


def test_a_failing_image_makes_all_three_false_with_the_cause_and_recovers() -> None:
    world = World()
    world.create(service())
    world.settle()
    world.resolutions["hello-00001"] = Resolution(reason="ImageNotFound", message="no such tag", attempts=1)
    made = world.settle()
    assert [w.revision for w in made.wanted] == ["hello-00001"]
    for plural, name in (("services", "hello"), ("configurations", "hello"), ("revisions", "hello-00001")):
        found = world.condition(plural, name=name)
        assert found["status"] == "False"
        assert "no such tag" in found["message"]
    assert world.condition("routes")["status"] == "False"
    assert world.entry() is None
    world.make_ready("hello-00001")
    assert world.condition("services")["status"] == "True"


def test_an_instance_that_exits_makes_the_service_false_with_code_and_log_and_true_again_later() -> None:
    world = World()
    world.create(service())
    world.settle()
    world.resolve("hello-00001")
    world.settle()
    failure = Failure(reason="ExitCode5", message="exited with code 5 after 0.1 s", exit_code=5, log_tail=["boom"], count=2)
    world.scales["hello-00001"] = Scale(project="default", revision="hello-00001", desired=1, failure=failure)
    world.settle()
    assert world.condition("revisions", "ContainerHealthy", "hello-00001")["reason"] == "ExitCode5"
    found = world.condition("services")
    assert (found["status"], found["reason"]) == ("False", "RevisionFailed")
    assert "code 5" in found["message"]
    assert "boom" in found["message"]
    world.verify("hello-00001")
    world.settle()
    assert world.condition("services")["status"] == "True"


def test_a_failing_new_revision_leaves_the_old_one_serving() -> None:
    world = ready_world()
    world.update(service("bad:v1"))
    world.settle()
    world.resolutions["hello-00002"] = Resolution(reason="ImageNotFound", message="no such tag", attempts=1)
    world.settle()
    assert world.shares() == {"hello-00001": 100}
    assert world.condition("services")["status"] == "False"
    assert world.condition("services", "RoutesReady")["status"] == "True"
    status = world.obj("services")["status"]
    assert (status["latestReadyRevisionName"], status["latestCreatedRevisionName"]) == ("hello-00001", "hello-00002")


def test_a_verified_revision_that_fails_later_stays_ready_and_says_so_in_active() -> None:
    world = ready_world()
    failure = Failure(reason="OOMKilled", message="killed at its limit of 64Mi")
    scale = Scale(project="default", revision="hello-00001", desired=1, verified=True, failure=failure)
    world.scales["hello-00001"] = scale
    world.settle()
    assert world.condition("services")["status"] == "True"
    active = world.condition("revisions", "Active", "hello-00001")
    assert (active["status"], active["reason"]) == ("False", "OOMKilled")


def test_progress_says_what_is_being_done_without_urgency() -> None:
    world = World()
    world.create(service())
    world.settle()
    world.resolve("hello-00001")
    world.settle()
    instance = Instance(instance="hello-00001-a", project="default", revision="hello-00001", node="n1", phase=Phase.STARTING)
    world.instances["hello-00001"] = [instance]
    world.scales["hello-00001"] = Scale(project="default", revision="hello-00001", desired=1)
    made = world.step()
    assert made.txns
    assert world.condition("services")["status"] == "Unknown"
    assert "readiness probe" in world.condition("services")["message"]


def test_a_deployment_past_its_deadline_fails_and_the_plan_asks_to_look_again_before() -> None:
    world = World()
    world.create(service(annotations={objects.ANNOTATION_PROGRESS_DEADLINE: "30s"}))
    world.settle()
    world.resolve("hello-00001")
    made = world.settle()
    assert made.look_again_s is not None
    assert 0 < made.look_again_s <= 30
    world.now += 31
    world.settle()
    found = world.condition("revisions", name="hello-00001")
    assert (found["status"], found["reason"]) == ("False", "ProgressDeadlineExceeded")
    assert "30 s" in found["message"]


@pytest.mark.parametrize(
    ("reason", "unplaced"),
    [
        ("NoRoom", "needs 512Mi, largest free is 380Mi on node-2"),
        ("NoRuntime", "no node can run gvisor; install runsc on one"),
        ("QuotaExceeded", "project default is at its quota of 20 instances"),
    ],
)
def test_that_no_node_takes_it_is_said_after_a_moment(reason: str, unplaced: str) -> None:
    world = World()
    world.create(service())
    world.settle()
    world.resolve("hello-00001")
    world.settle()
    world.scales["hello-00001"] = Scale(
        project="default", revision="hello-00001", desired=1, unplaced=unplaced, unplaced_as=reason, at=world.now
    )
    world.settle()
    assert world.condition("services")["status"] == "Unknown"
    world.now += 6
    world.settle()
    assert world.condition("revisions", "ResourcesAvailable", "hello-00001")["reason"] == reason
    assert unplaced in world.condition("services")["message"]


def test_last_transition_time_moves_only_with_the_status() -> None:
    world = ready_world()
    before = world.condition("services")["lastTransitionTime"]
    world.now += 100
    body = service()
    body["metadata"]["labels"] = {"a": "b"}
    world.update(body)
    world.settle()
    assert world.condition("services")["lastTransitionTime"] == before


def test_a_deleted_service_leaves_nothing() -> None:
    world = ready_world()
    world.delete("services")
    world.settle()
    assert world.kv == {}


def test_a_service_does_not_take_a_configuration_that_is_not_its_own() -> None:
    world = World()
    world.create({"metadata": {"name": "hello"}, "spec": service()["spec"]}, objects.CONFIGURATION)
    world.create(service("hello:v2"))
    world.settle()
    assert world.condition("services")["reason"] == "NotOwned"
    assert world.obj("configurations")["spec"]["template"]["spec"]["containers"][0]["image"] == "hello:v1"


def test_a_given_revision_name_is_used_and_comes_back_when_its_template_does() -> None:
    world = World()
    body = service()
    body["spec"]["template"]["metadata"] = {"name": "hello-one"}
    world.create(body)
    world.make_ready("hello-one")
    assert world.shares() == {"hello-one": 100}
    second = service("hello:v2")
    second["spec"]["template"]["metadata"] = {"name": "hello-two"}
    world.update(second)
    world.make_ready("hello-two")
    world.update(body)
    world.settle()
    assert world.shares() == {"hello-one": 100}
    assert world.obj("configurations")["status"]["latestCreatedRevisionName"] == "hello-one"


def test_a_standalone_configuration_and_route_work_alone() -> None:
    world = World()
    world.create({"metadata": {"name": "cfg"}, "spec": service()["spec"]}, objects.CONFIGURATION)
    route = {"metadata": {"name": "hello"}, "spec": {"traffic": [{"configurationName": "cfg", "percent": 100}]}}
    world.create(route, objects.ROUTE)
    world.settle("cfg")
    world.settle()
    assert world.condition("routes")["status"] == "Unknown"
    world.resolve("cfg-00001")
    world.settle("cfg")
    world.verify("cfg-00001")
    world.settle("cfg")
    world.settle()
    assert world.shares() == {"cfg-00001": 100}
    world.delete("routes")
    world.settle()
    assert keys.route("default", "hello") not in world.kv


def test_old_revisions_out_of_use_are_collected() -> None:
    world = World()
    world.create(service("hello:v1"))
    world.make_ready("hello-00001")
    for number in range(2, 25):
        world.update(service(f"hello:v{number}"))
        world.make_ready(f"hello-{number:05d}")
    world.now += 60 * 3600
    world.settle()
    left = [key for key in world.kv if key.startswith(keys.objects("revisions"))]
    assert len(left) == 21
    assert len([key for key in world.kv if key.startswith(keys.REVISIONS)]) == 21
    assert not world.has("revisions", "hello-00001")
    assert world.shares() == {"hello-00024": 100}


def test_a_new_revision_waits_until_an_earlier_one_of_its_name_has_ended() -> None:
    world = ready_world()
    world.instances["hello-00001"] = [
        Instance(instance="i", project="default", revision="hello-00001", node="n1", phase=Phase.READY)
    ]
    world.delete("services")
    world.settle()
    world.create(service("hello:v2"))
    world.settle()
    assert keys.revision("default", "hello-00001") not in world.kv
    assert "earlier revision of this name" in world.condition("services")["message"]
    world.scales.clear()
    world.instances.clear()
    world.settle()
    assert world.compiled("hello-00001").image_name == "hello:v2"
    assert world.condition("services")["status"] == "Unknown"


def test_a_host_that_another_route_has_is_not_taken_from_it() -> None:
    world = ready_world()
    world.taken["next-hello.default.localhost"] = "next-hello"
    body = service()
    body["spec"]["traffic"] = [{"latestRevision": True, "percent": 100, "tag": "next"}]
    world.update(body)
    world.settle()
    found = world.condition("services")
    assert (found["status"], found["reason"]) == ("False", "HostTaken")
    assert world.shares() == {"hello-00001": 100}
