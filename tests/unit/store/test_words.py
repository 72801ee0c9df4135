"""The shared words: lifecycle, model, keys, transactions, subjects."""

import inspect

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from store import keys, messages
from store.errors import TooLarge
from store.lifecycle import ENDED, OCCUPYING, TRANSITIONS, Phase, may_follow
from store.memory_bus import matches
from store.model import Assignment, Goal, Instance, Member, Model, Revision, Scale, decode, encode
from store.txn import MAX_BYTES, Delete, Guard, Put, Txn, check_size

phases = st.sampled_from(Phase)
names = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=20)


# -- lifecycle ----------------------------------------------------------------------------------------------------------------


def test_every_phase_is_reached_from_pending() -> None:
    reached, fresh = set(), {Phase.PENDING}
    while fresh:
        reached |= fresh
        fresh = {after for phase in fresh for after in TRANSITIONS[phase]} - reached
    assert reached == set(Phase)


def test_every_phase_can_end_in_stopped() -> None:
    for phase in Phase:
        reached, fresh = set(), {phase}
        while fresh:
            reached |= fresh
            fresh = {after for one in fresh for after in TRANSITIONS[one]} - reached
        assert Phase.STOPPED in reached


@given(st.lists(phases, min_size=2, max_size=12))
def test_what_has_ended_never_holds_room_again(path: list[Phase]) -> None:
    walked = [path[0]]
    for phase in path[1:]:
        if may_follow(walked[-1], phase):
            walked.append(phase)
    ended = [index for index, phase in enumerate(walked) if phase in ENDED]
    assert all(phase not in OCCUPYING for phase in walked[ended[0] :]) if ended else True


@given(phases)
def test_staying_is_always_allowed(phase: Phase) -> None:
    assert may_follow(phase, phase)


def test_what_drains_gets_no_requests_again() -> None:
    assert not may_follow(Phase.DRAINING, Phase.READY)


# -- model --------------------------------------------------------------------------------------------------------------------


class NewerMember(Model, frozen=True, kw_only=True):
    v: int = msgspec.field(default_factory=lambda: 2)
    role: str
    member: str
    address: str = ""
    admin: str = ""
    build: str = ""
    shards: list[int] = []


def test_fields_of_a_newer_version_survive_an_older_writer() -> None:
    written = encode(NewerMember(role="ingress", member="a", build="2.0", shards=[1, 2]))
    read = decode(Member, written)
    changed = encode(msgspec.structs.replace(read, address="10.0.0.1:80"), over=written)
    again = decode(NewerMember, changed)
    assert (again.build, again.shards, again.address, again.v) == ("2.0", [1, 2], "10.0.0.1:80", 2)


def test_a_field_set_back_to_its_default_does_not_keep_its_old_value() -> None:
    old = encode(Member(role="r", member="a", address="x"))
    assert decode(Member, encode(Member(role="r", member="a"), over=old)).address == ""


@given(names, names, st.dictionaries(st.text(max_size=5).filter(lambda k: k not in ("v", "role", "member")), st.integers()))
def test_any_unknown_fields_survive(role: str, member: str, extra: dict[str, int]) -> None:
    extra = {key: value for key, value in extra.items() if key not in ("address", "admin")}
    wire = msgspec.json.encode({"v": 1, "role": role, "member": member, **extra})
    assert msgspec.json.decode(encode(decode(Member, wire), over=wire)) == {"v": 1, "role": role, "member": member, **extra}


def test_the_version_is_always_on_the_wire() -> None:
    for module in (messages, __import__("store.model", fromlist=["x"])):
        for _, kind in inspect.getmembers(module, inspect.isclass):
            if issubclass(kind, Model) and "v" in kind.__struct_fields__:
                field = next(f for f in msgspec.structs.fields(kind) if f.name == "v")
                assert field.default_factory is not msgspec.NODEFAULT, f"{kind.__name__}.v would be left out"


def test_keys_of_a_revision_are_the_same_everywhere() -> None:
    assignment = Assignment(instance="i", project="p", revision="r", node="n", goal=Goal.RUN)
    instance = Instance(instance="i", project="p", revision="r", node="n", phase=Phase.READY)
    revision = Revision(project="p", name="r", image="x@sha256:0")
    assert assignment.revision_key == instance.revision_key == revision.key == "p/r"


