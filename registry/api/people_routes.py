"""The paths of people: who am I, tokens, users and robots, roles."""

from typing import Any

from litestar import Response, delete, get, patch, post, put
from litestar.handlers import BaseRouteHandler

from process.clock import Clock, rfc3339
from registry.api import problems
from registry.api.doors import EBB, is_project
from registry.api.gate import asked
from registry.api.problems import ApiError
from registry.api.routes import Http, answer, flag, read
from registry.authorisation import PERMISSIONS, Identity
from registry.directory import Directory, is_principal
from registry.objects import Object
from registry.people import People
from registry.tokens import ended
from store import keys
from store.access import Binding, Token, User

TTL_DEFAULT_S = 90 * 86_400
TTL_MOST_S = 10 * 365 * 86_400
NOTE_MOST = 200
_TAGS = ["People"]


def shown_user(user: User, people: People) -> Object:
    return {
        "principal": user.principal, "disabled": user.disabled, "createdAt": rfc3339(user.created_at), "note": user.note,
        "roles": {project or "*": list(roles) for project, roles in people.roles(user.principal).items()},
    }  # fmt: skip


def shown_token(token: Token, now: float) -> Object:
    """Never its secret: that is known to nobody."""
    times = {"createdAt": token.created_at, "expiresAt": token.expires_at, "revokedAt": token.revoked_at}
    return {
        "id": token.id, "principal": token.principal, "projects": token.projects, "role": token.role, "note": token.note,
        "state": "revoked" if token.revoked_at else "expired" if ended(token, now) else "valid",
        **{name: rfc3339(at) for name, at in times.items() if at},
    }  # fmt: skip


class PeopleRoutes:
    """What the paths do. Methods raise ApiError."""

    def __init__(self, directory: Directory, people: People, clock: Clock) -> None:
        self._directory, self._people, self._clock = directory, people, clock

    def whoami(self, who: Identity) -> Object:
        roles = {project or "*": list(held) for project, held in who.roles.items()}
        until = {"expiresAt": rfc3339(who.expires_at)} if who.expires_at else {}
        return {
            "principal": who.principal,
            "roles": roles,
            "token": who.token,
            "projects": who.projects,
            "role": who.cap,
            **until,
        }

    def tokens(self, who: Identity, everybody: bool, ended_too: bool) -> list[Object]:
        now = self._clock.wall()
        found = [
            token for _, token in self._people.tokens.items() if token.principal == who.principal or (everybody and who.rules)
        ]
        found = [token for token in found if ended_too or not ended(token, now)]
        return [shown_token(token, now) for token in sorted(found, key=lambda token: (token.principal, token.created_at))]

    async def make_token(self, who: Identity, body: Any) -> Object:
        """For oneself, or by who rules the platform for another. A token that is limited makes none."""
        wanted = _wanted(body, who, self._clock.wall())
        if who.scoped:
            raise ApiError(
                403, "Forbidden", f"the token {who.token} is limited: only one without projects and role makes others"
            )
        if wanted.principal != who.principal and not who.rules:
            raise problems.may_not(who.principal, "create", f"tokens of {wanted.principal}", "")
        if self._people.user(wanted.principal) is None:
            raise problems.unseen("users", wanted.principal)
        text, made = await self._directory.make_token(wanted)
        return {**shown_token(made, self._clock.wall()), "token": text}

    async def revoke(self, who: Identity, token_id: str) -> Object:
        token = self._people.tokens.get(keys.token(token_id))
        if token is None or (token.principal != who.principal and not who.rules):
            raise problems.unseen("tokens", token_id)
        return {"revoked": await self._directory.revoke(token_id)}

    async def add_user(self, body: Any) -> Object:
        principal, note = _field(body, "principal", ""), _field(body, "note", "")
        return shown_user(await self._directory.add_user(principal, note[:NOTE_MOST]), self._people)

    async def change_user(self, principal: str, body: Any) -> Object:
        disabled = body.get("disabled") if isinstance(body, dict) else None
        if not isinstance(disabled, bool):
            raise problems.bad_request('want {"disabled": true} or {"disabled": false}')
        return shown_user(await self._directory.change_user(principal, disabled), self._people)

    def users(self) -> list[Object]:
        return [shown_user(user, self._people) for _, user in sorted(self._people.users.items())]

    def bindings(self, project: str) -> list[Object]:
        found = [binding for _, binding in sorted(self._people.bindings.items()) if binding.project == project]
        return [shown_binding(binding) for binding in found]

    async def bind(self, project: str, role: str, principal: str, *, grant: bool) -> Object:
        work = self._directory.grant if grant else self._directory.take
        return shown_binding(await work(project, principal.lstrip("/"), role))


def shown_binding(binding: Binding) -> Object:
    return {"project": binding.project or "*", "principal": binding.principal, "roles": binding.roles}


