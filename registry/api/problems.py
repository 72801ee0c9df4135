"""Errors as clients of the API read them: Kubernetes' Status objects."""

from collections.abc import Sequence
from typing import Any

from registry.objects import Kind
from registry.problem import Problem


class ApiError(Exception):
    """An answer that is an error. `reason` is Kubernetes' word; `details` what a program may want to know."""

    def __init__(self, code: int, reason: str, message: str, details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code, self.reason, self.message, self.details = code, reason, message, details or {}

    def status(self) -> dict[str, Any]:
        """The Status object."""
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "details": self.details,
            "code": self.code,
        }


def _details(kind: Kind, name: str) -> dict[str, Any]:
    return {"name": name, "group": kind.group, "kind": kind.plural}


def success(kind: Kind, name: str, uid: str) -> dict[str, Any]:
    """What a deletion answers."""
    details = {**_details(kind, name), "uid": uid}
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}


def not_found(kind: Kind, name: str) -> ApiError:
    return ApiError(404, "NotFound", f'{kind.qualified} "{name}" not found', _details(kind, name))


def no_such_resource() -> ApiError:
    return ApiError(404, "NotFound", "the server could not find the requested resource")


def already_exists(kind: Kind, name: str) -> ApiError:
    return ApiError(409, "AlreadyExists", f'{kind.qualified} "{name}" already exists', _details(kind, name))


def conflict(kind: Kind, name: str, why: str) -> ApiError:
    message = f'Operation cannot be fulfilled on {kind.qualified} "{name}": {why}'
    return ApiError(409, "Conflict", message, _details(kind, name))


def not_as_it_is(message: str) -> ApiError:
    """409 for what cannot be done in the state that the engine is in; trying again changes nothing."""
    return ApiError(409, "Conflict", message)


def changed_meanwhile(kind: Kind, name: str) -> ApiError:
    why = "the object has been modified; please apply your changes to the latest version and try again"
    return conflict(kind, name, why)


def invalid(kind: Kind, name: str, problems: Sequence[Problem]) -> ApiError:
    """422 that lists everything that is wrong, in the message for people and in `details.causes` for programs."""
    causes = [{"field": p.path, "message": p.message, "reason": p.reason} for p in problems]
    said = str(problems[0]) if len(problems) == 1 else "[" + ", ".join(map(str, problems)) + "]"
    message = f'{kind.kind}{"." if kind.group else ""}{kind.group} "{name}" is invalid: {said}'
    return ApiError(422, "Invalid", message, {**_details(kind, name), "causes": causes})


def forbidden(kind: Kind, name: str, why: str) -> ApiError:
    return ApiError(403, "Forbidden", f'{kind.qualified} "{name}" is forbidden: {why}', _details(kind, name))


def unasked(kind: Kind, name: str, project: str, what: Sequence[str]) -> ApiError:
    """403 for a service that does not say how much it takes of what the project's quota bounds, as Kubernetes' quotas do."""
    names = " and ".join(f"resources.requests.{each} or resources.limits.{each}" for each in what)
    why = f"the quota of project {project} bounds {' and '.join(what)}, so its services have to say how much they take: set {names}"
    return forbidden(kind, name, why)


def bad_request(message: str) -> ApiError:
    return ApiError(400, "BadRequest", message)


def gone(message: str) -> ApiError:
    return ApiError(410, "Expired", message)


def too_large(limit_bytes: int) -> ApiError:
    limit = f"{limit_bytes / 2**20:.1f} MiB ({limit_bytes} bytes)"
    return ApiError(413, "RequestEntityTooLarge", f"the request's body is larger than the limit of {limit}; send less")


def not_allowed(message: str) -> ApiError:
    return ApiError(405, "MethodNotAllowed", message)


def unsupported_media(got: str, allowed: str) -> ApiError:
    message = f"the body of the request was in an unknown format ({got}); accepted: {allowed}"
    return ApiError(415, "UnsupportedMediaType", message)


def unavailable(message: str) -> ApiError:
    return ApiError(503, "ServiceUnavailable", message, {"retryAfterSeconds": 1})


def too_many(message: str, retry_after_s: int = 1) -> ApiError:
    return ApiError(429, "TooManyRequests", message, {"retryAfterSeconds": retry_after_s})


def unauthorized(message: str) -> ApiError:
    return ApiError(401, "Unauthorized", message)


def unseen(kind: str, name: str) -> ApiError:
    """404 for what may or may not be there, in a project that is somebody else's: the words are those of what is not there."""
    return ApiError(
        404, "NotFound", f'{kind} "{name}" not found' if name else f"{kind} not found", {"kind": kind, "name": name}
    )


def may_not(principal: str, action: str, kind: str, project: str) -> ApiError:
    """403 that says what is missing."""
    where = f"in project {project}" if project else "outside of projects"
    cure = "ask who administers it for a role (ebb role grant), or use a token that may"
    return ApiError(403, "Forbidden", f"{principal} may not {action} {kind} {where}; {cure}", {"kind": kind})


def over_quota(what: str, limit: int, has: int, project: str) -> ApiError:
    """403 that names the limit, as Kubernetes' quotas do."""
    message = f"exceeded quota of project {project}: {what} is limited to {limit}, there are {has}; delete some, or raise it"
    return ApiError(403, "Forbidden", message, {"causes": [{"field": f"quota.{what}", "message": f"limited to {limit}"}]})
