"""What `ebb up` takes."""

from pathlib import Path

import pytest

from deploy import components, kubeconfig, preflight
from deploy.settings import INSTANCES_END, INSTANCES_FIRST, BadUsage, Engine, check
from nodeagent import uids
from nodeagent.profiles import IDS


def test_the_defaults_are_fine() -> None:
    check(Engine())


@pytest.mark.parametrize(
    ("engine", "says"),
    [
        (Engine(root="relative"), "--root relative"),
        (Engine(run="/" + "x" * 90), "at most 71"),
        (Engine(http="8080"), "--http 8080"),
        (Engine(http="0.0.0.0:99999"), "--http 0.0.0.0:99999"),
        (Engine(https="8443"), "--https 8443"),
        (Engine(https="0.0.0.0:8080"), "the port is --http's"),
        (Engine(https="0.0.0.0:8090"), "--https 0.0.0.0:8090: port 8090 is one of --port-base's"),
        (Engine(port_base=80), "--port-base 80"),
        (Engine(http="0.0.0.0:8092"), "is one of --port-base's"),
        (Engine(id="Ebb"), "--id Ebb"),
        (Engine(id="toolong"), "--id toolong"),
        (Engine(subnet="10.0.0.0/30"), "--subnet 10.0.0.0/30"),
        (Engine(subnet="10.0.0.1/16"), "host bits"),
        (Engine(domain="Not_A_Domain"), "--domain"),
    ],
)
def test_a_bad_value_is_named(engine: Engine, says: str) -> None:
    with pytest.raises(BadUsage, match=says):
        check(engine)


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(BadUsage) as error:
        check(Engine(root="x", http="y", id="Z"))
    assert len(str(error.value).splitlines()) == 3


def test_port_80_is_left_out_of_urls() -> None:
    assert Engine(http="0.0.0.0:80").url("hello.default.localhost") == "http://hello.default.localhost"
    assert Engine().url("hello.default.localhost") == "http://hello.default.localhost:8080"


def test_two_engines_share_no_port_path_or_address_on_their_command_lines() -> None:
    one = Engine()
    two = Engine(root="/srv/two", run="/run/two", http="0.0.0.0:9080", https="0.0.0.0:9443", port_base=9090, id="two",
                 subnet="10.232.0.0/16")  # fmt: skip
    words = [
        {word for spec in components.specs(e, Path(e.root) / "config") for arg in spec.argv for word in arg.split("=")[1:]}
        for e in (one, two)
    ]
    own = {word for word in words[0] & words[1] if "/" in word or ":" in word}
    assert own == set()


def test_nothing_but_the_front_door_listens_beyond_loopback() -> None:
    for spec in components.specs(Engine(), Path("/config")):
        if spec.name != "ingress":
            assert "0.0.0.0" not in " ".join(spec.argv)


def test_the_front_door_stops_first_and_the_stores_last() -> None:
    order = sorted(components.specs(Engine(), Path("/config")), key=lambda spec: spec.stop_stage)
    assert order[0].name == "ingress"
    assert {spec.name for spec in order[-2:]} == {"etcd", "nats"}


def test_the_kubeconfigs_current_context_is_ebb() -> None:
    text = kubeconfig.text("https://127.0.0.1:8090", "ebb_id_secret", b"PEM")
    assert "current-context: ebb" in text
    assert "server: https://127.0.0.1:8090" in text
    assert "token: ebb_id_secret" in text


def test_the_api_has_tls_and_an_admins_token_wherever_it_listens() -> None:
    for engine in (Engine(), Engine(https="off"), Engine(listen_api="0.0.0.0:8090")):
        check(engine)
        registry = next(spec for spec in components.specs(engine, Path("/config")) if spec.name == "registry")
        assert {"--listen-tls=true", "--admin-token-file=/var/lib/ebb/admin.token"} <= set(registry.argv)
    assert Engine(listen_api="0.0.0.0:8090").api == Engine().api == "https://127.0.0.1:8090"
    with pytest.raises(BadUsage, match=r"--api 0\.0\.0\.0:8091"):
        check(Engine(listen_api="0.0.0.0:8091"))


