"""What the request path may load."""

import subprocess
import sys


def test_the_front_door_loads_neither_grpc_nor_the_api() -> None:
    """`__main__` names the store; every other module of the packages is imported here, in a process of its own."""
    program = """
import pkgutil, importlib, sys
import ingress, activator
for package in (ingress, activator):
    for module in pkgutil.iter_modules(package.__path__):
        if module.name != "__main__":
            importlib.import_module(f"{package.__name__}.{module.name}")
heavy = {"grpc", "litestar", "google.protobuf", "uvicorn", "typer", "rich"} & set(sys.modules)
sys.exit(f"loaded: {heavy}" if heavy else 0)
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
