"""The example transport, used as a third party would: installed, then put through the suite."""

from __future__ import annotations

import ast
import io
import os
import re
import shutil
import subprocess
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.outside import outside

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "transport_directory"
MODULES = sorted((EXAMPLE / "protoflow_directory").glob("*.py"))
#: The packages whose names are public, as far as a transport needs them.
PUBLIC = {"protoflow.errors", "protoflow.message", "protoflow.transport"}
KIT = "protoflow.transport.kit."


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the installed distribution, and nothing else."""
    directory = tmp_path_factory.mktemp("site")
    source = directory / "source"
    shutil.copytree(EXAMPLE, source, ignore=shutil.ignore_patterns("__pycache__"))
    command = ("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation")
    target = directory / "installed"
    subprocess.run([sys.executable, *command, "--target", target, source], check=True, timeout=100)
    return target


@pytest.mark.timeout(400)
def test_the_installed_transport_passes_the_suite(installed: Path, tmp_path: Path) -> None:
    shutil.copytree(EXAMPLE / "tests", tmp_path / "tests")
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nasyncio_default_fixture_loop_scope = function\n"
    )
    command = ("-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "-n", "2", "tests")
    path = os.pathsep.join([str(installed), str(ROOT / "runtime")])
    done = subprocess.run(
        [sys.executable, *command],
        cwd=tmp_path, env={**outside(), "PYTHONPATH": path},
        capture_output=True, text=True, timeout=390,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    counts = Counter(
        {word: int(n) for n, word in re.findall(r"(\d+) (passed|skipped)", done.stdout)}
    )
    skips = re.findall(r"^SKIPPED \[\d+\] \S+ (.*)$", done.stdout, re.MULTILINE)
    assert all(reason.startswith("capability: ") for reason in skips), skips
    assert counts["skipped"] * 4 <= counts.total(), counts


def imports() -> Iterator[tuple[str, str]]:
    """Every name that the example imports, with its module."""
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                yield from ((node.module or "", alias.name) for alias in node.names)
            elif isinstance(node, ast.Import):
                yield from ((alias.name, "") for alias in node.names)


def test_it_imports_public_names_only() -> None:
    known = sys.stdlib_module_names
    for module, name in imports():
        top = module.partition(".")[0]
        if top in known or top == "protoflow_directory":
            continue
        if module == "protoflow":
            module = f"protoflow.{name}"
        assert module in PUBLIC or module.startswith(KIT), f"{module} is not public"
        assert not name.startswith("_"), f"{module}.{name} is not public"


def test_it_uses_no_private_attribute_of_the_runtime() -> None:
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and re.match(r"_(?!_|replace)", node.attr):
                owner = node.value
                assert isinstance(owner, ast.Name), f"{path.name}:{node.lineno}"
                assert owner.id == "self", f"{path.name}:{node.lineno}"


def test_it_has_at_most_350_lines() -> None:
    """Of code: no blank lines, comments and docstrings."""
    assert sum(map(lines_of_code, MODULES)) <= 350


def lines_of_code(path: Path) -> int:
    text = path.read_text()
    empty = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in empty and token.string:
            lines |= set(range(token.start[0], token.end[0] + 1))
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, documented) and ast.get_docstring(node):
            docstring = node.body[0]
            lines -= set(range(docstring.lineno, (docstring.end_lineno or 0) + 1))
    return len(lines)


def normalized(text: str) -> str:
    return "\n".join(filter(None, map(str.strip, text.splitlines())))


def test_the_guide_shows_the_program_as_it_is() -> None:
    guide = (ROOT / "docs" / "writing-a-transport.md").read_text()
    sources = [*MODULES, EXAMPLE / "tests" / "test_transport.py"]
    program = "\n".join(normalized(path.read_text()) for path in sources)
    shown = re.findall(r"^```python\n(.*?)^```$", guide, re.M | re.S)
    assert shown
    for block in shown:
        for part in re.split(r"\n\n\n", block):
            assert normalized(part) in program, part
