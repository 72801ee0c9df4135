"""The agent's HTTP routes about images, for `nodeagent.server.Server`, and the answer to `ebb.image.resolve` on the bus."""

from collections.abc import AsyncIterator, Awaitable, Callable, Set

import msgspec
from aiohttp import web

from nodeagent.images.errors import ImageProblem
from nodeagent.images.facade import ImageStore
from store.messages import ResolvedImage, ResolveImage
from store.model import decode, encode

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_STATUS = {
    "QuotaExceeded": 403,
    "ImageNotFound": 404,
    "TooLarge": 413,
    "DiskFull": 507,
    "RegistryUnavailable": 502,
    "ContainerdUnavailable": 503,
}


def routes(images: ImageStore, in_use: Callable[[], Set[str]]) -> list[tuple[str, str, Handler]]:
    """(method, path, handler) of POST /images/import, GET /images and DELETE /images; `?project=` is whose, none everybody's.

    `in_use()`: references by digest that instances here stand on.
    """

    async def import_(request: web.Request) -> web.StreamResponse:
        try:
            query = request.query
            done = await images.import_archive(_body(request), query.get("name") or None, query.get("project", ""))
        except ImageProblem as problem:
            return _refused(problem)
        return _json({"images": [{"name": name, "digest": digest} for name, digest in done]})

    async def list_(request: web.Request) -> web.StreamResponse:
        project = request.query.get("project")
        used = {image.rpartition("@")[2] for image in in_use()}
        rows = [
            {
                "name": image.name,
                "project": image.project,
                "digest": image.digest,
                "size_bytes": image.size_bytes,
                "unpacked": image.unpacked,
                "imported": image.imported,
                "in_use": image.digest in used,
            }
            for image in await images.list()
            if project is None or image.project in (project, "")
        ]
        return _json(rows)

    async def remove(request: web.Request) -> web.StreamResponse:
        name = request.query.get("name", "")
        try:
            if await images.remove(name, request.query.get("project")):
                return _json({})
        except ImageProblem as problem:
            return _refused(problem)
        return _json({"reason": "ImageNotFound", "message": f"image {name}: not on this node; `ebb image list` shows all"}, 404)

    return [("POST", "/images/import", import_), ("GET", "/images", list_), ("DELETE", "/images", remove)]


def responder(images: ImageStore) -> Callable[[bytes], Awaitable[bytes]]:
    """Answers ResolveImage with ResolvedImage: `await bus.respond(messages.IMAGE_RESOLVE, responder(images))`."""

    async def answer(data: bytes) -> bytes:
        try:
            asked = decode(ResolveImage, data)
        except msgspec.MsgspecError as error:
            return encode(ResolvedImage(reason="BadRequest", message=f"request cannot be read: {error}"))
        try:
            exact = await images.resolve(
                asked.image,
                project=asked.project,
                pull_secrets=asked.pull_secrets,
                own_imports=asked.own_imports,
                signature_keys=asked.signature_keys,
            )
        except ImageProblem as problem:
            return encode(ResolvedImage(reason=problem.reason, message=problem.message))
        return encode(ResolvedImage(image=exact))

    return answer


async def _body(request: web.Request) -> AsyncIterator[bytes]:
    # The raw stream: client_max_size bounds what is read into memory, and this never is.
    async for chunk in request.content.iter_chunked(2**20):
        yield chunk


def _refused(problem: ImageProblem) -> web.Response:
    return _json({"reason": problem.reason, "message": problem.message}, _STATUS.get(problem.reason, 422))


def _json(value: object, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")
