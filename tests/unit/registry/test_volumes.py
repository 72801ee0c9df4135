"""Volumes of a template: what is refused, and what an instance is given."""

from typing import Any

import pytest

from registry import volumes
from registry.problem import Problems
from store.volumes import Item, Volume


def wrong(spec: dict[str, Any]) -> list[str]:
    problems = Problems()
    volumes.volumes(problems, spec.get("volumes"), "volumes")
    for container in spec["containers"]:
        volumes.mounts(problems, container.get("volumeMounts", []), "volumeMounts")
    volumes.check(problems, spec, "spec")
    return [problem.path for problem in problems]


def spec(volume: dict[str, Any], **mount: Any) -> dict[str, Any]:
    return {"volumes": [volume], "containers": [{"volumeMounts": [{"name": "v", "mountPath": "/a", **mount}]}]}


SECRET = {"name": "v", "secret": {"secretName": "db"}}


def test_secrets_and_config_maps_become_volumes_of_the_revision() -> None:
    given = spec({"name": "v", "configMap": {"name": "c", "items": [{"key": "k", "path": "a/./b"}], "defaultMode": 256}})
    assert wrong(given) == []
    assert volumes.compiled(given) == [Volume(path="/a", config="c", items=[Item(key="k", path="a/b")], mode=0o400)]
    assert wrong(spec(SECRET, mountPath="/x/")) == []
    assert volumes.compiled(spec(SECRET, mountPath="/x/")) == [Volume(path="/x", secret="db")]


@pytest.mark.parametrize(
    ("given", "field"),
    [
        (spec({"name": "v", "emptyDir": {}}), "volumes[0].emptyDir"),
        (spec({"name": "v", "hostPath": {"path": "/"}}), "volumes[0].hostPath"),
        (spec({"name": "v", **SECRET, "configMap": {"name": "c"}}), "volumes[0]"),
        (spec({"name": "w", "secret": {"secretName": "db"}}), "spec.containers[0].volumeMounts[0].name"),
        (spec(SECRET, mountPath="relative"), "volumeMounts[0].mountPath"),
        (spec(SECRET, mountPath="/a/../etc"), "volumeMounts[0].mountPath"),
        (spec(SECRET, mountPath="/"), "volumeMounts[0].mountPath"),
        (spec(SECRET, mountPath="/proc/self"), "volumeMounts[0].mountPath"),
        (spec(SECRET, mountPath="//dev"), "volumeMounts[0].mountPath"),
        (spec(SECRET, mountPath="/etc"), "volumeMounts[0].mountPath"),
        (spec(SECRET, subPath="x"), "volumeMounts[0].subPath"),
        (
            spec({"name": "v", "secret": {"secretName": "db", "items": [{"key": "k", "path": "../x"}]}}),
            "volumes[0].secret.items[0].path",
        ),
        (
            spec({"name": "v", "secret": {"secretName": "db", "items": [{"key": "k", "path": "/etc/x"}]}}),
            "volumes[0].secret.items[0].path",
        ),
        (
            spec({"name": "v", "secret": {"secretName": "db", "items": [{"key": "k", "path": "..data"}]}}),
            "volumes[0].secret.items[0].path",
        ),
        (
            spec(
                {"name": "v", "secret": {"secretName": "db", "items": [{"key": "k", "path": "a"}, {"key": "l", "path": "a/b"}]}}
            ),
            "volumes[0].secret.items[1].path",
        ),
        (spec({"name": "v", "secret": {"secretName": "db", "defaultMode": 0o7777}}), "volumes[0].secret.defaultMode"),
        ({"volumes": [SECRET], "containers": [{}]}, "spec.volumes[0].name"),
        ({**spec(SECRET), "volumes": [SECRET, SECRET]}, "volumes[1].name"),
    ],
)
def test_what_would_lead_out_of_a_volume_or_into_the_hosts_is_refused(given: dict[str, Any], field: str) -> None:
    assert field in wrong(given)


def test_two_mounts_at_one_place_or_one_in_the_other_are_refused() -> None:
    given = {"volumes": [SECRET], "containers": [{"volumeMounts": [
        {"name": "v", "mountPath": "/a"}, {"name": "v", "mountPath": "/a/b"}]}]}  # fmt: skip
    assert wrong(given) == ["volumeMounts[1].mountPath"]


@pytest.mark.parametrize("odd", [1, [1], ["a"], {"name": 1}, [{"name": {}, "secret": [], "configMap": {"items": [1]}}], None])
def test_whatever_json_is_sent_is_only_complained_of(odd: Any) -> None:
    assert wrong({"volumes": odd, "containers": [{"volumeMounts": odd}]})
