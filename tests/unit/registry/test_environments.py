"""The execution environment: Cloud Run's annotation and Kubernetes' runtimeClassName become one runtime."""

from typing import Any

import pytest

from registry import objects
from registry.bounds import Bounds
from registry.environments import ANNOTATION, PROFILE, profile_of, runtime_of
from registry.validate import validate
from store.model import GVISOR


def said(annotation: Any = None, runtime_class: Any = None) -> str:
    template: dict[str, Any] = {"spec": {"containers": [{"image": "hello:v1"}]}}
    if annotation is not None:
        template["metadata"] = {"annotations": {ANNOTATION: annotation}}
    if runtime_class is not None:
        template["spec"]["runtimeClassName"] = runtime_class
    body = {"metadata": {"name": "hello"}, "spec": {"template": template}}
    return "\n".join(map(str, validate(objects.SERVICE, body, Bounds())))


@pytest.mark.parametrize(
    ("annotations", "spec", "runtime"),
    [
        ({}, {}, ""),
        ({ANNOTATION: "gen1"}, {}, GVISOR),
        ({ANNOTATION: "sandboxed"}, {}, GVISOR),
        ({ANNOTATION: "gen2"}, {}, ""),
        ({}, {"runtimeClassName": GVISOR}, GVISOR),
        ({ANNOTATION: "sandboxed"}, {"runtimeClassName": GVISOR}, GVISOR),
    ],
)
def test_what_is_written_becomes_a_runtime(annotations: dict[str, str], spec: dict[str, str], runtime: str) -> None:
    assert said(annotations.get(ANNOTATION), spec.get("runtimeClassName")) == ""
    assert runtime_of(annotations, spec) == runtime


def test_an_unknown_environment_is_refused_with_those_there_are() -> None:
    assert "one of gen1, gen2, sandboxed" in said("gen3")
    assert "gvisor" in said(runtime_class="kata")


def test_two_that_contradict_each_other_are_refused() -> None:
    assert ANNOTATION in said("gen2", GVISOR)


def test_a_profile_is_one_of_two_and_default_when_nothing_is_said() -> None:
    assert (profile_of({}), profile_of({PROFILE: "hardened"})) == ("default", "hardened")
    template = {"metadata": {"annotations": {PROFILE: "loose"}}, "spec": {"containers": [{"image": "hello:v1"}]}}
    body = {"metadata": {"name": "hello"}, "spec": {"template": template}}
    assert "default or hardened" in "\n".join(map(str, validate(objects.SERVICE, body, Bounds())))
