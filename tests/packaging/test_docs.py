"""The documentation: its tables are the code's, its code compiles, its first example runs."""

from __future__ import annotations

import ast
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from protoflow import Config, wire
from protoflow.v1 import options_pb2

from tests.packaging.conftest import ROOT

DOCUMENTS = [
    *(
        ROOT / f"{name}.md"
        for name in ("README", "DESIGN", "CONTRIBUTING", "CHANGELOG", "SECURITY")
    ),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "examples").glob("*/README.md")),
]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)


def blocks(document: Path, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return [text for name, text in FENCE.findall(document.read_text()) if name == language]


@pytest.fixture(params=DOCUMENTS, ids=[str(path.relative_to(ROOT)) for path in DOCUMENTS])
def document(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def test_tables_are_what_the_code_says() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "docs.py", "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_python_compiles(document: Path) -> None:
    for block in blocks(document, "python"):
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        compile(block, str(document), "exec", flags=flags | ast.PyCF_ONLY_AST, dont_inherit=True)


def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        path, _, anchor = target.partition("#")
        if "://" in path:
            continue
        found = document.parent / path if path else document
        assert found.exists(), f"{document.name}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", found.read_text(), re.M)
            slugs = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
            assert anchor in slugs, f"{document.name}: {target}"


def test_each_page_states_its_question_first() -> None:
    for path in sorted((ROOT / "docs").glob("*.md")):
        if path.stem in ("index", "README"):
            continue
        first = path.read_text().split("\n\n")[1]
        assert "?" in first.partition(". ")[0], path.name


def test_nobody_is_reported_to_install_a_stranger() -> None:
    for path in DOCUMENTS:
        assert not re.search(r"pip install (-\S+ )*'?protoflow", path.read_text()), path


def test_every_annotation_is_documented() -> None:
    text = (ROOT / "docs" / "annotations.md").read_text()
    words = set(re.findall(r"[A-Za-z_]+", text))
    missing = [
        f"{message.full_name}.{field.name}"
        for message in options_pb2.DESCRIPTOR.message_types_by_name.values()
        for field in message.fields
        if field.name not in words
    ]
    values = [
        value.name
        for enum in options_pb2.DESCRIPTOR.enum_types_by_name.values()
        for value in enum.values
        if value.number and value.name not in words
    ]
    assert not missing + values


def test_the_headers_of_the_runtime_are_documented_and_no_others() -> None:
    pages = ("wire", "delivery", "retries")
    written = "".join((ROOT / "docs" / f"{page}.md").read_text() for page in pages)
    code = "".join(path.read_text() for path in (ROOT / "runtime").rglob("*.py"))
    documented = set(re.findall(r"`(pf_[a-z_]+)`", written))
    assert documented <= set(re.findall(r'"(pf_[a-z_]+)"', code))
    headers = {value for name, value in vars(wire).items() if name.startswith("PF_")}
    assert headers - {wire.PF_PREFIX} <= documented


@pytest.mark.parametrize("name", ["README.md", "docs/getting-started.md"])
def test_the_first_example_runs(name: str, tmp_path: Path) -> None:
    """Word for word: its proto, its command, its service, its publisher."""
    document = ROOT / name
    proto = tmp_path / "proto" / "shop" / "v1" / "orders.proto"
    proto.parent.mkdir(parents=True)
    proto.write_text(blocks(document, "proto")[0])
    service, publisher = (
        next(block for block in blocks(document, "python") if word in block)
        for word in ("service.run()", "protoflow.connect(")
    )
    (tmp_path / "billing.py").write_text(service)
    (tmp_path / "order.py").write_text(publisher)
    generate = next(block for block in blocks(document, "sh") if "grpc_tools.protoc" in block)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": "gen",
        "PYTHONUNBUFFERED": "1",
    }

    def run(*command: str) -> str:
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("sh", "-ec", generate)
    published = run("python", "order.py").strip()
    assert re.fullmatch(r"[0-9A-HJKMNP-TV-Z]{26}", published)
    running = subprocess.Popen(
        ["python", "billing.py"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert running.stdout is not None
        assert running.stdout.readline() == "A-7: 1990 cents\n"
        running.send_signal(signal.SIGTERM)
        assert running.wait(20) == 0
    finally:
        running.kill()
        running.communicate()


#: What the whole programs are generated from: the first proto of the one, the protos of the other.
CONTRACTS = {"docs/getting-started.md": "orders", "docs/handlers.md": "parcels"}


def is_whole(block: str) -> bool:
    """Whether a block claims to be a module of its own: it begins with its imports."""
    return re.match(r"(#.*\n)*(import|from) ", block) is not None


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the modules that are generated from the documents' contracts."""
    directory = tmp_path_factory.mktemp("docs")
    protos = []
    for document, stem in CONTRACTS.items():
        proto = directory / "shop" / "v1" / f"{stem}.proto"
        proto.parent.mkdir(parents=True, exist_ok=True)
        proto.write_text(blocks(ROOT / document, "proto")[0])
        protos.append(str(proto))
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc", f"-I{directory}", f"-I{ROOT / 'proto'}"),
            f"--plugin=protoc-gen-protoflow={Path(sys.executable).parent / 'protoc-gen-protoflow'}",
            *(f"--{kind}_out={directory}" for kind in ("python", "pyi", "protoflow")),
            *protos,
        ],
        check=True,
    )
    return directory


