"""Which news of instances count."""

import pytest

from store import keys
from store.assigned import about, kept, vouches
from store.lifecycle import Phase
from store.model import Assignment, Instance


def given(**changes: str) -> Assignment:
    plan = {"instance": "a-1", "project": "p", "revision": "a", "service": "s", "node": "n", "goal": "run"}
    return Assignment(**(plan | changes))


def news(**changes: str) -> Instance:
    plan = {"instance": "a-1", "node": "n", "project": "p", "revision": "a", "phase": Phase.READY}
    return Instance(**(plan | changes))


def test_what_was_given_is_vouched_for() -> None:
    assert vouches(given(), news())
    assert vouches(kept(given()), news()), "what is kept of it is enough"


@pytest.mark.parametrize("changes", [{"revision": "b"}, {"project": "q"}])
def test_an_instance_that_passes_for_another_revisions_is_not(changes: dict[str, str]) -> None:
    assert not vouches(given(), news(**changes))


def test_what_nobody_gave_is_not() -> None:
    assert not vouches(None, news())


@pytest.mark.parametrize("changes", [{"node": "m"}, {"instance": "a-2"}])
def test_what_stands_in_the_place_of_another_is_about_nothing(changes: dict[str, str]) -> None:
    assert about(keys.instance("n", "a-1"), news()) == news()
    assert about(keys.instance("n", "a-1"), news(**changes)) is None
