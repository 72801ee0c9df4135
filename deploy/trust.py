"""`ebb trust`: make this machine's programs accept the certificates that an engine's own authority signs, or no longer.

What it installs is Debian's way of local authorities: a file in /usr/local/share/ca-certificates, and `update-ca-certificates`. That
authority can sign for nothing but the engine's domain and this machine (registry/authority.py). Browsers keep stores of their own.
"""

import shutil
import subprocess
from pathlib import Path

from deploy import preflight
from deploy.preflight import Refused

STORE = Path("/usr/local/share/ca-certificates")
TIMEOUT_S = 120


def trusted(root: Path, store: Path = STORE) -> Path:
    """Where the authority of the engine in `root` is, once it is trusted."""
    return store / f"ebb{str(root).replace('/', '-')}.crt"


def trust(root: Path, store: Path = STORE) -> str:
    """Install it; what was done. Raises Refused."""
    preflight.root_user()
    authority, where = root / "ca.crt", trusted(root, store)
    try:
        data = authority.read_bytes()
        if where.exists() and where.read_bytes() == data:
            return f"{where} is there already: the system trusts it"
        where.parent.mkdir(parents=True, exist_ok=True)
        where.write_bytes(data)
        where.chmod(0o644)
    except FileNotFoundError:
        raise Refused(f"no {authority}: `ebb up` makes it; name another engine with --root DIR") from None
    except OSError as error:
        raise Refused(f"{error.filename}: {error.strerror}") from None
    _update()
    return f"installed {where}; curl, wget, Python and Go trust https://*.PROJECT.DOMAIN of this engine now"


def distrust(root: Path, store: Path = STORE) -> str:
    """Take it out again; what was done. Raises Refused."""
    preflight.root_user()
    where = trusted(root, store)
    if not where.exists():
        return f"no {where}: nothing to remove"
    try:
        where.unlink()
    except OSError as error:
        raise Refused(f"{where}: {error.strerror}") from None
    _update("--fresh")
    return f"removed {where}"


def _update(*flags: str) -> None:
    program = shutil.which("update-ca-certificates", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if program is None:
        raise Refused("update-ca-certificates is not there; install Debian's ca-certificates, then run this again")
    try:
        done = subprocess.run([program, *flags], capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise Refused(f"{program} took longer than {TIMEOUT_S} s") from None
    if done.returncode:
        raise Refused(f"{program} failed: {(done.stderr or done.stdout).strip()[-500:]}")
