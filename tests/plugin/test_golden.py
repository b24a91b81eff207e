"""Golden cases through the real protoc and buf; what comes out is imported and type checked.

A case is `tests/golden/<case>/{proto/**, expected/**, errors.txt, options.txt}`; its .proto
files lie in a directory of its own name, so that all cases fit into one tree.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
GOLDEN = ROOT / "tests" / "golden"
BIN = Path(sys.executable).parent
CASES = sorted(path.parent.name for path in GOLDEN.glob("*/proto"))
ERRORS = [case for case in CASES if (GOLDEN / case / "errors.txt").exists()]
MODULES = [case for case in CASES if case not in ERRORS]
ENVIRONMENT = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}

BUF_GENERATE = """\
version: v2
plugins:
  - local: protoc-gen-protoflow
    out: out
    opt: [{options}]
inputs:
  - directory: proto
"""


def options(case: str) -> str:
    path = GOLDEN / case / "options.txt"
    return path.read_text().strip() if path.exists() else ""


def protos(case: str) -> list[str]:
    root = GOLDEN / case / "proto"
    return sorted(str(path.relative_to(root)) for path in root.rglob("*.proto"))


def run(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )


def by_protoc(case: str, out: Path, *outputs: str) -> subprocess.CompletedProcess[str]:
    out.mkdir(parents=True, exist_ok=True)
    plugin = f"--protoflow_out={options(case)}:{out}"
    return run(
        *(sys.executable, "-m", "grpc_tools.protoc", "-Iproto", f"-I{ROOT / 'proto'}"),
        *(plugin, *outputs, *protos(case)),
        cwd=GOLDEN / case,
    )


def by_buf(case: str, workspace: Path) -> subprocess.CompletedProcess[str]:
    shutil.copytree(GOLDEN / case / "proto", workspace / "proto")
    run("protoc-gen-protoflow", "--export-protos", "third_party", cwd=workspace)
    (workspace / "buf.yaml").write_text(
        "version: v2\nmodules: [{path: proto}, {path: third_party}]"
    )
    quoted = json.dumps(options(case)) if options(case) else ""
    (workspace / "buf.gen.yaml").write_text(BUF_GENERATE.format(options=quoted))
    return run("buf", "generate", cwd=workspace)


def tree(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): path.read_text(encoding="utf-8")
        for path in sorted(directory.rglob("*"))
        if path.suffix in (".py", ".yaml", ".json")
    }


@pytest.mark.parametrize("case", MODULES)
def test_protoc_makes_what_is_expected(
    case: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    result = by_protoc(case, tmp_path)
    assert result.returncode == 0, result.stderr
    expected = GOLDEN / case / "expected"
    if request.config.getoption("--update-golden", default=False):
        shutil.rmtree(expected, ignore_errors=True)
        shutil.copytree(tmp_path, expected)
    assert tree(tmp_path) == tree(expected)


@pytest.mark.parametrize("case", MODULES)
def test_buf_makes_the_same(case: str, tmp_path: Path) -> None:
    result = by_buf(case, tmp_path)
    assert result.returncode == 0, result.stderr
    assert tree(tmp_path / "out") == tree(GOLDEN / case / "expected")


@pytest.mark.parametrize("case", ERRORS)
def test_protoc_prints_all_errors(
    case: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    result = by_protoc(case, tmp_path)
    assert result.returncode == 1
    assert not tree(tmp_path)
    printed = result.stderr.removeprefix("--protoflow_out: ")
    expected = GOLDEN / case / "errors.txt"
    if request.config.getoption("--update-golden", default=False):
        expected.write_text(printed)
    assert printed == expected.read_text()


@pytest.mark.parametrize("case", ERRORS)
def test_buf_prints_the_same_errors(case: str, tmp_path: Path) -> None:
    result = by_buf(case, tmp_path)
    assert result.returncode != 0
    # Buf knows positions to the field, protoc to the option: the texts are compared alone.
    lines = (GOLDEN / case / "errors.txt").read_text().split("\n")
    texts = [line.partition(" ")[2] for line in lines if line]
    assert [text for text in texts if text not in result.stderr] == []


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All cases in one tree, beside their `_pb2` modules and stubs."""
    out = tmp_path_factory.mktemp("gen")
    for case in MODULES:
        result = by_protoc(case, out, f"--python_out={out}", f"--mypy_out={out}")
        assert result.returncode == 0, result.stderr
    # The case with import_prefix and import_map names modules that users move there.
    moved = out / "myapp" / "gen"
    shutil.copytree(out / "placed", moved / "placed")
    shutil.copytree(out / "placed" / "far", out / "elsewhere")
    return out


def modules(out: Path) -> list[str]:
    return sorted(
        str(path.relative_to(out).with_suffix("")).replace("/", ".")
        for path in out.rglob("*_protoflow.py")
        if "myapp" not in path.parts and "elsewhere" not in path.parts
    )


def test_modules_can_be_imported(generated: Path) -> None:
    names = modules(generated)
    assert len(names) >= 10
    code = "import importlib, sys\nfor name in sys.argv[1:]:\n    importlib.import_module(name)"
    result = run(sys.executable, "-W", "error", "-c", code, *names, cwd=generated)
    assert result.returncode == 0, result.stderr


def test_modules_are_as_black_leaves_them(generated: Path) -> None:
    files = [str(path) for path in generated.rglob("*_protoflow.py")]
    result = run(
        sys.executable, "-m", "black", "--check", "--quiet", "--diff", *files, cwd=generated
    )
    assert result.returncode == 0, result.stdout


def test_modules_pass_mypy_strict(generated: Path) -> None:
    config = generated / "mypy.ini"
    config.write_text(f"[mypy]\nstrict = true\nmypy_path = {ROOT / 'runtime'}\n")
    arguments = [argument for name in modules(generated) for argument in ("-m", name)]
    result = run(
        *(sys.executable, "-m", "mypy", "--config-file", str(config), "--explicit-package-bases"),
        *arguments,
        cwd=generated,
    )
    assert result.returncode == 0, result.stdout


def test_modules_pass_pyright_strict(generated: Path) -> None:
    (generated / "pyrightconfig.json").write_text(
        json.dumps(
            {
                "typeCheckingMode": "strict",
                "include": [f"{name.replace('.', '/')}.py" for name in modules(generated)],
                "extraPaths": [str(ROOT / "runtime")],
            }
        )
    )
    result = run(*(sys.executable, "-m", "pyright", "--pythonpath", sys.executable), cwd=generated)
    assert result.returncode == 0, result.stdout


def test_modules_import_nothing_else(generated: Path) -> None:
    allowed = {"abc", "builtins", "datetime", "collections", "__future__", "protoflow"}
    for path in generated.rglob("*_protoflow.py"):
        for line in path.read_text().splitlines():
            words = line.split()
            if words[:1] in (["import"], ["from"]) and not line.startswith(" "):
                assert words[1] in allowed or "_pb2" in line or line.endswith("("), line
