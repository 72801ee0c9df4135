"""A client of image registries (OCI distribution, Docker v2), for reading.

Errors come out as `nodeagent.images.errors`; `Transient` is inside: what may work when asked again.
"""

import asyncio
import hashlib
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urljoin, urlsplit

import aiohttp
import msgspec

from nodeagent.images import challenge, manifest
from nodeagent.images.challenge import Challenge, Credential
from nodeagent.images.errors import BadDigest, BadImage, ImageNotFound, RegistryUnavailable, TooLarge, Unauthorized
from process.outbound import Outbound, refusal_in
from store import imageref
from store.imageref import ImageRef

TRIES = 5
BACKOFF_S = 0.2
MAX_REDIRECTS = 5
CONNECT_S = 10.0
IDLE_S = 30.0
"""Without a byte for so long, a registry counts as gone."""
ASK_S = 30.0
"""Deadline of one question that has a small answer."""
MAX_TOKEN_BYTES = 2**20
_ALLOW = "the node agent's --allow-private-registries NETWORK,… allows it"

T = TypeVar("T")
Lookup = Callable[[str], Awaitable[Credential | None]]
"""Credential for a host, or None."""


class Transient(Exception):
    """Failed now, may work later. The message says what was asked and what came."""


@dataclass(slots=True)
class _Login:
    """What a host wants to see for one repository. `header` is sent along from then on."""

    header: str = ""
    refused: int = 0