def test_without_tls_nobody_gets_its_flags() -> None:
    words = " ".join(" ".join(spec.argv) for spec in components.specs(Engine(https="off"), Path("/config")))
    assert words.count("listen-tls") == 1, "the API's alone"
    assert "certificate" not in words
    check(Engine(https="off"))


def test_the_front_door_has_no_key_of_secrets() -> None:
    ingress = next(spec for spec in components.specs(Engine(), Path("/config")) if spec.name == "ingress")
    assert "--certificate-key-file=/var/lib/ebb/keys/certificates.key" in ingress.argv
    assert "secrets.key" not in " ".join(ingress.argv)


def test_all_but_the_node_agent_and_containerd_have_users_of_their_own() -> None:
    specs = components.specs(Engine(), Path("/config"))
    users = {spec.name: spec.user for spec in specs if spec.user is not None}
    assert {spec.name for spec in specs} - set(users) == {"nodeagent", "containerd"}
    assert len({user.uid for user in users.values()}) == len(users)
    assert {name for name, user in users.items() if user.capabilities} == {"ingress"}
    assert all(spec.user is None for spec in components.specs(Engine(first_uid=0), Path("/config")))
    low = next(
        spec.user for spec in components.specs(Engine(listen_api="0.0.0.0:443"), Path("/config")) if spec.name == "registry"
    )
    assert low is not None
    assert low.capabilities == ("net_bind_service",)


def test_workers_of_the_front_door_are_one_user_who_shares_the_port() -> None:
    assert len({spec.user.uid for spec in components.doors(Engine(workers=3)) if spec.user}) == 1


def test_nobody_who_is_not_root_has_roots_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "USER", "SUDO_USER", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(name, "/root")
    for spec in components.specs(Engine(), Path("/config")):
        if spec.user is not None:
            assert "/root" not in spec.env.values(), spec.name


@pytest.mark.parametrize("first", [-1, INSTANCES_FIRST - 6, INSTANCES_FIRST, INSTANCES_END - 1, 2**31 - 7])
def test_ids_of_processes_and_of_instances_do_not_meet(first: int) -> None:
    with pytest.raises(BadUsage, match="--first-uid"):
        check(Engine(first_uid=first))
    assert INSTANCES_END == uids.FIRST_ID + uids.MOST * IDS
    for good in (0, 1, 900, INSTANCES_FIRST - 7, INSTANCES_END, 2**31 - 8):
        check(Engine(first_uid=good))


def test_programs_that_root_alone_may_read_are_refused_with_the_cure(tmp_path: Path) -> None:
    for name in ("process", "store", "ingress"):
        (tmp_path / name).mkdir(mode=0o755)
        (tmp_path / name / "__init__.py").touch(mode=0o644)
    tmp_path.chmod(0o755)
    preflight.readable(tmp_path)
    (tmp_path / "store").chmod(0o700)
    with pytest.raises(preflight.Refused, match=f"mode 700.*chmod -R go\\+rX {tmp_path}"):
        preflight.readable(tmp_path)
    (tmp_path / "store").chmod(0o755)
    (tmp_path / "store" / "__init__.py").chmod(0o600)
    with pytest.raises(preflight.Refused, match="mode 600"):
        preflight.readable(tmp_path)


def test_ids_that_a_user_namespace_does_not_have_are_refused() -> None:
    rows = "         0     100000      65536\n"
    preflight.mapped(Engine(first_uid=900), rows)
    with pytest.raises(preflight.Refused, match="--first-uid 2147287040"):
        preflight.mapped(Engine(), rows)
    preflight.mapped(Engine(), "0 0 4294967295")
