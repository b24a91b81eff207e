"""The generated modules of the benchmarks, made when the contract or the plugin is newer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
HOME = ROOT / ".venv" / "bench-gen"


def generate() -> Path:
    """Generates if need be; where the modules lie."""
    contract = ROOT / "benchmarks/proto/bench/v1/orders.proto"
    sources = [
        contract,
        *(ROOT / "templates").iterdir(),
        *(ROOT / "protoc_gen_protoflow").glob("*.py"),
    ]
    made = HOME / "bench/v1/orders_protoflow.py"
    if made.exists() and made.stat().st_mtime > max(path.stat().st_mtime for path in sources):
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


def environment() -> dict[str, str]:
    """What a subject runs in: the modules are found, and bytecode is kept as by a user."""
    paths = os.pathsep.join(map(str, (generate(), ROOT / "runtime", ROOT)))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PROTOFLOW_")}
    kept.pop("PYTHONDONTWRITEBYTECODE", None)
    return {**kept, "PYTHONPATH": paths}
