"""`deploy/sbom`: a bill of materials (CycloneDX 1.5, JSON) from the lock file. The same lock gives the same bill, byte for byte."""

import argparse
import hashlib
import json
import subprocess
import sys
import tomllib
import uuid
from pathlib import Path
from typing import Any

from deploy import lockfile
from deploy.lockfile import BadLock, Locked

ROOT = Path(__file__).parents[1]
LOCKS = ("requirements.lock", "requirements-dev.lock")


def locked(root: Path, *, dev: bool) -> list[Locked]:
    """What is pinned, for the engine or for its tests too. Raises BadLock, OSError."""
    return lockfile.union(lockfile.parse((root / name).read_text()) for name in LOCKS[: 2 if dev else 1])


def bill(version: str, packages: list[Locked], debian: dict[str, str]) -> dict[str, Any]:
    """The document. `debian`: package → version, "" where it is not installed on this machine. Pure."""
    components = [_package(each) for each in packages] + [_debian(name, debian[name]) for name in sorted(debian)]
    seed = hashlib.sha256(json.dumps([version, components], sort_keys=True).encode()).digest()
    me = f"pkg:generic/ebb@{version}"
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.UUID(bytes=seed[:16], version=4)}",
        "version": 1,
        "metadata": {"component": {"type": "application", "bom-ref": me, "name": "ebb", "version": version, "purl": me}},
        "components": components,
        "dependencies": [{"ref": me, "dependsOn": [each["bom-ref"] for each in components]}],
    }


def _package(package: Locked) -> dict[str, Any]:
    purl = f"pkg:pypi/{package.name}@{package.version.replace('+', '%2B')}"
    made: dict[str, Any] = {
        "type": "library",
        "bom-ref": purl,
        "name": package.name,
        "version": package.version,
        "purl": purl,
        "hashes": [{"alg": "SHA-256", "content": each} for each in package.hashes],
    }
    if package.marker:
        made["properties"] = [{"name": "ebb:where", "value": package.marker}]
    return made


def _debian(name: str, version: str) -> dict[str, Any]:
    quoted = version.replace("+", "%2B").replace(":", "%3A")
    purl = f"pkg:deb/debian/{name}" + (f"@{quoted}" if version else "")
    made: dict[str, Any] = {"type": "library", "bom-ref": purl, "name": name, "purl": purl}
    return made | ({"version": version} if version else {})


def debian(root: Path, *, dev: bool) -> dict[str, str]:
    """The Debian packages that are asked for, with this machine's versions. Raises OSError."""
    lists = ["engine.txt", "test.txt"][: 2 if dev else 1]
    lines = [line for name in lists for line in (root / "deploy/packages" / name).read_text().splitlines()]
    names = sorted({line.partition("#")[0].strip() for line in lines} - {""})
    asked = ["dpkg-query", "-W", "-f", "${db:Status-Status} ${Package} ${Version}\n", *names]
    # It exits with 1 when one of them is not known; what it knows is printed all the same.
    done = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=False)
    rows = [line.split() for line in done.stdout.splitlines()]
    here = {row[1]: row[2] for row in rows if len(row) == 3 and row[0] == "installed"}
    return {name: here.get(name, "") for name in names}


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="deploy/sbom", description="A bill of materials of what the lock file pins.")
    parser.add_argument("--dev", action="store_true", help="what the tests need too")
    parser.add_argument("--debian", action="store_true", help="this machine's versions of the Debian packages too")
    flags = parser.parse_args(argv)
    try:
        version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
        made = bill(version, locked(ROOT, dev=flags.dev), debian(ROOT, dev=flags.dev) if flags.debian else {})
    except (BadLock, OSError) as error:
        sys.stderr.write(f"deploy/sbom: {error}\n")
        return 2
    sys.stdout.write(json.dumps(made, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
