"""The generated modules of the suite's contract, made by the real plugin when first imported.

`pb` has the messages, `pf` the handlers and producers. Programs that a test starts find both
on PYTHONPATH (see `program_environment`) and make nothing.
"""

from __future__ import annotations

import atexit
import importlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
_PROTOS = REPOSITORY / "tests" / "acceptance" / "proto"
_SOURCE = "suite/v1/suite.proto"


def generate(directory: Path) -> None:
    """Runs protoc with the plugin; raises with its text if it fails."""
    plugin = directory / "protoc-gen-protoflow"
    plugin.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m protoc_gen_protoflow\n')
    plugin.chmod(0o755)
    command = [
        *(sys.executable, "-m", "grpc_tools.protoc"),
        *(f"-I{REPOSITORY / 'proto'}", f"-I{_PROTOS}"),
        f"--plugin=protoc-gen-protoflow={plugin}",
        *(f"--python_out={directory}", f"--protoflow_out={directory}"),
        *("--protoflow_opt=handlers=both", _SOURCE),
    ]
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'runtime'}"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"protoc failed:\n{done.stderr}")


def _load() -> Path:
    found = os.environ.get("SUITE_GENERATED")
    directory = Path(found or tempfile.mkdtemp(prefix="protoflow-suite-"))
    if not found:
        atexit.register(shutil.rmtree, directory, ignore_errors=True)
        generate(directory)
    sys.path.insert(0, str(directory))
    return directory


GENERATED = _load()
pb: Any = importlib.import_module("suite.v1.suite_pb2")
pf: Any = importlib.import_module("suite.v1.suite_protoflow")


def program_environment() -> dict[str, str]:
    """The environment of a program that a test starts."""
    path = f"{REPOSITORY}:{REPOSITORY / 'runtime'}:{GENERATED}"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PROTOFLOW_")}
    return {**kept, "PYTHONPATH": path, "SUITE_GENERATED": str(GENERATED)}


def handler(service: str, call: Callable[..., Any], *, sync: bool = False) -> Any:
    """An instance of the generated handler class of a service, all its methods `call`."""
    base = getattr(pf, f"{service}Handler{'Sync' if sync else ''}")
    methods = {method.handler: staticmethod(call) for method in base.__protoflow_spec__.methods}
    return type(service, (base,), methods)()


def sync_handler(service: str, call: Callable[..., Any]) -> Any:
    """The same for a plain function, which runs in a thread."""
    return handler(service, call, sync=True)


def method(service: str) -> str:
    """The full name of the (first) method of a service."""
    name: str = getattr(pf, f"{service}Handler").__protoflow_spec__.methods[0].name
    return name