class Registry:
    """Registries over HTTP. `insecure`: host:port spoken to by plain HTTP; loopback always is. Those may be anywhere, all others only where
    `outbound` allows: at public addresses, if nothing is said. `close()` it."""

    def __init__(
        self,
        insecure: frozenset[str] = frozenset(),
        ssl_context: ssl.SSLContext | None = None,
        outbound: Outbound | None = None,
    ) -> None:
        self._insecure = insecure
        self._ssl = ssl_context
        self._outbound = outbound or Outbound()
        self._sessions: dict[bool, aiohttp.ClientSession] = {}
        self._logins: dict[tuple[str, str, Credential | None], _Login] = {}

    async def close(self) -> None:
        for session in self._sessions.values():
            await session.close()
        self._sessions.clear()

    async def resolve(self, ref: ImageRef, lookup: Lookup) -> str:
        """The digest that `ref` names now, if who asks may have it. Raises ImageProblem."""
        url = self._url(ref, f"manifests/{ref.target}")

        async def ask() -> str:
            async with self._get(ref, url, lookup, "HEAD", {"Accept": manifest.ACCEPT}) as answer:
                return answer.headers.get("Docker-Content-Digest", "")

        digest = await retrying(ask, f"registry {ref.host}")
        if ref.digest:
            return ref.digest
        if not digest:
            return manifest.digest_of((await self.manifest(ref, ref.tag, lookup))[0])
        try:
            return imageref.check_digest(digest)
        except imageref.BadReference as error:
            raise BadDigest(f"registry {ref.host}: {error}") from None

    async def manifest(self, ref: ImageRef, target: str, lookup: Lookup) -> tuple[bytes, str]:
        """The manifest or index `target` (tag or digest) of `ref`'s repository, and its media type. Raises ImageProblem."""
        url = self._url(ref, f"manifests/{target}")

        async def ask() -> tuple[bytes, str]:
            async with self._get(ref, url, lookup, "GET", {"Accept": manifest.ACCEPT}) as answer:
                return await _small(answer, manifest.MAX_MANIFEST_BYTES, "manifest"), answer.content_type

        data, media_type = await retrying(ask, f"registry {ref.host}")
        if ":" in target and digest_like(target, data) != target:
            raise BadDigest(f"manifest {target} of {ref.name}: the registry sent {digest_like(target, data)} instead")
        return data, media_type

    @asynccontextmanager
    async def blob(self, ref: ImageRef, digest: str, offset: int, lookup: Lookup) -> AsyncIterator[tuple[int, Any]]:
        """(start, chunks) of a blob from `offset` on; start is 0 when the registry cannot begin there. Raises Transient too."""
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        async with self._get(ref, self._url(ref, f"blobs/{digest}"), lookup, "GET", headers, total_s=None) as answer:
            yield _start(answer, offset), _chunks(answer, digest)

    def _url(self, ref: ImageRef, path: str) -> str:
        host = "registry-1.docker.io" if ref.host == imageref.DEFAULT_HOST else ref.host
        return f"{'http' if self._plain(host) else 'https'}://{host}/v2/{ref.repository}/{path}"

    def _plain(self, host: str) -> bool:
        name = (urlsplit(f"//{host}").hostname or "").lower()
        return host in self._insecure or name in ("localhost", "::1") or name.startswith("127.")

    def _http(self, host: str) -> aiohttp.ClientSession:
        """What `host` (with its port) is asked by."""
        free = host in self._insecure
        if free not in self._sessions:
            # Layers are stored as they are sent: no decoding on the way, and digests are over the bytes on the wire.
            self._sessions[free] = aiohttp.ClientSession(
                auto_decompress=False,
                connector=aiohttp.TCPConnector() if free else self._outbound.connector(),
                headers={"User-Agent": "ebb", "Accept-Encoding": "identity"},
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._sessions[free]

    @asynccontextmanager
    async def _get(
        self, ref: ImageRef, url: str, lookup: Lookup, method: str, headers: dict[str, str], total_s: float | None = ASK_S
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A good answer (200, 206). Logs in when asked to. Raises Transient, ImageNotFound, Unauthorized, BadImage."""
        credential = await lookup(ref.host)
        # By the whole credential: who knows only the name of another's user must not get in by his login.
        login = self._logins.setdefault((ref.host, ref.repository, credential), _Login())
        for _ in range(2):
            sent = login.header
            answer = await self._follow(url, method, headers, sent, total_s)
            try:
                if answer.status != 401:
                    await _judge(answer, ref, method)
                    yield answer
                    return
                wanted = [c for line in answer.headers.getall("WWW-Authenticate", []) for c in challenge.parse(line)]
            finally:
                answer.release() if method == "HEAD" else answer.close()
            if login.header == sent:
                login.header = await self._log_in(ref, wanted, credential)
        login.header = ""
        raise Unauthorized(_no_access(ref, credential))

    async def _follow(
        self, url: str, method: str, headers: dict[str, str], authorization: str, total_s: float | None
    ) -> aiohttp.ClientResponse:
        home = urlsplit(url)
        timeout = aiohttp.ClientTimeout(total=total_s, sock_connect=CONNECT_S, sock_read=IDLE_S)
        for _ in range(MAX_REDIRECTS + 1):
            at = urlsplit(url)
            same = (at.scheme, at.netloc) == (home.scheme, home.netloc)
            sent = {**headers, "Authorization": authorization} if same and authorization else headers
            if at.scheme == "http" and home.scheme == "https" and not self._plain(at.netloc):
                raise RegistryUnavailable(f"{home.netloc} redirects from https to plain http at {at.netloc}: refused")
            try:
                answer = await self._http(at.netloc).request(
                    method, url, headers=sent, allow_redirects=False, timeout=timeout, ssl=self._ssl if self._ssl else True
                )
            except aiohttp.ClientConnectorCertificateError as error:
                raise RegistryUnavailable(f"{at.netloc}: its certificate is not trusted: {error.certificate_error}") from None
            except aiohttp.InvalidURL as error:
                raise RegistryUnavailable(f"{home.netloc}: {error}") from None
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                if refused := refusal_in(error):
                    raise RegistryUnavailable(f"{at.netloc}: {refused}; {_ALLOW}") from None
                raise Transient(f"{method} {at.scheme}://{at.netloc}{at.path}: {error or type(error).__name__}") from None
            target = answer.headers.get("Location")
            if answer.status not in (301, 302, 303, 307, 308) or not target:
                return answer
            answer.release()
            url = urljoin(url, target)
            if urlsplit(url).scheme not in ("http", "https") or "@" in urlsplit(url).netloc:
                raise RegistryUnavailable(
                    f"{home.netloc} redirects to {url[:200]!r}: only http and https are followed, without a user"
                )
        raise RegistryUnavailable(f"{home.netloc} redirects more than {MAX_REDIRECTS} times: {home.path}")

    async def _log_in(self, ref: ImageRef, wanted: list[Challenge], credential: Credential | None) -> str:
        for ask in wanted:
            if ask.scheme == "bearer" and ask.realm:
                return await self._token(ref, ask, credential)
            if ask.scheme == "basic" and credential is not None:
                return credential.basic()
        raise Unauthorized(_no_access(ref, credential))

    async def _token(self, ref: ImageRef, ask: Challenge, credential: Credential | None) -> str:
        realm = urlsplit(ask.realm)
        if "@" in realm.netloc:
            raise Unauthorized(f"registry {ref.host} names {ask.realm[:200]!r} for its tokens: refused, as it names a user")
        if realm.scheme != "https" and not self._plain(realm.netloc):
            raise Unauthorized(f"registry {ref.host} wants credentials sent to {ask.realm[:200]!r} without TLS: refused")
        query = {"service": ask.service, "scope": ask.scope or f"repository:{ref.repository}:pull"}
        timeout = aiohttp.ClientTimeout(total=ASK_S, sock_connect=CONNECT_S)
        headers = {"Authorization": credential.basic()} if credential else {}
        query = {name: value for name, value in query.items() if value}
        try:
            async with self._http(realm.netloc).get(
                ask.realm, params=query, headers=headers, timeout=timeout, allow_redirects=False, ssl=self._ssl or True
            ) as answer:
                if answer.status in (400, 401, 403):
                    raise Unauthorized(_no_access(ref, credential))
                if answer.status != 200:
                    raise Transient(f"token from {realm.netloc}: HTTP {answer.status}")
                body = msgspec.json.decode(await _small(answer, MAX_TOKEN_BYTES, "token"), type=dict[str, Any])
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if refused := refusal_in(error):
                raise RegistryUnavailable(f"token from {realm.netloc}: {refused}; {_ALLOW}") from None
            raise Transient(f"token from {realm.netloc}: {error or type(error).__name__}") from None
        except msgspec.MsgspecError as error:
            raise Unauthorized(f"token from {realm.netloc}: cannot be read: {error}") from None
        token = body.get("token") or body.get("access_token")
        if not isinstance(token, str) or not token.isprintable():
            raise Unauthorized(f"token from {realm.netloc}: none in the answer")
        return f"Bearer {token}"


def digest_like(digest: str, data: bytes) -> str:
    """The digest of `data` by the algorithm that `digest` names."""
    algorithm = digest.partition(":")[0]
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


async def retrying(ask: Callable[[], Awaitable[T]], what: str) -> T:
    """`ask`, again with growing pauses while it is Transient. Raises RegistryUnavailable after the last try."""
    for attempt in range(TRIES):
        try:
            return await ask()
        except Transient as error:
            if attempt == TRIES - 1:
                raise RegistryUnavailable(f"{what}: {error} ({TRIES} tries); is it reachable from this node?") from None
            await asyncio.sleep(pause_s(attempt))
    raise AssertionError("unreachable")


def pause_s(attempt: int) -> float:
    """How long to wait after try number `attempt` (from 0): 0.2 s, doubling, with jitter."""
    return BACKOFF_S * 2.0**attempt * random.uniform(0.75, 1.25)


async def _judge(answer: aiohttp.ClientResponse, ref: ImageRef, method: str) -> None:
    if answer.status in (200, 206):
        return
    said = "" if method == "HEAD" else (await answer.content.read(500)).decode("utf-8", "replace").strip()
    if answer.status == 404:
        raise ImageNotFound(f"image {ref}: not found at {ref.host}; check the name and the tag")
    if answer.status == 403:
        raise Unauthorized(f"image {ref}: {ref.host} refuses access (403); check the pull secret and its rights")
    if answer.status == 416 or answer.status == 429 or answer.status >= 500:
        raise Transient(f"{method} {answer.url.path}: HTTP {answer.status} {said}".strip())
    raise BadImage(f"image {ref}: {ref.host} answers HTTP {answer.status} {said}".strip())


def _no_access(ref: ImageRef, credential: Credential | None) -> str:
    tried = f"user {credential.user!r} was refused" if credential else "no credential for it is known here"
    return f"image {ref}: {ref.host} wants a login and {tried}; give the service a pull secret, or check the name"


def _start(answer: aiohttp.ClientResponse, offset: int) -> int:
    if answer.status == 200:
        return 0
    unit, _, span = answer.headers.get("Content-Range", "").partition(" ")
    begin = span.partition("-")[0]
    if unit != "bytes" or begin != str(offset):
        raise Transient(f"asked for bytes from {offset} and got Content-Range {unit} {span}")
    return offset


async def _chunks(answer: aiohttp.ClientResponse, digest: str) -> AsyncIterator[bytes]:
    try:
        async for chunk in answer.content.iter_chunked(2**18):
            yield chunk
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise Transient(f"blob {digest}: cut off: {error or type(error).__name__}") from None


async def _small(answer: aiohttp.ClientResponse, limit: int, what: str) -> bytes:
    data = bytearray()
    async for chunk in _chunks(answer, what):
        data += chunk
        if len(data) > limit:
            raise TooLarge(f"{what} has more than {limit} bytes, and no more are allowed")
    return bytes(data)
