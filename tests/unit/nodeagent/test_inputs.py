"""Values of Secrets and ConfigMaps: where they go, what is said when they are missing, and who hears that they changed."""

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from nodeagent.images.challenge import Credential
from nodeagent.inputs import InputMissing, Inputs, login
from store import keys
from store.memory import MemoryStore
from store.model import EnvFrom, EnvRef, Private, Revision, Values, encode
from store.seal import Keyring, add_key
from tests.eventually import eventually

CANARY = "canary-$(HOME)-$$"


class World:
    def __init__(self, file: Path) -> None:
        add_key(file)
        self.ring = Keyring(file)
        self.store = MemoryStore()
        self.inputs = Inputs(self.store, self.ring)
        self.stale: list[str] = []
        self.inputs.stale = self.stale.append

    async def secret(self, name: str, kind: str = "Opaque", **data: str) -> None:
        private = Private(data={key: value.encode() for key, value in data.items()})
        sealed = self.ring.seal(encode(private), bound_to=f"p/{name}")
        meta = {"name": name, "namespace": "p"}
        await self.store.put(keys.secret("p", name), encode(Values(metadata=meta, type=kind, names=list(data), sealed=sealed)))

    async def config(self, name: str, **data: str) -> None:
        await self.store.put(keys.config("p", name), encode(Values(metadata={"name": name, "namespace": "p"}, data=data)))

    async def env(self, revision: Revision) -> list[tuple[str, str]]:
        return (await self.inputs.resolve(revision))[0].env


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path / "k")
    jobs = [asyncio.create_task(table.run()) for table in made.inputs.tables]
    for table in made.inputs.tables:
        await table.synced()
    yield made
    for job in jobs:
        job.cancel()
    await asyncio.gather(*jobs, return_exceptions=True)


def revision(**more: object) -> Revision:
    return Revision(project="p", name="r", image="i", **more)  # type: ignore[arg-type]


async def test_values_stand_where_the_template_has_them_and_nothing_in_them_is_expanded(world: World) -> None:
    await world.secret("db", password=CANARY)
    await world.config("app", mode="fast", level="3")
    made = revision(
        env=[("A", "1"), ("B", "$(P)")],
        env_refs=[EnvRef(name="P", secret="db", key="password", after=1), EnvRef(name="M", config="app", key="mode", after=2)],
        env_from=[EnvFrom(config="app", prefix="APP_")],
    )
    assert await world.env(made) == [
        ("APP_level", "3"),
        ("APP_mode", "fast"),
        ("A", "1"),
        ("P", CANARY.replace("$", "$$")),
        ("B", "$(P)"),
        ("M", "fast"),
    ]


async def test_a_revision_without_references_is_taken_as_it_is(world: World) -> None:
    made = revision(env=[("A", "1")])
    assert await world.inputs.resolve(made) == (made, {})


async def test_what_is_missing_is_named_with_the_cure(world: World) -> None:
    await world.secret("db", password=CANARY)
    for ref, reason, words in (
        (EnvRef(name="P", secret="none", key="k"), "SecretMissing", "Secret p/none does not exist"),
        (EnvRef(name="P", secret="db", key="k"), "SecretMissing", "no key 'k'; it has password"),
        (EnvRef(name="P", config="none", key="k"), "ConfigMapMissing", "ConfigMap p/none does not exist"),
    ):
        with pytest.raises(InputMissing, match=words) as missing:
            await world.env(revision(env_refs=[ref]))
        assert missing.value.failure.reason == reason
        assert CANARY not in missing.value.failure.message


async def test_what_is_optional_may_be_missing(world: World) -> None:
    await world.secret("db", password=CANARY)
    refs = [
        EnvRef(name="P", secret="none", key="k", optional=True),
        EnvRef(name="Q", secret="db", key="none", optional=True),
    ]
    assert await world.env(revision(env=[("A", "1")], env_refs=refs, env_from=[EnvFrom(config="no", optional=True)])) == [
        ("A", "1")
    ]


