"""The bill of materials and the audit of what the locks pin."""

import hashlib
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from deploy import advisories, bill, lockfile

ROOT = Path(__file__).parents[3]
HASH = "a" * 64


def made(*flags: str) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "deploy.bill", *flags], cwd=ROOT, capture_output=True, check=True, timeout=30
    )
    found: dict[str, object] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(("flags", "locks"), [((), 1), (("--dev",), 2)])
def test_the_bill_names_every_locked_package_with_version_and_hashes(flags: tuple[str, ...], locks: int) -> None:
    components = {each["name"]: each for each in made(*flags)["components"]}  # type: ignore[attr-defined]
    text = "".join((ROOT / name).read_text() for name in bill.LOCKS[:locks])
    # Not by the parser that made the bill: what stands before == at the beginning of a line.
    pinned = {
        line.partition("==")[0]: line.partition("==")[2].split()[0]
        for line in text.splitlines()
        if "==" in line and line[0] != " "
    }
    pinned = {name.lower().replace("_", "-").replace(".", "-"): version for name, version in pinned.items()}
    assert len(pinned) > 30
    assert {name: each["version"] for name, each in components.items()} == pinned
    hashes = {each["content"] for component in components.values() for each in component["hashes"]}
    assert hashes == {word.split("sha256:")[1] for word in text.split() if "--hash=" in word}
    assert all(each["hashes"] and each["purl"] == f"pkg:pypi/{name}@{each['version']}" for name, each in components.items())


def test_the_bill_is_the_same_each_time_and_names_no_host() -> None:
    first = made("--dev")
    assert first == made("--dev")
    assert (first["bomFormat"], first["specVersion"]) == ("CycloneDX", "1.5")
    assert "://" not in json.dumps(first)
    assert not [
        line for name in bill.LOCKS for line in (ROOT / name).read_text().splitlines() if "://" in line or line.startswith("-")
    ]


def test_the_bill_records_the_versions_of_debians_packages() -> None:
    found = {each["purl"]: each for each in made("--debian")["components"] if each["purl"].startswith("pkg:deb/")}  # type: ignore[attr-defined]
    asked = [name for name in found if name.startswith(("pkg:deb/debian/containerd@", "pkg:deb/debian/etcd-server@"))]
    assert len(asked) == 2, list(found)
    version = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Version}", "containerd"], capture_output=True, text=True, check=True
    ).stdout
    assert found[next(name for name in asked if "containerd" in name)]["version"] == version


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("left-pad==1.0\n", "has no hash"),
        (f"left-pad>=1.0 --hash=sha256:{HASH}\n", "want NAME==VERSION"),
        (f"left-pad @ https://evil.example/x.whl --hash=sha256:{HASH}\n", "want NAME==VERSION"),
        ("--index-url https://evil.example/\n", "want NAME==VERSION"),
        ("left-pad==1.0 --hash=md5:abc\n", "is not a SHA-256"),
        (f"left-pad==1.0 --hash=sha256:{HASH}\nleft_pad==1.1 --hash=sha256:{HASH}\n", "pinned twice"),
    ],
)
def test_a_lock_that_leaves_something_open_is_refused(line: str, why: str) -> None:
    with pytest.raises(lockfile.BadLock, match=why):
        lockfile.parse(line)


def test_two_locks_that_disagree_are_refused() -> None:
    one, other = (lockfile.parse(f"left-pad=={version} --hash=sha256:{HASH}\n") for version in ("1.0", "1.1"))
    with pytest.raises(lockfile.BadLock, match=r"one lock pins 1\.0, another 1\.1"):
        lockfile.union([one, other])


def answer(**vulns: list[dict[str, object]]) -> str:
    return json.dumps({"dependencies": [{"name": name, "version": "1.0", "vulns": found} for name, found in vulns.items()]})


def test_a_known_hole_is_named_with_the_version_that_mends_it() -> None:
    code, said = advisories.verdict(answer(h2=[{"id": "CVE-1", "fix_versions": ["1.1"]}], hpack=[]), "", {"h2", "hpack"})
    assert (code, said) == (advisories.HOLES, "1 known holes:\nh2 1.0: CVE-1, mended in 1.1")


def test_nothing_known_about_all_of_them_is_well() -> None:
    assert advisories.verdict(answer(h2=[], hpack=[]), "", {"h2", "hpack"})[0] == advisories.NONE


def test_an_answer_that_leaves_packages_out_is_not_taken_for_a_good_one() -> None:
    code, said = advisories.verdict(answer(h2=[]), "", {"h2", "hpack"})
    assert (code, "about 1 of 2 packages: hpack" in said) == (advisories.NOT_ASKED, True)


@pytest.mark.parametrize("script", ["echo 'ConnectionError: no route' >&2; exit 1", "exit 0", "echo '{}'"])
def test_the_audit_that_could_not_ask_says_so_and_fails(script: str, tmp_path: Path) -> None:
    tool = tmp_path / "pip-audit"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    asked = [sys.executable, "-P", "-m", "deploy.advisories"]
    done = subprocess.run(
        asked,
        check=False,
        cwd=ROOT,
        env={"EBB_PIP_AUDIT": str(tool), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, "COULD NOT ASK" in done.stderr, done.stdout) == (advisories.NOT_ASKED, True, "")


def _wheel(directory: Path, said: str) -> Path:
    """A package of one module that says `said`."""
    path = directory / "left_pad-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("left_pad.py", f"print({said!r})\n")
        wheel.writestr("left_pad-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: left-pad\nVersion: 1.0\n")
        wheel.writestr("left_pad-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("left_pad-1.0.dist-info/RECORD", "left_pad.py,,\n")
    return path


@pytest.mark.parametrize(
    ("what", "refused"),
    [("the same", ""), ("other bytes", "DO NOT MATCH THE HASHES"), ("no hash", "must have their versions pinned|hash")],
)
def test_a_package_whose_bytes_are_not_those_of_the_lock_is_not_installed(what: str, refused: str, tmp_path: Path) -> None:
    """What `deploy/install` runs, against an index that somebody took over."""
    hashed = hashlib.sha256(_wheel(tmp_path, "honest").read_bytes()).hexdigest()
    if what == "other bytes":
        _wheel(tmp_path, "evil")
    lock = tmp_path / "requirements.lock"
    lock.write_text("left-pad==1.0" + (f" --hash=sha256:{hashed}" if what != "no hash" else "") + "\n")
    line = next(line for line in (ROOT / "deploy/install").read_text().splitlines() if "pip install" in line)
    flags = [word for word in line.split() if word.startswith("--") and word != "--no-cache-dir"]
    argv = [sys.executable, "-m", "pip", "install", *flags, "--no-index", "--find-links", str(tmp_path)]
    argv += ["--target", str(tmp_path / "into"), "-r", str(lock)]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode == 0) == (not refused), done.stdout + done.stderr
    assert re.search(refused, done.stdout + done.stderr)
    assert (tmp_path / "into/left_pad.py").exists() == (not refused)


def test_packages_are_installed_by_their_hashes_alone() -> None:
    installs = [line for line in (ROOT / "deploy/install").read_text().splitlines() if "pip install" in line]
    assert installs
    assert all("--require-hashes" in line and "--no-deps" in line for line in installs)
