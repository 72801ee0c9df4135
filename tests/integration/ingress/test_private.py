"""Services that not everybody may call: by which door, with which token, how often."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from store import keys
from store.access import Binding, binding_key
from store.identity import Claims, new_key, private_key, public_key, sign
from store.lifecycle import Phase
from store.model import Access, Instance, Limits, PathRule, RouteEntry, TrafficTarget, encode
from store.projects import Policy, Project, Quota
from tests.eventually import eventually
from tests.integration.ingress.door import HOST, Door, instance, open_door

LOCAL = "hello.default.svc.cluster.local"
PUBLIC, PEM = new_key("k1", 0)


def token(sub: str = "user:ana", aud: str = f"http://{HOST}:8080", life_s: int = 600, kid: str = "k1", pem: bytes = PEM) -> str:
    now = int(time.time())
    return sign(private_key(pem), kid, Claims(sub=sub, aud=aud, iat=now, exp=now + life_s))


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers with the head that it got."""
    while head := await reader.readuntil(b"\r\n\r\n"):
        if head.startswith(b"POST"):
            await reader.readexactly(5)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(head), head))


async def put(door: Door, access: Access | None, host: str = HOST, route: str = "hello", **more: object) -> None:
    entry = RouteEntry(
        project="default", route=route, hosts={host: [TrafficTarget(revision="r1", percent=100)]}, limits={"r1": Limits()},
        main=host, access=access, **more,  # type: ignore[arg-type]
    )  # fmt: skip
    await door.store.put(keys.route("default", route), encode(entry))
    routes = door.ingress.gate.routes
    await eventually(lambda: routes._entry(keys.route("default", route)) == entry, "the route is seen")


async def project(door: Door, **record: object) -> None:
    made = Project(name="default", **record)  # type: ignore[arg-type]
    await door.store.put(keys.project("default"), encode(made))
    guards = door.ingress.gate.routes.guards
    assert guards is not None
    await eventually(lambda: guards._projects.get("default") == made, "the project is seen")


@asynccontextmanager
async def a_door(access: Access | None) -> AsyncIterator[Door]:
    async with open_door() as door, instance(echo) as port:
        await door.ingress.inner.start("127.0.0.1:0")
        await door.store.put(keys.identity("k1"), encode(PUBLIC))
        await eventually(lambda: door.ingress.gate.identities._keys, "the key is seen")
        await put(door, access)
        await door.ready("i1", port)
        try:
            yield door
        finally:
            await door.ingress.inner.drain(0.1)


async def ask(door: Door, *fields: str, host: str = HOST, inner: bool = False, path: str = "/") -> tuple[int, str]:
    port = door.ingress.inner.port if inner else door.port
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = "".join(f"{field}\r\n" for field in fields)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{lines}\r\n".encode())
    async with asyncio.timeout(10):
        answer = (await reader.read()).decode()
    writer.close()
    return int(answer.split()[1]), answer


def bearer(text: str) -> str:
    return f"Authorization: Bearer {text}"


PRIVATE = Access(private=True, invokers=["user:ana", "service:shop/cart"])


async def test_a_private_service_is_called_with_a_token_of_who_may_and_learns_who_it_is() -> None:
    async with a_door(PRIVATE) as door:
        status, answer = await ask(door, bearer(token()), "X-Ebb-Principal: user:admin", "x_ebb_principal: user:admin")
        assert status == 200
        assert answer.count("X-Ebb-Principal: user:ana\r\n") == 1
        assert "user:admin" not in answer
        assert "Authorization: Bearer" in answer
        for _ in range(3):
            assert (await ask(door, bearer(token(aud=HOST))))[0] == 200


async def test_without_a_token_it_is_401_with_a_challenge_and_with_anothers_403() -> None:
    async with a_door(PRIVATE) as door:
        status, answer = await ask(door)
        assert (status, 'WWW-Authenticate: Bearer realm="ebb"' in answer, "x-ebb-reason: unauthenticated" in answer) == (
            401,
            True,
            True,
        )
        status, answer = await ask(door, bearer(token(sub="user:bob")))
        assert (status, "x-ebb-reason: forbidden" in answer, "user:bob" in answer) == (403, True, True)


async def test_tokens_that_prove_nothing_are_401() -> None:
    async with a_door(PRIVATE) as door:
        good = token()
        stranger = new_key("k1", 0)[1]
        for bad in (
            "", "x", "a.b.c", good[:-8] + "AAAAAAAA", token(life_s=-60), token(aud="http://pay.default.localhost"),
            token(pem=stranger), token(kid="k2"), "ebb_abc_def",
        ):  # fmt: skip
            status, answer = await ask(door, bearer(bad))
            assert status == 401, bad
            assert good not in answer
        assert (await ask(door, f"Authorization: Basic {good}"))[0] == 401


async def test_the_services_own_authorization_passes_when_the_token_comes_beside_it() -> None:
    async with a_door(PRIVATE) as door:
        status, answer = await ask(door, bearer("own"), f"X-Serverless-Authorization: Bearer {token()}")
        assert status == 200
        assert "Authorization: Bearer own" in answer


async def test_what_a_key_signed_counts_no_more_when_the_key_is_gone() -> None:
    async with a_door(PRIVATE) as door:
        good = bearer(token())
        assert (await ask(door, good))[0] == 200
        await door.store.delete(keys.identity("k1"))
        await eventually(lambda: not door.ingress.gate.identities._keys, "the key is gone")
        assert (await ask(door, good))[0] == 401


