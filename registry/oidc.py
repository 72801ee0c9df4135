"""Bearer tokens of OIDC issuers: found by discovery, checked with their keys, mapped to principals.

The file of `--oidc-file` is TOML:

    [[issuer]]
    url = "https://login.example.org"     # as the tokens' `iss` says it
    audience = "ebb"
    claim = "email"                       # → user:<prefix><claim>
    prefix = ""
    ca_file = ""                          # what its TLS is checked with; empty: the system's

Only https, no redirect is followed, every call has a deadline and a size limit. Keys are fetched when a token names one that is not
known, but not more often than once in REFETCH_S.
"""

import asyncio
import ssl
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from process import logs
from process.clock import Clock
from process.settings import BadSettings
from registry import jwt
from registry.authorisation import Identity
from registry.directory import ADMIN, is_principal
from registry.jwt import BadJwt, Key
from registry.people import Refused

CALL_TIMEOUT_S = 5.0
ANSWER_MOST_BYTES = 2**20
KEYS_KEPT_S = 3600.0
REFETCH_S = 10.0
log = logs.get("registry.oidc")

ByClaim = Callable[[str, str, float], Identity]
"""(principal, issuer, end) → the identity; raises Refused."""


class IssuerSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One issuer of the file."""

    url: str
    audience: str
    claim: str = "email"
    prefix: str = ""
    ca_file: str = ""


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    issuer: list[IssuerSpec] = []


def read(path: Path) -> list[IssuerSpec]:
    """The issuers in `path`. Raises BadSettings."""
    try:
        found = msgspec.convert(tomllib.loads(path.read_text()), _File).issuer
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise BadSettings(f"--oidc-file {path}: {error}") from None
    for spec in found:
        if not spec.url.startswith("https://") or not spec.audience:
            raise BadSettings(f"--oidc-file {path}: issuer {spec.url!r}: want an https:// URL, and an audience")
    return found


class Issuers:
    """All issuers whose tokens are accepted."""

    def __init__(self, specs: list[IssuerSpec], clock: Clock, by_claim: ByClaim) -> None:
        self._issuers = {spec.url: _Issuer(spec, clock) for spec in specs}
        self._clock, self._by_claim = clock, by_claim

    async def identity(self, text: str) -> Identity:
        """Who the token speaks of. Raises Refused."""
        try:
            issuer = self._issuers.get(jwt.unverified_issuer(text))
            if issuer is None:
                raise BadJwt("its issuer is not one of those configured here")
            kid, _ = jwt.head(text)
            claims = jwt.verify(text, await issuer.key(kid), issuer.spec.url, issuer.spec.audience, self._clock.wall())
            principal = _principal(claims, issuer.spec)
        except BadJwt as error:
            raise Refused(f"the token is not accepted: {error}") from None
        return self._by_claim(principal, issuer.spec.url, float(claims["exp"]))

    async def close(self) -> None:
        for issuer in self._issuers.values():
            await issuer.close()


def _principal(claims: Any, spec: IssuerSpec) -> str:
    value = claims.get(spec.claim)
    if spec.claim == "email" and claims.get("email_verified") is not True:
        raise BadJwt("its email is not verified")
    principal = f"user:{spec.prefix}{value}"
    if not isinstance(value, str) or not is_principal(principal) or principal == ADMIN:
        raise BadJwt(f"its claim {spec.claim!r} is not a name that a user may have here")
    return principal


class _Issuer:
    def __init__(self, spec: IssuerSpec, clock: Clock) -> None:
        self.spec, self._clock = spec, clock
        self._keys: dict[str, Key] = {}
        self._fetched_at = float("-inf")
        self._tried_at = float("-inf")
        self._fetching = asyncio.Lock()
        self._session: aiohttp.ClientSession | None = None

    async def key(self, kid: str) -> Key:
        """Raises BadJwt."""
        if kid not in self._keys or self._clock.now() - self._fetched_at > KEYS_KEPT_S:
            async with self._fetching:
                now = self._clock.now()
                stale = kid not in self._keys or now - self._fetched_at > KEYS_KEPT_S
                if stale and now - self._tried_at > REFETCH_S:
                    self._tried_at = now
                    await self._fetch()
        if kid not in self._keys:
            raise BadJwt(f"its issuer {self.spec.url} has no such key")
        return self._keys[kid]

    async def _fetch(self) -> None:
        """New keys, or the old ones when the issuer does not answer."""
        try:
            about = await self._get(self.spec.url.rstrip("/") + "/.well-known/openid-configuration")
            if not isinstance(about, dict) or about.get("issuer") != self.spec.url:
                raise BadJwt(f"its discovery names another issuer: {str(about)[:100]}")
            where = about.get("jwks_uri")
            if not isinstance(where, str) or not where.startswith("https://"):
                raise BadJwt("its jwks_uri is not https")
            self._keys, self._fetched_at = jwt.key_set(await self._get(where)), self._clock.now()
        except (BadJwt, aiohttp.ClientError, OSError, TimeoutError, msgspec.DecodeError) as error:
            log.warning("the keys of an issuer cannot be had", issuer=self.spec.url, error=str(error) or type(error).__name__)

    async def _get(self, url: str) -> Any:
        if self._session is None:
            tls = ssl.create_default_context(cafile=self.spec.ca_file or None)
            connector = aiohttp.TCPConnector(ssl=tls, limit=4)
            timeout = aiohttp.ClientTimeout(total=CALL_TIMEOUT_S)
            self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, headers={"User-Agent": "ebb"})
        async with self._session.get(url, allow_redirects=False) as answer:
            if answer.status != 200:
                raise BadJwt(f"{url} answered {answer.status}")
            data = await answer.content.read(ANSWER_MOST_BYTES + 1)
            while len(data) <= ANSWER_MOST_BYTES and (more := await answer.content.read(ANSWER_MOST_BYTES)):
                data += more
            if len(data) > ANSWER_MOST_BYTES:
                raise BadJwt(f"{url} answers more than {ANSWER_MOST_BYTES} bytes")
            return msgspec.json.decode(data)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
