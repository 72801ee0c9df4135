"""What a project's quota asks of its services."""

import pytest

from registry.quotas import unasked
from store.projects import Quota


@pytest.mark.parametrize(
    ("quota", "resources", "expected"),
    [
        (Quota(), {}, []),
        (Quota(services=1), {}, []),
        (Quota(memory_bytes=1), {}, ["memory"]),
        (Quota(memory_bytes=1, cpu_m=1), {}, ["cpu", "memory"]),
        (Quota(memory_bytes=1), {"requests": {"memory": "1Mi"}}, []),
        (Quota(memory_bytes=1), {"limits": {"memory": "1Mi"}}, []),
        (Quota(memory_bytes=1), {"limits": {"cpu": "1"}}, ["memory"]),
        (Quota(cpu_m=1), {"requests": {"memory": "1Mi"}, "limits": {"cpu": "1"}}, []),
    ],
)
def test_what_is_bounded_has_to_be_named(quota: Quota, resources: dict[str, dict[str, str]], expected: list[str]) -> None:
    assert unasked(quota, {"spec": {"containers": [{"image": "hello", "resources": resources}]}}) == expected