def test_whole_blocks_run(document: Path, generated: Path) -> None:
    """Those that run for ever, or talk to a broker, have tests of their own."""
    whole = [
        block
        for block in blocks(document, "python")
        if is_whole(block) and "asyncio.run(" not in block
    ]
    program = f"for block in {whole!r}: print(block); exec(block, {{'__name__': 'block'}})"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=generated,
        env={**os.environ, "PYTHONPATH": str(generated)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{document.name}: the last of these:\n{done.stdout}{done.stderr}"


@pytest.mark.timeout(300)
def test_whole_blocks_that_newcomers_copy_are_typed(generated: Path) -> None:
    whole = [
        block
        for name in ("README.md", "docs/getting-started.md", "docs/handlers.md")
        for block in blocks(ROOT / name, "python")
        if is_whole(block)
    ]
    files = []
    for number, block in enumerate(whole):
        files.append(generated / f"block_{number}.py")
        files[-1].write_text(block)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-incremental", *files],
        cwd=generated,
        env={**os.environ, "MYPYPATH": str(generated)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_the_example_of_testing_runs(tmp_path: Path) -> None:
    getting_started = ROOT / "docs" / "getting-started.md"
    proto = tmp_path / "shop" / "v1" / "orders.proto"
    proto.parent.mkdir(parents=True)
    proto.write_text(blocks(getting_started, "proto")[0])
    bin_directory = Path(sys.executable).parent
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc", f"-I{tmp_path}", f"-I{ROOT / 'proto'}"),
            f"--plugin=protoc-gen-protoflow={bin_directory / 'protoc-gen-protoflow'}",
            *(f"--python_out={tmp_path}", f"--protoflow_out={tmp_path}", str(proto)),
        ],
        check=True,
    )
    example = next(
        block for block in blocks(ROOT / "docs" / "testing.md", "python") if "testing.run" in block
    )
    program = example + textwrap.dedent(
        """
        import asyncio
        asyncio.run(test_a_failed_bill_is_tried_again())
        """
    )
    started = time.monotonic()
    subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": str(tmp_path)}, check=True
    )
    assert time.monotonic() - started < 30


def test_the_configuration_file_is_valid(tmp_path: Path) -> None:
    (example,) = blocks(ROOT / "docs" / "configuration.md", "toml")
    file = tmp_path / "billing.toml"
    file.write_text(example)
    config = Config(file=file, environ={})
    assert config.namespace == "staging"
    assert config.defaults.retry.max_attempts == 3
    assert config.handlers["shop.v1.Orders.BillOrder"].concurrency == 64
