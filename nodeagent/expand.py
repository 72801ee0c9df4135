"""Kubernetes' `$(NAME)` in commands, arguments and values of variables."""

import re
from collections.abc import Mapping

_REFERENCE = re.compile(r"\$\$|\$\(([^()$]+)\)")


def expand(text: str, variables: Mapping[str, str]) -> str:
    """`text` with `$(NAME)` replaced by its value; `$$` is one `$`, and an unknown name stays as it is written."""

    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        return "$" if name is None else variables.get(name, match.group(0))

    return _REFERENCE.sub(value, text) if "$" in text else text
