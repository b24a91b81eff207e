"""The generated modules of the benchmarks, made once in a temporary directory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
HOME = ROOT / ".venv" / "bench-gen"


def generate() -> Path:
    """Generates if the contract is newer than what is there; where it lies."""
    source = ROOT / "benchmarks/proto/bench/v1/orders.proto"
    made = HOME / "bench/v1/orders_protoflow.py"
    if made.exists() and made.stat().st_mtime > source.stat().st_mtime:
        return HOME
    HOME.mkdir(parents=True, exist_ok=True)
    plugin = Path(sys.executable).parent / "protoc-gen-protoflow"
    command = [
        sys.executable, "-m", "grpc_tools.protoc", f"--plugin=protoc-gen-protoflow={plugin}",
        f"-I{ROOT}/benchmarks/proto", f"-I{ROOT}/proto", f"--python_out={HOME}",
        f"--pyi_out={HOME}", f"--protoflow_out={HOME}", "bench/v1/orders.proto",
    ]  # fmt: skip
    subprocess.run(command, check=True)
    return HOME


def use() -> None:
    """Makes the modules importable here and in child processes."""
    home = str(generate())
    for path in (str(ROOT / "runtime"), home):
        if path not in sys.path:
            sys.path.insert(0, path)
    os.environ["PYTHONPATH"] = os.pathsep.join([home, str(ROOT / "runtime"), str(ROOT)])
