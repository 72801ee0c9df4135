"""The configuration of Ebb's private NATS: TLS with certificates on both sides, and who may say what (store/roles.py)."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from process.identity import AUTHORITY, OWN, Who
from store import roles

ANSWER_S = 60
"""How long an answer to a request may take."""


def write(
    path: Path, port: int, identity: Path, known: Iterable[Who], *, host: str = "127.0.0.1", name: str = "ebb", uid: int = -1
) -> bool:
    """Write the configuration, 0600, of user `uid`. False: it is there already, the same. Whoever is not `known` cannot connect."""
    own, authority = str(identity / OWN), str(identity / AUTHORITY)
    config = {
        "host": host,
        "port": port,
        "server_name": name,
        "tls": {
            "cert_file": own,
            "key_file": own,
            "ca_file": authority,
            "verify_and_map": True,
            "handshake_first": True,
            "min_version": "1.3",
            "timeout": 2,
        },
        "authorization": {"users": [_user(who) for who in sorted(known, key=lambda who: who.uri)]},
    }
    text = json.dumps(config, indent=1)
    try:
        if path.read_text() == text:
            return False
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        os.fchown(file.fileno(), uid, uid)
        file.write(text)
    os.replace(fresh, path)
    return True


def _user(who: Who) -> dict[str, Any]:
    says, hears = roles.subjects(who.role, who.name)
    allowed: dict[str, Any] = {"publish": {"allow": says}, "subscribe": {"allow": hears}}
    if roles.role(who.role).answers:
        allowed["allow_responses"] = {"max": 1, "expires": f"{ANSWER_S}s"}
    return {"user": who.uri, "permissions": allowed}
