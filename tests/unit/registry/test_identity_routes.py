"""What the API answers to who asks for an identity token that cannot be given."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from litestar import Litestar
from litestar.testing import TestClient

from process.clock import SystemClock
from registry.api.app import _api_error
from registry.api.identity_routes import handlers
from registry.api.problems import ApiError
from registry.identities import Identities
from store.memory import MemoryStore
from store.seal import Keyring, add_key


@pytest.mark.parametrize(("audience", "code"), [("https://hello.shop.example", 503), ("no url", 400)])
def test_a_token_that_no_key_signs_yet_is_worth_asking_for_again_and_one_for_no_url_is_not(
    audience: str, code: int, tmp_path: Path
) -> None:
    add_key(tmp_path / "keys")
    identities = Identities(MemoryStore(), SystemClock(), Keyring(tmp_path / "keys"))
    identity = SimpleNamespace(principal="user:ana", scoped=False, token="t")

    def asked_by(app: Any) -> Any:
        async def middleware(scope: Any, receive: Any, send: Any) -> None:
            scope["ebb"] = SimpleNamespace(identity=identity)
            await app(scope, receive, send)

        return middleware

    app = Litestar(handlers(identities), middleware=[asked_by], exception_handlers={ApiError: _api_error}, openapi_config=None)
    with TestClient(app) as client:
        answer = client.post("/apis/ebb.dev/v1/identity-tokens", json={"audience": audience})
    assert answer.status_code == code
    assert answer.headers.get("retry-after") == ("1" if code == 503 else None)
