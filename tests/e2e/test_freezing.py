"""A service that asks for it is frozen when idle, and the next call finds the same instance."""

from tests.e2e.engine import Engine, until


def test_an_idle_instance_is_frozen_and_the_next_call_is_answered_by_it_without_a_boot(engine: Engine, app: str) -> None:
    engine.deploy(app, "test/flask:v1", annotations={"ebb.dev/idle": "freeze"})
    assert engine.get(app).status_code == 200
    [ready] = engine.instances(service=app)

    def frozen() -> bool:
        return [i["phase"] for i in engine.instances(service=app)] == ["Frozen"]

    until(frozen, "frozen long before its window of 60 s is over", 20)
    for _ in range(2):
        answer = engine.get(app)
        assert answer.status_code == 200
        [again] = engine.instances(service=app)
        assert again["instance"] == ready["instance"]
        # What passes within a moment is told on NATS alone; etcd, which the API shows, has the phase that stays.
        until(lambda: "thaw" in engine.instances(service=app)[0]["phases_ms"], "it says that it was thawed", 10)
