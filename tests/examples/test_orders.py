"""The orders example does what its README says."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.outside import outside

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


def environment(**variables: str) -> dict[str, str]:
    """The environment of a program of the example."""
    return {
        **outside(),
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "runtime"),
        **variables,
    }


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """A copy of the example as it is committed."""
    ignored = shutil.ignore_patterns("gen", "third_party", "__pycache__", "*.db*")
    return shutil.copytree(ROOT / "examples" / "orders", tmp_path / "orders", ignore=ignored)


@pytest.fixture
def run(example: Path) -> Callable[..., str]:
    def run(*command: object, **variables: str) -> str:
        done = subprocess.run(
            [str(part) for part in command],
            cwd=example,
            env=environment(**variables),
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    return run


@pytest.mark.parametrize("url", [None, "memory://demo"])
def test_the_demo_accounts_for_every_order(run: Callable[..., str], url: str | None) -> None:
    out = run("python", "demo.py", **({"PROTOFLOW_TRANSPORT": url} if url else {}))
    assert "dead letters replayed" in out
    assert out.rstrip().endswith("Every order is accounted for.")


def test_buf_generates_what_protoc_does(run: Callable[..., str], example: Path) -> None:
    run("protoc-gen-protoflow", "--export-protos", "third_party")
    run("buf", "lint")
    run("buf", "format", "--diff", "--exit-code")
    run("buf", "generate")
    by_buf = {path.name: path.read_text() for path in (example / "gen" / "shop" / "v1").iterdir()}
    shutil.rmtree(example / "gen")
    (example / "gen").mkdir()
    include = run("protoc-gen-protoflow", "--include").strip()
    run(
        *("python", "-m", "grpc_tools.protoc", "-Iproto", f"-I{include}", "--python_out=gen"),
        *("--pyi_out=gen", "--protoflow_out=gen", "proto/shop/v1/orders.proto"),
    )
    by_protoc = {path.name: path.read_text() for path in (example / "gen/shop/v1").iterdir()}
    # buf writes the JSON names of fields into descriptors, so the _pb2 modules differ.
    for same in ("orders_pb2.pyi", "orders_protoflow.py"):
        assert by_buf[same] == by_protoc[same]
    assert set(by_buf) == {"orders_pb2.py", "orders_pb2.pyi", "orders_protoflow.py"}


def test_the_example_is_typed(run: Callable[..., str], example: Path) -> None:
    (example / "gen").mkdir()
    include = run("protoc-gen-protoflow", "--include").strip()
    run(
        # The stubs of protoc itself are not strict.
        *("python", "-m", "grpc_tools.protoc", "-Iproto", f"-I{include}", "--python_out=gen"),
        *("--mypy_out=quiet:gen", "--protoflow_out=gen", "proto/shop/v1/orders.proto"),
    )
    path = f"{example}:{example / 'gen'}:{ROOT / 'runtime'}"
    run("mypy", "--strict", "service.py", "publish.py", "demo.py", MYPYPATH=path)


def test_the_example_tests_itself_and_finds_a_careless_bank(
    run: Callable[..., str], example: Path
) -> None:
    (example / "gen").mkdir()
    include = run("protoc-gen-protoflow", "--include").strip()
    run(
        *("python", "-m", "grpc_tools.protoc", "-Iproto", f"-I{include}", "--python_out=gen"),
        *("--protoflow_out=gen", "proto/shop/v1/orders.proto"),
    )
    pytest_here = ("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_orders.py")
    assert "passed" in run(*pytest_here, "--protoflow-seeds", 1)
    careless = (
        (example / "test_orders.py")
        .read_text()
        .replace(
            "self.charged.setdefault(order_id, [cents])",
            "self.charged.setdefault(order_id, []).append(cents)",
        )
    )
    (example / "test_orders.py").write_text(careless)
    done = subprocess.run(
        [sys.executable, *pytest_here[1:], "-k", "bad_days and sqlite or twice"],
        cwd=example, env=environment(), capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    assert done.returncode == 1
    assert "no_order_is_charged_twice: order-" in done.stdout
    assert "--protoflow-seed '" in done.stdout
    effect = "shop.v1.Orders.BillOrder has another effect when the message is delivered again"
    assert effect in done.stdout
