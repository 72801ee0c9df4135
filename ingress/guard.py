"""Hosts that not everybody may call, or not as often as they like: who calls, by which door, how often.

A guarded host's Split names nothing at first sight, as one with rules does: it is opened first. Hosts without a guard pay nothing for it.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from ingress.hosts import canonical
from ingress.identity import Identities
from ingress.rate import Crowd, Rates
from ingress.traffic import Choice, Split
from store.access import ALL_USERS
from store.identity import BadToken
from store.model import Access, RouteEntry
from store.projects import Project

if TYPE_CHECKING:
    from ingress.forward import Exchange
    from ingress.gate import Gate
    from ingress.http1 import Fields, Request

LOCAL = ".svc.cluster.local"
"""Behind `<service>.<project>`: the names that instances call by."""
PRINCIPAL = b"X-Ebb-Principal"
SEEN_MOST = 256
"""Heads that a guard remembers."""
_BEARER = b"bearer "


class Guard(Split):
    """What stands before `behind`."""

    __slots__ = ("_access", "_closed", "_hosts", "_private", "_project", "_rates", "_seen", "_seen_by", "behind", "plain")

    def __init__(self, behind: Split, access: Access, hosts: frozenset[str], project: Project, rates: Rates | None) -> None:
        """`hosts`: those of the route, which a token may be for."""
        super().__init__(behind.project, [])
        self.behind = behind
        self.plain = behind.only if type(behind) is Split else None
        """The one revision behind it, where nothing else is to be asked."""
        self._access = access
        self._closed = access.ingress != "all"
        self._hosts = hosts
        self._project = project
        self._private = project.policy.private if access.private is None else access.private
        if ALL_USERS in access.invokers:
            self._private = False
        self._rates = rates
        self._seen: dict[int, _Seen] = {}
        """Heads that were let in and come again, by the id of their fields."""
        self._seen_by = 0
        """The `version` of the identities that all of these hold for."""

    def open(self, gate: "Gate", exchange: "Exchange") -> Choice | None:
        """As a Split's. None as well where more is to be asked behind it: then `ruled.follow` asks it."""
        return self.plain if self.plain is not None and self.lets(gate, exchange) else None

    def lets(self, gate: "Gate", exchange: "Exchange") -> bool:
        """Whether `exchange` may go on; else it was answered here, and has ended."""
        if self._closed and not (exchange.front.inner and self._access.ingress == "internal"):
            exchange.refused("no-route", f"no service answers to host {exchange.request.host.decode('latin-1')}")
            return False
        if self._private:
            request, identities = exchange.request, gate.identities
            seen = self._seen.get(id(request.fields))
            if (
                seen is not None
                and seen.host is request.host
                and exchange.started < seen.until
                and self._seen_by == identities.version
            ):
                request.fields, request.begun = seen.more, seen.begun
            elif not self._known(gate, identities, exchange):
                return False
        if self._rates is not None:
            refusal = self._rates.enter(exchange.started)
            if refusal is not None:
                exchange.refused(*refusal)
                return False
            exchange.crowd = self._rates.crowd
        return True

    def _known(self, gate: "Gate", identities: Identities, exchange: "Exchange") -> bool:
        """Whether the caller is known, and may call. Its principal goes on to the instance."""
        request, inner = exchange.request, exchange.front.inner
        if identities.may_invoke(self.project, ALL_USERS):
            return True
        token = _token(request)
        left_s = 0.0
        if token:
            wall = gate.clock.wall()
            try:
                principal, audience, expires = identities.who(token, wall)
            except BadToken as error:
                exchange.refused("unauthenticated", f"the identity token {error}")
                return False
            if audience not in self._hosts and audience != canonical(request.host):
                exchange.refused("unauthenticated", f"the identity token is for {audience}, which is not this service")
                return False
            left_s = expires - wall
        else:
            principal = identities.resident(exchange.front.client) if inner else ""
            if not principal:
                exchange.refused("unauthenticated")
                return False
        if principal not in self._access.invokers and not identities.may_invoke(self.project, principal):
            exchange.refused("forbidden", f"{principal} may not call this service; its project can make it an invoker")
            return False
        fields, shared = request.fields, bool(request.begun)
        request.add(PRINCIPAL, principal.encode())
        if token and shared:
            self._remember(identities.version, fields, request, exchange.started + left_s)
        return True

    def _remember(self, version: int, fields: "Fields", request: "Request", until: float) -> None:
        """A head whose `fields` other requests share was let in: for as long as its token counts they need not be looked through."""
        if self._seen_by != version or len(self._seen) >= SEEN_MOST:
            self._seen.clear()
            self._seen_by = version
        self._seen[id(fields)] = _Seen(fields, request.host, request.fields, request.begun, until)


