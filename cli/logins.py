"""Where the API is and how to log in there: from flags, the environment, `ebb login`, or the engine on this machine.

`ebb login` keeps tokens in `~/.config/ebb/logins.json` (0600). Of the engine on this machine, root can read the first admin's token.
"""

import contextlib
import json
import os
import ssl
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cli.errors import BadUsage

DEFAULT = "https://127.0.0.1:8090"
SERVER_NAME = "localhost"
"""A name that is in the certificate of every engine's API."""


@dataclass(frozen=True, slots=True)
class Login:
    """`ca`: the authority's certificate as PEM; empty: the system's. `server_name`: what the API's certificate must name; empty:
    the address's host."""

    address: str
    token: str = ""
    ca: str = ""
    server_name: str = ""

    def tls(self) -> ssl.SSLContext | bool:
        """How the API's TLS is checked."""
        if not self.address.startswith("https://") or not self.ca:
            return True
        return ssl.create_default_context(cadata=self.ca)


def find(given: str = "", run: Path = Path("/run/ebb")) -> Login:
    """--api, else EBB_API, else the engine of EBB_RUN, else the last `ebb login`, else the engine on this machine, else the default.

    The token is EBB_TOKEN, else the one kept for that address. Raises BadUsage.
    """
    address = given or os.environ.get("EBB_API", "")
    known, current = read()
    here = local(Path(os.environ.get("EBB_RUN", run)))
    if not address:
        chosen = here if here is not None and "EBB_RUN" in os.environ else known.get(current) or here
        found = chosen or Login(DEFAULT)
    else:
        address = checked(address)
        found = known.get(address) or (here if here is not None and here.address == address else Login(address))
    token, ca = os.environ.get("EBB_TOKEN", ""), os.environ.get("EBB_CA_FILE", "")
    return Login(found.address, token or found.token, pem(ca) if ca else found.ca, found.server_name)


def checked(address: str) -> str:
    """Raises BadUsage."""
    address = address.rstrip("/")
    if not address.startswith(("http://", "https://")):
        raise BadUsage(f"the API's address is {address!r}; want a URL such as {DEFAULT} (--api, EBB_API)")
    return address


def local(run: Path) -> Login | None:
    """The engine that runs in `run`. Its token is empty for who may not read it."""
    try:
        engine: dict[str, Any] = json.loads((run / "state.json").read_text())["engine"]
        host, _, port = (engine.get("listen_api") or f"127.0.0.1:{int(engine['port_base'])}").rpartition(":")
        root = Path(engine["root"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    token = ca = ""
    with contextlib.suppress(OSError):
        ca = (root / "ca.crt").read_text()
    with contextlib.suppress(OSError):
        token = (root / "admin.token").read_text().strip()
    host = "127.0.0.1" if host in ("0.0.0.0", "[::]", "*") else host
    return Login(f"https://{host}:{port}", token, ca, SERVER_NAME)


def pem(file: str) -> str:
    """The authority's certificate in `file`. Raises BadUsage."""
    try:
        text = Path(file).read_text()
        ssl.create_default_context(cadata=text)
    except (OSError, UnicodeDecodeError, ssl.SSLError) as error:
        raise BadUsage(f"{file}: no certificate of an authority in PEM: {error}") from None
    return text


# -- the file -----------------------------------------------------------------------------------------------------------------


def path() -> Path:
    """Where logins are kept."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "ebb" / "logins.json"


def read() -> tuple[dict[str, Login], str]:
    """By address, and the address that was logged in to last. A file that cannot be read has none."""
    try:
        kept = json.loads(path().read_text())
        return {each["address"]: Login(**each) for each in kept["logins"]}, str(kept["current"])
    except (OSError, RuntimeError, ValueError, KeyError, TypeError):
        return {}, ""


def keep(login: Login) -> Path:
    """Remember `login`, as the one that is used from now on. Raises BadUsage."""
    known, _ = read()
    return _write({**known, login.address: login}, login.address)


def forget(address: str) -> bool:
    """Whether there was a login at `address` (empty: the last one)."""
    known, current = read()
    gone = known.pop(address or current, None)
    if gone is not None:
        _write(known, "" if current not in known else current)
    return gone is not None


def _write(known: dict[str, Login], current: str) -> Path:
    file = path()
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = file.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            json.dump({"current": current, "logins": [asdict(each) for each in known.values()]}, out, indent=2)
        fresh.replace(file)
    except OSError as error:
        raise BadUsage(f"{file}: {error.strerror}") from None
    return file
