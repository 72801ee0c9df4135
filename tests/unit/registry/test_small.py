"""The small pure parts: quantities, patches, selectors, bodies, names, tables, the story, the top."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry import gc, objects
from registry.api import body, columns, patches, selectors
from registry.api.problems import ApiError
from registry.loop import Turns
from registry.quantity import byte_count, duration_s, milli_cores
from registry.story import StoryBook
from registry.top import Samples, snapshot
from store.lifecycle import Phase
from store.messages import Sample, SampleReport, StoryEvent
from store.model import Instance, Scale


@pytest.mark.parametrize(
    ("text", "milli"), [("1", 1000), ("250m", 250), ("0.5", 500), ("1.0005", 1001), ("1e1", 10_000), (".1", 100)]
)
def test_cpu_is_read_in_milli_cores(text: str, milli: int) -> None:
    assert milli_cores(text) == milli


@pytest.mark.parametrize(
    ("text", "count"), [("512Mi", 512 * 2**20), ("1G", 10**9), ("1.5Ki", 1536), ("128", 128), ("1e3", 1000)]
)
def test_memory_is_read_in_bytes(text: str, count: int) -> None:
    assert byte_count(text) == count


@pytest.mark.parametrize("text", ["", "1 Gi", "Mi", "1mi", "--1", "1e999", "0x10", "９"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="quantity"):
        byte_count(text)


@pytest.mark.parametrize(("text", "seconds"), [("60s", 60), ("1m30s", 90), ("1h", 3600), ("500ms", 0.5), ("0", 0)])
def test_durations_are_read(text: str, seconds: float) -> None:
    assert duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "60", "s", "-5s", "5 s", "1d", "1s2"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        duration_s(text)


def test_a_merge_patch_removes_by_null_and_replaces_lists() -> None:
    target = {"a": {"b": 1, "c": [1, 2]}, "d": 1}
    assert patches.merge(target, {"a": {"b": None, "c": [3]}, "e": {"f": None, "g": 1}}) == {
        "a": {"c": [3]},
        "d": 1,
        "e": {"g": 1},
    }
    assert target == {"a": {"b": 1, "c": [1, 2]}, "d": 1}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=10,
)


@given(JSON, JSON)
def test_a_merge_patch_done_twice_is_a_merge_patch_done_once(target: object, patch: object) -> None:
    once = patches.merge(target, patch)
    assert patches.merge(once, patch) == once


def test_json_patches_do_what_they_say_or_name_the_operation() -> None:
    target = {"a": [1, 2], "b": {"c/d": 1}}
    operations = [
        {"op": "test", "path": "/a/0", "value": 1},
        {"op": "add", "path": "/a/-", "value": 3},
        {"op": "replace", "path": "/b/c~1d", "value": 2},
        {"op": "move", "from": "/a/0", "path": "/e"},
        {"op": "copy", "from": "/e", "path": "/f"},
        {"op": "remove", "path": "/e"},
    ]
    assert patches.json_patch(target, operations) == {"a": [2, 3], "b": {"c/d": 2}, "f": 1}
    for bad in (
        {"op": "remove", "path": "/x"},
        {"op": "nope", "path": "/a"},
        {"op": "replace", "path": "/a/9", "value": 1},
        {"path": 1},
        5,
    ):
        with pytest.raises(ApiError):
            patches.json_patch(target, [bad])


def test_apply_replaces_what_it_gives_of_the_spec_and_merges_labels() -> None:
    old = {"metadata": {"labels": {"a": "1"}}, "spec": {"template": {"x": 1, "y": 2}, "traffic": [1]}}
    new = patches.apply(old, {"metadata": {"labels": {"b": "2"}}, "spec": {"template": {"x": 2}}})
    assert new["spec"] == {"template": {"x": 2}, "traffic": [1]}
    assert new["metadata"]["labels"] == {"a": "1", "b": "2"}


@pytest.mark.parametrize(
    ("selector", "matches"),
    [
        ("a=1", True), ("a==1,b=2", True), ("a!=1", False), ("c!=1", True), ("a in (1,2)", True), ("a notin (1)", False),
        ("c", False), ("!c", True), ("a,!b", False), ("", True), ("a in (1, 3),b notin (5)", True),
    ],
)  # fmt: skip
def test_label_selectors(selector: str, matches: bool) -> None:
    assert selectors.labels(selector)({"metadata": {"labels": {"a": "1", "b": "2"}}}) is matches


def test_selectors_that_cannot_be_read_are_refused() -> None:
    for bad in ("a=(", "=1", "a in 1"):
        with pytest.raises(ApiError):
            selectors.labels(bad)
    with pytest.raises(ApiError):
        selectors.name_field("status.phase=Running")
    assert selectors.name_field("metadata.name=x,metadata.namespace=y") == ("x", "y")


def test_a_body_is_json_whatever_it_is_called_and_yaml_when_it_says_so() -> None:
    assert body.parse(b'{"a": 1}', "") == {"a": 1}
    assert body.parse(b'{"a": 1}', "application/apply-patch+yaml") == {"a": 1}
    assert body.parse(b"a: 2020-01-01\nb: [x]\n", "application/yaml") == {"a": "2020-01-01", "b": ["x"]}


BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "\n".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 10)}]" for i in range(8)
)


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        (b"", "", "no body"),
        (b"a: 1", "", "not JSON"),
        (b"a: [", "application/yaml", "not YAML"),
        (b"1: x", "application/yaml", "not a string"),
        (b"a: !!binary aGk=", "application/yaml", "bytes"),
        (b"a: &a [*a]", "application/yaml", "more than"),
        (BOMB.encode(), "application/yaml", "more than"),
        (b"[" * 100_000, "", "deep"),
        (b"\xff", "", "not JSON"),
    ],
)
def test_a_bad_body_is_refused_with_the_reason(data: bytes, kind: str, words: str) -> None:
    with pytest.raises(ApiError, match=words):
        body.parse(data, kind)


def test_child_names_fit_and_stay_apart() -> None:
    assert objects.child_name("hello", "-00001") == "hello-00001"
    long = [objects.child_name("a" * 62 + end, "-00001") for end in "bc"]
    assert all(len(name) == 63 for name in long)
    assert long[0] != long[1]


@pytest.mark.parametrize(("seconds", "shown"), [(5, "5s"), (300, "5m"), (10_000, "2h"), (400_000, "4d")])
def test_ages_are_short(seconds: float, shown: str) -> None:
    assert columns.age(seconds) == shown


def test_a_table_has_a_cell_for_each_column() -> None:
    obj = {"metadata": {"name": "x"}, "status": {"url": "http://x"}}
    for kind in objects.KINDS.values():
        made = columns.table(kind, [obj], {}, 0)
        assert len(made["rows"][0]["cells"]) == len(made["columnDefinitions"])


def test_the_story_follows_causes_and_instances_in_order_of_time() -> None:
    book = StoryBook()
    for at, what, cause, instance in (
        (3, "ready", "c-1", "i-1"),
        (1, "wake", "c-1", ""),
        (5, "drain", "", "i-1"),
        (2, "other", "c-2", "i-2"),
    ):
        book.add(StoryEvent(at=at, process="x", what=what, cause_id=cause, instance=instance, revision="p/r"))
    assert [e.what for e in book.find("c-1")] == ["wake", "ready", "drain"]
    assert [e.what for e in book.find("i-1")] == ["wake", "ready", "drain"]
    assert [e.what for e in book.find("r")] == [e.what for e in book.find("p/r")] == ["wake", "other", "ready", "drain"]
    assert book.find("nothing") == []


def test_the_story_keeps_only_the_last_events() -> None:
    book = StoryBook(kept=3)
    for number in range(10):
        book.add(StoryEvent(at=number, process="x", what=str(number), cause_id="c"))
    assert [e.what for e in book.find("c")] == ["7", "8", "9"]


def test_samples_of_several_activators_add_up_and_grow_old() -> None:
    samples = Samples()
    for sender in ("a", "b"):
        sample = Sample(revision="p/r", concurrency=2, requests=10, queued=1)
        samples.add(SampleReport(sender=sender, at=0, interval_s=2, samples=[sample]), now=100)
    rows = samples.rows(101)
    assert rows["p/r"] == {"rps": 10.0, "concurrency": 4.0, "in_flight": 0, "queued": 2}
    instance = Instance(instance="i", project="p", revision="r", node="n", phase=Phase.READY)
    made = snapshot(1, rows, [instance], [Scale(project="p", revision="r", desired=2)], {"p/r": "s"}, ["n"])
    assert made["revisions"][0]["instances"] == {"Ready": 1}
    assert made["revisions"][0]["desired"] == 2
    assert samples.rows(104) == {}


def _old(count: int) -> dict[str, objects.Object]:
    return {f"r-{n:05d}": {"metadata": {"creationTimestamp": "2020-01-01T00:00:00Z", "annotations": {}}} for n in range(count)}


def test_revisions_in_use_or_marked_or_few_are_never_collected() -> None:
    now = 1_800_000_000.0
    assert gc.disposable(_old(20), [], gc.Retention(), now) == []
    assert len(gc.disposable(_old(25), [], gc.Retention(), now)) == 5
    assert len(gc.disposable(_old(25), ["r-00000", "r-00001"], gc.Retention(), now)) == 3
    marked = _old(25)
    marked["r-00000"]["metadata"]["annotations"][objects.ANNOTATION_NO_GC] = "true"
    assert "r-00000" not in gc.disposable(marked, [], gc.Retention(), now)
    assert gc.disposable(_old(25), [], gc.Retention(), 1_577_836_800.0 + 10) == []
    assert len(gc.disposable(_old(25), [], gc.Retention(max_kept=10), 1_577_836_800.0 + 10)) == 15


def test_who_comes_alone_has_its_turn_in_time_and_a_burst_is_spread() -> None:
    turns = Turns(1.0, 0.05)
    assert turns.wait_s(100.0) == pytest.approx(1)
    assert turns.wait_s(107.0) == pytest.approx(1)
    burst = [turns.wait_s(200.0) for _ in range(101)]
    assert (burst[0], burst[-1]) == pytest.approx((1, 6))
    assert turns.wait_s(203.0) == pytest.approx(3.05), "behind those before it"
    assert turns.wait_s(300.0) == pytest.approx(1)
