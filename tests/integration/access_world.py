"""People of a registry that runs: one of each role in project `shop`, somebody of another project, and tokens that no longer count."""

from typing import Any

import httpx

from tests.integration.registry_world import AUTH

OWN = "/apis/ebb.dev/v1"
ROLES = ("viewer", "developer", "admin", "invoker")


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def made(answer: httpx.Response) -> Any:
    assert answer.status_code in (200, 201), answer.text
    return answer.json()


async def person(http: httpx.AsyncClient, name: str, role: str = "", project: str = "shop", **token: Any) -> tuple[str, str]:
    """`user:<name>` with a role; the id and text of a token of theirs."""
    principal = f"user:{name}"
    await http.post(f"{OWN}/users", json={"principal": principal}, headers=AUTH)
    if role:
        await made(await http.put(f"{OWN}/namespaces/{project}/bindings/{role}/{principal}", headers=AUTH))
    answer = await made(await http.post(f"{OWN}/tokens", json={"principal": principal, **token}, headers=AUTH))
    return answer["id"], answer["token"]


async def people(http: httpx.AsyncClient) -> dict[str, dict[str, str]]:
    """Headers by who sends them."""
    found = {"none": {}, "malformed": bearer("ebb_nope"), "of another scheme": {"Authorization": "Basic YTpi"}}
    for role in ROLES:
        found[role] = bearer((await person(http, f"some-{role}", role))[1])
    found["platform-admin"] = AUTH
    found["other project's"] = bearer((await person(http, "stranger", "admin", "other"))[1])
    revoked, text = await person(http, "some-developer")
    await made(await http.delete(f"{OWN}/tokens/{revoked}", headers=AUTH))
    found["revoked"] = bearer(text)
    found["expired"] = bearer((await person(http, "some-developer", ttlS=1))[1])
    found["wrong secret"] = bearer(text[:-1] + ("0" if text[-1] != "0" else "1"))
    return found