async def test_who_may_no_more_is_refused_though_the_token_still_counts() -> None:
    async with a_door(PRIVATE) as door:
        good = bearer(token())
        assert (await ask(door, good))[0] == 200
        await put(door, Access(private=True, invokers=["user:bob"]))
        assert (await ask(door, good))[0] == 403
        await put(door, Access(private=True, invokers=["allUsers"]))
        assert (await ask(door))[0] == 200


async def test_who_has_a_role_that_invokes_may_call_all_of_the_project() -> None:
    async with a_door(Access(private=True)) as door:

        async def bind(*roles: str, principal: str = "user:ana", project: str = "default") -> None:
            made = Binding(principal=principal, project=project, roles=roles)
            await door.store.put(binding_key(made), encode(made))
            known = door.ingress.gate.identities
            wanted = bool({"invoker", "platform-admin"} & set(roles))
            await eventually(lambda: ((project, principal) in known._invokers) == wanted, "the role is seen")

        good = bearer(token())
        for roles, status in ((("viewer",), 403), (("viewer", "invoker"), 200), ((), 403)):
            await bind(*roles)
            assert (await ask(door, good))[0] == status, roles
        await bind("invoker", project="other")
        assert (await ask(door, good))[0] == 403
        await bind("platform-admin", project="")
        assert (await ask(door, good))[0] == 200
        assert (await ask(door))[0] == 401
        await bind("invoker", principal="allUsers")
        assert (await ask(door))[0] == 200


async def test_a_project_may_be_private_and_a_service_of_it_public() -> None:
    async with a_door(None) as door:
        assert (await ask(door))[0] == 200
        await project(door, policy=Policy(private=True))
        assert (await ask(door))[0] == 401
        await put(door, Access(private=False))
        assert (await ask(door))[0] == 200


async def test_an_internal_service_is_not_there_for_the_world() -> None:
    async with a_door(Access(ingress="internal")) as door:
        assert (await ask(door))[0] == 404
        assert (await ask(door, host=LOCAL))[0] == 404
        assert (await ask(door, inner=True))[0] == 200
        assert (await ask(door, host=LOCAL, inner=True))[0] == 200
        await put(door, Access(ingress="none"))
        assert (await ask(door, inner=True))[0] == 404


async def test_inner_names_lead_to_every_service_by_the_inner_door_alone() -> None:
    async with a_door(None) as door:
        assert (await ask(door, host=LOCAL, inner=True))[0] == 200
        assert (await ask(door, host=f"{LOCAL}:80", inner=True))[0] == 200
        assert (await ask(door, host=LOCAL))[0] == 404
        assert (await ask(door, host="other.default.svc.cluster.local", inner=True))[0] == 404
        assert (await ask(door, host="hello.svc.cluster.local", inner=True))[0] == 404


async def test_at_the_inner_door_an_instance_is_known_by_its_address() -> None:
    async with a_door(PRIVATE) as door:
        assert (await ask(door, host=LOCAL, inner=True))[0] == 401
        caller = Instance(
            instance="cart-1", project="shop", revision="cart-00001", service="cart", node="n1", phase=Phase.READY,
            address="127.0.0.1:9", seq=1,
        )  # fmt: skip
        await door.store.put(keys.instance("n1", "cart-1"), encode(caller))
        await eventually(lambda: door.ingress.gate.identities.resident("127.0.0.1"), "the caller is known")
        status, answer = await ask(door, host=LOCAL, inner=True)
        assert (status, "X-Ebb-Principal: service:shop/cart" in answer) == (200, True)
        assert (await ask(door))[0] == 401  # at the public door an address proves nothing
        await door.store.delete(keys.instance("n1", "cart-1"))
        await eventually(lambda: not door.ingress.gate.identities.resident("127.0.0.1"), "the caller is gone")
        assert (await ask(door, host=LOCAL, inner=True))[0] == 401


async def test_a_path_that_leads_to_a_private_service_asks_for_the_token_too() -> None:
    async with a_door(PRIVATE) as door:
        await put(door, None, host="www.default.localhost", route="www", paths=[PathRule(prefix="/api", route="hello")])
        assert (await ask(door, host="www.default.localhost"))[0] == 200
        assert (await ask(door, host="www.default.localhost", path="/api/x"))[0] == 401


async def test_a_service_takes_its_rate_and_says_when_to_come_again() -> None:
    async with a_door(Access(requests_per_s=2)) as door:
        answers = [await ask(door) for _ in range(6)]
        refused = [answer for status, answer in answers if status == 429]
        assert len(refused) >= 2
        assert "x-ebb-reason: rate-limited" in refused[0]
        assert "Retry-After: 1" in refused[0]
        assert "2 requests a second" in refused[0]


async def test_a_projects_requests_in_flight_are_bounded_and_counted_out_again() -> None:
    async with a_door(None) as door:
        await project(door, quota=Quota(in_flight=1))
        for _ in range(5):
            assert (await ask(door))[0] == 200
        _, writer = await door.connect()
        writer.write(f"POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 5\r\n\r\n".encode())
        await eventually(lambda: door.ingress.gate.routes.guards._crowds["default"].in_flight == 1, "it is in flight")  # type: ignore[union-attr]
        status, answer = await ask(door)
        assert (status, "x-ebb-reason: project-full" in answer) == (429, True)
        writer.close()
        await eventually(lambda: door.ingress.gate.routes.guards._crowds["default"].in_flight == 0, "it is over")  # type: ignore[union-attr]
        assert (await ask(door))[0] == 200


def test_keys_are_read_as_they_were_written() -> None:
    assert public_key(PUBLIC).public_numbers() == private_key(PEM).public_key().public_numbers()
