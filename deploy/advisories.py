"""`deploy/audit`: whether holes are known in what the lock file pins; asked of an advisory database by pip-audit.

What could not be asked is never said to be well: that has an exit code of its own.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from deploy.bill import LOCKS, ROOT, locked
from deploy.lockfile import BadLock

NONE, HOLES, BAD_LOCK, NOT_ASKED = 0, 1, 2, 3
TIMEOUT_S = 300.0


def program() -> str:
    """pip-audit: $EBB_PIP_AUDIT, the one beside this Python, or the one on the PATH; empty where there is none."""
    own = Path(sys.executable).parent / "pip-audit"
    return os.environ.get("EBB_PIP_AUDIT", "") or (str(own) if own.exists() else shutil.which("pip-audit") or "")


def verdict(output: str, errors: str, names: set[str]) -> tuple[int, str]:
    """The exit code and what to say, from what pip-audit printed with `--format json`. Pure.

    Only a whole answer about all of `names` counts as one.
    """
    try:
        rows = {str(row["name"]).lower().replace("_", "-").replace(".", "-"): row for row in json.loads(output)["dependencies"]}
        skipped = sorted(name for name in names if "vulns" not in rows.get(name, {}))
        holes = [(name, str(row["version"]), hole) for name, row in sorted(rows.items()) for hole in row.get("vulns", ())]
        said = [f"{name} {version}: {hole['id']}, mended in {_mended(hole)}" for name, version, hole in holes]
    except (ValueError, KeyError, TypeError, AttributeError):
        last = next((line for line in reversed(errors.splitlines()) if line.strip()), "it said nothing")
        return NOT_ASKED, f"COULD NOT ASK the advisory database: {last.strip()[:300]}"
    if said:
        return HOLES, "\n".join([f"{len(said)} known holes:", *said])
    if skipped:
        return NOT_ASKED, f"COULD NOT ASK about {len(skipped)} of {len(names)} packages: {', '.join(skipped)}"
    return NONE, f"no hole is known in {len(names)} packages"


def _mended(hole: dict[str, list[str]]) -> str:
    return " or ".join(hole.get("fix_versions") or ["no version yet"])


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="deploy/audit", description="Known holes in what the lock file pins.")
    parser.add_argument("--dev", action="store_true", help="what the tests need too")
    flags = parser.parse_args(argv)
    try:
        # What is installed elsewhere (Windows) is not asked about by pip-audit either.
        names = {each.name for each in locked(ROOT, dev=flags.dev) if not each.marker}
    except (BadLock, OSError) as error:
        sys.stderr.write(f"deploy/audit: {error}\n")
        return BAD_LOCK
    tool = program()
    if not tool:
        sys.stderr.write(
            "deploy/audit: COULD NOT ASK: there is no pip-audit; install one (pipx install pip-audit) or name it in EBB_PIP_AUDIT\n"
        )
        return NOT_ASKED
    files = [word for name in LOCKS[: 2 if flags.dev else 1] for word in ("--requirement", str(ROOT / name))]
    asked = [tool, "--require-hashes", "--disable-pip", "--format", "json", "--progress-spinner", "off", *files]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        sys.stderr.write(f"deploy/audit: COULD NOT ASK: {error}\n")
        return NOT_ASKED
    code, said = verdict(done.stdout, done.stderr, names)
    (sys.stdout if code == NONE else sys.stderr).write(f"deploy/audit: {said}\n")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