class _Seen:
    """What became of a head: `more` are its fields with the principal. `fields` is kept so that its id stays its own."""

    __slots__ = ("begun", "fields", "host", "more", "until")

    def __init__(self, fields: "Fields", host: bytes, more: "Fields", begun: bytes, until: float) -> None:
        self.fields, self.host, self.more, self.begun, self.until = fields, host, more, begun, until


def _token(request: "Request") -> bytes:
    """The bearer token of a request; `X-Serverless-Authorization` goes first, so that `Authorization` can be the service's own."""
    found = b""
    for name, value in request.fields:
        lower = name.lower()
        if lower == b"x-serverless-authorization" and value[:7].lower() == _BEARER:
            return value[7:].strip()
        if lower == b"authorization" and value[:7].lower() == _BEARER:
            found = value[7:].strip()
    return found


class Guards:
    """Makes guards for routes. What of a project or of the workers changes is told to it, and then routes are put anew."""

    def __init__(self, waiting: Callable[[str], int], now: Callable[[], float]) -> None:
        """`waiting`: how many requests of a revision wait now."""
        self._waiting, self._now = waiting, now
        self._projects: dict[str, Project] = {}
        self._crowds: dict[str, Crowd] = {}
        self._rates: dict[str, Rates] = {}
        self._revisions: dict[str, dict[str, list[str]]] = {}
        """Project → route's key → revisions, where requests may have to be counted."""
        self.workers = 1
        """Of the front door: limits are shared by them."""

    def over(self, key: str, entry: RouteEntry, split: Split) -> Split:
        """`split` of the route at `key`, or a guard before it where something is asked of callers."""
        project = self._projects.get(entry.project)
        access = entry.access
        if project is None and access is None:
            return split
        project, access = project or Project(name=entry.project), access or Access()
        private = project.policy.private if access.private is None else access.private
        rates = self._limits(key, entry, project, access)
        if not private and access.ingress == "all" and rates is None:
            return split
        return Guard(split, access, hosts_of(entry), project, rates)

    def limited(self) -> list[str]:
        """The routes whose requests are counted."""
        return list(self._rates)

    def forget(self, key: str, entry: RouteEntry) -> None:
        """The route is gone."""
        self._rates.pop(key, None)
        self._revisions.get(entry.project, {}).pop(key, None)

    def project(self, name: str, project: Project | None) -> None:
        """A project's record changed; its routes are to be put anew."""
        if project is None:
            self._projects.pop(name, None)
        else:
            self._projects[name] = project

    def _limits(self, key: str, entry: RouteEntry, project: Project, access: Access) -> Rates | None:
        quota = project.quota
        if not (access.requests_per_s or quota.requests_per_s or quota.in_flight or quota.queued):
            self.forget(key, entry)
            return None
        name, now = entry.project, self._now()
        self._revisions.setdefault(name, {})[key] = [f"{name}/{revision}" for revision in entry.limits]
        if (crowd := self._crowds.get(name)) is None:
            crowd = self._crowds[name] = Crowd(lambda: self._queued(name))
        crowd.change(quota.requests_per_s, quota.in_flight, quota.queued, self.workers, now)
        if (rates := self._rates.get(key)) is None:
            rates = self._rates[key] = Rates(name, crowd)
        rates.change(access.requests_per_s, self.workers, now)
        return rates

    def _queued(self, project: str) -> int:
        routes = self._revisions.get(project, {}).values()
        return sum(map(self._waiting, {revision for route in routes for revision in route}))


def inner_only(split: Split) -> Split:
    """`split`, for who comes by the inner door."""
    return Guard(split, Access(ingress="internal", private=False), frozenset(), Project(name=split.project), None)


def hosts_of(entry: RouteEntry) -> frozenset[str]:
    """The hosts that a token for this route may name."""
    return frozenset((*entry.hosts, f"{entry.route}.{entry.project}{LOCAL}"))