async def test_without_the_key_an_instance_fails_and_says_why(world: World) -> None:
    await world.secret("db", password=CANARY)
    with pytest.raises(InputMissing, match="--secret-key-file") as missing:
        await Inputs(world.store, None).resolve(revision(env_refs=[EnvRef(name="P", secret="db", key="password")]))
    assert missing.value.failure.reason == "SecretSealed"


async def test_who_uses_a_secret_hears_of_its_change_and_of_its_end(world: World) -> None:
    await world.secret("db", password="1")
    await world.secret("other", password="1")
    made = revision(env_refs=[EnvRef(name="P", secret="db", key="password")])
    _, used = await world.inputs.resolve(made)
    label = world.inputs.use("i1", used)
    await world.secret("other", password="2")
    await asyncio.sleep(0.01)
    assert world.stale == []
    await world.secret("db", password="2")
    await eventually(lambda: world.stale == ["i1"])
    world.inputs.drop("i1")
    world.inputs.adopt("i1", label)
    world.inputs.check()
    assert world.stale == ["i1", "i1"]
    _, used = await world.inputs.resolve(made)
    world.inputs.adopt("i2", world.inputs.use("i2", used))
    world.inputs.drop("i1")
    world.inputs.check()
    assert world.stale == ["i1", "i1"]
    await world.store.delete(keys.secret("p", "db"))
    await eventually(lambda: world.stale[2:] == ["i2"])


async def test_a_change_while_the_instance_was_made_is_noticed(world: World) -> None:
    await world.secret("db", password="1")
    _, used = await world.inputs.resolve(revision(env_refs=[EnvRef(name="P", secret="db", key="password")]))
    await world.secret("db", password="2")
    key = keys.secret("p", "db")
    await eventually(lambda: (entry := world.inputs.tables[0].entry(key)) is not None and entry.store_rev > used[key])
    world.inputs.use("i", used)
    world.inputs.look("i")
    assert world.stale == ["i"]


@pytest.mark.parametrize("name", ["r.example:5000", "https://r.example:5000", "http://r.example:5000/v2/", "R.example:5000"])
def test_a_login_is_found_by_host_however_it_is_written(name: str) -> None:
    auth = base64.b64encode(b"me:pass:word").decode()
    assert login(f'{{"auths": {{"{name}": {{"auth": "{auth}"}}}}}}'.encode(), "r.example:5000") == Credential("me", "pass:word")
    assert login(f'{{"auths": {{"{name}": {{"auth": "{auth}"}}}}}}'.encode(), "r.example") is None


def test_the_docker_hub_has_many_names() -> None:
    config = b'{"auths": {"https://index.docker.io/v1/": {"username": "me", "password": "p"}}}'
    assert login(config, "docker.io") == Credential("me", "p")


@pytest.mark.parametrize(
    "config", [b"", b"[]", b"{}", b'{"auths": []}', b'{"auths": {"r": 1}}', b'{"auths": {"r": {"auth": "!"}}}']
)
def test_a_config_that_cannot_be_read_is_no_login(config: bytes) -> None:
    assert login(config, "r") is None


async def test_a_pull_secret_logs_in_to_its_host_and_an_opaque_one_does_not(world: World) -> None:
    config = '{"auths": {"r.example": {"username": "me", "password": "p"}}}'
    await world.secret("opaque", **{".dockerconfigjson": config})
    await world.secret("pull", "kubernetes.io/dockerconfigjson", **{".dockerconfigjson": config})
    assert await world.inputs.credentials("p", ["none", "opaque", "pull"], "r.example") == Credential("me", "p")
    assert await world.inputs.credentials("p", ["opaque"], "r.example") is None
    assert await world.inputs.credentials("p", ["pull"], "other.example") is None
    assert await world.inputs.credentials("q", ["pull"], "r.example") is None
