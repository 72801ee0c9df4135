"""Where a project's images may come from."""

import pytest

from registry.imagepolicy import refusal

HEX = "0" * 64


@pytest.mark.parametrize(
    "image",
    ["ghcr.io/acme/app:v1", "ghcr.io/acme/team/app", f"ghcr.io/acme/app@sha256:{HEX}", "ghcr.io/acme/app:v1@sha256:" + HEX],
)
def test_an_image_below_an_allowed_prefix_may_run(image: str) -> None:
    assert refusal(image, ["quay.io", "ghcr.io/acme"]) == ""
    assert refusal(image, ["ghcr.io/acme/"]) == ""


@pytest.mark.parametrize(
    "image",
    [
        "ghcr.io/acme-too/app",
        "ghcr.io/acm/e",
        "ghcr.io.evil.example/acme/app",
        "ghcr.io:8443/acme/app",
        "evil.example/ghcr.io/acme/app",
        "nginx",
        "GHCR.IO/acme/app",
        "ghcr.io/acme/../evil/app",
    ],
)
def test_any_other_image_may_not_and_the_refusal_says_what_may(image: str) -> None:
    said = refusal(image, ["ghcr.io/acme"])
    assert said
    assert "ghcr.io/acme" in said or "image" in said


def test_without_prefixes_all_may_run() -> None:
    assert refusal("nginx", []) == ""


def test_docker_hub_is_allowed_by_its_whole_name() -> None:
    assert refusal("nginx", ["docker.io/library"]) == ""
    assert refusal("index.docker.io/library/nginx:1", ["docker.io/library/nginx"]) == ""
    assert refusal("someone/nginx", ["docker.io/library"])


def test_an_empty_prefix_allows_nothing() -> None:
    assert refusal("nginx", ["", "/"])
