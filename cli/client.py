"""The API as the commands use it: JSON in and out over HTTP, refusals as `Refused`."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx

from cli.errors import Refused
from cli.logins import Login

SERVING = "/apis/serving.knative.dev/v1"
EBB = "/apis/ebb.dev/v1"
CONFLICT_TRIES = 5
CURE = "name another address with --api URL or EBB_API"
_DRY = {"dryRun": "All"}
Object = dict[str, Any]


class Api:
    """One project's view of the API. Every call has a deadline of `timeout_s`, except streams."""

    def __init__(
        self, address: str, project: str = "default", transport: httpx.BaseTransport | None = None, timeout_s: float = 30,
        login: Login | None = None,
    ) -> None:  # fmt: skip
        self.address, self.project = address, project
        self.login = login or Login(address)
        headers = {"Authorization": f"Bearer {self.login.token}"} if self.login.token else {}
        # What the certificate is to name may be another than the address's host.
        self._more = {"sni_hostname": self.login.server_name} if self.login.server_name and address.startswith("https") else {}
        # trust_env: a proxy for the outside world must not come between us and this machine
        self._http = httpx.Client(
            base_url=address, timeout=timeout_s, transport=transport, trust_env=False, headers=headers, verify=self.login.tls()
        )

    @classmethod
    def of(cls, login: Login, project: str = "default") -> "Api":
        """The API that `login` is for."""
        return cls(login.address, project, login=login)

    def close(self) -> None:
        self._http.close()

    def path(self, kind: str, name: str = "") -> str:
        """Where objects of `kind` (plural) are; one of them when named."""
        return f"{SERVING}/namespaces/{self.project}/{kind}" + (f"/{name}" if name else "")

    def own(self, what: str) -> str:
        """A path of Ebb's own inside the project."""
        return f"{EBB}/namespaces/{self.project}/{what}"

    def get(self, path: str, params: Mapping[str, str] | None = None) -> Any:
        return self._call("GET", path, params=params)

    def find(self, kind: str, name: str) -> Object | None:
        """The object, or None when there is none."""
        try:
            return self._object(self.get(self.path(kind, name)))
        except Refused as error:
            if error.status == 404:
                return None
            raise

    def named(self, kind: str, name: str, params: Mapping[str, str] | None = None) -> Object:
        """The object. Raises Refused, naming those that there are, when there is none. `params` choose which are named."""
        found = self.find(kind, name)
        if found is None:
            known = sorted(o["metadata"]["name"] for o in self.items(self.path(kind), params))
            there = ", ".join(known[:10]) + (f" and {len(known) - 10} more" if len(known) > 10 else "")
            said = f"there {'is' if len(known) == 1 else 'are'} {there}" if known else f"there are no {kind}"
            raise Refused(f"no {kind[:-1]} {name!r} in project {self.project}; {said}", 404, "NotFound")
        return found

    def items(self, path: str, params: Mapping[str, str] | None = None) -> list[Object]:
        """A list, whether it comes bare or as `items`."""
        got = self.get(path, params)
        found = got.get("items", []) if isinstance(got, dict) else got
        return list(found)

    def post(self, path: str, params: Mapping[str, str] | None = None, body: Object | None = None) -> Any:
        return self._call("POST", path, params=params, json=body)

    def put(self, path: str, body: Object) -> Any:
        return self._call("PUT", path, json=body)

    def patch(self, path: str, body: Object) -> Any:
        """A merge patch."""
        return self._call("PATCH", path, content=json.dumps(body), headers={"Content-Type": "application/merge-patch+json"})

    def create(self, kind: str, body: Object, *, dry_run: bool = False) -> Object:
        return self._object(self._call("POST", self.path(kind), json=body, params=_DRY if dry_run else None))

    def replace(self, kind: str, name: str, body: Object, *, dry_run: bool = False) -> Object:
        return self._object(self._call("PUT", self.path(kind, name), json=body, params=_DRY if dry_run else None))

    def delete(self, path: str, params: Mapping[str, str] | None = None) -> Any:
        return self._call("DELETE", path, params=params)

    def change(self, kind: str, name: str, edit: Callable[[Object | None], Object], *, dry_run: bool = False) -> Object:
        """Read, edit, write; again when somebody else wrote in between. `edit(None)` makes a new one. `dry_run`: all but written."""
        for attempt in range(CONFLICT_TRIES):
            old = self.find(kind, name)
            body = edit(old)
            try:
                if old is None:
                    return self.create(kind, body, dry_run=dry_run)
                return self.replace(kind, name, body, dry_run=dry_run)
            except Refused as error:
                if error.status != 409 or attempt == CONFLICT_TRIES - 1:
                    raise
        raise AssertionError("unreachable")

    def upload(self, path: str, file: Path, params: Mapping[str, str], sent: Callable[[int], None]) -> Any:
        """POST a file, telling `sent` how many bytes went out with each piece."""

        def pieces() -> Iterator[bytes]:
            with open(file, "rb") as source:
                while piece := source.read(2**18):
                    yield piece
                    sent(len(piece))

        headers = {"Content-Type": "application/x-tar"}
        timeout = httpx.Timeout(30, read=600, write=120)
        return self._call("POST", path, params=params, content=pieces(), headers=headers, timeout=timeout)

    def lines(self, path: str, params: Mapping[str, str] | None = None, quiet_s: float | None = None) -> Iterator[Object]:
        """A stream of JSON lines as objects, until it ends. `quiet_s`: give up after so long without a line."""
        timeout = httpx.Timeout(30, read=quiet_s)
        try:
            with self._http.stream("GET", path, params=params, timeout=timeout, extensions=self._more) as answer:
                if answer.status_code >= 400:
                    answer.read()
                    raise _refusal(answer)
                for line in _lines(answer.iter_bytes()):
                    yield json.loads(line)
        except httpx.TransportError as error:
            raise self._away(error) from None

    def _call(self, method: str, path: str, **more: Any) -> Any:
        try:
            answer = self._http.request(method, path, extensions=self._more, **more)
        except httpx.TransportError as error:
            raise self._away(error) from None
        if answer.status_code >= 400:
            raise _refusal(answer)
        try:
            return answer.json() if answer.content else {}
        except ValueError:
            raise Refused(f"{self.address} is not Ebb's API: {method} {path} answered {answer.text[:80]!r}; {CURE}") from None

    def _away(self, error: httpx.TransportError) -> Refused:
        return Refused(
            f"no API at {self.address} ({error or type(error).__name__}); start the engine with `sudo ebb up -d`, or {CURE}"
        )

    def _object(self, got: Any) -> Object:
        if not isinstance(got, dict):
            raise Refused(f"{self.address} answered {str(got)[:80]!r} where an object was expected")
        return got


def _lines(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Lines that are not empty. They end with a newline and nothing else: JSON may hold U+2028, which `str.splitlines` splits at."""
    rest = b""
    for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        yield from filter(bytes.strip, whole)
    if rest.strip():
        yield rest


def _refusal(answer: httpx.Response) -> Refused:
    """A Kubernetes Status, or whatever text came."""
    if "x-ebb-reason" in answer.headers:  # the front door's own answers carry it
        return Refused(f"{answer.url.scheme}://{answer.url.netloc.decode()} is where apps are served, not the API; {CURE}")
    try:
        body = answer.json()
    except ValueError:
        body = {}
    if not isinstance(body, dict):
        body = {}
    message = str(body.get("message") or answer.text.strip() or answer.reason_phrase)
    if answer.status_code == 401:
        message += (
            f"; log in with `ebb login {answer.url.scheme}://{answer.url.netloc.decode()} --token -`, or as this machine's root"
        )
    return Refused(message[:4000], answer.status_code, str(body.get("reason") or ""))
