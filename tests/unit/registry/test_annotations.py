"""The annotations of our own: what they become, and what is refused."""

from registry.annotations import IDLE, POLICY, scale_spec, scale_values
from registry.problem import Problems


def test_the_policy_is_knatives_unless_learned_is_asked_for() -> None:
    assert scale_spec({}).policy == "", "as the operator says"
    assert scale_spec({POLICY: "knative"}).policy == "knative"
    assert scale_spec({POLICY: "learned", "autoscaling.knative.dev/window": "30s"}).policy == "learned"


def test_who_says_how_long_keeps_knatives_windows_whatever_the_operators_policy_is() -> None:
    for said in ("window", "scale-to-zero-pod-retention-period", "scale-down-delay"):
        assert scale_spec({f"autoscaling.knative.dev/{said}": "30s"}).policy == "knative"
        assert scale_spec({f"autoscaling.knative.dev/{said}": "30s", POLICY: "frugal"}).policy == "frugal"
    assert scale_spec({"autoscaling.knative.dev/max-scale": "3"}).policy == ""


def test_another_policy_is_refused_with_what_is_allowed() -> None:
    problems = Problems()
    assert "policy" not in scale_values({POLICY: "clever"}, problems, "metadata.annotations")
    assert "knative or learned or frugal" in str(problems[0])
    assert "metadata.annotations[ebb.dev/policy]" in str(problems[0])


def test_the_last_instance_is_parked_anew_unless_freezing_is_asked_for() -> None:
    assert scale_spec({}).idle == "", "parked, or as its policy chooses"
    assert scale_spec({IDLE: "park"}).idle == "park"
    assert scale_spec({IDLE: "freeze"}).idle == "freeze"
    problems = Problems()
    assert "idle" not in scale_values({IDLE: "sleep"}, problems, "metadata.annotations")
    assert "park or freeze" in str(problems[0])