def _wanted(body: Any, who: Identity, now: float) -> Token:
    """The token that `body` asks for. Raises ApiError 400, naming the field."""
    known = ("principal", "projects", "role", "ttlS", "note")
    if not isinstance(body, dict) or any(name not in known for name in body):
        raise problems.bad_request(f"want a mapping with some of {', '.join(known)}")
    principal, role = _field(body, "principal", who.principal), _field(body, "role", "")
    projects, ttl_s = body.get("projects", []), body.get("ttlS", TTL_DEFAULT_S)
    if not is_principal(principal):
        raise problems.bad_request(f"principal {principal[:80]!r}; allowed: user:NAME or robot:NAME")
    if not isinstance(projects, list) or len(projects) > 100 or not all(isinstance(p, str) and is_project(p) for p in projects):
        raise problems.bad_request("projects; allowed: a list of at most 100 projects' names")
    if role and role not in PERMISSIONS:
        raise problems.bad_request(f"role {role[:40]!r}; allowed: {', '.join(PERMISSIONS)}")
    if not isinstance(ttl_s, int) or isinstance(ttl_s, bool) or not 0 <= ttl_s <= TTL_MOST_S:
        raise problems.bad_request(f"ttlS {ttl_s!r:.40}; allowed: seconds from 1 to {TTL_MOST_S}, or 0: it never expires")
    note = _field(body, "note", "")[:NOTE_MOST]
    until = now + ttl_s if ttl_s else 0.0
    return Token(
        id="", digest="", principal=principal, projects=tuple(projects), role=role, expires_at=until,
        made_by=who.token if principal == who.principal else "", note=note,
    )  # fmt: skip


def _field(body: Any, name: str, default: str) -> str:
    value = body.get(name, default) if isinstance(body, dict) else default
    if not isinstance(value, str) or "\0" in value:
        raise problems.bad_request(f"{name}; allowed: a string")
    return value


def handlers(routes: PeopleRoutes) -> list[BaseRouteHandler]:
    """Litestar's handlers over `routes`."""

    @get(EBB + "/whoami", summary="Who this token speaks for, and what they may", tags=_TAGS)
    async def whoami(request: Http) -> Response[bytes]:
        return answer(routes.whoami(asked(request).identity))

    @get(
        EBB + "/tokens",
        summary="Your tokens (?all=true: everybody's; ?ended=true: also those that count no longer)",
        tags=_TAGS,
    )
    async def list_tokens(request: Http) -> Response[bytes]:
        found = routes.tokens(asked(request).identity, flag(request, "all"), flag(request, "ended"))
        return answer({"items": found})

    @post(EBB + "/tokens", summary="Make a token; its text is in this answer and nowhere else", tags=_TAGS)
    async def create_token(request: Http) -> Response[bytes]:
        made = await routes.make_token(asked(request).identity, await read(request))
        asked(request).name = made["id"]
        return answer(made, 201)

    @delete(EBB + "/tokens/{name:str}", status_code=200, summary="Revoke a token, and those made with it", tags=_TAGS)
    async def revoke_token(name: str, request: Http) -> Response[bytes]:
        return answer(await routes.revoke(asked(request).identity, name))

    @get(EBB + "/users", summary="Users and robots", tags=_TAGS)
    async def list_users() -> Response[bytes]:
        return answer({"items": routes.users()})

    @post(EBB + "/users", summary="Add a user or robot", tags=_TAGS)
    async def add_user(request: Http) -> Response[bytes]:
        made = await routes.add_user(await read(request))
        asked(request).name = made["principal"]
        return answer(made, 201)

    @patch(EBB + "/users/{principal:str}", summary="Disable a user or robot, or enable it", tags=_TAGS)
    async def change_user(principal: str, request: Http) -> Response[bytes]:
        return answer(await routes.change_user(principal, await read(request)))

    @delete(EBB + "/users/{principal:str}", status_code=200, summary="Remove a user or robot, roles and tokens", tags=_TAGS)
    async def remove_user(principal: str) -> Response[bytes]:
        await routes._directory.remove_user(principal)
        return answer({"removed": principal})

    return [whoami, list_tokens, create_token, revoke_token, list_users, add_user, change_user, remove_user, *_roles(routes)]


def _roles(routes: PeopleRoutes) -> list[BaseRouteHandler]:
    inside, one = EBB + "/namespaces/{ns:str}/bindings", "/bindings/{role:str}/{principal:path}"

    @get(inside, summary="Who has which role in a project", tags=_TAGS)
    async def list_bindings(ns: str) -> Response[bytes]:
        return answer({"items": routes.bindings(ns)})

    @put(EBB + "/namespaces/{ns:str}" + one, summary="Grant a role in a project", tags=_TAGS)
    async def grant(ns: str, role: str, principal: str) -> Response[bytes]:
        return answer(await routes.bind(ns, role, principal, grant=True))

    @delete(EBB + "/namespaces/{ns:str}" + one, status_code=200, summary="Revoke a role in a project", tags=_TAGS)
    async def take(ns: str, role: str, principal: str) -> Response[bytes]:
        return answer(await routes.bind(ns, role, principal, grant=False))

    @get(EBB + "/bindings", summary="Who has which role on the platform", tags=_TAGS)
    async def list_platform_bindings() -> Response[bytes]:
        return answer({"items": routes.bindings("")})

    @put(EBB + one, summary="Grant a role on the platform", tags=_TAGS)
    async def grant_platform(role: str, principal: str) -> Response[bytes]:
        return answer(await routes.bind("", role, principal, grant=True))

    @delete(EBB + one, status_code=200, summary="Revoke a role on the platform", tags=_TAGS)
    async def take_platform(role: str, principal: str) -> Response[bytes]:
        return answer(await routes.bind("", role, principal, grant=False))

    return [list_bindings, grant, take, list_platform_bindings, grant_platform, take_platform]
