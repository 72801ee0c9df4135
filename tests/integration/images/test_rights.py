"""Who may have an image: the registry says so, to each project with its own credential, also for what is here."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from nodeagent.images import errors, facade
from nodeagent.images.challenge import Credential
from tests import archives, real
from tests.integration.images.fake import FakeRegistry, fake_registry
from tests.integration.images.world import HELLO, HERE, World, archive, world

pytestmark = pytest.mark.real

# The password is `secret`.
HTPASSWD = "me:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n"


async def test_one_tenants_secret_is_not_anothers(fake: FakeRegistry) -> None:
    """While one pulls with a credential, another who has none is asked for his own."""
    async with world(credentials=_only_for_mine) as here:
        fake.basic = Credential("me", "secret").basic()
        exact = f"{fake.host}/hello@{HELLO.manifest}"
        mine, other = await asyncio.gather(
            here.images.ensure(exact, project="a", pull_secrets=["mine"]),
            here.images.ensure(exact, project="b"),
            return_exceptions=True,
        )
        assert isinstance(mine, facade.ReadyImage)
        assert isinstance(other, errors.Unauthorized)


async def test_what_one_project_pulled_is_not_anothers(fake: FakeRegistry) -> None:
    """Also when every byte of it is here, and in the next life of the agent."""
    async with world(credentials=_only_for_mine) as here:
        fake.basic = Credential("me", "secret").basic()
        exact = f"{fake.host}/hello@{HELLO.manifest}"
        await here.images.ensure(exact, project="a", pull_secrets=["mine"])
        for ask in (here.images.ensure, here.images.resolve):
            with pytest.raises(errors.Unauthorized):
                await ask(exact, project="b")
        assert here.images.cached(exact, "b") is None
        again = facade.ImageStore(
            here.engine, node="n1", spool=here.real.root / "spool", outbound=HERE, credentials=_only_for_mine
        )
        await again.load()
        assert again.cached(exact, "a") is not None
        with pytest.raises(errors.Unauthorized):
            await again.ensure(exact, project="b")
        blobs = fake.asked.total()
        assert (await again.ensure(exact, project="b", pull_secrets=["mine"])).digest == HELLO.manifest
        assert fake.asked.total() - blobs <= 2, "the registry is asked for rights, not for layers that are here"
        await again.close()


async def test_a_right_that_was_taken_away_ends_with_the_next_deploy(fake: FakeRegistry) -> None:
    exact = f"{fake.host}/hello@{HELLO.manifest}"
    async with world() as here:
        await here.images.ensure(exact, project="a")
        assert await here.images.resolve(exact, project="a") == exact
        fake.basic = Credential("me", "secret").basic()
        with pytest.raises(errors.Unauthorized):
            await here.images.resolve(exact, project="a")
        assert here.images.cached(exact, "a") is not None, "what runs goes on"


async def test_an_image_that_is_here_can_be_deployed_while_its_registry_is_away() -> None:
    async with world() as here:
        async with fake_registry(hello=HELLO) as gone:
            exact = f"{gone.host}/hello@{HELLO.manifest}"
            await here.images.ensure(exact, project="a")
        assert await here.images.resolve(exact, project="a") == exact
        with pytest.raises(errors.RegistryUnavailable):
            await here.images.resolve(exact, project="b")


async def _only_for_mine(project: str, secrets: Sequence[str], host: str) -> Credential | None:
    return Credential("me", "secret") if list(secrets) == ["mine"] else None


async def test_basic_auth_needs_the_right_credential(tmp_path: Path) -> None:
    htpasswd = tmp_path / "htpasswd"
    htpasswd.write_text(HTPASSWD)
    known: list[Credential] = []

    async def credentials(project: str, secrets: Sequence[str], host: str) -> Credential | None:
        return known[0] if known and list(secrets) == ["mine"] else None

    async with real.registry(htpasswd=htpasswd) as server, world(credentials=credentials) as here:
        name = f"{server.address}/hello:v1"
        await asyncio.to_thread(archives.copy, archive(tmp_path), f"docker://{name}", "--dest-creds", "me:secret")
        with pytest.raises(errors.Unauthorized, match="no credential"):
            await here.images.resolve(name)
        known.append(Credential("me", "wrong"))
        with pytest.raises(errors.Unauthorized, match="user 'me' was refused"):
            await here.images.resolve(name, pull_secrets=["mine"])
        known[0] = Credential("me", "secret")
        exact = await here.images.resolve(name, pull_secrets=["mine"])
        assert (await here.images.ensure(exact, pull_secrets=["mine"])).digest == HELLO.manifest


async def test_a_bearer_token_is_fetched_once_for_all_layers(here: World, fake: FakeRegistry) -> None:
    fake.token = "t0ken"
    await here.images.ensure(f"{fake.host}/hello")
    assert fake.token_queries == [{"service": "fake", "scope": "repository:hello:pull"}]


async def test_blobs_may_be_elsewhere_and_the_password_does_not_go_there(here: World, fake: FakeRegistry) -> None:
    async with fake_registry(hello=HELLO) as elsewhere:
        fake.token = "t0ken"
        fake.blobs_at = f"http://{elsewhere.host}"
        await here.images.ensure(f"{fake.host}/hello")
        assert elsewhere.seen_authorization
        assert set(elsewhere.seen_authorization) == {""}
