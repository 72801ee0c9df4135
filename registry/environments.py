"""Which execution environment a template asks for: Cloud Run's annotation, or Kubernetes' runtimeClassName; and which profile. Pure."""

from collections.abc import Mapping
from typing import Any

from registry.problem import Problems
from store.model import GVISOR

ANNOTATION = "run.googleapis.com/execution-environment"
ENVIRONMENTS = {"gen1": GVISOR, "gen2": "", "sandboxed": GVISOR}
"""By name: Cloud Run's first generation is gVisor, its second a whole Linux kernel's interface."""
CLASSES = (GVISOR,)
PROFILE = "ebb.dev/profile"
PROFILES = ("default", "hardened")
"""How much an instance may do (nodeagent/profiles.py)."""


def runtime_of(annotations: Mapping[str, Any], spec: Mapping[str, Any]) -> str:
    """`Revision.runtime` of a valid template."""
    return ENVIRONMENTS.get(str(annotations.get(ANNOTATION, "")), "") or str(spec.get("runtimeClassName", ""))


def profile_of(annotations: Mapping[str, Any]) -> str:
    """`Revision.profile` of a valid template."""
    return str(annotations.get(PROFILE, PROFILES[0]))


def check(problems: Problems, annotations: Any, spec: Any, path: str) -> None:
    """That the annotations have known words, and do not contradict `runtimeClassName`."""
    if isinstance(annotations, Mapping) and annotations.get(PROFILE, PROFILES[0]) not in PROFILES:
        problems.bad(f"{path}.metadata.annotations[{PROFILE}]", annotations[PROFILE], " or ".join(PROFILES))
    said = annotations.get(ANNOTATION) if isinstance(annotations, Mapping) else None
    if said is None:
        return
    where = f"{path}.metadata.annotations[{ANNOTATION}]"
    if said not in ENVIRONMENTS:
        problems.bad(where, said, f"one of {', '.join(ENVIRONMENTS)}")
    elif isinstance(spec, Mapping) and spec.get("runtimeClassName") and not ENVIRONMENTS[said]:
        problems.bad(where, said, f"gen1 or sandboxed beside runtimeClassName {spec['runtimeClassName']!r}, or neither")
