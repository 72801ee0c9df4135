"""The paths of identity tokens: one for who asks, and the keys with which anybody verifies them."""

from typing import Any

from litestar import Response, get, post
from litestar.handlers import BaseRouteHandler

from process.clock import rfc3339
from registry.api import problems
from registry.api.doors import DISCOVERY, EBB, JWKS
from registry.api.gate import asked
from registry.api.problems import ApiError
from registry.api.routes import Http, answer, read
from registry.identities import Identities, NoIdentity, NotYet
from store.identity import ISSUER

_TAGS = ["People"]


def handlers(identities: Identities | None) -> list[BaseRouteHandler]:
    """`identities` None: no tokens are given here."""

    @post(f"{EBB}/identity-tokens", summary="An identity token of who asks, for the service at `audience`", tags=_TAGS)
    async def token(request: Http) -> Response[bytes]:
        who = asked(request).identity
        audience = _audience(await read(request))
        if who.scoped:
            # An identity token says who calls, and nothing of the limits of the token that it was asked for with.
            raise ApiError(403, "Forbidden", f"the token {who.token} is limited: only one without projects and role gives them")
        if identities is None:
            raise problems.not_as_it_is("this registry signs nothing: it was started without --identity-key-file")
        try:
            made = identities.token(who.principal, audience)
        except NotYet as error:
            raise problems.unavailable(str(error)) from None
        except NoIdentity as error:
            raise problems.bad_request(str(error)) from None
        return answer({"token": made.token, "principal": who.principal, "expiresAt": rfc3339(made.expires_at)}, 201)

    @get(JWKS, summary="The keys that identity tokens are verified with; open to all", tags=_TAGS)
    async def keys() -> Response[bytes]:
        return answer(identities.jwks() if identities is not None else {"keys": []})

    @get(DISCOVERY, summary="What identity tokens are, as OpenID Connect says it; open to all", tags=_TAGS)
    async def configuration(request: Http) -> Response[bytes]:
        base = str(request.base_url).rstrip("/")
        return answer(
            {
                "issuer": ISSUER,
                "jwks_uri": base + JWKS,
                "id_token_signing_alg_values_supported": ["ES256"],
                "subject_types_supported": ["public"],
                "response_types_supported": ["id_token"],
                "claims_supported": ["iss", "sub", "aud", "iat", "exp"],
            }
        )

    return [token, keys, configuration]


def _audience(body: Any) -> str:
    found = body.get("audience") if isinstance(body, dict) else None
    if not isinstance(found, str) or not found:
        raise problems.bad_request("want a JSON mapping with `audience`: the URL of the service that is to be called")
    return found
