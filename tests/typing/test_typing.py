"""Generated modules in users' hands: right code passes, mistakes are found where they are."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PROTO = ROOT / "tests" / "golden" / "shapes" / "proto"
MARK = re.compile(r"# E: (\S+) (\S+)")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("typing")
    plugin = Path(sys.executable).parent / "protoc-gen-protoflow"
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTO}", f"-I{ROOT / 'proto'}"),
            f"--plugin=protoc-gen-protoflow={plugin}",
            f"--plugin=protoc-gen-mypy={plugin.parent / 'protoc-gen-mypy'}",
            *(f"--python_out={out}", f"--mypy_out=quiet:{out}"),
            *(f"--protoflow_out=handlers=both:{out}", "shapes/shapes.proto"),
        ],
        check=True,
    )
    for name in ("accepted.py", "rejected.py"):
        shutil.copy(HERE / name, out)
    return out


def expected(column: int) -> dict[int, str]:
    lines = (HERE / "rejected.py").read_text().splitlines()
    return {
        number: found[column]
        for number, line in enumerate(lines, 2)
        if (found := MARK.search(line))
    }


def compare(found: dict[str, dict[int, set[str]]], column: int) -> None:
    assert not found["accepted.py"]
    marks = expected(column)
    rejected = found["rejected.py"]
    assert set(rejected) == set(marks)
    for line, code in marks.items():
        assert rejected[line] & set(code.split("|")), (line, code, rejected[line])


def test_mypy(workspace: Path) -> None:
    (workspace / "mypy.ini").write_text(f"[mypy]\nstrict = true\nmypy_path = {ROOT / 'runtime'}\n")
    command = ["-m", "mypy", "--config-file", "mypy.ini", "--no-pretty", "--show-error-codes"]
    result = subprocess.run(
        [sys.executable, *command, "--explicit-package-bases", "accepted.py", "rejected.py"],
        cwd=workspace,
        capture_output=True,
        text=True,
        check=False,
    )
    found: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
    for line in result.stdout.splitlines():
        if match := re.match(r"(\S+\.py):(\d+): error: .*\[([\w-]+)\]$", line):
            found[match[1]][int(match[2])].add(match[3])
    assert set(found) <= {"accepted.py", "rejected.py"}, result.stdout
    compare(found, 1)


def test_pyright(workspace: Path) -> None:
    (workspace / "pyrightconfig.json").write_text(
        json.dumps(
            {
                "typeCheckingMode": "strict",
                "include": ["accepted.py", "rejected.py"],
                "extraPaths": [str(ROOT / "runtime")],
            }
        )
    )
    result = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable],
        cwd=workspace,
        capture_output=True,
        text=True,
        check=False,
    )
    found: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
    for diagnostic in json.loads(result.stdout)["generalDiagnostics"]:
        line = diagnostic["range"]["start"]["line"] + 1
        found[Path(diagnostic["file"]).name][line].add(diagnostic.get("rule", ""))
    compare(found, 2)