def test_a_value_of_another_kind_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError):
        decode(Scale, b'{"project": "p"}')


# -- keys ---------------------------------------------------------------------------------------------------------------------


@given(names, names)
def test_building_and_taking_apart_a_key_are_inverse(one: str, two: str) -> None:
    built = {
        keys.REVISIONS: keys.revision(one, two),
        keys.ROUTES: keys.route(one, two),
        keys.SCALE: keys.scale(one, two),
        keys.ASSIGNMENTS: keys.assignment(one, two),
        keys.INSTANCES: keys.instance(one, two),
        keys.MEMBERS: keys.member(one, two),
        keys.WAKES: keys.wake(one, two),
        keys.objects(one): keys.object_(one, two, two)[: -len(two) - 1],
    }
    for prefix, key in built.items():
        assert key.startswith(prefix)
        assert key.startswith(keys.ROOT)
        if prefix != keys.objects(one):
            assert keys.tail(key, prefix) == (one, two)
    assert keys.tail(keys.object_(one, two, one), keys.OBJECTS) == (one, two, one)
    assert keys.tail(keys.node(one), keys.NODES) == (one,)
    assert keys.tail(keys.election(one), keys.ELECTIONS) == (one,)


@given(names, names)
def test_a_prefix_holds_its_own_and_no_longer_name(one: str, two: str) -> None:
    assert keys.assignment(one, two).startswith(keys.assignments(one))
    assert not keys.assignment(one + "x", two).startswith(keys.assignments(one))
    assert keys.instance(one, two).startswith(keys.instances(one))
    assert keys.member(one, two).startswith(keys.members(one))
    assert keys.object_("services", one, two).startswith(keys.objects("services", one))
    assert not keys.object_("services", one + "x", two).startswith(keys.objects("services", one))


def test_no_part_of_the_key_map_is_a_prefix_of_another() -> None:
    parts = [value for name, value in vars(keys).items() if name.isupper() and name != "ROOT"]
    assert all(not a.startswith(b) for a in parts for b in parts if a is not b)


# -- transactions -------------------------------------------------------------------------------------------------------------


def test_a_key_twice_in_one_transaction_is_a_mistake() -> None:
    with pytest.raises(AssertionError, match="twice"):
        Txn(writes=(Put("/a", b""), Delete("/a")))


def test_129_writes_or_guards_are_too_many() -> None:
    with pytest.raises(AssertionError, match="limit is 128"):
        Txn(writes=tuple(Put(f"/{n}", b"") for n in range(129)))
    with pytest.raises(AssertionError, match="limit is 128"):
        Txn(guards=tuple(Guard(f"/{n}", 0) for n in range(129)))


def test_a_guard_is_on_the_revision_or_on_the_creation() -> None:
    with pytest.raises(AssertionError):
        Guard("/a")
    with pytest.raises(AssertionError):
        Guard("/a", 1, 1)
    assert Guard("/a", 5).holds(5, 3)
    assert not Guard("/a", 3).holds(5, 3)
    assert Guard("/a", created_rev=3).holds(5, 3)
    assert not Guard("/a", created_rev=5).holds(5, 3)
    assert Guard("/a", 0).holds(0, 0)


def test_too_many_bytes_are_refused_with_the_largest_key_named() -> None:
    check_size(Txn(writes=(Put("/a", b"x" * (MAX_BYTES - 2)),)))
    with pytest.raises(TooLarge, match="/big"):
        check_size(Txn(writes=(Put("/small", b""), Put("/big", b"x" * MAX_BYTES))))


# -- subjects -----------------------------------------------------------------------------------------------------------------

tokens = st.lists(st.text("abc", min_size=1, max_size=2), min_size=1, max_size=4)


@given(tokens, st.data())
def test_a_pattern_made_from_a_subject_matches_it(subject: list[str], data: st.DataObject) -> None:
    pattern = [data.draw(st.sampled_from([token, "*"])) for token in subject]
    assert matches(".".join(pattern), ".".join(subject))
    cut = data.draw(st.integers(0, len(subject) - 1))
    assert matches(".".join([*pattern[:cut], ">"]), ".".join(subject))
    assert not matches(".".join([*pattern, ">"]), ".".join(subject))
    assert not matches(".".join([*pattern, "*"]), ".".join(subject))
