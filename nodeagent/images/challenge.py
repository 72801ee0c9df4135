"""What a registry's 401 asks for, and what is answered. Pure."""

import base64
import re
from dataclasses import dataclass

_PARAM = re.compile(r'([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))\s*(?:,|$)\s*')
_SCHEME = re.compile(r"\s*([A-Za-z][A-Za-z0-9-]*)(?:\s+|$)")


@dataclass(frozen=True, slots=True)
class Credential:
    """A user's name and password (or a token in the password's place) for one registry."""

    user: str
    password: str

    def basic(self) -> str:
        """The value of an Authorization header."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


@dataclass(frozen=True, slots=True)
class Challenge:
    """One scheme of a WWW-Authenticate header; `scheme` in lower case."""

    scheme: str
    realm: str = ""
    service: str = ""
    scope: str = ""


def parse(header: str) -> list[Challenge]:
    """The challenges in one WWW-Authenticate header; what cannot be read is left out."""
    found: list[Challenge] = []
    at = 0
    while (scheme := _SCHEME.match(header, at)) is not None:
        at = scheme.end()
        params: dict[str, str] = {}
        while (param := _PARAM.match(header, at)) is not None:
            at = param.end()
            quoted, plain = param[2], param[3]
            params[param[1].lower()] = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain
        found.append(Challenge(scheme[1].lower(), params.get("realm", ""), params.get("service", ""), params.get("scope", "")))
    return found
