"""A client of ACME (RFC 8555) for single hosts, proved by HTTP-01: account, order, challenge, certificate.

Each call has a deadline; an order has one as a whole. Nothing is tried again here but a call whose nonce was too old: when to order is
`issuing`'s to say.
"""

import asyncio
import base64
import hashlib
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

from process.outbound import NotAllowed, Outbound
from registry import pair
from registry.pair import BadPair, Pair, PrivateKey

CALL_TIMEOUT_S = 20.0
ORDER_TIMEOUT_S = 180.0
SETTLE_S = 0.5
"""From the challenge's answer in the store to asking for the check: all front doors have it by then."""
POLL_S = 1.0
POLL_MOST_S = 10.0
NONCE_TRIES = 5
_ERROR = "urn:ietf:params:acme:error:"

Publish = Callable[[str, str], Awaitable[None]]
"""Make every front door answer the challenge: (token, answer)."""


class AcmeError(Exception):
    """The authority, or the way to it, said no. `retry_after_s`: when it may be asked again, 0: it did not say."""

    def __init__(self, message: str, kind: str = "", retry_after_s: float = 0) -> None:
        super().__init__(message)
        self.kind = kind
        self.retry_after_s = retry_after_s


class Acme:
    """One account at the authority of `directory` (a URL), by its `key`. `email` may be empty, `ca_file` too: the system's."""

    def __init__(self, directory: str, key: PrivateKey, email: str, ca_file: str = "") -> None:
        self._directory_url, self._key, self._email = directory, key, email
        self._tls = ssl.create_default_context(cafile=ca_file or None)
        self._session: aiohttp.ClientSession | None = None
        self._directory: dict[str, str] = {}
        self._kid = ""
        self._nonce = ""
        numbers = key.public_key().public_numbers()
        self._jwk = {"crv": "P-256", "kty": "EC", "x": _b64(numbers.x.to_bytes(32)), "y": _b64(numbers.y.to_bytes(32))}

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def certificate(self, host: str, publish: Publish) -> Pair:
        """A new certificate for `host`. Raises AcmeError."""
        try:
            async with asyncio.timeout(ORDER_TIMEOUT_S):
                return await self._certificate(host, publish)
        except TimeoutError:
            raise AcmeError(f"no certificate within {ORDER_TIMEOUT_S:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise AcmeError(f"{self._directory_url}: {error or type(error).__name__}") from None
        except (KeyError, msgspec.DecodeError, StopIteration) as error:
            raise AcmeError(f"{self._directory_url} answered what is no ACME: {error!r}") from None

    async def _certificate(self, host: str, publish: Publish) -> Pair:
        await self._sign_in()
        order, url = await self._post(self._directory["newOrder"], {"identifiers": [{"type": "dns", "value": host}]})
        for authorization in order["authorizations"]:
            await self._prove(authorization, publish)
        key = pair.new_key()
        asked = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        asked = asked.add_extension(pair.alternative_names((host,)), critical=False)
        csr = asked.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
        await self._post(order["finalize"], {"csr": _b64(csr)})
        order = await self._settled(url, ("processing", "ready", "pending"))
        if order["status"] != "valid":
            raise _refused(order.get("error"), f"the order became {order['status']}")
        chain, _ = await self._post(order["certificate"], None, raw=True)
        try:
            return pair.read(chain, pair.pem_of(key))
        except BadPair as error:
            raise AcmeError(f"the certificate that came cannot be used: {error}") from None

    async def _sign_in(self) -> None:
        """Know the directory, and have an account; asking with the same key finds the same one."""
        if self._kid:
            return
        if self._session is None:
            limit = aiohttp.ClientTimeout(total=CALL_TIMEOUT_S)
            connector = await self._connector()
            self._session = aiohttp.ClientSession(connector=connector, timeout=limit, headers={"User-Agent": "ebb"})
        async with self._session.get(self._directory_url) as answer:
            if answer.status != 200:
                raise AcmeError(f"{self._directory_url} answered {answer.status}")
            self._directory = msgspec.json.decode(await answer.read())
        contact = {"contact": [f"mailto:{self._email}"]} if self._email else {}
        _, self._kid = await self._post(self._directory["newAccount"], {"termsOfServiceAgreed": True, **contact})

    async def _connector(self) -> aiohttp.TCPConnector:
        """The operator chose the directory, wherever it is; where its answers lead to is its choice, and stays on the same side."""
        host = urlsplit(self._directory_url).hostname or ""
        try:
            for found in await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM):
                Outbound().check(str(found[4][0]))
        except NotAllowed:
            return aiohttp.TCPConnector(ssl=self._tls, limit=4)
        return Outbound().connector(ssl=self._tls, limit=4)

    async def _prove(self, url: str, publish: Publish) -> None:
        authorization, _ = await self._post(url, None)
        if authorization["status"] == "valid":
            return
        challenge = next(each for each in authorization["challenges"] if each["type"] == "http-01")
        await publish(challenge["token"], f"{challenge['token']}.{self._thumbprint()}")
        await asyncio.sleep(SETTLE_S)
        await self._post(challenge["url"], {})
        authorization = await self._settled(url, ("pending",))
        if authorization["status"] != "valid":
            errors = [each["error"] for each in authorization["challenges"] if "error" in each]
            raise _refused(errors[0] if errors else None, f"the proof became {authorization['status']}")

    async def _settled(self, url: str, passing: tuple[str, ...]) -> Any:
        """The object at `url` once its status is none of `passing`."""
        pause_s = POLL_S / 4
        while True:
            found, _ = await self._post(url, None)
            if found["status"] not in passing:
                return found
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, POLL_MOST_S)

    async def _post(self, url: str, payload: Any, *, raw: bool = False) -> tuple[Any, str]:
        """(what came, its Location). `payload` None reads. Raises AcmeError."""
        assert self._session is not None
        for _ in range(NONCE_TRIES):
            if not self._nonce:
                async with self._session.head(self._directory["newNonce"]) as fresh:
                    self._nonce = fresh.headers.get("Replay-Nonce", "")
            nonce, self._nonce = self._nonce, ""
            body = self._signed(url, nonce, payload)
            async with self._session.post(url, data=body, headers={"Content-Type": "application/jose+json"}) as answer:
                data = await answer.read()
                self._nonce = answer.headers.get("Replay-Nonce", "")
                if answer.status < 400:
                    return (data if raw else msgspec.json.decode(data)), answer.headers.get("Location", "")
                error = _refused(
                    _json(data), f"{url} answered {answer.status}", _seconds(answer.headers.get("Retry-After", ""))
                )
                if error.kind != "badNonce":
                    raise error
        raise error

    def _signed(self, url: str, nonce: str, payload: Any) -> bytes:
        who = {"kid": self._kid} if self._kid else {"jwk": self._jwk}
        head = _b64(msgspec.json.encode({"alg": "ES256", "nonce": nonce, "url": url, **who}))
        text = "" if payload is None else _b64(msgspec.json.encode(payload))
        r, s = utils.decode_dss_signature(self._key.sign(f"{head}.{text}".encode(), ec.ECDSA(hashes.SHA256())))
        return msgspec.json.encode({"protected": head, "payload": text, "signature": _b64(r.to_bytes(32) + s.to_bytes(32))})

    def _thumbprint(self) -> str:
        """RFC 7638; the fields stand in order already."""
        return _b64(hashlib.sha256(msgspec.json.encode(self._jwk)).digest())


def _refused(problem: Any, otherwise: str, retry_after_s: float = 0) -> AcmeError:
    """What a problem document (RFC 7807) says."""
    if not isinstance(problem, dict) or not problem.get("type"):
        return AcmeError(otherwise, retry_after_s=retry_after_s)
    kind = str(problem["type"]).removeprefix(_ERROR)
    return AcmeError(f"{kind}: {str(problem.get('detail', ''))[:500]}", kind, retry_after_s)


def _json(data: bytes) -> Any:
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError:
        return None


def _seconds(text: str) -> float:
    return float(text) if text.isdigit() else 0.0


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
