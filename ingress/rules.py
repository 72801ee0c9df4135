"""Hosts with rules: by path, by tag header, by cookie, with a mirror. Built when a route changes; a host without rules has none of this.

To `forward`, a split with rules looks like one without any share: `only` and `pick` name nothing, and then `ruled.follow` is asked.
"""

import re
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING

from ingress.traffic import Choice, Split, choice_of, split
from store.model import RouteEntry, TrafficTarget

if TYPE_CHECKING:
    from ingress.http1 import Fields, Request

TOKENS_MOST = 4_096
"""Instances whose tokens are remembered."""
AFFINITY_S = 86_400
"""How long a browser keeps the cookie: past it the session is placed anew."""
_TOKEN_BYTES = 12
_COOKIE = rb"(?:^|;)[ \t]*%b=([A-Za-z0-9_-]{16})\.([A-Za-z0-9_-]{16})[ \t]*(?:;|$)"


class Paths(Split):
    """A host whose requests go to other services by the beginning of their path; the rest to the host's own."""

    __slots__ = ("_longest", "_prefixes", "_rest")

    def __init__(self, project: str, rest: Split | None, prefixes: Mapping[bytes, tuple[Split | None, bool]]) -> None:
        """`prefixes` (no slash at their end) → where to, and whether the prefix is taken off; None: a service that is not there."""
        super().__init__(project, [])
        self._rest = rest
        self._prefixes = prefixes
        self._longest = max(map(len, prefixes))

    def at(self, request: "Request") -> Split | None:
        """Where `request` goes: the longest prefix of whole segments. Its target is rewritten when that prefix is taken off."""
        path, mark, query = request.target.partition(b"?")
        prefix = path[: self._longest + 1]
        while prefix and prefix not in self._prefixes:
            prefix = prefix.rpartition(b"/")[0]
        if not prefix:
            return self._rest
        found, strip = self._prefixes[prefix]
        if strip and found is not None:
            request.aim(b"/" + path[len(prefix) :].lstrip(b"/") + mark + query)
            request.add(b"X-Forwarded-Prefix", prefix)
        return found


class Affinity:
    """Sessions of one host: a cookie that names a revision and an instance by tokens that only who knows `key` can make."""

    def __init__(self, key: str, route: str, choices: Iterable[Choice]) -> None:
        """`choices`: the revisions that want it and have a share."""
        self._key = blake2b(key.encode()).digest()
        self._choices = {self._token(choice.revision): choice for choice in choices}
        self._tokens: dict[str, bytes] = {}
        self._instances: dict[bytes, str] = {}
        self.cookie = b"ebb-affinity-" + self._token(route)[:6]
        """Its name: several services may answer on one host, each with sessions of its own."""
        self._pattern = re.compile(_COOKIE % re.escape(self.cookie))

    def wanted(self, fields: "Fields") -> tuple[Choice, bytes] | None:
        """The revision and the instance's token that a request's cookie names; None when it has no cookie that still holds."""
        for name, value in fields:
            if name.lower() == b"cookie" and (match := self._pattern.search(value)) is not None:
                choice = self._choices.get(match[1])
                return (choice, match[2]) if choice is not None else None
        return None

    def instance(self, token: bytes, known: Iterable[str]) -> str:
        """Which of the instances `known` has this token; empty: none."""
        found = self._instances.get(token)
        if found is None:
            for name in known:
                if name not in self._tokens:
                    self._remember(name)
            found = self._instances.get(token, "")
        return found

    def field(self, choice: Choice, instance: str, *, secure: bool = False) -> tuple[bytes, bytes]:
        """The Set-Cookie that keeps a session at `instance`; `secure`: it came by TLS and is to go by TLS alone."""
        token = self._tokens.get(instance) or self._remember(instance)
        value = b"%b=%b.%b; Path=/; Max-Age=%d; HttpOnly; SameSite=Lax%b"
        tail = b"; Secure" if secure else b""
        return b"Set-Cookie", value % (self.cookie, self._token(choice.revision), token, AFFINITY_S, tail)

    def names(self, token: bytes, instance: str) -> bool:
        return self._instances.get(token) == instance

    def _remember(self, instance: str) -> bytes:
        if len(self._tokens) >= TOKENS_MOST:
            self._tokens.clear()
            self._instances.clear()
        token = self._tokens[instance] = self._token(instance)
        self._instances[token] = instance
        return token

    def _token(self, name: str) -> bytes:
        return urlsafe_b64encode(blake2b(name.encode(), key=self._key, digest_size=_TOKEN_BYTES).digest())


class Ruled(Split):
    """The shares of a host, and what comes before and beside them."""

    __slots__ = ("affinity", "mirror", "mirror_percent", "shares", "tags")

    def __init__(self, shares: Split) -> None:
        super().__init__(shares.project, [])
        self.shares = shares
        self.tags: dict[bytes, Choice] = {}
        """By what the header `Knative-Serving-Tag` says."""
        self.affinity: Affinity | None = None
        self.mirror: Choice | None = None
        """The revision that gets a copy of `mirror_percent` of the requests."""
        self.mirror_percent = 0

    def choose(self, request: "Request", chance: float) -> tuple[Choice | None, Affinity | None, bytes]:
        """The revision for `request`; when that keeps sessions, how, and the token of the instance that this one was at."""
        tagged = self.tags.get(request.tag)
        if tagged is not None:
            request.add(b"Knative-Serving-Tag", request.tag)
            return tagged, None, b""
        wanted = self.affinity.wanted(request.fields) if self.affinity is not None else None
        if wanted is not None:
            return wanted[0], self.affinity, wanted[1]
        choice = self.shares.only or self.shares.pick(chance)
        return choice, self.affinity if choice is not None and choice.affinity else None, b""


def split_of(entry: RouteEntry, host: str, targets: list[TrafficTarget], choices: dict[str, Choice]) -> Split:
    """What answers at `host` of `entry`: a plain Split, unless there are rules. `choices` are shared by the entry's hosts."""
    shares = split(entry, targets, choices)
    sticky = [choice for choice in shares.choices if choice.affinity] if host[0] != ":" else []  # A port has no cookies.
    own = host == entry.main
    if not sticky and not (own and (entry.tags or entry.mirror)):
        return shares
    ruled = Ruled(shares)
    if sticky:
        ruled.affinity = Affinity(entry.affinity_key, f"{entry.project}/{entry.route}", sticky)
    if own:
        ruled.tags = {tag.encode(): choice_of(entry, revision, choices) for tag, revision in entry.tags.items()}
        if entry.mirror is not None:
            ruled.mirror = choice_of(entry, entry.mirror.revision, choices)
            ruled.mirror_percent = entry.mirror.percent
    return ruled
