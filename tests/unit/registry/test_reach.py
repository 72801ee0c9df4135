"""Annotations of who reaches whom."""

import pytest

from registry import reach
from registry.problem import Problems


def problems_of(value: object) -> list[str]:
    problems = Problems()
    reach.check_revision(problems, {reach.EGRESS: value}, "annotations")
    return [str(problem) for problem in problems]


@pytest.mark.parametrize("value", ["none", "open", "private", "1.2.3.4,10.1.0.0/16:5432", "open, private"])
def test_where_instances_may_connect_to_is_a_list_of_words_and_networks(value: str) -> None:
    assert problems_of(value) == []
    assert reach.egress_of({reach.EGRESS: value}) == value.replace("1.2.3.4", "1.2.3.4/32").replace(", ", ",")


@pytest.mark.parametrize("value", ["", "everything", "10.1.0.1/16", "fd00::/8", 7, None])
def test_what_means_nothing_is_refused_and_would_allow_nothing(value: object) -> None:
    assert "none, open, private" in problems_of(value)[0]
    assert reach.egress_of({reach.EGRESS: str(value)}) == "none"


def test_unsaid_it_is_as_the_project_has_it() -> None:
    assert reach.egress_of({}) == ""
