"""Has the kernel hand what waits at a closing socket to another one that listens on the same port.

A worker of the front door accepts all that waits before it closes its socket, but a handshake may begin before that and end after it,
and what waits at a worker that is killed has nobody to accept it. With `net.ipv4.tcp_migrate_req` (kernel 5.14; for IPv6 too) another
worker gets both; without it the kernel resets them. It counts for the whole network namespace, so what it was before is kept and put back.
"""

from pathlib import Path

_MIGRATE = Path("/proc/sys/net/ipv4/tcp_migrate_req")


def begin(run: Path) -> str:
    """Have it so; what it was is kept in directory `run`. Why that cannot be, or nothing."""
    try:
        if _MIGRATE.read_text().strip() == "0":
            run.mkdir(parents=True, exist_ok=True)
            _kept(run).write_text("0\n")
            _MIGRATE.write_text("1")
    except OSError as error:
        return (
            f"net.ipv4.tcp_migrate_req cannot be 1 ({error.strerror}): `ebb roll` may break off connections that are just made"
        )
    return ""


def end(run: Path) -> None:
    """Put back what `begin` has changed, if anything."""
    try:
        _MIGRATE.write_text(_kept(run).read_text())
    except OSError:
        return
    _kept(run).unlink()


def _kept(run: Path) -> Path:
    return run / "tcp_migrate_req"
