"""What is kept of a registered revision decides the same as the whole of it."""

import msgspec

from autoscaler import lean
from autoscaler.need import Need
from store.model import Probe, Revision, RouteEntry, ScaleSpec, TrafficTarget, decode, encode


def test_what_scales_places_and_names_a_revision_is_kept_and_the_rest_is_not() -> None:
    full = Revision(
        project="p", name="r", service="s", image="h/i@sha256:1", env=[("A", "b")], labels={"a": "b"}, args=["x"], memory_limit_bytes=7,
        cpu_limit_m=5, container_concurrency=3, created_at=9, progress_deadline_s=4, parkable=False,
        scale=ScaleSpec(min_scale=2), readiness_probe=Probe(kind="http"),
    )  # fmt: skip
    kept = lean.revision(full)
    assert (kept.key, kept.image, Need.of(kept), kept.scale) == (full.key, full.image, Need.of(full), full.scale)
    assert kept.service == "s", "it stands in each assignment"
    assert (kept.container_concurrency, kept.created_at, kept.progress_deadline_s, kept.parkable) == (3, 9, 4, False)
    assert (kept.env, kept.labels, kept.args, kept.readiness_probe) == ([], {}, [], Probe())


def test_a_usual_revision_holds_no_list_or_table_of_its_own() -> None:
    """An empty list is 56 bytes, for each of very many; a field that is new is easily left out of `lean`."""
    first, second = (decode(Revision, encode(Revision(project="p", name=name, image="i"))) for name in "ab")
    kept = [msgspec.structs.asdict(lean.revision(one)) for one in (first, second)]
    own = [name for name, value in kept[0].items() if isinstance(value, list | dict) and value is not kept[1][name]]
    assert own == []


def test_usual_specs_are_one() -> None:
    first, second = (lean.revision(Revision(project="p", name=n, image="i", scale=ScaleSpec())) for n in "ab")
    assert first.scale is second.scale


def test_of_a_route_nothing_is_kept_but_that_it_is_there() -> None:
    kept = [
        lean.route(RouteEntry(project="p", route=name, hosts={"h": [TrafficTarget(revision="a", percent=100)]}))
        for name in "ab"
    ]
    assert kept[0] is kept[1]
    assert kept[0].hosts == {}
