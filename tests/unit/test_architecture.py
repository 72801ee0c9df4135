"""The house as ARCHITECTURE.md draws it: arrows of import, where the heavy libraries live, which files are pure, how big they may be."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("process", "store", "activator", "ingress", "autoscaler", "nodeagent", "registry", "cli", "deploy")
IMPURE = {
    "asyncio",
    "time",
    "random",
    "secrets",
    "logging",
    "grpc",
    "nats",
    "socket",
    "subprocess",
    "aiohttp",
    "uvloop",
    "threading",
}
PURE_IN = ("store", "activator", "ingress", "autoscaler", "nodeagent", "registry")
PURE_NAMES = {
    "errors", "imageref", "keys", "leases", "lifecycle", "messages", "model", "roles", "txn",
    "balance", "breaker", "concurrency", "effects", "ejection", "slowstart", "throttler",
    "chunked", "headers", "proxies", "refusals", "routes", "spans", "traffic",
    "active", "backoff", "footprint", "freezing", "idle", "keepalive", "lean", "need", "parking", "placement", "plan", "policy",
    "profile", "reach", "relief", "signals", "steady", "victims", "window",
    "adopt", "drain", "ocispec", "pressure", "readiness", "seccomp",
    "annotations", "bounds", "conditions", "defaults", "problem", "quantity", "revise", "rollout", "routing", "validate",
}  # fmt: skip
"""Files of these packages that are named after a thing of the domain: `now` is a parameter, a decision is the result."""
MAX_FUNCTION_LINES = 70
MAX_FILE_LINES = 400


def files() -> Iterator[Path]:
    """Every module of ours that people wrote."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if "pb" not in path.parts:
                yield path


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Modules that `path` imports when it is run, with the line; those for type checkers alone are left out."""
    for node in _running(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module, node.lineno


def _running(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from _running(node)


def where(path: Path, line: int, what: str) -> str:
    return f"{path.relative_to(ROOT)}:{line}: {what}"


def test_the_arrows_of_import_hold() -> None:
    program = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([program, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("package", ["ingress", "activator"])
def test_the_request_path_loads_neither_litestar_nor_grpc(package: str) -> None:
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in files()
        if path.relative_to(ROOT).parts[0] == package and path.name != "__main__.py"
    ]
    assert modules
    code = f"import sys, {', '.join(modules)}; print([m for m in ('litestar', 'grpc') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_litestar_is_the_registrys_alone() -> None:
    assert [
        where(path, line, name)
        for path in files()
        for name, line in imports(path)
        if name.split(".")[0] == "litestar" and path.relative_to(ROOT).parts[0] != "registry"
    ] == []


ETCD = tuple(ROOT / "store" / f"{name}.py" for name in ("etcd", "renewals", "channel", "gate"))


def test_grpc_is_in_the_stores_and_the_node_agents_shells_alone() -> None:
    def may(path: Path) -> bool:
        return path in ETCD or path.relative_to(ROOT).parts[0] == "nodeagent"

    assert [
        where(path, line, name)
        for path in files()
        for name, line in imports(path)
        if name.split(".")[0] == "grpc" and not may(path)
    ] == []


def test_the_real_servers_clients_are_named_by_connect_alone() -> None:
    """Everybody else gets a Store and a Bus given, so that the twins can stand in."""
    allowed = {ROOT / "store" / "connect.py"}
    assert [
        where(path, line, name)
        for path in files()
        for name, line in imports(path)
        if name in ("store.etcd", "store.nats") and path not in allowed
    ] == []


def test_files_named_after_the_domain_are_pure() -> None:
    found = []
    for path in files():
        if path.stem not in PURE_NAMES or path.parent not in [ROOT / package for package in PURE_IN]:
            continue
        found += [where(path, line, f"imports {name}") for name, line in imports(path) if name.split(".")[0] in IMPURE]
        found += [
            where(path, node.lineno, f"async {node.name}")
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.AsyncFunctionDef)
        ]
    assert found == []


def test_no_function_is_longer_than_a_screen() -> None:
    found = []
    for path in files():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    found.append(where(path, node.lineno, f"{node.name} has {lines} lines; at most {MAX_FUNCTION_LINES}"))
    assert found == []


def test_no_file_is_longer_than_a_few_screens() -> None:
    found = []
    for path in files():
        lines = len(path.read_text().splitlines())
        if lines > MAX_FILE_LINES:
            found.append(where(path, lines, f"{lines} lines; at most {MAX_FILE_LINES}: split it by what it does"))
    assert found == []


def test_every_package_says_what_it_is() -> None:
    for package in PACKAGES:
        doc = ast.get_docstring(ast.parse((ROOT / package / "__init__.py").read_text()))
        assert doc, f"{package}/__init__.py has no docstring"
        assert len(doc) > 40, f"{package}/__init__.py: say in a sentence what it is"


def test_every_module_says_what_it_is() -> None:
    assert [where(path, 1, "no docstring") for path in files() if not ast.get_docstring(ast.parse(path.read_text()))] == []
