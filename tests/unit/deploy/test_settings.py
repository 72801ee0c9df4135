"""What `ebb up` takes."""

from pathlib import Path

import pytest

from deploy import components, kubeconfig
from deploy.settings import BadUsage, Engine, check


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
